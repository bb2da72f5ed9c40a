//! The parent's door: which requests of the engine are admitted, and when.
//!
//! The engine reads the network and may be compromised, and an honest one passes on what its peer triggers. So each kind of request has a limit
//! ([`Kind::rule`]), checked here before any work is done. A request that reports the current state is not lost over its limit: the last of its kind
//! (for sockets, the last for each lane) waits, and is admitted when the limit allows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::Level;

use super::message::ToParent;
use crate::config::{MAX_ACCEPTED, MAX_LANES};
use crate::core::keylog::Entry;
use crate::core::rate::RateLimiter;

/// Log lines up to this level are for everyone; the others are for those who ask for them.
const READ_BY_ALL: Level = Level::Debug;

/// Kinds of requests. Each has a limit; of those waiting for it, only the last one (or last for a lane) is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`ToParent::Locked`].
    Locked,
    /// [`ToParent::Keep`].
    Keep,
    /// [`ToParent::Resolve`].
    Resolve,
    /// [`ToParent::Endpoint`].
    Endpoint,
    /// [`ToParent::Connect`].
    Connect,
    /// [`ToParent::Stream`].
    Stream,
    /// [`ToParent::OpenDevice`].
    OpenDevice,
    /// [`ToParent::LinkUp`] and [`ToParent::LinkDown`].
    Link,
    /// [`ToParent::Rerouted`].
    Rerouted,
    /// [`ToParent::PushedRoutes`].
    PushedRoutes,
    /// [`ToParent::State`].
    State,
    /// [`ToParent::Traffic`].
    Traffic,
    /// [`ToParent::Log`], at a level shown by default.
    Log,
    /// [`ToParent::Log`], at debugging levels.
    Trace,
    /// [`ToParent::KeyLog`] of a session or key id.
    KeyLog,
    /// [`ToParent::KeyLog`] of a handshake.
    HandshakeLog,
    /// [`ToParent::Exit`].
    Exit,
}

/// The rate limit of a kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Most at once, after a pause.
    pub burst: u32,
    /// One more per this interval in the long run.
    pub every: Duration,
    /// What happens to the others.
    pub over: Over,
}

/// What happens to a request over its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It waits, replacing an earlier one of its kind and lane.
    Waits,
    /// It is counted and dropped.
    Dropped,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 17] = [
        Kind::Locked,
        Kind::Keep,
        Kind::Resolve,
        Kind::Endpoint,
        Kind::Connect,
        Kind::Stream,
        Kind::OpenDevice,
        Kind::Link,
        Kind::Rerouted,
        Kind::PushedRoutes,
        Kind::State,
        Kind::Traffic,
        Kind::Log,
        Kind::Trace,
        Kind::KeyLog,
        Kind::HandshakeLog,
        Kind::Exit,
    ];

    /// The kind of a request.
    pub fn of(message: &ToParent) -> Self {
        match message {
            ToParent::Locked { .. } => Kind::Locked,
            ToParent::Keep(_) => Kind::Keep,
            ToParent::Resolve => Kind::Resolve,
            ToParent::Endpoint(_) => Kind::Endpoint,
            ToParent::Connect { .. } => Kind::Connect,
            ToParent::Stream { .. } => Kind::Stream,
            ToParent::OpenDevice => Kind::OpenDevice,
            ToParent::LinkUp { .. } | ToParent::LinkDown { .. } => Kind::Link,
            ToParent::Rerouted { .. } => Kind::Rerouted,
            ToParent::PushedRoutes { .. } => Kind::PushedRoutes,
            ToParent::State(_) => Kind::State,
            ToParent::Traffic(_) => Kind::Traffic,
            ToParent::Log { level, .. } if *level <= READ_BY_ALL => Kind::Log,
            ToParent::Log { .. } => Kind::Trace,
            ToParent::KeyLog(Entry::Handshake { .. }) => Kind::HandshakeLog,
            ToParent::KeyLog(Entry::Link { .. } | Entry::Traffic { .. }) => Kind::KeyLog,
            ToParent::Exit { .. } => Kind::Exit,
        }
    }

    /// The limit of this kind. The burst covers an honest engine in the worst honest case.
    pub fn rule(self) -> Rule {
        let rule = |burst, every, over| Rule { burst, every: Duration::from_millis(every), over };
        match self {
            // Once per engine; a reload may start another.
            Kind::Locked | Kind::OpenDevice | Kind::Exit => rule(4, 10_000, Over::Dropped),
            // A process each, unless addresses are configured.
            Kind::Resolve => rule(10, 2000, Over::Waits),
            // A file on disk; a peer may advance its time every second.
            Kind::Keep => rule(20, 1000, Over::Waits),
            // Route lookups; all routes are read again if they depend on it.
            Kind::Endpoint => rule(20, 1000, Over::Waits),
            // A socket each.
            Kind::Stream => rule(20, 1000, Over::Waits),
            // The same for each lane. A peer that restarts at once has all of them opened twice.
            Kind::Connect => rule(20 + 2 * u32::from(MAX_LANES), 1000, Over::Waits),
            // All routes read again for a full tunnel, a script, some log lines. Each manual restart of the peer must be reported.
            Kind::Link => rule(30, 5000, Over::Waits),
            // All interfaces and addresses read. A loop takes half a minute at least to begin and end.
            Kind::Rerouted => rule(20, 2000, Over::Waits),
            // All routes read, and up to the whole offer changed, with a line each: it counts once per route.
            Kind::PushedRoutes => rule(40, 500, Over::Waits),
            // The answer to a question that any client of the control socket may ask.
            Kind::State => rule(40, 50, Over::Waits),
            Kind::Traffic => rule(20, 1000, Over::Waits),
            // In the long run some 20 MB a day.
            Kind::Log => rule(200, 500, Over::Dropped),
            Kind::Trace => rule(400, 5, Over::Dropped),
            Kind::KeyLog => rule(100, 100, Over::Dropped),
            // Anyone can replay this many handshakes to a restarted end; they must not displace the keys above.
            Kind::HandshakeLog => rule(100, 500, Over::Dropped),
        }
    }
}

