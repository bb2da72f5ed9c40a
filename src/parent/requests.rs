//! What the parent does for the engine: whatever the door lets in.
#![allow(clippy::disallowed_methods, reason = "the door's limits count by the clock")]

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use crate::core::path::Path;
use crate::core::settings::MAX_TEXT;
use crate::helper::zone;
use crate::parent::Parent;
use crate::parent::environment::Hook;
use crate::privsep::door::Verdict;
use crate::privsep::message::{ToEngine, ToParent};
use crate::report::text::printable;
use crate::say;
use crate::sys::clock::unix_time;
use crate::transport::connected;

/// Most scripts of the link's ups and downs that wait; of a longer row only the last ones run.
const MAX_HOOKS: usize = 4;

impl Parent {
    /// Does what the engine asks for, as far as the door lets it in, and answers.
    pub(super) fn handle_request(&mut self, message: ToParent) {
        match self.door.handle(Instant::now(), message) {
            Verdict::Do { message, dropped } => self.carry_out(message, dropped),
            Verdict::Nothing => {}
        }
    }

    /// Does what has waited at the door.
    pub(super) fn serve_door(&mut self) {
        while let Some(message) = self.door.poll(Instant::now()) {
            self.carry_out(message, 0);
        }
    }

    /// `dropped`: how many of its kind were not let in.
    fn carry_out(&mut self, message: ToParent, dropped: u64) {
        match message {
            ToParent::Locked { protections } => self.locked(&protections),
            ToParent::Resolve => {
                if let Some(addresses) = self.resolver.start(Instant::now()) {
                    self.resolved(addresses);
                }
            }
            ToParent::Endpoint { address } => self.endpoint(address),
            ToParent::Connect { remote, local } => self.connect(Path { remote, local }),
            ToParent::OpenDevice => self.status.device_wanted |= self.changes.device().is_none(),
            ToParent::LinkUp { endpoint, name } => {
                self.status.trusted = Some(endpoint);
                if !self.status.up {
                    let endpoint = zone::named(endpoint);
                    say!(1, "link up with {endpoint}, the peer's \"{}\"", printable(&name, MAX_TEXT));
                }
                self.link_changed(true);
            }
            ToParent::PushedRoutes { routes } => self.take_pushed(routes),
            ToParent::LinkDown { reason, traffic } => {
                self.status.traffic = traffic;
                if self.status.up {
                    let text = printable(&reason.to_string(), MAX_TEXT);
                    say!(1, "link down: {text} [{}]", reason.code());
                }
                self.control.reason = Some(reason);
                self.link_changed(false);
            }
            ToParent::State(state) => self.take_state(*state),
            ToParent::Traffic(traffic) => self.status.traffic = traffic,
            ToParent::Log { verb, text } => {
                if dropped > 0 {
                    say!(1, "{dropped} lines of the engine were suppressed");
                }
                say!(verb, "{}", printable(&text, MAX_TEXT));
            }
            ToParent::KeyLog(entry) => {
                if let Some(log) = &mut self.link.key_log {
                    if dropped > 0 {
                        say!(1, "{dropped} keys are missing in the key log");
                    }
                    log.write(&entry);
                }
            }
            // What it says first counts.
            ToParent::Exit { end, reason } => {
                self.status.last_words.get_or_insert((end, printable(&reason, MAX_TEXT)));
            }
        }
    }

    /// It says so once, if it is ours.
    fn locked(&mut self, protections: &str) {
        if self.status.protections.is_none() {
            let protections = printable(protections, MAX_TEXT);
            say!(3, "engine: {protections}");
            self.status.protections = Some(protections);
            self.tell_ready();
        }
    }

    /// The peer begins or ceases to answer.
    pub(super) fn link_changed(&mut self, up: bool) {
        if self.status.up == up {
            return;
        }
        self.status.up = up;
        self.control.since = unix_time();
        self.manager.hurry();
        if self.link.config.full_tunnel.is_some() {
            self.renew_routes();
        }
        if up {
            self.announce_addresses();
        }
        if self.status.hooks.len() >= MAX_HOOKS {
            self.status.hooks.drain(..2);
        }
        self.status.hooks.push_back(if up { Hook::LinkUp } else { Hook::LinkDown });
    }

    /// Tells the engine the remotes' addresses that are known so far, but for those that the routes lead into the tunnel
    /// itself, and, where there are others or may be soon, those that no route leads to.
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
                // It is looked up again and again.
                if self.status.said_loop.as_ref() != Some(&text) {
                    say!(1, "{text}");
                    self.status.said_loop = Some(text);
                }
                false
            }
            None => true,
        });
        let (mut reached, others): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| self.is_reached(*address));
        if reached.is_empty() {
            if self.resolver.is_running() && !others.is_empty() {
                return;
            }
            reached = others;
        }
        self.manager.note_resolved(&reached);
        self.answer(&ToEngine::Resolved { addresses: reached });
    }

    /// Whether socket and routes let datagrams go there.
    fn is_reached(&mut self, address: SocketAddr) -> bool {
        let config = &self.link.config;
        let bound = config.listen.address.is_none_or(|own| own.is_ipv4() == address.is_ipv4());
        let (ip, zone, mark) = (address.ip().to_canonical(), zone::index(address), config.mark());
        bound && self.changes.netlink.lookup(ip, zone, mark).is_ok()
    }

    fn endpoint(&mut self, address: SocketAddr) {
        let moved = self.status.endpoint.replace(address) != Some(address);
        let lookup = self.changes.netlink.lookup(
            address.ip().to_canonical(),
            zone::index(address),
            self.link.config.mark(),
        );
        let lookup = lookup.ok();
        let (mtu, source) = lookup.map_or((None, None), |lookup| (lookup.mtu, lookup.source));
        self.answer(&ToEngine::Route { address, mtu, source });
        if moved {
            self.renew_pushed();
        }
    }

    /// Gives the engine a socket for what comes along this way, unless a superserver waits at the port as well.
    pub(super) fn connect(&mut self, path: Path) {
        let Some(front) = self.front.as_ref().filter(|_| !self.link.activated) else { return };
        self.status.connected = Some(path);
        let (Path { remote, local }, named) = (path, zone::named(path.remote));
        match connected::open(front.as_fd(), &self.link.config, path) {
            Ok(socket) => {
                if let Some(engine) = &self.engine {
                    let sent = engine.channel.send(&ToEngine::Connected { remote, local }, &[socket.as_fd()]);
                    self.check_sent(sent);
                }
            }
            Err(error) => say!(3, "{named} shares a socket with whoever sends to the port: {error}"),
        }
    }

    /// Why datagrams to `address` would go into the device instead of to the peer, if they would.
    pub(super) fn routing_loop(&mut self, address: SocketAddr) -> Option<String> {
        let device = self.changes.interface()?;
        let ip = address.ip().to_canonical();
        // An unreachable address is no loop; sending to it fails and says so.
        let lookup = self.changes.netlink.lookup(ip, zone::index(address), self.link.config.mark()).ok()?;
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
