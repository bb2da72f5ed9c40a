//! Random bytes of the kernel.

use crate::crypto::Random;

/// getrandom(2).
pub struct Os;

impl Random for Os {
    fn fill(&mut self, buffer: &mut [u8]) {
        #[allow(
            clippy::expect_used,
            reason = "without random bytes no key is safe; Linux has had the call since 3.17"
        )]
        getrandom::fill(buffer).expect("getrandom(2) works");
    }
}
