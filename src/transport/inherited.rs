//! Sockets that another program opened and bound: inetd or xinetd on descriptor 0, systemd from descriptor 3 on. That program keeps using the same
//! open socket, so a UDP socket is never connected, and never made non-blocking.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::FileType;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use super::udp;
use crate::sys::{self, ready};

/// Who opened the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// inetd, xinetd, or systemd with `StandardInput=socket`.
    Inetd,
    /// systemd, or systemd-socket-activate.
    Systemd,
}

impl Opener {
    /// What to change so that it passes the right socket.
    fn remedy(self) -> &'static str {
        match self {
            Self::Inetd => {
                "xinetd needs wait = yes, and socket_type = dgram with protocol = udp, or stream with tcp; inetd.conf needs \
                 \"dgram udp wait\", \"stream tcp wait\" or \"stream tcp nowait\""
            }
            Self::Systemd => {
                "the socket unit needs ListenDatagram= or ListenStream=, each once, and Accept=no"
            }
        }
    }
}

/// Sockets of another program, close-on-exec; at least one.
#[derive(Debug)]
pub struct Inherited {
    /// A bound, unconnected UDP socket.
    pub datagrams: Option<OwnedFd>,
    /// A socket that accepts TCP connections.
    pub streams: Option<OwnedFd>,
    /// A TCP connection that inetd has accepted (`nowait`); then the only one.
    pub connection: Option<OwnedFd>,
    /// Who opened them.
    pub opener: Opener,
    /// Whether a datagram or connection is waiting, which is why this process was started.
    pub pressing: bool,
}

/// Takes the socket from descriptor 0, and makes descriptors 0 to 2, which all are the socket, `/dev/null`: nothing printed may reach the network.
/// Errors name what was found instead, and the remedy.
pub fn from_inetd() -> Result<Inherited, String> {
    let taken = io::stdin().as_fd().try_clone_to_owned();
    let emptied = sys::empty_standard();
    let fd = taken.map_err(|error| format!("descriptor 0: {error}"))?;
    emptied.map_err(|error| format!("cannot open /dev/null: {error}"))?;
    sort(vec![fd], Opener::Inetd)
}

/// Takes the sockets passed by systemd in `LISTEN_FDS` (sd_listen_fds(3)), if any. Errors name what was found instead, and the remedy.
pub fn from_systemd() -> Result<Option<Inherited>, String> {
    let passed = sys::passed_descriptors().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    if passed.is_empty() { Ok(None) } else { sort(passed, Opener::Systemd).map(Some) }
}

fn sort(passed: Vec<OwnedFd>, opener: Opener) -> Result<Inherited, String> {
    let pressing = passed.iter().any(|fd| ready(fd, PollFlags::IN, Duration::ZERO).unwrap_or(false));
    let mut inherited = Inherited { datagrams: None, streams: None, connection: None, opener, pressing };
    for fd in passed {
        let place = match kind(&fd) {
            Ok(Kind::Streams) => &mut inherited.streams,
            Ok(Kind::Datagrams) => &mut inherited.datagrams,
            // It starts nothing again.
            Ok(Kind::Connection) if opener == Opener::Inetd => {
                inherited.pressing = false;
                &mut inherited.connection
            }
            Ok(Kind::Connection) => return Err(wrong("a connected socket", opener)),
            Err(what) => return Err(wrong(&what, opener)),
        };
        if place.replace(fd).is_some() {
            return Err(format!("systemd passed two sockets of one kind: {}", opener.remedy()));
        }
    }
    Ok(inherited)
}

fn wrong(what: &str, opener: Opener) -> String {
    let place = match opener {
        Opener::Inetd => "descriptor 0",
        Opener::Systemd => "what systemd passed",
    };
    format!("{place} is {what}, not a socket with a port: {}", opener.remedy())
}

/// The kinds of sockets that a link can use.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Bound, unconnected UDP.
    Datagrams,
    /// Accepts TCP connections.
    Streams,
    /// A TCP connection.
    Connection,
}

