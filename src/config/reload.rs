//! What a configuration that was read again changes, and what that takes.

use std::fmt;

use super::{Config, Device, Key, Route, Run, Via};

/// What has to be done for a change, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takes {
    /// It counts from now on; the link goes on.
    Nothing,
    /// The peer is looked up and called again.
    Call,
    /// New keys, or a new socket: the link is down for a moment, while device and routes stay.
    Connect,
    /// A restart of tund; until then the old value counts.
    Restart,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is different, such as `keepalive` or `route added: 192.168.66.0/24`.
    pub what: String,
    /// What it takes.
    pub takes: Takes,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { what, takes } = self;
        match takes {
            Takes::Nothing => write!(f, "{what}"),
            Takes::Call => write!(f, "{what}: the peer is called again"),
            Takes::Connect => write!(f, "{what}: the link connects anew, device and routes stay"),
            Takes::Restart => write!(f, "{what}: needs a restart of tund, the old value stays"),
        }
    }
}

/// What a reload comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The configuration to go on with: the new one, with old values where only a restart changes them.
    pub config: Config,
    /// Every difference.
    pub changes: Vec<Change>,
}

impl Plan {
    /// What has to be done, apart from a restart.
    pub fn takes(&self) -> Takes {
        let live = self.changes.iter().map(|change| change.takes).filter(|takes| *takes < Takes::Restart);
        live.max().unwrap_or(Takes::Nothing)
    }
}

/// Compares what runs with what was read. `other_key`: the key files hold another link secret than before.
pub fn plan(old: &Config, new: &Config, other_key: bool) -> Plan {
    let mut plan = Plan { config: new.clone(), changes: Vec::new() };
    // Without `..`: a new setting has to be thought of here.
    let Config {
        name: _,
        remotes,
        listen,
        float,
        bind_device,
        fwmark,
        key,
        device,
        routes,
        push,
        accept,
        full_tunnel,
        scripts,
        keepalive,
        run,
        tuning,
        status,
    } = old;
    plan.note("remote", *remotes != new.remotes, Takes::Call);
    plan.note("listen", *listen != new.listen, Takes::Connect);
    plan.note("float", *float != new.float, Takes::Nothing);
    plan.note("bind-device", *bind_device != new.bind_device, Takes::Connect);
    // The mark is the socket's, and only a new socket has another.
    let marked = if old.mark() == new.mark() { Takes::Nothing } else { Takes::Connect };
    plan.note("fwmark", *fwmark != new.fwmark, marked);
    plan.key(key, &new.key, other_key);
    plan.device(device, &new.device);
    plan.routes(routes, &new.routes);
    plan.note("push.routes", *push != new.push, Takes::Nothing);
    plan.note("accept", *accept != new.accept, Takes::Nothing);
    plan.note("full-tunnel", *full_tunnel != new.full_tunnel, marked);
    plan.note("scripts", *scripts != new.scripts, Takes::Nothing);
    plan.note("keepalive", *keepalive != new.keepalive, Takes::Nothing);
    plan.run(run, &new.run);
    plan.note("tuning", *tuning != new.tuning, Takes::Connect);
    plan.note("status", *status != new.status, Takes::Restart);
    plan.config.status = status.clone();
    plan
}

impl Plan {
    fn note(&mut self, what: impl Into<String>, differs: bool, takes: Takes) {
        if differs {
            self.changes.push(Change { what: what.into(), takes });
        }
    }

    fn key(&mut self, old: &Key, new: &Key, other_key: bool) {
        self.note("key.mode", old.mode != new.mode, Takes::Connect);
        self.note("key.cipher", (old.cipher, &old.suites) != (new.cipher, &new.suites), Takes::Connect);
        self.note("key.direction", old.direction != new.direction, Takes::Connect);
        let place = (&old.shared, &old.pair) != (&new.shared, &new.pair);
        self.note("key: another secret", other_key, Takes::Connect);
        self.note("key: the same secret elsewhere", place && !other_key, Takes::Nothing);
    }

    fn device(&mut self, old: &Device, new: &Device) {
        let fixed = [
            ("device.mode", old.mode != new.mode),
            ("device.name", old.name != new.name),
            ("device.configure", old.configure != new.configure),
        ];
        for (what, differs) in fixed {
            self.note(what, differs, Takes::Restart);
        }
        if fixed.iter().any(|(_, differs)| *differs) {
            // Addresses and MTU belong to the kind of device.
            self.config.device = old.clone();
            return;
        }
        self.note(
            "device.address",
            (&old.addresses, &old.peers) != (&new.addresses, &new.peers),
            Takes::Connect,
        );
        self.note("device.mtu", old.mtu != new.mtu, Takes::Connect);
        let rest = (&old.mac, &old.bridge, old.txqueuelen) != (&new.mac, &new.bridge, new.txqueuelen);
        self.note("device", rest, Takes::Nothing);
    }

    fn routes(&mut self, old: &[Route], new: &[Route]) {
        for (verb, these, those) in [("removed", old, new), ("added", new, old)] {
            for route in these.iter().filter(|route| !those.contains(route)) {
                self.note(format!("route {verb}: {}", describe(route)), true, Takes::Nothing);
            }
        }
    }

    fn run(&mut self, old: &Run, new: &Run) {
        self.note("run.verb", old.verb != new.verb, Takes::Nothing);
        let fixed = Run { verb: new.verb, ..old.clone() };
        self.note("run", fixed != *new, Takes::Restart);
        self.config.run = fixed;
    }
}

/// A route with whatever the file says about it beyond the usual, such as `10.1.0.0/16 via net_gateway metric 7`.
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
            ["route removed: 10.1.0.0/16", "route added: 10.3.0.0/16", "keepalive", "run.verb"]
        );
        assert_eq!((plan.takes(), &plan.config), (Takes::Nothing, &new));
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
        assert_eq!(shown(&plan), ["key.cipher: the link connects anew, device and routes stay"]);
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
                "run.verb",
                "run: needs a restart of tund, the old value stays",
            ]
        );
        assert_eq!((plan.takes(), plan.config.float, plan.config.run.verb), (Takes::Nothing, false, 5));
        assert_eq!((&plan.config.device, plan.config.run.user), (&old.device, None));
    }
}
