//! IP headers: RFC 791, RFC 8200.

use std::net::{IpAddr, Ipv6Addr};

use super::checksum::{checksum, fold, sum};
use super::word;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Next-header number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header without extensions.
pub const IPV6_HEADER: usize = 40;
/// Length of a TCP header without options, in bytes (RFC 9293).
pub const TCP_HEADER: usize = 20;
/// Length of a UDP header, in bytes (RFC 768).
pub const UDP_HEADER: usize = 8;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;
/// Most extension headers that are skipped; no real packet has more.
const MOST_EXTENSIONS: usize = 8;

/// A transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Protocol number.
    pub protocol: u8,
    /// Offset of the header.
    pub at: usize,
}

/// Source and destination; `None`: no IP packet.
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => Some((address::<4>(packet, 12)?, address::<4>(packet, 16)?)),
        6 => Some((address::<16>(packet, 8)?, address::<16>(packet, 24)?)),
        _ => None,
    }
}

fn address<const N: usize>(packet: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    packet.get(at..)?.first_chunk().copied().map(IpAddr::from)
}

/// Finds the transport header. `None`: a later fragment, or not an IP packet.
pub fn transport(packet: &[u8]) -> Option<Transport> {
    match packet.first()? >> 4 {
        4 => {
            let at = usize::from(packet[0] & 15) * 4;
            let fragment = word(packet, 6)? & 0x1fff;
            let protocol = *packet.get(9)?;
            (at >= IPV4_HEADER && fragment == 0).then_some(Transport { protocol, at })
        }
        6 => behind_extensions(packet),
        _ => None,
    }
}

fn behind_extensions(packet: &[u8]) -> Option<Transport> {
    let (mut protocol, mut at) = (*packet.get(6)?, IPV6_HEADER);
    for _ in 0..MOST_EXTENSIONS {
        let length = match protocol {
            // Hop-by-hop options, routing, destination options: in units of eight bytes after the first.
            0 | 43 | 60 => usize::from(*packet.get(at + 1)?) * 8 + 8,
            // Fragment: the offset is the upper 13 bits.
            44 if word(packet, at + 2)? >> 3 != 0 => return None,
            44 => 8,
            // Authentication (RFC 4302): in units of four bytes after the first two.
            51 => usize::from(*packet.get(at + 1)?) * 4 + 8,
            _ => return Some(Transport { protocol, at }),
        };
        protocol = *packet.get(at)?;
        at += length;
    }
    None
}

/// Writes the length of a packet into `header`, which reaches up to the transport header, and IPv4's checksum of it.
pub fn write_length(header: &mut [u8], v4: bool, length: usize) {
    if v4 {
        header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        header[10..12].fill(0);
        let sum = !fold(sum(header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        header[4..6].copy_from_slice(&((length - IPV6_HEADER) as u16).to_be_bytes());
    }
}

/// Builds an ICMPv6 packet and fills in the checksum of its message (RFC 4443 §2.3).
pub fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let length = (message.len() as u16).to_be_bytes();
    let addresses = [from.octets(), to.octets()].concat();
    let pseudo = [&addresses[..], &[0, 0], &length, &[0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, hop_limit], &addresses, &message].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_both_families_and_of_nothing() {
        let mut v4 = [0; 20];
        v4[0] = 0x45;
        v4[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let expected = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert_eq!(addresses(&v4), Some(expected));
        assert_eq!(addresses(&v4[..19]), None);
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[23] = 1;
        v6[39] = 2;
        assert_eq!(addresses(&v6), Some(("::1".parse().unwrap(), "::2".parse().unwrap())));
        assert_eq!(addresses(&v6[..39]), None);
        assert_eq!(addresses(&[0x55; 60]), None);
        assert_eq!(addresses(&[]), None);
    }

    #[test]
    fn the_transport_is_found_behind_options_and_extensions() {
        let mut v4 = vec![0; 28];
        (v4[0], v4[9]) = (0x46, TCP);
        assert_eq!(transport(&v4), Some(Transport { protocol: TCP, at: 24 }));
        v4[7] = 1;
        assert_eq!(transport(&v4), None, "a later fragment");
        let mut v6 = vec![0; 40];
        v6[0] = 0x60;
        v6.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        v6.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        v6.extend([UDP, 0, 0, 1, 0, 0, 0, 0]);
        v6.extend([0; 8]);
        assert_eq!(transport(&v6), Some(Transport { protocol: UDP, at: 72 }));
        v6[67] = 8;
        assert_eq!(transport(&v6), None, "a later fragment");
        let mut authenticated = vec![0; 40];
        (authenticated[0], authenticated[6]) = (0x60, 51);
        authenticated.extend([TCP, 4]);
        authenticated.extend([0; 42]);
        assert_eq!(transport(&authenticated), Some(Transport { protocol: TCP, at: 64 }));
        let mut endless = vec![0; 400];
        endless[0] = 0x60;
        assert_eq!(transport(&endless), None, "options behind options");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(first in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..120)) {
            let packet = [&[first][..], &rest].concat();
            let _ = addresses(&packet);
            let _ = transport(&packet);
        }
    }
}
