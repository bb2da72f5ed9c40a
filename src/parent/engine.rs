//! The engine's life cycle as seen by the parent: start, messages, end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child;

use crate::core::settings::LinkSettings;
use crate::parent::machine::Event;
use crate::parent::{Launch, Link, MAX_BATCH, Parent, start};
use crate::privsep::channel::Channel;
use crate::privsep::message::{Keys, ToEngine, ToParent};
use crate::privsep::spawn;
use crate::report::exit::{self, BUG, FAILED, Fatal};
use crate::sys::rights;

/// The process and its channel.
pub(super) struct Engine {
    pub child: Child,
    pub channel: Channel<ToEngine, ToParent>,
}

/// What the next engine starts with.
pub(super) enum Next {
    /// Everything.
    Launch(Launch),
    /// The keys; the socket is opened once the previous engine is gone.
    Keys(Box<Keys>),
}

/// Starts the process.
pub(super) type Spawn = Box<dyn FnMut() -> io::Result<(Child, Channel<ToEngine, ToParent>)>>;

impl Parent {
    /// Hands over keys and descriptors, and forgets the keys.
    pub(super) fn start_engine(&mut self) -> Result<(), Fatal> {
        let launch = match self.next.take() {
            Some(Next::Launch(launch)) => launch,
            Some(Next::Keys(keys)) => self.launch_again(keys)?,
            None => return Err(Fatal::new(BUG, "there are no keys for an engine")),
        };
        let mut launch = launch;
        self.begin_own_start(&mut launch.start)?;
        launch.start.link.lanes = self.lanes();
        if let Some(device) = self.changes.device() {
            // The previous engine may have attached them.
            let failed =
                |error| Fatal::new(FAILED, format!("cannot detach queues of {}: {error}", device.name));
            device.detach_others().map_err(failed)?;
        }
        let failed = |error: io::Error| format!("cannot start the engine: {error}{}", rights::limits(&error));
        let (child, channel) = (self.spawn)().map_err(|error| Fatal::new(FAILED, failed(error)))?;
        let mut descriptors = vec![launch.socket.as_fd()];
        let device = self.changes.device();
        let queues = device.iter().flat_map(|device| device.queues.iter().chain(&device.writers));
        descriptors.extend(queues.map(AsFd::as_fd));
        let sent = channel.send(&ToEngine::Start(launch.start), &descriptors);
        self.front = launch.socket.try_clone().ok();
        self.status.connected.clear();
        self.engine = Some(Engine { child, channel });
        self.check_sent(sent);
        self.tell_sources();
        if let Some(listener) = launch.listener {
            self.hand_over(&ToEngine::Listen, &[listener.as_fd()]);
        }
        Ok(())
    }

    /// Prepares another engine, with new keys and a new socket, for the same device.
    fn launch_again(&mut self, keys: Box<Keys>) -> Result<Launch, Fatal> {
        self.take_pushed(Vec::new());
        self.front = None;
        let bound = start::bind(&self.link.config)?;
        let listener = start::listener(&self.link.config, None)?;
        let settings = self.settings();
        let Link { config, confinement, key_log, .. } = &self.link;
        let start = start::engine_start(config, keys, settings, confinement, key_log.is_some());
        Ok(Launch { start, socket: bound.fd, listener })
    }

    /// A link that a superserver started has one lane.
    pub(super) fn hand_device_over(&mut self) {
        let queue = self.changes.device().and_then(|device| device.queues.first());
        if let (Some(engine), Some(queue)) = (&self.engine, queue) {
            let sent = engine.channel.send(&ToEngine::Device, &[queue.as_fd()]);
            self.check_sent(sent);
        }
    }

    /// The number of lanes the link can use: one for each queue of its device.
    pub(super) fn lanes(&self) -> u8 {
        let queues = self.changes.device().map_or(1, |device| device.queues.len());
        u8::try_from(queues).unwrap_or(u8::MAX)
    }

    /// The link settings that the engine gets.
    pub(super) fn settings(&self) -> LinkSettings {
        let (activated, lanes) = (self.link.activated, self.lanes());
        LinkSettings { activated, lanes, ..LinkSettings::from(&self.link.config) }
    }

    /// Sends an answer; an engine that does not read its messages is ended.
    pub(super) fn answer(&mut self, message: &ToEngine) {
        self.hand_over(message, &[]);
    }

    /// The same, with descriptors.
    pub(super) fn hand_over(&mut self, message: &ToEngine, descriptors: &[BorrowedFd<'_>]) {
        if let Some(engine) = &self.engine {
            let sent = engine.channel.send(message, descriptors);
            self.check_sent(sent);
        }
    }

    pub(super) fn check_sent(&mut self, sent: io::Result<()>) {
        // A closed channel is found when it is read; it was reset if messages were left unread.
        if let Err(error) = sent
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            self.end(BUG, format!("the engine does not accept its messages: {error}"));
        }
    }

    pub(super) fn read_engine(&mut self) {
        for _ in 0..MAX_BATCH {
            let Some(engine) = &self.engine else { return };
            match engine.channel.receive() {
                Ok(Some((message, _))) => {
                    self.handle_request(message);
                    self.work();
                }
                Ok(None) => return self.engine_gone(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.end(BUG, format!("the engine sent what it may not send ({error}); ending it"));
                    return self.kill_engine();
                }
            }
        }
    }

    pub(super) fn engine_gone(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        // It has closed its end, so that it can only be ending already.
        let status = spawn::end(&mut engine.child);
        self.forget_requests();
        self.machine.handle(Event::EngineGone(exit::of_engine(status)));
    }

    /// Ends the engine without asking.
    pub(super) fn kill_engine(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            if let Err(error) = spawn::end(&mut engine.child) {
                log::warn!("the engine: {error}");
            }
            self.forget_requests();
        }
    }

    pub(super) fn forget_requests(&mut self) {
        if let Some(ToParent::Traffic(totals)) = self.door.close() {
            self.status.traffic = totals;
        }
    }

    /// Has the engine say farewell; one that is gone already has done so.
    pub(super) fn stop_engine(&mut self) -> Option<Event> {
        self.answer(&ToEngine::Stop);
        self.engine.is_none().then(|| Event::EngineGone(String::new()))
    }
}
