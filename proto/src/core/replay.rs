//! The replay window (RFC 6479): a ring of bitmap words, advanced by whole words.

use super::limits::{COUNTER_END, WINDOW};

const WORD: u32 = u64::BITS;
/// One word more than the window, so that advancing never clears a word in use.
const WORDS: usize = (WINDOW / WORD) as usize + 1;

/// The counters seen under one key. It has one owner, and is updated only after a tag verified.
#[derive(Clone)]
pub struct Window {
    /// Lowest counter seen; earlier ones may never have been sent.
    first: u32,
    /// One more than the highest counter seen.
    next: u32,
    /// Number of counters seen.
    seen: u32,
    ring: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { first: u32::MAX, next: 0, seen: 0, ring: [0; WORDS] }
    }
}

impl Window {
    /// A window in which every counter up to this one counts as seen.
    pub fn after(counter: u32) -> Self {
        let mut ring = [u64::MAX; WORDS];
        ring[slot(counter)] >>= WORD - 1 - counter % WORD;
        Self { first: u32::MAX, next: counter + 1, seen: 0, ring }
    }

    /// Whether this counter may be new. Costs no decryption.
    pub fn admits(&self, counter: u32) -> bool {
        if counter >= COUNTER_END || counter + WINDOW < self.next {
            return false;
        }
        counter >= self.next || self.ring[slot(counter)] & bit(counter) == 0
    }

    /// Marks an authentic counter as seen; false if it was seen before or is below the window.
    pub fn accept(&mut self, counter: u32) -> bool {
        if !self.admits(counter) {
            return false;
        }
        if counter >= self.next {
            let from = if self.next == 0 { 0 } else { (self.next - 1) / WORD + 1 };
            let to = counter / WORD;
            for word in (from..=to).take(WORDS) {
                self.ring[word as usize % WORDS] = 0;
            }
            self.next = counter + 1;
        }
        self.ring[slot(counter)] |= bit(counter);
        self.first = self.first.min(counter);
        self.seen += 1;
        true
    }

    /// Missing counters between the lowest and the highest seen: lost datagrams, or overtaken ones still to come.
    pub fn missing(&self) -> u32 {
        self.next.saturating_sub(self.first).saturating_sub(self.seen)
    }

    /// Whether this counter is the highest seen.
    pub fn is_newest(&self, counter: u32) -> bool {
        counter + 1 == self.next
    }
}

fn slot(counter: u32) -> usize {
    (counter / WORD) as usize % WORDS
}

fn bit(counter: u32) -> u64 {
    1 << (counter % WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_edges_of_the_window() {
        let mut window = Window::default();
        assert!(window.accept(WINDOW));
        assert!(window.admits(1), "WINDOW - 1 behind the newest");
        assert!(window.accept(1) && !window.accept(1));
        assert!(window.accept(WINDOW + 1));
        assert!(!window.admits(0), "one behind the window");
        assert!(!window.admits(COUNTER_END) && !window.admits(u32::MAX));
        assert!(window.accept(COUNTER_END - 1));
        assert!(!window.accept(COUNTER_END - 1));
    }

    proptest! {
        /// Accepts none up to the start, and each one above it once.
        #[test]
        fn begins_after_a_counter(start in 0u32..20_000, jumps in prop::collection::vec(0u32..9000, 1..200)) {
            let mut window = Window::after(start);
            for back in 0..=start.min(2 * WINDOW) {
                prop_assert!(!window.admits(start - back), "{} of {start}", start - back);
            }
            let (mut taken, mut last) = (BTreeSet::new(), start);
            for jump in jumps {
                let counter = (start / 2).saturating_add(jump);
                let expected = counter > start && counter + WINDOW > last && taken.insert(counter);
                prop_assert_eq!(window.accept(counter), expected);
                last = last.max(if expected { counter } else { 0 });
            }
        }

        /// Compared with a full set: never accepts twice, and always accepts what is new and inside.
        #[test]
        fn agrees_with_a_set(jumps in prop::collection::vec((0u32..40_000, 0u32..9000), 1..400)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut accepted = BTreeSet::new();
            let mut base = 0;
            for (jump, back) in jumps {
                base += jump / 8;
                let counter = base.saturating_sub(back);
                let next = seen.last().map_or(0, |c| c + 1);
                let expected = counter + WINDOW >= next && !seen.contains(&counter);
                prop_assert_eq!(window.admits(counter), expected);
                prop_assert_eq!(window.accept(counter), expected);
                seen.insert(counter);
                if expected {
                    accepted.insert(counter);
                }
                let (first, last) = (accepted.first().unwrap(), accepted.last().unwrap());
                prop_assert_eq!(window.missing() as usize, (last - first + 1) as usize - accepted.len());
            }
        }
    }
}
