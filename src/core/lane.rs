//! The bulk path of one worker: frames to datagrams and back, as pure functions on buffers.
//!
//! A lane owns its keys, counters, replay windows and reassembly; nothing of it is shared. What is not
//! frames goes to the link as a [`Notice`]; what the link decides comes back as a [`Command`].

mod opening;
mod orders;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::inner::Inner;
use super::limits::{BUDGET_BASE, COUNTER_END, DATAGRAM_MAX, INITIATION, SID_PREVIOUS};
use super::path::Path;
use super::replay::Window;
use super::seen::Seen;
use super::stats::{Drop, Stats};
use crate::config::Cipher;
use crate::crypto::aead::Aead;
use crate::crypto::keys::{LinkKeys, MASK};
use crate::crypto::wrap;
use crate::wire::block::{Packer, Reassembler};
use crate::wire::datagram::{Framing, HEADER, Header, Kind, SID};

pub use opening::unmask;
pub use orders::{Command, Key, Notice, Received, Report, Sink, Under};

use orders::Name;

/// Live sids of static mode: the current and the previous one, and one more while the peer changes its
/// mind.
const LIVE: usize = 3;

/// What a lane is made of and does not change.
pub struct Settings {
    /// Keys of the link.
    pub keys: Arc<LinkKeys>,
    /// What stands before the body of a datagram.
    pub framing: Framing,
    /// Static mode: the AEAD both ways.
    pub cipher: Cipher,
    /// Static mode: the direction this end sends in.
    pub direction: u8,
    /// The lane's number, 0 to 15.
    pub lane: u8,
    /// Largest frame the device carries, in bytes.
    pub max_frame: usize,
    /// Pack several small waiting frames into one datagram.
    pub bundle: bool,
    /// The rules for inner packets.
    pub inner: Inner,
}

struct SendKey {
    name: Name,
    aead: Aead,
    counter: u32,
}

struct ReceiveKey {
    name: Name,
    serial: u32,
    aead: Aead,
    window: Window,
    /// Whether the link knows that something authentic came under it.
    heard: bool,
    blocks: Reassembler,
    /// When it ends, if that is known.
    until: Option<Instant>,
}

/// One worker's share of a link.
pub struct Lane {
    settings: Settings,
    current: Option<SendKey>,
    next: Option<SendKey>,
    spare: Option<SendKey>,
    aside: Option<SendKey>,
    receive: VecDeque<ReceiveKey>,
    handshakes: Seen,
    endpoint: Option<Path>,
    agreed: bool,
    budget: usize,
    moved_at: Option<Instant>,
    /// When the peer was last seen to use the other key mode.
    other_mode_at: Option<Instant>,
    /// Whether the link knows that its own datagrams come out of the device.
    looped: bool,
    /// Whether a datagram longer than the base went out since the last report.
    used_length: bool,
    buffer: Vec<u8>,
    stats: Stats,
}

