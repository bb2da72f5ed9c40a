//! Several lanes: how many both ends use, and the own way of each lane other than 0 (PROTOCOL.md §7.2).
//!
//! Lane 0 takes the link's own path, the [`PeerPath`](super::path::PeerPath)'s. The end of higher rank opens a way for each other lane from a port
//! of its own, so that the network spreads the lanes. Both ends keep testing it; a lane whose way does not answer goes
//! along lane 0's.

use std::time::Instant;

use super::outbox::Context;
use super::{Event, Link};
use crate::core::condition::Condition;
use crate::core::lane::{KeyRef, KeySlot, SendCommand};
use crate::core::limits::{
    LANE_ASK, LANE_CHANGE, LANE_CHANGES, LANE_CHECK, LANE_FIRST, LANE_LOSSES, LANE_RETRY, LANE_SOCKETS,
};
use crate::core::path::Path;
use crate::core::rate::RateLimiter;
use crate::core::settings::LinkSettings;
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::wire::control::{Message, ping_of_length};
use crate::wire::datagram::Framing;

/// The number of lanes in use, and their ways.
pub(super) struct Lanes {
    /// This end's rank, for its hello.
    rank: u32,
    /// Lanes that carry frames.
    used: u8,
    /// What the peer said when that was decided, and whether this end had keys for them.
    said: ([u32; 2], bool),
    /// Limits changes and socket requests, to stay within what the parent allows.
    changes: RateLimiter,
    sockets: RateLimiter,
    /// The ways of lanes 1 and up.
    ways: Vec<Way>,
}

/// The own way of a lane other than 0.
#[derive(Debug, Default)]
struct Way {
    /// Its path, once one is tried.
    path: Option<Path>,
    /// It answered, so frames take it.
    open: bool,
    /// It has a socket, or one was requested.
    socket: bool,
    /// Number of the last question's ping.
    n: u32,
    /// Unanswered questions.
    unanswered: u32,
    /// When to ask again, or to try it.
    due: Option<Instant>,
}

impl Lanes {
    /// Lane 0 only. An end that calls may be the one that opens ways.
    pub fn new(settings: &LinkSettings, random: &mut impl Random) -> Self {
        let opens = settings.lanes > 1 && settings.has_remote;
        let rank = if opens { u32::from_be_bytes(random.bytes()).max(1) } else { 0 };
        Self {
            rank,
            used: 1,
            said: ([1, 0], true),
            changes: RateLimiter::new(LANE_CHANGES, LANE_CHANGE),
            sockets: RateLimiter::new(LANE_SOCKETS, LANE_ASK),
            ways: Vec::new(),
        }
    }

    /// Rank, for this end's hello.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Lanes in use, and those with an open way of their own.
    pub fn count(&self) -> [u8; 2] {
        let open = self.ways.iter().filter(|way| way.open).count();
        [self.used, u8::try_from(open).unwrap_or(u8::MAX)]
    }

    /// When the next question is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ways.iter().filter_map(|way| way.due).min()
    }

    /// Sets the number of lanes in use. Their ways restart, from own ports to `opens` if this end opens them.
    fn restart(&mut self, now: Instant, used: u8, opens: Option<Path>, cx: &mut Context<impl Random>) {
        for (lane, way) in (1..).zip(&mut self.ways) {
            way.close(lane, cx);
        }
        if self.used != used {
            self.used = used;
            cx.out.events.push_back(Event::Lanes(used));
        }
        self.ways = (1..used).map(|_| Way::default()).collect();
        if let Some(peer) = opens {
            self.ways.iter_mut().for_each(|way| way.try_later(peer.from_own_port(), now));
        }
    }
}

impl Way {
    /// Tries it at this time.
    fn try_later(&mut self, path: Path, at: Instant) {
        *self = Self { path: Some(path), due: Some(at), ..Self::default() };
    }

    /// Moves the lane to lane 0's way.
    fn close(&mut self, lane: u8, cx: &mut Context<impl Random>) {
        if self.open {
            cx.out.command(SendCommand::Way { lane, way: None });
        }
        if self.socket {
            cx.out.events.push_back(Event::LaneSocket { lane, way: None });
        }
        *self = Self::default();
    }

    /// Requests a socket for this way: before the first question if that leaves from an own port, else once it has answered.
    fn ask_for_socket(
        &mut self,
        now: Instant,
        lane: u8,
        sockets: &mut RateLimiter,
        cx: &mut Context<impl Random>,
    ) {
        if !self.socket && sockets.allow(now) {
            self.socket = true;
            cx.out.events.push_back(Event::LaneSocket { lane, way: self.path });
        }
    }

    /// Sends a question of `length` bytes along the way, or abandons it; returns what is wrong.
    fn handle_timeout(
        &mut self,
        now: Instant,
        lane: u8,
        length: usize,
        sockets: &mut RateLimiter,
        cx: &mut Context<impl Random>,
    ) -> Option<Condition> {
        let path = self.path?;
        if path.own_port && !self.socket {
            self.ask_for_socket(now, lane, sockets, cx);
            self.due = Some(now + if self.socket { LANE_FIRST } else { LANE_ASK });
            return None;
        }
        if self.unanswered >= LANE_LOSSES {
            let lost = self.open.then_some(Condition::LaneLost { lane });
            self.close(lane, cx);
            if path.own_port {
                self.try_later(path, now + LANE_RETRY);
            }
            return lost;
        }
        if self.unanswered == 0 {
            self.n = u32::from_be_bytes(cx.random.bytes());
        }
        self.unanswered += 1;
        self.due = Some(now + LANE_ASK);
        let body = ping_of_length(self.n, length);
        cx.out.command(SendCommand::Control { body, to: path, under: KeySlot::Current, lane });
        None
    }

