//! Addresses and routes: the plan (pure) and netlink (the kernel).

pub mod plan;

#[cfg(feature = "daemon")]
pub mod netlink;
