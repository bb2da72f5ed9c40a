//! Starting the other processes of tund: the program executes itself again, so that they share
//! neither memory nor address layout with the parent.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::channel::{Channel, Message};

/// `argv[0]` of every process of tund; a program that embeds tund calls [`crate::cli::main`] when it
/// finds this name there.
pub const PROGRAM: &str = "tund";

/// What a process started by [`spawn`] does; its channel to the parent is descriptor 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the network, without privileges.
    Engine,
    /// Looks names up once, without privileges.
    Resolver,
    /// Calls a peer once, without privileges.
    Caller,
}

impl Role {
    /// The hidden first argument that selects the role.
    pub fn argument(self) -> &'static str {
        match self {
            Role::Engine => "--engine",
            Role::Resolver => "--resolver",
            Role::Caller => "--caller",
        }
    }

    /// The role a first argument selects, if any.
    pub fn from_argument(argument: &OsStr) -> Option<Self> {
        [Role::Engine, Role::Resolver, Role::Caller].into_iter().find(|role| argument == role.argument())
    }
}

/// Starts this program again in that role: channel on descriptor 0, no other descriptor but standard output and error,
/// which are /dev/null, empty environment, own process group (so that Ctrl-C reaches the parent only). What it has to
/// say goes over the channel, where it is bounded and cleaned. Errors are those of socketpair(2), fork(2) and execve(2).
pub fn spawn<S: Message, R: Message>(role: Role) -> io::Result<(Child, Channel<S, R>)> {
    let (channel, theirs) = Channel::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg0(PROGRAM)
        .arg(role.argument())
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((child, channel))
}

/// The channel of a process started by [`spawn`], in whose place standard input is /dev/null; its calls block. Errors
/// are those of dup(2).
pub fn inherited<S: Message, R: Message>() -> io::Result<Channel<S, R>> {
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(io::stdout())?;
    Ok(channel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privsep::message::{ToEngine, ToParent};

    #[test]
    fn roles_are_told_by_their_argument() {
        for role in [Role::Engine, Role::Resolver, Role::Caller] {
            assert_eq!(Role::from_argument(OsStr::new(role.argument())), Some(role));
        }
        assert_eq!(Role::from_argument(OsStr::new("--config")), None);
    }

    #[test]
    fn the_other_process_holds_the_other_end() {
        // Here /proc/self/exe is the test program: it refuses the argument and ends, which closes its end.
        let (mut child, channel) = spawn::<ToEngine, ToParent>(Role::Engine).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(channel.receive().unwrap().is_none());
    }
}
