//! Links on which nothing passes: an end that can be started by a datagram ends, and the other one leaves it alone
//! until it has a frame for it.

use std::time::Instant;

use super::Link;
use crate::core::condition::Condition;
use crate::core::stats::{DropReason, Stats};
use crate::crypto::Random;

/// Why such an end says goodbye (PROTOCOL.md §7).
pub(super) const IDLE: &str = "idle";

impl<R: Random> Link<R> {
    /// When the link came up or frames last passed; before that, when it began.
    pub fn used_at(&self) -> Instant {
        self.used_at
    }

    /// The peer is idle and ends.
    pub(super) fn handle_idle(&mut self, now: Instant) {
        self.dormant = true;
        self.go_down(now, Condition::PeerIdle);
    }

    /// What the lane counted: frames that passed, and frames that would have.
    pub(super) fn handle_frames_counted(&mut self, now: Instant, lane: &Stats) {
        let frames = [lane.frames_in + lane.frames_out, lane.drops(DropReason::NoPeer)];
        let [passed, waited] = [0, 1].map(|which| frames[which] > self.frames[which]);
        self.frames = frames;
        if passed {
            self.used_at = now;
        }
        if waited {
            self.wake(now);
        }
    }

    /// There is something for a peer that is left alone.
    pub(super) fn wake(&mut self, now: Instant) {
        if std::mem::take(&mut self.dormant) {
            self.remotes.restart(now);
            self.resolve_at = self.settings.has_remote.then_some(now);
            self.call_if_remote(now);
        }
    }
}
