//! Reads the messages of rtnetlink(7). Does no I/O.
#![allow(clippy::wildcard_enum_match_arm, reason = "the enums are the kernel's and grow with it")]

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Nla as _;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoTun, LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAttribute, RuleFlags};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::encode::rule_message;
use super::{Address, Link, Lookup};
use crate::route::plan::KernelRoute;
use crate::route::step::{BLOCK_METRIC, Rule};

/// The kernel's value of an absent IPv6 metric (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

pub(super) fn link(message: &Message) -> Option<Link> {
    let Message::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        kind: None,
        queues: None,
        master: None,
        mac: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(kind);
                link.queues = infos.iter().find_map(queues);
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The queues, attached or not; the kernel reports them only for a multi-queue device.
fn queues(info: &LinkInfo) -> Option<u32> {
    /// `IFLA_TUN_NUM_QUEUES` and `IFLA_TUN_NUM_DISABLED_QUEUES` of linux/if_link.h.
    const COUNTS: [u16; 2] = [8, 9];
    let LinkInfo::Data(InfoData::Tun(attributes)) = info else { return None };
    let counts = attributes.iter().filter(|attribute| COUNTS.contains(&attribute.kind()));
    counts.map(number).reduce(|attached, others| attached.saturating_add(others))
}

fn number(attribute: &InfoTun) -> u32 {
    let mut value = [0; 4];
    if attribute.value_len() == value.len() {
        attribute.emit_value(&mut value);
    }
    u32::from_ne_bytes(value)
}

/// `IFA_ADDRESS` is the other end's address if the two differ; otherwise IPv6 has no `IFA_LOCAL`.
pub(super) fn address(message: &Message) -> Option<Address> {
    let Message::NewAddress(message) = message else { return None };
    let (mut local, mut far, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => far = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let own = local.or(far)?;
    Some(Address {
        interface: message.header.index,
        address: IpNet::new(own, message.header.prefix_len).ok()?,
        peer: far.filter(|far| *far != own),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

/// Whether the message describes that route.
pub(super) fn is_block(message: &Message, net: &IpNet, table: u32) -> bool {
    let Message::NewRoute(message) = message else { return false };
    let read = read(&message.attributes);
    message.header.kind == RouteType::Unreachable
        && table_of(message, &read) == table
        && destination(message, &read) == Some(*net)
        && read.priority == Some(BLOCK_METRIC)
}

/// Whether the message describes that rule as tund sets it: all attributes, and none that would narrow it.
pub(super) fn is_rule(message: &Message, rule: &Rule) -> bool {
    let Message::NewRule(found) = message else { return false };
    let wanted = rule_message(rule);
    // Without it, the kernel reports that no length is suppressed.
    let plain = RuleAttribute::SuppressPrefixLen(u32::MAX);
    found.header.family == wanted.header.family
        && (found.header.dst_len, found.header.src_len, found.header.tos) == (0, 0, 0)
        && found.header.action == wanted.header.action
        && found.header.flags.contains(RuleFlags::Invert) == rule.unless_mark.is_some()
        && wanted.attributes.iter().all(|attribute| found.attributes.contains(attribute))
        && found
            .attributes
            .iter()
            .all(|attribute| wanted.attributes.contains(attribute) || *attribute == plain)
}

/// A unicast route of this family and table, without its interface's name. With several next hops the first counts. `None` also for routes currently
/// unusable and for cached ones.
pub(super) fn unicast_route(message: &Message, family: AddressFamily, table: u32) -> Option<KernelRoute> {
    let Message::NewRoute(message) = message else { return None };
    let header = &message.header;
    let unusable = RouteFlags::Cloned | RouteFlags::Dead;
    // A host without IPv6 answers a request for IPv6 routes with those of every family.
    if header.address_family != family
        || header.kind != RouteType::Unicast
        || header.flags.intersects(unusable)
    {
        return None;
    }
    let read = read(&message.attributes);
    (table_of(message, &read) == table).then_some(())?;
    Some(KernelRoute {
        to: destination(message, &read)?,
        gateway: read.gateway,
        interface: read.interface?,
        interface_name: String::new(),
        metric: read.priority,
        table,
        protocol: header.protocol.into(),
    })
}

pub(super) fn lookup(message: &Message) -> Option<Lookup> {
    let Message::NewRoute(message) = message else { return None };
    let Attributes { interface, source, gateway, mtu, expires, .. } = read(&message.attributes);
    Some(Lookup { interface: interface?, source, gateway, mtu: mtu.filter(|_| !expires) })
}

/// The attributes of a route that tund reads.
#[derive(Default)]
struct Attributes {
    destination: Option<IpAddr>,
    table: Option<u32>,
    priority: Option<u32>,
    source: Option<IpAddr>,
    gateway: Option<IpAddr>,
    interface: Option<u32>,
    mtu: Option<u32>,
    /// It was learned from ICMP, which is unauthenticated.
    expires: bool,
}

fn read(attributes: &[RouteAttribute]) -> Attributes {
    let mut found = Attributes::default();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => found.destination = ip(address),
            RouteAttribute::Table(table) => found.table = Some(*table),
            RouteAttribute::Priority(metric) => found.priority = Some(*metric),
            RouteAttribute::PrefSource(address) => found.source = ip(address),
            RouteAttribute::Oif(index) => found.interface = Some(*index),
            RouteAttribute::Gateway(address) => found.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => found.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => found.gateway = Some((*address).into()),
            RouteAttribute::CacheInfo(info) => found.expires = info.expires != 0,
            RouteAttribute::Metrics(metrics) => found.mtu = metrics.iter().find_map(mtu),
            RouteAttribute::MultiPath(hops) => {
                if let Some(RouteNextHop { interface_index, attributes, .. }) = hops.first() {
                    (found.interface, found.gateway) = (Some(*interface_index), read(attributes).gateway);
                }
            }
            _ => {}
        }
    }
    found
}

fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu).filter(|mtu| *mtu > 0),
        _ => None,
    }
}

