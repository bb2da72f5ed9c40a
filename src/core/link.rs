//! The link as a state machine: sids of static mode, hello, liveness, the peer's address.
//!
//! Inputs are the `handle_*` methods. After each one call [`Link::poll_command`] until it is empty and
//! carry the commands to the lane, then [`Link::poll_event`] until it is empty, and call
//! [`Link::handle_timeout`] no later than [`Link::poll_timeout`] says. `Now::instant` never goes back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admission::{Admission, Now, Verdict};
use super::hello;
use super::lane::{Command, Notice, Received};
use super::limits::{
    BUDGET_BASE, CHALLENGE_INTERVAL, COUNTER_ROTATE, HELLO_ANSWER, HELLO_FIRST, HELLO_LATER, HELLO_PATIENCE,
    HELLO_TRIES, OUTER_V4, OUTER_V6, REPEAT, RESOLVE, SID_ANNOUNCE, SID_LIFE,
};
use super::path::{Outcome, Validation};
use super::sid::Sid;
use super::stats::{Drop, Stats};
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::privsep::message::LinkSettings;
use crate::wire::control::{self, Hello, Message};

/// What the owner of a link must do or tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Look the remotes up; answer with [`Link::handle_resolved`].
    Resolve,
    /// Datagrams go to this address now; answer with [`Link::handle_route`].
    Endpoint(SocketAddr),
    /// Write this floor durably; answer with [`Link::handle_floor`].
    Floor(u64),
    /// The peer answers and fits.
    Up {
        /// Its outer address.
        endpoint: SocketAddr,
        /// What it calls its link.
        name: String,
    },
    /// The peer no longer answers.
    Down {
        /// Why, in one line.
        reason: String,
    },
    /// A line for the log.
    Log {
        /// From which level on.
        verb: u8,
        /// The line.
        text: String,
    },
}

/// Own sids: what frames are sent under, and what comes next.
struct Sending {
    last_time: u64,
    rotate_at: Instant,
    switch_at: Option<Instant>,
    recent: VecDeque<Sid>,
}

/// The control side of one link.
pub struct Link<R> {
    settings: LinkSettings,
    keys: Arc<LinkKeys>,
    random: R,
    admission: Admission,
    sending: Sending,
    remotes: Vec<SocketAddr>,
    remote: usize,
    endpoint: Option<SocketAddr>,
    validation: Option<Validation>,
    peer: Option<Hello>,
    up: bool,
    own_budget: usize,
    tries: u32,
    hello_at: Instant,
    answered_at: Option<Instant>,
    replied_at: Option<Instant>,
    resolve_at: Option<Instant>,
    heard_at: Instant,
    datagrams_in: u64,
    said: Option<(String, Instant)>,
    stats: Stats,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
}

