//! When the peer was last heard, and whether anything passes.

use std::time::Instant;

use crate::core::stats::{DropReason, Stats};

/// The lanes' last counters, and when they grew.
pub struct Liveness {
    heard_at: Instant,
    used_at: Instant,
    datagrams_in: u64,
    heard: u64,
    datagrams_out: u64,
    frames: u64,
    frames_waiting: u64,
    strangers: u64,
    tunnelled: u64,
}

/// What has come since the last check of the counters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Datagrams of the peer.
    pub heard: bool,
    /// Datagrams were sent.
    pub sent: bool,
    /// Frames from the device arrived without a link.
    pub waiting: bool,
    /// Datagrams came from strangers, or under other keys.
    pub strangers: bool,
    /// The link's own datagrams came out of the device.
    pub tunnelled: bool,
}

impl Liveness {
    /// Nothing heard, nothing passed.
    pub fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            used_at: now,
            datagrams_in: 0,
            heard: 0,
            datagrams_out: 0,
            frames: 0,
            frames_waiting: 0,
            strangers: 0,
            tunnelled: 0,
        }
    }

    /// When the peer was last heard under keys that only it has; before that, the start of the link.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// When the link came up or frames last passed; before that, when it began.
    pub fn used_at(&self) -> Instant {
        self.used_at
    }

    /// The number of the peer's datagrams opened by the lanes.
    pub fn datagrams_in(&self) -> u64 {
        self.datagrams_in
    }

    /// The peer was heard.
    pub fn handle_heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The link came up.
    pub fn handle_up(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// Handles the lanes' counters since the start, and lane 0's opened datagrams: the link's path is that lane's.
    pub fn handle_counters(&mut self, now: Instant, heard: u64, lanes: &Stats) -> News {
        let grows = |last: &mut u64, count| std::mem::replace(last, count) < count;
        self.datagrams_in = lanes.datagrams_in;
        let heard = grows(&mut self.heard, heard);
        if heard {
            self.heard_at = now;
        }
        if grows(&mut self.frames, lanes.frames_in + lanes.frames_out) {
            self.used_at = now;
        }
        News {
            heard,
            sent: grows(&mut self.datagrams_out, lanes.datagrams_out),
            waiting: grows(&mut self.frames_waiting, lanes.drops(DropReason::NoPeer)),
            strangers: grows(&mut self.strangers, lanes.drops(DropReason::Stranger)),
            tunnelled: grows(&mut self.tunnelled, lanes.drops(DropReason::TunnelInTunnel)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn each_counter_moves_its_own_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(start);
        let mut lanes = Stats::default();
        lanes.datagrams_in += 1;
        let none = News::default();
        assert_eq!(liveness.handle_counters(at(1), lanes.datagrams_in, &lanes), News { heard: true, ..none });
        assert_eq!((liveness.heard_at(), liveness.used_at()), (at(1), start));
        lanes.frames_out = 1;
        liveness.handle_counters(at(2), lanes.datagrams_in, &lanes);
        assert_eq!((liveness.heard_at(), liveness.used_at()), (at(1), at(2)));
        lanes.drop(DropReason::NoPeer);
        assert_eq!(
            liveness.handle_counters(at(3), lanes.datagrams_in, &lanes),
            News { waiting: true, ..none }
        );
        lanes.drop(DropReason::Stranger);
        assert_eq!(
            liveness.handle_counters(at(4), lanes.datagrams_in, &lanes),
            News { strangers: true, ..none }
        );
        lanes.datagrams_out += 1;
        assert_eq!(liveness.handle_counters(at(5), lanes.datagrams_in, &lanes), News { sent: true, ..none });
        assert_eq!(liveness.handle_counters(at(6), lanes.datagrams_in, &lanes), none);
        assert_eq!((liveness.heard_at(), liveness.used_at()), (at(1), at(2)));
    }
}
