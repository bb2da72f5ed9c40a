//! Two ends in one process: a virtual clock and a network in memory.
#![allow(clippy::disallowed_methods, reason = "virtual time needs some instant to begin at")]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::admission::CHALLENGE_DATAGRAM;
use super::clock::Now;
use super::inner::Inner;
use super::lane::{self, Command, Key, Lane, Notice, Sink, Under};
use super::limits::{BLOCKS_END, BLOCKS_ROTATE};
use super::link::{Event, Link};
use super::path::Path;
use super::sid::Sid;
use super::stats::{Drop, Stats};
use crate::config::{Cipher, Keepalive, KeyMode, Mode};
use crate::crypto::keys::{LinkKeys, public_of};
use crate::crypto::noise::Statics;
use crate::crypto::{Random, wrap};
use crate::privsep::message::LinkSettings;
use crate::wire::control::{self, Message};
use crate::wire::datagram::Framing;

mod asked;
mod cases;
mod found;
mod idle;
mod lost;
mod slow;

const YEAR_2026: u64 = 1_790_000_000_000_000;

/// splitmix64: the seed decides everything.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

impl Random for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A datagram under way.
#[derive(Clone)]
struct Flying {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Out {
    /// So many confirmations are refused, as by a full queue.
    refused: u32,
    frames: Vec<Vec<u8>>,
    sent: Vec<(Vec<u8>, Path)>,
    notices: VecDeque<Notice>,
}

impl Sink for Out {
    fn frame(&mut self, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }
    fn datagram(&mut self, datagram: &[u8], to: Path) {
        self.sent.push((datagram.to_vec(), to));
    }
    fn notice(&mut self, notice: Notice) -> bool {
        if self.refused > 0 && matches!(notice, Notice::Confirmed { .. }) {
            self.refused -= 1;
            return false;
        }
        self.notices.push_back(notice);
        true
    }
}

/// One end: a link, its lane, and what the daemon would keep for it.
struct End {
    address: SocketAddr,
    /// A second address of the same host.
    also: Option<SocketAddr>,
    settings: LinkSettings,
    link: Link<Seeded>,
    lane: Lane,
    out: Out,
    floor: Option<u64>,
    floor_writable: bool,
    remote: Option<SocketAddr>,
    log: Vec<String>,
    /// What the peer offers, as told last.
    routes: Vec<IpNet>,
    skew: i64,
}

impl End {
    fn new(
        settings: LinkSettings,
        address: &str,
        remote: Option<&str>,
        skew: i64,
        at: Instant,
        seed: u64,
    ) -> Self {
        let keys = Arc::new(LinkKeys::new(&[42; 32]));
        let lane = Lane::new(lane::Settings {
            keys: keys.clone(),
            framing: framing(&settings),
            cipher: settings.cipher,
            direction: settings.direction,
            lane: 0,
            max_frame: settings.mtu as usize + 22,
            bundle: settings.bundle,
            copy_dscp: false,
            inner: inner(&settings),
        });
        let (floor, floor_writable) = (settings.floor, settings.floor_writable);
        // A name that ends in "+" stands for an end with a key pair.
        let statics = if settings.name.ends_with('+') { pair(address == MON) } else { Statics::None };
        let now = Now { instant: at, wall: YEAR_2026.wrapping_add_signed(skew) };
        Self {
            address: address.parse().unwrap(),
            also: None,
            settings: settings.clone(),
            link: match settings.key_mode {
                KeyMode::Static => Link::new(settings, keys, now, Seeded(seed)),
                KeyMode::Handshake => Link::with_handshake(settings, keys, statics, now, Seeded(seed)),
            },
            lane,
            out: Out::default(),
            floor,
            floor_writable,
            remote: remote.map(|remote| remote.parse().unwrap()),
            log: Vec::new(),
            routes: Vec::new(),
            skew,
        }
    }

    fn said(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.contains(text))
    }

    /// Does what the link asks its owner for; false: nothing.
    fn settle_events(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(event) = self.link.poll_event() {
            any = true;
            match event {
                Event::Log { text, .. } => self.log.push(text),
                Event::Resolve => self.link.handle_resolved(now, self.remote.into_iter().collect()),
                Event::Endpoint(address) => self.link.handle_route(now, address, Some(1500)),
                Event::Floor(time) => {
                    if self.floor_writable {
                        self.floor = self.floor.max(Some(time));
                    }
                    self.link.handle_floor(time, self.floor_writable);
                }
                Event::Routes(routes) => self.routes = routes,
                Event::Up { .. } | Event::Down { .. } => {}
            }
        }
        any
    }

    fn stats(&self) -> Stats {
        self.lane.stats().plus(&self.link.stats())
    }
}

/// Both ends and the wire between them.
struct World {
    start: Instant,
    elapsed: Duration,
    ends: [End; 2],
    wire: VecDeque<Flying>,
    record: Vec<Flying>,
    /// Every key that was made ready to send under.
    prepared: Vec<Key>,
    cut: bool,
    /// Longer datagrams are lost.
    passes: usize,
    seed: u64,
}

fn settings(which: usize) -> LinkSettings {
    let own: IpAddr = if which == 0 { "192.168.86.18" } else { "192.168.86.81" }.parse().unwrap();
    let peer: IpAddr = if which == 0 { "192.168.86.81" } else { "192.168.86.18" }.parse().unwrap();
    LinkSettings {
        name: if which == 0 { "mon" } else { "fri" }.into(),
        mode: Mode::Tun,
        mtu: 1400,
        addresses: vec![own],
        peers: vec![peer],
        key_mode: KeyMode::Static,
        cipher: Cipher::ChaCha20Poly1305,
        direction: which as u8,
        suites: vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305],
        has_remote: which == 1,
        float: true,
        keepalive: Keepalive {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            idle_exit: Duration::from_secs(300),
        },
        bundle: true,
        mss_clamp: true,
        push: Vec::new(),
        accept: Vec::new(),
        sources: None,
        path_mtu: None,
        floor: None,
        floor_writable: true,
        verb: 3,
        activated: false,
    }
}

