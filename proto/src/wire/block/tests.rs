use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use reference::Datagram;

use super::*;
use crate::testing::Dice;
use crate::wire::vectors::{hex, vectors};

/// The slow reference, shared with the fuzz targets; it has no dependencies.
#[path = "../../../../fuzz/src/reference.rs"]
mod reference;

const MAX: usize = 9018;

#[test]
fn protocol_md_holds_what_the_packer_writes_and_the_reassembler_reads() {
    for vector in vectors("block/") {
        let frames = vector.all("frame");
        let bodies = vector.all("body");
        let packed = pack(&frames, vector.one("capacity")[0].into());
        let packed = packed.iter().map(|body| format!("body: {}\n", hex(body))).collect::<String>();
        let written = bodies.iter().map(|body| format!("body: {}\n", hex(body))).collect::<String>();
        assert_eq!(written, packed, "{}", vector.name);
        assert_eq!(Receiver::new().in_order(&bodies), frames, "{}", vector.name);
    }
}

#[test]
fn protocol_md_says_what_is_left_when_something_is_wrong() {
    for vector in vectors("refused-block/") {
        let mut receiver = Receiver::with_max(vector.one("largest-frame")[0].into());
        assert_eq!(receiver.in_order(&vector.all("body")), vector.all("frame"), "{}", vector.name);
        let Drops { partial, oversize, malformed } = receiver.reassembler.drops();
        let counted = [("partial", partial), ("oversize", oversize), ("malformed", malformed)];
        let counted =
            counted.iter().filter(|(_, count)| *count > 0).map(|(name, _)| *name).collect::<Vec<_>>();
        let named = vector.name.rsplit_once('-').map(|(_, name)| vec![name]);
        assert_eq!(Some(counted), named, "{}", vector.name);
    }
}

#[test]
fn bodies_of_a_batch_are_equal_but_for_the_last() {
    let frames = [frame(1, 1514), frame(2, 1514), frame(3, 60), frame(4, 1514), frame(5, 9000)];
    let bodies = pack(&slices(&frames), 1400);
    assert!(bodies.len() > 9);
    assert!(bodies[..bodies.len() - 1].iter().all(|body| body.len() == 1400));
    assert!(bodies[bodies.len() - 1].len() <= 1400);
}

#[test]
fn a_length_is_never_cut() {
    for last in 0..=2 {
        let frames = [frame(1, 60 - last), frame(2, 30)];
        let bodies = pack(&slices(&frames), 64);
        assert_eq!(bodies.len(), 2, "{last} bytes left");
        assert_eq!(bodies[0].len(), 64);
        assert!(bodies[0][64 - last..].iter().all(|byte| *byte == 0));
        assert_eq!(bodies[1][..2], [0, 0], "the second frame is not begun");
    }
    let three = pack(&slices(&[frame(1, 57), frame(2, 30)]), 64);
    assert_eq!(three[1][..2], [0, 29], "with three bytes left a frame begins");
}

#[test]
fn what_has_no_length_is_not_packed() {
    let long = vec![1; MAX_FRAME + 1];
    assert_eq!(pack(&[&[], &long], 64), [[0; 0]; 0]);
    let frames = pack(&[&[], &[7; 10], &long, &[8; 10], &[]], 64);
    assert_eq!(Receiver::new().in_order(&slices(&frames)), [[7; 10], [8; 10]]);
}

#[test]
fn the_only_frame_of_a_body_is_known_until_another_follows() {
    let mut written = Written { body: vec![0xee; 64], closed: Vec::new() };
    let mut packer = Packer::default();
    packer.push([&[1; 3], &[1; 7]], &mut written);
    assert_eq!(&written.body[packer.only_frame().unwrap()], [1; 10]);
    packer.push([&[2; 10], &[]], &mut written);
    assert_eq!(packer.only_frame(), None, "two");
    packer.push([&[3; 100], &[]], &mut written);
    assert_eq!((packer.only_frame(), written.closed.len()), (None, 2), "the end of one");
    packer.finish(&mut written);
    assert_eq!(packer.only_frame(), None, "nothing");
}

