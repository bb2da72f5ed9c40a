//! The link secret and the keys derived from it (PROTOCOL.md §1).

use std::sync::Arc;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::Random;
use super::aead::{Aead, TAG};
use super::suite::Cipher;

/// A key as bytes, wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// A private key that lives as long as the link, wiped when dropped. It shares no 4 KiB page with anything else.
#[repr(align(4096))]
pub struct Private(Secret);

impl Private {
    /// Wraps the bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Secret::new(key))
    }
}

impl std::ops::Deref for Private {
    type Target = [u8; 32];

    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Length of the mask of a static datagram's key id and header, in bytes.
pub const MASK: usize = 21;

/// The peer's public key has small order: with every private key the exchange gives zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's public key is not a usable X25519 key")]
pub struct WeakKey;

/// A private key and the peer's public key.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// This end's X25519 private key.
    pub private: &'a [u8; 32],
    /// The peer's X25519 public key.
    pub peer_public: &'a [u8; 32],
}

/// Generates a shared secret, an X25519 private key, or a key unique to this process.
pub fn generate(random: &mut impl Random) -> Secret {
    let mut secret = Secret::new([0; 32]);
    random.fill(secret.as_mut());
    secret
}

/// Converts an OpenVPN static key to a shared secret: HKDF-SHA256 of its 256 bytes, with the salt "tund openvpn key" and
/// no info. Both ends get the same, whatever direction they used.
pub fn from_openvpn(key: &[u8; 256]) -> Secret {
    expand_32(&Hkdf::new(Some(b"tund openvpn key"), key), &[])
}

