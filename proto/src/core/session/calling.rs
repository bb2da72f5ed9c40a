//! This end's calls: initiations and their replies.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Answered, Attempt, Call, Cause, Instance, LIVE, Outcome, Session, Sessions, handshake};
use crate::core::lane::{Command, Key, KeySlot, ReceiveCommand, SendCommand};
use crate::core::limits::{
    ADDRESSES, ANSWERS_RACE, CALL_FIRST, CALL_LATER, CALL_PATIENCE, INITIATION, INITIATION_HYBRID,
    INITIATION_PART, INITIATION_STATES,
};
use crate::core::path::Path;
use crate::core::remotes::varied;
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::crypto::exchange::Initiator;
use crate::crypto::keys::DirectionKey;
use crate::crypto::suite::Exchange;
use crate::wire::handshake::{Envelope, Kind, Offer, Type, prologue};

impl Call {
    /// Keeps the state of an initiation and of a few before it.
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

    /// Whether to split the next initiation to this address: alternately, beginning with what worked last time.
    fn in_parts(&mut self, to: Path, last_time: bool) -> bool {
        let last = self.attempts.iter().find(|attempt| attempt.to == to);
        self.parts.take().unwrap_or(last.map_or(last_time, |last| !last.parts))
    }
}

impl Sessions {
    /// Begins a call now, unless one is in progress.
    pub fn begin(&mut self, now: Instant) {
        if self.call.is_none() {
            let attempts = VecDeque::with_capacity(INITIATION_STATES + 1);
            self.answered = None;
            self.call = Some(Call {
                slot: None,
                attempts,
                token: None,
                tries: 0,
                due: now,
                retried_at: None,
                parts: None,
            });
        }
    }

    /// Makes the next call begin with a split initiation, which every path carries.
    pub fn expect_narrow(&mut self) {
        self.parts = true;
    }

    /// An unauthenticated message from a host: the path does not carry what was sent. If that was a whole initiation, the next one is
    /// split. It is due now unless there is a session: then a path MTU probe was more likely too long, and whoever answers a second
    /// initiation accepts nothing under the answer to the first.
    pub fn handle_too_long(&mut self, now: Instant) {
        if let Some(call) = &mut self.call
            && self.pattern.exchange == Exchange::Hybrid
            && call.attempts.front().is_some_and(|last| !last.parts)
        {
            call.parts = Some(true);
            if self.live.is_empty() {
                call.due = now;
            }
        }
    }

    /// Makes the next initiation of a call in progress due no later than this.
    pub fn hasten(&mut self, at: Instant) {
        if let Some(call) = &mut self.call {
            call.due = call.due.min(at);
        }
    }

    /// Whether later initiations of an answered call are under way and the session is still silent: a lost answer to one
    /// of them would leave the peer without the session.
    pub fn is_doubtful(&self) -> bool {
        self.answered().is_some_and(|(_, attempts)| !attempts.is_empty())
    }

    /// Whether the next initiation is due.
    pub fn is_call_due(&self, now: Instant) -> bool {
        self.call.as_ref().is_some_and(|call| call.due <= now)
    }

    /// Sends an initiation along `to`, in at most `room` bytes if it is split.
    pub fn call(
        &mut self,
        now: Instant,
        to: Path,
        room: usize,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) {
        if self.call.as_ref().is_some_and(|call| call.slot.is_none()) {
            self.forget_beyond(LIVE - 1, out);
        }
        let free = self.free_slot();
        let Some(call) = &mut self.call else { return };
        let slot = *call.slot.get_or_insert(free);
        self.seq += 1;
        let offer = Offer { slot, lanes: 1, suites: self.suites.clone() };
        let token = call.token.filter(|(given_at, _)| *given_at == to.far_end());
        let token = token.map_or([0; 16], |(_, token)| token);
        let exchange = self.pattern.exchange;
        let head = prologue(exchange, &self.instance, self.seq, &token);
        let mut message = Vec::new();
        let started =
            Initiator::start(&self.pattern, &self.keys.psk(), &head, &offer.encode(), random, &mut message);
        // Unusable public keys were refused with the configuration.
        let Ok(state) = started else { return };
        let narrow = call.in_parts(to.far_end(), self.parts) || room < *INITIATION_HYBRID.end();
        let parts = exchange == Exchange::Hybrid && narrow;
        let lengths = match exchange {
            Exchange::X25519 => INITIATION,
            Exchange::Hybrid if parts => INITIATION_PART,
            Exchange::Hybrid => INITIATION_HYBRID,
        };
        let of = Type { exchange, kind: Kind::Initiation, part: parts.into() };
        let envelope = Envelope { of, instance: self.instance, seq: self.seq, token, message: &message };
        handshake(&self.keys, &envelope, lengths, to, random, out);
        call.remember(Attempt { seq: self.seq, to: to.far_end(), parts, state });
        call.tries += 1;
        let pause = if call.tries < CALL_PATIENCE { CALL_FIRST } else { CALL_LATER };
        call.due = now + varied(pause, random);
    }

