//! One-shot unprivileged child processes that read from the network.

pub mod call;
pub mod proxy;
pub mod resolve;
pub mod zone;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitCode};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::privsep::channel::{Channel, Message};
use crate::privsep::spawn::{self, Role, inherited, spawn};
use crate::sys::ready;

/// The answer to a question without a socket, which the channel never delivers.
const NO_SOCKET: &str = "the question came without a socket";

/// Such a process, seen by its parent. Dropping it ends the process.
struct Running<Q, A> {
    child: Child,
    channel: Channel<Q, A>,
}

impl<Q: Message, A: Message> Running<Q, A> {
    /// Starts one, and sends its question and descriptors.
    fn start(role: Role, question: &Q, descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (child, channel) = spawn(role)?;
        let running = Self { child, channel };
        match running.channel.send(question, descriptors) {
            // If it has already ended, reading the answer shows that.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Ok(()) | Err(_) => Ok(running),
        }
    }

    /// Its answer, if there is one yet.
    ///
    /// # Errors
    /// There will be none.
    fn answer(&self) -> io::Result<Option<A>> {
        match self.channel.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Ok(Some((answer, _))) => Ok(Some(answer)),
            Ok(None) => Err(io::Error::other("the process that was asked ended without an answer")),
            Err(error) => Err(error),
        }
    }

    /// The same, but waits at most `limit`, for a command.
    fn wait(&self, limit: Duration) -> io::Result<Option<A>> {
        ready(&self.channel, PollFlags::IN, limit)?;
        self.answer()
    }
}

impl<Q, A> AsFd for Running<Q, A> {
    /// Readable once the answer is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl<Q, A> Drop for Running<Q, A> {
    fn drop(&mut self) {
        // A process that does not end no longer matters: its answer is not read.
        let _ = spawn::end(&mut self.child);
    }
}

/// Runs such a process: reads its only question and descriptors from descriptor 0, answers, and exits.
fn serve<Q: Message, A: Message>(find: impl FnOnce(Q, Vec<OwnedFd>) -> A) -> ExitCode {
    let answer = || -> io::Result<()> {
        let channel = inherited::<A, Q>()?;
        match channel.receive()? {
            Some((question, descriptors)) => channel.send(&find(question, descriptors), &[]),
            None => Ok(()),
        }
    };
    if answer().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
