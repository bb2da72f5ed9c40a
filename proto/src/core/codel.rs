//! A standing queue adds delay but no throughput. If one forms in the socket or before the cipher, a datagram or segment is dropped early, so that
//! inner senders slow down before a buffer overflows and loses whole batches. The control law is CoDel's (RFC 8289). The queue is measured in bytes
//! if its items have no timestamps or the path does not delay them, and in time if the path holds it back.

use std::time::{Duration, Instant};

/// Bytes that may wait for longer than `INTERVAL` (2 ms).
///
/// Measured on two processors with one TCP stream: twice the time adds a twentieth to its throughput and a quarter
/// to the round trip of a concurrent ping; half of it costs a fifth of the throughput.
pub const TARGET: usize = 128 * 1024;
/// Many round trips of the local network, and longer than bursts.
const INTERVAL: Duration = Duration::from_millis(2);

/// On a path that holds back, the longest wait for more than `HELD_INTERVAL` (100 ms), RFC 8289's interval. At 20 Mbit/s that is 50 kB, for
/// a 50 ms path two fifths of the data in flight.
pub const HELD_TARGET: Duration = Duration::from_millis(20);
const HELD_INTERVAL: Duration = Duration::from_millis(100);

/// Decides when to drop a datagram.
#[derive(Debug)]
pub struct Codel {
    /// How long a queue may stand.
    interval: Duration,
    /// Since when the queue has been above the target.
    above_since: Option<Instant>,
    /// Datagrams dropped since then.
    count: u32,
    /// When to drop the next.
    next: Option<Instant>,
}

impl Codel {
    /// For a queue that drains at the speed of this machine.
    pub fn passing() -> Self {
        Self::of(INTERVAL)
    }

    /// For a queue that a path holds back.
    pub fn held() -> Self {
        Self::of(HELD_INTERVAL)
    }

    fn of(interval: Duration) -> Self {
        Self { interval, above_since: None, count: 0, next: None }
    }

    /// Updates with whether the queue is above the target now. True: drop or mark one datagram.
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

    /// The milliseconds in which something is shed, if `waiting` is the queue in each.
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
