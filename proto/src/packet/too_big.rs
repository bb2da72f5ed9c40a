//! Replies to packets too long for the tunnel: ICMP "fragmentation needed" (RFC 792, RFC 1191) and ICMPv6 "packet too
//! big" (RFC 4443).

use std::net::{IpAddr, Ipv4Addr};

use super::checksum::checksum;
use super::ip::{self, ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, icmpv6};

/// An IPv4 reply quotes as much as fits in 576 bytes (RFC 1812 §4.3.2.3).
const QUOTE_V4: usize = 576 - IPV4_HEADER - 8;
/// An IPv6 reply fits in the minimum MTU (RFC 4443 §2.4).
const QUOTE_V6: usize = 1280 - IPV6_HEADER - 8;
const DONT_FRAGMENT: u8 = 0x40;

/// Writes a reply that announces `mtu` to `out`. It comes from `from` if that is of the packet's family, else from the
/// packet's destination. Returns false if the packet gets no reply. The caller limits the rate.
pub fn answer(packet: &[u8], mtu: u32, from: Option<IpAddr>, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some((source, destination)) = ip::addresses(packet) else { return false };
    if !is_host(source) || !is_host(destination) || is_error(packet) {
        return false;
    }
    let from = from.filter(|from| from.is_ipv4() == source.is_ipv4()).unwrap_or(destination);
    match (from, source) {
        (IpAddr::V4(_), _) if !asks(packet) => return false,
        (IpAddr::V4(from), IpAddr::V4(source)) => answer_v4(packet, mtu, from, source, out),
        (IpAddr::V6(from), IpAddr::V6(source)) => {
            let quote = packet.get(..QUOTE_V6).unwrap_or(packet);
            let message = [&[2, 0, 0, 0][..], &mtu.to_be_bytes(), quote].concat();
            out.extend(icmpv6(from, source, 64, message));
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    }
    true
}

/// Whether an IPv4 packet is the first or only fragment, with DF: without it a router would fragment the packet.
fn asks(packet: &[u8]) -> bool {
    packet.get(6).is_some_and(|flags| flags & DONT_FRAGMENT != 0) && ip::transport(packet).is_some()
}

fn answer_v4(packet: &[u8], mtu: u32, from: Ipv4Addr, to: Ipv4Addr, out: &mut Vec<u8>) {
    let quote = packet.get(..QUOTE_V4).unwrap_or(packet);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let length = (IPV4_HEADER + 8 + quote.len()) as u16;
    out.extend([0x45, 0xc0]);
    out.extend(length.to_be_bytes());
    out.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
    out.extend(from.octets());
    out.extend(to.octets());
    let sum = checksum(&[out]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    // Type 3 code 4, checksum, unused, MTU of the next hop.
    let mut icmp = [3, 4, 0, 0, 0, 0, 0, 0];
    icmp[6..].copy_from_slice(&mtu.to_be_bytes());
    let sum = checksum(&[&icmp, quote]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    out.extend(icmp);
    out.extend(quote);
}

fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || is_broadcast)
}

/// An error message never answers another (RFC 1122 §3.2.2, RFC 4443 §2.4).
fn is_error(packet: &[u8]) -> bool {
    let Some(transport) = ip::transport(packet) else { return false };
    let kind = packet.get(transport.at).copied();
    match transport.protocol {
        // Echo, timestamp and their replies are not errors.
        ICMP => !matches!(kind, Some(0 | 8 | 13 | 14)),
        ICMPV6 => kind.is_none_or(|kind| kind < 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(flags: u8, protocol: u8, kind: u8) -> Vec<u8> {
        let mut packet = vec![0; 1500];
        (packet[0], packet[6], packet[9], packet[20]) = (0x45, flags, protocol, kind);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet
    }

    fn v6(protocol: u8, kind: u8) -> Vec<u8> {
        let mut packet = vec![0; 1500];
        (packet[0], packet[6], packet[40]) = (0x60, protocol, kind);
        (packet[8], packet[23], packet[24], packet[39]) = (0xfd, 1, 0xfd, 2);
        packet
    }

    #[test]
    fn the_sender_learns_the_mtu() {
        let mut out = Vec::new();
        let packet = v4(DONT_FRAGMENT, ip::UDP, 0);
        assert!(answer(&packet, 1400, Some([10, 9, 0, 1].into()), &mut out));
        assert_eq!(ip::addresses(&out), Some(([10, 9, 0, 1].into(), [10, 0, 0, 1].into())));
        assert_eq!((out.len(), checksum(&[&out[..20]]), checksum(&[&out[20..]])), (576, 0, 0));
        assert_eq!((&out[20..22], &out[26..28]), (&[3, 4][..], &1400u16.to_be_bytes()[..]));
        assert_eq!(out[28..], packet[..548]);

        out.clear();
        assert!(answer(&v6(ip::TCP, 0), 1400, Some("fd09::1".parse().unwrap()), &mut out));
        assert_eq!(ip::addresses(&out).map(|(from, _)| from), Some("fd09::1".parse().unwrap()));
        out.clear();
        let packet = v6(ip::TCP, 0);
        assert!(answer(&packet, 1400, Some([10, 9, 0, 1].into()), &mut out));
        let (from, to) = ip::addresses(&out).unwrap();
        assert_eq!((from, to), ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap()));
        assert_eq!((out.len(), out[40], &out[44..48]), (1280, 2, &1400u32.to_be_bytes()[..]));
        let pseudo = [&out[8..40], &[0, 0], &out[4..6], &[0, 0, 0, ICMPV6]].concat();
        assert_eq!(checksum(&[&pseudo, &out[40..]]), 0);
    }

    #[test]
    fn some_packets_get_no_answer() {
        let mut multicast = v4(DONT_FRAGMENT, ip::UDP, 0);
        multicast[16] = 224;
        let mut later_fragment = v4(DONT_FRAGMENT, ip::UDP, 0);
        later_fragment[7] = 8;
        let mut group = v6(ip::UDP, 0);
        group[24] = 0xff;
        for packet in [
            v4(0, ip::UDP, 0),
            v4(DONT_FRAGMENT, ICMP, 3),
            v6(ICMPV6, 2),
            multicast,
            later_fragment,
            group,
            vec![0; 1500],
            Vec::new(),
        ] {
            assert!(!answer(&packet, 1400, None, &mut Vec::new()));
        }
        assert!(answer(&v4(DONT_FRAGMENT, ICMP, 8), 1400, None, &mut Vec::new()), "a ping");
        assert!(answer(&v6(ICMPV6, 128), 1400, None, &mut Vec::new()), "a ping");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(packet in prop::collection::vec(any::<u8>(), 0..100), mtu: u32) {
            let mut out = Vec::new();
            if answer(&packet, mtu, None, &mut out) {
                prop_assert!(out.len() <= packet.len() + 48);
            }
        }
    }
}
