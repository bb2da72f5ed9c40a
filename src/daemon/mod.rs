//! Running a link: the only place with clocks, processes and a runtime.

pub mod log;
pub mod text;
