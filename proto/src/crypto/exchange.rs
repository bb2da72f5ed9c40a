//! The complete handshake: Noise and, with [`Exchange::Hybrid`], ML-KEM-768 in its payloads (PROTOCOL.md §3.2).

use super::Random;
use super::kem::{self, CIPHERTEXT, Decapsulation, ENCAPSULATION_KEY};
use super::noise::{self, NoiseError, SplitKeys, Statics};
use super::stack::cleanly;
use super::suite::Exchange;

/// What determines the messages: the same at both ends except for the private key.
#[derive(Clone)]
pub struct Pattern {
    /// Long-lived keys.
    pub statics: Statics,
    /// Key exchange.
    pub exchange: Exchange,
}

/// The initiator, after its first message.
#[derive(Clone)]
pub struct Initiator {
    noise: noise::Initiator,
    kem: Option<Decapsulation>,
}

/// The responder, after reading the first message.
pub struct Responder {
    noise: noise::Responder,
    key: Option<Box<[u8; ENCAPSULATION_KEY]>>,
}

impl Initiator {
    /// Writes the first message, with sealed `payload`, to `out`.
    ///
    /// # Errors
    /// [`NoiseError::WeakKey`] if the peer's configured public key is unusable.
    pub fn start(
        pattern: &Pattern,
        psk: &[u8; 32],
        prologue: &[u8],
        payload: &[u8],
        random: &mut impl Random,
        out: &mut Vec<u8>,
    ) -> Result<Self, NoiseError> {
        cleanly(|| {
            let mut sealed = Vec::new();
            let kem = match pattern.exchange {
                Exchange::X25519 => None,
                Exchange::Hybrid => Some(kem::generate(random, &mut sealed)),
            };
            sealed.extend_from_slice(payload);
            let noise = noise::Initiator::start(&pattern.statics, psk, prologue, &sealed, random, out)?;
            Ok(Self { noise, kem })
        })
    }

    /// Reads an answer. The state does not change, so another answer may be read later.
    ///
    /// # Errors
    /// The message is invalid.
    pub fn read(&self, message: &[u8]) -> Result<(Vec<u8>, SplitKeys), NoiseError> {
        cleanly(|| {
            let (mut payload, finished) = self.noise.read(message)?;
            let Some(kem) = &self.kem else { return Ok((payload, finished.split(None))) };
            let ciphertext = payload.first_chunk::<CIPHERTEXT>().ok_or(NoiseError::TooShort)?;
            let keys = finished.split(Some(&kem.open(ciphertext)));
            payload.drain(..CIPHERTEXT);
            Ok((payload, keys))
        })
    }
}

impl Responder {
    /// Reads a first message.
    ///
    /// # Errors
    /// The message is invalid.
    pub fn read(
        pattern: &Pattern,
        psk: &[u8; 32],
        prologue: &[u8],
        message: &[u8],
    ) -> Result<(Vec<u8>, Self), NoiseError> {
        let read = || noise::Responder::read(&pattern.statics, psk, prologue, message);
        let (mut payload, noise) = cleanly(read)?;
        let key = match pattern.exchange {
            Exchange::X25519 => None,
            Exchange::Hybrid => {
                let key = *payload.first_chunk::<ENCAPSULATION_KEY>().ok_or(NoiseError::TooShort)?;
                payload.drain(..ENCAPSULATION_KEY);
                Some(Box::new(key))
            }
        };
        Ok((payload, Self { noise, key }))
    }

