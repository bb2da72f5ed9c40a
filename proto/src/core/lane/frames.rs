//! Frame handling common to all formats: which may pass, their marks, and counters.

use std::time::Instant;

use super::{Notice, Sink};
use crate::core::guard::Origin;
use crate::core::inner::InnerPolicy;
use crate::core::limits::PATH_INTERVAL;
use crate::core::path::Path;
use crate::core::stats::{DropReason, Stats};
use crate::packet::traffic_class::{self, ECN};

/// Frames from the device to the peer.
pub struct FramesOut {
    /// The rules for inner packets.
    pub inner: InnerPolicy,
    /// Destination; `None`: frames are dropped.
    pub endpoint: Option<Path>,
    /// Whether the peer's hello matches, so that frames may pass.
    pub agreed: bool,
    /// Counters so far.
    pub stats: Stats,
    max_frame: usize,
    copy_dscp: bool,
    /// Whether the link knows that its datagrams come out of the device.
    looped: bool,
}

impl FramesOut {
    /// Passes nothing until there is an endpoint. `max_frame` is in bytes.
    pub fn new(inner: InnerPolicy, max_frame: usize, copy_dscp: bool) -> Self {
        Self {
            inner,
            endpoint: None,
            agreed: false,
            stats: Stats::default(),
            max_frame,
            copy_dscp,
            looped: false,
        }
    }

    /// Changes the destination.
    pub fn set_endpoint(&mut self, endpoint: Option<Path>) {
        (self.endpoint, self.looped) = (endpoint, false);
    }

    /// Whether the guard lets a frame, or several joined by the kernel, go to the peer. Counts it if not.
    pub fn admits(&mut self, frame: &[u8], sink: &mut impl Sink) -> bool {
        let admitted = self.inner.outward(frame);
        if let Err(reason) = admitted {
            self.stats.drop(reason);
            self.inner.take_sighting().map(|sighting| sink.notice(Notice::Probe(sighting)));
        }
        admitted.is_ok()
    }

    /// Checks a frame, in two consecutive parts; returns its datagram's traffic class if it may pass. `keyed`: whether there is a key to
    /// seal it.
    pub fn pass(&mut self, keyed: bool, head: &[u8], tail: &[u8], sink: &mut impl Sink) -> Option<u8> {
        let (Some(to), true, true) = (self.endpoint, keyed, self.agreed) else {
            // A link that was cut off by a route into itself stays down by its own calls.
            match self.endpoint {
                Some(to) if self.inner.is_own(head, to) => self.drop_own(sink),
                _ => self.stats.drop(DropReason::NoPeer),
            }
            return None;
        };
        let length = head.len() + tail.len();
        if length == 0 || length > self.max_frame {
            self.refuse_length(head, tail, sink);
            return None;
        }
        if self.inner.is_own(head, to) {
            self.drop_own(sink);
            return None;
        }
        self.stats.frames_out += 1;
        self.stats.bytes_out += length as u64;
        let class = traffic_class::of(head, self.inner.layer());
        Some(if self.copy_dscp { class } else { class & ECN })
    }

    /// Drops a datagram of the link that a route leads into the link.
    fn drop_own(&mut self, sink: &mut impl Sink) {
        self.stats.drop(DropReason::TunnelInTunnel);
        self.looped = self.looped || sink.notice(Notice::TunnelInTunnel);
    }

    /// Refuses an oversized frame; a packet's sender may be told.
    fn refuse_length(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        self.stats.drop(DropReason::TooBig);
        if let Some(answer) = self.inner.too_big(&[head, tail].concat()) {
            sink.frame(answer);
        }
    }
}

/// Frames from the peer to the device.
pub struct FramesIn {
    /// The rules for inner packets.
    pub inner: InnerPolicy,
    /// The path of the peer's datagrams; `None`: unknown.
    pub endpoint: Option<Path>,
    /// Whether the peer's hello matches, so that frames may pass.
    pub agreed: bool,
    /// Counters so far.
    pub stats: Stats,
    moved_at: Option<Instant>,
}

impl FramesIn {
    /// Passes nothing until the peer's hello matches.
    pub fn new(inner: InnerPolicy) -> Self {
        Self { inner, endpoint: None, agreed: false, stats: Stats::default(), moved_at: None }
    }

    /// Whether `from` is a path other than the link's.
    pub fn strays(&self, from: &Path) -> bool {
        self.endpoint.is_some_and(|endpoint| !endpoint.covers(from))
    }

    /// Counts a drop.
    pub fn count(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.stats.drop(reason);
        }
    }

    /// Delivers a frame to the device, if allowed. `ecn` is the codepoint of its datagrams.
    pub fn deliver(&mut self, frame: &[u8], ecn: u8, sink: &mut impl Sink) {
        if !self.agreed {
            return self.stats.drop(DropReason::NotAgreed);
        }
        match self.inner.inward(frame, ecn) {
            Ok(frame) => {
                self.stats.frames_in += 1;
                self.stats.bytes_in += frame.len() as u64;
                sink.frame(frame);
            }
            Err(reason) => {
                self.stats.drop(reason);
                self.inner.take_sighting().map(|sighting| sink.notice(Notice::Probe(sighting)));
            }
        }
    }

    /// Sends the guard's probes of a round to the device, if frames may pass.
    pub fn probe(&mut self, now: Instant, origin: Origin, round: u32, sink: &mut impl Sink) {
        if self.agreed {
            self.inner.set_now(now);
            self.inner.probes(origin, round).iter().for_each(|frame| sink.frame(frame));
        }
    }

    /// Tells the link of another path, at a limited rate.
    pub fn notice_move(&mut self, now: Instant, from: Path, sink: &mut impl Sink) {
        if self.moved_at.is_none_or(|at| now.saturating_duration_since(at) >= PATH_INTERVAL)
            && sink.notice(Notice::Moved { from })
        {
            self.moved_at = Some(now);
        }
    }
}
