//! The engine: the unprivileged process that reads the network.
//!
//! The control side (the link, the channel to the parent, timers) runs on a single-threaded tokio runtime. Frames move on the [`worker`]'s thread.
#![allow(clippy::disallowed_methods, reason = "its two loops read the clock")]

pub mod ciphers;
mod ending;
pub mod lane_io;
mod peer_socket;
pub mod refusal;
mod start;
mod strays;
mod streams;
mod verbose;
pub mod worker;

pub use start::main;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use crate::core::bulk::Command;
use crate::core::condition::Condition;
use crate::core::condition::spells::Spells;
use crate::core::control::Control;
use crate::core::guard;
use crate::core::idle_timeout::IdleTimeout;
use crate::core::keylog::Entry;
use crate::core::lane::{self, Notice, Report};
use crate::core::link::Event;
use crate::core::path::Path;
use crate::core::settings::Traffic;
use crate::core::stats::Stats;
use crate::crypto::stack::cleanly;
use crate::engine::ending::Ending;
use crate::engine::peer_socket::PeerSocket;
use crate::engine::verbose::letters;
use crate::engine::worker::{FromWorker, Handle};
use crate::privsep::bulk;
use crate::privsep::channel::Channel;
use crate::privsep::message::{End, ToEngine, ToParent};
use crate::report;
use crate::sys::clock::now;
use crate::transport::udp::Socket;
use crate::wire::control::MAX_LANES;

/// Capacity of the queue from the workers to the control side, and of the queue for notices that anyone with a recording can cause. They are
/// separate, so that a flood of those displaces nothing else.
const NOTICES: usize = 256;
/// How long a failure to send is reported as the reason for silence. The worker repeats it every minute.
const UNSENT: Duration = Duration::from_secs(65);
/// How long after the workers become active they are asked for their counters, and how often while they stay active. By then the link had time to
/// come up, and how the peer's first datagrams were counted can be judged.
const TICK: Duration = Duration::from_secs(1);
/// [`TICK`] while verb 5 prints a letter for each datagram and frame.
const TICK_LETTERS: Duration = Duration::from_millis(100);

/// The parent reads the channel within this time, even while it changes the host.
const PARENT: Duration = Duration::from_secs(10);

type Parent = Channel<ToParent, ToEngine>;

struct Engine {
    parent: Arc<Parent>,
    /// A duplicate of the channel's descriptor, for the runtime to watch.
    ready: UnixDatagram,
    link: Box<dyn Control>,
    has_device: bool,
    worker: Handle<Socket>,
    peer_socket: PeerSocket,
    notices: mpsc::Receiver<FromWorker>,
    unproven: mpsc::Receiver<Notice>,
    /// The last report of each thread.
    reports: Vec<Report>,
    /// The paths for which lanes have asked for a socket.
    lane_ways: [Option<Path>; MAX_LANES as usize],
    stats: Stats,
    /// When to ask the workers for their counters, if they were active since.
    ask_at: Option<Instant>,
    letters: bool,
    lanes: u8,
    /// Set if the parent wants the link's state: the threads whose reports are awaited, one bit each.
    wanted: Option<u64>,
    /// `None`: the link never times out.
    patience: Option<IdleTimeout>,
    /// What keys are derived from, if a key log is wanted.
    logged: Option<lane::Settings>,
    /// The last failure to send: when, where to, and why.
    unsent: Option<(Instant, SocketAddr, Condition)>,
    spells: Spells,
}

