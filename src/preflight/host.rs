//! The existing state of this host: addresses, routes, devices, ports and names. All of it can change before the start, so every finding is a
//! warning.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::config::diagnostic::first_of_each_severity;
use crate::config::{Code, Config, Diagnostic, Lanes, Places, Remote, Swallow, Via, swallow};
use crate::preflight::{ipv6, ports};
use crate::route::netlink::{Link, Netlink};
use crate::route::plan::{KernelRoute, ROUTE_PROTOCOL, TABLE_MAIN};

/// The kernel's state in this network namespace.
#[derive(Debug, Clone, Default)]
struct Facts {
    interfaces: Vec<Link>,
    /// Each address with its interface's index.
    addresses: Vec<(IpNet, u32)>,
    routes: Vec<KernelRoute>,
    /// Interfaces of IPv4 default routes, and how strictly each checks sources (ip-sysctl, `rp_filter`).
    reverse_path: Vec<(String, u8)>,
}

/// Warns of what is in the way of `config` on this host, or missing; `places` are the configuration's. `own_device` is the index of the running
/// link's device, which is ignored. With `configure = false`, the device's addresses and routes are not checked.
pub fn check_host(
    config: &Config,
    places: &Places,
    own_device: Option<u32>,
    netlink: &mut Netlink,
) -> Vec<Diagnostic> {
    match gather(netlink) {
        Ok(facts) => {
            let mut found = ipv6::check(config, places, ipv6::without());
            found.extend(judge(config, places, own_device, &facts));
            let own = |remote: &Remote| own_remote(config, places, remote, remote.address()?);
            found.extend(config.remotes.iter().find_map(own));
            found
        }
        Err(error) => {
            let message = format!("this host's addresses and routes were not checked: {error}");
            vec![Diagnostic::warning(Code::NotChecked, None, message)]
        }
    }
}

/// Warns if another process has the UDP port, and names it.
pub fn check_port(config: &Config, places: &Places) -> Option<Diagnostic> {
    taken_port(config, places, &ports::sockets())
}

/// Warns of remotes whose name does not resolve now, or resolves into the tunnel or to this end. The caller resolves them, which blocks and reads the
/// network.
pub fn check_names(
    config: &Config,
    places: &Places,
    resolved: Vec<(&Remote, io::Result<Vec<SocketAddr>>)>,
) -> Vec<Diagnostic> {
    let place = places.of("remote");
    let is_name = |remote: &Remote| remote.address().is_none() || remote.zone().is_some();
    let mut found = Vec::new();
    for (remote, addresses) in resolved.into_iter().filter(|(remote, _)| is_name(remote)) {
        match addresses {
            Ok(addresses) if !addresses.is_empty() => {
                found.extend(addresses.iter().map(SocketAddr::ip).find_map(|address| {
                    loop_finding(config, places, remote, address)
                        .or_else(|| own_remote(config, places, remote, address))
                }));
            }
            failed => {
                let why = failed.err().map_or_else(String::new, |error| format!(": {error}"));
                let message = format!("{} cannot be resolved now{why}", remote.host);
                let help = "check the name; tund starts anyway and retries";
                found.push(Diagnostic::warning(Code::Unresolved, place.clone(), message).help(help));
            }
        }
    }
    found
}

fn gather(netlink: &mut Netlink) -> io::Result<Facts> {
    let addresses = netlink.addresses()?.into_iter().map(|own| (own.address, own.interface)).collect();
    let routes = netlink.routes()?;
    let reverse_path = reverse_path(&routes);
    Ok(Facts { interfaces: netlink.links()?, addresses, routes, reverse_path })
}

