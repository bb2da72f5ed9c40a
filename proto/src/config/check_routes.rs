//! The `[[route]]` tables, and routes that would capture the link's own datagrams.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::check_device::{CheckedDevice, parse_prefix, prefix_help};
use super::check_outer::Outer;
use super::code::Code;
use super::diagnostic::{Findings, quote};
use super::keys::{Raw, RawRoute};
use super::prefixes::Prefixes;
use super::reader::{At, Field};
use super::schema::Declared;
use super::{Config, Device, MAX_ROUTES, Route, Via};
use crate::packet::layer::Mode;

/// A part of the configuration that would route the link's own datagrams into the link, as an index into its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swallow {
    /// An entry of `Config::routes`.
    Route(usize),
    /// An entry of `Device::addresses`, by its prefix.
    Address(usize),
    /// An entry of `Device::peers`.
    Peer(usize),
}

/// Returns what would route datagrams for the outer address `remote` into the link, by longest prefix. `None` with
/// `bind-device` or `fwmark`, as other rules then decide.
pub fn swallow(config: &Config, remote: IpAddr) -> Option<Swallow> {
    if config.bind_device.is_some() || config.fwmark.is_some() {
        return None;
    }
    let (own, peers) = given(&config.device);
    swallow_among(&config.routes, own, peers, remote)
}

/// Returns the addresses that tund gives the device and routes to it.
fn given(device: &Device) -> (&[IpNet], &[IpAddr]) {
    if device.configure { (&device.addresses, &device.peers) } else { (&[], &[]) }
}

pub(super) fn check(raw: &[RawRoute], device: &CheckedDevice, out: &mut Findings) -> Vec<At<Route>> {
    if let Some(first) = raw.get(MAX_ROUTES) {
        let message = format!("there are {} routes, at most {MAX_ROUTES} are allowed", raw.len());
        out.error(Code::TooMany, first.place(), message, "combine them into larger prefixes");
    }
    let mut routes = Vec::new();
    for raw in raw.iter().take(MAX_ROUTES) {
        let via = check_via(raw, device, out);
        if let (Some(to), Some(via)) = (check_to(raw, out), via) {
            let (metric, table) = (raw.metric.value().copied(), raw.table.value().copied());
            let route = Route { to: to.value, via, metric, table };
            check_gateway(raw, &route, device, out);
            routes.push(At { value: route, span: to.span });
        }
    }
    check_pairs(&routes, out);
    check_connected(&routes, device, out);
    routes
}

/// Reports routes and addresses that would capture a remote, or might if it is a name.
pub(super) fn check_remotes(
    raw: &Raw,
    outer: &Outer,
    device: &CheckedDevice,
    routes: &[At<Route>],
    out: &mut Findings,
) {
    if !raw.top.bind_device.is_absent() || !raw.top.fwmark.is_absent() {
        return;
    }
    let plain: Vec<Route> = routes.iter().map(|at| at.value.clone()).collect();
    let (own, peers) = given(&device.device);
    check_names(outer, |via| leads_into_link(via, own, peers), routes, out);
    let remotes = outer.remotes.iter().map(|remote| ("remote", &remote.value));
    let proxy = outer.proxy.iter().map(|proxy| ("proxy", &proxy.value.place));
    for (word, remote) in remotes.chain(proxy) {
        // A zone determines the path.
        let Some(address) = remote.address().filter(|_| remote.zone().is_none()) else {
            continue;
        };
        let (place, what) = match swallow_among(&plain, own, peers, address) {
            None => continue,
            Some(Swallow::Route(index)) => (routes.get(index).and_then(At::at), "the route covers"),
            Some(Swallow::Address(index)) => {
                (device.addresses.get(index).and_then(At::at), "device.address covers")
            }
            Some(Swallow::Peer(index)) => (device.peers.get(index).and_then(At::at), "device.peer is"),
        };
        let message =
            format!("routing loop: {what} the {word} {address}, so the tunnel would run through itself");
        let help = format!(
            "use a narrower prefix, or add a [[route]] with to = \"{address}\" and via = \"net_gateway\""
        );
        out.error(Code::RoutingLoop, place, message, help);
    }
}

