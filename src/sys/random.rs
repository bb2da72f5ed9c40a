//! Random bytes from the kernel.

use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use crate::crypto::Random;

/// getrandom(2) as a direct system call: looking for the C library's function opens a file if there is none, as in a static program, and the process
/// that reads the network may not open files.
pub struct Os;

impl Random for Os {
    fn fill(&mut self, buffer: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            #[allow(
                clippy::panic,
                reason = "without random bytes no key is safe; a start that has none ends before this (`check`)"
            )]
            match rustix::rand::getrandom(rest, GetRandomFlags::empty()) {
                Ok(length) => filled += length,
                Err(Errno::INTR) => {}
                Err(error) => panic!("getrandom(2) does not work: {error}"),
            }
        }
    }
}

/// Checks that a process without a file to read from, like the one that reads the network, can have random bytes.
///
/// # Errors
/// Those of getrandom(2).
pub fn check() -> std::io::Result<()> {
    match rustix::rand::getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) {
        // The kernel's pool is not ready yet, soon after boot.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_buffer_is_filled_to_its_end() {
        let mut bytes = vec![0; 1 << 20];
        Os.fill(&mut bytes);
        // 64 zeros in a row have a probability of 2^-492.
        assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
        Os.fill(&mut []);
    }
}
