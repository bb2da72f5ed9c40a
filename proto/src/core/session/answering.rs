//! Answers to the peer's calls: which get one, and whose session awaits confirmation.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Cause, Instance, Outcome, Session, Sessions, Token, Unconfirmed, handshake};
use crate::core::lane::{Command, Key, KeySlot, ReceiveCommand, SendCommand};
use crate::core::limits::ANSWER_KEPT;
use crate::core::stats::DropReason;
use crate::crypto::exchange::Responder;
use crate::crypto::keys::DirectionKey;
use crate::crypto::suite::Cipher;
use crate::crypto::{Random, wrap};
use crate::wire::handshake::{Envelope, Kind, Offer, Type, parts, prologue};

impl Sessions {
    pub(super) fn handle_initiation(
        &mut self,
        cause: &Cause<'_>,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let Envelope { of, instance, seq, token, .. } = cause.envelope;
        if instance == self.instance {
            return Err(DropReason::Reflected);
        }
        if self.was_taken(instance, seq) {
            return Err(DropReason::Replayed);
        }
        let proven = self.tokens.prove(cause.now, &instance, cause.from.remote, &token);
        if of.part != 0 {
            return self.handle_part(cause, proven, random, out);
        }
        self.answer(cause, proven, random, out)
    }

    /// Handles a part of an initiation. Parts without a valid token share one place, kept for one message for a while; those with
    /// a token have another.
    fn handle_part(
        &mut self,
        cause: &Cause<'_>,
        proven: bool,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let Cause { now, envelope: Envelope { of, instance, .. }, .. } = *cause;
        if !proven && self.unproven.is_taken(now, &cause.envelope) {
            if of.part != 1 || !self.knows(instance) && !self.callers.allows(now, instance) {
                return Err(DropReason::RateLimited);
            }
            self.send_retry(cause, random, out);
            return Ok(Outcome::Nothing);
        }
        let held = if proven { &mut self.proven } else { &mut self.unproven };
        let Some((message, length)) = held.take(now, &cause.envelope, cause.length) else {
            return Ok(Outcome::Nothing);
        };
        let envelope = Envelope { message: &message, ..cause.envelope };
        self.answer(&Cause { envelope, length, ..*cause }, proven, random, out)
    }

    /// Answers a complete initiation, if it is its turn.
    fn answer(
        &mut self,
        cause: &Cause<'_>,
        proven: bool,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let Cause { now, envelope: Envelope { instance, seq, token, message, .. }, .. } = *cause;
        let known = self.knows(instance);
        if !known && !proven && !self.callers.allows(now, instance) {
            return Err(DropReason::RateLimited);
        }
        if !proven && self.others_wait(now, instance) {
            self.send_retry(cause, random, out);
            return Ok(Outcome::Nothing);
        }
        let head = prologue(self.pattern.exchange, &instance, seq, &token);
        let (payload, responder) = Responder::read(&self.pattern, &self.keys.psk(), &head, message)
            .map_err(|_| DropReason::BadTag)?;
        let offer = Offer::decode(&payload).map_err(|_| DropReason::Malformed)?;
        self.drop_unconfirmed(out);
        let cipher = common(&self.suites, &offer.suites);
        let slot = self.free_slot();
        let chosen = Offer { slot, lanes: 1, suites: cipher.into_iter().collect() }.encode();
        let mut message = Vec::new();
        let answer = [&self.instance[..], &chosen].concat();
        let split = responder.write(&answer, random, &mut message).map_err(|_| DropReason::BadTag)?;
        let Some(cipher) = cipher else {
            self.send_answer(Kind::Answer, cause, token, &message, random, out);
            return Ok(Outcome::NoCipher);
        };
        let serial = self.next_serial();
        let key = |slot, bytes| Key::Slot { slot, serial, cipher, key: DirectionKey::new(bytes) };
        let key_in = key(slot, split.initiator_to_responder);
        let to_peer = key(offer.slot, split.responder_to_initiator);
        out.push_back(ReceiveCommand::Accept { key: key_in, after: None, named: None }.into());
        out.push_back(SendCommand::Prepare(KeySlot::Unconfirmed, to_peer).into());
        // The peer may use any lane once it has this.
        self.send_answer(Kind::Answer, cause, token, &message, random, out);
        let session = Session { slot, serial, cipher, peer: instance, began_here: false, born: now };
        self.unconfirmed = Some(Unconfirmed { session, seq, known, after: self.seq });
        Ok(Outcome::Answered { caller: instance })
    }

    /// Whether an initiation of this instance, at least as new, was accepted.
    fn was_taken(&self, instance: Instance, seq: u64) -> bool {
        let waiting = self.unconfirmed.as_ref().map(|there| (there.session.peer, there.seq));
        let mut taken = self.confirmed.into_iter().chain(waiting);
        taken.any(|(of, newest)| of == instance && seq <= newest)
    }

    /// Whether the answer to another instance may be about to be confirmed. It keeps its place against all without the
    /// better proof of a token. A known instance proves nothing: its calls may have been withheld.
    fn others_wait(&self, now: Instant, instance: Instance) -> bool {
        self.unconfirmed
            .as_ref()
            .is_some_and(|there| there.session.peer != instance && now < there.session.born + ANSWER_KEPT)
    }

    /// Sends a retry with a token for the address that the initiation came from.
    fn send_retry(&self, cause: &Cause<'_>, random: &mut impl Random, out: &mut VecDeque<Command>) {
        let token = self.tokens.of(cause.now, &cause.envelope.instance, cause.from.remote);
        self.send_answer(Kind::Retry, cause, token, &[], random, out);
    }

    /// Sends an answer or retry, of random length but no longer than its cause; a split answer to a split initiation.
    fn send_answer(
        &self,
        kind: Kind,
        cause: &Cause<'_>,
        token: Token,
        message: &[u8],
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) {
        let Envelope { of, instance, seq, .. } = cause.envelope;
        let part = if kind == Kind::Answer { of.part } else { 0 };
        let envelope = Envelope { of: Type { kind, part, ..of }, instance, seq, token, message };
        let longest = parts(message).next().filter(|_| part != 0).map_or(message, |(_, first)| first).len();
        if wrap::OVERHEAD + envelope.length() - message.len() + longest <= cause.length {
            handshake(&self.keys, &envelope, 0..=cause.length, cause.from, random, out);
        }
    }
}

/// AES-256-GCM if first in both lists, else ChaCha20-Poly1305 if in both, else the only common one.
fn common(ours: &[Cipher], theirs: &[Cipher]) -> Option<Cipher> {
    let first = ours.first().filter(|first| theirs.first() == Some(first)).copied();
    let both = |cipher: &Cipher| ours.contains(cipher) && theirs.contains(cipher);
    first
        .filter(|first| *first == Cipher::Aes256Gcm)
        .or(Some(Cipher::ChaCha20Poly1305).filter(both))
        .or(Some(Cipher::Aes256Gcm).filter(both))
}
