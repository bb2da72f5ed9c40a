//! What the parent does for the engine: whatever the door admits.
#![allow(clippy::disallowed_methods, reason = "the door's limits count by the clock")]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Instant;

use crate::core::path::Path;
use crate::core::settings::MAX_TEXT;
use crate::helper::zone;
use crate::parent::Parent;
use crate::parent::machine::Event;
use crate::privsep::door::Verdict;
use crate::privsep::message::{End, ToEngine, ToParent};
use crate::report::text::printable;
use crate::sys::clock::unix_time;
use crate::transport::connected::{self, Port};

impl Parent {
    /// Handles a request of the engine, as far as the door admits it.
    pub(super) fn handle_request(&mut self, message: ToParent) {
        match self.door.handle(Instant::now(), message) {
            Verdict::Do { message, dropped } => self.serve_request(message, dropped),
            Verdict::Nothing => {}
        }
    }

    /// Handles requests delayed at the door.
    pub(super) fn serve_door(&mut self) {
        while let Some(message) = self.door.poll(Instant::now()) {
            self.serve_request(message, 0);
            self.work();
        }
    }

    /// `dropped`: how many of its kind were not admitted.
    fn serve_request(&mut self, message: ToParent, dropped: u64) {
        match message {
            ToParent::Locked { protections } => self.locked(&protections),
            ToParent::Keep(kept) => self.keep(kept),
            ToParent::Resolve => {
                if let Some(addresses) = self.resolver.start(Instant::now()) {
                    self.resolved(addresses);
                }
            }
            ToParent::Endpoint(path) => self.endpoint(path),
            ToParent::Connect { lane, own_port, remote, local } => {
                let port = if own_port { Port::Own } else { Port::Shared };
                self.connect(lane, port, Path { local, ..remote.into() });
            }
            ToParent::Stream { to } => self.connect_stream(to),
            ToParent::OpenDevice => self.machine.handle(Event::OpenDevice),
            ToParent::LinkUp { endpoint, name } => {
                self.status.trusted = Some(endpoint.remote);
                if !self.machine.is_up() {
                    let endpoint = zone::named_path(endpoint);
                    log::info!("link up with {endpoint}, the peer's \"{}\"", printable(&name, MAX_TEXT));
                }
                self.machine.handle(Event::LinkUp);
            }
            ToParent::Rerouted { passes } => self.rerouted(passes),
            ToParent::PushedRoutes { routes } => self.take_pushed(routes),
            ToParent::LinkDown { reason, traffic } => {
                self.status.traffic = traffic;
                if self.machine.is_up() {
                    let text = printable(&reason.to_string(), MAX_TEXT);
                    log::warn!("link down: {text} [{}]", reason.code());
                }
                self.control.reason = Some(reason);
                self.machine.handle(Event::LinkDown);
            }
            ToParent::State(state) => self.take_state(*state),
            ToParent::Traffic(traffic) => self.status.traffic = traffic,
            ToParent::Log { level, text } => {
                if dropped > 0 {
                    log::warn!("{dropped} lines of the engine were suppressed");
                }
                log::log!(level, "{}", printable(&text, MAX_TEXT));
            }
            ToParent::KeyLog(entry) => {
                if let Some(log) = &mut self.link.key_log {
                    if dropped > 0 {
                        log::warn!("{dropped} keys are missing from the key log");
                    }
                    log.write(&entry);
                }
            }
            ToParent::Exit { end, reason } => {
                let end = if end == End::DeviceLost && self.has_device() { End::Failed } else { end };
                self.machine.handle(Event::LastWords(end, printable(&reason, MAX_TEXT)));
            }
        }
    }

    /// Whether the device exists. The engine's word is not trusted.
    fn has_device(&mut self) -> bool {
        let device = self.changes.interface();
        device.is_some_and(|device| !matches!(self.changes.netlink.link_at(device.index), Ok(None)))
    }

    /// An honest engine says so once.
    fn locked(&mut self, protections: &str) {
        if self.status.protections.is_none() {
            let protections = printable(protections, MAX_TEXT);
            log::debug!("engine: {protections}");
            self.status.protections = Some(protections);
            self.tell_ready();
        }
    }

    /// Handles a change of the link's state.
    pub(super) fn link_changed(&mut self, up: bool) {
        self.control.since = unix_time();
        self.manager.hurry();
        if self.link.config.full_tunnel.is_some() {
            self.renew_routes();
        }
        if up {
            self.announce_addresses();
        } else {
            self.forget_hosts_of_port();
        }
    }

