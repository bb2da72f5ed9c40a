//! Detects two processes that use one key towards this end, both posing as the peer: most likely one file on two hosts.
//!
//! A restarted peer is another process too, and a roaming one is elsewhere. With clones, the former process speaks again
//! after the later one.

use std::net::SocketAddr;
use std::time::Instant;

use super::condition::Condition;
use super::key_id::KeyId;
use super::limits::{CLONES_LEAST, CLONES_TOLD, CLONES_WITHIN, REPEAT};
use super::session::Instance;

/// The process that speaks now. Datagrams long under way are excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Handshake mode: its instance.
    Instance(Instance),
    /// Static mode: its key id. A process has several in turn, but never returns to one.
    KeyId(KeyId),
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    speaker: Speaker,
    from: SocketAddr,
    /// When another one spoke.
    ended: Instant,
}

/// The turns of the processes on the other side.
#[derive(Debug, Default)]
pub struct Turns {
    current: Option<Turn>,
    former: Option<Turn>,
    /// How often in a row the former one spoke again.
    returns: u32,
    /// When the second of them first spoke.
    began: Option<Instant>,
}

impl Turns {
    /// Notes that `speaker` spoke from `from`. Returns two addresses if there are two of them and the turn changed.
    pub fn handle(&mut self, now: Instant, speaker: Speaker, from: SocketAddr) -> Option<[SocketAddr; 2]> {
        let turn = Turn { speaker, from, ended: now };
        let Some(current) = self.current.as_mut().filter(|current| current.speaker != speaker) else {
            // The same process, possibly moved.
            if self.current.replace(turn).is_some_and(|current| current.from != from) {
                self.returns = 0;
            }
            return None;
        };
        let former = self.former.filter(|former| now <= former.ended + CLONES_WITHIN);
        let is_back = former.is_some_and(|former| former.speaker == speaker);
        if current.from == from && !is_back {
            // A restarted peer, or its next key id.
            *current = turn;
            return None;
        }
        self.former = Some(Turn { ended: now, ..*current });
        let other = std::mem::replace(current, turn).from;
        if !is_back && former.is_none_or(|former| former.from != from) {
            (self.returns, self.began) = (0, Some(now));
            return None;
        }
        self.returns += 1;
        // A displaced process that speaks again is alive, as is the other. New ones may be one process moving quickly.
        let lasts = self.began.is_some_and(|began| now >= began + CLONES_LEAST);
        let both = if other < from { [other, from] } else { [from, other] };
        (is_back || self.returns >= 2 && lasts).then_some(both)
    }
}

/// Who speaks, and whether there are two.
#[derive(Default)]
pub struct Clones {
    /// Who speaks.
    pub turns: Turns,
    found: Option<Found>,
}

/// The finding that there are two, while it lasts.
struct Found {
    condition: Condition,
    /// Time of the last sign.
    seen_at: Instant,
    /// When it was last logged.
    said_at: Instant,
    /// When the two were last told.
    told_at: Option<Instant>,
}

impl Clones {
    /// Whether two ends with one key call this end, or it is one of such two.
    pub fn condition(&self, now: Instant) -> Option<&Condition> {
        self.lasting(now).map(|found| &found.condition)
    }

    /// Notes two ends; returns what to report.
    pub fn handle_found(&mut self, now: Instant, ends: [SocketAddr; 2]) -> Option<Condition> {
        let [first, second] = ends.map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
        let condition = Condition::ClonedEnd { first, second };
        let known = self.lasting(now).filter(|found| found.condition == condition);
        let said_at = known.map(|found| found.said_at).filter(|at| now < *at + REPEAT);
        let told_at = known.and_then(|found| found.told_at);
        let line = said_at.is_none().then(|| condition.clone());
        self.found = Some(Found { condition, seen_at: now, said_at: said_at.unwrap_or(now), told_at });
        line
    }

    /// Whether to tell the two now; then counts as done.
    pub fn poll_telling(&mut self, now: Instant) -> bool {
        let Some(found) = &mut self.found else { return false };
        let due = found.told_at.is_none_or(|at| now >= at + CLONES_TOLD);
        if due {
            found.told_at = Some(now);
        }
        due
    }