fn inner(settings: &LinkSettings) -> Inner {
    match settings.mode {
        Mode::Tun => Inner::routed(settings.mtu, settings.mss_clamp, settings.peers.clone()),
        Mode::Tap => Inner::bridged(),
    }
}

fn framing(settings: &LinkSettings) -> Framing {
    match settings.key_mode {
        KeyMode::Static => Framing::Static,
        KeyMode::Handshake => Framing::Session,
    }
}

fn pair(is_mon: bool) -> Statics {
    let (private, peer) = if is_mon { ([5; 32], [6; 32]) } else { ([6; 32], [5; 32]) };
    Statics::Pair { private, peer_public: public_of(&peer) }
}

fn handshake(which: usize) -> LinkSettings {
    LinkSettings { key_mode: KeyMode::Handshake, ..settings(which) }
}

const MON: &str = "198.51.100.1:1417";
const FRI: &str = "198.51.100.2:1417";

impl World {
    fn new() -> Self {
        Self::with(settings(0), settings(1), [0, 0])
    }

    fn with(mon: LinkSettings, fri: LinkSettings, skews: [i64; 2]) -> Self {
        let start = Instant::now();
        let ends =
            [End::new(mon, MON, None, skews[0], start, 1), End::new(fri, FRI, Some(MON), skews[1], start, 2)];
        let wire = VecDeque::new();
        Self {
            start,
            elapsed: Duration::ZERO,
            ends,
            wire,
            record: Vec::new(),
            prepared: Vec::new(),
            cut: false,
            passes: 1472,
            seed: 3,
        }
    }

    fn now(&self, which: usize) -> Now {
        let wall = YEAR_2026 + self.elapsed.as_micros() as u64;
        Now { instant: self.start + self.elapsed, wall: wall.wrapping_add_signed(self.ends[which].skew) }
    }

    /// An end is killed and starts again with the floor that is on disk.
    fn restart(&mut self, which: usize) {
        let settings = LinkSettings { floor: self.ends[which].floor, ..self.ends[which].settings.clone() };
        self.replace(which, settings);
    }

    fn replace(&mut self, which: usize, settings: LinkSettings) {
        self.seed += 1;
        let (address, skew) = ([MON, FRI][which], self.ends[which].skew);
        let skew = skew + self.elapsed.as_micros() as i64;
        let remote = settings.has_remote.then_some(MON);
        let mut end = End::new(settings, address, remote, skew, self.start + self.elapsed, self.seed);
        end.skew = self.ends[which].skew;
        end.floor = self.ends[which].floor;
        self.ends[which] = end;
    }

    /// Carries out what one end wants done.
    fn settle(&mut self, which: usize) {
        let now = self.now(which);
        let end = &mut self.ends[which];
        loop {
            let mut idle = true;
            while let Some(command) = end.link.poll_command() {
                idle = false;
                if let Command::Prepare(_, key) = &command {
                    self.prepared.push(key.clone());
                }
                end.lane.handle_command(now.instant, command, &mut end.out);
            }
            while let Some(notice) = end.out.notices.pop_front() {
                idle = false;
                end.link.handle_notice(now, notice);
            }
            idle &= !end.settle_events(now);
            if idle {
                break;
            }
        }
        for (bytes, path) in std::mem::take(&mut end.out.sent) {
            let to = path.remote;
            let own = |address: &SocketAddr| path.local.is_none_or(|local| local == address.ip());
            let from = [Some(end.address), end.also].into_iter().flatten().find(own);
            if from.is_none() {
                end.out.notices.push_back(Notice::SourceLost { path });
            }
            let from = from.unwrap_or(end.address);
            let flying = Flying { from, to, bytes };
            self.record.push(flying.clone());
            if !self.cut && flying.bytes.len() <= self.passes {
                self.wire.push_back(flying);
            }
        }
    }

    fn inject(&mut self, flying: Flying) {
        let Some(which) =
            self.ends.iter().position(|end| end.address == flying.to || end.also == Some(flying.to))
        else {
            return;
        };
        let now = self.now(which);
        let end = &mut self.ends[which];
        let mut bytes = flying.bytes;
        let path = Path { remote: flying.from, local: Some(flying.to.ip()) };
        end.lane.handle_datagram(now.instant, path, &mut bytes, &mut end.out);
        self.settle(which);
    }

    fn drain(&mut self) {
        self.settle(0);
        self.settle(1);
        while let Some(flying) = self.wire.pop_front() {
            self.inject(flying);
        }
    }

    /// Lets time pass in steps of 100 ms.
    fn run(&mut self, seconds: f64) {
        let until = self.elapsed + Duration::from_secs_f64(seconds);
        while self.elapsed < until {
            self.drain();
            self.elapsed += Duration::from_millis(100);
            for which in 0..2 {
                let now = self.now(which);
                let end = &mut self.ends[which];
                let report = end.lane.report();
                end.link.handle_report(now, &report);
                end.lane.handle_timeout(now.instant, &mut end.out);
                if end.link.poll_timeout().is_some_and(|at| at <= now.instant) {
                    end.link.handle_timeout(now);
                }
            }
        }
        self.drain();
    }

    fn send(&mut self, which: usize, frames: &[&[u8]]) {
        let end = &mut self.ends[which];
        end.lane.handle_frames(frames, &mut end.out);
        self.drain();
    }

