//! System calls that only an attacker makes, for the sandbox's tests.

use std::ffi::c_long;
use std::io;

/// Makes the system call `number` with these arguments: numbers, null pointers, or pointers to data that outlives the process.
pub fn attempt(number: c_long, arguments: [usize; 6]) -> io::Result<c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the test process exits after the attempt, and by the contract above no pointer dangles until then.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
