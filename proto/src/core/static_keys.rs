//! Static mode: which key ids of the peer are accepted (PROTOCOL.md §4.2), and which own ones are in use.
//!
//! A key id is accepted from the counter of a hello that came under it and named a key id drawn by this process. So
//! whatever is delivered was sealed after this process started, and a key id that was live since is not accepted again:
//! nothing is delivered twice, without a clock and without anything on disk.

mod sending;
mod taken;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Now;
use super::condition::Condition;
use super::key_id::KeyId;
use super::lane::{Received, unmask};
use super::limits::{COUNTER_END, DERIVATION, DERIVATIONS, KEY_ID_RETIRE, PRESENTATION};
use super::rate::RateLimiter;
use super::replay_cache::ReplayCache;
use super::stats::DropReason;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::crypto::suite::Cipher;
use crate::wire::control::{self, Hello, Message};
use crate::wire::datagram::{Framing, Kind};

use sending::Sending;
use taken::Taken;

/// What to do about a datagram whose key id was not live in the lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The key id has become live: open the datagram again.
    Again(Received),
    /// The key id is now live, for counters above this one; the peer's hello.
    Taken {
        /// The hello's counter.
        after: u32,
        /// The own key id that it names.
        named: KeyId,
        /// The hello.
        hello: Hello,
        /// The key id that is no longer live in exchange.
        ended: Option<KeyId>,
    },
    /// Someone has the key, or a recording from someone who had it: present this end, in no more bytes than came.
    Present,
    /// From the peer, but sealed in a way that this end does not open; why.
    Misfit(Condition),
    /// Drop it.
    Dropped(DropReason),
}

/// Classes of datagrams whose key id is not live, for limits. Recordings are older than what the peer says now, or no
/// control messages, so a flood of them cannot use up the peer's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A control message of a key id at least as new as any that verified here.
    Newest,
    /// Anything else.
    Other,
}

/// A verified datagram.
struct Opened {
    class: Class,
    counter: u32,
    /// `None`: not a control message, or of unknown type.
    message: Option<Message>,
}

/// The key ids of both directions.
#[derive(Clone)]
pub struct StaticKeys {
    keys: Arc<LinkKeys>,
    cipher: Cipher,
    direction: u8,
    /// Shortest datagram that presents this end, in bytes.
    shortest: usize,
    /// The clock at the start, in microseconds since the Unix epoch.
    since: u64,
    sending: Sending,
    taken: Taken,
    /// Latest time of a verified key id, in microseconds since the Unix epoch.
    newest: u64,
    /// Tags of verified datagrams whose key ids are not live.
    copies: ReplayCache,
    /// By [`Class`].
    derivations: [RateLimiter; 2],
    /// By [`Class`].
    presentations: [RateLimiter; 2],
    retired_at: Option<Instant>,
}

impl StaticKeys {
    /// No key ids yet. `direction` is this end's sending direction, `shortest` the length in bytes of the shortest datagram that presents
    /// it.
    pub fn new(keys: Arc<LinkKeys>, cipher: Cipher, direction: u8, shortest: usize, now: Now) -> Self {
        Self {
            keys,
            cipher,
            direction,
            shortest,
            since: now.wall,
            sending: Sending::new(now.instant),
            taken: Taken::default(),
            newest: 0,
            copies: ReplayCache::default(),
            derivations: [RateLimiter::new(DERIVATIONS, DERIVATION); 2],
            presentations: [RateLimiter::new(1, PRESENTATION); 2],
            retired_at: None,
        }
    }

    /// Draws an own key id for immediate use.
    pub fn draw(&mut self, now: Now, random: &mut impl Random) -> KeyId {
        let key_id = self.sending.draw(now, &self.keys, random);
        self.sending.settle();
        self.taken.forget_before(self.sending.oldest_named());
        key_id
    }

