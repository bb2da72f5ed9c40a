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
    /// All of them.
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

/// AES-256-GCM comes first only where AES and carry-less multiplication are instructions.
pub fn prefer_hardware(suites: &mut [Cipher]) {
    #[cfg(target_arch = "x86_64")]
    let fast = std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    suites.sort_by_key(|cipher| (*cipher == Cipher::Aes256Gcm) != fast);
}

/// How the ends of handshake mode come to their keys; the discriminant is the version of the handshake (PROTOCOL.md §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Exchange {
    /// X25519 alone, which a quantum computer breaks in recordings.
    X25519 = 1,
    /// X25519 and ML-KEM-768: the keys hold if either does.
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
