//! Privilege separation: the messages between the two processes, and how one is started and confined.

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
