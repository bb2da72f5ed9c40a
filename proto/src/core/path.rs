//! Paths to the peer, and validation of a new one (PROTOCOL.md §7) by challenges along the new and the old one.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::limits::{OUTER_V4, OUTER_V6, PATH_INTERVAL, PATH_LIFE};

/// Length of a path challenge in bytes.
pub const QUESTION: usize = 20;

/// A path to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Path {
    /// The peer's outer address.
    #[serde(with = "super::zoned")]
    pub remote: SocketAddr,
    /// This end's outer address, as the peer knows it; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// Whether it is a stream to that address rather than datagrams. Losses are then repaired below, and after a break
    /// the next stream to the same address is the same path.
    pub stream: bool,
    /// Whether it starts from a lane's own port here rather than the link's.
    pub own_port: bool,
}

impl Path {
    /// A path over a stream.
    pub fn stream(remote: SocketAddr) -> Self {
        Self { stream: true, ..remote.into() }
    }

    /// The path from a lane's own port to the same end.
    pub fn from_own_port(self) -> Self {
        Self { own_port: true, ..self }
    }

    /// The path to the same remote end, from anywhere.
    pub fn far_end(self) -> Self {
        Self { local: None, own_port: false, ..self }
    }

    /// Whether input from `other` came along this path.
    pub fn covers(&self, other: &Path) -> bool {
        self.far_end() == other.far_end() && (self.local.is_none() || self.local == other.local)
    }
}

/// The kernel chooses the own address.
impl From<SocketAddr> for Path {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None, stream: false, own_port: false }
    }
}

/// Length of the IP and UDP headers of a datagram to this address, in bytes.
pub fn outer_headers(to: SocketAddr) -> usize {
    if to.ip().to_canonical().is_ipv4() { OUTER_V4 } else { OUTER_V6 }
}

/// Parses a [`SocketAddr`]: address and port of the other end.
impl std::str::FromStr for Path {
    type Err = std::net::AddrParseError;

    fn from_str(remote: &str) -> Result<Self, Self::Err> {
        remote.parse::<SocketAddr>().map(Self::from)
    }
}

/// A validation in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    new: Path,
    challenge_new: [u8; 16],
    challenge_old: [u8; 16],
    started: Instant,
    /// The old path may answer too.
    returns: bool,
    answered: bool,
}

/// The outcome of a validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Undecided.
    Open,
    /// The peer is at the new path and no longer at the old one.
    Move(Path),
    /// The peer stays where it was.
    Stay,
}

impl Validation {
    /// Starts a validation: the first challenge is for `new`, the second for the old path.
    pub fn new(now: Instant, new: Path, challenges: [[u8; 16]; 2]) -> Self {
        let [challenge_new, challenge_old] = challenges;
        Self { new, challenge_new, challenge_old, started: now, returns: false, answered: false }
    }

    /// The same from a stream to datagrams, which are preferred: the new path is used as soon as it answers.
    pub fn returning(self) -> Self {
        Self { returns: true, ..self }
    }

    /// Handles a reply; one to the old path's challenge ends the validation.
    pub fn handle_reply(&mut self, from: Path, challenge: [u8; 16]) -> Outcome {
        if challenge == self.challenge_old && !self.returns {
            return Outcome::Stay;
        }
        if challenge == self.challenge_new && self.new.covers(&from) {
            self.answered = true;
        }
        if self.answered && self.returns { Outcome::Move(self.new) } else { Outcome::Open }
    }

    /// Decides once the old path has had time to answer.
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

    /// When [`Validation::handle_timeout`] may next decide.
    pub fn poll_timeout(&self) -> Instant {
        self.started + if self.answered { PATH_INTERVAL } else { PATH_LIFE }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    fn path(remote: &str, local: Option<&str>) -> Path {
        let local = local.map(|local| local.parse().unwrap());
        Path { local, ..Path::from(remote.parse::<SocketAddr>().unwrap()) }
    }

    fn new_path() -> Path {
        path("192.0.2.2:7", Some("198.51.100.1"))
    }

    fn begun(now: Instant) -> Validation {
        Validation::new(now, new_path(), [[1; 16], [2; 16]])
    }

    #[test]
    fn moves_when_only_the_new_address_answers() {
        let now = Instant::now();
        let mut validation = begun(now);
        assert_eq!(validation.handle_reply(new_path(), [1; 16]), Outcome::Open);
        assert_eq!(validation.handle_timeout(now), Outcome::Open, "the old address may still answer");
        assert_eq!(validation.handle_timeout(now + PATH_INTERVAL), Outcome::Move(new_path()));
    }

    #[test]
    fn stays_when_the_old_address_answers_or_nobody_does() {
        let now = Instant::now();
        let mut validation = begun(now);
        validation.handle_reply(new_path(), [1; 16]);
        assert_eq!(validation.handle_reply(path("192.0.2.1:7", None), [2; 16]), Outcome::Stay);
        assert_eq!(begun(now).handle_timeout(now + PATH_LIFE), Outcome::Stay);
    }

    #[test]
    fn from_a_stream_to_datagrams_it_moves_at_once_when_they_pass() {
        let now = Instant::now();
        let mut validation = begun(now).returning();
        let old = Path::stream("192.0.2.1:563".parse().unwrap());
        assert_eq!(validation.handle_reply(old, [2; 16]), Outcome::Open, "that both pass is as it should be");
        assert_eq!(validation.handle_reply(Path::stream(new_path().remote), [1; 16]), Outcome::Open);
        assert_eq!(validation.handle_reply(new_path(), [1; 16]), Outcome::Move(new_path()));
        assert_eq!(begun(now).returning().handle_timeout(now + PATH_LIFE), Outcome::Stay);
    }

    #[test]
    fn a_reply_counts_only_from_the_challenged_address_with_its_challenge() {
        let now = Instant::now();
        let mut validation = begun(now);
        validation.handle_reply(path("192.0.2.3:7", Some("198.51.100.1")), [1; 16]);
        validation.handle_reply(path("192.0.2.2:7", Some("198.51.100.2")), [1; 16]);
        validation.handle_reply(new_path(), [3; 16]);
        assert_eq!(validation.handle_timeout(now + PATH_INTERVAL), Outcome::Open);
    }
}
