//! Calling a peer once, to see whether it answers: a handshake that is begun and never confirmed, which changes nothing
//! at the peer. A process without privileges reads what comes back.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::core::lane::{Command, Received, SendCommand};
use crate::core::path::Path;
use crate::core::session::{Outcome, Sessions};
use crate::crypto::suite::Cipher;
use crate::crypto::wrap;
use crate::privsep::channel::{Channel, Message};
use crate::privsep::message::{Confinement, Keys};
use crate::privsep::sandbox;
use crate::privsep::spawn::{self, Role, inherited, spawn};
use crate::sys::clock::now;
use crate::sys::random::Os;

/// Two calls are sent in this time.
const PATIENCE: Duration = Duration::from_secs(6);
/// No datagram is longer.
const ROOM: usize = 65_536;

/// To the caller, with the socket beside it: its whole work.
#[derive(Clone, Serialize, Deserialize)]
pub struct Question {
    /// What only the link's two ends know.
    pub keys: Box<Keys>,
    /// The ciphers that this end allows.
    pub suites: Vec<Cipher>,
    /// Whom to call.
    pub address: SocketAddr,
    /// What the caller gives up first.
    pub confinement: Confinement,
}

/// From the caller: what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The peer has the same key; the time from the call to its answer.
    Answered(Duration),
    /// It has the same key, and no cipher in common.
    NoCipher,
    /// The system said that the datagram cannot get there, or was sent back.
    Refused(String),
    /// Nothing that the key opens; so many other datagrams came from there.
    Silent(u32),
    /// The call could not be made.
    Failed(String),
}

impl Message for Question {
    fn descriptors(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

impl Message for Answer {
    fn descriptors(&self) -> RangeInclusive<usize> {
        0..=0
    }
}

/// Calls the peer over a socket that is connected to it, and waits for what comes of it.
pub fn call(question: &Question, socket: &OwnedFd) -> Answer {
    let failed = |error: io::Error| Answer::Failed(error.to_string());
    let (mut child, channel): (_, Channel<Question, Answer>) = match spawn(Role::Caller) {
        Ok(spawned) => spawned,
        Err(error) => return failed(error),
    };
    let asked = channel.send(question, &[socket.as_fd()]);
    let answer = asked.and_then(|()| {
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&channel, rustix::event::PollFlags::IN)],
            Some(&limit),
        )?;
        channel.receive()
    });
    // It has ended, or is of no use any more, and nobody waits for one that the kernel does not let go.
    let _ = spawn::end(&mut child);
    match answer {
        Ok(Some((answer, _))) => answer,
        Ok(None) => Answer::Failed("the calling process ended without a word".to_owned()),
        Err(error) => failed(error),
    }
}

/// The calling process: reads the question from descriptor 0, drops its privileges, calls, answers, ends.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    let channel = inherited::<Answer, Question>()?;
    let Some((question, descriptors)) = channel.receive()? else { return Ok(()) };
    let Some(socket) = descriptors.into_iter().next() else { return Ok(()) };
    let answer = match sandbox::lock(Role::Caller, &question.confinement) {
        Ok(_) => ask(question, UdpSocket::from(socket)).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                Answer::Refused("its host says that nothing listens on that port".to_owned())
            }
            _ => Answer::Refused(error.to_string()),
        }),
        Err(error) => Answer::Failed(error.to_string()),
    };
    channel.send(&answer, &[])
}

fn ask(question: Question, socket: UdpSocket) -> io::Result<Answer> {
    let (keys, statics) = question.keys.derive();
    let started = now().instant;
    let mut sessions = Sessions::new(keys.clone(), statics, question.suites, started, &mut Os);
    sessions.begin(started);
    let to = Path::from(question.address);
    let (mut out, mut others, mut called) = (VecDeque::new(), 0, started);
    let mut buffer = vec![0; ROOM];
    loop {
        let instant = now().instant;
        if instant >= started + PATIENCE {
            return Ok(Answer::Silent(others));
        }
        if sessions.is_call_due(instant) {
            sessions.call(instant, to, &mut Os, &mut out);
            called = instant;
        }
        for command in out.drain(..) {
            if let Command::Send(SendCommand::Handshake(handshake)) = command {
                socket.send(&handshake.datagram)?;
            }
        }
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let datagram = buffer.get(..length).unwrap_or_default().to_vec();
        if !wrap::is_probe(&keys, &datagram) {
            others += 1;
            continue;
        }
        let received = Received { from: to, datagram };
        match sessions.handle_handshake(now().instant, &received, &mut Os, &mut out) {
            Ok(Outcome::Begun { .. }) => return Ok(Answer::Answered(took(called))),
            Ok(Outcome::NoCipher) => return Ok(Answer::NoCipher),
            Ok(_) | Err(_) => {}
        }
    }
}

fn took(called: Instant) -> Duration {
    now().instant.saturating_duration_since(called)
}
