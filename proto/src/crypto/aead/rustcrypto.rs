//! RustCrypto's AEAD keys: no C in the build.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::{U12, U16};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use super::{BadTag, Key, TAG};
use crate::crypto::suite::Cipher;

pub fn key(cipher: Cipher, key: &[u8; 32]) -> Box<dyn Key> {
    match cipher {
        Cipher::ChaCha20Poly1305 => Box::new(ChaCha20Poly1305::new(key.into())),
        Cipher::Aes256Gcm => Box::new(Aes256Gcm::new(key.into())),
    }
}

impl<A: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync> Key for A {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag> {
        let tag = self.encrypt_inout_detached((&nonce).into(), associated, body.into());
        tag.map(Into::into).map_err(|_| BadTag)
    }

    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Result<(), BadTag> {
        let (body, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(BadTag)?;
        self.decrypt_inout_detached((&nonce).into(), associated, body.into(), (&*tag).into())
            .map_err(|_| BadTag)
    }
}