/// Errors say what it is instead.
fn kind(fd: &OwnedFd) -> Result<Kind, String> {
    let (protocol, stream) = match sockopt::socket_type(fd) {
        Ok(SocketType::DGRAM) => (ipproto::UDP, false),
        Ok(SocketType::STREAM) => (ipproto::TCP, true),
        Ok(_) => return Err("another socket".to_owned()),
        Err(_) => return Err(no_socket(fd)),
    };
    if !matches!(sockopt::socket_domain(fd), Ok(AddressFamily::INET | AddressFamily::INET6)) {
        return Err("a socket of another family".to_owned());
    }
    if !matches!(sockopt::socket_protocol(fd), Ok(Some(found)) if found == protocol) {
        return Err("a socket of another protocol".to_owned());
    }
    match rustix::net::getpeername(fd) {
        Ok(_) if stream => return Ok(Kind::Connection),
        Ok(_) => return Err("a connected socket".to_owned()),
        Err(_) => {}
    }
    if stream && !matches!(sockopt::socket_acceptconn(fd), Ok(true)) {
        return Err("a socket that does not listen".to_owned());
    }
    match udp::local_port(fd) {
        Ok(0) => Err("a socket without a port".to_owned()),
        Ok(_) => Ok(if stream { Kind::Streams } else { Kind::Datagrams }),
        Err(error) => Err(format!("a socket without an address ({error})")),
    }
}

fn no_socket(fd: &OwnedFd) -> String {
    if fd.is_terminal() {
        return "a terminal".to_owned();
    }
    let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::RegularFile) => "a file".to_owned(),
        Ok(FileType::Fifo) => "a pipe".to_owned(),
        Ok(FileType::Directory) => "a directory".to_owned(),
        Ok(_) => "no socket".to_owned(),
        Err(error) => format!("unusable ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    fn reason(fd: impl Into<OwnedFd>) -> String {
        let error = sort(vec![fd.into()], Opener::Inetd).unwrap_err();
        let (what, remedy) = error.split_once(", not a socket with a port: ").unwrap();
        assert!(remedy.contains("wait = yes"), "{remedy}");
        what.strip_prefix("descriptor 0 is ").unwrap().to_owned()
    }

    #[test]
    fn whatever_is_not_a_socket_at_a_port_is_named() {
        assert_eq!(reason(UnixDatagram::unbound().unwrap()), "a socket of another family");
        assert_eq!(reason(File::open("/proc/self/exe").unwrap()), "a file");
        assert_eq!(reason(File::open("/").unwrap()), "a directory");
        assert_eq!(reason(File::open("/dev/null").unwrap()), "no socket");
        assert_eq!(reason(io::pipe().unwrap().0), "a pipe");
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        assert_eq!(reason(connected), "a connected socket");
        let unbound = |kind| socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
        assert_eq!(reason(unbound(socket2::Type::DGRAM)), "a socket without a port");
        assert_eq!(reason(unbound(socket2::Type::STREAM)), "a socket that does not listen");
    }

    #[test]
    fn a_connection_is_taken_from_inetd_and_not_from_systemd() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = OwnedFd::from(listener.accept().unwrap().0);
        io::Write::write_all(&mut caller, b"first").unwrap();
        let systemd = sort(vec![connection.try_clone().unwrap()], Opener::Systemd).unwrap_err();
        assert!(systemd.contains("Accept=no"), "{systemd}");
        let inherited = sort(vec![connection], Opener::Inetd).unwrap();
        assert!(inherited.connection.is_some() && !inherited.pressing, "{inherited:?}");
    }

    #[test]
    fn one_socket_of_each_kind_is_taken_in_any_order_and_no_two_of_one() {
        let datagrams = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let streams = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        for passed in [vec![datagrams(), streams()], vec![streams(), datagrams()]] {
            let Inherited { datagrams, streams, .. } = sort(passed, Opener::Systemd).unwrap();
            assert_eq!(kind(&streams.unwrap()), Ok(Kind::Streams));
            assert_eq!(kind(&datagrams.unwrap()), Ok(Kind::Datagrams));
        }
        for passed in [vec![datagrams(), datagrams()], vec![streams(), datagrams(), streams()]] {
            assert!(sort(passed, Opener::Systemd).unwrap_err().contains("Accept=no"));
        }
    }

    #[test]
    fn sockets_of_both_families_are_taken_and_what_waits_is_seen_and_left() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let pressing = |fd: OwnedFd| sort(vec![fd], Opener::Systemd).unwrap().pressing;
            let socket = UdpSocket::bind(place).unwrap();
            assert!(!pressing(socket.try_clone().unwrap().into()));
            socket.send_to(b"first", socket.local_addr().unwrap()).unwrap();
            assert!(pressing(socket.try_clone().unwrap().into()));
            assert_eq!(socket.recv_from(&mut [0; 16]).unwrap().0, 5);
            let listener = TcpListener::bind(place).unwrap();
            assert!(!pressing(listener.try_clone().unwrap().into()));
            let _connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(pressing(listener.try_clone().unwrap().into()));
            listener.accept().unwrap();
        }
    }
}
