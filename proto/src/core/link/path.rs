//! The path to the peer: its address, validation of a new one, and the length of datagrams.

use std::net::SocketAddr;
use std::time::Instant;

use super::outbox::{Context, Outbox};
use crate::core::lane::{Command, KeySlot, SendCommand};
use crate::core::limits::{BUDGET_BASE, BUDGET_LEAST};
use crate::core::path::{Outcome, Path, Validation, outer_headers};
use crate::core::pmtud::Pmtud;
use crate::crypto::Random;
use crate::wire::control::{self, Message};
use crate::wire::datagram::Framing;
use crate::wire::stream::RECORD_MAX;

/// The path to the peer and its limits.
pub struct PeerPath {
    endpoint: Option<Path>,
    validation: Option<Validation>,
    /// The challenges of the last validation.
    challenges: [[u8; 16]; 2],
    /// Largest outer IP packet in bytes, if configured: then nothing is probed.
    fixed: Option<u32>,
    /// Limit of the route, in bytes of UDP payload.
    own_budget: usize,
    /// Limit of the peer, in bytes of UDP payload.
    peer_budget: usize,
    /// Result of the probes.
    pub pmtud: Pmtud,
}

impl PeerPath {
    /// No known address.
    pub fn new(now: Instant, fixed: Option<u32>) -> Self {
        Self {
            endpoint: None,
            validation: None,
            challenges: [[0; 16]; 2],
            fixed,
            own_budget: BUDGET_BASE,
            peer_budget: usize::MAX,
            pmtud: Pmtud::new(now),
        }
    }

    /// The peer's path.
    pub fn endpoint(&self) -> Option<Path> {
        self.endpoint
    }

    /// Whether `from` is the path to the peer.
    pub fn covers(&self, from: &Path) -> bool {
        self.endpoint.is_some_and(|endpoint| endpoint.covers(from))
    }

    /// Whether the peer's IP address is this; `None`: unknown.
    pub fn is_host(&self, address: SocketAddr) -> Option<bool> {
        self.endpoint.map(|endpoint| endpoint.remote.ip() == address.ip())
    }

    /// Sets the peer's path; false if unchanged. Nothing is known of a new one.
    pub fn set_endpoint(&mut self, now: Instant, endpoint: Path, out: &mut Outbox) -> bool {
        if self.endpoint == Some(endpoint) {
            return false;
        }
        self.endpoint = Some(endpoint);
        self.own_budget = self.route_budget(endpoint.remote, None);
        self.pmtud.reset(now);
        self.set_ceiling(now, out);
        out.commands.extend(Command::endpoint(endpoint));
        true
    }

    /// Something newer than all else came from `from`: challenges both paths, unless a validation is in progress.
    pub fn validate(&mut self, now: Instant, from: Path, cx: &mut Context<impl Random>) {
        let (Some(old), None) = (self.endpoint, &self.validation) else { return };
        self.challenges = [cx.random.bytes(), cx.random.bytes()];
        let validation = Validation::new(now, from, self.challenges);
        self.validation = Some(if old.stream && !from.stream { validation.returning() } else { validation });
        for (challenge, to) in self.challenges.into_iter().zip([from, old]) {
            cx.out.control(KeySlot::Current, &Message::Path { challenge }, to);
        }
    }

    /// Handles an answer to a challenge; returns the path to follow, if decided.
    pub fn handle_reply(&mut self, from: Path, challenge: [u8; 16]) -> Option<Path> {
        let outcome = self.validation.as_mut()?.handle_reply(from, challenge);
        self.conclude(outcome)
    }

    /// Whether this answers a challenge of the last validation, so that it cannot be a recording.
    pub fn is_challenge(&self, challenge: &[u8; 16]) -> bool {
        self.challenges.contains(challenge)
    }

    /// When [`PeerPath::handle_validation_timeout`] may decide.
    pub fn validation_timeout(&self) -> Option<Instant> {
        self.validation.as_ref().map(Validation::poll_timeout)
    }

