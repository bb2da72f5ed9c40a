//! The steps that configure a device and its routes, in order, and how each is undone.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

use super::step::same_family;
pub use super::step::{KernelRoute, ROUTE_PROTOCOL, Step, TABLE_MAIN, broadcast};
use crate::config::{Config, Route, Via};
use crate::packet::layer::Mode;

/// The interface that steps apply to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Kernel's index.
    pub index: u32,
    /// Name.
    pub name: String,
}

/// What a plan needs to know about the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// All unicast routes of table main, both families; for [`route_steps`], after `up` has run.
    pub routes: Vec<KernelRoute>,
    /// The bridge named in the configuration, if it exists.
    pub bridge: Option<Interface>,
    /// The MAC address of a tap device with none configured; `None`: it keeps its own.
    pub mac: Option<[u8; 6]>,
}

/// Default length of the device's transmit queue, in frames. A worker may wait milliseconds for a processor; the kernel's 500 frames fill in less
/// than one.
const TXQUEUELEN: u32 = 2000;

/// Why there is no plan. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

/// The steps that configure the device (only bridge and up state with `configure = false`).
pub fn device_steps(config: &Config, device: &Interface, host: &Host) -> Result<Vec<Step>, PlanError> {
    let settings = &config.device;
    let bridge = bridge(config, host)?;
    if !settings.configure && bridge.is_none() {
        return Ok(Vec::new());
    }
    let (index, name) = (device.index, &device.name);
    let set_link =
        |mtu, mac, txqueuelen, up| Step::SetLink { index, name: name.clone(), mtu, mac, txqueuelen, up };
    let mtu = settings.configure.then_some(settings.mtu);
    let mac = settings.mac.or(host.mac).filter(|_| settings.mode == Mode::Tap);
    let txqueuelen = settings.txqueuelen.or(settings.configure.then_some(TXQUEUELEN));
    let mut steps = vec![set_link(mtu, mac, txqueuelen, None)];
    steps.extend(bridge.map(|bridge| Step::Join {
        index,
        name: name.clone(),
        bridge: bridge.index,
        bridge_name: bridge.name.clone(),
    }));
    steps.push(set_link(None, None, None, Some(true)));
    // After it is up: Linux 6.18 otherwise sometimes omits the route to an IPv6 peer.
    if settings.configure {
        steps.extend(addresses(config).into_iter().map(|(address, peer)| Step::AddAddress {
            index,
            name: name.clone(),
            address,
            peer,
        }));
    }
    Ok(steps)
}

/// The steps that set the routes. `net_gateway` is the lowest-metric default route of the family in table main that is not through `device`.
pub fn route_steps(config: &Config, device: &Interface, host: &Host) -> Result<Vec<Step>, PlanError> {
    let view = View { config, device, host };
    let routes = with_next_hops(&config.routes, |route| view.next_hop(route))?;
    Ok(routes.into_iter().map(Step::AddRoute).collect())
}

/// What is known of `key`; found out if nothing is.
pub(super) fn remembered<K: Eq + Hash, V, E>(
    known: &mut HashMap<K, V>,
    key: K,
    find: impl FnOnce() -> Result<V, E>,
) -> Result<&mut V, E> {
    match known.entry(key) {
        Entry::Occupied(there) => Ok(there.into_mut()),
        Entry::Vacant(none) => Ok(none.insert(find()?)),
    }
}

/// The routes as the kernel will have them. The next hop is found once per family and `via`.
fn with_next_hops(
    routes: &[Route],
    next_hop: impl Fn(&Route) -> Result<NextHop, PlanError>,
) -> Result<Vec<KernelRoute>, PlanError> {
    let mut hops = HashMap::new();
    let through = |route: &Route| {
        let hop = remembered(&mut hops, (route.via, route.to.addr().is_ipv4()), || next_hop(route))?;
        Ok(hop.lead(route))
    };
    routes.iter().map(through).collect()
}

