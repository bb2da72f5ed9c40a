//! The parent: keeps the rights to change the host, and never reads the network. One poll loop in
//! which scripts, the resolver, signals and the engine's requests never wait for each other.
#![allow(clippy::disallowed_methods, reason = "the poll loop is where the parent reads the clock")]

mod announce;
mod control;
mod engine;
pub mod environment;
mod hooks;
mod host;
pub mod identity;
pub mod keylog;
mod notify;
mod problem;
mod pushed;
mod reload;
mod requests;
mod routes;
pub mod script;
mod service_manager;
pub mod signals;
pub mod start;
pub mod uevent;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::config::Config;
use crate::core::path::Path;
use crate::core::settings::Traffic;
use crate::helper::resolve::Resolver;
use crate::host::changes::{Changes, Savepoint};
use crate::host::directory::Directory;
use crate::parent::control::Control;
use crate::parent::engine::Engine;
use crate::parent::environment::Hook;
use crate::parent::keylog::KeyLog;
use crate::parent::pushed::Pushed;
use crate::parent::script::{Runner, ScriptError};
use crate::parent::service_manager::ServiceManager;
use crate::parent::signals::{Signal, Signals};
use crate::parent::start::Options;
use crate::parent::uevent::Uevents;
use crate::parent::watch::Watch;
use crate::privsep::channel::Channel;
use crate::privsep::door::Door;
use crate::privsep::message::{Confinement, End, Start, ToEngine, ToParent};
use crate::privsep::spawn::{Role, spawn};
use crate::report::exit::{BUG, FAILED};
use crate::route::plan::Step;
use crate::say;

/// Most messages of the engine that are handled before other work gets its turn.
const MAX_BATCH: usize = 64;

/// The link that this process runs, and where its files are.
pub struct Link {
    /// The checked configuration.
    pub config: Config,
    /// The configuration file.
    pub file: PathBuf,
    /// Where scripts run.
    pub directory: PathBuf,
    /// What engine and resolver give up.
    pub confinement: Confinement,
    /// Where its runtime files are, the control socket among them.
    pub runtime: Option<Directory>,
    /// The command line, with absolute paths, for reading the file again.
    pub options: Options,
    /// Names the link secret.
    pub fingerprint: [u8; 8],
    /// The MAC address of a tap device that is given none.
    pub hardware_address: [u8; 6],
    /// The socket came from inetd or systemd.
    pub activated: bool,
    /// Where the keys in use are written.
    pub key_log: Option<KeyLog>,
}

/// What only the engine gets.
pub struct Launch {
    /// Keys and settings.
    pub start: Box<Start>,
    /// The bound UDP socket.
    pub socket: OwnedFd,
    /// Whether the device waits until the engine asks for it.
    pub device_later: bool,
}

/// Why the parent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Exit code.
    pub code: u8,
    /// One line for the log; empty when it has been said.
    pub reason: String,
    /// What scripts find in `signal`.
    pub signal: &'static str,
}

/// How far the host has been prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// No script has succeeded.
    Begun,
    /// `up` has run.
    Up,
    /// Routes are set, in part at least.
    Routed,
}

/// What is known of the running link.
struct Status {
    stage: Stage,
    before_routes: Savepoint,
    device_steps: Vec<Step>,
    route_steps: Vec<Step>,
    net_gateway: Option<IpAddr>,
    endpoint: Option<SocketAddr>,
    /// The way that the peer has a socket of its own for.
    connected: Option<Path>,
    /// What the remotes' names stand for.
    resolved: Vec<SocketAddr>,
    trusted: Option<SocketAddr>,
    traffic: Traffic,
    pushed: Pushed,
    /// Whether the peer answers.
    up: bool,
    /// Whether the last script run for that was `link-up`.
    announced: bool,
    /// The engine asked for the device.
    device_wanted: bool,
    /// Scripts of the link's ups and downs that have not run yet.
    hooks: VecDeque<Hook>,
    /// Which protections of the engine are in force, once it has told.
    protections: Option<String>,
    /// What the engine said about its end.
    last_words: Option<(End, String)>,
    /// What was said last of an address that leads into the tunnel itself.
    said_loop: Option<String>,
    /// The engine's end is wanted: another one follows.
    replacing: bool,
}

/// The parent of one link.
pub struct Parent {
    link: Link,
    changes: Changes,
    resolver: Resolver,
    engine: Option<Engine>,
    /// The engine's socket.
    front: Option<OwnedFd>,
    status: Status,
    door: Door,
    control: Control,
    manager: ServiceManager,
    watch: Watch,
    signals: Signals,
    /// Without it a clone of this machine is noticed by its clock alone.
    uevents: Option<Uevents>,
    scripts: Runner,
    outcome: Option<(Hook, Result<(), ScriptError>)>,
    ending: Option<Ending>,
    /// A second signal came while ending.
    abandoned: bool,
}

