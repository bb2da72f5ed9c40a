//! The routes of a running link: kept as configured while the host changes around them.
#![allow(clippy::disallowed_methods, reason = "a look-up begins now")]

use std::time::Instant;

use crate::config::Config;
use crate::parent::Parent;
use crate::parent::machine::{Event, Stage};
use crate::report::exit::{Fatal, UNAVAILABLE};
use crate::route::full;
use crate::route::netlink::Main;
use crate::route::plan::{self, Host, Interface, PlanError, Step};
use crate::route::step::difference;

impl Parent {
    /// The routes that the configuration wants on this host: the full tunnel's, and the file's own.
    pub(super) fn wanted_routes(
        &self,
        config: &Config,
        device: &Interface,
        host: &Host,
    ) -> Result<Vec<Step>, PlanError> {
        let full = config.full_tunnel.is_some_and(|full| full.closed || self.machine.is_up());
        let mut steps = if full { full::steps(config, device, host)? } else { Vec::new() };
        steps.extend(plan::route_steps(config, device, host)?);
        Ok(steps)
    }

    /// Replaces the routes. Failures are added to `lines` and retried later; the rest goes on. New routes are added first, so that the peer is always
    /// reachable.
    pub(super) fn set_route_steps(&mut self, wanted: Vec<Step>, lines: &mut Vec<String>) {
        let old = std::mem::take(&mut self.status.route_steps);
        let (gone, new) = difference(&old, &wanted);
        lines.extend(self.changes.owe(&new));
        self.changes.take_back(&gone);
        self.status.route_steps = wanted;
    }

    /// Sets the routes for the current host and link, whose gateways may differ. Returns table main after that, and whether any of the link's own
    /// changed; `None` if nothing can be set yet, or the table cannot be read, which is logged.
    pub(super) fn renew_routes(&mut self) -> Option<(Main, bool)> {
        let device = self.changes.interface().filter(|_| self.machine.stage() == Stage::Routed)?;
        let mut main = self.read_main()?;
        let renewed = self.renew_own(&device, &mut main);
        if renewed {
            main = self.read_main()?;
        }
        if self.renew_pushed_beside(&device, &mut main) {
            main = self.read_main()?;
        }
        Some((main, renewed))
    }

    /// Reads table main.
    pub(super) fn read_main(&mut self) -> Option<Main> {
        let main = self.changes.netlink.main();
        let failed =
            |error| self.watch.complain(format!("{error}: what is set here is not compared and stays"));
        main.map_err(failed).ok()
    }

    fn renew_own(&mut self, device: &Interface, main: &mut Main) -> bool {
        let mut renewed = false;
        let config = self.link.config.clone();
        let wanted = match self.survey_beside_routes(&config) {
            Ok(mut host) => {
                host.routes = std::mem::take(&mut main.routes);
                self.status.net_gateway = crate::parent::host::net_gateway(&host, device);
                let wanted = self.wanted_routes(&config, device, &host);
                main.routes = host.routes;
                wanted
            }
            Err(fatal) => Err(PlanError(fatal.message)),
        };
        match wanted {
            Ok(wanted) => {
                self.watch.complained = false;
                if wanted != self.status.route_steps {
                    let mut lines = Vec::new();
                    self.set_route_steps(wanted, &mut lines);
                    lines.iter().for_each(|line| log::info!("{line}"));
                    renewed = true;
                }
            }
            // E.g. the default gateway was lost: the routes stay, and work again when it is back.
            Err(error) => {
                if !std::mem::replace(&mut self.watch.complained, true) {
                    log::warn!("{error}: the routes are left as they are");
                }
            }
        }
        renewed
    }

    /// Whether names must be resolved first. Once all but the link's own datagrams are blocked, nothing resolves: the resolver's have no mark, as
    /// they are not the link's, and a name server's answer comes from the network.
    fn is_to_be_resolved(&self) -> bool {
        let config = &self.link.config;
        let closed = config.full_tunnel.is_some_and(|full| full.closed);
        let by_name = config.remotes.iter().any(|remote| remote.address().is_none());
        closed && by_name && self.status.resolved.is_empty()
    }

    pub(super) fn resolve_before_closing(&mut self) -> Option<Event> {
        if self.is_to_be_resolved() {
            if let Some(addresses) = self.resolver.start(Instant::now()) {
                self.resolved(addresses);
            }
            if self.resolver.is_running() {
                return None;
            }
        }
        Some(Event::LookedUp)
    }

    pub(super) fn check_resolved(&self) -> Result<(), Fatal> {
        let text = "no remote has an address yet, and with full-tunnel.fail = \"closed\" none could be looked up later: \
                    try again when names resolve, or give an address in remote";
        if self.is_to_be_resolved() { Err(Fatal::new(UNAVAILABLE, text)) } else { Ok(()) }
    }
}
