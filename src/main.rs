//! The `tund` program: everything is in the library, so that the lab can embed it.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Overwrites memory when it is freed, since not every library erases its keys. Nothing is freed on the data path.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    tund::cli::main()
}
