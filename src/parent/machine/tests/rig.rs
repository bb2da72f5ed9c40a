//! The machine beside a simulated host.

use super::*;

/// A machine, a simulated host that carries out its effects, and a record of them.
pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) now: Instant,
    pub(super) done: Vec<String>,
    /// Scripts last until they are ended; otherwise each succeeds at once.
    pub(super) slow: bool,
    /// The effect that fails.
    pub(super) broken: Option<Effect>,
    /// Whether a reload replaces the engine.
    pub(super) replaces: bool,
    /// Whether the engine ignores a request to end.
    pub(super) deaf: bool,
    pub(super) engines: usize,
}

impl Rig {
    #[allow(clippy::disallowed_methods, reason = "the beginning of the test's own time")]
    pub(super) fn new(activated: bool) -> Self {
        let machine = Machine::new(activated);
        let now = Instant::now();
        let (done, broken) = (Vec::new(), None);
        Self { machine, now, done, slow: false, broken, replaces: false, deaf: false, engines: 0 }
    }

    /// A running link, with the record of its start cleared.
    pub(super) fn running() -> Self {
        let mut rig = Self::new(false);
        rig.work();
        rig.done.clear();
        rig
    }

    pub(super) fn work(&mut self) {
        while let Some(effect) = self.machine.poll(self.now) {
            if let Some(event) = self.carry_out(effect) {
                self.machine.handle(event);
            }
        }
    }

    pub(super) fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        self.done.push(match &effect {
            Effect::RunScript { hook, signal: None } => hook.name().to_owned(),
            Effect::RunScript { hook, signal: Some(signal) } => format!("{}({signal})", hook.name()),
            Effect::LinkChanged { up } => if *up { "+" } else { "-" }.to_owned(),
            Effect::End(ending) => format!("End({})", ending.code),
            other => format!("{other:?}"),
        });
        if self.broken.as_ref() == Some(&effect) {
            return Some(Event::Failed(Fatal::new(UNAVAILABLE, "broken")));
        }
        match effect {
            Effect::StartEngine => self.engines += 1,
            Effect::KillEngine => self.engines = 0,
            Effect::StopEngine if self.engines == 0 || !self.deaf => {
                self.engines = 0;
                return Some(Event::EngineGone(String::new()));
            }
            Effect::RunScript { .. } if !self.slow => return Some(Event::ScriptEnded(Ok(()))),
            Effect::LookUp if !self.slow => return Some(Event::LookedUp),
            Effect::Reload | Effect::TakeNewSocket | Effect::TakeBridgeMtu if self.replaces => {
                return Some(Event::Replace);
            }
            _ => {}
        }
        None
    }

    /// The effects since the last call and of these events.
    pub(super) fn after(&mut self, events: impl IntoIterator<Item = Event>) -> String {
        for event in events {
            if matches!(event, Event::EngineGone(_)) {
                self.engines = 0;
            }
            self.machine.handle(event);
            self.work();
            assert!(self.engines <= 1, "two engines at once");
        }
        std::mem::take(&mut self.done).join(" ")
    }

    pub(super) fn wait(&mut self, seconds: u64) -> String {
        self.now += Duration::from_secs(seconds);
        self.work();
        self.after([])
    }
}
