//! What the log is told, and what it is not told again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use log::Level;

use super::Event;
use super::outbox::Outbox;
use crate::core::condition::Condition;
use crate::core::limits::{REPEAT, SIGN_INTERVAL};
use crate::core::rate::RateLimiter;

/// Different lines that are not said again while the link is not up.
const SAID: usize = 8;
/// Lines at once, and in each [`REPEAT`], that a peer may draw out by what it says and by moving. How the link is stays known without
/// them ([`Link::state`](super::Link::state)), and so does whether it is up ([`Event::Up`]).
const LINES: u32 = 12;

/// What was said.
pub struct Notices {
    /// What the link waits for or suffers from, and when that was last said. The latest last; it is what still holds.
    said: VecDeque<(Condition, Instant)>,
    /// How many lines the peer's words and ways have drawn out.
    lines: RateLimiter,
    /// Lines that this host was copied or slept.
    resumed: RateLimiter,
    /// Signs to callers in another key mode.
    signs: RateLimiter,
}

impl Notices {
    /// Nothing said.
    pub fn new() -> Self {
        Self {
            said: VecDeque::new(),
            lines: RateLimiter::new(LINES, Duration::from_secs(REPEAT.as_secs() / u64::from(LINES))),
            resumed: RateLimiter::new(1, REPEAT),
            signs: RateLimiter::new(1, SIGN_INTERVAL),
        }
    }

    /// What the link waits for or suffers from.
    pub fn latest(&self) -> Option<&Condition> {
        self.said.back().map(|(condition, _)| condition)
    }

    /// The link is up: whatever it waited for is over.
    pub fn clear(&mut self) {
        self.said.clear();
    }

    /// Says what the link waits for or suffers from: once at its own level, then every minute as a detail.
    pub fn say_once(&mut self, now: Instant, condition: Condition, out: &mut Outbox) {
        if self.said.iter().all(|(said, _)| *said != condition) {
            self.say(now, condition.clone(), out);
            if self.said.len() >= SAID {
                self.said.pop_front();
            }
            self.said.push_back((condition, now));
        }
    }

    /// Says what the peer may draw out again and again.
    pub fn say(&mut self, now: Instant, condition: Condition, out: &mut Outbox) {
        if self.lines.allow(now) {
            out.log(condition);
        }
    }

    /// Says that all keys are replaced.
    pub fn say_resumed(&mut self, now: Instant, out: &mut Outbox) {
        if self.resumed.allow(now) {
            out.log(Condition::Resumed);
        }
    }

    /// Whether a caller in another key mode gets a sign.
    pub fn may_sign(&mut self, now: Instant) -> bool {
        self.signs.allow(now)
    }

    /// When [`Notices::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.said.back().map(|(_, at)| *at + REPEAT)
    }

    /// Says again what still holds.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if let Some((condition, at)) = self.said.back_mut() {
            *at = now;
            out.events.push_back(Event::Log { level: Level::Debug, condition: condition.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    fn silent(seconds: u64) -> Condition {
        Condition::PeerSilent { silence: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_latest_is_said_again_and_none_twice() {
        let (now, mut notices, mut out) = (Instant::now(), Notices::new(), Outbox::default());
        for condition in [silent(1), silent(2), silent(1)] {
            notices.say_once(now, condition, &mut out);
        }
        assert_eq!(out.events.len(), 2);
        out.events.clear();
        assert_eq!(notices.poll_timeout(), Some(now + REPEAT));
        notices.handle_timeout(now + REPEAT, &mut out);
        assert_eq!(out.events, [Event::Log { level: Level::Debug, condition: silent(2) }]);
        assert_eq!(notices.poll_timeout(), Some(now + 2 * REPEAT));
        notices.clear();
        assert_eq!((notices.latest(), notices.poll_timeout()), (None, None));
    }

    #[test]
    fn a_peer_draws_out_so_many_lines_and_no_more() {
        let (now, mut notices, mut out) = (Instant::now(), Notices::new(), Outbox::default());
        for seconds in 0..100_u64 {
            notices.say_once(now, silent(seconds), &mut out);
            notices.say(now, silent(seconds), &mut out);
        }
        assert_eq!(out.events.len(), LINES as usize);
        assert_eq!(notices.said.len(), SAID);
        assert_eq!(notices.latest(), Some(&silent(99)), "what holds stays known");
    }
}
