//! Copies of secrets that functions leave on the stack.

use std::hint::black_box;

use zeroize::Zeroize;

/// What is wiped below the caller, in 8 bytes: 128 KiB, of which the deepest computation with keys, that of ML-KEM, takes less than 64.
const DEPTH: usize = 16384;

/// Does `work` and then wipes the stack that it used. A value that is moved or copied stays behind where it was, also
/// where the type erases itself: whatever handles a long-lived secret by value does it in here.
pub fn cleanly<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe();
    result
}

/// Its frame, and those of all that `work` calls, are where the one of [`wipe`] is after it.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut used = [0u64; DEPTH];
    black_box(&mut used).zeroize();
}
