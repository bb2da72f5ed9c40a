//! What both modes ask of their keys, and handshake mode's sessions.

use std::time::Instant;

use super::{Keying, Link};
use crate::config::KeyMode;
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::lane::{Received, SendCommand};
use crate::core::limits::{ANSWERS_RACE, SIGN_INTERVAL, SILENCE};
use crate::core::path::Path;
use crate::core::session::{Outcome, Sessions};
use crate::crypto::{Random, wrap};
#[cfg(test)]
use crate::fault::{self, Fault};
use crate::wire::control::Message;
use crate::wire::datagram::Framing;
use crate::wire::handshake::Type;

/// Length of the datagram by which an end in static mode shows itself to one in handshake mode: an empty goodbye.
const STATIC_SIGN: usize = Framing::Static.overhead() + 4;
/// Length of the datagram by which an end in handshake mode shows itself to one in static mode.
const SIGN_LENGTH: usize = wrap::OVERHEAD + 1;

impl<R: Random> Link<R> {
    /// When something is due for the keys.
    pub(super) fn keying_timeout(&self) -> Option<Instant> {
        match &self.keying {
            Keying::Static(keying) => Some(keying.keys.poll_timeout()),
            Keying::Handshake(sessions) => {
                let silence = self.silent_at(sessions).filter(|_| !sessions.is_calling());
                let due = sessions.poll_timeout(self.target().is_some());
                due.into_iter().chain(silence).min()
            }
        }
    }

    /// Does what is due for the keys.
    pub(super) fn handle_keying_timeout(&mut self, now: Now) {
        match &mut self.keying {
            Keying::Static(_) => self.handle_key_ids_timeout(now),
            Keying::Handshake(_) => self.handle_sessions_timeout(now.instant),
        }
    }

    /// The current key is nearly used up.
    pub(super) fn renew_keys(&mut self, now: Instant) {
        match &mut self.keying {
            Keying::Static(keying) => keying.keys.sending().expire(now),
            Keying::Handshake(sessions) => sessions.begin(now),
        }
    }

    /// Every key goes, of both directions; new ones are asked for at once.
    pub(super) fn replace_keys(&mut self, now: Now) {
        let known = self.target().is_some();
        match &mut self.keying {
            Keying::Static(_) => self.replace_key_ids(now),
            Keying::Handshake(sessions) => {
                sessions.reset(&mut self.random, &mut self.commands);
                if (known || self.settings.has_remote) && !self.dormant {
                    sessions.begin(now.instant);
                }
            }
        }
    }

    /// Whether there are keys to send a control message under.
    pub(super) fn has_keys(&self) -> bool {
        match &self.keying {
            Keying::Static(_) => true,
            Keying::Handshake(sessions) => sessions.is_alive(),
        }
    }

    /// Whether this is handshake mode.
    pub(super) fn has_sessions(&self) -> bool {
        matches!(self.keying, Keying::Handshake(_))
    }

    /// The link is down: no session outlives that, and an end with a remote calls.
    pub(super) fn forget_sessions(&mut self, now: Instant) {
        match &mut self.keying {
            Keying::Static(keying) => keying.forget_peer(),
            Keying::Handshake(sessions) => {
                sessions.end(self.heard_at, &mut self.random, &mut self.commands);
                self.call_if_remote(now);
            }
        }
    }

    /// Begins a call, unless the peer is left alone.
    pub(super) fn call_if_remote(&mut self, now: Instant) {
        if let Keying::Handshake(sessions) = &mut self.keying
            && self.settings.has_remote
            && !self.dormant
        {
            sessions.begin(now);
        }
    }

    /// When nothing has been heard for so long that another session is needed. Without a link too: a peer that was
    /// restarted after its answer does not know the session.
    fn silent_at(&self, sessions: &Sessions) -> Option<Instant> {
        #[cfg(test)]
        if fault::is(Fault::NoCallAfterSilence) {
            return None;
        }
        let since = sessions.sending_since();
        let doubtful = sessions.is_doubtful() && !self.up;
        let patience = if doubtful { ANSWERS_RACE } else { SILENCE };
        (self.up || since.is_some()).then(|| since.unwrap_or(self.heard_at).max(self.heard_at) + patience)
    }

