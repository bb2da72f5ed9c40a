//! Reassembles frames from bodies in any order.

use super::{MAX_AHEAD, MAX_BODY, MAX_FRAME, OFFSET};
use crate::packet::traffic_class::stronger;

/// Counts what a [`Reassembler`] dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Frames begun but never completed.
    pub partial: u64,
    /// Bodies with a length above the agreed frame size; the rest of them was dropped.
    pub oversize: u64,
    /// Bodies of invalid length.
    pub malformed: u64,
}

/// Takes a frame and the strongest ECN codepoint of the datagrams that carried parts of it.
pub type Deliver<'a> = &'a mut dyn FnMut(&[u8], u8);

/// Reassembles the bodies under one key of one lane into frames.
///
/// It must be told of every authentic datagram under that key: by [`Reassembler::block`] of stream blocks, by
/// [`Reassembler::other`] of all others. A frame that lies whole in a body is delivered at once, a split one as soon as
/// its last part arrives. So nothing waits for what may be lost, and frames are reordered only if their datagrams were. A
/// part waits for its neighbours until the counter it needs is more than [`MAX_AHEAD`] behind the newest.
///
/// Each counter should be given at most once (the replay window ensures that). A repeated one corrupts no frame and takes
/// no more memory, but its whole frames are delivered again.
#[derive(Debug)]
pub struct Reassembler {
    max_frame: usize,
    /// The highest counter received.
    newest: u64,
    /// Frames whose start has arrived.
    pub(super) begun: Pool<Begun>,
    /// Continuations whose preceding part is missing.
    pub(super) parts: Pool<Part>,
    drops: Drops,
}

/// A frame whose start has arrived.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Counter of its next part.
    next: u64,
    /// Number of missing bytes.
    missing: usize,
    /// ECN of the parts so far.
    ecn: u8,
    pub(super) bytes: Vec<u8>,
}

/// A body's continuation of an earlier frame.
#[derive(Debug, Default)]
pub(super) struct Part {
    counter: u64,
    /// Bytes of the frame that were still missing.
    offset: usize,
    ecn: u8,
    pub(super) bytes: Vec<u8>,
}

impl Reassembler {
    /// Grows as needed up to one frame of `max_frame` bytes and a body for each counter that may be waited for. It starts empty, as most
    /// keys never need more than one frame.
    pub fn new(max_frame: usize) -> Self {
        Self {
            max_frame: max_frame.min(MAX_FRAME),
            newest: 0,
            begun: Pool::new(MAX_AHEAD + 2),
            parts: Pool::new(MAX_AHEAD),
            drops: Drops::default(),
        }
    }

    /// Handles the body of an authentic stream block; its datagram had the codepoint `ecn`.
    pub fn block(&mut self, counter: u32, ecn: u8, body: &[u8], deliver: Deliver<'_>) {
        if !(OFFSET..=MAX_BODY).contains(&body.len()) {
            self.drops.malformed += 1;
            return self.other(counter);
        }
        let counter = u64::from(counter);
        self.advance(counter);
        let (offset, stream) = split(body);
        let (part, stream) = stream.split_at(offset.min(stream.len()));
        if let Some(index) = self.expecting(counter) {
            self.add(index, offset, ecn, part, deliver);
        } else if offset > 0 {
            self.keep(counter, offset, ecn, part);
        }
        if let Some((part, missing)) = self.whole_frames(ecn, stream, deliver) {
            self.begin(counter + 1, missing, ecn, part, deliver);
        }
    }

    /// Notes an authentic datagram that is not a stream block.
    pub fn other(&mut self, counter: u32) {
        let counter = u64::from(counter);
        self.advance(counter);
        if let Some(index) = self.expecting(counter) {
            self.give_up(index);
        }
    }

    /// Returns the drops so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Drops what needs a counter that is too far behind.
    fn advance(&mut self, counter: u64) {
        if counter <= self.newest {
            return;
        }
        self.newest = counter;
        let least = self.least();
        while let Some(index) = self.begun.position(|begun| begun.next < least) {
            self.give_up(index);
        }
        while let Some(index) = self.parts.position(|part| part.counter <= least) {
            self.parts.free(index);
        }
    }

    /// Lowest counter that is still waited for.
    fn least(&self) -> u64 {
        self.newest.saturating_sub(MAX_AHEAD as u64)
    }

    /// The frame that continues with this counter.
    fn expecting(&self, counter: u64) -> Option<usize> {
        self.begun.position(|begun| begun.next == counter)
    }

