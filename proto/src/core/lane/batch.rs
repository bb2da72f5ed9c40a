//! Outgoing datagrams, sealed back to back at an equal stride, so that one call sends all.

use super::format::{Format, Head};
use crate::core::limits::DATAGRAM_MAX;
use crate::core::path::Path;
use crate::core::stats::DropReason;
use crate::crypto::aead::Aead;
use crate::crypto::keys::Masks;

/// Most datagrams in one call (linux/udp.h: UDP_MAX_SEGMENTS of older kernels).
const MOST: usize = 64;
/// Most bytes that also fit after IPv6 and UDP headers.
pub const LONGEST: usize = 65_487;

/// Sealed and masked datagrams for one address. All are `stride` bytes long; the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// The datagrams, back to back.
    pub bytes: &'a [u8],
    /// Length of all but the last, in bytes.
    pub stride: usize,
    /// Traffic class of their IP headers: ECN in the lower two bits, DSCP above.
    pub class: u8,
    /// Destination.
    pub to: Path,
}

impl<'a> Transmit<'a> {
    /// One datagram.
    pub fn one(bytes: &'a [u8], class: u8, to: Path) -> Self {
        Self { bytes, stride: bytes.len(), class, to }
    }

    /// Number of datagrams.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride.max(1))
    }
}

/// Layout of the datagrams in one call, back to back.
#[derive(Default)]
pub struct Train {
    /// Bytes used.
    pub used: usize,
    /// Length of each but the last, in bytes.
    pub stride: usize,
    count: usize,
    /// Nothing may follow, as the last is shorter.
    closed: bool,
}

impl Train {
    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a datagram of this length may be next.
    pub fn takes(&self, length: usize) -> bool {
        self.is_empty() || length <= self.stride && !self.is_full()
    }

    /// Whether it must be sent before anything is added.
    pub fn is_full(&self) -> bool {
        self.closed || self.count == MOST || self.count > 0 && self.used + self.stride > LONGEST
    }

    /// Adds a datagram of this length.
    pub fn add(&mut self, length: usize) {
        if self.is_empty() {
            self.stride = length;
        }
        self.closed = length < self.stride;
        self.used += length;
        self.count += 1;
    }
}

/// Datagrams under construction.
pub(super) struct Batch {
    format: Format,
    buffer: Vec<u8>,
    pub train: Train,
    /// Traffic class of its datagrams.
    pub class: u8,
    masks: Masks,
}

impl Batch {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            buffer: vec![0; LONGEST.max(DATAGRAM_MAX)],
            train: Train::default(),
            class: 0,
            masks: Masks::with_capacity(MOST),
        }
    }

    /// Whether a datagram with such a body may be next.
    pub fn takes(&self, body: usize) -> bool {
        self.train.takes(self.format.overhead() + body)
    }

    /// Whether many datagrams with such bodies may follow.
    pub fn takes_more(&self, body: usize) -> bool {
        self.train.is_empty() || self.format.overhead() + body == self.train.stride && !self.train.is_full()
    }

    /// Where to write the next body.
    pub fn body(&mut self, length: usize) -> &mut [u8] {
        let at = self.train.used + self.format.body(0).start;
        &mut self.buffer[at..at + length]
    }

    /// Seals the next body, of `length` bytes.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if the cipher refuses the length.
    pub fn add(&mut self, head: Head, aead: &Aead, length: usize) -> Result<(), DropReason> {
        let total = self.format.overhead() + length;
        let at = self.train.used;
        self.format.seal(head, aead, &mut self.buffer[at..at + total])?;
        self.train.add(total);
        Ok(())
    }

    /// Masks the heads of all datagrams.
    pub fn finish(&mut self, to: Path) -> Transmit<'_> {
        let Train { used, stride, .. } = self.train;
        let bytes = &mut self.buffer[..used];
        self.format.hide(bytes, stride, &mut self.masks);
        Transmit { bytes, stride, class: self.class, to }
    }
}
