//! Descriptors inherited by this process.

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor after standard error.
const FIRST: RawFd = 3;

/// Makes all descriptors above 2 close-on-exec, including those leaked by the process that started this one. All that tund opens itself is
/// close-on-exec anyway.
pub fn pass_nothing_on() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_int = 1 << 2;
    let first = FIRST.cast_unsigned();
    // SAFETY: with this flag close_range(2) closes nothing and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    match result {
        0 => Ok(()),
        // Before Linux 5.11.
        _ => each_closed_on_exec(),
    }
}

/// Makes descriptors 0 to 2 `/dev/null`.
pub fn empty_standard() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn each_closed_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse::<RawFd>().unwrap_or(0);
        if number >= FIRST {
            // SAFETY: fcntl(2) with F_SETFD touches no memory and closes nothing; for a descriptor that is no longer open, such as the directory's
            // own, it returns EBADF.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// The descriptors that systemd passed to this process (sd_listen_fds(3)), close-on-exec. Each is returned once: later calls find none.
///
/// # Errors
/// The environment contains no number, or a promised descriptor is not open.
pub fn passed_descriptors() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    // Setting close-on-exec on all has shown that they are open.
    let numbers = sd_notify::listen_fds()?;
    // SAFETY: they are open, and were passed to this process: the environment names its id, and safe code does not change the environment. They have
    // no other owner, since only this function returns them, once.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// Whether a program executed after `prepare` inherits a leaked descriptor.
    fn passes_on(prepare: fn() -> io::Result<()>) -> bool {
        let (stray, _write) = io::pipe().unwrap();
        rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
        let mut look = Command::new("sh");
        look.args(["-c", &format!("test -e /proc/$$/fd/{}", stray.as_raw_fd())]);
        // SAFETY: glibc makes malloc(3) safe between fork(2) and execve(2), and nothing else here takes a lock.
        unsafe { look.pre_exec(prepare) };
        look.status().unwrap().success()
    }

    #[test]
    fn nothing_that_was_left_open_is_passed_on() {
        assert!(passes_on(|| Ok(())));
        assert!(!passes_on(pass_nothing_on));
        assert!(!passes_on(each_closed_on_exec));
    }

    #[test]
    fn without_systemd_nothing_was_passed() {
        assert_eq!(passed_descriptors().unwrap().len(), 0);
    }
}
