//! The UDP socket: bound by the parent, used by the engine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockRef, Type};

use crate::config::Config;
use crate::core::lane::Transmit;
use crate::core::path::Path;
use crate::packet::traffic_class::ECN;
use crate::sys::{self, Departure, rights};
use crate::transport::{Datagrams, Received, is_refusal};

/// An attempt to send may return the error of an earlier datagram, having sent nothing. If ICMP is forged at line rate, several in a row do.
const ATTEMPTS: usize = 8;

/// A bound socket.
#[derive(Debug)]
pub struct Bound {
    /// Non-blocking, unconnected, DF set, no fragmentation.
    pub fd: OwnedFd,
    /// The port it is bound to.
    pub port: u16,
    /// Lines for the log: not the default port, a buffer smaller than requested.
    pub notes: Vec<String>,
}

/// Binds the socket of `config.listen`: dual-stack `[::]` if no address is given (IPv4 only without IPv6). `AddrInUse` if the port is taken and was
/// explicit or there is no remote.
pub fn bind(config: &Config) -> io::Result<Bound> {
    let port = config.listen.port;
    let mut notes = Vec::new();
    let socket = match bind_port(config, port) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && may_move(config) => {
            let socket = bind_port(config, 0).map_err(|error| explain(error, config, 0))?;
            let taken = local_port(&socket)?;
            notes.push(format!("another process uses UDP port {port}, so this end uses {taken}"));
            socket
        }
        result => result.map_err(|error| explain(error, config, port))?,
    };
    let explain = |error| explain(error, config, port);
    notes.extend(grow_both(&socket, config).map_err(explain)?);
    Ok(Bound { port: local_port(&socket).map_err(explain)?, fd: socket.into(), notes })
}

/// Prepares a socket that another program opened and bound. Nothing is changed that its later users could notice: it stays unconnected and blocking.
/// `inetd/README` lists what is set.
pub fn adopt(fd: OwnedFd, config: &Config) -> io::Result<Bound> {
    let socket = socket2::Socket::from(fd);
    let v6 = is_v6(&socket)?;
    let v4 = !v6 || !socket.only_v6()?;
    set_options(&socket, config, v4, v6)?;
    let notes = grow_both(&socket, config)?;
    Ok(Bound { port: local_port(&socket)?, fd: socket.into(), notes })
}

/// Whether another port will do. The peer learns it from our datagrams, if this end sends first.
fn may_move(config: &Config) -> bool {
    // OpenVPN with `remote` accepts only the port that it knows.
    !config.listen.explicit && !config.remotes.is_empty() && config.key.openvpn.is_none()
}

fn bind_port(config: &Config, port: u16) -> io::Result<socket2::Socket> {
    bind_with(config.listen.address, port, |address, one_family| bind_address(config, address, one_family))
}

/// Has `bind` bind to the address, or else to every address: of both families at once, or of IPv4 on a host without IPv6.
pub(super) fn bind_with(
    address: Option<IpAddr>,
    port: u16,
    bind: impl Fn(SocketAddr, bool) -> io::Result<socket2::Socket>,
) -> io::Result<socket2::Socket> {
    match address {
        Some(address) => bind(SocketAddr::new(address, port), true),
        None => match bind((Ipv6Addr::UNSPECIFIED, port).into(), false) {
            Err(error) if no_ipv6(&error) => bind((Ipv4Addr::UNSPECIFIED, port).into(), true),
            result => result,
        },
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Sets neither SO_REUSEADDR nor SO_REUSEPORT: either would let another process share the port.
fn bind_address(config: &Config, address: SocketAddr, one_family: bool) -> io::Result<socket2::Socket> {
    // socket2 sets close-on-exec itself.
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(one_family)?;
    }
    set_options(&socket, config, address.is_ipv4() || !one_family, address.is_ipv6())?;
    socket.bind(&address.into())?;
    Ok(socket)
}

pub(super) fn is_v6(socket: impl AsFd) -> io::Result<bool> {
    Ok(sockopt::socket_domain(socket)? == AddressFamily::INET6)
}

/// `v4`: the socket carries IPv4 datagrams.
pub(super) fn set_options(socket: &socket2::Socket, config: &Config, v4: bool, v6: bool) -> io::Result<()> {
    // A datagram to an OpenVPN peer holds a whole packet, and is fragmented if it exceeds the path MTU.
    let (of_v4, of_v6) = match config.key.openvpn {
        Some(_) => (Ipv4PathMtuDiscovery::WANT, Ipv6PathMtuDiscovery::WANT),
        None => (Ipv4PathMtuDiscovery::PROBE, Ipv6PathMtuDiscovery::PROBE),
    };
    if v6 {
        sockopt::set_ipv6_mtu_discover(socket, of_v6)?;
    }
    // Datagrams to IPv4-mapped addresses obey the IPv4 option, on IPv6 sockets as well.
    if v4 {
        sockopt::set_ip_mtu_discover(socket, of_v4)?;
    }
    set_route(socket, config)
}

/// Sets what decides the route of its packets.
pub(super) fn set_route(socket: &socket2::Socket, config: &Config) -> io::Result<()> {
    if let Some(mark) = config.mark() {
        let remedy = || format!("it needs CAP_NET_ADMIN: {}", rights::how_to_give("NET_ADMIN"));
        socket.set_mark(mark).map_err(|error| about("fwmark", &remedy(), error))?;
    }
    if let Some(device) = &config.bind_device {
        let remedy = format!("bind-device must name an existing interface, but it is {device}");
        let refused = || format!("before Linux 5.7 it needs CAP_NET_RAW: {}", rights::how_to_give("NET_RAW"));
        socket.bind_device(Some(device.as_bytes())).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::PERM) => about("bind-device", &refused(), error),
            _ => about("bind-device", &remedy, error),
        })?;
    }
    Ok(())
}

