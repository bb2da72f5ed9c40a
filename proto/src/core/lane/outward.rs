//! The outward half: seals frames of the device as datagrams.

use super::batch::{Batch, Train};
use super::orders::Name;
use super::{Format, FramesOut, Head, Key, KeySlot, SendCommand, Settings, Sink};
use crate::core::key_id::KeyId;
use crate::core::limits::{
    BLOCKS_END, BLOCKS_ROTATE, BUDGET_LEAST, COUNTER_END, COUNTER_ROTATE, DATAGRAM_MAX,
};
use crate::core::path::Path;
use crate::core::stats::DropReason;
use crate::crypto::aead::Aead;
use crate::wire::block::{Bodies, Packer};
use crate::wire::datagram::{Header, Kind};

struct SendKey {
    name: Name,
    aead: Aead,
    counter: u32,
    /// Cipher blocks sealed.
    blocks: u64,
}

/// One lane's outward half.
pub struct Outward {
    settings: Settings,
    format: Format,
    current: Option<SendKey>,
    next: Option<SendKey>,
    spare: Option<SendKey>,
    /// The device's frames and their rules.
    pub frames: FramesOut,
    /// Takes no key until the link has dropped its own: this may be a copy of the process that sent before, so the other copy may have
    /// any key prepared by then.
    closed: bool,
    /// This lane's own way, if any.
    way: Option<Path>,
    budget: usize,
    /// Whether a datagram longer than the minimum was sent since the last report.
    used_length: bool,
    packer: Packer,
    /// The stream has a frame that is split across datagrams.
    has_big: bool,
    batch: Batch,
}

impl Outward {
    /// No keys: nothing passes until the link provides some.
    pub fn new(settings: Settings) -> Self {
        Self {
            batch: Batch::new(settings.format()),
            format: settings.format(),
            current: None,
            next: None,
            spare: None,
            frames: FramesOut::new(settings.inner.clone(), settings.max_frame, settings.copy_dscp),
            closed: false,
            way: None,
            budget: BUDGET_LEAST,
            used_length: false,
            packer: Packer::default(),
            has_big: false,
            settings,
        }
    }

    /// Whether this is lane 0.
    pub(super) fn is_first(&self) -> bool {
        self.settings.lane == 0
    }

    /// Whether the current key is nearly used up, and whether a long datagram was sent since the last call.
    pub fn report(&mut self) -> (bool, bool) {
        self.frames.inner.renew();
        let used_up = self.current.as_ref().is_some_and(SendKey::is_nearly_used_up);
        (used_up, std::mem::take(&mut self.used_length))
    }

    /// Pretends that so many cipher blocks were sealed under the current key.
    #[cfg(test)]
    pub fn wear(&mut self, blocks: u64) {
        self.current.iter_mut().for_each(|key| key.blocks = blocks);
    }

    /// Carries out the link's decision.
    pub fn handle_command(&mut self, command: SendCommand, sink: &mut impl Sink) {
        if command == SendCommand::WipeAll {
            // A copy of this process may seal something else with the same counter, so nothing more is sealed.
            self.discard();
        }
        self.flush(sink);
        match command {
            SendCommand::Prepare(..) | SendCommand::Pair { .. } if self.closed => {}
            SendCommand::Prepare(slot, key) => *self.own(slot) = self.send_key(&key, None),
            SendCommand::Pair { slot, key, named } => {
                // Never begin a key twice.
                let keys = [&self.current, &self.next, &self.spare];
                let has = keys.into_iter().flatten().any(|own| own.name == key.name());
                if !has {
                    *self.own(slot) = self.send_key(&key, Some(&named));
                }
            }
            SendCommand::Switch(under) => match self.own(under).take() {
                Some(key) => self.current = Some(key),
                // The peer may drop the former key id at any time.
                None if self.settings.waits_for_pair() => self.current = None,
                None => {}
            },
            SendCommand::Wipe(under) => *self.own(under) = None,
            SendCommand::WipeAll => {
                (self.current, self.next, self.spare, self.closed) = (None, None, None, false);
            }
            SendCommand::Handshake(handshake) => sink.datagram(&handshake.datagram, handshake.from),
            SendCommand::Control { body, to, under, .. } => self.send_control(&body, to, under, sink),
            SendCommand::Way { way, .. } => self.way = way,
            SendCommand::Endpoint(endpoint) => {
                self.way = None;
                // Only lane 0 goes over streams.
                let takes = self.settings.lane == 0 || !endpoint.stream;
                self.frames.set_endpoint(takes.then_some(endpoint));
            }
            SendCommand::Agreed(agreed) => self.frames.agreed = agreed,
            SendCommand::Budget(budget) => {
                self.budget = budget.clamp(self.format.overhead() + 64, DATAGRAM_MAX)
            }
            SendCommand::Hold(held) => self.frames.inner.hold(held),
        }
    }

    /// Drops every key, and takes none until the link has dropped its own ([`SendCommand::WipeAll`]).
    pub fn close(&mut self, sink: &mut impl Sink) {
        self.handle_command(SendCommand::WipeAll, sink);
        self.closed = true;
    }

    /// Takes a frame of the device, in two consecutive parts (the second may be empty). It may wait until
    /// [`Outward::flush`], so that simultaneous frames share their cost.
    pub fn handle_frame(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        let length = head.len() + tail.len();
        let Some(class) = self.frames.pass(self.current.is_some(), head, tail, sink) else { return };
        if class != self.batch.class {
            self.flush(sink);
            self.batch.class = class;
        }
        let capacity = self.capacity();
        // Two of them fit in a datagram.
        let is_small = self.settings.bundle && 2 * length + 6 <= capacity;
        let joins = match self.packer.is_open() {
            true => is_small || self.has_big,
            false => is_small && self.batch.train.is_empty(),
        };
        if length > capacity || joins {
            self.has_big |= length > capacity;
            self.stream(|packer, bodies| packer.push([head, tail], bodies), sink);
        } else {
            self.end_stream(sink);
            self.place(head, tail, sink);
        }
    }

