//! Lowers the maximum segment size that TCP connections announce (RFC 9293 §3.7.1), so that hosts behind the tunnel
//! need no path MTU discovery.

use super::checksum::adjusted;
use super::ip::{self, IPV4_HEADER, IPV6_HEADER, TCP, TCP_CHECKSUM, TCP_HEADER};

const SYN: u8 = 2;
/// Option kinds: end of options, no operation, maximum segment size.
const END: u8 = 0;
const PADDING: u8 = 1;
const MAXIMUM_SEGMENT: u8 = 2;

/// Whether [`clamp`] would examine the packet: one of the first two of a TCP connection.
pub fn is_syn(packet: &[u8]) -> bool {
    syn(packet).is_some()
}

/// Returns the offset of the TCP header of a SYN.
fn syn(packet: &[u8]) -> Option<usize> {
    let tcp = ip::transport(packet).filter(|transport| transport.protocol == TCP)?.at;
    (packet.get(tcp + 13)? & SYN != 0).then_some(tcp)
}

/// Lowers the announced MSS to what fits in packets of `mtu` bytes and updates the checksum. Returns whether it did.
pub fn clamp(packet: &mut [u8], mtu: usize) -> bool {
    let Some(tcp) = syn(packet) else { return false };
    let header = if packet[0] >> 4 == 4 { IPV4_HEADER } else { IPV6_HEADER };
    let most = u16::try_from(mtu.saturating_sub(header + TCP_HEADER)).unwrap_or(u16::MAX);
    let end = tcp + usize::from(packet.get(tcp + 12).copied().unwrap_or(0) >> 4) * 4;
    let Some(at) = packet.get(..end).and_then(|headers| find(headers, tcp + TCP_HEADER)) else {
        return false;
    };
    let announced = u16::from_be_bytes([packet[at], packet[at + 1]]);
    if announced <= most {
        return false;
    }
    packet[at..at + 2].copy_from_slice(&most.to_be_bytes());
    let place = tcp + TCP_CHECKSUM;
    let sum = u16::from_be_bytes([packet[place], packet[place + 1]]);
    // Checksum words are aligned to the header's start, but an option may have an odd offset.
    let odd = (at - tcp) % 2 == 1;
    let (old, new) = if odd { (announced.swap_bytes(), most.swap_bytes()) } else { (announced, most) };
    packet[place..place + 2].copy_from_slice(&adjusted(sum, old, new).to_be_bytes());
    true
}

/// Returns the offset of the MSS option's value.
fn find(headers: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *headers.get(at)? {
            END => return None,
            PADDING => at += 1,
            kind => {
                let length = usize::from(*headers.get(at + 1)?);
                if kind == MAXIMUM_SEGMENT && length == 4 {
                    return headers.get(at + 2..at + 4).map(|_| at + 2);
                }
                if length < 2 {
                    return None;
                }
                at += length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checksum::checksum;
    use super::*;

    /// A SYN with these options and a valid checksum.
    fn syn(v6: bool, options: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), END);
        let mut tcp = vec![0; TCP_HEADER];
        tcp[12] = ((TCP_HEADER + options.len()) * 4) as u8;
        tcp[13] = SYN;
        tcp.extend(options);
        let mut packet = if v6 { vec![0; IPV6_HEADER] } else { vec![0; IPV4_HEADER] };
        packet[0] = if v6 { 0x60 } else { 0x45 };
        packet[if v6 { 6 } else { 9 }] = TCP;
        packet[19] = 7;
        let sum = tcp_checksum(&packet, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        packet.extend(tcp);
        packet
    }

    fn tcp_checksum(ip: &[u8], tcp: &[u8]) -> u16 {
        let addresses = if ip[0] == 0x60 { &ip[8..40] } else { &ip[12..20] };
        checksum(&[addresses, &[0, TCP], &(tcp.len() as u16).to_be_bytes(), tcp])
    }

    fn is_right(packet: &[u8]) -> bool {
        let at = if packet[0] == 0x60 { IPV6_HEADER } else { IPV4_HEADER };
        tcp_checksum(&packet[..at], &packet[at..]) == 0
    }

    #[test]
    fn a_larger_segment_is_lowered_and_a_smaller_one_left() {
        for (v6, most) in [(false, 1380u16), (true, 1360)] {
            let header = if v6 { IPV6_HEADER } else { IPV4_HEADER };
            for padding in 0..4 {
                let mut options = vec![PADDING; padding];
                options.extend([8, 10, 1, 2, 3, 4, 5, 6, 7, 8, MAXIMUM_SEGMENT, 4, 0x05, 0xb4]);
                let mut packet = syn(v6, &options);
                assert!(is_right(&packet));
                assert!(clamp(&mut packet, 1420));
                let at = header + TCP_HEADER + padding + 12;
                assert_eq!(packet[at..at + 2], most.to_be_bytes());
                assert!(is_right(&packet), "padding {padding}");
                let once = packet.clone();
                assert!(!clamp(&mut packet, 1420));
                assert_eq!(packet, once);
            }
        }
    }

    #[test]
    fn other_packets_are_left_alone() {
        let without = syn(false, &[]);
        let mut data = syn(false, &[MAXIMUM_SEGMENT, 4, 0x05, 0xb4]);
        data[IPV4_HEADER + 13] = 16;
        let mut fragment = syn(false, &[MAXIMUM_SEGMENT, 4, 0x05, 0xb4]);
        fragment[7] = 8;
        let endless = syn(false, &[5, 0, MAXIMUM_SEGMENT, 4, 0x05, 0xb4]);
        for packet in [without, data, fragment, endless] {
            let mut clamped = packet.clone();
            assert!(!clamp(&mut clamped, 1420));
            assert_eq!(clamped, packet);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(options in prop::collection::vec(any::<u8>(), 0..44), v6: bool, cut in 0usize..100) {
            let mut options = options;
            options.truncate(40);
            let mut packet = syn(v6, &options);
            clamp(&mut packet, 1280);
            prop_assert!(is_right(&packet));
            packet.truncate(cut);
            clamp(&mut packet, 1280);
        }
    }
}
