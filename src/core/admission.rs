//! Which sids of the peer become live (PROTOCOL.md §4.2): by the clock and the floor, or by a challenge.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Now;
use super::lane::{Received, unmask};
use super::limits::{
    CHALLENGE_INTERVAL, CHALLENGE_LIFE, CHALLENGES, DERIVATIONS, PENDING_DATAGRAMS, PENDING_SIDS, SID_CLOCK,
};
use super::pace::Pace;
use super::path::Path;
use super::sid::Sid;
use super::stats::Drop;
use crate::config::Cipher;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
#[cfg(test)]
use crate::fault::{self, Fault};
use crate::wire::control::{self, Message};
use crate::wire::datagram::{Framing, Kind};

/// Length of the control message that carries a challenge, of a sid or of a path, in bytes.
pub const CHALLENGE_BODY: usize = 20;
/// Length of a datagram that carries a challenge, in bytes; nothing shorter is challenged.
pub const CHALLENGE_DATAGRAM: usize = Framing::Static.overhead() + CHALLENGE_BODY;

/// What to do about a datagram of a sid that was not live in the lane when it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The sid is live by now: open the datagram again.
    Again(Received),
    /// Kept until the floor is written.
    Held,
    /// Kept; write this floor.
    Floor(u64),
    /// The peer challenges us: reply along this way under a new sid.
    Reply {
        /// What it sent.
        challenge: [u8; 16],
        /// How old its sid is.
        age: Age,
        /// The way it came.
        to: Path,
    },
    /// Challenge whoever is there.
    Challenge {
        /// What to send.
        challenge: [u8; 16],
        /// Where to.
        to: Path,
    },
    /// The sid answered a challenge.
    Proven {
        /// It is live now, and its datagram is to be opened again; `None`: when the floor is written, or when
        /// the peer uses it.
        live: Option<(Sid, Received)>,
        /// Peer's clock minus ours, in microseconds.
        skew: i64,
        /// A floor to write: that of the sid, or a first one where there was none.
        floor: Option<u64>,
    },
    /// From the peer, but sealed in a way this end does not open: one line says how to mend it.
    Misfit(&'static str),
    /// The peer uses the sid that it proved: it is live now, and these datagrams are to be opened again.
    InUse(Sid, Vec<Received>),
    /// No further.
    Dropped(Drop),
}

struct Pending {
    sid: Sid,
    floor: u64,
    held: Vec<Received>,
}

struct Challenge {
    value: [u8; 16],
    to: Path,
    at: Instant,
}

/// How a sid's time compares with all that verified before. What is replayed is old as soon as anything later
/// was seen; it has limits of its own, so that no flood of it uses up those of the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// None that verified is newer.
    Newest,
    /// One is.
    Old,
}

/// The gate that a sid passes once.
pub struct Admission {
    keys: Arc<LinkKeys>,
    cipher: Cipher,
    direction: u8,
    /// The clock at the start, in microseconds.
    since: u64,
    floor: Option<u64>,
    writable: bool,
    live: Option<Sid>,
    /// The greatest time of a sid that was live here: none is taken by its time twice.
    taken: u64,
    pending: VecDeque<Pending>,
    /// A sid that answered a challenge while the peer was heard under another, and the datagram.
    proven: Option<(Sid, Received)>,
    challenges: VecDeque<Challenge>,
    /// The greatest time of a sid under which something verified.
    newest: u64,
    /// For each [`Age`].
    challenged_at: [Option<Instant>; 2],
    /// For each [`Age`].
    derivations: [Pace; 2],
}

impl Admission {
    /// A gate with nothing live; `since` is the clock at the start, in microseconds.
    pub fn new(
        keys: Arc<LinkKeys>,
        cipher: Cipher,
        direction: u8,
        floor: Option<u64>,
        writable: bool,
        since: u64,
    ) -> Self {
        Self {
            keys,
            cipher,
            direction,
            since,
            floor,
            writable,
            live: None,
            taken: 0,
            pending: VecDeque::new(),
            proven: None,
            challenges: VecDeque::new(),
            newest: 0,
            challenged_at: [None; 2],
            derivations: [Pace::default(); 2],
        }
    }

