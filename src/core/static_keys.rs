//! Static mode: which sids of the peer are taken (PROTOCOL.md §4.2), and which own ones are in use.
//!
//! A sid is taken when a hello under it names a sid that this process drew, and from that hello's counter on. So
//! whatever is delivered was sealed after this process began, and a sid that was live in that time is not taken again:
//! nothing is delivered twice, without a clock and without anything on disk.

mod sending;
mod taken;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Now;
use super::lane::{Received, unmask};
use super::limits::{COUNTER_END, DERIVATIONS, PRESENTATION, SID_RETIRE};
use super::pace::Pace;
use super::path::Path;
use super::seen::Seen;
use super::sid::Sid;
use super::stats::Drop;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::crypto::suite::Cipher;
#[cfg(test)]
use crate::fault::{self, Fault};
use crate::wire::control::{self, Hello, Message};
use crate::wire::datagram::{Framing, Kind};

use sending::Sending;
use taken::Taken;

/// What to do about a datagram of a sid that was not live in the lane when it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The sid is live by now: open the datagram again.
    Again(Received),
    /// The sid is live from now on, for counters above this one, and this is what the peer says.
    Taken {
        /// The counter of the hello.
        after: u32,
        /// The hello.
        hello: Hello,
        /// The sid that is no longer live for it.
        ended: Option<Sid>,
    },
    /// Someone has the key, or a recording of someone who had: present this end to it.
    Present {
        /// Where to.
        to: Path,
        /// In no more than this many bytes of UDP payload.
        room: usize,
    },
    /// From the peer, but sealed in a way this end does not open: one line says how to mend it.
    Misfit(&'static str),
    /// No further.
    Dropped(Drop),
}

/// What a datagram of a sid that is not live may use up. Whatever is recorded is older than what the peer says
/// now, or no control message: no flood of it uses up what that needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A control message of a sid as new as any that verified here.
    Newest,
    /// Anything else.
    Other,
}

/// How this end is while it judges.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// The link is up.
    pub up: bool,
    /// The shortest datagram that presents this end, in bytes.
    pub shortest: usize,
}

/// A datagram that verified.
struct Opened {
    class: Class,
    counter: u32,
    /// `None`: no control message, or one of a type that is not known.
    message: Option<Message>,
}

/// The sids of both directions.
#[derive(Clone)]
pub struct StaticKeys {
    keys: Arc<LinkKeys>,
    cipher: Cipher,
    direction: u8,
    /// The clock at the start, in microseconds since the Unix epoch.
    since: u64,
    sending: Sending,
    taken: Taken,
    /// The greatest time of a sid under which something verified, in microseconds since the Unix epoch.
    newest: u64,
    /// Tags of what verified under sids that are not live.
    copies: Seen,
    /// For each [`Class`].
    derivations: [Pace; 2],
    /// For each [`Class`].
    presentations: [Pace; 2],
    retired_at: Option<Instant>,
}

impl StaticKeys {
    /// Nothing drawn, nothing taken. `direction` is that which this end sends in.
    pub fn new(keys: Arc<LinkKeys>, cipher: Cipher, direction: u8, now: Now) -> Self {
        Self {
            keys,
            cipher,
            direction,
            since: now.wall,
            sending: Sending::new(now.instant),
            taken: Taken::default(),
            newest: 0,
            copies: Seen::default(),
            derivations: [Pace::default(); 2],
            presentations: [Pace::default(); 2],
            retired_at: None,
        }
    }

    /// Draws an own sid to be used at once.
    pub fn draw(&mut self, now: Now, random: &mut impl Random) -> Sid {
        let sid = self.sending.draw(now, &self.keys, random);
        self.sending.settle();
        self.taken.forget_before(self.sending.oldest_named());
        sid
    }

    /// Draws an own sid to be used when the peer has said that it took it.
    pub fn propose(&mut self, now: Now, random: &mut impl Random) -> Sid {
        let sid = self.draw(now, random);
        self.sending.propose(now.instant, sid);
        sid
    }

