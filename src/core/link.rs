//! The link as a state machine: key ids of static mode, hello, liveness, the peer's address.
//!
//! Inputs are the `handle_*` methods. After each one call [`Link::poll_command`] until it is empty and
//! carry the commands to the lane, then [`Link::poll_event`] until it is empty, and call
//! [`Link::handle_timeout`] no later than [`Link::poll_timeout`] says. `Now::instant` never goes back.

mod clones;
mod greeting;
mod handshake;
mod idle;
mod length;
mod peer;
mod said;
mod state;
mod static_mode;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::clock::Now;
use super::clones::Turns;
use super::condition::Condition;
use super::lane::{Command, KeyRef, KeySlot, Notice, Report, SendCommand};
use super::limits::{BUDGET_BASE, REPEAT, RESOLVE};
use super::path::{Path, Validation};
use super::pmtud::Pmtud;
use super::rate::RateLimiter;
use super::remotes::Remotes;
use super::session::Sessions;
use super::sources::Sources;
use super::static_keys::StaticKeys;
use super::stats::{DropReason, Stats};
use crate::core::settings::LinkSettings;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
#[cfg(test)]
use crate::fault::{self, Fault};
use crate::wire::control::{self, Hello, Message};

use clones::Cloned;
use idle::IDLE;
use said::Said;
use static_mode::StaticKeying;

/// What the owner of a link must do or tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Look the remotes up; answer with [`Link::handle_resolved`].
    Resolve,
    /// Datagrams go to this address now; answer with [`Link::handle_route`].
    Endpoint(SocketAddr),
    /// The peer answers and fits.
    Up {
        /// Its outer address.
        endpoint: SocketAddr,
        /// What it calls its link.
        name: String,
    },
    /// The peer offers these routes now, in place of those before.
    Routes(Vec<IpNet>),
    /// The peer no longer answers.
    Down {
        /// Why.
        reason: Condition,
    },
    /// A line for the log.
    Log {
        /// From which level on.
        verb: u8,
        /// What it reports.
        condition: Condition,
    },
}

/// Where traffic keys come from.
enum Keying {
    Static(Box<StaticKeying>),
    Handshake(Box<Sessions>),
}

/// The control side of one link.
pub struct Link<R> {
    settings: LinkSettings,
    keys: Arc<LinkKeys>,
    random: R,
    keying: Keying,
    remotes: Remotes,
    endpoint: Option<Path>,
    validation: Option<Validation>,
    peer: Option<Hello>,
    /// What the peer offered last.
    routes: Vec<IpNet>,
    /// Those of them that this host has set.
    taken: Vec<IpNet>,
    /// Inner sources that are the peer's in any case, where they are limited.
    sources: Sources,
    /// Whether the peer's hello fits: frames may pass.
    agreed: bool,
    /// Whether the peer has shown that it has this end's hello as well.
    up: bool,
    /// What the route to the peer takes, in bytes of UDP payload.
    own_budget: usize,
    /// Whether the last hello left something out that the path may not take.
    hello_cut: bool,
    pmtud: Pmtud,
    answered_at: Option<Instant>,
    /// When a hello that asks for one is answered, if another was just before.
    answer_at: Option<Instant>,
    resolve_at: Option<Instant>,
    resumed_at: Option<Instant>,
    sign_at: Option<Instant>,
    /// When a call was last begun because a host said that the peer is away.
    refused_at: Option<Instant>,
    heard_at: Instant,
    /// When the link came up, or frames last passed.
    used_at: Instant,
    /// Frames that passed, and those of the device that found no link.
    frames: [u64; 2],
    /// The peer ended because nothing passed: it is not called before there is a frame for it.
    dormant: bool,
    datagrams_in: u64,
    strangers: u64,
    /// The latest last; it is what still holds.
    said: VecDeque<Said>,
    turns: Turns,
    /// The challenges of the last path validation.
    challenges: [[u8; 16]; 2],
    cloned: Option<Cloned>,
    /// How many lines the peer's words and ways have drawn out.
    lines: RateLimiter,
    stats: Stats,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
}

impl<R: Random> Link<R> {
    /// A link in static mode that begins now: draws its first key id and looks for its peer.
    pub fn new(settings: LinkSettings, keys: Arc<LinkKeys>, now: Now, random: R) -> Self {
        let static_keys = StaticKeys::new(keys.clone(), settings.cipher, settings.direction, now);
        let keying = Keying::Static(Box::new(StaticKeying::new(static_keys)));
        let mut link = Self::with_keying(settings, keying, keys, now, random);
        link.change_key_id(now);
        link
    }

