//! Static mode: the sids of both directions.

use std::ops::Range;

use super::{Event, Keying, Link};
use crate::core::admission::{Age, Verdict};
use crate::core::clock::Now;
use crate::core::lane::{Command, Key, Received, Under};
use crate::core::limits::{CHALLENGE_INTERVAL, DOUBT};
use crate::core::path::Path;
use crate::core::sid::Sid;
use crate::core::stats::Drop;
use crate::crypto::Random;
use crate::wire::control::{self, Message};

/// Challenges that are remembered: more than are answered in the life of a sid.
const ANSWERED: usize = 128;

impl<R: Random> Link<R> {
    pub(super) fn handle_unknown(&mut self, now: Now, sid: Sid, received: Received) {
        let settled = self.is_settled();
        let Keying::Static(keying) = &mut self.keying else { return };
        if keying.sending.is_own(sid) {
            self.stats.drop(Drop::Reflected);
            return;
        }
        let from = received.from;
        match keying.admission.handle_unknown(now, sid, received, settled, &mut self.random) {
            Verdict::Again(received) => self.commands.push_back(Command::Again(received)),
            Verdict::Held => {}
            Verdict::Floor(time) => self.events.push_back(Event::Floor(time)),
            Verdict::Reply { challenge, age, to } => {
                self.reply(now, challenge, to, Challenger::Unproven(age))
            }
            Verdict::Challenge { challenge, to } => {
                self.log(
                    3,
                    format!("{} has the right key but its time must be proven: challenged", from.remote),
                );
                self.send(Message::Challenge { challenge }, to);
            }
            Verdict::Proven { live, skew, floor } => {
                // Whoever replays can bring it about once a second.
                let verb = if settled { 3 } else { 1 };
                self.log(
                    verb,
                    format!("{} answered the challenge; the clocks differ by {}", from.remote, seconds(skew)),
                );
                if let Some((sid, received)) = live {
                    self.take_sid(sid, vec![received]);
                }
                self.events.extend(floor.map(Event::Floor));
                self.doubt.get_or_insert(now.instant);
                self.send_hello(from, Under::Current);
                self.schedule_hello(now.instant);
            }
            Verdict::InUse(sid, held) => self.take_sid(sid, held),
            Verdict::Misfit(text) => {
                self.stats.drop(Drop::BadTag);
                if self.peer.is_none() {
                    self.say_once(now.instant, text.into());
                }
            }
            Verdict::Dropped(reason) => self.stats.drop(reason),
        }
    }

    /// A sid is live, and these datagrams of it waited for that.
    pub(super) fn take_sid(&mut self, sid: Sid, held: Vec<Received>) {
        self.commands.push_back(Command::Receive(Key::Sid(sid)));
        self.commands.extend(held.into_iter().map(Command::Again));
    }

    /// Does what is due for own sids, and gives up challenges.
    pub(super) fn handle_sids_timeout(&mut self, now: Now) {
        let Keying::Static(keying) = &mut self.keying else { return };
        let switch = keying.sending.is_switch_due(now.instant);
        let rotate = keying.sending.is_rotation_due(now.instant);
        let unanswered = keying.admission.handle_timeout(now.instant);
        if switch {
            self.switch(Under::Next);
        }
        if rotate {
            self.rotate(now);
        }
        if unanswered > 0 && !self.up {
            self.say_once(
                now.instant,
                "right key but an old time, and no answer to a challenge: a replay, or a one-way path".into(),
            );
        }
    }

    /// A peer that lost this session may know only the sid that answered its challenge.
    pub(super) fn use_proven_sid(&mut self) {
        let Keying::Static(keying) = &mut self.keying else { return };
        if std::mem::take(&mut keying.has_spare) {
            self.switch(Under::Spare);
        } else if keying.sending.is_announced() {
            self.switch(Under::Next);
        }
    }

    pub(super) fn prepare_sid(&mut self, now: Now, under: Under) {
        let Keying::Static(keying) = &mut self.keying else { return };
        let sid = keying.sending.draw(now, &self.keys, &mut self.random);
        if under == Under::Next {
            keying.sending.drawn_for_frames(now.instant);
        }
        self.commands.push_back(Command::Prepare(under, Key::Sid(sid)));
    }

    pub(super) fn switch(&mut self, under: Under) {
        if let Keying::Static(keying) = &mut self.keying {
            keying.sending.switched();
            (keying.asked, keying.proven) = (None, false);
        }
        self.commands.push_back(Command::Switch(under));
    }