pub(super) fn about(setting: &str, remedy: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{setting}: {error}; {remedy}"))
}

fn explain(error: io::Error, config: &Config, port: u16) -> io::Error {
    about_port("UDP", error, config.listen.address, port)
}

/// Why a port cannot be bound, and the remedy.
pub(super) fn about_port(protocol: &str, error: io::Error, address: Option<IpAddr>, port: u16) -> io::Error {
    let address = address.map_or_else(|| "every address".to_owned(), |address| address.to_string());
    let text = match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => "another process uses the port; stop it or change listen".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => {
            "no interface has this address; set it up first or change listen".to_owned()
        }
        Some(Errno::AFNOSUPPORT) => {
            "no socket of that address family; the kernel lacks it, or a service's RestrictAddressFamilies= lacks AF_INET \
             and AF_INET6"
                .to_owned()
        }
        _ => format!("{error}{}", rights::to_bind(port, &error)),
    };
    io::Error::new(error.kind(), format!("{protocol} port {port} on {address}: {text}"))
}

/// The port it is bound to.
pub fn local_port(socket: impl AsFd) -> io::Result<u16> {
    let address = SockRef::from(&socket.as_fd()).local_addr()?.as_socket();
    address.map(|address| address.port()).ok_or_else(|| Errno::AFNOSUPPORT.into())
}

#[derive(Clone, Copy)]
enum Buffer {
    Receive,
    Send,
}

pub(super) fn grow_both(socket: &socket2::Socket, config: &Config) -> io::Result<Vec<String>> {
    let size = config.tuning.socket_buffer;
    let notes = [grow(socket, size, Buffer::Receive)?, grow(socket, size, Buffer::Send)?];
    Ok(notes.into_iter().flatten().collect())
}

/// Sets a buffer to `size` bytes; returns a note if it is smaller. The kernel doubles the value and reports the double.
fn grow(socket: &socket2::Socket, size: u32, buffer: Buffer) -> io::Result<Option<String>> {
    let wanted = size as usize;
    let (got, what, limit) = match buffer {
        Buffer::Receive => {
            if sockopt::set_socket_recv_buffer_size_force(socket, wanted).is_err() {
                sockopt::set_socket_recv_buffer_size(socket, wanted)?;
            }
            (sockopt::socket_recv_buffer_size(socket)? / 2, "receive", "net.core.rmem_max")
        }
        Buffer::Send => {
            if sockopt::set_socket_send_buffer_size_force(socket, wanted).is_err() {
                sockopt::set_socket_send_buffer_size(socket, wanted)?;
            }
            (sockopt::socket_send_buffer_size(socket)? / 2, "send", "net.core.wmem_max")
        }
    };
    let note = || format!("the UDP {what} buffer has {got} bytes, not {wanted}; {limit} limits it");
    Ok((got < wanted).then(note))
}

/// A bound, unconnected UDP socket as used by the data path: no call blocks or allocates.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    v6: bool,
}

