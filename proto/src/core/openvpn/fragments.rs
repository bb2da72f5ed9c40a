//! Reassembly of packets fragmented by OpenVPN's `fragment`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::openvpn::{FRAGMENT_HEADER, Fragment, PACKET_ID, PARTS};

/// Packets awaiting fragments at the same time.
const AWAITED: usize = 25;
/// How long to await a packet's fragments.
const LIFE: Duration = Duration::from_secs(10);

struct Partial {
    id: u8,
    since: Instant,
    /// Length of each fragment but the last.
    size: usize,
    /// Bitmap of the fragments present.
    parts: u32,
    /// Number of the last fragment and total length, once known.
    end: Option<(u8, usize)>,
    bytes: Vec<u8>,
}

impl Partial {
    fn new(now: Instant, id: u8, size: usize) -> Self {
        Self { id, since: now, size, parts: 0, end: None, bytes: Vec::new() }
    }

    fn is_whole(&self) -> bool {
        self.end.is_some_and(|(last, _)| {
            let all = u32::MAX >> (PARTS - 1 - usize::from(last));
            self.parts & all == all
        })
    }
}

/// Reassembles fragments.
pub struct Fragments {
    longest: usize,
    /// Oldest first.
    awaited: VecDeque<Partial>,
    given_up: u64,
}

impl Fragments {
    /// Accepts packets of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { longest, awaited: VecDeque::with_capacity(AWAITED), given_up: 0 }
    }

    /// Packets dropped for lack of a fragment.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Adds a fragment; returns the packet once complete.
    ///
    /// # Errors
    /// The fragment has a wrong length or exceeds the longest packet.
    pub fn part(
        &mut self,
        now: Instant,
        fragment: Fragment,
        part: &[u8],
    ) -> Result<Option<Vec<u8>>, WrongPart> {
        let (id, number, size, ends) = match fragment {
            Fragment::Whole => return Ok(Some(part.to_vec())),
            Fragment::More { id, number } => (id, number, part.len(), false),
            Fragment::Last { id, number, size } => (id, number, size, true),
        };
        let begin = usize::from(number) * size;
        let end = begin + part.len();
        if size == 0 || !size.is_multiple_of(4) || part.len() > size || end > self.longest {
            return Err(WrongPart);
        }
        while self.awaited.front().is_some_and(|it| now.saturating_duration_since(it.since) >= LIFE) {
            self.give_up(0);
        }
        let index = self.place_of(now, id, size);
        let packet = &mut self.awaited[index];
        if packet.bytes.len() < end {
            packet.bytes.resize(end, 0);
        }
        packet.bytes[begin..end].copy_from_slice(part);
        packet.parts |= 1 << number;
        if ends {
            packet.end = Some((number, end));
        }
        if !packet.is_whole() {
            return Ok(None);
        }
        let whole = self.awaited.remove(index);
        let Some(Partial { mut bytes, end: Some((_, length)), .. }) = whole else { return Ok(None) };
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// Finds the packet of this id. If its fragments have another length, it is another packet.
    fn place_of(&mut self, now: Instant, id: u8, size: usize) -> usize {
        if let Some(index) = self.awaited.iter().position(|packet| packet.id == id) {
            if self.awaited[index].size == size {
                return index;
            }
            self.give_up(index);
        }
        if self.awaited.len() == AWAITED {
            self.give_up(0);
        }
        self.awaited.push_back(Partial::new(now, id, size));
        self.awaited.len() - 1
    }

    fn give_up(&mut self, index: usize) {
        self.awaited.remove(index);
        self.given_up += 1;
    }
}

/// A fragment that no sender writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongPart;

/// Returns the longest fragment for a datagram with at most `plain` plaintext bytes; a multiple of four, at least four.
pub fn longest_part(plain: usize) -> usize {
    (plain.saturating_sub(PACKET_ID + FRAGMENT_HEADER) / 4 * 4).max(4)
}

