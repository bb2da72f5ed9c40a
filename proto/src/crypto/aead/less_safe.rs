//! AEAD keys of libraries with ring's interface: AWS-LC (aws-lc-rs) and ring. Both choose processor instructions at run
//! time.

macro_rules! key_of {
    ($library:ident) => {
        use ::$library::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

        use crate::crypto::aead::{BadTag, Key, TAG};
        use crate::crypto::suite::Cipher;

        struct OfLibrary(LessSafeKey);

        pub fn key(cipher: Cipher, key: &[u8; 32]) -> Box<dyn Key> {
            let algorithm = match cipher {
                Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                Cipher::Aes256Gcm => &AES_256_GCM,
            };
            #[allow(clippy::expect_used, reason = "it fails for keys of another length only")]
            let key = UnboundKey::new(algorithm, key).expect("both ciphers have keys of 32 bytes");
            Box::new(OfLibrary(LessSafeKey::new(key)))
        }

        impl Key for OfLibrary {
            fn seal(&self, nonce: [u8; 12], associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag> {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), body);
                let tag = sealed.map_err(|_| BadTag)?;
                tag.as_ref().try_into().map_err(|_| BadTag)
            }

            fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Result<(), BadTag> {
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.0.open_in_place(nonce, Aad::from(associated), sealed).map(drop).map_err(|_| BadTag)
            }
        }
    };
}

#[cfg(feature = "aws-lc")]
pub mod aws_lc {
    key_of!(aws_lc_rs);
}

#[cfg(feature = "ring")]
pub mod ring {
    key_of!(ring);
}
