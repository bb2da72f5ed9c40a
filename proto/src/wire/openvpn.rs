//! The plaintext of OpenVPN's static-key mode: packet id, fragment header, compression framing, ping and OCC messages.
//!
//! ```text
//! plain = seq (4) | time (4) | [fragment header (4)] | [compression byte] | payload
//! ```
//!
//! The facts are from captures and experiments with OpenVPN 2.4 to 2.7.

use serde::{Deserialize, Serialize};

/// Length of a packet id in bytes.
pub const PACKET_ID: usize = 8;
/// Length of the fragment header in bytes.
pub const FRAGMENT_HEADER: usize = 4;
/// Payload of a keepalive.
pub const PING: [u8; 16] =
    [0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48];
/// Prefix of every message about options or path (OpenVPN: OCC).
const OCC: [u8; 16] =
    [0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c];
/// Most fragments of a packet.
pub const PARTS: usize = 32;

/// A datagram's packet id: `time` is the sender's start, `seq` counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketId {
    /// Never 0.
    pub seq: u32,
    /// Seconds since the Unix epoch.
    pub time: u32,
}

impl PacketId {
    /// Parses the first eight bytes; returns the body too.
    pub fn parse(plain: &[u8]) -> Option<(Self, &[u8])> {
        let (id, body) = plain.split_first_chunk::<PACKET_ID>()?;
        let id = u64::from_be_bytes(*id);
        Some((Self { seq: (id >> 32) as u32, time: id as u32 }, body))
    }

    /// Encodes it.
    pub fn emit(self) -> [u8; PACKET_ID] {
        (u64::from(self.seq) << 32 | u64::from(self.time)).to_be_bytes()
    }
}

/// Framing of an uncompressed payload, by the peer's compression option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// No framing.
    None,
    /// `comp-lzo` in all its forms, `compress lzo`.
    CompLzo,
    /// `compress`, `compress stub`, `compress lz4`.
    Stub,
    /// `compress stub-v2`, `compress lz4-v2`.
    StubV2,
}

/// Why a body is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misframed {
    /// The byte is unknown to this framing.
    Unknown,
    /// It is compressed; tund never decompresses.
    Compressed,
}

const LZO_COMPRESSED: u8 = 0x66;
const LZ4_COMPRESSED: u8 = 0x69;
const NOT_LZO: u8 = 0xfa;
const NOT_SWAPPED: u8 = 0xfb;
const V2: u8 = 0x50;

impl Framing {
    /// OpenVPN's name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CompLzo => "comp-lzo",
            Self::Stub => "stub",
            Self::StubV2 => "stub-v2",
        }
    }

    /// Most bytes that it adds to a payload.
    pub fn most(self) -> usize {
        match self {
            Self::None => 0,
            Self::CompLzo | Self::Stub => 1,
            Self::StubV2 => 2,
        }
    }

    /// Bytes that it adds by OpenVPN's MTU calculation.
    pub fn counted(self) -> usize {
        usize::from(matches!(self, Self::CompLzo | Self::Stub))
    }

    /// The framing bytes in front of this payload, if any.
    fn front(self, payload: &[u8]) -> &'static [u8] {
        match self {
            Self::CompLzo => &[NOT_LZO],
            Self::Stub => &[NOT_SWAPPED],
            Self::StubV2 if payload.first() == Some(&V2) => &[V2, 0],
            Self::None | Self::StubV2 => &[],
        }
    }

    /// Writes a payload, given in two consecutive parts, with its framing; returns the length. `room` is [`Framing::most`]
    /// bytes longer than the payload.
    pub fn write(self, head: &[u8], tail: &[u8], room: &mut [u8]) -> usize {
        let front = self.front(if head.is_empty() { tail } else { head });
        let length = front.len() + head.len() + tail.len();
        let (before, rest) = room[..length].split_at_mut(front.len());
        before.copy_from_slice(front);
        rest[..head.len()].copy_from_slice(head);
        rest[head.len()..].copy_from_slice(tail);
        if self == Self::Stub {
            // The payload's first byte moves to the end.
            rest.rotate_left(usize::from(!rest.is_empty()));
        }
        length
    }

    /// Returns the payload of a body, reordered in place.
    ///
    /// # Errors
    /// [`Misframed`].
    pub fn read(self, body: &mut [u8]) -> Result<&[u8], Misframed> {
        let Some(first) = body.first().copied() else { return Ok(body) };
        match (self, first) {
            (Self::None, _) => Ok(body),
            (Self::CompLzo, NOT_LZO) => Ok(&body[1..]),
            (Self::CompLzo, LZO_COMPRESSED) | (Self::Stub, LZ4_COMPRESSED) => Err(Misframed::Compressed),
            (Self::Stub, NOT_SWAPPED) => {
                let payload = &mut body[1..];
                payload.rotate_right(usize::from(!payload.is_empty()));
                Ok(payload)
            }
            (Self::StubV2, V2) => match body.get(1) {
                Some(0) => Ok(&body[2..]),
                Some(_) => Err(Misframed::Compressed),
                None => Err(Misframed::Unknown),
            },
            (Self::StubV2, _) => Ok(body),
            (Self::CompLzo | Self::Stub, _) => Err(Misframed::Unknown),
        }
    }
}

