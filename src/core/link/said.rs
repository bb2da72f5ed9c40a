//! What the log is told, and what it is not told again.

use std::time::{Duration, Instant};

use super::{Event, Link};
use crate::core::condition::Condition;
use crate::core::limits::REPEAT;
use crate::core::rate::RateLimiter;
use crate::crypto::Random;

/// Different lines that are not said again while the link is not up.
const SAID: usize = 8;
/// Lines at once, and in each [`REPEAT`], that a peer may draw out by what it says and by moving. How the link is stays known without
/// them ([`Link::state`]), and so does whether it is up ([`Event::Up`](super::Event::Up)).
const LINES: u32 = 12;

/// Limits the lines that the peer may draw out.
pub(super) const fn limiter() -> RateLimiter {
    RateLimiter::new(LINES, Duration::from_secs(REPEAT.as_secs() / LINES as u64))
}

/// What the link waits for or suffers from.
pub(super) struct Said {
    pub(super) condition: Condition,
    pub(super) at: Instant,
}

impl<R: Random> Link<R> {
    pub(super) fn say_resumed(&mut self, now: Instant) {
        if self.resumed_at.is_none_or(|at| now >= at + REPEAT) {
            self.resumed_at = Some(now);
            self.log(Condition::Resumed);
        }
    }

    pub(super) fn say_tunnel_in_tunnel(&mut self) {
        let Some(endpoint) = self.endpoint else { return };
        self.log(Condition::TunnelInTunnel { remote: endpoint.remote.ip() });
    }

    pub(super) fn say_waiting(&mut self, now: Instant) {
        if !self.settings.has_remote {
            self.say_once(now, Condition::NoRemote);
        }
    }

    /// Says what the link waits for or suffers from: once at its own verb, then every minute at verb 3.
    pub(super) fn say_once(&mut self, now: Instant, condition: Condition) {
        if self.said.iter().all(|said| said.condition != condition) {
            self.log_for_peer(now, condition.clone());
            if self.said.len() >= SAID {
                self.said.pop_front();
            }
            self.said.push_back(Said { condition, at: now });
        }
    }

    /// A line that the peer may draw out again and again.
    pub(super) fn log_for_peer(&mut self, now: Instant, condition: Condition) {
        if self.lines.allow(now) {
            self.log(condition);
        }
    }

    pub(super) fn repeat_said(&mut self, now: Instant) {
        if let Some(said) = self.said.back_mut()
            && now >= said.at + REPEAT
        {
            said.at = now;
            let condition = said.condition.clone();
            self.events.push_back(Event::Log { verb: 3, condition });
        }
    }
}
