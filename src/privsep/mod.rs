//! Two processes: the parent keeps the privileges and never reads the network, the engine reads the
//! network and has no privileges.

pub mod door;
pub mod limit;
pub mod message;

#[cfg(feature = "daemon")]
pub mod channel;
#[cfg(feature = "daemon")]
mod control;
#[cfg(feature = "daemon")]
mod hooks;
#[cfg(feature = "daemon")]
mod host;
#[cfg(feature = "daemon")]
mod manager;
#[cfg(feature = "daemon")]
pub mod parent;
#[cfg(feature = "daemon")]
mod pushed;
#[cfg(feature = "daemon")]
mod reload;
#[cfg(feature = "daemon")]
mod requests;
#[cfg(feature = "daemon")]
mod routes;
#[cfg(feature = "daemon")]
pub mod sandbox;
#[cfg(feature = "daemon")]
pub mod spawn;
