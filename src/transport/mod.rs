//! Outer sockets.

pub mod inherited;
pub mod udp;