    /// The peer named this sid: true if it is the proposed one, which is in use from now on.
    pub fn handle_named(&mut self, sid: Sid) -> bool {
        let is_next = self.sending.proposed() == Some(sid);
        if is_next {
            self.sending.settle();
        }
        is_next
    }

    /// The own sids, and when the next is due.
    pub fn sending(&mut self) -> &mut Sending {
        &mut self.sending
    }

    /// Age of the own sid drawn last.
    pub fn age(&self, now: Instant) -> Duration {
        self.sending.age(now)
    }

    /// Whether datagrams of this sid of the peer's are opened.
    pub fn is_live(&self, sid: Sid) -> bool {
        self.taken.is_live(sid)
    }

    /// Whether what came under `sid` may end what came under `present`, a live sid of the peer's.
    pub fn supersedes(&self, sid: Sid, present: Sid) -> bool {
        sid == present || sid.time() > present.time() && self.taken.is_later(sid, present)
    }

    /// Judges a datagram whose sid passed its keyed check but is not live in the lane.
    pub fn handle_unknown(&mut self, now: Now, sid: Sid, received: Received, here: Situation) -> Verdict {
        if self.taken.is_live(sid) {
            return Verdict::Again(received);
        }
        match self.verify(now, sid, &received, here.up) {
            Ok(Opened { counter, message: Some(Message::Hello(hello)), .. })
                if self.is_to_take(sid, &hello) =>
            {
                let ended = self.take(now.instant, sid);
                #[cfg(test)]
                let counter = if fault::is(Fault::TakenFromZero) { 0 } else { counter };
                Verdict::Taken { after: counter, hello, ended }
            }
            Ok(opened) => self.present(now.instant, sid, opened.class, &received, here),
            Err(Drop::BadTag) => {
                self.misfit(sid, &received).map_or(Verdict::Dropped(Drop::BadTag), Verdict::Misfit)
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// A sid of the peer that has run out of time by now. Call it until there is none.
    pub fn poll_ended(&mut self, now: Instant) -> Option<Sid> {
        let ended = self.taken.poll_ended(now, self.sending.drawn());
        self.make_room(now);
        ended
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Instant {
        self.taken.poll_timeout().into_iter().fold(self.sending.poll_timeout(), Instant::min)
    }

    /// Forgets the peer's sids, and takes none before it names a sid that is drawn from now on.
    pub fn reset(&mut self) {
        self.taken = Taken::default();
        self.sending.disown();
    }

    fn take(&mut self, now: Instant, sid: Sid) -> Option<Sid> {
        let ended = self.taken.take(now, sid, self.sending.drawn());
        self.make_room(now);
        ended
    }

    /// Where more sids ended than are remembered, only hellos that name an own sid drawn later count.
    fn make_room(&mut self, now: Instant) {
        if self.taken.is_full() {
            self.retire(now);
        }
    }

    /// From now on only hellos count that name an own sid which is still to be drawn.
    fn retire(&mut self, now: Instant) {
        self.sending.disown();
        self.taken.forget_before(self.sending.oldest_named());
        self.sending.expire(now);
    }

    /// Whether a hello, which verified under `sid`, makes that sid live.
    fn is_to_take(&self, sid: Sid, hello: &Hello) -> bool {
        #[cfg(test)]
        if fault::is(Fault::NamingNotRequired) {
            return true;
        }
        #[cfg(test)]
        let again = fault::is(Fault::TakenAgain);
        #[cfg(not(test))]
        let again = false;
        hello.heard.is_some_and(|own| self.sending.may_be_named(Sid(own)))
            && (again || !self.taken.was_live(sid))
    }

    /// Opens a datagram that is no copy and within the limits.
    fn verify(&mut self, now: Now, sid: Sid, received: &Received, up: bool) -> Result<Opened, Drop> {
        if self.sending.is_own(sid) {
            return Err(Drop::Reflected);
        }
        let tag = Framing::Static.tag(&received.datagram).ok_or(Drop::TooShort)?;
        if self.copies.contains(tag) {
            return Err(Drop::Replayed);
        }
        // With a link, nobody needs it; without, its sender may be the peer, which this end lost.
        if up && self.taken.was_live(sid) {
            return Err(Drop::Stale);
        }
        let (_, header) = unmask(&self.keys.mask(&tag), &received.datagram);
        let is_newest = sid.time() >= self.newest && header.kind == Kind::Control;
        let class = if is_newest { Class::Newest } else { Class::Other };
        if !self.derivations[class as usize].allows(now.instant, DERIVATIONS, Duration::from_secs(1)) {
            return Err(Drop::RateLimited);
        }
        let body = self.open(self.cipher, 1 - self.direction, sid, received)?;
        self.copies.insert(tag);
        self.newest = self.newest.max(sid.time());
        if header.slot != 0 || header.lane != 0 || header.counter >= COUNTER_END {
            return Err(Drop::Malformed);
        }
        let message = match header.kind {
            Kind::Control => control::decode(&body).map_err(|_| Drop::Malformed)?,
            Kind::Frame | Kind::Block | Kind::Reserved => None,
        };
        Ok(Opened { class, counter: header.counter, message })
    }

    /// Lets the sender of what verified under `sid` know a sid that it can name.
    fn present(
        &mut self,
        now: Instant,
        sid: Sid,
        class: Class,
        received: &Received,
        here: Situation,
    ) -> Verdict {
        let room = received.datagram.len();
        if room < here.shortest {
            return Verdict::Dropped(Drop::Stale);
        }
        if !self.presentations[class as usize].allows(now, 1, PRESENTATION) {
            return Verdict::Dropped(Drop::RateLimited);
        }
        // It can be taken again only for naming an own sid that is drawn from now on.
        let recent = self.retired_at.is_some_and(|at| now < at + SID_RETIRE);
        if !here.up && !recent && self.taken.was_live(sid) {
            self.retired_at = Some(now);
            self.retire(now);
        }
        Verdict::Present { to: received.from, room }
    }

    /// Why a datagram with a right sid does not verify, if another setting would explain it.
    fn misfit(&self, sid: Sid, received: &Received) -> Option<&'static str> {
        let other = match self.cipher {
            Cipher::ChaCha20Poly1305 => Cipher::Aes256Gcm,
            Cipher::Aes256Gcm => Cipher::ChaCha20Poly1305,
        };
        let theirs = 1 - self.direction;
        if self.open(self.cipher, self.direction, sid, received).is_ok() {
            // This end may have drawn an older sid itself, before it was started again.
            Some(if sid.time() < self.since {
                "datagrams arrive that are sealed in this end's own direction: either something sends back what this \
                 end sent before its start, or key.direction is the same on both ends"
            } else {
                "datagrams arrive that are sealed in this end's own direction: \
                 set key.direction to 0 on one end and to 1 on the other"
            })
        } else if self.open(other, theirs, sid, received).is_ok() {
            Some("the peer uses another cipher: set key.cipher alike on both ends")
        } else {
            None
        }
    }

    /// The body of a datagram, opened under the sid's own key.
    fn open(&self, cipher: Cipher, direction: u8, sid: Sid, received: &Received) -> Result<Vec<u8>, Drop> {
        let mut datagram = received.datagram.clone();
        let tag = Framing::Static.tag(&datagram).ok_or(Drop::TooShort)?;
        let (_, header) = unmask(&self.keys.mask(&tag), &datagram);
        let aead = self.keys.static_key(cipher, direction, &sid.0, header.lane);
        let range = Framing::Static.body(datagram.len());
        aead.open(header.counter, &header.emit(), &mut datagram[range.start..]).map_err(|_| Drop::BadTag)?;
        Ok(datagram[range].to_vec())
    }
}

#[cfg(test)]
mod tests;
