//! Frames read from the device that wait to be sealed. Flows share by bytes, so that a ping or a keystroke does not
//! wait behind a whole transfer: self-clocked fair queueing (S. J. Golestani, INFOCOM 1994) over the little that waits.
//! Frames of one flow are never reordered.

use std::collections::VecDeque;
use std::time::Instant;

use crate::packet::flow::{FLOWS, Flow};

/// Bytes after which no more are taken; the rest stays in the device. Four super-frames.
const ENOUGH: usize = 4 * 65_536;
/// Most large frames: on slow paths the kernel joins few segments.
const LARGE: usize = 32;
/// Most small frames: enough to share the cost of a wake-up.
const SMALL: usize = 124;
/// Consecutive UDP frames for which waiting for more pays ...
const SEVERAL: usize = 3;
/// ... while at most so many bytes wait: for more, the cost per datagram is small beside that of the bytes.
const FEW_BYTES: usize = 3 * 1024;
/// Largest small frame. Not a power of two, lest all frames map to the same cache lines.
const SMALL_LENGTH: usize = 2048 + 64;

/// A bounded queue of frames. Allocates all memory up front.
#[derive(Debug)]
pub struct FairQueue {
    /// In sending order.
    waiting: VecDeque<Waiting>,
    /// Total bytes.
    bytes: usize,
    /// Tag of each flow's last frame, in bytes of the virtual clock.
    last: [u64; FLOWS],
    /// Virtual clock: the tag of the last frame sent.
    now: u64,
    large: Places<LARGE>,
    small: Places<SMALL>,
    /// Consecutive UDP frames since one was last sent.
    datagrams: usize,
    /// Whether they have waited for more.
    has_waited: bool,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    tag: u64,
    flow: u8,
    length: usize,
    /// Index in its size class.
    place: u8,
    is_small: bool,
}

/// Storage for frames of one size class.
#[derive(Debug)]
struct Places<const N: usize> {
    /// One allocation, so that the kernel backs a place with memory only when used.
    bytes: Vec<u8>,
    /// Length of each frame.
    length: usize,
    /// Free places; the last used is reused first.
    free: Vec<u8>,
}

impl<const N: usize> Places<N> {
    fn new(length: usize) -> Self {
        Self { bytes: vec![0; N * length], length, free: (0..N as u8).collect() }
    }

    fn at(&mut self, place: u8) -> &mut [u8] {
        &mut self.bytes[usize::from(place) * self.length..][..self.length]
    }
}

