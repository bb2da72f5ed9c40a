//! UDP sockets that another program opened and bound: inetd or xinetd on descriptor 0, systemd from descriptor 3 on.
//! The other program goes on using the same open socket, so that it is never connected, and never set not to block.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::sys;

/// Who opened the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// inetd, xinetd, or systemd with `StandardInput=socket`.
    Inetd,
    /// systemd, or systemd-socket-activate.
    Systemd,
}

impl Opener {
    /// What to mend so that it passes the right socket.
    fn remedy(self) -> &'static str {
        match self {
            Self::Inetd => {
                "xinetd needs socket_type = dgram, protocol = udp, wait = yes; inetd.conf needs \"dgram udp wait\""
            }
            Self::Systemd => "the socket unit needs ListenDatagram=, once",
        }
    }
}

/// A bound, unconnected UDP socket of another program.
#[derive(Debug)]
pub struct Inherited {
    /// The socket; closed on exec.
    pub fd: OwnedFd,
    /// Who opened it.
    pub opener: Opener,
    /// Whether a datagram is waiting: that is why this process was started.
    pub pressing: bool,
}

/// Takes the socket from descriptor 0, and makes descriptors 0 to 2, which are all the socket, `/dev/null`: nothing
/// that is printed may go to the network. Errors name what is there instead, and the remedy.
pub fn from_inetd() -> Result<Inherited, String> {
    let taken = io::stdin().as_fd().try_clone_to_owned();
    let emptied = empty_standard();
    let fd = taken.map_err(|error| format!("descriptor 0: {error}"))?;
    emptied.map_err(|error| format!("cannot open /dev/null: {error}"))?;
    accept(fd, Opener::Inetd)
}

/// Takes the socket that systemd passed by `LISTEN_FDS` (sd_listen_fds(3)), if it passed any. Errors name what is there
/// instead, and the remedy.
pub fn from_systemd() -> Result<Option<Inherited>, String> {
    let mut passed = sys::passed_descriptors().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let opener = Opener::Systemd;
    if passed.len() > 1 {
        return Err(format!("systemd passed {} sockets: {}", passed.len(), opener.remedy()));
    }
    passed.pop().map(|fd| accept(fd, opener)).transpose()
}

fn empty_standard() -> io::Result<()> {
    let null: File = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn accept(fd: OwnedFd, opener: Opener) -> Result<Inherited, String> {
    match wrong(&fd) {
        None => Ok(Inherited { pressing: is_readable(&fd), fd, opener }),
        Some(what) => {
            let place = match opener {
                Opener::Inetd => "descriptor 0",
                Opener::Systemd => "what systemd passed",
            };
            Err(format!("{place} is {what}, not a bound UDP socket: {}", opener.remedy()))
        }
    }
}

/// What the descriptor is, if it is not a bound, unconnected UDP socket.
fn wrong(fd: &OwnedFd) -> Option<String> {
    let kind = match sockopt::socket_type(fd) {
        Ok(kind) => kind,
        Err(_) => return Some(no_socket(fd)),
    };
    if kind != SocketType::DGRAM {
        return Some(
            if kind == SocketType::STREAM { "a stream socket" } else { "another socket" }.to_owned(),
        );
    }
    let domain = sockopt::socket_domain(fd);
    if !matches!(domain, Ok(AddressFamily::INET | AddressFamily::INET6)) {
        return Some("a socket of another family".to_owned());
    }
    if !matches!(sockopt::socket_protocol(fd), Ok(Some(ipproto::UDP))) {
        return Some("a socket of another protocol".to_owned());
    }
    if rustix::net::getpeername(fd).is_ok() {
        return Some("a connected socket".to_owned());
    }
    match local_port(fd) {
        Ok(0) => Some("a socket without a port".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("a socket without an address ({error})")),
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

fn local_port(fd: &OwnedFd) -> io::Result<u16> {
    let address = rustix::net::getsockname(fd)?;
    let address: Result<std::net::SocketAddr, Errno> = address.try_into();
    Ok(address?.port())
}

fn is_readable(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    fn reason(fd: impl Into<OwnedFd>) -> String {
        let error = accept(fd.into(), Opener::Inetd).unwrap_err();
        let (what, remedy) = error.split_once(", not a bound UDP socket: ").unwrap();
        assert!(remedy.contains("wait = yes"), "{remedy}");
        what.strip_prefix("descriptor 0 is ").unwrap().to_owned()
    }

    #[test]
    fn whatever_is_not_a_bound_udp_socket_is_named() {
        assert_eq!(reason(TcpListener::bind("127.0.0.1:0").unwrap()), "a stream socket");
        assert_eq!(reason(UnixDatagram::unbound().unwrap()), "a socket of another family");
        assert_eq!(reason(File::open("/proc/self/exe").unwrap()), "a file");
        assert_eq!(reason(File::open("/").unwrap()), "a directory");
        assert_eq!(reason(File::open("/dev/null").unwrap()), "no socket");
        assert_eq!(reason(io::pipe().unwrap().0), "a pipe");
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        assert_eq!(reason(connected), "a connected socket");
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::DGRAM);
        assert_eq!(reason(socket2::Socket::new(domain, kind, None).unwrap()), "a socket without a port");
    }

    #[test]
    fn bound_udp_sockets_of_both_families_are_taken_and_a_waiting_datagram_is_seen_and_left() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(place).unwrap();
            let again = socket.try_clone().unwrap();
            assert!(!accept(again.into(), Opener::Systemd).unwrap().pressing);
            socket.send_to(b"first", socket.local_addr().unwrap()).unwrap();
            let again = socket.try_clone().unwrap();
            assert!(accept(again.into(), Opener::Systemd).unwrap().pressing);
            assert_eq!(socket.recv_from(&mut [0; 16]).unwrap().0, 5);
        }
    }
}