/// Reports a route into the link to all addresses, or half of them, beside a remote given by name: it covers whatever address the name has.
/// `net_gateway` in a narrower route says that this was considered.
fn check_names(outer: &Outer, inward: impl Fn(Via) -> bool, routes: &[At<Route>], out: &mut Findings) {
    let remotes = outer.remotes.iter().map(|remote| &remote.value);
    let mut hosts = remotes.chain(outer.proxy.iter().map(|proxy| &proxy.value.place));
    let Some(named) = hosts.find(|host| host.address().is_none()) else { return };
    let considered =
        |to: &IpNet| routes.iter().any(|at| at.value.via == Via::NetGateway && to.contains(&at.value.to));
    let wide = routes.iter().find(|at| {
        let Route { to, via, .. } = &at.value;
        to.prefix_len() < 2 && table(&at.value) == MAIN && inward(*via) && !considered(to)
    });
    if let Some(route) = wide {
        let message = format!(
            "routing loop: the route covers whatever address {} has, so the tunnel would run through itself",
            named.host
        );
        let help = "use [full-tunnel], which leaves out the link's own datagrams, or add a [[route]] to that address with via = \
                    \"net_gateway\"";
        out.warning(Code::RoutingLoop, route.at(), message, help);
    }
}

/// Returns the remedy for what is no network.
fn network_help(text: &str) -> String {
    match text {
        "default" => "write \"0.0.0.0/0\" for all of IPv4, \"::/0\" for all of IPv6".to_owned(),
        _ => prefix_help(text, "192.168.66.0/24"),
    }
}

fn check_to(raw: &RawRoute, out: &mut Findings) -> Option<At<IpNet>> {
    let Some(text) = raw.to.get() else {
        if raw.to.is_absent() {
            let help = "set to = \"192.168.66.0/24\" or whatever network is behind the peer";
            out.error(Code::Missing, raw.place(), "route.to is missing", help);
        }
        return None;
    };
    check_network("route.to", text, out).map(|to| text.with(to))
}

/// Returns the prefix, without host bits.
pub(super) fn check_network(key: &str, text: &At<String>, out: &mut Findings) -> Option<IpNet> {
    let Some((net, _)) = parse_prefix(&text.value) else {
        let message = format!("{key}: {} is not a valid prefix", quote(&text.value));
        out.error(Code::BadPrefix, text.at(), message, network_help(&text.value));
        return None;
    };
    if net.trunc() != net {
        let message = format!("{key}: {net} has host bits set");
        out.error(Code::HostBits, text.at(), message, format!("write \"{}\"", net.trunc()));
    }
    Some(net.trunc())
}

fn check_via(raw: &RawRoute, device: &CheckedDevice, out: &mut Findings) -> Option<Via> {
    let text = match &raw.via {
        Field::Wrong => return None,
        Field::Absent => return Some(Via::VpnGateway),
        Field::Is(text) => text,
    };
    match text.value.as_str() {
        "vpn_gateway" => return Some(Via::VpnGateway),
        "net_gateway" => return Some(Via::NetGateway),
        _ => {}
    }
    let Ok(address) = text.value.parse::<IpAddr>() else {
        let message = format!("route.via cannot be {}", quote(&text.value));
        let near = super::suggest::nearest(&text.value, ["vpn_gateway", "net_gateway"].into_iter());
        let help = match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "expected \"vpn_gateway\", \"net_gateway\" or a gateway address".to_owned(),
        };
        out.error(Code::BadGateway, text.at(), message, help);
        return None;
    };
    if address.is_unspecified() || address.is_multicast() {
        let message = format!("route.via {address} is not a host address");
        let help = "name a gateway, or remove the line to use the peer";
        out.error(Code::UnusableAddress, text.at(), message, help);
    } else if device.addresses.iter().any(|own| own.value.addr() == address) {
        let message = format!("route.via {address} is this end's own address");
        out.error(Code::OwnAddress, text.at(), message, "name the other end, or remove the line");
    }
    Some(Via::Address(address))
}