    /// The peer asks along a way that it has opened.
    fn handle_asked(&mut self, now: Instant, lane: u8, from: Path, cx: &mut Context<impl Random>) {
        if self.path != Some(from) {
            self.close(lane, cx);
            self.try_later(from, now);
        }
    }

    /// Handles the peer's answer; false if nothing was asked along this way.
    fn handle_reply(&mut self, lane: u8, from: Path, n: u32, cx: &mut Context<impl Random>) -> bool {
        let path = self.path.filter(|path| path.covers(&from) && path.own_port == from.own_port);
        if path.is_none() || self.unanswered == 0 || n != self.n {
            return false;
        }
        self.unanswered = 0;
        if !self.open {
            self.open = true;
            cx.out.command(SendCommand::Way { lane, way: path });
        }
        true
    }
}

impl<R: Random> Link<R> {
    /// What determines the number of lanes in use.
    fn said_of_lanes(&self) -> ([u32; 2], bool) {
        let peer = self.greeting.peer().map_or([1, 0], |peer| [u32::from(peer.lanes), peer.rank]);
        (peer, self.keying.pairs_lanes())
    }

    /// Decides anew how many lanes are in use and where their ways lead.
    pub(super) fn restart_lanes(&mut self, now: Instant) {
        let endpoint = self.path.endpoint().filter(|endpoint| self.is_up() && !endpoint.stream);
        self.lanes.said = self.said_of_lanes();
        let ([lanes, rank], keyed) = self.lanes.said;
        let lanes = u8::try_from(lanes).unwrap_or(1).min(self.settings.lanes);
        let used = if endpoint.is_some() && keyed { lanes } else { 1 };
        let opens = endpoint.filter(|_| self.lanes.rank > rank);
        self.lanes.restart(now, used, opens, &mut self.cx);
    }

    /// A hello of a peer that is up may differ from the one before, or give the lanes their keys.
    pub(super) fn review_lanes(&mut self, now: Instant) {
        if !self.is_up() || self.settings.lanes == 1 || self.lanes.said == self.said_of_lanes() {
            return;
        }
        // Without keys, frames return to lane 0 at once.
        if !self.keying.pairs_lanes() || self.lanes.changes.allow(now) {
            self.restart_lanes(now);
        }
    }

    pub(super) fn handle_lanes_timeout(&mut self, now: Instant) {
        // Each way must carry what the link's does, if there is traffic.
        let longest = self.path.budget().saturating_sub(Framing::from(self.settings.key_mode).overhead());
        let is_used = now < self.liveness.used_at() + LANE_CHECK;
        let mut lost = Vec::new();
        for (lane, way) in (1..).zip(&mut self.lanes.ways) {
            if way.due.is_some_and(|due| due <= now) {
                let length = if is_used || !way.open { longest } else { 0 };
                lost.extend(way.handle_timeout(now, lane, length, &mut self.lanes.sockets, &mut self.cx));
            }
        }
        lost.into_iter().for_each(|condition| self.say(now, condition));
    }

    /// This host no longer sends from a path's own address.
    pub(super) fn leave_lane_ways(&mut self, path: Path) {
        for (lane, way) in (1..).zip(&mut self.lanes.ways) {
            if way.path == Some(path) && !path.own_port {
                way.close(lane, &mut self.cx);
            }
        }
    }

    /// Handles a control message in a lane other than 0: only questions about its way, and answers.
    pub(super) fn handle_in_lane(
        &mut self,
        now: Instant,
        lane: u8,
        from: Path,
        under: KeyRef,
        message: &Message,
    ) {
        let is_of_peer = self.keying.is_of_peer(under);
        let Some(way) = self.lanes.ways.get_mut(usize::from(lane).wrapping_sub(1)) else { return };
        match *message {
            Message::Ping { .. } | Message::Pong { .. } if from.stream => {}
            Message::Ping { n, .. } => {
                let received = self.liveness.datagrams_in();
                self.cx.out.control_in(lane, &Message::Pong { n, received }, from);
                // The link's way is not the lane's own, but its host is the peer's.
                let endpoint = self.path.endpoint();
                let is_other = endpoint.is_some_and(|endpoint| !endpoint.covers(&from));
                let is_host = self.path.is_host(from.remote) == Some(true);
                let opens = way.path.is_some_and(|path| path.own_port);
                if is_of_peer && is_other && is_host && !opens {
                    way.handle_asked(now, lane, from, &mut self.cx);
                }
            }
            Message::Pong { n, .. } => {
                if way.handle_reply(lane, from, n, &mut self.cx) {
                    way.due = Some(now + self.settings.keepalive.interval.min(LANE_CHECK));
                    way.ask_for_socket(now, lane, &mut self.lanes.sockets, &mut self.cx);
                }
            }
            _ => self.stats.drop(DropReason::Malformed),
        }
    }
}
