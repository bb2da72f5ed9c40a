//! Plans executed, read back and undone.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use tund::config::{Config, Via};
use tund::core::path::Path;
use tund::device;
use tund::packet::layer::Mode;
use tund::route::netlink::{Address, Netlink};
use tund::route::plan::{Host, Interface, KernelRoute, ROUTE_PROTOCOL, Step, device_steps, route_steps};
use tund::route::step::{Family, Rule};

use crate::many::absent;
use crate::namespace::{config, ip, isolated, link_up, route, sh, unprivileged};

#[test]
fn the_classic_routed_link_is_set_up_and_taken_down_again() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        let before = snapshot();
        let device = device::open(Mode::Tun, None, 1).unwrap();
        let mut config = config(Mode::Tun);
        config.device.addresses = nets(&["192.168.86.81/32", "fd00:86::81/128"]);
        config.device.peers = addresses(&["192.168.86.18", "fd00:86::18"]);
        config.device.txqueuelen = Some(321);
        config.routes = vec![
            route("192.168.66.0/24", Via::VpnGateway, Some(5), Some(100)),
            route("192.168.67.0/24", Via::VpnGateway, None, Some(70_000)),
            route("192.168.68.0/24", Via::Address("192.168.86.18".parse().unwrap()), None, None),
            route("192.168.56.0/24", Via::NetGateway, None, None),
            route("192.168.57.0/24", Via::Address("10.1.0.77".parse().unwrap()), None, None),
            route("fd00:66::/64", Via::VpnGateway, None, None),
            route("fd00:56::/64", Via::NetGateway, Some(7), None),
        ];
        let done = carry_out(&mut netlink, &config, &device);
        let commands: Vec<_> = done.iter().map(Step::to_string).collect();
        assert_eq!(
            commands,
            [
                "ip link set dev tun0 mtu 1400 txqueuelen 321",
                "ip link set dev tun0 up",
                "ip addr add 192.168.86.81 peer 192.168.86.18 dev tun0",
                "ip addr add fd00:86::81 peer fd00:86::18 dev tun0",
                "ip route add 192.168.66.0/24 via 192.168.86.18 dev tun0 metric 5 onlink table 100",
                "ip route add 192.168.67.0/24 via 192.168.86.18 dev tun0 onlink table 70000",
                "ip route add 192.168.68.0/24 via 192.168.86.18 dev tun0",
                "ip route add 192.168.56.0/24 via 10.1.0.2 dev up0",
                "ip route add 192.168.57.0/24 via 10.1.0.77 dev up0",
                "ip route add fd00:66::/64 dev tun0",
                "ip route add fd00:56::/64 via fd00:1::2 dev up0 metric 7",
            ]
        );

        let link = netlink.link("tun0").unwrap().unwrap();
        assert!(link.up && link.carrier && link.mtu == 1400);
        assert_eq!(ip("link show tun0")[0]["txqlen"], 321);
        // The kernel may still be checking the IPv6 address for duplicates.
        let settled = |address: Address| Address { tentative: false, ..address };
        let all = netlink.addresses().unwrap().into_iter();
        let ours: Vec<_> = all.filter(|a| a.interface == device.index).map(settled).collect();
        for (own, peer) in [("192.168.86.81/32", "192.168.86.18"), ("fd00:86::81/128", "fd00:86::18")] {
            let wanted = Address {
                interface: device.index,
                address: own.parse().unwrap(),
                peer: Some(peer.parse().unwrap()),
                tentative: false,
            };
            assert!(ours.contains(&wanted), "{wanted:?} in {ours:?}");
        }
        for step in &done {
            if let Step::AddRoute(route) = step {
                assert_shown_by_ip(route);
            }
        }
        let found = netlink.routes().unwrap();
        for step in &done {
            if let Step::AddRoute(route) = step
                && route.table == 254
            {
                let metric =
                    if route.to.addr().is_ipv6() { route.metric.or(Some(1024)) } else { route.metric };
                let wanted = KernelRoute { metric, ..route.clone() };
                assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
            }
        }

        undo(&mut netlink, &done);
        assert!(netlink.addresses().unwrap().iter().all(|a| a.peer.is_none()));
        drop(device);
        assert_eq!(snapshot(), before);
        // Once the device is gone, the same steps do no harm.
        undo(&mut netlink, &done);
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_tap_device_joins_the_bridge_and_does_not_change_its_address() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        sh("ip link add br0 type bridge");
        cable(&mut netlink, "port0", "port1");
        // A bridge has its lowest port address; one by chance may be above the device's.
        sh("ip link set port0 address 02:00:00:00:00:01");
        sh("ip link set port0 master br0");
        link_up(&mut netlink, "br0");
        let bridge_mac = ip("link show br0")[0]["address"].clone();
        let device = device::open(Mode::Tap, None, 1).unwrap();
        let mut config = config(Mode::Tap);
        config.device.bridge = Some("br0".to_owned());
        config.device.mtu = 1500;
        let done = carry_out(&mut netlink, &config, &device);
        let commands: Vec<_> = done.iter().map(Step::to_string).collect();
        assert_eq!(
            commands,
            [
                "ip link set dev tap0 mtu 1500 address fe:01:02:03:04:05 txqueuelen 2000",
                "ip link set dev tap0 master br0",
                "ip link set dev tap0 up"
            ]
        );
        let link = netlink.link("tap0").unwrap().unwrap();
        assert_eq!(link.master, Some(netlink.link("br0").unwrap().unwrap().index));
        let shown = ip("link show tap0");
        assert_eq!((&shown[0]["master"], &shown[0]["address"]), (&"br0".into(), &"fe:01:02:03:04:05".into()));
        assert_eq!(ip("link show br0")[0]["address"], bridge_mac);
        undo(&mut netlink, &done);
        assert_eq!(netlink.link("tap0").unwrap().unwrap().master, None);
        assert_eq!(netlink.link("port0").unwrap().unwrap().master, Some(link.master.unwrap()));
    });
}

