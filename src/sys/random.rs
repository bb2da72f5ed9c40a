//! Random bytes of the kernel.

use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use crate::crypto::Random;

/// getrandom(2), by the system call itself: what finds the C library's function first opens a file where it has none to find, as in a
/// static program, and the process that reads the network may open none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_buffer_is_filled_to_its_end() {
        let mut bytes = vec![0; 1 << 20];
        Os.fill(&mut bytes);
        // 64 zeros in a row have a chance of 2^-492.
        assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
        Os.fill(&mut []);
    }
}
