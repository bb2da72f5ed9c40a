//! Two processes that use one key towards this end, each as if it were the peer: most likely one file on two hosts.
//!
//! A peer that was restarted is another process too, and one that roams is elsewhere. What tells is that the former one speaks
//! again after the later one did.

use std::net::SocketAddr;
use std::time::Instant;

use super::key_id::KeyId;
use super::limits::{CLONES_LEAST, CLONES_WITHIN};
use super::session::Instance;

/// What this end knows of the process that says something now: nothing that was under way for a while comes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Handshake mode: its instance.
    Instance(Instance),
    /// Static mode: its key id, one of several in its life, but never one that it has replaced.
    KeyId(KeyId),
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    speaker: Speaker,
    from: SocketAddr,
    /// When another one spoke.
    ended: Instant,
}

/// The turns that the processes at the other side take.
#[derive(Debug, Default)]
pub struct Turns {
    current: Option<Turn>,
    former: Option<Turn>,
    /// How often in a row it was the former one's turn again.
    returns: u32,
    /// When the second of them spoke first.
    began: Option<Instant>,
}

impl Turns {
    /// Takes it that this one spoke, from there. Two addresses: there are two of them, and it is the other one's turn now.
    pub fn handle(&mut self, now: Instant, speaker: Speaker, from: SocketAddr) -> Option<[SocketAddr; 2]> {
        let turn = Turn { speaker, from, ended: now };
        let Some(current) = self.current.as_mut().filter(|current| current.speaker != speaker) else {
            // The same process, which may have moved.
            if self.current.replace(turn).is_some_and(|current| current.from != from) {
                self.returns = 0;
            }
            return None;
        };
        let former = self.former.filter(|former| now <= former.ended + CLONES_WITHIN);
        let is_back = former.is_some_and(|former| former.speaker == speaker);
        if current.from == from && !is_back {
            // A peer that was restarted, or its next key id.
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
        // One that was displaced lives, and so did the other one. Others in their places may be one process that hurries.
        let lasts = self.began.is_some_and(|began| now >= began + CLONES_LEAST);
        let both = if other < from { [other, from] } else { [from, other] };
        (is_back || self.returns >= 2 && lasts).then_some(both)
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

    /// The seconds at which two were found among those who spoke: when, which process, and from where.
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
        // Behind one translator, and an end that draws another instance each time.
        let same = "192.0.2.1:1500";
        assert_eq!(found(instance, &[(0.0, 1, A), (2.0, 2, same), (17.0, 1, A)]), [17.0]);
        assert_eq!(found(instance, &[(0.0, 1, A), (9.0, 2, B), (18.0, 3, A), (27.0, 4, B)]), [27.0]);
    }

    #[test]
    fn two_key_ids_in_turn_are_two_ends() {
        assert_eq!(found(key_id, &[(0.0, 1, A), (1.0, 2, B), (9.0, 1, A), (10.0, 2, B)]), [9.0, 10.0]);
        // Each draws another one each minute.
        assert_eq!(found(key_id, &[(0.0, 1, A), (9.0, 2, B), (18.0, 3, A), (27.0, 4, B)]), [27.0]);
        // One process changes its key id while it moves.
        assert_eq!(
            found(key_id, &[(0.0, 1, A), (0.1, 2, B), (0.2, 2, A), (0.3, 2, B), (0.4, 2, A)]),
            [0.0; 0]
        );
    }

    #[test]
    fn a_peer_that_moves_or_starts_anew_is_one_end() {
        for speaker in [instance as fn(u8) -> Speaker, key_id] {
            let one = |spoken: &[(f64, u8, &str)]| assert_eq!(found(speaker, spoken), [0.0; 0]);
            // It roams to and fro, or is translated anew.
            one(&[(0.0, 1, A), (5.0, 1, B), (10.0, 1, A), (15.0, 1, B), (20.0, 1, A)]);
            // It is restarted in place, again and again.
            one(&[(0.0, 1, A), (5.0, 2, A), (10.0, 3, A), (15.0, 4, A), (20.0, 5, A)]);
            // Each time from another port.
            one(&[
                (0.0, 1, A),
                (5.0, 2, B),
                (10.0, 3, C),
                (15.0, 4, "192.0.2.7:1"),
                (20.0, 5, "192.0.2.8:1"),
            ]);
            // It is moved to another host and back.
            one(&[(0.0, 1, A), (5.0, 2, B), (20.0, 3, A), (40.0, 3, A)]);
            // The same at leisure.
            one(&[(0.0, 1, A), (100.0, 2, B), (200.0, 3, A), (300.0, 4, B), (400.0, 5, A)]);
            // It moves while it draws another key id, or after a restart.
            one(&[(0.0, 1, A), (60.0, 2, B), (61.0, 2, A), (120.0, 3, B), (121.0, 3, A), (180.0, 4, B)]);
        }
    }
}
