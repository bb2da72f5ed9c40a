//! Two ends that use one key: how this end knows, and who is told.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Keying, Link};
use crate::core::clones::Speaker;
use crate::core::condition::Condition;
use crate::core::lane::KeyRef;
use crate::core::limits::{CLONES_TOLD, REPEAT};
use crate::core::path::Path;
use crate::crypto::Random;
use crate::wire::control::Message;

/// That there are two, for as long as that holds.
pub(super) struct Cloned {
    condition: Condition,
    /// When there was the last sign of it.
    seen_at: Instant,
    /// When it was last logged.
    said_at: Instant,
    /// When the two were last told.
    told_at: Option<Instant>,
}

impl Cloned {
    fn lasts(&self, now: Instant) -> bool {
        now < self.seen_at + REPEAT
    }
}

impl<R: Random> Link<R> {
    /// Whether this end is called by two ends of one key, or is one of such two.
    pub(super) fn cloned(&self, now: Instant) -> Option<&Condition> {
        self.cloned.as_ref().filter(|cloned| cloned.lasts(now)).map(|cloned| &cloned.condition)
    }

    /// This came under a key of the peer's. Of several ends that this one may call, each may have the key.
    ///
    /// A session with another instance than the one before begins by a new handshake, so what comes under it is new. Under a key id
    /// something old may come; only the answer to a challenge is new.
    pub(super) fn note_speaker(&mut self, now: Instant, from: Path, under: KeyRef, message: &Message) {
        if self.remotes.is_choice(from.remote) {
            return;
        }
        let speaker = match (&self.keying, under) {
            (Keying::Static(_), KeyRef::KeyId(key_id)) => {
                let is_new = matches!(message, Message::PathReply { challenge } if self.challenges.contains(challenge));
                is_new.then_some(Speaker::KeyId(key_id))
            }
            (Keying::Handshake(sessions), KeyRef::Session(serial)) => {
                sessions.peer_of(serial).map(Speaker::Instance)
            }
            (Keying::Handshake(_), KeyRef::KeyId(_)) | (Keying::Static(_), KeyRef::Session(_)) => None,
        };
        let found = speaker.and_then(|speaker| self.turns.handle(now, speaker, from.remote));
        if let Some(ends) = found {
            self.say_clones(now, ends);
            self.tell_clones(now, from, ends);
        }
    }

    /// The peer says that this end is one of two.
    pub(super) fn handle_clones(&mut self, now: Instant, under: KeyRef, ends: [SocketAddr; 2]) {
        if self.is_of_peer(under) {
            self.say_clones(now, ends);
        }
    }

    fn say_clones(&mut self, now: Instant, ends: [SocketAddr; 2]) {
        let [first, second] = ends.map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
        let condition = Condition::ClonedEnd { first, second };
        let known = self.cloned.as_ref().filter(|cloned| cloned.lasts(now) && cloned.condition == condition);
        let is_said = known.is_some_and(|known| now < known.said_at + REPEAT);
        let said_at = known.filter(|_| is_said).map_or(now, |known| known.said_at);
        let told_at = known.and_then(|known| known.told_at);
        if !is_said {
            self.log_for_peer(now, condition.clone());
        }
        self.cloned = Some(Cloned { condition, seen_at: now, said_at, told_at });
    }

    /// Both are told if both open what this end sends now; with sessions that is the one whose turn it is.
    fn tell_clones(&mut self, now: Instant, from: Path, ends: [SocketAddr; 2]) {
        let Some(cloned) = &mut self.cloned else { return };
        if cloned.told_at.is_some_and(|at| now < at + CLONES_TOLD) {
            return;
        }
        cloned.told_at = Some(now);
        let sessions = self.has_sessions();
        for end in ends.into_iter().filter(|end| !sessions || *end == from.remote) {
            self.send(Message::Clones { ends }, Path { remote: end, local: from.local });
        }
    }
}
