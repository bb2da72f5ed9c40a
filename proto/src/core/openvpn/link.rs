//! The link to an OpenVPN peer: its address, whether it is there, which of its starts are accepted, and its options.
//!
//! Used like [`crate::core::link::Link`]. There is no hello: whatever verifies and is new comes from the peer, and brings
//! the link up.

mod events;
pub mod upgrade;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::admission::{Admission, Kept, Verdict};
use super::lane::{Command, Receive, Send};
use super::options::Options;
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::guard::{self, Act, Loops};
use crate::core::limits::REPEAT;
use crate::core::link::Event;
use crate::core::link::liveness::Liveness;
use crate::core::link::outbox::Outbox;
use crate::core::path::Path;
use crate::core::rate::RateLimiter;
use crate::core::remotes::Remotes;
use crate::core::settings::LinkSettings;
use crate::core::sources::Sources;
use crate::core::stats::{DropReason, Stats};
use crate::crypto::Random;
use crate::wire::openvpn::{Occ, PING, PacketId, Told};

/// Interval of requests for the peer's options ...
const ASK: Duration = Duration::from_secs(10);
/// ... and their number.
const ASKS: u32 = 11;
/// Burst of answers to the peer's requests, then one per [`ANSWER`].
const ANSWERS: u32 = 10;
/// See [`ANSWERS`].
const ANSWER: Duration = Duration::from_secs(1);
/// Most distinct lines that are not repeated within [`REPEAT`].
const SAID: usize = 8;
/// Datagram size requested from a silent peer, to see whether it is there.
const ALIVE: u16 = 100;

/// A start of the peer to be accepted once its time is kept.
struct Pending {
    kept: Kept,
    time: u32,
    after: Option<u32>,
    from: Path,
    plain: Vec<u8>,
}

/// The control side of one link.
pub struct Link<R> {
    settings: LinkSettings,
    options: Options,
    random: R,
    admission: Admission,
    pending: Option<Pending>,
    /// The time that the lane numbers under.
    started: u32,
    remotes: Remotes,
    endpoint: Option<Path>,
    up: bool,
    /// The peer said that it ends: only another start of it counts.
    gone: bool,
    /// Why the link is down, or what is odd about the peer.
    said: VecDeque<(Instant, Condition)>,
    liveness: Liveness,
    ping_at: Option<Instant>,
    resolve_at: Option<Instant>,
    ask_at: Option<Instant>,
    asks: u32,
    answers: RateLimiter,
    guard: guard::Watch,
    loops: Loops,
    sources: Sources,
    stats: Stats,
    out: Outbox<Command>,
}

impl<R: Random> Link<R> {
    /// Starts a link. `kept.own` is its start, already kept. `None` if the settings are of another key mode.
    pub fn new(settings: LinkSettings, kept: Kept, now: Now, mut random: R) -> Option<Self> {
        let options = settings.openvpn.as_ref()?.options.clone();
        let (beyond, block) = (options.counted_overhead(), options.layout().block);
        let mut link = Self {
            admission: Admission::new(kept, [beyond, beyond + block]),
            options,
            pending: None,
            started: 0,
            remotes: Remotes::new(now.instant),
            endpoint: None,
            up: false,
            gone: false,
            said: VecDeque::with_capacity(SAID),
            liveness: Liveness::new(now.instant),
            ping_at: None,
            resolve_at: settings.has_remote.then_some(now.instant),
            ask_at: None,
            asks: 0,
            answers: RateLimiter::new(ANSWERS, ANSWER),
            guard: guard::Watch::default(),
            loops: Loops::new(settings.finds_loops(), &mut random),
            sources: Sources::default(),
            stats: Stats::default(),
            out: Outbox::default(),
            random,
            settings,
        };
        link.start(kept.own);
        if !link.settings.has_remote {
            link.say_once(now.instant, Condition::NoRemote);
        }
        link.tell_sources();
        Some(link)
    }

    fn start(&mut self, time: u32) {
        self.started = time;
        self.out.command(Send::Start(time));
    }

