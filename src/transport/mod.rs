//! Outer sockets and names.

pub mod udp;
