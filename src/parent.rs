//! The parent: keeps the privileges to change the host, and never reads the network. It is one poll loop, in which scripts, the resolver, signals and
//! the engine's requests never block each other.
#![allow(clippy::disallowed_methods, reason = "the poll loop is where the parent reads the clock")]

mod announce;
mod control;
mod engine;
pub mod environment;
mod hooks;
mod host;
pub mod identity;
pub mod keylog;
mod machine;
mod notify;
mod nowait;
mod openvpn;
mod problem;
mod pushed;
mod reload;
mod requests;
mod routes;
pub mod script;
mod service_manager;
pub mod signals;
mod sockets;
pub mod start;
pub mod streams;
pub mod uevent;
mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::config::Config;
use crate::core::path::Path;
use crate::core::settings::Traffic;
use crate::helper::resolve::Resolver;
use crate::host::changes::{Changes, Savepoint};
use crate::host::directory::Directory;
use crate::parent::control::Control;
use crate::parent::engine::{Engine, Next, Spawn};
use crate::parent::keylog::KeyLog;
use crate::parent::machine::{Effect, Event, Machine};
use crate::parent::openvpn::Starts;
use crate::parent::pushed::Pushed;
use crate::parent::script::Runner;
use crate::parent::service_manager::ServiceManager;
use crate::parent::signals::{Signal, Signals};
use crate::parent::start::Options;
use crate::parent::streams::Streams;
use crate::parent::uevent::Uevents;
use crate::parent::watch::Watch;
use crate::privsep::door::Door;
use crate::privsep::message::{Confinement, Start, ToEngine};
use crate::privsep::spawn::{Role, spawn};
use crate::report::exit::{BUG, Fatal};
use crate::route::plan::Step;
use crate::transport::connected::Port;

/// Most engine messages handled before other work gets its turn.
const MAX_BATCH: usize = 64;

/// Requests to end within this time are one: timeout(1) signals its child and then its child's process group, and a terminal's Ctrl-C may reach a
/// process directly and by way of the program that started it.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// The link that this process runs, and its files.
pub struct Link {
    /// The checked configuration.
    pub config: Config,
    /// The configuration file.
    pub file: PathBuf,
    /// Where scripts run.
    pub directory: PathBuf,
    /// What engine and resolver are confined to.
    pub confinement: Confinement,
    /// The runtime directory: the control socket and other files.
    pub runtime: Option<Directory>,
    /// The command line with absolute paths, for reading the file again.
    pub options: Options,
    /// Identifies the link secret.
    pub fingerprint: [u8; 8],
    /// The MAC address of a tap device for which none is configured.
    pub hardware_address: [u8; 6],
    /// The socket came from inetd or systemd.
    pub activated: bool,
    /// Where session keys are logged.
    pub key_log: Option<KeyLog>,
    /// What an OpenVPN peer's link keeps across restarts.
    pub starts: Option<Starts>,
}

/// What only the engine gets.
pub struct Launch {
    /// Keys and settings.
    pub start: Box<Start>,
    /// The bound UDP socket.
    pub socket: OwnedFd,
    /// The socket that accepts streams, if any.
    pub listener: Option<OwnedFd>,
}

/// The state of the running link.
#[derive(Default)]
struct Status {
    before_routes: Savepoint,
    device_steps: Vec<Step>,
    route_steps: Vec<Step>,
    net_gateway: Option<IpAddr>,
    endpoint: Option<SocketAddr>,
    /// Whether `endpoint` is reached by a stream.
    stream: bool,
    /// The source address that the host's routes choose for it.
    source: Option<IpAddr>,
    /// The paths for which the peer has its own socket, by lane.
    connected: BTreeMap<u8, (Port, Path)>,
    /// The addresses of the remotes' names.
    resolved: Vec<Path>,
    trusted: Option<SocketAddr>,
    traffic: Traffic,
    pushed: Pushed,
    /// The engine's protections in force, once reported.
    protections: Option<String>,
    /// The last message about an address routed into the tunnel itself.
    said_loop: Option<String>,
    /// When somebody last asked for the end.
    asked_to_end: Option<Instant>,
}