    fn lasting(&self, now: Instant) -> Option<&Found> {
        self.found.as_ref().filter(|found| now < found.seen_at + REPEAT)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The seconds at which two were found, given when which process spoke, and from where.
    fn found(speaker: impl Fn(u8) -> Speaker, spoken: &[(f64, u8, &str)]) -> Vec<f64> {
        let (start, mut turns) = (Instant::now(), Turns::default());
        let mut handle = |seconds: f64, who, from: &str| {
            turns.handle(start + Duration::from_secs_f64(seconds), speaker(who), at(from))
        };
        let spoken = spoken.iter().filter(|(seconds, who, from)| handle(*seconds, *who, from).is_some());
        spoken.map(|(seconds, ..)| *seconds).collect()
    }

    fn instance(n: u8) -> Speaker {
        Speaker::Instance([n; 8])
    }

    fn key_id(n: u8) -> Speaker {
        Speaker::KeyId(KeyId([n; 16]))
    }

    const A: &str = "192.0.2.1:1417";
    const B: &str = "192.0.2.3:1417";
    const C: &str = "192.0.2.5:1417";

    #[test]
    fn two_instances_in_turn_are_two_ends() {
        assert_eq!(
            found(instance, &[(0.0, 1, A), (2.0, 2, B), (17.0, 1, A), (32.0, 2, B)]),
            [17.0, 32.0],
            "at the first return, and each time"
        );
        // Behind one NAT, and an end that draws a new instance each time.
        let same = "192.0.2.1:1500";
        assert_eq!(found(instance, &[(0.0, 1, A), (2.0, 2, same), (17.0, 1, A)]), [17.0]);
        assert_eq!(found(instance, &[(0.0, 1, A), (9.0, 2, B), (18.0, 3, A), (27.0, 4, B)]), [27.0]);
    }

    #[test]
    fn two_key_ids_in_turn_are_two_ends() {
        assert_eq!(found(key_id, &[(0.0, 1, A), (1.0, 2, B), (9.0, 1, A), (10.0, 2, B)]), [9.0, 10.0]);
        // Each draws a new one every minute.
        assert_eq!(found(key_id, &[(0.0, 1, A), (9.0, 2, B), (18.0, 3, A), (27.0, 4, B)]), [27.0]);
        // One process changes its key id while moving.
        assert_eq!(
            found(key_id, &[(0.0, 1, A), (0.1, 2, B), (0.2, 2, A), (0.3, 2, B), (0.4, 2, A)]),
            [0.0; 0]
        );
    }

    #[test]
    fn a_peer_that_moves_or_starts_anew_is_one_end() {
        for speaker in [instance as fn(u8) -> Speaker, key_id] {
            let one = |spoken: &[(f64, u8, &str)]| assert_eq!(found(speaker, spoken), [0.0; 0]);
            // It roams back and forth, or NAT rebinds it.
            one(&[(0.0, 1, A), (5.0, 1, B), (10.0, 1, A), (15.0, 1, B), (20.0, 1, A)]);
            // It restarts in place, repeatedly.
            one(&[(0.0, 1, A), (5.0, 2, A), (10.0, 3, A), (15.0, 4, A), (20.0, 5, A)]);
            // Each time from another port.
            one(&[
                (0.0, 1, A),
                (5.0, 2, B),
                (10.0, 3, C),
                (15.0, 4, "192.0.2.7:1"),
                (20.0, 5, "192.0.2.8:1"),
            ]);
            // It moves to another host and back.
            one(&[(0.0, 1, A), (5.0, 2, B), (20.0, 3, A), (40.0, 3, A)]);
            // The same, slowly.
            one(&[(0.0, 1, A), (100.0, 2, B), (200.0, 3, A), (300.0, 4, B), (400.0, 5, A)]);
            // It moves while drawing another key id, or after a restart.
            one(&[(0.0, 1, A), (60.0, 2, B), (61.0, 2, A), (120.0, 3, B), (121.0, 3, A), (180.0, 4, B)]);
        }
    }

    #[test]
    fn two_ends_are_said_once_a_minute_and_told_more_often() {
        let (start, mut clones) = (Instant::now(), Clones::default());
        let ends = ["192.0.2.1:1417", "192.0.2.3:1417"].map(|end| end.parse().unwrap());
        let (mut said, mut told) = (Vec::new(), Vec::new());
        for second in 0..=60 {
            let now = start + Duration::from_secs(second);
            said.extend(clones.handle_found(now, ends).map(|_| second));
            told.extend(clones.poll_telling(now).then_some(second));
        }
        assert_eq!(said, [0, 60]);
        assert_eq!(told, (0..=60).step_by(CLONES_TOLD.as_secs() as usize).collect::<Vec<_>>());
        let last = start + Duration::from_secs(60);
        assert!(clones.condition(last + REPEAT - Duration::from_secs(1)).is_some());
        assert!(clones.condition(last + REPEAT).is_none());
    }
}
