//! Compares what tund has set on this host or was told to use with the actual state: the differences, each with the steps that repair it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::difference::{Difference, Missing};
use super::plan::{Interface, KernelRoute, ROUTE_PROTOCOL, Step, TABLE_MAIN, is_link_local};
use super::step::Family;
use crate::config::Config;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// IFF_UP.
    pub up: bool,
    /// IFF_LOWER_UP; for a tun device: a process has it open.
    pub carrier: bool,
    /// IFLA_INFO_KIND, such as "bridge" or "tun".
    pub kind: Option<String>,
    /// For a multi-queue tun device: the queues that processes have open, attached or not.
    pub queues: Option<u32>,
    /// Index of its bridge.
    pub master: Option<u32>,
    /// MAC address, if six bytes long.
    pub mac: Option<[u8; 6]>,
}

impl Link {
    /// Whether a process has this tun device open.
    pub fn is_held(&self) -> bool {
        self.carrier || self.queues.is_some_and(|queues| queues > 0)
    }

    /// Whether it is a kernel bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub interface: u32,
    /// The local address with its prefix.
    pub address: IpNet,
    /// The other end, if point-to-point.
    pub peer: Option<IpAddr>,
    /// Duplicate address detection is running (RFC 4862 §5.4).
    pub tentative: bool,
}

/// The required state.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The link's device.
    pub device: &'a Interface,
    /// The steps that configured it.
    pub device_steps: &'a [Step],
    /// Whether the link opened its own socket, so that `listen` counts.
    pub own_socket: bool,
}

/// The actual state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// All unicast routes of table main.
    pub routes: Vec<KernelRoute>,
    /// The steps for routes, blocks and rules whose effect is missing.
    pub missing: Vec<Step>,
    /// The interface the link's socket is bound to; also `None` if that is gone.
    pub bound_to: Option<String>,
    /// The missing places to query the link.
    pub lost: Vec<Difference>,
}

impl Seen {
    fn address(&self, interface: u32, address: &IpNet, peer: Option<IpAddr>) -> Option<&Address> {
        let mut own = self.addresses.iter().filter(|found| found.interface == interface);
        own.find(|found| found.address == *address && found.peer == peer)
    }

    fn has_address(&self, interface: u32, address: &IpNet, peer: Option<IpAddr>) -> bool {
        self.address(interface, address, peer).is_some()
    }
}

/// A difference and its repair, which is empty if that is not up to tund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What differs.
    pub difference: Difference,
    /// The steps, in order.
    pub mends: Vec<Step>,
}

impl Finding {
    /// Whether tund repairs it.
    pub fn is_mendable(&self) -> bool {
        // These need no steps.
        let without = matches!(
            self.difference,
            Difference::SocketUnbound { .. }
                | Difference::BridgeMtu { followed: true, .. }
                | Difference::ControlSocketMissing { .. }
                | Difference::MetricsMissing { .. }
        );
        without || !self.mends.is_empty()
    }
}

/// Compares both states. Consequences of another difference are left out, as its repair may fix them.
pub fn compare(wanted: Wanted<'_>, seen: &Seen) -> Vec<Finding> {
    let mut found: Vec<Finding> = socket(wanted, seen).into_iter().collect();
    let own = wanted.device.index;
    let link = seen.links.iter().find(|link| link.index == own);
    let up = link.filter(|link| link.up);
    match (link, up) {
        (_, Some(link)) => {
            found.extend(settings(wanted, link));
            found.extend(bridge(wanted, link, &seen.links));
            found.extend(addresses(wanted, seen));
            found.extend(connected(wanted, link, seen));
        }
        (Some(_), None) => found.push(down(wanted)),
        (None, None) => {
            let difference = Difference::DeviceGone { device: wanted.device.name.clone() };
            found.push(Finding { difference, mends: Vec::new() });
        }
    }
    let absent: Vec<Family> =
        absent_addresses(wanted, seen).map(|(_, address, _)| Family::of(address)).collect();
    let carried = |route: &KernelRoute| {
        route.interface != own || up.is_some() && !absent.contains(&Family::of(&route.to))
    };
    let (routes, rules): (Vec<_>, Vec<_>) =
        seen.missing.iter().cloned().partition(|step| step.route().is_some());
    let routes = routes.into_iter().filter(|step| step.route().is_some_and(carried)).collect();
    found.extend(several(rules, Missing::Rule));
    found.extend(several(routes, Missing::Route));
    found.extend(seen.lost.iter().cloned().map(|difference| Finding { difference, mends: Vec::new() }));
    found
}

