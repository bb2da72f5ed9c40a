//! Addresses and routes: the plan (pure) and netlink (the kernel).

pub mod accept;
pub mod plan;

#[cfg(feature = "daemon")]
pub mod netlink;
