//! Outer sockets and names.

pub mod resolve;
pub mod udp;
