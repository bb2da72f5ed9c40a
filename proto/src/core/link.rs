//! The link as a state machine, composed of parts each of which alone writes its own state.
//!
//! Inputs are the `handle_*` methods. After each, call [`Control::poll_command`](super::control::Control::poll_command) until it is empty and
//! pass the commands to the lane, then `poll_event` until it is empty, and call `handle_timeout` by the time that `poll_timeout`
//! returns. `Now::instant` never goes back.

mod asks;
mod carriers;
mod events;
mod greeting;
mod hellos;
mod keying;
mod lanes;
pub(super) mod liveness;
mod loops;
mod notices;
mod offers;
pub(super) mod outbox;
mod path;
mod peer;
mod phase;
mod timers;

use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::clock::Now;
use super::clones::Clones;
use super::condition::Condition;
use super::guard::{self, Loops};
use super::lane::{Command, KeySlot};
use super::openvpn::admission::Kept;
use super::path::Path;
use super::remotes::Remotes;
use super::stats::Stats;
use crate::core::settings::LinkSettings;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
use crate::wire::control::Message;

use carriers::Carriers;
use greeting::Greeting;
use keying::Keying;
use lanes::Lanes;
use liveness::Liveness;
use log::Level;
use notices::Notices;
use offers::Offers;
use outbox::{Context, Outbox};
use path::PeerPath;
use phase::Phase;

/// Goodbye reason of an idle end, which a datagram restarts (PROTOCOL.md §7).
const IDLE: &str = "idle";

/// Tells the owner of a link what to do or report.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Look up the remotes; reply with [`Control::handle_resolved`](super::control::Control::handle_resolved).
    Resolve,
    /// Datagrams now go to this address; reply with [`Control::handle_route`](super::control::Control::handle_route).
    Endpoint(Path),
    /// The peer answers and matches.
    Up {
        /// Its outer address.
        endpoint: Path,
        /// Its name for the link.
        name: String,
    },
    /// The routes that the peer now offers, replacing earlier ones.
    Routes(Vec<IpNet>),
    /// The peer no longer answers.
    Down {
        /// Why.
        reason: Condition,
    },
    /// Traffic between the bridged segments takes another path: forget where hosts were.
    Rerouted {
        /// Whether it goes through this link.
        passes: bool,
    },
    /// So many lanes now carry frames: the device distributes frames over them.
    Lanes(u8),
    /// Open a socket for a lane other than 0, for its own way; `None`: it has no such way.
    LaneSocket {
        /// The lane.
        lane: u8,
        /// The way.
        way: Option<Path>,
    },
    /// Store these two numbers on disk; reply with [`Control::handle_kept`](super::control::Control::handle_kept).
    Keep(Kept),
    /// A line for the log.
    Log {
        /// Log level.
        level: Level,
        /// Condition to report.
        condition: Condition,
    },
}

/// The control side of one link.
pub struct Link<R> {
    settings: LinkSettings,
    phase: Phase,
    keying: Box<dyn Keying<R>>,
    remotes: Remotes,
    carriers: Carriers,
    path: PeerPath,
    greeting: Greeting,
    liveness: Liveness,
    offers: Offers,
    clones: Clones,
    notices: Notices,
    guard: guard::Watch,
    /// What the link suffers from while it is up, and when that was last seen.
    lasting: Option<(Instant, Condition)>,
    loops: Loops,
    lanes: Lanes,
    stats: Stats,
    cx: Context<R>,
}

