//! CBC (NIST SP 800-38A §6.2) with HMAC (RFC 2104), encrypt-then-MAC, in the layout of OpenVPN's static-key mode:
//!
//! ```text
//! HMAC of all that follows | IV (one block) | CBC(plain | PKCS#7 padding)
//! ```
//!
//! CBC is sequential, so one datagram leaves most of an AES unit idle. Several are therefore sealed in step: all their
//! first blocks, then all their second ones (AES-256 alone: 730 MB/s one by one, 1700 MB/s with sixteen).

use std::ops::Range;

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use blowfish::Blowfish;
use des::TdesEde3;
use hmac::Hmac;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::aead::BadTag;
use super::constant_time;

/// Length of one direction's part of a key file. The cipher key is at 0, the HMAC key at 64.
pub const SLOT: usize = 128;
/// Datagrams sealed in step.
const STEP: usize = 16;

/// A block cipher in CBC mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CbcCipher {
    /// AES with a 128-bit key.
    Aes128,
    /// AES with a 192-bit key.
    Aes192,
    /// AES with a 256-bit key.
    Aes256,
    /// Blowfish with a 128-bit key and 64-bit blocks.
    Blowfish,
    /// Three-key triple DES, with 64-bit blocks.
    TripleDes,
}

impl CbcCipher {
    /// All ciphers.
    pub const ALL: [Self; 5] = [Self::Aes128, Self::Aes192, Self::Aes256, Self::Blowfish, Self::TripleDes];

    /// OpenVPN's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "AES-128-CBC",
            Self::Aes192 => "AES-192-CBC",
            Self::Aes256 => "AES-256-CBC",
            Self::Blowfish => "BF-CBC",
            Self::TripleDes => "DES-EDE3-CBC",
        }
    }

    /// Key length in bytes.
    pub fn key_length(self) -> usize {
        match self {
            Self::Aes128 | Self::Blowfish => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }

    /// Block length in bytes.
    pub fn block(self) -> usize {
        if self.is_weak() { 8 } else { 16 }
    }

    /// Whether blocks are so short that much traffic under one key reveals it (SWEET32).
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Blowfish | Self::TripleDes)
    }

    fn chain(self, slot: &[u8; SLOT]) -> Box<dyn Chain> {
        let key = &slot[..self.key_length()];
        match self {
            Self::Aes128 => chain::<Aes128>(key),
            Self::Aes192 => chain::<Aes192>(key),
            Self::Aes256 => chain::<Aes256>(key),
            Self::Blowfish => chain::<Blowfish>(key),
            Self::TripleDes => chain::<TdesEde3>(key),
        }
    }
}

/// The hash function of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Digest {
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

impl Digest {
    /// All digests.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// OpenVPN's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// Length of the HMAC, and of its key, in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn mac(self, slot: &[u8; SLOT]) -> Box<dyn Mac> {
        let key = &slot[64..64 + self.length()];
        match self {
            Self::Sha1 => mac::<Hmac<Sha1>>(key),
            Self::Sha256 => mac::<Hmac<Sha256>>(key),
            Self::Sha384 => mac::<Hmac<Sha384>>(key),
            Self::Sha512 => mac::<Hmac<Sha512>>(key),
        }
    }
}

/// Length of a key file in bytes.
pub const KEY: usize = 2 * SLOT;

/// Returns the slots of a key file for sealing and for opening; without a direction they are the same.
pub fn slots(key: &[u8; KEY], direction: Option<u8>) -> [&[u8; SLOT]; 2] {
    let (halves, _) = key.as_chunks::<SLOT>();
    match direction {
        None => [&halves[0], &halves[0]],
        Some(0) => [&halves[0], &halves[1]],
        Some(_) => [&halves[1], &halves[0]],
    }
}

/// Lengths of a datagram's parts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The HMAC.
    pub mac: usize,
    /// The IV, and each block.
    pub block: usize,
}

impl Layout {
    /// The layout of a cipher and a digest.
    pub fn new(cipher: CbcCipher, digest: Digest) -> Self {
        Self { mac: digest.length(), block: cipher.block() }
    }

    /// Whether a datagram may have this length.
    pub fn fits(self, length: usize) -> bool {
        length.checked_sub(self.prefix()).is_some_and(|rest| rest > 0 && rest.is_multiple_of(self.block))
    }

