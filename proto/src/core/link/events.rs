//! The link's inputs and its state.

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::{Event, IDLE, Link};
use crate::core::bulk;
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::control::Control;
use crate::core::lane::{KeyRef, Notice, Report};
use crate::core::limits::LASTING;
use crate::core::path::Path;
use crate::core::settings::{LinkSettings, LinkState};
use crate::core::sources::Sources;
use crate::core::stats::{DropReason, Stats};
use crate::crypto::{Random, aead};
use crate::wire::control::{self, Message};

impl<R: Random> Control for Link<R> {
    fn stats(&self) -> Stats {
        self.stats
    }

    fn state(&self, now: Instant, lanes: &Stats) -> LinkState {
        let (age, cipher) = self.keying.current(now).filter(|_| self.is_up()).unzip();
        LinkState {
            problem: self.loops.condition(now).or_else(|| self.problem(now).cloned()),
            problem_age: None,
            peer: self.greeting.peer().map(|peer| peer.name.clone()),
            keys_age: age,
            sealed: cipher.map(|cipher| (cipher, aead::chosen(cipher))),
            openvpn: None,
            rtt: self.path.pmtud.rtt().filter(|_| self.is_up()),
            budget: self.path.passes().and_then(|passes| u32::try_from(passes).ok()).filter(|_| self.is_up()),
            stats: lanes.plus(&self.stats),
            talkers: Vec::new(),
            lanes: self.lanes.count(),
        }
    }

    fn heard_at(&self) -> Instant {
        self.liveness.heard_at()
    }

    fn used_at(&self) -> Instant {
        self.liveness.used_at()
    }

    fn poll_command(&mut self) -> Option<bulk::Command> {
        Link::poll_command(self).map(bulk::Command::Tund)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.cx.out.events.pop_front()
    }

    fn handle_notice(&mut self, now: Now, notice: Notice) {
        let instant = now.instant;
        match notice {
            notice @ (Notice::Unknown { .. } | Notice::Handshake(_) | Notice::Confirmed { .. }) => {
                let ask = self.keying.handle_notice(now, self.here(), notice, &mut self.cx);
                self.carry_out(now, ask);
            }
            // A former process of the peer whose session is still live is ignored.
            Notice::Control { under: under @ KeyRef::Session(_), .. } if !self.keying.is_of_peer(under) => {
                self.stats.drop(DropReason::Stale);
            }
            Notice::Control { from, body, under, lane } => match control::decode(&body) {
                Ok(Some(message)) if lane > 0 => self.handle_in_lane(instant, lane, from, under, &message),
                Ok(Some(message)) => {
                    self.note_speaker(instant, from, under, &message);
                    self.note_message(instant, from, under, &message, body.len());
                    self.handle_message(now, from, under, message);
                }
                Ok(None) => {}
                Err(_) => self.stats.drop(DropReason::Malformed),
            },
            Notice::Moved { from } => self.handle_moved(now, from),
            Notice::TunnelInTunnel => {
                if let Some(condition) = self.tunnelled() {
                    self.cx.out.log(condition);
                }
            }
            Notice::Probe(sighting) => {
                let acts = self.loops.handle_sighting(instant, sighting, &mut self.cx.random);
                self.act_on_loops(instant, acts);
            }
            Notice::Resumed => self.handle_resumed(now),
            // Let the kernel choose the own address again.
            Notice::SourceLost { path } if self.path.endpoint() == Some(path) => {
                self.set_endpoint(instant, path.far_end());
            }
            Notice::SourceLost { path } => self.leave_lane_ways(path),
            Notice::OpenVpn(_) => {}
            Notice::TooLong => {
                self.path.pmtud.doubt(instant);
                self.keying.handle_too_long(instant);
            }
            Notice::Refused { to } => self.handle_refused(instant, to),
            Notice::OtherMode { from, length } => self.handle_other_mode(instant, from, length),
        }
    }

    fn handle_resolved(&mut self, now: Now, addresses: &[Path]) {
        if self.remotes.set(now.instant, addresses) && !self.is_up() {
            self.keying.hasten(self.remotes.due);
            self.cx.out.events.extend(self.remotes.remote().map(Event::Endpoint));
        }
    }

    fn handle_route(&mut self, now: Now, address: SocketAddr, mtu: Option<u32>) {
        let Some(target) = self.target().filter(|target| target.far_end() == address.into()) else { return };
        if self.path.handle_route(now.instant, address, mtu, &mut self.cx.out) && self.is_up() {
            self.send_hello(target);
        }
    }

