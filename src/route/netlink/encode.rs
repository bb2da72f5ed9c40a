//! Writes the messages of rtnetlink(7). Does no I/O.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::route::plan::{KernelRoute, ROUTE_PROTOCOL, broadcast};
use crate::route::step::{BLOCK_METRIC, Family, Rule};

/// Longest interface name in bytes.
pub(super) const NAME_MAX: usize = 15;

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// All interfaces, without their counters: there may be hundreds.
pub(super) fn get_links() -> Message {
    Message::GetLink(of_link(0, vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])]))
}

pub(super) fn get_link_at(index: u32) -> Message {
    Message::GetLink(of_link(index, Vec::new()))
}

pub(super) fn get_link(name: &str) -> Message {
    Message::GetLink(of_link(0, vec![LinkAttribute::IfName(name.to_owned())]))
}

pub(super) fn set_link(
    index: u32,
    mtu: Option<u32>,
    mac: Option<[u8; 6]>,
    txqueuelen: Option<u32>,
    up: Option<bool>,
) -> Message {
    let mut message = of_link(index, Vec::new());
    if let Some(up) = up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message.attributes.extend(txqueuelen.map(LinkAttribute::TxQueueLen));
    Message::SetLink(message)
}

/// A message about the interface with this index; 0 if it is named otherwise, or for all.
fn of_link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

/// A master of 0 means none.
pub(super) fn set_master(index: u32, master: u32) -> Message {
    Message::SetLink(of_link(index, vec![LinkAttribute::Controller(master)]))
}

/// Flushes a bridge's learned addresses.
pub(super) fn flush_bridge(index: u32) -> Message {
    let data = InfoData::Bridge(vec![InfoBridge::FdbFlush]);
    change_kind(index, vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)])
}

/// Flushes the addresses learned behind a bridge port.
pub(super) fn flush_port(index: u32) -> Message {
    let data = InfoPortData::BridgePort(vec![InfoBridgePort::Flush]);
    change_kind(index, vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)])
}

/// Attributes of an interface's kind can be changed only by a "new" message.
fn change_kind(index: u32, info: Vec<LinkInfo>) -> Message {
    Message::NewLink(of_link(index, vec![LinkAttribute::LinkInfo(info)]))
}

pub(super) fn address_message(index: u32, address: &IpNet, peer: Option<IpAddr>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(peer.unwrap_or(address.addr())));
    message.attributes.extend(broadcast(address, peer).map(AddressAttribute::Broadcast));
    message
}

/// The addresses of one interface, or of all.
pub(super) fn get_addresses(interface: Option<u32>) -> Message {
    let mut message = AddressMessage::default();
    message.header.index = interface.unwrap_or(0);
    Message::GetAddress(message)
}

/// The routes of one table, only tund's own if `own`.
pub(super) fn get_routes(family: AddressFamily, table: u32, own: bool) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = u8::try_from(table).unwrap_or(0);
    message.attributes.push(RouteAttribute::Table(table));
    if own {
        message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    }
    Message::GetRoute(message)
}

pub(super) fn get_route(
    address: IpAddr,
    interface: Option<u32>,
    mark: Option<u32>,
    own: Option<IpAddr>,
) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = IpNet::from(address).prefix_len();
    message.attributes.push(RouteAttribute::Destination(address.into()));
    message.attributes.extend(interface.map(RouteAttribute::Oif));
    message.attributes.extend(mark.map(RouteAttribute::Mark));
    if let Some(own) = own {
        message.header.source_prefix_length = IpNet::from(own).prefix_len();
        message.attributes.push(RouteAttribute::Source(own.into()));
    }
    Message::GetRoute(message)
}

pub(super) fn route_message(route: &KernelRoute) -> RouteMessage {
    let mut message = of_route(&route.to, route.table, route.protocol, RouteType::Unicast);
    let header = &mut message.header;
    if route.is_onlink() {
        header.flags = RouteFlags::Onlink;
    }
    header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(route.interface));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(route.gateway.map(|gateway| match (route.to, gateway) {
        (IpNet::V4(_), IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        (IpNet::V4(_) | IpNet::V6(_), gateway) => RouteAttribute::Gateway(gateway.into()),
    }));
    message
}

fn of_route(to: &IpNet, table: u32, protocol: u8, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(to.addr());
    header.destination_prefix_length = to.prefix_len();
    // Tables above 255 are only in the attribute.
    header.table = u8::try_from(table).unwrap_or(0);
    header.protocol = RouteProtocol::from(protocol);
    header.kind = kind;
    message.attributes.push(RouteAttribute::Destination(to.network().into()));
    message.attributes.push(RouteAttribute::Table(table));
    message
}

/// The route that blocks packets to `net` if the table has no other.
pub(super) fn block_message(net: &IpNet, table: u32) -> RouteMessage {
    let mut message = of_route(net, table, ROUTE_PROTOCOL, RouteType::Unreachable);
    message.header.scope = RouteScope::Universe;
    message.attributes.push(RouteAttribute::Priority(BLOCK_METRIC));
    message
}

pub(super) fn rule_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

pub(super) fn get_rules(family: Family) -> Message {
    let mut message = RuleMessage::default();
    message.header.family = rule_family(family);
    Message::GetRule(message)
}

pub(super) fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let header = &mut message.header;
    header.family = rule_family(rule.family);
    // Tables above 255 are only in the attribute.
    header.table = u8::try_from(rule.table).unwrap_or(0);
    header.action = RuleAction::ToTable;
    if rule.unless_mark.is_some() {
        header.flags = RuleFlags::Invert;
    }
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
    if let Some(mark) = rule.unless_mark {
        attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(u32::MAX)]);
    }
    attributes.extend(rule.suppress_default.then_some(RuleAttribute::SuppressPrefixLen(0)));
    message
}