impl<R: Random> Link<R> {
    /// A link that begins now: draws its first sid and looks for its peer.
    pub fn new(settings: LinkSettings, keys: Arc<LinkKeys>, now: Now, random: R) -> Self {
        let Now { instant, .. } = now;
        let admission = Admission::new(
            keys.clone(),
            settings.cipher,
            settings.direction,
            settings.floor,
            settings.floor_writable,
        );
        let recent = VecDeque::new();
        let mut link = Self {
            keys,
            random,
            admission,
            sending: Sending { last_time: 0, rotate_at: instant, switch_at: None, recent },
            remotes: Vec::new(),
            remote: 0,
            endpoint: None,
            validation: None,
            peer: None,
            up: false,
            own_budget: BUDGET_BASE,
            tries: 0,
            hello_at: instant,
            answered_at: None,
            replied_at: None,
            resolve_at: settings.has_remote.then_some(instant),
            heard_at: instant,
            datagrams_in: 0,
            said: None,
            stats: Stats::default(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            settings,
        };
        link.prepare_sid(now);
        link.switch();
        if !link.settings.has_remote {
            link.say_once(instant, "waiting for the peer to call: no remote is set".into());
        }
        link
    }

    /// What this side of the link counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether the peer answers and fits.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// The next command for the lane.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next event for the owner.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes what the lane noticed.
    pub fn handle_notice(&mut self, now: Now, notice: Notice) {
        match notice {
            Notice::Unknown { sid, received } => self.handle_unknown(now, sid, received),
            Notice::Control { from, body } => match control::decode(&body) {
                Ok(Some(message)) => self.handle_message(now, from, message),
                Ok(None) => {}
                Err(_) => self.stats.drop(Drop::Malformed),
            },
            Notice::Moved { from } => self.handle_moved(now, from),
        }
    }

    /// The addresses of the remotes, in the order to try.
    pub fn handle_resolved(&mut self, now: Now, addresses: Vec<SocketAddr>) {
        if self.up || addresses.is_empty() || addresses == self.remotes {
            return;
        }
        self.remotes = addresses;
        self.remote = 0;
        self.tries = 0;
        self.call(now.instant);
    }

    /// What the kernel's routing says about an endpoint: the MTU of the route, in bytes.
    pub fn handle_route(&mut self, address: SocketAddr, mtu: Option<u32>) {
        if self.target() != Some(address) {
            return;
        }
        let outer = if address.is_ipv4() { OUTER_V4 } else { OUTER_V6 };
        let mtu = self.settings.path_mtu.or(mtu).and_then(|mtu| usize::try_from(mtu).ok());
        let budget = mtu.map_or(BUDGET_BASE, |mtu| mtu.saturating_sub(outer));
        if budget != self.own_budget {
            self.own_budget = budget;
            self.set_budget();
            if self.up {
                self.send_hello(address, false);
            }
        }
    }

    /// The floor is on disk, or could not be written.
    pub fn handle_floor(&mut self, time: u64, written: bool) {
        if !written {
            self.log(1, "the state directory cannot be written: the peer is challenged every minute".into());
        }
        if let Some((sid, held)) = self.admission.handle_floor(time, written) {
            self.commands.push_back(Command::Receive(sid));
            self.commands.extend(held.into_iter().map(Command::Again));
        }
    }

    /// Totals of the lane, told about once a second: authentic datagrams received, and datagrams sent
    /// under the current key.
    pub fn handle_progress(&mut self, now: Now, datagrams_in: u64, sent_under_key: u32) {
        if datagrams_in != self.datagrams_in {
            self.datagrams_in = datagrams_in;
            self.heard_at = now.instant;
        }
        if sent_under_key >= COUNTER_ROTATE && self.sending.switch_at.is_none() {
            self.sending.rotate_at = now.instant;
        }
    }

    /// Tells the peer that this end stops.
    pub fn handle_stop(&mut self) {
        if let Some(endpoint) = self.endpoint {
            self.send(Message::Bye { reason: "stopped".into() }, endpoint, false);
        }
    }

    /// When [`Link::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Instant {
        let mut next = self.sending.switch_at.unwrap_or(self.sending.rotate_at).min(self.sending.rotate_at);
        if self.target().is_some() {
            next = next.min(self.hello_at);
        }
        if self.up {
            next = next.min(self.heard_at + self.settings.keepalive.timeout);
        }
        let others = [
            self.resolve_at,
            self.validation.as_ref().map(Validation::poll_timeout),
            self.admission.poll_timeout(),
            self.said.as_ref().map(|(_, at)| *at + REPEAT),
        ];
        others.into_iter().flatten().fold(next, Instant::min)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let instant = now.instant;
        if self.sending.switch_at.is_some_and(|at| at <= instant) {
            self.switch();
        }
        if self.sending.rotate_at <= instant {
            self.rotate(now);
        }
        if self.up && instant >= self.heard_at + self.settings.keepalive.timeout {
            let silence = self.settings.keepalive.timeout.as_secs_f32();
            self.go_down(instant, format!("nothing heard from the peer for {silence} s"));
        }
        if self.resolve_at.is_some_and(|at| at <= instant) {
            self.resolve_at = (!self.up).then_some(instant + RESOLVE);
            if !self.up {
                self.events.push_back(Event::Resolve);
            }
        }
        if self.hello_at <= instant
            && let Some(target) = self.target()
        {
            self.repeat_hello(instant, target);
        }
        let outcome = self.validation.as_ref().map(|path| path.handle_timeout(instant));
        self.conclude(now, outcome);
        if self.admission.handle_timeout(instant) > 0 && !self.up {
            self.log(
                1,
                "right key but an old time, and no answer to a challenge: a replay, or a one-way path".into(),
            );
        }
        self.repeat_said(instant);
    }

