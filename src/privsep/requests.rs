//! What the parent does for the engine. Every request is limited: the engine reads the network and may
//! be in the hands of whoever broke it.
#![allow(clippy::disallowed_methods, reason = "limits count by the clock")]

use std::net::SocketAddr;
use std::time::Instant;

use super::message::{MAX_TEXT, ToEngine, ToParent};
use super::parent::Parent;
use crate::config::MAX_ACCEPTED;
use crate::daemon::environment::Hook;
use crate::daemon::limit::Limit;
use crate::daemon::stderr::unix_time;
use crate::daemon::text::printable;
use crate::say;

/// Most scripts of the link's ups and downs that wait; of a longer row only the last ones run.
const MAX_HOOKS: usize = 4;

/// How often the engine may ask.
pub(super) struct Limits {
    log: Limit,
    resolve: Limit,
    endpoint: Limit,
    floor: Limit,
    link: Limit,
    pushed: Limit,
    keys: Limit,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            log: Limit::new(200.0, 400.0, now),
            resolve: Limit::new(0.5, 10.0, now),
            endpoint: Limit::new(10.0, 50.0, now),
            floor: Limit::new(1.0, 20.0, now),
            link: Limit::new(1.0, 20.0, now),
            pushed: Limit::new(1.0, 20.0, now),
            keys: Limit::new(10.0, 100.0, now),
        }
    }
}

impl Parent {
    /// Does what the engine asks for, and answers.
    pub(super) fn handle_request(&mut self, message: ToParent) {
        let now = Instant::now();
        match message {
            ToParent::Locked { protections } => {
                // It says so once, if it is ours.
                if self.status.protections.is_none() {
                    let protections = printable(&protections, MAX_TEXT);
                    say!(3, "engine: {protections}");
                    self.status.protections = Some(protections);
                    self.tell_ready();
                }
            }
            ToParent::Resolve => self.resolve(now),
            ToParent::Endpoint { address } => self.endpoint(address, now),
            ToParent::Floor { time } => {
                let ok = self.limits.floor.allow(now) && self.floor.write(time);
                self.answer(&ToEngine::FloorWritten { time, ok });
            }
            ToParent::OpenDevice => self.status.device_wanted |= self.changes.device().is_none(),
            ToParent::LinkUp { endpoint, name: _ } => {
                self.status.trusted = Some(endpoint);
                self.link_changed(true, now);
            }
            ToParent::PushedRoutes { routes } => {
                if routes.len() <= MAX_ACCEPTED && self.limits.pushed.allow(now) {
                    self.take_pushed(routes);
                }
            }
            ToParent::LinkDown { reason, traffic } => {
                self.status.traffic = traffic;
                self.control.reason = Some(printable(&reason, MAX_TEXT));
                self.link_changed(false, now);
            }
            ToParent::State(state) => self.take_state(*state),
            ToParent::Traffic(traffic) => self.status.traffic = traffic,
            ToParent::Log { verb, text } => self.log(verb, &text, now),
            ToParent::KeyLog(entry) => {
                if self.limits.keys.allow(now)
                    && let Some(log) = &mut self.link.key_log
                {
                    log.write(&entry);
                }
            }
            ToParent::Exit { code, reason } => {
                self.status.last_words = Some((code, printable(&reason, MAX_TEXT)));
            }
        }
    }

    fn log(&mut self, verb: u8, text: &str, now: Instant) {
        if self.limits.log.allow(now) {
            let refused = self.limits.log.take_refused();
            if refused > 0 {
                say!(1, "{refused} lines of the engine were suppressed");
            }
            say!(verb, "{}", printable(text, MAX_TEXT));
        }
    }

    /// The peer begins or ceases to answer.
    pub(super) fn link_changed(&mut self, up: bool, now: Instant) {
        if self.status.up == up {
            return;
        }
        self.status.up = up;
        self.control.since = unix_time();
        self.manager.hurry();
        if self.link.config.full_tunnel.is_some() {
            self.renew_routes();
        }
        if self.limits.link.allow(now) {
            if self.status.hooks.len() >= MAX_HOOKS {
                self.status.hooks.drain(..2);
            }
            self.status.hooks.push_back(if up { Hook::LinkUp } else { Hook::LinkDown });
        }
    }

    fn resolve(&mut self, now: Instant) {
        let found = if self.limits.resolve.allow(now) { self.resolver.start(now) } else { Some(Vec::new()) };
        if let Some(addresses) = found {
            self.resolved(addresses);
        }
    }

    /// Tells the engine the remotes' addresses, but for those that the routes lead into the tunnel itself.
    pub(super) fn resolved(&mut self, mut addresses: Vec<SocketAddr>) {
        if self.link.config.full_tunnel.is_some() {
            if addresses.is_empty() {
                // The resolver may be behind the tunnel that is down.
                addresses.clone_from(&self.status.resolved);
            }
            self.status.resolved.clone_from(&addresses);
        }
        addresses.retain(|address| match self.routing_loop(*address) {
            Some(text) => {
                say!(1, "{text}");
                false
            }
            None => true,
        });
        self.manager.note_resolved(&addresses);
        self.answer(&ToEngine::Resolved { addresses });
    }

    fn endpoint(&mut self, address: SocketAddr, now: Instant) {
        if !self.limits.endpoint.allow(now) {
            return self.answer(&ToEngine::Route { address, mtu: None, source: None });
        }
        let moved = self.status.endpoint.replace(address) != Some(address);
        let lookup = self.changes.netlink.lookup(address.ip().to_canonical(), self.link.config.mark()).ok();
        let (mtu, source) = lookup.map_or((None, None), |lookup| (lookup.mtu, lookup.source));
        self.answer(&ToEngine::Route { address, mtu, source });
        if moved {
            self.renew_pushed();
        }
    }

    /// Why datagrams to `address` would go into the device instead of to the peer, if they would.
    pub(super) fn routing_loop(&mut self, address: SocketAddr) -> Option<String> {
        let device = self.changes.interface()?;
        let ip = address.ip().to_canonical();
        // An unreachable address is no loop; sending to it fails and says so.
        let lookup = self.changes.netlink.lookup(ip, self.link.config.mark()).ok()?;
        (lookup.interface == device.index).then(|| {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            format!(
                "the remote's own address {ip} is routed into {}, the tunnel itself: add [[route]] to = \
                 \"{ip}/{length}\", via = \"net_gateway\"",
                device.name
            )
        })
    }
}