    fn up(&self) -> bool {
        self.ends.iter().all(|end| end.link.is_up())
    }

    /// A frame each way arrives.
    fn assert_carries(&mut self) {
        for which in 0..2 {
            self.ends[1 - which].out.frames.clear();
            let frame = [which as u8; 100];
            self.send(which, &[&frame]);
            assert_eq!(self.ends[1 - which].out.frames, [frame.to_vec()], "from end {which}");
        }
    }
}

#[test]
fn a_first_start_is_up_within_two_seconds_and_carries_frames() {
    let mut world = World::new();
    world.run(2.0);
    assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
    world.assert_carries();
    assert!(world.ends.iter().all(|end| end.floor.is_some()), "a floor was written");
}

#[test]
fn either_end_may_start_first_and_be_alone_for_an_hour() {
    let mut world = World::new();
    world.cut = true;
    world.run(3600.0);
    assert!(world.ends[0].said("waiting for the peer to call"));
    assert!(world.ends[1].said("no answer from"));
    world.cut = false;
    world.run(10.0);
    assert!(world.up());
}

#[test]
fn no_frame_is_lost_when_sids_change() {
    let mut world = World::new();
    world.run(2.0);
    for n in 0..2000u32 {
        world.run(0.1);
        world.send(0, &[&n.to_be_bytes()]);
        world.send(1, &[&n.to_be_bytes()]);
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 2000, "{}", end.stats());
    }
}

