//! Two ends, each a link with its lane, and a network that a script controls: it loses, withholds, repeats, changes and
//! invents datagrams. Ends are killed, move, have their clocks set, and may go rogue.
//!
//! Invariants: nothing panics; the processes of an end together deliver no frame and no datagram twice; no two
//! datagrams share a nonce; what the peer did not seal has no effect; unproven senders get no more bytes than they
//! sent; log lines are printable, short and few. Once the network is honest again, the link comes up.

mod end;
mod mad;
mod network;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tund::config::KeyMode;
use tund::core::clock::Now;
use tund::core::control::Control;
use tund::crypto::wrap;

use crate::script::{Script, beginning};
use end::End;

/// Some day in 2026, in microseconds.
const WALL: u64 = 1_790_000_000_000_000;
const MTU: u32 = 1400;
/// Most datagrams under way, and most recorded ones.
const UNDER_WAY: usize = 64;
/// Most datagrams that one datagram, or one look at the clock, may cause.
const OUTPUTS: usize = 8;
/// Most that a clock may be off the other, in microseconds: a thousand years.
const SKEW: i64 = 1 << 55;
/// Most time for the ends to find each other again: the keepalive timeout, the pause between calls, and a bit.
const RECOVERY: Duration = Duration::from_secs(200);

/// Two ends in handshake mode.
pub fn session(data: &[u8]) {
    run(KeyMode::Handshake, data);
}

/// Two ends in static mode.
pub fn key_ids(data: &[u8]) {
    run(KeyMode::Static, data);
}

fn run(mode: KeyMode, data: &[u8]) -> World {
    let mut script = Script(data);
    let mut world = World::new(mode);
    while !script.is_over() {
        let which = usize::from(script.byte() & 1);
        match script.byte() {
            action @ ..160 => world.act(action % 10, which, &mut script),
            action => world.act(10 + action % 6, which, &mut script),
        }
    }
    if !world.mad {
        world.recover();
    }
    world
}

/// An end's datagram, or what the network made of it.
#[derive(Clone)]
struct Flying {
    from: SocketAddr,
    to: usize,
    bytes: Vec<u8>,
}

/// A frame read from a device.
struct Carried {
    from: usize,
    length: usize,
    delivered: bool,
}

struct World {
    mode: KeyMode,
    now: Now,
    starts: u64,
    /// An end sent, or may have sent, what no honest end sends.
    mad: bool,
    ends: [End; 2],
    under_way: VecDeque<Flying>,
    record: Vec<Flying>,
    frames: BTreeMap<u32, Carried>,
    /// Datagrams that brought frames, by end, over all processes.
    entered: [HashSet<Vec<u8>>; 2],
}

impl World {
    fn new(mode: KeyMode) -> Self {
        let now = Now { instant: beginning(), wall: WALL };
        let ends = [0, 1].map(|which| End::new(mode, which, now, which as u64));
        let mut world = Self {
            mode,
            now,
            starts: 2,
            mad: false,
            ends,
            under_way: VecDeque::new(),
            record: Vec::new(),
            frames: BTreeMap::new(),
            entered: [HashSet::new(), HashSet::new()],
        };
        world.settle();
        world
    }

    fn act(&mut self, action: u8, which: usize, script: &mut Script<'_>) {
        match action {
            0 => self.stranger(which, script.counted()),
            1 => self.deliver(script.byte()),
            2 => self.repeat(script.byte()),
            3 => self.change(script),
            4 => self.reflect(script.byte()),
            5 => drop(self.take(script.byte())),
            6 => self.pass(Duration::from_micros(1 << (script.byte() % 28))),
            7 => self.device(which, script),
            8 => self.mad_peer(which, script),
            9 => self.fate(which, script.byte()),
            10 => self.roam(which, script.byte()),
            11 => self.set_clock(which, script),
            12 => (0..script.byte() % 32).for_each(|_| self.step()),
            13 => self.record(script.byte()),
            14 => self.replay(script.byte()),
            _ => self.trouble(which, script.byte()),
        }
    }

