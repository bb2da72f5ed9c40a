//! Timing of repairs: at once, then less and less often, but never given up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Maximum pause between two attempts.
const LONGEST: Duration = Duration::from_secs(30);
/// After this long without an attempt, the pauses start over.
const FORGET: Duration = Duration::from_secs(60);

/// The current differences, by code. The pauses between attempts are 2, 4, 8, 16 and then 30 s, so that no difference is repaired more than five
/// times a minute, however often it recurs.
#[derive(Debug, Default)]
pub struct Mending(BTreeMap<&'static str, Kind>);

#[derive(Debug, Default)]
struct Kind {
    /// When it began, in seconds since the Unix epoch; `None` if it is over.
    since: Option<u64>,
    tried: Option<Instant>,
    attempts: u32,
    /// The last text logged for it.
    said: Option<String>,
}

impl Kind {
    fn free_at(&self) -> Option<Instant> {
        let pause = Duration::from_secs(1 << self.attempts.min(5)).min(LONGEST);
        self.tried.map(|tried| tried + pause)
    }
}

impl Mending {
    /// Records the current differences; returns those that have ended, with their start.
    pub fn observe(&mut self, codes: &[&'static str], unix_time: u64) -> Vec<(&'static str, u64)> {
        for code in codes {
            self.0.entry(code).or_default().since.get_or_insert(unix_time);
        }
        let gone = self.0.iter_mut().filter(|(code, _)| !codes.contains(*code));
        let ended = gone.filter_map(|(code, kind)| {
            kind.said = None;
            Some((*code, kind.since.take()?))
        });
        ended.collect()
    }

    /// Whether this may be repaired now; if so, records an attempt.
    pub fn attempt(&mut self, code: &'static str, now: Instant) -> bool {
        let kind = self.0.entry(code).or_default();
        if kind.tried.is_some_and(|tried| now.saturating_duration_since(tried) >= FORGET) {
            kind.attempts = 0;
            kind.tried = None;
        }
        let free = kind.free_at().is_none_or(|at| at <= now);
        if free {
            kind.tried = Some(now);
            kind.attempts = kind.attempts.saturating_add(1);
        }
        free
    }

    /// When this may be repaired again.
    pub fn free_at(&self, code: &str) -> Option<Instant> {
        self.0.get(code)?.free_at()
    }

    /// Whether this text is new to the log: not the last one logged for the difference while it lasts.
    pub fn is_news(&mut self, code: &'static str, text: &str) -> bool {
        let said = &mut self.0.entry(code).or_default().said;
        let news = said.as_deref() != Some(text);
        if news {
            *said = Some(text.to_owned());
        }
        news
    }

    /// When it began.
    pub fn since(&self, code: &str) -> Option<u64> {
        self.0.get(code)?.since
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    /// The times of attempts in this period, if asked ten times a second.
    fn attempts(mending: &mut Mending, start: Instant, seconds: std::ops::Range<u64>) -> Vec<u64> {
        let tenths = seconds.start * 10..seconds.end * 10;
        let at = |tenth: u64| start + Duration::from_millis(tenth * 100);
        tenths.filter(|tenth| mending.attempt("route-missing", at(*tenth))).map(|tenth| tenth / 10).collect()
    }

    #[test]
    fn what_differs_again_and_again_is_mended_five_times_a_minute_and_for_ever() {
        let (mut mending, start) = (Mending::default(), Instant::now());
        let all = attempts(&mut mending, start, 0..3600);
        assert_eq!(all[..7], [0, 2, 6, 14, 30, 60, 90]);
        assert!(all.windows(6).all(|six| six[5] - six[0] >= 60), "{all:?}");
        assert!(all.last() >= Some(&3569), "never given up");
    }

    #[test]
    fn after_a_quiet_minute_it_is_mended_at_once() {
        let (mut mending, start) = (Mending::default(), Instant::now());
        assert_eq!(attempts(&mut mending, start, 0..10), [0, 2, 6]);
        assert_eq!(attempts(&mut mending, start, 66..76), [66, 68, 72]);
        assert!(mending.attempt("device-down", start + Duration::from_secs(7)), "each for itself");
    }

    #[test]
    fn a_difference_has_a_beginning_and_an_end_and_is_said_once() {
        let mut mending = Mending::default();
        assert_eq!(mending.observe(&["device-down"], 7), []);
        assert!(
            mending.is_news("device-down", "it is down") && !mending.is_news("device-down", "it is down")
        );
        assert_eq!(mending.observe(&["device-down", "route-missing"], 9), []);
        assert_eq!((mending.since("device-down"), mending.since("route-missing")), (Some(7), Some(9)));
        assert_eq!(mending.observe(&["route-missing"], 11), [("device-down", 7)]);
        assert_eq!((mending.since("device-down"), mending.observe(&["route-missing"], 12)), (None, vec![]));
        assert_eq!(mending.observe(&["device-down"], 13), [("route-missing", 9)]);
        assert_eq!(mending.since("device-down"), Some(13));
        assert!(mending.is_news("device-down", "it is down"));
    }
}
