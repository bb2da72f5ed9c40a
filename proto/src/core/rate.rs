//! Rate limits.

use std::time::{Duration, Instant};

/// A token bucket, stored as the time when it is full again (the generic cell rate algorithm, ITU-T I.371 §A), so no
/// fractions are lost.
#[derive(Debug, Clone, Copy)]
pub struct RateLimiter {
    every: Duration,
    burst: u32,
    full_at: Option<Instant>,
    refused: u64,
}

impl RateLimiter {
    /// Allows a burst of `burst` (0 counts as 1), and one more per `every`.
    pub const fn new(burst: u32, every: Duration) -> Self {
        Self { every, burst, full_at: None, refused: 0 }
    }

    /// Whether one more is within the limit.
    pub fn allow(&mut self, now: Instant) -> bool {
        if self.free_at(now) > now {
            self.refused += 1;
            return false;
        }
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + self.every);
        true
    }

    /// Charges the last event as so many more, even beyond the burst: the next waits longer.
    pub fn charge(&mut self, more: u32) {
        self.full_at = self.full_at.map(|at| at + self.every * more);
    }

    /// When one more is within the limit, unless others come first; `now` if it already is.
    pub fn free_at(&self, now: Instant) -> Instant {
        let burst = self.every * self.burst.saturating_sub(1);
        self.full_at.and_then(|at| at.checked_sub(burst)).map_or(now, |at| at.max(now))
    }

    /// Number refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let start = Instant::now();
        let mut limit = RateLimiter::new(3, Duration::from_millis(500));
        let mut passed = |at: u64| (0..10).filter(|_| limit.allow(start + Duration::from_millis(at))).count();
        assert_eq!(passed(0), 3);
        assert_eq!(passed(500), 1);
        assert_eq!(passed(10_000), 3);
        assert_eq!(limit.take_refused(), 23);
        assert_eq!(limit.take_refused(), 0);
    }

    #[test]
    fn what_is_charged_makes_the_next_wait() {
        let start = Instant::now();
        let mut limit = RateLimiter::new(3, Duration::from_millis(500));
        assert!(limit.allow(start));
        limit.charge(6);
        assert_eq!(limit.free_at(start), start + Duration::from_millis(2500));
        assert!(
            !limit.allow(start + Duration::from_millis(2499))
                && limit.allow(start + Duration::from_millis(2500))
        );
    }

    #[test]
    fn a_wait_until_it_is_free_is_long_enough_and_no_longer() {
        let mut now = Instant::now();
        for every in [14_285, 5000, 1000, 333, 5].map(Duration::from_millis) {
            let mut limit = RateLimiter::new(2, every);
            assert_eq!(limit.free_at(now), now);
            for _ in 0..1000 {
                let due = limit.free_at(now);
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)).filter(|at| *at > now) {
                    assert!(!limit.allow(before), "{every:?}");
                }
                now = due;
                assert!(limit.allow(now), "{every:?}");
            }
        }
    }
}
