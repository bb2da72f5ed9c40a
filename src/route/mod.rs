//! Addresses and routes: plans and comparisons (pure); netlink (the kernel).

pub mod accept;
pub mod difference;
pub mod facts;
pub mod full;
pub mod mending;
pub mod plan;
pub mod step;

#[cfg(feature = "daemon")]
pub mod monitor;
#[cfg(feature = "daemon")]
pub mod netlink;