fn down(wanted: Wanted<'_>) -> Finding {
    let up = |step: &&Step| matches!(step, Step::SetLink { up: Some(true), .. });
    let mends: Vec<_> = wanted.device_steps.iter().filter(up).cloned().collect();
    let (device, ours) = (wanted.device.name.clone(), !mends.is_empty());
    Finding { difference: Difference::DeviceDown { device, ours }, mends }
}

/// The steps whose address is missing, each with the address and its peer.
fn absent_addresses<'a>(
    wanted: Wanted<'a>,
    seen: &'a Seen,
) -> impl Iterator<Item = (&'a Step, &'a IpNet, Option<IpAddr>)> {
    let set = wanted.device_steps.iter().filter_map(|step| {
        let Step::AddAddress { address, peer, .. } = step else { return None };
        Some((step, address, *peer))
    });
    set.filter(move |(_, address, peer)| !seen.has_address(wanted.device.index, address, *peer))
}

fn several(mends: Vec<Step>, kind: Missing) -> Option<Finding> {
    let (first, count) = (mends.first()?.to_string(), mends.len());
    Some(Finding { difference: Difference::StepsMissing { kind, first, count }, mends })
}

/// Checks the interface and address of the link's own socket.
fn socket(wanted: Wanted<'_>, seen: &Seen) -> Option<Finding> {
    let bound = wanted.config.bind_device.clone().filter(|name| seen.bound_to.as_ref() != Some(name));
    let there = |interface: &String| seen.links.iter().any(|link| link.name == *interface);
    let bound = bound.map(|interface| match there(&interface) {
        true => Difference::SocketUnbound { interface },
        false => Difference::BindDeviceMissing { interface },
    });
    let is_there = |address: &IpAddr| {
        let all = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        all || seen.addresses.iter().any(|own| own.address.addr() == *address)
    };
    let listen = wanted.config.listen.address.filter(|_| wanted.own_socket);
    let address = listen.filter(|address| !is_there(address));
    let difference = bound.or(address.map(|address| Difference::ListenAddressMissing { address }));
    difference.map(|difference| Finding { difference, mends: Vec::new() })
}

/// Checks MTU and MAC address.
fn settings(wanted: Wanted<'_>, link: &Link) -> Vec<Finding> {
    let mut found = Vec::new();
    for step in wanted.device_steps {
        let Step::SetLink { index, name, mtu, mac, .. } = step else { continue };
        let again = |mtu, mac| Step::SetLink {
            index: *index,
            name: name.clone(),
            mtu,
            mac,
            txqueuelen: None,
            up: None,
        };
        let device = name.clone();
        if let Some(wanted) = mtu.filter(|mtu| *mtu != link.mtu) {
            let difference = Difference::DeviceMtu { device: device.clone(), wanted, there: link.mtu };
            found.push(Finding { difference, mends: vec![again(Some(wanted), None)] });
        }
        if mac.is_some() && link.mac.is_some() && *mac != link.mac {
            let difference = Difference::DeviceMac { device };
            found.push(Finding { difference, mends: vec![again(None, *mac)] });
        }
    }
    found
}

/// Checks the bridge, by name: a recreated one has another index.
fn bridge(wanted: Wanted<'_>, link: &Link, links: &[Link]) -> Option<Finding> {
    let bridge = wanted.config.device.bridge.clone()?;
    let (index, device) = (wanted.device.index, wanted.device.name.clone());
    let there = links.iter().find(|link| link.name == bridge && link.is_bridge());
    let (difference, mends) = match there {
        None => (Difference::BridgeMissing { device, bridge }, Vec::new()),
        Some(there) if link.master != Some(there.index) => {
            let bridge_name = bridge.clone();
            let join = Step::Join { index, name: device.clone(), bridge: there.index, bridge_name };
            (Difference::BridgePortMissing { device, bridge }, vec![join])
        }
        Some(there) if !there.up => (Difference::BridgeDown { bridge }, Vec::new()),
        Some(there)
            if wanted.config.device.mtu_of_bridge && wanted.config.device.is_smaller_than(there.mtu) =>
        {
            let (there, device) = (there.mtu, wanted.config.device.mtu);
            (Difference::BridgeMtu { bridge, there, device, followed: wanted.own_socket }, Vec::new())
        }
        Some(_) => return None,
    };
    Some(Finding { difference, mends })
}