    fn send_key(&self, key: &Key, named: Option<&KeyId>) -> Option<SendKey> {
        let aead = self.settings.aead(self.settings.direction, key, named)?;
        Some(SendKey { name: key.name(), aead, counter: 0, blocks: 0 })
    }

    /// Sends waiting frames.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        self.end_stream(sink);
        self.send(sink);
    }

    /// Discards waiting frames.
    fn discard(&mut self) {
        self.packer = Packer::default();
        self.has_big = false;
        self.batch.train = Train::default();
    }

    /// Room for a datagram's body in bytes.
    fn capacity(&self) -> usize {
        self.budget - self.format.overhead()
    }

    /// Sends a frame as a datagram of its own.
    fn place(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        let length = head.len() + tail.len();
        if !self.batch.takes(length) {
            self.send(sink);
        }
        let body = self.batch.body(length);
        let (front, back) = body.split_at_mut(head.len());
        front.copy_from_slice(head);
        back.copy_from_slice(tail);
        self.seal_next(Kind::Frame, length, sink);
    }

    fn stream<S: Sink>(&mut self, pack: impl FnOnce(&mut Packer, &mut Stream<'_, S>), sink: &mut S) {
        let mut packer = std::mem::take(&mut self.packer);
        let capacity = self.capacity();
        if !packer.is_open() && !self.batch.takes_more(capacity) {
            self.send(sink);
        }
        pack(&mut packer, &mut Stream { outward: self, capacity, sink });
        self.packer = packer;
    }

    fn end_stream(&mut self, sink: &mut impl Sink) {
        if !self.packer.is_open() {
            return;
        }
        self.has_big = false;
        if let Some(frame) = self.packer.only_frame() {
            // A single frame needs no stream.
            self.packer = Packer::default();
            let length = frame.len();
            self.batch.body(frame.end).copy_within(frame, 0);
            self.seal_next(Kind::Frame, length, sink);
        } else {
            self.stream(|packer, bodies| packer.finish(bodies), sink);
        }
    }

    /// Seals the body of `length` bytes at the batch's end.
    fn seal_next(&mut self, kind: Kind, length: usize, sink: &mut impl Sink) {
        let Some(key) = self.current.as_mut().filter(|key| key.lasts()) else {
            self.frames.stats.drop(DropReason::NoPeer);
            return;
        };
        let head = key.next(kind, self.settings.lane, length);
        if self.batch.add(head, &key.aead, length).is_err() {
            self.frames.stats.drop(DropReason::TooBig);
            return;
        }
        self.frames.stats.datagrams_out += 1;
        self.used_length |= self.format.overhead() + length > BUDGET_LEAST;
        if self.batch.train.is_full() {
            self.send(sink);
        }
    }

    fn send(&mut self, sink: &mut impl Sink) {
        if let (Some(to), false) = (self.way.or(self.frames.endpoint), self.batch.train.is_empty()) {
            sink.transmit(self.batch.finish(to));
        }
        self.batch.train = Train::default();
    }

    fn own(&mut self, under: KeySlot) -> &mut Option<SendKey> {
        match under {
            KeySlot::Current => &mut self.current,
            KeySlot::Next => &mut self.next,
            KeySlot::Unconfirmed => &mut self.spare,
        }
    }

    fn send_control(&mut self, body: &[u8], to: Path, under: KeySlot, sink: &mut impl Sink) {
        let own = match under {
            KeySlot::Next if self.next.is_some() => &mut self.next,
            KeySlot::Unconfirmed if self.spare.is_some() => &mut self.spare,
            KeySlot::Current | KeySlot::Next | KeySlot::Unconfirmed => &mut self.current,
        };
        let Some(key) = own.as_mut().filter(|key| key.lasts()) else {
            self.frames.stats.drop(DropReason::NoPeer);
            return;
        };
        let head = key.next(Kind::Control, self.settings.lane, body.len());
        if let Ok(datagram) = self.format.datagram(head, &key.aead, body) {
            self.frames.stats.datagrams_out += 1;
            sink.datagram(&datagram, to);
        }
    }
}

impl SendKey {
    fn lasts(&self) -> bool {
        self.counter < COUNTER_END && self.blocks < BLOCKS_END
    }

    fn is_nearly_used_up(&self) -> bool {
        self.counter >= COUNTER_ROTATE || self.blocks >= BLOCKS_ROTATE
    }

    /// Makes the next datagram's head, for a body of `length` bytes.
    fn next(&mut self, kind: Kind, lane: u8, length: usize) -> Head {
        let slot = match self.name {
            Name::KeyId(_) => 0,
            Name::Slot(slot) => slot,
        };
        let header = Header { slot, kind, lane, counter: self.counter };
        self.counter += 1;
        // Blocks of the body, and one for the header.
        self.blocks += length.div_ceil(16) as u64 + 1;
        Head { name: self.name, header }
    }
}

/// Writes the stream of frames as bodies at the batch's end.
struct Stream<'a, S> {
    outward: &'a mut Outward,
    capacity: usize,
    sink: &'a mut S,
}

impl<S: Sink> Bodies for Stream<'_, S> {
    fn body(&mut self) -> &mut [u8] {
        self.outward.batch.body(self.capacity)
    }

    fn close(&mut self, length: usize) {
        self.outward.seal_next(Kind::Block, length, self.sink);
    }
}