impl FairQueue {
    /// An empty queue for frames of up to `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(SMALL + LARGE),
            bytes: 0,
            last: [0; FLOWS],
            now: 0,
            large: Places::new(longest),
            small: Places::new(SMALL_LENGTH),
            datagrams: 0,
            has_waited: false,
        }
    }

    /// Where to put the next frame for [`FairQueue::push`]; `None`: the queue is full.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        if self.bytes >= ENOUGH {
            return None;
        }
        // A frame of any size must find a place.
        self.small.free.last()?;
        let place = *self.large.free.last()?;
        Some(self.large.at(place))
    }

    /// Queues the first `length` bytes of the room as a frame of this flow.
    pub fn push(&mut self, now: Instant, length: usize, flow: Flow) {
        let Some((place, is_small)) = self.keep(length) else { return };
        self.datagrams = if flow.is_udp { self.datagrams + 1 } else { 0 };
        let flow = flow.number;
        let last = &mut self.last[usize::from(flow)];
        let tag = self.now.max(*last) + length as u64;
        *last = tag;
        // Usually it is the last.
        let behind = self.waiting.iter().rposition(|other| other.tag <= tag);
        self.waiting.insert(
            behind.map_or(0, |at| at + 1),
            Waiting { since: now, tag, flow, length, place, is_small },
        );
        self.bytes += length;
    }

    /// Moves a small frame to a small place.
    fn keep(&mut self, length: usize) -> Option<(u8, bool)> {
        let large = *self.large.free.last()?;
        if length > SMALL_LENGTH {
            self.large.free.pop();
            return Some((large, false));
        }
        let small = self.small.free.pop()?;
        self.small.at(small)[..length].copy_from_slice(&self.large.at(large)[..length]);
        Some((small, true))
    }

    /// Passes the next frame to `take`, which may overwrite it, and whether more of its flow wait; `None`: the queue is
    /// empty.
    pub fn pop<T>(&mut self, take: impl FnOnce(&mut [u8], bool) -> T) -> Option<T> {
        let Waiting { tag, flow, length, place, is_small, .. } = self.waiting.pop_front()?;
        self.now = tag;
        self.bytes -= length;
        (self.datagrams, self.has_waited) = (0, false);
        let bytes = if is_small {
            self.small.free.push(place);
            self.small.at(place)
        } else {
            self.large.free.push(place);
            self.large.at(place)
        };
        Some(take(&mut bytes[..length], self.last[usize::from(flow)] > tag))
    }

    /// Whether to wait briefly for more frames although the device has none; true once per frame sent. Programs send datagrams one by one, and a
    /// worker that keeps up finds a handful at a time, each of which costs a send here, and a receive and a wake-up at the peer. TCP segments
    /// never wait: the other end's sender may be waiting for them.
    pub fn waits(&mut self) -> bool {
        let waits = !self.has_waited && self.datagrams >= SEVERAL && self.bytes <= FEW_BYTES;
        self.has_waited |= waits;
        waits
    }

    /// When the oldest frame was queued.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.since).min()
    }

    /// Total bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use proptest::prelude::*;

    use super::*;

    const LONGEST: usize = 65_536;

    /// False: there was no room.
    fn push(fair: &mut FairQueue, flow: u8, number: u32, length: usize) -> bool {
        let Some(room) = fair.room() else { return false };
        room[..4].copy_from_slice(&number.to_le_bytes());
        room[length - 1] = flow;
        fair.push(Instant::now(), length, Flow { number: flow, is_udp: false });
        true
    }

    /// Flow and number of each waiting frame, in order.
    fn drain(fair: &mut FairQueue) -> Vec<(u8, u32)> {
        std::iter::from_fn(|| fair.pop(name)).collect()
    }

    fn name(frame: &mut [u8], _: bool) -> (u8, u32) {
        (frame[frame.len() - 1], u32::from_le_bytes(*frame.first_chunk().unwrap()))
    }

    #[test]
    fn a_ping_goes_before_a_transfer_that_came_earlier() {
        let mut fair = FairQueue::new(LONGEST);
        for number in 0..3 {
            assert!(push(&mut fair, 1, number, LONGEST));
        }
        assert!(push(&mut fair, 2, 0, 94));
        assert_eq!(drain(&mut fair), [(2, 0), (1, 0), (1, 1), (1, 2)]);
        assert!(push(&mut fair, 1, 3, 1500) && push(&mut fair, 2, 1, 94) && push(&mut fair, 1, 4, 1500));
        let more: Vec<bool> = std::iter::from_fn(|| fair.pop(|_, more| more)).collect();
        assert_eq!(more, [false, true, false], "the transfer has more, the ping has not");
    }

    #[test]
    fn two_transfers_share_whatever_their_frames_are_long() {
        let mut fair = FairQueue::new(LONGEST);
        let mut sent = [0; 2];
        let mut waiting = [0; 2];
        for _ in 0..4000 {
            // The device always has frames of both.
            for (flow, length) in [(0, 1500), (1, 500)] {
                while waiting[usize::from(flow)] < 20 && push(&mut fair, flow, 0, length) {
                    waiting[usize::from(flow)] += 1;
                }
            }
            let (flow, length) = fair.pop(|frame, _| (frame[frame.len() - 1], frame.len())).unwrap();
            sent[usize::from(flow)] += length;
            waiting[usize::from(flow)] -= 1;
        }
        assert!(sent[0].abs_diff(sent[1]) < 4 * 1500, "{sent:?}");
    }

    #[test]
    fn a_flow_that_was_silent_has_saved_nothing_up() {
        let mut fair = FairQueue::new(LONGEST);
        for number in 0..100 {
            push(&mut fair, 1, number, 1500);
            drain(&mut fair);
        }
        for number in 0..4 {
            push(&mut fair, 1, number, 1500);
            push(&mut fair, 2, number, 1500);
        }
        let order: Vec<u8> = drain(&mut fair).into_iter().map(|(flow, _)| flow).collect();
        assert_eq!(order, [1, 2, 1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn what_waits_is_bounded_and_small_frames_leave_room_for_large_ones() {
        let mut fair = FairQueue::new(LONGEST);
        let small = (0..).take_while(|number| push(&mut fair, 1, *number, 64)).count();
        assert_eq!(small, SMALL);
        drain(&mut fair);
        for number in 0..60 {
            assert!(push(&mut fair, 1, number, 1500));
        }
        let large = (0..).take_while(|number| push(&mut fair, 2, *number, LONGEST)).count();
        assert_eq!((large, fair.bytes()), (3, 60 * 1500 + 3 * LONGEST));
        assert_eq!(drain(&mut fair).len(), 60 + 3);
        assert_eq!((fair.bytes(), fair.is_empty()), (0, true));
        let joined = (0..).take_while(|number| push(&mut fair, 1, *number, 4500)).count();
        assert_eq!(joined, LARGE);
    }

    #[test]
    fn the_oldest_is_found_wherever_it_waits() {
        let start = Instant::now();
        let at = |second| start + std::time::Duration::from_secs(second);
        let mut fair = FairQueue::new(LONGEST);
        assert_eq!(fair.oldest(), None);
        for (second, length, flow) in [(0, 9000, 1), (1, 9000, 1), (2, 60, 2)] {
            assert!(fair.room().is_some());
            fair.push(at(second), length, Flow { number: flow, is_udp: false });
        }
        let left: Vec<_> =
            std::iter::from_fn(|| fair.pop(|frame, _| frame.len()).map(|_| fair.oldest())).collect();
        assert_eq!(left, [Some(at(0)), Some(at(1)), None]);
    }

    #[test]
    fn a_handful_of_datagrams_waits_once_for_more_and_nothing_else_does() {
        let mut fair = FairQueue::new(LONGEST);
        let mut waits = |frames: &[(usize, bool)]| {
            for (length, is_udp) in frames {
                assert!(fair.room().is_some());
                fair.push(Instant::now(), *length, Flow { number: 1, is_udp: *is_udp });
            }
            let waits = [fair.waits(), fair.waits()];
            drain(&mut fair);
            waits
        };
        let (small, ordinary, segment) = ((92, true), (1328, true), (52, false));
        assert_eq!(waits(&[small; 3]), [true, false]);
        assert_eq!(waits(&[segment, small, small, small]), [true, false]);
        for nobody in [&[][..], &[small; 2], &[segment; 9], &[small, small, small, segment], &[ordinary; 3]] {
            assert_eq!(waits(nobody), [false, false], "{nobody:?}");
        }
        assert_eq!(waits(&[small; 3]), [true, false], "after others");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_flow_is_reordered(
            steps in prop::collection::vec((0..4_u8, 5..LONGEST, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let mut fair = FairQueue::new(LONGEST);
            let (mut sent, mut expected) = ([0_u32; 4], [0_u32; 4]);
            let mut check = |(flow, number): (u8, u32)| {
                let next = &mut expected[usize::from(flow)];
                prop_assert_eq!(number, *next);
                *next += 1;
                Ok(())
            };
            for (flow, length, is_small, pops) in steps {
                let length = if is_small { length % 2000 + 5 } else { length };
                if push(&mut fair, flow, sent[usize::from(flow)], length) {
                    sent[usize::from(flow)] += 1;
                }
                if pops {
                    fair.pop(name).map(&mut check).transpose()?;
                }
            }
            for next in drain(&mut fair) {
                check(next)?;
            }
            prop_assert_eq!(sent, expected);
        }
    }
}
