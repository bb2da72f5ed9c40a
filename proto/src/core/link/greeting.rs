//! The exchange of hellos: the peer's last one, and when to answer it.

use std::time::Instant;

use crate::core::hello;
use crate::core::limits::HELLO_ANSWER;
use crate::wire::control::Hello;

/// The hellos of both ends.
#[derive(Default)]
pub struct Greeting {
    /// The peer's last hello under the present keys.
    peer: Option<Hello>,
    /// Whether this end's last hello was cut, as the path may not carry it.
    cut: bool,
    answered_at: Option<Instant>,
    /// When to answer a request for a hello that came soon after another.
    answer_at: Option<Instant>,
}

impl Greeting {
    /// The peer's hello.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether the peer's hello has come.
    pub fn is_known(&self) -> bool {
        self.peer.is_some()
    }

    /// Handles the peer's hello; true if it is the first.
    pub fn handle_hello(&mut self, peer: Hello) -> bool {
        self.peer.replace(peer).is_none()
    }

    /// Forgets the peer's hello, so that it is requested again.
    pub fn forget(&mut self) {
        self.peer = None;
    }

    /// The peer is away and gets no answer either.
    pub fn end(&mut self) {
        (self.peer, self.answer_at) = (None, None);
    }

    /// Removes from this end's hello what does not fit in so many bytes.
    pub fn fit(&mut self, own: &mut Hello, room: usize) {
        self.cut = hello::fit(own, room);
    }

    /// Whether this end's last hello was cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Handles a request for this end's hello. True: answer now; false: at [`Greeting::poll_timeout`].
    pub fn handle_asked(&mut self, now: Instant) -> bool {
        let free_at = self.answered_at.map_or(now, |at| at + HELLO_ANSWER);
        self.answer_at = Some(free_at.max(now));
        free_at <= now
    }

    /// When the answer is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.answer_at
    }

    /// The answer is sent.
    pub fn handle_answered(&mut self, now: Instant) {
        (self.answer_at, self.answered_at) = (None, Some(now));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn of_many_who_ask_at_once_one_is_answered_now_and_one_soon() {
        let (now, mut greeting) = (Instant::now(), Greeting::default());
        assert!(greeting.handle_asked(now));
        greeting.handle_answered(now);
        for millis in [0, 1, 199] {
            assert!(!greeting.handle_asked(now + Duration::from_millis(millis)));
            assert_eq!(greeting.poll_timeout(), Some(now + HELLO_ANSWER));
        }
        greeting.end();
        assert_eq!(greeting.poll_timeout(), None);
        assert!(greeting.handle_asked(now + HELLO_ANSWER));
    }
}
