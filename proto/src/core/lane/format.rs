//! Datagram formats: the only module that knows their layouts.
//!
//! A lane asks its format for everything that depends on the layout: where a body is, what is sealed and masked, which
//! key a datagram names, and whether it is data at all.

use std::ops::Range;
use std::sync::Arc;

use super::orders::Name;
use crate::config::KeyMode;
use crate::core::key_id::KeyId;
use crate::core::limits::INITIATION_HYBRID;
use crate::core::stats::DropReason;
use crate::crypto::aead::{Aead, TAG};
use crate::crypto::keys::{LinkKeys, MASK, Masks};
use crate::crypto::wrap;
use crate::wire::datagram::{Framing, HEADER, Header, KEY_ID, Kind};

/// The layout and masking of a link's datagrams.
#[derive(Clone)]
pub struct Format {
    framing: Framing,
    keys: Arc<LinkKeys>,
}

/// What precedes a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Name of its key.
    pub name: Name,
    /// Header.
    pub header: Header,
}

/// The kind of a datagram, before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Sealed with a key of the link, unless from a stranger.
    Data,
    /// A handshake.
    Handshake,
    /// In the layout of the other key mode.
    OtherMode,
}

impl From<KeyMode> for Framing {
    fn from(mode: KeyMode) -> Self {
        match mode {
            KeyMode::Static => Framing::Static,
            // An OpenVPN peer's link has different lanes.
            KeyMode::Handshake | KeyMode::OpenVpn => Framing::Session,
        }
    }
}

impl Format {
    /// The format of a link with these keys.
    pub fn new(framing: Framing, keys: Arc<LinkKeys>) -> Self {
        Self { framing, keys }
    }

    /// Overhead of a datagram in bytes.
    pub fn overhead(&self) -> usize {
        self.framing.overhead()
    }

    /// Range of the body in a datagram of `length` bytes.
    pub fn body(&self, length: usize) -> Range<usize> {
        self.framing.body(length)
    }

    /// Seals a datagram in place. It has the plain body and room before and after it.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if the cipher refuses the length.
    pub fn seal(&self, head: Head, aead: &Aead, datagram: &mut [u8]) -> Result<(), DropReason> {
        let prefix = self.framing.prefix();
        if let Name::KeyId(key_id) = head.name {
            datagram[..KEY_ID].copy_from_slice(&key_id.0);
        }
        let header = head.header.emit();
        datagram[prefix - HEADER..prefix].copy_from_slice(&header);
        let length = datagram.len() - self.overhead();
        let (body, tag) = datagram[prefix..].split_at_mut(length);
        tag.copy_from_slice(&aead.seal(head.header.counter, &header, body).map_err(|_| DropReason::TooBig)?);
        Ok(())
    }

    /// Makes a sealed and masked datagram with this body.
    ///
    /// # Errors
    /// As [`Format::seal`].
    pub fn datagram(&self, head: Head, aead: &Aead, body: &[u8]) -> Result<Vec<u8>, DropReason> {
        let length = self.overhead() + body.len();
        let mut datagram = vec![0; length];
        datagram[self.body(length)].copy_from_slice(body);
        self.seal(head, aead, &mut datagram)?;
        self.hide(&mut datagram, length, &mut Masks::default());
        Ok(datagram)
    }