/// The parent of one link.
pub struct Parent {
    /// Decides what to do, and when.
    machine: Machine,
    link: Link,
    changes: Changes,
    resolver: Resolver,
    streams: Streams,
    engine: Option<Engine>,
    /// What the next engine starts with.
    next: Option<Next>,
    spawn: Spawn,
    /// The engine's UDP socket.
    front: Option<OwnedFd>,
    status: Status,
    door: Door,
    control: Control,
    manager: ServiceManager,
    watch: Watch,
    signals: Signals,
    /// Without it, a clone of this machine is noticed only by its clock.
    uevents: Option<Uevents>,
    scripts: Runner,
}

impl Parent {
    /// A parent that has not changed the host yet.
    pub fn new(link: Link, changes: Changes, signals: Signals) -> Self {
        Self {
            machine: Machine::new(link.activated),
            watch: Watch::new(Instant::now()),
            control: Control::new(link.runtime.as_ref(), &link.config.status),
            manager: ServiceManager::new(),
            resolver: resolver(&link),
            streams: Streams::default(),
            link,
            changes,
            engine: None,
            next: None,
            spawn: Box::new(|| spawn(Role::Engine)),
            front: None,
            status: Status::default(),
            door: Door::default(),
            signals,
            uevents: listen(),
            scripts: Runner::default(),
        }
    }

    /// Prepares the host, runs the engine until something ends it, undoes all changes. Returns the exit code.
    pub fn run(mut self, launch: Launch) -> u8 {
        self.next = Some(Next::Launch(launch));
        loop {
            self.work();
            if let Some(code) = self.machine.exit_code() {
                return code;
            }
            self.turn();
        }
    }

    /// Carries out what follows from past events.
    fn work(&mut self) {
        while let Some(effect) = self.machine.poll(Instant::now()) {
            match self.carry_out(effect) {
                Ok(Some(event)) => self.machine.handle(event),
                Ok(None) => {}
                Err(fatal) => self.machine.handle(Event::Failed(fatal)),
            }
        }
    }

    /// Returns an event that follows at once, if any. Errors end the parent.
    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Fatal> {
        match effect {
            Effect::OpenDevice => self.prepare_device()?,
            Effect::LookUp => return Ok(self.resolve_before_closing()),
            Effect::SetRoutes => self.set_routes()?,
            Effect::StartEngine => self.start_engine()?,
            Effect::HandDeviceOver => self.hand_device_over(),
            Effect::AnnounceAddresses => self.announce_addresses(),
            Effect::RunScript { hook, signal } => return Ok(self.run_script(hook, signal)),
            Effect::TerminateScript => self.scripts.terminate(Instant::now()),
            Effect::KillScript => self.scripts.kill(),
            Effect::LinkChanged { up } => self.link_changed(up),
            Effect::Reload => return Ok(self.reload()),
            Effect::FinishReload => self.finish_reload(),
            Effect::TakeNewSocket => return Ok(self.take_new_socket()),
            Effect::TakeBridgeMtu => return Ok(self.take_bridge_mtu()),
            Effect::StopEngine => return Ok(self.stop_engine()),
            Effect::KillEngine => self.kill_engine(),
            Effect::End(ending) => {
                if !ending.reason.is_empty() {
                    let level = if ending.code == 0 { Level::Info } else { Level::Error };
                    log::log!(level, "{}", ending.reason);
                }
                self.finish_reload();
                notify::stopping();
            }
            Effect::UndoRoutes => self.changes.roll_back_to(self.status.before_routes),
            Effect::DeviceLost(reason) => log::error!("{reason}: creating it again [device-gone]"),
            Effect::Renew => self.renew_device()?,
            Effect::UndoDevice => self.changes.roll_back_to(Savepoint::default()),
            // Undoing does not fail.
            Effect::OpenTunnel => drop(self.changes.block(&[])),
        }
        Ok(None)
    }

