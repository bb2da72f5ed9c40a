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

/// An outer socket as used by the data path: no call blocks or allocates. It is readable when something can be received.
pub trait Datagrams: AsFd + Sized {
    /// Duplicates the socket.
    fn try_clone(&self) -> io::Result<Self>;

    /// Has the kernel join datagrams of one flow that arrive together, or not.
    ///
    /// # Errors
    /// It cannot.
    fn enable_gro(&self, on: bool) -> io::Result<()>;

    /// Bytes of memory used by datagrams in the receive queue; 0 if unknown.
    fn waiting(&self) -> usize;

    /// Receives one datagram, or several that were joined.
    ///
    /// # Errors
    /// `WouldBlock`: none is waiting; `InvalidData`: one exceeded `buffer` and is lost.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Sends datagrams, all in one call.
    ///
    /// # Errors
    /// `WouldBlock`: the buffer is full; EMSGSIZE: they exceed the MTU of the outgoing interface; EIO or EINVAL: the kernel cannot split them;
    /// [`is_source_lost`]: this host cannot send from the path's source address.
    fn send(&self, transmit: Transmit<'_>) -> io::Result<()>;

    /// The address it is connected to, whose ICMP errors fail a call of [`receive`](Self::receive).
    fn peer(&self) -> Option<SocketAddr>;

    /// Takes one ICMP report about earlier datagrams, and the address they were sent to.
    ///
    /// # Errors
    /// `WouldBlock`: there is none.
    fn receive_error(&self) -> io::Result<(SocketAddr, io::Error)>;
}

/// The result of one receive call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Total length in bytes.
    pub length: usize,
    /// Length of each datagram; the last may be shorter.
    pub stride: usize,
    /// The ECN codepoint of the datagrams.
    pub ecn: u8,
    /// The path they came on, IPv4 never mapped to IPv6.
    pub from: Path,
}

/// Whether the kernel of this host refuses to send. Errors that ICMP can cause (net/ipv4/icmp.c, net/ipv6/icmp.c) are excluded, since anyone can
/// forge it.
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::IO | Errno::PERM))
}

/// Whether a send may have failed because of the requested source address: it is gone, or has no route.
pub fn is_source_lost(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::HOSTUNREACH)
    )
}
