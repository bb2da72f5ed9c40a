//! Key ids of static mode (PROTOCOL.md §4.1): a time, four random bytes and a keyed check.

use serde::{Deserialize, Serialize};

use crate::crypto::constant_time;
use crate::crypto::keys::LinkKeys;
use crate::wire::datagram::KEY_ID;

/// `time in µs (8) ‖ random (4) ‖ check (4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyId(pub [u8; KEY_ID]);

impl KeyId {
    /// Makes a key id with this time (microseconds since the Unix epoch).
    pub fn new(keys: &LinkKeys, time: u64, random: [u8; 4]) -> Self {
        let mut key_id = [0; KEY_ID];
        key_id[..8].copy_from_slice(&time.to_be_bytes());
        key_id[8..12].copy_from_slice(&random);
        let check = check(keys, &key_id);
        key_id[12..].copy_from_slice(&check);
        Self(key_id)
    }

    /// Whether the check is right. Costs one AES block.
    pub fn is_valid(&self, keys: &LinkKeys) -> bool {
        constant_time::equal(&self.0[12..], &check(keys, &self.0))
    }

    /// The sender's clock when it drew the key id, in microseconds since the Unix epoch.
    pub fn time(&self) -> u64 {
        self.0.first_chunk().map_or(0, |time| u64::from_be_bytes(*time))
    }
}

/// The first four bytes of AES-256(probe, "stat" ‖ time ‖ random).
fn check(keys: &LinkKeys, key_id: &[u8; KEY_ID]) -> [u8; 4] {
    let mut block = *b"stat............";
    block[4..].copy_from_slice(&key_id[..12]);
    let block = keys.probe(block);
    [block[0], block[1], block[2], block[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_breaks_the_check() {
        let keys = LinkKeys::new(&[1; 32]);
        let key_id = KeyId::new(&keys, 1_700_000_000_000_000, [1, 2, 3, 4]);
        assert!(key_id.is_valid(&keys));
        assert_eq!(key_id.time(), 1_700_000_000_000_000);
        for bit in 0..128 {
            let mut other = key_id;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!other.is_valid(&keys), "bit {bit}");
        }
        assert!(!key_id.is_valid(&LinkKeys::new(&[2; 32])));
    }
}
