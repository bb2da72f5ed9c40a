//! Path MTU discovery by authenticated probes (RFC 8899, as in QUIC, RFC 9000 §14.3).
//!
//! A probe is a ping as long as the datagram in question, sent with a short ping. Only an answer raises the budget. It
//! falls to the minimum if three probes of its own length are lost while their short pings are answered. Claims by a
//! router or this host only make this check come earlier.

use std::time::{Duration, Instant};

use super::limits::{
    BUDGET_BASE, BUDGET_LEAST, BUDGET_MAX, PROBE_LOSSES, PROBE_PATIENCE, PROBE_RAISE, PROBE_STEP,
    PROBE_VERIFY, PROBE_WAIT,
};

/// Two pings to send: one in a datagram of `length` bytes, and a short one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Length of the long ping's datagram in bytes.
    pub length: usize,
    /// Its number.
    pub long: u32,
    /// The short ping's number.
    pub short: u32,
}

/// What the search wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// Nothing: no length above the budget is in question.
    Settled,
    /// Whether more than the budget passes.
    Raise,
    /// Whether the budget still passes.
    Verify,
}

struct Outstanding {
    round: Round,
    sent: Instant,
    short_answered: bool,
}

/// The search for the longest datagram on one path, in one direction.
pub struct Pmtud {
    /// Longest length answered, if any.
    passes: Option<usize>,
    /// Longest length to try: the limit of route and peer.
    ceiling: usize,
    /// Shortest length known to fail.
    fails: Option<usize>,
    aim: Aim,
    outstanding: Option<Outstanding>,
    losses: u32,
    /// Consecutive rounds without any answer.
    silent: u32,
    /// When the next round may begin.
    next: Option<Instant>,
    /// Delay from one search to the next, ...
    raise: Duration,
    /// ... and when that ends.
    raise_at: Option<Instant>,
    verified: Instant,
    /// Smoothed round-trip time (RFC 6298).
    rtt: Option<Duration>,
    n: u32,
}

impl Pmtud {
    /// Nothing is known of the path.
    pub fn new(now: Instant) -> Self {
        Self {
            passes: None,
            ceiling: BUDGET_BASE,
            fails: None,
            aim: Aim::Raise,
            outstanding: None,
            losses: 0,
            silent: 0,
            next: Some(now),
            raise: PROBE_RAISE[0],
            raise_at: None,
            verified: now,
            rtt: None,
            n: 0,
        }
    }

    /// Longest datagram for frames, in bytes.
    pub fn budget(&self) -> usize {
        self.passes.unwrap_or(BUDGET_LEAST.min(self.ceiling))
    }

    /// Longest datagram known to pass, in bytes.
    pub fn passes(&self) -> Option<usize> {
        self.passes
    }

    /// Whether even the minimum is known to fail.
    pub fn is_too_narrow(&self) -> bool {
        self.passes.is_none() && self.fails.is_some_and(|fails| fails <= BUDGET_LEAST)
    }

    /// Smoothed round-trip time, after the first pong.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Sets the longest length to try, and tries it if it changed.
    pub fn set_ceiling(&mut self, now: Instant, ceiling: usize) {
        let ceiling = ceiling.min(BUDGET_MAX);
        if ceiling == self.ceiling {
            return;
        }
        (self.ceiling, self.fails, self.losses, self.outstanding) = (ceiling, None, 0, None);
        (self.aim, self.raise) = (Aim::Raise, PROBE_RAISE[0]);
        self.passes = self.passes.map(|passes| passes.min(ceiling));
        self.go_on(now);
    }

    /// The path has changed: forgets everything.
    pub fn reset(&mut self, now: Instant) {
        let n = self.n;
        *self = Self { n, ..Self::new(now) };
    }

    /// Datagrams longer than the minimum were sent: verifies the budget, unless just done.
    pub fn handle_use(&mut self, now: Instant) {
        if now >= self.verified + PROBE_VERIFY {
            self.doubt(now);
        }
    }

