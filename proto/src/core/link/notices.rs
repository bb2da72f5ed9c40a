//! Limits what is logged, and repeated.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use log::Level;

use super::Event;
use super::outbox::Outbox;
use crate::core::clones::Speaker;
use crate::core::condition::Condition;
use crate::core::limits::{ANSWERS_LOST, REPEAT, SIGN_INTERVAL};
use crate::core::rate::RateLimiter;

/// Most distinct lines that are not repeated while the link is down.
const SAID: usize = 8;
/// Burst, and number per [`REPEAT`], of lines that a peer's messages and moves may cause. The link's state is known without them
/// ([`Link::state`](super::Link::state)), and so is whether it is up ([`Event::Up`]).
const LINES: u32 = 12;

/// What was logged.
pub struct Notices {
    /// What the link waits for or suffers from, and when that was last logged. The last entry still holds.
    said: VecDeque<(Condition, Instant)>,
    /// Who called last, and since when.
    caller: Option<(Speaker, Instant)>,
    /// Limits lines caused by the peer's messages and moves.
    lines: RateLimiter,
    /// Limits lines that this host was copied or slept.
    resumed: RateLimiter,
    /// Limits signs to callers in another key mode.
    signs: RateLimiter,
}

impl Notices {
    /// Nothing logged.
    pub fn new() -> Self {
        Self {
            said: VecDeque::new(),
            caller: None,
            lines: RateLimiter::new(LINES, Duration::from_secs(REPEAT.as_secs() / u64::from(LINES))),
            resumed: RateLimiter::new(1, REPEAT),
            signs: RateLimiter::new(1, SIGN_INTERVAL),
        }
    }

    /// What the link waits for or suffers from.
    pub fn latest(&self) -> Option<&Condition> {
        self.said.back().map(|(condition, _)| condition)
    }

    /// The link is up: forgets what it waited for.
    pub fn clear(&mut self) {
        self.said.clear();
        self.caller = None;
    }

    /// The same caller as before, or a new one, was answered; true if it has called for long.
    pub fn goes_on(&mut self, now: Instant, caller: Speaker) -> bool {
        let known = self.caller.filter(|(known, _)| *known == caller);
        let (_, since) = *self.caller.insert(known.unwrap_or((caller, now)));
        now >= since + ANSWERS_LOST
    }

    /// Logs what the link waits for or suffers from: once at its own level, then every minute as a detail.
    pub fn say_once(&mut self, now: Instant, condition: Condition, out: &mut Outbox) {
        if self.said.iter().all(|(said, _)| *said != condition) {
            self.say(now, condition.clone(), out);
            if self.said.len() >= SAID {
                self.said.pop_front();
            }
            self.said.push_back((condition, now));
        }
    }

    /// Logs once what a holder of the key shows to be wrong. While that is seen, it takes precedence over guesses.
    pub fn say_proven(&mut self, now: Instant, condition: Condition, out: &mut Outbox) {
        match self.said.iter().position(|(said, _)| *said == condition) {
            Some(index) => {
                let proven = self.said.remove(index);
                self.said.extend(proven);
            }
            None => self.say_once(now, condition, out),
        }
    }

    /// Logs a condition that the peer may cause repeatedly.
    pub fn say(&mut self, now: Instant, condition: Condition, out: &mut Outbox) {
        if self.lines.allow(now) {
            out.log(condition);
        }
    }

    /// Logs that all keys are replaced.
    pub fn say_resumed(&mut self, now: Instant, out: &mut Outbox) {
        if self.resumed.allow(now) {
            out.log(Condition::Resumed);
        }
    }

    /// Whether to give a sign to a caller in another key mode.
    pub fn may_sign(&mut self, now: Instant) -> bool {
        self.signs.allow(now)
    }

    /// When [`Notices::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.said.back().map(|(_, at)| *at + REPEAT)
    }

    /// Repeats what still holds.
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
    fn what_is_proven_is_said_once_and_comes_before_guesses() {
        let (now, mut notices, mut out) = (Instant::now(), Notices::new(), Outbox::default());
        notices.say_proven(now, Condition::CipherMismatch, &mut out);
        notices.say_once(now, silent(1), &mut out);
        assert_eq!(notices.latest(), Some(&silent(1)), "it may be seen no more");
        notices.say_proven(now, Condition::CipherMismatch, &mut out);
        assert_eq!((notices.latest(), out.events.len()), (Some(&Condition::CipherMismatch), 2));
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