#[test]
fn a_tap_address_has_its_prefix_and_its_broadcast() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = device::open(Mode::Tap, None, 1).unwrap();
        let mut config = config(Mode::Tap);
        config.device.addresses = nets(&["10.8.0.1/24", "fd00:8::1/64"]);
        config.device.mac = Some([2, 0, 0, 0, 0, 9]);
        config.device.peers = addresses(&["fd00:8::2"]);
        config.routes = vec![
            route("192.168.66.0/24", Via::Address("10.8.0.2".parse().unwrap()), None, None),
            route("fd00:66::/64", Via::VpnGateway, None, None),
        ];
        carry_out(&mut netlink, &config, &device);
        let shown = ip("-4 addr show tap0");
        let address = &shown[0]["addr_info"][0];
        assert_eq!(address["local"], "10.8.0.1");
        assert_eq!(address["prefixlen"], 24);
        assert_eq!(address["broadcast"], "10.8.0.255");
        assert_eq!(ip("link show tap0")[0]["address"], "02:00:00:00:00:09");
        assert_eq!(ip("route show 192.168.66.0/24")[0]["gateway"], "10.8.0.2");
        assert_eq!(ip("-6 route show fd00:66::/64")[0]["gateway"], "fd00:8::2");
    });
}

#[test]
fn on_an_adopted_device_nothing_is_left_behind() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        sh("ip tuntap add dev kept mode tun");
        for _ in 0..2 {
            let device = device::open(Mode::Tun, Some("kept"), 1).unwrap();
            let mut config = config(Mode::Tun);
            config.device.addresses = nets(&["192.168.86.81/32", "fd00:86::81/128"]);
            config.device.peers = addresses(&["192.168.86.18", "fd00:86::18"]);
            config.routes = vec![
                route("192.168.66.0/24", Via::VpnGateway, None, None),
                route("fd00:66::/64", Via::VpnGateway, None, None),
            ];
            let done = carry_out(&mut netlink, &config, &device);
            // As after a crash: what exists is adopted, not refused.
            for step in &done {
                netlink.apply(step).unwrap();
            }
            undo(&mut netlink, &done);
            assert_eq!(sh("ip addr show dev kept scope global"), "");
            assert_eq!(sh("ip -4 route show dev kept"), "");
            let v6 = sh("ip -6 route show dev kept");
            assert!(!v6.contains("fd00:"), "{v6}");
        }
    });
}