    /// Both ends do what is due.
    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time.as_micros() as u64;
        for end in &mut self.ends {
            end.seen.log.renew(self.now.instant);
            end.handle_timeout(self.now);
            assert!(end.out.sent.len() <= 2 * OUTPUTS, "{} datagrams at once", end.out.sent.len());
        }
        self.settle();
    }

    /// The network is honest while anything is due.
    fn step(&mut self) {
        for _ in 0..self.under_way.len() {
            self.deliver(0);
        }
        let due = self.ends.iter().filter_map(End::poll_timeout).min();
        let wait = due.map_or(Duration::MAX, |due| due.saturating_duration_since(self.now.instant));
        self.pass(wait.clamp(Duration::from_millis(1), Duration::from_secs(1)));
    }

    /// From here on, every datagram arrives once and in order, and so do frames in time.
    fn recover(&mut self) {
        self.under_way.clear();
        let until = self.now.instant + RECOVERY;
        let mut sent = Vec::new();
        while !sent.iter().any(|pair: &[u32; 2]| pair.iter().all(|serial| self.has_arrived(*serial))) {
            assert!(self.now.instant < until, "the ends do not find each other");
            if self.ends.iter().all(|end| end.link.is_up()) {
                sent.push([0, 1].map(|which| self.carry(which, 60)));
            }
            self.step();
        }
        for end in &self.ends {
            end.seen.log.check(
                &end.link
                    .state(self.now.instant, &end.lane.stats())
                    .problem
                    .map_or_else(String::new, |problem| problem.to_string()),
            );
        }
    }

    fn has_arrived(&self, serial: u32) -> bool {
        self.frames.get(&serial).is_some_and(|frame| frame.delivered)
    }

    fn device(&mut self, which: usize, script: &mut Script<'_>) {
        let (length, count) = (usize::from(script.number() & 0x7ff), script.byte());
        if length > MTU as usize {
            let frames = vec![vec![7; length]; usize::from(count & 7)];
            return self.send(which, &frames);
        }
        for _ in 0..count & 7 {
            self.carry(which, length);
        }
    }

    /// A device yields a unique frame.
    fn carry(&mut self, which: usize, length: usize) -> u32 {
        let serial = self.frames.len() as u32;
        let length = length.max(network::SHORTEST);
        self.frames.insert(serial, Carried { from: which, length, delivered: false });
        self.send(which, &[network::packet(which, serial, length)]);
        serial
    }

    fn send(&mut self, which: usize, frames: &[Vec<u8>]) {
        let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
        let end = &mut self.ends[which];
        end.lane.handle_frames(&frames, &mut end.out);
        self.settle();
    }

    /// An end is restarted, learns that it may be a copy, or is told to change its keys.
    fn fate(&mut self, which: usize, choice: u8) {
        let now = self.ends[which].now(self.now);
        match choice {
            choice if choice & 1 == 0 => {
                self.starts += 1;
                self.ends[which].restart(self.mode, which, self.now, self.starts);
            }
            0xfd => self.ends[which].link.handle_rekey(now),
            0xfb => self.ends[which].link.handle_reconnect(now),
            0xf9 => self.ends[which].link.handle_stop(false),
            _ => self.ends[which].link.handle_resumed(now),
        }
        self.settle();
    }

    fn roam(&mut self, which: usize, to: u8) {
        self.ends[which].address = network::address(which + 10 * usize::from(to % 4));
    }

    fn set_clock(&mut self, which: usize, script: &mut Script<'_>) {
        let (distance, sign) = (script.byte(), script.byte());
        let distance = 1 << (distance % 54);
        let end = &mut self.ends[which];
        let skew = if sign & 1 == 0 { end.skew + distance } else { end.skew - distance };
        end.skew = skew.clamp(-SKEW.min(WALL as i64), SKEW);
        end.look_at_clocks(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        let peers = [1, 0].map(|peer: usize| self.ends[peer].address);
        for (which, peer) in peers.into_iter().enumerate() {
            let end = &mut self.ends[which];
            end.settle(self.now, peer);
            for (bytes, path) in end.out.sent.drain(..) {
                end.seen.look_at(&bytes);
                if path.remote == peer && self.under_way.len() < UNDER_WAY {
                    self.under_way.push_back(Flying { from: end.address, to: 1 - which, bytes });
                }
            }
            // Frames that waited for a lost one.
            let frames = std::mem::take(&mut end.out.frames);
            end.delivered += frames.len();
            frames.iter().for_each(|frame| self.arrive(which, frame));
        }
    }

    /// An end receives a datagram from anyone.
    fn receive(&mut self, flying: Flying) -> Effect {
        let Flying { from, to, bytes } = flying;
        if self.ends[to].poll_timeout().is_some_and(|due| due <= self.now.instant) {
            // What this sends is no answer.
            self.ends[to].handle_timeout(self.now);
            self.settle();
        }
        let peer = self.ends[1 - to].address;
        let end = &mut self.ends[to];
        let is_probe = wrap::is_probe(&end.seen.keys, &bytes);
        let was_proven = end.opens(&bytes);
        end.taken = false;
        end.lane.handle_datagram(self.now.instant, from.into(), &mut bytes.clone(), &mut end.out);
        end.settle(self.now, peer);
        let frames = std::mem::take(&mut end.out.frames);
        let effect = Effect { frames: frames.len(), datagrams: end.out.sent.len() };
        let lengths: Vec<_> = end.out.sent.iter().map(|(sent, _)| sent.len()).collect();
        assert!(lengths.len() <= OUTPUTS, "{lengths:?} for one datagram");
        end.delivered += frames.len();
        if self.mode == KeyMode::Static && !was_proven && !end.taken {
            assert!(lengths.iter().sum::<usize>() <= bytes.len(), "{lengths:?} for {}", bytes.len());
        }
        if is_probe {
            // A retry makes an end call again, with a length of its own.
            let long = lengths.iter().filter(|length| **length > bytes.len()).count();
            assert!(long <= 1 || end.taken, "{lengths:?} for {}", bytes.len());
        }
        if !frames.is_empty() {
            // A holder of the key can reuse a key id of his own and its counters.
            let may_repeat = self.mad && self.mode == KeyMode::Static;
            assert!(self.entered[to].insert(bytes) || may_repeat, "one datagram brought frames twice");
        }
        frames.iter().for_each(|frame| self.arrive(to, frame));
        self.settle();
        effect
    }

    /// A device receives a frame.
    fn arrive(&mut self, to: usize, frame: &[u8]) {
        assert!((1..=MTU as usize).contains(&frame.len()));
        let carried =
            network::serial(frame).and_then(|serial| self.frames.get_mut(&serial).zip(Some(serial)));
        let genuine = carried.filter(|(carried, serial)| {
            frame.len() == carried.length && network::packet(carried.from, *serial, carried.length) == frame
        });
        match genuine {
            // A rogue end's output may look like one.
            _ if self.mad => {}
            None => panic!("a frame that nobody sent"),
            Some((carried, serial)) => {
                assert_ne!(carried.from, to, "frame {serial} came back");
                assert!(!carried.delivered, "frame {serial} was delivered twice");
                carried.delivered = true;
            }
        }
    }
}