    fn handle_report(&mut self, now: Now, report: &Report) {
        let Report { stats: lanes, heard, key_used_up, used_length, offenders, .. } = report;
        for condition in self.guard.handle_offenders(now.instant, offenders) {
            self.cx.out.log(condition.clone());
            self.lasting = Some((now.instant, condition));
        }
        let news = self.liveness.handle_counters(now.instant, *heard, lanes);
        if let Some(condition) = self.tunnelled().filter(|_| news.tunnelled) {
            self.lasting = Some((now.instant, condition));
        }
        if news.waiting {
            self.wake(now.instant);
        }
        if news.strangers && !self.is_up() && !self.greeting.is_known() {
            self.say_once(now.instant, Condition::KeyMismatch);
        }
        if *used_length {
            self.path.pmtud.handle_use(now.instant);
        }
        if *key_used_up {
            self.keying.renew(now.instant);
        }
    }

    /// A copy of this process may be running: stops using any key under which it could have sent.
    fn handle_resumed(&mut self, now: Now) {
        self.notices.say_resumed(now.instant, &mut self.cx.out);
        self.replace_keys(now);
        // Requests the peer's hello again, under keys that this end knows.
        self.greeting.forget();
        self.path.forget_peer();
        self.remotes.restart(now.instant);
    }

    fn handle_stop(&mut self, idle: bool) {
        if let Some(endpoint) = self.path.endpoint() {
            let reason = if idle { IDLE } else { "stopped" };
            self.send(Message::Bye { reason: reason.into() }, endpoint);
        }
    }

    /// Keys, device and framing are fixed at the start; to change them takes another link.
    fn handle_settings(&mut self, now: Now, settings: LinkSettings) {
        let LinkSettings { float, keepalive, push, only_routed, has_remote, verb, activated, .. } = settings;
        let other_sources = self.settings.only_routed != only_routed;
        let other_offer = self.settings.push != push;
        let old = self.settings.clone();
        self.settings =
            LinkSettings { float, keepalive, push, only_routed, has_remote, verb, activated, ..old };
        if other_sources {
            self.tell_sources();
        }
        if other_offer && self.is_up() {
            self.say_hello_again();
        }
        self.schedule_hello(now.instant);
    }

    fn handle_sources(&mut self, sources: Sources) {
        if self.offers.handle_sources(sources) {
            self.tell_sources();
        }
    }

    fn handle_taken(&mut self, routes: Vec<IpNet>) {
        if self.offers.handle_taken(routes) {
            self.tell_sources();
        }
    }

    fn handle_rekey(&mut self, now: Now) {
        self.keying.renew(now.instant);
    }

    /// Looks up names again and forgets all agreements. An end that cannot call says goodbye, so that the peer calls. One that can call says
    /// none, since a goodbye could overtake the new call.
    fn handle_reconnect(&mut self, now: Now) {
        if self.is_up() {
            if let Some(endpoint) = self.path.endpoint().filter(|_| !self.settings.has_remote) {
                self.send(Message::Bye { reason: "connecting again".into() }, endpoint);
            }
            self.go_down(now.instant, Condition::Reconnecting);
        } else {
            self.phase.look_up(self.settings.has_remote.then_some(now.instant));
            self.remotes.forget(now.instant);
            self.end_keys(now.instant);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::TIMERS.iter().filter_map(|timer| (timer.due)(self)).min()
    }

    fn handle_timeout(&mut self, now: Now) {
        for timer in Self::TIMERS {
            if (timer.due)(self).is_some_and(|at| at <= now.instant) {
                (timer.fire)(self, now);
            }
        }
    }
}

impl<R: Random> Link<R> {
    /// The current problem; there are few while the link is up.
    fn problem(&self, now: Instant) -> Option<&Condition> {
        let lasting =
            self.lasting.as_ref().filter(|(at, _)| now < *at + LASTING).map(|(_, condition)| condition);
        let other = if self.is_up() {
            let narrow = self.path.pmtud.is_too_narrow().then_some(&Condition::PathTooNarrow);
            narrow.or(lasting).or(self.keying.condition())
        } else {
            // What cuts the link off comes before guesses why nobody answers.
            let cause = |condition: &&Condition| matches!(condition, Condition::TunnelInTunnel { .. });
            lasting.filter(cause).or(self.notices.latest())
        };
        self.clones.condition(now).or(other)
    }

    /// That the link's own datagrams come out of its device, if it has a destination.
    fn tunnelled(&self) -> Option<Condition> {
        let remote = self.path.endpoint()?.remote.ip();
        Some(Condition::TunnelInTunnel { remote })
    }

    /// Tells the lane the peer's inner source addresses.
    pub(super) fn tell_sources(&mut self) {
        self.offers.tell_sources(self.settings.only_routed, &mut self.cx.out);
    }
}
