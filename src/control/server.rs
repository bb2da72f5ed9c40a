//! The control socket, served by the parent's poll loop; nothing here blocks.

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
/// Most connections; beyond that, the one idle longest is closed.
const MAX_CLIENTS: usize = 16;

/// Backlog of connections to accept.
const BACKLOG: i32 = 128;

/// Identifies a connection.
pub type ClientId = u64;

struct Client {
    id: ClientId,
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Its request awaits an answer; no other is read before.
    asking: bool,
}

/// The socket and its connections. Dropping it removes the socket's file.
pub struct Server {
    listener: UnixListener,
    file: Place,
    clients: Vec<Client>,
    next: ClientId,
    /// A refusal has been logged.
    complained: bool,
}

impl Server {
    /// Listens at `path` for this user only, replacing what a killed tund left there. Errors are those of bind(2), or that another user could replace
    /// the socket.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (listener, file) = listen(path)?;
        Ok(Self { listener, file, clients: Vec::new(), next: 0, complained: false })
    }

    /// Whether clients find this socket there.
    pub fn is_there(&self) -> bool {
        self.file.is_there()
    }

    /// Listens at `path` again; connections stay. Errors are those of [`Server::bind`].
    pub fn bind_again(&mut self, path: &Path) -> io::Result<()> {
        (self.listener, self.file) = listen(path)?;
        Ok(())
    }

    /// The descriptors to poll: new connections, and those that may ask.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().filter(|client| !client.asking).map(|client| client.stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(clients)
    }

    /// The pending requests, at most one per connection.
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

    /// Answers a connection's request, if it still exists.
    pub fn answer(&mut self, id: ClientId, answer: &[u8]) {
        self.clients.retain_mut(|client| client.id != id || client.answer(answer));
    }

    /// Whether to serve this client; if not, it is told why, and the log once.
    fn admits(&mut self, mut stream: &UnixStream) -> bool {
        let Err(stranger) = peer::judge(stream) else { return true };
        let reason = stranger.to_string();
        // A client that does not take it is refused all the same.
        let _ = stream.write(&api::refusal(&reason));
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("the control socket refuses: {reason}");
        }
        false
    }

    fn accept(&mut self) {
        // Accept no more at once than are kept; the rest waits for the next turn.
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
            // A leftover file would only refuse connections.
            let _ = self.file.directory.remove(&self.file.name);
        }
    }
}

/// A socket's file, identified by its inode, which is unique while the socket listens.
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
    // bind(2) gives the file the socket's mode (unix_bind_bsd of net/unix/af_unix.c): others must not be able to open it at any time.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(directory.path().join(&name))?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let inode = directory.inode(&name)?;
    Ok((socket.into(), Place { directory, name, inode }))
}

/// A symbolic link to a socket elsewhere; removed on drop.
pub struct Pointer {
    directory: Directory,
    name: OsString,
    socket: PathBuf,
}

impl Pointer {
    /// Links `name` in `directory` to `socket`, replacing what a killed tund left there. Errors are those of symlink(2).
    pub fn new(directory: &Directory, name: &str, socket: &Path) -> io::Result<Self> {
        let name = OsString::from(name);
        remove_leftover(directory, &name)?;
        rustix::fs::symlinkat(socket, directory, &name)?;
        Ok(Self { directory: directory.clone(), name, socket: socket.to_owned() })
    }

    /// Whether it still leads to the socket.
    pub fn is_there(&self) -> bool {
        std::fs::read_link(self.directory.path().join(&self.name)).is_ok_and(|to| to == self.socket)
    }
}

impl Drop for Pointer {
    fn drop(&mut self) {
        if self.is_there() {
            // A leftover link would lead nowhere.
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
    /// Reads once, so that a client that never stops writing does not block others.
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

    /// Answers; returns false if the client did not take all of it, so that the connection is closed.
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

    /// Clients may refuse a field that the description lacks.
    #[test]
    fn the_interface_has_each_field_of_a_status() {
        let schema = schemars::schema_for!(Vec<api::Status>).to_value();
        let interface = include_str!("tund.link.varlink").split([' ', '(']);
        let described: Vec<_> = interface.filter_map(|word| word.strip_suffix(':')).collect();
        let types = schema["$defs"].as_object().unwrap().values();
        for field in types.filter_map(|kind| kind["properties"].as_object()).flat_map(|fields| fields.keys())
        {
            assert!(described.contains(&field.as_str()), "{field} is not in tund.link.varlink");
        }
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
        // As after SIGKILL: the file exists and nobody listens.
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
