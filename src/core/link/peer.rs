//! What the peer says, and what the link makes of it.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Event, Link};
use crate::core::admission::{Now, Verdict};
use crate::core::hello;
use crate::core::lane::{Command, Received, Under};
use crate::core::limits::{CHALLENGE_INTERVAL, HELLO_ANSWER};
use crate::core::path::{Outcome, Validation};
use crate::core::sid::Sid;
use crate::core::stats::Drop;
use crate::crypto::Random;
use crate::wire::control::{Hello, Message};

impl<R: Random> Link<R> {
    pub(super) fn handle_unknown(&mut self, now: Now, sid: Sid, received: Received) {
        if self.sending.is_own(sid) {
            self.stats.drop(Drop::Reflected);
            return;
        }
        let from = received.from;
        match self.admission.handle_unknown(now, sid, received, &mut self.random) {
            Verdict::Again(received) => self.commands.push_back(Command::Again(received)),
            Verdict::Held => {}
            Verdict::Floor(time) => self.events.push_back(Event::Floor(time)),
            Verdict::Reply { challenge, to } => self.reply(now, challenge, to, Challenger::Unproven),
            Verdict::Challenge { challenge, to } => {
                self.log(3, format!("{from} has the right key but its time must be proven: challenged"));
                self.send(Message::Challenge { challenge }, to);
            }
            Verdict::Proven { sid, skew, received, floor } => {
                self.log(1, format!("{from} answered the challenge; the clocks differ by {}", seconds(skew)));
                self.commands.push_back(Command::Receive(sid));
                self.commands.push_back(Command::Again(received));
                self.events.extend(floor.map(Event::Floor));
                if !self.up {
                    self.send_hello(from, Under::Current);
                }
            }
            Verdict::Misfit(text) => {
                self.stats.drop(Drop::BadTag);
                if self.peer.is_none() {
                    self.say_once(now.instant, text.into());
                }
            }
            Verdict::Dropped(reason) => self.stats.drop(reason),
        }
    }

    pub(super) fn handle_message(&mut self, now: Now, from: SocketAddr, message: Message) {
        match message {
            Message::Hello(peer) => self.handle_hello(now, from, peer),
            Message::Ping { n, .. } => {
                let received = self.datagrams_in;
                self.send(Message::Pong { n, received }, from);
            }
            Message::Path { challenge } => self.send(Message::PathReply { challenge }, from),
            Message::PathReply { challenge } => {
                let outcome = self.validation.as_mut().map(|path| path.handle_reply(from, challenge));
                self.conclude(now, outcome);
            }
            Message::Challenge { challenge } => self.reply(now, challenge, from, Challenger::Live),
            Message::Bye { reason } => {
                if self.up && self.endpoint == Some(from) {
                    self.go_down(now.instant, format!("the peer says: {reason}"));
                }
            }
            Message::Pong { .. } | Message::ChallengeReply { .. } => {}
        }
    }

    fn handle_hello(&mut self, now: Now, from: SocketAddr, peer: Hello) {
        if !self.settings.float && !self.is_pinned(from) {
            self.say_once(now.instant, format!("the peer calls from {from}, but float = false pins it"));
            return;
        }
        self.heard_at = now.instant;
        let wants_answer = !peer.seen;
        let mismatch = hello::mismatch(&self.settings, &peer);
        if !self.up {
            self.set_endpoint(Some(from));
        }
        let known = self.peer.replace(peer).is_some();
        match mismatch {
            Some(text) => {
                if self.up {
                    self.go_down(now.instant, text.clone());
                }
                self.commands.push_back(Command::Agreed(false));
                self.say_once(now.instant, text);
            }
            None => self.agree(now.instant, from),
        }
        let due = self.answered_at.is_none_or(|at| now.instant.duration_since(at) >= HELLO_ANSWER);
        if wants_answer && due {
            // A peer that lost this session may know only the sid that answered its challenge.
            if self.has_spare {
                self.has_spare = false;
                self.switch(Under::Spare);
            } else if self.sending.is_announced() {
                self.switch(Under::Next);
            }
            self.answered_at = Some(now.instant);
            self.send_hello(self.endpoint.unwrap_or(from), Under::Current);
        }
        if !known {
            self.schedule_hello(now.instant);
        }
    }

    /// The peer's hello fits.
    fn agree(&mut self, now: Instant, from: SocketAddr) {
        self.set_budget();
        if self.up {
            return;
        }
        self.up = true;
        self.said.clear();
        self.resolve_at = None;
        self.commands.push_back(Command::Agreed(true));
        let name = self.peer.as_ref().map_or_else(String::new, |peer| peer.name.clone());
        self.log(1, format!("link up with {from}, the peer's \"{}\"", printable(&name)));
        self.events.push_back(Event::Up { endpoint: from, name });
        self.caller.restart(now);
        self.schedule_hello(now);
    }

    pub(super) fn handle_moved(&mut self, now: Now, from: SocketAddr) {
        let Some(old) = self.endpoint.filter(|old| self.up && *old != from) else { return };
        if !(self.settings.float || old.ip() == from.ip()) || self.validation.is_some() {
            return;
        }
        let challenges = [self.random.bytes(), self.random.bytes()];
        self.validation = Some(Validation::new(now.instant, from, challenges));
        let [new_challenge, old_challenge] = challenges;
        self.send(Message::Path { challenge: new_challenge }, from);
        self.send(Message::Path { challenge: old_challenge }, old);
    }

    pub(super) fn conclude(&mut self, now: Now, outcome: Option<Outcome>) {
        match outcome {
            None | Some(Outcome::Open) => {}
            Some(Outcome::Stay) => self.validation = None,
            Some(Outcome::Move(new)) => {
                self.validation = None;
                self.heard_at = now.instant;
                self.log(1, format!("the peer moved to {new}"));
                self.set_endpoint(Some(new));
                self.send_hello(new, Under::Current);
            }
        }
    }

    /// Answers a challenge under a sid that is drawn now. One from a sid that is not live may be a
    /// replay: while the link is up it gets its reply, and what frames are sent under does not change.
    fn reply(&mut self, now: Now, challenge: [u8; 16], to: SocketAddr, challenger: Challenger) {
        let replied_at = &mut self.replied_at[challenger as usize];
        if replied_at.is_some_and(|at| now.instant.duration_since(at) < CHALLENGE_INTERVAL / 2) {
            self.stats.drop(Drop::RateLimited);
            return;
        }
        *replied_at = Some(now.instant);
        let reply = Message::ChallengeReply { challenge };
        if self.up && challenger == Challenger::Unproven {
            self.prepare_sid(now, Under::Spare);
            self.has_spare = true;
            return self.send_under(Under::Spare, reply, to);
        }
        self.prepare_sid(now, Under::Next);
        self.send_under(Under::Next, reply, to);
        if !self.up {
            self.switch(Under::Next);
            self.caller.due = now.instant;
        } else if !self.sending.is_announced() {
            self.sending.announce(now.instant);
        }
    }
}

/// Under what kind of sid a challenge came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Challenger {
    /// A live one: it is the peer, now.
    Live,
    /// Another: the peer after a restart, or a replay.
    Unproven,
}

/// A difference of clocks, for people.
fn seconds(microseconds: i64) -> String {
    let seconds = microseconds as f64 / 1e6;
    if seconds.abs() < 10.0 { format!("{seconds:+.3} s") } else { format!("{seconds:+.0} s") }
}

/// What came from the peer, reduced to what a log line can take.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' }).collect()
}