#[test]
fn a_frame_is_marked_if_a_datagram_with_a_part_of_it_was() {
    let bodies = pack(&slices(&[frame(1, 100), frame(2, 30), frame(3, 40)]), 64);
    assert_eq!(bodies.len(), 3);
    for (marks, expected) in [
        ([2, 2, 2], [2, 2, 2]),
        ([3, 2, 2], [3, 2, 2]),
        ([2, 3, 2], [3, 3, 2]),
        ([2, 2, 3], [2, 3, 3]),
        ([2, 1, 3], [1, 3, 3]),
    ] {
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut seen = BTreeMap::new();
            let mut reassembler = Reassembler::new(MAX);
            for at in order {
                let mut deliver = |frame: &[u8], ecn| assert_eq!(seen.insert(frame[3], ecn), None);
                reassembler.block(at as u32, marks[at], &bodies[at], &mut deliver);
            }
            assert_eq!(seen, (1..).zip(expected).collect(), "{marks:?} in the order {order:?}");
        }
    }
}

#[test]
fn the_longest_frame_passes_the_shortest_bodies() {
    let frames = [frame(1, MAX_FRAME)];
    let mut receiver = Receiver::with_max(MAX_FRAME);
    assert_eq!(receiver.in_order(&slices(&pack(&slices(&frames), 64))), frames);
}

#[test]
fn a_frame_above_the_agreed_size_drops_the_rest_of_its_body_only() {
    let frames = [frame(1, 20), frame(2, 41), frame(3, 20)];
    let mut receiver = Receiver::with_max(40);
    receiver.give(0, &pack(&slices(&frames), 200)[0]);
    receiver.give(1, &pack(&slices(&frames[..1]), 200)[0]);
    assert_eq!(receiver.delivered, [frame(1, 20), frame(1, 20)]);
    assert_eq!(receiver.reassembler.drops(), Drops { oversize: 1, ..Drops::default() });
}

#[test]
fn a_block_lost_in_the_middle_costs_the_frames_it_touched_and_holds_nothing_up() {
    let frames = (1..=6).map(|n| frame(n, 100)).collect::<Vec<_>>();
    let bodies = pack(&slices(&frames), 130);
    let mut receiver = Receiver::new();
    for counter in [0, 1, 3, 4] {
        receiver.give(counter, &bodies[counter as usize]);
    }
    assert_eq!(receiver.delivered, [frame(1, 100), frame(2, 100), frame(5, 100), frame(6, 100)]);
    assert_eq!(receiver.reassembler.drops(), Drops::default(), "it may come yet");
    receiver.other(3 + MAX_AHEAD as u32);
    assert_eq!(receiver.reassembler.drops(), Drops { partial: 1, ..Drops::default() });
}

#[test]
fn another_kind_between_the_parts_drops_the_frame_at_once() {
    let bodies = pack(&slices(&[frame(1, 100), frame(2, 10)]), 80);
    let mut receiver = Receiver::new();
    receiver.give(0, &bodies[0]);
    receiver.other(1);
    receiver.give(2, &bodies[1]);
    assert_eq!(receiver.delivered, [frame(2, 10)], "nothing to wait for");
    assert_eq!(receiver.reassembler.drops().partial, 1);
}

#[test]
fn what_needs_nothing_from_before_passes_at_once() {
    let bodies = pack(&slices(&[frame(1, 100), frame(2, 10), frame(3, 100)]), 80);
    assert_eq!(bodies.len(), 3);
    let mut receiver = Receiver::new();
    receiver.give(9, &bodies[2]);
    assert_eq!(receiver.delivered.len(), 0);
    receiver.give(8, &bodies[1]);
    assert_eq!(receiver.delivered, [frame(2, 10), frame(3, 100)], "but the end of the first");
    receiver.give(7, &bodies[0]);
    assert_eq!(receiver.delivered[2..], [frame(1, 100)]);
    assert_eq!(receiver.reassembler.drops(), Drops::default());
}

#[test]
fn a_part_waits_for_nothing_that_cannot_come_and_is_given_to_no_other_frame() {
    let bodies = pack(&slices(&[frame(1, 10), frame(2, 100), frame(3, 10)]), 80);
    let [front, back] = &bodies[..] else { panic!("{} bodies", bodies.len()) };

    let mut front_first = Receiver::new();
    front_first.give(5, front);
    front_first.other(6);
    assert_eq!(front_first.delivered, [frame(1, 10)], "another kind follows");
    assert_eq!(front_first.reassembler.drops().partial, 1);

    let mut back_first = Receiver::new();
    back_first.give(7, back);
    back_first.other(6);
    back_first.give(5, front);
    assert_eq!(back_first.delivered, [frame(3, 10), frame(1, 10)], "another kind was between");

    for [first, second] in [[5, 6], [6, 5]] {
        let mut wrong_offset = Receiver::new();
        let wrong = [&[0, 1], &back[2..]].concat();
        for counter in [first, second] {
            wrong_offset.give(counter, if counter == 5 { front } else { &wrong });
        }
        assert_eq!(wrong_offset.delivered, [frame(1, 10)], "the next body continues something else");
        assert_eq!(wrong_offset.reassembler.drops().partial, 1);
    }
}

