//! The routes of a running link: kept as the configuration wants them while the host changes around them.
#![allow(clippy::disallowed_methods, reason = "a look-up has a deadline")]

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::parent::{Parent, Stage};
use crate::report::exit::{Fatal, UNAVAILABLE};
use crate::route::full;
use crate::route::plan::{self, Host, Interface, PlanError, Step};
use crate::route::step::difference;
use crate::say;

/// How long the remotes' names may take to resolve before everything is refused.
const LOOK_UP: Duration = Duration::from_secs(12);

impl Parent {
    /// What the configuration wants to be set on this host: the full tunnel, and the file's own routes.
    pub(super) fn wanted_routes(
        &self,
        config: &Config,
        device: &Interface,
        host: &Host,
    ) -> Result<Vec<Step>, PlanError> {
        let full = config.full_tunnel.is_some_and(|full| full.closed || self.status.up);
        let mut steps = if full { full::steps(config, device, host)? } else { Vec::new() };
        steps.extend(plan::route_steps(config, device, host)?);
        Ok(steps)
    }

    /// Exchanges the routes for these; what fails is added to `lines`, and the rest goes on: it is tried again later. New ones come
    /// first, so that the peer has a way at any time.
    pub(super) fn set_route_steps(&mut self, wanted: Vec<Step>, lines: &mut Vec<String>) {
        let old = std::mem::take(&mut self.status.route_steps);
        let (gone, new) = difference(&old, &wanted);
        lines.extend(self.changes.owe(&new));
        self.changes.take_back(&gone);
        self.status.route_steps = wanted;
    }

    /// Sets the routes as host and link are now: gateways and ways to the peer may be others. True: some were.
    pub(super) fn renew_routes(&mut self) -> bool {
        let Some(device) = self.changes.interface().filter(|_| self.status.stage == Stage::Routed) else {
            return false;
        };
        let mut renewed = false;
        let config = self.link.config.clone();
        let wanted = match self.survey_for(&config) {
            Ok(host) => {
                self.status.net_gateway = crate::parent::host::net_gateway(&host, &device);
                self.wanted_routes(&config, &device, &host)
            }
            Err(fatal) => Err(PlanError(fatal.message)),
        };
        match wanted {
            Ok(wanted) => {
                self.watch.complained = false;
                if wanted != self.status.route_steps {
                    let mut lines = Vec::new();
                    self.set_route_steps(wanted, &mut lines);
                    lines.iter().for_each(|line| say!(1, "{line}"));
                    renewed = true;
                }
            }
            // As after the loss of the default gateway: what is set stays, and counts again when it is back.
            Err(error) => {
                if !std::mem::replace(&mut self.watch.complained, true) {
                    say!(1, "{error}: the routes are left as they are");
                }
            }
        }
        self.renew_pushed();
        renewed
    }

    /// Nothing can be looked up any more once everything but the link's own datagrams is refused: the resolver's carry no
    /// mark, since they are not the link's, and what a name server answers comes from the network.
    pub(super) fn resolve_before_closing(&mut self) -> Result<(), Fatal> {
        let config = &self.link.config;
        let closed = config.full_tunnel.is_some_and(|full| full.closed);
        let by_name = config.remotes.iter().any(|remote| remote.address().is_none());
        if !closed || !by_name || !self.status.resolved.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + LOOK_UP;
        if let Some(addresses) = self.resolver.start(Instant::now()) {
            self.resolved(addresses);
        }
        while self.resolver.is_running() && !self.is_ending() && Instant::now() < deadline {
            self.turn(Some(deadline));
        }
        if self.status.resolved.is_empty() && !self.is_ending() {
            let text = "no remote has an address yet, and with full-tunnel.fail = \"closed\" none could be looked up later: \
                        try again when names resolve, or give an address in remote";
            return Err(Fatal::new(UNAVAILABLE, text));
        }
        Ok(())
    }
}
