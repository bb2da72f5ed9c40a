//! A link in OpenVPN's format whose peer may prove to be tund: then both change to handshake keys, in the same sockets.
//!
//! The two links exist side by side, each with its own lane. Only this module decides which one the device's frames take
//! (PROTOCOL.md §10.1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{ASK, ASKS, Link as OpenVpn};
use crate::config::{KeyMode, Upgrade};
use crate::core::bulk::Command;
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::control::Control;
use crate::core::lane::{self, Notice, Report, SendCommand};
use crate::core::link::outbox::Outbox;
use crate::core::link::{Event, Link as Native};
use crate::core::openvpn::admission::Kept;
use crate::core::openvpn::lane::{Command as ToLane, Notice as OpenVpnNotice, Receive, Send};
use crate::core::path::Path;
use crate::core::settings::{LinkSettings, LinkState};
use crate::core::sources::Sources;
use crate::core::stats::Stats;
use crate::crypto::Random;
use crate::crypto::cbc_hmac::Layout;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
use crate::wire::openvpn::Occ;

/// Longest handshake with a peer known to be tund; after that its failure is reported.
const LATE: Duration = Duration::from_secs(30);
/// How long the peer's statement about itself may have been under way when the link changes.
const SETTLED: Duration = Duration::from_secs(5);

/// The control side of a link that may change its format.
pub struct Link<R> {
    openvpn: OpenVpn<R>,
    /// Set once the peer has said that it is tund.
    native: Option<Native<R>>,
    settings: LinkSettings,
    keys: Arc<LinkKeys>,
    /// For the link that then begins.
    random: Option<R>,
    layout: Layout,
    /// Frames pass under handshake keys only.
    required: bool,
    /// Time since when they do.
    upgraded_at: Option<Instant>,
    /// When to tell the peer what this end is, and how often it was told.
    tell_at: Option<Instant>,
    told: u32,
    /// When to report that there is no handshake.
    late_at: Option<Instant>,
    is_late: bool,
    /// Whether the owner was told that the link is up.
    up: bool,
    out: Outbox<Command>,
}

impl<R: Random> Link<R> {
    /// Takes over a new link. `keys` are derived from the same file.
    pub fn new(openvpn: OpenVpn<R>, keys: Arc<LinkKeys>, upgrade: Upgrade, random: R) -> Self {
        let mut link = Self {
            layout: openvpn.options.layout(),
            settings: native(openvpn.settings.clone()),
            openvpn,
            native: None,
            keys,
            random: Some(random),
            required: upgrade == Upgrade::Require,
            upgraded_at: None,
            tell_at: None,
            told: 0,
            late_at: None,
            is_late: false,
            up: false,
            out: Outbox::default(),
        };
        link.collect(link.openvpn.heard_at());
        link
    }

    /// The peer is tund, without handshake keys for this end.
    fn handle_told(&mut self, now: Now) {
        match (&mut self.native, self.upgraded_at) {
            (None, _) => self.begin(now),
            (Some(native), Some(at)) if now.instant.saturating_duration_since(at) >= SETTLED => {
                native.handle_reconnect(now);
            }
            (Some(_), _) => {}
        }
    }

    /// Calls the peer, or waits for its call, in tund's own format.
    fn begin(&mut self, now: Now) {
        let (settings, keys) = (self.settings.clone(), self.keys.clone());
        let Some(random) = self.random.take() else { return };
        let mut native = Native::new(settings, keys, Statics::None, now, random);
        native.handle_sources(self.openvpn.sources.clone());
        if let Some(endpoint) = self.openvpn.endpoint.filter(|_| self.settings.has_remote) {
            native.handle_resolved(now, &[endpoint.far_end()]);
        }
        self.native = Some(native);
        self.late_at = Some(now.instant + LATE);
    }