/// Returns the length of a body's fragments but the last: as few as possible, and as even as multiples of four allow.
/// `None`: it needs no fragments, or more than [`PARTS`].
pub fn part_of(body: usize, longest: usize) -> Option<usize> {
    let count = body.div_ceil(longest);
    (2..=PARTS).contains(&count).then(|| body.div_ceil(count).next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use proptest::prelude::*;

    use super::*;

    fn cut(body: &[u8], id: u8, size: usize) -> Vec<(Fragment, &[u8])> {
        let count = body.len().div_ceil(size) as u8;
        let fragment = |number| match number + 1 == count {
            true => Fragment::Last { id, number, size },
            false => Fragment::More { id, number },
        };
        (0..count).map(fragment).zip(body.chunks(size)).collect()
    }

    proptest! {
        #[test]
        fn what_is_cut_comes_together_in_any_order(
            lengths in prop::collection::vec(1usize..1600, 1..10),
            longest in 60usize..500,
            order in any::<prop::sample::Index>(),
        ) {
            let now = Instant::now();
            let bodies: Vec<Vec<u8>> = lengths.iter().map(|n| (0..*n).map(|i| (i * n) as u8).collect()).collect();
            let mut parts = Vec::new();
            let mut awaited = 0;
            for (id, body) in bodies.iter().enumerate() {
                if let Some(size) = part_of(body.len(), longest / 4 * 4) {
                    prop_assert!(size <= longest && body.len().div_ceil(size) <= PARTS);
                    parts.extend(cut(body, id as u8, size));
                    awaited += 1;
                }
            }
            let turn = order.index(parts.len().max(1));
            parts.rotate_left(turn);
            parts.reverse();
            let mut fragments = Fragments::new(1600);
            let mut whole = Vec::new();
            for (fragment, part) in parts {
                whole.extend(fragments.part(now, fragment, part).unwrap());
            }
            prop_assert_eq!(whole.len(), awaited);
            prop_assert!(whole.iter().all(|body| bodies.contains(body)));
            prop_assert!(fragments.awaited.is_empty());
        }
    }

    #[test]
    fn parts_are_as_openvpn_cuts_them() {
        // fragment 500, AES with SHA1: 464 bytes of blocks, less one of padding.
        assert_eq!(longest_part(463), 448);
        assert_eq!(part_of(1228, 448), Some(412));
        assert_eq!(part_of(448, 448), None);
        assert_eq!(part_of(33 * 4, 4), None, "more parts than there are numbers");
    }

    #[test]
    fn what_stays_incomplete_is_bounded_and_ends() {
        let now = Instant::now();
        let mut fragments = Fragments::new(1500);
        for id in 0..200 {
            assert_eq!(fragments.part(now, Fragment::More { id, number: 1 }, &[1; 400]), Ok(None));
        }
        assert_eq!((fragments.awaited.len(), fragments.given_up()), (AWAITED, 175));
        let later = now + LIFE;
        assert_eq!(
            fragments.part(later, Fragment::Last { id: 199, number: 0, size: 400 }, &[1; 9]),
            Ok(Some(vec![1; 9]))
        );
        assert_eq!((fragments.awaited.len(), fragments.given_up()), (0, 200));
        for (fragment, length) in [
            (Fragment::More { id: 1, number: 0 }, 0),
            (Fragment::More { id: 1, number: 0 }, 6),
            (Fragment::More { id: 1, number: 3 }, 400),
            (Fragment::Last { id: 1, number: 0, size: 0 }, 4),
            (Fragment::Last { id: 1, number: 0, size: 4 }, 8),
            (Fragment::Last { id: 1, number: 31, size: 65_532 }, 8),
        ] {
            assert_eq!(
                fragments.part(later, fragment, &vec![0; length]),
                Err(WrongPart),
                "{fragment:?} {length}"
            );
        }
    }

    #[test]
    fn parts_of_another_size_begin_the_packet_anew() {
        let now = Instant::now();
        let mut fragments = Fragments::new(1500);
        assert_eq!(fragments.part(now, Fragment::More { id: 1, number: 0 }, &[1; 400]), Ok(None));
        assert_eq!(fragments.part(now, Fragment::Last { id: 1, number: 1, size: 200 }, &[2; 8]), Ok(None));
        let whole = fragments.part(now, Fragment::More { id: 1, number: 0 }, &[3; 200]).unwrap().unwrap();
        assert_eq!((whole.len(), whole[0], whole[207]), (208, 3, 2));
    }
}
