//! Hashes a frame's flow to a small number: always the same for frames of one flow, most often different for two flows.

use super::ip::{IPV4_HEADER, IPV6_HEADER, TCP, UDP};
use super::layer::{ADDRESSES, Layer};

/// Number of flow numbers.
pub const FLOWS: usize = 256;

/// The flow of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Below [`FLOWS`].
    pub number: u8,
    /// Whether the protocol is UDP.
    pub is_udp: bool,
}

/// Hashes addresses, protocol and ports of an IP packet, or the Ethernet addresses of anything else. Ports are left out
/// for fragments and for packets with IPv6 extension headers, as not all of them have ports.
pub fn of(frame: &[u8], layer: Layer) -> Flow {
    let packet = layer.network(frame).and_then(|at| frame.get(at..));
    let fields = packet.and_then(|packet| match packet.first()? >> 4 {
        4 => v4(packet),
        _ => v6(packet),
    });
    let (addresses, protocol, ports) = fields.unwrap_or((frame.get(..ADDRESSES).unwrap_or(frame), 0, [0; 4]));
    let words = addresses.chunks(4).map(word);
    let words = words.chain([u32::from(protocol), u32::from_ne_bytes(ports)]);
    // Multiplication carries every bit to the top (Knuth, The Art of Computer Programming 3, 6.4).
    let mixed = words
        .fold(0_u64, |sum, word| (sum.rotate_left(5) ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Flow { number: (mixed >> 56) as u8, is_udp: protocol == UDP }
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_ne_bytes(word)
}

type Fields<'a> = (&'a [u8], u8, [u8; 4]);

fn v4(packet: &[u8]) -> Option<Fields<'_>> {
    let (header, _) = packet.split_first_chunk::<IPV4_HEADER>()?;
    // Neither an offset nor more fragments.
    let whole = (header[6] & 0x3f, header[7]) == (0, 0);
    let ports = ports(packet, header[9], usize::from(header[0] & 15) * 4).filter(|_| whole);
    Some((packet.get(12..20)?, header[9], ports.unwrap_or_default()))
}

fn v6(packet: &[u8]) -> Option<Fields<'_>> {
    let (header, _) = packet.split_first_chunk::<IPV6_HEADER>()?;
    Some((packet.get(8..40)?, header[6], ports(packet, header[6], IPV6_HEADER).unwrap_or_default()))
}

fn ports(packet: &[u8], protocol: u8, at: usize) -> Option<[u8; 4]> {
    matches!(protocol, TCP | UDP).then(|| packet.get(at..)?.first_chunk().copied())?
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn v4(protocol: u8, ports: [u8; 4], fragment: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[6], packet[9]) = (0x45, fragment, protocol);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..24].copy_from_slice(&ports);
        packet
    }

    #[test]
    fn ports_part_flows_and_nothing_else_of_a_segment_does() {
        let one = v4(TCP, [0, 80, 1, 2], 0);
        let mut next = one.clone();
        (next[4], next[8], next[25], next[33]) = (9, 63, 77, 0x18);
        assert_eq!(
            of(&one, Layer::Ip),
            of(&next, Layer::Ip),
            "another identification, TTL, sequence and flags"
        );
        let others: HashSet<Flow> =
            (0..200).map(|port| of(&v4(TCP, [0, 80, 1, port], 0), Layer::Ip)).collect();
        assert!(others.len() > 100, "200 flows have {} numbers", others.len());
        let tagged = |packet: &[u8]| [&[2; 12][..], &[0x81, 0, 0, 5, 8, 0], packet].concat();
        assert_eq!(of(&tagged(&one), Layer::Ethernet), of(&one, Layer::Ip));
        let datagram = of(&tagged(&v4(UDP, [0, 80, 1, 2], 0)), Layer::Ethernet);
        assert_ne!(of(&tagged(&one), Layer::Ethernet).number, datagram.number);
        assert!(datagram.is_udp && !of(&one, Layer::Ip).is_udp);
    }

    #[test]
    fn all_fragments_of_a_datagram_are_of_one_flow() {
        let first = v4(UDP, [0, 53, 1, 2], 0x20);
        let mut last = v4(UDP, [7; 4], 0);
        last[7] = 20;
        assert_eq!(of(&first, Layer::Ip), of(&last, Layer::Ip));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_flow(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            of(&frame, Layer::Ip);
            of(&frame, Layer::Ethernet);
        }
    }
}
