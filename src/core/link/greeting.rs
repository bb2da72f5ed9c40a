//! Whom this end says hello to, when, and what it asks for with that.

use std::time::Instant;

use super::{Event, Link};
use crate::core::caller::Turn;
use crate::core::hello;
use crate::core::lane::{Command, Under};
use crate::core::path::Path;
use crate::crypto::Random;
use crate::wire::control::Message;

impl<R: Random> Link<R> {
    pub(super) fn repeat_hello(&mut self, now: Instant, target: Path) {
        if self.has_keys() {
            if !self.has_sessions() {
                self.take_turn(now, target);
            }
            if let Some(target) = self.target() {
                self.send_hello(target, Under::Current);
            }
        }
        self.schedule_hello(now);
    }

    /// Another try at a peer that may be away: says so, or turns to the next remote.
    pub(super) fn take_turn(&mut self, now: Instant, target: Path) {
        match self.caller.turn(!self.up && (self.peer.is_none() || self.agreed)) {
            Turn::Silent if !self.is_challenging() => {
                self.say_once(now, format!(
                        "no answer from {} yet: trying on; if it stays away, is tund running there, with the same \
                         key, and its port open?",
                        target.remote
                    ));
            }
            Turn::Next(remote) => self.events.push_back(Event::Endpoint(remote)),
            Turn::Same | Turn::Silent => {}
        }
    }

    pub(super) fn schedule_hello(&mut self, now: Instant) {
        let keepalive = self.is_settled().then_some(self.settings.keepalive.interval);
        self.caller.schedule(now, keepalive, &mut self.random);
    }

    /// Says hello, and asks for the peer's as long as one is needed.
    pub(super) fn send_hello(&mut self, to: Path, under: Under) {
        let waits = self.agreed && !self.up;
        self.say_hello(to, under, self.is_known() && !waits);
    }

    pub(super) fn say_hello(&mut self, to: Path, under: Under, seen: bool) {
        let hello = hello::own(&self.settings, self.own_budget, seen);
        self.send_under(under, Message::Hello(hello), to);
        if !self.up {
            self.ask_proof(to, under);
        }
    }

    pub(super) fn set_agreed(&mut self, agreed: bool) {
        self.agreed = agreed;
        self.commands.push_back(Command::Agreed(agreed));
    }

    /// The peer has asked for this end's hello.
    pub(super) fn answer_hello(&mut self, now: Instant) {
        self.answer_at = None;
        self.answered_at = Some(now);
        if let Some(endpoint) = self.endpoint {
            self.say_hello(endpoint, Under::Current, self.is_known());
        }
    }
}
