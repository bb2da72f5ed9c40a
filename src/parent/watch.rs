//! Watches what tund has set and what it was told to use: compares on every change of the host, and repairs.
#![allow(clippy::disallowed_methods, reason = "repairs are limited by the clock")]

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::parent::Parent;
use crate::parent::machine::{Event, Stage};
use crate::route::difference::{Difference, Missing};
use crate::route::facts::{self, Finding, Seen, Sight, Wanted};
use crate::route::mending::Mending;
use crate::route::monitor::Monitor;
use crate::route::netlink::Main;
use crate::route::plan::Step;
use crate::sys::clock::unix_time;

/// How long a change may settle before the host is compared ...
const SETTLE: Duration = Duration::from_millis(300);
/// ... the minimum interval between comparisons ...
const PAUSE: Duration = Duration::from_secs(1);
/// ... and the maximum, without a reported change.
const ROUTINE: Duration = Duration::from_secs(60);
/// How long a difference must last for its end to be logged, in seconds.
const WORTH_SAYING: u64 = 3;
/// Most steps of one repair that are logged.
const SHOWN: usize = 5;

/// Watches over what was set.
pub(super) struct Watch {
    /// Without it, the host is only compared periodically.
    pub(super) monitor: Option<Monitor>,
    due: Instant,
    looked: Instant,
    mending: Mending,
    /// As of the last comparison.
    findings: Vec<Finding>,
    last_failure: Option<String>,
    /// Something has changed since.
    changed: bool,
    /// The state of the device then.
    pub(super) sight: Option<Sight>,
    /// What was set and was missing then.
    pub(super) absent: BTreeSet<String>,
    /// A failed plan has been logged.
    pub(super) complained: bool,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        let complain = |error: &io::Error| {
            log::warn!("cannot watch this host for changes: {error}; it is checked once a minute");
        };
        Self {
            monitor: Monitor::listen().inspect_err(complain).ok(),
            due: now + ROUTINE,
            looked: now,
            mending: Mending::default(),
            findings: Vec::new(),
            last_failure: None,
            changed: false,
            sight: None,
            absent: BTreeSet::new(),
            complained: false,
        }
    }

    /// When the next comparison is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The differences, each with its start in seconds since the Unix epoch.
    pub(super) fn differences(&self) -> impl Iterator<Item = (&Difference, u64)> {
        self.findings.iter().map(|finding| {
            let difference = &finding.difference;
            (difference, self.mending.since(difference.code()).unwrap_or_default())
        })
    }

    /// The difference that stops all frames, if there is one.
    pub(super) fn obstacle(&self) -> Option<(&Difference, u64)> {
        self.differences().find(|(difference, _)| difference.stops_frames())
    }

    /// Logs why something cannot be repaired; the same failure is logged once.
    pub(super) fn complain(&mut self, error: String) {
        if self.last_failure.as_ref() != Some(&error) {
            log::warn!("{error}: trying again");
            self.last_failure = Some(error);
        }
    }

    fn take_changed(&mut self, now: Instant) {
        if self.monitor.as_ref().is_some_and(Monitor::take_changed) {
            self.changed = true;
            self.hurry((now + SETTLE).max(self.looked + PAUSE));
        }
    }

    /// Compares no later than `at`.
    fn hurry(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }
}

impl Parent {
    /// Notices changes of the host, and repairs their effects on this link once they have settled.
    pub(super) fn watch_host(&mut self) {
        let now = Instant::now();
        self.watch.take_changed(now);
        if self.watch.due > now {
            return;
        }
        self.watch.due = now + ROUTINE;
        self.watch.looked = now;
        if self.is_settled() {
            let Some((main, renewed)) = self.renew_routes() else { return };
            if renewed {
                log::info!("the host's routes have changed: renewing those of the link");
            }
            self.look(main);
            self.mend(now);
            self.follow_source();
        }
    }

    /// Whether everything is set up and stays.
    fn is_settled(&self) -> bool {
        self.machine.stage() == Stage::Routed && !self.machine.is_ending()
    }

    /// Compares now if anything has changed.
    pub(super) fn look_again(&mut self) {
        self.watch.take_changed(Instant::now());
        if self.watch.changed
            && self.is_settled()
            && let Some(main) = self.read_main()
        {
            self.look(main);
        }
    }

    /// Compares the wanted state with the actual one.
    fn look(&mut self, main: Main) {
        self.watch.changed = false;
        let Some(device) = self.changes.interface() else { return };
        let seen = match self.survey_all(main) {
            Ok(seen) => seen,
            Err(error) => return log::warn!("{error}: what is set on this host is not compared"),
        };
        let wanted = Wanted {
            config: &self.link.config,
            device: &device,
            device_steps: &self.status.device_steps,
            own_socket: !self.link.activated,
        };
        let findings = facts::compare(wanted, &seen);
        let codes: Vec<_> = findings.iter().map(|finding| finding.difference.code()).collect();
        let now = unix_time();
        for (code, since) in self.watch.mending.observe(&codes, now) {
            if now.saturating_sub(since) >= WORTH_SAYING {
                log::info!("resolved after {} s [{code}]", now - since);
            }
        }
        self.watch.findings = findings;
        self.watch.sight = facts::sight(&device, &seen);
        self.watch.absent = facts::absent(&self.status.device_steps, &seen);
    }

