//! Signals, as a descriptor to poll and a set to read.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::PollFlags;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::sys::ready;

/// A signal that the parent handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End.
    Terminate,
    /// End (Ctrl-C).
    Interrupt,
    /// Read the configuration again.
    Hangup,
    /// Resolve and connect again.
    User1,
    /// Log the statistics.
    User2,
    /// A child ended.
    Child,
}

const WATCHED: [(Signal, i32); 6] = [
    (Signal::Terminate, SIGTERM),
    (Signal::Interrupt, SIGINT),
    (Signal::Hangup, SIGHUP),
    (Signal::User1, SIGUSR1),
    (Signal::User2, SIGUSR2),
    (Signal::Child, SIGCHLD),
];

/// The signals received since the last [`Self::take`]. Several of one kind count once.
pub struct Signals {
    wake: UnixStream,
    flags: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// Installs handlers for every [`Signal`], for the whole process and permanently. Errors are those of socketpair(2) and sigaction(2).
    pub fn watch() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let mut flags = Vec::new();
        for (signal, number) in WATCHED {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: a wake-up must find it set.
            signal_hook::flag::register(number, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(number, write.try_clone()?)?;
            flags.push((signal, flag));
        }
        Ok(Self { wake, flags })
    }

    /// Waits for a signal, for at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let _ = ready(&self.wake, PollFlags::IN, limit);
    }

    /// The signals since the last call.
    pub fn take(&mut self) -> Vec<Signal> {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        self.flags.iter().filter(|(_, flag)| flag.swap(false, Ordering::AcqRel)).map(|(s, _)| *s).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_wakes_and_is_told_once() {
        let mut signals = Signals::watch().unwrap();
        signals.take();
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert!(ready(&signals, PollFlags::IN, Duration::from_secs(1)).unwrap());
        assert!(signals.take().contains(&Signal::User2));
        // Children of other tests may end meanwhile.
        assert!(signals.take().iter().all(|signal| *signal == Signal::Child));
    }
}
