//! What the keys ask of the link.

use std::time::Instant;

use super::Link;
use super::keying::{Ask, Caller, Here};
use super::phase::Phase;
use crate::core::clock::Now;
use crate::core::clones::Speaker;
use crate::core::condition::Condition;
use crate::core::hello;
use crate::core::lane::{KeyRef, KeySlot};
use crate::core::path::Path;
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::wire::control::{Hello, Message};
use crate::wire::datagram::Framing;

impl<R: Random> Link<R> {
    pub(super) fn here(&self) -> Here {
        Here { up: self.is_up(), can_call: self.target().is_some(), heard_at: self.liveness.heard_at() }
    }

    pub(super) fn handle_keys_timeout(&mut self, now: Now) {
        let ask = self.keying.handle_timeout(now, self.here(), &mut self.cx);
        self.carry_out(now, ask);
    }

    pub(super) fn carry_out(&mut self, now: Now, ask: Option<Ask>) {
        let Some(ask) = ask else { return };
        match ask {
            Ask::Propose => self.propose(),
            Ask::Take(caller, hello) => self.take(now, &caller, hello),
            Ask::Present(caller) => {
                if !self.refuses(now.instant, caller.from) {
                    // The key id to name may still have to be drawn.
                    self.handle_keys_timeout(now);
                    self.name(&caller);
                    self.note_call(now.instant, Speaker::KeyId(caller.key_id), caller.from);
                }
            }
            Ask::Answered(caller, from) => self.note_call(now.instant, caller, from),
            Ask::Call { anew, silent } => self.call(now.instant, anew, silent),
            Ask::Prefer(called) => self.remotes.prefer(called),
            Ask::Greet { called, from } => {
                self.remotes.prefer(called);
                self.greet(now.instant, from);
            }
            Ask::GreetPeer => {
                if let Some(target) = self.target() {
                    self.greet(now.instant, target);
                }
            }
            Ask::Say(condition) => self.say_once(now.instant, condition),
            Ask::Differ { condition, from, room } => self.differ(now.instant, condition, from, room),
            Ask::Misfit(condition) => {
                self.stats.drop(DropReason::BadTag);
                if !self.greeting.is_known() {
                    self.say_once(now.instant, condition);
                }
            }
            Ask::Drop(reason) => self.stats.drop(reason),
        }
    }

    fn propose(&mut self) {
        if let Some(endpoint) = self.path.endpoint() {
            let hello = self.own_hello(false);
            self.cx.out.control(KeySlot::Next, &Message::Hello(hello), endpoint);
        }
    }

    /// The peer named this end in a hello under a key id that is now live. Tells it so, and that this end is there.
    fn take(&mut self, now: Now, caller: &Caller, hello: Hello) {
        let (from, asks) = (caller.from, !hello.seen);
        if self.refuses(now.instant, from) {
            return;
        }
        self.handle_hello(now, from, KeyRef::KeyId(caller.key_id), hello);
        if !self.name_elsewhere(caller) && !asks {
            self.answer_soon(now.instant);
        }
        if self.is_up() {
            self.keying.ask_proof(from, &mut self.cx);
        }
    }

    /// If this end sends elsewhere, the peer must know its key id before it can prove its address.
    fn name_elsewhere(&mut self, caller: &Caller) -> bool {
        let elsewhere = !self.path.covers(&caller.from);
        if elsewhere {
            self.name(caller);
        }
        elsewhere
    }

    /// The peer sent a message with a body of so many bytes.
    pub(super) fn note_message(
        &mut self,
        now: Instant,
        from: Path,
        under: KeyRef,
        message: &Message,
        length: usize,
    ) {
        let KeyRef::KeyId(key_id) = under else { return };
        let asks = matches!(message, Message::Hello(hello) if !hello.seen);
        if self.is_up() && (asks || !self.keying.is_heard()) && !self.refuses(now, from) {
            self.name_elsewhere(&Caller { key_id, from, room: Framing::Static.overhead() + length });
        }
    }

    /// Sends a hello that names the key id it answers, in no more bytes.
    fn name(&mut self, caller: &Caller) {
        let room = caller.room.saturating_sub(Framing::Static.overhead());
        let named = hello::naming(caller.key_id.0, &self.settings, self.path.own_budget(), room);
        let hello = Hello { rank: self.lanes.rank(), ..named };
        if hello::length(&hello) <= room {
            self.send(Message::Hello(hello), caller.from);
        }
    }

    /// A call was answered, which its sender may not hear.
    fn note_call(&mut self, now: Instant, caller: Speaker, from: Path) {
        if !self.is_up() && !self.greeting.is_known() && self.notices.goes_on(now, caller) {
            let condition = Condition::AnswersLost { from: from.remote };
            self.notices.say_proven(now, condition, &mut self.cx.out);
        }
    }

    fn call(&mut self, now: Instant, anew: bool, silent: bool) {
        if anew {
            self.remotes.race();
        }
        let Some(target) = self.target() else { return };
        // After a silence the own address may have failed: let the kernel choose.
        let target = if silent { target.far_end() } else { target };
        let room = self.path.call_room(target, self.is_up());
        self.keying.call(now, target, room, &mut self.cx);
        self.take_turn(now, target);
        if let Some(pause) = self.attempt_delay() {
            self.keying.hasten(now + pause);
        }
    }

    /// Sends the first hello of a session, repeated until the peer's comes.
    fn greet(&mut self, now: Instant, to: Path) {
        self.send_hello(to);
        self.schedule_hello(now);
    }

    /// Begins a call, unless the peer is idle.
    pub(super) fn call_if_remote(&mut self, now: Instant) {
        if self.settings.has_remote && self.phase != Phase::Dormant {
            self.keying.begin(now);
        }
    }

    /// The link is down: all sessions end, and an end with a remote calls.
    pub(super) fn end_keys(&mut self, now: Instant) {
        self.keying.end(self.liveness.heard_at(), &mut self.cx);
        self.call_if_remote(now);
    }

    /// Drops every key of both directions and requests new ones at once.
    pub(super) fn replace_keys(&mut self, now: Now) {
        self.keying.replace(now, &mut self.cx);
        if (self.target().is_some() || self.settings.has_remote) && self.phase != Phase::Dormant {
            self.keying.begin(now.instant);
        }
    }

    /// A holder of the key, most likely the peer, uses the other key mode. It gets a datagram of this end's mode,
    /// unless this end calls by itself, which is sign enough.
    pub(super) fn handle_other_mode(&mut self, now: Instant, from: Path, length: usize) {
        let (theirs, ours) = (self.keying.other_mode(), self.settings.key_mode);
        self.differ(now, Condition::KeyModeMismatch { theirs, ours }, from, length);
    }

    fn differ(&mut self, now: Instant, condition: Condition, from: Path, room: usize) {
        if self.is_up() || self.greeting.is_known() {
            return;
        }
        self.notices.say_proven(now, condition, &mut self.cx.out);
        if !self.settings.has_remote && self.notices.may_sign(now) {
            self.keying.give_sign(from, room, &mut self.cx);
        }
    }
}
