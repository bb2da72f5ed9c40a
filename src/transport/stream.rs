//! A TCP connection that carries datagrams as records, since TCP keeps no boundaries ([`crate::wire::stream`]).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{SocketFlags, SocketType};
use socket2::{Domain, Protocol, Type};

use super::{handover, udp};
use crate::config::Config;
use crate::core::lane::Transmit;
use crate::core::path::Path;
use crate::crypto::keys::LinkKeys;
use crate::sys::ready;
use crate::wire::stream::{Broken, LENGTH, Reader, SALT, Writer};

/// Unsent bytes in the kernel: data should wait where flows share the queue and queues are short.
const UNSENT: u32 = 16 * 1024;
/// How long data may stay unacknowledged before the connection is dead.
const DEAD: Duration = Duration::from_secs(8);
/// Backlog of connections to accept.
const BACKLOG: i32 = 128;
/// Bytes read at once from a connection of the peer.
const ROOM: usize = 4 * Reader::LEAST;
/// Bytes buffered until the kernel takes them; further ones are dropped.
const WAITING: usize = 128 * 1024;

/// Opens a non-blocking socket for one connection, or to accept them.
fn open(config: &Config, address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket, config)?;
    Ok(socket)
}

/// Sets the options that accepted sockets inherit from the listener.
fn prepare(socket: &socket2::Socket, config: &Config) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(DEAD))?;
    // Closing looks the same, whatever was sent or left unread.
    socket.set_linger(Some(Duration::ZERO))?;
    crate::sys::set_unsent_limit(socket, UNSENT)?;
    set_congestion_control(socket, config)?;
    udp::set_route(socket, config)
}

fn set_congestion_control(socket: &socket2::Socket, config: &Config) -> io::Result<()> {
    let Some(name) = &config.tuning.congestion_control else { return Ok(()) };
    socket.set_tcp_congestion(name.as_bytes()).map_err(|error| {
        let remedy = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT) => {
                format!("this kernel has no such algorithm: modprobe tcp_{name}")
            }
            Some(rustix::io::Errno::PERM) => {
                "it needs CAP_NET_ADMIN, or an entry in sysctl net.ipv4.tcp_allowed_congestion_control".into()
            }
            _ => "see sysctl net.ipv4.tcp_available_congestion_control".into(),
        };
        udp::about(&format!("tuning.congestion-control = {name:?}"), &remedy, error)
    })
}

/// Prepares another program's listening socket, or a connection that it accepted. `inetd/README` lists what is set.
///
/// # Errors
/// Those of setsockopt(2).
pub fn adopt(passed: OwnedFd, config: &Config) -> io::Result<OwnedFd> {
    let socket = socket2::Socket::from(passed);
    prepare(&socket, config)?;
    Ok(socket.into())
}

/// Opens the socket that accepts the peer.
///
/// # Errors
/// Those of the system, with their subject.
pub fn listen(config: &Config) -> io::Result<Option<OwnedFd>> {
    let Some(listen) = config.listen.stream else { return Ok(None) };
    let at = |address, one_family| listen_at(config, address, one_family);
    let bound = udp::bind_with(listen.address, listen.port, at);
    let about = |error| udp::about_port("TCP", error, listen.address, listen.port);
    bound.map(|socket| Some(socket.into())).map_err(about)
}

fn listen_at(config: &Config, address: SocketAddr, one_family: bool) -> io::Result<socket2::Socket> {
    let socket = open(config, address)?;
    if address.is_ipv6() {
        socket.set_only_v6(one_family)?;
    }
    // Connections of a previous process may linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Starts a connection; the socket is writable once it has succeeded or failed, as [`socket2::Socket::take_error`] tells.
///
/// # Errors
/// Those of the system.
pub fn connect(config: &Config, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(config, to)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(socket.into()),
    }
}

/// Connects and waits, for a command.
///
/// # Errors
/// Those of the system; `TimedOut`: no answer within `limit`.
pub fn reach(config: &Config, to: SocketAddr, limit: Duration) -> io::Result<OwnedFd> {
    let socket = connect(config, to)?;
    if !ready(&socket, PollFlags::OUT, limit)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket2::SockRef::from(&socket).take_error()?.map_or(Ok(socket), Err)
}

/// A source of connections.
pub enum Listener {
    /// A socket that accepts them.
    Accepts(OwnedFd),
    /// A socket at which other processes hand over accepted connections ([`handover`]).
    Takes(OwnedFd),
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        let kind = rustix::net::sockopt::socket_type(&fd);
        if kind == Ok(SocketType::DGRAM) { Self::Takes(fd) } else { Self::Accepts(fd) }
    }
}