    fn handle_unknown(&mut self, now: Now, sid: Sid, received: Received) {
        if self.sending.recent.contains(&sid) {
            self.stats.drop(Drop::Reflected);
            return;
        }
        let from = received.from;
        match self.admission.handle_unknown(now, sid, received, &mut self.random) {
            Verdict::Again(received) => self.commands.push_back(Command::Again(received)),
            Verdict::Held => {}
            Verdict::Floor(time) => self.events.push_back(Event::Floor(time)),
            Verdict::Reply { challenge, to } => self.reply(now, challenge, to),
            Verdict::Challenge { challenge, to } => {
                self.log(3, format!("{from} has the right key but its time must be proven: challenged"));
                self.send(Message::Challenge { challenge }, to, false);
            }
            Verdict::Proven { sid, skew, received, floor } => {
                self.log(1, format!("{from} answered the challenge; the clocks differ by {}", seconds(skew)));
                self.commands.push_back(Command::Receive(sid));
                self.commands.push_back(Command::Again(received));
                self.events.extend(floor.map(Event::Floor));
                if !self.up {
                    self.send_hello(from, false);
                }
            }
            Verdict::Dropped(reason) => self.stats.drop(reason),
        }
    }

    fn handle_message(&mut self, now: Now, from: SocketAddr, message: Message) {
        match message {
            Message::Hello(peer) => self.handle_hello(now, from, peer),
            Message::Ping { n, .. } => {
                let received = self.datagrams_in;
                self.send(Message::Pong { n, received }, from, false);
            }
            Message::Path { challenge } => self.send(Message::PathReply { challenge }, from, false),
            Message::PathReply { challenge } => {
                let outcome = self.validation.as_mut().map(|path| path.handle_reply(from, challenge));
                self.conclude(now, outcome);
            }
            Message::Challenge { challenge } => self.reply(now, challenge, from),
            Message::Bye { reason } => {
                if self.up && self.endpoint == Some(from) {
                    self.go_down(now.instant, format!("the peer says: {reason}"));
                }
            }
            Message::Pong { .. } | Message::ChallengeReply { .. } => {}
        }
    }

    fn handle_hello(&mut self, now: Now, from: SocketAddr, peer: Hello) {
        if !self.settings.float && !self.is_pinned(from) {
            self.say_once(now.instant, format!("the peer calls from {from}, but float = false pins it"));
            return;
        }
        self.heard_at = now.instant;
        let wants_answer = !peer.seen;
        let mismatch = hello::mismatch(&self.settings, &peer);
        if !self.up {
            self.set_endpoint(Some(from));
        }
        let known = self.peer.replace(peer).is_some();
        match mismatch {
            Some(text) => {
                if self.up {
                    self.go_down(now.instant, text.clone());
                }
                self.commands.push_back(Command::Agreed(false));
                self.say_once(now.instant, text);
            }
            None => self.agree(now.instant, from),
        }
        let due = self.answered_at.is_none_or(|at| now.instant.duration_since(at) >= HELLO_ANSWER);
        if wants_answer && due {
            // A peer that lost this session may know only the sid that answered its challenge.
            if self.sending.switch_at.is_some() {
                self.switch();
            }
            self.answered_at = Some(now.instant);
            self.send_hello(self.endpoint.unwrap_or(from), false);
        }
        if !known {
            self.hello_at = now.instant + self.hello_interval();
        }
    }