    /// Decides the validation; returns the path that the peer moved to, if any.
    pub fn handle_validation_timeout(&mut self, now: Instant) -> Option<Path> {
        let outcome = self.validation.as_ref()?.handle_timeout(now);
        self.conclude(outcome)
    }

    fn conclude(&mut self, outcome: Outcome) -> Option<Path> {
        if outcome != Outcome::Open {
            self.validation = None;
        }
        match outcome {
            Outcome::Move(new) => Some(new),
            Outcome::Open | Outcome::Stay => None,
        }
    }

    /// The peer is away: abandons the validation and forgets the peer's limit.
    pub fn forget_peer(&mut self) {
        (self.validation, self.peer_budget) = (None, usize::MAX);
    }

    /// Limit of the route, in bytes of UDP payload.
    pub fn own_budget(&self) -> usize {
        self.own_budget
    }

    /// Longest datagram known to pass, or configured, in bytes.
    pub fn passes(&self) -> Option<usize> {
        self.fixed_budget().or_else(|| self.pmtud.passes())
    }

    /// Longest datagram, in bytes, for what cannot wait for measurement: one that brings a link up must pass on any path; an established
    /// link can do without it for a moment.
    pub fn room(&self, up: bool) -> usize {
        if up { self.passes().unwrap_or(BUDGET_BASE) } else { BUDGET_LEAST.min(self.ceiling()) }
    }

    /// Longest datagram in bytes for a call to this address, as far as known. Without a link, the path is tried.
    pub fn call_room(&self, to: Path, up: bool) -> usize {
        match self.fixed {
            _ if to.stream => RECORD_MAX,
            Some(_) => self.route_budget(to.remote, None),
            None => self.pmtud.passes().filter(|_| up).unwrap_or(usize::MAX),
        }
    }

    /// Handles the route's MTU to this address in bytes; true if it is new.
    pub fn handle_route(
        &mut self,
        now: Instant,
        address: SocketAddr,
        mtu: Option<u32>,
        out: &mut Outbox,
    ) -> bool {
        let budget = self.route_budget(address, mtu);
        let news = budget != self.own_budget;
        if news {
            self.own_budget = budget;
            self.set_ceiling(now, out);
        }
        news
    }

    /// Sets the peer's limit in bytes of UDP payload.
    pub fn set_peer_budget(&mut self, budget: u16) {
        self.peer_budget = budget.into();
    }

    /// Applies a new limit of the route or the peer.
    pub fn set_ceiling(&mut self, now: Instant, out: &mut Outbox) {
        self.pmtud.set_ceiling(now, self.ceiling());
        self.tell_budget(out);
    }

    /// Longest datagram for frames, in bytes.
    pub fn budget(&self) -> usize {
        self.fixed_budget().unwrap_or_else(|| self.pmtud.budget())
    }

    /// The length where it is not probed: a stream is limited only by its records.
    fn fixed_budget(&self) -> Option<usize> {
        match self.endpoint {
            Some(endpoint) if endpoint.stream => Some(RECORD_MAX),
            _ => self.fixed.map(|_| self.ceiling()),
        }
    }

    fn ceiling(&self) -> usize {
        self.own_budget.min(self.peer_budget)
    }

    fn route_budget(&self, address: SocketAddr, mtu: Option<u32>) -> usize {
        let mtu = self.fixed.or(mtu).and_then(|mtu| usize::try_from(mtu).ok());
        mtu.map_or(BUDGET_BASE, |mtu| mtu.saturating_sub(outer_headers(address)))
    }

    /// When to send a round of probes.
    pub fn probe_timeout(&self) -> Option<Instant> {
        self.pmtud.poll_timeout().filter(|_| self.fixed_budget().is_none())
    }

    /// Tells the lane the new budget.
    pub fn tell_budget(&self, out: &mut Outbox) {
        out.command(SendCommand::Budget(self.budget()));
    }

