//! The phase of the link.

use std::time::Instant;

/// From call to established link. The [`Greeting`](super::greeting::Greeting) has what is known of the peer's hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The peer is away, or does not match.
    Away {
        /// When to look up the remotes' names.
        resolve_at: Option<Instant>,
    },
    /// The peer ended for idleness: it is neither looked up nor called until there is a frame for it.
    Dormant,
    /// The peer's hello matches, so frames may pass. Whether it has this end's, and opens its output, is unknown.
    Agreed {
        /// When to look up the remotes' names.
        resolve_at: Option<Instant>,
    },
    /// The peer has proved both.
    Up,
}

impl Phase {
    /// Whether the link is up.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }

    /// Whether frames may pass.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Agreed { .. } | Self::Up => true,
            Self::Away { .. } | Self::Dormant => false,
        }
    }

    /// When to look up the remotes' names next.
    pub fn resolve_at(self) -> Option<Instant> {
        match self {
            Self::Away { resolve_at } | Self::Agreed { resolve_at } => resolve_at,
            Self::Dormant | Self::Up => None,
        }
    }

    /// Schedules the look-up of names; ends the wait for an idle peer.
    pub fn look_up(&mut self, at: Option<Instant>) {
        match self {
            Self::Away { resolve_at } | Self::Agreed { resolve_at } => *resolve_at = at,
            Self::Dormant => *self = Self::Away { resolve_at: at },
            Self::Up => {}
        }
    }

    /// The peer's hello matches; true if that is news.
    pub fn agree(&mut self) -> bool {
        let news = !self.may_pass();
        if news {
            *self = Self::Agreed { resolve_at: self.resolve_at() };
        }
        news
    }

    /// The peer's hello does not match. (An established link goes down instead.)
    pub fn disagree(&mut self) {
        if let Self::Agreed { resolve_at } = *self {
            *self = Self::Away { resolve_at };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    #[test]
    fn lookups_go_on_until_the_link_is_up_and_rest_while_the_peer_is_idle() {
        let at = Some(Instant::now());
        let mut phase = Phase::Away { resolve_at: at };
        assert!(phase.agree() && !phase.agree());
        assert_eq!(phase, Phase::Agreed { resolve_at: at });
        phase.disagree();
        assert_eq!(phase, Phase::Away { resolve_at: at });
        for (mut phase, after) in [(Phase::Dormant, at), (Phase::Up, None)] {
            assert_eq!(phase.resolve_at(), None);
            phase.look_up(at);
            assert_eq!(phase.resolve_at(), after);
        }
    }
}
