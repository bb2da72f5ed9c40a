//! Bodies into frames, whatever order they come in.

use std::time::Instant;

use super::{HOLD, MAX_AHEAD, MAX_BODY, MAX_FRAME, OFFSET};
use crate::packet::traffic_class::stronger;

/// What a [`Reassembler`] threw away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Frames begun and never finished.
    pub partial: u64,
    /// Bodies with a length above the agreed frame size; their rest was dropped.
    pub oversize: u64,
    /// Bodies too short or too long to be one.
    pub malformed: u64,
}

/// Takes a frame and the strongest ECN codepoint of the datagrams that carried parts of it.
pub type Deliver<'a> = &'a mut dyn FnMut(&[u8], u8);

/// Makes frames of the bodies that came under one key of one lane.
///
/// It must be told of every authentic datagram under that key: [`Reassembler::block`] for stream blocks,
/// [`Reassembler::other`] for all else. `next` is the lowest counter it has not heard of; the one partial
/// frame always waits for `next`. A block that comes early is held until those before it came, until
/// [`HOLD`] passed, or until `next` lags by more than [`MAX_AHEAD`]; then the missing are given up.
/// While no frame is partial, early blocks that need nothing from before them pass at once.
///
/// In each call frames are delivered in the order of their counters. Each counter is to be given at
/// most once (the replay window sees to that); a repeated one never corrupts a frame, but an old one
/// delivers its whole frames again.
#[derive(Debug)]
pub struct Reassembler {
    next: u64,
    /// Bit i: counter `next` + i is settled; nothing of it is needed any more.
    settled: u64,
    pub(super) held: Vec<Held>,
    pub(super) held_count: usize,
    pub(super) assembly: Assembly,
}

/// A place for one early block: that of counter c is c modulo [`MAX_AHEAD`].
#[derive(Debug)]
pub(super) struct Held {
    /// Its counter, and when it must go; `None`: the place is free.
    pub(super) waiting: Option<(u64, Instant)>,
    /// Bytes of an earlier frame at the front.
    head: usize,
    /// Bytes missing of the last frame.
    tail: usize,
    /// ECN of its datagram.
    ecn: u8,
    pub(super) body: Vec<u8>,
}

impl Reassembler {
    /// Reserves all memory it will ever use: one frame of `max_frame` bytes and [`MAX_AHEAD`] bodies.
    pub fn new(max_frame: usize) -> Self {
        let free = || Held { waiting: None, head: 0, tail: 0, ecn: 0, body: Vec::with_capacity(MAX_BODY) };
        Self {
            next: 0,
            settled: 0,
            held: std::iter::repeat_with(free).take(MAX_AHEAD).collect(),
            held_count: 0,
            assembly: Assembly::new(max_frame.min(MAX_FRAME)),
        }
    }

    /// Takes the body of an authentic stream block that came in a datagram with the codepoint `ecn`.
    pub fn block(&mut self, now: Instant, counter: u32, ecn: u8, body: &[u8], deliver: Deliver<'_>) {
        let counter = u64::from(counter);
        if !(OFFSET..=MAX_BODY).contains(&body.len()) {
            self.assembly.drops.malformed += 1;
            return self.settle_one(counter, deliver);
        }
        if counter < self.next {
            return self.assembly.late(ecn, body, deliver);
        }
        self.make_room(counter, deliver);
        if counter == self.next {
            self.assembly.take(ecn, body, deliver);
            self.step();
        } else if !self.is_settled(counter) && !self.is_held(counter) {
            self.hold(now.checked_add(HOLD).unwrap_or(now), counter, ecn, body);
        }
        self.settle(deliver);
    }

    /// Takes note of an authentic datagram that is no stream block.
    pub fn other(&mut self, counter: u32, deliver: Deliver<'_>) {
        self.settle_one(u64::from(counter), deliver);
    }

