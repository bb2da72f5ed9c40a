//! Messages to systemd (sd_notify(3)). Without systemd they do nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{SendFlags, SocketAddrUnix, sendto};
use sd_notify::NotifyState;

/// How long to wait for a busy service manager, for messages it waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reports readiness: configuration, socket and any device so far are good, and the engine is sandboxed.
pub fn ready() {
    send(&[NotifyState::Ready], Some(PATIENCE));
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)], None);
}

/// Reports that a reload has begun.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Type=notify-reload matches reloads by this time.
    states.extend(NotifyState::monotonic_usec_now());
    send(&states, Some(PATIENCE));
}

/// Reports the end.
pub fn stopping() {
    send(&[NotifyState::Stopping], None);
}

/// Feeds the watchdog.
pub fn alive() {
    send(&[NotifyState::Watchdog], None);
}

/// Whether a service manager listens.
pub fn is_listening() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How often to call [`alive`]: half of systemd's watchdog interval.
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// A service manager that does not listen changes nothing for the link.
fn send(states: &[NotifyState<'_>], patience: Option<Duration>) {
    if let Some(to) = env::var_os("NOTIFY_SOCKET") {
        let text: Vec<_> = states.iter().map(|state| format!("{state}\n")).collect();
        let _ = send_to(&to, text.concat().as_bytes(), patience);
    }
}

/// Sends a datagram to a `NOTIFY_SOCKET` address, waiting at most `patience` for room in its queue.
fn send_to(to: &OsStr, text: &[u8], patience: Option<Duration>) -> io::Result<()> {
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    match patience {
        Some(patience) => socket.set_write_timeout(Some(patience))?,
        None => socket.set_nonblocking(true)?,
    }
    // A send with a timeout is not restarted after SIGCHLD (signal(7)).
    Ok(retry_on_intr(|| sendto(&socket, text, SendFlags::empty(), &address)).map(drop)?)
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let scratch = Scratch::new();
        let path = scratch.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let send = |patience| send_to(path.as_os_str(), b"WATCHDOG=1\n", patience);
        let sent = (0..10_000).take_while(|_| send(None).is_ok()).count();
        assert!((1..10_000).contains(&sent), "its queue has an end");
        assert!(send(Some(Duration::from_millis(1))).is_err());
        let mut read = [0; 64];
        assert_eq!(manager.recv(&mut read).unwrap(), 11);
        send(Some(PATIENCE)).unwrap();
    }

    #[test]
    fn a_name_that_begins_with_an_at_sign_is_abstract() {
        let name = format!("tund-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(OsStr::new(&format!("@{name}")), b"READY=1\n", None).unwrap();
        let mut read = [0; 64];
        assert_eq!(manager.recv(&mut read).unwrap(), 8);
    }
}