    /// A link in handshake mode that begins now: calls its peer if it has a remote.
    pub fn with_handshake(
        settings: LinkSettings,
        keys: Arc<LinkKeys>,
        statics: Statics,
        now: Now,
        mut random: R,
    ) -> Self {
        let suites = settings.suites.clone();
        let mut sessions = Sessions::new(keys.clone(), statics, suites, now.instant, &mut random);
        if settings.has_remote {
            sessions.begin(now.instant);
        }
        Self::with_keying(settings, Keying::Handshake(Box::new(sessions)), keys, now, random)
    }

    fn with_keying(settings: LinkSettings, keying: Keying, keys: Arc<LinkKeys>, now: Now, random: R) -> Self {
        let Now { instant, .. } = now;
        let mut link = Self {
            keys,
            random,
            keying,
            remotes: Remotes::new(instant),
            endpoint: None,
            validation: None,
            peer: None,
            routes: Vec::new(),
            taken: Vec::new(),
            sources: Sources::default(),
            agreed: false,
            up: false,
            own_budget: BUDGET_BASE,
            hello_cut: false,
            pmtud: Pmtud::new(instant),
            answered_at: None,
            answer_at: None,
            resolve_at: settings.has_remote.then_some(instant),
            resumed_at: None,
            sign_at: None,
            refused_at: None,
            heard_at: instant,
            used_at: instant,
            frames: [0; 2],
            dormant: false,
            datagrams_in: 0,
            strangers: 0,
            said: VecDeque::new(),
            turns: Turns::default(),
            challenges: [[0; 16]; 2],
            cloned: None,
            lines: said::limiter(),
            stats: Stats::default(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            settings,
        };
        #[cfg(test)]
        if fault::is(Fault::HelloNotRequired) {
            link.commands.extend(Command::agreed(true));
        }
        link.say_waiting(instant);
        if link.settings.only_routed {
            link.tell_sources();
        }
        link
    }

    /// What this side of the link counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether the link is up and the peer was heard under the keys of now.
    fn is_settled(&self) -> bool {
        self.up && self.is_known()
    }

    /// Whether the peer's hello is there.
    fn is_known(&self) -> bool {
        self.peer.is_some()
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
            Notice::Unknown { key_id, received } => self.handle_unknown(now, key_id, received),
            // A former process of the peer, whose session is live still, says nothing that counts.
            Notice::Control { under: under @ KeyRef::Session(_), .. } if !self.is_of_peer(under) => {
                self.stats.drop(DropReason::Stale);
            }
            Notice::Control { from, body, under } => match control::decode(&body) {
                Ok(Some(message)) => {
                    self.note_speaker(now.instant, from, under, &message);
                    self.handle_message(now, from, under, message);
                }
                Ok(None) => {}
                Err(_) => self.stats.drop(DropReason::Malformed),
            },
            Notice::Moved { from } => self.handle_moved(now, from),
            Notice::TunnelInTunnel => self.say_tunnel_in_tunnel(),
            Notice::Resumed => self.handle_resumed(now),
            Notice::SourceLost { path } => self.handle_source_lost(now.instant, path),
            Notice::TooLong => self.pmtud.handle_claim(now.instant),
            Notice::Refused { to } => self.handle_refused(now.instant, to),
            Notice::Handshake(received) => self.handle_handshake(now, &received),
            Notice::OtherMode { from, length } => self.handle_other_mode(now.instant, from, length),
            Notice::Confirmed { serial } => self.handle_confirmed(now, serial),
        }
    }

    /// The addresses of the remotes that are known so far, in the order to call; none: no news.
    pub fn handle_resolved(&mut self, now: Now, addresses: &[SocketAddr]) {
        if self.remotes.set(now.instant, addresses) && !self.up {
            self.hasten_call(self.remotes.due);
            self.events.extend(self.remotes.remote().map(Event::Endpoint));
        }
    }

    /// What the kernel's routing says about an endpoint: the MTU of the route, in bytes.
    pub fn handle_route(&mut self, now: Now, address: SocketAddr, mtu: Option<u32>) {
        let Some(target) = self.target().filter(|target| target.remote == address) else { return };
        let budget = self.route_budget(address, mtu);
        if budget != self.own_budget {
            self.own_budget = budget;
            self.set_ceiling(now.instant);
            if self.up {
                self.send_hello(target);
            }
        }
    }

    /// What the lane told, about once a second.
    pub fn handle_report(&mut self, now: Now, report: &Report) {
        let Report { stats: lane, key_used_up, used_length } = report;
        let heard = lane.datagrams_in != self.datagrams_in;
        #[cfg(test)]
        let heard = heard || fault::is(Fault::SilenceIgnored);
        if heard {
            self.datagrams_in = lane.datagrams_in;
            self.heard_at = now.instant;
        }
        self.handle_frames_counted(now.instant, lane);
        let strangers = lane.drops(DropReason::Stranger);
        if strangers > self.strangers && !self.up && self.peer.is_none() {
            self.say_once(now.instant, Condition::KeyMismatch);
        }
        self.strangers = strangers;
        if *used_length {
            self.pmtud.handle_use(now.instant);
        }
        if *key_used_up {
            self.renew_keys(now.instant);
        }
    }