impl Engine {
    async fn serve(mut self) -> Result<Ending, Ending> {
        loop {
            self.pump()?;
            let last = (self.link.heard_at(), self.link.used_at());
            if let Some(reason) = self.patience.as_mut().and_then(|p| p.spent(now().instant, last)) {
                return self.stop(reason).await;
            }
            let spent_at = self.patience.as_ref().map(|patience| patience.poll_timeout(last.1));
            tokio::select! {
                ready = self.ready.readable() => {
                    ready.map_err(Ending::failed)?;
                    match self.ready.try_io(Interest::READABLE, || self.parent.receive()) {
                        Ok(Some((ToEngine::Stop, _))) => return self.stop(String::new()).await,
                        Ok(Some((message, descriptors))) => self.handle_parent(message, descriptors),
                        Ok(None) => return Err(Ending::failed("the parent is gone")),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(Ending::failed(error)),
                    }
                }
                message = self.notices.recv() => match message {
                    Some(message) => self.handle_worker(message)?,
                    None => return Err(Ending { end: End::Bug, reason: "the worker thread ended".into() }),
                },
                Some(notice) = self.unproven.recv() => self.handle_unproven(notice)?,
                () = sleep_until(self.link.poll_timeout()) => self.link.handle_timeout(now()),
                () = sleep_until(self.ask_at) => self.ask(),
                // Checked at the top of the loop.
                () = sleep_until(spent_at) => {}
            }
        }
    }

    /// Asks the workers for their counters.
    fn ask(&mut self) {
        self.ask_at = None;
        self.worker.report();
    }

    /// Carries out the link's decisions.
    fn pump(&mut self) -> Result<(), Ending> {
        while let Some(command) = self.link.poll_command() {
            cleanly(|| self.log_key(&command))?;
            self.peer_socket.note(&command);
            // The later of the two.
            let agreed = command.agreed() == Some(true);
            // Lane 0's next message may trigger the first datagrams of the others.
            let several = self.lanes > 1 && command.accepts();
            self.worker.command(command);
            if agreed || several {
                // Peer and operator now hear that frames pass: no thread may still drop one.
                self.worker.settle();
            }
        }
        while let Some(event) = self.link.poll_event() {
            self.handle_event(event)?;
        }
        self.peer_socket.poll().map_or(Ok(()), |way| self.ask_for_socket(0, way))
    }

    /// Logs the key of a command.
    fn log_key(&self, command: &Command) -> Result<(), Ending> {
        let Command::Tund(command) = command else { return Ok(()) };
        let Some(settings) = &self.logged else { return Ok(()) };
        let lanes = command.lane().map_or(0..self.lanes, |lane| lane..lane + 1);
        let mut entries = lanes.filter_map(|lane| Entry::of(&settings.of_lane(lane), command));
        entries.try_for_each(|entry| self.tell(&ToParent::KeyLog(entry)))
    }