impl Parent {
    /// Nothing on the host has been changed yet.
    pub fn new(link: Link, changes: Changes, signals: Signals) -> Self {
        let status = Status {
            stage: Stage::Begun,
            before_routes: Savepoint::default(),
            device_steps: Vec::new(),
            route_steps: Vec::new(),
            net_gateway: None,
            endpoint: None,
            connected: None,
            resolved: Vec::new(),
            trusted: None,
            traffic: Traffic::default(),
            pushed: Pushed::default(),
            up: false,
            announced: false,
            device_wanted: false,
            hooks: VecDeque::new(),
            protections: None,
            last_words: None,
            said_loop: None,
            replacing: false,
        };
        Self {
            watch: Watch::new(Instant::now()),
            control: Control::new(link.runtime.as_ref(), &link.config.status),
            manager: ServiceManager::new(),
            resolver: Resolver::new(link.config.remotes.clone(), link.confinement.clone()),
            link,
            changes,
            engine: None,
            front: None,
            status,
            door: Door::default(),
            signals,
            uevents: listen(),
            scripts: Runner::default(),
            outcome: None,
            ending: None,
            abandoned: false,
        }
    }

    /// Prepares the host, runs the engine until something ends it, takes everything back. Returns the exit
    /// code.
    pub fn run(self, launch: Launch) -> u8 {
        self.run_with(launch, || spawn(Role::Engine))
    }

    fn run_with(
        mut self,
        launch: Launch,
        engine: impl FnOnce() -> io::Result<(Child, Channel<ToEngine, ToParent>)>,
    ) -> u8 {
        if !launch.device_later {
            self.bring_up();
        }
        if self.ending.is_none() {
            match engine() {
                Ok((child, channel)) => self.start_engine(Engine { child, channel }, launch),
                Err(error) => self.end(FAILED, format!("cannot start the engine: {error}")),
            }
        }
        self.serve();
        self.finish()
    }

    /// Opens and configures the device as far as the scripts and the routes go; what fails ends the parent.
    fn bring_up(&mut self) {
        if let Err(fatal) = self.prepare_host() {
            self.end(fatal.code, fatal.message);
        }
    }

    /// The loop, until there is a reason to end.
    fn serve(&mut self) {
        while self.ending.is_none() {
            if std::mem::take(&mut self.status.device_wanted) {
                self.bring_up();
                self.hand_device_over();
                if self.status.up {
                    self.announce_addresses();
                }
            } else if std::mem::take(&mut self.control.reload_wanted) {
                self.reload();
            } else if std::mem::take(&mut self.watch.new_socket_wanted) {
                self.take_new_socket();
            } else {
                self.run_next_hook();
                self.turn(None);
            }
        }
    }

    /// Ends with this; what came first counts.
    fn end(&mut self, code: u8, reason: impl Into<String>) {
        self.end_with(Ending { code, reason: reason.into(), signal: "error" });
    }

    fn end_with(&mut self, ending: Ending) {
        if self.ending.is_none() {
            if !ending.reason.is_empty() {
                say!(u8::from(ending.code == 0), "{}", ending.reason);
            }
            self.ending = Some(ending);
        }
    }

    /// The exit code so far.
    fn exit_code(&self) -> u8 {
        self.ending.as_ref().map_or(0, |ending| ending.code)
    }

    /// Waits for one or more events, until `until` at most, and handles them.
    fn turn(&mut self, until: Option<Instant>) {
        if let Err(error) = self.wait(until) {
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
        self.serve_control();
        self.serve_manager();
        self.watch_host();
        let now = Instant::now();
        self.scripts.handle_output();
        self.scripts.handle_timeout(now);
        if let Some(outcome) = self.scripts.poll_outcome() {
            self.outcome = Some(outcome);
        }
        if let Some(addresses) = self.resolver.handle(now) {
            self.resolved(addresses);
        }
    }

    fn wait(&self, until: Option<Instant>) -> Result<(), Errno> {
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
        polled.extend(self.engine.as_ref().map(|engine| PollFd::new(&engine.channel, PollFlags::IN)));
        polled.extend(self.uevents.iter().map(|uevents| PollFd::new(uevents, PollFlags::IN)));
        let scripts: Vec<_> = self.scripts.descriptors().collect();
        polled.extend(scripts.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        polled.extend(self.watch.monitor.iter().map(|monitor| PollFd::new(monitor, PollFlags::IN)));
        polled.extend(self.resolver.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        polled.extend(self.control.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let dues = [
            until,
            self.door.poll_timeout(Instant::now()),
            self.scripts.poll_timeout(),
            self.resolver.poll_timeout(),
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
            Signal::Hangup => self.control.reload_wanted = true,
            Signal::User1 => {
                say!(1, "SIGUSR1: connecting again");
                self.answer(&ToEngine::Reconnect);
            }
            Signal::User2 => self.log_statistics(),
            // Its result is found by asking for it.
            Signal::Child => {}
        }
    }

    fn asked_to_end(&mut self, name: &str, signal: &'static str) {
        if self.ending.is_some() {
            say!(1, "{name} again: ending at once, without scripts");
            self.abandoned = true;
            return;
        }
        self.end_with(Ending { code: 0, reason: format!("{name}: stopping"), signal });
        self.scripts.terminate(Instant::now());
    }

    /// Whether there is a reason to end.
    fn is_ending(&self) -> bool {
        self.ending.is_some()
    }
}

fn listen() -> Option<Uevents> {
    let uevents = Uevents::listen();
    uevents.inspect_err(|error| say!(3, "cannot listen to the kernel's device events: {error}")).ok()
}

fn timespec(duration: Duration) -> Timespec {
    // A wait is cut to an hour, which costs one needless turn.
    let duration = duration.min(Duration::from_secs(3600));
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests;