    /// The peer's hello fits.
    fn agree(&mut self, now: Instant, from: SocketAddr) {
        self.set_budget();
        if self.up {
            return;
        }
        self.up = true;
        self.tries = 0;
        self.said = None;
        self.resolve_at = None;
        self.commands.push_back(Command::Agreed(true));
        let name = self.peer.as_ref().map_or_else(String::new, |peer| peer.name.clone());
        self.log(1, format!("link up with {from}, the peer's \"{}\"", printable(&name)));
        self.events.push_back(Event::Up { endpoint: from, name });
        self.hello_at = now + self.hello_interval();
    }

    fn handle_moved(&mut self, now: Now, from: SocketAddr) {
        let Some(old) = self.endpoint.filter(|old| self.up && *old != from) else { return };
        if !(self.settings.float || old.ip() == from.ip()) || self.validation.is_some() {
            return;
        }
        let challenges = [self.random.bytes(), self.random.bytes()];
        self.validation = Some(Validation::new(now.instant, from, challenges));
        let [new_challenge, old_challenge] = challenges;
        self.send(Message::Path { challenge: new_challenge }, from, false);
        self.send(Message::Path { challenge: old_challenge }, old, false);
    }

    fn conclude(&mut self, now: Now, outcome: Option<Outcome>) {
        match outcome {
            None | Some(Outcome::Open) => {}
            Some(Outcome::Stay) => self.validation = None,
            Some(Outcome::Move(new)) => {
                self.validation = None;
                self.heard_at = now.instant;
                self.log(1, format!("the peer moved to {new}"));
                self.set_endpoint(Some(new));
                self.send_hello(new, false);
            }
        }
    }

    fn go_down(&mut self, now: Instant, reason: String) {
        self.up = false;
        self.tries = 0;
        self.validation = None;
        self.peer = None;
        self.commands.push_back(Command::Agreed(false));
        self.log(1, format!("link down: {reason}"));
        self.events.push_back(Event::Down { reason });
        self.hello_at = now + HELLO_FIRST;
        if self.settings.has_remote {
            self.remotes.clear();
            self.resolve_at = Some(now);
        }
    }

    /// Where hellos go: the endpoint, or the remote being tried.
    fn target(&self) -> Option<SocketAddr> {
        if self.up { self.endpoint } else { self.remotes.get(self.remote).copied().or(self.endpoint) }
    }

    fn is_pinned(&self, from: SocketAddr) -> bool {
        let mut known = self.remotes.iter().chain(&self.endpoint).peekable();
        known.peek().is_none() || known.any(|known| known.ip() == from.ip())
    }

    /// Begins to call the remote whose turn it is.
    fn call(&mut self, now: Instant) {
        if let Some(remote) = self.remotes.get(self.remote) {
            self.events.push_back(Event::Endpoint(*remote));
            self.hello_at = now;
        }
    }

    fn repeat_hello(&mut self, now: Instant, target: SocketAddr) {
        self.tries += 1;
        if !self.up && self.peer.is_none() {
            if self.tries > HELLO_TRIES && self.tries % HELLO_TRIES == 1 && self.remotes.len() > 1 {
                self.remote = (self.remote + 1) % self.remotes.len();
                self.call(now);
            }
            if self.tries == HELLO_TRIES + 1 && !self.admission.is_challenging() {
                self.say_once(now, format!("no answer from {target} yet: trying on"));
            }
        }
        if let Some(target) = self.target() {
            self.send_hello(target, false);
        }
        self.hello_at = now + self.hello_interval();
    }

    /// Varied by a fifth, so that nothing on the wire keeps time.
    fn hello_interval(&mut self) -> Duration {
        let interval = if self.up {
            self.settings.keepalive.interval
        } else if self.tries < HELLO_PATIENCE {
            HELLO_FIRST
        } else {
            HELLO_LATER
        };
        let [byte] = self.random.bytes();
        interval.mul_f32(0.8 + 0.4 * f32::from(byte) / 255.0)
    }