#[test]
fn parts_are_given_up_when_what_they_wait_for_is_too_far_behind() {
    let bodies = pack(&slices(&[frame(1, 100), frame(2, 10)]), 80);
    let most = MAX_AHEAD as u32;
    for (above, is_kept) in [(most, true), (most + 1, false)] {
        let mut front_first = Receiver::new();
        front_first.give(0, &bodies[0]);
        front_first.other(1 + above);
        assert_eq!(front_first.reassembler.drops().partial, u64::from(!is_kept));
        front_first.give(1, &bodies[1]);
        let mut back_first = Receiver::new();
        back_first.give(1, &bodies[1]);
        back_first.other(above);
        back_first.give(0, &bodies[0]);
        for Receiver { delivered, .. } in [front_first, back_first] {
            assert_eq!(delivered.contains(&frame(1, 100)), is_kept, "{above} above what was waited for");
            assert!(delivered.contains(&frame(2, 10)), "whole, however late");
        }
    }
}

#[test]
fn a_repeated_block_neither_mixes_frames_nor_fills_the_memory() {
    let bodies = pack(&slices(&[frame(1, 100), frame(2, 100), frame(3, 10)]), 80);
    let mut receiver = Receiver::new();
    for _ in 0..100 {
        receiver.give(6, &bodies[1]);
    }
    for counter in [5, 5, 5, 6, 7, 7] {
        receiver.give(counter, &bodies[counter as usize - 5]);
    }
    assert!(receiver.delivered.iter().all(|one| (1..=3).any(|n| *one == frame(n, one.len()))));
    assert!(receiver.delivered.contains(&frame(1, 100)));
}

#[test]
fn bodies_too_short_to_be_one_are_counted_and_hold_nothing_up() {
    let bodies = pack(&slices(&[frame(1, 100), frame(2, 10)]), 80);
    let mut receiver = Receiver::new();
    receiver.give(0, &bodies[0]);
    receiver.give(1, &[0]);
    receiver.give(2, &bodies[1]);
    receiver.give(3, &vec![0; MAX_BODY + 1]);
    assert_eq!(receiver.delivered, [frame(2, 10)]);
    assert_eq!(receiver.reassembler.drops(), Drops { partial: 1, oversize: 0, malformed: 2 });
}

