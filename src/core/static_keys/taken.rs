//! The peer's sids that are live here, and those that were.

use std::collections::VecDeque;
use std::time::Instant;

use crate::core::limits::SID_END;
use crate::core::sid::Sid;

/// Sids that are live at the same time: those of three minutes, and those of a peer that is restarted over and over.
const LIVE: usize = 8;
/// Sids that were live, kept for as long as a recorded hello could bring them back.
const ENDED: usize = 64;

#[derive(Clone)]
struct Live {
    sid: Sid,
    until: Instant,
}

#[derive(Clone)]
struct Ended {
    sid: Sid,
    /// How many own sids had been drawn when it ended.
    drawn: u64,
}

/// Which sids of the peer were taken.
#[derive(Clone, Default)]
pub struct Taken {
    /// What was taken last comes first.
    live: VecDeque<Live>,
    ended: Vec<Ended>,
}

impl Taken {
    /// Whether datagrams of this sid are opened.
    pub fn is_live(&self, sid: Sid) -> bool {
        self.live.iter().any(|live| live.sid == sid)
    }

    /// Whether it was live since this end drew the oldest own sid that may be named.
    pub fn was_live(&self, sid: Sid) -> bool {
        self.ended.iter().any(|ended| ended.sid == sid)
    }

    /// Whether `one` was taken after `other`; both are live.
    pub fn is_later(&self, one: Sid, other: Sid) -> bool {
        let place = |sid| self.live.iter().position(|live| live.sid == sid);
        place(one) < place(other)
    }

    /// Makes a sid live that is not; gives the one that has to go for it.
    pub fn take(&mut self, now: Instant, sid: Sid, drawn: u64) -> Option<Sid> {
        self.live.push_front(Live { sid, until: now + SID_END });
        let oldest = if self.live.len() > LIVE { self.live.pop_back() } else { None };
        oldest.map(|live| self.end(live.sid, drawn))
    }

    /// A sid that has run out of time by now.
    pub fn poll_ended(&mut self, now: Instant, drawn: u64) -> Option<Sid> {
        let index = self.live.iter().position(|live| live.until <= now)?;
        let live = self.live.remove(index)?;
        Some(self.end(live.sid, drawn))
    }

    /// When the first of them ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.live.iter().map(|live| live.until).min()
    }

    /// Forgets those that ended before the own sid of this number was drawn: no hello that still counts names one.
    pub fn forget_before(&mut self, oldest_named: u64) {
        self.ended.retain(|ended| ended.drawn >= oldest_named);
    }

    /// Whether there are more of them than are kept.
    pub fn is_full(&self) -> bool {
        self.ended.len() > ENDED
    }

    /// Those that ended, each with how many own sids had been drawn then.
    #[cfg(test)]
    pub fn ended(&self) -> impl Iterator<Item = (Sid, u64)> + '_ {
        self.ended.iter().map(|ended| (ended.sid, ended.drawn))
    }

    fn end(&mut self, sid: Sid, drawn: u64) -> Sid {
        self.ended.push(Ended { sid, drawn });
        sid
    }
}
