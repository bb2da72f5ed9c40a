//! Both ends, the network between them, and the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use log::Level;

use super::end::{Config, End, Output};
use super::model::{Model, SHORTEST};
use super::plan::{Act, Kept, Plan, Weather};
use crate::core::clock::Now;
use crate::core::lane::Notice;
use crate::core::limits::{OUTER_V4, OUTER_V6};
use crate::core::path::Path;
use crate::testing::Dice;
use crate::wire::datagram::Framing;

const YEAR_2026: u64 = 1_790_000_000_000_000;
const PORT: u16 = 1417;
/// An attacker on the path.
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), 666);
/// Datagrams that the attacker records.
const RECORD: usize = 2000;
/// The link counts as settled after this long without a loss.
const SETTLED: Duration = Duration::from_secs(3);
const BURSTS: u32 = 4;
/// Time in which an end must find its peer again after the timeout.
const RETURN: Duration = Duration::from_secs(40);
/// Most lines at verb 1, the default, that one end may log in a minute.
const LINES: usize = 30;

/// An end's place.
struct Place {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    /// IPv4 address and port that others see, if not its own.
    seen_at: Option<SocketAddr>,
    /// Every address it was ever seen at.
    was_at: Vec<SocketAddr>,
    moves: u8,
}

impl Place {
    /// The source address that `to` sees, and its own name for it.
    fn source(&self, to: SocketAddr) -> Option<(SocketAddr, IpAddr)> {
        match to {
            SocketAddr::V4(_) => {
                let own = self.v4?;
                Some((self.seen_at.unwrap_or(SocketAddr::new(own.into(), PORT)), own.into()))
            }
            SocketAddr::V6(_) => self.v6.map(|own| (SocketAddr::new(own.into(), PORT), own.into())),
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        [STRANGER, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)]
            .into_iter()
            .filter_map(|family| Some(self.source(family)?.0))
            .collect()
    }

    fn remember(&mut self) {
        let now = self.addresses();
        self.was_at.extend(now);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// From the peer, by the normal path.
    Genuine,
    /// From the peer, but withheld on the path.
    Late,
    /// A duplicate.
    Copy,
    /// Made or changed by someone without the keys.
    Forged,
}

#[derive(Clone)]
struct Flying {
    from: SocketAddr,
    to: SocketAddr,
    origin: Origin,
    bytes: Vec<u8>,
}

/// Progress of a run.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Storm,
    /// Time since which frames were sent without loss, and their number.
    Settling {
        since: Duration,
        bursts: u32,
    },
    /// Until then no frame may be lost.
    Steady {
        until: Duration,
    },
    Over,
}

pub struct World {
    plan: Plan,
    dice: Dice,
    start: Instant,
    now: Duration,
    ends: [Option<End>; 2],
    skews: [i64; 2],
    places: [Place; 2],
    air: BTreeMap<(Duration, u64), Flying>,
    serial: u64,
    weather: Weather,
    record: Vec<Flying>,
    /// What is withheld now from each end, and what has been.
    keeps: [Option<Kept>; 2],
    kept: Vec<Flying>,
    model: Model,
    next_act: usize,
    next_frames: Duration,
    phase: Phase,
    /// When a datagram last arrived that had been withheld, or recorded and never delivered: an end took it for a sign
    /// of life.
    late: Duration,
    /// Frames of the calm that must still arrive, and by when.
    expected: BTreeMap<usize, Duration>,
    /// Frames sent as soon as an end was told that the link is up, with deadlines.
    greetings: BTreeMap<usize, Duration>,
    batch: Vec<usize>,
    /// Whether an end noticed a clock jump and acted on it.
    resumed: bool,
    lines: [(Duration, usize); 2],
    trace: Option<Vec<String>>,
    pub violation: Option<String>,
}

