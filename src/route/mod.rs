//! Addresses and routes: the plan (pure) and netlink (the kernel).

pub mod accept;
pub mod full;
pub mod plan;
pub mod step;

#[cfg(feature = "daemon")]
pub mod monitor;
#[cfg(feature = "daemon")]
pub mod netlink;
