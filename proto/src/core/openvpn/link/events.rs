//! The link's inputs and timeouts.

use std::net::SocketAddr;
use std::time::Instant;

use super::{ASK, ASKS, Link};
use crate::core::bulk;
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::control::Control;
use crate::core::lane::{Notice, Report};
use crate::core::limits::{REPEAT, RESOLVE};
use crate::core::link::Event;
use crate::core::openvpn::admission::Kept;
use crate::core::openvpn::lane::{Notice as OpenVpnNotice, Send, USUAL_MTU};
use crate::core::path::{Path, outer_headers};
use crate::core::settings::{LinkSettings, LinkState, OpenVpnState};
use crate::core::sources::Sources;
use crate::core::stats::Stats;
use crate::crypto::Random;
use crate::wire::openvpn::Occ;

impl<R: Random> Control for Link<R> {
    fn stats(&self) -> Stats {
        self.stats
    }

    fn poll_command(&mut self) -> Option<bulk::Command> {
        self.out.commands.pop_front().map(bulk::Command::OpenVpn)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    fn heard_at(&self) -> Instant {
        self.liveness.heard_at()
    }

    fn used_at(&self) -> Instant {
        self.liveness.used_at()
    }

    fn handle_notice(&mut self, now: Now, notice: Notice) {
        match notice {
            Notice::OpenVpn(OpenVpnNotice::OtherStart { from, id, load, plain }) => {
                self.handle_other_start(now, from, id, load, plain);
            }
            Notice::OpenVpn(OpenVpnNotice::Message { from, payload }) => {
                self.handle_message(now.instant, from, &payload);
            }
            Notice::OpenVpn(OpenVpnNotice::Framed(told)) => self.handle_framed(now.instant, told),
            Notice::OpenVpn(OpenVpnNotice::Compressed) => {
                self.say_once(now.instant, Condition::OpenVpnCompressed)
            }
            Notice::Moved { from } => {
                let Some(old) = self.endpoint.filter(|_| self.may_be_at(now.instant, from)) else { return };
                if old.remote != from.remote {
                    self.say_once(now.instant, Condition::PeerMoved { to: from.remote });
                }
                self.move_to(from);
            }
            Notice::Probe(sighting) => {
                let acts = self.loops.handle_sighting(now.instant, sighting, &mut self.random);
                self.act_on_loops(acts);
            }
            Notice::Resumed => self.handle_resumed(now),
            Notice::SourceLost { path } => {
                if self.endpoint == Some(path) && path.local.is_some() {
                    self.move_to(path.far_end());
                }
            }
            Notice::TunnelInTunnel => {
                if let Some(endpoint) = self.endpoint {
                    self.say_once(now.instant, Condition::TunnelInTunnel { remote: endpoint.remote.ip() });
                }
            }
            Notice::Refused { to } => {
                if !self.up && self.remotes.was_called(to.into()) {
                    self.say_once(now.instant, Condition::PortRefused { remote: to });
                    self.remotes.handle_refused(now.instant, to.into());
                }
            }
            Notice::Unknown { .. }
            | Notice::Handshake(_)
            | Notice::OtherMode { .. }
            | Notice::Confirmed { .. }
            | Notice::Control { .. }
            | Notice::TooLong => {}
        }
    }

    fn handle_kept(&mut self, now: Now, kept: Kept) {
        self.take_pending(now, kept);
        if kept.own > self.started {
            self.start(kept.own);
        }
    }

    fn handle_resolved(&mut self, now: Now, addresses: &[Path]) {
        if self.remotes.set(now.instant, addresses) && !self.up {
            self.out.events.extend(self.remotes.remote().map(Event::Endpoint));
        }
    }

    fn handle_route(&mut self, _: Now, address: SocketAddr, mtu: Option<u32>) {
        if self.target().is_some_and(|target| target.remote == address) {
            let mtu = self.settings.path_mtu.or(mtu).unwrap_or(USUAL_MTU) as usize;
            self.out.command(Send::Budget(mtu.saturating_sub(outer_headers(address))));
        }
    }

    fn handle_report(&mut self, now: Now, report: &Report) {
        let offenders = self.guard.handle_offenders(now.instant, &report.offenders);
        offenders.into_iter().for_each(|news| self.out.log(news));
        let news = self.liveness.handle_counters(now.instant, report.heard, &report.stats);
        if news.heard && !self.gone {
            self.rise(now.instant);
        }
        if news.sent && self.ping_at.is_some() {
            self.ping_at = self.ping_at.max(Some(now.instant + self.settings.keepalive.interval / 2));
        }
        if news.strangers && !self.up {
            self.say_once(now.instant, Condition::KeyMismatch);
        }
        if report.key_used_up {
            self.restart(now);
        }
    }

    /// A copy of this process may use the same numbers: restarts before sending anything.
    fn handle_resumed(&mut self, now: Now) {
        self.say_once(now.instant, Condition::Resumed);
        self.out.command(Send::Stop);
        self.restart(now);
    }

    /// Says nothing: OpenVPN up to 2.5 ends for good when told that its peer does.
    fn handle_stop(&mut self, _idle: bool) {}

    fn handle_settings(&mut self, _: Now, settings: LinkSettings) {
        let LinkSettings { float, keepalive, only_routed, has_remote, verb, activated, .. } = settings;
        let old = self.settings.clone();
        self.settings = LinkSettings { float, keepalive, only_routed, has_remote, verb, activated, ..old };
        self.tell_sources();
    }

    fn handle_sources(&mut self, sources: Sources) {
        self.sources = sources;
        self.tell_sources();
    }

    fn handle_rekey(&mut self, now: Now) {
        self.restart(now);
    }

    fn handle_reconnect(&mut self, now: Now) {
        self.go_down(now.instant, Condition::Reconnecting);
        self.remotes.forget(now.instant);
        self.resolve_at = self.settings.has_remote.then_some(now.instant);
    }

    fn state(&self, now: Instant, lanes: &Stats) -> LinkState {
        let problem = self.said.iter().rev().find(|(at, _)| now.saturating_duration_since(*at) < REPEAT);
        LinkState {
            problem: self.loops.condition(now).or(problem.map(|(_, condition)| condition.clone())),
            problem_age: None,
            peer: self.up.then(|| "OpenVPN".to_owned()),
            openvpn: Some(OpenVpnState {
                cipher: self.options.cipher,
                digest: self.options.digest,
                framing: self.options.framing,
                start: self.admission.kept().own,
            }),
            stats: lanes.plus(&self.stats),
            ..LinkState::default()
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [
            self.silence_at(),
            self.call_at(),
            self.ping_at,
            self.resolve_at,
            self.ask_at,
            self.loops.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self, now: Now) {
        let instant = now.instant;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= instant);
        if is_due(self.silence_at()) {
            self.go_down(instant, Condition::PeerSilent { silence: self.settings.keepalive.timeout });
        }
        let acts = self.loops.handle_timeout(instant, &mut self.random);
        self.act_on_loops(acts);
        if is_due(self.ping_at) {
            self.ping(instant);
        }
        if is_due(self.resolve_at) {
            self.resolve_at = Some(instant + RESOLVE);
            self.out.events.push_back(Event::Resolve);
        }
        if is_due(self.ask_at) {
            self.asks += 1;
            self.ask_at = (self.asks < ASKS).then_some(instant + ASK);
            if let Some(to) = self.endpoint {
                self.send(Occ::request(), to);
            }
        }
        if is_due(self.call_at()) {
            self.call(instant);
        }
    }
}

impl<R: Random> Link<R> {
    fn silence_at(&self) -> Option<Instant> {
        self.up.then(|| self.liveness.heard_at() + self.settings.keepalive.timeout)
    }

    fn call_at(&self) -> Option<Instant> {
        self.target().filter(|_| !self.up).map(|_| self.remotes.due)
    }
}
