//! Finds the IP header of a frame.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::word;

/// What the device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Routed: IP packets.
    Tun,
    /// Bridged: Ethernet frames.
    Tap,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tun => "tun",
            Self::Tap => "tap",
        })
    }
}

/// The outermost header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// IP: frames of a tun device.
    Ip,
    /// Ethernet (IEEE 802.3): frames of a tap device.
    Ethernet,
}

/// Most 802.1Q and 802.1ad tags that are skipped. The guard skips more of them, and 0x9100: nothing may hide from it. What is found here is joined,
/// and the kernel, which cuts it up again, takes only these two EtherTypes for tags (`eth_type_vlan` of include/linux/if_vlan.h).
const MOST_TAGS: usize = 2;
/// Length of both Ethernet addresses.
pub(super) const ADDRESSES: usize = 12;

impl Layer {
    /// Returns the offset of the IP header; `None`: no IP packet.
    pub fn network(self, frame: &[u8]) -> Option<usize> {
        let at = match self {
            Layer::Ip => 0,
            Layer::Ethernet => behind_ethernet(frame)?,
        };
        matches!(frame.get(at)? >> 4, 4 | 6).then_some(at)
    }
}

fn behind_ethernet(frame: &[u8]) -> Option<usize> {
    let mut at = ADDRESSES;
    for _ in 0..=MOST_TAGS {
        let kind = word(frame, at)?;
        match kind {
            0x8100 | 0x88a8 => at += 4,
            0x0800 | 0x86dd => {
                let version = if kind == 0x0800 { 4 } else { 6 };
                return (frame.get(at + 2)? >> 4 == version).then_some(at + 2);
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(tags: &[u16], kind: u16) -> Vec<u8> {
        let mut frame = vec![0x02; ADDRESSES];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 100]);
        }
        frame.extend(kind.to_be_bytes());
        frame.extend([if kind == 0x86dd { 0x60 } else { 0x45 }; 20]);
        frame
    }

    #[test]
    fn ip_is_found_behind_ethernet_and_its_tags() {
        assert_eq!(Layer::Ethernet.network(&ethernet(&[], 0x0800)), Some(14));
        assert_eq!(Layer::Ethernet.network(&ethernet(&[0x8100], 0x86dd)), Some(18));
        assert_eq!(Layer::Ethernet.network(&ethernet(&[0x88a8, 0x8100], 0x0800)), Some(22));
        assert_eq!(Layer::Ip.network(&[0x45]), Some(0));
    }

    #[test]
    fn what_is_no_ip_is_not_taken_for_it() {
        assert_eq!(Layer::Ethernet.network(&ethernet(&[], 0x0806)), None, "ARP");
        assert_eq!(Layer::Ethernet.network(&ethernet(&[0x8100; 3], 0x0800)), None, "too many tags");
        let mut wrong = ethernet(&[], 0x0800);
        wrong[14] = 0x60;
        assert_eq!(Layer::Ethernet.network(&wrong), None, "another version than announced");
        for cut in 0..15 {
            assert_eq!(Layer::Ethernet.network(&ethernet(&[], 0x0800)[..cut]), None);
        }
        assert_eq!(Layer::Ip.network(&[0x15]), None);
        assert_eq!(Layer::Ip.network(&[]), None);
    }
}