#[test]
fn wrong_clocks_are_proven_by_challenge_and_said() {
    for skews in [[0, -56 * 365 * 86_400 * 1_000_000], [3_600_000_000, -3_600_000_000]] {
        let mut world = World::with(settings(0), settings(1), skews);
        world.run(5.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.run(200.0);
        assert!(world.up());
        world.assert_carries();
        assert!(world.ends[0].said("the clocks differ by -"), "{:?}", world.ends[0].log);
        assert!(world.ends[1].said("the clocks differ by +"));
    }
}

#[test]
fn a_restarted_end_is_back_within_twenty_seconds() {
    for which in 0..2 {
        let mut world = World::new();
        world.run(30.0);
        world.restart(which);
        world.run(15.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn a_lost_peer_is_noticed_and_found_again() {
    let mut world = World::new();
    world.run(5.0);
    world.cut = true;
    world.run(65.0);
    assert!(world.ends.iter().all(|end| !end.link.is_up() && end.said("link down: nothing heard")));
    world.cut = false;
    world.run(10.0);
    assert!(world.up());
    world.assert_carries();
}

#[test]
fn an_end_that_stops_says_so() {
    let mut world = World::new();
    world.run(5.0);
    world.ends[1].link.handle_stop(false);
    world.drain();
    assert!(world.ends[0].said("link down: the peer says: stopped"));
    assert!(world.ends[0].log.last().is_some_and(|line| line.contains("waiting for the peer to call")));
}

#[test]
fn what_the_peer_says_cannot_write_over_the_log() {
    let mut world = World::new();
    world.run(5.0);
    let to = world.ends[0].address.into();
    let mut body = Vec::new();
    control::encode(&Message::Bye { reason: "\r\x1b[2Jlink up".into() }, &mut body);
    let now = world.now(1).instant;
    let end = &mut world.ends[1];
    end.lane.handle_command(now, Command::Control { body, to, under: Under::Current }, &mut end.out);
    world.drain();
    assert!(world.ends[0].said("link down: the peer says: __[2Jlink up"), "{:?}", world.ends[0].log);
}

#[test]
fn replayed_reflected_and_broken_datagrams_deliver_nothing_and_get_no_answer() {
    let mut world = World::new();
    world.run(5.0);
    world.assert_carries();
    let record = world.record.clone();
    for end in &mut world.ends {
        end.out.frames.clear();
    }
    let sent = world.record.len();
    let stranger: SocketAddr = "203.0.113.9:9".parse().unwrap();
    for flying in &record {
        for from in [flying.from, stranger] {
            world.inject(Flying { from, ..flying.clone() });
            world.inject(Flying { from, to: flying.from, ..flying.clone() });
            for length in [0, 1, 20, 36, flying.bytes.len() - 1] {
                let bytes = flying.bytes[..length].to_vec();
                world.inject(Flying { from, to: flying.to, bytes });
            }
            for bit in (0..flying.bytes.len() * 8).step_by(7) {
                let mut bytes = flying.bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                world.inject(Flying { from, to: flying.to, bytes });
            }
        }
    }
    assert!(world.ends.iter().all(|end| end.out.frames.is_empty()));
    // A recorded datagram of an old sid may be challenged and a recorded challenge answered, by each
    // end at most once in the second, and never at greater length.
    let answers = &world.record[sent..];
    assert!(answers.len() <= 4, "{} answers", answers.len());
    assert!(answers.iter().all(|answer| answer.bytes.len() == CHALLENGE_DATAGRAM));
    for end in &world.ends {
        for reason in [Drop::Replayed, Drop::Reflected, Drop::BadTag, Drop::Stranger, Drop::TooShort] {
            assert!(end.stats().drops(reason) > 0, "{} in {}", reason.label(), end.stats());
        }
    }
    world.assert_carries();
}

#[test]
fn replaying_everything_all_the_time_costs_no_frame() {
    let mut world = World::new();
    world.run(5.0);
    let record = world.record.clone();
    for n in 0..1500u32 {
        world.run(0.1);
        world.send(0, &[&n.to_be_bytes()]);
        world.send(1, &[&n.to_be_bytes()]);
        for flying in &record {
            world.inject(flying.clone());
        }
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 1500, "{}", end.stats());
    }
}

#[test]
fn a_recording_cannot_enter_a_restarted_receiver() {
    for floor_lost in [false, true] {
        let mut world = World::new();
        world.run(5.0);
        world.assert_carries();
        let record = world.record.clone();
        if floor_lost {
            world.ends[0].floor = None;
        }
        world.restart(0);
        world.cut = true;
        let sent = world.record.len();
        for flying in record.iter().filter(|flying| flying.to.to_string() == MON) {
            world.inject(flying.clone());
        }
        assert!(world.ends[0].out.frames.is_empty());
        assert!(!world.ends[0].link.is_up());
        let answers = &world.record[sent..];
        assert!(answers.len() <= 2);
        assert!(
            answers
                .iter()
                .all(|answer| { record.iter().any(|cause| cause.bytes.len() >= answer.bytes.len()) })
        );
    }
}

#[test]
fn what_was_recorded_while_one_end_was_away_does_not_enter_later() {
    // The recorded sid was never taken, and its time is past the floor, but it is too old.
    let mut world = World::new();
    world.run(5.0);
    world.cut = true;
    let from = world.record.len();
    world.run(61.0);
    world.send(1, &[b"recorded"]);
    let record = world.record[from..].to_vec();
    world.run(200.0);
    world.restart(0);
    world.ends[0].out.frames.clear();
    for flying in record.into_iter().filter(|flying| flying.to.to_string() == MON) {
        world.inject(flying);
    }
    assert!(world.ends[0].out.frames.is_empty());
    assert!(!world.ends[0].link.is_up());
}

#[test]
fn a_flood_of_recorded_sids_cannot_keep_out_a_peer_whose_time_must_be_proven() {
    let hour = 3_600_000_000;
    let mut world = World::with(settings(0), settings(1), [0, -hour]);
    for _ in 0..3 {
        world.run(5.0);
        world.assert_carries();
        world.restart(1);
    }
    let record: Vec<_> = world.record.iter().filter(|flying| flying.to.to_string() == MON).cloned().collect();
    for _ in 0..100 {
        for flying in &record {
            world.inject(Flying { from: "203.0.113.9:9".parse().unwrap(), ..flying.clone() });
        }
        world.run(0.1);
    }
    assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
    world.assert_carries();
}

#[test]
fn without_a_writable_floor_every_sid_is_challenged_and_the_link_still_works() {
    let mut world = World::new();
    for which in 0..2 {
        let settings = LinkSettings { floor_writable: false, ..settings(which) };
        world.replace(which, settings);
        world.ends[which].floor_writable = false;
    }
    world.run(3.0);
    for _ in 0..2000 {
        world.run(0.1);
        world.send(1, &[b"frame"]);
    }
    assert!(world.up());
    assert!(world.ends.iter().all(|end| end.floor.is_none()));
    assert_eq!(world.ends[0].out.frames.len(), 2000, "{}", world.ends[0].stats());
}

#[test]
fn mismatches_are_said_on_both_ends_and_nothing_passes() {
    let tap = LinkSettings { mode: Mode::Tap, ..settings(1) };
    let mtu = LinkSettings { mtu: 1300, ..settings(1) };
    let same = LinkSettings { addresses: settings(0).addresses, ..settings(1) };
    let other = LinkSettings { addresses: vec!["192.168.86.99".parse().unwrap()], ..settings(1) };
    let cases = [
        (tap, ["peer is in tap mode, this end in tun mode", "peer is in tun mode, this end in tap mode"]),
        (mtu, ["peer's frame MTU is 1300, this end's 1400", "peer's frame MTU is 1400, this end's 1300"]),
        (same, ["both ends have the address 192.168.86.18", "both ends have the address 192.168.86.18"]),
        (
            other,
            [
                "peer's address is 192.168.86.99, this end expects 192.168.86.81",
                "peer expects the address 192.168.86.81 here, but it is 192.168.86.99",
            ],
        ),
    ];
    for (fri, lines) in cases {
        let mut world = World::with(settings(0), fri, [0, 0]);
        world.run(70.0);
        world.send(0, &[b"frame"]);
        for (end, line) in world.ends.iter().zip(lines) {
            assert!(end.said(line), "{:?}", end.log);
            assert!(!end.link.is_up() && end.out.frames.is_empty());
            assert!(end.stats().drops(Drop::NotAgreed) > 0, "{}", end.stats());
            assert!(end.log.len() < 12, "{:?}", end.log);
        }
        world.replace(1, settings(1));
        world.run(20.0);
        assert!(world.up(), "mended: {:?}", world.ends[0].log);
    }
}

#[test]
fn another_direction_cipher_or_key_is_said_on_both_ends() {
    let direction = LinkSettings { direction: 0, ..settings(1) };
    let cipher = LinkSettings { cipher: Cipher::Aes256Gcm, ..settings(1) };
    for (fri, line) in [(direction, "key.direction"), (cipher, "key.cipher")] {
        let mut world = World::with(settings(0), fri, [0, 0]);
        world.run(5.0);
        // The end that waits answers nothing, so only it can say; told the address, both do.
        assert!(world.ends[0].said(line), "{:?}", world.ends[0].log);
        assert!(!world.up());
        let called = LinkSettings { has_remote: true, ..settings(0) };
        world.replace(0, called);
        world.ends[0].remote = Some(FRI.parse().unwrap());
        world.run(5.0);
        assert!(world.ends.iter().all(|end| end.said(line)), "{:?}", world.ends[1].log);
    }
    let mut world = World::new();
    world.ends[0].lane = other_key(&settings(0));
    world.run(5.0);
    assert!(world.ends[0].said("none is sealed with this key"));
}

#[test]
fn static_keys_against_handshake_keys_are_said_on_both_ends() {
    for (mon, fri) in [(settings(0), handshake(1)), (handshake(0), settings(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.run(60.0);
        assert!(world.ends.iter().all(|end| end.said("set key.mode alike on both ends")));
        assert!(world.ends.iter().all(|end| end.log.len() < 6), "{:?}", world.ends[1].log);
        let signs: Vec<_> =
            world.record.iter().filter(|flying| flying.from == world.ends[0].address).collect();
        assert!((1..=13).contains(&signs.len()), "{} in a minute", signs.len());
        let shortest = world.record.iter().filter(|flying| flying.from == world.ends[1].address);
        let shortest = shortest.map(|flying| flying.bytes.len()).min().unwrap();
        assert!(signs.iter().all(|sign| sign.bytes.len() <= shortest), "longer than what caused it");
        world.replace(1, LinkSettings { key_mode: world.ends[0].settings.key_mode, ..settings(1) });
        world.run(10.0);
        assert!(world.up());
    }
}

fn other_key(settings: &LinkSettings) -> Lane {
    Lane::new(lane::Settings {
        keys: Arc::new(LinkKeys::new(&[43; 32])),
        framing: Framing::Static,
        cipher: settings.cipher,
        direction: settings.direction,
        lane: 0,
        max_frame: 1422,
        bundle: true,
        copy_dscp: false,
        inner: Inner::bridged(),
    })
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let second: SocketAddr = "198.51.100.9:1417".parse().unwrap();
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.ends[0].also = Some(second);
        world.ends[1].remote = Some(second);
        world.run(3.0);
        assert!(world.up(), "{:?}", world.ends[1].log);
        world.assert_carries();
        let from_mon = world.record.iter().filter(|flying| flying.to == world.ends[1].address);
        assert!(from_mon.clone().count() > 3 && from_mon.clone().all(|flying| flying.from == second));
        // The address goes away: the other one serves, and the peer follows.
        world.ends[0].also = None;
        world.send(0, &[b"from the other address"]);
        world.run(7.0);
        world.assert_carries();
        assert!(world.ends[1].said("the peer moved to 198.51.100.1:1417"), "{:?}", world.ends[1].log);
    }
}

#[test]
fn the_peer_is_followed_to_a_new_address_but_a_copy_cannot_move_it() {
    let mut world = World::new();
    world.run(5.0);
    world.ends[1].address = "203.0.113.7:4242".parse().unwrap();
    world.send(1, &[b"from another address, not home"]);
    world.run(2.0);
    assert!(world.ends[0].said("the peer moved to 203.0.113.7:4242"), "{:?}", world.ends[0].log);
    world.assert_carries();

    // A copy from a faster path arrives first, but the old address still answers.
    let thief: SocketAddr = "203.0.113.9:9".parse().unwrap();
    let end = &mut world.ends[1];
    end.lane.handle_frames(&[b"stolen"], &mut end.out);
    world.settle(1);
    let stolen = world.wire.pop_front().unwrap();
    world.inject(Flying { from: thief, ..stolen });
    world.run(6.0);
    assert!(!world.ends[0].said("moved to 203.0.113.9:9"));
    world.assert_carries();
}

/// Sends a full frame ten times a second; gives the seconds after which one came through again.
fn recovers(world: &mut World, limit: f64) -> f64 {
    let frame = [7; 1400];
    let mut seconds = 0.0;
    while seconds < limit {
        world.ends[0].out.frames.clear();
        world.send(1, &[&frame]);
        if !world.ends[0].out.frames.is_empty() {
            return seconds;
        }
        world.run(0.1);
        seconds += 0.1;
    }
    panic!("no full frame for {limit} s: {:?}", world.ends[1].log)
}

#[test]
fn a_path_that_shrinks_passes_full_frames_again_within_three_seconds() {
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        for claims in [false, true] {
            let mut world = World::with(mon.clone(), fri.clone(), [0, 0]);
            world.run(5.0);
            let whole = world.record.iter().filter(|flying| flying.bytes.len() == 1472).count();
            assert_eq!(whole, 2, "one probe each way finds that the route's MTU is right");
            assert_eq!(recovers(&mut world, 1.0), 0.0);
            world.passes = 1252;
            if claims {
                let now = world.now(1);
                world.ends[1].link.handle_notice(now, Notice::TooLong);
                assert!(recovers(&mut world, 1.0) <= 1.0);
            } else {
                assert!(recovers(&mut world, 3.0) > 0.0, "full datagrams were lost");
            }
            world.passes = 1472;
            world.run(601.0);
            let before = world.record.len();
            assert_eq!(recovers(&mut world, 1.0), 0.0);
            let sent = world.record[before..].iter().filter(|flying| flying.bytes.len() > 1400).count();
            assert_eq!(sent, 1, "the path that grew is used again");
        }
    }
}

#[test]
fn a_false_report_of_a_small_path_changes_nothing() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(5.0);
    for _ in 0..50 {
        let now = world.now(1);
        world.ends[1].link.handle_notice(now, Notice::TooLong);
        world.run(0.1);
    }
    let before = world.record.len();
    world.send(1, &[&[7; 1400]]);
    assert_eq!(world.record[before..].len(), 1, "one datagram, not two");
}

/// What names the key of each datagram that an end sent from `at` on: the sid, or whether it is a handshake.
fn keys_used(world: &World, which: usize, at: usize) -> Vec<Option<Sid>> {
    let keys = LinkKeys::new(&[42; 32]);
    let sent = world.record[at..].iter().filter(|flying| flying.from == world.ends[which].address);
    sent.map(|flying| {
        let tag = flying.bytes.last_chunk().unwrap();
        Some(lane::unmask(&keys.mask(tag), &flying.bytes).0).filter(|_| !wrap::is_probe(&keys, &flying.bytes))
    })
    .collect()
}

#[test]
fn resumed_ends_use_no_key_again_and_the_link_stays_up() {
    for which in 0..2 {
        for is_static in [true, false] {
            let own = if is_static { settings } else { handshake };
            let mut world = World::with(own(0), own(1), [0, 0]);
            world.run(5.0);
            world.assert_carries();
            let before = keys_used(&world, which, 0);
            let at = world.record.len();
            // As the worker does it: nothing is sealed between its look at the clocks and the wiping.
            let now = world.now(which);
            let end = &mut world.ends[which];
            end.lane.handle_command(now.instant, Command::WipeAll, &mut end.out);
            end.lane.handle_frames(&[b"lost"], &mut end.out);
            assert!(end.out.sent.is_empty(), "no key, no datagram");
            end.out.notices.push_back(Notice::Resumed);
            world.run(0.1);
            let first = keys_used(&world, which, at);
            if is_static {
                assert!(first.iter().all(|sid| !before.contains(sid)), "an old sid");
            } else {
                assert_eq!(first.first(), Some(&None), "a handshake before anything else");
            }
            world.run(3.0);
            assert!(
                is_static || keys_used(&world, which, at).iter().filter(|key| key.is_none()).count() == 1
            );
            world.assert_carries();
            assert!(world.up() && world.ends.iter().all(|end| !end.said("link down")), "{which}");
            assert!(world.ends[which].said("all keys are replaced"));
            let opened_again: u64 = world.ends.iter().map(|end| end.stats().drops(Drop::Replayed)).sum();
            assert_eq!(opened_again, 0);
            // What was recorded before the copy was made is refused by it.
            world.ends[which].out.frames.clear();
            let address = world.ends[which].address;
            let old: Vec<_> =
                world.record[..at].iter().filter(|flying| flying.to == address).cloned().collect();
            for flying in old {
                world.inject(flying);
            }
            assert!(world.ends[which].out.frames.is_empty());
        }
    }
}

#[test]
fn resumed_over_and_over_is_said_once_a_minute() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(2.0);
    for _ in 0..200 {
        let now = world.now(1);
        world.ends[1].link.handle_resumed(now);
        world.run(0.2);
    }
    assert_eq!(world.ends[1].log.iter().filter(|line| line.contains("keys are replaced")).count(), 1);
    world.run(5.0);
    world.assert_carries();
}

#[test]
fn offered_routes_are_told_replaced_and_withdrawn() {
    let nets = |text: &str| text.split_whitespace().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mon = LinkSettings { push: nets("192.168.66.0/24 fd05::/16"), ..mon };
        let mut world = World::with(mon.clone(), fri, [0, 0]);
        world.run(3.0);
        assert_eq!(world.ends[1].routes, mon.push);
        assert!(world.ends[0].routes.is_empty());
        world.replace(0, LinkSettings { push: nets("192.168.67.0/24"), ..mon.clone() });
        world.run(30.0);
        assert_eq!(world.ends[1].routes, nets("192.168.67.0/24"), "a restart offers anew");
        world.cut = true;
        world.run(61.0);
        assert!(world.ends[1].routes.is_empty(), "withdrawn with the link");
    }
}