    /// When [`Reassembler::handle_timeout`] is to be called; `None` while nothing is held.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.held_count == 0 {
            return None;
        }
        self.held.iter().filter_map(|held| held.waiting).map(|(_, deadline)| deadline).min()
    }

    /// Gives up what blocks held since [`HOLD`] or longer wait for, lowest counter first.
    pub fn handle_timeout(&mut self, now: Instant, deliver: Deliver<'_>) {
        while self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let Some(lowest) = self.lowest_held() else { return };
            self.give_up(lowest);
            self.settle(deliver);
        }
    }

    /// What was thrown away so far.
    pub fn drops(&self) -> Drops {
        self.assembly.drops
    }

    /// Settles a counter that brings no frames.
    fn settle_one(&mut self, counter: u64, deliver: Deliver<'_>) {
        if counter < self.next {
            return;
        }
        self.make_room(counter, deliver);
        if !self.is_held(counter) {
            self.mark(counter);
        }
        self.settle(deliver);
    }

    /// Gives up counters until `counter` is at most [`MAX_AHEAD`] ahead of `next`.
    fn make_room(&mut self, counter: u64, deliver: Deliver<'_>) {
        let least = counter.saturating_sub(MAX_AHEAD as u64);
        while self.next < least {
            let lowest = self.lowest_held().unwrap_or(least);
            self.give_up(lowest.min(least));
            self.settle(deliver);
        }
    }

    /// Goes as far as possible without giving anything up.
    fn settle(&mut self, deliver: Deliver<'_>) {
        loop {
            if self.is_held(self.next) {
                self.release(self.next, deliver);
                self.step();
            } else if self.is_settled(self.next) {
                self.assembly.drop_partial();
                self.step();
            } else if let Some((first, last)) = self.complete_chain() {
                (first..=last).for_each(|counter| {
                    self.release(counter, deliver);
                    self.mark(counter);
                });
                self.assembly.drop_partial();
            } else {
                return;
            }
        }
    }

    /// Early blocks, first and last, that need nothing from before the first or after the last.
    fn complete_chain(&self) -> Option<(u64, u64)> {
        if self.held_count == 0 || self.assembly.missing > 0 {
            return None;
        }
        let starts = self.window().filter(|first| match self.get(*first) {
            Some(held) => held.head == 0 || self.is_settled(first - 1),
            None => false,
        });
        starts.filter_map(|first| Some((first, self.chain_end(first)?))).next()
    }

    fn chain_end(&self, first: u64) -> Option<u64> {
        let mut last = first;
        loop {
            let tail = self.get(last)?.tail;
            if tail == 0 || self.is_settled(last + 1) {
                return Some(last);
            }
            if self.get(last + 1)?.head != tail {
                return Some(last);
            }
            last += 1;
        }
    }

    /// Moves `next` up to `counter`.
    fn give_up(&mut self, counter: u64) {
        self.assembly.drop_partial();
        let distance = u32::try_from(counter.saturating_sub(self.next)).unwrap_or(u32::MAX);
        self.settled = self.settled.checked_shr(distance).unwrap_or(0);
        self.next = counter;
    }

    fn step(&mut self) {
        self.settled >>= 1;
        self.next += 1;
    }

    /// `counter` is at most 63 ahead of `next`; one behind it is settled already.
    fn mark(&mut self, counter: u64) {
        if let Some(ahead) = counter.checked_sub(self.next) {
            self.settled |= 1 << ahead;
        }
    }

    fn is_settled(&self, counter: u64) -> bool {
        counter.checked_sub(self.next).is_none_or(|ahead| self.settled >> ahead & 1 == 1)
    }

    fn hold(&mut self, deadline: Instant, counter: u64, ecn: u8, body: &[u8]) {
        let (head, tail) = self.assembly.ends(body);
        if let Some(place) = self.held.get_mut(place_of(counter)) {
            place.waiting = Some((counter, deadline));
            (place.head, place.tail, place.ecn) = (head, tail, ecn);
            place.body.clear();
            place.body.extend_from_slice(body);
            self.held_count += 1;
        }
    }

    fn release(&mut self, counter: u64, deliver: Deliver<'_>) {
        if let Some(place) = self.held.get_mut(place_of(counter)) {
            place.waiting = None;
            self.held_count -= 1;
            self.assembly.take(place.ecn, &place.body, deliver);
        }
    }

    fn get(&self, counter: u64) -> Option<&Held> {
        let place = self.held.get(place_of(counter))?;
        place.waiting.is_some_and(|(of, _)| of == counter).then_some(place)
    }

    fn is_held(&self, counter: u64) -> bool {
        self.get(counter).is_some()
    }

    /// The counters whose blocks may be held.
    fn window(&self) -> std::ops::RangeInclusive<u64> {
        self.next + 1..=self.next + MAX_AHEAD as u64
    }

    fn lowest_held(&self) -> Option<u64> {
        if self.held_count == 0 {
            return None;
        }
        self.window().find(|counter| self.is_held(*counter))
    }
}