    /// A hello of the peer does not tell under which sids it heard this end, nor whether that was before a restart: asks
    /// whether it opens what is sent now.
    pub(super) fn ask_proof(&mut self, to: Path, under: Under) {
        let [padding, n @ ..] = self.random.bytes::<5>();
        let Keying::Static(keying) = &mut self.keying else { return };
        let n = *keying.asked.get_or_insert(u32::from_be_bytes(n));
        self.commands.push_back(Command::Control {
            body: control::ping(n, usize::from(padding % 64)),
            to,
            under,
        });
    }

    /// The peer opened the ping of this number.
    pub(super) fn take_proof(&mut self, n: u32) {
        if let Keying::Static(keying) = &mut self.keying {
            keying.proven |= keying.asked == Some(n);
        }
    }

    /// Whether the peer opens what this end sends.
    pub(super) fn is_heard(&self) -> bool {
        match &self.keying {
            Keying::Static(keying) => keying.proven,
            // No session is confirmed otherwise.
            Keying::Handshake(_) => true,
        }
    }

    /// Nothing that was live or asked for before counts any more, and frames use a new sid.
    pub(super) fn replace_sids(&mut self, now: Now) {
        let Keying::Static(keying) = &mut self.keying else { return };
        keying.admission.forget();
        keying.has_spare = false;
        self.commands.push_back(Command::WipeAll);
        self.prepare_sid(now, Under::Next);
        self.switch(Under::Next);
    }

    /// A new sid: announced now, used for frames when the peer had time to write its floor.
    fn rotate(&mut self, now: Now) {
        self.prepare_sid(now, Under::Next);
        match self.endpoint.filter(|_| self.up) {
            Some(endpoint) => {
                self.send_hello(endpoint, Under::Next);
                if let Keying::Static(keying) = &mut self.keying {
                    keying.sending.announce(now.instant);
                    // The peer hears of this one later.
                    keying.has_spare = false;
                }
            }
            None => self.switch(Under::Next),
        }
    }

    /// Answers a challenge under a sid that is drawn now. It may be a replay, or due to one: while the ends know
    /// each other it gets its reply, and what frames are sent under changes when the peer asks for it.
    pub(super) fn reply(&mut self, now: Now, challenge: [u8; 16], to: Path, challenger: Challenger) {
        // The doubt of a moment is no reason: a replay makes the peer prove itself as well.
        let certain = self.doubt.is_none_or(|since| now.instant < since + DOUBT);
        let settled = self.up && self.peer.is_some() && certain;
        let Keying::Static(keying) = &mut self.keying else { return };
        // One that came before its sid was live is in no window; once more, frames would change for nothing.
        if keying.answered.contains(&challenge) {
            self.stats.drop(Drop::Replayed);
            return;
        }
        let Some(replied_at) = keying.replied_at[challenger.limits()].iter_mut().min() else { return };
        if replied_at.is_some_and(|at| now.instant.duration_since(at) < CHALLENGE_INTERVAL / 2) {
            self.stats.drop(Drop::RateLimited);
            return;
        }
        *replied_at = Some(now.instant);
        if challenger != Challenger::Unproven(Age::Old) {
            keying.answered.push_back(challenge);
            keying.answered.drain(..keying.answered.len().saturating_sub(ANSWERED));
        }
        let under = match challenger {
            Challenger::Live | Challenger::Unproven(Age::Newest) if settled => Under::Spare,
            Challenger::Unproven(Age::Old) if settled => Under::Aside,
            Challenger::Live | Challenger::Unproven(_) => Under::Next,
        };
        match under {
            Under::Spare => keying.has_spare = true,
            // What the peer knows now is the next one.
            Under::Next => keying.has_spare = false,
            Under::Current | Under::Aside => {}
        }
        self.prepare_sid(now, under);
        self.send_under(under, Message::ChallengeReply { challenge }, to);
        if !settled {
            self.switch(Under::Next);
            self.caller.due = now.instant;
        }
    }
}

/// Under what kind of sid a challenge came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenger {
    /// A live one: it is the peer, now.
    Live,
    /// Another: the peer after a restart, or a replay.
    Unproven(Age),
}

impl Challenger {
    /// Which of the limits for replies count it. The peer challenges older and newest sids apart, and so may ask twice
    /// under its live one.
    fn limits(self) -> Range<usize> {
        match self {
            Self::Live => 0..2,
            Self::Unproven(Age::Newest) => 2..3,
            Self::Unproven(Age::Old) => 3..4,
        }
    }
}

/// A difference of clocks, for people.
fn seconds(microseconds: i64) -> String {
    let seconds = microseconds as f64 / 1e6;
    if seconds.abs() < 10.0 { format!("{seconds:+.3} s") } else { format!("{seconds:+.0} s") }
}
