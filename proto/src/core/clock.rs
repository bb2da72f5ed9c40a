//! Time in the pure half, and detection of copies of a running system.

use std::time::Instant;

use super::limits::CLOCKS_PART;

/// The time of an event: a monotonic instant, and the wall clock in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For timers; never goes back, and stops while the host sleeps.
    pub instant: Instant,
    /// For key ids; may jump.
    pub wall: u64,
}

/// Checks that both clocks advance alike. They diverge when the host slept, when a snapshot was restored and its clock
/// set, and when somebody sets the clock. This process may then be one of two copies, and must not reuse any counter it
/// remembers.
#[derive(Debug, Default)]
pub struct ClockJumpDetector {
    last: Option<Now>,
}

impl ClockJumpDetector {
    /// Whether the clocks have diverged since the previous call.
    pub fn has_jumped(&mut self, now: Now) -> bool {
        let Some(last) = self.last.replace(now) else { return false };
        let instants = now.instant.saturating_duration_since(last.instant).as_micros();
        let expected = u128::from(last.wall) + instants;
        expected.abs_diff(now.wall.into()) > CLOCKS_PART.as_micros()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_jump_of_one_clock_parts_them() {
        let (start, wall) = (Instant::now(), 1_790_000_000_000_000);
        let at = |seconds: u64, ahead: i64| Now {
            instant: start + Duration::from_secs(seconds),
            wall: (wall + seconds * 1_000_000).saturating_add_signed(ahead),
        };
        let mut watch = ClockJumpDetector::default();
        let second = 1_000_000;
        let steps = [
            (at(0, 0), false),
            (at(1000, 0), false),
            // Slewed by half a second each time, as by a time daemon.
            (at(1001, 500_000), false),
            (at(1002, second), false),
            (at(1003, 3 * second), true),
            (at(1004, 3 * second), false),
            (at(1005, 0), true),
            (at(1006, -3600 * second), true),
            (at(1007, -3600 * second), false),
        ];
        for (number, (now, has_jumped)) in steps.into_iter().enumerate() {
            assert_eq!(watch.has_jumped(now), has_jumped, "step {number}");
        }
        assert!(watch.has_jumped(Now { instant: start + Duration::from_secs(2000), wall: 0 }), "set to 1970");
    }
}
