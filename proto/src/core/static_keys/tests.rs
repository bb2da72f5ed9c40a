//! Every order of a few hellos, frames, key id changes and restarts, with an attacker who records everything and replays
//! it at will: nothing is delivered twice, once he stops the ends find each other, and what he kept back does not part
//! them again (PROTOCOL.md §4.2).
#![allow(clippy::disallowed_methods, reason = "virtual time needs some instant to begin at")]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use super::*;
use crate::core::lane::{Format, Head, Name};
use crate::core::path::Path;
use crate::core::replay::Window;
use crate::core::search::{Found, World, search};
use crate::packet::layer::Mode;
use crate::testing::Dice;
use crate::wire::datagram::{Header, KEY_ID};

mod bounds;

const CIPHER: Cipher = Cipher::Aes256Gcm;
/// The end whose frames are examined, and the end that delivers them.
const SENDER: usize = 0;
const RECEIVER: usize = 1;
const HOUR: u64 = 3_600_000_000;
/// Round trips within which the ends must find each other.
const ROUNDS: usize = 4;

/// Other rules for making a key id live, to show that the search finds their faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The rule of PROTOCOL.md.
    Named,
    /// Also accepts a hello whose key id has a later time than all accepted like this, even by earlier processes, and near
    /// this end's clock. (Clocks are right in this world.)
    ByTheClock,
    /// Whatever answers a challenge, however old: as in the previous version.
    Challenged,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Hello(usize),
    Propose(usize),
    Frame,
    Deliver(usize),
    Renew(usize),
    /// The peer's key ids expire.
    Age(usize),
    Restart(usize),
    Challenge,
}

/// How often each may still happen.
#[derive(Clone, Copy, Hash)]
struct Left {
    hellos: [u8; 2],
    renewals: [u8; 2],
    restarts: [u8; 2],
    frames: u8,
    ages: u8,
    challenges: u8,
}

#[derive(Clone)]
struct Datagram {
    to: usize,
    key_id: KeyId,
    counter: u32,
    bytes: Vec<u8>,
    what: String,
    /// The challenge that it carries or answers.
    challenge: Option<u8>,
}

#[derive(Clone)]
struct Open {
    window: Window,
    after: Option<u32>,
    counters: BTreeSet<u32>,
}

/// One end: its key ids as link and lane use them.
#[derive(Clone)]
struct End {
    keys: StaticKeys,
    current: KeyId,
    next_counter: BTreeMap<[u8; KEY_ID], u32>,
    heard: Option<KeyId>,
    live: BTreeMap<[u8; KEY_ID], Open>,
}

#[derive(Clone)]
struct Small {
    rule: Rule,
    /// Whether the receiver's link counts as up.
    up: bool,
    left: Left,
    ends: [End; 2],
    /// Number of draws of each end, which distinguish its key ids.
    draws: [u64; 2],
    restarts: [u64; 2],
    record: Vec<Datagram>,
    frames: u8,
    delivered: BTreeSet<u8>,
    now: Instant,
    /// The receiver's mark on disk, with [`Rule::ByTheClock`].
    mark: u64,
    /// The receiver's open challenges, with [`Rule::Challenged`].
    challenges: BTreeSet<u8>,
}

/// The body of a hello.
fn hello(heard: Option<KeyId>, seen: bool) -> Vec<u8> {
    let hello = Hello {
        version: 1,
        mode: Mode::Tap,
        mtu: 1500,
        addresses: Vec::new(),
        peers: Vec::new(),
        budget: 1400,
        capabilities: 0,
        name: String::new(),
        seen,
        routes: Vec::new(),
        heard: heard.map(|key_id| key_id.0),
        padding: 40,
        lanes: 1,
        rank: 0,
        named: None,
    };
    let mut body = Vec::new();
    control::encode(&Message::Hello(hello), &mut body);
    body
}

/// The start of virtual time.
fn start() -> Instant {
    Instant::now()
}

impl Small {
    fn new(rule: Rule, up: bool, left: Left) -> Self {
        let now = start();
        let mut draws = [0; 2];
        let ends = [SENDER, RECEIVER].map(|which| End::new(which, &mut draws, 0, now));
        let (restarts, record) = ([0; 2], Vec::new());
        let (delivered, challenges) = Default::default();
        Self { rule, up, left, ends, draws, restarts, record, frames: 0, delivered, now, mark: 0, challenges }
    }

    fn now(&self, which: usize) -> Now {
        Now { instant: self.now, wall: wall(self.draws[which], self.restarts[which]) }
    }

