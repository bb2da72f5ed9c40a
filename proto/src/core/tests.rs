//! Two ends in one process: a virtual clock and a network in memory.
#![allow(clippy::disallowed_methods, reason = "virtual time needs some instant to begin at")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::clock::Now;
use super::condition::Condition;
use super::key_id::KeyId;
use super::lane::{self, Command, Key, KeySlot, Lane, Notice, SendCommand};
use super::limits::{BLOCKS_END, BLOCKS_ROTATE, OLD};
use super::link::{Event, Link};
use super::path::Path;
use super::stats::{DropReason, Stats};
use crate::config::KeyMode;
use crate::core::control::Control;
use crate::core::settings::LinkSettings;
use crate::crypto::keys::{LinkKeys, Private, public_of};
use crate::crypto::noise::Statics;
use crate::crypto::suite::{Cipher, Exchange};
use crate::crypto::wrap;
use crate::packet::layer::Mode;
use crate::testing::{Dice, Recorder, link, settings};
use crate::wire::control::{self, Message};
use crate::wire::datagram::Framing;

mod asked;
mod cases;
mod clones;
mod found;
mod handshakes;
mod idle;
mod inside;
mod keys;
mod lanes;
mod liveness;
mod lost;
mod mismatches;
mod paths;
mod race;
mod recordings;
mod replays;
mod slow;
mod streams;

const YEAR_2026: u64 = 1_790_000_000_000_000;

/// A datagram under way.
#[derive(Clone)]
struct Flying {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// Output of a link to its owner.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Met(Condition),
    Up,
    Down(Condition),
}

/// The peer moved to this address.
fn moved(to: &str) -> Condition {
    Condition::PeerMoved { to: to.parse().unwrap() }
}

/// A lane other than 0.
struct Beside {
    lane: Lane,
    out: Recorder,
    socket: Option<Path>,
}

impl Beside {
    fn new(settings: lane::Settings) -> Self {
        Self { lane: Lane::new(settings), out: Recorder::default(), socket: None }
    }
}

/// One end: a link, its lane, and the daemon's part.
struct End {
    address: SocketAddr,
    /// A second address of the same host.
    also: Option<SocketAddr>,
    settings: LinkSettings,
    link: Link<Dice>,
    lane: Lane,
    /// Other lanes, each with its output and the way for which it has a socket.
    others: Vec<Beside>,
    /// Lanes that carry frames.
    used: u8,
    /// Sockets requested.
    sockets: usize,
    out: Recorder,
    remotes: Vec<SocketAddr>,
    log: Vec<Said>,
    /// The peer's offer, as last reported.
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
        let lanes = settings.lanes;
        // A name that ends in "+" stands for an end with a key pair.
        let statics = if settings.name.ends_with('+') { pair(address == MON) } else { Statics::None };
        let now = Now { instant: at, wall: YEAR_2026.wrapping_add_signed(skew) };
        let (link, lane_settings) = link(settings.clone(), &[42; 32], statics, now, Dice(seed));
        Self {
            address: address.parse().unwrap(),
            also: None,
            settings,
            link,
            others: (1..lanes).map(|lane| Beside::new(lane_settings.of_lane(lane))).collect(),
            used: 1,
            sockets: 0,
            lane: Lane::new(lane_settings),
            out: Recorder { lanes, ..Recorder::default() },
            remotes: remote.iter().map(|remote| remote.parse().unwrap()).collect(),
            log: Vec::new(),
            routes: Vec::new(),
            skew,
        }
    }

    /// Whether it reported exactly this.
    fn said(&self, condition: &Condition) -> bool {
        self.log.iter().any(|said| matches!(said, Said::Met(met) if met == condition))
    }

    /// The code of the problem in its state.
    fn problem(&self, now: Instant) -> Option<&'static str> {
        self.link.state(now, &self.lane.stats()).problem.map(|problem| problem.code())
    }

    /// How often it reported a condition with this code.
    fn times(&self, code: &str) -> usize {
        self.log.iter().filter(|said| matches!(said, Said::Met(met) if met.code() == code)).count()
    }

    /// Whether its link ever went down.
    fn fell(&self) -> bool {
        self.log.iter().any(|said| matches!(said, Said::Down(_)))
    }

    /// Carries out the link's events; false: there were none.
    fn settle_events(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(event) = self.link.poll_event() {
            any = true;
            match event {
                Event::Log { condition, .. } => self.log.push(Said::Met(condition)),
                Event::Resolve => {
                    let paths: Vec<_> = self.remotes.iter().map(|remote| by_port(*remote, *remote)).collect();
                    self.link.handle_resolved(now, &paths);
                }
                Event::Endpoint(path) => self.link.handle_route(now, path.remote, Some(1500)),
                Event::Routes(routes) => self.routes = routes,
                // Nothing is bridged here.
                Event::Rerouted { .. } => {}
                Event::Lanes(used) => self.used = used,
                Event::LaneSocket { lane, way } => {
                    self.others[usize::from(lane) - 1].socket = way;
                    self.sockets += usize::from(way.is_some());
                }
                Event::Keep(_) => panic!("nothing of these keys is kept"),
                Event::Up { .. } => self.log.push(Said::Up),
                Event::Down { reason } => self.log.push(Said::Down(reason)),
            }
        }
        any
    }

    /// Passes a command to each lane it is for.
    fn handle_command(&mut self, now: Instant, command: &Command) {
        if command.lane().is_none_or(|lane| lane == 0) {
            self.lane.handle_command(now, command.clone(), &mut self.out);
        }
        for (number, Beside { lane, out, .. }) in (1..).zip(&mut self.others) {
            if command.lane().is_none_or(|lane| lane == number) {
                lane.handle_command(now, command.clone(), out);
            }
        }
    }

    /// The lanes' notices to the link.
    fn take_notices(&mut self) -> Vec<Notice> {
        let others = self.others.iter_mut().flat_map(|beside| beside.out.notices.drain(..));
        self.out.notices.drain(..).chain(others).collect()
    }

    fn stats(&self) -> Stats {
        let lanes = self.others.iter().map(|beside| beside.lane.stats());
        lanes.fold(self.lane.stats(), |sum, lane| sum.plus(&lane)).plus(&self.link.stats())
    }
}