/// An IPv4 packet with a UDP header.
fn udp(from: &str, to: &str, port: u16, length: usize) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(octets(from));
    packet.extend(octets(to));
    packet.extend([0, 9]);
    packet.extend(port.to_be_bytes());
    packet.resize(length, 7);
    packet
}

#[test]
fn sources_outside_what_is_routed_to_the_peer_are_dropped() {
    let nets = |text: &str| text.split_whitespace().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
    let mon = LinkSettings { push: nets("192.168.66.0/24 10.0.0.0/8"), ..handshake(0) };
    let fri = LinkSettings {
        accept: nets("192.168.0.0/16"),
        sources: Some(nets("192.168.86.18/32 172.16.0.0/12")),
        ..handshake(1)
    };
    let mut world = World::with(mon, fri, [0, 0]);
    world.run(3.0);
    for (source, taken) in [
        ("192.168.86.18", true),
        ("172.16.9.9", true),
        ("192.168.66.7", true),
        ("192.168.67.7", false),
        ("10.1.1.1", false),
    ] {
        world.ends[1].out.frames.clear();
        let frame = udp(source, "192.168.86.81", 53, 60);
        world.send(0, &[&frame]);
        assert_eq!(!world.ends[1].out.frames.is_empty(), taken, "{source}");
    }
    assert_eq!(world.ends[1].stats().drops(Drop::Source), 2);
    world.send(1, &[&udp("10.1.1.1", "192.168.86.18", 53, 60)]);
    assert_eq!(world.ends[0].out.frames.len(), 1, "the other end takes any");
}