    /// Seals `body` under a key id of this end, for the record.
    fn send(&mut self, which: usize, key_id: KeyId, kind: Kind, body: &[u8], what: String) {
        let end = &mut self.ends[which];
        let counter = end.next_counter.entry(key_id.0).or_default();
        let header = Header { slot: 0, kind, lane: 0, counter: *counter };
        *counter += 1;
        let aead = end.keys.keys.static_key(CIPHER, which as u8, &key_id.0);
        let format = Format::new(Framing::Static, end.keys.keys.clone());
        let bytes = format.datagram(Head { name: Name::KeyId(key_id), header }, &aead, body).unwrap();
        let what = format!("end {which}, under {}, number {}: {what}", name(key_id), header.counter);
        let (to, counter) = (1 - which, header.counter);
        self.record.push(Datagram { to, key_id, counter, bytes, what, challenge: None });
    }

    fn hello(&mut self, which: usize, key_id: KeyId, heard: Option<KeyId>, seen: bool) {
        let body = hello(heard, seen);
        let what = format!("hello, heard {}", heard.map_or("nothing".into(), name));
        self.send(which, key_id, Kind::Control, &body, what);
    }

    fn say_hello(&mut self, which: usize) {
        let End { current, heard, .. } = self.ends[which];
        self.hello(which, current, heard, heard.is_some());
    }

    fn propose(&mut self, which: usize) {
        let heard = self.ends[which].heard;
        if let Some(next) = self.ends[which].keys.sending.proposed() {
            self.hello(which, next, heard, false);
        }
    }

    fn renew(&mut self, which: usize, up: bool) {
        self.draws[which] += 1;
        let (now, mut random) = (self.now(which), number(which, self.draws));
        let end = &mut self.ends[which];
        if !up {
            end.current = end.keys.draw(now, &mut random);
        } else {
            end.keys.propose(now, &mut random);
            self.propose(which);
        }
    }

