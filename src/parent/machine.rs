//! The parent's state machine: events in, effects out. It has no descriptor, process or clock. The loop of [`Parent`](super::Parent) turns what it
//! polls into events and carries out the effects.

mod events;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::parent::environment::Hook;
use crate::privsep::message::End;
use crate::report::exit::{self, FAILED, Fatal};

pub(super) use events::{Effect, Ending, Event, Stage};

/// How long the engine may take to say goodbye to the peer.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the remotes' names may take to resolve before everything is blocked.
const LOOK_UP: Duration = Duration::from_secs(12);
/// Minimum interval between openings of a lost device: five times a minute.
const RENEWAL: Duration = Duration::from_secs(12);
/// Most link-up and link-down scripts that wait; older ones are dropped.
const MAX_HOOKS: usize = 4;

/// A step of the agenda: an effect, or something that takes time.
#[derive(Debug, PartialEq, Eq)]
enum Duty {
    Do(Effect),
    /// Run this script, once the running one has ended.
    Script(Hook),
    ScriptEnd,
    StopEngine,
    /// The engine has been asked to end.
    EngineEnd {
        until: Instant,
    },
    LookUp,
    LookUpEnd {
        until: Instant,
    },
    /// Open a new device, but not too soon after the last.
    Renew,
    /// The link is down without its engine.
    LinkDown,
    /// Announce the addresses if the link is up.
    Announce,
}

/// The state machine. After each event, and at [`Machine::poll_timeout`], [`Machine::poll`] yields the effects.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// A superserver starts another parent when this one ends.
    activated: bool,
    stage: Stage,
    /// Whether the peer answers.
    up: bool,
    /// Whether the last such script run was `link-up`.
    announced: bool,
    /// The running script.
    script: Option<Hook>,
    /// Pending link-up and link-down scripts. Nothing else waits for them.
    hooks: VecDeque<Hook>,
    /// The duties, in order.
    agenda: VecDeque<Duty>,
    /// Effects that precede the agenda.
    urgent: VecDeque<Effect>,
    /// The engine's first message about its end.
    last_words: Option<(End, String)>,
    ending: Option<Ending>,
    /// When a lost device may be opened again.
    renewal: Option<Instant>,
}

impl Machine {
    /// A link about to start. The device comes first; with a superserver, when the engine asks for it.
    pub(super) fn new(activated: bool) -> Self {
        let mut machine = Self { activated, ..Self::default() };
        if !activated {
            machine.agenda.extend(preparation());
        }
        machine.agenda.push_back(Duty::Do(Effect::StartEngine));
        machine
    }

    /// How far the host has been prepared.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the peer answers.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Whether the parent is ending.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// The exit code, once everything is done.
    pub(super) fn exit_code(&self) -> Option<u8> {
        let done = self.agenda.is_empty() && self.urgent.is_empty();
        self.ending.as_ref().filter(|_| done).map(|ending| ending.code)
    }