    /// Writes the answer, with sealed `payload`, to `out`.
    ///
    /// # Errors
    /// [`NoiseError::WeakKey`] if a public key of the peer is unusable.
    pub fn write(
        self,
        payload: &[u8],
        random: &mut impl Random,
        out: &mut Vec<u8>,
    ) -> Result<SplitKeys, NoiseError> {
        cleanly(|| {
            let mut sealed = Vec::new();
            let shared = match &self.key {
                None => None,
                Some(key) => Some(kem::encapsulate(key, random, &mut sealed).ok_or(NoiseError::WeakKey)?),
            };
            sealed.extend_from_slice(payload);
            let finished = self.noise.write(&sealed, random, out)?;
            Ok(finished.split(shared.as_deref()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Dice;

    const HYBRID: Pattern = Pattern { statics: Statics::None, exchange: Exchange::Hybrid };

    fn keys(split: &SplitKeys) -> [[u8; 32]; 2] {
        [**split.initiator_to_responder, **split.responder_to_initiator]
    }

    /// Both messages and each end's keys.
    fn exchanged(seed: u64) -> ([Vec<u8>; 2], [SplitKeys; 2]) {
        let (mut first, mut second, mut random) = (Vec::new(), Vec::new(), Dice(seed));
        let ours = Initiator::start(&HYBRID, &[1; 32], b"p", b"first", &mut random, &mut first).unwrap();
        let (payload, theirs) = Responder::read(&HYBRID, &[1; 32], b"p", &first).unwrap();
        assert_eq!(payload, b"first");
        let at_responder = theirs.write(b"second", &mut random, &mut second).unwrap();
        let (payload, at_initiator) = ours.read(&second).unwrap();
        assert_eq!(payload, b"second");
        ([first, second], [at_initiator, at_responder])
    }

    #[test]
    fn both_ends_hold_the_same_keys_which_are_not_those_of_noise_alone() {
        let ([first, second], split) = exchanged(3);
        assert_eq!(keys(&split[0]), keys(&split[1]));
        assert_eq!(first.len(), noise::OVERHEAD + ENCAPSULATION_KEY + 5);
        assert_eq!(second.len(), noise::OVERHEAD + CIPHERTEXT + 6);
        // An attacker who has broken X25519 has this state but not ML-KEM's shared key.
        let mut random = Dice(3);
        let kem = kem::generate(&mut random, &mut Vec::new());
        let ours = Initiator::start(&HYBRID, &[1; 32], b"p", b"first", &mut Dice(3), &mut Vec::new());
        let (payload, finished) = ours.unwrap().noise.read(&second).unwrap();
        let ciphertext = payload.first_chunk().unwrap();
        assert_ne!(keys(&finished.split(None)), keys(&split[0]));
        let finished = |seed| {
            let ours = Initiator::start(&HYBRID, &[1; 32], b"p", b"first", &mut Dice(seed), &mut Vec::new());
            ours.unwrap().noise.read(&second).unwrap().1
        };
        let mut shared = kem.open(ciphertext);
        assert_eq!(keys(&finished(3).split(Some(&shared))), keys(&split[0]));
        shared[31] ^= 1;
        assert_ne!(keys(&finished(3).split(Some(&shared))), keys(&split[0]));
    }

    /// From a sender who has the link secret.
    #[test]
    fn an_encapsulation_key_or_payload_that_is_none_is_refused() {
        let start = |payload: &[u8]| {
            let mut message = Vec::new();
            noise::Initiator::start(&Statics::None, &[1; 32], b"p", payload, &mut Dice(1), &mut message)
                .unwrap();
            Responder::read(&HYBRID, &[1; 32], b"p", &message)
        };
        assert_eq!(start(&[0; ENCAPSULATION_KEY - 1]).err(), Some(NoiseError::TooShort));
        let (payload, responder) = start(&[0xff; ENCAPSULATION_KEY + 2]).unwrap();
        assert_eq!(payload, [0xff; 2]);
        let mut out = Vec::new();
        let refused = responder.write(b"second", &mut Dice(2), &mut out);
        assert_eq!((refused.err(), out.len()), (Some(NoiseError::WeakKey), 0));

        let mut first = Vec::new();
        let ours = Initiator::start(&HYBRID, &[1; 32], b"p", b"", &mut Dice(1), &mut first).unwrap();
        let (_, theirs) = noise::Responder::read(&Statics::None, &[1; 32], b"p", &first).unwrap();
        let mut second = Vec::new();
        theirs.write(&[0; CIPHERTEXT - 1], &mut Dice(2), &mut second).unwrap();
        assert_eq!(ours.read(&second).err(), Some(NoiseError::TooShort));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_message_changed_anywhere_is_refused(seed: u64, first: bool, at: prop::sample::Index, bit in 0u8..8) {
            let ([mut message, mut answer], _) = exchanged(seed);
            let changed = if first { &mut message } else { &mut answer };
            *at.get_mut(changed) ^= 1 << bit;
            let ours = Initiator::start(&HYBRID, &[1; 32], b"p", b"first", &mut Dice(seed), &mut Vec::new());
            let refused = if first {
                Responder::read(&HYBRID, &[1; 32], b"p", &message).is_err()
            } else {
                ours.unwrap().read(&answer).is_err()
            };
            prop_assert!(refused);
        }
    }
}