impl World {
    pub fn new(plan: fn(&mut Dice) -> Plan, seed: u64, traced: bool) -> Self {
        let mut dice = Dice(seed);
        let plan = plan(&mut dice);
        let place = |which: u8| Place {
            v4: Some(if which == 0 { Ipv4Addr::new(198, 51, 100, 1) } else { Ipv4Addr::new(10, 0, 0, 2) }),
            v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(which) + 1)),
            seen_at: (which == 1).then_some(SocketAddr::from(([198, 51, 100, 2], PORT))),
            was_at: Vec::new(),
            moves: 10,
        };
        let mut world = Self {
            dice,
            #[allow(clippy::disallowed_methods, reason = "virtual time needs some instant to begin at")]
            start: Instant::now(),
            now: Duration::ZERO,
            ends: [None, None],
            skews: plan.skews,
            places: [place(0), place(1)],
            air: BTreeMap::new(),
            serial: 0,
            weather: Weather::CALM,
            record: Vec::new(),
            keeps: [None; 2],
            kept: Vec::new(),
            model: Model::new(plan.configs.clone()),
            next_act: 0,
            next_frames: Duration::ZERO,
            phase: Phase::Storm,
            late: Duration::ZERO,
            expected: BTreeMap::new(),
            greetings: BTreeMap::new(),
            batch: Vec::new(),
            resumed: false,
            lines: [(Duration::ZERO, 0); 2],
            trace: traced.then(Vec::new),
            violation: None,
            plan,
        };
        world.places.iter_mut().for_each(Place::remember);
        world.say(|world| format!("{:?}", world.plan.configs.each_ref().map(|config| &config.settings)));
        (0..2).for_each(|which| world.start_end(which));
        world
    }

    /// Runs the seed; returns the simulated time.
    pub fn run(&mut self) -> Duration {
        while self.violation.is_none() && self.phase != Phase::Over {
            self.step();
        }
        self.now
    }

    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    fn say(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let text = format!("{:10.4} {}", self.now.as_secs_f64(), text(self));
            self.trace.iter_mut().for_each(|trace| trace.push(text.clone()));
        }
    }

    fn judge<T>(&mut self, verdict: Result<T, String>) -> Option<T> {
        match verdict {
            Ok(value) => Some(value),
            Err(text) => {
                self.say(|_| format!("VIOLATION {text}"));
                self.violation.get_or_insert(text);
                None
            }
        }
    }

    fn at(&self, which: usize) -> Now {
        let wall = YEAR_2026 + self.now.as_micros() as u64;
        Now { instant: self.start + self.now, wall: wall.wrapping_add_signed(self.skews[which]) }
    }

    /// Processes the next event.
    fn step(&mut self) {
        let timers = [0, 1].map(|which| {
            let end = self.ends[which].as_ref()?;
            Some(end.poll_timeout().saturating_duration_since(self.start).max(self.now))
        });
        let act = self.plan.acts.get(self.next_act).map(|(at, _)| *at);
        let arrival = self.air.first_key_value().map(|((at, _), _)| *at);
        let all = [act, timers[0], timers[1], arrival, Some(self.next_frames)];
        let Some(next) = all.into_iter().flatten().min() else { return };
        self.now = next.max(self.now);
        if act == Some(next) {
            let (_, act) = self.plan.acts[self.next_act];
            self.next_act += 1;
            self.say(|_| format!("-- {act:?}"));
            self.perform(act);
        } else if let Some(which) = (0..2).find(|which| timers[*which] == Some(next)) {
            self.with(which, |end, now| end.handle_timeout(now));
            self.watch(which);
        } else if arrival == Some(next) {
            if let Some((_, flying)) = self.air.pop_first() {
                self.arrive(flying);
            }
        } else {
            self.traffic();
        }
        self.progress();
    }

    /// Calls an end if it runs, and carries out its output.
    fn with(&mut self, which: usize, call: impl FnOnce(&mut End, Now)) {
        let now = self.at(which);
        let Some(end) = &mut self.ends[which] else { return };
        call(end, now);
        while let Some(output) = self.ends[which].as_mut().and_then(End::poll_output) {
            self.carry_out(which, output);
        }
    }

    fn carry_out(&mut self, which: usize, output: Output) {
        let now = self.now;
        let verdict = match output {
            Output::Datagram { bytes, to } => return self.send(which, bytes, to),
            Output::Frame(bytes) => self.model.delivered(which, now, &bytes),
            Output::Prepared(key) => {
                let id = self.model.prepared(which, &key);
                self.say(|_| format!("end {which} may send under {id}"));
                Ok(())
            }
            Output::Receives(key) => {
                let id = self.model.receives(which, &key, now);
                self.say(|_| format!("end {which} opens {id}"));
                Ok(())
            }
            Output::Control(body) => {
                self.model.controlled(which, now, &body);
                Ok(())
            }
            Output::Unknown(datagram) => {
                self.model.unknown(which, &datagram);
                Ok(())
            }
            Output::Endpoint(endpoint) => {
                self.say(|_| format!("end {which} sends to {endpoint:?}"));
                let is_peers = self.places[1 - which].was_at.contains(&endpoint.remote);
                self.model.endpoint(which, now, endpoint.remote, is_peers)
            }
            Output::Resolve => {
                let addresses = self.places[1 - which].addresses();
                self.with(which, |end, now| end.resolved(now, addresses));
                Ok(())
            }
            Output::Up => {
                self.model.up(which, now);
                self.say(|_| format!("end {which} is told that the link is up"));
                if self.plan.prompt {
                    self.greet(which);
                }
                Ok(())
            }
            Output::Down => {
                self.model.down(which, now);
                Ok(())
            }
            Output::Resumed => {
                self.resumed = true;
                self.model.copied(which, now);
                Ok(())
            }
            Output::Log { code: "cloned-end", text, .. } => Err(format!("clone: end {which} says {text}")),
            Output::Log { level, text, .. } => self.log(which, level, text),
            Output::Spinning => Err(format!("spin: end {which} is never done")),
        };
        self.judge(verdict);
    }

    fn log(&mut self, which: usize, level: Level, text: String) -> Result<(), String> {
        self.say(|_| format!("end {which} says ({level}): {text}"));
        let (minute, count) = &mut self.lines[which];
        if self.now >= *minute + Duration::from_secs(60) {
            (*minute, *count) = (self.now, 0);
        }
        *count += usize::from(level <= Level::Info);
        if *count > LINES { Err(format!("log: end {which} says too much")) } else { Ok(()) }
    }

    /// Checks an end periodically.
    fn watch(&mut self, which: usize) {
        let Some(end) = &self.ends[which] else { return };
        let (heard, up) = (end.heard(), end.is_up());
        let verdict = self.model.liveness(which, self.now, heard, up);
        self.judge(verdict);
    }

    fn start_end(&mut self, which: usize) {
        if self.ends[which].is_some() {
            return;
        }
        let config: Config = self.plan.configs[which].clone();
        self.model.started(which, self.now);
        let end = End::new(config, self.at(which), self.dice.fork());
        self.ends[which] = Some(end);
        self.with(which, |end, now| end.handle_timeout(now));
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Weather(weather) => self.weather = weather,
            Act::Kill { which } => self.ends[which] = None,
            Act::Stop { which } => {
                self.with(which, End::stop);
                self.ends[which] = None;
            }
            Act::Start { which } => self.start_end(which),
            Act::Clone { which } => self.with(which, End::cloned),
            Act::Clock { which, seconds } => self.skews[which] += seconds * 1_000_000,
            Act::Rebind { which } => {
                let place = &mut self.places[which];
                place.moves += 1;
                let moves = place.moves;
                place.seen_at = Some(SocketAddr::from(([198, 51, 100, moves], 1024 + u16::from(moves))));
                place.remember();
            }
            Act::Renumber { which, v4 } => {
                let place = &mut self.places[which];
                place.moves += 1;
                let (moves, net) = (place.moves, which as u8);
                if v4 {
                    place.v4 = place.v4.map(|_| Ipv4Addr::new(192, 0, net, moves));
                    place.seen_at = None;
                } else {
                    let last = u16::from(moves);
                    place.v6 = place.v6.map(|_| Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, last));
                }
                place.remember();
            }
            Act::Families { which, v4, v6 } => self.families(which, v4, v6),
            Act::Exhaust { which } => {
                if let Some(end) = &mut self.ends[which] {
                    end.exhausted = true;
                }
            }
            Act::Attack { count } => (0..count).for_each(|_| self.attack()),
            Act::Keep { which, kept } => self.keeps[which] = kept,
            Act::Release { count } => (0..count).for_each(|_| self.release()),
            Act::Burst { which, frames } => self.burst(which, frames),
        }
    }

    fn families(&mut self, which: usize, v4: bool, v6: bool) {
        let place = &mut self.places[which];
        let (last, net) = (place.moves, which as u8);
        if v4 != place.v4.is_some() {
            place.v4 = v4.then(|| Ipv4Addr::new(192, 0, net, last));
        }
        if v6 != place.v6.is_some() {
            place.v6 = v6.then(|| Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, last.into()));
        }
        place.remember();
    }

    /// Makes the devices yield frames now and then.
    fn traffic(&mut self) {
        let pause = if self.phase == Phase::Storm { [10, 4000] } else { [10, 1500] };
        self.next_frames = self.now + self.dice.ms(pause[0], pause[1]);
        for which in 0..2 {
            let frames = match self.phase {
                Phase::Settling { bursts, .. } if bursts % 2 == 0 => 8,
                Phase::Storm | Phase::Settling { .. } | Phase::Steady { .. } | Phase::Over => {
                    self.dice.pick(&[1, 1, 1, 2, 5])
                }
            };
            self.burst(which, frames);
        }
        if let Phase::Settling { bursts, .. } = &mut self.phase {
            *bursts += 1;
        }
        if self.plan.besieged && self.phase != Phase::Storm {
            self.attack();
        }
        if self.plan.releases && self.phase != Phase::Storm {
            self.release();
        }
    }

    fn burst(&mut self, which: usize, count: usize) {
        let Some(max) = self.ends[which].as_ref().map(|end| end.max_frame) else { return };
        for first in (0..count).step_by(64) {
            let first_id = self.model.frames();
            let frames: Vec<_> = (first..count.min(first + 64))
                .map(|_| {
                    let length = self.length(max);
                    self.model.frame(which, length, self.now)
                })
                .collect();
            self.batch = (first_id..self.model.frames()).collect();
            self.say(|world| format!("end {which} has frames {:?}", world.batch));
            let slack = self.weather.delay[1] + self.plan.configs[0].pace * 2 + Duration::from_millis(50);
            if matches!(self.phase, Phase::Settling { .. } | Phase::Steady { .. }) {
                self.expected.extend(self.batch.iter().map(|id| (*id, self.now + slack)));
            }
            self.with(which, |end, now| end.send(now, &frames));
        }
        self.batch.clear();
    }

    /// Sends an end's frames that waited for the link.
    fn greet(&mut self, which: usize) {
        let first = self.model.frames();
        self.burst(which, 3);
        let by = self.now + self.weather.delay[1] + self.plan.configs[0].pace * 4 + Duration::from_millis(50);
        self.greetings.extend((first..self.model.frames()).map(|id| (id, by)));
    }

    fn length(&mut self, max: usize) -> usize {
        // A smaller path MTU shows only in full datagrams: of full frames, and of several in one.
        if matches!(self.phase, Phase::Settling { .. }) {
            return self.dice.pick(&[max, 400]);
        }
        let any = self.dice.below(max - SHORTEST + 1) + SHORTEST;
        self.dice.pick(&[any, SHORTEST, 64, max])
    }

    /// An end sends a datagram; host and network handle it.
    fn send(&mut self, which: usize, bytes: Vec<u8>, to: Path) {
        let verdict = self.model.sent(which, self.now, &bytes, &self.batch);
        let Some(read) = self.judge(verdict) else { return };
        let source = self.places[which].source(to.remote);
        self.say(|_| format!("end {which} -> {}: {read} ({})", to.remote, named(&bytes)));
        if let Some((_, own)) = source
            && to.local.is_some_and(|local| local != own)
        {
            self.with(which, |end, now| end.notice(now, Notice::SourceLost { path: to }));
        }
        let Some((from, _)) = source else { return };
        // An IPv6 path carries at least 1280 bytes (RFC 8200 §5).
        let (outer, mtu) = match to.remote.is_ipv4() {
            true => (OUTER_V4, self.weather.mtu),
            false => (OUTER_V6, self.weather.mtu.max(1280)),
        };
        if bytes.len() + outer > mtu {
            if self.weather.icmp {
                self.with(which, |end, now| end.notice(now, Notice::TooLong));
            }
            return;
        }
        let flying = Flying { from, to: to.remote, origin: Origin::Genuine, bytes };
        self.remember(&flying);
        let is_kept = self.keeps[which].is_some_and(|kept| match kept {
            Kept::Kind(class) => read.class() == Some(class),
            Kept::Length { least, most } => (least..=most).contains(&flying.bytes.len()),
        });
        if is_kept {
            self.say(|_| format!("-- kept back: {}", named(&flying.bytes)));
            return self.kept.push(Flying { origin: Origin::Late, ..flying });
        }
        self.travel(which, flying);
    }

    /// Releases one withheld datagram: the first, the last, or any.
    fn release(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let last = self.kept.len() - 1;
        let any = self.dice.below(self.kept.len());
        let at = self.dice.pick(&[0, last, any]);
        let flying = self.kept.remove(at);
        let after = self.dice.ms(1, 50);
        self.fly(after, flying);
    }

    fn remember(&mut self, flying: &Flying) {
        if self.record.len() < RECORD {
            self.record.push(flying.clone());
        } else {
            let at = self.dice.below(RECORD);
            self.record[at] = flying.clone();
        }
    }

    fn travel(&mut self, which: usize, flying: Flying) {
        let weather = self.weather;
        let delay = |dice: &mut Dice| dice.between(weather.delay[0], weather.delay[1]);
        if self.dice.chance(weather.copy) {
            let copy = Flying { from: STRANGER, origin: Origin::Copy, ..flying.clone() };
            self.fly(weather.delay[0] / 2, copy);
        }
        if weather.cut[which] || self.dice.chance(weather.loss) {
            return;
        }
        if self.dice.chance(weather.withhold) {
            let later = self.dice.ms(100, 300_000);
            return self.fly(later, Flying { origin: Origin::Late, ..flying });
        }
        if self.dice.chance(weather.duplicate) {
            let later = delay(&mut self.dice);
            self.fly(later, Flying { origin: Origin::Copy, ..flying.clone() });
        }
        let after = delay(&mut self.dice);
        if self.dice.chance(weather.corrupt) {
            let forged = self.forge(flying);
            return self.fly(after, forged);
        }
        self.fly(after, flying);
    }

    fn fly(&mut self, delay: Duration, flying: Flying) {
        self.serial += 1;
        self.air.insert((self.now + delay, self.serial), flying);
    }

    /// Makes a datagram that no holder of the keys made.
    fn forge(&mut self, mut flying: Flying) -> Flying {
        let length = flying.bytes.len();
        match self.dice.below(5) {
            0 => flying.bytes.truncate(self.dice.below(length)),
            1 => flying.bytes.push(0),
            // The bytes of kind and slot.
            2 => {
                let first = length.min(if length > 60 { self.dice.pick(&[0, 16]) } else { 0 });
                flying.bytes[first] ^= 1 << self.dice.below(8);
            }
            3 => {
                let at = self.dice.below(length);
                flying.bytes[at] ^= 1 << self.dice.below(8);
            }
            _ => flying.bytes = (0..length).map(|_| self.dice.byte()).collect(),
        }
        flying.origin = Origin::Forged;
        flying
    }

    /// The attacker sends a recorded datagram: as it was, back to its sender, or changed.
    fn attack(&mut self) {
        if self.record.is_empty() {
            return;
        }
        let at = self.dice.below(self.record.len());
        let mut flying = Flying { origin: Origin::Copy, ..self.record[at].clone() };
        match self.dice.below(5) {
            0 => (flying.from, flying.to) = (flying.to, flying.from),
            1 => flying.from = STRANGER,
            2 => flying = self.forge(flying),
            _ => {}
        }
        // To the end's current address.
        let which = self.places.iter().position(|place| place.was_at.contains(&flying.to));
        let current = which.map(|which| self.places[which].addresses());
        if let Some(to) =
            current.and_then(|all| all.into_iter().find(|to| to.is_ipv4() == flying.to.is_ipv4()))
        {
            flying.to = to;
        }
        // Never before the original: overtaking is up to the weather.
        let after = self.weather.delay[1] + self.dice.ms(1, 50);
        self.fly(after, flying);
    }

    fn arrive(&mut self, flying: Flying) {
        let Flying { from, to, origin, bytes } = flying;
        let Some(which) = (0..2).find(|which| self.places[*which].addresses().contains(&to)) else { return };
        let Some((_, local)) = self.places[which].source(to) else { return };
        let Some(before) = self.ends[which].as_ref().map(End::heard) else { return };
        self.say(|_| format!("end {which} <- {from}: {origin:?} ({})", named(&bytes)));
        let is_handshake = self.model.is_handshake(&bytes);
        let repeated = self.model.is_taken(which, &bytes);
        let silent =
            origin == Origin::Forged || repeated && self.plan.configs[which].framing() == Framing::Session;
        let serial = self.serial;
        self.resumed = false;
        let path = Path { local: Some(local), ..from.into() };
        let copy = bytes.clone();
        self.with(which, |end, now| end.receive(now, path, copy));
        let heard = self.ends[which].as_ref().is_some_and(|end| end.heard() > before);
        if heard && (origin == Origin::Forged || repeated) {
            let text =
                format!("effect: end {which} took a datagram that is {origin:?}, repeated: {repeated}");
            self.judge::<()>(Err(text));
        }
        if silent && self.serial > serial && !self.resumed && self.plan.configs[which].pace.is_zero() {
            let text =
                format!("effect: end {which} answered a datagram that is {origin:?}, repeated: {repeated}");
            self.judge::<()>(Err(text));
        }
        if heard || is_handshake && origin != Origin::Forged {
            self.model.take(which, &bytes);
        }
        if heard && origin != Origin::Genuine {
            self.late = self.now;
        }
    }

    /// Advances the phase: to the calm, to a settled link, to the end.
    fn progress(&mut self) {
        let mut lost = None;
        let (model, now) = (&self.model, self.now);
        self.greetings.retain(|id, _| !model.arrived(*id));
        if let Some((id, _)) = self.greetings.iter().find(|(_, by)| **by < now) {
            let what = self.model.describe(*id);
            self.judge::<()>(Err(format!("greeting: {what} did not arrive though the link was up")));
            return;
        }
        self.expected.retain(|id, by| {
            let waits = !model.arrived(*id);
            lost = lost.or((waits && *by < now).then_some(*id));
            waits && *by >= now
        });
        let up = self.ends.iter().flatten().filter(|end| end.is_up()).count();
        let timeout = self.plan.configs[0].settings.keepalive.timeout;
        self.phase = match self.phase {
            Phase::Storm if self.now >= self.plan.calm && self.next_act == self.plan.acts.len() => {
                Phase::Settling { since: self.now, bursts: 0 }
            }
            Phase::Settling { .. } if self.now > self.plan.calm.max(self.late) + timeout + RETURN => {
                let text = format!("return: no link {:?} after the trouble, {up} ends up", timeout + RETURN);
                self.judge::<()>(Err(text));
                Phase::Over
            }
            Phase::Settling { .. }
                if up < 2 && self.plan.back.is_some_and(|back| self.now > self.plan.calm + back) =>
            {
                self.judge::<()>(Err(format!("return: {up} ends up when both had to be")));
                Phase::Over
            }
            Phase::Settling { .. } if lost.is_some() || up < 2 => {
                Phase::Settling { since: self.now, bursts: 0 }
            }
            Phase::Settling { since, bursts: BURSTS.. }
                if self.now > since + SETTLED && self.expected.is_empty() =>
            {
                self.say(|_| "-- settled".into());
                Phase::Steady { until: self.now + self.plan.steady }
            }
            Phase::Steady { .. } if lost.is_some() => {
                let what = lost.map(|id| self.model.describe(id)).unwrap_or_default();
                self.judge::<()>(Err(format!("loss: {what} did not arrive though nothing was wrong")));
                Phase::Over
            }
            Phase::Steady { until } if self.now > until => Phase::Over,
            phase => phase,
        };
    }

    /// Counters of both ends, for the end of a trace.
    pub fn counters(&self) -> Vec<String> {
        self.ends.iter().flatten().map(End::counters).collect()
    }
}

/// Names a datagram in a trace by its length and the start of its tag, which finds it where it was sent.
fn named(bytes: &[u8]) -> String {
    let tag = bytes.last_chunk::<4>().copied().unwrap_or_default();
    format!("{} bytes, {:08x}", bytes.len(), u32::from_be_bytes(tag))
}
