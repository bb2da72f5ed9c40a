//! What the parent tells and does for clients of the control socket.
#![allow(clippy::disallowed_methods, reason = "answers have deadlines, and status carries times of day")]

use std::time::{Duration, Instant};

use serde_json::json;

use crate::config::{Config, KeyMode, Lanes, Reporting};
use crate::control::api::{self, Counters, Method, State, Status, Trouble};
use crate::control::metrics;
use crate::control::scrape::Scrape;
use crate::control::server::{ClientId, Server};
use crate::control::talker::Talker;
use crate::core::condition::Condition;
use crate::core::path::Path;
use crate::core::settings::LinkState;
use crate::core::settings::MAX_TEXT;
use crate::core::settings::Traffic;
use crate::helper::zone;
use crate::host::directory::Directory;
use crate::parent::Parent;
use crate::parent::keylog::KeyLog;
use crate::parent::machine::{Event, Stage};
use crate::parent::problem::Problem;
use crate::parent::sockets::Sockets;
use crate::privsep::message::ToEngine;
use crate::report::text::printable;
use crate::route::plan::Step;
use crate::sys::clock::unix_time;

/// How long the engine may take to report; after that the answer is what the parent knows.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most changes of the host that are listed.
const CHANGES_SHOWN: usize = 1000;
/// Top senders listed: ten of each segment.
const TALKERS_SHOWN: usize = 20;

/// The clients, and what has been reported since the start.
#[derive(Default)]
pub(super) struct Control {
    pub(super) sockets: Sockets,
    /// Requests waiting for the engine.
    asked: Vec<(ClientId, Method)>,
    /// A client waits for the metrics.
    scraped: bool,
    /// SIGUSR2 asked as well.
    log_wanted: bool,
    /// When the engine's answer is due, if one is.
    deadline: Option<Instant>,
    /// Since when the engine has answered nothing, if it was asked in vain.
    silent: Option<u64>,
    state: Option<LinkState>,
    /// Why the link is down.
    pub(super) reason: Option<Condition>,
    /// The last script that failed while the link ran, unless a later one succeeded.
    pub(super) failed_script: Option<(String, u64)>,
    /// When the link last came up or went down, or tund started.
    pub(super) since: u64,
    started: u64,
    pub(super) loaded: u64,
    pub(super) reload_ok: bool,
    /// The changes made by a reload, or why it made none, until reported.
    pub(super) reloaded: Option<Result<Vec<String>, Vec<String>>>,
    /// The clients waiting for that.
    pub(super) reload_asked: Vec<ClientId>,
}

impl Control {
    /// Listens where the configuration says, else in the runtime directory, if any.
    pub(super) fn new(runtime: Option<&Directory>, places: &Reporting) -> Self {
        let now = unix_time();
        Self {
            sockets: Sockets::open(runtime, places),
            since: now,
            started: now,
            loaded: now,
            reload_ok: true,
            ..Self::default()
        }
    }

    /// When the engine's answer or a connection is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.sockets.scrape.as_ref().and_then(Scrape::poll_timeout)).min()
    }
}

impl Parent {
    /// Takes requests, and answers those whose time is up.
    pub(super) fn serve_control(&mut self) {
        let calls = self.control.sockets.server.as_mut().map(Server::take).unwrap_or_default();
        for (client, method) in calls {
            match method {
                Method::Status | Method::Stats => {
                    self.control.asked.push((client, method));
                    self.ask_engine();
                }
                Method::Reload => {
                    self.control.reload_asked.push(client);
                    self.machine.handle(Event::Reload);
                }
                Method::Rekey => self.order(client, &ToEngine::Rekey),
                Method::Reconnect => self.order(client, &ToEngine::Reconnect),
                Method::Down => {
                    self.reply(client, &api::reply(&json!({})));
                    self.asked_to_end("asked over the control socket", "sigterm");
                }
            }
        }
        let now = Instant::now();
        if self.control.sockets.scrape.as_mut().is_some_and(|scrape| scrape.take(now)) {
            self.control.scraped = true;
            self.ask_engine();
        }
        if self.control.deadline.is_some_and(|deadline| deadline <= now) {
            self.control.silent.get_or_insert_with(unix_time);
            self.control.state = None;
            self.answer_asked();
        }
    }

    /// Has the totals logged.
    pub(super) fn log_statistics(&mut self) {
        self.control.log_wanted = true;
        self.ask_engine();
    }

    pub(super) fn ask_engine(&mut self) {
        if self.control.deadline.is_some() {
            return;
        }
        if self.engine.is_some() {
            self.control.deadline = Some(Instant::now() + PATIENCE);
            self.answer(&ToEngine::Report);
        } else {
            self.answer_asked();
        }
    }