    /// Ends the parent; the first reason counts.
    fn end(&mut self, code: u8, reason: impl ToString) {
        self.machine.handle(Event::Failed(Fatal::new(code, reason)));
    }

    /// Waits for one or more events and handles them.
    fn turn(&mut self) {
        if let Err(error) = self.wait() {
            self.end(BUG, format!("poll: {error}"));
        }
        for signal in self.signals.take() {
            self.handle_signal(signal);
        }
        if self.uevents.as_ref().is_some_and(Uevents::take_resumed) {
            self.answer(&ToEngine::Resumed);
        }
        self.read_engine();
        self.serve_door();
        self.serve_streams();
        self.serve_control();
        self.serve_manager();
        self.watch_host();
        let now = Instant::now();
        self.scripts.handle_output();
        self.scripts.handle_timeout(now);
        if let Some((hook, result)) = self.scripts.poll_outcome() {
            let event = self.script_ended(hook, result);
            self.machine.handle(event);
        }
        if let Some(addresses) = self.resolver.handle(now) {
            self.resolved(addresses);
        }
        if !self.resolver.is_running() {
            self.machine.handle(Event::LookedUp);
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
        polled.extend(self.engine.as_ref().map(|engine| PollFd::new(&engine.channel, PollFlags::IN)));
        polled.extend(self.uevents.iter().map(|uevents| PollFd::new(uevents, PollFlags::IN)));
        let scripts: Vec<_> = self.scripts.descriptors().collect();
        polled.extend(scripts.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        polled.extend(self.watch.monitor.iter().map(|monitor| PollFd::new(monitor, PollFlags::IN)));
        polled.extend(self.resolver.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        polled
            .extend(self.control.sockets.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        polled.extend(self.streams.descriptors().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        let dues = [
            self.machine.poll_timeout(),
            self.door.poll_timeout(Instant::now()),
            self.scripts.poll_timeout(),
            self.resolver.poll_timeout(),
            self.streams.poll_timeout(),
            self.control.poll_timeout(),
            self.manager.poll_timeout(),
            Some(self.watch.poll_timeout()),
        ];
        let due = dues.into_iter().flatten().min();
        let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Terminate => self.asked_to_end("SIGTERM", "sigterm"),
            Signal::Interrupt => self.asked_to_end("SIGINT", "sigint"),
            Signal::Hangup => self.machine.handle(Event::Reload),
            Signal::User1 => {
                log::info!("SIGUSR1: reconnecting");
                self.answer(&ToEngine::Reconnect);
            }
            Signal::User2 => self.log_statistics(),
            // Polling for the script's outcome finds it.
            Signal::Child => {}
        }
    }

    fn asked_to_end(&mut self, name: &str, signal: &'static str) {
        let now = Instant::now();
        if self.status.asked_to_end.is_some_and(|at| now < at + ONE_REQUEST) {
            return;
        }
        self.status.asked_to_end = Some(now);
        if self.machine.is_ending() {
            log::info!("{name} again: ending at once, without scripts");
        }
        self.machine.handle(Event::Terminate { reason: format!("{name}: stopping"), signal });
    }
}

/// The resolver for every name in the configuration.
fn resolver(link: &Link) -> Resolver {
    let proxy = link.config.proxy.as_ref().map(|proxy| proxy.place.clone());
    Resolver::new(link.config.remotes.clone(), link.confinement.clone()).with_proxy(proxy)
}

fn listen() -> Option<Uevents> {
    let uevents = Uevents::listen();
    uevents.inspect_err(|error| log::debug!("cannot listen for the kernel's device events: {error}")).ok()
}

fn timespec(duration: Duration) -> Timespec {
    // A wait is capped at an hour, which costs one needless turn.
    let duration = duration.min(Duration::from_secs(3600));
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests;