    fn handle_unproven(&mut self, notice: Notice) -> Result<(), Ending> {
        if let (Some(settings), Notice::Handshake(received)) = (&self.logged, &notice) {
            let entry = cleanly(|| Entry::taken(settings, received));
            entry.map_or(Ok(()), |entry| self.tell(&ToParent::KeyLog(entry)))?;
        }
        self.link.handle_notice(now(), notice);
        Ok(())
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Ending> {
        match event {
            Event::Log { level, condition } => self.log_condition(level, &condition),
            Event::Lanes(used) => self.worker.lanes(used),
            Event::LaneSocket { lane, way } => self.ask_for_socket(lane, way)?,
            Event::Keep(kept) => self.tell(&ToParent::Keep(kept))?,
            Event::Resolve => self.tell(&ToParent::Resolve)?,
            Event::Endpoint(path) => self.tell(&ToParent::Endpoint(path))?,
            Event::Up { endpoint, name } => {
                if !self.has_device {
                    self.tell(&ToParent::OpenDevice)?;
                }
                self.tell(&ToParent::LinkUp { endpoint, name })?;
            }
            Event::Routes(routes) => self.tell(&ToParent::PushedRoutes { routes })?,
            Event::Rerouted { passes } => self.tell(&ToParent::Rerouted { passes })?,
            Event::Down { reason } => {
                let traffic = self.traffic();
                self.tell(&ToParent::LinkDown { reason, traffic })?;
            }
        }
        Ok(())
    }

    fn handle_parent(&mut self, message: ToEngine, descriptors: Vec<OwnedFd>) {
        match message {
            ToEngine::Kept(kept) => self.link.handle_kept(now(), kept),
            ToEngine::Resolved { addresses } => self.link.handle_resolved(now(), &addresses),
            ToEngine::Route { address, mtu } => self.link.handle_route(now(), address, mtu),
            ToEngine::Moved(from) => self.link.handle_notice(now(), Notice::Moved { from }),
            ToEngine::Taken { routes } => self.link.handle_taken(routes),
            ToEngine::Sources => match descriptors.into_iter().next().map(bulk::read) {
                Some(Ok(sources)) => self.link.handle_sources(sources),
                failed => log::warn!("the peer's inner addresses are unchanged: {failed:?}"),
            },
            ToEngine::Device => {
                for device in descriptors {
                    self.has_device = true;
                    self.worker.device(&device);
                }
            }
            ToEngine::Connected { lane, remote, local } => {
                // A socket that is not wanted is dropped; the front then gets its datagrams.
                if let Some(own_port) = self.wants_socket(lane, Path { local, ..remote.into() }) {
                    let sockets = descriptors.into_iter().map(Socket::prepared);
                    sockets.flatten().for_each(|socket| self.worker.connected(lane, Some(socket), own_port));
                }
            }
            ToEngine::Listen => {
                descriptors.into_iter().for_each(|listener| self.worker.listen(listener));
            }
            ToEngine::Stream { to } => {
                self.worker.stream(Path::stream(to), descriptors.into_iter().next());
            }
            ToEngine::Announce { frames } => {
                frames.into_iter().for_each(|frame| self.worker.frame(frame));
            }
            ToEngine::Report => {
                self.wanted = Some((1 << self.worker.count()) - 1);
                self.ask();
            }
            ToEngine::Settings(settings) => {
                report::log::set_verb(settings.verb);
                self.letters = settings.verb >= 5;
                self.link.handle_settings(now(), *settings);
            }
            ToEngine::Rekey => self.link.handle_rekey(now()),
            ToEngine::Reconnect => self.link.handle_reconnect(now()),
            ToEngine::Resumed => self.link.handle_resumed(now()),
            // A second start would be a bug in the parent; the caller handles stop.
            ToEngine::Start(_) | ToEngine::Stop => {}
        }
    }

    fn handle_worker(&mut self, message: FromWorker) -> Result<(), Ending> {
        match message {
            FromWorker::Notice(notice) => self.link.handle_notice(now(), notice),
            FromWorker::Report(thread, report) => {
                let report = self.sum(thread, *report);
                if self.letters
                    && let Some(line) = letters(&self.stats, &report.stats)
                {
                    log::trace!("{line}");
                }
                self.stats = report.stats;
                self.link.handle_report(now(), &report);
                self.wanted = self.wanted.map(|threads| threads & !(1 << thread));
                if self.wanted == Some(0) {
                    self.wanted = None;
                    self.tell_state()?;
                }
            }
            FromWorker::Active => {
                let tick = if self.letters { TICK_LETTERS } else { TICK };
                self.ask_at.get_or_insert(now().instant + tick);
            }
            FromWorker::StreamWanted { to } => self.tell(&ToParent::Stream { to })?,
            FromWorker::Note(text) => log::warn!("{text}"),
            FromWorker::SendFailed { to, error } => {
                let condition = Condition::CannotSend { remote: to, reason: refusal::not_sent(&error, to) };
                self.log_condition(condition.level(), &condition);
                self.unsent = Some((now().instant, to, condition));
            }
            FromWorker::SentAgain { to } => {
                self.unsent.take_if(|(_, unsent, _)| *unsent == to);
            }
            FromWorker::Died => {
                return Err(Ending { end: End::Bug, reason: "a worker thread ended".into() });
            }
            FromWorker::DeviceLost(error) => {
                let reason = format!("the device is lost: {error}");
                return Err(Ending { end: End::DeviceLost, reason });
            }
        }
        Ok(())
    }

    /// If the peer is silent, the hello may never have been sent.
    fn tell_state(&self) -> Result<(), Ending> {
        let now = now().instant;
        let mut state = self.link.state(now, &self.stats);
        let unsent = self.unsent.as_ref().filter(|(at, ..)| now.saturating_duration_since(*at) < UNSENT);
        let talkers = self.reports.iter().flat_map(|report| report.talkers).flatten();
        state.talkers = guard::together(talkers);
        state.problem = state.problem.or_else(|| unsent.map(|(_, _, condition)| condition.clone()));
        state.problem_age = state.problem.as_ref().and_then(|problem| self.spells.age(now, problem));
        self.tell(&ToParent::State(Box::new(state)))
    }

    /// Logs a condition with its code, which programs search for.
    fn log_condition(&mut self, level: Level, condition: &Condition) {
        self.spells.note(now().instant, condition);
        log::log!(level, "{condition} [{}]", condition.code());
    }

    /// Says goodbye to the peer and ends; `reason` is empty if the parent knows.
    async fn stop(mut self, reason: String) -> Result<Ending, Ending> {
        self.link.handle_stop(!reason.is_empty());
        self.pump()?;
        self.worker.quit();
        while let Some(message) = self.notices.recv().await {
            if let FromWorker::Report(thread, report) = message {
                self.stats = self.sum(thread, *report).stats;
            }
        }
        log::debug!("{}", self.stats.plus(&self.link.stats()));
        self.tell(&ToParent::Traffic(self.traffic()))?;
        Ok(Ending { end: End::Done, reason })
    }

    /// The sum of all threads' reports.
    fn sum(&mut self, thread: usize, report: Report) -> Report {
        if let Some(last) = self.reports.get_mut(thread) {
            *last = report;
        }
        let add = |sum: Stats, stats: &Stats| sum.plus(stats);
        let mut stats = self.reports.iter().map(|report| &report.stats).fold(Stats::default(), add);
        // A late datagram is no longer missing, but a counter must never fall.
        stats.datagrams_lost = stats.datagrams_lost.max(self.stats.datagrams_lost);
        let openvpn = self.reports.iter().map(|report| &report.openvpn).fold(Stats::default(), add);
        let heard = self.reports.iter().map(|report| report.heard).sum();
        Report { stats, openvpn, heard, ..report }
    }

    /// Asks the parent for a socket for a lane's path, or drops the existing one.
    fn ask_for_socket(&mut self, lane: u8, way: Option<Path>) -> Result<(), Ending> {
        if let Some(asked) = self.lane_ways.get_mut(usize::from(lane)) {
            *asked = way;
        }
        let Some(Path { remote, local, own_port, .. }) = way else {
            self.worker.connected(lane, None, false);
            return Ok(());
        };
        self.tell(&ToParent::Connect { lane, own_port, remote, local })
    }

    /// Whether a socket for this path of a lane is still wanted; if so, whether it has its own port.
    fn wants_socket(&self, lane: u8, way: Path) -> Option<bool> {
        let asked = self.lane_ways.get(usize::from(lane)).copied().flatten()?;
        ((asked.remote, asked.local) == (way.remote, way.local)).then_some(asked.own_port)
    }

    fn traffic(&self) -> Traffic {
        Traffic { bytes_sent: self.stats.bytes_out, bytes_received: self.stats.bytes_in }
    }

    /// Sends a message to the parent, and blocks until it has read earlier ones. A parent that reads nothing is considered gone.
    fn tell(&self, message: &ToParent) -> Result<(), Ending> {
        let sent = self.parent.send_within(message, PARENT);
        sent.map_err(|error| Ending::failed(format!("the parent: {error}")))
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
