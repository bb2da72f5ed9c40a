//! Handshake mode: sessions and when to begin them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ask, Here, Keying};
use crate::config::KeyMode;
use crate::core::clock::Now;
use crate::core::clones::Speaker;
use crate::core::condition::Condition;
use crate::core::lane::{KeyRef, Notice, Received, SendCommand};
use crate::core::limits::{ANSWERS_RACE, SILENCE};
use crate::core::link::outbox::Context;
use crate::core::path::Path;
use crate::core::session::{Outcome, Sessions};
use crate::core::settings::LinkSettings;
use crate::crypto::exchange::Pattern;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
use crate::crypto::suite::Cipher;
use crate::crypto::{Random, wrap};

/// Length of the datagram that shows this mode to an end in static mode.
const SIGN: usize = wrap::OVERHEAD + 1;

/// The sessions of a link.
pub struct Handshake {
    sessions: Sessions,
    /// When a call last began because a host said that the peer is away.
    refused_at: Option<Instant>,
}

impl Handshake {
    /// No session yet; an end with a remote begins a call.
    pub fn new(
        settings: &LinkSettings,
        keys: Arc<LinkKeys>,
        statics: Statics,
        now: Instant,
        random: &mut impl Random,
    ) -> Self {
        let pattern = Pattern { statics, exchange: settings.exchange };
        let mut sessions = Sessions::new(keys, pattern, settings.suites.clone(), now, random);
        if settings.has_remote {
            sessions.begin(now);
        }
        Self { sessions, refused_at: None }
    }

    /// When silence requires another session. It does without a link too: a peer that restarted after its answer does
    /// not know the session.
    fn silent_at(&self, here: Here) -> Option<Instant> {
        let since = self.sessions.current().map(|(born, _)| born);
        let doubtful = self.sessions.is_doubtful() && !here.up;
        let patience = if doubtful { ANSWERS_RACE } else { SILENCE };
        (here.up || since.is_some()).then(|| since.unwrap_or(here.heard_at).max(here.heard_at) + patience)
    }
}

impl<R: Random> Keying<R> for Handshake {
    fn poll_timeout(&self, here: Here) -> Option<Instant> {
        let silence = self.silent_at(here).filter(|_| !self.sessions.is_calling());
        self.sessions.poll_timeout(here.can_call).into_iter().chain(silence).min()
    }

    fn handle_timeout(&mut self, now: Now, here: Here, cx: &mut Context<R>) -> Option<Ask> {
        let now = now.instant;
        let silent = self.silent_at(here).is_some_and(|at| now >= at);
        self.sessions.handle_timeout(now, &mut cx.out.commands);
        let anew = silent && !here.up && !self.sessions.is_calling() && !self.sessions.is_doubtful();
        if silent || self.sessions.wants_rekey(now) {
            self.sessions.begin(now);
        }
        self.sessions.is_call_due(now).then_some(Ask::Call { anew, silent })
    }

    fn handle_notice(&mut self, now: Now, _here: Here, notice: Notice, cx: &mut Context<R>) -> Option<Ask> {
        let commands = &mut cx.out.commands;
        if let Notice::Confirmed { serial } = notice {
            return self.sessions.handle_confirmed(serial, commands).then_some(Ask::GreetPeer);
        }
        let Notice::Handshake(received) = notice else { return None };
        match self.sessions.handle_handshake(now.instant, &received, &mut cx.random, commands) {
            Ok(Outcome::Nothing) => None,
            Ok(Outcome::Answered { caller }) => Some(Ask::Answered(Speaker::Instance(caller), received.from)),
            Ok(Outcome::Retry { called }) => Some(Ask::Prefer(called)),
            Ok(Outcome::Begun { called }) => Some(Ask::Greet { called, from: received.from }),
            Ok(Outcome::NoCipher) => Some(Ask::Say(Condition::NoCommonCipher)),
            Ok(Outcome::OtherExchange { theirs, calls }) => {
                let room = if calls { received.datagram.len() } else { 0 };
                let condition = Condition::ExchangeMismatch { theirs, ours: self.sessions.exchange() };
                Some(Ask::Differ { condition, from: received.from, room })
            }
            Err(reason) => Some(Ask::Drop(reason)),
        }
    }

    fn renew(&mut self, now: Instant) {
        self.sessions.begin(now);
    }

    fn replace(&mut self, _now: Now, cx: &mut Context<R>) {
        self.sessions.reset(&mut cx.random, &mut cx.out.commands);
    }

    fn end(&mut self, heard_at: Instant, cx: &mut Context<R>) {
        self.sessions.end(heard_at, &mut cx.random, &mut cx.out.commands);
    }

    fn is_of_peer(&self, under: KeyRef) -> bool {
        matches!(under, KeyRef::Session(serial) if self.sessions.is_of_peer(serial))
    }

    /// A session with a new instance begins by a new handshake, so whatever comes under it is new.
    fn speaker(&self, under: KeyRef, _proves: bool) -> Option<Speaker> {
        let KeyRef::Session(serial) = under else { return None };
        self.sessions.peer_of(serial).map(Speaker::Instance)
    }

    fn current(&self, now: Instant) -> Option<(Duration, Cipher)> {
        self.sessions.current().map(|(born, cipher)| (now.saturating_duration_since(born), cipher))
    }

    fn other_mode(&self) -> KeyMode {
        KeyMode::Static
    }

    fn give_sign(&self, to: Path, length: usize, cx: &mut Context<R>) {
        if length >= SIGN {
            let datagram = self.sessions.sign(&mut cx.random);
            cx.out.command(SendCommand::Handshake(Received { from: to, datagram }));
        }
    }

    fn calls_by_hello(&self) -> bool {
        false
    }

    fn has_keys(&self) -> bool {
        self.sessions.is_alive()
    }

    fn begin(&mut self, now: Instant) {
        self.sessions.begin(now);
    }

    fn hasten(&mut self, at: Instant) {
        self.sessions.hasten(at);
    }

    fn handle_too_long(&mut self, now: Instant) {
        self.sessions.handle_too_long(now);
    }

    fn call(&mut self, now: Instant, to: Path, room: usize, cx: &mut Context<R>) {
        self.sessions.call(now, to, room, &mut cx.random, &mut cx.out.commands);
    }

    /// The peer may be restarting without any session: from time to time begins a call beside the present session.
    fn handle_refused(&mut self, now: Instant) {
        if self.refused_at.is_none_or(|at| now >= at + SILENCE) {
            self.refused_at = Some(now);
            self.sessions.begin(now);
        }
    }
}
