//! From datagrams to a stream when they stop passing, and back.

use std::time::Instant;

use super::Link;
use crate::core::limits::{CARRIER_ASK, CARRIER_RETRY, CARRIER_SILENCE, PATH_LIFE};
use crate::core::path::Path;
use crate::crypto::Random;
use crate::wire::control::Message;

/// State of trying the other carrier.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    /// When a silent peer was asked for a word.
    asked_at: Option<Instant>,
    /// When another carrier was last tried, or the link changed to the present one.
    tried_at: Option<Instant>,
    tries: usize,
}

impl Carriers {
    /// The link has changed its carrier; restarts the timer.
    pub fn restart(&mut self, now: Instant) {
        self.tried_at = Some(now);
    }
}

impl<R: Random> Link<R> {
    /// Returns the other path to try, and the number of such paths.
    fn other_carrier(&self) -> Option<(Path, usize)> {
        let endpoint = self.path.endpoint().filter(|_| self.is_up())?;
        self.remotes.alternative(endpoint, self.carriers.tries)
    }

    /// When [`Link::handle_carriers_timeout`] is due.
    pub(super) fn carriers_timeout(&self) -> Option<Instant> {
        let (_, count) = self.other_carrier()?;
        let asked = self.carriers.asked_at.filter(|at| *at > self.liveness.heard_at());
        let ask_at = asked.unwrap_or(self.liveness.heard_at()) + CARRIER_ASK;
        Some(ask_at.min(self.try_at(count)))
    }

    /// When to try another carrier: soon if the peer is silent, else occasionally if there may be a better one.
    fn try_at(&self, count: usize) -> Instant {
        let tried = self.carriers.tried_at.unwrap_or(self.liveness.heard_at());
        let silent = (self.liveness.heard_at() + CARRIER_SILENCE).max(tried + PATH_LIFE);
        let is_stream = self.path.endpoint().is_some_and(|endpoint| endpoint.stream);
        let retry = (tried + CARRIER_RETRY / u32::try_from(count).unwrap_or(1).max(1)).max(tried + PATH_LIFE);
        if is_stream { silent.min(retry) } else { silent }
    }

    pub(super) fn handle_carriers_timeout(&mut self, now: Instant) {
        let (Some((other, count)), Some(endpoint)) = (self.other_carrier(), self.path.endpoint()) else {
            return;
        };
        let silent = now.saturating_duration_since(self.liveness.heard_at());
        let asked = self.carriers.asked_at.is_some_and(|at| now < at + CARRIER_ASK);
        if silent >= CARRIER_ASK && !asked {
            self.carriers.asked_at = Some(now);
            let challenge = self.cx.random.bytes();
            self.send(Message::Path { challenge }, endpoint);
        }
        if now >= self.try_at(count) {
            self.carriers.tried_at = Some(now);
            self.carriers.tries += 1;
            self.path.validate(now, other, &mut self.cx);
        }
    }
}
