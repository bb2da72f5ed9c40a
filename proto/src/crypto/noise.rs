//! `Noise_NNpsk0_25519_ChaChaPoly_SHA256` and `Noise_KKpsk0_25519_ChaChaPoly_SHA256` (Noise revision 34), built from
//! X25519, HKDF and ChaCha20-Poly1305. [`exchange`](super::exchange) wipes the stack afterwards.

use std::sync::Arc;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Random;
use super::aead::TAG;
use super::keys::{Private, Secret, WeakKey, public_of, sha256, x25519};

/// Length of a public key.
const DH: usize = 32;
/// Overhead of a message of either pattern, in bytes.
pub const OVERHEAD: usize = DH + TAG;

/// Why a handshake message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// Shorter than any message.
    #[error("the message is too short")]
    TooShort,
    /// Not sealed by a holder of the keys, or modified.
    #[error("the message does not verify")]
    BadTag,
    /// A public key of small order.
    #[error("the message holds an unusable public key")]
    WeakKey,
}

/// The long-lived keys, which determine the pattern.
#[derive(Clone)]
pub enum Statics {
    /// NNpsk0: the pre-shared key only.
    None,
    /// KKpsk0: a key pair at each end.
    Pair {
        /// This end's private key: one copy, shared by all handshakes.
        private: Arc<Private>,
        /// The peer's public key.
        peer_public: [u8; DH],
    },
}

/// The keys after a handshake, one copy of each.
pub struct SplitKeys {
    /// For the initiator's data.
    pub initiator_to_responder: Arc<Secret>,
    /// For the responder's data.
    pub responder_to_initiator: Arc<Secret>,
}

/// The state after both messages.
pub struct Finished(Symmetric);

impl Finished {
    /// Returns the keys of both directions. A `shared` key from outside Noise is mixed in with the handshake hash, so that it
    /// counts for this handshake alone.
    pub fn split(mut self, shared: Option<&[u8; 32]>) -> SplitKeys {
        if let Some(shared) = shared {
            let bound = Zeroizing::new([*shared, self.0.hash].concat());
            self.0.mix_key(&bound);
        }
        self.0.split()
    }
}

/// The initiator, after its first message.
#[derive(Clone)]
pub struct Initiator {
    state: Symmetric,
    ephemeral: StaticSecret,
    statics: Statics,
}

/// The responder, after reading the first message.
pub struct Responder {
    state: Symmetric,
    peer_ephemeral: [u8; DH],
    statics: Statics,
}

impl Initiator {
    /// Writes the first message, with sealed `payload`, to `out`.
    ///
    /// # Errors
    /// [`NoiseError::WeakKey`] if the peer's configured public key is unusable.
    pub fn start(
        statics: &Statics,
        psk: &[u8; 32],
        prologue: &[u8],
        payload: &[u8],
        random: &mut impl Random,
        out: &mut Vec<u8>,
    ) -> Result<Self, NoiseError> {
        let mut state = Symmetric::new(statics, prologue, true);
        state.mix_key_and_hash(psk);
        let ephemeral = StaticSecret::from(random.bytes::<DH>());
        let public = PublicKey::from(&ephemeral).to_bytes();
        out.extend_from_slice(&public);
        state.mix_ephemeral(&public);
        if let Statics::Pair { private, peer_public } = statics {
            state.mix_key(&*dh(&ephemeral, peer_public)?);
            state.mix_key(&*dh(&StaticSecret::from(***private), peer_public)?);
        }
        state.encrypt_and_hash(payload, out);
        Ok(Self { state, ephemeral, statics: statics.clone() })
    }

    /// Reads an answer. The state does not change, so another answer may be read later.
    ///
    /// # Errors
    /// The message is invalid.
    pub fn read(&self, message: &[u8]) -> Result<(Vec<u8>, Finished), NoiseError> {
        let (public, sealed) = message.split_first_chunk::<DH>().ok_or(NoiseError::TooShort)?;
        let mut state = self.state.clone();
        state.mix_ephemeral(public);
        state.mix_key(&*dh(&self.ephemeral, public)?);
        if let Statics::Pair { private, .. } = &self.statics {
            state.mix_key(&*dh(&StaticSecret::from(***private), public)?);
        }
        let payload = state.decrypt_and_hash(sealed)?;
        Ok((payload, Finished(state)))
    }
}

