//! Whom this end says hello to, when, and what it asks for with that.

use std::time::{Duration, Instant};

use super::{Event, Link};
use crate::core::condition::Condition;
use crate::core::hello;
use crate::core::lane::Command;
use crate::core::limits::{HELLO_ANSWER, INITIATION};
use crate::core::path::Path;
use crate::crypto::Random;
use crate::wire::control::{Hello, Message};
use crate::wire::datagram::Framing;

impl<R: Random> Link<R> {
    pub(super) fn repeat_hello(&mut self, now: Instant, target: Path) {
        if self.has_keys() {
            self.send_hello(target);
            if !self.has_sessions() {
                self.take_turn(now, target);
            }
        }
        self.schedule_hello(now);
    }

    /// A peer that may be away was called at this address: says so, or turns to the next remote.
    pub(super) fn take_turn(&mut self, now: Instant, called: Path) {
        let away = !self.up && (self.peer.is_none() || self.agreed);
        let remote = called.remote;
        if self.remotes.handle_called(now, remote, away) {
            self.say_once(now, Condition::NoAnswer { remote, others: self.remotes.others() });
        }
        if !self.up && !self.remotes.is_racing() {
            let next = self.remotes.remote().filter(|next| *next != remote);
            self.events.extend(next.map(Event::Endpoint));
        }
    }

    pub(super) fn schedule_hello(&mut self, now: Instant) {
        let keepalive = self.is_settled().then_some(self.settings.keepalive.interval);
        self.remotes.schedule(now, keepalive, &mut self.random);
        if !self.has_sessions()
            && let Some(pause) = self.attempt_delay()
        {
            self.remotes.hasten(now + pause);
        }
    }

    /// The pause before an address that was not called yet, if there is one.
    pub(super) fn attempt_delay(&mut self) -> Option<Duration> {
        if self.up { None } else { self.remotes.attempt_delay(&mut self.random) }
    }

    /// Says hello, and asks for the peer's as long as one is needed.
    pub(super) fn send_hello(&mut self, to: Path) {
        let waits = self.agreed && !self.up;
        self.say_hello(to, self.is_known() && !waits);
    }

    pub(super) fn say_hello(&mut self, to: Path, seen: bool) {
        let hello = self.own_hello(seen);
        self.send(Message::Hello(hello), to);
        if !self.up {
            self.ask_proof(to);
        }
    }

    /// What this end says of itself now. In static mode one that asks for an answer leaves room for it.
    pub(super) fn own_hello(&mut self, seen: bool) -> Hello {
        let mut own =
            Hello { heard: self.heard_key_id(), ..hello::own(&self.settings, self.own_budget, seen) };
        let room = self.hello_room();
        self.hello_cut = hello::fit(&mut own, room);
        if !seen && !self.has_sessions() {
            let [high, low] = self.random.bytes();
            let (least, most) = (*INITIATION.start(), *INITIATION.end());
            let length = least + usize::from(u16::from_be_bytes([high, low])) % (most - least + 1);
            hello::pad(&mut own, room.min(length - Framing::Static.overhead()));
        }
        own
    }

    pub(super) fn set_agreed(&mut self, agreed: bool) {
        self.agreed = agreed;
        self.commands.extend(Command::agreed(agreed));
    }

    /// The peer has asked for this end's hello: it goes at once, or as soon as it may.
    pub(super) fn answer_soon(&mut self, now: Instant) {
        let free_at = self.answered_at.map(|at| at + HELLO_ANSWER).filter(|at| now < *at);
        self.answer_at = Some(free_at.unwrap_or(now));
        if free_at.is_none() {
            self.answer_hello(now);
        }
    }

    /// Says the hello that the peer has asked for.
    pub(super) fn answer_hello(&mut self, now: Instant) {
        self.answer_at = None;
        self.answered_at = Some(now);
        if let Some(endpoint) = self.endpoint {
            self.say_hello(endpoint, self.is_known());
        }
    }
}