#[test]
fn a_foreign_route_is_refused_and_kept() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        for (to, gateway, foreign) in [
            ("192.168.66.0/24", "10.1.0.2", "192.168.66.0/24 via 10.1.0.99 dev up0 proto static"),
            ("fd00:66::/64", "fd00:1::2", "fd00:66::/64 via fd00:1::99 dev up0 proto static"),
        ] {
            sh(&format!("ip route add {foreign}"));
            let ours = through_uplink(&mut netlink, to, gateway, None);
            let error = netlink.apply(&Step::AddRoute(ours)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert!(error.to_string().contains("metric"), "{error}");
            let shown = ip(&format!("{} route show {to}", family(to)));
            assert_eq!(shown.len(), 1, "{shown:?}");
            assert_eq!(shown[0]["protocol"], "static");
            let beside = through_uplink(&mut netlink, to, gateway, Some(2000));
            netlink.apply(&Step::AddRoute(beside)).unwrap();
            assert_eq!(ip(&format!("{} route show {to}", family(to))).len(), 2);
        }
    });
}

#[test]
fn an_unreachable_route_counts_as_foreign() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        sh("ip route add unreachable 192.168.66.0/24");
        let ours = through_uplink(&mut netlink, "192.168.66.0/24", "10.1.0.2", None);
        let error = netlink.apply(&Step::AddRoute(ours)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(ip("route show 192.168.66.0/24")[0]["type"], "unreachable");
    });
}

#[test]
fn a_leftover_of_our_own_is_taken_over() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        for (to, old, new) in
            [("192.168.66.0/24", "10.1.0.2", "10.1.0.3"), ("fd00:66::/64", "fd00:1::2", "fd00:1::3")]
        {
            let old = through_uplink(&mut netlink, to, old, Some(5));
            netlink.apply(&Step::AddRoute(old)).unwrap();
            let ours = through_uplink(&mut netlink, to, new, Some(5));
            netlink.apply(&Step::AddRoute(ours)).unwrap();
            let shown = ip(&format!("{} route show {to}", family(to)));
            assert_eq!(shown.len(), 1, "{shown:?}");
            assert_eq!((&shown[0]["gateway"], &shown[0]["protocol"]), (&new.into(), &"88".into()));
        }
    });
}

#[test]
fn the_route_of_another_running_tunnel_is_not_taken_over() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        let (first, second) =
            (device::open(Mode::Tun, None, 1).unwrap(), device::open(Mode::Tun, None, 1).unwrap());
        let through = |device: &device::Device| {
            Step::AddRoute(KernelRoute {
                to: "192.168.66.0/24".parse().unwrap(),
                gateway: None,
                interface: device.index,
                interface_name: device.name.clone(),
                metric: None,
                table: 254,
                protocol: ROUTE_PROTOCOL,
            })
        };
        link_up(&mut netlink, "tun0");
        link_up(&mut netlink, "tun1");
        netlink.apply(&through(&first)).unwrap();
        let error = netlink.apply(&through(&second)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("another tunnel's"), "{error}");
        let shown = ip("route show 192.168.66.0/24");
        assert_eq!((&shown[0]["dev"], &shown[0]["scope"]), (&"tun0".into(), &"link".into()));
    });
}

#[test]
fn deleting_removes_exactly_that_route() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        let with_metric = through_uplink(&mut netlink, "192.168.66.0/24", "10.1.0.2", Some(9));
        netlink.apply(&Step::AddRoute(with_metric.clone())).unwrap();
        sh("ip route add 192.168.66.0/24 via 10.1.0.2 metric 3");
        // The kernel alone would take an absent metric for "any".
        let absent = KernelRoute { metric: None, ..with_metric.clone() };
        netlink.apply(&Step::DeleteRoute(absent)).unwrap();
        assert_eq!(ip("route show 192.168.66.0/24").len(), 2);
        netlink.apply(&Step::DeleteRoute(with_metric)).unwrap();
        let left = ip("route show 192.168.66.0/24");
        assert_eq!((left.len(), &left[0]["metric"]), (1, &3.into()));
    });
}

