//! A queue that only stands adds delay and no throughput: when one does, in the socket or before the cipher, a datagram
//! or segment is given up early, so that the senders inside slow down before a buffer is full and whole batches are lost. The law is that of CoDel
//! (RFC 8289). The measure is bytes where what waits is not dated, and where a path takes it without delay; it is time where the path holds it back.

use std::time::{Duration, Instant};

/// Bytes that may wait for longer than `INTERVAL` (2 ms).
///
/// Measured on two processors with one TCP stream: twice the time adds a twentieth to its throughput and a quarter
/// to the round trip of a ping beside it; half as much takes a fifth of the throughput away.
pub const TARGET: usize = 128 * 1024;
/// Many round trips of the local network; bursts are shorter.
const INTERVAL: Duration = Duration::from_millis(2);

/// On a path that holds back, nothing waits longer than this for more than `HELD_INTERVAL` (100 ms), the interval of RFC 8289. At 20 Mbit/s
/// that is 50 kB, for a path of 50 ms two fifths of what is on its way.
pub const HELD_TARGET: Duration = Duration::from_millis(20);
const HELD_INTERVAL: Duration = Duration::from_millis(100);

/// Decides when a datagram is given up.
#[derive(Debug)]
pub struct Codel {
    /// A queue may stand for so long.
    interval: Duration,
    /// Since when more than the target waits.
    above_since: Option<Instant>,
    /// Datagrams given up since then.
    count: u32,
    /// When the next one is.
    next: Option<Instant>,
}

impl Codel {
    /// For what passes at the speed of this machine.
    pub fn passing() -> Self {
        Self::of(INTERVAL)
    }

    /// For what a path holds back.
    pub fn held() -> Self {
        Self::of(HELD_INTERVAL)
    }

    fn of(interval: Duration) -> Self {
        Self { interval, above_since: None, count: 0, next: None }
    }

    /// Takes whether more waits than should, now; true: one datagram is to be given up, or marked.
    pub fn should_drop(&mut self, now: Instant, is_above: bool) -> bool {
        if !is_above {
            *self = Self::of(self.interval);
            return false;
        }
        let since = *self.above_since.get_or_insert(now);
        if now < self.next.unwrap_or(since + self.interval) {
            return false;
        }
        self.count += 1;
        self.next = Some(now + self.interval.div_f64(f64::from(self.count).sqrt()));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    /// When, in milliseconds, something is shed while `waiting` says how much waits in each one.
    fn shed(milliseconds: u64, waiting: impl Fn(u64) -> usize) -> Vec<u64> {
        let mut codel = Codel::passing();
        let start = Instant::now();
        (0..milliseconds)
            .filter(|at| codel.should_drop(start + Duration::from_millis(*at), waiting(*at) > TARGET))
            .collect()
    }

    #[test]
    fn short_queues_and_short_bursts_lose_nothing() {
        assert_eq!(shed(1000, |_| TARGET), [0; 0]);
        assert_eq!(shed(1000, |at| if at % 2 == 1 { 0 } else { 100 * TARGET }), [0; 0]);
    }

    #[test]
    fn what_a_path_holds_back_has_the_time_of_a_round_trip_before_it_is_cut() {
        let mut codel = Codel::held();
        let start = Instant::now();
        let times: Vec<u64> =
            (0..400).filter(|at| codel.should_drop(start + Duration::from_millis(*at), true)).collect();
        assert_eq!(times[..2], [100, 200]);
        assert!(times.len() < 6, "{times:?}");
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
