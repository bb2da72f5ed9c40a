//! Datagrams on their way out: sealed one behind the other at an equal stride, so that one call sends all.

use super::format::{Format, Head};
use crate::core::limits::DATAGRAM_MAX;
use crate::core::path::Path;
use crate::core::stats::DropReason;
use crate::crypto::aead::Aead;
use crate::crypto::keys::Masks;

/// Most datagrams that one call sends (linux/udp.h: UDP_MAX_SEGMENTS of older kernels).
const MOST: usize = 64;
/// Most bytes: what fits behind IPv6 and UDP headers as well.
pub const LONGEST: usize = 65_487;

/// Datagrams for one address, sealed and masked. All are `stride` bytes long but the last, which may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// One behind the other.
    pub bytes: &'a [u8],
    /// Length of each but the last, in bytes.
    pub stride: usize,
    /// The traffic class for their IP headers: ECN in the lower two bits, DSCP above.
    pub class: u8,
    /// Where to.
    pub to: Path,
}

impl<'a> Transmit<'a> {
    /// One datagram.
    pub fn one(bytes: &'a [u8], class: u8, to: Path) -> Self {
        Self { bytes, stride: bytes.len(), class, to }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride.max(1))
    }
}

/// How datagrams that one call sends stand one behind the other.
#[derive(Default)]
pub struct Train {
    /// Their bytes so far.
    pub used: usize,
    /// Length of each but the last, in bytes.
    pub stride: usize,
    count: usize,
    /// Nothing may follow: the last is shorter than the others.
    closed: bool,
}

impl Train {
    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a datagram of this length may be next.
    pub fn takes(&self, length: usize) -> bool {
        self.is_empty() || length <= self.stride && !self.is_full()
    }

    /// Whether it must go out before anything follows.
    pub fn is_full(&self) -> bool {
        self.closed || self.count == MOST || self.count > 0 && self.used + self.stride > LONGEST
    }

    /// One of this length is next.
    pub fn add(&mut self, length: usize) {
        if self.is_empty() {
            self.stride = length;
        }
        self.closed = length < self.stride;
        self.used += length;
        self.count += 1;
    }
}

/// Datagrams that are being made.
pub(super) struct Batch {
    format: Format,
    buffer: Vec<u8>,
    pub train: Train,
    /// Traffic class of what is in it, or will be.
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

    /// Whether a datagram with a body of this length may be next.
    pub fn takes(&self, body: usize) -> bool {
        self.train.takes(self.format.overhead() + body)
    }

    /// Whether many datagrams with bodies of this length may follow.
    pub fn takes_more(&self, body: usize) -> bool {
        self.train.is_empty() || self.format.overhead() + body == self.train.stride && !self.train.is_full()
    }

    /// Where the next body is to be written.
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

    /// Hides the heads of everything in it.
    pub fn finish(&mut self, to: Path) -> Transmit<'_> {
        let Train { used, stride, .. } = self.train;
        let bytes = &mut self.buffer[..used];
        self.format.hide(bytes, stride, &mut self.masks);
        Transmit { bytes, stride, class: self.class, to }
    }
}
