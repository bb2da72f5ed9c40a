//! What a reloaded configuration changes, and what that requires.

use std::collections::HashSet;
use std::fmt;

use super::{Config, Route, SECTIONS, Via};

/// Most added, or removed, routes that are listed one by one.
const ROUTES_NAMED: usize = 100;

/// What a change requires, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takes {
    /// Takes effect at once; the link continues.
    Nothing,
    /// Look up and call the peer again.
    Call,
    /// New keys or a new socket: the link is down briefly; device and routes stay.
    Connect,
    /// Restart tund; until then the old value applies.
    Restart,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What differs, such as `keepalive` or `route added: 192.168.66.0/24`.
    pub what: String,
    /// What it requires.
    pub takes: Takes,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { what, takes } = self;
        match takes {
            Takes::Nothing => write!(f, "{what}"),
            Takes::Call => write!(f, "{what}: the peer is called again"),
            Takes::Connect => write!(f, "{what}: the link reconnects, device and routes stay"),
            Takes::Restart => write!(f, "{what}: needs a restart of tund, the old value stays"),
        }
    }
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The configuration to continue with: the new one, with old values where a restart is needed.
    pub config: Config,
    /// Every difference.
    pub changes: Vec<Change>,
}

impl Plan {
    /// What has to be done now, apart from a restart.
    pub fn takes(&self) -> Takes {
        let live = self.changes.iter().map(|change| change.takes).filter(|takes| *takes < Takes::Restart);
        live.max().unwrap_or(Takes::Nothing)
    }
}

/// Compares the running configuration with the new one. `other_key`: the link secret in the key files has changed.
pub fn plan(old: &Config, new: &Config, other_key: bool) -> Plan {
    let mut plan = Plan { config: new.clone(), changes: Vec::new() };
    // The mark belongs to the socket, so a new mark needs a new socket.
    let marked = if old.mark() == new.mark() { Takes::Nothing } else { Takes::Connect };
    for (section, key) in
        SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
    {
        let Some((differs, copy)) = key.part else { continue };
        let path = section.path(key.name);
        let takes = if path == "fwmark" { marked } else { key.takes };
        if takes == Takes::Restart && differs(old, new) {
            copy(&mut plan.config, old);
        }
        plan.note(path, differs(old, new), takes);
    }
    plan.device(old);
    plan.note("full-tunnel", old.full_tunnel != new.full_tunnel, marked);
    let place = (&old.key.shared, &old.key.pair) != (&new.key.shared, &new.key.pair);
    plan.note("key: another secret", other_key, Takes::Connect);
    plan.note("key: the same secret elsewhere", place && !other_key, Takes::Nothing);
    plan.note("openvpn", old.key.openvpn != new.key.openvpn, Takes::Connect);
    plan.routes(&old.routes, &new.routes);
    plan
}

impl Plan {
    fn note(&mut self, what: impl Into<String>, differs: bool, takes: Takes) {
        if differs {
            self.changes.push(Change { what: what.into(), takes });
        }
    }

    /// Addresses and MTU depend on the kind of device: if that changes, all of them stay as they are.
    fn device(&mut self, old: &Config) {
        let of_device = |change: &Change| change.what.starts_with("device.");
        if self.changes.iter().any(|change| of_device(change) && change.takes == Takes::Restart) {
            self.changes.retain(|change| !of_device(change) || change.takes == Takes::Restart);
            self.config.device = old.device.clone();
        }
    }

    fn routes(&mut self, old: &[Route], new: &[Route]) {
        for (verb, these, those) in [("removed", old, new), ("added", new, old)] {
            let those: HashSet<_> = those.iter().collect();
            let mut different = these.iter().filter(|route| !those.contains(route));
            for route in different.by_ref().take(ROUTES_NAMED) {
                self.note(format!("route {verb}: {}", describe(route)), true, Takes::Nothing);
            }
            let more = different.count();
            self.note(format!("{more} more routes {verb}"), more > 0, Takes::Nothing);
        }
    }
}