/// The interface's value or that of all interfaces, whichever is greater.
fn reverse_path(routes: &[KernelRoute]) -> Vec<(String, u8)> {
    let value = |name: &str| -> u8 {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let default = routes.iter().filter(|route| route.to.prefix_len() == 0 && route.to.addr().is_ipv4());
    let names: BTreeSet<_> = default.map(|route| route.interface_name.clone()).collect();
    names.into_iter().map(|name| (name.clone(), value(&name).max(value("all")))).collect()
}

/// Reverse path filtering follows the route of an unmarked answer: into the tunnel.
fn check_reverse_path(config: &Config, places: &Places, facts: &Facts) -> Vec<Diagnostic> {
    if config.full_tunnel.is_none() {
        return Vec::new();
    }
    let addresses = &config.device.addresses;
    let carried = addresses.is_empty() || addresses.iter().any(|own| own.addr().is_ipv4());
    // A loose filter (2) accepts any route, but not a blocking one.
    let good = if carried { 2 } else { 0 };
    let strict =
        facts.reverse_path.iter().filter(|(_, value)| if carried { *value == 1 } else { *value > 0 });
    let place = places.of("full-tunnel");
    let finding = |(name, value): &(String, u8)| {
        let message = format!(
            "net.ipv4.conf.{name}.rp_filter is {value}, so this host drops the peer's datagrams over IPv4"
        );
        let also = if carried { "" } else { ", and net.ipv4.conf.all.rp_filter" };
        Diagnostic::warning(Code::ReversePath, place.clone(), message)
            .help(format!("set it to {good}{also} (sysctl.d(5))"))
    };
    strict.map(finding).collect()
}

fn judge(config: &Config, places: &Places, own_device: Option<u32>, facts: &Facts) -> Vec<Diagnostic> {
    let adoptable = || {
        config
            .device
            .name
            .as_deref()
            .and_then(|name| facts.interface(name))
            .filter(|there| is_free_tun(there))
    };
    let own_device = own_device.or_else(|| adoptable().map(|there| there.index));
    let mut found = Vec::new();
    if config.device.configure {
        found.extend(check_addresses(config, places, own_device, facts));
    }
    found.extend(check_routes(config, places, own_device, facts));
    found.extend(check_queues(config, places, facts));
    found.extend(check_interfaces(config, places, own_device, facts));
    found.extend(check_reverse_path(config, places, facts));
    found
}

/// A tun or tap device that no process has open: the link adopts it.
fn is_free_tun(link: &Link) -> bool {
    link.kind.as_deref() == Some("tun") && !link.is_held()
}

fn check_addresses(
    config: &Config,
    places: &Places,
    own_device: Option<u32>,
    facts: &Facts,
) -> Vec<Diagnostic> {
    let device = &config.device;
    let own = device.addresses.iter().map(|address| (*address, "device.address"));
    let peers = device.peers.iter().map(|peer| (IpNet::from(*peer), "device.peer"));
    let mut found = Vec::new();
    for (inner, key) in own.chain(peers) {
        for (there, index) in facts.addresses.iter().filter(|(_, index)| Some(*index) != own_device) {
            let (code, message) = if there.addr() == inner.addr() {
                (
                    Code::AddressTaken,
                    format!("{} is already assigned to {}", inner.addr(), facts.name(*index)),
                )
            } else if there.contains(&inner.addr()) || inner.contains(&there.addr()) {
                let network = there.trunc();
                (
                    Code::NetworkTaken,
                    format!("{} overlaps {network}, which is in use on {}", inner, facts.name(*index)),
                )
            } else {
                continue;
            };
            let help = "give the tunnel addresses that nothing else uses";
            found.push(Diagnostic::warning(code, places.of(key), message).help(help));
            break;
        }
    }
    found
}

fn check_routes(config: &Config, places: &Places, own_device: Option<u32>, facts: &Facts) -> Vec<Diagnostic> {
    let others = || facts.routes.iter().filter(|there| Some(there.interface) != own_device);
    let defaults = others().filter(|there| there.to.prefix_len() == 0);
    let with_default: BTreeSet<_> = defaults.map(|there| there.to.addr().is_ipv4()).collect();
    let foreign = others().filter(|there| there.protocol != ROUTE_PROTOCOL);
    let foreign: HashMap<_, _> =
        foreign.map(|there| (slot(there.to, there.metric, there.table), &there.interface_name)).collect();
    let mut found = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        if route.via == Via::NetGateway && !with_default.contains(&route.to.addr().is_ipv4()) {
            let message =
                format!("the route to {} goes via net_gateway, but there is no default route", route.to);
            let help = "add a default route before the start, or name a gateway";
            found.push(
                Diagnostic::warning(Code::NoDefaultRoute, places.of_route(index, "via"), message).help(help),
            );
        }
        if let Some(name) = foreign.get(&slot(route.to, route.metric, route.table.unwrap_or(TABLE_MAIN))) {
            let message = format!("a route to {} already exists, through {name}", route.to);
            let help = "tund never replaces a route of others: give this one another metric or table";
            found.push(
                Diagnostic::warning(Code::RouteTaken, places.of_route(index, "to"), message).help(help),
            );
        }
    }
    first_of_each_severity(found)
}

