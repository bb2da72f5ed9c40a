//! Calling a peer once, to see whether it answers: a handshake that is started and never confirmed, which changes nothing at the peer. An
//! unprivileged process reads the reply.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use crate::core::lane::{Command, Received, SendCommand, Transmit};
use crate::core::path::Path;
use crate::core::session::{Outcome, Sessions};
use crate::crypto::Random;
use crate::crypto::exchange::Pattern;
use crate::crypto::suite::{Cipher, Exchange};
use crate::crypto::wrap;
use crate::engine::refusal::not_sent;
use crate::helper::{NO_SOCKET, Running, serve};
use crate::privsep::channel::Message;
use crate::privsep::message::{Confinement, Keys};
use crate::privsep::sandbox;
use crate::privsep::spawn::Role;
use crate::sys::clock::now;
use crate::sys::random::Os;
use crate::sys::ready;
use crate::transport::stream::Stream;

/// Time in which two calls are sent.
const PATIENCE: Duration = Duration::from_secs(6);
/// The caller must answer within this time.
const LIMIT: Duration = Duration::from_secs(20);
/// Maximum length of a datagram.
const ROOM: usize = 65_536;

/// To the caller, together with the socket: its whole task.
#[derive(Clone, Serialize, Deserialize)]
pub struct Question {
    /// What only the link's two ends know.
    pub keys: Box<Keys>,
    /// The ciphers that this end allows.
    pub suites: Vec<Cipher>,
    /// The key exchange of this end.
    pub exchange: Exchange,
    /// The address to call, possibly over a stream.
    pub path: Path,
    /// What the caller gives up first.
    pub confinement: Confinement,
}

/// From the caller: the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The peer has the same key; the time from call to answer.
    Answered(Duration),
    /// It has the same key, but no common cipher.
    NoCipher,
    /// It has the same key, but another key exchange.
    OtherExchange(Exchange),
    /// The system reported that the datagram cannot be delivered, or was rejected.
    Refused(String),
    /// No datagram that the key opens; this many others came from there.
    Silent(u32),
    /// The call was not possible.
    Failed(String),
}

impl Answer {
    /// What the system said about reaching that address.
    pub fn refused(error: &io::Error, to: SocketAddr) -> Self {
        Self::Refused(match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "its host says that nothing listens on that port: is tund running there, on that port?"
                    .to_owned()
            }
            _ => not_sent(error, to),
        })
    }
}

impl Message for Question {
    fn descriptors(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

impl Message for Answer {}

/// Calls the peer over a connected socket, and waits for the result.
pub fn call(question: &Question, socket: &OwnedFd) -> Answer {
    let answer =
        Running::start(Role::Caller, question, &[socket.as_fd()]).and_then(|caller| caller.wait(LIMIT));
    match answer {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Failed(format!("no answer in {} s", LIMIT.as_secs())),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// The calling process: drops its privileges, calls, answers.
pub fn main() -> ExitCode {
    serve(|question: Question, mut sockets| {
        let Some(socket) = sockets.pop() else { return Answer::Failed(NO_SOCKET.to_owned()) };
        match sandbox::lock(Role::Caller, &question.confinement) {
            Ok(_) => {
                let to = question.path.remote;
                ask(question, socket).unwrap_or_else(|error| Answer::refused(&error, to))
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    })
}

/// What carries the call.
enum Wire {
    Datagrams(UdpSocket),
    Stream(Box<Stream>),
}

impl Wire {
    fn send(&mut self, datagram: &[u8], to: Path) -> io::Result<()> {
        match self {
            Self::Datagrams(socket) => socket.send(datagram).map(drop),
            Self::Stream(stream) => stream.send(Transmit::one(datagram, 0, to)),
        }
    }

    /// The next datagram, if one arrives soon.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Datagrams(socket) => {
                if !is_readable(&*socket)? {
                    return Ok(None);
                }
                let mut buffer = vec![0; ROOM];
                let length = socket.recv(&mut buffer)?;
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Self::Stream(stream) => loop {
                if let Some(datagram) = stream.next_datagram().map_err(io::Error::other)? {
                    return Ok(Some(datagram.to_vec()));
                }
                if !is_readable(&**stream)? {
                    return Ok(None);
                }
                stream.receive()?;
            },
        }
    }
}

fn is_readable(fd: impl AsFd) -> io::Result<bool> {
    ready(fd, PollFlags::IN, Duration::from_millis(100))
}

fn ask(question: Question, socket: OwnedFd) -> io::Result<Answer> {
    let (keys, statics) = question.keys.derive();
    let to = question.path;
    let mut wire = match to.stream {
        true => Wire::Stream(Box::new(Stream::new(socket, to, keys.clone(), Os.bytes()))),
        false => Wire::Datagrams(socket.into()),
    };
    let pattern = Pattern { statics, exchange: question.exchange };
    let started = now().instant;
    let mut sessions = Sessions::new(keys.clone(), pattern, question.suites, started, &mut Os);
    sessions.expect_narrow();
    sessions.begin(started);
    let (mut out, mut others, mut called) = (VecDeque::new(), 0, started);
    loop {
        let instant = now().instant;
        if instant >= started + PATIENCE {
            return Ok(Answer::Silent(others));
        }
        if sessions.is_call_due(instant) {
            sessions.call(instant, to, ROOM, &mut Os, &mut out);
            called = instant;
        }
        for command in out.drain(..) {
            if let Command::Send(SendCommand::Handshake(handshake)) = command {
                wire.send(&handshake.datagram, to)?;
            }
        }
        let Some(datagram) = wire.receive()? else { continue };
        if !wrap::is_probe(&keys, &datagram) {
            others += 1;
            continue;
        }
        let received = Received { from: to, datagram };
        match sessions.handle_handshake(now().instant, &received, &mut Os, &mut out) {
            Ok(Outcome::Begun { .. }) => return Ok(Answer::Answered(took(called))),
            Ok(Outcome::NoCipher) => return Ok(Answer::NoCipher),
            Ok(Outcome::OtherExchange { theirs, .. }) => return Ok(Answer::OtherExchange(theirs)),
            Ok(_) | Err(_) => {}
        }
    }
}

fn took(called: Instant) -> Duration {
    now().instant.saturating_duration_since(called)
}
