//! How long conditions have held.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Condition;
use crate::core::limits::LASTING;

/// When each condition was first and last reported. What holds is repeated, so a condition that is reported again only after [`LASTING`] has begun
/// anew.
#[derive(Debug, Default)]
pub struct Spells(BTreeMap<&'static str, (Instant, Instant)>);

impl Spells {
    /// A condition is reported.
    pub fn note(&mut self, now: Instant, condition: &Condition) {
        let (begun, last) = self.0.entry(condition.code()).or_insert((now, now));
        if now >= *last + LASTING {
            *begun = now;
        }
        *last = now;
    }

    /// How long a condition that holds has done so, if it was ever reported.
    pub fn age(&self, now: Instant, condition: &Condition) -> Option<Duration> {
        self.0.get(condition.code()).map(|(begun, _)| now.saturating_duration_since(*begun))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    #[test]
    fn a_condition_that_returns_has_begun_anew() {
        let (start, mut spells) = (Instant::now(), Spells::default());
        let (holds, other) = (Condition::KeyMismatch, Condition::NoRemote);
        let mut age_after = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            spells.note(now, &holds);
            [1, 1000].map(|later| spells.age(now + Duration::from_secs(later), &holds).unwrap().as_secs())
        };
        assert_eq!([0, 60, 129].map(&mut age_after), [[1, 1000], [61, 1060], [130, 1129]]);
        assert_eq!(age_after(129 + LASTING.as_secs()), [1, 1000]);
        assert_eq!(spells.age(start, &other), None);
    }
}
