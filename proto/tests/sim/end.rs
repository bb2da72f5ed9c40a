//! One end: the adapter between the simulation and the core. It does what the daemon does for a link and its lane;
//! nothing else in the simulation calls either.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use log::Level;

use crate::core::clock::{ClockJumpDetector, Now};
use crate::core::control::Control;
use crate::core::lane::{Command, Key, Lane, Notice, ReceiveCommand, SendCommand, Sink};
use crate::core::link::{Event, Link};
use crate::core::path::Path;
use crate::core::settings::LinkSettings;
use crate::crypto::noise::Statics;
use crate::testing::{Dice, link};
use crate::wire::datagram::Framing;

/// Length of the daemon's queues.
const NOTICES: usize = 256;
const TICK: Duration = Duration::from_secs(1);
/// More calls than this at one instant are a busy loop.
const SPIN: u32 = 100;

/// Configuration of an end.
#[derive(Clone)]
pub struct Config {
    pub settings: LinkSettings,
    pub statics: Statics,
    pub secret: [u8; 32],
    /// Longest wait of a command or notice for the thread that takes it.
    pub pace: Duration,
    /// MTU of the host's route to the peer.
    pub route_mtu: u32,
}

impl Config {
    pub fn framing(&self) -> Framing {
        self.settings.key_mode.into()
    }
}

/// Output of an end, in order.
pub enum Output {
    Datagram {
        bytes: Vec<u8>,
        to: Path,
    },
    Frame(Vec<u8>),
    /// The lane has this key for sending.
    Prepared(Key),
    /// The lane opens datagrams sealed with this key.
    Receives(Key),
    /// The link handles this verified control message.
    Control(Vec<u8>),
    /// The link examines this datagram, whose key id is not live.
    Unknown(Vec<u8>),
    /// Datagrams now go here.
    Endpoint(Path),
    Resolve,
    Up,
    Down,
    /// No earlier key may be used.
    Resumed,
    Log {
        code: &'static str,
        level: Level,
        text: String,
    },
    /// It asked to be called repeatedly at one instant.
    Spinning,
}

#[derive(Default)]
struct Port {
    outputs: VecDeque<Output>,
    notices: VecDeque<Notice>,
}

impl Sink for Port {
    fn frame(&mut self, frame: &[u8]) {
        self.outputs.push_back(Output::Frame(frame.to_vec()));
    }
    fn datagram(&mut self, datagram: &[u8], to: Path) {
        self.outputs.push_back(Output::Datagram { bytes: datagram.to_vec(), to });
    }
    fn notice(&mut self, notice: Notice) -> bool {
        let alike = |other: &&Notice| other.is_unproven() == notice.is_unproven();
        let room = self.notices.iter().filter(alike).count() < NOTICES;
        self.notices.extend(room.then_some(notice));
        room
    }
}

/// Waiting items, in order.
struct Queue<T>(VecDeque<(Instant, T)>);

impl<T> Queue<T> {
    fn push(&mut self, at: Instant, item: T) {
        let at = self.0.back().map_or(at, |(last, _)| at.max(*last));
        self.0.push_back((at, item));
    }

