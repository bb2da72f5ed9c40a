//! Running a link: the only place with clocks, processes and a runtime.

pub mod environment;
pub mod log;
pub mod random;
pub mod script;
pub mod signals;
#[cfg(test)]
mod testing;
pub mod text;