/// Both ends, further ones if a test needs them, and the wire between them.
struct World {
    start: Instant,
    elapsed: Duration,
    ends: Vec<End>,
    wire: VecDeque<Flying>,
    record: Vec<Flying>,
    /// Every key prepared for sending.
    prepared: Vec<Key>,
    cut: bool,
    /// Nothing reaches this end.
    deaf: Option<usize>,
    /// Only streams pass.
    no_udp: bool,
    /// Longer datagrams from or to these ports are lost.
    cut_ports: Vec<u16>,
    cut_above: usize,
    /// Longer datagrams are lost.
    passes: usize,
    seed: u64,
}

fn pair(is_mon: bool) -> Statics {
    let (private, peer) = if is_mon { ([5; 32], [6; 32]) } else { ([6; 32], [5; 32]) };
    Statics::Pair { private: Private::new(private).into(), peer_public: public_of(&peer) }
}

fn handshake(which: usize) -> LinkSettings {
    LinkSettings { key_mode: KeyMode::Handshake, ..settings(which) }
}

/// Where streams are accepted.
const STREAM: u16 = 563;

/// The path from or to `remote`; one of the ports makes it a stream.
fn by_port(remote: SocketAddr, other: SocketAddr) -> Path {
    Path { stream: remote.port() == STREAM || other.port() == STREAM, ..remote.into() }
}

fn is_at(end: &End, to: SocketAddr) -> bool {
    let stream = to.port() == STREAM || to.port() == 40_000 || to.port() > OWN_PORTS;
    end.address == to || end.also == Some(to) || stream && end.address.ip() == to.ip()
}

/// A lane's own port is this plus its number.
const OWN_PORTS: u16 = 50_000;

const MON: &str = "198.51.100.1:1417";
const FRI: &str = "198.51.100.2:1417";

impl World {
    fn new() -> Self {
        Self::with(settings(0), settings(1), [0, 0])
    }

    fn with(mon: LinkSettings, fri: LinkSettings, skews: [i64; 2]) -> Self {
        let start = Instant::now();
        let ends = vec![
            End::new(mon, MON, None, skews[0], start, 1),
            End::new(fri, FRI, Some(MON), skews[1], start, 2),
        ];
        let wire = VecDeque::new();
        Self {
            start,
            elapsed: Duration::ZERO,
            ends,
            wire,
            record: Vec::new(),
            prepared: Vec::new(),
            cut: false,
            deaf: None,
            no_udp: false,
            cut_ports: Vec::new(),
            cut_above: 0,
            passes: 1472,
            seed: 3,
        }
    }

    fn now(&self, which: usize) -> Now {
        let wall = YEAR_2026 + self.elapsed.as_micros() as u64;
        Now { instant: self.start + self.elapsed, wall: wall.wrapping_add_signed(self.ends[which].skew) }
    }

    /// An end is killed and restarted.
    fn restart(&mut self, which: usize) {
        let settings = self.ends[which].settings.clone();
        self.replace(which, settings);
    }

    fn replace(&mut self, which: usize, settings: LinkSettings) {
        self.seed += 1;
        let (address, skew) = ([MON, FRI][which], self.ends[which].skew);
        let skew = skew + self.elapsed.as_micros() as i64;
        let remote = settings.has_remote.then_some(MON);
        let mut end = End::new(settings, address, remote, skew, self.start + self.elapsed, self.seed);
        end.skew = self.ends[which].skew;
        self.ends[which] = end;
    }

