//! RustCrypto's AEAD keys: no C in the build.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use super::{BadTag, TAG};
use crate::crypto::suite::Cipher;

/// A key with its schedule.
pub enum Key {
    ChaCha(Box<ChaCha20Poly1305>),
    Aes(Box<Aes256Gcm>),
}

impl Key {
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        match cipher {
            Cipher::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
            Cipher::Aes256Gcm => Self::Aes(Box::new(Aes256Gcm::new(key.into()))),
        }
    }

    pub fn seal(&self, nonce: [u8; 12], associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag> {
        match self {
            Self::ChaCha(key) => key.encrypt_inout_detached((&nonce).into(), associated, body.into()),
            Self::Aes(key) => key.encrypt_inout_detached((&nonce).into(), associated, body.into()),
        }
        .map(Into::into)
        .map_err(|_| BadTag)
    }

    pub fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Result<(), BadTag> {
        let (body, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(BadTag)?;
        let tag = &*tag;
        match self {
            Self::ChaCha(key) => {
                key.decrypt_inout_detached((&nonce).into(), associated, body.into(), tag.into())
            }
            Self::Aes(key) => {
                key.decrypt_inout_detached((&nonce).into(), associated, body.into(), tag.into())
            }
        }
        .map_err(|_| BadTag)
    }
}
