//! The command line.

use std::process::ExitCode;

/// Runs the program of this process's arguments.
pub fn main() -> ExitCode {
    todo!()
}
