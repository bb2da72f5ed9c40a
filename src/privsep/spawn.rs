//! Starting tund's other processes: the program executes itself again, so that they share neither memory nor address layout with the parent.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::channel::{Channel, Message};
use crate::sys::{process, ready, rights};

/// `argv[0]` of every process of tund; a program that embeds tund calls [`crate::cli::main`] if it finds this name there.
pub const PROGRAM: &str = "tund";
/// The kernel's link to this process's program.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Standard output and error of such a process.
const NULL: &str = "/dev/null";

/// How long a killed process may take to exit.
const PATIENCE: Duration = Duration::from_secs(2);

/// The role of a process started by [`spawn`]; its channel to the parent is descriptor 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the network, without privileges.
    Engine,
    /// Resolves one name, without privileges.
    Resolver,
    /// Calls a peer once, without privileges.
    Caller,
    /// Asks a proxy for one connection, without privileges.
    ProxyCaller,
}

impl Role {
    const ALL: [Role; 4] = [Role::Engine, Role::Resolver, Role::Caller, Role::ProxyCaller];

    /// The hidden first argument that selects the role.
    pub fn argument(self) -> &'static str {
        match self {
            Role::Engine => "--engine",
            Role::Resolver => "--resolver",
            Role::Caller => "--caller",
            Role::ProxyCaller => "--proxy-caller",
        }
    }

    /// The role a first argument selects, if any.
    pub fn from_argument(argument: &OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|role| argument == role.argument())
    }
}

/// This program again, under its usual name.
pub fn own_program() -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(PROGRAM);
    command
}

/// Starts [`own_program`]; errors name what is missing.
pub fn start(command: &mut Command) -> io::Result<Child> {
    process::start(command).map_err(|error| {
        let there = |path: &str| std::fs::symlink_metadata(path).is_ok();
        let text = match error.kind() {
            io::ErrorKind::NotFound if !there(OWN_PROGRAM) => {
                format!("{OWN_PROGRAM} is missing: mount /proc, where tund finds its own program")
            }
            io::ErrorKind::NotFound if !there(NULL) => {
                format!("{NULL} is missing: `mknod -m 666 {NULL} c 1 3`")
            }
            _ => format!("{error}{}", rights::beyond_capabilities(&error)),
        };
        io::Error::new(error.kind(), text)
    })
}

/// Starts this program again in that role: channel on descriptor 0, no others but standard output and error, which are /dev/null, empty environment,
/// own process group (so that Ctrl-C reaches only the parent). Its messages use the channel, where they are bounded and cleaned. Errors are those of
/// socketpair(2), fork(2) and execve(2).
pub fn spawn<S: Message, R: Message>(role: Role) -> io::Result<(Child, Channel<S, R>)> {
    let (channel, theirs) = Channel::pair()?;
    let mut command = own_program();
    command.arg(role.argument()).env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((start(&mut command)?, channel))
}

/// The channel of a process started by [`spawn`], replaced on standard input by /dev/null; its calls block. Errors are those of dup(2).
pub fn inherited<S: Message, R: Message>() -> io::Result<Channel<S, R>> {
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(io::stdout())?;
    Ok(channel)
}

/// Kills a process started by [`spawn`], unless it has ended, and returns its status. `TimedOut`: it is still there after a moment, as it may not be
/// signalled or the kernel does not release it; it is no longer waited for. Otherwise the errors of pidfd_open(2), poll(2) and waitpid(2).
pub fn end(child: &mut Child) -> io::Result<ExitStatus> {
    // This fails only for a process that is gone, or that waiting would not help.
    let _ = child.kill();
    wait(child, PATIENCE)
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    ready(&process, PollFlags::IN, limit)?;
    child.try_wait()?.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "it does not end"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::privsep::message::{ToEngine, ToParent};
    use crate::testing::without_blocking;

    #[test]
    fn roles_are_told_by_their_argument() {
        for role in Role::ALL {
            assert_eq!(Role::from_argument(OsStr::new(role.argument())), Some(role));
        }
        assert_eq!(Role::from_argument(OsStr::new("--config")), None);
    }

    #[test]
    fn the_other_process_holds_the_other_end() {
        // Here /proc/self/exe is the test program: it rejects the argument and exits, which closes its end.
        let (mut child, channel) = spawn::<ToEngine, ToParent>(Role::Engine).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(without_blocking(|| channel.receive()).unwrap().is_none());
    }

    #[test]
    fn a_process_is_ended_and_one_that_does_not_end_is_waited_for_no_longer() {
        let sleep = || Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut one, mut other) = (sleep(), sleep());
        assert_eq!(end(&mut one).unwrap().signal(), Some(9));
        assert_eq!(end(&mut one).unwrap().signal(), Some(9), "asked again");
        assert_eq!(wait(&mut other, Duration::from_millis(1)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        end(&mut other).unwrap();
    }
}
