//! The guard's view of an Ethernet frame.

use crate::packet::ip::{ICMPV6, IPV6_HEADER, UDP};

/// Most tags skipped: two are in use, and a switch may remove one. `packet::layer` says why it skips fewer.
const MOST_TAGS: usize = 4;
/// Most extension headers skipped.
const MOST_EXTENSIONS: usize = 8;
/// BPDU destinations: IEEE 802.1Q table 8-1 (customer bridges), 8-2 (provider bridges), and Cisco's PVST+.
const BPDU: [[u8; 6]; 3] =
    [[1, 0x80, 0xc2, 0, 0, 0], [1, 0x80, 0xc2, 0, 0, 8], [1, 0, 0x0c, 0xcc, 0xcc, 0xcd]];
/// ICMPv6 type of a router advertisement (RFC 4861, section 4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;

/// An Ethernet frame's addresses and outermost tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Destination.
    pub to: [u8; 6],
    /// Source.
    pub from: [u8; 6],
    /// The outermost VLAN; `None`: untagged or priority-tagged.
    pub vlan: Option<u16>,
}

impl Header {
    /// `None`: incomplete.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (to, rest) = frame.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let mut vlan = None;
        if is_tag(*kind) {
            let tag = u16::from_be_bytes(*rest.first_chunk()?) & 0xfff;
            vlan = (tag != 0).then_some(tag);
        }
        Some(Self { to: *to, from: *from, vlan })
    }

    /// Whether the destination is a group.
    pub fn is_group(&self) -> bool {
        self.to[0] & 1 == 1
    }

    /// Whether it is a spanning tree frame.
    pub fn is_bpdu(&self) -> bool {
        BPDU.contains(&self.to)
    }
}

/// TPIDs of 802.1Q, 802.1ad, and earlier QinQ.
fn is_tag(kind: [u8; 2]) -> bool {
    matches!(u16::from_be_bytes(kind), 0x8100 | 0x88a8 | 0x9100)
}

/// Whether a BPDU signals a topology change, by its type or a flag (IEEE 802.1Q, section 14).
pub fn is_topology_change(frame: &[u8]) -> bool {
    let Some((_, at)) = behind_tags(frame) else { return false };
    // PVST+ has five bytes of SNAP after the LLC header.
    let bpdu = if frame.get(at) == Some(&0xaa) { at + 8 } else { at + 3 };
    // Protocol (2 bytes), version, type, flags.
    frame.get(bpdu + 3..bpdu + 5).is_some_and(|bpdu| bpdu[0] == 0x80 || bpdu[1] & 1 == 1)
}

/// A frame that only a server or router sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// A DHCP server's reply (RFC 2131, RFC 8415).
    Dhcp,
    /// A router advertisement, or a first fragment that hides its type (RFC 7113, section 3).
    Router,
}

/// Returns the EtherType after the tags, and the payload's offset.
pub fn behind_tags(frame: &[u8]) -> Option<(&[u8], usize)> {
    let (mut kind, mut at) = (frame.get(12..14)?, 14);
    for _ in 0..MOST_TAGS {
        if !is_tag([kind[0], kind[1]]) {
            break;
        }
        (kind, at) = (frame.get(at + 2..at + 4)?, at + 4);
    }
    Some((kind, at))
}

