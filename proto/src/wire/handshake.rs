//! The inside of a handshake datagram, and the payloads of its Noise messages (PROTOCOL.md §3).
//!
//! ```text
//! plaintext = type (1) | instance (8) | seq (8) | token (16) | length (2) | noise message | zero bytes
//! payload   = receive slot (1) | lanes (1) | count (1) | suites (count)
//! type      = version:4 part:2 kind:2
//! ```

use super::Malformed;
use super::control::MAX_LANES;
use crate::crypto::suite::{Cipher, Exchange};

const HEAD: usize = 1 + 8 + 8 + 16 + 2;
/// Most suites in a payload.
const MAX_SUITES: usize = 8;

/// Parts of a message that is sent in parts, so that each fits any path.
pub const PARTS: u8 = 3;

/// Kind of a handshake datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first message.
    Initiation = 1,
    /// Its answer.
    Answer = 2,
    /// Repeat with this token.
    Retry = 3,
}

/// The first byte of a plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Key exchange, which is the version.
    pub exchange: Exchange,
    /// Kind.
    pub kind: Kind,
    /// Number of the part, from 1 to [`PARTS`]; 0: the whole message.
    pub part: u8,
}

impl Type {
    /// The plaintext of a datagram that only says that its sender is in handshake mode, and with which key exchange.
    pub const fn sign(exchange: Exchange) -> u8 {
        (exchange as u8) << 4 | 4
    }

    /// Returns the key exchange of such a plaintext.
    pub fn signed(plaintext: &[u8]) -> Option<Exchange> {
        EXCHANGES.into_iter().find(|exchange| plaintext == [Self::sign(*exchange)])
    }

    fn parse(byte: u8) -> Option<Self> {
        let exchange = EXCHANGES.into_iter().find(|exchange| *exchange as u8 == byte >> 4)?;
        let kinds = [Kind::Initiation, Kind::Answer, Kind::Retry];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == byte & 3)?;
        let part = byte >> 2 & 3;
        // Nothing that fits any path is split.
        let whole = exchange == Exchange::X25519 || kind == Kind::Retry;
        (part == 0 || !whole).then_some(Self { exchange, kind, part })
    }

    const fn emit(self) -> u8 {
        (self.exchange as u8) << 4 | self.part << 2 | self.kind as u8
    }
}

const EXCHANGES: [Exchange; 2] = [Exchange::X25519, Exchange::Hybrid];

/// A handshake plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Type.
    pub of: Type,
    /// The initiator's instance.
    pub instance: [u8; 8],
    /// Number of the initiation.
    pub seq: u64,
    /// Proof that the initiator receives at its address, or zero.
    pub token: [u8; 16],
    /// The Noise message or a part of it; empty in a retry.
    pub message: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Parses a plaintext.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = plaintext;
        let [of] = take::<1>(&mut rest)?;
        let instance = take(&mut rest)?;
        let seq = u64::from_be_bytes(take(&mut rest)?);
        let token = take(&mut rest)?;
        let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let (message, padding) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Malformed::LeftOver);
        }
        let of = Type::parse(of).ok_or(Malformed::Unsupported)?;
        if of.kind == Kind::Retry && !message.is_empty() {
            return Err(Malformed::LeftOver);
        }
        Ok(Self { of, instance, seq, token, message })
    }

    /// Length of the plaintext without padding.
    pub fn length(&self) -> usize {
        HEAD + self.message.len()
    }

    /// Writes the plaintext, zero-padded to at least `length` bytes.
    pub fn emit(&self, length: usize, out: &mut Vec<u8>) {
        let end = out.len() + length.max(self.length());
        out.push(self.of.emit());
        out.extend_from_slice(&self.instance);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.token);
        out.extend_from_slice(&u16::try_from(self.message.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(self.message);
        out.resize(end, 0);
    }
}

/// Noise's prologue: "tund v1" or "tund v2" ‖ instance ‖ seq ‖ token.
pub fn prologue(exchange: Exchange, instance: &[u8; 8], seq: u64, token: &[u8; 16]) -> Vec<u8> {
    let version: &[u8] = match exchange {
        Exchange::X25519 => b"tund v1",
        Exchange::Hybrid => b"tund v2",
    };
    [version, instance, &seq.to_be_bytes(), token].concat()
}

/// Splits a Noise message into parts of equal length; the last may be shorter.
pub fn parts(message: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    (1..).zip(message.chunks(message.len().div_ceil(usize::from(PARTS)).max(1)))
}

/// The payload of either Noise message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The sender's receiving slot.
    pub slot: u8,
    /// Lanes the sender offers.
    pub lanes: u8,
    /// Initiation: allowed suites, in order of preference. Answer: the chosen one, or none.
    pub suites: Vec<Cipher>,
}