impl Responder {
    /// Reads a first message.
    ///
    /// # Errors
    /// The message is invalid.
    pub fn read(
        statics: &Statics,
        psk: &[u8; 32],
        prologue: &[u8],
        message: &[u8],
    ) -> Result<(Vec<u8>, Self), NoiseError> {
        let (public, sealed) = message.split_first_chunk::<DH>().ok_or(NoiseError::TooShort)?;
        let mut state = Symmetric::new(statics, prologue, false);
        state.mix_key_and_hash(psk);
        state.mix_ephemeral(public);
        if let Statics::Pair { private, peer_public } = statics {
            let private = StaticSecret::from(***private);
            state.mix_key(&*dh(&private, public)?);
            state.mix_key(&*dh(&private, peer_public)?);
        }
        let payload = state.decrypt_and_hash(sealed)?;
        Ok((payload, Self { state, peer_ephemeral: *public, statics: statics.clone() }))
    }

    /// Writes the answer, with sealed `payload`, to `out`.
    ///
    /// # Errors
    /// [`NoiseError::WeakKey`] if a public key of the peer is unusable.
    pub fn write(
        mut self,
        payload: &[u8],
        random: &mut impl Random,
        out: &mut Vec<u8>,
    ) -> Result<Finished, NoiseError> {
        let ephemeral = StaticSecret::from(random.bytes::<DH>());
        let public = PublicKey::from(&ephemeral).to_bytes();
        out.extend_from_slice(&public);
        self.state.mix_ephemeral(&public);
        self.state.mix_key(&*dh(&ephemeral, &self.peer_ephemeral)?);
        if let Statics::Pair { peer_public, .. } = &self.statics {
            self.state.mix_key(&*dh(&ephemeral, peer_public)?);
        }
        self.state.encrypt_and_hash(payload, out);
        Ok(Finished(self.state))
    }
}

/// Noise's SymmetricState and CipherState combined (§5.1, §5.2).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Symmetric {
    hash: [u8; 32],
    chaining: [u8; 32],
    key: [u8; 32],
    nonce: u64,
}

impl Symmetric {
    fn new(statics: &Statics, prologue: &[u8], initiator: bool) -> Self {
        let name: &[u8] = match statics {
            Statics::None => b"Noise_NNpsk0_25519_ChaChaPoly_SHA256",
            Statics::Pair { .. } => b"Noise_KKpsk0_25519_ChaChaPoly_SHA256",
        };
        let hash = sha256(&[name]);
        let mut state = Self { hash, chaining: hash, key: [0; 32], nonce: 0 };
        state.mix_hash(prologue);
        if let Statics::Pair { private, peer_public } = statics {
            let own = public_of(private);
            let (first, second) = if initiator { (&own, peer_public) } else { (peer_public, &own) };
            state.mix_hash(first);
            state.mix_hash(second);
        }
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let out = self.hkdf::<64>(input);
        self.chaining.copy_from_slice(&out[..32]);
        self.key.copy_from_slice(&out[32..]);
        self.nonce = 0;
    }

    fn mix_key_and_hash(&mut self, input: &[u8; 32]) {
        let out = self.hkdf::<96>(input);
        self.chaining.copy_from_slice(&out[..32]);
        self.mix_hash(&out[32..64]);
        self.key.copy_from_slice(&out[64..]);
        self.nonce = 0;
    }

    /// With a pre-shared key, every ephemeral is also mixed into the key (§9.2).
    fn mix_ephemeral(&mut self, public: &[u8; DH]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    fn encrypt_and_hash(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plaintext);
        let (cipher, nonce) = self.cipher();
        #[allow(clippy::expect_used, reason = "a payload of some bytes is below the cipher's limit")]
        let tag = cipher
            .encrypt_inout_detached((&nonce).into(), &self.hash, (&mut out[start..]).into())
            .expect("a short payload");
        out.extend_from_slice(&tag);
        self.mix_hash(&out[start..]);
    }

