//! Start for one connection (inetd's `nowait`): the first process runs the link, and takes the connections of all later ones.
#![allow(clippy::disallowed_methods, reason = "a process that hands over does not wait for ever")]

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::host::directories::{self, CONNECTIONS, Lock};
use crate::host::directory::Directory;
use crate::report::exit::{Fatal, UNAVAILABLE};
use crate::transport::{handover, stream};

/// How long a link that starts or ends may take to accept a connection, or to release its lock.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// What the process that runs the link gets.
pub(super) struct Turn {
    pub runtime: Directory,
    pub lock: Lock,
    /// The socket where connections arrive, starting with this process's own.
    pub connections: OwnedFd,
}

/// Takes the lock to run the link, or hands the connection to the process that does, and returns `None`.
///
/// # Errors
/// Neither is possible.
pub(super) fn take_turn(
    config: &Config,
    runtime: Option<Directory>,
    connection: OwnedFd,
) -> Result<Option<Turn>, Fatal> {
    let unavailable = |error: &dyn std::fmt::Display, what: &str| {
        Fatal::new(UNAVAILABLE, format!("cannot {what}: {error}"))
    };
    let Some(directory) = runtime else {
        let text = "a runtime directory is needed where a superserver accepts the connections (nowait): set run.runtime-dir";
        return Err(Fatal::new(UNAVAILABLE, text));
    };
    let Ok(connection) = stream::adopt(connection, config) else { return Ok(None) };
    let file = directory.path().join(CONNECTIONS);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = match directories::lock(&directory, &config.name) {
            Ok((runtime, lock)) => {
                let connections = runtime
                    .remove(CONNECTIONS)
                    .and_then(|()| handover::open(&file))
                    .and_then(|socket| handover::give(&file, &connection).map(|()| socket))
                    .map_err(|error| {
                        unavailable(&error, &format!("take connections at {}", file.display()))
                    })?;
                return Ok(Some(Turn { runtime, lock, connections }));
            }
            Err(held) => held,
        };
        match handover::give(&file, &connection) {
            Ok(()) => return Ok(None),
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(error) => {
                let text = format!("cannot hand over the connection: {error}; {held}");
                return Err(Fatal::new(held.code, text));
            }
        }
    }
}