    /// Requests another own start, which begins once its time is kept.
    fn restart(&mut self, now: Now) {
        let kept = self.admission.restart(seconds(now));
        self.out.events.push_back(Event::Keep(kept));
    }

    fn send(&mut self, payload: Vec<u8>, to: Path) {
        self.out.command(Send::Payload { payload, to });
    }

    /// The peer's path, as far as known.
    fn target(&self) -> Option<Path> {
        if self.up { self.endpoint } else { self.remotes.remote().or(self.endpoint) }
    }

    /// Whether the peer may be at `from`: at its remote or, with `float` and without a remote, anywhere.
    fn may_be_at(&mut self, now: Instant, from: Path) -> bool {
        let here = self.endpoint.is_some_and(|endpoint| endpoint.remote.ip() == from.remote.ip());
        let may = self.settings.float || !self.settings.has_remote || here || self.remotes.knows(from.remote);
        if !may {
            self.say_once(now, Condition::PeerPinned { from: from.remote });
        }
        may
    }

    fn handle_other_start(
        &mut self,
        now: Now,
        from: Path,
        id: PacketId,
        load: Option<usize>,
        plain: Vec<u8>,
    ) {
        if self.pending.is_some() || !self.may_be_at(now.instant, from) {
            return self.stats.drop(DropReason::Stale);
        }
        match self.admission.judge(now.instant, seconds(now), id, load, &mut self.random) {
            Verdict::Take { kept, after } => {
                self.pending = Some(Pending { kept, time: id.time, after, from, plain });
                self.out.events.push_back(Event::Keep(kept));
            }
            Verdict::Ask(size) => {
                self.say_once(now.instant, Condition::OpenVpnStart { time: id.time });
                self.send(Occ::load_request(size), from);
            }
            Verdict::Nothing => self.stats.drop(DropReason::Stale),
        }
    }

    /// The requested numbers are kept: continues what waited for that.
    fn take_pending(&mut self, now: Now, kept: Kept) {
        let Some(Pending { time, after, from, plain, .. }) =
            self.pending.take_if(|it| it.kept.admitted <= kept.admitted)
        else {
            return;
        };
        self.move_to(from);
        self.out.commands.extend([Send::Agreed(true).into(), Receive::Agreed(true).into()]);
        self.out.command(Receive::Begin { time, after });
        self.out.command(Receive::Again { from, plain });
        self.liveness.handle_heard(now.instant);
        self.gone = false;
        self.rise(now.instant);
        if self.options.direction.is_none()
            && let Some(kept) = self.admission.follow(now.instant, seconds(now), time)
        {
            self.out.events.push_back(Event::Keep(kept));
        }
    }

    fn move_to(&mut self, to: Path) {
        if self.endpoint != Some(to) {
            let moved = self.endpoint.is_none_or(|old| old.remote != to.remote);
            self.endpoint = Some(to);
            self.out.commands.extend([Send::Endpoint(to).into(), Receive::Endpoint(to).into()]);
            if moved {
                self.out.events.push_back(Event::Endpoint(to));
            }
        }
        self.remotes.prefer(to);
    }

    /// The peer is there.
    fn rise(&mut self, now: Instant) {
        let Some(endpoint) = self.endpoint.filter(|_| !self.up) else { return };
        self.up = true;
        self.liveness.handle_up(now);
        self.loops.handle_up(now, &mut self.random);
        self.resolve_at = None;
        self.said.clear();
        self.remotes.restart(now);
        (self.ask_at, self.asks) = (Some(now + ASK), 0);
        // It may wait for the first word.
        self.send(PING.to_vec(), endpoint);
        self.ping_at = Some(now + self.settings.keepalive.interval);
        self.out.events.push_back(Event::Up { endpoint, name: "OpenVPN".into() });
    }

    fn go_down(&mut self, now: Instant, reason: Condition) {
        if !std::mem::take(&mut self.up) {
            return;
        }
        (self.ping_at, self.ask_at) = (None, None);
        self.loops.handle_down();
        self.remotes.forget(now);
        self.resolve_at = self.settings.has_remote.then_some(now);
        self.out.events.push_back(Event::Down { reason });
    }

