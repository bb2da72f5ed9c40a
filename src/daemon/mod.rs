//! Running a link: the only place with clocks, processes and a runtime.
#![allow(clippy::disallowed_methods, reason = "this is where clocks are read")]

pub mod engine;
pub mod environment;
pub mod log;
pub mod random;
pub mod script;
pub mod signals;
#[cfg(test)]
mod testing;
pub mod text;
mod verbose;
pub mod worker;