    fn survey_all(&mut self, main: Main) -> io::Result<Seen> {
        let steps: Vec<_> = self
            .changes
            .blocks()
            .iter()
            .chain(&self.status.route_steps)
            .chain(self.status.pushed.installed())
            .cloned()
            .collect();
        let bind = self.link.config.bind_device.as_ref();
        let socket = bind.and(self.front.as_ref());
        let bound_to = socket.and_then(|socket| SockRef::from(socket).device().ok().flatten());
        let lost = self.lost_sockets();
        let netlink = &mut self.changes.netlink;
        Ok(Seen {
            links: netlink.links()?,
            addresses: netlink.addresses()?,
            missing: netlink.missing(&steps, &main)?,
            routes: main.routes,
            bound_to: bound_to.and_then(|name| String::from_utf8(name).ok()),
            lost,
        })
    }

    /// Logs the differences, and repairs them as often as allowed.
    fn mend(&mut self, now: Instant) {
        for finding in std::mem::take(&mut self.watch.findings) {
            let code = finding.difference.code();
            if self.watch.mending.attempt(code, now) {
                let text = finding.difference.to_string();
                if self.watch.mending.is_news(code, &text) {
                    log::warn!("{text} [{code}]");
                }
                if finding.is_mendable() {
                    self.mend_one(&finding);
                    // See if it helped; repair what had to wait.
                    self.watch.hurry(now + SETTLE);
                }
            } else if let Some(at) = self.watch.mending.free_at(code) {
                self.watch.hurry(at);
            }
            self.watch.findings.push(finding);
        }
    }

    fn mend_one(&mut self, finding: &Finding) {
        let mut failed = None;
        let results: Vec<Result<(), String>> = match (&finding.difference, finding.mends.as_slice()) {
            (Difference::StepsMissing { kind: Missing::ConnectedRoute, .. }, steps) => {
                steps.iter().map(|step| self.changes.owe_once(step)).collect()
            }
            (_, [join @ Step::Join { .. }]) => vec![self.join_again(join)],
            (_, steps) => {
                let results = self.changes.repair(steps).into_iter();
                results.map(|result| result.map(drop).map_err(|error| error.to_string())).collect()
            }
        };
        let mut again = 0;
        for (step, result) in finding.mends.iter().zip(results) {
            match result {
                Ok(()) => {
                    again += 1;
                    if again <= SHOWN {
                        log::warn!("changed by another program, set again: {step}");
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed = failed.or(self.mend_without_steps(&finding.difference).err());
        if again > SHOWN {
            log::warn!("and {} more", again - SHOWN);
        }
        if let Some(error) = failed {
            self.watch.complain(error);
        }
    }

    fn mend_without_steps(&mut self, difference: &Difference) -> Result<(), String> {
        if let Difference::SocketUnbound { interface } = difference {
            match self.bind_again(interface) {
                Ok(()) => log::info!("the socket is bound to {interface} again"),
                // Without CAP_NET_RAW, only an unbound socket can be bound.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.link.activated => {
                    self.machine.handle(Event::NewSocket);
                }
                Err(error) => {
                    return Err(format!(
                        "cannot bind the socket to {interface}: {error}; it needs CAP_NET_RAW"
                    ));
                }
            }
        } else if let Difference::BridgeMtu { .. } = difference {
            self.machine.handle(Event::BridgeMtu);
        } else if let Difference::ControlSocketMissing { path } = difference {
            self.listen_again()?;
            log::info!("the control socket is at {path} again");
        } else if let Difference::MetricsMissing { address } = difference {
            self.serve_metrics_again()?;
            log::info!("metrics are served at {address}");
        }
        Ok(())
    }

    /// The bridge may be a new one of the same name.
    fn join_again(&mut self, join: &Step) -> Result<(), String> {
        let old = self.status.device_steps.iter_mut().find(|step| matches!(step, Step::Join { .. }));
        let Some(old) = old else { return self.changes.owe_once(join) };
        self.changes.replace(old, join)?;
        *old = join.clone();
        Ok(())
    }

    /// Also replaces the peer's own sockets.
    fn bind_again(&mut self, interface: &str) -> io::Result<()> {
        let Some(front) = &self.front else { return Ok(()) };
        SockRef::from(front).bind_device(Some(interface.as_bytes()))?;
        for (lane, (port, path)) in self.status.connected.clone() {
            self.connect(lane, port, path);
        }
        Ok(())
    }
}