impl Socket {
    /// Takes over a UDP socket, and enables reports of local addresses, traffic classes and ICMP errors; fails if the descriptor is not a socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = Self::without_error_queue(fd)?;
        sys::queue_errors(&socket.fd, socket.v6)?;
        Ok(socket)
    }

    /// Takes a socket prepared by [`connected::open`](super::connected::open).
    pub fn prepared(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { v6: is_v6(&fd)?, fd })
    }

    /// The same without a queue of ICMP errors. A program that also waits on the socket would take an error left in the queue for a datagram, or a
    /// failure.
    pub fn without_error_queue(fd: OwnedFd) -> io::Result<Self> {
        let v6 = is_v6(&fd)?;
        sys::report_local_address(&fd, v6)?;
        sys::report_traffic_class(&fd, v6)?;
        Ok(Self { fd, v6 })
    }
}

impl Datagrams for Socket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, v6: self.v6 })
    }

    /// Needs Linux 5.0.
    fn enable_gro(&self, on: bool) -> io::Result<()> {
        sys::join_datagrams(&self.fd, on)
    }

    fn waiting(&self) -> usize {
        sys::waiting_bytes(&self.fd).unwrap_or(0)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let room = buffer.len();
        let arrival = sys::receive_datagram(&self.fd, buffer)?;
        if arrival.length > room {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let local = arrival.local.map(|local| local.to_canonical());
        Ok(Received {
            length: arrival.length,
            stride: arrival.stride.unwrap_or(arrival.length),
            ecn: arrival.class & ECN,
            from: Path { local, ..plain(arrival.from).into() },
        })
    }

    fn send(&self, transmit: Transmit<'_>) -> io::Result<()> {
        let Transmit { bytes, stride, class, to } = transmit;
        let (to, local) = match (self.v6, to.local) {
            (true, Some(IpAddr::V4(local))) => (mapped(to.remote), Some(local.to_ipv6_mapped().into())),
            (true, local) => (mapped(to.remote), local),
            (false, local) => (to.remote, local),
        };
        let stride = u16::try_from(stride).ok().filter(|stride| usize::from(*stride) < bytes.len());
        let departure = Departure { to, local, stride, class };
        attempt(|| sys::send_datagrams(&self.fd, bytes, departure))
    }

    fn peer(&self) -> Option<SocketAddr> {
        SockRef::from(&self.fd).peer_addr().ok()?.as_socket().map(plain)
    }

    fn receive_error(&self) -> io::Result<(SocketAddr, io::Error)> {
        let (to, error) = sys::receive_error(&self.fd)?;
        Ok((plain(to), error))
    }
}

/// Sends again while the error may be that of an earlier datagram.
fn attempt(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    (1..ATTEMPTS).fold(send(), |sent, _| match sent {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock && !is_refusal(&error) => send(),
        sent => sent,
    })
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

pub(super) fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_address_family_makes_it_ipv4_alone() {
        assert!(no_ipv6(&Errno::AFNOSUPPORT.into()));
        assert!(no_ipv6(&Errno::ADDRNOTAVAIL.into()));
        assert!(!no_ipv6(&Errno::ADDRINUSE.into()));
        assert!(!no_ipv6(&Errno::PERM.into()));
    }

    #[test]
    fn only_what_icmp_may_have_failed_is_sent_again() {
        let calls = |error: Errno, count: usize| {
            let mut calls = 0;
            let _ = attempt(|| {
                calls += 1;
                if calls <= count { Err(error.into()) } else { Ok(()) }
            });
            calls
        };
        assert_eq!(calls(Errno::CONNREFUSED, 3), 4);
        assert_eq!(calls(Errno::HOSTUNREACH, usize::MAX), ATTEMPTS);
        for refused in [Errno::PERM, Errno::INVAL, Errno::IO, Errno::AGAIN] {
            assert_eq!(calls(refused, usize::MAX), 1, "{refused}");
        }
    }

    #[test]
    fn mapping_to_ipv6_and_back_loses_nothing() {
        for text in ["192.0.2.1:1417", "[2001:db8::1]:1417", "[fe80::1%3]:1417"] {
            let address: SocketAddr = text.parse().unwrap();
            assert!(mapped(address).is_ipv6());
            assert_eq!(plain(mapped(address)), address);
        }
    }

    #[test]
    fn a_descriptor_that_is_no_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Socket::from_fd(file.into()).is_err());
    }
}