/// A peer's framing, as seen in its ping. No framing and version 2 look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The framing; never [`Framing::StubV2`].
    pub framing: Framing,
    /// Whether there is a fragment header.
    pub fragments: bool,
}

impl Told {
    /// Recognises a ping, or a message about options, in some framing.
    pub fn of(body: &[u8]) -> Option<Self> {
        let (body, fragments) = match body.strip_prefix(&[0; FRAGMENT_HEADER]) {
            Some(rest) => (rest, true),
            None => (body, false),
        };
        let (first, rest) = body.split_first()?;
        let framing = match (*first, rest.split_first(), rest.split_last()) {
            (NOT_LZO, Some((first, rest)), _) if is_known(*first, rest) => Framing::CompLzo,
            (NOT_SWAPPED, _, Some((first, rest))) if is_known(*first, rest) => Framing::Stub,
            (first, ..) if is_known(first, rest) => Framing::None,
            _ => return None,
        };
        Some(Self { framing, fragments })
    }
}

/// Whether a payload, given as first byte and rest, is one that every sender frames.
fn is_known(first: u8, rest: &[u8]) -> bool {
    first == PING[0] && *rest == PING[1..] || first == OCC[0] && rest.starts_with(&OCC[1..])
}

/// The fragment header (with `fragment` set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// Fragment `number` of packet `id`. More follow, of equal length.
    More {
        /// Number of the sender's fragmented packet, modulo 256.
        id: u8,
        /// From 0.
        number: u8,
    },
    /// The last fragment.
    Last {
        /// As above.
        id: u8,
        /// As above.
        number: u8,
        /// Length of each earlier fragment, in bytes.
        size: usize,
    },
}

impl Fragment {
    /// Parses the header; `None` for one that no sender writes.
    pub fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = body.split_first_chunk::<FRAGMENT_HEADER>()?;
        let head = u32::from_be_bytes(*head);
        let (id, number) = ((head >> 2) as u8, (head >> 10 & 31) as u8);
        let fragment = match head & 3 {
            0 if (id, number) == (0, 0) => Self::Whole,
            1 => Self::More { id, number },
            2 => Self::Last { id, number, size: ((head >> 15 & 0x3fff) << 2) as usize },
            _ => return None,
        };
        Some((fragment, rest))
    }

    /// Encodes the header.
    pub fn emit(self) -> [u8; FRAGMENT_HEADER] {
        let word = |kind: u32, id: u8, number: u8| kind | u32::from(id) << 2 | u32::from(number) << 10;
        let head = match self {
            Self::Whole => 0,
            Self::More { id, number } => word(1, id, number),
            // A size is at most 65,532.
            Self::Last { id, number, size } => word(2, id, number) | (size as u32 >> 2) << 15,
        };
        head.to_be_bytes()
    }
}

