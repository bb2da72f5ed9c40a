//! The UDP socket.

use std::io;
use std::os::fd::OwnedFd;

use crate::config::Config;

/// A bound socket.
#[derive(Debug)]
pub struct Bound {
    /// Not blocking, unconnected, DF set, no fragmentation.
    pub fd: OwnedFd,
    /// The port it is bound to.
    pub port: u16,
    /// Lines for the log: another port than the default was taken, a buffer is smaller than asked for.
    pub notes: Vec<String>,
}

/// Binds the socket of `config.listen`: dual-stack `[::]` when no address is named (IPv4 alone where there is no IPv6).
/// `AddrInUse` when the port is taken and was explicit or there is no remote.
pub fn bind(config: &Config) -> io::Result<Bound> {
    let _ = config;
    todo!()
}
