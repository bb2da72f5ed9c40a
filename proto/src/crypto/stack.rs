//! Wipes copies of secrets that functions leave on the stack.

use std::hint::black_box;

use zeroize::Zeroize;

/// 8-byte words wiped below the caller: 128 KiB. The deepest computation with keys, ML-KEM, uses less than 64.
const DEPTH: usize = 16384;

/// Runs `work`, then wipes the stack that it used. A moved or copied value leaves its bytes behind, even if its type
/// zeroizes itself, so all handling of long-lived secrets by value happens in here.
pub fn cleanly<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe();
    result
}

/// Runs `work` where the frame of [`wipe`] will be afterwards.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut used = [0u64; DEPTH];
    black_box(&mut used).zeroize();
}