    fn give_up(&mut self, index: usize) {
        self.drops.partial += 1;
        self.begun.free(index);
    }

    /// Begins a frame with this part; it continues with the counter `next`.
    fn begin(&mut self, next: u64, missing: usize, ecn: u8, part: &[u8], deliver: Deliver<'_>) {
        let is_new = next >= self.least() && self.expecting(next).is_none();
        let Some((index, begun)) = is_new.then(|| self.begun.take()).flatten() else {
            self.drops.partial += 1;
            return;
        };
        (begun.next, begun.missing, begun.ecn) = (next, missing, ecn);
        begun.bytes.clear();
        begun.bytes.reserve_exact(self.max_frame);
        begun.bytes.extend_from_slice(part);
        self.go_on(index, deliver);
    }

    /// Keeps a part until its predecessor comes.
    fn keep(&mut self, counter: u64, offset: usize, ecn: u8, bytes: &[u8]) {
        let is_new = counter > self.least() && self.parts.position(|part| part.counter == counter).is_none();
        let Some((_, part)) = is_new.then(|| self.parts.take()).flatten() else { return };
        (part.counter, part.offset, part.ecn) = (counter, offset, ecn);
        part.bytes.clear();
        part.bytes.reserve_exact(bytes.len());
        part.bytes.extend_from_slice(bytes);
    }

    /// Adds an expected part and any later ones that came before it.
    fn add(&mut self, index: usize, offset: usize, ecn: u8, bytes: &[u8], deliver: Deliver<'_>) {
        if self.begun.items[index].add(offset, ecn, bytes) {
            self.go_on(index, deliver);
        } else {
            self.give_up(index);
        }
    }

    /// Adds available parts to a frame, and delivers it if complete.
    fn go_on(&mut self, index: usize, deliver: Deliver<'_>) {
        let begun = &mut self.begun.items[index];
        while begun.missing > 0 {
            let Some(found) = self.parts.position(|part| part.counter == begun.next) else { return };
            let part = &self.parts.items[found];
            let fits = begun.add(part.offset, part.ecn, &part.bytes);
            self.parts.free(found);
            if !fits {
                return self.give_up(index);
            }
        }
        deliver(&begun.bytes, begun.ecn);
        self.begun.free(index);
    }

    /// Delivers the whole frames in `stream`. Returns the start of an incomplete one and its number of missing bytes.
    fn whole_frames<'b>(
        &mut self,
        ecn: u8,
        mut stream: &'b [u8],
        deliver: Deliver<'_>,
    ) -> Option<(&'b [u8], usize)> {
        loop {
            let (length, rest) = split(stream);
            if length == 0 || rest.is_empty() {
                return None;
            }
            if length > self.max_frame {
                self.drops.oversize += 1;
                return None;
            }
            let Some((frame, rest)) = rest.split_at_checked(length) else {
                return Some((rest, length - rest.len()));
            };
            deliver(frame, ecn);
            stream = rest;
        }
    }
}

impl Begun {
    /// Adds the next body's continuation. False: it belongs to another frame.
    fn add(&mut self, offset: usize, ecn: u8, bytes: &[u8]) -> bool {
        if offset != self.missing {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.missing -= bytes.len();
        self.ecn = stronger(self.ecn, ecn);
        self.next += 1;
        true
    }
}

/// Reusable items, allocated once; those in use come first.
#[derive(Debug)]
pub(super) struct Pool<T> {
    pub(super) items: Vec<T>,
    pub(super) used: usize,
}

impl<T: Default> Pool<T> {
    fn new(count: usize) -> Self {
        Self { items: std::iter::repeat_with(T::default).take(count).collect(), used: 0 }
    }

    fn position(&self, is_it: impl FnMut(&T) -> bool) -> Option<usize> {
        self.items[..self.used].iter().position(is_it)
    }

    /// Takes an unused item with its index; `None`: all are in use.
    fn take(&mut self) -> Option<(usize, &mut T)> {
        let index = self.used;
        let item = self.items.get_mut(index)?;
        self.used += 1;
        Some((index, item))
    }

    fn free(&mut self, index: usize) {
        self.used -= 1;
        if index < self.used {
            self.items.swap(index, self.used);
        }
    }
}

/// Splits off the first two bytes as a number; with fewer, returns nothing.
fn split(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first_chunk() {
        Some((number, rest)) => (u16::from_be_bytes(*number).into(), rest),
        None => (0, &[]),
    }
}