    fn handle_message(&mut self, now: Instant, from: Path, payload: &[u8]) {
        let Some(message) = Occ::parse(payload) else { return };
        let beyond = self.options.counted_overhead();
        match message {
            Occ::Request => self.answer(now, from, |link| Occ::reply(&link.options.text())),
            Occ::LoadRequest(size) => self.answer(now, from, |_| Occ::load(size, beyond)),
            Occ::MtuRequest => self.answer(now, from, |_| Occ::mtu_reply(0, 0)),
            Occ::Reply(text) => {
                self.ask_at = None;
                for difference in self.options.differences(text) {
                    self.say_once(now, Condition::OpenVpnOptions(difference));
                }
            }
            Occ::Exit => {
                self.gone = true;
                self.go_down(now, Condition::PeerGoodbye { reason: "exit notice".into() });
            }
            Occ::Load(_) | Occ::MtuReply | Occ::Tund | Occ::Unknown(_) => {}
        }
    }

    fn answer(&mut self, now: Instant, to: Path, payload: impl FnOnce(&Self) -> Vec<u8>) {
        if self.answers.allow(now) {
            let payload = payload(self);
            self.send(payload, to);
        }
    }

    fn handle_framed(&mut self, now: Instant, told: Told) {
        let detects = self.settings.openvpn.as_ref().is_some_and(|wire| wire.detect);
        if told.fragments != self.options.fragments || !detects {
            let condition = Condition::OpenVpnFraming {
                theirs: told.framing.name().into(),
                ours: self.options.framing.name().into(),
                their_fragment: told.fragments,
                our_fragment: self.options.fragments,
            };
            self.say_once(now, condition);
        }
        if detects && told.framing != self.options.framing {
            self.options.framing = told.framing;
            self.out.command(Send::Framing(told.framing));
        }
    }

    /// Logs once, and again if it still holds after [`REPEAT`].
    fn say_once(&mut self, now: Instant, condition: Condition) {
        self.said.retain(|(at, _)| now.saturating_duration_since(*at) < REPEAT);
        if self.said.len() == SAID || self.said.iter().any(|(_, said)| *said == condition) {
            return;
        }
        self.said.push_back((now, condition.clone()));
        self.out.log(condition);
    }

    /// Tells the peer nothing, as it would not understand.
    fn act_on_loops(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Probe(origin, round) => self.out.command(Receive::Probe(origin, round)),
                Act::Hold(held) => {
                    self.out.command(Send::Hold(held));
                    self.out.command(Receive::Hold(held));
                }
                Act::Say(condition) => self.out.log(condition),
                Act::Rerouted { passes } => self.out.events.push_back(Event::Rerouted { passes }),
                Act::Tell(_) => {}
            }
        }
    }

    fn tell_sources(&mut self) {
        let sources = self.settings.only_routed.then(|| self.sources.clone());
        self.out.command(Receive::Sources(sources));
    }

    /// Calls the next remote, so that it learns of this end.
    fn call(&mut self, now: Instant) {
        let Some(to) = self.target() else { return };
        self.send(PING.to_vec(), to);
        // A peer without `ping` is silent by itself. While a start is being proved, an answer would count as wrong.
        if !self.admission.is_asking() {
            self.send(Occ::load_request(ALIVE), to);
        }
        if self.remotes.handle_called(now, to, !self.up) {
            self.say_once(now, Condition::NoAnswer { remote: to.remote, others: self.remotes.others() });
        }
        self.remotes.schedule(now, None, &mut self.random);
    }

    /// Sends a keepalive. If the peer was silent as long, requests a sign, which every OpenVPN gives.
    fn ping(&mut self, now: Instant) {
        let interval = self.settings.keepalive.interval;
        self.ping_at = Some(now + interval);
        let Some(to) = self.endpoint else { return };
        let silent = now.saturating_duration_since(self.liveness.heard_at()) >= interval;
        self.send(if silent { Occ::load_request(ALIVE) } else { PING.to_vec() }, to);
    }
}

fn seconds(now: Now) -> u32 {
    u32::try_from(now.wall / 1_000_000).unwrap_or(u32::MAX)
}
