//! The routes that the peer offers, as applied to this host.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ipnet::IpNet;

use crate::core::settings::sources;
use crate::parent::Parent;
use crate::privsep::bulk;
use crate::privsep::message::ToEngine;
use crate::report::exit::FAILED;
use crate::route::accept::{self, Around, Verdict};
use crate::route::full;
use crate::route::netlink::Main;
use crate::route::plan::{self, Host, Interface, KernelRoute, Step};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How much of the file is searched for resolvers, in bytes.
const RESOLV_CONF_MAX: u64 = 64 * 1024;

/// The peer's offer and what became of it.
#[derive(Default)]
pub(super) struct Pushed {
    pub(super) offered: Vec<IpNet>,
    /// Routes that are set.
    installed: Vec<Step>,
    /// The routes reported to the engine.
    told: Vec<IpNet>,
    /// Refused routes that have been logged.
    said: Vec<IpNet>,
}

impl Pushed {
    /// The offered routes that are set.
    pub(super) fn installed(&self) -> &[Step] {
        &self.installed
    }
}

impl Parent {
    /// Replaces the previous offer; without a device it waits for one.
    pub(super) fn take_pushed(&mut self, offered: Vec<IpNet>) {
        self.status.pushed.said.retain(|said| offered.contains(said));
        self.status.pushed.offered = offered;
        self.renew_pushed();
    }

    /// Sets the offered routes for the current host, and removes those no longer offered.
    pub(super) fn renew_pushed(&mut self) {
        let Some(device) = self.changes.interface() else { return };
        if self.status.pushed.offered.is_empty() && self.status.pushed.installed.is_empty() {
            return;
        }
        if let Some(mut main) = self.read_main() {
            self.renew_pushed_beside(&device, &mut main);
        }
    }

    /// The same, with table main as read. Returns true if that is now outdated.
    pub(super) fn renew_pushed_beside(&mut self, device: &Interface, main: &mut Main) -> bool {
        if self.status.pushed.offered.is_empty() && self.status.pushed.installed.is_empty() {
            return false;
        }
        let host = Host { routes: std::mem::take(&mut main.routes), ..Host::default() };
        let verdict = self.judge(device, &host);
        for (net, refusal) in &verdict.refused {
            if !self.status.pushed.said.contains(net) {
                log::warn!("the peer's route {net} is refused: {refusal}");
                self.status.pushed.said.push(*net);
            }
        }
        let wanted = self.pushed_steps(device, &host, &verdict);
        main.routes = host.routes;
        let installed = std::mem::take(&mut self.status.pushed.installed);
        let (stay, go): (Vec<_>, Vec<_>) = installed.into_iter().partition(|step| wanted.contains(step));
        self.changes.take_back(&go);
        let changed = !go.is_empty() || stay.len() < wanted.len();
        let set = wanted.into_iter().filter(|step| stay.contains(step) || self.set_pushed(step)).collect();
        self.status.pushed.installed = set;
        self.tell_taken();
        changed
    }

    /// Tells the engine the accepted routes: it takes inner packets from them, and does not judge itself.
    fn tell_taken(&mut self) {
        let pushed = &mut self.status.pushed;
        let routes: Vec<_> = pushed.installed.iter().filter_map(Step::route).map(|route| route.to).collect();
        if pushed.told != routes {
            pushed.told.clone_from(&routes);
            self.answer(&ToEngine::Taken { routes });
        }
    }

    /// Tells the engine which inner sources the configuration allows.
    pub(super) fn tell_sources(&mut self) {
        let (Some(_), Some(sources)) = (&self.engine, sources(&self.link.config)) else { return };
        match bulk::write(&sources) {
            Ok(file) => self.hand_over(&ToEngine::Sources, &[file.as_fd()]),
            Err(error) => {
                self.end(FAILED, format!("cannot tell the engine the peer's inner addresses: {error}"))
            }
        }
    }

    fn set_pushed(&mut self, step: &Step) -> bool {
        match self.changes.apply(std::slice::from_ref(step)) {
            Ok(()) => log::info!("by the peer's offer: {step}"),
            Err(error) => {
                log::warn!("{error}: skipping this route of the peer's");
                return false;
            }
        }
        true
    }

    fn judge(&self, device: &Interface, host: &Host) -> Verdict {
        let text = beginning_of(Path::new(RESOLV_CONF), RESOLV_CONF_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let resolvers = accept::resolvers(&text);
        // With a firewall mark, outer datagrams do not use the full tunnel's table.
        let told_by_mark = self.link.config.full_tunnel.is_some();
        let outer = self.known_addresses().into_iter().filter(|_| !told_by_mark);
        let outer: Vec<IpAddr> = outer.map(|address| address.ip().to_canonical()).collect();
        // The offer's own routes must not conflict with it.
        let is_own = |route: &KernelRoute| {
            let installed = self.status.pushed.installed.iter();
            installed.filter_map(Step::route).any(|own| {
                (own.to, own.interface, own.protocol) == (route.to, route.interface, route.protocol)
            })
        };
        let routes: Vec<_> = host.routes.iter().filter(|route| !is_own(route)).cloned().collect();
        let around = Around { routes: &routes, device: device.index, resolvers: &resolvers, outer: &outer };
        accept::judge(&self.status.pushed.offered, &self.link.config, around)
    }

    fn pushed_steps(&self, device: &Interface, host: &Host, verdict: &Verdict) -> Vec<Step> {
        let config = &self.link.config;
        let table = full::pushed_table(config);
        let mut steps = Vec::new();
        for net in &verdict.taken {
            match plan::through_peer(config, device, host, *net) {
                Ok(route) => steps.push(Step::AddRoute(KernelRoute { table, ..route })),
                Err(error) => {
                    log::warn!("the peer's routes are refused: {error}");
                    return Vec::new();
                }
            }
        }
        steps
    }
}

/// Reads at most `limit` bytes of a file, which a service of another user may have placed there: a FIFO must not block this process. Errors are those
/// of open(2) and read(2).
fn beginning_of(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_pipe_in_place_of_a_file_holds_nothing_up_and_of_a_long_file_the_beginning_counts() {
        let scratch = Scratch::new();
        let path = scratch.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(beginning_of(&path, 10).unwrap(), b"nameserver");
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(beginning_of(&path, 10).unwrap(), b"");
    }
}
