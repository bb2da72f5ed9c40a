//! The `tund` program: all code is in the library, so that the lab can embed it.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Overwrites freed memory, since not every library erases its keys. The data path frees nothing.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    tund::cli::main()
}