fn place_of(counter: u64) -> usize {
    (counter % MAX_AHEAD as u64) as usize
}

/// The partial frame, fed with bodies in the order of their counters.
#[derive(Debug)]
pub(super) struct Assembly {
    max_frame: usize,
    /// What is there of the partial frame.
    pub(super) frame: Vec<u8>,
    /// What is missing of it; 0: there is none.
    missing: usize,
    /// ECN of what is there of it.
    ecn: u8,
    drops: Drops,
}

impl Assembly {
    fn new(max_frame: usize) -> Self {
        Self { max_frame, frame: Vec::with_capacity(max_frame), missing: 0, ecn: 0, drops: Drops::default() }
    }

    /// Takes the body that follows the one before.
    fn take(&mut self, ecn: u8, body: &[u8], deliver: Deliver<'_>) {
        let (offset, mut stream) = split(body);
        if self.missing == 0 || offset != self.missing {
            self.drop_partial();
            stream = stream.get(offset..).unwrap_or_default();
        } else if let Some((part, rest)) = stream.split_at_checked(offset) {
            self.frame.extend_from_slice(part);
            self.missing = 0;
            deliver(&self.frame, stronger(self.ecn, ecn));
            stream = rest;
        } else {
            self.frame.extend_from_slice(stream);
            self.missing -= stream.len();
            self.ecn = stronger(self.ecn, ecn);
            return;
        }
        if let Some((part, missing)) = self.whole_frames(ecn, stream, deliver) {
            self.frame.clear();
            self.frame.extend_from_slice(part);
            (self.missing, self.ecn) = (missing, ecn);
        }
    }

    /// Takes the body of a counter that was given up: what needs no other body.
    fn late(&mut self, ecn: u8, body: &[u8], deliver: Deliver<'_>) {
        let (offset, stream) = split(body);
        if self.whole_frames(ecn, stream.get(offset..).unwrap_or_default(), deliver).is_some() {
            self.drops.partial += 1;
        }
    }

    fn drop_partial(&mut self) {
        if self.missing > 0 {
            self.missing = 0;
            self.drops.partial += 1;
        }
    }

    /// Delivers the frames that lie whole in `stream`; returns the beginning of one that does not, and
    /// how many bytes are missing of it.
    fn whole_frames<'b>(
        &mut self,
        ecn: u8,
        mut stream: &'b [u8],
        deliver: Deliver<'_>,
    ) -> Option<(&'b [u8], usize)> {
        loop {
            match Piece::first(stream, self.max_frame) {
                Piece::Whole { frame, rest } => {
                    deliver(frame, ecn);
                    stream = rest;
                }
                Piece::Begun { part, missing } => return Some((part, missing)),
                Piece::Padding => return None,
                Piece::Oversize => {
                    self.drops.oversize += 1;
                    return None;
                }
            }
        }
    }

    /// How many bytes of an earlier frame are missing before this body, and of its last one after it.
    fn ends(&self, body: &[u8]) -> (usize, usize) {
        let (head, stream) = split(body);
        let Some(mut stream) = stream.get(head..) else {
            return (head, head - stream.len());
        };
        loop {
            match Piece::first(stream, self.max_frame) {
                Piece::Whole { rest, .. } => stream = rest,
                Piece::Begun { missing, .. } => return (head, missing),
                Piece::Padding | Piece::Oversize => return (head, 0),
            }
        }
    }
}

/// What a stream begins with, at a place where a length is due.
enum Piece<'a> {
    Whole { frame: &'a [u8], rest: &'a [u8] },
    Begun { part: &'a [u8], missing: usize },
    Padding,
    Oversize,
}

impl<'a> Piece<'a> {
    fn first(stream: &'a [u8], max_frame: usize) -> Self {
        let (length, rest) = split(stream);
        if length == 0 || rest.is_empty() {
            return Piece::Padding;
        }
        if length > max_frame {
            return Piece::Oversize;
        }
        match rest.split_at_checked(length) {
            Some((frame, rest)) => Piece::Whole { frame, rest },
            None => Piece::Begun { part: rest, missing: length - rest.len() },
        }
    }
}

/// The two bytes at the front as a number, and what follows; of fewer bytes: nothing.
fn split(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first_chunk() {
        Some((number, rest)) => (u16::from_be_bytes(*number).into(), rest),
        None => (0, &[]),
    }
}
