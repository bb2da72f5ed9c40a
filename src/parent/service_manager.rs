//! What systemd is told of the link: that it is ready, that it lives, and how it is.
#![allow(clippy::disallowed_methods, reason = "systemd waits for a sign of life by the clock")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::core::path::Path;
use crate::core::settings::LinkState;
use crate::helper::zone;
use crate::parent::Parent;
use crate::parent::notify;
use crate::privsep::background;

/// How often the line of `systemctl status` is renewed, at least.
const RENEWAL: Duration = Duration::from_secs(10);

/// What systemd knows, if there is one that listens.
pub(super) struct ServiceManager {
    interval: Option<Duration>,
    /// When the engine is asked next, once it runs.
    due: Option<Instant>,
    told: String,
    /// Where the one remote was found.
    resolved: Vec<SocketAddr>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let interval = notify::is_listening()
            .then(|| notify::alive_interval().map_or(RENEWAL, |interval| interval.min(RENEWAL)));
        Self { interval, due: None, told: String::new(), resolved: Vec::new() }
    }

    /// When [`Parent::serve_manager`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The remote's addresses.
    pub(super) fn note_resolved(&mut self, addresses: &[Path]) {
        self.resolved = addresses.iter().map(|path| path.remote).collect();
    }

    /// Something changed: ask as soon as possible.
    pub(super) fn hurry(&mut self) {
        if self.due.is_some() {
            self.due = Some(Instant::now());
        }
    }

    fn tell(&mut self, status: String) {
        if self.interval.is_some() && self.told != status {
            notify::status(&status);
            self.told = status;
        }
    }
}

impl Parent {
    /// The engine is locked and runs.
    pub(super) fn tell_ready(&mut self) {
        self.manager.tell("waiting for the peer".to_owned());
        notify::ready();
        background::ready();
        self.manager.due = self.manager.interval.map(|_| Instant::now());
    }

    /// Asks the engine how the link is, when it is time. Its answer is the sign of life: it says that the parent, the
    /// engine and its worker all do their work.
    pub(super) fn serve_manager(&mut self) {
        let now = Instant::now();
        if let (Some(due), Some(interval)) = (self.manager.due, self.manager.interval)
            && due <= now
        {
            self.manager.due = Some(now + interval);
            self.ask_engine();
        }
    }

    /// The engine answered.
    pub(super) fn tell_alive(&mut self, state: &LinkState) {
        if self.manager.interval.is_some() {
            notify::alive();
            let status = self.line(state);
            self.manager.tell(status);
        }
    }

    fn line(&self, state: &LinkState) -> String {
        let up = self.machine.is_up() && self.watch.obstacle().is_none();
        let (true, Some(endpoint)) = (up, self.status.endpoint) else {
            let problem = self.problems(Some(state)).into_iter().next();
            return problem
                .map_or_else(|| "waiting for the peer".to_owned(), |(problem, _)| problem.to_string());
        };
        let rtt = state.rtt.map_or_else(String::new, |rtt| format!(", {:.1} ms", rtt.as_secs_f64() * 1e3));
        format!("link up with {}{rtt}", self.peer_name(endpoint))
    }

    /// The one remote as it is configured, while the peer is where its name leads to; else the address.
    fn peer_name(&self, endpoint: SocketAddr) -> String {
        match self.link.config.remotes.as_slice() {
            [remote] if self.manager.resolved.contains(&endpoint) => match remote.host.contains(':') {
                true => format!("[{}]:{}", remote.host, remote.port),
                false => format!("{}:{}", remote.host, remote.port),
            },
            _ => zone::named(endpoint),
        }
    }
}