/// The immediate effect of a datagram.
#[derive(Debug, PartialEq, Eq)]
struct Effect {
    frames: usize,
    datagrams: usize,
}

const NONE: Effect = Effect { frames: 0, datagrams: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    /// If seeds missed their goal, the target would rot unnoticed.
    #[test]
    fn the_seeds_of_sessions_get_to_where_they_are_meant_to() {
        let run = |data| run(KeyMode::Handshake, data);
        let up = run(include_bytes!("../corpus/session/frames-both-ways"));
        assert!(up.ends.iter().all(|end| end.link.is_up() && end.delivered > 0));
        let again = run(include_bytes!("../corpus/session/restarted-ends"));
        assert!(again.ends.iter().all(|end| end.link.is_up()) && again.starts > 3);
        let old = run(include_bytes!("../corpus/session/rekeyed"));
        assert!(old.ends.iter().all(|end| end.link.is_up() && end.receive.len() > 1));
        let mad = run(include_bytes!("../corpus/session/mad-peer"));
        assert!(mad.ends[0].delivered > 0);
    }

    #[test]
    fn the_seeds_of_key_ids_get_to_where_they_are_meant_to() {
        let run = |data| run(KeyMode::Static, data);
        let up = run(include_bytes!("../corpus/key_ids/frames-both-ways"));
        assert!(up.ends.iter().all(|end| end.link.is_up() && end.delivered > 1));
        let again = run(include_bytes!("../corpus/key_ids/restarted-ends"));
        assert!(again.ends.iter().all(|end| end.link.is_up()) && again.starts > 3);
        let renewed = run(include_bytes!("../corpus/key_ids/rekeyed"));
        assert!(renewed.ends.iter().all(|end| end.seen.own.len() > 1 && end.receive.len() > 1));
    }

    /// The test of the test.
    #[test]
    #[should_panic = "delivered twice"]
    fn a_frame_that_is_delivered_twice_is_noticed() {
        let mut world = World::new(KeyMode::Static);
        let serial = world.carry(0, 60);
        let frame = network::packet(0, serial, 60);
        (0..2).for_each(|_| world.arrive(1, &frame));
    }
}
