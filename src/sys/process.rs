//! Starting other programs.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::Errno;

/// Starts a program, with fork(2) if the C library's first way is refused: container runtimes before October 2021 answer clone3(2) with EPERM, which
/// the C library takes as final, unlike ENOSYS.
pub fn start(command: &mut Command) -> io::Result<Child> {
    match command.spawn() {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => start_by_fork(command),
        started => started,
    }
}

fn start_by_fork(command: &mut Command) -> io::Result<Child> {
    // SAFETY: the closure does nothing; its presence makes the standard library fork.
    unsafe { command.pre_exec(|| Ok(())) }.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_start_the_program_and_tell_why_they_cannot() {
        for start in [start, start_by_fork] {
            assert_eq!(
                start(Command::new("sh").args(["-c", "exit 7"])).unwrap().wait().unwrap().code(),
                Some(7)
            );
            assert_eq!(start(&mut Command::new("/no/such")).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
