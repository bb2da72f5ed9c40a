//! Which cipher and which library suit this processor.

use crate::crypto::aead::{self, Timing};
use crate::crypto::suite::Cipher;
use crate::sys::clock::now;

/// The fastest library for each cipher, by half a millisecond of measuring.
pub fn choose_libraries() {
    let timings = measured();
    for cipher in Cipher::ALL {
        aead::choose(cipher, aead::best(&timings, cipher));
    }
}

/// How long each library takes with each cipher on this processor.
pub fn measured() -> Vec<Timing> {
    let began = now().instant;
    aead::measure(|| now().instant.saturating_duration_since(began))
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
