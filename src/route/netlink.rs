//! One blocking route-netlink socket (rtnetlink(7)); used by the parent only.

mod decode;
mod encode;
mod many;
mod socket;

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::io::Errno;

pub use self::many::Main;
use self::socket::{Failure, Socket};
pub use super::facts::{Address, Link};
use super::plan::{KernelRoute, Step};
use super::step::{Family, Rule};
use crate::config::Config;
use crate::core::path::Path;
use crate::core::zoned;
use crate::sys::rights;

/// The kernel's answer to "how would you reach this address?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// Outgoing interface.
    pub interface: u32,
    /// The source address, unless it was given.
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
                Some(Errno::AFNOSUPPORT) => "; a service's RestrictAddressFamilies= must include AF_NETLINK",
                _ => rights::beyond_capabilities(&error),
            };
            io::Error::new(error.kind(), format!("{error}{remedy}"))
        })?;
        Ok(Self { socket })
    }

    /// All interfaces.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answer = self.socket.dump(encode::get_links(), |message| decode::link(&message));
        Ok(answer.map_err(|failure| failure.while_doing(&"listing interfaces"))?.entries)
    }

    /// Flushes a bridge's learned addresses, except those set by hand.
    pub fn flush_bridge(&mut self, index: u32) -> io::Result<()> {
        let answer = self.socket.request(0, encode::flush_bridge(index));
        answer.map(drop).map_err(|failure| failure.while_doing(&"flushing the bridge's table"))
    }

    /// Flushes the addresses learned behind a bridge port, except those set by hand.
    pub fn flush_port(&mut self, index: u32) -> io::Result<()> {
        let answer = self.socket.request(0, encode::flush_port(index));
        answer.map(drop).map_err(|failure| failure.while_doing(&"flushing the port's table"))
    }

    /// The interface with that index, if there is one.
    pub fn link_at(&mut self, index: u32) -> io::Result<Option<Link>> {
        match self.socket.request(0, encode::get_link_at(index)) {
            Ok(answer) => Ok(answer.as_ref().and_then(decode::link)),
            Err(failure) if failure.errno() == Some(Errno::NODEV) => Ok(None),
            Err(failure) => Err(failure.while_doing(&format_args!("looking for the interface {index}"))),
        }
    }

    /// The interface of that name, if there is one.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        if name.is_empty() || name.len() > encode::NAME_MAX {
            return Ok(None);
        }
        match self.socket.request(0, encode::get_link(name)) {
            Ok(answer) => Ok(answer.as_ref().and_then(decode::link)),
            Err(failure) if failure.errno() == Some(Errno::NODEV) => Ok(None),
            Err(failure) => Err(failure.while_doing(&format_args!("looking for the interface {name}"))),
        }
    }

    /// All addresses, both families.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        Ok(self.addresses_of(None)?.entries)
    }

    /// All unicast routes of table main, both families.
    pub fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        Ok(self.main()?.routes)
    }

    /// The route of what the link's own sockets send along `path`, which also depends on their mark, on the interface they are bound to, and on the
    /// source address.
    pub fn way(&mut self, config: &Config, path: Path) -> io::Result<Lookup> {
        let to = path.remote.ip().to_canonical();
        let bound = config.bind_device.as_deref().map(|name| self.link(name)).transpose()?.flatten();
        let interface = zoned::zone(&path.remote).or(bound.map(|link| link.index));
        let own = path.local.or(config.listen.address.filter(|_| !path.stream));
        self.lookup(to, interface, config.mark(), own.filter(|own| own.is_ipv4() == to.is_ipv4()))
    }

    /// The route to `address`, through `interface` and from `own` if given.
    pub fn lookup(
        &mut self,
        address: IpAddr,
        interface: Option<u32>,
        mark: Option<u32>,
        own: Option<IpAddr>,
    ) -> io::Result<Lookup> {
        let what = format!("looking for a way to {address}");
        let answer = self.socket.request(0, encode::get_route(address, interface, mark, own));
        let answer = answer.map_err(|failure| failure.while_doing(&what))?;
        let mut lookup = answer.as_ref().and_then(decode::lookup).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{what}: the kernel named no interface"))
        })?;
        if lookup.mtu.is_none() {
            lookup.mtu = self.link_at(lookup.interface)?.map(|link| link.mtu);
        }
        Ok(lookup)
    }

    /// Carries out one step. For an existing foreign route this is `AlreadyExists`; one with our own protocol number is taken over, unless it belongs
    /// to another running tunnel. Adding an existing address and removing what is gone succeed, and so does leaving a bridge that the link is not in:
    /// the result says whether anything changed.
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
            // A host without IPv6 has nothing to block or to route.
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
            Step::AddRoute(_) | Step::DeleteRoute(_) => {
                return self.apply_all(std::slice::from_ref(step)).pop().unwrap_or(Ok(false));
            }
        };
        result.map_err(|failure| failure.while_doing(step))
    }

    /// Sends a change; errors in `harmless` mean that it was made before.
    fn change(&mut self, flags: u16, message: Message, harmless: &[Errno]) -> Result<bool, Failure> {
        match self.socket.request(flags, message) {
            Ok(_) => Ok(true),
            Err(failure) if failure.errno().is_some_and(|errno| harmless.contains(&errno)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn is_port(&mut self, index: u32, bridge: u32) -> io::Result<bool> {
        Ok(self.link_at(index)?.is_some_and(|link| link.master == Some(bridge)))
    }

    /// Adds a rule. One with our protocol number is a leftover of ours.
    fn add_rule(&mut self, step: &Step, rule: &Rule) -> io::Result<bool> {
        let message = Message::NewRule(encode::rule_message(rule));
        match self.change(NLM_F_CREATE | NLM_F_EXCL, message, &[]) {
            Err(failure) if failure.errno() == Some(Errno::EXIST) && self.has_rule(rule)? => Ok(true),
            result => result.map_err(|failure| failure.while_doing(step)),
        }
    }

    fn has_rule(&mut self, rule: &Rule) -> io::Result<bool> {
        let take = |message| decode::is_rule(&message, rule).then_some(());
        let answer = self.socket.dump(encode::get_rules(rule.family), take);
        Ok(!answer.map_err(|failure| failure.while_doing(&"listing rules"))?.entries.is_empty())
    }

    /// Whether this host lacks the family: a kernel without IPv6, or started with `ipv6.disable=1`. The kernel must say so twice, as a service may be
    /// denied sockets of a family, and a kernel may lack rules.
    fn is_absent(&mut self, family: Family) -> bool {
        family == Family::V6
            && !rights::has_ipv6()
            && self
                .socket
                .dump(encode::get_rules(family), Some)
                .is_err_and(|failure| matches!(failure.errno(), Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP)))
    }
}
