//! The peer's live key ids, and former ones.

use std::collections::VecDeque;
use std::time::Instant;

use crate::core::key_id::KeyId;
use crate::core::limits::KEY_ID_END;

/// Most live key ids: those of three minutes, or of a peer that keeps restarting.
const LIVE: usize = 8;
/// Former key ids, kept while a recorded hello could revive them.
const ENDED: usize = 64;

#[derive(Clone)]
struct Live {
    key_id: KeyId,
    /// The own key id named when it was taken.
    named: KeyId,
    until: Instant,
}

#[derive(Clone)]
struct Ended {
    key_id: KeyId,
    /// How many own key ids had been drawn when it ended.
    drawn: u64,
}

/// The peer's key ids that were taken.
#[derive(Clone, Default)]
pub struct Taken {
    /// Latest first.
    live: VecDeque<Live>,
    ended: Vec<Ended>,
}

impl Taken {
    /// Whether datagrams under this key id are opened.
    pub fn is_live(&self, key_id: KeyId) -> bool {
        self.live.iter().any(|live| live.key_id == key_id)
    }

    /// The own key id named when this live one was taken.
    pub fn named(&self, key_id: KeyId) -> Option<KeyId> {
        self.live.iter().find(|live| live.key_id == key_id).map(|live| live.named)
    }

    /// Whether it was live since this end drew the oldest own key id that may be named.
    pub fn was_live(&self, key_id: KeyId) -> bool {
        self.ended.iter().any(|ended| ended.key_id == key_id)
    }

    /// Whether `one` was taken after `other`; both are live.
    pub fn is_later(&self, one: KeyId, other: KeyId) -> bool {
        let place = |key_id| self.live.iter().position(|live| live.key_id == key_id);
        place(one) < place(other)
    }

    /// Makes a key id live; returns the one evicted.
    pub fn take(&mut self, now: Instant, key_id: KeyId, named: KeyId, drawn: u64) -> Option<KeyId> {
        self.live.push_front(Live { key_id, named, until: now + KEY_ID_END });
        let oldest = if self.live.len() > LIVE { self.live.pop_back() } else { None };
        oldest.map(|live| self.end(live.key_id, drawn))
    }

    /// Returns a key id that has expired.
    pub fn poll_ended(&mut self, now: Instant, drawn: u64) -> Option<KeyId> {
        let index = self.live.iter().position(|live| live.until <= now)?;
        let live = self.live.remove(index)?;
        Some(self.end(live.key_id, drawn))
    }

    /// When the first of them expires.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.live.iter().map(|live| live.until).min()
    }

    /// Forgets those that ended before the own key id of this number was drawn: no valid hello names an earlier one.
    pub fn forget_before(&mut self, oldest_named: u64) {
        self.ended.retain(|ended| ended.drawn >= oldest_named);
    }

    /// Whether more of them ended than are kept.
    pub fn is_full(&self) -> bool {
        self.ended.len() > ENDED
    }

    /// Those that ended, each with the number of own key ids drawn by then.
    #[cfg(test)]
    pub fn ended(&self) -> impl Iterator<Item = (KeyId, u64)> + '_ {
        self.ended.iter().map(|ended| (ended.key_id, ended.drawn))
    }

    fn end(&mut self, key_id: KeyId, drawn: u64) -> KeyId {
        self.ended.push(Ended { key_id, drawn });
        key_id
    }
}