    /// Sends the next round of probes, if due.
    pub fn probe(&mut self, now: Instant, framing: Framing, cx: &mut Context<impl Random>) {
        let Some(to) = self.endpoint else { return };
        let Some(round) = self.pmtud.poll_round(now) else { return };
        let [few] = cx.random.bytes();
        let short = control::ping(round.short, usize::from(few % 64));
        let long = control::ping_of_length(round.long, round.length - framing.overhead());
        for body in [short, long] {
            cx.out.command(SendCommand::Control { body, to, under: KeySlot::Current, lane: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;
    use crate::core::limits::PATH_INTERVAL;
    use crate::testing::Dice;

    const OLD: &str = "192.0.2.1:7";
    const NEW: &str = "198.51.100.1:7";

    fn at(address: &str) -> Path {
        address.parse::<SocketAddr>().unwrap().into()
    }

    fn context() -> Context<Dice> {
        Context { random: Dice(0), out: Outbox::default() }
    }

    /// The challenges sent, and their paths.
    fn challenges(cx: &mut Context<Dice>) -> Vec<([u8; 16], Path)> {
        let sent = cx.out.commands.drain(..).filter_map(|command| match command {
            Command::Send(SendCommand::Control { body, to, .. }) => Some((body, to)),
            _ => None,
        });
        let challenge = |(body, to): (Vec<u8>, _)| match control::decode(&body) {
            Ok(Some(Message::Path { challenge })) => (challenge, to),
            other => panic!("{other:?}"),
        };
        sent.map(challenge).collect()
    }

    #[test]
    fn one_validation_at_a_time_asks_along_both_ways() {
        for old_answers in [false, true] {
            let (now, mut cx) = (Instant::now(), context());
            let mut path = PeerPath::new(now, None);
            path.validate(now, at(NEW), &mut cx);
            assert_eq!(challenges(&mut cx), [], "there is no old way");
            assert!(path.set_endpoint(now, at(OLD), &mut cx.out));
            path.validate(now, at(NEW), &mut cx);
            let asked = challenges(&mut cx);
            let [(to_new, new), (to_old, old)] = asked[..] else { panic!("{asked:?}") };
            assert_eq!((new, old), (at(NEW), at(OLD)));
            assert!(path.is_challenge(&to_new) && path.is_challenge(&to_old) && !path.is_challenge(&[0; 16]));
            path.validate(now, at("203.0.113.1:7"), &mut cx);
            assert_eq!(challenges(&mut cx), []);
            assert_eq!(path.handle_reply(at(NEW), to_new), None);
            if old_answers {
                assert_eq!(path.handle_reply(at(OLD), to_old), None);
            }
            let moved = path.handle_validation_timeout(now + PATH_INTERVAL);
            assert_eq!(moved, (!old_answers).then(|| at(NEW)));
            assert_eq!(path.validation_timeout(), None);
        }
    }

    #[test]
    fn nothing_is_known_of_another_way_unless_its_length_is_configured() {
        let (now, mut cx) = (Instant::now(), context());
        let [old, new] = [at(OLD), at("[2001:db8::1]:7")];
        let mut path = PeerPath::new(now, None);
        assert!(path.set_endpoint(now, old, &mut cx.out) && !path.set_endpoint(now, old, &mut cx.out));
        assert!(path.handle_route(now, old.remote, Some(1500), &mut cx.out));
        assert!(!path.handle_route(now, old.remote, Some(1500), &mut cx.out));
        assert_eq!((path.own_budget(), path.passes(), path.room(true)), (1472, None, BUDGET_BASE));
        assert_eq!(path.room(false), BUDGET_LEAST);
        path.set_endpoint(now, new, &mut cx.out);
        assert_eq!(path.own_budget(), BUDGET_BASE);

        let mut path = PeerPath::new(now, Some(1400));
        path.set_endpoint(now, old, &mut cx.out);
        assert_eq!((path.passes(), path.probe_timeout()), (Some(1372), None));
        assert!(!path.handle_route(now, old.remote, Some(1500), &mut cx.out));
        path.set_endpoint(now, new, &mut cx.out);
        path.set_peer_budget(1300);
        assert_eq!((path.own_budget(), path.passes()), (1352, Some(1300)));
        path.forget_peer();
        assert_eq!(path.room(true), 1352);
    }
}
