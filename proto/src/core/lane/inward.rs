//! The inward half: opens datagrams.

use std::collections::VecDeque;
use std::time::Instant;

use super::{
    Format, FramesIn, Head, Key, KeyRef, Name, Notice, ReceiveCommand, Received, Settings, Sink, Sort,
};
use crate::core::key_id::KeyId;
use crate::core::limits::{DERIVATION, OLD, SIGN_INTERVAL};
use crate::core::path::{Path, QUESTION};
use crate::core::rate::RateLimiter;
use crate::core::replay::Window;
use crate::core::replay_cache::ReplayCache;
use crate::core::stats::{DropReason, Stats};
use crate::crypto::aead::Aead;
use crate::crypto::keys::{MASK, Masks};
use crate::crypto::wrap;
use crate::wire::block::Reassembler;
use crate::wire::datagram::{Header, Kind};

/// Keys usually open at once in a link.
const OPEN: usize = 4;
/// Datagrams whose masks are computed together.
const TOGETHER: usize = 64;

struct ReceiveKey {
    name: Name,
    serial: u32,
    aead: Aead,
    window: Window,
    /// Whether the link knows that something authentic came under this key.
    heard: bool,
    blocks: Reassembler,
}

impl ReceiveKey {
    fn id(&self) -> KeyRef {
        match self.name {
            Name::KeyId(key_id) => KeyRef::KeyId(key_id),
            Name::Slot(_) => KeyRef::Session(self.serial),
        }
    }
}

/// Datagrams received together. Each is `stride` bytes long; the last may be shorter.
#[derive(Debug)]
pub struct Arrived<'a> {
    /// The datagrams, back to back; clobbered.
    pub bytes: &'a mut [u8],
    /// Length of all but the last, in bytes.
    pub stride: usize,
    /// ECN codepoint of their IP headers.
    pub ecn: u8,
    /// The path they came by.
    pub from: Path,
}

/// The path and mark of datagrams.
struct Origin {
    from: Path,
    ecn: u8,
    /// Whether the path is not the link's.
    strays: bool,
}

/// One lane's inward half.
pub struct Inward {
    settings: Settings,
    format: Format,
    receive: VecDeque<ReceiveKey>,
    handshakes: ReplayCache,
    /// The peer's frames and their rules.
    pub frames: FramesIn,
    /// Time of the newest key id ever live.
    newest: u64,
    /// Limits datagrams of older key ids that are not live.
    old: RateLimiter,
    /// When the peer was last seen in the other key mode.
    other_mode_at: Option<Instant>,
    masks: Masks,
}

impl Inward {
    /// No keys: nothing passes until the link provides some.
    pub fn new(settings: Settings) -> Self {
        Self {
            format: settings.format(),
            frames: FramesIn::new(settings.inner.clone()),
            settings,
            receive: VecDeque::with_capacity(OPEN),
            handshakes: ReplayCache::default(),
            newest: 0,
            old: RateLimiter::new(OLD, DERIVATION),
            other_mode_at: None,
            masks: Masks::with_capacity(TOGETHER),
        }
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.frames.stats;
        for key in &self.receive {
            add_key(&mut stats, key);
        }
        stats
    }

    /// Carries out the link's decision.
    pub fn handle_command(&mut self, now: Instant, command: ReceiveCommand, sink: &mut impl Sink) {
        match command {
            ReceiveCommand::Accept { key, after, named } => self.receive_under(&key, after, named.as_ref()),
            ReceiveCommand::Forget(name) => self.forget(|key| key.name == name),
            ReceiveCommand::WipeAll => self.wipe_all(),
            ReceiveCommand::Endpoint(endpoint) => self.frames.endpoint = Some(endpoint),
            ReceiveCommand::Agreed(agreed) => self.frames.agreed = agreed,
            ReceiveCommand::Sources(sources) => self.frames.inner.set_sources(sources),
            ReceiveCommand::Again(mut received) => {
                let origin = self.origin(received.from, 0);
                let Some(mask) = self.format.mask(&received.datagram) else { return };
                let result = self.open(now, &origin, &mut received.datagram, mask, true, sink);
                self.frames.count(result);
            }
            ReceiveCommand::Hold(held) => self.frames.inner.hold(held),
            ReceiveCommand::Probe(origin, round) => self.frames.probe(now, origin, round, sink),
        }
    }

