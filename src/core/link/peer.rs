//! What the peer says, and what the link makes of it.

use std::time::Instant;

use ipnet::IpNet;

use super::idle::IDLE;
use super::{Event, Link};
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::hello;
use crate::core::lane::KeyRef;
use crate::core::path::{Outcome, Path, Validation};
use crate::core::stats::DropReason;
use crate::crypto::Random;
#[cfg(test)]
use crate::fault::{self, Fault};
use crate::wire::control::{Hello, Message};

impl<R: Random> Link<R> {
    /// When the peer was last heard under keys that only it has; before that, the start of the link.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    pub(super) fn handle_message(&mut self, now: Now, from: Path, under: KeyRef, message: Message) {
        match message {
            Message::Hello(peer) => self.handle_hello(now, from, under, peer),
            Message::Ping { n, .. } => {
                let received = self.datagrams_in;
                self.send(Message::Pong { n, received }, from);
            }
            Message::Path { challenge } => self.send(Message::PathReply { challenge }, from),
            Message::PathReply { challenge } => {
                let outcome = self.validation.as_mut().map(|path| path.handle_reply(from, challenge));
                self.conclude(now, outcome);
            }
            Message::Bye { reason } => {
                let is_there = self.endpoint.is_some_and(|endpoint| endpoint.covers(&from));
                if !self.up || !is_there || !self.is_of_peer(under) {
                    return;
                }
                match reason.as_str() {
                    IDLE => self.handle_idle(now.instant),
                    reason => self.go_down(now.instant, Condition::PeerGoodbye { reason: printable(reason) }),
                }
            }
            Message::Pong { n, .. } => self.handle_pong(now.instant, n, under),
            Message::Clones { ends } => self.handle_clones(now.instant, under, ends),
        }
    }

    pub(super) fn handle_hello(&mut self, now: Now, from: Path, under: KeyRef, peer: Hello) {
        if self.refuses(now.instant, from) {
            return;
        }
        let mismatch = hello::mismatch(&self.settings, &peer);
        if mismatch.is_some() && !self.is_of_peer(under) {
            return self.stats.drop(DropReason::Stale);
        }
        self.heard_at = now.instant;
        let asks = !peer.seen;
        self.take_names(now, under, &peer);
        if !self.up {
            self.set_endpoint(now.instant, Some(from));
            self.remotes.prefer(from.remote);
        }
        let known = self.peer.replace(peer).is_some();
        match mismatch {
            Some(condition) => {
                self.stats.drop(DropReason::NotAgreed);
                if self.up {
                    self.go_down(now.instant, condition.clone());
                }
                self.set_agreed(false);
                self.say_once(now.instant, condition);
            }
            None => self.agree(now.instant),
        }
        if asks {
            self.answer_soon(now.instant);
        }
        if !known {
            // A peer that asks for nothing was there before: what is still missing is asked for at once.
            if !asks && self.agreed && !self.up {
                self.send_hello(from);
            }
            self.schedule_hello(now.instant);
        }
    }

    /// Whether the peer is pinned to another address than `from`, to which no hello is sent then.
    pub(super) fn refuses(&mut self, now: Instant, from: Path) -> bool {
        let refuses = !self.settings.float && !self.is_pinned(from.remote);
        if refuses {
            self.say_once(now, Condition::PeerPinned { from: from.remote });
        }
        refuses
    }

    /// The peer's hello fits: frames pass from now on.
    fn agree(&mut self, now: Instant) {
        self.set_ceiling(now);
        let routes = self.peer.as_ref().map(|peer| peer.routes.clone());
        let news = self.set_routes(routes.unwrap_or_default());
        if !self.agreed {
            self.set_agreed(true);
        }
        if !self.up {
            self.rise(now);
        } else if news {
            self.events.push_back(Event::Routes(self.routes.clone()));
        }
    }

    /// That the link is up is said when the peer has this end's hello too, and opens what this end sends: what is sent
    /// on that word arrives.
    pub(super) fn rise(&mut self, now: Instant) {
        if !self.up
            && self.agreed
            && self.is_heard()
            && self.peer.as_ref().is_some_and(|peer| peer.seen)
            && let Some(endpoint) = self.endpoint
        {
            self.go_up(now, endpoint);
            if !self.routes.is_empty() {
                self.events.push_back(Event::Routes(self.routes.clone()));
            }
        }
    }

    fn go_up(&mut self, now: Instant, from: Path) {
        self.up = true;
        self.dormant = false;
        self.used_at = now;
        self.said.clear();
        self.resolve_at = None;
        let endpoint = from.remote;
        let name = self.peer.as_ref().map_or_else(String::new, |peer| peer.name.clone());
        self.events.push_back(Event::Up { endpoint, name });
        self.remotes.restart(now);
        // The peer waits for the same.
        self.send_hello(from);
        self.schedule_hello(now);
    }

    /// The peer offers these routes; false: as before. Sources within those that may be taken are its own from now on.
    pub(super) fn set_routes(&mut self, routes: Vec<IpNet>) -> bool {
        let news = self.routes != routes;
        self.routes = routes;
        news
    }

    pub(super) fn handle_moved(&mut self, now: Now, from: Path) {
        let Some(old) = self.endpoint.filter(|old| self.up && !old.covers(&from)) else { return };
        if !(self.settings.float || old.remote.ip() == from.remote.ip()) || self.validation.is_some() {
            return;
        }
        #[cfg(test)]
        if fault::is(Fault::PathNotValidated) {
            return self.set_endpoint(now.instant, Some(from));
        }
        let challenges = [self.random.bytes(), self.random.bytes()];
        self.challenges = challenges;
        self.validation = Some(Validation::new(now.instant, from, challenges));
        let [new_challenge, old_challenge] = challenges;
        self.send(Message::Path { challenge: new_challenge }, from);
        self.send(Message::Path { challenge: old_challenge }, old);
    }

    /// The kernel chooses the own address again.
    pub(super) fn handle_source_lost(&mut self, now: Instant, path: Path) {
        if self.endpoint == Some(path) && path.local.is_some() {
            self.set_endpoint(now, Some(path.remote.into()));
        }
    }

    pub(super) fn conclude(&mut self, now: Now, outcome: Option<Outcome>) {
        match outcome {
            None | Some(Outcome::Open) => {}
            Some(Outcome::Stay) => self.validation = None,
            Some(Outcome::Move(new)) => {
                self.validation = None;
                self.heard_at = now.instant;
                let same = self.endpoint.is_some_and(|old| old.remote == new.remote);
                let moved = match new.local.filter(|_| same) {
                    Some(local) => Condition::LocalMoved { to: local },
                    None => Condition::PeerMoved { to: new.remote },
                };
                self.log_for_peer(now.instant, moved);
                self.set_endpoint(now.instant, Some(new));
                self.send_hello(new);
            }
        }
    }
}

/// What came from the peer, reduced to what a log line can take.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' }).collect()
}
