//! The ciphers of the protocol.

use std::fmt;

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

impl Cipher {
    /// All ciphers, in the order in which they are offered by default.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Aes256Gcm => "AES-256-GCM",
        })
    }
}

/// Puts AES-256-GCM first only if the processor has AES and carry-less multiplication.
pub fn prefer_hardware(suites: &mut [Cipher]) {
    #[cfg(target_arch = "x86_64")]
    let fast = std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    suites.sort_by_key(|cipher| (*cipher == Cipher::Aes256Gcm) != fast);
}

/// Key exchange of handshake mode; the discriminant is the handshake version (PROTOCOL.md §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Exchange {
    /// X25519 alone: a quantum computer breaks recordings of it.
    X25519 = 1,
    /// X25519 and ML-KEM-768: secure if either is.
    Hybrid = 2,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X25519 => "X25519",
            Self::Hybrid => "X25519 + ML-KEM-768",
        })
    }
}