/// A message about the options or the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occ<'a> {
    /// Requests the options.
    Request,
    /// The options, as text.
    Reply(&'a [u8]),
    /// Requests a [`Occ::Load`] with this datagram size.
    LoadRequest(u16),
    /// Filler: bytes of payload, header included.
    Load(usize),
    /// Requests a [`Occ::MtuReply`].
    MtuRequest,
    /// The largest datagrams received and sent, in bytes of UDP payload.
    MtuReply,
    /// The sender ends.
    Exit,
    /// tund's own, ignored by OpenVPN: the sender is tund and has no handshake keys with the receiver.
    Tund,
    /// Unknown type; ignored.
    Unknown(u8),
}

/// The type of tund's own message, far from OpenVPN's.
const TUND: u8 = 0x74;
/// Version of the upgrade procedure.
const VERSION: u8 = 1;
/// Length of the shortest message.
const OCC_HEADER: usize = OCC.len() + 1;

impl<'a> Occ<'a> {
    /// Parses a payload; `None`: not one of these messages.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let message = payload.strip_prefix(&OCC)?;
        let Some((kind, rest)) = message.split_first() else { return Some(Self::Unknown(u8::MAX)) };
        Some(match (kind, rest) {
            (0, _) => Self::Request,
            (1, text) => Self::Reply(text.split(|byte| *byte == 0).next().unwrap_or_default()),
            (2, [high, low, ..]) => Self::LoadRequest(u16::from_be_bytes([*high, *low])),
            (3, filling) => Self::Load(OCC_HEADER + filling.len()),
            (4, _) => Self::MtuRequest,
            (5, _) => Self::MtuReply,
            (6, _) => Self::Exit,
            (&TUND, [VERSION, ..]) => Self::Tund,
            (kind, _) => Self::Unknown(*kind),
        })
    }

    /// Payload that requests the options.
    pub fn request() -> Vec<u8> {
        occ(0, &[])
    }

    /// Payload with the options.
    pub fn reply(options: &str) -> Vec<u8> {
        occ(1, &[options.as_bytes(), &[0]].concat())
    }

    /// Payload that requests a datagram of this size.
    pub fn load_request(size: u16) -> Vec<u8> {
        occ(2, &size.to_be_bytes())
    }

    /// Payload that makes a datagram of `size` bytes, given the overhead `beyond`; never shorter than its header.
    pub fn load(size: u16, beyond: usize) -> Vec<u8> {
        let length = usize::from(size).min(LOAD).saturating_sub(beyond);
        occ(3, &vec![0; length.saturating_sub(OCC_HEADER)])
    }

    /// Payload that identifies this end as tund.
    pub fn tund() -> Vec<u8> {
        occ(TUND, &[VERSION])
    }

    /// Payload with the largest datagram sizes.
    pub fn mtu_reply(received: u16, sent: u16) -> Vec<u8> {
        occ(5, &[received.to_be_bytes(), sent.to_be_bytes()].concat())
    }
}

/// Largest datagram sent on a peer's request, that of a full Ethernet frame, in bytes.
const LOAD: usize = 1600;

