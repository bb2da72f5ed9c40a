//! This end's calls: initiations, and what comes back for them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Answered, Attempt, Call, Instance, Outcome, Session, Sessions, handshake};
use crate::core::lane::{Command, Key, KeySlot, ReceiveCommand, SendCommand};
use crate::core::limits::{
    ADDRESSES, ANSWERS_RACE, CALL_FIRST, CALL_LATER, CALL_PATIENCE, INITIATION, INITIATION_STATES,
};
use crate::core::path::Path;
use crate::core::remotes::varied;
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::crypto::keys::DirectionKey;
use crate::crypto::noise::Initiator;
use crate::wire::handshake::{Envelope, Offer, Type, prologue};

impl Call {
    /// Keeps the state of an initiation, and of few before it.
    fn remember(&mut self, attempt: Attempt) {
        let mut room = INITIATION_STATES - 1;
        self.attempts.retain(|old| {
            let kept = old.to != attempt.to || room > 0;
            room -= usize::from(kept && old.to == attempt.to);
            kept
        });
        self.attempts.truncate(INITIATION_STATES * ADDRESSES - 1);
        self.attempts.push_front(attempt);
    }
}

impl Sessions {
    /// Begins a call now, if none is under way.
    pub fn begin(&mut self, now: Instant) {
        if self.call.is_none() {
            let slot = self.free_slot();
            let attempts = VecDeque::with_capacity(INITIATION_STATES + 1);
            self.answered = None;
            self.call = Some(Call { slot, attempts, token: None, tries: 0, due: now, retried_at: None });
        }
    }

    /// The next initiation is due at this time at the latest, if a call is under way.
    pub fn hasten(&mut self, at: Instant) {
        if let Some(call) = &mut self.call {
            call.due = call.due.min(at);
        }
    }

    /// Whether later initiations of the call that was answered are under way, and nothing was heard on the session yet: an
    /// answer to one of them that is lost would leave the peer without the session.
    pub fn is_doubtful(&self) -> bool {
        self.answered.as_ref().is_some_and(|answered| !answered.attempts.is_empty())
    }

    /// Whether the next initiation is due.
    pub fn is_call_due(&self, now: Instant) -> bool {
        self.call.as_ref().is_some_and(|call| call.due <= now)
    }

    /// Sends an initiation of the call along `to`.
    pub fn call(&mut self, now: Instant, to: Path, random: &mut impl Random, out: &mut VecDeque<Command>) {
        let Some(call) = &mut self.call else { return };
        self.seq += 1;
        let offer = Offer { slot: call.slot, lanes: 1, suites: self.suites.clone() };
        let token = call.token.filter(|(given_at, _)| *given_at == to.remote);
        let token = token.map_or([0; 16], |(_, token)| token);
        let head = prologue(&self.instance, self.seq, &token);
        let mut message = Vec::new();
        let started =
            Initiator::start(&self.statics, &self.keys.psk(), &head, &offer.encode(), random, &mut message);
        // An unusable public key was refused with the configuration.
        let Ok(state) = started else { return };
        let envelope = Envelope {
            kind: Type::Initiation,
            instance: self.instance,
            seq: self.seq,
            token,
            message: &message,
        };
        let [a, b] = random.bytes();
        let span = INITIATION.end() - INITIATION.start() + 1;
        let length = INITIATION.start() + usize::from(u16::from_be_bytes([a, b])) % span;
        out.push_back(handshake(&self.keys, &envelope, length, to, random));
        call.remember(Attempt { seq: self.seq, to: to.remote, state });
        call.tries += 1;
        let pause = if call.tries < CALL_PATIENCE { CALL_FIRST } else { CALL_LATER };
        call.due = now + varied(pause, random);
    }

    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let (slot, attempt) = self.attempt(envelope).ok_or(DropReason::Stale)?;
        let called = attempt.to;
        let (payload, split) = attempt.state.read(envelope.message).map_err(|_| DropReason::BadTag)?;
        let (peer, payload) = payload.split_first_chunk().ok_or(DropReason::Malformed)?;
        let offer = Offer::decode(payload).map_err(|_| DropReason::Malformed)?;
        let Some(cipher) = offer.suites.first().copied() else { return Ok(Outcome::NoCipher) };
        if !self.suites.contains(&cipher) {
            return Err(DropReason::Malformed);
        }
        if self.is_beaten(now, peer) {
            return Err(DropReason::Stale);
        }
        // Whatever called before is another process, which is gone.
        if self.confirmed.is_none_or(|(confirmed, _)| confirmed != *peer) {
            self.confirmed = Some((*peer, 0));
        }
        let from_peer = DirectionKey::new(split.responder_to_initiator);
        let to_peer = DirectionKey::new(split.initiator_to_responder);
        let serial = self.next_serial();
        let (instance, peer) = (self.instance, *peer);
        let session = Session { slot, serial, cipher, instance, peer, began_here: true, born: now };
        let attempts = self.call.take().map(|call| call.attempts);
        let mut attempts = attempts.or(self.answered.take().map(|call| call.attempts)).unwrap_or_default();
        attempts.retain(|attempt| attempt.seq > envelope.seq);
        self.answered = Some(Answered { slot, serial, attempts });
        self.live.retain(|live| live.slot != slot);
        let key = Key::Slot { slot, serial, cipher, key: from_peer };
        out.push_back(ReceiveCommand::Accept { key, after: None }.into());
        let to_peer = Key::Slot { slot: offer.slot, serial, cipher, key: to_peer };
        out.push_back(SendCommand::Prepare(KeySlot::Next, to_peer).into());
        self.adopt(session, KeySlot::Next, out);
        Ok(Outcome::Begun { called })
    }

    /// Whether another peer has just answered an earlier initiation of the same call. The first counts.
    fn is_beaten(&self, now: Instant, peer: &Instance) -> bool {
        let first = self.answered.as_ref().map(|first| first.serial);
        let session = self.live.iter().find(|live| first == Some(live.serial));
        session.is_some_and(|first| first.peer != *peer && now < first.born + ANSWERS_RACE)
    }

    /// What an answer belongs to: the slot of the call, and the initiation.
    fn attempt(&self, answer: &Envelope<'_>) -> Option<(u8, &Attempt)> {
        let call = self.call.as_ref().map(|call| (call.slot, &call.attempts));
        let calls = call.into_iter().chain(self.answered.as_ref().map(|call| (call.slot, &call.attempts)));
        let mut calls = calls.filter(|_| answer.instance == self.instance);
        calls.find_map(|(slot, attempts)| {
            Some((slot, attempts.iter().find(|attempt| attempt.seq == answer.seq)?))
        })
    }

    /// The peer is busy and wants to see that we get what is sent to our address: the next initiation is due
    /// now. It goes where the one went that this answers, wherever this came from.
    pub(super) fn handle_retry(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
    ) -> Result<Outcome, DropReason> {
        let ours = envelope.instance == self.instance;
        let call = self.call.as_mut().filter(|_| ours).ok_or(DropReason::Stale)?;
        let called = call.attempts.iter().find(|attempt| attempt.seq == envelope.seq);
        let called = called.map(|attempt| attempt.to).ok_or(DropReason::Stale)?;
        let newest = call.attempts.iter().find(|attempt| attempt.to == called);
        let newest = newest.is_some_and(|attempt| attempt.seq == envelope.seq);
        let early =
            call.retried_at.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        if !newest || early {
            return Err(DropReason::Stale);
        }
        call.token = Some((called, envelope.token));
        call.retried_at = Some(now);
        call.due = now;
        Ok(Outcome::Retry { called })
    }
}