/// The kernel's key of a route.
fn slot(to: IpNet, metric: Option<u32>, table: u32) -> (IpNet, u32, u32) {
    let default = if to.addr().is_ipv4() { 0 } else { 1024 };
    (to, metric.filter(|metric| *metric != 0).unwrap_or(default), table)
}

/// Warns if the link's device, as a port, lowers the MTU of `bridge`: a bridge takes the MTU of its smallest port, unless its own was set by hand
/// (`br_mtu_auto_adjust` of the kernel's net/bridge/br_if.c).
fn lowered_bridge(config: &Config, bridge: &Link) -> Option<String> {
    let (name, there, port) = (&bridge.name, bridge.mtu, config.device.mtu);
    let own = config.device.configure && !config.device.mtu_of_bridge;
    (own && port < there).then(|| {
        format!("the bridge {name} has an MTU of {there}, and a device of {port} lowers it, unless it was set by hand")
    })
}

/// Whether a device made by another program has one queue or may have several.
fn check_queues(config: &Config, places: &Places, facts: &Facts) -> Option<Diagnostic> {
    let (name, Lanes::Count(count @ 2..)) = (config.device.name.as_deref()?, config.tuning.data_path.lanes)
    else {
        return None;
    };
    facts.interface(name).filter(|there| is_free_tun(there) && there.queues.is_none())?;
    let message = format!("{name} has one queue, but {count} lanes need as many");
    let mode = config.device.mode;
    let help = format!("make it with `ip tuntap add dev {name} mode {mode} multi_queue`, or set lanes = 1");
    Some(Diagnostic::warning(Code::NoLanes, places.of("tuning.lanes"), message).help(help))
}

fn check_interfaces(
    config: &Config,
    places: &Places,
    own_device: Option<u32>,
    facts: &Facts,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut warn = |code, key: &str, message: String, help: &str| {
        found.push(Diagnostic::warning(code, places.of(key), message).help(help));
    };
    if let Some(name) = &config.device.name
        && facts.interface(name).is_some_and(|there| Some(there.index) != own_device)
    {
        let help = "choose another device.name, or remove it to let the kernel pick one";
        warn(Code::InterfaceTaken, "device.name", format!("an interface {name} already exists"), help);
    }
    if let Some(name) = &config.device.bridge {
        match facts.interface(name) {
            None => {
                let message = format!("there is no bridge {name}");
                warn(
                    Code::NoInterface,
                    "device.bridge",
                    message,
                    &format!("make it with `ip link add {name} type bridge`"),
                );
            }
            Some(there) if !there.is_bridge() => {
                warn(Code::NotABridge, "device.bridge", format!("{name} is not a bridge"), "name a bridge");
            }
            Some(there) => {
                if let Some(message) = lowered_bridge(config, there) {
                    let help = "set device.mtu = \"bridge\", or no less than the bridge's MTU, at both ends";
                    warn(Code::BridgeLowered, "device.bridge", message, help);
                }
            }
        }
    }
    if let Some(name) = &config.bind_device
        && facts.interface(name).is_none()
    {
        warn(
            Code::NoInterface,
            "bind-device",
            format!("there is no interface {name}"),
            "name an interface of this host",
        );
    }
    if let Some(address) =
        config.listen.address.filter(|address| !address.is_unspecified() && !address.is_loopback())
        && !facts.addresses.iter().any(|(there, _)| there.addr() == address)
    {
        let help = "listen on an address of this host, or on a port only";
        warn(Code::NoSuchAddress, "listen", format!("{address} is not an address of this host"), help);
    }
    found
}

fn taken_port(config: &Config, places: &Places, sockets: &[ports::Socket]) -> Option<Diagnostic> {
    let listen = &config.listen;
    let taken = sockets.iter().find(|s| listen.port != 0 && s.takes(listen.address, listen.port))?;
    let holder = taken.holder().unwrap_or_else(|| "another process".to_owned());
    let place = places.of("listen").or_else(|| places.of("remote"));
    let message = format!("UDP port {} is taken by {holder}", listen.port);
    let help = if listen.explicit || config.remotes.is_empty() {
        "end that process, or listen on another port"
    } else {
        "tund will use any free port; set listen to choose one"
    };
    Some(Diagnostic::warning(Code::PortTaken, place, message).help(help))
}

