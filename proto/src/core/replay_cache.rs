//! Cache of recently accepted handshake datagrams: copies, modified or not, cost the link nothing.

/// Buckets, and values per bucket: more than four days' initiations, in 32 KiB.
const BUCKETS: usize = 1024;
const PLACES: usize = 4;

/// Keyed by the datagrams' first bytes, random and under a keyed check: nobody without the key can choose a bucket.
#[derive(Clone)]
pub struct ReplayCache(Vec<[u64; PLACES]>);

impl Default for ReplayCache {
    fn default() -> Self {
        Self(vec![[0; PLACES]; BUCKETS])
    }
}

impl ReplayCache {
    /// A cache for next to nothing, for states that are copied repeatedly.
    #[cfg(test)]
    pub fn tiny() -> Self {
        Self(vec![[0; PLACES]; 1])
    }

    /// Whether a datagram with these random bytes was accepted.
    pub fn contains(&self, random: [u8; 16]) -> bool {
        let (bucket, value) = place(random, self.0.len());
        self.0[bucket].contains(&value)
    }

    /// Stores these random bytes, evicting the oldest in their bucket.
    pub fn insert(&mut self, random: [u8; 16]) {
        let (bucket, value) = place(random, self.0.len());
        self.0[bucket].rotate_right(1);
        self.0[bucket][0] = value;
    }
}

fn place(random: [u8; 16], buckets: usize) -> (usize, u64) {
    let random = u128::from_be_bytes(random);
    let (bucket, value) = ((random >> 64) as usize % buckets, random as u64);
    (bucket, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(number: u64) -> [u8; 16] {
        let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        (u128::from(high) << 64 | u128::from(number + 1)).to_be_bytes()
    }

    #[test]
    fn the_last_are_remembered_and_the_oldest_make_room() {
        let mut seen = ReplayCache::default();
        for number in 0..1000 {
            assert!(!seen.contains(random(number)));
            seen.insert(random(number));
        }
        let remembered = (0..1000).filter(|number| seen.contains(random(*number))).count();
        assert!(remembered > 990, "{remembered}");
        (1000..100_000).for_each(|number| seen.insert(random(number)));
        assert!((0..1000).all(|number| !seen.contains(random(number))));
        assert!(seen.contains(random(99_999)));
    }
}