#[test]
fn a_default_route_of_the_lowest_metric_is_the_net_gateway() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        cable(&mut netlink, "up1", "far1");
        sh("ip addr add 10.2.0.1/24 dev up1");
        sh("ip route del default via 10.1.0.2");
        sh("ip route add default via 10.1.0.2 metric 200");
        sh("ip route add default nexthop via 10.2.0.2 dev up1 nexthop via 10.1.0.3 dev up0");
        let device = device::open(Mode::Tun, None, 1).unwrap();
        link_up(&mut netlink, "tun0");
        let mut config = config(Mode::Tun);
        config.routes = vec![route("192.168.56.0/24", Via::NetGateway, None, None)];
        let chosen = |netlink: &mut Netlink| {
            let host = Host { routes: netlink.routes().unwrap(), ..Host::default() };
            route_steps(&config, &interface(&device), &host).map(|steps| steps[0].to_string())
        };
        let wanted = "ip route add 192.168.56.0/24 via 10.2.0.2 dev up1";
        assert_eq!(chosen(&mut netlink).unwrap(), wanted);
        sh("ip route del default metric 0");
        let wanted = "ip route add 192.168.56.0/24 via 10.1.0.2 dev up0";
        assert_eq!(chosen(&mut netlink).unwrap(), wanted);
        sh("ip route replace default dev tun0 metric 1");
        assert_eq!(chosen(&mut netlink).unwrap(), wanted, "our own device is never the net gateway");
        sh("ip route del default metric 200");
        assert!(chosen(&mut netlink).unwrap_err().to_string().contains("net_gateway"));
    });
}

#[test]
fn an_ipv4_default_route_over_an_ipv6_gateway_is_followed() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        sh("ip route del default");
        sh("ip -4 route add default via inet6 fd00:1::2 dev up0");
        let device = device::open(Mode::Tun, None, 1).unwrap();
        let mut config = config(Mode::Tun);
        config.routes = vec![route("192.168.56.0/24", Via::NetGateway, None, None)];
        let done = carry_out(&mut netlink, &config, &device);
        let last = done.last().unwrap().to_string();
        assert_eq!(last, "ip route add 192.168.56.0/24 via inet6 fd00:1::2 dev up0");
        assert_eq!(ip("route show 192.168.56.0/24")[0]["via"]["host"], "fd00:1::2");
        undo(&mut netlink, &done);
        assert_eq!(sh("ip route show 192.168.56.0/24"), "");
    });
}

#[test]
fn a_lookup_names_interface_gateway_and_mtu() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        sh("ip link set up0 mtu 1480");
        sh("ip route add 203.0.113.0/24 via 10.1.0.2 mtu 1300");
        sh("ip rule add fwmark 7 unreachable");
        let index = netlink.link("up0").unwrap().unwrap().index;
        let found = netlink.lookup("203.0.113.5".parse().unwrap(), None, None, None).unwrap();
        assert_eq!((found.interface, found.mtu), (index, Some(1300)));
        assert_eq!(found.gateway, address("10.1.0.2"));
        let default = netlink.lookup("198.51.100.1".parse().unwrap(), None, None, None).unwrap();
        assert_eq!((default.interface, default.mtu), (index, Some(1480)));
        let v6 = netlink.lookup("2001:db8::1".parse().unwrap(), None, None, None).unwrap();
        assert_eq!((v6.interface, v6.mtu, v6.gateway), (index, Some(1480), address("fd00:1::2")));
        let error = netlink.lookup("203.0.113.5".parse().unwrap(), None, Some(7), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
    });
}