    /// Opens datagrams received together.
    pub fn handle_datagrams(&mut self, now: Instant, arrived: Arrived<'_>, sink: &mut impl Sink) {
        let Arrived { bytes, stride, ecn, from } = arrived;
        let origin = self.origin(from, ecn);
        self.frames.inner.set_now(now);
        if bytes.is_empty() {
            self.frames.stats.drop(DropReason::TooShort);
            return;
        }
        let stride = stride.clamp(1, bytes.len());
        let mut masks = std::mem::take(&mut self.masks);
        for batch in bytes.chunks_mut(stride * TOGETHER) {
            self.format.masks(batch, stride, &mut masks);
            for (index, datagram) in batch.chunks_mut(stride).enumerate() {
                let result = self.handle_datagram(now, &origin, datagram, masks.get(index), sink);
                self.frames.count(result);
            }
        }
        self.masks = masks;
    }

    fn origin(&self, from: Path, ecn: u8) -> Origin {
        // Other lanes have ways of their own, along which they are asked (PROTOCOL.md §7.2).
        let strays = self.settings.lane == 0 && self.frames.strays(&from);
        Origin { from, ecn, strays }
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        origin: &Origin,
        datagram: &mut [u8],
        mask: [u8; MASK],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        match self.format.sort(datagram, self.frames.agreed) {
            Sort::Data => self.open(now, origin, datagram, mask, false, sink),
            Sort::Handshake => self.hand_over_handshake(origin.from, datagram, sink),
            Sort::OtherMode => self.notice_other_mode(now, origin.from, datagram.len(), sink),
        }
    }

    fn receive_under(&mut self, key: &Key, after: Option<u32>, named: Option<&KeyId>) {
        if let Key::KeyId(key_id) = key {
            self.newest = self.newest.max(key_id.time());
        }
        let name = key.name();
        self.forget(|former| former.name == name);
        let Some(aead) = self.settings.aead(1 - self.settings.direction, key, named) else { return };
        let after = after.filter(|_| self.settings.lane == 0);
        self.receive.push_front(ReceiveKey {
            name,
            serial: key.serial(),
            aead,
            window: after.map_or_else(Window::default, Window::after),
            heard: false,
            blocks: Reassembler::new(self.settings.max_frame),
        });
    }

    fn forget(&mut self, goes: impl Fn(&ReceiveKey) -> bool) {
        for key in self.receive.iter().filter(|key| goes(key)) {
            add_key(&mut self.frames.stats, key);
        }
        self.receive.retain(|key| !goes(key));
    }

    pub(super) fn wipe_all(&mut self) {
        self.forget(|_| true);
    }

    fn open(
        &mut self,
        now: Instant,
        origin: &Origin,
        datagram: &mut [u8],
        mask: [u8; MASK],
        again: bool,
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let head = self.format.head(&mask, datagram)?;
        let Head { name, header } = head;
        let Some(index) = self.receive.iter().position(|key| key.name == name) else {
            return match name {
                // Only datagrams in lane 0 can make a key id live.
                Name::KeyId(_) if again || self.settings.lane > 0 => Err(DropReason::Stale),
                Name::KeyId(key_id) => self.hand_over(now, key_id, origin.from, datagram, sink),
                Name::Slot(_) => Err(DropReason::Stranger),
            };
        };
        if header.lane != self.settings.lane && sink.stray(header.lane, datagram, origin.from, origin.ecn) {
            return Ok(());
        }
        if !self.format.is_sound(head, self.settings.lane) {
            return Err(DropReason::Malformed);
        }
        let key = &mut self.receive[index];
        if !key.window.admits(header.counter) {
            return Err(DropReason::Replayed);
        }
        let range = self.format.open(head, &key.aead, datagram)?;
        if !key.window.accept(header.counter) {
            return Err(DropReason::Replayed);
        }
        self.frames.stats.datagrams_in += 1;
        // If the queue is full, the next datagram tries again, lest the confirmation be lost.
        if let (false, Name::Slot(_)) = (key.heard, name) {
            key.heard = sink.notice(Notice::Confirmed { serial: key.serial });
        }
        let newest = key.window.is_newest(header.counter);
        let result = self.pass_on(index, header, origin, &datagram[range], sink);
        // The challenge must not be longer than its cause.
        let long_enough = datagram.len() >= self.format.overhead() + QUESTION;
        if newest && origin.strays && long_enough {
            self.frames.notice_move(now, origin.from, sink);
        }
        result
    }

