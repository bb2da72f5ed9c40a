use std::collections::BTreeMap;

use tund::wire::block::{Bodies, MAX_AHEAD, Packer, Reassembler};

use crate::reference::{self, Datagram};
use crate::script::Script;

/// Small, so that longer lengths are common.
const MAX_FRAME: usize = 40;
/// Most datagrams that a script makes.
const DATAGRAMS: u32 = 400;

/// Stream blocks. The first byte selects the test.
pub fn stream_blocks(data: &[u8]) {
    let mut script = Script(data);
    match script.byte() % 3 {
        0 => hostile_bodies_in_a_fair_network(&mut script),
        1 => hostile_bodies_in_any_order(&mut script),
        _ => frames_packed(&mut script),
    }
}

/// With reordering and delay within bounds, the reassembler agrees with the slow reference.
fn hostile_bodies_in_a_fair_network(script: &mut Script<'_>) {
    let mut received = BTreeMap::new();
    let mut arrivals = Vec::new();
    for counter in 0..DATAGRAMS {
        if script.is_over() {
            break;
        }
        let way = script.byte();
        let datagram =
            if way & 0xc0 == 0xc0 { Datagram::Other } else { Datagram::Block(script.counted().to_vec()) };
        if way & 0xc0 != 0x80 {
            let delay = u32::from(way & 0x3f) % (MAX_AHEAD as u32 + 1);
            arrivals.push((counter + delay, counter));
            received.insert(counter, datagram);
        }
    }
    arrivals.sort();
    let mut receiver = Receiver::new(MAX_FRAME);
    for (_, counter) in arrivals {
        match received.get(&counter) {
            Some(Datagram::Block(body)) => receiver.block(counter, body),
            Some(Datagram::Other) | None => receiver.other(counter),
        }
    }
    let mut expected = reference::frames(MAX_FRAME, &received);
    expected.sort();
    receiver.delivered.sort();
    assert_eq!(receiver.delivered, expected);
}

/// In any order, no more comes out than went in.
fn hostile_bodies_in_any_order(script: &mut Script<'_>) {
    let mut receiver = Receiver::new(MAX_FRAME);
    let mut counter = 0u32;
    let mut bytes_in = 0;
    while !script.is_over() {
        let way = script.byte();
        counter = match way & 3 {
            0 => counter.wrapping_add(1),
            1 => counter.wrapping_sub(script.byte().into()),
            2 => counter.wrapping_add(script.byte().into()),
            _ => u32::from(script.number()) << (way >> 4),
        };
        if way & 4 == 0 {
            let body = script.counted();
            bytes_in += body.len();
            receiver.block(counter, body);
        } else {
            receiver.other(counter);
        }
    }
    assert!(receiver.delivered.iter().all(|frame| (1..=MAX_FRAME).contains(&frame.len())));
    assert!(receiver.delivered.iter().map(Vec::len).sum::<usize>() <= bytes_in);
}

/// Packed frames come out again, and all bodies but the last are full.
fn frames_packed(script: &mut Script<'_>) {
    let capacity = usize::from(script.byte()).max(64);
    let mut frames = Vec::new();
    while !script.is_over() && frames.len() < 64 {
        let (length, first) = (usize::from(script.number() & 0xfff), frames.len() as u8);
        frames.push((0..length).map(|i| first ^ i as u8).collect::<Vec<_>>());
    }
    let mut bodies = Written { body: vec![0xee; capacity], closed: Vec::new() };
    let mut packer = Packer::default();
    for (number, frame) in frames.iter().enumerate() {
        let (head, tail) = frame.split_at((number * 61).min(frame.len()));
        packer.push([head, tail], &mut bodies);
    }
    packer.finish(&mut bodies);
    let mut receiver = Receiver::new(0xfff);
    let mut full = true;
    for (counter, body) in bodies.closed.iter().enumerate() {
        assert!(full, "a body follows one that was not full");
        full = body.len() == capacity;
        receiver.block(counter as u32, body);
    }
    frames.retain(|frame| !frame.is_empty());
    assert_eq!(receiver.delivered, frames);
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
        self.closed.push(self.body.iter().take(length).copied().collect());
        self.body.fill(0xee);
    }
}

struct Receiver {
    reassembler: Reassembler,
    delivered: Vec<Vec<u8>>,
}

impl Receiver {
    fn new(max_frame: usize) -> Self {
        Self { reassembler: Reassembler::new(max_frame), delivered: Vec::new() }
    }

    fn block(&mut self, counter: u32, body: &[u8]) {
        let delivered = &mut self.delivered;
        self.reassembler.block(counter, 0, body, &mut |frame, _| delivered.push(frame.to_vec()));
    }

    fn other(&mut self, counter: u32) {
        self.reassembler.other(counter);
    }
}
