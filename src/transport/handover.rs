//! Connections that a superserver accepts with one process each (inetd's `nowait`): the process that runs the link takes them from the processes
//! started later.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path as File;

use rustix::fs::Mode;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::udp;
use crate::core::path::Path;

/// Maximum length of an address as text.
const ADDRESS: usize = 64;

/// Makes the socket at which the link's process takes connections, for this user only.
///
/// # Errors
/// Those of bind(2).
pub fn open(file: &File) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    // bind(2) gives the file the socket's mode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(file)?)?;
    Ok(socket)
}

/// Hands a connection over. If the caller has hung up, there is nothing to do.
///
/// # Errors
/// Nobody takes connections, or `WouldBlock`: too many are waiting.
pub fn give(file: &File, connection: &OwnedFd) -> io::Result<()> {
    let Ok(from) = rustix::net::getpeername(connection) else { return Ok(()) };
    let from = from.map(SocketAddr::try_from).ok_or(io::ErrorKind::InvalidInput)??.to_string();
    let socket = UnixDatagram::unbound()?;
    socket.connect(file)?;
    let descriptors = [connection.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(&socket, &[IoSlice::new(from.as_bytes())], &mut control, flags)?;
    Ok(())
}

/// Takes one connection.
///
/// # Errors
/// `WouldBlock`: there is none; `ConnectionAborted`: what came is no connection.
pub fn take(socket: &OwnedFd) -> io::Result<(OwnedFd, Path)> {
    let mut text = [0; ADDRESS];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let from = text.get(..received.bytes).and_then(|text| str::from_utf8(text).ok()?.parse().ok());
    let (Some(fd), Some(from)) = (fd, from) else { return Err(io::ErrorKind::ConnectionAborted.into()) };
    Ok((fd, Path::stream(udp::plain(from))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_connection_is_handed_over_with_its_address_to_who_is_there() {
        let scratch = Scratch::new();
        let file = scratch.path().join("connections.sock");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = OwnedFd::from(listener.accept().unwrap().0);
        assert!(give(&file, &connection).is_err(), "nobody is there");
        let socket = open(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        give(&file, &connection).unwrap();
        drop(connection);
        let (taken, path) = take(&socket).unwrap();
        assert_eq!(path, Path::stream(caller.local_addr().unwrap()));
        caller.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        TcpStream::from(taken).read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert_eq!(take(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_connection_is_passed_over() {
        let scratch = Scratch::new();
        let file = scratch.path().join("connections.sock");
        let socket = open(&file).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        for text in ["", "127.0.0.1:9", "rubbish"] {
            sender.send_to(text.as_bytes(), &file).unwrap();
            assert_eq!(take(&socket).unwrap_err().kind(), io::ErrorKind::ConnectionAborted, "{text}");
        }
    }
}