#[test]
fn tunnel_in_tunnel_is_dropped_and_said_once() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(3.0);
    let own = udp("192.168.86.81", "198.51.100.1", 1417, 100);
    let good = udp("192.168.86.81", "198.51.100.1", 53, 100);
    for _ in 0..5 {
        world.ends[0].out.frames.clear();
        world.send(1, &[&own, &good, &own]);
        assert_eq!(world.ends[0].out.frames, std::slice::from_ref(&good));
    }
    assert_eq!(world.ends[1].stats().drops(Drop::TunnelInTunnel), 10);
    let said = world.ends[1].log.iter().filter(|line| line.contains("leads into the tunnel itself")).count();
    assert_eq!(said, 1, "{:?}", world.ends[1].log);
}

#[test]
fn a_packet_too_long_for_the_device_is_answered() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(3.0);
    let long = udp("192.168.66.1", "192.168.86.18", 53, 1500);
    world.send(1, &[&long]);
    let [answer] = &world.ends[1].out.frames[..] else { panic!("one answer") };
    let addresses = crate::packet::ip::addresses(answer).unwrap();
    assert_eq!(addresses, ("192.168.86.18".parse().unwrap(), "192.168.66.1".parse().unwrap()));
    assert_eq!(answer[26..28], 1400u16.to_be_bytes());
}

