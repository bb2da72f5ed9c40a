//! The destination and schedule of this end's hellos, and what they request.

use std::time::{Duration, Instant};

use super::phase::Phase;
use super::{Event, Link};
use crate::core::condition::Condition;
use crate::core::hello;
use crate::core::limits::INITIATION;
use crate::core::path::Path;
use crate::crypto::Random;
use crate::wire::control::{Hello, Message};
use crate::wire::datagram::Framing;

impl<R: Random> Link<R> {
    pub(super) fn repeat_hello(&mut self, now: Instant) {
        let Some(target) = self.target() else { return };
        if self.keying.has_keys() {
            self.send_hello(target);
            if self.keying.calls_by_hello() {
                self.take_turn(now, target);
            }
        }
        self.schedule_hello(now);
    }

    /// Called a peer that may be away: reports that, or turns to the next remote.
    pub(super) fn take_turn(&mut self, now: Instant, called: Path) {
        let misfit = self.greeting.is_known() && !self.phase.may_pass();
        if self.remotes.handle_called(now, called, !self.is_up() && !misfit) {
            let (remote, others) = (called.remote, self.remotes.others());
            self.say_once(now, Condition::NoAnswer { remote, others });
        }
        if !self.is_up() && !self.remotes.is_racing() {
            let next = self.remotes.remote().filter(|next| *next != called.far_end());
            self.cx.out.events.extend(next.map(Event::Endpoint));
        }
    }

    /// Schedules a hello: a keepalive once the peer was heard under present keys.
    pub(super) fn schedule_hello(&mut self, now: Instant) {
        let settled = self.is_up() && self.greeting.is_known();
        let keepalive = settled.then_some(self.settings.keepalive.interval);
        self.remotes.schedule(now, keepalive, &mut self.cx.random);
        if self.keying.calls_by_hello()
            && let Some(pause) = self.attempt_delay()
        {
            self.remotes.hasten(now + pause);
        }
    }

    /// The delay before the next address not yet called, if any.
    pub(super) fn attempt_delay(&mut self) -> Option<Duration> {
        if self.is_up() { None } else { self.remotes.attempt_delay(&mut self.cx.random) }
    }

    /// Sends a hello, and requests the peer's while one is needed.
    pub(super) fn send_hello(&mut self, to: Path) {
        let waits = matches!(self.phase, Phase::Agreed { .. });
        self.say_hello(to, self.greeting.is_known() && !waits);
    }

    /// The same to the peer's path.
    pub(super) fn say_hello_again(&mut self) {
        if let Some(endpoint) = self.path.endpoint() {
            self.send_hello(endpoint);
        }
    }

    fn say_hello(&mut self, to: Path, seen: bool) {
        let hello = self.own_hello(seen);
        self.send(Message::Hello(hello), to);
        if !self.is_up() {
            self.keying.ask_proof(to, &mut self.cx);
        }
    }

    /// Makes this end's hello. Where hellos are calls, one that requests an answer leaves room for it.
    pub(super) fn own_hello(&mut self, seen: bool) -> Hello {
        let own = hello::own(&self.settings, self.path.own_budget(), seen);
        let [heard, pair] = self.keying.names();
        let named = pair.filter(|_| self.settings.lanes > 1);
        let mut own = Hello { heard, rank: self.lanes.rank(), named, ..own };
        let overhead = Framing::from(self.settings.key_mode).overhead();
        let room = self.path.room(self.is_up()).saturating_sub(overhead);
        self.greeting.fit(&mut own, room);
        if !seen && self.keying.calls_by_hello() {
            let [high, low] = self.cx.random.bytes();
            let (least, most) = (*INITIATION.start(), *INITIATION.end());
            let length = least + usize::from(u16::from_be_bytes([high, low])) % (most - least + 1);
            hello::pad(&mut own, room.min(length - overhead));
        }
        own
    }

    /// The peer has requested a hello: answers now, or as soon as allowed.
    pub(super) fn answer_soon(&mut self, now: Instant) {
        if self.greeting.handle_asked(now) {
            self.answer_hello(now);
        }
    }

    /// Sends the hello that the peer has requested.
    pub(super) fn answer_hello(&mut self, now: Instant) {
        self.greeting.handle_answered(now);
        if let Some(endpoint) = self.path.endpoint() {
            self.say_hello(endpoint, self.greeting.is_known());
        }
    }
}