fn loop_finding(config: &Config, places: &Places, remote: &Remote, address: IpAddr) -> Option<Diagnostic> {
    let (place, what) = match swallow(config, address)? {
        Swallow::Route(index) => (places.of_route(index, "to"), "a route covers"),
        Swallow::Address(_) => (places.of("device.address"), "device.address covers"),
        Swallow::Peer(_) => (places.of("device.peer"), "device.peer is"),
    };
    let message = format!("routing loop: {what} {address}, the address of the remote {}", remote.host);
    let help = format!(
        "use a narrower prefix, or add a [[route]] with to = \"{address}\" and via = \"net_gateway\""
    );
    Some(Diagnostic::warning(Code::RoutingLoop, place, message).help(help))
}

/// A link calls itself if the other end's file was copied unchanged.
fn own_remote(config: &Config, places: &Places, remote: &Remote, address: IpAddr) -> Option<Diagnostic> {
    let listen = &config.listen;
    let is_heard = listen.address.is_none_or(|own| own == address) && listen.port == remote.port;
    (is_heard && !remote.stream).then_some(())?;
    // To its own address a host sends from that address.
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect((address, remote.port)).ok()?;
    socket.local_addr().ok().filter(|own| own.ip() == address)?;
    let message = format!("the remote {} is this end itself: this host has {address}", remote.host);
    let help = "name the other end here, and this end in the other end's file";
    Some(Diagnostic::warning(Code::OwnRemote, places.of("remote"), message).help(help))
}

impl Facts {
    fn interface(&self, name: &str) -> Option<&Link> {
        self.interfaces.iter().find(|there| there.name == name)
    }

    fn name(&self, index: u32) -> &str {
        self.interfaces
            .iter()
            .find(|there| there.index == index)
            .map_or("another interface", |there| &there.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};
    use crate::testing::{wait_for, wait_until};

    const TEXT: &str = r#"remote = "mon.tn:1417"
[key]
mode = "static"
file = "static.key"
direction = 0
[device]
address = "192.168.86.81/24"
peer = "192.168.86.18"
[[route]]
to = "192.168.66.0/24"
"#;

    fn config(text: &str) -> Config {
        let parsed = parse("l", text, &Options::new("/"));
        parsed.config.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
    }

    fn places(text: &str) -> Places {
        parse("l", text, &Options::new("/")).places
    }

    fn interface(index: u32, name: &str, kind: &str) -> Link {
        let (name, kind) = (name.to_owned(), Some(kind.to_owned()));
        Link { index, name, mtu: 1500, up: true, carrier: true, kind, queues: None, master: None, mac: None }
    }

    fn route(to: &str, interface: u32, metric: Option<u32>) -> KernelRoute {
        KernelRoute {
            to: to.parse().unwrap(),
            gateway: None,
            interface,
            interface_name: "eth0".to_owned(),
            metric,
            table: TABLE_MAIN,
            protocol: 2,
        }
    }

    fn facts() -> Facts {
        Facts {
            interfaces: vec![
                interface(1, "lo", "loopback"),
                interface(2, "eth0", "veth"),
                interface(3, "br0", "bridge"),
            ],
            addresses: vec![("10.0.0.5/24".parse().unwrap(), 2)],
            routes: vec![route("10.0.0.0/24", 2, None)],
            reverse_path: vec![("eth0".to_owned(), 0)],
        }
    }

    /// The code of the only finding, and the text it points to.
    fn only(text: &str, own: Option<u32>, facts: &Facts) -> (Code, String) {
        let found = judge(&config(text), &places(text), own, facts);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, crate::config::Severity::Warning);
        (found[0].code, text[found[0].span.clone().unwrap()].to_owned())
    }

    #[test]
    fn a_host_that_is_free_gets_no_finding() {
        assert_eq!(judge(&config(TEXT), &places(TEXT), None, &facts()), []);
    }

    #[test]
    fn an_inner_address_in_use_is_found_but_not_on_the_own_device() {
        let mut host = facts();
        host.addresses.push(("192.168.86.81/32".parse().unwrap(), 2));
        assert_eq!(only(TEXT, None, &host), (Code::AddressTaken, "\"192.168.86.81/24\"".to_owned()));
        assert_eq!(judge(&config(TEXT), &places(TEXT), Some(2), &host), []);
        let left_alone = TEXT.replace("peer =", "configure = false\npeer =");
        assert_eq!(judge(&config(&left_alone), &places(&left_alone), None, &host), []);
    }

