//! One blocking route-netlink socket (rtnetlink(7)); used by the parent only.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::{KernelRoute, Step};

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
    /// IFLA_INFO_KIND, such as "bridge" or "tun".
    pub kind: Option<String>,
    /// Index of the bridge it belongs to.
    pub master: Option<u32>,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub interface: u32,
    /// The local address with its prefix.
    pub address: IpNet,
    /// The other end, when point-to-point.
    pub peer: Option<IpAddr>,
}

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
pub struct Netlink {}

impl Netlink {
    /// Opens the socket in the caller's network namespace.
    pub fn open() -> io::Result<Self> {
        todo!()
    }
    /// All interfaces.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        todo!()
    }
    /// The interface of that name, if there is one.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let _ = name;
        todo!()
    }
    /// All addresses, both families.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        todo!()
    }
    /// All unicast routes of table main, both families.
    pub fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        todo!()
    }
    /// How the kernel would reach `address`.
    pub fn lookup(&mut self, address: IpAddr, mark: Option<u32>) -> io::Result<Lookup> {
        let _ = (address, mark);
        todo!()
    }
    /// Carries out one step. An existing foreign route is `AlreadyExists`; one with our own protocol number is taken over.
    pub fn apply(&mut self, step: &Step) -> io::Result<()> {
        let _ = step;
        todo!()
    }
}
