//! Changes to addresses and routes, each with its `ip` command and its inverse.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Route protocol number of tund's own routes (`RTPROT_*`; unassigned in rt_protos), which identifies them.
pub const ROUTE_PROTOCOL: u8 = 88;

/// Number of the routing table `main`.
pub const TABLE_MAIN: u32 = 254;

/// A route as stored by the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KernelRoute {
    /// Destination.
    pub to: IpNet,
    /// Gateway, if not on-link.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
    /// Name of the interface, for the log.
    pub interface_name: String,
    /// Priority.
    pub metric: Option<u32>,
    /// Table; 254 is main.
    pub table: u32,
    /// `RTPROT_*`.
    pub protocol: u8,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of a prefix.
    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// A policy routing rule (ip-rule(8)): which packets are looked up in a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The packets' family.
    pub family: Family,
    /// Lower values come first; `main` has 32766.
    pub priority: u32,
    /// The table.
    pub table: u32,
    /// Packets of sockets with this mark (SO_MARK) skip the rule.
    pub unless_mark: Option<u32>,
    /// Packets for the table's default route skip the rule (`FRA_SUPPRESS_PREFIXLEN` 0).
    pub suppress_default: bool,
}

/// One change to the system. `Display` writes it as the equivalent `ip` command.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Set MTU, MAC, queue length and up state of a link, as given.
    SetLink {
        /// Interface index.
        index: u32,
        /// Interface name, for the log.
        name: String,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// MAC address.
        mac: Option<[u8; 6]>,
        /// Queue length in packets.
        txqueuelen: Option<u32>,
        /// Administrative state.
        up: Option<bool>,
    },
    /// Add an address.
    AddAddress {
        /// Interface index.
        index: u32,
        /// Interface name, for the log.
        name: String,
        /// The address and its prefix.
        address: IpNet,
        /// The other end of a point-to-point address.
        peer: Option<IpAddr>,
    },
    /// Remove exactly this address.
    DeleteAddress {
        /// Interface index.
        index: u32,
        /// Interface name, for the log.
        name: String,
        /// The address and its prefix.
        address: IpNet,
        /// The other end of a point-to-point address.
        peer: Option<IpAddr>,
    },
    /// Join a bridge.
    Join {
        /// Interface index.
        index: u32,
        /// Interface name, for the log.
        name: String,
        /// Index of the bridge.
        bridge: u32,
        /// Name of the bridge, for the log.
        bridge_name: String,
    },
    /// Leave this bridge.
    Leave {
        /// Interface index.
        index: u32,
        /// Interface name, for the log.
        name: String,
        /// Index of the bridge.
        bridge: u32,
    },
    /// Create a route (never replace one).
    AddRoute(KernelRoute),
    /// Remove exactly this route.
    DeleteRoute(KernelRoute),
    /// Block packets to this prefix without another route in the table. It has the highest metric, so that it counts once the tunnel's own route is
    /// gone.
    Block {
        /// Destination.
        to: IpNet,
        /// Table.
        table: u32,
    },
    /// Undo that.
    Unblock {
        /// Destination.
        to: IpNet,
        /// Table.
        table: u32,
    },
    /// Create a rule.
    AddRule(Rule),
    /// Remove exactly this rule.
    DeleteRule(Rule),
}

/// The metric of [`Step::Block`].
pub const BLOCK_METRIC: u32 = u32::MAX;

/// What is only in `old`, and what is only in `new`, each in order.
pub fn difference(old: &[Step], new: &[Step]) -> (Vec<Step>, Vec<Step>) {
    let without = |these: &[Step], those: &[Step]| {
        let those: HashSet<_> = those.iter().collect();
        these.iter().filter(|step| !those.contains(step)).cloned().collect()
    };
    (without(old, new), without(new, old))
}

impl Step {
    /// The route that this step adds.
    pub fn route(&self) -> Option<&KernelRoute> {
        if let Step::AddRoute(route) = self { Some(route) } else { None }
    }

    /// Index and name of the interface that is changed or routed to.
    pub fn interface(&self) -> (u32, &str) {
        match self {
            Step::SetLink { index, name, .. }
            | Step::AddAddress { index, name, .. }
            | Step::DeleteAddress { index, name, .. }
            | Step::Join { index, name, .. }
            | Step::Leave { index, name, .. } => (*index, name),
            Step::AddRoute(route) | Step::DeleteRoute(route) => (route.interface, &route.interface_name),
            // They have no interface.
            Step::Block { .. } | Step::Unblock { .. } | Step::AddRule(_) | Step::DeleteRule(_) => (0, ""),
        }
    }

    /// The step that undoes this one; `None` if there is nothing to restore. A device that was only adopted outlives the link, so addresses and
    /// bridge membership are undone as well.
    pub fn undo(&self) -> Option<Step> {
        match self.clone() {
            Step::AddAddress { index, name, address, peer } => {
                Some(Step::DeleteAddress { index, name, address, peer })
            }
            Step::Join { index, name, bridge, bridge_name: _ } => Some(Step::Leave { index, name, bridge }),
            Step::AddRoute(route) => Some(Step::DeleteRoute(route)),
            Step::Block { to, table } => Some(Step::Unblock { to, table }),
            Step::AddRule(rule) => Some(Step::DeleteRule(rule)),
            Step::SetLink { .. }
            | Step::DeleteAddress { .. }
            | Step::Leave { .. }
            | Step::DeleteRoute(_)
            | Step::Unblock { .. }
            | Step::DeleteRule(_) => None,
        }
    }
}

