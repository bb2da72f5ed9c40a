//! Decides which starts of the peer are accepted, and this end's start, by two numbers kept across restarts.
//!
//! OpenVPN names each start of a sender by its clock, and a receiver accepts any later than all before. Recordings would
//! pass again after the receiver restarts, so tund keeps the latest time that it accepted, and wants proof for that time
//! and earlier ones. The proof is an answer of a length that only a live peer can know: any OpenVPN from 2.3 on sends a
//! datagram of any requested size, and the size is drawn at random. So even a peer whose clock is behind, or far ahead,
//! is accepted while it runs.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::crypto::Random;

/// How far ahead of the own clock a start is accepted without proof, in seconds.
pub const AHEAD: u32 = 120;
/// Requested sizes in bytes.
const SIZES: std::ops::Range<u16> = 100..1300;
/// Consecutive right answers that prove a start.
const ROUNDS: u8 = 3;
/// Starts that may be proved at the same time.
const CANDIDATES: usize = 4;
/// Minimum interval of requests to an unproven start, not counting one for each right answer.
const ASK: Duration = Duration::from_secs(1);
/// Minimum interval of following the peer's start.
const STEP: Duration = Duration::from_secs(60);

/// Numbers kept across restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Time of the own start, or of the latest before it, in seconds since the Unix epoch.
    pub own: u32,
    /// The peer's latest start accepted without proof; 0: none.
    pub admitted: u32,
}

impl Kept {
    /// Returns a new own start: later than all before, and not before the clock.
    ///
    /// A peer accepts nothing from an earlier one.
    #[must_use]
    pub fn started(self, clock: u32) -> Self {
        Self { own: clock.max(self.own.saturating_add(1)), ..self }
    }
}

/// What to do about a datagram of a start not yet accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accept the start, after this number if any, once both numbers are kept.
    Take {
        /// To be kept before delivering a frame.
        kept: Kept,
        /// Accept nothing up to this number.
        after: Option<u32>,
    },
    /// Request a datagram of this size.
    Ask(u16),
    /// Nothing.
    Nothing,
}

struct Candidate {
    time: u32,
    asked: u16,
    asked_at: Instant,
    /// By how many bytes the right answers were shorter than requested.
    lacking: Option<usize>,
    rounds: u8,
}

/// The starts of both ends.
pub struct Admission {
    kept: Kept,
    /// By how many bytes an answer may be shorter than requested: a datagram's overhead as the peer's version counts it.
    beyond: [usize; 2],
    candidates: Vec<Candidate>,
    stepped_at: Option<Instant>,
}

impl Admission {
    /// `kept` is from the own start.
    pub fn new(kept: Kept, beyond: [usize; 2]) -> Self {
        Self { kept, beyond, candidates: Vec::with_capacity(CANDIDATES), stepped_at: None }
    }

    /// The two numbers.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Whether any start is being proved.
    pub fn is_asking(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Judges an authentic datagram of a start that is not accepted. `load` is its payload's length, if that is an answer to a
    /// request. `clock` is in seconds since the Unix epoch.
    pub fn judge(
        &mut self,
        now: Instant,
        clock: u32,
        id: crate::wire::openvpn::PacketId,
        load: Option<usize>,
        random: &mut impl Random,
    ) -> Verdict {
        if id.time > self.kept.admitted && id.time <= clock.saturating_add(AHEAD) {
            self.kept.admitted = id.time;
            self.forget(id.time);
            return Verdict::Take { kept: self.kept, after: None };
        }
        let size = SIZES.start + u16::from_be_bytes(random.bytes()) % (SIZES.end - SIZES.start);
        let beyond = self.beyond;
        let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.time == id.time) else {
            return self.ask_first(now, id.time, size);
        };
        if let Some(length) = load.filter(|_| candidate.asked != 0) {
            let lacking = usize::from(candidate.asked).checked_sub(length);
            let fits = lacking.is_some_and(|lacking| match candidate.lacking {
                Some(before) => before == lacking,
                None => beyond.contains(&lacking),
            });
            // Each request has one answer.
            candidate.asked = 0;
            (candidate.lacking, candidate.rounds) = match fits {
                true => (lacking, candidate.rounds + 1),
                false => (None, 0),
            };
            if candidate.rounds == ROUNDS {
                self.forget(id.time);
                return Verdict::Take { kept: self.kept, after: Some(id.seq) };
            }
            if fits {
                return candidate.ask(now, size);
            }
        }
        match now.saturating_duration_since(candidate.asked_at) >= ASK {
            true => candidate.ask(now, size),
            false => Verdict::Nothing,
        }
    }

    /// Begins a new own start at the owner's request.
    pub fn restart(&mut self, clock: u32) -> Kept {
        self.kept = self.kept.started(clock);
        self.kept
    }

    /// If both ends share all keys, the peer rejects its own returning datagrams only if this end started later. If the peer at
    /// `peer` did, and its clock is credible, this end restarts.
    pub fn follow(&mut self, now: Instant, clock: u32, peer: u32) -> Option<Kept> {
        let rests = self.stepped_at.is_some_and(|at| now.saturating_duration_since(at) < STEP);
        if self.kept.own > peer || peer > clock.saturating_add(AHEAD) || rests {
            return None;
        }
        self.stepped_at = Some(now);
        self.kept.own = self.kept.own.max(peer);
        Some(self.restart(clock))
    }

    fn forget(&mut self, time: u32) {
        self.candidates.retain(|candidate| candidate.time != time);
    }

