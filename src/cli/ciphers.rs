//! `tund bench-ciphers`: the measurement that chooses libraries at each start, for people.

use std::fmt::Write;

use crate::crypto::aead::{Timing, best};

/// Formats one line per cipher and library. Like at a start, the figures are of a millisecond, so they vary.
pub fn table(timings: &[Timing]) -> String {
    let mut out = format!("{:<18}  {:<10}  {:>10}  {:>8}\n", "CIPHER", "LIBRARY", "1420 BYTES", "64 BYTES");
    for timing in timings {
        let used = if best(timings, timing.cipher) == timing.library { "  used" } else { "" };
        let [full, small] = [timing.full, timing.small].map(|time| format!("{} ns", time.as_nanos()));
        let (cipher, library) = (timing.cipher.to_string(), timing.library.to_string());
        // Writing to a String does not fail.
        let _ = writeln!(out, "{cipher:<18}  {library:<10}  {full:>10}  {small:>8}{used}");
    }
    out
}
