//! The separation of privileges: what the two processes say to each other, and how one is started and locked in.

pub mod door;
pub mod message;

#[cfg(feature = "daemon")]
pub mod background;
#[cfg(feature = "daemon")]
pub mod bulk;
#[cfg(feature = "daemon")]
pub mod channel;
#[cfg(feature = "daemon")]
pub mod sandbox;
#[cfg(feature = "daemon")]
pub mod spawn;
