//! One-shot child processes that meet the network without privileges.

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

/// What a process says that was given none. The channel lets no such question through.
const NO_SOCKET: &str = "the question came without a socket";

/// Such a process as its parent sees it. It ends with this.
struct Running<Q, A> {
    child: Child,
    channel: Channel<Q, A>,
}

impl<Q: Message, A: Message> Running<Q, A> {
    /// Starts one, and gives it its question and what belongs to it.
    fn start(role: Role, question: &Q, descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (child, channel) = spawn(role)?;
        let running = Self { child, channel };
        match running.channel.send(question, descriptors) {
            // That it has ended already is found when its answer is read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Ok(()) | Err(_) => Ok(running),
        }
    }

    /// Its answer, if that is there.
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

    /// The same for a command that waits for it, no longer than this.
    fn wait(&self, limit: Duration) -> io::Result<Option<A>> {
        ready(&self.channel, PollFlags::IN, limit)?;
        self.answer()
    }
}

impl<Q, A> AsFd for Running<Q, A> {
    /// Readable when the answer is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl<Q, A> Drop for Running<Q, A> {
    fn drop(&mut self) {
        // One that does not end is of no more concern: its answer is not read.
        let _ = spawn::end(&mut self.child);
    }
}

/// Such a process: takes its only question, with the descriptors beside it, from descriptor 0, answers, and ends.
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
