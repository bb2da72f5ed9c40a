//! What scripts are told: OpenVPN's positional arguments and environment names, so that scripts written
//! for it run unchanged, and each name again as `TUND_` and upper case.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;

use crate::config::{Command, Config, Route, Scripts, Via};
use crate::core::settings::Traffic;
use crate::packet::layer::Mode;
use crate::privsep::background;
use crate::report::text::printable;
use crate::wire::datagram::Framing;

/// Search path of scripts: nothing is inherited.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest value in characters.
const MAX_VALUE: usize = 1024;
/// Most routes that a script is told of.
const MAX_ROUTES_TOLD: usize = 1024;

/// When a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// The device exists; no frame has flowed.
    Up,
    /// Going down; the device still exists.
    Down,
    /// The routes were set.
    RouteUp,
    /// The routes are about to be removed.
    RouteDown,
    /// The peer answers.
    LinkUp,
    /// The peer no longer answers.
    LinkDown,
}

impl Hook {
    /// Its key in `[scripts]`.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Up => "up",
            Hook::Down => "down",
            Hook::RouteUp => "route-up",
            Hook::RouteDown => "route-down",
            Hook::LinkUp => "link-up",
            Hook::LinkDown => "link-down",
        }
    }

    /// The configured command, if any.
    pub fn command(self, scripts: &Scripts) -> Option<&Command> {
        scripts.each().into_iter().find(|(key, _)| *key == self.name())?.1
    }

    /// OpenVPN's `script_type`.
    fn script_type(self) -> &'static str {
        match self {
            Hook::RouteDown => "route-pre-down",
            Hook::Up | Hook::Down | Hook::RouteUp | Hook::LinkUp | Hook::LinkDown => self.name(),
        }
    }
}

/// Everything a script may learn of the link.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The link.
    pub config: &'a Config,
    /// The configuration file.
    pub file: &'a Path,
    /// Name of the device.
    pub device: &'a str,
    /// The previous IPv4 default gateway, if any.
    pub net_gateway: Option<IpAddr>,
    /// Where datagrams go, authenticated or not.
    pub endpoint: Option<SocketAddr>,
    /// The peer's authenticated address.
    pub trusted: Option<SocketAddr>,
    /// Totals since the start.
    pub traffic: Traffic,
    /// Why the link goes down, in OpenVPN's words (`sigterm`, `inactive`, …).
    pub signal: Option<&'a str>,
    /// Seconds since the Unix epoch.
    pub unix_time: u64,
}