impl Lane {
    /// A lane without keys: nothing passes until the link says so.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            current: None,
            next: None,
            spare: None,
            aside: None,
            receive: VecDeque::with_capacity(LIVE + 1),
            handshakes: Seen::default(),
            endpoint: None,
            agreed: false,
            budget: BUDGET_BASE,
            moved_at: None,
            other_mode_at: None,
            looped: false,
            used_length: false,
            buffer: vec![0; DATAGRAM_MAX],
            stats: Stats::default(),
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for key in &self.receive {
            add_block_drops(&mut stats, &key.blocks);
        }
        stats
    }

    /// What the link must know once a second.
    pub fn report(&mut self) -> Report {
        self.settings.inner.renew();
        Report {
            stats: self.stats(),
            sent_under_key: self.current.as_ref().map_or(0, |key| key.counter),
            used_length: std::mem::take(&mut self.used_length),
        }
    }

    /// Carries out what the link decided.
    pub fn handle_command(&mut self, now: Instant, command: Command, sink: &mut impl Sink) {
        match command {
            Command::Prepare(under, key) => *self.own(under) = Some(self.send_key(&key)),
            Command::Switch(under) => {
                if let Some(key) = self.own(under).take() {
                    self.current = Some(key);
                }
            }
            Command::Receive(key) => self.receive_under(now, &key),
            Command::Forget(slot) => self.forget(slot),
            Command::Wipe(under) => *self.own(under) = None,
            Command::WipeAll => self.wipe_all(),
            Command::Handshake(handshake) => sink.datagram(&handshake.datagram, handshake.from),
            Command::Control { body, to, under } => self.send_control(&body, to, under, sink),
            Command::Endpoint(endpoint) => (self.endpoint, self.looped) = (endpoint, false),
            Command::Agreed(agreed) => self.agreed = agreed,
            Command::Sources(sources) => self.settings.inner.set_sources(sources),
            Command::Budget(budget) => {
                self.budget = budget.clamp(self.settings.framing.overhead() + 64, DATAGRAM_MAX)
            }
            Command::Again(mut received) => {
                if let Err(reason) = self.open(now, received.from, &mut received.datagram, true, sink) {
                    self.stats.drop(reason);
                }
            }
        }
    }

    /// Seals the frames that are waiting. All of them go out now: nothing waits for more.
    pub fn handle_frames(&mut self, frames: &[&[u8]], sink: &mut impl Sink) {
        let (Some(to), Some(_), true) = (self.endpoint, &self.current, self.agreed) else {
            self.stats.add(Drop::NoPeer, frames.len() as u64);
            return;
        };
        let prefix = self.settings.framing.prefix();
        let capacity = self.budget - self.settings.framing.overhead();
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let reason = self.refusal(first, to);
            let alike = rest.iter().take_while(|frame| self.refusal(frame, to) == reason).count();
            let (group, others) = rest.split_at(alike);
            rest = others;
            if let Some(reason) = reason {
                self.refuse(reason, group, sink);
                continue;
            }
            self.stats.frames_out += group.len() as u64;
            self.stats.bytes_out += group.iter().map(|frame| frame.len() as u64).sum::<u64>();
            if self.wants_blocks(group, capacity) {
                let mut packer = Packer::new(group);
                while let Some(length) = packer.fill(&mut self.buffer[prefix..prefix + capacity]) {
                    self.seal_and_send(Under::Current, Kind::Block, length, to, sink);
                }
            } else {
                for frame in group {
                    self.buffer[prefix..prefix + frame.len()].copy_from_slice(frame);
                    self.seal_and_send(Under::Current, Kind::Frame, frame.len(), to, sink);
                }
            }
        }
    }

    /// Why a frame of the device goes nowhere, if it does not go to the peer.
    fn refusal(&self, frame: &[u8], to: Path) -> Option<Drop> {
        if !fits(frame, self.settings.max_frame) {
            return Some(Drop::TooBig);
        }
        self.settings.inner.is_own(frame, to.remote).then_some(Drop::TunnelInTunnel)
    }

    /// Frames of the device that go nowhere.
    fn refuse(&mut self, reason: Drop, group: &[&[u8]], sink: &mut impl Sink) {
        self.stats.add(reason, group.len() as u64);
        if reason == Drop::TunnelInTunnel {
            self.looped = self.looped || sink.notice(Notice::TunnelInTunnel);
            return;
        }
        for frame in group {
            if let Some(answer) = self.settings.inner.too_big(frame) {
                sink.frame(answer);
            }
        }
    }

    /// Opens one datagram; `datagram` is scratch space afterwards.
    pub fn handle_datagram(&mut self, now: Instant, from: Path, datagram: &mut [u8], sink: &mut impl Sink) {
        let keys = &self.settings.keys;
        // Looked at first: an attempt to open what it cannot open leaves nothing of the bytes. No data has the
        // right probe but by a chance of one in 2^64.
        let is_handshake =
            |datagram: &[u8]| datagram.len() <= *INITIATION.end() && wrap::is_probe(keys, datagram);
        let result = match self.settings.framing {
            Framing::Session if is_handshake(datagram) => self.hand_over_handshake(from, datagram, sink),
            Framing::Session if !self.agreed && self.is_static(datagram) => {
                self.notice_other_mode(now, from, datagram.len(), sink)
            }
            Framing::Static if !self.agreed && is_handshake(datagram) => {
                self.notice_other_mode(now, from, datagram.len(), sink)
            }
            Framing::Session | Framing::Static => self.open(now, from, datagram, false, sink),
        };
        if let Err(reason) = result {
            self.stats.drop(reason);
        }
    }

    /// When [`Lane::handle_timeout`] must be called next, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.receive.iter().filter_map(|key| key.until);
        ends.chain(self.receive.iter().filter_map(|key| key.blocks.poll_timeout())).min()
    }

    /// Ends what has run out of time.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        let agreed = self.agreed;
        for key in &mut self.receive {
            let inner = &mut self.settings.inner;
            key.blocks.handle_timeout(now, &mut |frame| deliver(&mut self.stats, agreed, inner, frame, sink));
        }
        let stats = &mut self.stats;
        self.receive.retain(|key| {
            let live = key.until.is_none_or(|until| now < until);
            if !live {
                add_block_drops(stats, &key.blocks);
            }
            live
        });
    }

    /// Blocks are for frames that no datagram holds, and for groups that need fewer datagrams as a stream.
    fn wants_blocks(&self, group: &[&[u8]], capacity: usize) -> bool {
        if group.iter().any(|frame| frame.len() > capacity) {
            return true;
        }
        let stream: usize = group.iter().map(|frame| frame.len() + 2).sum();
        self.settings.bundle && stream.div_ceil(capacity - 2) < group.len()
    }

    fn aead(&self, direction: u8, key: &Key) -> Aead {
        let Settings { keys, cipher, lane, .. } = &self.settings;
        match key {
            Key::Sid(sid) => keys.static_key(*cipher, direction, &sid.0, *lane),
            Key::Slot { cipher, key, .. } => key.lane(*cipher, *lane),
        }
    }

    fn send_key(&self, key: &Key) -> SendKey {
        SendKey { name: key.name(), aead: self.aead(self.settings.direction, key), counter: 0 }
    }

    fn receive_under(&mut self, now: Instant, key: &Key) {
        match key {
            Key::Sid(_) => {
                for key in &mut self.receive {
                    key.until.get_or_insert(now + SID_PREVIOUS);
                }
            }
            Key::Slot { slot, .. } => self.forget(*slot),
        }
        // A sid that is still live keeps its window: nothing is ever accepted twice.
        let receive = match self.receive.iter().position(|live| live.name == key.name()) {
            Some(index) => self.receive.remove(index),
            None => Some(self.receive_key(key)),
        };
        self.receive.extend(receive.map(|key| ReceiveKey { until: None, ..key }));
        self.receive.rotate_right(1);
        if let (Framing::Static, Some(oldest)) = (self.settings.framing, self.receive.get(LIVE)) {
            add_block_drops(&mut self.stats, &oldest.blocks);
            self.receive.truncate(LIVE);
        }
    }

    fn forget(&mut self, slot: u8) {
        let stats = &mut self.stats;
        self.receive.retain(|key| {
            let goes = key.name == Name::Slot(slot);
            if goes {
                add_block_drops(stats, &key.blocks);
            }
            !goes
        });
    }

    fn wipe_all(&mut self) {
        for key in self.receive.drain(..) {
            add_block_drops(&mut self.stats, &key.blocks);
        }
        (self.current, self.next, self.spare, self.aside) = (None, None, None, None);
    }

    fn receive_key(&self, key: &Key) -> ReceiveKey {
        ReceiveKey {
            name: key.name(),
            serial: key.serial(),
            aead: self.aead(1 - self.settings.direction, key),
            window: Window::default(),
            heard: false,
            blocks: Reassembler::new(self.settings.max_frame),
            until: None,
        }
    }

    fn own(&mut self, under: Under) -> &mut Option<SendKey> {
        match under {
            Under::Current => &mut self.current,
            Under::Next => &mut self.next,
            Under::Spare => &mut self.spare,
            Under::Aside => &mut self.aside,
        }
    }

    fn send_control(&mut self, body: &[u8], to: Path, under: Under, sink: &mut impl Sink) {
        let prefix = self.settings.framing.prefix();
        self.buffer[prefix..prefix + body.len()].copy_from_slice(body);
        let under = if self.own(under).is_some() { under } else { Under::Current };
        self.seal_and_send(under, Kind::Control, body.len(), to, sink);
    }

    /// Seals the body of `length` bytes that stands in the buffer. A key at its last counter sends no more.
    fn seal_and_send(&mut self, under: Under, kind: Kind, length: usize, to: Path, sink: &mut impl Sink) {
        let own = match under {
            Under::Current => &mut self.current,
            Under::Next => &mut self.next,
            Under::Spare => &mut self.spare,
            Under::Aside => &mut self.aside,
        };
        let Some(key) = own.as_mut().filter(|key| key.counter < COUNTER_END) else {
            self.stats.drop(Drop::NoPeer);
            return;
        };
        let slot = match key.name {
            Name::Sid(_) => 0,
            Name::Slot(slot) => slot,
        };
        let header = Header { slot, kind, lane: self.settings.lane, counter: key.counter };
        key.counter += 1;
        let framing = self.settings.framing;
        let datagram = &mut self.buffer[..framing.overhead() + length];
        if let Name::Sid(sid) = key.name {
            datagram[..SID].copy_from_slice(&sid.0);
        }
        datagram[framing.prefix() - HEADER..framing.prefix()].copy_from_slice(&header.emit());
        if seal(framing, &self.settings.keys, &key.aead, header, datagram).is_ok() {
            self.stats.datagrams_out += 1;
            self.used_length |= kind != Kind::Control && datagram.len() > BUDGET_BASE;
            sink.datagram(datagram, to);
        }
    }
}