    /// Takes the engine's state; nobody waits for one that was not requested.
    pub(super) fn take_state(&mut self, mut state: LinkState) {
        self.control.silent = None;
        if self.control.deadline.is_none() {
            return;
        }
        state.peer = state.peer.map(|name| printable(&name, MAX_TEXT));
        self.status.traffic =
            Traffic { bytes_sent: state.stats.bytes_out, bytes_received: state.stats.bytes_in };
        if std::mem::take(&mut self.control.log_wanted) {
            log::info!("{}", state.stats);
        }
        self.tell_alive(&state);
        self.control.state = Some(state);
        self.answer_asked();
    }

    fn answer_asked(&mut self) {
        self.control.deadline = None;
        let scraped = std::mem::take(&mut self.control.scraped);
        if self.control.asked.is_empty() && !scraped {
            return;
        }
        self.look_again();
        let status = self.describe();
        if let (true, Some(scrape)) = (scraped, &mut self.control.sockets.scrape) {
            scrape.answer(&metrics::openmetrics(std::slice::from_ref(&status)));
        }
        for (client, method) in std::mem::take(&mut self.control.asked) {
            let answer = match method {
                Method::Stats => {
                    api::reply(&json!({ "text": metrics::openmetrics(std::slice::from_ref(&status)) }))
                }
                Method::Status | Method::Reload | Method::Rekey | Method::Reconnect | Method::Down => {
                    api::status_reply(&status)
                }
            };
            self.reply(client, &answer);
        }
    }

    fn order(&mut self, client: ClientId, message: &ToEngine) {
        let answer = if self.engine.is_some() {
            self.answer(message);
            api::reply(&json!({}))
        } else {
            api::refusal("the link is still starting; try again")
        };
        self.reply(client, &answer);
    }

    pub(super) fn reply(&mut self, client: ClientId, answer: &[u8]) {
        if let Some(server) = &mut self.control.sockets.server {
            server.answer(client, answer);
        }
    }

    fn describe(&self) -> Status {
        let config = &self.link.config;
        let state = self.control.state.as_ref();
        let keys_age = state.and_then(|state| state.keys_age);
        let problems = self.problems(state);
        let troubles = problems.iter().map(|(problem, since)| Trouble {
            code: problem.code().to_owned(),
            text: problem.to_string(),
            since: *since,
        });
        let troubles: Vec<_> = troubles.collect();
        let several = config.tuning.data_path.lanes != Lanes::Count(1);
        let lanes = state.map(|state| state.lanes).filter(|_| several);
        let sight = self.watch.sight.as_ref();
        let configured = || config.device.addresses.clone();
        let addresses = sight.map_or_else(configured, |sight| sight.addresses.clone());
        let stream = self.status.stream;
        let endpoint = self.status.endpoint.map(|to| zone::named_path(Path { stream, ..to.into() }));
        Status {
            name: printable(&config.name, MAX_TEXT),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            file: self.link.file.display().to_string(),
            state: self.life(),
            since: self.since(),
            started: self.control.started,
            problem: troubles.first().map(|trouble| trouble.text.clone()),
            problem_code: troubles.first().map(|trouble| trouble.code.clone()),
            problems: troubles,
            mode: config.device.mode.to_string(),
            device: self.changes.device().map(|device| device.name.clone()),
            device_up: sight.map(|sight| sight.up),
            bridge: sight.and_then(|sight| sight.master.clone()),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            mtu: sight.map_or(config.device.mtu, |sight| sight.mtu),
            endpoint,
            way: self.way(),
            peer: state.and_then(|state| state.peer.clone()),
            keys: config.key.mode.to_string(),
            exchange: (config.key.mode == KeyMode::Handshake).then(|| config.key.exchange.to_string()),
            keys_since: keys_age.map(|age| unix_time().saturating_sub(age.as_secs())),
            cipher: state.and_then(LinkState::cipher),
            library: state.and_then(|state| state.sealed).map(|(_, library)| library.to_string()),
            rtt: state.and_then(|state| state.rtt).map(|rtt| rtt.as_secs_f64()),
            budget: state.and_then(|state| state.budget),
            lanes: lanes.map(|[used, _]| used),
            lane_ways: lanes.map(|[_, ways]| ways),
            protections: self.status.protections.clone(),
            changes: self.shown_changes(),
            missing: self.watch.absent.iter().take(CHANGES_SHOWN).cloned().collect(),
            key_log: self.link.key_log.as_ref().map(KeyLog::name),
            loaded: self.control.loaded,
            reload_ok: self.control.reload_ok,
            talkers: state.map_or_else(Vec::new, |state| {
                state.talkers.iter().take(TALKERS_SHOWN).map(|talker| Talker::from(*talker)).collect()
            }),
            counters: state.map(|state| Counters::from(&state.stats)),
        }
    }