#[test]
fn the_links_way_follows_its_mark_its_interface_and_the_address_that_it_leaves_from() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        cable(&mut netlink, "up1", "far1");
        sh("ip addr add 10.2.0.1/24 dev up1");
        sh("ip route add default via 10.2.0.2 table 102");
        sh("ip route add default via 10.2.0.2 metric 7");
        sh("ip rule add from 10.2.0.1 lookup 102");
        sh("ip rule add fwmark 9 unreachable");
        let [first, second] = ["up0", "up1"].map(|name| netlink.link(name).unwrap().unwrap().index);
        let plain = config(Mode::Tun);
        let listening = |own: &str| {
            let mut config = plain.clone();
            config.listen.address = address(own);
            config
        };
        let bound = Config { bind_device: Some("up1".to_owned()), ..plain.clone() };
        let remote = Path::from(SocketAddr::from(([203, 0, 113, 5], 1417)));
        let stream = Path::stream(remote.remote);
        let from = |own: &str| Path { local: address(own), ..remote };
        for (config, path, interface) in [
            (&plain, remote, first),
            (&bound, remote, second),
            (&listening("10.2.0.1"), remote, second),
            (&listening("10.1.0.1"), remote, first),
            // A stream may start from any address.
            (&listening("10.2.0.1"), stream, first),
            (&plain, from("10.2.0.1"), second),
            (&plain, from("10.1.0.1"), first),
        ] {
            assert_eq!(netlink.way(config, path).unwrap().interface, interface, "{config:?} {path:?}");
        }
        assert!(netlink.way(&Config { fwmark: Some(9), ..plain.clone() }, remote).is_err());
    });
}

#[test]
fn rules_and_refusals_are_set_seen_and_taken_back_and_those_of_others_are_left() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        let rules = || sh("ip rule") + &sh("ip -6 rule");
        let before = rules();
        let mut steps = Vec::new();
        for (family, to) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
            let own = Rule {
                family,
                priority: 17_001,
                table: 17_000,
                unless_mark: Some(7),
                suppress_default: false,
            };
            let main =
                Rule { priority: 17_000, table: 254, unless_mark: None, suppress_default: true, ..own };
            steps.push(Step::Block { to: to.parse().unwrap(), table: 17_000 });
            steps.extend([main, own].map(Step::AddRule));
        }
        assert_eq!(absent(&mut netlink, &steps), steps);
        for step in &steps {
            assert!(netlink.apply(step).unwrap(), "{step}");
        }
        for (family, to) in [("", "203.0.113.5"), ("-6", "2001:db8::1")] {
            let shown = sh(&format!("ip {family} rule"));
            assert!(shown.contains("from all lookup main suppress_prefixlength 0 proto 88"), "{shown}");
            assert!(shown.contains("not from all fwmark 0x7 lookup 17000 proto 88"), "{shown}");
            assert_eq!(
                sh(&format!("ip {family} route show table 17000")).matches("unreachable default").count(),
                1
            );
            let to = to.parse().unwrap();
            assert!(netlink.lookup(to, None, None, None).is_err());
            assert_eq!(
                netlink.lookup(to, None, Some(7), None).unwrap().interface,
                netlink.link("up0").unwrap().unwrap().index
            );
        }
        assert_eq!(absent(&mut netlink, &steps), []);
        // What a killed tund left is adopted.
        let rule = steps.iter().find(|step| matches!(step, Step::AddRule(_))).unwrap();
        assert!(netlink.apply(rule).unwrap());
        undo(&mut netlink, &steps);
        assert_eq!(rules(), before);
        assert_eq!(sh("ip route show table all type unreachable"), "");
        // Another program's rule is neither adopted nor removed.
        sh("ip rule add not fwmark 7 lookup 17000 priority 17001");
        let foreign = rules();
        let own = steps.iter().find(|step| step.to_string().starts_with("ip rule add not")).unwrap();
        assert!(absent(&mut netlink, std::slice::from_ref(own)).contains(own));
        assert!(!netlink.apply(&own.undo().unwrap()).unwrap());
        assert!(netlink.apply(own).unwrap() && netlink.apply(&own.undo().unwrap()).unwrap());
        assert_eq!(rules(), foreign);
    });
}