/// A configured route as the kernel will have it.
pub fn kernel_route(
    config: &Config,
    device: &Interface,
    host: &Host,
    route: &Route,
) -> Result<KernelRoute, PlanError> {
    View { config, device, host }.next_hop(route).map(|hop| hop.lead(route))
}

/// The route to `to` through the peer, in the sense of `vpn_gateway`.
pub fn through_peer(
    config: &Config,
    device: &Interface,
    host: &Host,
    to: IpNet,
) -> Result<KernelRoute, PlanError> {
    kernel_route(config, device, host, &Route { to, via: Via::VpnGateway, metric: None, table: None })
}

/// What next hops are chosen from.
struct View<'a> {
    config: &'a Config,
    device: &'a Interface,
    host: &'a Host,
}

struct NextHop {
    gateway: Option<IpAddr>,
    interface: Interface,
}

impl NextHop {
    fn lead(&self, route: &Route) -> KernelRoute {
        KernelRoute {
            to: route.to,
            gateway: self.gateway,
            interface: self.interface.index,
            interface_name: self.interface.name.clone(),
            metric: route.metric,
            table: route.table.unwrap_or(TABLE_MAIN),
            protocol: ROUTE_PROTOCOL,
        }
    }
}

impl View<'_> {
    /// The next hop; it depends only on the route's family and on `via`.
    fn next_hop(&self, route: &Route) -> Result<NextHop, PlanError> {
        match route.via {
            Via::VpnGateway => self.vpn_gateway(&route.to),
            Via::NetGateway => self.net_gateway(&route.to),
            Via::Address(gateway) if !same_family(gateway, &route.to) => Err(PlanError(format!(
                "route to {}: the gateway {gateway} is in the other address family; name one in the same",
                route.to
            ))),
            Via::Address(gateway) => self.direct(gateway, &route.to),
        }
    }

    /// The peer. A tun device has one other end, so its route needs no gateway.
    fn vpn_gateway(&self, to: &IpNet) -> Result<NextHop, PlanError> {
        let peer = self.config.device.peers.iter().copied().find(|peer| same_family(*peer, to));
        match (self.config.device.mode, peer) {
            (Mode::Tun, Some(peer)) if self.on_device(peer) => Ok(self.through_device(Some(peer))),
            (Mode::Tun, _) => Ok(self.through_device(None)),
            (Mode::Tap, Some(peer)) => self.direct(peer, to),
            (Mode::Tap, None) => Err(PlanError(format!(
                "route to {to}: in tap mode vpn_gateway needs a device.peer of the same family; set it, or name \
                 the gateway's address with via"
            ))),
        }
    }

    fn net_gateway(&self, to: &IpNet) -> Result<NextHop, PlanError> {
        self.host
            .routes
            .iter()
            .filter(|route| route.to.prefix_len() == 0 && same_family(route.to.addr(), to))
            .filter(|route| route.interface != self.device.index)
            .min_by_key(|route| route.metric.unwrap_or(0))
            .map(|route| NextHop { gateway: route.gateway, interface: interface_of(route) })
            .ok_or_else(|| {
                PlanError(format!(
                    "route to {to}: net_gateway needs a default route of the same family in table main, but there is none; add \
                     one, or name the gateway's address with via"
                ))
            })
    }

    /// The next hop for a gateway, which the kernel requires to be a neighbour.
    fn direct(&self, gateway: IpAddr, to: &IpNet) -> Result<NextHop, PlanError> {
        // Link-local prefixes are on every interface; here they mean the tunnel.
        if self.on_device(gateway) || is_link_local(gateway) {
            return Ok(self.through_device(Some(gateway)));
        }
        match self.nearest(gateway) {
            Some(route) if route.gateway.is_none() => {
                Ok(NextHop { gateway: Some(gateway), interface: interface_of(route) })
            }
            Some(_) | None => Err(PlanError(format!(
                "route to {to}: the gateway {gateway} is not on a network that this host or the tunnel is directly \
                 connected to; name one that is, or use vpn_gateway or net_gateway"
            ))),
        }
    }

    /// Whether the address is a neighbour on the device, by our configuration or a script's.
    fn on_device(&self, address: IpAddr) -> bool {
        let own = if self.config.device.configure { addresses(self.config) } else { Vec::new() };
        let reaches = |(own, peer): &(IpNet, Option<IpAddr>)| match peer {
            Some(peer) => *peer == address,
            None => own.addr() != address && own.contains(&address),
        };
        let by_script = |route: &KernelRoute| route.interface == self.device.index && route.gateway.is_none();
        own.iter().any(reaches) || self.nearest(address).is_some_and(by_script)
    }

    /// The kernel's route to the address.
    fn nearest(&self, address: IpAddr) -> Option<&KernelRoute> {
        let routes = self.host.routes.iter().filter(|route| route.to.contains(&address));
        routes.max_by_key(|route| (route.to.prefix_len(), Reverse(route.metric.unwrap_or(0))))
    }

    /// The next hop. The kernel adds the route to an IPv6 peer some time after the address, and until then rejects the peer as a gateway. A tun
    /// device has one other end and needs no gateway.
    fn through_device(&self, gateway: Option<IpAddr>) -> NextHop {
        let gateway = match self.config.device.mode {
            Mode::Tun => gateway.filter(IpAddr::is_ipv4),
            Mode::Tap => gateway,
        };
        NextHop { gateway, interface: self.device.clone() }
    }
}