    /// When the state began.
    fn since(&self) -> u64 {
        let host = self.watch.obstacle().map(|(_, since)| since);
        let blocked = host.or(self.silence().map(|(_, since)| since));
        blocked.filter(|_| self.machine.is_up()).unwrap_or(self.control.since)
    }

    /// What carries the link and why, if there is a choice.
    fn way(&self) -> Option<String> {
        let Config { remotes, listen, proxy, .. } = &self.link.config;
        self.status.endpoint?;
        let has_datagrams = remotes.iter().any(|remote| !remote.stream);
        let has_streams = listen.stream.is_some() || remotes.iter().any(|remote| remote.stream);
        let called = remotes.iter().any(|remote| remote.stream);
        let through = proxy.as_ref().filter(|_| called).map(|proxy| format!(" through {proxy}"));
        let why = match (self.status.stream, called, has_datagrams) {
            (false, ..) => return has_streams.then(|| "UDP, which works and is preferred to TCP".to_owned()),
            (true, false, _) => "over which the peer connected",
            (true, true, true) => "since UDP does not get through",
            (true, true, false) => "as remote names nothing else",
        };
        Some(format!("TCP{}, {why}", through.unwrap_or_default()))
    }

    /// The changes in force, as ip(8) commands; of very many the first.
    fn shown_changes(&self) -> Vec<String> {
        let (steps, more) = self.changes.first_in_force(CHANGES_SHOWN);
        let more = (more > 0).then(|| format!("# and {more} more like these"));
        steps.iter().map(Step::to_string).chain(more).collect()
    }

    /// What is wrong or being waited for, most important first, each with its start time.
    pub(super) fn problems(&self, state: Option<&LinkState>) -> Vec<(Problem, u64)> {
        let host = |stops: bool| {
            let found =
                self.watch.differences().filter(move |(difference, _)| difference.stops_frames() == stops);
            found.map(|(difference, since)| (Problem::Host(difference.clone()), since))
        };
        let script = self.control.failed_script.clone();
        let script = script.map(|(text, since)| (Problem::ScriptFailed(text), since));
        let link =
            self.link_problem(state).or_else(|| script.is_none().then(|| self.waiting_for()).flatten());
        let age = state.and_then(|state| state.problem_age);
        // What was also reported before the link last came up or went down has begun again.
        let begun = age.map_or(0, |age| unix_time().saturating_sub(age.as_secs())).max(self.control.since);
        let link = link.map(|problem| (problem, begun));
        let proxy = self.streams.trouble().filter(|_| !self.machine.is_up());
        let proxy = proxy.map(|trouble| (Problem::Proxy(trouble.clone()), self.control.since));
        let silence = self.silence().map(|(pid, since)| (Problem::EngineSilent(pid), since));
        silence
            .into_iter()
            .chain(host(true))
            .chain(proxy)
            .chain(link)
            .chain(script)
            .chain(host(false))
            .collect()
    }

    /// The process id of an engine that does not answer, and since when.
    fn silence(&self) -> Option<(u32, u64)> {
        self.engine.as_ref().map(|engine| engine.child.id()).zip(self.control.silent)
    }

    /// Why the peer does not answer, as far as known.
    fn link_problem(&self, state: Option<&LinkState>) -> Option<Problem> {
        let known = state.and_then(|state| state.problem.clone()).map(Problem::Link);
        if self.machine.is_up() {
            return known;
        }
        let no_address = || self.resolver.trouble().filter(|_| self.status.endpoint.is_none());
        let known = known.or_else(|| no_address().map(Problem::NoAddress));
        known.or_else(|| self.control.reason.clone().map(Problem::Link))
    }

    fn waiting_for(&self) -> Option<Problem> {
        match (self.life(), self.status.endpoint) {
            (State::Waiting, Some(endpoint)) => Some(Problem::Calling(endpoint)),
            (State::Waiting, None) if self.link.config.remotes.is_empty() => {
                Some(Problem::Link(Condition::NoRemote))
            }
            (State::Waiting, None) => Some(Problem::Resolving),
            (State::Starting | State::Up | State::Blocked | State::Stopping, _) => None,
        }
    }

    fn life(&self) -> State {
        if self.machine.is_ending() {
            State::Stopping
        } else if self.machine.is_up() {
            if self.watch.obstacle().is_some() || self.silence().is_some() {
                State::Blocked
            } else {
                State::Up
            }
        } else if self.engine.is_none()
            || (self.changes.device().is_some() && self.machine.stage() < Stage::Routed)
        {
            State::Starting
        } else {
            State::Waiting
        }
    }
}