/// Returns the X25519 public key of a private key (RFC 7748).
pub fn public_of(private: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// Derives the link secret `L` = HKDF-Extract("tund link v1", ikm). The ikm is the shared secret or, with a key pair,
/// X25519(own private, peer public) followed by the shared secret or 32 zero bytes.
///
/// # Errors
/// [`WeakKey`] if the exchange gives zero.
pub fn link_secret(shared: Option<&[u8; 32]>, pair: Option<Pair<'_>>) -> Result<Secret, WeakKey> {
    let mut ikm = Zeroizing::new(Vec::with_capacity(64));
    if let Some(pair) = pair {
        ikm.extend_from_slice(&*x25519(&StaticSecret::from(*pair.private), pair.peer_public)?);
    }
    ikm.extend_from_slice(shared.unwrap_or(&[0; 32]));
    let (secret, _) = Hkdf::<Sha256>::extract(Some(b"tund link v1"), &ikm);
    Ok(Secret::new(secret.into()))
}

/// Returns the shared secret of both keys (RFC 7748 §6.1).
pub(super) fn x25519(private: &StaticSecret, public: &[u8; 32]) -> Result<Secret, WeakKey> {
    let shared = private.diffie_hellman(&PublicKey::from(*public));
    if shared.was_contributory() { Ok(Secret::new(shared.to_bytes())) } else { Err(WeakKey) }
}

/// Returns a name for `L` that does not reveal it: the first 8 bytes of SHA-256("tund link" ‖ L).
pub fn fingerprint(secret: &[u8; 32]) -> [u8; 8] {
    let hash = sha256(&[b"tund link", secret]);
    std::array::from_fn(|i| hash[i])
}

/// Returns the hash of the concatenated parts.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Returns the default MAC address of a tap device: HKDF-Expand(L, "tund hardware address" ‖ end ‖ name), the same
/// after each start and different for each end and link. It is locally administered, unicast, and sorts after those of
/// real cards: a bridge takes its lowest port address, which must not change when the link comes and goes.
pub fn hardware_address(secret: &[u8; 32], end: End<'_>, name: &str) -> [u8; 6] {
    let public;
    let end: &[u8] = match end {
        End::Shared(own) => own,
        End::Private(private) => {
            public = public_of(private);
            &public
        }
    };
    let bytes = expand_32(&prk(secret), &[b"tund hardware address", end, name.as_bytes()]);
    [0xfe, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
}

/// What distinguishes the ends of a link.
#[derive(Clone, Copy)]
pub enum End<'a> {
    /// A shared key, and what else differs.
    Shared(&'a [u8]),
    /// This end's X25519 private key.
    Private(&'a [u8; 32]),
}

/// The labels of [`LinkKeys::outside`].
const OUTSIDE: [&[u8]; 3] = [b"probe", b"mask", b"stream"];

/// The keys that live as long as the link, expanded once from `L`. Like [`Private`], they share no 4 KiB page with
/// anything else, so that they can be locked in memory on their own.
#[repr(align(4096))]
pub struct LinkKeys {
    expand: Hkdf<Sha256>,
    probe: Aes256,
    mask: Aes256,
    stream: Aes256,
}

impl LinkKeys {
    /// Expands `L`.
    pub fn new(secret: &[u8; 32]) -> Self {
        let expand = prk(secret);
        let [probe, mask, stream] = OUTSIDE.map(|label| aes(&expand, label));
        Self { expand, probe, mask, stream }
    }

    /// The key for wrapping handshakes.
    pub fn wrap(&self) -> Secret {
        expand_32(&self.expand, &[b"wrap"])
    }

    /// The key for the bridge guard's probes.
    pub fn loops(&self) -> ProbeKey {
        ProbeKey(aes(&self.expand, b"loop"))
    }

    /// Noise's pre-shared key.
    pub fn psk(&self) -> Secret {
        expand_32(&self.expand, &[b"psk"])
    }

    /// AES-256(probe, block): a keyed check of values sent with a datagram.
    pub fn probe(&self, block: [u8; 16]) -> [u8; 16] {
        encrypt(&self.probe, block)
    }

    /// AES-256(stream, block): hides the lengths of a stream's records.
    pub fn stream(&self, block: [u8; 16]) -> [u8; 16] {
        encrypt(&self.stream, block)
    }

    /// Returns the mask of a static datagram's key id and header: AES-256(mask, tag) followed by AES-256(mask, tag with
    /// the lowest bit of its last byte flipped), cut to [`MASK`] bytes.
    pub fn mask(&self, tag: &[u8; TAG]) -> [u8; MASK] {
        let mut second = *tag;
        second[TAG - 1] ^= 1;
        let mut mask = [0; MASK];
        mask[..16].copy_from_slice(&encrypt(&self.mask, *tag));
        mask[16..].copy_from_slice(&encrypt(&self.mask, second)[..MASK - 16]);
        mask
    }

    /// Computes the masks of several datagrams together.
    pub fn masks<'a>(&self, tags: impl Iterator<Item = &'a [u8; TAG]>, length: usize, masks: &mut Masks) {
        masks.blocks.clear();
        masks.each = length.div_ceil(TAG);
        for tag in tags {
            masks.blocks.push((*tag).into());
            if masks.each > 1 {
                let mut second = *tag;
                second[TAG - 1] ^= 1;
                masks.blocks.push(second.into());
            }
        }
        self.mask.encrypt_blocks(&mut masks.blocks);
    }

    /// Returns static mode's traffic key for lane 0: HKDF-Expand(L, "tund v1 static" ‖ suite ‖ direction ‖ key id ‖ 0,
    /// 32).
    pub fn static_key(&self, cipher: Cipher, direction: u8, key_id: &[u8; 16]) -> Aead {
        Aead::new(cipher, &self.static_bytes(cipher, direction, key_id))
    }

    /// The bytes of [`Self::static_key`].
    pub fn static_bytes(&self, cipher: Cipher, direction: u8, key_id: &[u8; 16]) -> Secret {
        expand_32(&self.expand, &[b"tund v1 static", &[cipher as u8, direction], key_id, &[0]])
    }

    /// Returns the bytes of another lane's key. `named` is the receiver's key id that the sender had named when its own was
    /// taken: HKDF-Expand(L, "tund v1 static" ‖ suite ‖ direction ‖ key id ‖ lane ‖ named, 32).
    pub fn static_lane_bytes(
        &self,
        cipher: Cipher,
        direction: u8,
        key_id: &[u8; 16],
        lane: u8,
        named: &[u8; 16],
    ) -> Secret {
        let parts: [&[u8]; 5] = [b"tund v1 static", &[cipher as u8, direction], key_id, &[lane], named];
        expand_32(&self.expand, &parts)
    }

    /// Returns the keys used outside of bodies, for a key log: probe, mask and stream.
    pub fn outside(&self) -> [Secret; 3] {
        OUTSIDE.map(|label| expand_32(&self.expand, &[label]))
    }
}

/// Proves that a bridge guard's probe is from an end of the link (PROTOCOL.md §7.1).
pub struct ProbeKey(Aes256);

impl ProbeKey {
    /// Returns a key that no other process has, from random bytes.
    pub fn own(draw: &[u8; 16]) -> Self {
        Self(aes(&Hkdf::new(Some(b"tund loop"), draw), b""))
    }

    /// AES-256(loop, block).
    pub fn tag(&self, block: [u8; 16]) -> [u8; 16] {
        encrypt(&self.0, block)
    }
}

/// Reveals no key.
impl std::fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeKey")
    }
}