    /// Recordings of many starts may come at once: evicts the one with the least proof, and of those the one asked longest ago.
    fn ask_first(&mut self, now: Instant, time: u32, size: u16) -> Verdict {
        if self.candidates.len() == CANDIDATES {
            let least =
                (0..CANDIDATES).min_by_key(|at| (self.candidates[*at].rounds, self.candidates[*at].asked_at));
            let Some(least) =
                least.filter(|at| now.saturating_duration_since(self.candidates[*at].asked_at) >= ASK)
            else {
                return Verdict::Nothing;
            };
            self.candidates.swap_remove(least);
        }
        self.candidates.push(Candidate { time, asked: size, asked_at: now, lacking: None, rounds: 0 });
        Verdict::Ask(size)
    }
}

impl Candidate {
    fn ask(&mut self, now: Instant, size: u16) -> Verdict {
        (self.asked, self.asked_at) = (size, now);
        Verdict::Ask(size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;
    use crate::testing::Dice;
    use crate::wire::openvpn::PacketId;

    const CLOCK: u32 = 1_796_000_000;

    struct World {
        admission: Admission,
        now: Instant,
        random: Dice,
        seq: u32,
    }

    impl World {
        fn new(kept: Kept) -> Self {
            let admission = Admission::new(kept, [44, 60]);
            Self { admission, now: Instant::now(), random: Dice(9), seq: 0 }
        }

        fn judge(&mut self, time: u32, load: Option<usize>) -> Verdict {
            self.seq += 1;
            let id = PacketId { seq: self.seq, time };
            self.admission.judge(self.now, CLOCK, id, load, &mut self.random)
        }

        fn wait(&mut self) {
            self.now += ASK;
        }

        /// Answers all requests; returns the last verdict.
        fn prove(&mut self, time: u32, beyond: usize) -> Verdict {
            let mut verdict = self.judge(time, None);
            while let Verdict::Ask(size) = verdict {
                verdict = self.judge(time, Some(usize::from(size) - beyond));
            }
            verdict
        }
    }

    #[test]
    fn a_later_start_is_taken_at_once_and_kept() {
        let mut world = World::new(Kept { own: 5, admitted: CLOCK - 10 });
        for time in [CLOCK - 9, CLOCK, CLOCK + AHEAD] {
            let kept = Kept { own: 5, admitted: time };
            assert_eq!(world.judge(time, None), Verdict::Take { kept, after: None });
        }
        for time in [CLOCK + AHEAD, CLOCK, 0, CLOCK + AHEAD + 1, u32::MAX] {
            assert!(!matches!(world.judge(time, None), Verdict::Take { .. }), "{time}");
        }
    }

    #[test]
    fn a_start_of_any_time_is_taken_after_three_right_answers_and_not_kept() {
        for (time, beyond) in [(0, 44), (CLOCK, 60), (u32::MAX, 44), (CLOCK - 99, 60)] {
            let kept = Kept { own: 5, admitted: CLOCK };
            let mut world = World::new(kept);
            assert_eq!(world.prove(time, beyond), Verdict::Take { kept, after: Some(4) });
        }
    }

    #[test]
    fn a_wrong_answer_begins_again_and_a_second_answer_to_one_question_counts_for_nothing() {
        let mut world = World::new(Kept { own: 5, admitted: CLOCK });
        let Verdict::Ask(first) = world.judge(7, None) else { panic!() };
        let Verdict::Ask(second) = world.judge(7, Some(usize::from(first) - 44)) else { panic!() };
        assert_eq!(
            world.judge(7, Some(usize::from(second) - 60)),
            Verdict::Nothing,
            "the other version's length"
        );
        assert_eq!(world.judge(7, Some(usize::from(second) - 44)), Verdict::Nothing, "it had its answer");
        world.wait();
        assert!(matches!(world.prove(7, 44), Verdict::Take { .. }));
        assert_eq!(
            world.judge(7, Some(17)),
            Verdict::Ask(world.admission.candidates[0].asked),
            "proven once, not for ever"
        );
    }

    #[test]
    fn recordings_of_many_starts_cannot_keep_a_running_peer_from_proving_itself() {
        let mut world = World::new(Kept { own: 5, admitted: CLOCK });
        let mut asked = 0;
        for round in 0..10 {
            for time in 0..1000 {
                asked += u32::from(matches!(world.judge(1000 * round + time, Some(400)), Verdict::Ask(_)));
            }
            world.wait();
        }
        assert!(asked <= 10 * CANDIDATES as u32, "{asked} questions in ten seconds");
        assert!(matches!(world.prove(CLOCK - 1, 44), Verdict::Take { .. }));
    }

    #[test]
    fn the_own_start_is_later_than_all_before_whatever_the_clock_says() {
        let kept = Kept { own: CLOCK, admitted: 7 };
        assert_eq!(kept.started(CLOCK + 50), Kept { own: CLOCK + 50, admitted: 7 });
        assert_eq!(kept.started(CLOCK), Kept { own: CLOCK + 1, admitted: 7 });
        assert_eq!(kept.started(0), Kept { own: CLOCK + 1, admitted: 7 });
    }

    #[test]
    fn the_own_start_follows_a_credible_peer_and_not_too_often() {
        let mut world = World::new(Kept { own: CLOCK, admitted: 7 });
        let now = world.now;
        assert_eq!(world.admission.follow(now, CLOCK, CLOCK - 1), None, "later already");
        assert_eq!(world.admission.follow(now, CLOCK, CLOCK + 900), None, "its clock is wrong");
        let kept = Kept { own: CLOCK + 11, admitted: 7 };
        assert_eq!(world.admission.follow(now, CLOCK, CLOCK + 10), Some(kept));
        assert_eq!(world.admission.follow(now + ASK, CLOCK, CLOCK + 20), None);
        assert!(world.admission.follow(now + STEP, CLOCK, CLOCK + 20).is_some());
    }
}