    #[test]
    fn a_network_in_use_is_found_from_either_side() {
        let point = TEXT.replace("81/24", "81");
        let mut host = facts();
        host.addresses.push(("192.168.86.1/25".parse().unwrap(), 2));
        let found = judge(&config(&point), &places(&point), None, &host);
        assert_eq!(found.len(), 2, "address and peer: {found:#?}");
        assert_eq!(found[0].code, Code::NetworkTaken, "{found:#?}");
        assert!(found[0].message.contains("192.168.86.0/25"), "{found:#?}");
        host.addresses = vec![("192.168.86.200/32".parse().unwrap(), 2)];
        assert_eq!(only(TEXT, None, &host).0, Code::NetworkTaken);
    }

    #[test]
    fn a_route_that_exists_is_found_unless_it_differs_or_is_ours() {
        let mut host = facts();
        host.routes.push(route("192.168.66.0/24", 2, None));
        assert_eq!(only(TEXT, None, &host), (Code::RouteTaken, "\"192.168.66.0/24\"".to_owned()));
        assert_eq!(judge(&config(TEXT), &places(TEXT), Some(2), &host), []);
        host.routes[1].metric = Some(100);
        assert_eq!(judge(&config(TEXT), &places(TEXT), None, &host), []);
        host.routes[1] = KernelRoute { protocol: ROUTE_PROTOCOL, ..route("192.168.66.0/24", 2, None) };
        assert_eq!(judge(&config(TEXT), &places(TEXT), None, &host), []);
    }

    #[test]
    fn net_gateway_without_a_default_route_is_found() {
        let text = TEXT.replace("[[route]]\n", "[[route]]\nvia = \"net_gateway\"\n");
        let mut host = facts();
        assert_eq!(only(&text, None, &host).0, Code::NoDefaultRoute);
        host.routes.push(route("::/0", 2, None));
        assert_eq!(only(&text, None, &host).0, Code::NoDefaultRoute, "of the other family");
        host.routes.push(route("0.0.0.0/0", 2, Some(600)));
        assert_eq!(judge(&config(&text), &places(&text), None, &host), []);
    }

