//! Waiting for a descriptor.
#![allow(clippy::disallowed_methods, reason = "a wait is measured by the clock itself")]

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits at most `limit` until a descriptor is ready for one of `events` or at its end; returns whether it is. Signals do not change the time.
///
/// # Errors
/// Those of poll(2).
pub fn ready(fd: impl AsFd, events: PollFlags, limit: Duration) -> io::Result<bool> {
    let due = Instant::now() + limit;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, events)], Some(&left)) {
            Err(Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::os::unix::thread::JoinHandleExt;

    use super::*;

    #[test]
    fn signals_neither_end_a_wait_nor_prolong_it() {
        signal_hook::flag::register(libc::SIGWINCH, std::sync::Arc::default()).unwrap();
        for (limit, comes) in [(Duration::from_millis(200), false), (Duration::from_secs(60), true)] {
            let (mut far, near) = UnixStream::pair().unwrap();
            let waiting = std::thread::spawn(move || ready(near, PollFlags::IN, limit));
            let interrupt = || {
                // SAFETY: the thread has not been joined.
                unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGWINCH) };
                std::thread::sleep(Duration::from_millis(1));
            };
            (0..50).for_each(|_| interrupt());
            if comes {
                far.write_all(b"x").unwrap();
            }
            let ends = (0..30_000).any(|_| {
                interrupt();
                waiting.is_finished()
            });
            assert!(ends, "each signal begins the wait anew");
            assert_eq!(waiting.join().unwrap().unwrap(), comes);
        }
    }
}
