//! `guest`: a command in a user-mode guest.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tund_lab::guest::Guest;
use tund_lab::{Error, rights};

/// What it can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What is written below this folder stays; all else that is written in the guest goes with it
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// Start its kernel with this argument, such as ipv6.disable=1
    #[arg(long, value_name = "ARGUMENT")]
    kernel: Vec<String>,
    /// Kill it after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// A program of this machine and its arguments; it gets the terminal, and its exit code becomes this one's
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs a command in a guest and returns its exit code.
pub fn run(options: Options) -> Result<u8, Error> {
    rights::become_root()?;
    let limit = Duration::from_secs(options.timeout);
    let mut guest = Guest::new(options.command).limit(limit).with_terminal();
    for folder in &options.share {
        guest = guest.share(folder)?;
    }
    options.kernel.into_iter().fold(guest, Guest::kernel).run()
}
