//! What tund tells its operator: log, exit codes, text.

pub mod exit;
pub mod log;
pub mod output;
pub mod stderr;
pub mod text;
pub mod unwritten;
