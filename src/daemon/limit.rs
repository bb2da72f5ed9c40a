//! How often the engine may ask for something that costs the parent time or the log space.

use std::time::Instant;

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
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = elapsed.mul_add(self.rate, self.tokens).min(self.burst);
        self.filled = now;
        if self.tokens < 1.0 {
            self.refused += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
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
    use std::time::Duration;

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
}
