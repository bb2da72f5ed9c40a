//! Chooses the library for this processor.

use crate::crypto::aead::{self, Timing};
use crate::crypto::suite::Cipher;
use crate::sys::clock::now;

/// Selects the fastest library for each cipher, by half a millisecond of measuring.
pub fn choose_libraries() {
    let timings = measured();
    for cipher in Cipher::ALL {
        aead::choose(cipher, aead::best(&timings, cipher));
    }
}

/// Measures how long each library takes with each cipher on this processor.
pub fn measured() -> Vec<Timing> {
    let began = now().instant;
    aead::measure(|| now().instant.saturating_duration_since(began))
}