    /// When [`Machine::poll`] has work without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.agenda.front()? {
            Duty::EngineEnd { until } | Duty::LookUpEnd { until } => Some(*until),
            Duty::Do(_) | Duty::Script(_) | Duty::ScriptEnd | Duty::StopEngine | Duty::LookUp => None,
            Duty::LinkDown | Duty::Announce => None,
            Duty::Renew => self.renewal,
        }
    }

    /// Records an event.
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Terminate { .. } if self.is_ending() => self.abandon(),
            Event::Terminate { reason, signal } => self.end(Ending { code: 0, reason, signal }),
            Event::Reload => self.want([Effect::Reload, Effect::FinishReload]),
            Event::NewSocket => self.want([Effect::TakeNewSocket]),
            Event::BridgeMtu => self.want([Effect::TakeBridgeMtu]),
            Event::Replace => {
                let duties = [Duty::StopEngine, Duty::LinkDown, Duty::Do(Effect::StartEngine)];
                duties.into_iter().rev().for_each(|duty| self.agenda.push_front(duty));
            }
            Event::OpenDevice => self.open_device(),
            Event::LinkUp => self.link_changed(true),
            Event::LinkDown => self.link_changed(false),
            Event::LastWords(end, reason) => {
                self.last_words = self.last_words.take().or(Some((end, reason)));
            }
            Event::EngineGone(status) => self.engine_gone(status),
            Event::ScriptEnded(result) => self.script_ended(result),
            Event::LookedUp => {
                if let Some(Duty::LookUpEnd { .. }) = self.agenda.front() {
                    self.agenda.pop_front();
                }
            }
            Event::Failed(Fatal { code, message }) => {
                self.end(Ending { code, reason: message, signal: "error" });
            }
        }
    }

    /// The next effect; to be called until there is none.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Effect> {
        loop {
            if let Some(effect) = self.urgent.pop_front() {
                return Some(effect);
            }
            let Some(duty) = self.agenda.pop_front() else { return self.next_hook() };
            let then = match duty {
                Duty::Script(_) | Duty::ScriptEnd if self.script.is_some() => (None, Some(duty)),
                Duty::EngineEnd { until } | Duty::LookUpEnd { until } if now < until => (None, Some(duty)),
                Duty::ScriptEnd | Duty::LookUpEnd { .. } => continue,
                Duty::Script(hook) => (Some(self.run(hook)), Some(Duty::ScriptEnd)),
                Duty::StopEngine => {
                    (Some(Effect::StopEngine), Some(Duty::EngineEnd { until: now + FAREWELL }))
                }
                Duty::EngineEnd { .. } => (Some(Effect::KillEngine), None),
                Duty::LookUp => (Some(Effect::LookUp), Some(Duty::LookUpEnd { until: now + LOOK_UP })),
                Duty::LinkDown => {
                    self.last_words = None;
                    self.link_changed(false);
                    continue;
                }
                Duty::Renew if self.renewal.is_some_and(|at| now < at) => (None, Some(duty)),
                Duty::Renew => {
                    self.renewal = Some(now + RENEWAL);
                    (Some(Effect::Renew), None)
                }
                Duty::Announce if !self.up => continue,
                Duty::Announce => (Some(Effect::AnnounceAddresses), None),
                Duty::Do(effect) => {
                    if effect == Effect::OpenDevice {
                        self.stage = Stage::Opened;
                    } else if effect == Effect::SetRoutes {
                        self.stage = Stage::Routed;
                    }
                    (Some(effect), None)
                }
            };
            let (effect, rest) = then;
            rest.into_iter().for_each(|duty| self.agenda.push_front(duty));
            return effect;
        }
    }

    /// Opens the device, once.
    fn open_device(&mut self) {
        if self.stage == Stage::Begun && !self.is_ending() && !self.awaits(&Effect::OpenDevice) {
            self.agenda.extend(preparation());
            self.agenda.extend([Duty::Do(Effect::HandDeviceOver), Duty::Announce]);
        }
    }

    fn awaits(&self, effect: &Effect) -> bool {
        self.agenda.iter().any(|duty| matches!(duty, Duty::Do(own) if own == effect))
    }

    /// Appends effects to the agenda, unless they are on it already.
    fn want<const N: usize>(&mut self, effects: [Effect; N]) {
        if !self.is_ending() && !effects.first().is_some_and(|first| self.awaits(first)) {
            self.agenda.extend(effects.map(Duty::Do));
        }
    }

    fn link_changed(&mut self, up: bool) {
        if self.up == up {
            return;
        }
        self.up = up;
        self.urgent.push_back(Effect::LinkChanged { up });
        if self.hooks.len() >= MAX_HOOKS {
            self.hooks.drain(..2);
        }
        self.hooks.push_back(if up { Hook::LinkUp } else { Hook::LinkDown });
    }

    /// The next link-up or link-down script, once the previous one has ended and nothing else is being done.
    fn next_hook(&mut self) -> Option<Effect> {
        if self.script.is_some() || self.is_ending() {
            return None;
        }
        let hook = self.hooks.pop_front()?;
        self.announced = hook == Hook::LinkUp;
        Some(self.run(hook))
    }

    fn run(&mut self, hook: Hook) -> Effect {
        self.script = Some(hook);
        // What is undone now is not undone again at the end.
        match hook {
            Hook::LinkDown => self.announced = false,
            Hook::RouteDown => self.stage = Stage::Up,
            Hook::Down => self.stage = Stage::Opened,
            Hook::Up | Hook::RouteUp | Hook::LinkUp => {}
        }
        let ending = self.ending.as_ref().map(|ending| ending.signal);
        Effect::RunScript { hook, signal: ending.or((hook == Hook::LinkDown).then_some("ping-restart")) }
    }

    /// Without `up` there is no link; any other script may fail.
    fn script_ended(&mut self, result: Result<(), String>) {
        if self.script.take() == Some(Hook::Up) && !self.is_ending() {
            match result {
                Ok(()) => self.stage = Stage::Up,
                Err(text) => self.handle(Event::Failed(Fatal::new(FAILED, text))),
            }
        }
    }

    fn engine_gone(&mut self, status: String) {
        if let Some(Duty::EngineEnd { .. }) = self.agenda.front() {
            self.agenda.pop_front();
            return;
        }
        let failed = |code, reason| Ending { code, reason, signal: "error" };
        let ending = match self.last_words.take() {
            // The link was idle; a superserver starts another parent.
            Some((End::Done, reason)) if self.activated => Ending { code: 0, reason, signal: "inactive" },
            // Unrequested: a compromised engine would want an orderly end, which opens a closed full tunnel.
            Some((End::Done, reason)) => {
                failed(FAILED, format!("the engine ended without being asked to ({reason})"))
            }
            // A superserver's port cannot be bound again.
            Some((End::DeviceLost, reason)) if !self.activated => return self.renew(reason),
            Some((end, reason)) => failed(exit::code(end), reason),
            None => failed(exit::BUG, status),
        };
        self.end(ending);
    }

    /// Undoes all changes, then starts over; other pending work comes afterwards.
    fn renew(&mut self, reason: String) {
        self.urgent.push_back(Effect::DeviceLost(reason));
        if std::mem::take(&mut self.up) {
            self.urgent.push_back(Effect::LinkChanged { up: false });
        }
        self.hooks.clear();
        let mut duties = vec![Duty::ScriptEnd];
        duties.extend(self.taking_back());
        duties.push(Duty::Renew);
        duties.extend(preparation());
        duties.push(Duty::Do(Effect::StartEngine));
        duties.into_iter().rev().for_each(|duty| self.agenda.push_front(duty));
    }

    /// The scripts and effects that undo what was done, in reverse order.
    fn taking_back(&self) -> Vec<Duty> {
        let scripts = [
            (Hook::LinkDown, self.announced),
            (Hook::RouteDown, self.stage >= Stage::Routed),
            (Hook::Down, self.stage >= Stage::Up),
        ];
        let [link, route, down] = scripts.map(|(hook, due)| due.then_some(Duty::Script(hook)));
        let undo = [Effect::UndoRoutes, Effect::UndoDevice].map(|effect| Some(Duty::Do(effect)));
        let [routes, device] = undo;
        [link, route, routes, down, device].into_iter().flatten().collect()
    }

    /// Ends what runs and undoes all changes in reverse order. The first reason counts.
    fn end(&mut self, ending: Ending) {
        if self.is_ending() {
            return;
        }
        self.urgent.push_back(Effect::End(ending.clone()));
        if self.script.is_some() {
            self.urgent.push_back(Effect::TerminateScript);
        }
        self.agenda.clear();
        self.agenda.extend([Duty::ScriptEnd, Duty::StopEngine]);
        self.agenda.extend(self.taking_back());
        // Only an orderly end opens what was closed.
        self.agenda.extend((ending.code == 0).then_some(Duty::Do(Effect::OpenTunnel)));
        self.ending = Some(ending);
    }

    /// Ends at once, without scripts.
    fn abandon(&mut self) {
        self.agenda.retain(|duty| !matches!(duty, Duty::Script(_) | Duty::ScriptEnd));
        for duty in &mut self.agenda {
            if matches!(duty, Duty::StopEngine | Duty::EngineEnd { .. }) {
                *duty = Duty::Do(Effect::KillEngine);
            }
        }
        if self.script.take().is_some() {
            self.urgent.push_back(Effect::KillScript);
        }
    }
}

/// Device, its settings, `up`, routes, `route-up`, in this order. If one fails, the ones before stay until they are undone at the end.
fn preparation() -> [Duty; 5] {
    [
        Duty::Do(Effect::OpenDevice),
        Duty::Script(Hook::Up),
        Duty::LookUp,
        Duty::Do(Effect::SetRoutes),
        Duty::Script(Hook::RouteUp),
    ]
}

#[cfg(test)]
mod tests;
