//! Replacements for random bytes: a seeded generator and the bytes of a test vector.

use std::time::Duration;

use crate::crypto::Random;

/// A deterministic generator (splitmix64).
#[derive(Debug, Clone, Hash)]
pub struct Dice(pub u64);

impl Dice {
    /// A 64-bit number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns an independent generator, so that one part's draws do not affect another.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// Returns true with this probability, from 0 to 1.
    pub fn chance(&mut self, share: f64) -> bool {
        ((self.number() >> 11) as f64) < share * (1u64 << 53) as f64
    }

    /// Picks one of these.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// Uniform between two durations.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_micros(self.number() % ((most - least).as_micros() as u64 + 1))
    }

    /// Uniform between two numbers of milliseconds.
    pub fn ms(&mut self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_millis(least), Duration::from_millis(most))
    }

    /// From `least` to `most`, inclusive.
    pub fn within(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.number() as u8
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }
}

impl Random for Dice {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Yields the bytes of a test vector in order. Panics when they run out.
pub struct Given<'a>(pub &'a [u8]);

impl Random for Given<'_> {
    fn fill(&mut self, buffer: &mut [u8]) {
        let (given, later) = self.0.split_at(buffer.len());
        buffer.copy_from_slice(given);
        self.0 = later;
    }
}
