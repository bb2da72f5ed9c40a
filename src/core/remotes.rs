//! Whom to call and how often: the addresses of the remotes, and the schedule of hellos.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::limits::{HELLO_FIRST, HELLO_LATER, HELLO_PATIENCE, HELLO_TRIES, REMOTE_TRIES};
use crate::crypto::Random;

/// What is due when a hello is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Go on with the same address.
    Same,
    /// It is the next address's turn.
    Next(SocketAddr),
    /// This address was tried long enough to say so.
    Silent,
}

/// The caller of one link.
pub struct Remotes {
    remotes: Vec<SocketAddr>,
    index: usize,
    tries: u32,
    /// When the next hello is due.
    pub due: Instant,
}

impl Remotes {
    /// Nobody to call yet.
    pub fn new(now: Instant) -> Self {
        Self { remotes: Vec::new(), index: 0, tries: 0, due: now }
    }

    /// Takes what the names of the remotes resolved to; gives the first address if that is news.
    pub fn set(&mut self, now: Instant, remotes: Vec<SocketAddr>) -> Option<SocketAddr> {
        if remotes.is_empty() || remotes == self.remotes {
            return None;
        }
        (self.remotes, self.index, self.tries, self.due) = (remotes, 0, 0, now);
        self.remote()
    }

    /// Forgets the addresses: they are looked up again.
    pub fn forget(&mut self, now: Instant) {
        self.remotes.clear();
        self.restart(now + HELLO_FIRST);
    }

    /// Begins to count tries anew.
    pub fn restart(&mut self, due: Instant) {
        self.tries = 0;
        self.due = due;
    }

    /// The remote whose turn it is.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remotes.get(self.index).copied()
    }

    /// Whether that address belongs to a remote, whatever its port.
    pub fn knows(&self, address: SocketAddr) -> bool {
        self.remotes.iter().any(|remote| remote.ip() == address.ip())
    }

    /// Counts a try; with `away`, the peer has not been heard of since it is called.
    pub fn turn(&mut self, away: bool) -> Turn {
        self.tries += 1;
        if !away {
            return Turn::Same;
        }
        if self.tries == HELLO_TRIES + 1 {
            return Turn::Silent;
        }
        if self.remotes.len() > 1 && self.tries > REMOTE_TRIES && self.tries % REMOTE_TRIES == 1 {
            self.index = (self.index + 1) % self.remotes.len();
            return self.remote().map_or(Turn::Same, Turn::Next);
        }
        Turn::Same
    }

    /// The pause until the next hello, varied by a fifth so that nothing on the wire keeps time; with
    /// `keepalive` the peer is there and that is its interval.
    pub fn schedule(&mut self, now: Instant, keepalive: Option<Duration>, random: &mut impl Random) {
        let quick = if self.tries < HELLO_PATIENCE { HELLO_FIRST } else { HELLO_LATER };
        let [byte] = random.bytes();
        self.due = now + keepalive.unwrap_or(quick).mul_f32(0.8 + 0.4 * f32::from(byte) / 255.0);
    }
}
