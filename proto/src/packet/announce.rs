//! Frames that tell a host's neighbours that an address is now at this MAC address: ARP announcements (RFC 5227 §3) and
//! unsolicited neighbour advertisements (RFC 4861 §7.2.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ip::icmpv6;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Neighbour advertisement flags: the sender is a router; the entry overrides a cached one.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// Builds the Ethernet frame that announces `address` at `mac`. `router`: the host forwards packets of this family;
/// hosts drop a router that says it is none.
pub fn frame(mac: [u8; 6], address: IpAddr, router: bool) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(mac, address),
        IpAddr::V6(address) => advertisement(mac, address, router),
    }
}

/// A request for its own address.
fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let address = address.octets();
    // Ethernet, IPv4, address lengths, request.
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &[0x08, 0x06], &head, &mac, &address, &[0; 6], &address].concat()
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr, router: bool) -> Vec<u8> {
    let flags = OVERRIDE | if router { ROUTER } else { 0 };
    // Type and code, checksum, flags, target; the option is the target's link-layer address.
    let message = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &address.octets(), &[2, 1], &mac].concat();
    let ethernet = [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &[0x86, 0xdd]].concat();
    [ethernet, icmpv6(address, ALL_NODES, 255, message)].concat()
}

#[cfg(test)]
mod tests {
    use super::super::checksum::checksum;
    use super::*;

    const MAC: [u8; 6] = [0xfe, 1, 2, 3, 4, 5];

    #[test]
    fn an_ipv4_address_is_announced_to_all() {
        let expected = [
            &[0xff; 6][..],
            &MAC,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC,
            &[10, 7, 0, 1],
            &[0; 6],
            &[10, 7, 0, 1],
        ];
        assert_eq!(frame(MAC, [10, 7, 0, 1].into(), true), expected.concat());
    }

    #[test]
    fn an_ipv6_address_is_advertised_with_a_good_checksum() {
        let address: Ipv6Addr = "fd00:8::1".parse().unwrap();
        for (router, flags) in [(false, 0x20), (true, 0xa0)] {
            let frame = frame(MAC, address.into(), router);
            assert_eq!(frame.len(), 14 + 40 + 32);
            assert_eq!((&frame[..6], &frame[6..12]), (&[0x33, 0x33, 0, 0, 0, 1][..], &MAC[..]));
            let (ip, icmp) = frame[14..].split_at(40);
            assert_eq!((ip[5], ip[6], ip[7]), (32, 58, 255));
            assert_eq!((icmp[0], icmp[4]), (136, flags));
            assert_eq!(
                (&icmp[8..24], &icmp[24..]),
                (&address.octets()[..], &[&[2, 1][..], &MAC].concat()[..])
            );
            let pseudo = [&ip[8..40], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
            assert_eq!(checksum(&[&pseudo, icmp]), 0);
        }
    }
}