    /// Tells the engine the remotes' addresses known so far, except those routed into the tunnel itself and, if there are or will be others, those
    /// without a route.
    pub(super) fn resolved(&mut self, mut addresses: Vec<Path>) {
        if self.link.config.full_tunnel.is_some() {
            if addresses.is_empty() {
                // The resolver may be behind the tunnel that is down.
                addresses.clone_from(&self.status.resolved);
            }
            self.status.resolved.clone_from(&addresses);
        }
        addresses.retain(|address| match self.routing_loop(self.first_hop(*address)) {
            Some(text) => {
                // It is looked up repeatedly.
                if self.status.said_loop.as_ref() != Some(&text) {
                    log::warn!("{text}");
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
        self.streams.allow(&reached);
        self.answer(&ToEngine::Resolved { addresses: reached });
    }

    /// The hop that the host's routes decide on: to the proxy, if there is one.
    fn first_hop(&self, path: Path) -> Path {
        let proxy = self.resolver.known_proxies().first().copied();
        Path { remote: proxy.filter(|_| path.stream).unwrap_or(path.remote), ..path }
    }

    /// Whether socket and routes let datagrams go there.
    fn is_reached(&mut self, path: Path) -> bool {
        let config = &self.link.config;
        let first = self.first_hop(path);
        let of_family = |own: IpAddr| own.is_ipv4() == first.remote.is_ipv4();
        let bound = path.stream || config.listen.address.is_none_or(of_family);
        bound && self.changes.netlink.way(config, first).is_ok()
    }

    fn endpoint(&mut self, path: Path) {
        let address = path.remote;
        let moved = self.status.endpoint.replace(address) != Some(address);
        self.status.stream = path.stream;
        let way = self.changes.netlink.way(&self.link.config, path).ok();
        self.answer(&ToEngine::Route { address, mtu: way.and_then(|way| way.mtu) });
        self.status.source = self.source().map(|(_, source)| source);
        if moved {
            self.renew_pushed();
        }
    }

    /// The source address that the host's routes choose for datagrams to the peer.
    fn source(&mut self) -> Option<(SocketAddr, IpAddr)> {
        let to = self.status.endpoint.filter(|_| !self.status.stream)?;
        let config = &self.link.config;
        let way = self.changes.netlink.way(config, to.into()).ok()?;
        let outside = self.changes.interface().is_none_or(|device| device.index != way.interface);
        Some((to, way.source.filter(|_| outside && config.listen.address.is_none())?))
    }

    /// If the routes now choose another source, the one known to the peer may be dead.
    pub(super) fn follow_source(&mut self) {
        if let Some((remote, source)) = self.source()
            && self.status.source.replace(source).is_some_and(|before| before != source)
        {
            self.answer(&ToEngine::Moved(Path { local: Some(source), ..remote.into() }));
        }
    }

    /// Gives the engine a socket for a lane's path, unless a superserver shares the port.
    pub(super) fn connect(&mut self, lane: u8, port: Port, path: Path) {
        if lane >= self.lanes() {
            return;
        }
        let Some(front) = self.front.as_ref().filter(|_| !self.link.activated) else { return };
        self.status.connected.insert(lane, (port, path));
        let (Path { remote, local, .. }, named) = (path, zone::named(path.remote));
        match connected::open(front.as_fd(), &self.link.config, port, path) {
            Ok(socket) => self.hand_over(&ToEngine::Connected { lane, remote, local }, &[socket.as_fd()]),
            Err(error) => log::debug!("{named} shares a socket with whoever sends to the port: {error}"),
        }
    }

    /// Why datagrams along `path` would go into the device instead of to the peer, if they would.
    pub(super) fn routing_loop(&mut self, path: Path) -> Option<String> {
        let device = self.changes.interface()?;
        let ip = path.remote.ip().to_canonical();
        // An unreachable address is no loop; sending to it fails and is reported.
        let way = self.changes.netlink.way(&self.link.config, path).ok()?;
        (way.interface == device.index).then(|| {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            format!(
                "the remote's own address {ip} is routed into {}, the tunnel itself: add [[route]] to = \
                 \"{ip}/{length}\", via = \"net_gateway\"",
                device.name
            )
        })
    }
}
