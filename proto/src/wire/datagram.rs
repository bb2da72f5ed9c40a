//! The outside of a data datagram (PROTOCOL.md §2 to §4).
//!
//! ```text
//! handshake mode:            header (5) | body | tag (16)    header masked
//! static mode:    key id (16) | header (5) | body | tag (16)    key id and header masked
//! header:         slot:2 kind:2 lane:4 | counter (4)
//! ```

use std::ops::Range;

use crate::crypto::aead::TAG;

/// Length of a key id in static mode.
pub const KEY_ID: usize = 16;
/// Length of the header.
pub const HEADER: usize = 5;

/// The layout in front of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Header only: both ends have the session's keys.
    Session,
    /// Key id and header: each datagram is self-contained.
    Static,
}

impl Framing {
    /// Offset of the body, and length of the mask.
    pub const fn prefix(self) -> usize {
        match self {
            Framing::Session => HEADER,
            Framing::Static => KEY_ID + HEADER,
        }
    }

    /// Overhead of a datagram in bytes.
    pub const fn overhead(self) -> usize {
        self.prefix() + TAG
    }

    /// Returns a datagram's tag, also the sample for its mask; `None` if it is too short to have a body.
    pub fn tag(self, datagram: &[u8]) -> Option<[u8; TAG]> {
        if datagram.len() < self.overhead() {
            return None;
        }
        datagram.last_chunk().copied()
    }

    /// Range of the body in a datagram of `length` bytes.
    pub fn body(self, length: usize) -> Range<usize> {
        self.prefix()..length.saturating_sub(TAG).max(self.prefix())
    }
}

/// The type of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One whole frame.
    Frame = 0,
    /// A part of the frame stream (§5).
    Block = 1,
    /// A control message (§6).
    Control = 2,
    /// Unused; dropped.
    Reserved = 3,
}

/// The five bytes before the body; also the AEAD's associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The receiver's session slot, 0 to 3; always 0 in static mode.
    pub slot: u8,
    /// Type of the body.
    pub kind: Kind,
    /// The sender's lane, 0 to 15.
    pub lane: u8,
    /// Number of the datagram under its key; also the nonce.
    pub counter: u32,
}

impl Header {
    /// Parses a header; any five bytes are valid.
    pub fn parse(bytes: [u8; HEADER]) -> Self {
        let [first, counter @ ..] = bytes;
        let kind = match first >> 4 & 3 {
            0 => Kind::Frame,
            1 => Kind::Block,
            2 => Kind::Control,
            _ => Kind::Reserved,
        };
        Self { slot: first >> 6, kind, lane: first & 15, counter: u32::from_be_bytes(counter) }
    }

    /// Encodes the header.
    pub fn emit(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.counter.to_be_bytes();
        [self.slot << 6 | (self.kind as u8) << 4 | self.lane & 15, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_survives_the_round_trip() {
        for first in 0..=255 {
            let bytes = [first, 1, 2, 3, 4];
            assert_eq!(Header::parse(bytes).emit(), bytes);
        }
        assert_eq!(
            Header::parse([0x95, 0, 0, 1, 0]),
            Header { slot: 2, kind: Kind::Block, lane: 5, counter: 256 }
        );
    }

    #[test]
    fn a_datagram_without_room_for_a_body_has_no_tag() {
        for framing in [Framing::Session, Framing::Static] {
            let overhead = framing.overhead();
            assert_eq!(framing.tag(&vec![0; overhead - 1]), None);
            assert!(framing.tag(&vec![0; overhead]).is_some());
            assert!(framing.body(overhead).is_empty());
        }
        assert_eq!((Framing::Session.overhead(), Framing::Static.overhead()), (21, 37));
    }
}
