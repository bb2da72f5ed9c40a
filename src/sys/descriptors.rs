//! Descriptors by number.

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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

fn close_range(first: c_uint, last: c_uint) -> io::Result<()> {
    const NO_FLAGS: c_int = 0;
    // SAFETY: close_range(2) touches no memory, and by the contract above nobody owns these descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, NO_FLAGS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