/// The door's verdict on a request.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Carry it out.
    Do {
        /// The request.
        message: ToParent,
        /// How many of its kind were dropped since the last one admitted.
        dropped: u64,
    },
    /// Nothing now.
    Nothing,
}

/// The door of one parent.
pub struct Door {
    places: [Place; Kind::ALL.len()],
}

struct Place {
    limit: RateLimiter,
    /// By lane; 0 if for none.
    waiting: BTreeMap<u8, ToParent>,
}

impl Default for Door {
    /// No requests yet.
    fn default() -> Self {
        let place = |kind: Kind| {
            let Rule { burst, every, over: _ } = kind.rule();
            Place { limit: RateLimiter::new(burst, every), waiting: BTreeMap::new() }
        };
        Self { places: Kind::ALL.map(place) }
    }
}

impl Door {
    /// Judges a request.
    pub fn handle(&mut self, now: Instant, message: ToParent) -> Verdict {
        if let ToParent::PushedRoutes { routes } = &message
            && routes.len() > MAX_ACCEPTED
        {
            return Verdict::Nothing;
        }
        let kind = Kind::of(&message);
        let Place { limit, waiting } = &mut self.places[kind as usize];
        match kind.rule().over {
            Over::Waits => _ = waiting.insert(lane(&message), message),
            Over::Dropped if limit.allow(now) => {
                return Verdict::Do { message, dropped: limit.take_refused() };
            }
            Over::Dropped => return Verdict::Nothing,
        }
        match take(&mut self.places[kind as usize], now) {
            Some(message) => Verdict::Do { message, dropped: 0 },
            None => Verdict::Nothing,
        }
    }

    /// The next waiting request that is now admitted. To be called until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<ToParent> {
        self.places.iter_mut().find_map(|place| take(place, now))
    }

    /// When [`Door::poll`] has something to return.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let waiting = self.places.iter().filter(|place| !place.waiting.is_empty());
        waiting.map(|place| place.limit.free_at(now)).min()
    }

    /// Drops what waits once the engine is gone; returns only its last totals.
    pub fn close(&mut self) -> Option<ToParent> {
        let totals = self.places[Kind::Traffic as usize].waiting.pop_first();
        self.places.iter_mut().for_each(|place| place.waiting.clear());
        totals.map(|(_, message)| message)
    }
}

fn lane(message: &ToParent) -> u8 {
    if let ToParent::Connect { lane, .. } = message { *lane } else { 0 }
}

fn take(place: &mut Place, now: Instant) -> Option<ToParent> {
    let first = place.waiting.first_entry()?;
    if place.limit.free_at(now) > now || !place.limit.allow(now) {
        return None;
    }
    let message = first.remove();
    if let ToParent::PushedRoutes { routes } = &message {
        place.limit.charge(u32::try_from(routes.len().saturating_sub(1)).unwrap_or(u32::MAX));
    }
    Some(message)
}

#[cfg(test)]
mod tests;
