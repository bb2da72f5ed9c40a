//! The outside of a handshake datagram: random bytes to anyone without the link secret.
//!
//! ```text
//! r (16 random) | AES-256(probe, r)[0..8] | XChaCha20-Poly1305(wrap, nonce = the 24 bytes before) | tag
//! ```

use chacha20::{R20, hchacha};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};

use super::Random;
use super::aead::TAG;
use super::constant_time;
use super::keys::{LinkKeys, Secret};

const RANDOM: usize = 16;
const NONCE: usize = 24;
/// Overhead of a handshake datagram in bytes.
pub const OVERHEAD: usize = NONCE + TAG;

/// Seals a plaintext into a datagram.
pub fn seal(keys: &LinkKeys, plaintext: &[u8], random: &mut impl Random) -> Vec<u8> {
    let r = random.bytes::<RANDOM>();
    let mut datagram = Vec::with_capacity(OVERHEAD + plaintext.len());
    datagram.extend_from_slice(&r);
    datagram.extend_from_slice(&keys.probe(r)[..NONCE - RANDOM]);
    datagram.extend_from_slice(plaintext);
    let (nonce, body) = datagram.split_at_mut(NONCE);
    let nonce: [u8; NONCE] = std::array::from_fn(|i| nonce[i]);
    #[allow(clippy::expect_used, reason = "a handshake of some hundred bytes is below the cipher's limit")]
    let tag = XChaCha20Poly1305::new((&*keys.wrap()).into())
        .encrypt_inout_detached((&nonce).into(), b"", body.into())
        .expect("a short plaintext");
    datagram.extend_from_slice(&tag);
    datagram
}

/// Whether the probe is right. Costs one AES block.
pub fn is_probe(keys: &LinkKeys, datagram: &[u8]) -> bool {
    if datagram.len() < OVERHEAD {
        return false;
    }
    let Some((r, rest)) = datagram.split_first_chunk::<RANDOM>() else { return false };
    constant_time::equal(&rest[..NONCE - RANDOM], &keys.probe(*r)[..NONCE - RANDOM])
}

/// Opens a datagram; `None` unless someone with the link secret sealed it.
pub fn open(keys: &LinkKeys, datagram: &[u8]) -> Option<Vec<u8>> {
    if !is_probe(keys, datagram) {
        return None;
    }
    let (nonce, rest) = datagram.split_first_chunk::<NONCE>()?;
    let (body, tag) = rest.split_last_chunk::<TAG>()?;
    let mut plaintext = body.to_vec();
    XChaCha20Poly1305::new((&*keys.wrap()).into())
        .decrypt_inout_detached(nonce.into(), b"", plaintext.as_mut_slice().into(), tag.into())
        .ok()?;
    Some(plaintext)
}

/// Returns the key of datagrams with this prefix only. XChaCha20-Poly1305 is ChaCha20-Poly1305 under this key, with 4 zero bytes and
/// the probe as the nonce.
pub fn key_of(keys: &LinkKeys, datagram: &[u8]) -> Option<([u8; RANDOM], Secret)> {
    let r = *datagram.first_chunk()?;
    Some((r, Secret::new(hchacha::<R20>((&*keys.wrap()).into(), (&r).into()).into())))
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::ChaCha20Poly1305;
    use chacha20poly1305::aead::{Aead, Payload};

    use super::*;
    use crate::testing::Dice;

    #[test]
    fn opens_only_unchanged_and_with_the_same_secret() {
        let keys = LinkKeys::new(&[1; 32]);
        let datagram = seal(&keys, b"plaintext", &mut Dice(0));
        assert_eq!(datagram.len(), OVERHEAD + 9);
        assert_eq!(open(&keys, &datagram).as_deref(), Some(b"plaintext".as_slice()));
        assert_eq!(open(&LinkKeys::new(&[2; 32]), &datagram), None);
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&keys, &changed), None, "bit {bit}");
            assert_eq!(is_probe(&keys, &changed), bit >= NONCE * 8, "bit {bit}");
        }
        for length in 0..OVERHEAD {
            assert_eq!(open(&keys, &datagram[..length]), None);
        }
    }

    #[test]
    fn the_key_of_a_datagram_opens_it_and_no_other() {
        let (keys, mut random) = (LinkKeys::new(&[1; 32]), Dice(0));
        let [one, other] = [0, 1].map(|_| seal(&keys, b"plaintext", &mut random));
        let (r, key) = key_of(&keys, &one).unwrap();
        assert_eq!(r, one[..RANDOM]);
        let open = |datagram: &[u8]| {
            let nonce = [&[0; 4], &datagram[RANDOM..NONCE]].concat();
            let sealed = Payload { msg: &datagram[NONCE..], aad: b"" };
            ChaCha20Poly1305::new((&*key).into()).decrypt(nonce[..].try_into().unwrap(), sealed).ok()
        };
        assert_eq!(open(&one).as_deref(), Some(b"plaintext".as_slice()));
        assert_eq!(open(&other), None);
        assert!(key_of(&keys, &one[..RANDOM - 1]).is_none());
    }

    #[test]
    fn the_same_plaintext_never_gives_the_same_bytes() {
        let keys = LinkKeys::new(&[1; 32]);
        let mut random = Dice(0);
        assert_ne!(seal(&keys, b"same", &mut random)[..], seal(&keys, b"same", &mut random)[..]);
    }
}
