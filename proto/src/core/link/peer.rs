//! The peer's messages and their effects.

use std::net::SocketAddr;
use std::time::Instant;

use super::{IDLE, Link};
use crate::core::clock::Now;
use crate::core::condition::{Condition, printable};
use crate::core::guard::Probe;
use crate::core::hello;
use crate::core::lane::{Command, KeyRef};
use crate::core::path::Path;
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::wire::control::{Hello, Message};

impl<R: Random> Link<R> {
    pub(super) fn handle_message(&mut self, now: Now, from: Path, under: KeyRef, message: Message) {
        let instant = now.instant;
        match message {
            Message::Hello(peer) => self.handle_hello(now, from, under, peer),
            Message::Ping { n, .. } => {
                let received = self.liveness.datagrams_in();
                self.send(Message::Pong { n, received }, from);
            }
            Message::Pong { n, .. } => {
                self.keying.handle_pong(n, under);
                self.rise(instant);
                if self.path.pmtud.handle_pong(instant, n) {
                    self.note_budget(instant);
                }
            }
            Message::Path { challenge } => self.send(Message::PathReply { challenge }, from),
            Message::PathReply { challenge } => {
                if let Some(new) = self.path.handle_reply(from, challenge) {
                    self.follow(now.instant, new);
                }
            }
            Message::Bye { reason } => {
                if self.is_up() && self.path.covers(&from) && self.keying.is_of_peer(under) {
                    let condition = match reason.as_str() {
                        IDLE => Condition::PeerIdle,
                        reason => Condition::PeerGoodbye { reason: printable(reason).collect() },
                    };
                    self.go_down(instant, condition);
                }
            }
            Message::Clones { ends } => {
                if self.keying.is_of_peer(under) {
                    self.note_clones(instant, ends);
                }
            }
            Message::Probed { probe } if self.keying.is_of_peer(under) => {
                let probe = Probe::parse(probe);
                let acts = self.loops.handle_probed(instant, probe, false, &mut self.cx.random);
                self.act_on_loops(instant, acts);
            }
            Message::Loop(word) if self.keying.is_of_peer(under) => {
                let acts = self.loops.handle_told(instant, word);
                self.act_on_loops(instant, acts);
            }
            Message::Probed { .. } | Message::Loop(_) => {}
        }
    }

    pub(super) fn handle_hello(&mut self, now: Now, from: Path, under: KeyRef, peer: Hello) {
        let instant = now.instant;
        if self.refuses(instant, from) {
            return;
        }
        let mismatch = hello::mismatch(&self.settings, &peer);
        if mismatch.is_some() && !self.keying.is_of_peer(under) {
            return self.stats.drop(DropReason::Stale);
        }
        self.liveness.handle_heard(instant);
        if self.keying.handle_names(instant, under, &peer, &mut self.cx.out) {
            // Tells the peer the new key for frames.
            if self.is_up() {
                self.say_hello_again();
            }
            self.schedule_hello(instant);
        }
        if !self.is_up() {
            self.set_endpoint(instant, from);
            self.remotes.prefer(from);
        }
        let asks = !peer.seen;
        self.path.set_peer_budget(peer.budget);
        let first = self.greeting.handle_hello(peer);
        self.review_lanes(instant);
        match mismatch {
            Some(condition) => self.disagree(instant, condition),
            None => self.agree(instant),
        }
        if asks {
            self.answer_soon(instant);
        }
        if first {
            // A peer that requests nothing was there before: request what is missing at once.
            if !asks && self.phase.may_pass() && !self.is_up() {
                self.send_hello(from);
            }
            self.schedule_hello(instant);
        }
    }

    /// The peer's hello matches: frames pass from now on.
    fn agree(&mut self, now: Instant) {
        self.path.set_ceiling(now, &mut self.cx.out);
        let routes = self.greeting.peer().map(|peer| peer.routes.clone());
        let news = self.offers.handle_offered(routes.unwrap_or_default());
        if self.phase.agree() {
            self.cx.out.commands.extend(Command::agreed(true));
        }
        if !self.is_up() {
            self.rise(now);
        } else if news {
            self.offers.tell_offered(&mut self.cx.out);
        }
    }

