//! Preparing the host, and undoing it.

#![allow(clippy::disallowed_methods, reason = "the parent prepares the device before its poll loop begins")]

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::{Code, Config, Lanes, MAX_LANES_UNASKED};
use crate::device::{self, Device};
use crate::helper::resolve;
use crate::packet::layer::Mode;
use crate::parent::Parent;
use crate::report::exit::{CONFIG, FAILED, Fatal, PRIVILEGE, UNAVAILABLE};
use crate::route::full;
use crate::route::plan::{self, Host, Interface};
use crate::route::step::Step;
use crate::sys::rights;

/// How long the kernel may take to validate a tun device's addresses.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a port or device may stay in use.
const TAKEN_PATIENCE: Duration = Duration::from_secs(2);

/// Retries for a while if it fails with `fails`: after a parent was killed, its engine still holds port and device until it ends.
pub(super) fn patiently<T>(
    fails: io::ErrorKind,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let deadline = Instant::now() + TAKEN_PATIENCE;
    loop {
        match attempt() {
            Err(error) if error.kind() == fails && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

impl Parent {
    /// Opens the device and configures it.
    pub(super) fn prepare_device(&mut self) -> Result<(), Fatal> {
        let interface = self.open_device()?;
        let host = self.survey()?;
        self.status.net_gateway = net_gateway(&host, &interface);
        let steps = plan::device_steps(&self.link.config, &interface, &host)
            .map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.changes.apply(&steps).map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.status.device_steps = steps;
        self.await_addresses(interface.index)
    }

    /// Waits for IPv6 addresses. The kernel validates them, and adds their routes, asynchronously, and late on a busy host. Scripts and those
    /// who hear that the link is up may rely on both. On a tap device, duplicate address detection asks the far segment (RFC 4862, section 5.4); that
    /// is not waited for.
    fn await_addresses(&mut self, interface: u32) -> Result<(), Fatal> {
        let is_ipv6 = |step: &Step| matches!(step, Step::AddAddress { address: IpNet::V6(_), .. });
        if !self.status.device_steps.iter().any(is_ipv6) || self.link.config.device.mode != Mode::Tun {
            return Ok(());
        }
        let deadline = Instant::now() + ADDRESS_PATIENCE;
        while Instant::now() < deadline {
            let addresses = self.changes.netlink.addresses().map_err(|error| Fatal::new(FAILED, error))?;
            if !addresses.iter().any(|address| address.interface == interface && address.tentative) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn open_device(&mut self) -> Result<Interface, Fatal> {
        let settings = &self.link.config.device;
        let lanes = self.wanted_lanes();
        let open = || device::open(settings.mode, settings.name.as_deref(), lanes);
        let device = patiently(io::ErrorKind::ResourceBusy, open).map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => PRIVILEGE,
                _ => UNAVAILABLE,
            };
            Fatal::new(code, format!("cannot open the device: {error}{}", rights::limits(&error)))
        })?;
        if device.queues.len() < lanes.into() {
            let problem = lacks_queues(&device, settings.mode);
            match self.link.config.tuning.data_path.lanes {
                Lanes::Count(count) => {
                    return Err(Fatal::new(
                        UNAVAILABLE,
                        format!("tuning.lanes is {count}, but {problem}, or set lanes = 1"),
                    ));
                }
                Lanes::Auto => log::warn!("the link has one lane: {problem}"),
            }
        }
        let interface = Interface { index: device.index, name: device.name.clone() };
        log::debug!("device {} is open", device.name);
        self.changes.keep(device);
        Ok(interface)
    }

    /// How many queues to request. A device opened after the engine started has one.
    fn wanted_lanes(&self) -> u8 {
        match self.link.config.tuning.data_path.lanes {
            Lanes::Count(1) => 1,
            _ if self.link.activated => {
                log::debug!("tuning.lanes has no effect: a link that a superserver started has one lane");
                1
            }
            Lanes::Count(count) => count,
            Lanes::Auto => {
                let processors = available_parallelism().map_or(1, NonZero::get);
                u8::try_from(processors).unwrap_or(u8::MAX).min(MAX_LANES_UNASKED)
            }
        }
    }

    fn survey(&mut self) -> Result<Host, Fatal> {
        let config = self.link.config.clone();
        self.survey_for(&config)
    }

    /// The state of the host that a plan for `config` needs.
    pub(super) fn survey_for(&mut self, config: &Config) -> Result<Host, Fatal> {
        let routes = self.changes.netlink.routes().map_err(|error| Fatal::new(FAILED, error))?;
        Ok(Host { routes, ..self.survey_beside_routes(config)? })
    }

    /// The same without the routes.
    pub(super) fn survey_beside_routes(&mut self, config: &Config) -> Result<Host, Fatal> {
        let failed = |error: std::io::Error| Fatal::new(FAILED, error);
        let bridge = match &config.device.bridge {
            Some(name) => self.changes.netlink.link(name).map_err(failed)?,
            None => None,
        };
        if let Some(link) = bridge.as_ref().filter(|link| !link.is_bridge()) {
            return Err(Fatal::new(UNAVAILABLE, format!("{} is not a bridge: fix device.bridge", link.name)));
        }
        let bridge = bridge.map(|link| Interface { index: link.index, name: link.name });
        // A foreign device keeps its MAC address, but on a bridge that must not be the lowest.
        let own = bridge.is_none() && self.changes.device().is_some_and(|device| device.adopted);
        Ok(Host { routes: Vec::new(), bridge, mac: (!own).then_some(self.link.hardware_address) })
    }

    /// Surveys the host again, as `up` may have changed it, and sets routes.
    pub(super) fn set_routes(&mut self) -> Result<(), Fatal> {
        let Some(interface) = self.changes.interface() else { return Ok(()) };
        self.check_resolved()?;
        let host = self.survey()?;
        let steps = self
            .wanted_routes(&self.link.config, &interface, &host)
            .map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.status.before_routes = self.changes.mark();
        let blocks = full::blocks(&self.link.config);
        self.changes.block(&blocks).map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.changes.apply(&steps).map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.status.route_steps = steps;
        if self.link.config.full_tunnel.is_some_and(|full| full.local_networks) {
            log::info!(
                "full tunnel: networks this host is connected to bypass the tunnel \
                 (full-tunnel.local-networks) [{}]",
                Code::LocalNetworks
            );
        }
        for address in self.known_addresses() {
            if let Some(text) = self.routing_loop(address.into()) {
                // The engine may choose where it sends, but not this exit code: systemd would not restart the link.
                let configured = self.literal_remotes().any(|remote| remote == address);
                return Err(Fatal::new(if configured { CONFIG } else { UNAVAILABLE }, text));
            }
        }
        self.renew_pushed();
        Ok(())
    }

    /// The remotes given as addresses.
    fn literal_remotes(&self) -> impl Iterator<Item = SocketAddr> {
        let remotes = self.link.config.remotes.iter();
        remotes.filter_map(resolve::known)
    }

    /// The addresses of remotes, peer and proxies known so far.
    pub(super) fn known_addresses(&self) -> Vec<SocketAddr> {
        self.literal_remotes()
            .chain(self.status.endpoint)
            .chain(self.status.resolved.iter().map(|path| path.remote))
            .chain(self.resolver.known_proxies())
            .collect()
    }
}

/// Why a device has one queue, and the remedy.
fn lacks_queues(device: &Device, mode: Mode) -> String {
    let name = &device.name;
    match device.adopted {
        true => format!(
            "{name} has only one queue: make it with `ip tuntap add dev {name} mode {mode} multi_queue`"
        ),
        false => "the driver of this host has one queue for each device: use another kernel".to_owned(),
    }
}

/// The IPv4 gateway of the lowest-metric default route that does not use the device.
pub(super) fn net_gateway(host: &Host, device: &Interface) -> Option<std::net::IpAddr> {
    let defaults = host.routes.iter().filter(|route| {
        route.to.addr().is_ipv4() && route.to.prefix_len() == 0 && route.interface != device.index
    });
    defaults.min_by_key(|route| route.metric.unwrap_or(0)).and_then(|route| route.gateway)
}
