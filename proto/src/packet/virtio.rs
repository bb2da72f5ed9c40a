//! `struct virtio_net_hdr` (linux/virtio_net.h). It precedes every frame of the device and says what work the kernel,
//! or tund, has left to the other.

/// Length in bytes.
pub const HEADER: usize = 10;

/// The transport checksum holds only the pseudo-header sum and must be completed.
const NEEDS_CSUM: u8 = 1;
/// In `gso_type`: a segment may have the CWR flag.
const ECN: u8 = 0x80;

/// Kind of super-frame, with its number in `gso_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A single frame.
    Single = 0,
    /// TCP over IPv4, to be segmented.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 4,
    /// UDP of either family, to be cut into datagrams.
    Udp = 5,
}

/// A virtio header. Numbers are in native byte order, the kernel's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Virtio {
    /// Where summing begins, in bytes from the start of the frame, and the offset of the checksum field from there.
    pub checksum: Option<(u16, u16)>,
    /// Frame kind.
    pub kind: Kind,
    /// Length of all headers of a super-frame in bytes. The kernel gives it as a hint only.
    pub headers: u16,
    /// Payload of every segment but the last, in bytes.
    pub segment: u16,
}

impl Virtio {
    /// The header of a complete frame.
    pub const PLAIN: Self = Self { checksum: None, kind: Kind::Single, headers: 0, segment: 0 };

    /// Parses a header. `None`: a kind that tund never enabled.
    pub fn parse(bytes: [u8; HEADER]) -> Option<Self> {
        let [flags, kind, rest @ ..] = bytes;
        let number = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let kinds = [Kind::Single, Kind::TcpV4, Kind::TcpV6, Kind::Udp];
        let kind = kinds.into_iter().find(|known| *known as u8 == kind & !ECN)?;
        let checksum = (flags & NEEDS_CSUM != 0).then(|| (number(4), number(6)));
        Some(Self { checksum, kind, headers: number(0), segment: number(2) })
    }

    /// Encodes the header.
    pub fn emit(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = if self.checksum.is_some() { NEEDS_CSUM } else { 0 };
        bytes[1] = self.kind as u8;
        let (start, offset) = self.checksum.unwrap_or_default();
        for (at, number) in [self.headers, self.segment, start, offset].into_iter().enumerate() {
            bytes[2 + 2 * at..4 + 2 * at].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_frame_has_ten_zero_bytes() {
        assert_eq!(Virtio::PLAIN.emit(), [0; HEADER]);
        assert_eq!(Virtio::parse([0; HEADER]), Some(Virtio::PLAIN));
    }

    #[test]
    fn every_kind_survives_the_round_trip_and_others_are_refused() {
        for kind in [Kind::Single, Kind::TcpV4, Kind::TcpV6, Kind::Udp] {
            for checksum in [None, Some((34, 16))] {
                let header = Virtio { checksum, kind, headers: 54, segment: 1380 };
                let mut bytes = header.emit();
                assert_eq!(Virtio::parse(bytes), Some(header));
                bytes[1] |= ECN;
                assert_eq!(Virtio::parse(bytes), Some(header));
            }
        }
        for kind in [2, 3, 6, 0x7f] {
            assert_eq!(Virtio::parse([0, kind, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        }
    }
}
