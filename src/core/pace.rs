//! At most so many of something in each stretch of time.

use std::time::{Duration, Instant};

/// Counts within the present stretch, which begins with the first after the last one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    since: Option<Instant>,
    count: u32,
}

impl Pace {
    /// Whether one more is among the first `most` of its stretch of length `each`.
    pub fn allows(&mut self, now: Instant, most: u32, each: Duration) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= each) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    #[test]
    fn so_many_pass_in_each_stretch() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let each = Duration::from_millis(100);
        let passed = (0..1000).filter(|at| pace.allows(start + Duration::from_millis(*at), 3, each));
        assert_eq!(passed.count(), 30);
    }
}
