//! Socket addresses between processes. serde drops the scope id, without which a link-local address is unusable.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Parts = (IpAddr, u16, u32);

/// Interface index of a link-local address.
pub fn zone(address: &SocketAddr) -> Option<u32> {
    match address {
        SocketAddr::V4(_) => None,
        SocketAddr::V6(v6) => Some(v6.scope_id()).filter(|zone| *zone != 0),
    }
}

fn parts(address: &SocketAddr) -> Parts {
    (address.ip(), address.port(), zone(address).unwrap_or(0))
}

fn whole((ip, port, zone): Parts) -> SocketAddr {
    match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, zone).into(),
    }
}

/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    parts(address).serialize(serializer)
}

/// # Errors
/// The deserializer's.
pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    Parts::deserialize(deserializer).map(whole)
}

/// The same for a list.
pub mod list {
    use super::{Deserialize, Deserializer, Parts, Serializer, SocketAddr, parts, whole};

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(addresses: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(addresses.iter().map(parts))
    }

    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
        Ok(Vec::<Parts>::deserialize(deserializer)?.into_iter().map(whole).collect())
    }
}
