//! Socket addresses between processes. What serde makes of one by itself is without the scope id, so that a link-local
//! address could not be sent to.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Parts = (IpAddr, u16, u32);

fn parts(address: &SocketAddr) -> Parts {
    let zone = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    (address.ip(), address.port(), zone)
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