    /// Length of what precedes the plaintext.
    pub fn prefix(self) -> usize {
        self.mac + self.block
    }

    /// Length of a datagram with so much plaintext.
    pub fn sealed(self, plain: usize) -> usize {
        self.prefix() + (plain / self.block + 1) * self.block
    }

    /// Most plaintext that fits a datagram of this length; 0 if there is no room.
    pub fn plain(self, sealed: usize) -> usize {
        (sealed.saturating_sub(self.prefix()) / self.block * self.block).saturating_sub(1)
    }
}

/// The keys of one direction.
pub struct CbcHmac {
    layout: Layout,
    chain: Box<dyn Chain>,
    mac: Box<dyn Mac>,
}

impl CbcHmac {
    /// Prepares the keys from a slot of a key file.
    pub fn new(cipher: CbcCipher, digest: Digest, slot: &[u8; SLOT]) -> Self {
        Self { layout: Layout::new(cipher, digest), chain: cipher.chain(slot), mac: digest.mac(slot) }
    }

    /// Datagram layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Seals datagrams in place. Each is `stride` bytes long; the last may be shorter. Each has room for its HMAC, then its
    /// IV, which must be unpredictable, then whole [padded](pad) blocks.
    pub fn seal(&self, datagrams: &mut [u8], stride: usize) {
        self.chain.seal(datagrams, stride, self.layout.mac);
        for datagram in datagrams.chunks_mut(stride) {
            let (tag, rest) = datagram.split_at_mut(self.layout.mac);
            self.mac.sign(rest, tag);
        }
    }

    /// Verifies, then decrypts a datagram in place; returns the range of the plaintext.
    ///
    /// # Errors
    /// [`BadTag`], whatever is wrong; nothing was decrypted unless the HMAC was right.
    pub fn open(&self, datagram: &mut [u8]) -> Result<Range<usize>, BadTag> {
        let Layout { mac, block } = self.layout;
        let (tag, rest) = datagram.split_at_mut_checked(mac).ok_or(BadTag)?;
        if rest.len() < 2 * block || !rest.len().is_multiple_of(block) || !self.mac.verifies(rest, tag) {
            return Err(BadTag);
        }
        self.chain.open(rest);
        let plain = &rest[block..];
        let padding = usize::from(plain[plain.len() - 1]);
        if !(1..=block).contains(&padding) {
            return Err(BadTag);
        }
        let length = plain.len() - padding;
        if plain[length..].iter().any(|byte| usize::from(*byte) != padding) {
            return Err(BadTag);
        }
        Ok(mac + block..mac + block + length)
    }
}

/// Writes PKCS#7 padding (RFC 5652 §6.3) after the first `length` bytes, to the end of `blocks`.
pub fn pad(blocks: &mut [u8], length: usize) {
    let padding = blocks.len() - length;
    // At most one block.
    blocks[length..].fill(padding as u8);
}

/// CBC in place over `IV | blocks`.
trait Chain: Send + Sync {
    /// Seals several datagrams, each from its offset `at`.
    fn seal(&self, datagrams: &mut [u8], stride: usize, at: usize);
    fn open(&self, chain: &mut [u8]);
}

fn chain<C: KeyInit + Chain + 'static>(key: &[u8]) -> Box<dyn Chain> {
    Box::new(C::new_from_slice(key).unwrap_or_else(|_| unreachable!("the key has the length of the cipher")))
}

impl<C: BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync> Chain for C {
    fn seal(&self, datagrams: &mut [u8], stride: usize, at: usize) {
        for group in datagrams.chunks_mut(stride * STEP) {
            seal_in_step(self, group, stride, at);
        }
    }

    fn open(&self, chain: &mut [u8]) {
        let (blocks, _) = Block::<C>::slice_as_chunks_mut(chain);
        let Some((iv, blocks)) = blocks.split_first_mut() else { return };
        let mut before = iv.clone();
        for group in blocks.chunks_mut(STEP) {
            let mut sealed: [Block<C>; STEP] = std::array::from_fn(|_| Block::<C>::default());
            sealed[..group.len()].clone_from_slice(group);
            self.decrypt_blocks(group);
            for (block, sealed) in group.iter_mut().zip(sealed) {
                xor(block, &before);
                before = sealed;
            }
        }
    }
}