    /// Handles a pong. True: the budget changed.
    pub fn handle_pong(&mut self, now: Instant, n: u32) -> bool {
        let Some(outstanding) = &mut self.outstanding else { return false };
        let Round { length, long, short } = outstanding.round;
        if n != long && n != short {
            return false;
        }
        self.silent = 0;
        let sample = now.saturating_duration_since(outstanding.sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        if n == short {
            outstanding.short_answered = true;
            return false;
        }
        (self.outstanding, self.losses) = (None, 0);
        self.verified = now;
        if self.fails.is_some_and(|fails| fails <= length) {
            self.fails = None;
        }
        let raised = self.passes.is_none_or(|passes| length > passes);
        if raised {
            (self.passes, self.raise) = (Some(length), PROBE_RAISE[0]);
        }
        self.go_on(now);
        raised
    }

    /// When to call [`Pmtud::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.outstanding {
            Some(outstanding) => Some(outstanding.sent + self.patience()),
            None => self.next,
        }
    }

    /// Gives up overdue pings. True: the budget changed, or nothing is left to try. Then [`Pmtud::poll_round`] may have a round to
    /// send.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let patience = self.patience();
        let late = self.outstanding.take_if(|outstanding| now >= outstanding.sent + patience);
        let Some(Outstanding { round, short_answered, .. }) = late else { return false };
        // A path that lets nothing through tells nothing about lengths.
        if !short_answered {
            self.next = Some(now + patience);
            self.silent = (self.silent + 1).min(PROBE_PATIENCE);
            return false;
        }
        self.losses += 1;
        self.next = Some(now);
        if self.losses < PROBE_LOSSES {
            return false;
        }
        self.losses = 0;
        self.fails = Some(round.length);
        let falls = self.passes.is_some_and(|passes| round.length <= passes);
        if falls {
            (self.passes, self.raise) = (None, PROBE_RAISE[0]);
        }
        self.go_on(now);
        falls || self.is_too_narrow()
    }

    /// Returns the next round, if due, and counts it as sent.
    pub fn poll_round(&mut self, now: Instant) -> Option<Round> {
        if self.outstanding.is_some() || self.next.is_none_or(|next| now < next) {
            return None;
        }
        if self.aim == Aim::Settled {
            self.begin(now, Aim::Raise);
            self.fails = None;
        }
        let length = match self.aim {
            Aim::Settled => return None,
            Aim::Verify => self.passes?,
            Aim::Raise => self.candidate()?,
        };
        let round = Round { length, long: self.n.wrapping_add(1), short: self.n.wrapping_add(2) };
        self.n = round.short;
        self.next = None;
        self.outstanding = Some(Outstanding { round, sent: now, short_answered: false });
        Some(round)
    }

    /// Checks whether the budget still passes, unless a check is in progress: a host claims that datagrams are too long, or it is time.
    pub fn doubt(&mut self, now: Instant) {
        let idle = self.outstanding.is_none() && self.aim == Aim::Settled;
        if idle && self.budget() > BUDGET_LEAST {
            self.begin(now, Aim::Verify);
        }
    }

    fn begin(&mut self, now: Instant, aim: Aim) {
        (self.aim, self.losses, self.next, self.outstanding) = (aim, 0, Some(now), None);
    }

    /// A question is answered: goes to the next one, if any.
    fn go_on(&mut self, now: Instant) {
        self.verified = now;
        if self.candidate().is_some() {
            return self.begin(now, Aim::Raise);
        }
        // Not after verifying the budget: traffic would postpone the search for ever.
        if self.aim == Aim::Raise {
            let is_open = self.passes.is_none_or(|passes| passes < self.ceiling);
            self.raise_at = is_open.then_some(now + self.raise);
            self.raise = (self.raise * 2).min(PROBE_RAISE[1]);
        }
        (self.aim, self.next) = (Aim::Settled, self.raise_at);
    }

    /// The next length to try: ceiling, base or minimum, whichever is the first undecided one, then halfway between what
    /// passes and what fails.
    fn candidate(&self) -> Option<usize> {
        let (passes, fails) = (self.passes.unwrap_or(0), self.fails.unwrap_or(usize::MAX));
        let usual = [BUDGET_BASE, BUDGET_LEAST].into_iter().filter(|length| *length < self.ceiling);
        let open =
            std::iter::once(self.ceiling).chain(usual).find(|length| (passes + 1..fails).contains(length));
        open.or_else(|| {
            let gap = self.fails?.checked_sub(self.passes?)?;
            (gap > PROBE_STEP).then_some(passes + gap / 2)
        })
    }

    /// How long a round waits for answers: longer after rounds without any, since the path's delay may have grown.
    fn patience(&self) -> Duration {
        let [least, most] = PROBE_WAIT;
        let usual = self.rtt.map_or(most / 2, |rtt| (rtt * 3 / 2 + least / 2).clamp(least, most));
        (usual * (1 << self.silent)).min(most)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use proptest::prelude::*;

    use super::*;

    /// A path with 30 ms round trip that drops datagrams longer than `passes`.
    struct Path {
        now: Instant,
        search: Pmtud,
        passes: usize,
        dead: bool,
        delay: Duration,
        rounds: u32,
        pongs: Vec<(Instant, u32)>,
    }

    impl Path {
        fn new(ceiling: usize, passes: usize) -> Self {
            let now = Instant::now();
            let mut search = Pmtud::new(now);
            search.set_ceiling(now, ceiling);
            Self {
                now,
                search,
                passes,
                dead: false,
                delay: Duration::from_millis(30),
                rounds: 0,
                pongs: Vec::new(),
            }
        }

        /// Runs for so many seconds in steps of 10 ms.
        fn run(&mut self, seconds: f64) {
            let until = self.now + Duration::from_secs_f64(seconds);
            while self.now < until {
                self.search.handle_timeout(self.now);
                if let Some(round) = self.search.poll_round(self.now) {
                    self.rounds += 1;
                    let at = self.now + self.delay;
                    if !self.dead {
                        self.pongs.push((at, round.short));
                    }
                    if !self.dead && round.length <= self.passes {
                        self.pongs.push((at, round.long));
                    }
                }
                self.now += Duration::from_millis(10);
                self.pongs.retain(|(at, n)| {
                    let due = *at <= self.now;
                    if due {
                        self.search.handle_pong(self.now, *n);
                    }
                    !due
                });
            }
        }
    }

    #[test]
    fn a_path_that_takes_the_ceiling_is_used_after_one_round() {
        let mut path = Path::new(1472, 1472);
        path.run(0.05);
        assert_eq!((path.search.budget(), path.rounds), (1472, 1));
        assert_eq!(path.search.poll_timeout(), None, "nothing more to ask");
    }

    #[test]
    fn a_ceiling_that_falls_to_the_budget_leaves_nothing_due() {
        let mut path = Path::new(1472, 1472);
        path.run(0.1);
        path.search.set_ceiling(path.now, BUDGET_BASE);
        assert_eq!((path.search.poll_round(path.now), path.search.poll_timeout()), (None, None));
    }

    #[test]
    fn a_smaller_path_is_found_to_within_a_step() {
        let mut path = Path::new(1472, 1333);
        path.run(8.0);
        let budget = path.search.budget();
        assert!(budget <= 1333 && budget + PROBE_STEP >= 1333, "{budget}");
        let rounds = path.rounds;
        path.run(60.0);
        assert!(path.rounds < rounds + 60, "{} rounds in a minute", path.rounds - rounds);
        path.run(3600.0);
        let rounds = path.rounds;
        path.run(3600.0);
        assert!(path.rounds < rounds + 6 * 20, "a path that stays small is rarely asked");
        path.passes = 1472;
        path.run(PROBE_RAISE[1].as_secs_f64());
        assert_eq!(path.search.budget(), 1472, "a path that grew is found in time");
    }

    #[test]
    fn a_path_narrower_than_the_base_is_measured_and_nothing_longer_is_sent_meanwhile() {
        for passes in [1072, 672, BUDGET_LEAST] {
            let mut path = Path::new(1472, passes);
            for _ in 0..500 {
                path.run(0.01);
                assert!(path.search.budget() <= passes);
                assert!(path.search.passes().is_none_or(|known| known <= passes), "no number is said before");
            }
            let budget = path.search.passes().unwrap();
            assert!(budget + PROBE_STEP >= passes, "{budget} of {passes}");
        }
    }

    #[test]
    fn a_path_that_widens_is_found_soon_and_under_traffic() {
        let mut path = Path::new(1472, 672);
        path.run(10.0);
        path.passes = 1472;
        for _ in 0..300 {
            path.search.handle_use(path.now);
            path.run(0.1);
        }
        assert_eq!(path.search.budget(), 1472);
    }

    #[test]
    fn a_path_that_does_not_take_the_least_is_told_of() {
        let mut path = Path::new(1472, 300);
        path.run(5.0);
        assert!(path.search.is_too_narrow());
        assert_eq!((path.search.passes(), path.search.budget()), (None, BUDGET_LEAST));
        path.passes = 1072;
        path.run(60.0);
        assert!(!path.search.is_too_narrow() && path.search.budget() > 1072 - PROBE_STEP);
    }

    #[test]
    fn a_path_that_shrinks_below_the_base_is_noticed_within_three_seconds() {
        for passes in [1072, 672] {
            let mut path = Path::new(1472, 1472);
            path.run(5.0);
            path.passes = passes;
            for _ in 0..30 {
                path.search.handle_use(path.now);
                path.run(0.1);
            }
            assert!((BUDGET_LEAST..=passes).contains(&path.search.budget()), "{}", path.search.budget());
        }
    }

    #[test]
    fn a_path_that_shrinks_under_traffic_is_noticed_within_three_seconds() {
        let mut path = Path::new(1472, 1472);
        path.run(5.0);
        path.passes = 1252;
        for _ in 0..30 {
            path.search.handle_use(path.now);
            path.run(0.1);
        }
        assert!(
            (BUDGET_BASE - PROBE_STEP..=1252).contains(&path.search.budget()),
            "{}",
            path.search.budget()
        );
    }

    #[test]
    fn a_claim_is_checked_within_a_second_and_a_false_one_changes_nothing() {
        let mut path = Path::new(1472, 1472);
        path.run(5.0);
        path.search.doubt(path.now);
        path.run(1.0);
        assert_eq!(path.search.budget(), 1472, "a lie");
        path.passes = 1252;
        path.search.doubt(path.now);
        path.run(1.0);
        assert!(path.search.budget() <= 1252);
    }

    #[test]
    fn a_path_that_became_longer_is_still_measured() {
        let mut path = Path::new(1472, 1472);
        path.run(5.0);
        path.delay = Duration::from_millis(700);
        path.passes = 1252;
        path.search.handle_use(path.now);
        path.run(20.0);
        assert!((BUDGET_BASE..=1252).contains(&path.search.budget()), "{}", path.search.budget());
    }

    #[test]
    fn a_dead_path_says_nothing_of_lengths() {
        let mut path = Path::new(1472, 1472);
        path.run(5.0);
        path.dead = true;
        path.search.doubt(path.now);
        path.run(20.0);
        assert_eq!(path.search.budget(), 1472);
        assert!(path.rounds < 30, "{} rounds in 20 s", path.rounds);
        path.dead = false;
        path.run(5.0);
        assert_eq!(path.search.budget(), 1472);
    }

    #[test]
    fn another_path_begins_at_the_least() {
        let mut path = Path::new(1472, 1472);
        path.run(1.0);
        path.search.reset(path.now);
        assert_eq!((path.search.budget(), path.search.passes()), (BUDGET_LEAST, None));
        path.search.set_ceiling(path.now, 400);
        assert_eq!(path.search.budget(), 400, "a route below the least is believed");
    }

    proptest! {
        /// For any limit of the path, the length found passes and is close to the limit.
        #[test]
        fn finds_what_passes(ceiling in 400usize..9000, passes in BUDGET_LEAST..9000) {
            let mut path = Path::new(ceiling, passes);
            path.run(30.0);
            let most = ceiling.min(passes);
            prop_assert!(path.search.budget() <= most);
            prop_assert!(path.search.budget() + PROBE_STEP >= most, "{} of {}", path.search.budget(), most);
        }
    }
}
