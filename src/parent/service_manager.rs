//! What systemd is told of the link: readiness, liveness and status.
#![allow(clippy::disallowed_methods, reason = "systemd waits for a sign of life by the clock")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::core::path::Path;
use crate::core::settings::LinkState;
use crate::helper::zone;
use crate::parent::Parent;
use crate::parent::notify;
use crate::privsep::background;

/// Maximum interval between updates of the status line.
const RENEWAL: Duration = Duration::from_secs(10);

/// What systemd knows, if it listens.
pub(super) struct ServiceManager {
    interval: Option<Duration>,
    /// When to ask the engine next, once it runs.
    due: Option<Instant>,
    told: String,
    /// The addresses of the only remote.
    resolved: Vec<SocketAddr>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let interval = notify::is_listening()
            .then(|| notify::alive_interval().map_or(RENEWAL, |interval| interval.min(RENEWAL)));
        Self { interval, due: None, told: String::new(), resolved: Vec::new() }
    }

    /// When [`Parent::serve_manager`] has work.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Stores the remote's addresses.
    pub(super) fn note_resolved(&mut self, addresses: &[Path]) {
        self.resolved = addresses.iter().map(|path| path.remote).collect();
    }

    /// Asks the engine as soon as possible, after a change.
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
    /// Reports that the engine runs.
    pub(super) fn tell_ready(&mut self) {
        self.manager.tell("waiting for the peer".to_owned());
        notify::ready();
        background::ready();
        self.manager.due = self.manager.interval.map(|_| Instant::now());
    }

    /// Asks the engine for the link's state, when due. The answer is the sign of life: it shows that the parent, the engine and its worker all work.
    pub(super) fn serve_manager(&mut self) {
        let now = Instant::now();
        if let (Some(due), Some(interval)) = (self.manager.due, self.manager.interval)
            && due <= now
        {
            self.manager.due = Some(now + interval);
            self.ask_engine();
        }
    }

    /// Reports liveness.
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

    /// The only remote as configured, while the peer is at its address; otherwise the peer's address.
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
