//! Marks secret bytes for valgrind's memcheck, under which a benchmark runs. Otherwise it does nothing.
//!
//! Memcheck tracks uninitialized bytes through all computations, and reports each branch or address that depends on one. It can check secrets in the
//! same way (Langley, ctgrind, 2010).

/// From valgrind/valgrind.h and valgrind/memcheck.h.
const RUNNING_ON_VALGRIND: usize = 0x1001;
const MAKE_MEM_UNDEFINED: usize = 0x4d43_0001;
const MAKE_MEM_DEFINED: usize = 0x4d43_0002;

/// Whether memcheck is running.
pub fn is_watched() -> bool {
    request(RUNNING_ON_VALGRIND, &mut []) != 0
}

/// Marks bytes on which no branch or address may depend, nor on anything computed from them.
pub fn hide(bytes: &mut [u8]) {
    request(MAKE_MEM_UNDEFINED, bytes);
}

/// Marks bytes as public, whatever they were computed from.
pub fn disclose(bytes: &mut [u8]) {
    request(MAKE_MEM_DEFINED, bytes);
}

/// Makes a client request to valgrind: rotations by 128 bits in total, and an exchange of a register with itself.
#[cfg(target_arch = "x86_64")]
fn request(number: usize, bytes: &mut [u8]) -> usize {
    let words = [number, bytes.as_mut_ptr().addr(), bytes.len(), 0, 0, 0];
    let mut result = 0;
    // SAFETY: on a processor these instructions change only the flags. valgrind reads `words`, which outlive them, and keeps notes on `bytes` without
    // changing them; the compiler must assume that both are read and written.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") words.as_ptr(), inout("rdx") result, in("rdi") bytes.as_mut_ptr(),
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: usize, _: &mut [u8]) -> usize {
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_happens_where_nobody_looks_on() {
        let mut bytes = [1, 2, 3];
        super::hide(&mut bytes);
        super::disclose(&mut bytes);
        assert_eq!((super::is_watched(), bytes), (false, [1, 2, 3]));
    }
}