    /// Carries out one end's output.
    fn settle(&mut self, which: usize) {
        let now = self.now(which);
        let end = &mut self.ends[which];
        loop {
            let mut idle = true;
            while let Some(command) = end.link.poll_command() {
                idle = false;
                if let Command::Send(SendCommand::Prepare(_, key)) = &command {
                    self.prepared.push(key.clone());
                }
                end.handle_command(now.instant, &command);
            }
            for notice in end.take_notices() {
                idle = false;
                end.link.handle_notice(now, notice);
            }
            for (lane, mut bytes, from) in std::mem::take(&mut end.out.strays) {
                let Beside { lane, out, .. } = &mut end.others[usize::from(lane) - 1];
                lane.handle_datagram(now.instant, from, &mut bytes, out);
                idle = false;
            }
            idle &= !end.settle_events(now);
            if idle {
                break;
            }
        }
        let mut sent: Vec<_> = std::mem::take(&mut end.out.sent).into_iter().map(|sent| (0, sent)).collect();
        for (lane, beside) in (1..).zip(&mut end.others) {
            sent.extend(std::mem::take(&mut beside.out.sent).into_iter().map(|sent| (lane, sent)));
        }
        for (lane, (bytes, path)) in sent {
            let to = path.remote;
            let own = |address: &SocketAddr| path.local.is_none_or(|local| local == address.ip());
            let from = [Some(end.address), end.also].into_iter().flatten().find(own);
            if from.is_none() {
                end.out.notices.push_back(Notice::SourceLost { path });
            }
            let mut from = from.unwrap_or(end.address);
            if path.stream {
                from.set_port(if to.port() == STREAM { 40_000 } else { STREAM });
            } else if path.own_port {
                from.set_port(OWN_PORTS + lane);
            }
            let flying = Flying { from, to, bytes };
            self.record.push(flying.clone());
            let is_cut = flying.bytes.len() > self.cut_above;
            if is_cut && [from.port(), to.port()].iter().any(|port| self.cut_ports.contains(port)) {
                continue;
            }
            if path.stream && !self.cut || !self.cut && !self.no_udp && flying.bytes.len() <= self.passes {
                self.wire.push_back(flying);
            }
        }
    }

    fn inject(&mut self, flying: Flying) {
        let Some(which) = self.ends.iter().position(|end| is_at(end, flying.to)) else {
            return;
        };
        if self.deaf == Some(which) {
            return;
        }
        let now = self.now(which);
        let end = &mut self.ends[which];
        let mut bytes = flying.bytes;
        let path = by_port(flying.from, flying.to);
        let path = Path { local: (!path.stream).then_some(flying.to.ip()), ..path };
        let own_port = usize::from(flying.to.port().saturating_sub(OWN_PORTS));
        let is_of = |beside: &Beside| beside.socket.is_some_and(|way| !way.own_port && way.covers(&path));
        let index = own_port.checked_sub(1).or_else(|| end.others.iter().position(is_of));
        let path = Path { own_port: own_port > 0, ..path };
        let (lane, out) = match index.map(|index| &mut end.others[index]) {
            None => (&mut end.lane, &mut end.out),
            Some(Beside { lane, out, .. }) => (lane, out),
        };
        lane.handle_datagram(now.instant, path, &mut bytes, out);
        self.settle(which);
    }

    fn drain(&mut self) {
        (0..self.ends.len()).for_each(|which| self.settle(which));
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
            self.tick();
        }
        self.drain();
    }

    /// Does what is due at both ends.
    fn tick(&mut self) {
        for which in 0..self.ends.len() {
            let now = self.now(which);
            let end = &mut self.ends[which];
            let stats = end.stats().minus(&end.link.stats());
            let report = lane::Report { stats, ..end.lane.report(now.instant) };
            end.link.handle_report(now, &report);
            if end.link.poll_timeout().is_some_and(|at| at <= now.instant) {
                end.link.handle_timeout(now);
            }
        }
    }

    fn send(&mut self, which: usize, frames: &[&[u8]]) {
        let end = &mut self.ends[which];
        end.lane.handle_frames(frames, &mut end.out);
        self.drain();
    }

    fn up(&self) -> bool {
        self.ends.iter().all(|end| end.link.is_up())
    }

    /// A frame arrives each way.
    fn assert_carries(&mut self) {
        for which in 0..2 {
            self.ends[1 - which].out.frames.clear();
            let frame = [which as u8; 100];
            self.send(which, &[&frame]);
            assert_eq!(self.ends[1 - which].out.frames, [frame.to_vec()], "from end {which}");
        }
    }
}

fn handshake_world() -> World {
    World::with(handshake(0), handshake(1), [0, 0])
}
