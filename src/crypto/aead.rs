//! One AEAD key, in place, with counter nonces. Two libraries can do it: AWS-LC where it is built in, else
//! RustCrypto.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(not(feature = "aws-lc"), test))]
mod rustcrypto;

#[cfg(feature = "aws-lc")]
use aws_lc as library;
#[cfg(not(feature = "aws-lc"))]
use rustcrypto as library;

use crate::crypto::suite::Cipher;
#[cfg(test)]
use crate::fault::{self, Fault};

/// Length of an authentication tag in bytes.
pub const TAG: usize = 16;

/// The tag does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not verify")]
pub struct BadTag;

/// A traffic key, ready for use.
pub struct Aead(library::Key);

impl Aead {
    /// Prepares the key schedule of `key`.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        Self(library::Key::new(cipher, key))
    }

    /// Encrypts `body` in place and returns its tag. A counter must never repeat under one key.
    ///
    /// # Errors
    /// [`BadTag`] if `body` is longer than the cipher allows (64 GiB).
    pub fn seal(&self, counter: u32, associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag> {
        #[cfg(test)]
        let associated = if fault::is(Fault::HeaderUncovered) { b"" } else { associated };
        self.0.seal(nonce(counter), associated, body)
    }

    /// Verifies and decrypts in place a body that is followed by its tag; on an error `sealed` holds
    /// nothing of use.
    ///
    /// # Errors
    /// [`BadTag`] unless body, tag, associated data and counter are those that were sealed.
    pub fn open(&self, counter: u32, associated: &[u8], sealed: &mut [u8]) -> Result<(), BadTag> {
        #[cfg(test)]
        let associated = if fault::is(Fault::HeaderUncovered) { b"" } else { associated };
        let opened = self.0.open(nonce(counter), associated, sealed);
        #[cfg(test)]
        let opened = if fault::is(Fault::TagUnchecked) { Ok(()) } else { opened };
        opened
    }
}

/// Eight zero bytes, then the counter, big-endian.
fn nonce(counter: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIPHERS: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];

    #[test]
    fn sealed_opens_only_with_the_same_counter_and_header() {
        for cipher in CIPHERS {
            let key = Aead::new(cipher, &[7; 32]);
            let mut body = *b"a frame";
            let tag = key.seal(5, b"head", &mut body).unwrap();
            assert_ne!(&body, b"a frame");
            let mut sealed = [&body[..], &tag].concat();
            for (counter, head) in [(6, b"head"), (5, b"heaD")] {
                assert_eq!(key.open(counter, head, &mut sealed.clone()), Err(BadTag));
            }
            assert_eq!(key.open(5, b"head", &mut sealed[1..].to_vec()), Err(BadTag));
            assert_eq!(key.open(5, b"head", &mut [0; TAG - 1]), Err(BadTag), "no tag at all");
            key.open(5, b"head", &mut sealed).unwrap();
            assert_eq!(&sealed[..7], b"a frame");
        }
    }

    #[test]
    fn the_two_suites_differ_under_one_key() {
        let mut one = [0; 16];
        let mut two = [0; 16];
        let a = Aead::new(Cipher::ChaCha20Poly1305, &[1; 32]).seal(1, b"", &mut one).unwrap();
        let b = Aead::new(Cipher::Aes256Gcm, &[1; 32]).seal(1, b"", &mut two).unwrap();
        assert_ne!(one, two);
        assert_ne!(a, b);
    }

    #[test]
    #[cfg(feature = "aws-lc")]
    fn both_libraries_say_the_same_at_every_length() {
        for cipher in CIPHERS {
            let key = std::array::from_fn(|i| i as u8 * 3);
            let (ours, theirs) = (aws_lc::Key::new(cipher, &key), rustcrypto::Key::new(cipher, &key));
            for length in (0..300).chain([1379, 1420, 1501, 4096, 9000, 65_507]) {
                let nonce = nonce(length as u32);
                let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
                let (mut a, mut b) = (plain.clone(), plain.clone());
                let tags = [ours.seal(nonce, b"head", &mut a), theirs.seal(nonce, b"head", &mut b)];
                a.extend(tags[0].unwrap());
                b.extend(tags[1].unwrap());
                assert_eq!(a, b, "{cipher:?}, {length} bytes");
                for place in [0, length / 2, length, length + TAG - 1] {
                    let mut tampered = a.clone();
                    tampered[place] ^= 1;
                    assert_eq!(ours.open(nonce, b"head", &mut tampered.clone()), Err(BadTag));
                    assert_eq!(theirs.open(nonce, b"head", &mut tampered), Err(BadTag));
                }
                ours.open(nonce, b"head", &mut b).unwrap();
                theirs.open(nonce, b"head", &mut a).unwrap();
                assert_eq!((&a[..length], &b[..length]), (&plain[..], &plain[..]));
            }
        }
    }
}