impl Offer {
    /// Encodes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let suites = self.suites.iter().take(MAX_SUITES).map(|cipher| *cipher as u8);
        let count = u8::try_from(self.suites.len().min(MAX_SUITES)).unwrap_or(0);
        [self.slot, self.lanes, count].into_iter().chain(suites).collect()
    }

    /// Decodes a payload, without unknown suites.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut rest = payload;
        let [slot, lanes, count] = take(&mut rest)?;
        if slot > 3 || !(1..=MAX_LANES).contains(&lanes) || usize::from(count) > MAX_SUITES {
            return Err(Malformed::OutOfRange);
        }
        if rest.len() != usize::from(count) {
            return Err(Malformed::LeftOver);
        }
        if rest.iter().enumerate().any(|(at, suite)| rest[..at].contains(suite)) {
            return Err(Malformed::OutOfRange);
        }
        let suites =
            rest.iter().filter_map(|suite| Cipher::ALL.into_iter().find(|known| *known as u8 == *suite));
        Ok(Self { slot, lanes, suites: suites.collect() })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
    *rest = left;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            exchange in prop::sample::select(&EXCHANGES[..]),
            kind in prop::sample::select(&[Kind::Initiation, Kind::Answer, Kind::Retry][..]), part in 0..=PARTS,
            instance: [u8; 8], seq: u64, token: [u8; 16], message: Vec<u8>, length in 0usize..600,
        ) {
            let message = if kind == Kind::Retry { &[][..] } else { &message };
            let part = if kind == Kind::Retry || exchange == Exchange::X25519 { 0 } else { part };
            let envelope = Envelope { of: Type { exchange, kind, part }, instance, seq, token, message };
            let mut plaintext = Vec::new();
            envelope.emit(length, &mut plaintext);
            prop_assert_eq!(plaintext.len(), length.max(envelope.length()));
            prop_assert_eq!(Envelope::parse(&plaintext), Ok(envelope));
        }

        #[test]
        fn hostile_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(envelope) = Envelope::parse(&bytes) {
                let mut again = Vec::new();
                envelope.emit(bytes.len(), &mut again);
                prop_assert_eq!(&again, &bytes);
            }
            let _ = Offer::decode(&bytes);
        }
    }

    #[test]
    fn padding_and_types_are_checked() {
        let of = Type { exchange: Exchange::X25519, kind: Kind::Retry, part: 0 };
        let envelope = Envelope { of, instance: [1; 8], seq: 2, token: [3; 16], message: b"" };
        let mut plaintext = Vec::new();
        envelope.emit(80, &mut plaintext);
        plaintext[79] = 1;
        assert_eq!(Envelope::parse(&plaintext), Err(Malformed::LeftOver));
        plaintext[79] = 0;
        let types = (0..=255).filter(|kind| {
            plaintext[0] = *kind;
            Envelope::parse(&plaintext).is_ok()
        });
        let [first, second] = [0x11..=0x13, 0x21..=0x23];
        let parts = [0x25, 0x26, 0x29, 0x2a, 0x2d, 0x2e];
        assert_eq!(types.collect::<Vec<u8>>(), first.chain(second).chain(parts).collect::<Vec<u8>>());
        assert_eq!(Envelope::parse(&plaintext[..34]), Err(Malformed::Truncated));
        let mut plaintext = Vec::new();
        Envelope { message: b"more", ..envelope }.emit(80, &mut plaintext);
        assert_eq!(Envelope::parse(&plaintext), Err(Malformed::LeftOver), "a retry has no message");
    }

    #[test]
    fn a_sign_is_one_byte() {
        assert_eq!(Type::signed(&[0x14]), Some(Exchange::X25519));
        assert_eq!(Type::signed(&[0x24]), Some(Exchange::Hybrid));
        for other in [&[0x34][..], &[0x14, 0], &[]] {
            assert_eq!(Type::signed(other), None);
        }
    }

    #[test]
    fn parts_are_of_nearly_one_length_and_make_up_the_message() {
        for length in 0..2000 {
            let message = vec![7; length];
            let (numbers, all): (Vec<u8>, Vec<&[u8]>) = parts(&message).unzip();
            assert_eq!(all.concat(), message);
            assert!(numbers.iter().copied().eq(1..=numbers.len() as u8) && numbers.len() <= 3);
            assert!(all.iter().all(|part| part.len() <= length.div_ceil(3)));
        }
    }

    #[test]
    fn offers_are_strict_but_for_unknown_suites() {
        let offer = Offer { slot: 3, lanes: 1, suites: vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] };
        assert_eq!(offer.encode(), [3, 1, 2, 2, 1]);
        assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
        let chacha = vec![Cipher::ChaCha20Poly1305];
        assert_eq!(Offer::decode(&[0, 1, 2, 99, 1]), Ok(Offer { slot: 0, lanes: 1, suites: chacha }));
        for bad in [
            &[4, 1, 0][..],
            &[0, 0, 0],
            &[0, 17, 0],
            &[0, 1, 1],
            &[0, 1, 0, 1],
            &[0, 1],
            &[0, 1, 9],
            &[0, 1, 2, 1, 1],
            &[0, 1, 3, 7, 1, 7],
        ] {
            assert!(Offer::decode(bad).is_err(), "{bad:?}");
        }
    }
}