    /// Judges a datagram whose sid passed its keyed check but is not live in the lane; `settled`: the link is up,
    /// and the peer is heard under a sid that is.
    pub fn handle_unknown(
        &mut self,
        now: Now,
        sid: Sid,
        received: Received,
        settled: bool,
        random: &mut impl Random,
    ) -> Verdict {
        if self.live == Some(sid) {
            return Verdict::Again(received);
        }
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.sid == sid) {
            if pending.held.len() >= PENDING_DATAGRAMS {
                return Verdict::Dropped(Drop::QueueFull);
            }
            pending.held.push(received);
            return Verdict::Held;
        }
        let age = if sid.time() >= self.newest { Age::Newest } else { Age::Old };
        if !self.may_derive(now.instant, age) {
            return Verdict::Dropped(Drop::RateLimited);
        }
        let opened = self.open(sid, &received);
        if opened.is_ok() {
            self.newest = self.newest.max(sid.time());
        }
        // One that came late is older than what the peer uses by now.
        if opened.is_ok()
            && sid.time() > self.live.map_or(0, |live| live.time())
            && let Some((_, first)) = self.proven.take_if(|(of, first)| *of == sid && *first != received)
        {
            return self.use_proven(now, sid, vec![first, received]);
        }
        match opened {
            Err(Drop::BadTag) => match self.misfit(sid, &received) {
                Some(text) => Verdict::Misfit(text),
                None => Verdict::Dropped(Drop::BadTag),
            },
            Err(reason) => Verdict::Dropped(reason),
            Ok(Some(Message::Challenge { challenge })) => {
                Verdict::Reply { challenge, age, to: received.from }
            }
            Ok(Some(Message::ChallengeReply { challenge })) if self.answers(now, &received, challenge) => {
                self.prove(now, sid, received, settled)
            }
            #[cfg(test)]
            Ok(Some(_)) if fault::is(Fault::ChallengeNotRequired) => self.prove(now, sid, received, false),
            // What answers nothing of ours makes nothing live: it may be drawn out of the peer at will.
            Ok(Some(Message::ChallengeReply { .. })) => Verdict::Dropped(Drop::Stale),
            Ok(_) => self.judge(now, sid, age, received, random),
        }
    }

    /// The floor is on disk, or could not be written: gives the sid that waited for it, now live, and
    /// its datagrams. Without a floor they are dropped, and the next datagram is challenged.
    pub fn handle_floor(&mut self, time: u64, written: bool) -> Option<(Sid, Vec<Received>)> {
        self.writable = written;
        if written {
            self.floor = self.floor.max(Some(time));
        }
        let index = self.pending.iter().position(|pending| pending.floor == time)?;
        let pending = self.pending.remove(index)?;
        if self.floor != Some(time) {
            return None;
        }
        self.enliven(pending.sid);
        Some((pending.sid, pending.held))
    }

    fn enliven(&mut self, sid: Sid) {
        self.live = Some(sid);
        self.taken = self.taken.max(sid.time());
    }

    /// Nothing is live and nothing is asked any more; the floor stays.
    pub fn forget(&mut self) {
        self.live = None;
        self.pending.clear();
        self.proven = None;
        self.challenges.clear();
    }

    /// How many challenges ran out unanswered by now.
    pub fn handle_timeout(&mut self, now: Instant) -> usize {
        let before = self.challenges.len();
        self.challenges.retain(|challenge| now.saturating_duration_since(challenge.at) < CHALLENGE_LIFE);
        before - self.challenges.len()
    }

    /// When the oldest challenge runs out.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.challenges.front().map(|challenge| challenge.at + CHALLENGE_LIFE)
    }

    /// Whether a challenge of ours is outstanding.
    pub fn is_challenging(&self) -> bool {
        !self.challenges.is_empty()
    }

    fn may_derive(&mut self, now: Instant, age: Age) -> bool {
        self.derivations[age as usize].allows(now, DERIVATIONS, Duration::from_secs(1))
    }

    /// Why a datagram with a right sid does not verify, if another setting would explain it.
    fn misfit(&self, sid: Sid, received: &Received) -> Option<&'static str> {
        let other = match self.cipher {
            Cipher::ChaCha20Poly1305 => Cipher::Aes256Gcm,
            Cipher::Aes256Gcm => Cipher::ChaCha20Poly1305,
        };
        let theirs = 1 - self.direction;
        if self.open_as(self.cipher, self.direction, sid, received).is_ok() {
            // This end may have drawn an older sid itself, before it was started again.
            Some(if sid.time() < self.since {
                "datagrams arrive that are sealed in this end's own direction: either something sends back what this \
                 end sent before its start, or key.direction is the same on both ends"
            } else {
                "datagrams arrive that are sealed in this end's own direction: \
                 set key.direction to 0 on one end and to 1 on the other"
            })
        } else if self.open_as(other, theirs, sid, received).is_ok() {
            Some("the peer uses another cipher: set key.cipher alike on both ends")
        } else {
            None
        }
    }

    fn open(&self, sid: Sid, received: &Received) -> Result<Option<Message>, Drop> {
        self.open_as(self.cipher, 1 - self.direction, sid, received)
    }

    /// Opens a copy under the sid's own key; `None`: authentic, but no control message.
    fn open_as(
        &self,
        cipher: Cipher,
        direction: u8,
        sid: Sid,
        received: &Received,
    ) -> Result<Option<Message>, Drop> {
        let mut datagram = received.datagram.clone();
        let tag = Framing::Static.tag(&datagram).ok_or(Drop::TooShort)?;
        let (_, header) = unmask(&self.keys.mask(&tag), &datagram);
        let aead = self.keys.static_key(cipher, direction, &sid.0, header.lane);
        let range = Framing::Static.body(datagram.len());
        aead.open(header.counter, &header.emit(), &mut datagram[range.start..]).map_err(|_| Drop::BadTag)?;
        match header.kind {
            Kind::Control => control::decode(&datagram[range]).map_err(|_| Drop::Malformed),
            Kind::Frame | Kind::Block | Kind::Reserved => Ok(None),
        }
    }

    /// Uses up the outstanding challenge that this answers, if it does, and those before it.
    fn answers(&mut self, now: Now, received: &Received, value: [u8; 16]) -> bool {
        let index = self.challenges.iter().position(|challenge| {
            challenge.value == value
                && challenge.to == received.from
                && now.instant.saturating_duration_since(challenge.at) < CHALLENGE_LIFE
        });
        // A reply to an earlier one comes late then: what the peer sends under is the later sid.
        index.is_some_and(|index| self.challenges.drain(..=index).next().is_some())
    }

    fn prove(&mut self, now: Now, sid: Sid, received: Received, settled: bool) -> Verdict {
        let skew = sid.time().wrapping_sub(now.wall) as i64;
        // Most likely a replay was challenged. The peer may go on under the sid that it is heard under, which must
        // not give way to one that it does not use.
        if settled {
            self.proven = Some((sid, received));
            return Verdict::Proven { live: None, skew, floor: None };
        }
        // Its time alone would do: then the floor must keep it from doing so again.
        if self.is_timely(now, sid) {
            let floor = Some(self.await_floor(sid, vec![received]));
            return Verdict::Proven { live: None, skew, floor };
        }
        self.enliven(sid);
        // A first floor lies above everything the clock rule could have taken before it was lost.
        let first = now.wall.saturating_add(SID_CLOCK).max(sid.time());
        let floor = (self.floor.is_none() && self.writable).then_some(first);
        Verdict::Proven { live: Some((sid, received)), skew, floor }
    }

    /// Whether the clock rule takes a sid.
    fn is_timely(&self, now: Now, sid: Sid) -> bool {
        let time = sid.time();
        #[cfg(test)]
        if fault::is(Fault::FloorIgnored) {
            return time.abs_diff(now.wall) <= SID_CLOCK && self.writable;
        }
        let fresh = time.abs_diff(now.wall) <= SID_CLOCK && time > self.taken;
        fresh && self.writable && self.floor.is_some_and(|floor| time > floor)
    }

    fn use_proven(&mut self, now: Now, sid: Sid, held: Vec<Received>) -> Verdict {
        if self.is_timely(now, sid) {
            return Verdict::Floor(self.await_floor(sid, held));
        }
        self.enliven(sid);
        Verdict::InUse(sid, held)
    }

    /// Keeps the first datagrams of a sid until its floor is written.
    fn await_floor(&mut self, sid: Sid, held: Vec<Received>) -> u64 {
        if self.pending.len() >= PENDING_SIDS {
            self.pending.pop_front();
        }
        let floor = sid.time();
        // Floors are written one after the other, so that none may be asked for that is below the last.
        self.taken = self.taken.max(floor);
        self.pending.push_back(Pending { sid, floor, held });
        floor
    }

    fn judge(
        &mut self,
        now: Now,
        sid: Sid,
        age: Age,
        received: Received,
        random: &mut impl Random,
    ) -> Verdict {
        if self.is_timely(now, sid) {
            return Verdict::Floor(self.await_floor(sid, vec![received]));
        }
        let recent = self.challenged_at[age as usize]
            .is_some_and(|at| now.instant.saturating_duration_since(at) < CHALLENGE_INTERVAL);
        if recent || received.datagram.len() < CHALLENGE_DATAGRAM {
            return Verdict::Dropped(Drop::Stale);
        }
        self.challenged_at[age as usize] = Some(now.instant);
        if self.challenges.len() >= CHALLENGES {
            self.challenges.pop_front();
        }
        let challenge = Challenge { value: random.bytes(), to: received.from, at: now.instant };
        let verdict = Verdict::Challenge { challenge: challenge.value, to: challenge.to };
        self.challenges.push_back(challenge);
        verdict
    }
}
