//! Changes to this host and their undoing, and which of its directories can be trusted.

pub mod changes;
pub mod directories;
pub mod directory;
pub mod ledger;
pub mod trust;
