//! The control socket: what a running link can be asked.

pub mod api;
#[cfg(feature = "daemon")]
pub mod client;
#[cfg(feature = "daemon")]
mod peer;
#[cfg(feature = "daemon")]
pub mod scrape;
#[cfg(feature = "daemon")]
pub mod server;
pub mod text;