impl Step {
    /// Whether this step only undoes what tund may have done: all that a ledger may contain, whoever wrote it.
    pub fn only_undoes(&self) -> bool {
        // Blocks and rules are removed only with our protocol number.
        let is_bound = matches!(
            self,
            Step::DeleteAddress { .. } | Step::Leave { .. } | Step::Unblock { .. } | Step::DeleteRule(_)
        );
        is_bound || matches!(self, Step::DeleteRoute(route) if route.protocol == ROUTE_PROTOCOL)
    }

    /// The step that this one undoes; `None` if it lacks the details.
    pub fn done(&self) -> Option<Step> {
        match self.clone() {
            Step::DeleteAddress { index, name, address, peer } => {
                Some(Step::AddAddress { index, name, address, peer })
            }
            Step::DeleteRoute(route) => Some(Step::AddRoute(route)),
            Step::Unblock { to, table } => Some(Step::Block { to, table }),
            Step::DeleteRule(rule) => Some(Step::AddRule(rule)),
            Step::SetLink { .. }
            | Step::AddAddress { .. }
            | Step::Join { .. }
            | Step::Leave { .. }
            | Step::AddRoute(_)
            | Step::Block { .. }
            | Step::AddRule(_) => None,
        }
    }

    /// Whether this step opens a closed full tunnel.
    pub fn opens(&self) -> bool {
        matches!(self, Step::Unblock { .. } | Step::DeleteRule(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::SetLink { index: _, name, mtu, mac, txqueuelen, up } => {
                write!(f, "ip link set dev {name}")?;
                mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))?;
                mac.map_or(Ok(()), |mac| write!(f, " address {}", Mac(mac)))?;
                txqueuelen.map_or(Ok(()), |length| write!(f, " txqueuelen {length}"))?;
                up.map_or(Ok(()), |up| f.write_str(if up { " up" } else { " down" }))
            }
            Step::AddAddress { index: _, name, address, peer } => {
                write!(f, "ip addr add {} dev {name}", Local { address, peer: *peer, broadcast: true })
            }
            Step::DeleteAddress { index: _, name, address, peer } => {
                write!(f, "ip addr del {} dev {name}", Local { address, peer: *peer, broadcast: false })
            }
            Step::Join { index: _, name, bridge: _, bridge_name } => {
                write!(f, "ip link set dev {name} master {bridge_name}")
            }
            Step::Leave { index: _, name, bridge: _ } => write!(f, "ip link set dev {name} nomaster"),
            Step::AddRoute(route) => write!(f, "ip route add {route}"),
            Step::DeleteRoute(route) => write!(f, "ip route del {route}"),
            Step::Block { to, table } => {
                write!(f, "ip route add unreachable {to} metric {BLOCK_METRIC} table {table}")
            }
            Step::Unblock { to, table } => {
                write!(f, "ip route del unreachable {to} metric {BLOCK_METRIC} table {table}")
            }
            Step::AddRule(rule) => rule.write(f, "add"),
            Step::DeleteRule(rule) => rule.write(f, "del"),
        }
    }
}

impl Rule {
    fn write(&self, f: &mut fmt::Formatter<'_>, verb: &str) -> fmt::Result {
        f.write_str(match self.family {
            Family::V4 => "ip rule ",
            Family::V6 => "ip -6 rule ",
        })?;
        f.write_str(verb)?;
        self.unless_mark.map_or(Ok(()), |mark| write!(f, " not fwmark {mark:#x}"))?;
        match self.table {
            TABLE_MAIN => f.write_str(" lookup main")?,
            table => write!(f, " lookup {table}")?,
        }
        if self.suppress_default {
            f.write_str(" suppress_prefixlength 0")?;
        }
        write!(f, " priority {} protocol {ROUTE_PROTOCOL}", self.priority)
    }
}

impl KernelRoute {
    /// Whether the kernel must not check the gateway: a table other than main may have no route to it, while the plan has found it to be a neighbour.
    pub fn is_onlink(&self) -> bool {
        self.gateway.is_some() && self.table != TABLE_MAIN
    }
}

impl fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        match self.gateway {
            Some(gateway) if !same_family(gateway, &self.to) => write!(f, " via inet6 {gateway}")?,
            Some(gateway) => write!(f, " via {gateway}")?,
            None => {}
        }
        write!(f, " dev {}", self.interface_name)?;
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))?;
        if self.is_onlink() {
            f.write_str(" onlink")?;
        }
        if self.table == TABLE_MAIN { Ok(()) } else { write!(f, " table {}", self.table) }
    }
}

/// The broadcast address of an address: the last one of its prefix, for IPv4 networks that have one.
pub fn broadcast(address: &IpNet, peer: Option<IpAddr>) -> Option<std::net::Ipv4Addr> {
    match address {
        IpNet::V4(net) if peer.is_none() && net.prefix_len() <= 30 => Some(net.broadcast()),
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}

pub(crate) struct Mac(pub(crate) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

struct Local<'a> {
    address: &'a IpNet,
    peer: Option<IpAddr>,
    broadcast: bool,
}

impl fmt::Display for Local<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{} peer {peer}", self.address.addr()),
            None if self.broadcast && broadcast(self.address, None).is_some() => {
                write!(f, "{} brd +", self.address)
            }
            None => write!(f, "{}", self.address),
        }
    }
}

pub(super) fn same_family(address: IpAddr, net: &IpNet) -> bool {
    address.is_ipv4() == net.addr().is_ipv4()
}