/// Seals up to [`STEP`] datagrams. Only the last may be shorter, so it is the first to finish.
fn seal_in_step<C: BlockCipherEncrypt>(cipher: &C, datagrams: &mut [u8], stride: usize, at: usize) {
    let size = C::block_size();
    let stride = stride.min(datagrams.len());
    let mut states: [Block<C>; STEP] = std::array::from_fn(|_| Block::<C>::default());
    let count = datagrams.len().div_ceil(stride);
    for (state, datagram) in states.iter_mut().zip(datagrams.chunks(stride)) {
        state.copy_from_slice(&datagram[at..at + size]);
    }
    let mut running = count;
    for place in (at + size..stride).step_by(size) {
        if (running - 1) * stride + place + size > datagrams.len() {
            running -= 1;
        }
        let states = &mut states[..running];
        for (state, datagram) in states.iter_mut().zip(datagrams.chunks(stride)) {
            xor(state, &datagram[place..place + size]);
        }
        cipher.encrypt_blocks(states);
        for (state, datagram) in states.iter().zip(datagrams.chunks_mut(stride)) {
            datagram[place..place + size].copy_from_slice(state);
        }
    }
}

fn xor(block: &mut [u8], other: &[u8]) {
    for (byte, other) in block.iter_mut().zip(other) {
        *byte ^= other;
    }
}

trait Mac: Send + Sync {
    fn sign(&self, bytes: &[u8], tag: &mut [u8]);
    /// Constant-time: does not reveal where the tags differ.
    fn verifies(&self, bytes: &[u8], tag: &[u8]) -> bool;
}

fn mac<M: Mac + KeyInit + 'static>(key: &[u8]) -> Box<dyn Mac> {
    Box::new(M::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes every key")))
}

impl<M: hmac::Mac + Clone + Send + Sync> Mac for M {
    fn sign(&self, bytes: &[u8], tag: &mut [u8]) {
        tag.copy_from_slice(&self.clone().chain_update(bytes).finalize().into_bytes());
    }

    fn verifies(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.clone().chain_update(bytes).verify_slice(tag).is_ok()
    }
}

/// Marks this host's IVs, so that it recognises its own datagrams when they return. The first half is unpredictable; the second
/// is a keyed check of that half and the packet id. Without the keys both look random.
pub struct IvMark {
    draw: Aes128,
    check: Aes128,
}

impl IvMark {
    /// The host keeps `check` across restarts; `draw` is new in each process.
    pub fn new(draw: &[u8; 16], check: &[u8; 16]) -> Self {
        Self { draw: Aes128::new(&(*draw).into()), check: Aes128::new(&(*check).into()) }
    }

    /// Writes the IV, 8 or 16 bytes, for the datagram with this packet id, which must never repeat.
    pub fn write(&self, packet_id: [u8; 8], iv: &mut [u8]) {
        let half = iv.len() / 2;
        let mut block = block([0; 8], packet_id);
        self.draw.encrypt_block(&mut block);
        iv[..half].copy_from_slice(&block[..half]);
        let check = self.check_of(packet_id, &iv[..half]);
        iv[half..].copy_from_slice(&check[..half]);
    }

    /// Whether a datagram with this IV and packet id is from this host.
    pub fn is_own(&self, packet_id: [u8; 8], iv: &[u8]) -> bool {
        let (drawn, check) = iv.split_at(iv.len() / 2);
        constant_time::equal(check, &self.check_of(packet_id, drawn)[..check.len()])
    }

    fn check_of(&self, packet_id: [u8; 8], drawn: &[u8]) -> Block<Aes128> {
        let mut front = [0; 8];
        front[..drawn.len()].copy_from_slice(drawn);
        let mut block = block(front, packet_id);
        self.check.encrypt_block(&mut block);
        block
    }
}

