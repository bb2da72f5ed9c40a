//! The engine's life as the parent sees it: started, told and listened to, gone.
#![allow(clippy::disallowed_methods, reason = "its farewell has a time limit")]

use std::io;
use std::os::fd::AsFd;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::parent::{Ending, Launch, MAX_BATCH, Parent};
use crate::privsep::channel::Channel;
use crate::privsep::message::{End, ToEngine, ToParent};
use crate::privsep::spawn;
use crate::report::exit::{self, BUG, FAILED};
use crate::say;

/// The process and the way to it.
pub(super) struct Engine {
    pub child: Child,
    pub channel: Channel<ToEngine, ToParent>,
}

impl Parent {
    /// Hands keys and descriptors over and forgets the keys.
    pub(super) fn start_engine(&mut self, engine: Engine, launch: Launch) {
        let mut descriptors = vec![launch.socket.as_fd()];
        descriptors.extend(self.changes.device().map(|device| device.fd.as_fd()));
        let sent = engine.channel.send(&ToEngine::Start(launch.start), &descriptors);
        self.front = launch.socket.try_clone().ok();
        self.status.connected = None;
        self.engine = Some(engine);
        self.check_sent(sent);
        self.tell_sources();
    }

    pub(super) fn hand_device_over(&mut self) {
        if let (None, Some(engine), Some(device)) = (&self.ending, &self.engine, self.changes.device()) {
            let sent = engine.channel.send(&ToEngine::Device, &[device.fd.as_fd()]);
            self.check_sent(sent);
        }
    }

    /// Sends an answer; an engine that does not read its messages is ended.
    pub(super) fn answer(&mut self, message: &ToEngine) {
        if let Some(engine) = &self.engine {
            let sent = engine.channel.send(message, &[]);
            self.check_sent(sent);
        }
    }

    pub(super) fn check_sent(&mut self, sent: io::Result<()>) {
        // A closed channel is found when it is read; it was reset if messages were left unread.
        if let Err(error) = sent
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            self.end(BUG, format!("the engine does not take its messages: {error}"));
        }
    }

    pub(super) fn read_engine(&mut self) {
        for _ in 0..MAX_BATCH {
            let Some(engine) = &self.engine else { return };
            match engine.channel.receive() {
                Ok(Some((message, _))) => self.handle_request(message),
                Ok(None) => return self.engine_gone(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.end(BUG, format!("the engine sent what it may not send ({error}); it is ended"));
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
        if self.status.replacing {
            return;
        }
        match self.status.last_words.take() {
            // It had nothing to do any more, and a superserver starts another.
            Some((End::Done, reason)) if self.link.activated => {
                self.end_with(Ending { code: 0, reason, signal: "inactive" });
            }
            // An engine that was asked to end finds the parent ending. Unasked, whoever says so wants an end in order,
            // which opens what a full tunnel keeps closed.
            Some((End::Done, reason)) => {
                self.end(FAILED, format!("the engine ended without being asked to ({reason})"));
            }
            Some((end, reason)) => self.end(exit::code(end), reason),
            None => {
                self.end(BUG, exit::of_engine(status));
            }
        }
    }

    /// Ends the engine without asking.
    pub(super) fn kill_engine(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            if let Err(error) = spawn::end(&mut engine.child) {
                say!(1, "the engine: {error}");
            }
            self.forget_requests();
        }
    }

    pub(super) fn forget_requests(&mut self) {
        if let Some(ToParent::Traffic(totals)) = self.door.close() {
            self.status.traffic = totals;
        }
    }

    /// Lets the engine say farewell, for at most `limit`.
    pub(super) fn stop_engine(&mut self, limit: Duration) {
        self.answer(&ToEngine::Stop);
        let deadline = Instant::now() + limit;
        while self.engine.is_some() && !self.abandoned && Instant::now() < deadline {
            self.turn(Some(deadline));
        }
        self.kill_engine();
    }
}
