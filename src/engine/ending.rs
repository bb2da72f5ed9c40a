//! How an engine ends.

use crate::privsep::message::End;
use crate::sys::rights;

/// How the engine ends, and a one-line reason.
pub(super) struct Ending {
    pub end: End,
    pub reason: String,
}

impl Ending {
    pub fn failed(reason: impl ToString) -> Self {
        Self { end: End::Failed, reason: reason.to_string() }
    }

    /// The system refuses what the start needs.
    pub fn refused(what: &str, error: &std::io::Error) -> Self {
        Self::failed(format!("cannot {what}: {error}{}", rights::beyond_capabilities(error)))
    }
}

/// Explains why no thread starts. The C library takes EPERM as final; the sandbox's filter would have made it ENOSYS.
pub(super) fn no_thread(error: &std::io::Error) -> Ending {
    let by_clone3 = "cannot start a thread: clone3(2) is refused, as by container runtimes of before October 2021 (Docker \
                     20.10.9): update the runtime, start the container with --security-opt seccomp=unconfined, or leave \
                     run.sandbox at \"auto\"";
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Ending::failed(by_clone3),
        _ => Ending::refused("start a thread", error),
    }
}
