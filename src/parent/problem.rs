//! What `tund status` calls a link's problem: reported by the engine, or found by the parent on this host.

use std::fmt;
use std::net::SocketAddr;

use crate::core::condition::Condition;
use crate::core::settings::MAX_TEXT;
use crate::helper::proxy::Trouble;
use crate::helper::zone;
use crate::report::text::printable;
use crate::route::difference::Difference;

/// What is wrong or being waited for. Its codes are those of [`Condition`] and [`Difference`], and some more.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    /// As reported by the engine: of a known kind, but its content is untrusted.
    Link(Condition),
    /// The engine, a process with this id, does not answer.
    EngineSilent(u32),
    /// Something on this host differs from what the link needs.
    Host(Difference),
    /// A script failed, and none has succeeded since: why.
    ScriptFailed(String),
    /// No remote has a usable address: why.
    NoAddress(String),
    /// The proxy gives no connection.
    Proxy(Trouble),
    /// The peer is called there.
    Calling(SocketAddr),
    /// The peer's address is being looked up.
    Resolving,
}

impl Problem {
    /// The stable name.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Link(condition) => condition.code(),
            Self::EngineSilent(_) => "engine-silent",
            Self::Host(difference) => difference.code(),
            Self::ScriptFailed(_) => "script-failed",
            Self::NoAddress(_) => "no-address",
            Self::Proxy(trouble) => trouble.code(),
            Self::Calling(_) => "calling",
            Self::Resolving => "resolving",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(condition) => f.write_str(&printable(&condition.to_string(), MAX_TEXT)),
            Self::EngineSilent(pid) => write!(
                f,
                "process {pid}, which moves the frames, does not answer: if it is stopped, `kill -CONT {pid}`, else restart the link"
            ),
            Self::Host(difference) => difference.fmt(f),
            Self::ScriptFailed(text) | Self::NoAddress(text) => f.write_str(text),
            Self::Proxy(trouble) => write!(f, "no connection through the proxy: {trouble}"),
            Self::Calling(endpoint) => write!(f, "calling {}: no answer yet", zone::named(*endpoint)),
            Self::Resolving => f.write_str("looking up the peer's address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proxy::{Refusal, Said};

    #[test]
    fn text_of_the_engine_is_made_printable_and_cut() {
        let reason = format!("\x1b[2J\n{}", "x".repeat(10_000));
        let problem = Problem::Link(Condition::PeerGoodbye { reason });
        let text = problem.to_string();
        assert_eq!((text.chars().count(), problem.code()), (MAX_TEXT, "peer-goodbye"));
        assert!(text.starts_with("the peer closed the link: _[2J_xxx"), "{text}");
    }

    #[test]
    fn the_manual_has_a_row_for_each_code_of_the_parent() {
        let manual = include_str!("../../docs/tund.8.md");
        let endpoint = SocketAddr::from(([192, 0, 2, 1], 1194));
        let script = Problem::ScriptFailed(String::new());
        let all = [
            script,
            Problem::NoAddress(String::new()),
            Problem::Calling(endpoint),
            Problem::Resolving,
            Problem::EngineSilent(1),
        ];
        let said = Said::Status(407);
        let proxy = [Refusal::Credentials(said), Refusal::Forbidden(said), Refusal::Garbled];
        for problem in all.into_iter().chain(proxy.map(|refusal| Problem::Proxy(Trouble::Refused(refusal)))) {
            let row = format!("\n`{}`\n: ", problem.code());
            assert!(manual.contains(&row), "{row}");
        }
    }
}