#[test]
fn full_frames_cross_a_small_path_and_small_ones_share_datagrams() {
    let mut world = World::new();
    for which in 0..2 {
        let settings = LinkSettings { mode: Mode::Tap, mtu: 1500, path_mtu: Some(1300), ..settings(which) };
        world.replace(which, settings);
    }
    world.run(3.0);
    let big: Vec<u8> = (0..1514).map(|n| n as u8).collect();
    let before = world.record.len();
    world.send(1, &[&big, &big, &big]);
    assert_eq!(world.ends[0].out.frames, vec![big; 3]);
    assert!(world.record[before..].iter().all(|flying| flying.bytes.len() <= 1300 - 28));
    let before = world.record.len();
    world.send(1, &[&[1; 60][..]; 16]);
    assert_eq!(world.ends[0].out.frames.len(), 3 + 16);
    assert_eq!(world.record.len() - before, 1, "sixteen small frames in one datagram");
}

#[test]
fn a_frame_above_the_agreed_size_is_counted_and_the_rest_still_goes() {
    let mut world = World::new();
    world.run(3.0);
    world.send(1, &[&[1; 100][..], &[2; 4000], &[3; 100]]);
    assert_eq!(world.ends[0].out.frames, vec![vec![1; 100], vec![3; 100]]);
    assert_eq!(world.ends[1].stats().drops(Drop::TooBig), 1);
}

#[test]
fn a_key_at_its_last_counter_is_changed_before() {
    let mut world = World::new();
    world.run(3.0);
    let now = world.now(1);
    let end = &mut world.ends[1];
    end.link.handle_report(now, &lane::Report { key_used_up: true, ..end.lane.report() });
    end.link.handle_timeout(now);
    assert!(matches!(end.link.poll_command(), Some(Command::Prepare(..))));
}

#[test]
fn a_key_that_sealed_many_blocks_is_changed_without_losing_a_frame_and_refuses_at_the_end() {
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.run(3.0);
        for (worn, changes) in [(0, false), (BLOCKS_ROTATE - 100, true)] {
            world.ends[1].lane.outward.wear(worn);
            let before = world.prepared.len();
            for _ in 0..30 {
                world.assert_carries();
                world.run(0.05);
            }
            // A frame of 100 bytes is seven blocks, and one for its header.
            assert_eq!(world.prepared.len() > before, changes, "after {worn} blocks");
        }
        world.ends[1].lane.outward.wear(BLOCKS_END);
        world.ends[0].out.frames.clear();
        world.send(1, &[b"under a key that is used up"]);
        assert!(world.ends[0].out.frames.is_empty());
    }
}

#[test]
fn every_start_draws_another_sid_even_when_the_clock_stands_still() {
    let mut world = World::new();
    world.run(0.5);
    world.restart(1);
    world.ends[1].skew -= 500_000;
    world.run(0.5);
    let keys = LinkKeys::new(&[42; 32]);
    let mut sids: Vec<_> = (world.record.iter())
        .filter(|flying| flying.from == world.ends[1].address)
        .map(|flying| {
            let tag = flying.bytes.last_chunk().unwrap();
            let (sid, header) = lane::unmask(&keys.mask(tag), &flying.bytes);
            (sid.0, header.counter)
        })
        .collect();
    let all = sids.len();
    sids.sort_unstable();
    sids.dedup();
    assert_eq!(sids.len(), all, "no (sid, counter) twice");
}

#[test]
fn a_pinned_peer_is_not_followed() {
    let mut pinned = settings(0);
    pinned.float = false;
    let mut world = World::with(pinned, settings(1), [0, 0]);
    world.run(5.0);
    world.ends[1].address = "203.0.113.7:4242".parse().unwrap();
    world.send(1, &[b"from another address, not home"]);
    world.run(3.0);
    assert!(!world.ends[0].said("moved"));
}

fn handshake_world() -> World {
    World::with(handshake(0), handshake(1), [0, 0])
}

#[test]
fn a_handshake_brings_the_link_up_at_once_whatever_the_clocks_say() {
    for skew in [0, -56 * 365 * 86_400 * 1_000_000] {
        let mut world = World::with(handshake(0), handshake(1), [0, skew]);
        world.run(0.5);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
        assert!(world.ends.iter().all(|end| end.floor.is_none()), "no floor is needed");
    }
}

#[test]
fn key_pairs_meet_each_other_and_nobody_else() {
    let pair = |which| LinkSettings { name: "with a pair+".into(), ..handshake(which) };
    let mut world = World::with(pair(0), pair(1), [0, 0]);
    world.run(1.0);
    world.assert_carries();
    let mut world = World::with(pair(0), handshake(1), [0, 0]);
    world.run(20.0);
    assert!(!world.ends.iter().any(|end| end.link.is_up()));
}

#[test]
fn a_confirmation_that_found_the_queue_full_is_tried_again() {
    let mut world = handshake_world();
    world.ends[0].out.refused = 1;
    world.run(3.0);
    assert!(world.up(), "{:?}", world.ends[0].log);
}