    /// Collects the output of both links.
    fn collect(&mut self, now: Instant) {
        while let Some(command) = self.openvpn.out.commands.pop_front() {
            if let ToLane::Receive(Receive::Begin { .. }) = &command {
                (self.tell_at, self.told) = (Some(now), 0);
            }
            let passes =
                matches!(command, ToLane::Send(Send::Agreed(true)) | ToLane::Receive(Receive::Agreed(true)));
            if !(passes && self.required) {
                self.out.command(Command::OpenVpn(command));
            }
        }
        while let Some(command) = self.native.as_mut().and_then(Native::poll_command) {
            self.out.command(Command::Tund(self.unlike_openvpn(command)));
        }
        while let Some(event) = self.openvpn.out.events.pop_front() {
            self.handle_openvpn(now, event);
        }
        while let Some(event) = self.native.as_mut().and_then(Control::poll_event) {
            self.handle_native(now, event);
        }
    }

    /// Keeps full datagrams from having a length of OpenVPN's, so that no HMAC is computed over them needlessly.
    fn unlike_openvpn(&self, command: lane::Command) -> lane::Command {
        match command {
            lane::Command::Send(SendCommand::Budget(budget)) if self.layout.fits(budget) => {
                SendCommand::Budget(budget - 1).into()
            }
            command => command,
        }
    }

    fn handle_openvpn(&mut self, now: Instant, event: Event) {
        match event {
            // It may be OpenVPN, for good.
            Event::Up { .. } if self.required && self.native.is_none() => self.late_at = Some(now + LATE),
            Event::Up { .. } | Event::Down { .. } if self.required => {}
            Event::Up { .. } => self.rise(event),
            Event::Down { .. } if self.upgraded_at.is_some() => {}
            Event::Down { reason } => self.fall(reason),
            event => self.out.events.push_back(event),
        }
    }

    fn handle_native(&mut self, now: Instant, event: Event) {
        match event {
            Event::Up { .. } => {
                self.out.command(Command::Upgraded(true));
                (self.upgraded_at, self.tell_at, self.late_at, self.is_late) = (Some(now), None, None, false);
                self.out.log(Condition::Upgraded);
                self.rise(event);
            }
            Event::Down { reason } => {
                self.out.command(Command::Upgraded(false));
                (self.upgraded_at, self.late_at) = (None, Some(now + LATE));
                (self.tell_at, self.told) = (Some(now), 0);
                if self.required || !self.openvpn.up {
                    self.fall(reason);
                } else {
                    self.out.log(reason);
                }
            }
            // The link in OpenVPN's format reports that.
            Event::Log { condition: Condition::NoRemote | Condition::NoAnswer { .. }, .. } => {}
            event => self.out.events.push_back(event),
        }
    }

    fn rise(&mut self, event: Event) {
        if !std::mem::replace(&mut self.up, true) {
            self.out.events.push_back(event);
        }
    }

    fn fall(&mut self, reason: Condition) {
        if std::mem::take(&mut self.up) {
            self.out.events.push_back(Event::Down { reason });
        }
    }

    /// Tells the peer that this end is tund, while frames use OpenVPN's format.
    fn tell(&mut self, now: Instant) {
        self.told += 1;
        self.tell_at = (self.told < ASKS && self.upgraded_at.is_none()).then_some(now + ASK);
        if let Some(to) = self.openvpn.endpoint {
            self.openvpn.send(Occ::tund(), to);
        }
    }

    /// Calls both links.
    fn each(&mut self, now: Now, does: impl Fn(&mut dyn Control)) {
        does(&mut self.openvpn);
        if let Some(native) = &mut self.native {
            does(native);
        }
        self.collect(now.instant);
    }
}