/// Seals in place: `datagram` holds sid (static mode), header, plain body and room for the tag.
///
/// # Errors
/// [`Drop::TooBig`] if the cipher refuses the length.
pub fn seal(
    framing: Framing,
    keys: &LinkKeys,
    aead: &Aead,
    header: Header,
    datagram: &mut [u8],
) -> Result<(), Drop> {
    let body = framing.body(datagram.len());
    let tag =
        aead.seal(header.counter, &header.emit(), &mut datagram[body.clone()]).map_err(|_| Drop::TooBig)?;
    datagram[body.end..].copy_from_slice(&tag);
    let mask = keys.mask(&tag);
    for (byte, mask) in datagram.iter_mut().zip(&mask[..framing.prefix()]) {
        *byte ^= mask;
    }
    Ok(())
}

fn fits(frame: &[u8], max: usize) -> bool {
    !frame.is_empty() && frame.len() <= max
}

fn deliver(stats: &mut Stats, agreed: bool, inner: &mut Inner, frame: &[u8], sink: &mut impl Sink) {
    if !agreed {
        stats.drop(Drop::NotAgreed);
        return;
    }
    match inner.inward(frame) {
        Ok(frame) => {
            stats.frames_in += 1;
            stats.bytes_in += frame.len() as u64;
            sink.frame(frame);
        }
        Err(reason) => stats.drop(reason),
    }
}

fn add_block_drops(stats: &mut Stats, blocks: &Reassembler) {
    let drops = blocks.drops();
    stats.add(Drop::Incomplete, drops.partial);
    stats.add(Drop::TooBig, drops.oversize);
    stats.add(Drop::Malformed, drops.malformed);
}

const _: () = assert!(MASK == Framing::Static.prefix());