/// Reports a gateway that does not exist in the route's address family.
fn check_gateway(raw: &RawRoute, route: &Route, device: &CheckedDevice, out: &mut Findings) {
    let v4 = route.to.addr().is_ipv4();
    let family = if v4 { "IPv4" } else { "IPv6" };
    match route.via {
        Via::NetGateway => {}
        Via::Address(gateway) if gateway.is_ipv4() == v4 => {}
        Via::Address(gateway) => {
            let message =
                format!("route.via {gateway} is not in the address family of route.to {}", route.to);
            let place = raw.via.at();
            out.error(Code::AddressFamily, place, message, format!("use an {family} gateway"));
        }
        Via::VpnGateway if !device.clean || device.peers.iter().any(|peer| peer.value.is_ipv4() == v4) => {}
        Via::VpnGateway => {
            let place = raw.via.at().or_else(|| raw.place());
            let (message, help) = match device.mode {
                None => return,
                Some(Mode::Tun) => (
                    format!("the route goes via vpn_gateway, but device.peer has no {family} address"),
                    format!("add the peer's {family} address to device.peer"),
                ),
                Some(Mode::Tap) => (
                    format!("a tap route needs via: device.peer has no {family} address"),
                    "set via to the gateway's address on the other segment, or set device.peer".to_owned(),
                ),
            };
            out.error(Code::NoGateway, place, message, help);
        }
    }
}

fn check_pairs(routes: &[At<Route>], out: &mut Findings) {
    let mut all = Prefixes::default();
    routes.iter().for_each(|route| all.insert(table(&route.value), route.value.to, route));
    let mut earlier = HashSet::new();
    for later in routes {
        let (route, place) = (&later.value, Some(later.span.clone()));
        if !earlier.insert((table(route), route.to, metric(route))) {
            let message = format!("the route to {} is listed twice", route.to);
            out.error(Code::Duplicate, place, message, "remove one, or give it a metric");
            continue;
        }
        let wider = all.around(table(route), &route.to).map(|wider| &wider.value);
        if let Some(wider) = wider.filter(|wider| wider.via == route.via) {
            let message =
                format!("the route to {} is redundant: it goes the same way as {}", route.to, wider.to);
            out.warning(Code::NarrowerRoute, place, message, "remove the narrower one");
        }
    }
}

/// Reports IPv4 routes that the kernel adds itself when the device gets its address.
fn check_connected(routes: &[At<Route>], device: &CheckedDevice, out: &mut Findings) {
    let (own, peers) = given(&device.device);
    let nets = peers.iter().copied().map(IpNet::from).chain(own.iter().map(IpNet::trunc));
    let connected: Vec<IpNet> = nets.filter(|net| net.addr().is_ipv4()).collect();
    for route in routes.iter().filter(|route| table(&route.value) == MAIN && metric(&route.value) == 0) {
        if connected.contains(&route.value.to) {
            let message =
                format!("the kernel adds the route to {} with the device's address", route.value.to);
            out.error(Code::Duplicate, route.at(), message, "remove it, or give it a metric");
        }
    }
}

/// Whether a route with this `via` leads into the link, whose device has these addresses.
fn leads_into_link(via: Via, addresses: &[IpNet], peers: &[IpAddr]) -> bool {
    match via {
        Via::VpnGateway => true,
        Via::NetGateway => false,
        Via::Address(gateway) => {
            addresses.iter().any(|own| own.contains(&gateway)) || peers.contains(&gateway)
        }
    }
}

fn swallow_among(routes: &[Route], addresses: &[IpNet], peers: &[IpAddr], remote: IpAddr) -> Option<Swallow> {
    let by_route =
        routes.iter().enumerate().filter(|(_, route)| table(route) == MAIN).map(|(index, route)| {
            (
                route.to,
                metric(route),
                leads_into_link(route.via, addresses, peers).then_some(Swallow::Route(index)),
            )
        });
    let by_address = addresses.iter().enumerate().map(|(i, own)| (*own, 0, Some(Swallow::Address(i))));
    let by_peer = peers.iter().enumerate().map(|(i, peer)| (IpNet::from(*peer), 0, Some(Swallow::Peer(i))));
    by_route
        .chain(by_address)
        .chain(by_peer)
        .filter(|(to, _, _)| to.contains(&remote))
        .min_by_key(|(to, metric, _)| (Reverse(to.prefix_len()), *metric))
        .and_then(|(_, _, swallow)| swallow)
}

/// Number of the kernel's main table.
const MAIN: u32 = 254;

fn table(route: &Route) -> u32 {
    route.table.unwrap_or(MAIN)
}

/// Returns the kernel's metric for a route, defaults included.
fn metric(route: &Route) -> u32 {
    let default = if route.to.addr().is_ipv4() { 0 } else { 1024 };
    match route.metric {
        // In IPv6 the kernel takes 0 for "none".
        None | Some(0) => default,
        Some(metric) => metric,
    }
}
