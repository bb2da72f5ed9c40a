//! Hosts in network namespaces.
//!
//! A [`Net`] is a separate world; a [`Host`] in it is a process that holds a network and a mount namespace, so nothing is left in `/run/netns` and a
//! user namespace's root suffices. [`Net::cable`] joins two hosts by a veth pair, [`Wire`] by two TAP devices between which this process forwards:
//! the wire's holder can see, change and invent every frame.
//!
//! Everything ends with its handle, even on panic: processes are killed by pid, namespaces end with their holders, and if this process is killed, the
//! kernel kills what it started.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// A lab waits for real processes; there is no simulated time here.
#![allow(clippy::disallowed_methods)]

mod boot;
mod host;
mod process;
mod scratch;
mod syslog;

pub mod flood;
pub mod frame;
pub mod guest;
pub mod machine;
pub mod probe;
pub mod rights;
pub mod scenario;
pub mod teardown;
pub mod wire;

pub use boot::Machine;
pub use host::{Host, Net};
pub use process::{Process, install, leave_dead_socket, wait_until, write_script};
pub use scratch::Scratch;
pub use wire::{Crossed, Port, Side, Wire};

/// An error as one actionable text. `Debug` shows the same text, so that `unwrap` in a test prints it.
pub struct Error(String);

impl Error {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Gives an error its place.
pub trait At<T> {
    /// Puts the place before the message.
    fn at(self, place: impl std::fmt::Display) -> Result<T, Error>;
}

impl<T, E: std::fmt::Display> At<T> for Result<T, E> {
    fn at(self, place: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error(format!("{place}: {error}")))
    }
}