#[test]
fn rekeying_loses_no_frame() {
    let mut world = handshake_world();
    world.run(1.0);
    for n in 0..8000u32 {
        world.run(0.1);
        world.send(0, &[&n.to_be_bytes()]);
        world.send(1, &[&n.to_be_bytes()]);
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 8000, "{} {:?}", end.stats(), end.log);
        assert_eq!(end.log.len(), end.log.iter().filter(|line| !line.contains("down")).count());
    }
}

#[test]
fn both_ends_may_call_at_once() {
    let mon = LinkSettings { has_remote: true, ..handshake(0) };
    let mut world = World::with(mon, handshake(1), [0, 0]);
    world.ends[0].remote = Some(FRI.parse().unwrap());
    world.run(0.5);
    assert!(world.up());
    for _ in 0..6000 {
        world.run(0.1);
        world.send(0, &[b"a"]);
        world.send(1, &[b"b"]);
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 6000, "{}", end.stats());
    }
}

#[test]
fn after_a_restart_or_a_cut_handshakes_bring_the_link_back_within_twenty_seconds() {
    for which in 0..2 {
        let mut world = handshake_world();
        world.run(30.0);
        world.restart(which);
        world.run(20.0);
        assert!(world.up(), "{which}: {:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
        world.cut = true;
        world.run(300.0);
        assert!(!world.up());
        world.cut = false;
        world.run(20.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn recorded_handshakes_and_sessions_enter_nowhere() {
    let mut world = handshake_world();
    world.run(5.0);
    world.assert_carries();
    let record = world.record.clone();
    world.ends.iter_mut().for_each(|end| end.out.frames.clear());
    let sent = world.record.len();
    let stranger: SocketAddr = "203.0.113.9:9".parse().unwrap();
    for flying in &record {
        for from in [flying.from, stranger] {
            world.inject(Flying { from, ..flying.clone() });
            world.inject(Flying { from, to: flying.from, ..flying.clone() });
            for bit in (0..flying.bytes.len() * 8).step_by(7) {
                let mut bytes = flying.bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                world.inject(Flying { from, to: flying.to, bytes });
            }
        }
    }
    assert!(world.ends.iter().all(|end| end.out.frames.is_empty()));
    assert_eq!(world.record.len(), sent, "a recording of a confirmed instance gets no answer");
    world.assert_carries();

    // To a restarted end the initiation is new: a few answers, never longer, and nothing enters.
    world.restart(0);
    world.cut = true;
    let sent = world.record.len();
    for _ in 0..20 {
        for flying in record.iter().filter(|flying| flying.to.to_string() == MON) {
            world.inject(Flying { from: stranger, ..flying.clone() });
        }
    }
    let answers = &world.record[sent..];
    let initiation = record.iter().find(|flying| flying.to.to_string() == MON).unwrap().bytes.len();
    assert!((1..=6).contains(&answers.len()), "{}", answers.len());
    assert!(answers.iter().all(|answer| answer.bytes.len() <= initiation));
    assert!(world.ends[0].out.frames.is_empty() && !world.ends[0].link.is_up());
    world.cut = false;
    world.run(20.0);
    assert!(world.up(), "the peer still gets in: {:?}", world.ends[0].log);
}

#[test]
fn a_flood_of_recorded_initiations_cannot_keep_the_peer_out() {
    // Initiations of many instances, recorded while nobody answered.
    let mut world = handshake_world();
    world.cut = true;
    for _ in 0..40 {
        world.run(0.2);
        world.restart(1);
    }
    let record: Vec<_> = world.record.iter().filter(|flying| flying.to.to_string() == MON).cloned().collect();
    world.cut = false;
    world.restart(1);
    for _ in 0..200 {
        for flying in &record {
            world.inject(Flying { from: "203.0.113.9:9".parse().unwrap(), ..flying.clone() });
        }
        world.run(0.1);
    }
    assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
}

#[test]
fn ciphers_are_negotiated_and_a_mismatch_is_said() {
    let only = |which, cipher| LinkSettings { suites: vec![cipher], ..handshake(which) };
    let mut world = World::with(handshake(0), only(1, Cipher::ChaCha20Poly1305), [0, 0]);
    world.run(1.0);
    world.assert_carries();
    let (aes, chacha) = (only(0, Cipher::Aes256Gcm), only(1, Cipher::ChaCha20Poly1305));
    let mut world = World::with(aes, chacha, [0, 0]);
    world.run(1.0);
    assert!(world.ends.iter().all(|end| end.said("no cipher in common")), "{:?}", world.ends[0].log);
}

#[test]
fn a_handshake_reaches_the_link_once_however_often_it_comes() {
    let mut world = handshake_world();
    world.cut = true;
    world.run(30.0);
    let to_mon: Vec<_> = world.record.iter().filter(|flying| flying.to.to_string() == MON).cloned().collect();
    assert!(to_mon.len() >= 3, "{}", to_mon.len());
    let (now, mon) = (world.now(0).instant, &mut world.ends[0]);
    mon.out.notices.clear();
    for (round, flying) in std::iter::repeat_n(&to_mon, 50).flatten().enumerate() {
        let mut forged = flying.bytes.clone();
        let at = 24 + round % (forged.len() - 24);
        forged[at] ^= 1;
        for mut bytes in [forged, flying.bytes.clone()] {
            mon.lane.handle_datagram(now, Path::from(flying.from), &mut bytes, &mut mon.out);
        }
    }
    assert_eq!(mon.out.notices.len(), to_mon.len());
    let stats = mon.lane.stats();
    assert_eq!(stats.drops(Drop::BadTag), to_mon.len() as u64, "later ones begin like what was taken");
    assert!(mon.out.notices.iter().all(Notice::is_unproven));
}