/// Masks of several datagrams, at most [`MASK`] bytes each.
#[derive(Default)]
pub struct Masks {
    blocks: Vec<Block>,
    /// Blocks of each mask.
    each: usize,
}

impl Masks {
    /// Allocates room for the masks of so many datagrams.
    pub fn with_capacity(datagrams: usize) -> Self {
        Self { blocks: Vec::with_capacity(datagrams * MASK.div_ceil(TAG)), each: 0 }
    }

    /// Returns the mask of the `index`th datagram. Bytes not requested are zero.
    pub fn get(&self, index: usize) -> [u8; MASK] {
        let blocks = self.blocks.get(index * self.each..(index + 1) * self.each).unwrap_or_default();
        let mut mask = [0; MASK];
        for (part, block) in mask.chunks_mut(TAG).zip(blocks) {
            part.copy_from_slice(&block[..part.len()]);
        }
        mask
    }
}

/// The key of one direction of a session. Moves and clones share one copy, which is wiped with the last of them.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectionKey(Arc<Secret>);

impl DirectionKey {
    /// Wraps one half of Noise's Split.
    pub fn new(key: impl Into<Arc<Secret>>) -> Self {
        Self(key.into())
    }

    /// Returns a lane's traffic key: HKDF-Expand(direction key, "tund v1 lane" ‖ suite ‖ lane, 32).
    pub fn lane(&self, cipher: Cipher, lane: u8) -> Aead {
        Aead::new(cipher, &self.lane_bytes(cipher, lane))
    }

    /// Returns the bytes of [`Self::lane`], for a key log.
    pub fn lane_bytes(&self, cipher: Cipher, lane: u8) -> Secret {
        expand_32(&prk(&self.0), &[b"tund v1 lane", &[cipher as u8, lane]])
    }

    /// Returns a MAC of `parts` under this key.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let bytes = expand_32(&prk(&self.0), parts);
        std::array::from_fn(|i| bytes[i])
    }
}

/// Reveals no key.
impl std::fmt::Debug for DirectionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectionKey")
    }
}

fn prk(key: &[u8; 32]) -> Hkdf<Sha256> {
    #[allow(clippy::expect_used, reason = "a pseudorandom key of SHA-256's own length is never refused")]
    Hkdf::from_prk(key).expect("32 bytes")
}

fn aes(key: &Hkdf<Sha256>, label: &[u8]) -> Aes256 {
    Aes256::new((&*expand_32(key, &[label])).into())
}

fn encrypt(key: &Aes256, block: [u8; 16]) -> [u8; 16] {
    let mut block = block.into();
    key.encrypt_block(&mut block);
    block.into()
}

