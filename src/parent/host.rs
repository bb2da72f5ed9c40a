//! Preparing the host, and taking everything back.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Config;
use crate::device;
use crate::helper::resolve;
use crate::host::changes::Savepoint;
use crate::parent::environment::Hook;
use crate::parent::notify;
use crate::parent::{Parent, Stage};
use crate::report::exit::{CONFIG, FAILED, Fatal, PRIVILEGE, UNAVAILABLE};
use crate::route::full;
use crate::route::plan::{self, Host, Interface};
use crate::say;

/// How long the engine has for its farewell to the peer.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

impl Parent {
    /// Device, its settings, `up`, routes, `route-up`, in this order. What was done stays, to be taken back
    /// by [`Parent::finish`].
    pub(super) fn prepare_host(&mut self) -> Result<(), Fatal> {
        let interface = self.open_device()?;
        let host = self.survey()?;
        self.status.net_gateway = net_gateway(&host, &interface);
        let steps = plan::device_steps(&self.link.config, &interface, &host)
            .map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.changes.apply(&steps).map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.status.device_steps = steps;
        self.run_script(Hook::Up)?;
        if self.is_ending() {
            return Ok(());
        }
        self.status.stage = Stage::Up;
        self.set_routes(&interface)
    }

    fn open_device(&mut self) -> Result<Interface, Fatal> {
        let settings = &self.link.config.device;
        let device = device::open(settings.mode, settings.name.as_deref()).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::PermissionDenied => PRIVILEGE,
                _ => UNAVAILABLE,
            };
            Fatal::new(code, format!("cannot open the device: {error}"))
        })?;
        let interface = Interface { index: device.index, name: device.name.clone() };
        say!(3, "device {} is open", device.name);
        self.changes.keep(device);
        Ok(interface)
    }

    fn survey(&mut self) -> Result<Host, Fatal> {
        let config = self.link.config.clone();
        self.survey_for(&config)
    }

    /// What a plan for `config` has to know of the host.
    pub(super) fn survey_for(&mut self, config: &Config) -> Result<Host, Fatal> {
        let failed = |error: std::io::Error| Fatal::new(FAILED, error);
        let routes = self.changes.netlink.routes().map_err(failed)?;
        let bridge = match &config.device.bridge {
            Some(name) => self.changes.netlink.link(name).map_err(failed)?,
            None => None,
        };
        if let Some(link) = bridge.as_ref().filter(|link| !link.is_bridge()) {
            return Err(Fatal::new(
                UNAVAILABLE,
                format!("{} is not a bridge: repair device.bridge", link.name),
            ));
        }
        let bridge = bridge.map(|link| Interface { index: link.index, name: link.name });
        // Who made a device gave it its address; on a bridge it must not be the lowest.
        let own = bridge.is_none() && self.changes.device().is_some_and(|device| device.adopted);
        Ok(Host { routes, bridge, mac: (!own).then_some(self.link.hardware_address) })
    }

    /// The host is looked at again: `up` may have changed addresses and routes.
    fn set_routes(&mut self, interface: &Interface) -> Result<(), Fatal> {
        let host = self.survey()?;
        let steps = self
            .wanted_routes(&self.link.config, interface, &host)
            .map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.status.before_routes = self.changes.mark();
        self.status.stage = Stage::Routed;
        self.resolve_before_closing()?;
        let blocks = full::blocks(&self.link.config);
        self.changes.block(&blocks).map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.changes.apply(&steps).map_err(|error| Fatal::new(UNAVAILABLE, error))?;
        self.status.route_steps = steps;
        if self.link.config.full_tunnel.is_some_and(|full| full.local_networks) {
            say!(
                1,
                "full tunnel: networks that this host is connected to stay reachable beside the tunnel \
                 (full-tunnel.local-networks)"
            );
        }
        for address in self.known_addresses() {
            if let Some(text) = self.routing_loop(address) {
                // Where the engine sends it may choose, but not this code: systemd would not start the link again.
                let configured = self.literal_remotes().any(|remote| remote == address);
                return Err(Fatal::new(if configured { CONFIG } else { UNAVAILABLE }, text));
            }
        }
        self.renew_pushed();
        if let Err(error) = self.run_script(Hook::RouteUp) {
            say!(1, "{error}");
        }
        Ok(())
    }

    /// The remotes that are addresses already.
    fn literal_remotes(&self) -> impl Iterator<Item = SocketAddr> {
        let remotes = self.link.config.remotes.iter();
        remotes.filter_map(resolve::known)
    }

    /// The remotes that are addresses already, and where the engine sends.
    pub(super) fn known_addresses(&self) -> Vec<SocketAddr> {
        self.literal_remotes()
            .chain(self.status.endpoint)
            .chain(self.status.resolved.iter().copied())
            .collect()
    }

    /// Ends what runs and takes every change back, the last first. Returns the exit code.
    pub(super) fn finish(mut self) -> u8 {
        notify::stopping();
        self.end_script();
        self.stop_engine(FAREWELL);
        let mut farewell = Vec::new();
        if self.status.announced {
            farewell.push(Hook::LinkDown);
        }
        if self.status.stage >= Stage::Routed {
            farewell.push(Hook::RouteDown);
        }
        for hook in farewell {
            self.run_last_script(hook);
        }
        self.changes.roll_back_to(self.status.before_routes);
        if self.status.stage >= Stage::Up {
            self.run_last_script(Hook::Down);
        }
        self.changes.roll_back_to(Savepoint::default());
        if self.exit_code() == 0 {
            // Only an end in order opens what was closed; taking back does not fail.
            let _ = self.changes.block(&[]);
        }
        self.exit_code()
    }

    fn run_last_script(&mut self, hook: Hook) {
        if let Err(error) = self.run_script(hook) {
            say!(1, "{error}");
        }
    }
}

/// The IPv4 gateway of the lowest-metric default route that does not lead through the device.
pub(super) fn net_gateway(host: &Host, device: &Interface) -> Option<std::net::IpAddr> {
    let defaults = host.routes.iter().filter(|route| {
        route.to.addr().is_ipv4() && route.to.prefix_len() == 0 && route.interface != device.index
    });
    defaults.min_by_key(|route| route.metric.unwrap_or(0)).and_then(|route| route.gateway)
}
