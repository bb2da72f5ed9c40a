//! One AEAD key, in place, with counter nonces.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use crate::config::Cipher;

/// Length of an authentication tag in bytes.
pub const TAG: usize = 16;

/// The tag does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not verify")]
pub struct BadTag;

/// A traffic key, ready for use.
pub struct Aead(Suite);

enum Suite {
    ChaCha(Box<ChaCha20Poly1305>),
    Aes(Box<Aes256Gcm>),
}

impl Aead {
    /// Prepares the key schedule of `key`.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        Self(match cipher {
            Cipher::ChaCha20Poly1305 => Suite::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
            Cipher::Aes256Gcm => Suite::Aes(Box::new(Aes256Gcm::new(key.into()))),
        })
    }

    /// Encrypts `body` in place and returns its tag. A counter must never repeat under one key.
    ///
    /// # Errors
    /// [`BadTag`] if `body` is longer than the cipher allows (64 GiB).
    pub fn seal(&self, counter: u32, associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag> {
        let nonce = nonce(counter);
        match &self.0 {
            Suite::ChaCha(key) => key.encrypt_inout_detached((&nonce).into(), associated, body.into()),
            Suite::Aes(key) => key.encrypt_inout_detached((&nonce).into(), associated, body.into()),
        }
        .map(Into::into)
        .map_err(|_| BadTag)
    }

    /// Verifies and decrypts `body` in place; on an error `body` holds nothing of use.
    ///
    /// # Errors
    /// [`BadTag`] unless body, associated data and counter are those that were sealed.
    pub fn open(
        &self,
        counter: u32,
        associated: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), BadTag> {
        let nonce = nonce(counter);
        match &self.0 {
            Suite::ChaCha(key) => {
                key.decrypt_inout_detached((&nonce).into(), associated, body.into(), tag.into())
            }
            Suite::Aes(key) => {
                key.decrypt_inout_detached((&nonce).into(), associated, body.into(), tag.into())
            }
        }
        .map_err(|_| BadTag)
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

    #[test]
    fn sealed_opens_only_with_the_same_counter_and_header() {
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
            let key = Aead::new(cipher, &[7; 32]);
            let mut body = *b"a frame";
            let tag = key.seal(5, b"head", &mut body).unwrap();
            assert_ne!(&body, b"a frame");
            for (counter, head) in [(6, b"head"), (5, b"heaD")] {
                assert_eq!(key.open(counter, head, &mut body.clone(), &tag), Err(BadTag));
            }
            key.open(5, b"head", &mut body, &tag).unwrap();
            assert_eq!(&body, b"a frame");
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
}