    #[test]
    fn a_filter_that_drops_the_peers_datagrams_is_found_with_a_full_tunnel() {
        let full = format!("{TEXT}[full-tunnel]\n");
        let six = full.replace("192.168.86.81/24", "fd00::1").replace("192.168.86.18", "fd00::2");
        let six = six.replace("[[route]]\nto = \"192.168.66.0/24\"\n", "");
        let found = |text: &str, value| {
            let host = Facts { reverse_path: vec![("eth0".to_owned(), value)], ..facts() };
            judge(&config(text), &places(text), None, &host)
                .iter()
                .filter_map(|found| found.help.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!([found(&full, 0).len(), found(&full, 1).len(), found(&full, 2).len()], [0, 1, 0]);
        assert_eq!([found(&six, 0).len(), found(&six, 1).len(), found(&six, 2).len()], [0, 1, 1]);
        assert_eq!(found(TEXT, 1), [""; 0]);
        assert_eq!(found(&full, 1), ["set it to 2 (sysctl.d(5))"]);
    }

    #[test]
    fn interfaces_that_are_missing_or_taken_are_found() {
        let host = facts();
        let named = TEXT.replace("[device]", "[device]\nname = \"eth0\"");
        assert_eq!(only(&named, None, &host).0, Code::InterfaceTaken);
        let mut adopted = facts();
        adopted.interfaces.push(Link { carrier: false, ..interface(4, "tun7", "tun") });
        let adopting = named.replace("eth0", "tun7");
        assert_eq!(judge(&config(&adopting), &places(&adopting), None, &adopted), []);
        let with_lanes = adopting.replace("mode = \"static\"\n", "") + "[tuning]\nlanes = 2\n";
        assert_eq!(only(&with_lanes, None, &adopted).0, Code::NoLanes);
        for (queues, held) in [(0, false), (1, true)] {
            adopted.interfaces[3].queues = Some(queues);
            let found = judge(&config(&with_lanes), &places(&with_lanes), None, &adopted);
            assert_eq!(found.iter().any(|found| found.code == Code::InterfaceTaken), held, "{found:?}");
            assert_eq!(found.is_empty(), !held, "{found:?}");
        }
        adopted.interfaces.pop();
        adopted.interfaces.push(interface(4, "tun7", "tun"));
        assert_eq!(only(&adopting, None, &adopted).0, Code::InterfaceTaken);
        let bound = TEXT.replace("[key]", "bind-device = \"eth7\"\n[key]");
        assert_eq!(only(&bound, None, &host).0, Code::NoInterface);
        let elsewhere = TEXT.replace("[key]", "listen = \"192.0.2.1:5\"\n[key]");
        assert_eq!(only(&elsewhere, None, &host).0, Code::NoSuchAddress);
        let tap = "[key]\nmode = \"static\"\nfile = \"k\"\ndirection = 0\n[device]\nmode = \"tap\"\nbridge = \"BR\"\n";
        assert_eq!(judge(&config(&tap.replace("BR", "br0")), &places(tap), None, &host), []);
        assert_eq!(only(&tap.replace("BR", "br7"), None, &host).0, Code::NoInterface);
        assert_eq!(only(&tap.replace("BR", "eth0"), None, &host).0, Code::NotABridge);
        let mut jumbo = facts();
        jumbo.interfaces[2].mtu = 9000;
        assert_eq!(only(&tap.replace("BR", "br0"), None, &jumbo).0, Code::BridgeLowered);
        let as_large = tap.replace("BR", "br0") + "mtu = 9000\n";
        assert_eq!(judge(&config(&as_large), &places(&as_large), None, &jumbo), []);
    }

    #[test]
    fn only_what_this_link_hears_itself_is_its_own_remote() {
        let check = |remote: &str, listen: &str| {
            let text = TEXT.replace("remote = \"mon.tn:1417\"", &format!("remote = \"{remote}\"\n{listen}"));
            let config = config(&text);
            let remote = &config.remotes[0];
            own_remote(&config, &places(&text), remote, remote.address().unwrap()).map(|found| found.code)
        };
        let itself = Some(Code::OwnRemote);
        assert_eq!(check("127.0.0.1:1417", ""), itself);
        assert_eq!(check("[::1]:1417", ""), itself);
        assert_eq!(check("127.0.0.1:9", "listen = \"127.0.0.1:9\""), itself);
        assert_eq!(check("127.0.0.1:9", "listen = \"127.0.0.2:9\""), None, "another end on this host");
        assert_eq!(check("127.0.0.1:9", "listen = \"127.0.0.1:10\""), None, "a proxy on this host");
        assert_eq!(check("192.0.2.1:1417", ""), None);
    }

    #[test]
    fn a_taken_port_is_found_with_its_holder() {
        let open = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = open.local_addr().unwrap().port();
        let text = TEXT.replace("[key]", &format!("listen = \"127.0.0.1:{port}\"\n[key]"));
        let found = wait_for(|| check_port(&config(&text), &places(&text)));
        assert_eq!(found.code, Code::PortTaken);
        assert!(found.message.contains(&std::process::id().to_string()), "{}", found.message);
        assert_eq!(&text[found.span.unwrap()], format!("\"127.0.0.1:{port}\""));
        drop(open);
        wait_until(|| check_port(&config(&text), &places(&text)).is_none());
    }

    #[test]
    fn names_that_fail_or_lead_into_the_tunnel_are_found() {
        let config = config(TEXT);
        let check = |config: &Config, answer: io::Result<Vec<SocketAddr>>| {
            check_names(config, &places(TEXT), vec![(&config.remotes[0], answer)])
        };
        let unknown = check(&config, Err(io::Error::other("no such name")));
        assert_eq!(unknown[0].code, Code::Unresolved);
        assert!(unknown[0].message.contains("no such name"), "the reason: {unknown:?}");
        assert_eq!(check(&config, Ok(Vec::new())).len(), 1);
        let at = |address: &str| vec![format!("{address}:1417").parse().unwrap()];
        assert_eq!(check(&config, Ok(at("192.0.2.1"))), []);
        let inside = check(&config, Ok(at("192.168.66.7")));
        assert_eq!(inside[0].code, Code::RoutingLoop);
        let itself = check(&config, Ok(at("127.0.0.1")));
        assert_eq!(itself.iter().map(|found| found.code).collect::<Vec<_>>(), [Code::OwnRemote]);
        let literal = TEXT.replace("mon.tn", "192.0.2.1");
        let literal = parse("l", &literal, &Options::new("/")).config.unwrap();
        assert_eq!(check(&literal, Err(io::Error::other("of no concern"))), []);
    }
}