    /// The host slept, its clock was set, or a snapshot of it was restored: then a copy of this process may
    /// be running, and no key is used any more under which it could have sent.
    pub fn handle_resumed(&mut self, now: Now) {
        #[cfg(test)]
        if fault::is(Fault::CopyIgnored) {
            return;
        }
        self.say_resumed(now.instant);
        self.replace_keys(now);
        // Asks the peer for its hello anew, under keys that this end knows.
        self.peer = None;
        self.validation = None;
        self.remotes.restart(now.instant);
    }

    /// Tells the peer that this end stops; `idle`: because nothing passed, and a datagram starts it again.
    pub fn handle_stop(&mut self, idle: bool) {
        if let Some(endpoint) = self.endpoint {
            let reason = if idle { IDLE } else { "stopped" };
            self.send(Message::Bye { reason: reason.into() }, endpoint);
        }
    }

    /// When [`Link::handle_timeout`] must be called next, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.keying_timeout(),
            (self.target().is_some() && !self.dormant).then_some(self.remotes.due),
            self.up.then_some(self.heard_at + self.settings.keepalive.timeout),
            self.resolve_at,
            self.answer_at,
            self.validation.as_ref().map(Validation::poll_timeout),
            self.said.back().map(|said| said.at + REPEAT),
            self.pmtud.poll_timeout().filter(|_| self.is_probing()),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let instant = now.instant;
        self.handle_keying_timeout(now);
        if self.up && instant >= self.heard_at + self.settings.keepalive.timeout {
            self.go_down(instant, Condition::PeerSilent { silence: self.settings.keepalive.timeout });
        }
        if self.resolve_at.is_some_and(|at| at <= instant) {
            self.resolve_at = (!self.up).then_some(instant + RESOLVE);
            if !self.up {
                self.events.push_back(Event::Resolve);
            }
        }
        if self.remotes.due <= instant
            && !self.dormant
            && let Some(target) = self.target()
        {
            self.repeat_hello(instant, target);
        }
        if self.answer_at.is_some_and(|at| at <= instant) {
            self.answer_hello(instant);
        }
        let outcome = self.validation.as_ref().map(|path| path.handle_timeout(instant));
        self.conclude(now, outcome);
        self.handle_search_timeout(instant);
        self.repeat_said(instant);
    }

    fn go_down(&mut self, now: Instant, reason: Condition) {
        self.up = false;
        self.validation = None;
        self.peer = None;
        self.answer_at = None;
        self.set_agreed(false);
        self.events.push_back(Event::Down { reason });
        self.remotes.forget(now);
        if self.settings.has_remote && !self.dormant {
            self.resolve_at = Some(now);
        }
        if self.set_routes(Vec::new()) {
            self.events.push_back(Event::Routes(Vec::new()));
        }
        self.forget_sessions(now);
        self.say_waiting(now);
    }

    /// Where hellos go: the endpoint, or the remote being tried.
    fn target(&self) -> Option<Path> {
        if self.up { self.endpoint } else { self.remotes.remote().map(Path::from).or(self.endpoint) }
    }

    fn is_pinned(&self, from: SocketAddr) -> bool {
        let endpoint = self.endpoint.map(|endpoint| endpoint.remote.ip() == from.ip());
        self.remotes.knows(from) || endpoint.unwrap_or(!self.settings.has_remote)
    }

    fn send(&mut self, message: Message, to: Path) {
        self.send_under(KeySlot::Current, message, to);
    }

    fn send_under(&mut self, under: KeySlot, message: Message, to: Path) {
        let mut body = Vec::new();
        control::encode(&message, &mut body);
        self.commands.push_back(SendCommand::Control { body, to, under }.into());
    }

    fn set_endpoint(&mut self, now: Instant, endpoint: Option<Path>) {
        if self.endpoint == endpoint {
            return;
        }
        self.endpoint = endpoint;
        self.own_budget = endpoint.map_or(BUDGET_BASE, |endpoint| self.route_budget(endpoint.remote, None));
        self.pmtud.reset(now);
        self.set_ceiling(now);
        self.commands.extend(Command::endpoint(endpoint));
        self.events.extend(endpoint.map(|endpoint| Event::Endpoint(endpoint.remote)));
    }

    fn log(&mut self, condition: Condition) {
        self.events.push_back(Event::Log { verb: condition.verb(), condition });
    }
}