fn block(front: [u8; 8], back: [u8; 8]) -> Block<Aes128> {
    let mut block = Block::<Aes128>::default();
    block[..8].copy_from_slice(&front);
    block[8..].copy_from_slice(&back);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> [u8; SLOT] {
        std::array::from_fn(|i| (i * 7 + 1) as u8)
    }

    /// An unsealed datagram with this plaintext.
    fn datagram(layout: Layout, iv: u8, plain: &[u8]) -> Vec<u8> {
        let mut datagram = vec![iv; layout.sealed(plain.len())];
        datagram[layout.prefix()..][..plain.len()].copy_from_slice(plain);
        pad(&mut datagram[layout.prefix()..], plain.len());
        datagram
    }

    #[test]
    fn datagrams_sealed_in_step_are_those_sealed_one_by_one_and_open_again() {
        for (cipher, digest) in CbcCipher::ALL.into_iter().flat_map(|c| Digest::ALL.map(|d| (c, d))) {
            let keys = CbcHmac::new(cipher, digest, &slot());
            let layout = keys.layout();
            for (count, length, last) in
                [(1, 0, 0), (1, 1, 1), (2, 100, 100), (17, 60, 3), (40, 300, 299), (16, 31, 0)]
            {
                let mut together = Vec::new();
                let mut alone = Vec::new();
                for number in 0..count {
                    let plain: Vec<u8> = (0..if number + 1 == count { last } else { length })
                        .map(|i| (i ^ number) as u8)
                        .collect();
                    let mut one = datagram(layout, number as u8, &plain);
                    together.extend_from_slice(&one);
                    let whole = one.len();
                    keys.seal(&mut one, whole);
                    let range = keys.open(&mut one.clone()).unwrap();
                    alone.extend_from_slice(&one);
                    keys.open(&mut one).unwrap();
                    assert_eq!(&one[range], plain, "{cipher:?} {digest:?} {length}");
                }
                keys.seal(&mut together, layout.sealed(length));
                assert_eq!(together, alone, "{cipher:?} {digest:?} {count} of {length}");
            }
        }
    }

    #[test]
    fn whatever_is_wrong_is_one_error_and_nothing_is_decrypted_without_a_right_hmac() {
        let keys = CbcHmac::new(CbcCipher::Aes256, Digest::Sha256, &slot());
        let mut good = datagram(keys.layout(), 9, b"hello");
        let whole = good.len();
        keys.seal(&mut good, whole);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let before = bad.clone();
            assert_eq!(keys.open(&mut bad), Err(BadTag));
            assert_eq!(bad, before, "byte {at}");
        }
        for length in 0..good.len() {
            assert_eq!(keys.open(&mut good[..length].to_vec()), Err(BadTag));
        }
        // Padding that no authentic sender writes.
        for padding in [[0; 16], [17; 16], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2]] {
            let mut odd = datagram(keys.layout(), 9, b"hello");
            let whole = odd.len();
            odd[keys.layout().prefix()..].copy_from_slice(&padding);
            keys.seal(&mut odd, whole);
            assert_eq!(keys.open(&mut odd), Err(BadTag), "{padding:?}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_format() {
        let layout = Layout::new(CbcCipher::Aes256, Digest::Sha1);
        assert_eq!(layout.sealed(1508), 1556);
        assert_eq!(Layout::new(CbcCipher::Aes256, Digest::Sha256).sealed(1508), 1568);
        assert_eq!(Layout::new(CbcCipher::Blowfish, Digest::Sha1).sealed(1508), 1540);
        for length in 0..3000 {
            let plain = layout.plain(length);
            assert!(plain == 0 || layout.sealed(plain) <= length, "{length}");
            assert!(layout.sealed(plain + 1) > length, "{length}");
        }
    }

    #[test]
    fn an_iv_tells_its_own_host_and_nobody_else() {
        let (ours, restarted, theirs) = (
            IvMark::new(&[1; 16], &[2; 16]),
            IvMark::new(&[3; 16], &[2; 16]),
            IvMark::new(&[1; 16], &[4; 16]),
        );
        for size in [8, 16] {
            let (mut iv, mut next) = ([0; 16], [0; 16]);
            ours.write([7; 8], &mut iv[..size]);
            ours.write([8; 8], &mut next[..size]);
            assert_ne!(iv, next);
            assert!(ours.is_own([7; 8], &iv[..size]) && restarted.is_own([7; 8], &iv[..size]));
            assert!(!theirs.is_own([7; 8], &iv[..size]) && !ours.is_own([8; 8], &iv[..size]));
        }
    }
}
