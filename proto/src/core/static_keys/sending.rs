//! This end's key ids: the current one, the next, and those that the peer may name.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::core::clock::Now;
use crate::core::key_id::KeyId;
use crate::core::limits::{HELLO_FIRST, KEY_ID_LIFE};
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;

/// Own key ids that the peer may name: the current, the previous and the next one, since a hello may be under way while this
/// end changes.
const NAMED: u64 = 3;
/// Own key ids remembered to recognise reflections.
const RECENT: usize = 16;

/// A key id proposed to the peer, used once the peer says that it has it.
#[derive(Clone)]
struct Proposal {
    key_id: KeyId,
    repeat_at: Instant,
}

/// The key ids drawn by this end.
#[derive(Clone)]
pub struct Sending {
    last_time: u64,
    /// How many were drawn.
    drawn: u64,
    /// Latest first.
    recent: VecDeque<KeyId>,
    /// Number of the first that the peer may name, from one.
    named_from: u64,
    renew_at: Instant,
    next: Option<Proposal>,
}

impl Sending {
    /// Nothing drawn yet.
    pub fn new(now: Instant) -> Self {
        Self {
            last_time: 0,
            drawn: 0,
            recent: VecDeque::with_capacity(RECENT + 1),
            named_from: 1,
            renew_at: now,
            next: None,
        }
    }

    /// Draws a key id; its time is now, or just after the previous one's.
    pub fn draw(&mut self, now: Now, keys: &LinkKeys, random: &mut impl Random) -> KeyId {
        let time = now.wall.max(self.last_time + 1);
        self.last_time = time;
        self.drawn += 1;
        self.renew_at = now.instant + KEY_ID_LIFE;
        let key_id = KeyId::new(keys, time, random.bytes());
        self.recent.push_front(key_id);
        self.recent.truncate(RECENT);
        key_id
    }

    /// The number of key ids drawn.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Whether this end recently drew that key id.
    pub fn is_own(&self, key_id: KeyId) -> bool {
        self.recent.contains(&key_id)
    }

    /// Whether a hello that names this key id was sealed after this end drew one that still counts.
    pub fn may_be_named(&self, key_id: KeyId) -> bool {
        let oldest = self.oldest_named();
        let numbers = (1..=self.drawn).rev();
        self.recent.iter().zip(numbers).any(|(own, number)| *own == key_id && number >= oldest)
    }

    /// The number of the oldest key id that may be named.
    pub fn oldest_named(&self) -> u64 {
        self.named_from.max((self.drawn + 1).saturating_sub(NAMED))
    }

    /// Invalidates all key ids drawn so far for naming, including a proposed one.
    pub fn disown(&mut self) {
        self.named_from = self.drawn + 1;
        self.next = None;
    }

    /// The drawn key id awaits the peer's confirmation.
    pub fn propose(&mut self, now: Instant, key_id: KeyId) {
        self.next = Some(Proposal { key_id, repeat_at: now + HELLO_FIRST });
    }

    /// The key id awaiting the peer's confirmation.
    pub fn proposed(&self) -> Option<KeyId> {
        self.next.as_ref().map(|next| next.key_id)
    }

    /// Whether to repeat the proposal now; the next time is a second later.
    pub fn poll_proposal(&mut self, now: Instant) -> bool {
        let Some(next) = self.next.as_mut().filter(|next| next.repeat_at <= now) else { return false };
        next.repeat_at = now + HELLO_FIRST;
        true
    }

    /// Ends the proposal: it is in use, or another that needs no confirmation.
    pub fn settle(&mut self) {
        self.next = None;
    }

    /// Makes a new key id due now, unless one is proposed.
    pub fn expire(&mut self, now: Instant) {
        self.renew_at = self.renew_at.min(now);
    }

    /// Age of the latest key id.
    pub fn age(&self, now: Instant) -> Duration {
        (now + KEY_ID_LIFE).saturating_duration_since(self.renew_at)
    }

    /// Whether to draw a new key id.
    pub fn is_renewal_due(&self, now: Instant) -> bool {
        self.next.is_none() && self.renew_at <= now
    }

    /// When something is next due.
    pub fn poll_timeout(&self) -> Instant {
        self.next.as_ref().map_or(self.renew_at, |next| next.repeat_at)
    }
}