impl Facts<'_> {
    /// The positional arguments that follow the script's own:
    /// `device tun_mtu link_mtu local_ip remote_ip_or_netmask init`. Without addresses, those two are empty.
    pub fn arguments(&self) -> Vec<String> {
        let mtu = self.config.device.mtu;
        let address = self.own(is_ipv4).or_else(|| self.own(|_| true));
        let local = address.map(|net| net.addr().to_string()).unwrap_or_default();
        let other = address.map(|net| match self.peer(net.addr().is_ipv4()) {
            Some(peer) => peer.to_string(),
            None => net.netmask().to_string(),
        });
        vec![
            self.device.to_owned(),
            mtu.to_string(),
            (mtu + overhead(self.config)).to_string(),
            local,
            other.unwrap_or_default(),
            "init".to_owned(),
        ]
    }

    /// The whole environment for `hook`; values are printable.
    pub fn environment(&self, hook: Hook) -> Vec<(String, String)> {
        let mut names = Names(Vec::new());
        self.device_names(&mut names);
        self.address_names(&mut names);
        self.route_names(&mut names);
        self.peer_names(&mut names);
        names.set("script_type", hook.script_type());
        names.set("config", self.file.display());
        names.set("daemon", u8::from(background::is_on()));
        names.set("daemon_pid", std::process::id());
        names.set("verb", self.config.run.verb);
        names.set("bytes_sent", self.traffic.bytes_sent);
        names.set("bytes_received", self.traffic.bytes_received);
        names.set("time_unix", self.unix_time);
        if let Some(signal) = self.signal {
            names.set("signal", signal);
        }
        let upper =
            names.0.iter().map(|(name, value)| (format!("TUND_{}", name.to_uppercase()), value.clone()));
        let mut all: Vec<_> = upper.collect();
        all.append(&mut names.0);
        all.push(("TUND_NAME".to_owned(), printable(&self.config.name, MAX_VALUE)));
        all.push(("TUND_HOOK".to_owned(), hook.name().to_owned()));
        all.push(("PATH".to_owned(), PATH.to_owned()));
        all
    }

    fn device_names(&self, names: &mut Names) {
        let mtu = self.config.device.mtu;
        names.set("dev", self.device);
        names.set("dev_type", self.config.device.mode);
        names.set("tun_mtu", mtu);
        names.set("link_mtu", mtu + overhead(self.config));
    }

    fn address_names(&self, names: &mut Names) {
        if let Some(net) = self.own(is_ipv4) {
            names.set("ifconfig_local", net.addr());
            match self.peer(true) {
                Some(peer) => names.set("ifconfig_remote", peer),
                None => {
                    names.set("ifconfig_netmask", net.netmask());
                    names.set("ifconfig_broadcast", net.broadcast());
                }
            }
        }
        if let Some(net) = self.own(|net| !is_ipv4(net)) {
            names.set("ifconfig_ipv6_local", net.addr());
            names.set("ifconfig_ipv6_netbits", net.prefix_len());
            if let Some(peer) = self.peer(false) {
                names.set("ifconfig_ipv6_remote", peer);
            }
        }
    }

    /// OpenVPN numbers each family's routes from 1. execve(2) limits the environment's size.
    fn route_names(&self, names: &mut Names) {
        if let Some(gateway) = self.vpn_gateway(true) {
            names.set("route_vpn_gateway", gateway);
        }
        if let Some(gateway) = self.net_gateway {
            names.set("route_net_gateway", gateway);
        }
        let routes = self.config.routes.iter().take(MAX_ROUTES_TOLD);
        let (four, six): (Vec<_>, Vec<_>) = routes.partition(|route| is_ipv4(&route.to));
        for (route, n) in four.into_iter().zip(1..) {
            names.set(&format!("route_network_{n}"), route.to.network());
            names.set(&format!("route_netmask_{n}"), route.to.netmask());
            if let Some(gateway) = self.gateway(route) {
                names.set(&format!("route_gateway_{n}"), gateway);
            }
        }
        for (route, n) in six.into_iter().zip(1..) {
            names.set(&format!("route_ipv6_network_{n}"), route.to);
            if let Some(gateway) = self.gateway(route) {
                names.set(&format!("route_ipv6_gateway_{n}"), gateway);
            }
        }
    }

    fn peer_names(&self, names: &mut Names) {
        for (kind, address) in [("trusted", self.trusted), ("untrusted", self.endpoint)] {
            if let Some(address) = address {
                names.set(&format!("{kind}_ip"), address.ip().to_canonical());
                names.set(&format!("{kind}_port"), address.port());
            }
        }
    }

    fn gateway(&self, route: &Route) -> Option<IpAddr> {
        match route.via {
            Via::VpnGateway => self.vpn_gateway(is_ipv4(&route.to)),
            Via::NetGateway => self.net_gateway.filter(|gateway| gateway.is_ipv4() == is_ipv4(&route.to)),
            Via::Address(address) => Some(address),
        }
    }

    fn vpn_gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.config.device.peers.iter().copied().find(|peer| peer.is_ipv4() == ipv4)
    }

    /// The other end of the point-to-point address of that family; a bridged link has none.
    fn peer(&self, ipv4: bool) -> Option<IpAddr> {
        match self.config.device.mode {
            Mode::Tun => self.vpn_gateway(ipv4),
            Mode::Tap => None,
        }
    }

    fn own(&self, wanted: impl Fn(&IpNet) -> bool) -> Option<&IpNet> {
        self.config.device.addresses.iter().find(|net| wanted(net))
    }
}

struct Names(Vec<(String, String)>);

impl Names {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), printable(&value.to_string(), MAX_VALUE)));
    }
}

fn is_ipv4(net: &IpNet) -> bool {
    net.addr().is_ipv4()
}

