//! Idle limits of a link started by a superserver, which can start it again.

use std::time::{Duration, Instant};

/// Limit while nothing authentic came. A stranger may have started the link: it takes his datagrams for so long, so that
/// they start no other process meanwhile.
const STRANGERS: Duration = Duration::from_secs(30);

/// The limits of one process.
#[derive(Debug, Clone, Copy)]
pub struct IdleTimeout {
    began: Instant,
    idle: Duration,
    /// When the peer was first heard: no frames can have passed before.
    met: Option<Instant>,
}

impl IdleTimeout {
    /// For a link that began at `began` and ends after `idle` without a frame.
    pub fn new(began: Instant, idle: Duration) -> Self {
        Self { began, idle, met: None }
    }

    /// When that is, unless something is heard or used before.
    pub fn poll_timeout(&self, used: Instant) -> Instant {
        match self.met {
            Some(met) => used.max(met) + self.idle,
            None => self.began + STRANGERS,
        }
    }

    /// Returns why the link should end now, if it should. The peer was last heard at `heard` (not after `began`:
    /// never), and frames last passed at `used`.
    pub fn spent(&mut self, now: Instant, (heard, used): (Instant, Instant)) -> Option<String> {
        if heard > self.began {
            self.met.get_or_insert(heard);
        }
        let (limit, since, what) = match self.met {
            Some(met) => (self.idle, used.max(met), "no frame passed"),
            None => (STRANGERS, self.began, "nothing came from the peer"),
        };
        let silent = now.saturating_duration_since(since) >= limit;
        silent.then(|| format!("{what} for {limit:?}: stopping until the next datagram"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    #[test]
    fn strangers_have_half_a_minute_and_the_peer_what_is_configured() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut patience = IdleTimeout::new(began, Duration::from_secs(300));
        assert_eq!(patience.spent(at(29), (began, began)), None);
        assert!(patience.spent(at(30), (began, began)).unwrap().contains("for 30s"));
        assert_eq!(patience.spent(at(20), (at(1), began)), None);
        assert_eq!(patience.spent(at(300), (at(299), at(1))), None);
        assert!(patience.spent(at(301), (at(299), at(1))).unwrap().contains("for 300s"));
    }

    #[test]
    fn a_peer_that_comes_late_has_its_time_from_when_it_was_heard() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut patience = IdleTimeout::new(began, Duration::from_secs(2));
        assert_eq!(patience.spent(at(9), (at(9), began)), None, "heard, but not up yet");
        assert_eq!(patience.spent(at(10), (at(10), began)), None);
        assert!(patience.spent(at(11), (at(11), began)).is_some(), "what it says alone is no use");
    }
}
