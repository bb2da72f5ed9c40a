//! The steps that configure a device and its routes, in order, and how each is undone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Config;

/// Route protocol number of tund's own routes (`RTPROT_*`; unassigned in rt_protos), so that they can be told from others.
pub const ROUTE_PROTOCOL: u8 = 88;

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
}

/// Why no plan could be made. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

impl Step {
    /// The step that takes this one back; `None` where removing the device does it.
    pub fn undo(&self) -> Option<Step> {
        todo!()
    }
}

/// The steps that configure the device (nothing but bridge and up state with `configure = false`).
pub fn device_steps(config: &Config, device: &Interface, host: &Host) -> Result<Vec<Step>, PlanError> {
    let _ = (config, device, host);
    todo!()
}

/// The steps that set the routes. `net_gateway` is the lowest-metric default route of the family in
/// table main that is not through `device`.
pub fn route_steps(config: &Config, device: &Interface, host: &Host) -> Result<Vec<Step>, PlanError> {
    let _ = (config, device, host);
    todo!()
}