fn occ(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&OCC[..], &[kind], rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Framing; 4] = [Framing::None, Framing::CompLzo, Framing::Stub, Framing::StubV2];

    fn written(framing: Framing, head: &[u8], tail: &[u8]) -> Vec<u8> {
        let mut room = vec![0; head.len() + tail.len() + framing.most()];
        let length = framing.write(head, tail, &mut room);
        room.truncate(length);
        room
    }

    #[test]
    fn each_framing_gives_back_what_it_took() {
        let payloads: [&[u8]; 6] =
            [b"", b"\x45", b"\x50", b"\x50\x01payload", b"\xfa\x00", b"\x45 some payload"];
        for (framing, payload) in
            ALL.into_iter().flat_map(|framing| payloads.map(|payload| (framing, payload)))
        {
            for cut in 0..=payload.len() {
                let (head, tail) = payload.split_at(cut);
                let mut body = written(framing, head, tail);
                assert!(body.len() <= payload.len() + framing.most());
                assert_eq!(framing.read(&mut body), Ok(payload), "{framing:?} {payload:?}");
            }
        }
    }

    #[test]
    fn framings_look_as_openvpn_writes_them() {
        assert_eq!(written(Framing::CompLzo, b"abc", b""), b"\xfaabc");
        assert_eq!(written(Framing::Stub, b"abc", b""), b"\xfbbca");
        assert_eq!(written(Framing::StubV2, b"abc", b""), b"abc");
        assert_eq!(written(Framing::StubV2, b"Pbc", b""), b"P\0Pbc");
    }

    #[test]
    fn a_ping_tells_how_its_sender_frames() {
        for framing in [Framing::None, Framing::CompLzo, Framing::Stub] {
            for fragments in [false, true] {
                let mut body = if fragments { vec![0; 4] } else { Vec::new() };
                body.extend(written(framing, &PING, b""));
                assert_eq!(Told::of(&body), Some(Told { framing, fragments }));
                body.push(0);
                assert_eq!(Told::of(&body), None, "one byte more is no ping");
            }
        }
        assert_eq!(Told::of(&[0; 20]), None);
    }

    #[test]
    fn compressed_and_unknown_bodies_are_told_apart() {
        assert_eq!(Framing::CompLzo.read(&mut [0x66, 1]), Err(Misframed::Compressed));
        assert_eq!(Framing::Stub.read(&mut [0x69, 1]), Err(Misframed::Compressed));
        assert_eq!(Framing::StubV2.read(&mut [0x50, 1, 2]), Err(Misframed::Compressed));
        assert_eq!(Framing::StubV2.read(&mut [0x50]), Err(Misframed::Unknown));
        assert_eq!(Framing::CompLzo.read(&mut [0x45, 1]), Err(Misframed::Unknown));
        assert_eq!(Framing::Stub.read(&mut [0xfa, 1]), Err(Misframed::Unknown));
    }

    #[test]
    fn every_fragment_header_survives_and_the_others_are_refused() {
        for head in 0..=u16::MAX {
            let bytes = (u32::from(head) << 2 | u32::from(head) & 3 | u32::from(head) << 15 & 0x1fff_8000)
                .to_be_bytes();
            let Some((fragment, rest)) = Fragment::parse(&bytes) else { continue };
            assert!(rest.is_empty());
            assert_eq!(Fragment::parse(&fragment.emit()), Some((fragment, rest)));
        }
        assert_eq!(Fragment::parse(&[0, 0, 0, 3]), None, "type 3");
        assert_eq!(Fragment::parse(&[0, 0, 4, 0]), None, "whole, but with a number");
        assert_eq!(Fragment::parse(&[0, 0, 1]), None);
        let last = Fragment::Last { id: 255, number: 31, size: 65_532 };
        assert_eq!(Fragment::parse(&last.emit()).map(|(it, _)| it), Some(last));
    }

    #[test]
    fn occ_messages_are_read_as_they_are_written() {
        assert_eq!(Occ::parse(&Occ::request()), Some(Occ::Request));
        assert_eq!(Occ::parse(&Occ::reply("V4,secret")), Some(Occ::Reply(b"V4,secret")));
        assert_eq!(Occ::parse(&Occ::load_request(777)), Some(Occ::LoadRequest(777)));
        assert_eq!(Occ::parse(&Occ::load(500, 44)), Some(Occ::Load(456)));
        assert_eq!(Occ::parse(&Occ::load(5, 44)), Some(Occ::Load(17)), "the header at least");
        assert!(Occ::load(u16::MAX, 44).len() <= LOAD);
        assert_eq!(Occ::parse(&Occ::mtu_reply(1, 2)), Some(Occ::MtuReply));
        assert_eq!(Occ::parse(&occ(6, &[])), Some(Occ::Exit));
        assert_eq!(Occ::parse(&Occ::tund()), Some(Occ::Tund));
        assert_eq!(Occ::parse(&occ(TUND, &[2])), Some(Occ::Unknown(TUND)), "another version");
        assert_eq!(Occ::parse(&occ(2, &[1])), Some(Occ::Unknown(2)), "no size");
        assert_eq!(Occ::parse(&OCC), Some(Occ::Unknown(255)));
        assert_eq!(Occ::parse(&PING), None);
    }
}