/// Bytes that tund adds to a frame; `link_mtu` is the device's MTU plus these.
fn overhead(config: &Config) -> u32 {
    Framing::from(config.key.mode).overhead() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    #[test]
    fn a_routed_link_has_openvpns_arguments() {
        let config = config();
        let expected = ["tun0", "1400", "1437", "192.168.86.81", "192.168.86.18", "init"];
        assert_eq!(facts(&config, "tun0").arguments(), expected);
    }

    #[test]
    fn a_bridged_link_has_the_netmask_instead_of_the_peer() {
        let mut config = config();
        config.device.mode = Mode::Tap;
        config.device.mtu = 1500;
        config.device.peers.clear();
        config.device.addresses = vec!["192.168.96.96/24".parse().unwrap()];
        let expected = ["tap0", "1500", "1537", "192.168.96.96", "255.255.255.0", "init"];
        assert_eq!(facts(&config, "tap0").arguments(), expected);
        let names = environment(&facts(&config, "tap0"), Hook::Up);
        assert_eq!(names["dev_type"], "tap");
        assert_eq!(names["ifconfig_netmask"], "255.255.255.0");
        assert_eq!(names["ifconfig_broadcast"], "192.168.96.255");
        assert!(!names.contains_key("ifconfig_remote"));
    }

    #[test]
    fn a_link_without_addresses_has_empty_ones() {
        let mut config = config();
        config.device.addresses.clear();
        config.device.peers.clear();
        assert_eq!(facts(&config, "tap0").arguments(), ["tap0", "1400", "1437", "", "", "init"]);
    }

    #[test]
    fn the_environment_is_exactly_this() {
        let mut config = config();
        let route = |to: &str, via| Route { to: to.parse().unwrap(), via, metric: None, table: None };
        config.routes = vec![
            route("192.168.66.0/24", Via::VpnGateway),
            route("fd00:66::/64", Via::Address("fd00::18".parse().unwrap())),
            route("192.168.56.0/24", Via::NetGateway),
        ];
        let mut facts = facts(&config, "tun0");
        facts.net_gateway = Some(IpAddr::from([10, 0, 0, 1]));
        facts.endpoint = Some(SocketAddr::from(([203, 0, 113, 9], 1417)));
        facts.trusted = facts.endpoint;
        facts.signal = Some("sigterm");
        facts.traffic = Traffic { bytes_sent: 11, bytes_received: 22 };
        let pid = std::process::id().to_string();
        let openvpn = [
            ("bytes_received", "22"),
            ("bytes_sent", "11"),
            ("config", "/etc/tund/tun-fri-mon.toml"),
            ("daemon", "0"),
            ("daemon_pid", &pid),
            ("dev", "tun0"),
            ("dev_type", "tun"),
            ("ifconfig_local", "192.168.86.81"),
            ("ifconfig_remote", "192.168.86.18"),
            ("link_mtu", "1437"),
            ("route_gateway_1", "192.168.86.18"),
            ("route_gateway_2", "10.0.0.1"),
            ("route_ipv6_gateway_1", "fd00::18"),
            ("route_ipv6_network_1", "fd00:66::/64"),
            ("route_net_gateway", "10.0.0.1"),
            ("route_netmask_1", "255.255.255.0"),
            ("route_netmask_2", "255.255.255.0"),
            ("route_network_1", "192.168.66.0"),
            ("route_network_2", "192.168.56.0"),
            ("route_vpn_gateway", "192.168.86.18"),
            ("script_type", "route-pre-down"),
            ("signal", "sigterm"),
            ("time_unix", "1700000000"),
            ("trusted_ip", "203.0.113.9"),
            ("trusted_port", "1417"),
            ("tun_mtu", "1400"),
            ("untrusted_ip", "203.0.113.9"),
            ("untrusted_port", "1417"),
            ("verb", "3"),
        ];
        let mut expected = BTreeMap::new();
        for (name, value) in openvpn {
            expected.insert(name.to_owned(), value.to_owned());
            expected.insert(format!("TUND_{}", name.to_uppercase()), value.to_owned());
        }
        for (name, value) in [("TUND_NAME", "tun-fri-mon"), ("TUND_HOOK", "route-down"), ("PATH", PATH)] {
            expected.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(environment(&facts, Hook::RouteDown), expected);
    }

    #[test]
    fn hostile_values_are_made_printable() {
        let mut config = config();
        config.name = "x\nPATH=/evil\u{202e}".to_owned();
        let file = PathBuf::from("/etc/a\nb.toml");
        let mut facts = facts(&config, "tun0");
        facts.file = &file;
        let names = environment(&facts, Hook::Up);
        assert_eq!(names["TUND_NAME"], "x_PATH=/evil_");
        assert_eq!(names["config"], "/etc/a_b.toml");
    }

    fn environment(facts: &Facts<'_>, hook: Hook) -> BTreeMap<String, String> {
        let all = facts.environment(hook);
        let count = all.len();
        let map: BTreeMap<_, _> = all.into_iter().collect();
        assert_eq!(map.len(), count, "a name is set twice");
        map
    }

    fn facts<'a>(config: &'a Config, device: &'a str) -> Facts<'a> {
        Facts {
            config,
            file: Path::new("/etc/tund/tun-fri-mon.toml"),
            device,
            net_gateway: None,
            endpoint: None,
            trusted: None,
            traffic: Traffic::default(),
            signal: None,
            unix_time: 1_700_000_000,
        }
    }
}