/// Which of these a frame is.
pub fn service(frame: &[u8]) -> Option<Service> {
    let (kind, at) = behind_tags(frame)?;
    let packet = frame.get(at..)?;
    match kind {
        [0x08, 0x00] => v4(packet),
        [0x86, 0xdd] => v6(packet),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<Service> {
    // Its stated length may be less than any header's.
    let header: &[u8; 10] = packet.first_chunk()?;
    let is_first = header[6] & 0x1f == 0 && header[7] == 0;
    let at = usize::from(header[0] & 15) * 4;
    let ports = packet.get(at..at + 4)?;
    (is_first && header[9] == UDP && ports == [0, 67, 0, 68]).then_some(Service::Dhcp)
}

fn v6(packet: &[u8]) -> Option<Service> {
    let (mut protocol, mut at, mut in_parts) = (*packet.get(6)?, IPV6_HEADER, false);
    for _ in 0..MOST_EXTENSIONS {
        let Some(next) = packet.get(at..).filter(|rest| rest.len() >= 4) else {
            return in_parts.then_some(Service::Router);
        };
        let length = match protocol {
            0 | 43 | 60 => usize::from(next[1]) * 8 + 8,
            44 => {
                let offset = u16::from_be_bytes([next[2], next[3]]);
                if offset >> 3 != 0 {
                    return None;
                }
                in_parts = offset & 1 == 1;
                8
            }
            51 => usize::from(next[1]) * 4 + 8,
            ICMPV6 => return (next[0] == ROUTER_ADVERTISEMENT).then_some(Service::Router),
            UDP => return (next[..4] == [2, 0x23, 2, 0x22]).then_some(Service::Dhcp),
            _ => return None,
        };
        (protocol, at) = (next[0], at + length);
    }
    // No host sends so many; this one hides something.
    Some(Service::Router)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::layer::Layer;

    fn frame(tags: &[u16], kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn v6_packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[6]) = (0x60, first);
        packet.extend(rest);
        packet
    }

    #[test]
    fn dhcp_servers_are_told_from_clients_and_relays_behind_any_tags() {
        let packet = |ports: [u8; 4], fragment: u8| {
            let mut packet = vec![0; 20];
            (packet[0], packet[7], packet[9]) = (0x45, fragment, UDP);
            packet.extend(ports);
            packet
        };
        for tags in [&[][..], &[100], &[5, 100], &[1, 2, 3]] {
            let service = |ports, fragment| service(&frame(tags, 0x0800, &packet(ports, fragment)));
            assert_eq!(service([0, 67, 0, 68], 0), Some(Service::Dhcp), "{tags:?}");
            assert_eq!(service([0, 68, 0, 67], 0), None, "a client");
            assert_eq!(service([0, 67, 0, 67], 0), None, "a relay");
            assert_eq!(service([0, 67, 0, 68], 9), None, "a later fragment");
        }
        let udp = |ports: [u8; 4]| service(&frame(&[], 0x86dd, &v6_packet(UDP, &ports)));
        assert_eq!(udp([2, 0x23, 2, 0x22]), Some(Service::Dhcp));
        assert_eq!(udp([2, 0x22, 2, 0x23]), None);
    }

    /// A frame that the kernel could not cut up again is not joined, and hides nothing either.
    #[test]
    fn what_is_left_as_it_is_for_its_tags_is_seen_through_all_the_same() {
        let mut packet = [0; 24];
        (packet[0], packet[9]) = (0x45, UDP);
        packet[20..].copy_from_slice(&[0, 67, 0, 68]);
        let two = frame(&[5, 100], 0x0800, &packet);
        let mut old = two.clone();
        old[12..14].copy_from_slice(&[0x91, 0]);
        for (frame, at) in [(two, Some(22)), (old, None), (frame(&[1, 2, 3], 0x0800, &packet), None)] {
            assert_eq!(service(&frame), Some(Service::Dhcp), "{frame:x?}");
            assert_eq!(Layer::Ethernet.network(&frame), at, "{frame:x?}");
        }
    }

    #[test]
    fn a_router_advertisement_cannot_hide_behind_extension_headers_or_in_fragments() {
        let of = |first, rest: &[u8]| service(&frame(&[7], 0x86dd, &v6_packet(first, rest)));
        assert_eq!(of(ICMPV6, &[134, 0, 0, 0]), Some(Service::Router));
        assert_eq!(of(ICMPV6, &[135, 0, 0, 0]), None, "a neighbour solicitation");
        let option = [0_u8, 0, 0, 0, 0, 0, 0, 0];
        let last = [ICMPV6, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            of(60, &[&[60][..], &option[1..], &last, &[134, 0, 0, 0]].concat()),
            Some(Service::Router)
        );
        let first_fragment = [60, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(of(44, &first_fragment), Some(Service::Router), "its chain ends in the next fragment");
        let whole = [&[ICMPV6, 0, 0, 1, 0, 0, 0, 0][..], &[128, 0, 0, 0]].concat();
        assert_eq!(of(44, &whole), None, "a long ping");
        assert_eq!(of(44, &[ICMPV6, 0, 0, 8, 0, 0, 0, 0]), None, "a later fragment");
        assert_eq!(of(0, &option.repeat(9)), Some(Service::Router), "headers without end");
    }

    #[test]
    fn bpdus_of_every_kind_are_known_and_changes_of_the_topology_among_them() {
        for to in BPDU {
            let snap = [0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b];
            for (tags, llc) in [(&[][..], &[0x42, 0x42, 3][..]), (&[], &snap), (&[7], &snap)] {
                let of = |kind: u8, flags: u8| {
                    let mut bpdu = frame(tags, 39, &[llc, &[0, 0, 0, kind, flags]].concat());
                    bpdu[..6].copy_from_slice(&to);
                    assert!(Header::of(&bpdu).unwrap().is_bpdu());
                    is_topology_change(&bpdu)
                };
                assert_eq!(
                    [of(0, 0), of(0, 0x7e), of(0, 1), of(2, 1), of(0x80, 0)],
                    [false, false, true, true, true]
                );
            }
        }
        assert!(!Header::of(&frame(&[], 0x0800, &[0; 20])).unwrap().is_bpdu());
    }

    #[test]
    fn the_outermost_vlan_counts_and_a_priority_tag_is_none() {
        let vlan = |tags| Header::of(&frame(tags, 0x0800, &[0; 20])).unwrap().vlan;
        assert_eq!(
            [vlan(&[]), vlan(&[100]), vlan(&[5, 100]), vlan(&[0xe000])],
            [None, Some(100), Some(5), None]
        );
        assert_eq!(Header::of(&[0; 13]), None);
    }

    #[test]
    fn a_header_that_is_cut_short_or_gives_any_length_is_no_server() {
        for (kind, first) in (0..=255).flat_map(|first| [(0x0800, first), (0x86dd, first)]) {
            let packet = [&[first][..], &[0; 60]].concat();
            for length in 0..packet.len() {
                assert_eq!(service(&frame(&[], kind, &packet[..length])), None, "{first} {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_classified(frame in prop::collection::vec(any::<u8>(), 0..120), kind in 0..3_usize) {
            let mut frame = frame;
            if frame.len() > 14 {
                frame[12..14].copy_from_slice(&[[0x86, 0xdd], [8, 0], [0x81, 0]][kind]);
            }
            service(&frame);
            Header::of(&frame);
            is_topology_change(&frame);
        }
    }
}
