//! One-shot child processes that meet the network without privileges.

pub mod call;
pub mod proxy;
pub mod resolve;
pub mod zone;

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use crate::privsep::channel::Message;
use crate::privsep::spawn::inherited;

/// What a process says that was given none. The channel lets no such question through.
const NO_SOCKET: &str = "the question came without a socket";

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