fn expand_32(key: &Hkdf<Sha256>, info: &[&[u8]]) -> Secret {
    let mut out = Secret::new([0; 32]);
    #[allow(clippy::expect_used, reason = "HKDF-SHA256 refuses only more than 8160 bytes")]
    key.expand_multi_info(info, out.as_mut()).expect("32 bytes");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_openvpn_key_becomes_what_hkdf_says() {
        // hmac(hmac("tund openvpn key", key), 01), by Python's hmac module.
        let key: [u8; 256] = std::array::from_fn(|n| n as u8);
        let expected = "e025164b609da0f39100b4b5004005052e4b8aca40cc4c21c250aa526ca754d7";
        let digits: String = from_openvpn(&key).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, expected);
    }

    #[test]
    fn both_ends_of_a_pair_compute_one_secret() {
        let (a, b) = ([3; 32], [4; 32]);
        let one = link_secret(None, Some(Pair { private: &a, peer_public: &public_of(&b) })).unwrap();
        let two = link_secret(None, Some(Pair { private: &b, peer_public: &public_of(&a) })).unwrap();
        assert_eq!(*one, *two);
        let with_shared =
            link_secret(Some(&[9; 32]), Some(Pair { private: &a, peer_public: &public_of(&b) }));
        assert_ne!(*one, *with_shared.unwrap());
    }

    #[test]
    fn a_hardware_address_is_one_of_each_end_of_each_link() {
        let one = hardware_address(&[1; 32], End::Shared(b"fri"), "tun-fri-mon");
        let again = hardware_address(&[1; 32], End::Shared(b"fri"), "tun-fri-mon");
        assert_eq!((one, one[0]), (again, 0xfe));
        for (secret, end, name) in [
            ([2; 32], End::Shared(b"fri"), "tun-fri-mon"),
            ([1; 32], End::Shared(b"mon"), "tun-fri-mon"),
            ([1; 32], End::Shared(b"fri"), "tun-fri-tue"),
            ([1; 32], End::Private(&[3; 32]), "tun-fri-mon"),
            ([1; 32], End::Private(&[4; 32]), "tun-fri-mon"),
        ] {
            assert_ne!(hardware_address(&secret, end, name)[1..], one[1..]);
        }
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let weak = link_secret(None, Some(Pair { private: &[3; 32], peer_public: &[0; 32] }));
        assert_eq!(weak.err(), Some(WeakKey));
    }

    /// RFC 7748 §5.2: one iteration from k = u = 9, and 9 is the base point.
    #[test]
    fn public_key_is_that_of_rfc_7748() {
        let mut nine = [0; 32];
        nine[0] = 9;
        let public = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
        assert_eq!(public_of(&nine), hex(public));
    }

    #[test]
    fn masks_computed_together_are_those_computed_alone() {
        let keys = LinkKeys::new(&[1; 32]);
        let tags: Vec<[u8; TAG]> = (0..70).map(|n| [n; TAG]).collect();
        let mut masks = Masks::with_capacity(70);
        for length in [5, 16, MASK] {
            keys.masks(tags.iter(), length, &mut masks);
            for (index, tag) in tags.iter().enumerate() {
                assert_eq!(masks.get(index)[..length], keys.mask(tag)[..length]);
            }
        }
    }

    #[test]
    fn keys_differ_in_every_input() {
        let keys = LinkKeys::new(&[1; 32]);
        let (chacha, aes) = (Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm);
        let lane = |cipher, direction, key_id: u8, lane, named: u8| {
            keys.static_lane_bytes(cipher, direction, &[key_id; 16], lane, &[named; 16])
        };
        let first = |cipher, direction, key_id: u8| keys.static_bytes(cipher, direction, &[key_id; 16]);
        let all = [
            first(chacha, 0, 0),
            first(aes, 0, 0),
            first(chacha, 1, 0),
            first(chacha, 0, 1),
            lane(chacha, 0, 0, 1, 0),
            lane(aes, 0, 0, 1, 0),
            lane(chacha, 1, 0, 1, 0),
            lane(chacha, 0, 1, 1, 0),
            lane(chacha, 0, 0, 2, 0),
            lane(chacha, 0, 0, 1, 1),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().map(|key| **key).collect();
        assert_eq!(distinct.len(), all.len());
    }

    fn hex(text: &str) -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }
}
