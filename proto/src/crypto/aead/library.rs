//! Selects the AEAD library: the fastest of those built in, on this processor.

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

#[cfg(feature = "aws-lc")]
use super::less_safe::aws_lc;
#[cfg(feature = "ring")]
use super::less_safe::ring;
use super::rustcrypto;
use super::{Aead, Key};
use crate::crypto::suite::Cipher;

use serde::{Deserialize, Serialize};

/// A built-in library. RustCrypto is always built in, since handshakes use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Library {
    /// AWS-LC (aws-lc-rs).
    #[cfg(feature = "aws-lc")]
    AwsLc,
    /// ring.
    #[cfg(feature = "ring")]
    Ring,
    /// RustCrypto's aes-gcm and chacha20poly1305.
    RustCrypto,
}

/// Built-in libraries; the first is used unless measured.
pub const LIBRARIES: &[Library] = &[
    #[cfg(feature = "aws-lc")]
    Library::AwsLc,
    #[cfg(feature = "ring")]
    Library::Ring,
    Library::RustCrypto,
];

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => "AWS-LC",
            #[cfg(feature = "ring")]
            Self::Ring => "ring",
            Self::RustCrypto => "RustCrypto",
        })
    }
}

impl Library {
    pub(super) fn key(self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Key> {
        match self {
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => aws_lc::key(cipher, key),
            #[cfg(feature = "ring")]
            Self::Ring => ring::key(cipher, key),
            Self::RustCrypto => rustcrypto::key(cipher, key),
        }
    }
}

/// How much faster than the first another library must be, in percent: above the noise of measurement.
const MARGIN: u32 = 5;
/// Payloads of a full and of a small datagram, in bytes.
const LENGTHS: [usize; 2] = [1420, 64];
/// Runs, of which the fastest counts, and datagrams per run: some 50 µs for a library and a cipher.
const TRIES: u32 = 5;
const EACH: u32 = 8;

/// Indices into [`LIBRARIES`], by cipher.
static CHOSEN: [AtomicU8; 2] = [const { AtomicU8::new(0) }; 2];

const fn slot(cipher: Cipher) -> usize {
    match cipher {
        Cipher::ChaCha20Poly1305 => 0,
        Cipher::Aes256Gcm => 1,
    }
}

/// The library for new keys.
pub fn chosen(cipher: Cipher) -> Library {
    let place = usize::from(CHOSEN[slot(cipher)].load(Ordering::Relaxed));
    LIBRARIES.get(place).copied().unwrap_or(LIBRARIES[0])
}

/// Speed of one library with one cipher.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Cipher.
    pub cipher: Cipher,
    /// Library.
    pub library: Library,
    /// Time to seal 1420 bytes.
    pub full: Duration,
    /// Time to seal 64 bytes.
    pub small: Duration,
}

impl Timing {
    fn both(&self) -> Duration {
        self.full + self.small
    }
}

/// Measures each library with each cipher, in about half a millisecond; `clock` must be monotonic.
pub fn measure(mut clock: impl FnMut() -> Duration) -> Vec<Timing> {
    let mut timings = Vec::new();
    for cipher in Cipher::ALL {
        for library in LIBRARIES {
            let key = Aead::with(*library, cipher, &[0x5a; 32]);
            let [full, small] = LENGTHS.map(|length| quickest(&key, length, &mut clock));
            timings.push(Timing { cipher, library: *library, full, small });
        }
    }
    timings
}

/// The shortest time to seal so many bytes.
fn quickest(key: &Aead, length: usize, clock: &mut impl FnMut() -> Duration) -> Duration {
    let mut body = [0; LENGTHS[0]];
    let tries = (0..TRIES).map(|_| {
        let began = clock();
        for counter in 0..EACH {
            let _ = black_box(key.seal(counter, &[0; 8], black_box(&mut body[..length])));
        }
        (clock().saturating_sub(began)) / EACH
    });
    tries.min().unwrap_or_default()
}

/// Returns a cipher's fastest library: the first of [`LIBRARIES`] unless another is clearly faster.
pub fn best(timings: &[Timing], cipher: Cipher) -> Library {
    let of = |library| timings.iter().find(|timing| timing.cipher == cipher && timing.library == library);
    let Some(first) = of(LIBRARIES[0]) else { return LIBRARIES[0] };
    let fast = |timing: &&Timing| timing.both() * 100 < first.both() * (100 - MARGIN);
    let others = LIBRARIES.iter().filter_map(|library| of(*library)).filter(fast);
    others.min_by_key(|timing| timing.both()).unwrap_or(first).library
}

/// Uses this library for new keys of this cipher.
pub fn choose(cipher: Cipher, library: Library) {
    let place = LIBRARIES.iter().position(|built_in| *built_in == library).unwrap_or_default();
    CHOSEN[slot(cipher)].store(u8::try_from(place).unwrap_or_default(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(feature = "aws-lc", feature = "ring"))]
    fn the_fastest_library_is_taken_if_it_is_clearly_faster() {
        let [first, .., last] = LIBRARIES else { panic!("no two libraries are built in") };
        let timing = |library: &Library, full: u64, small: u64| Timing {
            cipher: Cipher::Aes256Gcm,
            library: *library,
            full: Duration::from_nanos(full),
            small: Duration::from_nanos(small),
        };
        let against =
            |full, small| best(&[timing(first, 700, 180), timing(last, full, small)], Cipher::Aes256Gcm);
        assert_eq!(against(386, 107), *last);
        assert_eq!(against(680, 170), *first, "within what a measurement is worth");
        assert_eq!(against(500, 900), *first, "small datagrams count as well");
        assert_eq!(best(&[], Cipher::Aes256Gcm), *first);
    }

    #[test]
    fn every_library_is_measured_with_every_cipher_by_the_clock_that_is_given() {
        let mut reads = 0;
        let timings = measure(|| {
            reads += 1;
            Duration::from_micros(reads * u64::from(EACH))
        });
        assert_eq!(timings.len(), 2 * LIBRARIES.len());
        for timing in timings {
            assert_eq!([timing.full, timing.small], [Duration::from_micros(1); 2]);
        }
    }
}