/// The table of a route's message: the header has no room for large numbers.
fn table_of(message: &RouteMessage, read: &Attributes) -> u32 {
    read.table.unwrap_or(u32::from(message.header.table))
}

/// The destination; a default route has no such attribute.
fn destination(message: &RouteMessage, read: &Attributes) -> Option<IpNet> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    IpNet::new(read.destination.unwrap_or(unspecified), message.header.destination_prefix_length).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The metric as stored by the kernel.
pub(super) fn effective_metric(route: &KernelRoute) -> u32 {
    match (route.to, route.metric.unwrap_or(0)) {
        (IpNet::V6(_), 0) => IPV6_DEFAULT_METRIC,
        (IpNet::V4(_) | IpNet::V6(_), metric) => metric,
    }
}

/// How the kernel identifies a route of a table: unique, except for next hops of IPv6.
pub(super) type Place = (IpNet, u32);

pub(super) fn place(route: &KernelRoute) -> Place {
    (route.to.trunc(), effective_metric(route))
}

/// All of a route's identity within a table: the kernel keeps no interface name.
pub(super) type Identity = (Place, Option<IpAddr>, u32, u8);

pub(super) fn identity(route: &KernelRoute) -> Identity {
    (place(route), route.gateway, route.interface, route.protocol)
}

#[cfg(test)]
mod tests {
    use super::super::encode::route_message;
    use super::*;

    fn route() -> KernelRoute {
        KernelRoute {
            to: "10.7.0.0/16".parse().unwrap(),
            gateway: Some("10.1.0.1".parse().unwrap()),
            interface: 3,
            interface_name: String::new(),
            metric: Some(5),
            table: 70_000,
            protocol: 88,
        }
    }

    #[test]
    fn a_route_reads_back_as_it_was_written() {
        let message = Message::NewRoute(route_message(&route()));
        assert_eq!(unicast_route(&message, AddressFamily::Inet, 70_000), Some(route()));
        assert_eq!(unicast_route(&message, AddressFamily::Inet, 254), None);
    }

    #[test]
    fn without_ipv6_in_the_kernel_no_ipv4_route_is_taken_for_one() {
        let message = Message::NewRoute(route_message(&route()));
        assert_eq!(unicast_route(&message, AddressFamily::Inet6, 70_000), None);
    }

    #[test]
    fn cached_and_dead_routes_and_those_of_other_types_are_left_out() {
        for spoil in [
            |message: &mut RouteMessage| message.header.flags = RouteFlags::Cloned,
            |message: &mut RouteMessage| message.header.flags = RouteFlags::Dead,
            |message: &mut RouteMessage| message.header.kind = RouteType::Unreachable,
        ] {
            let mut message = route_message(&route());
            spoil(&mut message);
            assert_eq!(unicast_route(&Message::NewRoute(message), AddressFamily::Inet, 70_000), None);
        }
    }

    #[test]
    fn the_kernels_default_metrics_are_known() {
        let v4 = KernelRoute { metric: None, ..route() };
        let v6 = KernelRoute { to: "fd00::/8".parse().unwrap(), ..v4.clone() };
        assert_eq!((effective_metric(&v4), effective_metric(&v6)), (0, 1024));
        assert_eq!(effective_metric(&route()), 5);
    }
}
