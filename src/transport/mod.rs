//! Outer sockets and names.

pub mod call;
pub mod inherited;
pub mod resolve;
pub mod udp;