#[test]
fn the_last_counters_there_are_do_no_harm() {
    let alone = pack(&slices(&[frame(1, 20)]), 80);
    let mut receiver = Receiver::new();
    receiver.give(u32::MAX - 1, &[0, 9, 1, 2, 3]);
    receiver.give(u32::MAX, &alone[0]);
    receiver.other(u32::MAX);
    assert_eq!(receiver.delivered, [frame(1, 20)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_order_and_without_loss_every_frame_arrives_in_order(traffic in traffic()) {
        let mut receiver = Receiver::new();
        for (counter, datagram) in &traffic.datagrams() {
            receiver.take(*counter, datagram);
        }
        prop_assert_eq!(receiver.delivered, traffic.frames());
        prop_assert_eq!(receiver.reassembler.drops(), Drops::default());
    }

    /// Each datagram yields at once what the slow reference has when everything before it is in.
    #[test]
    fn loss_delays_nothing_and_lets_nothing_overtake(traffic in traffic(), network in network()) {
        let mut receiver = Receiver::new();
        let mut received = BTreeMap::new();
        for (counter, datagram) in network.thinned(traffic.datagrams()) {
            receiver.take(counter, &datagram);
            received.insert(counter, datagram);
            prop_assert_eq!(&receiver.delivered, &reference::frames(MAX, &received));
        }
    }

    #[test]
    fn reorder_within_the_bounds_loses_nothing(traffic in traffic(), network in network()) {
        let mut receiver = Receiver::new();
        receiver.take_all(&network.reordered(traffic.datagrams()));
        prop_assert_eq!(sorted(receiver.delivered), sorted(traffic.frames()));
        prop_assert_eq!(receiver.reassembler.drops(), Drops::default());
    }

    #[test]
    fn loss_and_reorder_within_the_bounds_cost_exactly_the_frames_of_what_is_lost(
        traffic in traffic(),
        network in network(),
    ) {
        let received = network.thinned(traffic.datagrams());
        let expected = reference::frames(MAX, &received);
        let mut receiver = Receiver::new();
        receiver.take_all(&network.reordered(received));
        prop_assert_eq!(sorted(receiver.delivered), sorted(expected));
    }

    #[test]
    fn any_bodies_give_what_the_slow_receiver_gives(bodies in hostile(), network in network()) {
        let received = network.thinned(bodies);
        let expected = reference::frames(40, &received);
        let mut receiver = Receiver::with_max(40);
        receiver.take_all(&network.reordered(received));
        prop_assert_eq!(sorted(receiver.delivered), sorted(expected));
    }

    #[test]
    fn out_of_all_bounds_frames_are_lost_but_never_mixed_or_repeated(
        traffic in traffic(),
        network in network(),
    ) {
        let received = network.thinned(traffic.datagrams());
        let possible = reference::frames(MAX, &received).into_iter().collect::<BTreeSet<_>>();
        let certain = received.iter().flat_map(|(counter, datagram)| {
            reference::frames(MAX, &BTreeMap::from([(*counter, datagram.clone())]))
        });
        let certain = certain.collect::<BTreeSet<_>>();
        let mut receiver = Receiver::new();
        receiver.take_all(&network.shuffled(received));
        let delivered = receiver.delivered.iter().cloned().collect::<BTreeSet<_>>();
        prop_assert_eq!(delivered.len(), receiver.delivered.len(), "a frame came twice");
        prop_assert!(delivered.is_subset(&possible));
        prop_assert!(certain.is_subset(&delivered), "frames that lie whole in one body always arrive");
    }

    #[test]
    fn repeated_datagrams_never_mix_frames(traffic in traffic(), network in network()) {
        let sent = traffic.frames().into_iter().collect::<BTreeSet<_>>();
        let mut twice = network.shuffled(traffic.datagrams());
        twice.extend(network.reordered(traffic.datagrams()));
        let mut receiver = Receiver::new();
        receiver.take_all(&twice);
        prop_assert!(receiver.delivered.iter().all(|frame| sent.contains(frame)));
    }

    #[test]
    fn memory_is_bounded(arrivals in prop::collection::vec((any::<u8>(), body()), 0..200)) {
        let mut receiver = Receiver::with_max(40);
        for (counter, body) in arrivals {
            receiver.give(counter.into(), &body);
        }
        let Reassembler { begun, parts, .. } = &receiver.reassembler;
        prop_assert_eq!((begun.items.len(), parts.items.len()), (MAX_AHEAD + 2, MAX_AHEAD));
        prop_assert!(begun.items.iter().all(|begun| begun.bytes.capacity() <= 40));
        prop_assert!(parts.items.iter().all(|part| part.bytes.capacity() <= 40));
    }
}

/// A reassembler and its output.
struct Receiver {
    reassembler: Reassembler,
    delivered: Vec<Vec<u8>>,
}

impl Receiver {
    fn new() -> Self {
        Self::with_max(MAX)
    }

    fn with_max(max_frame: usize) -> Self {
        Self { reassembler: Reassembler::new(max_frame), delivered: Vec::new() }
    }

    fn give(&mut self, counter: u32, body: &[u8]) {
        let delivered = &mut self.delivered;
        self.reassembler.block(counter, 0, body, &mut |frame, _| delivered.push(frame.to_vec()));
    }

    fn other(&mut self, counter: u32) {
        self.reassembler.other(counter);
    }

    fn take(&mut self, counter: u32, datagram: &Datagram) {
        match datagram {
            Datagram::Block(body) => self.give(counter, body),
            Datagram::Other => self.other(counter),
        }
    }

    fn take_all(&mut self, arrivals: &[(u32, Datagram)]) {
        for (counter, datagram) in arrivals {
            self.take(*counter, datagram);
        }
    }

    fn in_order(&mut self, bodies: &[&[u8]]) -> Vec<Vec<u8>> {
        (0..).zip(bodies).for_each(|(counter, body)| self.give(counter, body));
        self.delivered.clone()
    }
}

/// Batches of frames, each packed separately, mixed with other datagrams.
#[derive(Debug, Clone)]
struct Traffic {
    batches: Vec<(Vec<usize>, usize)>,
    others: usize,
    first: u32,
}

impl Traffic {
    fn frames(&self) -> Vec<Vec<u8>> {
        let lengths = self.batches.iter().flat_map(|(lengths, _)| lengths);
        (0..).zip(lengths).map(|(n, length)| frame(n, *length)).collect()
    }

    fn datagrams(&self) -> BTreeMap<u32, Datagram> {
        let mut frames = self.frames();
        let mut datagrams = Vec::new();
        for (index, (lengths, capacity)) in self.batches.iter().enumerate() {
            let batch = frames.drain(..lengths.len()).collect::<Vec<_>>();
            datagrams.extend(pack(&slices(&batch), *capacity).into_iter().map(Datagram::Block));
            let others = if self.others == 0 { 0 } else { (index * 7 + 3) % self.others };
            datagrams.extend(std::iter::repeat_n(Datagram::Other, others));
        }
        (self.first..).zip(datagrams).collect()
    }
}

/// Predetermined network faults.
#[derive(Debug, Clone)]
struct Network {
    delays: Vec<u8>,
    losses: Vec<bool>,
}

impl Network {
    fn thinned(&self, datagrams: BTreeMap<u32, Datagram>) -> BTreeMap<u32, Datagram> {
        datagrams
            .into_iter()
            .zip(self.losses.iter().cycle())
            .filter(|(_, lost)| !**lost)
            .map(|(one, _)| one)
            .collect()
    }

    /// No datagram comes after one whose counter is more than [`MAX_AHEAD`] higher.
    fn reordered(&self, datagrams: BTreeMap<u32, Datagram>) -> Vec<(u32, Datagram)> {
        self.delayed(datagrams, |delay| u32::from(delay) % (MAX_AHEAD as u32 + 1))
    }

    fn shuffled(&self, datagrams: BTreeMap<u32, Datagram>) -> Vec<(u32, Datagram)> {
        self.delayed(datagrams, u32::from)
    }

    fn delayed(&self, datagrams: BTreeMap<u32, Datagram>, by: impl Fn(u8) -> u32) -> Vec<(u32, Datagram)> {
        let mut arrivals = datagrams.into_iter().zip(self.delays.iter().cycle()).collect::<Vec<_>>();
        arrivals.sort_by_key(|((counter, _), delay)| counter + by(**delay));
        arrivals.into_iter().map(|(one, _)| one).collect()
    }
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let length = prop_oneof![4 => 4usize..150, 2 => 150usize..1600, 1 => 1600usize..MAX];
    let batch = (prop::collection::vec(length, 1..8), prop_oneof![64usize..200, 200usize..1500]);
    (prop::collection::vec(batch, 1..12), 0usize..4, 0u32..3).prop_map(|(batches, others, first)| Traffic {
        batches,
        others,
        first,
    })
}

fn network() -> impl Strategy<Value = Network> {
    let delays = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..100),
        prop::collection::vec(prop_oneof![9 => Just(0u8), 1 => any::<u8>()], 1..100),
        prop::collection::vec(0u8..3, 1..100),
    ];
    let losses = prop::collection::vec(prop::bool::weighted(0.1), 1..100);
    (delays, losses).prop_map(|(delays, losses)| Network { delays, losses })
}