    /// There is another address to call, at this time.
    pub(super) fn hasten_call(&mut self, at: Instant) {
        if let Keying::Handshake(sessions) = &mut self.keying {
            sessions.hasten(at);
        }
    }

    fn handle_sessions_timeout(&mut self, now: Instant) {
        let Keying::Handshake(sessions) = &self.keying else { return };
        let silent = self.silent_at(sessions).is_some_and(|at| now >= at);
        let Keying::Handshake(sessions) = &mut self.keying else { return };
        sessions.handle_timeout(now, &mut self.commands);
        if silent && !self.up && !sessions.is_calling() && !sessions.is_doubtful() {
            // Who answered is gone: somebody else may be there.
            self.remotes.race();
        }
        if silent || sessions.wants_rekey(now) {
            sessions.begin(now);
        }
        if sessions.is_call_due(now) {
            self.call(now, silent);
        }
    }

    fn call(&mut self, now: Instant, silent: bool) {
        let Some(target) = self.target() else { return };
        let Keying::Handshake(sessions) = &mut self.keying else { return };
        // After a silence the own address may be what failed: let the kernel choose it.
        let target = if silent { target.remote.into() } else { target };
        sessions.call(now, target, &mut self.random, &mut self.commands);
        self.take_turn(now, target);
        if let Some(pause) = self.attempt_delay() {
            self.hasten_call(now + pause);
        }
    }

    pub(super) fn handle_handshake(&mut self, now: Now, received: &Received) {
        let from = received.from;
        let Keying::Handshake(sessions) = &mut self.keying else { return };
        match sessions.handle_handshake(now.instant, received, &mut self.random, &mut self.commands) {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Retry { called }) => self.remotes.prefer(called),
            Ok(Outcome::Begun { called }) => {
                self.remotes.prefer(called);
                self.greet(now.instant, from);
            }
            Ok(Outcome::NoCipher) => self.say_once(now.instant, Condition::NoCommonCipher),
            Err(reason) => self.stats.drop(reason),
        }
    }

    /// Someone with the key uses the other key mode: most likely the peer. It is told by a datagram of this
    /// end's mode.
    pub(super) fn handle_other_mode(&mut self, now: Instant, from: Path, length: usize) {
        if self.up || self.peer.is_some() {
            return;
        }
        let (theirs, ours) = if self.has_sessions() {
            (KeyMode::Static, KeyMode::Handshake)
        } else {
            (KeyMode::Handshake, KeyMode::Static)
        };
        self.say_once(now, Condition::KeyModeMismatch { theirs, ours });
        self.give_sign(now, from, length);
    }

    /// A sign for a caller in the other key mode, no longer than what it sent. An end that calls by itself
    /// gives signs enough.
    fn give_sign(&mut self, now: Instant, to: Path, length: usize) {
        let recent = self.sign_at.is_some_and(|at| now < at + SIGN_INTERVAL);
        if recent || self.settings.has_remote {
            return;
        }
        self.sign_at = Some(now);
        match &mut self.keying {
            Keying::Static(_) if length >= STATIC_SIGN => {
                self.send(Message::Bye { reason: String::new() }, to);
            }
            Keying::Static(_) => {}
            Keying::Handshake(_) if length >= SIGN_LENGTH => {
                let datagram = wrap::seal(&self.keys, &[Type::SIGN], &mut self.random);
                self.commands.push_back(SendCommand::Handshake(Received { from: to, datagram }).into());
            }
            Keying::Handshake(_) => {}
        }
    }

    pub(super) fn handle_confirmed(&mut self, now: Now, serial: u32) {
        let Keying::Handshake(sessions) = &mut self.keying else { return };
        if sessions.handle_confirmed(serial, &mut self.commands)
            && let Some(target) = self.target()
        {
            self.greet(now.instant, target);
        }
    }

    /// The first word on a session, repeated until the peer's is there.
    fn greet(&mut self, now: Instant, to: Path) {
        self.send_hello(to);
        self.schedule_hello(now);
    }
}
