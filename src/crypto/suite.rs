//! The ciphers of the protocol.

use serde::{Deserialize, Serialize};

/// An AEAD algorithm; the discriminant is the suite number of PROTOCOL.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Cipher {
    /// RFC 8439.
    ChaCha20Poly1305 = 1,
    /// NIST SP 800-38D.
    Aes256Gcm = 2,
}