    /// Draws an own key id for use once the peer says that it took it.
    pub fn propose(&mut self, now: Now, random: &mut impl Random) -> KeyId {
        let key_id = self.draw(now, random);
        self.sending.propose(now.instant, key_id);
        key_id
    }

    /// The peer named this key id. True: it is the proposed one, now in use.
    pub fn handle_named(&mut self, key_id: KeyId) -> bool {
        let is_next = self.sending.proposed() == Some(key_id);
        if is_next {
            self.sending.settle();
        }
        is_next
    }

    /// The own key ids and their schedule.
    pub fn sending(&mut self) -> &mut Sending {
        &mut self.sending
    }

    /// Age of the latest own key id, and the cipher.
    pub fn current(&self, now: Instant) -> (Duration, Cipher) {
        (self.sending.age(now), self.cipher)
    }

    /// Whether the peer's datagrams under this key id are opened.
    pub fn is_live(&self, key_id: KeyId) -> bool {
        self.taken.is_live(key_id)
    }

    /// The own key id named when this live key id of the peer was taken.
    pub fn named(&self, key_id: KeyId) -> Option<KeyId> {
        self.taken.named(key_id)
    }

    /// Whether input under `key_id` may end what came under `present`, a live key id of the peer.
    pub fn supersedes(&self, key_id: KeyId, present: KeyId) -> bool {
        key_id == present || key_id.time() > present.time() && self.taken.is_later(key_id, present)
    }

