//! A socket for one peer, on a port that anyone may send to.
//!
//! The kernel delivers each datagram to the best matching socket, so a socket connected to the peer gets the peer's datagrams, in a queue that nobody
//! else fills.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::sockopt;
use socket2::{Domain, Protocol, Type};

use super::udp::{self, Socket, mapped};
use crate::config::Config;
use crate::core::path::Path;
use crate::transport::Datagrams as _;

/// The port of a peer's own socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The front's.
    Shared,
    /// Any other.
    Own,
}

/// Opens a socket for the datagrams of `path`, beside `front`, which tund has bound itself. It is ready for [`Socket::prepared`], whose user may not
/// set any option.
pub fn open(front: BorrowedFd<'_>, config: &Config, port: Port, path: Path) -> io::Result<OwnedFd> {
    let v6 = udp::is_v6(front)?;
    let local = local(front, config, port, path)?;
    let (local, remote) = if v6 { (mapped(local), mapped(path.remote)) } else { (local, path.remote) };
    let socket = socket2::Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if v6 {
        socket.set_only_v6(sockopt::ipv6_v6only(front)?)?;
    }
    udp::set_options(&socket, config, path.remote.is_ipv4(), v6)?;
    udp::grow_both(&socket, config)?;
    match port {
        Port::Own => socket.bind(&local.into())?,
        Port::Shared => bind_beside(front, &socket, local)?,
    }
    socket.connect(&remote.into())?;
    let socket = match port {
        // Its receive calls fail with an ICMP error all the same, once for any number: if ICMP is forged at line rate, a queue costs more than the
        // link's datagrams do.
        Port::Shared => Socket::without_error_queue(socket.into())?,
        // Its send calls would take the errors.
        Port::Own => Socket::from_fd(socket.into())?,
    };
    if config.tuning.data_path.offload {
        // Without it, each is received separately; that has been logged.
        let _ = socket.enable_gro(true);
    }
    Ok(socket.into())
}

/// The address to bind to.
fn local(front: BorrowedFd<'_>, config: &Config, port: Port, path: Path) -> io::Result<SocketAddr> {
    let of_family = |own: &IpAddr| own.is_ipv4() == path.remote.is_ipv4();
    let any: IpAddr =
        if path.remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Ok(match port {
        Port::Shared => SocketAddr::new(path.local.unwrap_or(any), udp::local_port(front)?),
        Port::Own => {
            let configured = config.listen.address.filter(of_family);
            SocketAddr::new(path.local.or(configured).unwrap_or(any), 0)
        }
    })
}

/// Binds beside the front. Sockets of one user share a port if both allow it; the front allows it only meanwhile.
fn bind_beside(front: BorrowedFd<'_>, socket: &socket2::Socket, local: SocketAddr) -> io::Result<()> {
    socket.set_reuse_port(true)?;
    sockopt::set_socket_reuseport(front, true)?;
    let bound = socket.bind(&local.into());
    sockopt::set_socket_reuseport(front, false)?;
    bound
}