    /// Passes on what was opened: to the device, the stream, or the link.
    fn pass_on(
        &mut self,
        index: usize,
        header: Header,
        &Origin { from, ecn, .. }: &Origin,
        body: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let (key, lane) = (&mut self.receive[index], self.settings.lane);
        if header.kind != Kind::Block {
            key.blocks.other(header.counter);
        }
        match header.kind {
            Kind::Block => {
                let frames = &mut self.frames;
                let mut forward = |frame: &[u8], ecn| frames.deliver(frame, ecn, sink);
                key.blocks.block(header.counter, ecn, body, &mut forward);
            }
            Kind::Frame if body.is_empty() || body.len() > self.settings.max_frame => {
                return Err(DropReason::TooBig);
            }
            Kind::Frame => self.frames.deliver(body, ecn, sink),
            Kind::Control | Kind::Reserved => {
                return sink.tell(Notice::Control { from, body: body.to_vec(), under: key.id(), lane });
            }
        }
        Ok(())
    }

    /// A datagram whose key id is not live: the link decides, if the check says that it is worth a key derivation.
    /// Recordings may come at wire speed and must not crowd out anything new.
    fn hand_over(
        &mut self,
        now: Instant,
        key_id: KeyId,
        from: Path,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        if !key_id.is_valid(&self.settings.keys) {
            return Err(DropReason::Stranger);
        }
        if key_id.time() <= self.newest && !self.old.allow(now) {
            return Err(DropReason::RateLimited);
        }
        let received = Received { from, datagram: datagram.to_vec() };
        sink.tell(Notice::Unknown { key_id, received })
    }

    /// Passes each handshake to the link once. Copies and forgeries end here, so that no amount of them crowds anything
    /// out.
    fn hand_over_handshake(
        &mut self,
        from: Path,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let random = *datagram.first_chunk().ok_or(DropReason::TooShort)?;
        if self.handshakes.contains(random) {
            return Err(DropReason::Replayed);
        }
        wrap::open(&self.settings.keys, datagram).ok_or(DropReason::BadTag)?;
        let received = Received { from, datagram: datagram.to_vec() };
        sink.tell(Notice::Handshake(received))?;
        self.handshakes.insert(random);
        Ok(())
    }

    /// Notes a datagram of the other key mode.
    fn notice_other_mode(
        &mut self,
        now: Instant,
        from: Path,
        length: usize,
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        if self.other_mode_at.is_none_or(|at| now.saturating_duration_since(at) >= SIGN_INTERVAL)
            && sink.notice(Notice::OtherMode { from, length })
        {
            self.other_mode_at = Some(now);
        }
        Err(DropReason::BadTag)
    }
}

/// Adds the counters of one key's window and reassembly.
fn add_key(stats: &mut Stats, key: &ReceiveKey) {
    stats.datagrams_lost += u64::from(key.window.missing());
    let drops = key.blocks.drops();
    stats.add(DropReason::Incomplete, drops.partial);
    stats.add(DropReason::TooBig, drops.oversize);
    stats.add(DropReason::Malformed, drops.malformed);
}