impl<R: Random> Control for Link<R> {
    fn stats(&self) -> Stats {
        let native = self.native.as_ref().map(Control::stats).unwrap_or_default();
        self.openvpn.stats().plus(&native)
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.out.commands.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    fn heard_at(&self) -> Instant {
        let native = self.native.as_ref().map(Control::heard_at);
        native.into_iter().fold(self.openvpn.heard_at(), Instant::max)
    }

    fn used_at(&self) -> Instant {
        let native = self.native.as_ref().map(Control::used_at);
        native.into_iter().fold(self.openvpn.used_at(), Instant::max)
    }

    fn handle_notice(&mut self, now: Now, notice: Notice) {
        match &notice {
            Notice::OpenVpn(OpenVpnNotice::Message { payload, .. })
                if Occ::parse(payload) == Some(Occ::Tund) =>
            {
                self.handle_told(now);
            }
            Notice::OpenVpn(_) => self.openvpn.handle_notice(now, notice),
            Notice::Unknown { .. }
            | Notice::Handshake(_)
            | Notice::OtherMode { .. }
            | Notice::Confirmed { .. }
            | Notice::Control { .. }
            | Notice::TooLong => {
                // The peer heard this end before this end heard the peer.
                if self.native.is_none() && matches!(notice, Notice::Handshake(_)) {
                    self.begin(now);
                }
                if let Some(native) = &mut self.native {
                    native.handle_notice(now, notice);
                }
            }
            Notice::Moved { .. }
            | Notice::TunnelInTunnel
            | Notice::Refused { .. }
            | Notice::SourceLost { .. }
            | Notice::Resumed
            | Notice::Probe(_) => return self.each(now, |link| link.handle_notice(now, notice.clone())),
        }
        self.collect(now.instant);
    }

    fn handle_kept(&mut self, now: Now, kept: Kept) {
        self.openvpn.handle_kept(now, kept);
        self.collect(now.instant);
    }

    fn handle_resolved(&mut self, now: Now, addresses: &[Path]) {
        self.each(now, |link| link.handle_resolved(now, addresses));
    }

    fn handle_route(&mut self, now: Now, address: SocketAddr, mtu: Option<u32>) {
        self.each(now, |link| link.handle_route(now, address, mtu));
    }

    fn handle_report(&mut self, now: Now, report: &Report) {
        let [openvpn, tund] = report.apart();
        self.openvpn.handle_report(now, &openvpn);
        if let Some(native) = &mut self.native {
            native.handle_report(now, &tund);
        }
        self.collect(now.instant);
    }

    fn handle_resumed(&mut self, now: Now) {
        self.each(now, |link| link.handle_resumed(now));
    }

    fn handle_stop(&mut self, idle: bool) {
        if let Some(native) = &mut self.native {
            native.handle_stop(idle);
            self.out.commands.extend(std::iter::from_fn(|| native.poll_command()).map(Command::Tund));
        }
    }

    fn handle_settings(&mut self, now: Now, settings: LinkSettings) {
        self.openvpn.handle_settings(now, settings.clone());
        self.settings = native(settings);
        if let Some(native) = &mut self.native {
            native.handle_settings(now, self.settings.clone());
        }
        self.collect(now.instant);
    }

    fn handle_sources(&mut self, sources: Sources) {
        self.openvpn.handle_sources(sources.clone());
        if let Some(native) = &mut self.native {
            native.handle_sources(sources);
        }
        self.collect(self.openvpn.heard_at());
    }

    fn handle_taken(&mut self, routes: Vec<IpNet>) {
        if let Some(native) = &mut self.native {
            native.handle_taken(routes);
        }
        self.collect(self.openvpn.heard_at());
    }

    fn handle_rekey(&mut self, now: Now) {
        self.each(now, |link| link.handle_rekey(now));
    }

    fn handle_reconnect(&mut self, now: Now) {
        self.each(now, |link| link.handle_reconnect(now));
    }

    fn state(&self, now: Instant, lanes: &Stats) -> LinkState {
        match self.native.as_ref().filter(|_| self.upgraded_at.is_some()) {
            Some(native) => native.state(now, lanes),
            None => {
                let state = self.openvpn.state(now, lanes);
                LinkState {
                    problem: self.is_late.then_some(Condition::NotUpgraded).or(state.problem),
                    ..state
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let native = self.native.as_ref().and_then(Control::poll_timeout);
        [self.openvpn.poll_timeout(), native, self.tell_at, self.late_at].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Now) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if is_due(self.tell_at) {
            self.tell(now.instant);
        }
        if is_due(self.late_at) {
            (self.late_at, self.is_late) = (None, true);
            self.out.log(Condition::NotUpgraded);
        }
        self.each(now, |link| link.handle_timeout(now));
    }
}

fn native(settings: LinkSettings) -> LinkSettings {
    LinkSettings { key_mode: KeyMode::Handshake, openvpn: None, ..settings }
}
