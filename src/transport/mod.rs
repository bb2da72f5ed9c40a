//! Outer sockets and names.

pub mod inherited;
pub mod resolve;
pub mod udp;