impl<R: Random> Link<R> {
    /// Starts a link in the key mode of its settings. `statics` are for handshake mode.
    pub fn new(settings: LinkSettings, keys: Arc<LinkKeys>, statics: Statics, now: Now, random: R) -> Self {
        let (instant, mut cx) = (now.instant, Context { random, out: Outbox::default() });
        let keying = keying::for_mode(&settings, keys, statics, now, &mut cx);
        let mut link = Self {
            phase: Phase::Away { resolve_at: settings.has_remote.then_some(instant) },
            keying,
            remotes: Remotes::new(instant),
            carriers: Carriers::default(),
            path: PeerPath::new(instant, settings.path_mtu),
            greeting: Greeting::default(),
            liveness: Liveness::new(instant),
            offers: Offers::default(),
            clones: Clones::default(),
            notices: Notices::new(),
            guard: guard::Watch::default(),
            lasting: None,
            loops: Loops::new(settings.finds_loops(), &mut cx.random),
            lanes: Lanes::new(&settings, &mut cx.random),
            stats: Stats::default(),
            cx,
            settings,
        };
        link.say_waiting(instant);
        if link.settings.only_routed {
            link.tell_sources();
        }
        link
    }

    /// The next command for the lane, as [`Control::poll_command`](super::control::Control::poll_command).
    pub fn poll_command(&mut self) -> Option<Command> {
        self.cx.out.commands.pop_front()
    }

    /// Whether the peer answers and matches.
    pub fn is_up(&self) -> bool {
        self.phase.is_up()
    }

    /// Brings the link up once the peer has this end's hello and opens what it sends: from then on, frames arrive.
    fn rise(&mut self, now: Instant) {
        let Phase::Agreed { .. } = self.phase else { return };
        let (Some(endpoint), Some(peer)) = (self.path.endpoint(), self.greeting.peer()) else { return };
        if !peer.seen || !self.keying.is_heard() {
            return;
        }
        let up = Event::Up { endpoint, name: peer.name.clone() };
        self.cx.out.events.push_back(up);
        self.phase = Phase::Up;
        self.liveness.handle_up(now);
        self.loops.handle_up(now, &mut self.cx.random);
        self.notices.clear();
        self.remotes.restart(now);
        // The peer waits for the same.
        self.send_hello(endpoint);
        self.schedule_hello(now);
        self.restart_lanes(now);
        if self.offers.is_any() {
            self.offers.tell_offered(&mut self.cx.out);
        }
    }

    fn go_down(&mut self, now: Instant, reason: Condition) {
        let resolve_at = self.settings.has_remote.then_some(now);
        let idle = reason == Condition::PeerIdle;
        self.phase = if idle { Phase::Dormant } else { Phase::Away { resolve_at } };
        self.greeting.end();
        self.loops.handle_down();
        self.path.forget_peer();
        self.restart_lanes(now);
        self.cx.out.commands.extend(Command::agreed(false));
        self.cx.out.events.push_back(Event::Down { reason });
        self.remotes.forget(now);
        if self.offers.handle_offered(Vec::new()) {
            self.offers.tell_offered(&mut self.cx.out);
        }
        self.end_keys(now);
        self.say_waiting(now);
    }

    /// There is something for an idle peer.
    fn wake(&mut self, now: Instant) {
        if self.phase == Phase::Dormant {
            self.phase.look_up(self.settings.has_remote.then_some(now));
            self.remotes.restart(now);
            self.call_if_remote(now);
        }
    }

    /// Destination of hellos: the endpoint, or the remote being tried.
    fn target(&self) -> Option<Path> {
        let remote = self.remotes.remote().filter(|_| !self.is_up());
        remote.or(self.path.endpoint())
    }

    fn send(&mut self, message: Message, to: Path) {
        self.cx.out.control(KeySlot::Current, &message, to);
    }

    fn set_endpoint(&mut self, now: Instant, endpoint: Path) {
        let endpoint = Path { own_port: false, ..endpoint };
        if self.path.set_endpoint(now, endpoint, &mut self.cx.out) {
            self.carriers.restart(now);
            self.restart_lanes(now);
            self.cx.out.events.push_back(Event::Endpoint(endpoint));
        }
    }

    fn say_waiting(&mut self, now: Instant) {
        if !self.settings.has_remote {
            self.say_once(now, Condition::NoRemote);
        }
    }

    fn say_once(&mut self, now: Instant, condition: Condition) {
        self.notices.say_once(now, condition, &mut self.cx.out);
    }

    fn say(&mut self, now: Instant, condition: Condition) {
        self.notices.say(now, condition, &mut self.cx.out);
    }
}
