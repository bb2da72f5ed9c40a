//! Queries to a running link, and its metrics.

pub mod api;
pub mod events;
pub mod metrics;
#[cfg(feature = "daemon")]
mod peer;
#[cfg(feature = "daemon")]
pub mod scrape;
#[cfg(feature = "daemon")]
pub mod server;
pub mod talker;
pub mod text;
