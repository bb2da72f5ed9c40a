//! The metrics over HTTP, for a program on this host, served by the parent's poll loop.
//!
//! Any local user may connect. The process is privileged, so it reads nothing of a request: it only notices that one has arrived, gives every request
//! the same answer, and has the kernel discard the request.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Most connections; the oldest is closed for a new one.
const MAX_CLIENTS: usize = 8;
/// Maximum lifetime of a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of a request discarded at once.
const PIECE: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has arrived.
    Silent,
    /// A request has arrived and awaits its answer.
    Asking,
    /// The rest of the request is discarded, as unread data would cause a reset before the answer is read.
    Answered,
}

struct Client {
    stream: TcpStream,
    stage: Stage,
    until: Instant,
}

/// The listening socket and its connections.
pub struct Scrape {
    listener: TcpListener,
    clients: Vec<Client>,
}

impl Scrape {
    /// Listens on a loopback address. Errors are those of bind(2).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: Vec::new() })
    }

    /// The descriptors to poll: new connections, requests, and ends of connections.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().filter(|client| client.stage != Stage::Asking);
        std::iter::once(self.listener.as_fd()).chain(clients.map(|client| client.stream.as_fd()))
    }

    /// When [`Scrape::take`] must be called next, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.clients.iter().map(|client| client.until).min()
    }

    /// Accepts connections; returns whether a request waits for [`Scrape::answer`].
    pub fn take(&mut self, now: Instant) -> bool {
        self.accept(now);
        let mut asked = false;
        self.clients.retain_mut(|client| {
            let stays = now < client.until && client.look();
            asked |= stays && client.stage == Stage::Asking;
            stays
        });
        asked
    }

    /// Answers every waiting request.
    pub fn answer(&mut self, text: &str) {
        let response = format!(
            "HTTP/1.1 200 OK\r\n\
             Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             Connection: close\r\n\r\n{text}",
            text.len()
        );
        self.clients.retain_mut(|client| client.stage != Stage::Asking || client.answer(response.as_bytes()));
    }

    fn accept(&mut self, now: Instant) {
        // Accept no more at once than are kept; the rest waits for the next turn.
        for _ in 0..MAX_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS {
                self.clients.remove(0);
            }
            self.clients.push(Client { stream, stage: Stage::Silent, until: now + PATIENCE });
        }
    }
}

impl Client {
    /// Returns whether to keep the connection.
    fn look(&mut self) -> bool {
        if self.stage == Stage::Asking {
            return true;
        }
        // With TRUNC the kernel writes nothing into the buffer (tcp(7)).
        match recv(&self.stream, &mut [0; PIECE], RecvFlags::TRUNC) {
            Ok((0, _)) => false,
            Ok(_) => {
                if self.stage == Stage::Silent {
                    self.stage = Stage::Asking;
                }
                true
            }
            Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Answers; false if the connection did not take all of it.
    fn answer(&mut self, response: &[u8]) -> bool {
        self.stage = Stage::Answered;
        let written = self.stream.write(response);
        written.is_ok_and(|count| count == response.len()) && self.stream.shutdown(Shutdown::Write).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "the test plays the poll loop")]
    use std::io::Read;

    use super::*;
    use crate::testing::wait_until;

    fn scrape() -> (Scrape, SocketAddr) {
        let scrape = Scrape::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = scrape.listener.local_addr().unwrap();
        (scrape, address)
    }

    #[test]
    fn a_request_in_pieces_gets_the_text_and_the_end() {
        let (mut scrape, address) = scrape();
        let mut client = TcpStream::connect(address).unwrap();
        assert!(!scrape.take(Instant::now()), "nobody has asked");
        client.write_all(b"GET /metr").unwrap();
        wait_until(|| scrape.take(Instant::now()));
        scrape.answer("# EOF\n");
        client.write_all(b"ics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: 6\r\n"),
            "{head}"
        );
        assert_eq!(body, "# EOF\n");
        drop(client);
        wait_until(|| {
            scrape.take(Instant::now());
            scrape.clients.is_empty()
        });
    }

    #[test]
    fn connections_are_bounded_in_number_and_time() {
        let (mut scrape, address) = scrape();
        let clients: Vec<_> = (0..3 * MAX_CLIENTS)
            .map(|_| {
                let client = TcpStream::connect(address).unwrap();
                scrape.take(Instant::now());
                client
            })
            .collect();
        assert!(scrape.clients.len() <= MAX_CLIENTS);
        assert!(scrape.poll_timeout().is_some());
        scrape.take(Instant::now() + PATIENCE);
        scrape.take(Instant::now() + PATIENCE);
        assert!(scrape.clients.len() <= MAX_CLIENTS);
        drop(clients);
        assert!(!scrape.take(Instant::now() + 2 * PATIENCE));
        assert!(scrape.clients.is_empty());
    }
}
