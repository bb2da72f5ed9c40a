//! One blocking route-netlink socket (rtnetlink(7)); used by the parent only.

mod encode;
mod socket;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::io::Errno;

use self::socket::{Failure, Socket};
pub use super::facts::{Address, Link};
use super::plan::{KernelRoute, ROUTE_PROTOCOL, Step, TABLE_MAIN};
use super::step::{Family, Rule};
use crate::sys::rights;

/// The kernel's answer to "how would you reach this address?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// Outgoing interface.
    pub interface: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Gateway.
    pub gateway: Option<IpAddr>,
    /// Path MTU in bytes: the route's metric, else the interface's MTU.
    pub mtu: Option<u32>,
}

/// The socket.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens the socket in the caller's network namespace.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open().map_err(|error| {
            let remedy = match Errno::from_io_error(&error) {
                Some(Errno::AFNOSUPPORT) => "; a service's RestrictAddressFamilies= has to have AF_NETLINK",
                _ => rights::beyond_capabilities(&error),
            };
            io::Error::new(error.kind(), format!("{error}{remedy}"))
        })?;
        Ok(Self { socket })
    }

    /// All interfaces.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answer = self.socket.dump(Message::GetLink(Default::default()));
        let messages = answer.map_err(|failure| failure.while_doing(&"listing interfaces"))?;
        Ok(messages.iter().filter_map(encode::link).collect())
    }

    /// The interface of that name, if there is one.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        if name.is_empty() || name.len() > encode::NAME_MAX {
            return Ok(None);
        }
        match self.socket.request(0, encode::get_link(name)) {
            Ok(answer) => Ok(answer.as_ref().and_then(encode::link)),
            Err(failure) if failure.errno() == Some(Errno::NODEV) => Ok(None),
            Err(failure) => Err(failure.while_doing(&format_args!("looking for the interface {name}"))),
        }
    }

    /// All addresses, both families.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let answer = self.socket.dump(Message::GetAddress(Default::default()));
        let messages = answer.map_err(|failure| failure.while_doing(&"listing addresses"))?;
        Ok(messages.iter().filter_map(encode::address).collect())
    }

    /// All unicast routes of table main, both families.
    pub fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        let mut routes = self.routes_of(AddressFamily::Inet, TABLE_MAIN)?;
        routes.extend(self.routes_of(AddressFamily::Inet6, TABLE_MAIN)?);
        Ok(routes)
    }

    /// How the kernel would reach `address`, which is on `interface` if that is given.
    pub fn lookup(
        &mut self,
        address: IpAddr,
        interface: Option<u32>,
        mark: Option<u32>,
    ) -> io::Result<Lookup> {
        let what = format!("looking for a way to {address}");
        let answer = self.socket.request(0, encode::get_route(address, interface, mark));
        let answer = answer.map_err(|failure| failure.while_doing(&what))?;
        let mut lookup = answer.as_ref().and_then(encode::lookup).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{what}: the kernel named no interface"))
        })?;
        if lookup.mtu.is_none() {
            let links = self.links()?;
            lookup.mtu = links.iter().find(|link| link.index == lookup.interface).map(|link| link.mtu);
        }
        Ok(lookup)
    }

    /// Carries out one step. An existing foreign route is `AlreadyExists`; one with our own protocol number
    /// is taken over, unless it belongs to another tunnel that runs. Adding an address that is there and
    /// removing what is gone already succeed, and so does leaving a bridge that the link is not in: the result
    /// says whether anything changed.
    pub fn apply(&mut self, step: &Step) -> io::Result<bool> {
        let result = match step {
            Step::SetLink { index, name: _, mtu, mac, txqueuelen, up } => {
                self.change(0, encode::set_link(*index, *mtu, *mac, *txqueuelen, *up), &[])
            }
            Step::AddAddress { index, name: _, address, peer } => self.change(
                NLM_F_CREATE | NLM_F_EXCL,
                Message::NewAddress(encode::address_message(*index, address, *peer)),
                &[Errno::EXIST],
            ),
            Step::DeleteAddress { index, name: _, address, peer } => self.change(
                0,
                Message::DelAddress(encode::address_message(*index, address, *peer)),
                &[Errno::ADDRNOTAVAIL, Errno::NODEV],
            ),
            Step::Join { index, name: _, bridge, bridge_name: _ } => {
                if self.is_port(*index, *bridge)? {
                    return Ok(false);
                }
                self.change(0, encode::set_master(*index, *bridge), &[])
            }
            Step::Leave { index, name: _, bridge } => {
                if !self.is_port(*index, *bridge)? {
                    return Ok(false);
                }
                self.change(0, encode::set_master(*index, 0), &[Errno::NODEV])
            }
            // A host without IPv6 has nothing to refuse or to lead anywhere.
            Step::Block { to, table: _ } if self.is_absent(Family::of(to)) => return Ok(false),
            Step::AddRule(rule) | Step::DeleteRule(rule) if self.is_absent(rule.family) => return Ok(false),
            Step::Block { to, table } => self.change(
                NLM_F_CREATE | NLM_F_EXCL,
                Message::NewRoute(encode::block_message(to, *table)),
                &[Errno::EXIST],
            ),
            Step::Unblock { to, table } => {
                self.change(0, Message::DelRoute(encode::block_message(to, *table)), &[Errno::SRCH])
            }
            Step::AddRule(rule) => return self.add_rule(step, rule),
            Step::DeleteRule(rule) => {
                self.change(0, Message::DelRule(encode::rule_message(rule)), &[Errno::NOENT])
            }
            Step::AddRoute(route) => return self.add_route(step, route),
            Step::DeleteRoute(route) => return self.delete_route(step, route),
        };
        result.map_err(|failure| failure.while_doing(step))
    }

    /// Sends a change; the errors in `harmless` mean that it was made before.
    fn change(&mut self, flags: u16, message: Message, harmless: &[Errno]) -> Result<bool, Failure> {
        match self.socket.request(flags, message) {
            Ok(_) => Ok(true),
            Err(failure) if failure.errno().is_some_and(|errno| harmless.contains(&errno)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn is_port(&mut self, index: u32, bridge: u32) -> io::Result<bool> {
        Ok(self.links()?.iter().any(|link| link.index == index && link.master == Some(bridge)))
    }

    fn add_route(&mut self, step: &Step, route: &KernelRoute) -> io::Result<bool> {
        let message = Message::NewRoute(encode::route_message(route));
        match self.change(NLM_F_CREATE | NLM_F_EXCL, message.clone(), &[]) {
            Err(failure) if failure.errno() == Some(Errno::EXIST) => {
                self.may_take_over(step, route)?;
                self.change(NLM_F_REPLACE, message, &[]).map_err(|failure| failure.while_doing(step))
            }
            result => result.map_err(|failure| failure.while_doing(step)),
        }
    }

    /// One with our own protocol number is a left-over of ours.
    fn add_rule(&mut self, step: &Step, rule: &Rule) -> io::Result<bool> {
        let message = Message::NewRule(encode::rule_message(rule));
        match self.change(NLM_F_CREATE | NLM_F_EXCL, message, &[]) {
            Err(failure) if failure.errno() == Some(Errno::EXIST) && self.has_rule(rule)? => Ok(true),
            result => result.map_err(|failure| failure.while_doing(step)),
        }
    }

    fn has_rule(&mut self, rule: &Rule) -> io::Result<bool> {
        let answer = self.socket.dump(encode::get_rules(rule.family));
        let messages = answer.map_err(|failure| failure.while_doing(&"listing rules"))?;
        Ok(messages.iter().any(|message| encode::is_rule(message, rule)))
    }

    /// Whether every route in the place of `route` is a left-over of ours.
    fn may_take_over(&mut self, step: &Step, route: &KernelRoute) -> io::Result<()> {
        let occupants = self.routes_like(route)?;
        let owner = match occupants.iter().find(|occupant| occupant.protocol != ROUTE_PROTOCOL) {
            Some(foreign) => Some(format!("{foreign}, which is not tund's")),
            None if occupants.is_empty() => Some(format!("one to {} that is not unicast", route.to)),
            None => self.running_tunnel(&occupants, route)?,
        };
        match owner {
            None => Ok(()),
            Some(owner) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{step}: there is a route already: {owner}; set another metric or table"),
            )),
        }
    }

    /// A route through another tunnel device that a process has open is in use.
    fn running_tunnel(
        &mut self,
        occupants: &[KernelRoute],
        route: &KernelRoute,
    ) -> io::Result<Option<String>> {
        let links = self.links()?;
        let in_use = |occupant: &&KernelRoute| {
            occupant.interface != route.interface
                && links.iter().any(|link| {
                    link.index == occupant.interface && link.carrier && link.kind.as_deref() == Some("tun")
                })
        };
        let text = |occupant: &KernelRoute| format!("{occupant}, which is another tunnel's");
        Ok(occupants.iter().find(in_use).map(text))
    }

    /// The kernel's match is wider than ours (an absent IPv4 metric matches any), so it is only asked to
    /// delete what is known to be there.
    fn delete_route(&mut self, step: &Step, route: &KernelRoute) -> io::Result<bool> {
        let same = |found: &KernelRoute| {
            found.protocol == route.protocol
                && found.interface == route.interface
                && found.gateway == route.gateway
        };
        if !self.routes_like(route)?.iter().any(same) {
            return Ok(false);
        }
        let message = Message::DelRoute(encode::route_message(route));
        self.change(0, message, &[Errno::SRCH, Errno::NODEV]).map_err(|failure| failure.while_doing(step))
    }

    /// The routes with the same destination, metric and table.
    fn routes_like(&mut self, route: &KernelRoute) -> io::Result<Vec<KernelRoute>> {
        let mut routes = self.routes_of(encode::family(route.to.addr()), route.table)?;
        routes.retain(|found| {
            found.to == route.to.trunc() && encode::effective_metric(found) == encode::effective_metric(route)
        });
        Ok(routes)
    }

    /// Those of the steps, which add routes, refusals, rules and addresses, whose effect is not there.
    pub fn missing(&mut self, steps: &[Step]) -> io::Result<Vec<Step>> {
        let mut tables = std::collections::BTreeMap::new();
        let addresses = self.addresses()?;
        let mut missing = Vec::new();
        for step in steps {
            let there = match step {
                Step::AddRoute(route) => {
                    let family = encode::family(route.to.addr());
                    let key = (u8::from(family), route.table);
                    if let std::collections::btree_map::Entry::Vacant(table) = tables.entry(key) {
                        table.insert(self.routes_of(family, route.table)?);
                    }
                    tables.get(&key).is_some_and(|table| table.iter().any(|found| encode::same(found, route)))
                }
                Step::Block { to, table } => self.is_absent(Family::of(to)) || self.is_blocked(to, *table)?,
                Step::AddRule(rule) => self.is_absent(rule.family) || self.has_rule(rule)?,
                Step::AddAddress { index, address, .. } => addresses
                    .iter()
                    .any(|found| found.interface == *index && found.address.addr() == address.addr()),
                Step::SetLink { .. }
                | Step::DeleteAddress { .. }
                | Step::Join { .. }
                | Step::Leave { .. }
                | Step::DeleteRoute(_)
                | Step::Unblock { .. }
                | Step::DeleteRule(_) => true,
            };
            if !there {
                missing.push(step.clone());
            }
        }
        Ok(missing)
    }

    /// Whether this host has no such addresses: a kernel without IPv6, or started with `ipv6.disable=1`. Its own words count,
    /// and of two: a service may be refused the sockets of a family that the host has, a kernel may be without rules.
    fn is_absent(&mut self, family: Family) -> bool {
        family == Family::V6
            && !rights::has_ipv6()
            && self
                .socket
                .dump(encode::get_rules(family))
                .is_err_and(|failure| matches!(failure.errno(), Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP)))
    }

    fn is_blocked(&mut self, net: &IpNet, table: u32) -> io::Result<bool> {
        let answer = self.socket.dump(encode::get_routes(encode::family(net.addr())));
        let messages = answer.map_err(|failure| failure.while_doing(&"listing routes"))?;
        Ok(messages.iter().any(|message| encode::is_block(message, net, table)))
    }

    fn routes_of(&mut self, family: AddressFamily, table: u32) -> io::Result<Vec<KernelRoute>> {
        let answer = self.socket.dump(encode::get_routes(family));
        let messages = answer.map_err(|failure| failure.while_doing(&"listing routes"))?;
        let links = self.links()?;
        let name = |index| {
            let link = links.iter().find(|link| link.index == index);
            link.map_or_else(|| format!("if{index}"), |link| link.name.clone())
        };
        let mut routes: Vec<_> =
            messages.iter().filter_map(|message| encode::unicast_route(message, family, table)).collect();
        for route in &mut routes {
            route.interface_name = name(route.interface);
        }
        Ok(routes)
    }
}
