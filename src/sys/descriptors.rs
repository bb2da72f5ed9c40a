//! Descriptors by number.

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Closes every descriptor above 2 that is not among `keep`: those that whoever started this program left
/// open. Only for a process that owns no other descriptor yet. Needs Linux 5.9.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<c_uint> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, c_uint::MAX)
}

/// Another descriptor for what descriptor `number` of this process is open on, closed on exec.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow ends with the call; a number that is not open is answered with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fd.try_clone_to_owned()
}

fn close_range(first: c_uint, last: c_uint) -> io::Result<()> {
    const NO_FLAGS: c_int = 0;
    // SAFETY: close_range(2) touches no memory, and by the contract above nobody owns these descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, NO_FLAGS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_duplicate_is_of_the_same_file_and_no_number_that_is_not_open_has_one() {
        let (mut read, mut write) = io::pipe().unwrap();
        let copy = duplicate(read.as_raw_fd()).unwrap();
        assert_ne!(copy.as_raw_fd(), read.as_raw_fd());
        write.write_all(b"x").unwrap();
        std::fs::File::from(copy).read_exact(&mut [0]).unwrap();
        drop(write);
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
        assert!(duplicate(-1).is_err() && duplicate(RawFd::MAX).is_err());
    }
}
