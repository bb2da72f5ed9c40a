//! How long datagrams to the peer may be.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Keying, Link};
use crate::core::condition::Condition;
use crate::core::lane::{KeyRef, KeySlot, SendCommand};
use crate::core::limits::{BUDGET_BASE, BUDGET_LEAST, OUTER_V4, OUTER_V6, SILENCE};
use crate::crypto::Random;
use crate::wire::control;
use crate::wire::datagram::Framing;

impl<R: Random> Link<R> {
    /// The budget is searched for while the link is up, unless it is configured.
    pub(super) fn is_probing(&self) -> bool {
        self.up && self.settings.path_mtu.is_none()
    }

    /// What the route takes, in bytes of UDP payload; `mtu` is what the host says of it.
    pub(super) fn route_budget(&self, address: SocketAddr, mtu: Option<u32>) -> usize {
        let outer = if address.ip().to_canonical().is_ipv4() { OUTER_V4 } else { OUTER_V6 };
        let mtu = self.settings.path_mtu.or(mtu).and_then(|mtu| usize::try_from(mtu).ok());
        mtu.map_or(BUDGET_BASE, |mtu| mtu.saturating_sub(outer))
    }

    /// Route or peer say anew how long datagrams may be at most.
    pub(super) fn set_ceiling(&mut self, now: Instant) {
        let ceiling = self.ceiling();
        if self.settings.path_mtu.is_some() {
            self.commands.push_back(SendCommand::Budget(ceiling).into());
        } else {
            self.pmtud.set_ceiling(now, ceiling);
            self.commands.push_back(SendCommand::Budget(self.pmtud.budget()).into());
        }
    }

    /// The longest datagram that is known to pass, or that configuration vouches for.
    pub(super) fn passes(&self) -> Option<usize> {
        match self.settings.path_mtu {
            Some(_) => Some(self.ceiling()),
            None => self.pmtud.passes(),
        }
    }

    /// What a hello may take, in bytes. Before anything was measured one that a link depends on has to pass whatever the path is;
    /// without it a link that is up can do for a moment.
    pub(super) fn hello_room(&self) -> usize {
        let room = match self.up {
            true => self.passes().unwrap_or(BUDGET_BASE),
            false => BUDGET_LEAST.min(self.ceiling()),
        };
        room.saturating_sub(Framing::from(self.settings.key_mode).overhead())
    }

    fn ceiling(&self) -> usize {
        let theirs = self.peer.as_ref().map_or(usize::MAX, |peer| usize::from(peer.budget));
        self.own_budget.min(theirs)
    }

    pub(super) fn handle_pong(&mut self, now: Instant, n: u32, under: KeyRef) {
        self.take_proof(n, under);
        self.rise(now);
        if self.pmtud.handle_pong(now, n) {
            self.set_budget(now);
        }
    }

    /// Nobody vouches for this. While the peer is away it is said; while the link is up it may mean that the peer is
    /// just being restarted and will know no session, so that a call begins beside the one there is, now and then.
    pub(super) fn handle_refused(&mut self, now: Instant, to: SocketAddr) {
        let is_target = self.target().is_some_and(|target| target.remote == to);
        if !is_target && (self.up || !self.remotes.was_called(to)) {
            return;
        }
        if self.up {
            let recent = self.refused_at.is_some_and(|at| now < at + SILENCE);
            if let (Keying::Handshake(sessions), false) = (&mut self.keying, recent) {
                self.refused_at = Some(now);
                sessions.begin(now);
            }
        } else {
            self.say_once(now, Condition::PortRefused { remote: to });
            if self.remotes.handle_refused(now, to) {
                self.hasten_call(now);
            }
        }
    }

    pub(super) fn handle_search_timeout(&mut self, now: Instant) {
        if !self.is_probing() {
            return;
        }
        if self.pmtud.handle_timeout(now) {
            self.set_budget(now);
        }
        let Some(endpoint) = self.endpoint else { return };
        let Some(round) = self.pmtud.poll_round(now) else { return };
        let [few] = self.random.bytes();
        let short = control::ping(round.short, usize::from(few % 64));
        let framing = Framing::from(self.settings.key_mode);
        let long = control::ping_of_length(round.long, round.length - framing.overhead());
        for body in [short, long] {
            self.commands
                .push_back(SendCommand::Control { body, to: endpoint, under: KeySlot::Current }.into());
        }
    }

    fn set_budget(&mut self, now: Instant) {
        self.commands.push_back(SendCommand::Budget(self.pmtud.budget()).into());
        match self.pmtud.passes() {
            Some(budget) => self.log(Condition::PathPayload { budget }),
            None if self.pmtud.is_too_narrow() => self.log_for_peer(now, Condition::PathTooNarrow),
            None => {}
        }
        if let Some(endpoint) = self.endpoint.filter(|_| self.hello_cut) {
            self.send_hello(endpoint);
        }
    }
}
