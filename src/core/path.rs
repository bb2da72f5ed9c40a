//! Whether the peer really is at a new address (PROTOCOL.md §7): challenges to the new and the old one.

use std::net::SocketAddr;
use std::time::Instant;

use super::limits::{PATH_INTERVAL, PATH_LIFE};

/// One validation in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    new: SocketAddr,
    challenge_new: [u8; 16],
    challenge_old: [u8; 16],
    started: Instant,
    answered: bool,
}

/// What a validation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not decided yet.
    Open,
    /// The peer is at the new address, and no longer at the old one.
    Move(SocketAddr),
    /// It stays where it was.
    Stay,
}

impl Validation {
    /// Begins: the first challenge goes to `new`, the second to the old address.
    pub fn new(now: Instant, new: SocketAddr, challenges: [[u8; 16]; 2]) -> Self {
        let [challenge_new, challenge_old] = challenges;
        Self { new, challenge_new, challenge_old, started: now, answered: false }
    }

    /// Takes a reply; one to the old address's challenge ends the validation.
    pub fn handle_reply(&mut self, from: SocketAddr, challenge: [u8; 16]) -> Outcome {
        if challenge == self.challenge_old {
            return Outcome::Stay;
        }
        if challenge == self.challenge_new && from == self.new {
            self.answered = true;
        }
        Outcome::Open
    }

    /// Decides once the old address had its time to answer.
    pub fn handle_timeout(&self, now: Instant) -> Outcome {
        let age = now.saturating_duration_since(self.started);
        if self.answered && age >= PATH_INTERVAL {
            Outcome::Move(self.new)
        } else if age >= PATH_LIFE {
            Outcome::Stay
        } else {
            Outcome::Open
        }
    }

    /// When [`Validation::handle_timeout`] can next decide something.
    pub fn poll_timeout(&self) -> Instant {
        self.started + if self.answered { PATH_INTERVAL } else { PATH_LIFE }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    const NEW: &str = "192.0.2.2:7";

    fn validation(now: Instant) -> Validation {
        Validation::new(now, NEW.parse().unwrap(), [[1; 16], [2; 16]])
    }

    #[test]
    fn moves_when_only_the_new_address_answers() {
        let now = Instant::now();
        let mut path = validation(now);
        assert_eq!(path.handle_reply(NEW.parse().unwrap(), [1; 16]), Outcome::Open);
        assert_eq!(path.handle_timeout(now), Outcome::Open, "the old address may still answer");
        assert_eq!(path.handle_timeout(now + PATH_INTERVAL), Outcome::Move(NEW.parse().unwrap()));
    }

    #[test]
    fn stays_when_the_old_address_answers_or_nobody_does() {
        let now = Instant::now();
        let mut path = validation(now);
        path.handle_reply(NEW.parse().unwrap(), [1; 16]);
        assert_eq!(path.handle_reply("192.0.2.1:7".parse().unwrap(), [2; 16]), Outcome::Stay);
        assert_eq!(validation(now).handle_timeout(now + PATH_LIFE), Outcome::Stay);
    }

    #[test]
    fn a_reply_counts_only_from_the_challenged_address_with_its_challenge() {
        let now = Instant::now();
        let mut path = validation(now);
        path.handle_reply("192.0.2.3:7".parse().unwrap(), [1; 16]);
        path.handle_reply(NEW.parse().unwrap(), [3; 16]);
        assert_eq!(path.handle_timeout(now + PATH_INTERVAL), Outcome::Open);
    }
}
