//! Answers to the peer's calls: which of them get one, and whose session waits for its confirmation.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Instance, Outcome, Session, Sessions, Token, Unconfirmed, handshake};
use crate::core::lane::{Command, Key, KeySlot, ReceiveCommand, Received, SendCommand};
use crate::core::limits::ANSWER_KEPT;
use crate::core::stats::DropReason;
use crate::crypto::keys::DirectionKey;
use crate::crypto::noise::Responder;
use crate::crypto::suite::Cipher;
use crate::crypto::{Random, wrap};
#[cfg(test)]
use crate::fault::{self, Fault};
use crate::wire::handshake::{Envelope, Offer, Type, prologue};

impl Sessions {
    pub(super) fn handle_initiation(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        received: &Received,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let Envelope { instance, seq, token, .. } = *envelope;
        if instance == self.instance {
            return Err(DropReason::Reflected);
        }
        if self.was_taken(instance, seq) {
            return Err(DropReason::Replayed);
        }
        let known = self.confirmed.is_some_and(|(confirmed, _)| confirmed == instance);
        let proven = self.tokens.prove(now, &instance, received.from.remote, &token);
        if !known && !proven && !self.callers.allows(now, instance) {
            return Err(DropReason::RateLimited);
        }
        if !proven && self.others_wait(now, instance) {
            let token = self.tokens.of(now, &instance, received.from.remote);
            self.send_answer(Type::Retry, envelope, token, &[], received, random, out);
            return Ok(Outcome::Nothing);
        }
        #[cfg(test)]
        if fault::is(Fault::AnswerKept) && !known && self.unconfirmed.as_ref().is_some_and(|it| it.known) {
            return Err(DropReason::RateLimited);
        }
        let head = prologue(&instance, seq, &token);
        let (payload, responder) = Responder::read(&self.statics, &self.keys.psk(), &head, envelope.message)
            .map_err(|_| DropReason::BadTag)?;
        let offer = Offer::decode(&payload).map_err(|_| DropReason::Malformed)?;
        self.drop_unconfirmed(out);
        let cipher = common(&self.suites, &offer.suites);
        let slot = self.free_slot();
        let chosen = Offer { slot, lanes: 1, suites: cipher.into_iter().collect() }.encode();
        let mut message = Vec::new();
        let answer = [&self.instance[..], &chosen].concat();
        let split = responder.write(&answer, random, &mut message).map_err(|_| DropReason::BadTag)?;
        self.send_answer(Type::Answer, envelope, token, &message, received, random, out);
        let Some(cipher) = cipher else { return Ok(Outcome::NoCipher) };
        let serial = self.next_serial();
        let key = |slot, bytes| Key::Slot { slot, serial, cipher, key: DirectionKey::new(bytes) };
        let key_in = key(slot, split.initiator_to_responder);
        let to_peer = key(offer.slot, split.responder_to_initiator);
        out.push_back(ReceiveCommand::Accept { key: key_in, after: None }.into());
        out.push_back(SendCommand::Prepare(KeySlot::Unconfirmed, to_peer).into());
        let (peer, began_here, born) = (instance, false, now);
        let session = Session { slot, serial, cipher, instance, peer, began_here, born };
        #[cfg(test)]
        if fault::is(Fault::NotConfirmed) {
            self.adopt(session, KeySlot::Unconfirmed, out);
            return Ok(Outcome::Nothing);
        }
        self.unconfirmed = Some(Unconfirmed { session, seq, known });
        Ok(Outcome::Nothing)
    }

    /// Whether an initiation of this instance was taken that is as new as this one.
    fn was_taken(&self, instance: [u8; 8], seq: u64) -> bool {
        #[cfg(test)]
        if fault::is(Fault::InitiationRepeated) {
            return false;
        }
        let waiting = self.unconfirmed.as_ref().map(|there| (there.session.instance, there.seq));
        let mut taken = self.confirmed.into_iter().chain(waiting);
        taken.any(|(of, newest)| of == instance && seq <= newest)
    }

    /// Whether the answer to another instance may be about to be confirmed: it keeps its place against all who prove no
    /// more by a token. To be known proves nothing: calls of that instance may have been kept back.
    fn others_wait(&self, now: Instant, instance: Instance) -> bool {
        #[cfg(test)]
        if fault::is(Fault::UnprovenDisplaces) {
            return false;
        }
        self.unconfirmed
            .as_ref()
            .is_some_and(|there| there.session.instance != instance && now < there.session.born + ANSWER_KEPT)
    }

    /// An answer or retry, of a random length no longer than what it answers.
    #[allow(clippy::too_many_arguments, reason = "one call for both kinds of answer")]
    fn send_answer(
        &self,
        kind: Type,
        cause: &Envelope<'_>,
        token: Token,
        message: &[u8],
        received: &Received,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) {
        let envelope = Envelope { kind, instance: cause.instance, seq: cause.seq, token, message };
        let least = wrap::OVERHEAD + envelope.length();
        let Some(room) = received.datagram.len().checked_sub(least) else { return };
        let [a, b] = random.bytes();
        let length = least + usize::from(u16::from_be_bytes([a, b])) % (room + 1);
        out.push_back(handshake(&self.keys, &envelope, length, received.from, random));
    }
}

/// AES-256-GCM if it is first in both lists, else ChaCha20-Poly1305 if it is in both, else the only common
/// one.
fn common(ours: &[Cipher], theirs: &[Cipher]) -> Option<Cipher> {
    let first = ours.first().filter(|first| theirs.first() == Some(first)).copied();
    let both = |cipher: &Cipher| ours.contains(cipher) && theirs.contains(cipher);
    first
        .filter(|first| *first == Cipher::Aes256Gcm)
        .or(Some(Cipher::ChaCha20Poly1305).filter(both))
        .or(Some(Cipher::Aes256Gcm).filter(both))
}