#[test]
fn a_refused_step_names_the_command_and_the_reason() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        uplink(&mut netlink);
        let astray = through_uplink(&mut netlink, "192.168.66.0/24", "172.16.0.1", None);
        let error = netlink.apply(&Step::AddRoute(astray)).unwrap_err().to_string();
        assert!(error.starts_with("ip route add 192.168.66.0/24 via 172.16.0.1 dev up0: "), "{error}");
        assert!(error.ends_with("Nexthop has invalid gateway"), "{error}");
    });
}

#[test]
fn without_the_capability_a_step_says_so() {
    isolated(|| {
        let step = Step::SetLink {
            index: 1,
            name: "lo".to_owned(),
            mtu: Some(1500),
            mac: None,
            txqueuelen: None,
            up: None,
        };
        let error = unprivileged(|| Netlink::open().unwrap().apply(&step).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}

/// An interface `up0` with addresses and default routes of both families.
fn uplink(netlink: &mut Netlink) {
    cable(netlink, "up0", "far0");
    sh("ip addr add 10.1.0.1/24 dev up0");
    sh("ip addr add fd00:1::1/64 dev up0 nodad");
    sh("ip route add default via 10.1.0.2");
    sh("ip route add default via fd00:1::2");
}

fn cable(netlink: &mut Netlink, near: &str, far: &str) {
    sh(&format!("ip link add {near} type veth peer name {far}"));
    for end in [near, far] {
        // Link-local addresses would change at any time.
        sh(&format!("ip link set {end} addrgenmode none"));
        link_up(netlink, end);
    }
}

fn through_uplink(netlink: &mut Netlink, to: &str, gateway: &str, metric: Option<u32>) -> KernelRoute {
    KernelRoute {
        to: to.parse().unwrap(),
        gateway: address(gateway),
        interface: netlink.link("up0").unwrap().unwrap().index,
        interface_name: "up0".to_owned(),
        metric,
        table: 254,
        protocol: ROUTE_PROTOCOL,
    }
}

fn carry_out(netlink: &mut Netlink, config: &Config, device: &device::Device) -> Vec<Step> {
    let bridge = config.device.bridge.as_ref().map(|name| netlink.link(name).unwrap().unwrap());
    let mut host = Host {
        routes: Vec::new(),
        bridge: bridge.map(|bridge| Interface { index: bridge.index, name: bridge.name }),
        mac: Some([0xfe, 1, 2, 3, 4, 5]),
    };
    let mut steps = device_steps(config, &interface(device), &host).unwrap();
    host.routes = netlink.routes().unwrap();
    steps.extend(route_steps(config, &interface(device), &host).unwrap());
    for step in &steps {
        netlink.apply(step).unwrap();
    }
    steps
}

fn undo(netlink: &mut Netlink, done: &[Step]) {
    for step in done.iter().rev().filter_map(Step::undo) {
        netlink.apply(&step).unwrap();
    }
}

fn interface(device: &device::Device) -> Interface {
    Interface { index: device.index, name: device.name.clone() }
}

fn assert_shown_by_ip(route: &KernelRoute) {
    let to = route.to.to_string();
    let shown = ip(&format!("{} route show {to} table {}", family(&to), route.table));
    assert_eq!(shown.len(), 1, "{to}: {shown:?}");
    let gateway = route.gateway.map(|gateway| gateway.to_string());
    assert_eq!(shown[0]["gateway"].as_str(), gateway.as_deref());
    assert_eq!(shown[0]["dev"], *route.interface_name);
    assert_eq!(shown[0]["protocol"], "88");
    if let Some(metric) = route.metric {
        assert_eq!(shown[0]["metric"], metric);
    }
}

/// The whole state, except counters and times.
fn snapshot() -> [String; 4] {
    ["-o link show", "-o addr show", "-4 route show table all", "-6 route show table all"].map(|what| {
        let text = sh(&format!("ip {what}"));
        text.lines()
            .map(|line| line.split(" valid_lft").next().unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

fn family(to: &str) -> &'static str {
    if to.contains(':') { "-6" } else { "-4" }
}

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}
