//! Running a link: the only place with clocks, processes and a runtime.
#![allow(clippy::disallowed_methods, reason = "this is where clocks are read")]

pub mod background;
pub mod check;
pub mod cleanup;
pub mod clock;
pub mod directories;
pub mod directory;
pub mod doctor;
pub mod engine;
pub mod environment;
pub mod exit;
pub mod identity;
pub mod import;
pub mod keylog;
pub mod keys;
pub mod ledger;
pub mod log;
pub mod memory;
pub mod notify;
pub mod output;
mod patience;
pub mod port;
pub mod preflight;
pub mod random;
pub mod script;
pub mod signals;
pub mod start;
pub mod stderr;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod trust;
pub mod uevent;
mod verbose;
pub mod worker;
