//! Detects whether the two segments are joined elsewhere, and decides which end then blocks frames (PROTOCOL.md §7.1).

use std::time::{Duration, Instant};

use super::probe::{Origin, Probe, Sighting, address};
use crate::core::condition::Condition;
use crate::core::limits::REPEAT;
use crate::crypto::Random;
use crate::wire::control::{Loop, LoopState, Message};

/// Longest time between two rounds of probes.
pub const ROUND: Duration = Duration::from_secs(2);
/// Minimum duration of a hold: of the first, and its upper limit if the loop recurs.
pub const HOLD: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];
/// Fraction of that for a hold during which no probe returned: another link may have found the loop at the same moment and hold too.
const UNSEEN: u32 = 5;
/// A final round of probes goes out this long before frames pass again: another link may have resumed since the last one.
const LAST: Duration = Duration::from_millis(250);
/// After this long without a sighting a loop is gone, and the peer's report of one expires.
pub const GONE: Duration = Duration::from_secs(6);

/// What to do about loops.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Give the device the probes of a round.
    Probe(Origin, u32),
    /// Block all frames; or pass them, and forget where hosts were.
    Hold(bool),
    /// Tell the peer.
    Tell(Message),
    /// Traffic between the segments takes another path now; this link, if it `passes`.
    Rerouted {
        /// Frames pass.
        passes: bool,
    },
    /// Tell the operator.
    Say(Condition),
}

/// This end blocks frames.
#[derive(Debug)]
struct Held {
    /// Earliest end: if no probe returned meanwhile, and if one did.
    until: [Instant; 2],
    /// Start.
    since: Instant,
    /// Whether the final round of probes is out.
    is_last: bool,
    /// Message to the peer in each round.
    word: Loop,
}

/// State of loop detection. Inputs are the `handle_*` methods; each returns what to do.
#[derive(Debug)]
pub struct Loops {
    /// `None`: detection is off.
    origin: Option<Origin>,
    round: u32,
    due: Option<Instant>,
    /// The peer's last round of which a probe was reported.
    reported: Option<(Origin, u32)>,
    held: Option<Held>,
    /// Planned duration of the last hold, this end's or the peer's, and when it ended.
    last: Option<(Duration, Instant)>,
    /// When a probe last showed a loop.
    seen_at: Option<Instant>,
    /// The peer's last message that it blocks frames, and when it came.
    told: Option<(Instant, Loop)>,
    /// Repeated in the next round, since the first time it may have reached the peer too early, or not at all.
    again: Vec<Act>,
    /// A probe returned to its own device, this end's or the peer's: when that was last said, and the condition.
    inside: [Option<(Instant, Condition)>; 2],
}

impl Loops {
    /// Detects loops, if `wanted`, once the link is up.
    pub fn new(wanted: bool, random: &mut impl Random) -> Self {
        Self {
            origin: wanted.then(|| random.bytes()),
            round: 0,
            due: None,
            reported: None,
            held: None,
            last: None,
            seen_at: None,
            told: None,
            again: Vec::new(),
            inside: [None, None],
        }
    }

    /// The link is up: probes start at some time within the next round.
    pub fn handle_up(&mut self, now: Instant, random: &mut impl Random) {
        self.due = self.origin.map(|_| now + share(ROUND, random));
    }

    /// The link is down. A hold stays until it is up again.
    pub fn handle_down(&mut self) {
        (self.due, self.told) = (None, None);
        self.again.clear();
    }

    /// When [`Loops::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Sends a round of probes. Ends a hold if it is time and the last rounds showed no loop.
    pub fn handle_timeout(&mut self, now: Instant, random: &mut impl Random) -> Vec<Act> {
        let (Some(origin), Some(_)) = (self.origin, self.due.filter(|due| *due <= now)) else {
            return Vec::new();
        };
        self.due = Some(now + ROUND - share(ROUND / 8, random));
        self.round = self.round.wrapping_add(1);
        let mut acts = std::mem::take(&mut self.again);
        if let Some(held) = &mut self.held {
            let seen_at = self.seen_at.filter(|at| *at > held.since);
            let until = held.until[usize::from(seen_at.is_some())];
            if now < until || seen_at.is_some_and(|at| now < at + GONE) {
                held.is_last = false;
                acts.push(Act::Tell(Message::Loop(held.word)));
            } else if !held.is_last {
                held.is_last = true;
                self.due = Some(now + LAST);
            } else {
                let over = self.let_go(now);
                self.again = over.iter().filter(|act| matches!(act, Act::Tell(_))).cloned().collect();
                acts.extend(over);
                acts.extend(self.over());
            }
        }
        if self.told.take_if(|(at, _)| now >= *at + GONE).is_some() {
            acts.push(Act::Hold(false));
            acts.extend(self.over());
        }
        acts.push(Act::Probe(origin, self.round));
        acts
    }

    /// A probe came out of the device or the tunnel.
    pub fn handle_sighting(
        &mut self,
        now: Instant,
        sighting: Sighting,
        random: &mut impl Random,
    ) -> Vec<Act> {
        let Sighting { probe, tunnelled } = sighting;
        match (self.origin == Some(probe.origin), tunnelled) {
            (true, true) => self.handle_probed(now, probe, true, random),
            // A host that sends copies has the same effect.
            (true, false) if self.is_fresh(probe) => {
                let word = self.word(LoopState::Inside, probe, false);
                let news = self.note_inside(now, false, word);
                news.into_iter().flat_map(|say| [Act::Tell(Message::Loop(word)), say]).collect()
            }
            (false, false) if self.is_news(probe) => {
                vec![Act::Tell(Message::Probed { probe: probe.block() })]
            }
            (true, false) | (false, _) => Vec::new(),
        }
    }

