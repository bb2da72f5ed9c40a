//! The inside of a handshake datagram, and the payloads of its Noise messages (PROTOCOL.md §3).
//!
//! ```text
//! plaintext = type (1) | instance (8) | seq (8) | token (16) | length (2) | noise message | zero bytes
//! payload   = receive slot (1) | lanes (1) | count (1) | suites (count)
//! ```

use super::Malformed;
use crate::crypto::suite::Cipher;

const HEAD: usize = 1 + 8 + 8 + 16 + 2;
/// Suites that a payload may name.
const MAX_SUITES: usize = 8;

/// What a handshake datagram is; the upper half of the byte is the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// The first message.
    Initiation = 0x11,
    /// Its answer.
    Answer = 0x12,
    /// "Again, with this token."
    Retry = 0x13,
}

impl Type {
    /// The whole plaintext of a datagram that says no more than that its sender is in handshake mode.
    pub const SIGN: u8 = 0x14;
}

/// A handshake plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What it is.
    pub kind: Type,
    /// The initiator's instance.
    pub instance: [u8; 8],
    /// Counts the instance's initiations.
    pub seq: u64,
    /// Proof that the initiator gets what is sent to its address; zero without one.
    pub token: [u8; 16],
    /// The Noise message; empty in a retry.
    pub message: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads a plaintext.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = plaintext;
        let [kind] = take::<1>(&mut rest)?;
        let instance = take(&mut rest)?;
        let seq = u64::from_be_bytes(take(&mut rest)?);
        let token = take(&mut rest)?;
        let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let (message, padding) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Malformed::LeftOver);
        }
        let kind =
            [Type::Initiation, Type::Answer, Type::Retry].into_iter().find(|known| *known as u8 == kind);
        let kind = kind.ok_or(Malformed::Unsupported)?;
        if kind == Type::Retry && !message.is_empty() {
            return Err(Malformed::LeftOver);
        }
        Ok(Self { kind, instance, seq, token, message })
    }

    /// Length of the plaintext without padding.
    pub fn length(&self) -> usize {
        HEAD + self.message.len()
    }

    /// Writes the plaintext, padded to `length` bytes if that is longer.
    pub fn emit(&self, length: usize, out: &mut Vec<u8>) {
        let end = out.len() + length.max(self.length());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.instance);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.token);
        out.extend_from_slice(&u16::try_from(self.message.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(self.message);
        out.resize(end, 0);
    }
}

/// Noise's prologue: "tund v1" ‖ instance ‖ seq ‖ token.
pub fn prologue(instance: &[u8; 8], seq: u64, token: &[u8; 16]) -> Vec<u8> {
    [b"tund v1".as_slice(), instance, &seq.to_be_bytes(), token].concat()
}

/// The payload of either Noise message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The slot in which the sender receives.
    pub slot: u8,
    /// Lanes the sender offers.
    pub lanes: u8,
    /// Initiation: allowed suites, the preferred one first. Answer: the chosen one, or none.
    pub suites: Vec<Cipher>,
}

impl Offer {
    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let suites = self.suites.iter().take(MAX_SUITES).map(|cipher| *cipher as u8);
        let count = u8::try_from(self.suites.len().min(MAX_SUITES)).unwrap_or(0);
        [self.slot, self.lanes, count].into_iter().chain(suites).collect()
    }

    /// Reads a payload; suites that are not known are left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut rest = payload;
        let [slot, lanes, count] = take(&mut rest)?;
        if slot > 3 || lanes == 0 || lanes > 16 || usize::from(count) > MAX_SUITES {
            return Err(Malformed::OutOfRange);
        }
        if rest.len() != usize::from(count) {
            return Err(Malformed::LeftOver);
        }
        if rest.iter().enumerate().any(|(at, suite)| rest[..at].contains(suite)) {
            return Err(Malformed::OutOfRange);
        }
        let known = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
        let suites = rest.iter().filter_map(|suite| known.into_iter().find(|known| *known as u8 == *suite));
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
            kind in prop::sample::select(&[Type::Initiation, Type::Answer, Type::Retry][..]),
            instance: [u8; 8], seq: u64, token: [u8; 16], message: Vec<u8>, length in 0usize..600,
        ) {
            let message = if kind == Type::Retry { &[][..] } else { &message };
            let envelope = Envelope { kind, instance, seq, token, message };
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
        let envelope = Envelope { kind: Type::Retry, instance: [1; 8], seq: 2, token: [3; 16], message: b"" };
        let mut plaintext = Vec::new();
        envelope.emit(80, &mut plaintext);
        plaintext[79] = 1;
        assert_eq!(Envelope::parse(&plaintext), Err(Malformed::LeftOver));
        plaintext[79] = 0;
        plaintext[0] = 0x21;
        assert_eq!(Envelope::parse(&plaintext), Err(Malformed::Unsupported));
        assert_eq!(Envelope::parse(&plaintext[..34]), Err(Malformed::Truncated));
        let mut plaintext = Vec::new();
        Envelope { message: b"more", ..envelope }.emit(80, &mut plaintext);
        assert_eq!(Envelope::parse(&plaintext), Err(Malformed::LeftOver), "a retry has no message");
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