    fn deliver(&mut self, index: usize, up: bool) -> Result<(), String> {
        let Datagram { to: which, key_id, bytes, challenge, .. } = self.record[index].clone();
        let from = Path::from(SocketAddr::from(([192, 0, 2, 1 + which as u8], 1)));
        let received = Received { from, datagram: bytes };
        let now = self.now(which);
        let end = &mut self.ends[which];
        let tag = Framing::Static.tag(&received.datagram).unwrap_or_default();
        let (_, header) = unmask(&end.keys.keys.mask(&tag), &received.datagram);
        if let Some(open) = end.live.get_mut(&key_id.0) {
            if !open.window.accept(header.counter) {
                return Ok(());
            }
            open.counters.insert(header.counter);
            let body =
                end.keys.open(CIPHER, 1 - which as u8, key_id, &received).map_err(|_| "tag".to_owned())?;
            return self.take_body(which, key_id, header.kind, &body);
        }
        match end.keys.handle_unknown(now, key_id, received.clone(), up) {
            Verdict::Taken { after, hello, ended, .. } => {
                ended.map(|ended| end.live.remove(&ended.0));
                end.open(key_id, Some(after));
                self.take_hello(which, key_id, &hello, true);
            }
            Verdict::Present => {
                if which == RECEIVER && self.takes_otherwise(key_id, header.kind, challenge) {
                    self.ends[which].open(key_id, None);
                    self.ends[which].heard = Some(key_id);
                    return Ok(());
                }
                if self.ends[which].keys.sending.is_renewal_due(self.now) {
                    self.renew(which, up);
                }
                let current = self.ends[which].current;
                self.hello(which, current, Some(key_id), false);
            }
            Verdict::Dropped(_) => {}
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    }

    fn takes_otherwise(&mut self, key_id: KeyId, kind: Kind, challenge: Option<u8>) -> bool {
        match self.rule {
            Rule::Named => false,
            Rule::ByTheClock => {
                let newer = kind == Kind::Control && key_id.time() > self.mark;
                self.mark = if newer { key_id.time() } else { self.mark };
                newer
            }
            Rule::Challenged => challenge.is_some_and(|challenge| self.challenges.remove(&challenge)),
        }
    }

    fn take_body(&mut self, which: usize, key_id: KeyId, kind: Kind, body: &[u8]) -> Result<(), String> {
        match (kind, control::decode(body)) {
            (Kind::Control, Ok(Some(Message::Hello(hello)))) => self.take_hello(which, key_id, &hello, false),
            (Kind::Frame, _) if !self.delivered.insert(body[0]) => {
                return Err(format!("frame {} was delivered twice", body[0]));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_hello(&mut self, which: usize, key_id: KeyId, hello: &Hello, is_new: bool) {
        let end = &mut self.ends[which];
        end.heard = Some(key_id);
        if let Some(own) = hello.heard
            && end.keys.handle_named(KeyId(own))
        {
            end.current = KeyId(own);
        }
        let current = end.current;
        if is_new || !hello.seen {
            self.hello(which, current, Some(key_id), true);
        }
    }

    /// The receiver challenges every sender to a new key id; the sender draws one and answers under it.
    fn challenge(&mut self) {
        let challenge = self.left.challenges;
        self.challenges.insert(challenge);
        self.draws[SENDER] += 1;
        let (now, mut random) = (self.now(SENDER), number(SENDER, self.draws));
        let key_id = self.ends[SENDER].keys.draw(now, &mut random);
        self.ends[SENDER].current = key_id;
        self.hello(SENDER, key_id, None, true);
        if let Some(last) = self.record.last_mut() {
            last.challenge = Some(challenge);
        }
    }

    /// Each end says hello, and everything arrives.
    fn round(&mut self, up: bool) -> Result<(), String> {
        self.ends.iter_mut().for_each(End::forget_limits);
        for which in [SENDER, RECEIVER] {
            let mut next = self.record.len();
            self.say_hello(which);
            self.propose(which);
            while next < self.record.len() {
                self.deliver(next, up)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// What was kept back parts ends that found each other for a round trip at most.
    fn stays(mut self) -> Result<(), String> {
        for index in 0..self.record.len() {
            self.ends.iter_mut().for_each(End::forget_limits);
            self.deliver(index, true)?;
            if !self.is_mutual() {
                self.round(true)?;
            }
            if !self.is_mutual() {
                return Err(format!("{}, which came late, parted the ends", self.record[index].what));
            }
        }
        Ok(())
    }

    /// Whether each end opens what the other sends now.
    fn is_mutual(&self) -> bool {
        let opens = |from: usize| {
            let End { current, next_counter, .. } = &self.ends[from];
            let counter = next_counter.get(&current.0).copied().unwrap_or_default();
            self.ends[1 - from].live.get(&current.0).is_some_and(|open| open.window.admits(counter))
        };
        opens(SENDER) && opens(RECEIVER)
    }
}

impl End {
    fn new(which: usize, draws: &mut [u64; 2], restarts: u64, now: Instant) -> Self {
        draws[which] += 1;
        let now = Now { instant: now, wall: wall(draws[which], restarts) };
        let keys = Arc::new(LinkKeys::new(&[7; 32]));
        let mut keys = StaticKeys::new(keys, CIPHER, which as u8, 0, now);
        keys.copies = ReplayCache::tiny();
        let current = keys.draw(now, &mut number(which, *draws));
        Self { keys, current, next_counter: BTreeMap::new(), heard: None, live: BTreeMap::new() }
    }

    fn open(&mut self, key_id: KeyId, after: Option<u32>) {
        let window = after.map_or_else(Window::default, Window::after);
        self.live.insert(key_id.0, Open { window, after, counters: BTreeSet::new() });
    }

    /// Rate limits only cost time, and the attacker can wait. He also has more recordings than are remembered.
    fn forget_limits(&mut self) {
        self.keys.derivations = [RateLimiter::new(DERIVATIONS, DERIVATION); 2];
        self.keys.presentations = [RateLimiter::new(1, PRESENTATION); 2];
        self.keys.retired_at = None;
        self.keys.copies = ReplayCache::tiny();
    }
}

/// All draws of both ends differ.
fn number(which: usize, draws: [u64; 2]) -> Dice {
    Dice(2 * draws[which] + which as u64)
}

/// A clock that is set back whenever its end is restarted.
fn wall(draws: u64, restarts: u64) -> u64 {
    100 * HOUR + draws - restarts * HOUR
}

impl World for Small {
    type Act = Act;

    fn acts(&self) -> Vec<Act> {
        let Left { hellos, renewals, restarts, frames, ages, challenges } = self.left;
        let mut acts: Vec<Act> = (0..self.record.len()).map(Act::Deliver).collect();
        for which in [SENDER, RECEIVER] {
            acts.extend((hellos[which] > 0).then_some(Act::Hello(which)));
            let proposes = hellos[which] > 0 && self.ends[which].keys.sending.proposed().is_some();
            acts.extend(proposes.then_some(Act::Propose(which)));
            let renews = renewals[which] > 0 && self.ends[which].keys.sending.proposed().is_none();
            acts.extend(renews.then_some(Act::Renew(which)));
            acts.extend((restarts[which] > 0).then_some(Act::Restart(which)));
            acts.extend((ages > 0 && !self.ends[which].live.is_empty()).then_some(Act::Age(which)));
        }
        acts.extend((frames > 0).then_some(Act::Frame));
        acts.extend((challenges > 0).then_some(Act::Challenge));
        acts
    }

    fn act(&mut self, act: &Act) -> Result<(), String> {
        match *act {
            Act::Hello(which) => {
                self.left.hellos[which] -= 1;
                self.say_hello(which);
            }
            Act::Propose(which) => {
                self.left.hellos[which] -= 1;
                self.propose(which);
            }
            Act::Frame => {
                self.left.frames -= 1;
                self.frames += 1;
                let (key_id, number) = (self.ends[SENDER].current, self.frames);
                self.send(SENDER, key_id, Kind::Frame, &[number; 60], format!("frame {number}"));
            }
            Act::Deliver(index) => {
                self.ends.iter_mut().for_each(End::forget_limits);
                return self.deliver(index, self.up);
            }
            Act::Renew(which) => {
                self.left.renewals[which] -= 1;
                self.renew(which, self.up);
            }
            Act::Age(which) => {
                self.left.ages -= 1;
                let later = self.now + crate::core::limits::KEY_ID_END;
                while let Some(ended) = self.ends[which].keys.poll_ended(later) {
                    self.ends[which].live.remove(&ended.0);
                }
            }
            Act::Restart(which) => {
                self.left.restarts[which] -= 1;
                self.restarts[which] += 1;
                self.ends[which] = End::new(which, &mut self.draws, self.restarts[which], self.now);
                if which == RECEIVER {
                    self.challenges.clear();
                }
            }
            Act::Challenge => {
                self.left.challenges -= 1;
                self.challenge();
            }
        }
        Ok(())
    }

    fn tell(&self, act: &Act) -> String {
        match *act {
            Act::Hello(which) => format!("end {which} says hello"),
            Act::Propose(which) => format!("end {which} proposes its next key id once more"),
            Act::Frame => "a frame is sent".into(),
            Act::Deliver(index) => format!("arrives: {}", self.record[index].what),
            Act::Renew(which) => format!("end {which} draws a key id"),
            Act::Age(which) => format!("what is live at end {which} ends"),
            Act::Restart(which) => format!("end {which} is restarted, with its clock set back"),
            Act::Challenge => "the receiver challenges, and the sender answers".into(),
        }
    }

    /// From here on, every datagram arrives once and in order.
    fn check(mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            self.round(false)?;
            if self.is_mutual() {
                return self.stays();
            }
        }
        Err(format!("the ends have not found each other after {ROUNDS} rounds"))
    }

    fn digest(&self, to: &mut impl Hasher) {
        (self.left, self.draws, self.restarts, &self.delivered, self.mark, &self.challenges).hash(to);
        let record: BTreeSet<_> = self.record.iter().map(|one| (one.key_id.0, one.counter)).collect();
        record.hash(to);
        for end in &self.ends {
            (
                end.current.0,
                end.heard.map(|key_id| key_id.0),
                end.keys.sending.proposed().map(|key_id| key_id.0),
            )
                .hash(to);
            (end.keys.sending.oldest_named(), end.keys.sending.drawn()).hash(to);
            end.live.iter().for_each(|(key_id, open)| (key_id, open.after, &open.counters).hash(to));
            end.keys.taken.ended().for_each(|(key_id, drawn)| (key_id.0, drawn).hash(to));
        }
    }
}

fn name(key_id: KeyId) -> String {
    format!("key id {:02x}", key_id.0[8])
}

const LEFT: Left =
    Left { hellos: [2, 1], renewals: [1, 1], restarts: [1, 1], frames: 1, ages: 1, challenges: 0 };

fn is_found(found: Found, what: &str) {
    let violation = found.violation.unwrap_or_default();
    assert!(violation.contains(what), "not found in {} states: {violation}", found.states);
}

#[test]
fn nothing_is_delivered_twice_and_the_ends_find_each_other() {
    for up in [false, true] {
        let found = search("static keys", &Small::new(Rule::Named, up, LEFT), 8);
        assert_eq!(found.violation, None);
        assert!(found.states > 10_000, "{found:?}");
    }
}

/// A later time than all accepted by time, on disk, does not show that a key id was not accepted otherwise.
#[test]
fn a_clock_and_a_mark_on_disk_deliver_twice() {
    let left = Left { hellos: [2, 2], renewals: [1, 0], restarts: [0, 1], ages: 0, ..LEFT };
    let found = search("by the clock", &Small::new(Rule::ByTheClock, false, left), 14);
    is_found(found, "delivered twice");
}

/// Nor does an answer to a long-open challenge.
#[test]
fn answers_to_challenges_that_are_withheld_deliver_twice() {
    let left = Left { hellos: [2, 2], renewals: [0, 0], restarts: [0, 0], challenges: 1, ..LEFT };
    let found = search("challenges", &Small::new(Rule::Challenged, false, left), 14);
    is_found(found, "delivered twice");
}
