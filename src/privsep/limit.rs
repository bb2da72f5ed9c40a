//! How often something may happen that costs the parent time or the log space.

use std::time::{Duration, Instant};

/// What is lost where times become fractions: a wait until [`Limit::free_at`] is long enough.
const ROUNDING: f64 = 1e-6;

/// A token bucket: `burst` at once, `rate` a second in the long run.
pub struct Limit {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
    refused: u64,
}

impl Limit {
    /// A full bucket.
    pub fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, filled: now, refused: 0 }
    }

    /// Whether one more is within the limit.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.tokens = self.tokens_at(now);
        self.filled = now;
        if self.tokens < 1.0 - ROUNDING {
            self.refused += 1;
            return false;
        }
        self.tokens = (self.tokens - 1.0).max(0.0);
        true
    }

    /// The last one counts for so many more than one, also for more than there are: what follows waits the longer.
    pub fn charge(&mut self, more: usize) {
        self.tokens -= more as f64;
    }

    /// When one more is within the limit, unless others come before; `now` if it is already.
    pub fn free_at(&self, now: Instant) -> Instant {
        now + Duration::from_secs_f64((1.0 - self.tokens_at(now)).max(0.0) / self.rate)
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        elapsed.mul_add(self.rate, self.tokens).min(self.burst)
    }

    /// How many were refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "only differences of the clock matter here")]

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let start = Instant::now();
        let mut limit = Limit::new(2.0, 3.0, start);
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
        let mut limit = Limit::new(2.0, 3.0, start);
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
        for rate in [0.07, 0.2, 1.0, 3.0, 200.0] {
            let mut limit = Limit::new(rate, 2.0, now);
            assert_eq!(limit.free_at(now), now);
            for _ in 0..1000 {
                let due = limit.free_at(now);
                if let Some(before) = due.checked_sub(Duration::from_micros(100)).filter(|at| *at > now) {
                    assert!(!limit.allow(before), "{rate}");
                }
                now = due;
                assert!(limit.allow(now), "{rate}");
            }
        }
    }
}
