//! A socket for one peer on the port that everybody may send to.
//!
//! The kernel hands each datagram to the socket that fits it best, so that one that is connected to the peer has the
//! peer's datagrams, and a queue for them that nobody else fills.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::sockopt;
use socket2::{Domain, Protocol, Type};

use super::udp::{self, Socket, mapped};
use crate::config::Config;
use crate::core::path::Path;
use crate::transport::Datagrams as _;

/// The port of a socket for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// That of the front.
    Shared,
    /// Any other.
    Own,
}

/// Opens one for the datagrams that come along `path`, beside `front`, which tund has bound itself. It is ready for
/// [`Socket::prepared`]: who uses it may set nothing.
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
    let socket = Socket::from_fd(socket.into())?;
    if config.tuning.data_path.offload {
        // Where it cannot, each is received alone; that has been said.
        let _ = socket.enable_gro(true);
    }
    Ok(socket.into())
}

/// What it is bound to.
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

/// Two sockets of one user share a port while both say so. The front says so for a moment: after it nobody shares.
fn bind_beside(front: BorrowedFd<'_>, socket: &socket2::Socket, local: SocketAddr) -> io::Result<()> {
    socket.set_reuse_port(true)?;
    sockopt::set_socket_reuseport(front, true)?;
    let bound = socket.bind(&local.into());
    sockopt::set_socket_reuseport(front, false)?;
    bound
}