    fn send_hello(&mut self, to: SocketAddr, next: bool) {
        let hello = hello::own(&self.settings, self.own_budget, self.peer.is_some());
        self.send(Message::Hello(hello), to, next);
    }

    fn send(&mut self, message: Message, to: SocketAddr, next: bool) {
        let mut body = Vec::new();
        control::encode(&message, &mut body);
        self.commands.push_back(Command::Control { body, to, next });
    }

    fn set_endpoint(&mut self, endpoint: Option<SocketAddr>) {
        if self.endpoint == endpoint {
            return;
        }
        self.endpoint = endpoint;
        self.own_budget = BUDGET_BASE;
        self.set_budget();
        self.commands.push_back(Command::Endpoint(endpoint));
        self.events.extend(endpoint.map(Event::Endpoint));
    }

    fn set_budget(&mut self) {
        let theirs = self.peer.as_ref().map_or(usize::MAX, |peer| usize::from(peer.budget));
        self.commands.push_back(Command::Budget(self.own_budget.min(theirs)));
    }

    /// Draws a sid: its time is now, or just after the one before.
    fn prepare_sid(&mut self, now: Now) {
        let time = now.wall.max(self.sending.last_time + 1);
        self.sending.last_time = time;
        self.sending.rotate_at = now.instant + SID_LIFE;
        let sid = Sid::new(&self.keys, time, self.random.bytes());
        self.sending.recent.push_front(sid);
        self.sending.recent.truncate(4);
        self.commands.push_back(Command::Prepare(sid));
    }

    fn switch(&mut self) {
        self.sending.switch_at = None;
        self.commands.push_back(Command::Switch);
    }

    /// A new sid: announced now, used for frames when the peer had time to write its floor.
    fn rotate(&mut self, now: Now) {
        self.prepare_sid(now);
        match self.endpoint.filter(|_| self.up) {
            Some(endpoint) => {
                self.send_hello(endpoint, true);
                self.sending.switch_at = Some(now.instant + SID_ANNOUNCE);
            }
            None => self.switch(),
        }
    }

    /// Answers a challenge under a sid that is drawn now.
    fn reply(&mut self, now: Now, challenge: [u8; 16], to: SocketAddr) {
        if self.replied_at.is_some_and(|at| now.instant.duration_since(at) < CHALLENGE_INTERVAL / 2) {
            self.stats.drop(Drop::RateLimited);
            return;
        }
        self.replied_at = Some(now.instant);
        self.prepare_sid(now);
        self.send(Message::ChallengeReply { challenge }, to, true);
        // The challenge may be a replay: it is worth the reply, and a sid that frames use later on.
        if self.up {
            self.sending.switch_at = Some(now.instant + SID_ANNOUNCE);
        } else {
            self.switch();
            self.hello_at = now.instant;
        }
    }

    fn log(&mut self, verb: u8, text: String) {
        self.events.push_back(Event::Log { verb, text });
    }

    /// Says what the link waits for: once at verb 1, then every minute at verb 3.
    fn say_once(&mut self, now: Instant, text: String) {
        if self.said.as_ref().is_none_or(|(said, _)| *said != text) {
            self.log(1, text.clone());
            self.said = Some((text, now));
        }
    }

    fn repeat_said(&mut self, now: Instant) {
        if let Some((text, at)) = &mut self.said
            && now >= *at + REPEAT
        {
            *at = now;
            let text = text.clone();
            self.log(3, text);
        }
    }
}

/// A difference of clocks, for people.
fn seconds(microseconds: i64) -> String {
    let seconds = microseconds as f64 / 1e6;
    if seconds.abs() < 10.0 { format!("{seconds:+.3} s") } else { format!("{seconds:+.0} s") }
}

/// What came from the peer, reduced to what a log line can take.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' }).collect()
}
