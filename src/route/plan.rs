//! The steps that configure a device and its routes, in order, and how each is undone.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, Mode, Route, Via};

/// Route protocol number of tund's own routes (`RTPROT_*`; unassigned in rt_protos), so that they can be told from others.
pub const ROUTE_PROTOCOL: u8 = 88;

/// Number of the routing table `main`.
pub const TABLE_MAIN: u32 = 254;

/// A route as the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// One change to the system. `Display` writes it as the `ip` command a person would have typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// MTU, MAC, queue length and up state of a link, as far as set.
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
    /// Leave the bridge.
    Leave {
        /// Interface index.
        index: u32,
        /// Interface name, for the log.
        name: String,
    },
    /// Create a route (never replace one).
    AddRoute(KernelRoute),
    /// Remove exactly this route.
    DeleteRoute(KernelRoute),
}

/// The interface that steps are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Kernel's index.
    pub index: u32,
    /// Name.
    pub name: String,
}

/// What a plan needs to know of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// All unicast routes of table main, both families.
    pub routes: Vec<KernelRoute>,
    /// The bridge named in the configuration, if it exists.
    pub bridge: Option<Interface>,
    /// Random bytes, for the MAC address of a bridged device that was given none.
    pub random: [u8; 5],
}

/// Why no plan could be made. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

impl Step {
    /// The step that takes this one back; `None` where there is nothing to restore. A device that was
    /// only adopted outlives the link, so addresses and bridge membership are taken back as well.
    pub fn undo(&self) -> Option<Step> {
        match self.clone() {
            Step::AddAddress { index, name, address, peer } => {
                Some(Step::DeleteAddress { index, name, address, peer })
            }
            Step::Join { index, name, bridge: _, bridge_name: _ } => Some(Step::Leave { index, name }),
            Step::AddRoute(route) => Some(Step::DeleteRoute(route)),
            Step::SetLink { .. } | Step::DeleteAddress { .. } | Step::Leave { .. } | Step::DeleteRoute(_) => {
                None
            }
        }
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
            Step::Leave { index: _, name } => write!(f, "ip link set dev {name} nomaster"),
            Step::AddRoute(route) => write!(f, "ip route add {route}"),
            Step::DeleteRoute(route) => write!(f, "ip route del {route}"),
        }
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
        if self.table == TABLE_MAIN { Ok(()) } else { write!(f, " table {}", self.table) }
    }
}

/// The broadcast address that goes with an address: its prefix's last one, for IPv4 networks that have one.
pub fn broadcast(address: &IpNet, peer: Option<IpAddr>) -> Option<std::net::Ipv4Addr> {
    match address {
        IpNet::V4(net) if peer.is_none() && net.prefix_len() <= 30 => Some(net.broadcast()),
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}

/// The steps that configure the device (nothing but bridge and up state with `configure = false`).
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
    let mac = settings.mac.or_else(|| bridge.map(|_| port_mac(host.random)));
    let mut steps = vec![set_link(mtu, mac, settings.txqueuelen, None)];
    if settings.configure {
        steps.extend(addresses(config).into_iter().map(|(address, peer)| Step::AddAddress {
            index,
            name: name.clone(),
            address,
            peer,
        }));
    }
    steps.extend(bridge.map(|bridge| Step::Join {
        index,
        name: name.clone(),
        bridge: bridge.index,
        bridge_name: bridge.name.clone(),
    }));
    steps.push(set_link(None, None, None, Some(true)));
    Ok(steps)
}

/// The steps that set the routes. `net_gateway` is the lowest-metric default route of the family in
/// table main that is not through `device`.
pub fn route_steps(config: &Config, device: &Interface, host: &Host) -> Result<Vec<Step>, PlanError> {
    let view = View { config, device, host };
    config.routes.iter().map(|route| Ok(Step::AddRoute(view.kernel_route(route)?))).collect()
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

impl View<'_> {
    fn kernel_route(&self, route: &Route) -> Result<KernelRoute, PlanError> {
        let NextHop { gateway, interface } = match route.via {
            Via::VpnGateway => self.vpn_gateway(&route.to),
            Via::NetGateway => self.net_gateway(&route.to),
            Via::Address(gateway) if !same_family(gateway, &route.to) => Err(PlanError(format!(
                "route to {}: the gateway {gateway} is of the other address family; name one of the same",
                route.to
            ))),
            Via::Address(gateway) => self.direct(gateway, &route.to),
        }?;
        Ok(KernelRoute {
            to: route.to,
            gateway,
            interface: interface.index,
            interface_name: interface.name,
            metric: route.metric,
            table: route.table.unwrap_or(TABLE_MAIN),
            protocol: ROUTE_PROTOCOL,
        })
    }

    /// A tun device has one other end, so there a route works without naming the peer.
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
                    "route to {to}: net_gateway needs a default route of the same family in table main and \
                     there is none; add one, or name the gateway's address with via"
                ))
            })
    }

    /// The next hop for a gateway that must be a neighbour: the kernel takes no other.
    fn direct(&self, gateway: IpAddr, to: &IpNet) -> Result<NextHop, PlanError> {
        // Link-local prefixes are on every interface; only the tunnel can be meant.
        if self.on_device(gateway) || is_link_local(gateway) {
            return Ok(self.through_device(Some(gateway)));
        }
        let nearest = self
            .host
            .routes
            .iter()
            .filter(|route| route.to.contains(&gateway))
            .max_by_key(|route| (route.to.prefix_len(), Reverse(route.metric.unwrap_or(0))));
        match nearest {
            Some(route) if route.gateway.is_none() => {
                Ok(NextHop { gateway: Some(gateway), interface: interface_of(route) })
            }
            Some(_) | None => Err(PlanError(format!(
                "route to {to}: the gateway {gateway} is not on a network that this host or the tunnel is directly \
                 connected to; name one that is, or use vpn_gateway or net_gateway"
            ))),
        }
    }

    /// Whether the address is a neighbour on the device: configured by us, or by a script before.
    fn on_device(&self, address: IpAddr) -> bool {
        let configured = self.config.device.configure
            && addresses(self.config).iter().any(|(own, peer)| {
                own.addr() != address && peer.map_or(own.contains(&address), |p| p == address)
            });
        configured
            || self.host.routes.iter().any(|route| {
                route.interface == self.device.index
                    && route.gateway.is_none()
                    && route.protocol != ROUTE_PROTOCOL
                    && route.to.contains(&address)
            })
    }

    /// The kernel sets the route to an IPv6 peer some time after the address, and until then refuses the
    /// peer as a gateway. A tun device has one other end, so there the gateway can be left out.
    fn through_device(&self, gateway: Option<IpAddr>) -> NextHop {
        let gateway = match self.config.device.mode {
            Mode::Tun => gateway.filter(IpAddr::is_ipv4),
            Mode::Tap => gateway,
        };
        NextHop { gateway, interface: self.device.clone() }
    }
}

/// The addresses to set, each with its peer. On a tun device the first address of the peer's family is
/// point-to-point, unless its prefix holds the peer already.
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

/// A locally administered unicast address that sorts behind those of real cards: a bridge takes over
/// the lowest address of its ports, and must not change its own when the link comes and goes.
fn port_mac(random: [u8; 5]) -> [u8; 6] {
    let [a, b, c, d, e] = random;
    [0xfe, a, b, c, d, e]
}

fn interface_of(route: &KernelRoute) -> Interface {
    Interface { index: route.interface, name: route.interface_name.clone() }
}

fn same_family(address: IpAddr, net: &IpNet) -> bool {
    address.is_ipv4() == net.addr().is_ipv4()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

struct Mac([u8; 6]);

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
