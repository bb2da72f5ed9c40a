//! Zones of link-local addresses (RFC 4007, section 11): interface names in texts, indices in socket addresses.

use std::io;
use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::config::Remote;
use crate::core::path::Path;
use crate::core::zoned;

/// Formats an address with its interface's name, and IPv4 unmapped.
pub fn named(address: SocketAddr) -> String {
    let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
    let Some(index) = zoned::zone(&address) else { return plain.to_string() };
    match any_socket().and_then(|socket| Ok(netdevice::index_to_name(socket, index)?)) {
        Ok(name) => format!("[{}%{name}]:{}", plain.ip(), plain.port()),
        Err(_) => address.to_string(),
    }
}

/// Formats a path to an address.
pub fn named_path(path: Path) -> String {
    format!("{}{}", if path.stream { "tcp:" } else { "" }, named(path.remote))
}

/// The remote with its zone as an index; unchanged if it has no zone or no such interface exists now.
pub fn numbered(remote: &Remote) -> Remote {
    let found = remote.host.split_once('%').and_then(|(ip, zone)| {
        let index = any_socket().and_then(|socket| Ok(netdevice::name_to_index(socket, zone)?)).ok()?;
        Some(format!("{ip}%{index}"))
    });
    Remote { host: found.unwrap_or_else(|| remote.host.clone()), ..*remote }
}

/// A socket for netdevice(7), which accepts any family.
fn any_socket() -> io::Result<std::os::fd::OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_names_in_texts_and_numbers_in_addresses() {
        let number = |host: &str| numbered(&Remote { host: host.to_owned(), port: 1417, stream: false }).host;
        assert_eq!(number("fe80::1%lo"), "fe80::1%1");
        for other in ["fe80::1%1", "fe80::1%no-such-one", "fe80::1", "mon.tn"] {
            assert_eq!(number(other), other);
        }
        assert_eq!(named("[fe80::1%1]:1417".parse().unwrap()), "[fe80::1%lo]:1417");
        assert_eq!(named("[::ffff:192.0.2.1]:1".parse().unwrap()), "192.0.2.1:1");
    }
}