    /// Judges a datagram whose key id has a right check but is not live in the lane. `up`: whether the link is.
    pub fn handle_unknown(&mut self, now: Now, key_id: KeyId, received: Received, up: bool) -> Verdict {
        if self.taken.is_live(key_id) {
            return Verdict::Again(received);
        }
        match self.verify(now, key_id, &received, up) {
            Ok(Opened { counter, message: Some(Message::Hello(hello)), .. })
                if let Some(named) = self.taken_for(key_id, &hello) =>
            {
                let ended = self.take(now.instant, key_id, named);
                Verdict::Taken { after: counter, named, hello, ended }
            }
            Ok(opened) => self.present(now.instant, key_id, opened.class, &received, up),
            Err(DropReason::BadTag) => {
                self.misfit(key_id, &received).map_or(Verdict::Dropped(DropReason::BadTag), Verdict::Misfit)
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Returns a key id of the peer that has expired. Call it until there is none.
    pub fn poll_ended(&mut self, now: Instant) -> Option<KeyId> {
        let ended = self.taken.poll_ended(now, self.sending.drawn());
        self.make_room(now);
        ended
    }

    /// When something is next due.
    pub fn poll_timeout(&self) -> Instant {
        self.taken.poll_timeout().into_iter().fold(self.sending.poll_timeout(), Instant::min)
    }

    /// Forgets the peer's key ids, and takes none until it names a key id drawn from now on.
    pub fn reset(&mut self) {
        self.taken = Taken::default();
        self.sending.disown();
    }

    fn take(&mut self, now: Instant, key_id: KeyId, named: KeyId) -> Option<KeyId> {
        let ended = self.taken.take(now, key_id, named, self.sending.drawn());
        self.make_room(now);
        ended
    }

    /// If more key ids ended than can be remembered, accepts only hellos that name a later own key id.
    fn make_room(&mut self, now: Instant) {
        if self.taken.is_full() {
            self.retire(now);
        }
    }

    /// From now on accepts only hellos that name an own key id yet to be drawn.
    fn retire(&mut self, now: Instant) {
        self.sending.disown();
        self.taken.forget_before(self.sending.oldest_named());
        self.sending.expire(now);
    }

    /// Returns the own key id by which a hello, verified under `key_id`, makes that live, if it does.
    fn taken_for(&self, key_id: KeyId, hello: &Hello) -> Option<KeyId> {
        let named = hello.heard.map(KeyId).filter(|own| self.sending.may_be_named(*own));
        named.filter(|_| !self.taken.was_live(key_id))
    }

    /// Opens a datagram that is neither a copy nor over the limits.
    fn verify(
        &mut self,
        now: Now,
        key_id: KeyId,
        received: &Received,
        up: bool,
    ) -> Result<Opened, DropReason> {
        if self.sending.is_own(key_id) {
            return Err(DropReason::Reflected);
        }
        let tag = Framing::Static.tag(&received.datagram).ok_or(DropReason::TooShort)?;
        if self.copies.contains(tag) {
            return Err(DropReason::Replayed);
        }
        // With a link, nobody needs it. Without one, its sender may be the peer that this end lost.
        if up && self.taken.was_live(key_id) {
            return Err(DropReason::Stale);
        }
        let (_, header) = unmask(&self.keys.mask(&tag), &received.datagram);
        let is_newest = key_id.time() >= self.newest && header.kind == Kind::Control;
        let class = if is_newest { Class::Newest } else { Class::Other };
        if !self.derivations[class as usize].allow(now.instant) {
            return Err(DropReason::RateLimited);
        }
        let body = self.open(self.cipher, 1 - self.direction, key_id, received)?;
        self.copies.insert(tag);
        self.newest = self.newest.max(key_id.time());
        if header.slot != 0 || header.lane != 0 || header.counter >= COUNTER_END {
            return Err(DropReason::Malformed);
        }
        let message = match header.kind {
            Kind::Control => control::decode(&body).map_err(|_| DropReason::Malformed)?,
            Kind::Frame | Kind::Block | Kind::Reserved => None,
        };
        Ok(Opened { class, counter: header.counter, message })
    }

    /// Tells the sender of what verified under `key_id` a key id to name.
    fn present(
        &mut self,
        now: Instant,
        key_id: KeyId,
        class: Class,
        received: &Received,
        up: bool,
    ) -> Verdict {
        if received.datagram.len() < self.shortest {
            return Verdict::Dropped(DropReason::Stale);
        }
        if !self.presentations[class as usize].allow(now) {
            return Verdict::Dropped(DropReason::RateLimited);
        }
        // It can be taken again only by naming an own key id drawn from now on.
        let recent = self.retired_at.is_some_and(|at| now < at + KEY_ID_RETIRE);
        if !up && !recent && self.taken.was_live(key_id) {
            self.retired_at = Some(now);
            self.retire(now);
        }
        Verdict::Present
    }

    /// Why a datagram with a right key id does not verify, if another setting explains it.
    fn misfit(&self, key_id: KeyId, received: &Received) -> Option<Condition> {
        let other = match self.cipher {
            Cipher::ChaCha20Poly1305 => Cipher::Aes256Gcm,
            Cipher::Aes256Gcm => Cipher::ChaCha20Poly1305,
        };
        let theirs = 1 - self.direction;
        if self.open(self.cipher, self.direction, key_id, received).is_ok() {
            // This end may have drawn an older key id itself, before a restart.
            Some(if key_id.time() < self.since {
                Condition::OwnDatagrams
            } else {
                Condition::DirectionMismatch
            })
        } else if self.open(other, theirs, key_id, received).is_ok() {
            Some(Condition::CipherMismatch)
        } else {
            None
        }
    }

    /// Opens the body of a datagram under the key id's own key.
    fn open(
        &self,
        cipher: Cipher,
        direction: u8,
        key_id: KeyId,
        received: &Received,
    ) -> Result<Vec<u8>, DropReason> {
        let mut datagram = received.datagram.clone();
        let tag = Framing::Static.tag(&datagram).ok_or(DropReason::TooShort)?;
        let (_, header) = unmask(&self.keys.mask(&tag), &datagram);
        let aead = self.keys.static_key(cipher, direction, &key_id.0);
        let range = Framing::Static.body(datagram.len());
        aead.open(header.counter, &header.emit(), &mut datagram[range.start..])
            .map_err(|_| DropReason::BadTag)?;
        Ok(datagram[range].to_vec())
    }
}

#[cfg(test)]
mod tests;