/// Bodies that no sender would write, with small numbers so that they are often valid.
fn hostile() -> impl Strategy<Value = BTreeMap<u32, Datagram>> {
    let datagram = prop_oneof![8 => body().prop_map(Datagram::Block), 1 => Just(Datagram::Other)];
    prop::collection::vec(datagram, 1..120).prop_map(|datagrams| (0..).zip(datagrams).collect())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![3 => Just(0u16), 6 => 1u16..12, 2 => 12u16..50, 1 => any::<u16>()];
    let bytes = prop::collection::vec(number(), 0..8);
    (bytes, any::<bool>()).prop_map(|(numbers, odd)| {
        let mut body = numbers.into_iter().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        body.extend(odd.then_some(7));
        body
    })
}

/// A frame whose every part, from four bytes on, is unique.
fn frame(n: u32, length: usize) -> Vec<u8> {
    n.to_be_bytes().into_iter().chain(Dice(n.into()).bytes(length)).take(length).collect()
}

fn slices(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}

/// Bodies of equal capacity.
struct Written {
    body: Vec<u8>,
    closed: Vec<Vec<u8>>,
}

impl Bodies for Written {
    fn body(&mut self) -> &mut [u8] {
        &mut self.body
    }

    fn close(&mut self, length: usize) {
        self.closed.push(self.body[..length].to_vec());
        self.body.fill(0xee);
    }
}

/// Packs the frames, each given in two parts.
fn pack(frames: &[&[u8]], capacity: usize) -> Vec<Vec<u8>> {
    let mut written = Written { body: vec![0xee; capacity], closed: Vec::new() };
    let mut packer = Packer::default();
    for (number, frame) in frames.iter().enumerate() {
        let (head, tail) = frame.split_at((number * 37).min(frame.len()));
        packer.push([head, tail], &mut written);
    }
    packer.finish(&mut written);
    packer.finish(&mut written);
    assert!(!packer.is_open());
    written.closed
}

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}