    pub(super) fn handle_answer(
        &mut self,
        cause: &Cause<'_>,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let Cause { now, ref envelope, length, .. } = *cause;
        if self.attempt(envelope).is_some() && envelope.of.part != 0 {
            let whole = self.answer.take(now, envelope, length);
            let Some((message, _)) = whole else { return Ok(Outcome::Nothing) };
            return self.take_answer(now, &Envelope { message: &message, ..*envelope }, out);
        }
        self.take_answer(now, envelope, out)
    }

    fn take_answer(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let (slot, attempt) = self.attempt(envelope).ok_or(DropReason::Stale)?;
        let (called, parts) = (attempt.to, attempt.parts);
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
        self.parts = parts;
        // An earlier caller is another process, now gone.
        if !self.knows(*peer) {
            self.confirmed = Some((*peer, 0));
        }
        let peer = *peer;
        self.drop_outlived(now, peer, envelope.seq, out);
        let from_peer = DirectionKey::new(split.responder_to_initiator);
        let to_peer = DirectionKey::new(split.initiator_to_responder);
        let serial = self.next_serial();
        let session = Session { slot, serial, cipher, peer, began_here: true, born: now };
        let attempts = self.call.take().map(|call| call.attempts);
        let mut attempts = attempts.or(self.answered.take().map(|call| call.attempts)).unwrap_or_default();
        attempts.retain(|attempt| attempt.seq > envelope.seq);
        self.answered = Some(Answered { serial, attempts });
        self.live.retain(|live| live.slot != slot);
        let key = Key::Slot { slot, serial, cipher, key: from_peer };
        out.push_back(ReceiveCommand::Accept { key, after: None, named: None }.into());
        let to_peer = Key::Slot { slot: offer.slot, serial, cipher, key: to_peer };
        out.push_back(SendCommand::Prepare(KeySlot::Next, to_peer).into());
        self.adopt(session, KeySlot::Next, out);
        Ok(Outcome::Begun { called })
    }

    /// Whether another peer has just answered an earlier initiation of this call. The first one counts.
    fn is_beaten(&self, now: Instant, peer: &Instance) -> bool {
        self.answered().is_some_and(|(first, _)| first.peer != *peer && now < first.born + ANSWERS_RACE)
    }

    /// The session of an answered call, and later initiations of it. Once the session has ended, another may have its slot.
    fn answered(&self) -> Option<(&Session, &VecDeque<Attempt>)> {
        let Answered { serial, attempts } = self.answered.as_ref()?;
        Some((self.live.iter().find(|live| live.serial == *serial)?, attempts))
    }

    /// Returns the slot of the call and the initiation that this answers.
    fn attempt(&self, answer: &Envelope<'_>) -> Option<(u8, &Attempt)> {
        let call = self.call.as_ref().and_then(|call| Some((call.slot?, &call.attempts)));
        let answered = self.answered().map(|(session, attempts)| (session.slot, attempts));
        let calls = call.into_iter().chain(answered);
        let mut calls = calls.filter(|_| answer.instance == self.instance);
        calls.find_map(|(slot, attempts)| {
            Some((slot, attempts.iter().find(|attempt| attempt.seq == answer.seq)?))
        })
    }

    /// The peer is busy and wants proof of our address: the next initiation is due now. It goes where the answered one
    /// went, wherever this came from.
    pub(super) fn handle_retry(&mut self, cause: &Cause<'_>) -> Result<Outcome, DropReason> {
        let Cause { now, ref envelope, .. } = *cause;
        let ours = envelope.instance == self.instance;
        let call = self.call.as_mut().filter(|_| ours).ok_or(DropReason::Stale)?;
        let called = call.attempts.iter().find(|attempt| attempt.seq == envelope.seq);
        let (called, parts) = called.map(|it| (it.to, it.parts)).ok_or(DropReason::Stale)?;
        let newest = call.attempts.iter().find(|attempt| attempt.to == called);
        let newest = newest.is_some_and(|attempt| attempt.seq == envelope.seq);
        let early =
            call.retried_at.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        if !newest || early {
            return Err(DropReason::Stale);
        }
        call.token = Some((called, envelope.token));
        call.retried_at = Some(now);
        call.parts = Some(parts);
        call.due = now;
        Ok(Outcome::Retry { called })
    }
}