    /// Masks the heads of sealed datagrams. Each is `stride` bytes long; the last may be shorter.
    pub fn hide(&self, datagrams: &mut [u8], stride: usize, masks: &mut Masks) {
        let prefix = self.framing.prefix();
        let tags = datagrams.chunks(stride).filter_map(|datagram| datagram.last_chunk::<TAG>());
        self.keys.masks(tags, prefix, masks);
        for (index, datagram) in datagrams.chunks_mut(stride).enumerate() {
            let mask = masks.get(index);
            for (byte, mask) in datagram[..prefix].iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
    }

    /// Computes the masks of datagrams received together, for [`Format::head`].
    pub fn masks(&self, datagrams: &[u8], stride: usize, masks: &mut Masks) {
        let tags = datagrams.chunks(stride).map(|datagram| datagram.last_chunk().unwrap_or(&[0; TAG]));
        self.keys.masks(tags, self.framing.prefix(), masks);
    }

    /// Returns the mask of a datagram; `None` if it is too short for a body.
    pub fn mask(&self, datagram: &[u8]) -> Option<[u8; MASK]> {
        Some(self.keys.mask(&self.framing.tag(datagram)?))
    }

    /// Classifies a datagram. Once the ends have `agreed`, the other key mode is not considered.
    ///
    /// Handshakes come first, as a failed attempt to open destroys the bytes. Data has a matching probe only by a chance of one in 2^64.
    pub fn sort(&self, datagram: &[u8], agreed: bool) -> Sort {
        let is_handshake =
            || datagram.len() <= *INITIATION_HYBRID.end() && wrap::is_probe(&self.keys, datagram);
        match self.framing {
            Framing::Session if is_handshake() => Sort::Handshake,
            Framing::Session if !agreed && self.has_key_id(datagram) => Sort::OtherMode,
            Framing::Static if !agreed && is_handshake() => Sort::OtherMode,
            Framing::Session | Framing::Static => Sort::Data,
        }
    }

    /// Reads the head.
    ///
    /// # Errors
    /// [`DropReason::TooShort`] if there is no room for a body.
    pub fn head(&self, mask: &[u8; MASK], datagram: &[u8]) -> Result<Head, DropReason> {
        if datagram.len() < self.overhead() {
            return Err(DropReason::TooShort);
        }
        Ok(match self.framing {
            Framing::Static => {
                let (key_id, header) = unmask(mask, datagram);
                Head { name: Name::KeyId(key_id), header }
            }
            Framing::Session => {
                let header = unmask_header(mask, datagram);
                Head { name: Name::Slot(header.slot), header }
            }
        })
    }

    /// Whether a peer may write such a header in that lane.
    pub fn is_sound(&self, head: Head, lane: u8) -> bool {
        let Header { slot, kind, lane: of, .. } = head.header;
        let slot_fits = match self.framing {
            Framing::Static => slot == 0,
            Framing::Session => true,
        };
        slot_fits && of == lane && kind != Kind::Reserved
    }

    /// Opens a datagram in place; returns the range of its body.
    ///
    /// # Errors
    /// [`DropReason::BadTag`]; the bytes are destroyed then.
    pub fn open(&self, head: Head, aead: &Aead, datagram: &mut [u8]) -> Result<Range<usize>, DropReason> {
        let range = self.body(datagram.len());
        let Header { counter, .. } = head.header;
        aead.open(counter, &head.header.emit(), &mut datagram[range.start..])
            .map_err(|_| DropReason::BadTag)?;
        Ok(range)
    }

    /// Whether a datagram has a valid static-mode key id.
    fn has_key_id(&self, datagram: &[u8]) -> bool {
        let tag = Framing::Static.tag(datagram);
        tag.is_some_and(|tag| unmask(&self.keys.mask(&tag), datagram).0.is_valid(&self.keys))
    }
}

/// Unmasks key id and header of a static datagram long enough for a tag.
pub fn unmask(mask: &[u8; MASK], datagram: &[u8]) -> (KeyId, Header) {
    let mut head = *mask;
    for (byte, masked) in head.iter_mut().zip(datagram) {
        *byte ^= masked;
    }
    let mut key_id = [0; KEY_ID];
    let mut header = [0; HEADER];
    key_id.copy_from_slice(&head[..KEY_ID]);
    header.copy_from_slice(&head[KEY_ID..]);
    (KeyId(key_id), Header::parse(header))
}

fn unmask_header(mask: &[u8; MASK], datagram: &[u8]) -> Header {
    let mut header = [0; HEADER];
    for (byte, (masked, mask)) in header.iter_mut().zip(datagram.iter().zip(mask)) {
        *byte = masked ^ mask;
    }
    Header::parse(header)
}

const _: () = assert!(MASK == Framing::Static.prefix());
