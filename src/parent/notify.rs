//! What systemd is told (sd_notify(3)). Without systemd all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The link runs: configuration, socket and, unless it comes later, device are good, and the engine is locked.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// The configuration is being read again.
pub fn reloading() {
    let states = [NotifyState::Reloading];
    // With Type=notify-reload the time says which reload is meant.
    match NotifyState::monotonic_usec_now() {
        Ok(time) => send(&[NotifyState::Reloading, time]),
        Err(_) => send(&states),
    }
}

/// The link ends.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The link is alive.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Whether there is a service manager that listens.
pub fn is_listening() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How often [`alive`] must be said: half of what systemd waits for it.
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// A service manager that does not listen changes nothing for the link.
fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