    /// The peer says that a probe came out of its device, or (`tunnelled`) returned out of the tunnel.
    pub fn handle_probed(
        &mut self,
        now: Instant,
        probe: Probe,
        tunnelled: bool,
        random: &mut impl Random,
    ) -> Vec<Act> {
        if !self.is_fresh(probe) {
            return Vec::new();
        }
        self.seen_at = Some(now);
        if self.held.is_some() || self.told.is_some() {
            return Vec::new();
        }
        let hold = self.count_hold(now);
        let word = self.word(LoopState::Held, probe, tunnelled);
        let until =
            [(hold / UNSEEN, 1), (hold, 4)].map(|(least, part)| now + least + share(least / part, random));
        self.held = Some(Held { until, since: now, is_last: false, word });
        self.again.clear();
        let say = Act::Say(Condition::looped(false, &word));
        vec![Act::Hold(true), Act::Tell(Message::Loop(word)), say, Act::Rerouted { passes: false }]
    }

    /// Handles the peer's conclusions from the probes.
    pub fn handle_told(&mut self, now: Instant, word: Loop) -> Vec<Act> {
        match word.state {
            LoopState::Over if self.told.take().is_none() => Vec::new(),
            LoopState::Over => [Act::Hold(false)].into_iter().chain(self.over()).collect(),
            LoopState::Inside => self.note_inside(now, true, word).into_iter().collect(),
            // Both found it at once; one is enough.
            LoopState::Held if self.held.is_some() && self.origin < Some(word.origin) => Vec::new(),
            LoopState::Held => {
                let mut acts = if self.held.is_some() { self.let_go(now) } else { Vec::new() };
                if self.told.replace((now, word)).is_none() {
                    self.count_hold(now);
                    self.again.clear();
                    acts.push(Act::Say(Condition::looped(true, &word)));
                    acts.push(Act::Rerouted { passes: false });
                }
                self.last = self.last.map(|(hold, _)| (hold, now));
                acts
            }
        }
    }

    /// The current condition, if any.
    pub fn condition(&self, now: Instant) -> Option<Condition> {
        let held = self.held.as_ref().map(|held| Condition::looped(false, &held.word));
        let told = || self.told.as_ref().map(|(_, word)| Condition::looped(true, word));
        let lasts = |(at, condition): &(Instant, Condition)| (now < *at + REPEAT).then(|| condition.clone());
        held.or_else(told).or_else(|| self.inside.iter().flatten().find_map(lasts))
    }

    /// Passes frames again.
    fn over(&mut self) -> [Act; 2] {
        self.again.push(Act::Rerouted { passes: true });
        [Act::Say(Condition::LoopOver), Act::Rerouted { passes: true }]
    }

    /// Notes the start of a hold; returns its minimum duration.
    fn count_hold(&mut self, now: Instant) -> Duration {
        let [least, most] = HOLD;
        let again = self.last.filter(|(_, ended)| now < *ended + most);
        let hold = again.map_or(least, |(last, _)| (last * 2).min(most));
        self.last = Some((hold, now));
        hold
    }

    fn let_go(&mut self, now: Instant) -> Vec<Act> {
        let Some(Held { word, .. }) = self.held.take() else { return Vec::new() };
        self.last = self.last.map(|(hold, _)| (hold, now));
        vec![Act::Hold(false), Act::Tell(Message::Loop(Loop { state: LoopState::Over, ..word }))]
    }

    fn word(&self, state: LoopState, probe: Probe, tunnelled: bool) -> Loop {
        Loop { state, origin: probe.origin, vlan: probe.vlan, tunnelled }
    }

    /// Whether a probe is from this end's last two rounds.
    fn is_fresh(&self, probe: Probe) -> bool {
        self.origin == Some(probe.origin) && self.round.wrapping_sub(probe.round) < 2
    }

    /// Whether no probe of its round, or a later one, was reported before.
    fn is_news(&mut self, probe: Probe) -> bool {
        let (origin, round) = (probe.origin, probe.round);
        let news = self.reported.is_none_or(|(before, last)| before != origin || last < round);
        if news {
            self.reported = Some((origin, round));
        }
        news
    }

    /// Repeats itself only after [`REPEAT`].
    fn note_inside(&mut self, now: Instant, theirs: bool, word: Loop) -> Option<Act> {
        let inside = &mut self.inside[usize::from(theirs)];
        if inside.as_ref().is_some_and(|(at, _)| now < *at + REPEAT) {
            return None;
        }
        let condition = Condition::LoopInside { theirs, mac: address(word.origin), vlan: word.vlan };
        *inside = Some((now, condition.clone()));
        Some(Act::Say(condition))
    }
}

impl Condition {
    fn looped(theirs: bool, word: &Loop) -> Self {
        let Loop { origin, vlan, tunnelled, .. } = *word;
        Self::Loop { theirs, tunnelled, mac: address(origin), vlan }
    }
}

/// A random part of a duration.
fn share(of: Duration, random: &mut impl Random) -> Duration {
    of * u32::from(u16::from_be_bytes(random.bytes())) / (1 << 16)
}

#[cfg(test)]
mod tests;
