//! Who is at the other end of the control socket, and whether they may command the link.
//!
//! Under a systemd unit the parent, its engine and its resolver have one uid, as have those of all other links. A compromised engine or resolver must
//! not command any of them: the kernel tells which process has connected, and that it has given up its privileges for good.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};

use crate::sys::{self, ready};

/// Most threads of a process that are examined.
const MAX_THREADS: usize = 16;

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    /// Another user than root and this one.
    #[error("uid {0} may not command a link: ask as root, or as the user who runs it")]
    User(u32),
    /// It has no privileges and cannot gain any, like an engine or a resolver.
    #[error("process {0} has given up all rights (no_new_privs, no capability) and may not command a link")]
    Locked(u32),
    /// It is gone, or cannot be examined.
    #[error("process {0} cannot be inspected ({1}) and may not command a link")]
    Unseen(u32, io::Error),
}

/// Checks that the other end of this connection may command a link.
pub(super) fn judge(socket: impl AsFd) -> Result<(), Stranger> {
    let unseen = |pid| move |error| Stranger::Unseen(pid, error);
    let peer = sys::peer_credentials(&socket).map_err(unseen(0))?;
    let own = geteuid().as_raw();
    if peer.uid != own {
        // A confined process never runs as another root.
        return if peer.uid == 0 { Ok(()) } else { Err(Stranger::User(peer.uid)) };
    }
    let process = process(&socket, peer.pid).map_err(unseen(peer.pid))?;
    let locked = has_locked_thread(peer.pid).map_err(unseen(peer.pid))?;
    // A live process has kept its pid, so those threads were its own. A zombie has ended, and a process that cannot be polled counts as one.
    if ready(&process, PollFlags::IN, Duration::ZERO).unwrap_or(true) {
        return Err(Stranger::Unseen(peer.pid, Errno::SRCH.into()));
    }
    if locked { Err(Stranger::Locked(peer.pid)) } else { Ok(()) }
}

/// Privileges belong to threads, and any of them may have connected. In a confined process all are confined.
fn has_locked_thread(pid: u32) -> io::Result<bool> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    let mut seen = false;
    for thread in threads.take(MAX_THREADS) {
        match std::fs::read_to_string(thread?.path().join("status")) {
            Ok(status) if is_locked(&status) => return Ok(true),
            Ok(_) => seen = true,
            // Threads come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    if seen { Ok(false) } else { Err(Errno::SRCH.into()) }
}

/// The process that connected. Before Linux 6.5 there is no SO_PEERPIDFD; this is then the current owner of its pid.
fn process(socket: impl AsFd, pid: u32) -> io::Result<OwnedFd> {
    match sys::peer_process(socket) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            Ok(pidfd_open(pid, PidfdFlags::empty())?)
        }
        found => found,
    }
}

/// Whether this text of /proc/PID/status (proc_pid_status(5)) shows a process permanently without privileges. Missing fields count against it.
fn is_locked(status: &str) -> bool {
    let field = |name: &str| {
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim())
    };
    let may_gain = field("NoNewPrivs") == Some("0");
    let has_some = field("CapEff").is_some_and(|bits| bits.bytes().any(|digit| digit != b'0'));
    !may_gain && !has_some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_no_right_and_can_gain_none_is_locked() {
        let locked = |no_new_privs: &str, effective: &str| {
            is_locked(&format!(
                "Name:\tCapEff\nCapPrm:\t1\nCapEff:\t{effective}\nNoNewPrivs:\t{no_new_privs}\nSeccomp:\t0\n"
            ))
        };
        assert!(locked("1", "0000000000000000"));
        // A unit's script has CAP_NET_ADMIN; an ordinary user's shell could call sudo.
        assert!(!locked("1", "0000000000001000"));
        assert!(!locked("0", "0000000000000000"));
        assert!(is_locked(""));
    }
}