    fn decrypt_and_hash(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(NoiseError::TooShort)?;
        let mut plaintext = body.to_vec();
        let (cipher, nonce) = self.cipher();
        cipher
            .decrypt_inout_detached((&nonce).into(), &self.hash, plaintext.as_mut_slice().into(), tag.into())
            .map_err(|_| NoiseError::BadTag)?;
        self.mix_hash(sealed);
        Ok(plaintext)
    }

    /// Returns the cipher and its next nonce: four zero bytes and the counter, little-endian (§12.3).
    fn cipher(&mut self) -> (ChaCha20Poly1305, [u8; 12]) {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        (ChaCha20Poly1305::new((&self.key).into()), nonce)
    }

    fn split(&self) -> SplitKeys {
        let out = self.hkdf::<64>(&[]);
        let half = |from: usize| -> Arc<Secret> {
            let mut key = Secret::new([0; 32]);
            key.copy_from_slice(&out[from..from + 32]);
            key.into()
        };
        SplitKeys { initiator_to_responder: half(0), responder_to_initiator: half(32) }
    }

    fn hkdf<const N: usize>(&self, input: &[u8]) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0; N]);
        #[allow(clippy::expect_used, reason = "HKDF-SHA256 refuses only more than 8160 bytes")]
        Hkdf::<Sha256>::new(Some(&self.chaining), input).expand(&[], out.as_mut()).expect("at most 96 bytes");
        out
    }
}

