//! One-shot child processes that meet the network without privileges.

pub mod call;
pub mod proxy;
pub mod resolve;
pub mod zone;