    fn due(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    fn pop(&mut self, now: Instant) -> Option<T> {
        self.due().filter(|at| *at <= now)?;
        self.0.pop_front().map(|(_, item)| item)
    }
}

pub struct End {
    pub config: Config,
    /// Longest frame of its device.
    pub max_frame: usize,
    link: Link<Dice>,
    lane: Lane,
    port: Port,
    watch: ClockJumpDetector,
    dice: Dice,
    commands: Queue<Command>,
    /// Proven ones, then others.
    notices: [Queue<Notice>; 2],
    /// The link's news, waiting until the lane has carried out earlier commands.
    ups: Queue<()>,
    /// The next report shows the key as used up.
    pub exhausted: bool,
    tick_at: Instant,
    spun: (Instant, u32),
}

impl End {
    pub fn new(config: Config, now: Now, mut dice: Dice) -> Self {
        let (settings, statics, random) = (config.settings.clone(), config.statics.clone(), dice.fork());
        let (link, lane) = link(settings, &config.secret, statics, now, random);
        Self {
            max_frame: lane.max_frame,
            config,
            link,
            lane: Lane::new(lane),
            port: Port::default(),
            watch: ClockJumpDetector::default(),
            dice,
            commands: Queue(VecDeque::new()),
            notices: [Queue(VecDeque::new()), Queue(VecDeque::new())],
            ups: Queue(VecDeque::new()),
            exhausted: false,
            tick_at: now.instant + TICK,
            spun: (now.instant, 0),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.port.outputs.pop_front()
    }

    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Number of authentic datagrams received.
    pub fn heard(&self) -> u64 {
        self.lane.stats().datagrams_in
    }

    pub fn counters(&self) -> String {
        self.lane.stats().plus(&self.link.stats()).to_string()
    }

    pub fn receive(&mut self, now: Now, from: Path, mut datagram: Vec<u8>) {
        self.look_at_clocks(now);
        self.lane.handle_datagram(now.instant, from, &mut datagram, &mut self.port);
        self.settle(now);
    }

    /// The device yields these frames.
    pub fn send(&mut self, now: Now, frames: &[Vec<u8>]) {
        self.look_at_clocks(now);
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        self.lane.handle_frames(&frames, &mut self.port);
        self.settle(now);
    }

    /// The host reports this about what was sent.
    pub fn notice(&mut self, now: Now, notice: Notice) {
        self.port.notice(notice);
        self.settle(now);
    }

    pub fn resolved(&mut self, now: Now, addresses: Vec<std::net::SocketAddr>) {
        self.link.handle_resolved(now, &addresses.into_iter().map(Into::into).collect::<Vec<_>>());
        self.settle(now);
    }

    /// The kernel reports that this machine was cloned.
    pub fn cloned(&mut self, now: Now) {
        self.port.outputs.push_back(Output::Resumed);
        self.link.handle_resumed(now);
        self.settle(now);
    }

    pub fn stop(&mut self, now: Now) {
        self.link.handle_stop(false);
        while let Some(command) = self.link.poll_command() {
            self.hand_to_lane(now, command);
        }
    }

    pub fn poll_timeout(&self) -> Instant {
        let queues = [self.commands.due(), self.notices[0].due(), self.notices[1].due()];
        let timers = [Some(self.tick_at), self.link.poll_timeout(), self.ups.due()];
        queues.into_iter().chain(timers).flatten().min().unwrap_or(self.tick_at)
    }

    pub fn handle_timeout(&mut self, now: Now) {
        self.look_at_clocks(now);
        if self.tick_at <= now.instant {
            self.tick_at = now.instant + TICK;
            let mut report = self.lane.report(now.instant);
            if std::mem::take(&mut self.exhausted) {
                report.key_used_up = true;
            }
            self.link.handle_report(now, &report);
        }
        self.settle(now);
    }

    fn look_at_clocks(&mut self, now: Now) {
        if self.watch.has_jumped(now) {
            self.lane.wipe_all(&mut self.port);
            self.port.outputs.push_back(Output::Resumed);
            self.port.notices.push_back(Notice::Resumed);
        }
    }

    /// Exchanges everything between link, lane and disk that need not wait.
    fn settle(&mut self, now: Now) {
        loop {
            while let Some(notice) = self.port.notices.pop_front() {
                let at = self.later(now);
                self.notices[usize::from(notice.is_unproven())].push(at, notice);
            }
            while let Some(command) = self.link.poll_command() {
                let at = self.later(now);
                self.commands.push(at, command);
            }
            while let Some(event) = self.link.poll_event() {
                self.handle_event(now, event);
            }
            if let Some(command) = self.commands.pop(now.instant) {
                self.hand_to_lane(now, command);
            } else if self.ups.pop(now.instant).is_some() {
                self.port.outputs.push_back(Output::Up);
            } else if let Some(notice) = self.notices.iter_mut().find_map(|queue| queue.pop(now.instant)) {
                match &notice {
                    Notice::Control { body, .. } => {
                        self.port.outputs.push_back(Output::Control(body.clone()));
                    }
                    Notice::Unknown { received, .. } => {
                        self.port.outputs.push_back(Output::Unknown(received.datagram.clone()));
                    }
                    _ => {}
                }
                self.link.handle_notice(now, notice);
            } else if self.link.poll_timeout().is_some_and(|at| at <= now.instant) && !self.spins(now.instant)
            {
                self.link.handle_timeout(now);
            } else {
                break;
            }
        }
    }

    fn spins(&mut self, now: Instant) -> bool {
        self.spun = if self.spun.0 == now { (now, self.spun.1 + 1) } else { (now, 0) };
        if self.spun.1 == SPIN {
            self.port.outputs.push_back(Output::Spinning);
        }
        self.spun.1 >= SPIN
    }

    fn hand_to_lane(&mut self, now: Now, command: Command) {
        let output = if let Command::Send(SendCommand::Prepare(_, key)) = &command {
            Some(Output::Prepared(key.clone()))
        } else if let Command::Receive(ReceiveCommand::Accept { key, .. }) = &command {
            Some(Output::Receives(key.clone()))
        } else if let Command::Send(SendCommand::Endpoint(endpoint)) = &command {
            Some(Output::Endpoint(*endpoint))
        } else {
            None
        };
        self.port.outputs.extend(output);
        self.lane.handle_command(now.instant, command, &mut self.port);
    }

    fn handle_event(&mut self, now: Now, event: Event) {
        let output = match event {
            Event::Resolve => Output::Resolve,
            Event::Endpoint(path) => {
                let mtu = Some(self.config.route_mtu);
                return self.link.handle_route(now, path.remote, mtu);
            }
            Event::Up { .. } => {
                let at = self.commands.0.back().map_or(now.instant, |(at, _)| *at);
                return self.ups.push(at, ());
            }
            Event::Down { .. } => Output::Down,
            Event::Lanes(_) | Event::LaneSocket { .. } => unreachable!("there is one lane"),
            Event::Routes(_) | Event::Keep(_) | Event::Rerouted { .. } => return,
            Event::Log { level, condition } => {
                Output::Log { level, code: condition.code(), text: condition.to_string() }
            }
        };
        self.port.outputs.push_back(output);
    }

    fn later(&mut self, now: Now) -> Instant {
        now.instant + self.dice.between(Duration::ZERO, self.config.pace)
    }
}
