//! What carries datagrams between the two ends.

pub mod connected;
pub mod handover;
pub mod inherited;
pub mod stream;
pub mod udp;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::core::lane::Transmit;
use crate::core::path::Path;

/// An outer socket as the data path uses it: no call blocks or allocates. It is readable when something can be received.
pub trait Datagrams: AsFd + Sized {
    /// The same once more.
    fn try_clone(&self) -> io::Result<Self>;

    /// Makes the kernel join datagrams of one flow that arrive together, or not.
    ///
    /// # Errors
    /// It cannot.
    fn enable_gro(&self, on: bool) -> io::Result<()>;

    /// Bytes of memory that datagrams take which wait to be received; 0 where that is not known.
    fn waiting(&self) -> usize;

    /// Receives one datagram, or several that were joined.
    ///
    /// # Errors
    /// `WouldBlock`: none is waiting; `InvalidData`: one did not fit into `buffer` and is lost.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Sends datagrams, all with one call.
    ///
    /// # Errors
    /// `WouldBlock`: the buffer is full; EMSGSIZE: they are larger than the MTU of the interface they would leave by; EIO or
    /// EINVAL: they cannot be cut apart; [`is_source_lost`]: this host does not send from the path's own address.
    fn send(&self, transmit: Transmit<'_>) -> io::Result<()>;

    /// Takes one report of a router or host about datagrams sent before, and the address they were for.
    ///
    /// # Errors
    /// `WouldBlock`: there is none.
    fn receive_error(&self) -> io::Result<(SocketAddr, io::Error)>;
}

/// What was received in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes of all of it.
    pub length: usize,
    /// Length of each datagram but the last, which may be shorter.
    pub stride: usize,
    /// The ECN codepoint of the datagrams.
    pub ecn: u8,
    /// The way they came, IPv4 addresses always as IPv4.
    pub from: Path,
}

/// Whether a failure to send may be due to the own address that was asked for: it is gone, or has no route.
pub fn is_source_lost(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::HOSTUNREACH)
    )
}
