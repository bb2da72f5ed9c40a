//! Own sids of static mode: when they are drawn, and when frames begin to use them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::clock::Now;
use super::limits::{SID_ANNOUNCE, SID_LIFE};
use super::sid::Sid;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
#[cfg(test)]
use crate::fault::{self, Fault};

/// Own sids that are remembered, to tell a reflection: more than replayed challenges can make an end
/// draw in the life of one sid.
const RECENT: usize = 256;

/// What this end sends under, and what comes next.
pub struct Sending {
    last_time: u64,
    rotate_at: Instant,
    switch_at: Option<Instant>,
    recent: VecDeque<Sid>,
}

impl Sending {
    /// Nothing drawn yet.
    pub fn new(now: Instant) -> Self {
        Self { last_time: 0, rotate_at: now, switch_at: None, recent: VecDeque::with_capacity(RECENT + 1) }
    }

    /// Draws a sid: its time is now, or just after the one before.
    pub fn draw(&mut self, now: Now, keys: &LinkKeys, random: &mut impl Random) -> Sid {
        #[cfg(test)]
        if let Some(last) = self.recent.front().filter(|_| fault::is(Fault::SidDrawnTwice)) {
            return *last;
        }
        let time = now.wall.max(self.last_time + 1);
        self.last_time = time;
        let sid = Sid::new(keys, time, random.bytes());
        self.recent.push_front(sid);
        self.recent.truncate(RECENT);
        sid
    }

    /// What was drawn is for frames; others, which answer challenges, do not make theirs last longer.
    pub fn drawn_for_frames(&mut self, now: Instant) {
        self.rotate_at = now + SID_LIFE;
    }

    /// Whether this end drew that sid lately.
    pub fn is_own(&self, sid: Sid) -> bool {
        self.recent.contains(&sid)
    }

    /// The drawn sid is announced: frames use it in [`SID_ANNOUNCE`].
    pub fn announce(&mut self, now: Instant) {
        self.switch_at = Some(now + SID_ANNOUNCE);
    }

    /// Frames use the drawn sid from now on.
    pub fn switched(&mut self) {
        self.switch_at = None;
    }

    /// A sid was announced that frames do not use yet.
    pub fn is_announced(&self) -> bool {
        self.switch_at.is_some()
    }

    /// The key is nearly used up: a new sid is due now.
    pub fn expire(&mut self, now: Instant) {
        if !self.is_announced() {
            self.rotate_at = now;
        }
    }

    /// Age of the sid drawn last.
    pub fn age(&self, now: Instant) -> Duration {
        (now + SID_LIFE).saturating_duration_since(self.rotate_at)
    }

    /// Whether frames should change to the announced sid.
    pub fn is_switch_due(&self, now: Instant) -> bool {
        self.switch_at.is_some_and(|at| at <= now)
    }

    /// Whether a new sid should be drawn.
    pub fn is_rotation_due(&self, now: Instant) -> bool {
        self.rotate_at <= now
    }

    /// When something of this is due next.
    pub fn poll_timeout(&self) -> Instant {
        self.switch_at.map_or(self.rotate_at, |at| at.min(self.rotate_at))
    }
}
