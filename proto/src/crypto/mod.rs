//! Keys and ciphers. Only this module names a cryptography crate.

pub mod aead;
pub mod cbc_hmac;
pub mod constant_time;
pub mod exchange;
pub mod kem;
pub mod keys;
pub mod noise;
pub mod stack;
pub mod suite;
pub mod wrap;

/// A source of random bytes: getrandom(2) in the daemon, a seeded generator in tests.
pub trait Random {
    /// Fills `buffer` with unpredictable bytes.
    fn fill(&mut self, buffer: &mut [u8]);

    /// Draws `N` bytes.
    fn bytes<const N: usize>(&mut self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}
