//! The control socket, as the parent's poll loop serves it: nothing here waits.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::api::{self, Call, MAX_REQUEST, Method};
use super::peer;
use crate::host::directory::Directory;

/// The socket's name in a link's runtime directory.
pub const SOCKET: &str = "control.sock";
/// Connections at once; of more the one that was silent longest is closed.
const MAX_CLIENTS: usize = 16;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Tells connections apart.
pub type ClientId = u64;

struct Client {
    id: ClientId,
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Its request waits for an answer, and no other is read before.
    asking: bool,
}

/// The socket with its connections. Dropping it removes the socket's file.
pub struct Server {
    listener: UnixListener,
    file: Place,
    clients: Vec<Client>,
    next: ClientId,
    /// A refusal has been said.
    complained: bool,
}

impl Server {
    /// Listens at `path`, in place of what a killed tund left there, for this user alone. Errors are those of bind(2),
    /// and that another user could put his own socket there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (listener, file) = listen(path)?;
        Ok(Self { listener, file, clients: Vec::new(), next: 0, complained: false })
    }

    /// Whether who goes there finds this socket.
    pub fn is_there(&self) -> bool {
        self.file.is_there()
    }

    /// Listens at `path` again; connections stay. Errors are those of [`Server::bind`].
    pub fn bind_again(&mut self, path: &Path) -> io::Result<()> {
        (self.listener, self.file) = listen(path)?;
        Ok(())
    }

    /// What to wait for: new connections, and requests of those that may ask.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().filter(|client| !client.asking).map(|client| client.stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(clients)
    }

    /// The requests that have come, at most one of each connection.
    pub fn take(&mut self) -> Vec<(ClientId, Method)> {
        self.accept();
        let mut calls = Vec::new();
        self.clients.retain_mut(|client| {
            if client.asking {
                return true;
            }
            match client.read() {
                Reading::More => true,
                Reading::Call(method) => {
                    client.asking = true;
                    calls.push((client.id, method));
                    true
                }
                Reading::Closed => false,
            }
        });
        calls
    }

    /// Answers the request of a connection, if that is still there.
    pub fn answer(&mut self, id: ClientId, answer: &[u8]) {
        self.clients.retain_mut(|client| client.id != id || client.answer(answer));
    }

    /// Whether this one is served; else it is told why, and the log once.
    fn admits(&mut self, mut stream: &UnixStream) -> bool {
        let Err(stranger) = peer::judge(stream) else { return true };
        let reason = stranger.to_string();
        // One that does not take it is refused all the same.
        let _ = stream.write(&api::refusal(&reason));
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("the control socket refuses: {reason}");
        }
        false
    }

    fn accept(&mut self) {
        // No more at once than are kept; the rest waits for the next turn.
        for _ in 0..MAX_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_err() || !self.admits(&stream) {
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS
                && let Some(silent) = self.clients.iter().position(|client| !client.asking)
            {
                self.clients.remove(silent);
            }
            if self.clients.len() < MAX_CLIENTS {
                self.clients.push(Client { id: self.next, stream, buffer: Vec::new(), asking: false });
                self.next += 1;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_there() {
            // What remains would be refused connections only.
            let _ = self.file.directory.remove(&self.file.name);
        }
    }
}

/// The file of a socket, by its number, which no other file has as long as the socket listens.
struct Place {
    directory: Directory,
    name: OsString,
    inode: u64,
}

impl Place {
    fn is_there(&self) -> bool {
        let found = std::fs::symlink_metadata(self.directory.path().join(&self.name));
        found.is_ok_and(|found| found.ino() == self.inode)
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, Place)> {
    let (directory, name) = Directory::of_file(path).map_err(|refusal| {
        let remedy = refusal.remedy();
        io::Error::other(if remedy.is_empty() { refusal.to_string() } else { format!("{refusal}: {remedy}") })
    })?;
    remove_leftover(&directory, &name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // bind(2) gives the file the mode that the socket has (unix_bind_bsd of net/unix/af_unix.c): at no moment may
    // others open it.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(directory.path().join(&name))?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let inode = directory.inode(&name)?;
    Ok((socket.into(), Place { directory, name, inode }))
}

/// A symbolic link that leads to a socket elsewhere; removed when dropped.
pub struct Pointer {
    directory: Directory,
    name: OsString,
    socket: PathBuf,
}

impl Pointer {
    /// Makes the file `name` of `directory` lead to `socket`, in place of what a killed tund left there. Errors are those
    /// of symlink(2).
    pub fn new(directory: &Directory, name: &str, socket: &Path) -> io::Result<Self> {
        let name = OsString::from(name);
        remove_leftover(directory, &name)?;
        rustix::fs::symlinkat(socket, directory, &name)?;
        Ok(Self { directory: directory.clone(), name, socket: socket.to_owned() })
    }

    /// Whether who goes there is led to the socket.
    pub fn is_there(&self) -> bool {
        std::fs::read_link(self.directory.path().join(&self.name)).is_ok_and(|to| to == self.socket)
    }
}

impl Drop for Pointer {
    fn drop(&mut self) {
        if self.is_there() {
            // What remains would lead nowhere.
            let _ = self.directory.remove(&self.name);
        }
    }
}

fn remove_leftover(directory: &Directory, name: &OsStr) -> io::Result<()> {
    match directory.kind(name) {
        Some(FileType::Socket | FileType::Symlink) => directory.remove(name),
        Some(_) | None => Ok(()),
    }
}

enum Reading {
    More,
    Call(Method),
    Closed,
}

impl Client {
    /// One read, so that a connection that never stops writing holds nothing up.
    fn read(&mut self) -> Reading {
        let mut bytes = [0; MAX_REQUEST];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Reading::Closed,
            Ok(count) => self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Reading::Closed,
        }
        while let Some(end) = self.buffer.iter().position(|byte| *byte == 0) {
            let rest = self.buffer.split_off(end + 1);
            let request = std::mem::replace(&mut self.buffer, rest);
            match api::parse(request.get(..end).unwrap_or_default()) {
                Some(Call::Link(method)) => return Reading::Call(method),
                Some(Call::Ready(answer)) if self.answer(&answer) => {}
                Some(Call::Ready(_)) | None => return Reading::Closed,
            }
        }
        if self.buffer.len() > MAX_REQUEST { Reading::Closed } else { Reading::More }
    }

    /// False: the connection is of no use any more. One that does not take its answer whole is none.
    fn answer(&mut self, answer: &[u8]) -> bool {
        self.asking = false;
        self.stream.write(answer).is_ok_and(|count| count == answer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Scratch, wait_until};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn connect(scratch: &Scratch) -> UnixStream {
        UnixStream::connect(scratch.path().join("control.sock")).unwrap()
    }

    fn server(scratch: &Scratch) -> Server {
        Server::bind(&scratch.path().join("control.sock")).unwrap()
    }

    fn closed(mut stream: &UnixStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.read(&mut [0; 9]), Ok(0)) || stream.write(b"x").is_err()
    }

    #[test]
    fn a_request_in_pieces_is_answered_and_the_next_waits_for_that() {
        let scratch = Scratch::new();
        let mut server = server(&scratch);
        let mut client = connect(&scratch);
        let request = api::request(Method::Status);
        let (head, tail) = request.split_at(9);
        client.write_all(head).unwrap();
        assert_eq!(server.take(), []);
        client.write_all(tail).unwrap();
        client.write_all(&api::request(Method::Stats)).unwrap();
        assert_eq!(server.take(), [(0, Method::Status)]);
        assert_eq!(server.take(), []);
        server.answer(0, b"answer\0");
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer\0");
        assert_eq!(server.take(), [(0, Method::Stats)]);
    }

    #[test]
    fn what_is_no_request_or_too_long_closes_its_connection() {
        let scratch = Scratch::new();
        let mut server = server(&scratch);
        let (mut junk, mut long, mut good) = (connect(&scratch), connect(&scratch), connect(&scratch));
        junk.write_all(b"junk\0").unwrap();
        long.write_all(&[b' '; MAX_REQUEST + 1]).unwrap();
        good.write_all(&api::request(Method::Rekey)).unwrap();
        assert_eq!(server.take(), [(2, Method::Rekey)]);
        server.take();
        wait_until(|| closed(&junk) && closed(&long));
        assert!(!closed(&good));
    }

    #[test]
    fn connections_are_bounded_and_the_silent_go_first() {
        let scratch = Scratch::new();
        let mut server = server(&scratch);
        let mut asking = connect(&scratch);
        asking.write_all(&api::request(Method::Down)).unwrap();
        assert_eq!(server.take(), [(0, Method::Down)]);
        let others: Vec<_> = (0..2 * MAX_CLIENTS)
            .map(|_| {
                let one = connect(&scratch);
                server.take();
                one
            })
            .collect();
        assert_eq!(server.clients.len(), MAX_CLIENTS);
        wait_until(|| closed(&others[0]));
        assert!(!closed(&others[2 * MAX_CLIENTS - 1]) && !closed(&asking));
    }

    #[test]
    fn the_socket_is_its_owners_takes_the_place_of_a_dead_one_and_goes_at_the_end() {
        let scratch = Scratch::new();
        let path = scratch.path().join("control.sock");
        // As after SIGKILL: the file is there and nobody listens.
        testing::leave_dead_socket(&path);
        let server = server(&scratch);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(server);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(Server::bind(&path).is_err());
        assert_eq!(scratch.read("control.sock"), "precious");
    }
}
