//! Asking a proxy for a connection. Its replies come from the network, so an unprivileged process reads them, and reports only whether the connection
//! is established.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::helper::{NO_SOCKET, Running, serve};
use crate::privsep::channel::Message;
use crate::privsep::message::Confinement;
use crate::privsep::sandbox;
use crate::privsep::spawn::Role;
use crate::report::text::printable;
use crate::sys::clock::now;
use crate::sys::ready;
use crate::wire::proxy::{Credentials, Kind, Next, Refusal, Request};

/// How long a proxy may take in total.
const LIMIT: Duration = Duration::from_secs(10);

/// To the process, together with the connection to the proxy: its whole task.
#[derive(Clone, Serialize, Deserialize)]
pub struct Question {
    /// What it gives up first.
    pub confinement: Confinement,
    /// The proxy's protocol.
    pub kind: Kind,
    /// The destination of the connection.
    pub to: SocketAddr,
    /// The credentials, if the proxy needs any.
    pub credentials: Option<Credentials>,
}

/// From the process: its only answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Connected,
    Not(Trouble),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// The proxy refuses.
    Refused(Refusal),
    /// The proxy, or without one the peer, is unreachable or does not answer.
    Unreachable(String),
    /// The proxy's password cannot be read.
    NoPassword(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl Trouble {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::Credentials(_)) | Self::NoPassword(_) => "proxy-credentials",
            Self::Refused(Refusal::Forbidden(_) | Refusal::Unreachable(_)) => "proxy-refuses",
            Self::Refused(Refusal::Garbled) | Self::Unreachable(_) => "proxy-unreachable",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refusal::Credentials(said)) => {
                write!(
                    f,
                    "it wants another user or password ({said}): set proxy = \"…://USER@…\" and proxy-password-file"
                )
            }
            Self::Refused(Refusal::Forbidden(said)) => {
                write!(
                    f,
                    "it refuses to connect there ({said}): have the proxy allow it, or let the peer listen on port 443"
                )
            }
            Self::Refused(Refusal::Unreachable(said)) => {
                write!(f, "it cannot connect there ({said}): is tund running there, on this port?")
            }
            Self::Refused(Refusal::Garbled) => f.write_str(
                "what answers is not such a proxy: check its port, and whether it speaks HTTP or SOCKS 5",
            ),
            Self::Unreachable(why) => {
                write!(f, "the proxy cannot be reached: {}: check its name and port", printable(why, 200))
            }
            Self::NoPassword(why) => f.write_str(why),
        }
    }
}

impl Message for Question {
    fn descriptors(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

impl Message for Answer {}

/// A request to a proxy in progress.
pub struct Asking {
    process: Running<Question, Answer>,
    socket: OwnedFd,
}

impl Asking {
    /// Starts a request to the proxy at the other end of this socket.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(question: &Question, socket: OwnedFd) -> io::Result<Self> {
        let process = Running::start(Role::ProxyCaller, question, &[socket.as_fd()])?;
        Ok(Self { process, socket })
    }

    /// The result, once known: the connection to the destination, or why there is none.
    pub fn poll(&self) -> Option<Result<OwnedFd, Trouble>> {
        self.outcome(self.process.answer())
    }

    /// The same, but waits, for a command.
    pub fn wait(&self) -> Result<OwnedFd, Trouble> {
        let silent = || Err(Trouble::Unreachable("no answer".to_owned()));
        self.outcome(self.process.wait(LIMIT + Duration::from_secs(1))).unwrap_or_else(silent)
    }

    fn outcome(&self, answer: io::Result<Option<Answer>>) -> Option<Result<OwnedFd, Trouble>> {
        Some(match answer.transpose()? {
            Ok(Answer::Connected) => self.socket.try_clone().map_err(Trouble::from),
            Ok(Answer::Not(trouble)) => Err(trouble),
            Err(error) => Err(error.into()),
        })
    }
}

impl AsFd for Asking {
    /// Readable once the answer is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// The process: drops its privileges, asks, answers.
pub fn main() -> ExitCode {
    serve(|question: Question, sockets| {
        let asked = match sandbox::lock(Role::ProxyCaller, &question.confinement) {
            Ok(_) => ask(question, &sockets),
            Err(error) => Err(Trouble::Unreachable(error.to_string())),
        };
        asked.map_or_else(Answer::Not, |()| Answer::Connected)
    })
}

fn ask(question: Question, sockets: &[OwnedFd]) -> Result<(), Trouble> {
    let [socket] = sockets else { return Err(Trouble::Unreachable(NO_SOCKET.to_owned())) };
    let due = now().instant + LIMIT;
    let (mut request, first) = Request::new(question.kind, question.to, question.credentials);
    send(socket, &first, due)?;
    loop {
        match request.handle_byte(read(socket, due)?).map_err(Trouble::Refused)? {
            Next::Read => {}
            Next::Send(bytes) => send(socket, &bytes, due)?,
            Next::Connected => return Ok(()),
        }
    }
}

fn send(socket: &OwnedFd, mut bytes: &[u8], due: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        wait(socket, PollFlags::OUT, due)?;
        match rustix::io::write(socket, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read(socket: &OwnedFd, due: Instant) -> io::Result<u8> {
    let mut byte = [0];
    loop {
        match rustix::io::read(socket, &mut byte) {
            Ok(0) => return Err(io::Error::other("it closes the connection")),
            Ok(_) => return Ok(byte[0]),
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, due)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the socket is ready, or time is up.
fn wait(socket: &OwnedFd, flags: PollFlags, due: Instant) -> io::Result<()> {
    let left = due.saturating_duration_since(now().instant);
    if ready(socket, flags, left)? { Ok(()) } else { Err(io::Error::other("it does not answer")) }
}