/// Checks the addresses. One with a wrong prefix or peer is replaced.
fn addresses(wanted: Wanted<'_>, seen: &Seen) -> Option<Finding> {
    let (own, name) = (wanted.device.index, &wanted.device.name);
    let (mut mends, mut first, mut count) = (Vec::new(), None, 0);
    for (step, address, _) in absent_addresses(wanted, seen) {
        let same = |found: &&Address| found.interface == own && found.address.addr() == address.addr();
        mends.extend(seen.addresses.iter().filter(same).map(|found| {
            let (name, address) = (name.clone(), found.address);
            Step::DeleteAddress { index: own, name, address, peer: found.peer }
        }));
        mends.push(step.clone());
        first.get_or_insert_with(|| step.to_string());
        count += 1;
    }
    let kind = Missing::Address;
    first.map(|first| Finding { difference: Difference::StepsMissing { kind, first, count }, mends })
}

/// Checks the kernel's routes of each address, which it does not restore if another program removes them, nor always after the device was down.
fn connected(wanted: Wanted<'_>, link: &Link, seen: &Seen) -> Option<Finding> {
    // In a VRF, these routes are in another table.
    if link.master.is_some() && wanted.config.device.bridge.is_none() {
        return None;
    }
    let own = wanted.device.index;
    let routes: BTreeSet<IpNet> = seen
        .routes
        .iter()
        .filter(|route| route.interface == own && route.gateway.is_none())
        .map(|route| route.to)
        .collect();
    let needed = wanted.device_steps.iter().filter_map(|step| {
        let Step::AddAddress { address, peer, .. } = step else { return None };
        // During duplicate address detection, the kernel sets no routes.
        let used = seen.address(own, address, *peer).is_some_and(|found| !found.tentative);
        if !used {
            return None;
        }
        let network = || Some(address.trunc()).filter(|net| net.prefix_len() < net.max_prefix_len());
        peer.map(IpNet::from).or_else(network)
    });
    let absent = needed.filter(|net| !routes.contains(net)).map(|to| {
        Step::AddRoute(KernelRoute {
            to,
            gateway: None,
            interface: own,
            interface_name: wanted.device.name.clone(),
            metric: None,
            table: TABLE_MAIN,
            protocol: ROUTE_PROTOCOL,
        })
    });
    several(absent.collect(), Missing::ConnectedRoute)
}

/// The state of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Whether it is up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// The bridge or other master that it is a port of.
    pub master: Option<String>,
    /// Its addresses, except those made by the kernel.
    pub addresses: Vec<IpNet>,
}

/// The state of the device; `None` if it does not exist.
pub fn sight(device: &Interface, seen: &Seen) -> Option<Sight> {
    let link = seen.links.iter().find(|link| link.index == device.index)?;
    let name = |index| seen.links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let own = seen.addresses.iter().filter(|found| found.interface == device.index);
    let is_shown = |address: &IpNet| address.addr().is_ipv4() || !is_link_local(address.addr());
    let addresses = own.map(|found| found.address).filter(is_shown);
    Some(Sight {
        up: link.up,
        mtu: link.mtu,
        master: link.master.and_then(name),
        addresses: addresses.collect(),
    })
}

/// The steps without effect, as text.
pub fn absent(steps: &[Step], seen: &Seen) -> BTreeSet<String> {
    let is_absent = |step: &&Step| {
        let Step::AddAddress { index, address, peer, .. } = step else { return false };
        !seen.has_address(*index, address, *peer)
    };
    seen.missing.iter().chain(steps.iter().filter(is_absent)).map(Step::to_string).collect()
}

#[cfg(test)]
mod tests;
