//! A queue that only stands adds delay and no throughput: when one does, in the socket or before the cipher, a datagram
//! or segment is given up early, so that the senders inside slow down before a buffer is full and whole batches are lost. The law is that of CoDel
//! (RFC 8289); the measure is bytes instead of time, as what waits is not dated.

use std::time::{Duration, Instant};

/// Bytes that may wait for longer than `INTERVAL` (2 ms).
///
/// Measured on two processors with one TCP stream: twice the time adds a twentieth to its throughput and a quarter
/// to the round trip of a ping beside it; half as much takes a fifth of the throughput away.
pub const TARGET: usize = 128 * 1024;
/// Many round trips of the local network; bursts are shorter.
const INTERVAL: Duration = Duration::from_millis(2);

/// Decides when a datagram is given up.
#[derive(Debug, Default)]
pub struct Codel {
    /// Since when more than the target waits.
    above_since: Option<Instant>,
    /// Datagrams given up since then.
    count: u32,
    /// When the next one is.
    next: Option<Instant>,
}

impl Codel {
    /// Takes how much waits now; true: one datagram is to be given up, or marked.
    pub fn should_drop(&mut self, now: Instant, waiting: usize) -> bool {
        if waiting <= TARGET {
            *self = Self::default();
            return false;
        }
        let since = *self.above_since.get_or_insert(now);
        if now < self.next.unwrap_or(since + INTERVAL) {
            return false;
        }
        self.count += 1;
        self.next = Some(now + INTERVAL.div_f64(f64::from(self.count).sqrt()));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    /// When, in milliseconds, something is shed while `waiting` says how much waits in each one.
    fn shed(milliseconds: u64, waiting: impl Fn(u64) -> usize) -> Vec<u64> {
        let mut codel = Codel::default();
        let start = Instant::now();
        (0..milliseconds)
            .filter(|at| codel.should_drop(start + Duration::from_millis(*at), waiting(*at)))
            .collect()
    }

    #[test]
    fn short_queues_and_short_bursts_lose_nothing() {
        assert_eq!(shed(1000, |_| TARGET), [0; 0]);
        assert_eq!(shed(1000, |at| if at % 2 == 1 { 0 } else { 100 * TARGET }), [0; 0]);
    }

    #[test]
    fn a_queue_that_stands_loses_one_datagram_at_a_time_ever_more_often() {
        let times = shed(100, |_| TARGET + 1);
        assert_eq!(times[..4], [2, 4, 6, 8]);
        assert!(times.len() < 100, "a few, not a stream: {times:?}");
        let again = shed(200, |at| if at == 100 { 0 } else { TARGET + 1 });
        assert!(again.contains(&103), "after it was short it begins anew: {again:?}");
    }
}