/// Describes a route and its options, such as `10.1.0.0/16 via net_gateway metric 7`.
fn describe(route: &Route) -> String {
    let Route { to, via, metric, table } = route;
    let via = match via {
        Via::VpnGateway => String::new(),
        Via::NetGateway => " via net_gateway".to_owned(),
        Via::Address(gateway) => format!(" via {gateway}"),
    };
    let metric = metric.map_or_else(String::new, |metric| format!(" metric {metric}"));
    let table = table.map_or_else(String::new, |table| format!(" table {table}"));
    format!("{to}{via}{metric}{table}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};
    use ipnet::IpNet;
    use std::net::IpAddr;

    const TEXT: &str =
        "remote = 'mon.tn:1417'\n[key]\nfile = 'k'\n[device]\naddress = '10.9.0.1'\npeer = '10.9.0.2'\n";

    fn config(text: &str) -> Config {
        parse("fri", text, &Options::new("/etc/tund")).config.unwrap()
    }

    fn with(text: &str) -> Plan {
        plan(&config(TEXT), &config(text), false)
    }

    fn shown(plan: &Plan) -> Vec<String> {
        plan.changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn nothing_changed_takes_nothing() {
        let plan = with(TEXT);
        assert_eq!((plan.takes(), plan.changes), (Takes::Nothing, vec![]));
    }

    #[test]
    fn routes_timers_and_the_level_change_under_a_running_link() {
        let old = config(&format!("{TEXT}[[route]]\nto = '10.1.0.0/16'\n[[route]]\nto = '10.2.0.0/16'\n"));
        let new = config(&format!(
            "{TEXT}[[route]]\nto = '10.2.0.0/16'\n[[route]]\nto = '10.3.0.0/16'\n[keepalive]\ninterval = '5s'\n[run]\nverb = 4\n"
        ));
        let plan = plan(&old, &new, false);
        assert_eq!(
            shown(&plan),
            ["keepalive.interval", "run.verb", "route removed: 10.1.0.0/16", "route added: 10.3.0.0/16"]
        );
        assert_eq!((plan.takes(), &plan.config), (Takes::Nothing, &new));
    }

    #[test]
    fn of_a_hundred_thousand_routes_those_that_differ_are_told_and_of_many_the_first() {
        let routes = |range: std::ops::Range<u32>| -> Vec<Route> {
            let to = |index: u32| IpNet::from(IpAddr::from((0x1400_0000 + index).to_be_bytes()));
            range
                .map(|index| Route { to: to(index), via: Via::VpnGateway, metric: None, table: None })
                .collect()
        };
        let with = |routes| Config { routes, ..config(TEXT) };
        let one = plan(&with(routes(0..100_000)), &with(routes(1..100_000)), false);
        assert_eq!(shown(&one), ["route removed: 20.0.0.0/32"]);
        let many = plan(&with(routes(0..1)), &with(routes(0..100_000)), false);
        assert_eq!(many.changes.len(), ROUTES_NAMED + 1);
        assert_eq!(shown(&many).last().unwrap(), "99899 more routes added");
    }

    #[test]
    fn a_route_to_the_same_place_is_told_by_what_differs() {
        let route = |rest: &str| config(&format!("{TEXT}[[route]]\nto = '10.1.0.0/16'\n{rest}"));
        let plan = plan(&route("metric = 7\ntable = 9"), &route("via = 'net_gateway'"), false);
        assert_eq!(
            shown(&plan),
            ["route removed: 10.1.0.0/16 metric 7 table 9", "route added: 10.1.0.0/16 via net_gateway"]
        );
    }

    #[test]
    fn a_cipher_a_secret_or_a_port_takes_a_new_connection() {
        let plan = with(&TEXT.replace("file = 'k'", "file = 'k'\ncipher = 'aes-256-gcm'"));
        assert_eq!(shown(&plan), ["key.cipher: the link reconnects, device and routes stay"]);
        assert_eq!(plan.takes(), Takes::Connect);
        assert_eq!(super::plan(&config(TEXT), &config(TEXT), true).takes(), Takes::Connect);
        let plan = with(&TEXT.replace("'k'", "'other'"));
        assert_eq!(
            (shown(&plan), plan.takes()),
            (vec!["key: the same secret elsewhere".to_owned()], Takes::Nothing)
        );
        assert_eq!(with(&TEXT.replace("mon.tn", "other.tn")).takes(), Takes::Call);
        assert_eq!(with(&format!("listen = 7\n{TEXT}")).takes(), Takes::Connect);
    }

    #[test]
    fn what_needs_a_restart_is_named_and_keeps_its_old_value_while_the_rest_changes() {
        let old = config(TEXT);
        let new = config(&format!(
            "float = false\n{TEXT}name = 'tun7'\nmtu = 1300\n[run]\nuser = 'nobody'\nverb = 5\n"
        ));
        let plan = plan(&old, &new, false);
        assert_eq!(
            shown(&plan),
            [
                "float",
                "device.name: needs a restart of tund, the old value stays",
                "run.user: needs a restart of tund, the old value stays",
                "run.verb",
            ]
        );
        assert_eq!((plan.takes(), plan.config.float, plan.config.run.verb), (Takes::Nothing, false, 5));
        assert_eq!((&plan.config.device, plan.config.run.user), (&old.device, None));
    }
}
