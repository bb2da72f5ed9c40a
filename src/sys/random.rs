//! Random bytes of the kernel.

use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use crate::crypto::Random;

/// getrandom(2).
pub struct Os;

impl Random for Os {
    fn fill(&mut self, buffer: &mut [u8]) {
        #[allow(
            clippy::expect_used,
            reason = "without random bytes no key is safe; a start that has none ends before this (`check`)"
        )]
        getrandom::fill(buffer).expect("getrandom(2) works");
    }
}

/// Whether a process can have random bytes that has no file to read them from, as the one has that reads the network.
///
/// # Errors
/// Those of getrandom(2).
pub fn check() -> std::io::Result<()> {
    match rustix::rand::getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) {
        // It waits for the first of them, soon after the machine was started.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
