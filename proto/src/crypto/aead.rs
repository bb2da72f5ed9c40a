//! An AEAD key: in place, with counter nonces. There are several libraries, as none is fastest on every processor: AWS-LC has AES-GCM
//! for AVX-512, ring for VAES without it. RustCrypto is for builds without C and for checking the others.

#[cfg(any(feature = "aws-lc", feature = "ring"))]
mod less_safe;
mod library;
mod rustcrypto;

use crate::crypto::suite::Cipher;

pub use library::{LIBRARIES, Library, Timing, best, choose, chosen, measure};

/// Length of an authentication tag in bytes.
pub const TAG: usize = 16;

/// The tag does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not verify")]
pub struct BadTag;

/// A key of one of the libraries, with its schedule.
trait Key: Send + Sync {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag>;
    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Result<(), BadTag>;
}

/// A traffic key with its schedule. It is on the heap, where the program's allocator wipes it when freed; ring does not.
pub struct Aead(Box<dyn Key>);

impl Aead {
    /// Prepares the key schedule of `key`, with the library [chosen](choose) for this cipher.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        Self::with(chosen(cipher), cipher, key)
    }

    /// The same with a given library.
    pub fn with(library: Library, cipher: Cipher, key: &[u8; 32]) -> Self {
        Self(library.key(cipher, key))
    }

    /// Encrypts `body` in place and returns its tag. A counter must never repeat under one key.
    ///
    /// # Errors
    /// [`BadTag`] if `body` is longer than the cipher allows (64 GiB).
    pub fn seal(&self, counter: u32, associated: &[u8], body: &mut [u8]) -> Result<[u8; TAG], BadTag> {
        self.0.seal(nonce(counter), associated, body)
    }

    /// Verifies and decrypts in place a body that is followed by its tag. On an error `sealed` holds nothing useful.
    ///
    /// # Errors
    /// [`BadTag`] unless body, tag, associated data and counter are those that were sealed.
    pub fn open(&self, counter: u32, associated: &[u8], sealed: &mut [u8]) -> Result<(), BadTag> {
        self.0.open(nonce(counter), associated, sealed)
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
        for cipher in Cipher::ALL {
            let key = Aead::new(cipher, &[7; 32]);
            let mut body = *b"a frame";
            let tag = key.seal(5, b"head", &mut body).unwrap();
            assert_ne!(&body, b"a frame");
            let mut sealed = [&body[..], &tag].concat();
            for (counter, head) in [(6, b"head"), (5, b"heaD")] {
                assert_eq!(key.open(counter, head, &mut sealed.clone()), Err(BadTag));
            }
            assert_eq!(key.open(5, b"head", &mut sealed[1..].to_vec()), Err(BadTag));
            assert_eq!(key.open(5, b"head", &mut [0; TAG - 1]), Err(BadTag), "no tag at all");
            key.open(5, b"head", &mut sealed).unwrap();
            assert_eq!(&sealed[..7], b"a frame");
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

    #[test]
    fn every_library_says_the_same_at_every_length() {
        for (library, cipher) in
            LIBRARIES.iter().flat_map(|library| Cipher::ALL.map(|cipher| (library, cipher)))
        {
            let key = std::array::from_fn(|i| i as u8 * 3);
            let (ours, theirs) =
                [*library, Library::RustCrypto].map(|library| Aead::with(library, cipher, &key)).into();
            for length in (0..300).chain([1379, 1420, 1501, 4096, 9000, 65_507]) {
                let counter = length as u32;
                let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
                let (mut a, mut b) = (plain.clone(), plain.clone());
                let tags = [ours.seal(counter, b"head", &mut a), theirs.seal(counter, b"head", &mut b)];
                a.extend(tags[0].unwrap());
                b.extend(tags[1].unwrap());
                assert_eq!(a, b, "{library}, {cipher:?}, {length} bytes");
                for place in [0, length / 2, length, length + TAG - 1] {
                    let mut tampered = a.clone();
                    tampered[place] ^= 1;
                    assert_eq!(ours.open(counter, b"head", &mut tampered.clone()), Err(BadTag));
                    assert_eq!(theirs.open(counter, b"head", &mut tampered), Err(BadTag));
                }
                ours.open(counter, b"head", &mut b).unwrap();
                theirs.open(counter, b"head", &mut a).unwrap();
                assert_eq!((&a[..length], &b[..length]), (&plain[..], &plain[..]));
            }
        }
    }
}