/// The addresses to set, each with its peer. On a tun device the first address of the peer's family is point-to-point, unless its prefix contains the
/// peer.
fn addresses(config: &Config) -> Vec<(IpNet, Option<IpAddr>)> {
    let device = &config.device;
    let mut peers = match device.mode {
        Mode::Tun => device.peers.clone(),
        Mode::Tap => Vec::new(),
    };
    let with_peer = |address: &IpNet| {
        let position = peers.iter().position(|peer| same_family(*peer, address));
        match position.map(|position| peers.swap_remove(position)) {
            Some(peer) if !address.contains(&peer) => (IpNet::from(address.addr()), Some(peer)),
            Some(_) | None => (*address, None),
        }
    };
    device.addresses.iter().map(with_peer).collect()
}

fn bridge<'a>(config: &Config, host: &'a Host) -> Result<Option<&'a Interface>, PlanError> {
    match (&config.device.bridge, &host.bridge) {
        (None, _) => Ok(None),
        (Some(_), Some(bridge)) => Ok(Some(bridge)),
        (Some(name), None) => Err(PlanError(format!(
            "device.bridge: there is no bridge {name}; create it first (ip link add {name} type bridge) or name another"
        ))),
    }
}

fn interface_of(route: &KernelRoute) -> Interface {
    Interface { index: route.interface, name: route.interface_name.clone() }
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};

    #[test]
    fn the_next_hop_of_many_routes_that_go_the_same_way_is_looked_for_once() {
        let to = |index: u32| IpNet::from(IpAddr::from((0x1400_0000 + index).to_be_bytes()));
        let via = |index| if index % 2 == 0 { Via::VpnGateway } else { Via::NetGateway };
        let route = |index| Route { to: to(index), via: via(index), metric: None, table: None };
        let mut routes: Vec<_> = (0..100_000).map(route).collect();
        routes.push(Route { to: "fd00::/64".parse().unwrap(), ..route(0) });
        let looked = std::cell::Cell::new(0);
        let found = with_next_hops(&routes, |_| {
            looked.set(looked.get() + 1);
            Ok(NextHop { gateway: None, interface: device() })
        });
        assert_eq!((found.unwrap().len(), looked.get()), (100_001, 3));
    }

    #[test]
    fn a_tun_address_with_a_peer_is_point_to_point() {
        let mut config = config(Mode::Tun);
        config.device.addresses = nets(&["192.168.86.81/32", "10.9.0.1/24", "fd00::1/128"]);
        config.device.peers = ips(&["fd00::2", "192.168.86.18"]);
        assert_eq!(
            device_commands(&config),
            [
                "ip link set dev dev0 mtu 1400 txqueuelen 2000",
                "ip link set dev dev0 up",
                "ip addr add 192.168.86.81 peer 192.168.86.18 dev dev0",
                "ip addr add 10.9.0.1/24 brd + dev dev0",
                "ip addr add fd00::1 peer fd00::2 dev dev0",
            ]
        );
    }

    #[test]
    fn a_peer_inside_the_prefix_needs_no_point_to_point_address() {
        let mut config = config(Mode::Tun);
        config.device.addresses = nets(&["10.9.0.1/24"]);
        config.device.peers = ips(&["10.9.0.2"]);
        assert_eq!(device_commands(&config)[2], "ip addr add 10.9.0.1/24 brd + dev dev0");
        config.device.addresses = nets(&["10.9.0.1/31"]);
        config.device.peers = ips(&["10.9.0.0"]);
        assert_eq!(device_commands(&config)[2], "ip addr add 10.9.0.1/31 dev dev0");
        config.device.peers = ips(&["10.8.0.2"]);
        assert_eq!(device_commands(&config)[2], "ip addr add 10.9.0.1 peer 10.8.0.2 dev dev0");
    }

    #[test]
    fn a_peer_in_tap_mode_changes_no_address() {
        let mut config = config(Mode::Tap);
        config.device.addresses = nets(&["10.9.0.1/24"]);
        config.device.peers = ips(&["10.9.0.2"]);
        config.device.mac = Some([2, 0, 0, 0, 0, 0xab]);
        config.device.txqueuelen = Some(99);
        assert_eq!(
            device_commands(&config),
            [
                "ip link set dev dev0 mtu 1400 address 02:00:00:00:00:ab txqueuelen 99",
                "ip link set dev dev0 up",
                "ip addr add 10.9.0.1/24 brd + dev dev0",
            ]
        );
    }

    #[test]
    fn an_unconfigured_device_is_left_alone_but_for_its_bridge() {
        let mut config = config(Mode::Tap);
        config.device.configure = false;
        config.device.addresses = nets(&["10.9.0.1/24"]);
        assert!(device_commands(&config).is_empty());
        config.device.bridge = Some("br0".to_owned());
        assert_eq!(
            device_commands(&config),
            [
                "ip link set dev dev0 address fe:0a:0b:0c:0d:0e",
                "ip link set dev dev0 master br0",
                "ip link set dev dev0 up"
            ]
        );
    }

    #[test]
    fn a_bridged_device_keeps_the_mac_it_was_given() {
        let mut config = config(Mode::Tap);
        config.device.bridge = Some("br0".to_owned());
        config.device.mac = Some([2, 0, 0, 0, 0, 1]);
        let first = "ip link set dev dev0 mtu 1400 address 02:00:00:00:00:01 txqueuelen 2000";
        assert_eq!(device_commands(&config)[0], first);
    }

    #[test]
    fn a_missing_bridge_is_named_with_the_remedy() {
        let mut config = config(Mode::Tap);
        config.device.bridge = Some("br7".to_owned());
        let host = Host { bridge: None, ..host() };
        let error = device_steps(&config, &device(), &host).unwrap_err().to_string();
        assert!(error.contains("ip link add br7 type bridge"), "{error}");
    }

    #[test]
    fn vpn_gateway_is_the_peer_where_it_is_a_neighbour() {
        let mut config = config(Mode::Tun);
        config.device.addresses = nets(&["192.168.86.81/32", "fd00::1/128"]);
        config.device.peers = ips(&["192.168.86.18", "fd00::2"]);
        assert_eq!(
            hop(&config, "192.168.66.0/24", Via::VpnGateway).unwrap(),
            "192.168.66.0/24 via 192.168.86.18 dev dev0"
        );
        assert_eq!(hop(&config, "fd00:66::/64", Via::VpnGateway).unwrap(), "fd00:66::/64 dev dev0");
        config.device.configure = false;
        assert_eq!(hop(&config, "192.168.66.0/24", Via::VpnGateway).unwrap(), "192.168.66.0/24 dev dev0");
    }

    #[test]
    fn a_peer_that_a_script_made_a_neighbour_is_the_gateway() {
        let mut config = config(Mode::Tun);
        config.device.configure = false;
        config.device.peers = ips(&["192.168.86.18"]);
        let mut host = host();
        host.routes.push(kernel_route("192.168.86.18/32", None, 9, None));
        let steps =
            route_steps(&with_route(&config, "10.0.0.0/8", Via::VpnGateway), &device(), &host).unwrap();
        assert_eq!(steps[0].to_string(), "ip route add 10.0.0.0/8 via 192.168.86.18 dev dev0");
    }

    #[test]
    fn in_tap_mode_the_peer_may_be_behind_the_bridge() {
        let mut config = config(Mode::Tap);
        config.device.peers = ips(&["10.1.0.9"]);
        let via_bridge = hop(&config, "192.168.66.0/24", Via::VpnGateway).unwrap();
        assert_eq!(via_bridge, "192.168.66.0/24 via 10.1.0.9 dev eth0");
        config.device.addresses = nets(&["10.1.0.7/28"]);
        let via_device = hop(&config, "192.168.66.0/24", Via::VpnGateway).unwrap();
        assert_eq!(via_device, "192.168.66.0/24 via 10.1.0.9 dev dev0");
        config.device.peers.clear();
        let error = hop(&config, "192.168.66.0/24", Via::VpnGateway).unwrap_err().to_string();
        assert!(error.contains("192.168.66.0/24") && error.contains("device.peer"), "{error}");
    }

    #[test]
    fn net_gateway_is_the_best_default_route_past_our_own_device() {
        let config = config(Mode::Tun);
        let mut host = host();
        host.routes.push(kernel_route("0.0.0.0/0", Some("10.1.0.1"), 2, Some(100)));
        host.routes.push(kernel_route("0.0.0.0/0", Some("10.2.0.1"), 3, Some(50)));
        host.routes.push(kernel_route("0.0.0.0/0", None, 9, None));
        let chosen = |host: &Host, to| {
            route_steps(&with_route(&config, to, Via::NetGateway), &device(), host)
                .map(|steps| steps[0].to_string())
        };
        assert_eq!(chosen(&host, "10.7.0.0/16").unwrap(), "ip route add 10.7.0.0/16 via 10.2.0.1 dev wifi0");
        host.routes.push(kernel_route("0.0.0.0/0", None, 3, None));
        assert_eq!(chosen(&host, "10.7.0.0/16").unwrap(), "ip route add 10.7.0.0/16 dev wifi0");
        let error = chosen(&host, "fd00::/8").unwrap_err().to_string();
        assert!(error.contains("fd00::/8") && error.contains("net_gateway"), "{error}");
    }

    #[test]
    fn a_gateway_must_be_a_neighbour() {
        let mut config = config(Mode::Tap);
        config.device.addresses = nets(&["10.9.0.1/24"]);
        let via = |gateway: &str| hop(&config, "10.7.0.0/16", Via::Address(gateway.parse().unwrap()));
        assert_eq!(via("10.9.0.2").unwrap(), "10.7.0.0/16 via 10.9.0.2 dev dev0");
        assert_eq!(via("10.1.0.3").unwrap(), "10.7.0.0/16 via 10.1.0.3 dev eth0");
        for unreachable in ["10.9.0.1", "10.3.0.1", "8.8.8.8"] {
            let error = via(unreachable).unwrap_err().to_string();
            assert!(error.contains(unreachable), "{error}");
        }
        assert!(via("fd00::1").unwrap_err().to_string().contains("fd00::1"));
    }

    #[test]
    fn a_default_route_on_the_device_does_not_claim_the_neighbours_of_other_interfaces() {
        let config = with_route(&config(Mode::Tun), "10.7.0.0/16", Via::Address("10.1.0.3".parse().unwrap()));
        let mut host = host();
        host.routes.push(kernel_route("0.0.0.0/0", None, 9, None));
        let steps = route_steps(&config, &device(), &host).unwrap();
        assert_eq!(steps[0].to_string(), "ip route add 10.7.0.0/16 via 10.1.0.3 dev eth0");
    }

    #[test]
    fn a_link_local_gateway_is_on_the_tunnel() {
        let config = config(Mode::Tap);
        let via = Via::Address("fe80::1".parse().unwrap());
        assert_eq!(hop(&config, "fd00::/64", via).unwrap(), "fd00::/64 via fe80::1 dev dev0");
    }

    #[test]
    fn metric_and_table_are_shown_and_main_is_not() {
        let mut config = config(Mode::Tun);
        let to = "10.7.0.0/16".parse().unwrap();
        config.routes = vec![
            Route { to, via: Via::VpnGateway, metric: Some(5), table: Some(100) },
            Route { to, via: Via::VpnGateway, metric: None, table: Some(254) },
        ];
        let steps = route_steps(&config, &device(), &host()).unwrap();
        assert_eq!(steps[0].to_string(), "ip route add 10.7.0.0/16 dev dev0 metric 5 table 100");
        assert_eq!(steps[1].to_string(), "ip route add 10.7.0.0/16 dev dev0");
    }

    #[test]
    fn what_outlives_an_adopted_device_is_undone() {
        let mut config =
            with_route(&config(Mode::Tap), "10.7.0.0/16", Via::Address("10.9.0.2".parse().unwrap()));
        config.device.addresses = nets(&["10.9.0.1/24"]);
        config.device.bridge = Some("br0".to_owned());
        let mut steps = device_steps(&config, &device(), &host()).unwrap();
        steps.extend(route_steps(&config, &device(), &host()).unwrap());
        let undone: Vec<_> = steps.iter().rev().filter_map(Step::undo).collect();
        let commands: Vec<_> = undone.iter().map(Step::to_string).collect();
        assert_eq!(
            commands,
            [
                "ip route del 10.7.0.0/16 via 10.9.0.2 dev dev0",
                "ip addr del 10.9.0.1/24 dev dev0",
                "ip link set dev dev0 nomaster"
            ]
        );
        assert!(undone.iter().all(|step| step.undo().is_none()));
    }

    fn device() -> Interface {
        Interface { index: 9, name: "dev0".to_owned() }
    }

    /// eth0 with 10.1.0.0/16, and 10.3.0.0/16 behind a router on it.
    fn host() -> Host {
        Host {
            routes: vec![
                kernel_route("10.1.0.0/16", None, 2, None),
                kernel_route("10.3.0.0/16", Some("10.1.0.1"), 2, None),
            ],
            bridge: Some(Interface { index: 4, name: "br0".to_owned() }),
            mac: Some([0xfe, 10, 11, 12, 13, 14]),
        }
    }

    fn kernel_route(to: &str, gateway: Option<&str>, interface: u32, metric: Option<u32>) -> KernelRoute {
        let interface_name = ["eth0", "wifi0"].get(interface as usize - 2).unwrap_or(&"dev0");
        KernelRoute {
            to: to.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface,
            interface_name: (*interface_name).to_owned(),
            metric,
            table: TABLE_MAIN,
            protocol: 2,
        }
    }

    fn device_commands(config: &Config) -> Vec<String> {
        device_steps(config, &device(), &host()).unwrap().iter().map(Step::to_string).collect()
    }

    fn hop(config: &Config, to: &str, via: Via) -> Result<String, PlanError> {
        let steps = route_steps(&with_route(config, to, via), &device(), &host())?;
        Ok(steps[0].to_string().trim_start_matches("ip route add ").to_owned())
    }

    fn with_route(config: &Config, to: &str, via: Via) -> Config {
        let route = Route { to: to.parse().unwrap(), via, metric: None, table: None };
        Config { routes: vec![route], ..config.clone() }
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn config(mode: Mode) -> Config {
        let text = format!(
            "[key]\nfile = \"k\"\nmode = \"static\"\ndirection = 0\n\
             [device]\nmode = \"{mode}\"\nmtu = 1400\nconfigure = false\n"
        );
        let mut config = parse("test", &text, &Options::new("/")).config.unwrap();
        config.device.configure = true;
        config
    }
}
