//! How long a link waits that a superserver started, and can start again.

use std::time::{Duration, Instant};

/// As long as nothing authentic came. Whoever started the link may be a stranger: it takes his datagrams for so long, so
/// that they start no other process meanwhile.
const STRANGERS: Duration = Duration::from_secs(30);

/// The limits of one process.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    began: Instant,
    idle: Duration,
}

impl Patience {
    /// For a link that began then, and ends when no frame passed for `idle`.
    pub fn new(began: Instant, idle: Duration) -> Self {
        Self { began, idle }
    }

    /// Why the link should end now, if it should; its peer was last heard at `heard`, or never when that is not after
    /// the beginning, and it was last used by frames at `used`.
    pub fn spent(&self, now: Instant, (heard, used): (Instant, Instant)) -> Option<String> {
        let (limit, since, what) = match heard > self.began {
            true => (self.idle, used, "no frame passed"),
            false => (STRANGERS, self.began, "nothing came that the peer has sent"),
        };
        let silent = now.saturating_duration_since(since) >= limit;
        silent.then(|| format!("{what} for {limit:?}: stopping until the next datagram"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::clock;

    #[test]
    fn strangers_have_half_a_minute_and_the_peer_what_is_configured() {
        let began = clock::now().instant;
        let at = |seconds| began + Duration::from_secs(seconds);
        let patience = Patience::new(began, Duration::from_secs(300));
        assert_eq!(patience.spent(at(29), (began, began)), None);
        assert!(patience.spent(at(30), (began, began)).unwrap().contains("for 30s"));
        assert_eq!(patience.spent(at(300), (at(299), at(1))), None);
        assert!(patience.spent(at(301), (at(299), at(1))).unwrap().contains("for 300s"));
    }
}
