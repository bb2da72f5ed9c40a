//! The guard's probe: where this frame comes out again tells whether the segments are joined elsewhere (PROTOCOL.md §7.1).

use super::classify::behind_tags;
use crate::crypto::constant_time;
use crate::crypto::keys::ProbeKey;

/// The first EtherType for local experiments (IEEE 802, section 9.2.4).
const KIND: [u8; 2] = [0x88, 0xb5];
/// Tells it from other frames of that type.
const MAGIC: [u8; 4] = *b"tund";
/// Frame length in bytes: Ethernet's minimum without check sequence, and a tag.
const LENGTH: usize = 64;

/// Sender of a probe, drawn by each process.
pub type Origin = [u8; 8];

/// Contents of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Sender.
    pub origin: Origin,
    /// Number of the sender's round.
    pub round: u32,
    /// The VLAN it was sent to.
    pub vlan: Option<u16>,
}

impl Probe {
    /// Encodes it in 16 bytes, without the tag.
    pub fn block(self) -> [u8; 16] {
        let mut block = [0; 16];
        block[..8].copy_from_slice(&self.origin);
        block[8..12].copy_from_slice(&self.round.to_be_bytes());
        block[12..14].copy_from_slice(&self.vlan.unwrap_or(0).to_be_bytes());
        block
    }

    /// Decodes [`Probe::block`].
    pub fn parse(block: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, r, s, t, u, high, low, _, _] = block;
        let vlan = u16::from_be_bytes([high, low]);
        Self {
            origin: [a, b, c, d, e, f, g, h],
            round: u32::from_be_bytes([r, s, t, u]),
            vlan: (vlan != 0).then_some(vlan),
        }
    }

    /// Makes the frame: a broadcast from the origin's address.
    pub fn frame(self, key: &ProbeKey) -> Vec<u8> {
        let mut frame = Vec::with_capacity(LENGTH);
        frame.extend([0xff; 6]);
        frame.extend(address(self.origin));
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
        }
        let block = self.block();
        frame.extend(KIND);
        frame.extend(MAGIC);
        frame.extend(block);
        frame.extend(key.tag(block));
        frame.resize(LENGTH, 0);
        frame
    }

    /// Parses a frame from an end of the link; `None`: another frame, possibly another link's probe.
    pub fn of(frame: &[u8], key: &ProbeKey) -> Option<Self> {
        let (kind, at) = behind_tags(frame)?;
        let rest = frame.get(at..).filter(|_| kind == KIND)?;
        let (block, rest) = rest.strip_prefix(&MAGIC)?.split_first_chunk()?;
        let tag: &[u8; 16] = rest.first_chunk()?;
        constant_time::equal(tag, &key.tag(*block)).then(|| Self::parse(*block))
    }
}

/// The source address of an origin's probes, locally administered: bridges learn it where probes arrive.
pub fn address(origin: Origin) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = origin;
    [a & 0xfc | 2, b, c, d, e, f]
}

/// Where a probe came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The probe, this end's or the peer's.
    pub probe: Probe,
    /// Out of the tunnel rather than the device.
    pub tunnelled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_behind_any_tags_and_only_with_its_key() {
        let (key, other) = (ProbeKey::own(&[1; 16]), ProbeKey::own(&[2; 16]));
        for vlan in [None, Some(100)] {
            let probe = Probe { origin: *b"originat", round: 0x0102_0304, vlan };
            let frame = probe.frame(&key);
            assert_eq!(
                (frame.len(), Probe::of(&frame, &key), Probe::of(&frame, &other)),
                (64, Some(probe), None)
            );
            let tagged = [&frame[..12], &[0x88, 0xa8, 0, 7], &frame[12..]].concat();
            assert_eq!(Probe::of(&tagged, &key), Some(probe), "a provider's tag more");
            let end = if vlan.is_some() { 54 } else { 50 };
            for at in 12..end {
                let mut changed = frame.clone();
                changed[at] ^= 4;
                // The VLAN tag is not authenticated, as bridges change it.
                let is_of_bridges = vlan.is_some() && (14..16).contains(&at);
                assert_eq!(Probe::of(&changed, &key) == Some(probe), is_of_bridges, "byte {at}");
            }
            assert!((0..50).all(|end| Probe::of(&frame[..end], &key).is_none()), "cut");
        }
    }
}