fn dh(private: &StaticSecret, public: &[u8; DH]) -> Result<Secret, NoiseError> {
    x25519(private, public).map_err(|WeakKey| NoiseError::WeakKey)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snow::Builder;

    use super::*;
    use crate::testing::{Dice, Given};

    fn pairs() -> [[u8; 32]; 2] {
        [[0x31; 32], [0x42; 32]]
    }

    fn statics(kk: bool, initiator: bool) -> Statics {
        let [a, b] = pairs();
        let (private, peer) = if initiator { (a, b) } else { (b, a) };
        let private = Private::new(private).into();
        if kk { Statics::Pair { private, peer_public: public_of(&peer) } } else { Statics::None }
    }

    /// snow in the other role.
    fn oracle(kk: bool, initiator: bool, psk: &[u8; 32], prologue: &[u8]) -> snow::HandshakeState {
        let name = if kk { "KK" } else { "NN" };
        let name = format!("Noise_{name}psk0_25519_ChaChaPoly_SHA256");
        let [a, b] = pairs();
        let (private, peer) = if initiator { (a, b) } else { (b, a) };
        let public = public_of(&peer);
        let mut builder =
            Builder::new(name.parse().unwrap()).prologue(prologue).unwrap().psk(0, psk).unwrap();
        if kk {
            builder = builder.local_private_key(&private).unwrap().remote_public_key(&public).unwrap();
        }
        if initiator { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
    }

    /// The keys agree if snow opens what ours seal, and vice versa.
    fn assert_agree(keys: &SplitKeys, ours_is_initiator: bool, snow: snow::HandshakeState) {
        let mut snow = snow.into_transport_mode().unwrap();
        let (send, receive) = if ours_is_initiator {
            (&keys.initiator_to_responder, &keys.responder_to_initiator)
        } else {
            (&keys.responder_to_initiator, &keys.initiator_to_responder)
        };
        let seal = ChaCha20Poly1305::new((&***send).into());
        let mut body = b"from us".to_vec();
        let tag = seal.encrypt_inout_detached((&[0; 12]).into(), b"", body.as_mut_slice().into()).unwrap();
        body.extend_from_slice(&tag);
        let mut plain = [0; 64];
        let length = snow.read_message(&body, &mut plain).unwrap();
        assert_eq!(&plain[..length], b"from us");
        let mut sealed = [0; 64];
        let length = snow.write_message(b"from snow", &mut sealed).unwrap();
        let (body, tag) = sealed[..length].split_at_mut(length - TAG);
        let open = ChaCha20Poly1305::new((&***receive).into());
        let tag: &[u8; TAG] = (&*tag).try_into().unwrap();
        open.decrypt_inout_detached((&[0; 12]).into(), b"", (&mut *body).into(), tag.into()).unwrap();
        assert_eq!(body, b"from snow");
    }

    /// A test vector published by the project "cacophony"; both share prologue, pre-shared key, ephemerals and
    /// payloads.
    struct Published {
        statics: [Statics; 2],
        messages: [&'static str; 2],
        /// Each end's first transport message.
        transport: [(&'static str, &'static str); 2],
    }

    const PROLOGUE: &str = "4a6f686e2047616c74";
    const PSK: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";
    const EPHEMERALS: [&str; 2] = [
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
        "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
    ];
    const PAYLOADS: [&str; 2] = ["4c756477696720766f6e204d69736573", "4d757272617920526f746862617264"];

    fn published() -> [Published; 2] {
        let nn = Published {
            statics: [Statics::None, Statics::None],
            messages: [
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
                 79b962b8aff8485742ac32f905ba45369e2465fb59e138a93d67a0d1266b6a54",
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843\
                 d6062704d5a9c422a8e834423f8c1feada7e8d0d910a1a2cd030fb584221e3",
            ],
            transport: [
                ("462e20412e20486179656b", "e632c3763d7669067383433197a3baddf146e9e70ad4b4e9e59e0f"),
                ("4361726c204d656e676572", "64c6bee32ea91c8474bb4c21d7a700109ad45af77b29764ba5eb1e"),
            ],
        };
        let pair = |private, peer| Statics::Pair {
            private: Private::new(hex32(private)).into(),
            peer_public: hex32(peer),
        };
        let kk = Published {
            statics: [
                pair(
                    "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
                    "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62",
                ),
                pair(
                    "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
                    "6bc3822a2aa7f4e6981d6538692b3cdf3e6df9eea6ed269eb41d93c22757b75a",
                ),
            ],
            messages: [
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
                 23f19812300a6051f02195db0722909fc920796814cfc886ab3a8083c66a5961",
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843\
                 20acfe866b4ede922f007d89dbf507216d6aa8646c7fba098da374b1784d4b",
            ],
            transport: [
                ("462e20412e20486179656b", "d213fdd768eeef05ee236c6d2983b2029bb472567a5831f4ff592c"),
                ("4361726c204d656e676572", "facf98016edcfc2566b16866935329b4da833dcd3bbb4173cf638e"),
            ],
        };
        [nn, kk]
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn hex32(text: &str) -> [u8; 32] {
        hex(text).try_into().unwrap()
    }

    fn first_sealed(key: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
        let mut body = plaintext.to_vec();
        let cipher = ChaCha20Poly1305::new(key.into());
        let tag = cipher.encrypt_inout_detached((&[0; 12]).into(), b"", body.as_mut_slice().into()).unwrap();
        [body.as_slice(), tag.as_slice()].concat()
    }

    #[test]
    fn both_patterns_give_the_published_vectors() {
        let (psk, prologue) = (hex32(PSK), hex(PROLOGUE));
        let ephemeral = EPHEMERALS.map(hex32);
        for Published { statics, messages, transport } in published() {
            let mut first = Vec::new();
            let random = &mut Given(&ephemeral[0]);
            let initiator =
                Initiator::start(&statics[0], &psk, &prologue, &hex(PAYLOADS[0]), random, &mut first)
                    .unwrap();
            assert_eq!(first, hex(messages[0]));
            let (payload, responder) = Responder::read(&statics[1], &psk, &prologue, &first).unwrap();
            assert_eq!(payload, hex(PAYLOADS[0]));
            let mut second = Vec::new();
            let random = &mut Given(&ephemeral[1]);
            let at_responder = responder.write(&hex(PAYLOADS[1]), random, &mut second).unwrap();
            assert_eq!(second, hex(messages[1]));
            let (payload, at_initiator) = initiator.read(&second).unwrap();
            assert_eq!(payload, hex(PAYLOADS[1]));
            for keys in [at_initiator, at_responder].map(|finished| finished.split(None)) {
                let halves = [&keys.initiator_to_responder, &keys.responder_to_initiator];
                for (key, (plaintext, sealed)) in halves.into_iter().zip(transport) {
                    assert_eq!(first_sealed(key, &hex(plaintext)), hex(sealed));
                }
            }
        }
    }

    /// Compiles only with the features, chosen in Cargo.toml, that wipe keys on drop.
    #[test]
    fn what_holds_keys_erases_them() {
        fn erased<T: ZeroizeOnDrop>() {}
        erased::<Symmetric>();
        erased::<Secret>();
        erased::<super::super::kem::Decapsulation>();
        erased::<StaticSecret>();
        erased::<ChaCha20Poly1305>();
        erased::<chacha20poly1305::XChaCha20Poly1305>();
        erased::<aes::Aes256>();
        erased::<Sha256>();
    }

    proptest! {
        #[test]
        fn our_initiator_agrees_with_snow(
            kk: bool, psk: [u8; 32], prologue: Vec<u8>, first in prop::collection::vec(any::<u8>(), 0..100),
            second in prop::collection::vec(any::<u8>(), 0..100), seed: u64,
        ) {
            let mut snow = oracle(kk, false, &psk, &prologue);
            let mut message = Vec::new();
            let ours =
                Initiator::start(&statics(kk, true), &psk, &prologue, &first, &mut Dice(seed), &mut message)
                    .unwrap();
            prop_assert_eq!(message.len(), OVERHEAD + first.len());
            let mut plain = [0; 200];
            let length = snow.read_message(&message, &mut plain).unwrap();
            prop_assert_eq!(&plain[..length], &first);
            let mut answer = [0; 300];
            let length = snow.write_message(&second, &mut answer).unwrap();
            let (payload, keys) = ours.read(&answer[..length]).unwrap();
            prop_assert_eq!(payload, second);
            assert_agree(&keys.split(None), true, snow);
            answer[length - 1] ^= 1;
            prop_assert!(ours.read(&answer[..length]).is_err());
        }

        #[test]
        fn our_responder_agrees_with_snow(
            kk: bool, psk: [u8; 32], prologue: Vec<u8>, first in prop::collection::vec(any::<u8>(), 0..100),
            second in prop::collection::vec(any::<u8>(), 0..100), seed: u64,
        ) {
            let mut snow = oracle(kk, true, &psk, &prologue);
            let mut message = [0; 300];
            let length = snow.write_message(&first, &mut message).unwrap();
            let (payload, ours) =
                Responder::read(&statics(kk, false), &psk, &prologue, &message[..length]).unwrap();
            prop_assert_eq!(payload, first);
            let mut answer = Vec::new();
            let keys = ours.write(&second, &mut Dice(seed), &mut answer).unwrap();
            let mut plain = [0; 200];
            let length = snow.read_message(&answer, &mut plain).unwrap();
            prop_assert_eq!(&plain[..length], &second);
            assert_agree(&keys.split(None), false, snow);
        }

        #[test]
        fn hostile_messages_are_refused(kk: bool, message in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Responder::read(&statics(kk, false), &[1; 32], b"", &message).is_err());
        }
    }

    #[test]
    fn a_message_with_an_unusable_key_or_another_psk_is_refused() {
        let read =
            |psk: &[u8; 32], message: &[u8]| Responder::read(&statics(true, false), psk, b"", message).err();
        let mut message = Vec::new();
        Initiator::start(&statics(true, true), &[1; 32], b"", b"x", &mut Dice(1), &mut message).unwrap();
        assert_eq!(read(&[1; 32], &message), None);
        assert_eq!(read(&[2; 32], &message), Some(NoiseError::BadTag));
        message[..32].fill(0);
        assert_eq!(read(&[1; 32], &message), Some(NoiseError::WeakKey));
        assert_eq!(read(&[1; 32], &message[..40]), Some(NoiseError::WeakKey));
        assert_eq!(read(&[1; 32], &message[..31]), Some(NoiseError::TooShort));
    }
}
