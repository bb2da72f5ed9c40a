//! DSCP and ECN: a packet's traffic class (RFC 2474, RFC 3168), and ECN across a tunnel (RFC 6040).

use super::checksum::adjusted;
use super::ip::{IPV4_HEADER, IPV6_HEADER};
use super::layer::Layer;

/// Mask of the ECN bits.
pub const ECN: u8 = 3;
/// The transport is not ECN-capable.
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
/// Congestion was experienced.
pub const CE: u8 = 3;

/// Returns a frame's traffic class, with DSCP in the upper six bits; 0 if it is no IP packet.
pub fn of(frame: &[u8], layer: Layer) -> u8 {
    of_packet(frame, layer).unwrap_or(0)
}

fn of_packet(frame: &[u8], layer: Layer) -> Option<u8> {
    let packet = frame.get(layer.network(frame)?..)?;
    let (first, second) = (*packet.first()?, *packet.get(1)?);
    Some(if first >> 4 == 4 { second } else { first << 4 | second >> 4 })
}

/// Whether a packet with this codepoint may be marked rather than dropped.
pub fn is_capable(ecn: u8) -> bool {
    ecn & ECN != NOT_ECT
}

/// What to do with a frame that came in a datagram with the codepoint `outer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Pass it unchanged.
    AsItIs,
    /// Pass it with this codepoint.
    Marked(u8),
    /// Drop it: congestion was experienced, and its transport would not see a mark.
    Dropped,
}

/// Applies RFC 6040 figure 4.
pub fn arrival(frame: &[u8], layer: Layer, outer: u8) -> Arrival {
    if !matches!(outer & ECN, CE | ECT_1) {
        return Arrival::AsItIs;
    }
    let Some(inner) = of_packet(frame, layer) else { return Arrival::AsItIs };
    match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => Arrival::Dropped,
        (ECT_0 | ECT_1, CE) => Arrival::Marked(CE),
        (ECT_0, ECT_1) => Arrival::Marked(ECT_1),
        _ => Arrival::AsItIs,
    }
}

/// Combines the codepoints of the datagrams that carried a frame's parts.
pub fn stronger(one: u8, two: u8) -> u8 {
    let rank = |ecn: u8| match ecn & ECN {
        CE => 2,
        ECT_1 => 1,
        _ => 0,
    };
    if rank(one) > rank(two) { one } else { two }
}

/// Sets the ECN codepoint of a packet and updates its header checksum.
pub fn mark(frame: &mut [u8], layer: Layer, codepoint: u8) {
    let Some(packet) = layer.network(frame).and_then(|at| frame.get_mut(at..)) else { return };
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER => {
            let word = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let old = word(packet, 0);
            packet[1] = packet[1] & !ECN | codepoint & ECN;
            let sum = adjusted(word(packet, 10), old, word(packet, 0));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Some(6) if packet.len() >= IPV6_HEADER => packet[1] = packet[1] & 0xcf | (codepoint & ECN) << 4,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::checksum;
    use super::*;

    fn v4(class: u8) -> Vec<u8> {
        let mut packet = vec![0x45, class, 0, 20, 1, 2, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn v6(class: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[1]) = (0x60 | class >> 4, class << 4 | 7);
        packet
    }

    #[test]
    fn the_class_is_read_in_both_families_and_is_zero_elsewhere() {
        for class in [0, 0xb8, 0x2e, 0xff] {
            assert_eq!(of(&v4(class), Layer::Ip), class);
            assert_eq!(of(&v6(class), Layer::Ip), class);
            let tagged = [&[2; 12][..], &[0x81, 0, 0, 5, 8, 0], &v4(class)].concat();
            assert_eq!(of(&tagged, Layer::Ethernet), class);
        }
        assert_eq!(of(&[], Layer::Ip), 0);
        assert_eq!(of(&[0x45], Layer::Ip), 0);
        assert_eq!(of(&[2; 60], Layer::Ethernet), 0);
    }

    /// RFC 6040 figure 4. Rows: inner; columns, outer: Not-ECT, ECT(1), ECT(0), CE.
    #[test]
    fn every_pair_of_codepoints_gives_what_rfc_6040_says() {
        let dropped = None;
        let rows = [
            (0, [Some(0), Some(0), Some(0), dropped]),
            (1, [Some(1), Some(1), Some(1), Some(3)]),
            (2, [Some(2), Some(1), Some(2), Some(3)]),
            (3, [Some(3), Some(3), Some(3), Some(3)]),
        ];
        for (inner, outcomes) in rows {
            for (outer, expected) in outcomes.into_iter().enumerate() {
                for mut packet in [v4(0xb8 | inner), v6(0xb8 | inner)] {
                    let got = match arrival(&packet, Layer::Ip, outer as u8) {
                        Arrival::AsItIs => Some(inner),
                        Arrival::Dropped => None,
                        Arrival::Marked(codepoint) => {
                            mark(&mut packet, Layer::Ip, codepoint);
                            assert!(packet[0] >> 4 == 6 || checksum(&[&packet]) == 0);
                            Some(of(&packet, Layer::Ip) & ECN)
                        }
                    };
                    assert_eq!(got, expected, "inner {inner}, outer {outer}");
                    assert_eq!(of(&packet, Layer::Ip) & !ECN, 0xb8, "DSCP stays");
                }
            }
        }
        assert_eq!(arrival(&[2; 60], Layer::Ethernet, CE), Arrival::AsItIs, "no IP takes no mark");
    }
}
