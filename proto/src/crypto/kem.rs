//! ML-KEM-768 (FIPS 203), a key encapsulation that no known quantum algorithm breaks.
//!
//! The caller supplies all randomness, as everywhere in the pure half: from the system in use, seeded in tests. That is
//! why every build uses the same library. aws-lc-rs has its own generator, whose state a copy of the process would share
//! (PROTOCOL.md §3.4); it serves as the reference in tests. [`exchange`](super::exchange) wipes the stack afterwards.

use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext, MlKem768PrivateKey, MlKem768PublicKey};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Random;
use super::keys::Secret;

/// Length of a key pair's seed in bytes.
const SEED: usize = 64;
/// Length of a decapsulation key in bytes.
const DECAPSULATION_KEY: usize = 2400;
/// Length of an encapsulation key in bytes.
pub const ENCAPSULATION_KEY: usize = 1184;
/// Length of a ciphertext in bytes.
pub const CIPHERTEXT: usize = 1088;
/// Length of the randomness for encapsulation in bytes.
const MESSAGE: usize = 32;

/// A decapsulation key in the format of FIPS 203 §7.1, which is faster to use than its seed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Decapsulation(Box<[u8; DECAPSULATION_KEY]>);

impl Decapsulation {
    /// Returns the shared key in a ciphertext. One for another key, or a changed one, yields another key and no error (implicit
    /// rejection).
    pub fn open(&self, ciphertext: &[u8; CIPHERTEXT]) -> Secret {
        let (key, ciphertext) = (MlKem768PrivateKey::from(&*self.0), MlKem768Ciphertext::from(ciphertext));
        Secret::new(mlkem768::decapsulate(&key, &ciphertext))
    }
}

/// Generates a key (its seed d ‖ z, FIPS 203 §7.1) and writes its encapsulation key to `out`.
pub fn generate(random: &mut impl Random, out: &mut Vec<u8>) -> Decapsulation {
    let mut seed = Zeroizing::new([0; SEED]);
    random.fill(seed.as_mut());
    let pair = mlkem768::generate_key_pair(*seed);
    out.extend_from_slice(pair.pk());
    Decapsulation(Box::new(*pair.sk()))
}

/// Generates a shared key for the owner of `key` and writes its ciphertext to `out`. `None` if `key` is invalid: it has a number not below
/// the modulus (FIPS 203 §7.2).
pub fn encapsulate(
    key: &[u8; ENCAPSULATION_KEY],
    random: &mut impl Random,
    out: &mut Vec<u8>,
) -> Option<Secret> {
    let key = MlKem768PublicKey::from(key);
    if !mlkem768::validate_public_key(&key) {
        return None;
    }
    let mut message = Zeroizing::new([0; MESSAGE]);
    random.fill(message.as_mut());
    let (ciphertext, shared) = mlkem768::encapsulate(&key, *message);
    out.extend_from_slice(ciphertext.as_slice());
    Some(Secret::new(shared))
}

#[cfg(test)]
mod tests;