    fn disagree(&mut self, now: Instant, condition: Condition) {
        self.stats.drop(DropReason::NotAgreed);
        if self.is_up() {
            self.go_down(now, condition.clone());
        }
        self.phase.disagree();
        self.cx.out.commands.extend(Command::agreed(false));
        self.say_once(now, condition);
    }

    /// Whether the peer is pinned to an address other than `from`, which then gets no hello.
    pub(super) fn refuses(&mut self, now: Instant, from: Path) -> bool {
        let is_host = || self.path.is_host(from.remote).unwrap_or(!self.settings.has_remote);
        let refuses = !self.settings.float && !self.remotes.knows(from.remote) && !is_host();
        if refuses {
            self.say_once(now, Condition::PeerPinned { from: from.remote });
        }
        refuses
    }

    /// Something newer than all else came from `from`.
    pub(super) fn handle_moved(&mut self, now: Now, from: Path) {
        let follows = self.settings.float || self.path.is_host(from.remote) == Some(true);
        if !self.is_up() || self.path.covers(&from) || !follows {
            return;
        }
        self.path.validate(now.instant, from, &mut self.cx);
    }

    /// The peer has moved to another path.
    pub(super) fn follow(&mut self, now: Instant, new: Path) {
        self.liveness.handle_heard(now);
        let old = self.path.endpoint().map(Path::far_end);
        let moved = match new.local.filter(|_| old == Some(new.far_end())) {
            Some(local) => Condition::LocalMoved { to: local },
            None if old.is_some_and(|old| old.stream) == new.stream => {
                Condition::PeerMoved { to: new.remote }
            }
            None if new.stream => Condition::OverStream { to: new.remote },
            None => Condition::OverDatagrams { to: new.remote },
        };
        self.say(now, moved);
        self.set_endpoint(now, new);
        self.send_hello(new);
    }

    /// An unauthenticated message from a host: nobody receives there.
    pub(super) fn handle_refused(&mut self, now: Instant, to: SocketAddr) {
        let path = Path::from(to);
        let is_target = self.target().is_some_and(|target| target.far_end() == path);
        if self.is_up() && is_target {
            self.keying.handle_refused(now);
        } else if !self.is_up() && (is_target || self.remotes.was_called(path)) {
            self.say_once(now, Condition::PortRefused { remote: to });
            if self.remotes.handle_refused(now, path) {
                self.keying.hasten(now);
            }
        }
    }

    pub(super) fn probe(&mut self, now: Instant) {
        if self.path.pmtud.handle_timeout(now) {
            self.note_budget(now);
        }
        let framing = self.settings.key_mode.into();
        self.path.probe(now, framing, &mut self.cx);
    }

    /// What passes to the peer has changed.
    fn note_budget(&mut self, now: Instant) {
        self.path.tell_budget(&mut self.cx.out);
        match self.path.passes() {
            Some(budget) => self.cx.out.log(Condition::PathPayload { budget }),
            None if self.path.pmtud.is_too_narrow() => self.say(now, Condition::PathTooNarrow),
            None => {}
        }
        if self.greeting.is_cut() {
            self.say_hello_again();
        }
    }

    /// Notes a message under a key of the peer. Several of the ends that this one may call may have the key.
    pub(super) fn note_speaker(&mut self, now: Instant, from: Path, under: KeyRef, message: &Message) {
        if self.remotes.is_choice(from.remote) {
            return;
        }
        // Only the answer to a challenge is certainly new.
        let proves = matches!(message, Message::PathReply { challenge } if self.path.is_challenge(challenge));
        let speaker = self.keying.speaker(under, proves);
        let ends = speaker.and_then(|speaker| self.clones.turns.handle(now, speaker, from.remote));
        let Some(ends) = ends else { return };
        self.note_clones(now, ends);
        if self.clones.poll_telling(now) {
            // Both, if both open what this end sends now; with sessions, the one whose turn it is.
            let all = self.keying.calls_by_hello();
            for end in ends.into_iter().filter(|end| all || *end == from.remote) {
                self.send(Message::Clones { ends }, Path { remote: end, ..from });
            }
        }
    }

    /// Notes that two ends have one key.
    fn note_clones(&mut self, now: Instant, ends: [SocketAddr; 2]) {
        if let Some(condition) = self.clones.handle_found(now, ends) {
            self.say(now, condition);
        }
    }
}