impl Listener {
    /// Takes one connection.
    ///
    /// # Errors
    /// `WouldBlock`: there is none; `ConnectionAborted`: it is gone.
    pub fn accept(&self) -> io::Result<(OwnedFd, Path)> {
        match self {
            Self::Accepts(listener) => accept(listener),
            Self::Takes(socket) => handover::take(socket),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let (Self::Accepts(fd) | Self::Takes(fd)) = self;
        fd.as_fd()
    }
}

/// Accepts one connection.
///
/// # Errors
/// `WouldBlock`: there is none.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Path)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, from) = rustix::net::acceptfrom_with(listener, flags)?;
    let from = from.map(SocketAddr::try_from).ok_or(io::ErrorKind::NotConnected)??;
    Ok((fd, Path::stream(udp::plain(from))))
}

/// One connection.
pub struct Stream {
    fd: OwnedFd,
    path: Path,
    reader: Reader,
    writer: Writer,
    /// Bytes that the kernel has not taken yet, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
}

impl Stream {
    /// Wraps a connection to the other end of `path`; the salt must be random.
    pub fn new(fd: OwnedFd, path: Path, keys: Arc<LinkKeys>, salt: [u8; SALT]) -> Self {
        let (reader, writer) = (Reader::new(keys.clone(), 0), Writer::new(keys, salt));
        Self { fd, path, reader, writer, waiting: Vec::new(), sent: 0 }
    }

    /// Its path.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Grows the buffer for the peer's connection.
    pub fn widen(&mut self) {
        self.reader.grow(ROOM);
    }

    /// Reads once; returns the number of bytes.
    ///
    /// # Errors
    /// `WouldBlock`: nothing; `UnexpectedEof`: it is over; those of read(2).
    pub fn receive(&mut self) -> io::Result<usize> {
        let room = self.reader.room();
        match rustix::io::read(&self.fd, room)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.reader.filled(length);
                Ok(length)
            }
        }
    }

    /// The next datagram of what was read.
    ///
    /// # Errors
    /// This is not a stream of the peer.
    pub fn next_datagram(&mut self) -> Result<Option<&mut [u8]>, Broken> {
        self.reader.next()
    }

    /// Sends datagrams, now or as soon as the kernel takes them.
    ///
    /// # Errors
    /// `WouldBlock`: too much is queued already; those of write(2).
    pub fn send(&mut self, transmit: Transmit<'_>) -> io::Result<()> {
        let length = transmit.bytes.len() + transmit.count() * LENGTH;
        if self.waiting.len() - self.sent + length > WAITING {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for datagram in transmit.bytes.chunks(transmit.stride.max(1)) {
            self.writer.write(datagram, &mut self.waiting);
        }
        self.flush()
    }

    /// Sends what is queued, as far as the kernel takes it.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn flush(&mut self) -> io::Result<()> {
        while self.is_blocked() {
            match rustix::io::write(&self.fd, &self.waiting[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.waiting.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    /// Whether data waits for the kernel to take it.
    pub fn is_blocked(&self) -> bool {
        self.sent < self.waiting.len()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StreamListen;
    use crate::testing;

    const LIMIT: Duration = Duration::from_secs(10);

    /// The congestion control of both ends of a new connection, the initiator's first.
    fn of_both_ends(config: &mut Config) -> io::Result<[Vec<u8>; 2]> {
        config.listen.stream = Some(StreamListen { address: Some([127, 0, 0, 1].into()), port: 0 });
        let listener = listen(config)?.ok_or(io::ErrorKind::NotFound)?;
        let place = socket2::SockRef::from(&listener).local_addr()?.as_socket().unwrap();
        let near = reach(config, place, LIMIT)?;
        ready(&listener, PollFlags::IN, LIMIT)?;
        let (far, _) = accept(&listener)?;
        let name = |fd: &OwnedFd| socket2::SockRef::from(fd).tcp_congestion();
        let trimmed = |mut name: Vec<u8>| {
            name.retain(|byte| *byte != 0);
            name
        };
        Ok([trimmed(name(&near)?), trimmed(name(&far)?)])
    }

    #[test]
    fn both_ends_of_a_connection_have_the_congestion_control_that_was_chosen() {
        let mut config = testing::config();
        // Every kernel has it and lets anyone choose it, but hardly any has it as the default.
        config.tuning.congestion_control = Some("reno".into());
        assert_eq!(of_both_ends(&mut config).unwrap(), [b"reno", b"reno"]);
        config.tuning.congestion_control = None;
        let usual = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        assert_eq!(of_both_ends(&mut config).unwrap(), [usual.trim().as_bytes(); 2]);
    }

    #[test]
    fn a_congestion_control_that_is_not_there_is_named_with_the_key() {
        let mut config = testing::config();
        config.tuning.congestion_control = Some("none-such".into());
        let error = of_both_ends(&mut config).unwrap_err().to_string();
        assert!(error.contains("tuning.congestion-control") && error.contains("none-such"), "{error}");
    }
}
