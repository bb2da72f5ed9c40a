//! One worker's bulk path, between frames and datagrams, as pure functions on buffers.
//!
//! A lane owns its keys, counters, replay windows and reassembly and shares none of them. Its two halves,
//! [outward](Outward) and [inward](Inward), share nothing either, so that each may have its own thread. What is not a
//! frame goes to the link as a [`Notice`]; the link's decisions come back as [`Command`]s.

mod batch;
mod format;
mod frames;
mod inward;
mod orders;
mod outward;

use std::sync::Arc;
use std::time::Instant;

use super::inner::InnerPolicy;
use super::key_id::KeyId;
use super::path::Path;
use super::settings::LinkSettings;
use super::stats::Stats;
use crate::crypto::aead::Aead;
use crate::crypto::keys::{LinkKeys, Secret};
use crate::crypto::stack::cleanly;
use crate::crypto::suite::Cipher;
use crate::wire::datagram::Framing;

pub use batch::{LONGEST, Train, Transmit};
pub use format::{Format, Head, Sort, unmask};
pub use frames::{FramesIn, FramesOut};
pub use inward::{Arrived, Inward};
pub use orders::{
    Command, Key, KeyRef, KeySlot, Name, Notice, ReceiveCommand, Received, Report, SendCommand, Sink,
};
pub use outward::Outward;

/// A lane's constant settings.
#[derive(Clone)]
pub struct Settings {
    /// The link's keys.
    pub keys: Arc<LinkKeys>,
    /// Layout in front of a datagram's body.
    pub framing: Framing,
    /// Static mode: the AEAD in both directions.
    pub cipher: Cipher,
    /// Static mode: this end's sending direction.
    pub direction: u8,
    /// The lane's number, 0 to 15.
    pub lane: u8,
    /// Largest frame the device carries, in bytes.
    pub max_frame: usize,
    /// Pack several small waiting frames into one datagram.
    pub bundle: bool,
    /// Copy a frame's DSCP to its datagram, not only ECN.
    pub copy_dscp: bool,
    /// The rules for inner packets.
    pub inner: InnerPolicy,
}

impl Settings {
    /// The settings of a link's lane 0.
    pub fn new(link: &LinkSettings, keys: Arc<LinkKeys>, copy_dscp: bool) -> Self {
        let inner = InnerPolicy::new(link, || keys.loops());
        Self {
            keys,
            framing: link.key_mode.into(),
            cipher: link.cipher,
            direction: link.direction,
            lane: 0,
            max_frame: link.max_frame(),
            bundle: link.bundle,
            copy_dscp,
            inner,
        }
    }

    /// The settings of another lane of the link.
    pub fn of_lane(&self, lane: u8) -> Self {
        Self { lane, ..self.clone() }
    }

    /// Whether a key id is useless to this lane until the peer has taken it: [`SendCommand::Pair`].
    fn waits_for_pair(&self) -> bool {
        self.lane > 0 && self.framing == Framing::Static
    }

    /// The layout and masking of datagrams.
    pub fn format(&self) -> Format {
        Format::new(self.framing, self.keys.clone())
    }

    /// Returns a key's bytes; `direction` as in static mode. `named`: in static mode, the receiver's key id that the sender had named when its
    /// own was taken. Without it, lanes other than 0 have no key.
    pub fn key_bytes(&self, direction: u8, key: &Key, named: Option<&KeyId>) -> Option<Secret> {
        match key {
            Key::KeyId(key_id) if self.lane == 0 => {
                Some(self.keys.static_bytes(self.cipher, direction, &key_id.0))
            }
            Key::KeyId(key_id) => named.map(|named| {
                self.keys.static_lane_bytes(self.cipher, direction, &key_id.0, self.lane, &named.0)
            }),
            Key::Slot { cipher, key, .. } => Some(key.lane_bytes(*cipher, self.lane)),
        }
    }

    fn aead(&self, direction: u8, key: &Key, named: Option<&KeyId>) -> Option<Aead> {
        let cipher = self.cipher_of(key);
        cleanly(|| self.key_bytes(direction, key, named).map(|bytes| Aead::new(cipher, &bytes)))
    }

    /// The AEAD for a key.
    pub fn cipher_of(&self, key: &Key) -> Cipher {
        match key {
            Key::KeyId(_) => self.cipher,
            Key::Slot { cipher, .. } => *cipher,
        }
    }
}

/// One worker's share of a link, in both directions.
pub struct Lane {
    /// Frames to datagrams.
    pub outward: Outward,
    /// Datagrams to frames.
    pub inward: Inward,
}

impl Lane {
    /// A lane without keys: nothing passes until the link provides some.
    pub fn new(settings: Settings) -> Self {
        Self { outward: Outward::new(settings.clone()), inward: Inward::new(settings) }
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        self.outward.frames.stats.plus(&self.inward.stats())
    }

    /// Returns what the link must know once a second.
    pub fn report(&mut self, now: Instant) -> Report {
        self.outward.frames.inner.set_now(now);
        self.inward.frames.inner.set_now(now);
        let (key_used_up, used_length) = self.outward.report();
        let stats = self.stats();
        Report {
            stats,
            heard: if self.outward.is_first() { stats.datagrams_in } else { 0 },
            key_used_up,
            used_length,
            offenders: self.inward.frames.inner.offenders(),
            talkers: [self.outward.frames.inner.talkers(), self.inward.frames.inner.talkers()],
            ..Report::default()
        }
    }

    /// Carries out the link's decision.
    pub fn handle_command(&mut self, now: Instant, command: Command, sink: &mut impl Sink) {
        match command {
            Command::Send(command) => self.outward.handle_command(command, sink),
            Command::Receive(command) => self.inward.handle_command(now, command, sink),
        }
    }

    /// Drops every key and all unsealed frames: this may be a copy of the process that sent before.
    pub fn wipe_all(&mut self, sink: &mut impl Sink) {
        self.outward.close(sink);
        self.inward.wipe_all();
    }

    /// Seals waiting frames. All are sent now; none waits for more.
    pub fn handle_frames(&mut self, frames: &[&[u8]], sink: &mut impl Sink) {
        for frame in frames {
            if self.outward.frames.admits(frame, sink) {
                self.outward.handle_frame(frame, &[], sink);
            }
        }
        self.outward.flush(sink);
    }

    /// Opens one datagram, whose buffer is clobbered.
    pub fn handle_datagram(&mut self, now: Instant, from: Path, datagram: &mut [u8], sink: &mut impl Sink) {
        let stride = datagram.len();
        self.inward.handle_datagrams(now, Arrived { bytes: datagram, stride, ecn: 0, from }, sink);
    }
}
