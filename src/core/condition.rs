//! What a link meets, waits for or suffers from: a type with a stable code for programs and one sentence for people.
//!
//! The codes are an interface: they stand in tund(8), `status --json`, the metrics and the log. A sentence may be
//! worded anew at any time.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::KeyMode;
use crate::packet::layer::Mode;

/// A condition of the link. Of two ends, `theirs` is the peer's value and `ours` this end's. Text in it is the peer's or the system's: whoever shows it makes it printable.
#[allow(missing_docs, reason = "the line above each variant says what its fields are")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// No remote is configured, so the peer has to call.
    NoRemote,
    /// Nothing came back from the remotes: from the one that was called last, and so many others.
    NoAnswer {
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        others: usize,
    },
    /// ICMP says that nobody receives at the remote's port. Nobody vouches for it.
    PortRefused {
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
    },
    /// A datagram could not be sent.
    CannotSend {
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        reason: String,
    },
    /// Datagrams arrive, none of which verifies.
    KeyMismatch,
    /// The peer has this end's key, and uses it in the other key mode.
    KeyModeMismatch { theirs: KeyMode, ours: KeyMode },
    /// Static mode: the peer uses another cipher.
    CipherMismatch,
    /// Handshake mode: the two ends allow no cipher in common.
    NoCommonCipher,
    /// Static mode: both ends send in the same direction.
    DirectionMismatch,
    /// Static mode: the same, or datagrams of before this end's start come back to it.
    OwnDatagrams,
    /// The ends speak different versions of the protocol.
    VersionMismatch { theirs: u8, ours: u8 },
    /// One end is tun, the other one tap.
    DeviceModeMismatch { theirs: Mode, ours: Mode },
    /// The MTU of the devices differs; in bytes.
    MtuMismatch { theirs: u32, ours: u32 },
    /// Both ends have this inner address.
    AddressConflict { address: IpAddr },
    /// The peer has another inner address than is configured here.
    PeerAddressMismatch { expected: IpAddr, actual: IpAddr },
    /// This end has another inner address than is configured at the peer.
    OwnAddressMismatch { expected: IpAddr, actual: IpAddr },
    /// The peer calls from an address that it is not pinned to.
    PeerPinned {
        #[serde(with = "crate::core::zoned")]
        from: SocketAddr,
    },
    /// Nothing was heard from the peer for the keepalive timeout.
    PeerSilent { silence: Duration },
    /// The peer ended the link.
    PeerGoodbye { reason: String },
    /// The peer ended because nothing passed, and is called when there is a frame for it.
    PeerIdle,
    /// The link begins anew because somebody asked for it.
    Reconnecting,
    /// The host slept, was copied, or had its clock set.
    Resumed,
    /// The route to the peer's outer address leads into the tunnel.
    TunnelInTunnel { remote: IpAddr },
    /// The peer is followed to another address.
    PeerMoved {
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// The peer calls another address of this end than before.
    LocalMoved { to: IpAddr },
    /// What passes to the peer in one datagram; in bytes of UDP payload.
    PathPayload { budget: usize },
    /// Not even the least that a path is expected to take passes to the peer.
    PathTooNarrow,
    /// Two ends use one key towards the end that they call; their outer addresses.
    ClonedEnd {
        #[serde(with = "crate::core::zoned")]
        first: SocketAddr,
        #[serde(with = "crate::core::zoned")]
        second: SocketAddr,
    },
    /// The peer's clock is ahead of this end's; in microseconds.
    ClockDifference { ahead: i64 },
}

impl Condition {
    /// One of each kind, for what is done for all: the table in tund(8), and tests.
    #[cfg(test)]
    pub fn samples() -> Vec<Self> {
        let (ip, remote) = (IpAddr::from([192, 0, 2, 1]), SocketAddr::from(([192, 0, 2, 1], 1194)));
        vec![
            Self::NoRemote,
            Self::NoAnswer { remote, others: 1 },
            Self::PortRefused { remote },
            Self::CannotSend { remote, reason: "the network is down".into() },
            Self::KeyMismatch,
            Self::KeyModeMismatch { theirs: KeyMode::Static, ours: KeyMode::Handshake },
            Self::CipherMismatch,
            Self::NoCommonCipher,
            Self::DirectionMismatch,
            Self::OwnDatagrams,
            Self::VersionMismatch { theirs: 2, ours: 1 },
            Self::DeviceModeMismatch { theirs: Mode::Tap, ours: Mode::Tun },
            Self::MtuMismatch { theirs: 1400, ours: 1500 },
            Self::AddressConflict { address: ip },
            Self::PeerAddressMismatch { expected: ip, actual: ip },
            Self::OwnAddressMismatch { expected: ip, actual: ip },
            Self::PeerPinned { from: remote },
            Self::PeerSilent { silence: Duration::from_secs(10) },
            Self::PeerGoodbye { reason: "stopped".into() },
            Self::PeerIdle,
            Self::Reconnecting,
            Self::Resumed,
            Self::TunnelInTunnel { remote: ip },
            Self::PeerMoved { to: remote },
            Self::LocalMoved { to: ip },
            Self::PathPayload { budget: 1472 },
            Self::PathTooNarrow,
            Self::ClonedEnd { first: remote, second: SocketAddr::from(([192, 0, 2, 3], 1194)) },
            Self::ClockDifference { ahead: 90_000_000 },
        ]
    }

    /// The stable name, in lower case with hyphens.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRemote => "no-remote",
            Self::NoAnswer { .. } => "no-answer",
            Self::PortRefused { .. } => "port-refused",
            Self::CannotSend { .. } => "cannot-send",
            Self::KeyMismatch => "key-mismatch",
            Self::KeyModeMismatch { .. } => "key-mode-mismatch",
            Self::CipherMismatch => "cipher-mismatch",
            Self::NoCommonCipher => "no-common-cipher",
            Self::DirectionMismatch => "direction-mismatch",
            Self::OwnDatagrams => "own-datagrams",
            Self::VersionMismatch { .. } => "version-mismatch",
            Self::DeviceModeMismatch { .. } => "device-mode-mismatch",
            Self::MtuMismatch { .. } => "mtu-mismatch",
            Self::AddressConflict { .. } => "address-conflict",
            Self::PeerAddressMismatch { .. } => "peer-address-mismatch",
            Self::OwnAddressMismatch { .. } => "own-address-mismatch",
            Self::PeerPinned { .. } => "peer-pinned",
            Self::PeerSilent { .. } => "peer-silent",
            Self::PeerGoodbye { .. } => "peer-goodbye",
            Self::PeerIdle => "peer-idle",
            Self::Reconnecting => "reconnecting",
            Self::Resumed => "resumed",
            Self::TunnelInTunnel { .. } => "tunnel-in-tunnel",
            Self::PeerMoved { .. } => "peer-moved",
            Self::LocalMoved { .. } => "local-moved",
            Self::PathPayload { .. } => "path-payload",
            Self::PathTooNarrow => "path-too-narrow",
            Self::ClonedEnd { .. } => "cloned-end",
            Self::ClockDifference { .. } => "clock-difference",
        }
    }

    /// From which verb level on the log shows it.
    pub fn verb(&self) -> u8 {
        if matches!(self, Self::PathPayload { .. }) { 4 } else { 1 }
    }

    /// What the two ends state of themselves and does not fit together.
    fn mismatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyModeMismatch { theirs, ours } => write!(
                f,
                "the peer uses {theirs} keys, this end {ours} keys: set key.mode alike on both ends"
            ),
            Self::VersionMismatch { theirs, ours } => write!(
                f,
                "peer speaks protocol version {theirs}, this end version {ours}: update the older one"
            ),
            Self::DeviceModeMismatch { theirs, ours } => write!(
                f,
                "peer is in {theirs} mode, this end in {ours} mode: set device.mode alike on both ends"
            ),
            Self::MtuMismatch { theirs, ours } => write!(
                f,
                "peer's frame MTU is {theirs}, this end's {ours}: set device.mtu alike on both ends"
            ),
            Self::AddressConflict { address } => {
                write!(f, "both ends have the address {address}: change device.address of one")
            }
            Self::PeerAddressMismatch { expected, actual } => write!(
                f,
                "peer's address is {actual}, this end expects {expected}: \
                 mend device.peer here or device.address there"
            ),
            Self::OwnAddressMismatch { expected, actual } => write!(
                f,
                "peer expects the address {expected} here, but it is {actual}: \
                 mend device.address here or device.peer there"
            ),
            other => f.write_str(other.fixed()),
        }
    }

    /// The sentence of a condition that has no more to it; of another one its code.
    fn fixed(&self) -> &'static str {
        match self {
            Self::NoRemote => "waiting for the peer to call: no remote is set",
            Self::KeyMismatch => {
                "datagrams arrive, but none is sealed with this key: are key and key.mode the same at both ends?"
            }
            Self::CipherMismatch => "the peer uses another cipher: set key.cipher alike on both ends",
            Self::NoCommonCipher => "the ends have no cipher in common: set key.cipher alike on both",
            Self::DirectionMismatch => {
                "datagrams arrive that are sealed in this end's own direction: \
                 set key.direction to 0 on one end and to 1 on the other"
            }
            Self::OwnDatagrams => {
                "datagrams arrive that are sealed in this end's own direction: either something sends back what this \
                 end sent before its start, or key.direction is the same on both ends"
            }
            Self::PathTooNarrow => {
                "IP packets of 576 bytes do not reach the peer, as on any path they should: longer frames are lost until \
                 the path is mended"
            }
            Self::PeerIdle => "the peer is idle; it is called when there is a frame for it",
            Self::Reconnecting => "connecting again, as asked",
            Self::Resumed => "this host slept, was copied, or had its clock set: all keys are replaced",
            other => other.code(),
        }
    }
}

impl fmt::Display for Condition {
    /// The sentence: what is the matter, and the remedy if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { remote, others } => {
                let others = match others {
                    0 => String::new(),
                    others => format!(" and {others} more"),
                };
                write!(
                    f,
                    "no answer from {remote}{others} yet: trying on; if it stays away, is tund running there, with the \
                     same key, and its port open?"
                )
            }
            Self::PortRefused { remote } => {
                let (host, port) = (remote.ip(), remote.port());
                write!(f, "{host} is reported not to take datagrams for port {port}: does tund run there?")
            }
            Self::CannotSend { remote, reason } => write!(f, "cannot send to {remote}: {reason}"),
            Self::PeerPinned { from } => {
                write!(f, "the peer calls from {from}, but float = false pins it")
            }
            Self::PeerSilent { silence } => {
                write!(f, "nothing heard from the peer for {} s", silence.as_secs_f32())
            }
            Self::PeerGoodbye { reason } => write!(f, "the peer says: {reason}"),
            Self::TunnelInTunnel { remote } => {
                let length = if remote.is_ipv4() { 32 } else { 128 };
                write!(
                    f,
                    "the way to the peer's outer address {remote} leads into the tunnel itself: add [[route]] to = \
                     \"{remote}/{length}\", via = \"net_gateway\""
                )
            }
            Self::PeerMoved { to } => write!(f, "the peer moved to {to}"),
            Self::LocalMoved { to } => write!(f, "the peer calls this end at {to} now"),
            Self::PathPayload { budget } => write!(f, "datagrams of up to {budget} bytes pass to the peer"),
            Self::ClonedEnd { first, second } => write!(
                f,
                "two ends use this key: {first}, {second}; each takes the link from the other: stop one, or give it a \
                 key and a link of its own"
            ),
            Self::ClockDifference { ahead } => {
                let seconds = *ahead as f64 / 1e6;
                write!(
                    f,
                    "the peer's clock differs from this end's by {seconds:+.0} s; the link works all the same"
                )
            }
            other => other.mismatch(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_has_a_code_and_a_sentence_of_its_own() {
        let all = Condition::samples();
        let codes: std::collections::BTreeSet<_> = all.iter().map(Condition::code).collect();
        assert_eq!(codes.len(), all.len());
        for condition in &all {
            let (code, sentence) = (condition.code(), condition.to_string());
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
            assert!(sentence != code && sentence.contains(' '), "{code}: {sentence}");
        }
    }

    /// By the engine's messages to the parent, in which the interface of a link-local address must not get lost.
    #[test]
    fn a_condition_is_the_same_after_it_was_sent() {
        let local = SocketAddr::from(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1194, 0, 7));
        let reason = String::new();
        let zoned = [
            Condition::NoAnswer { remote: local, others: 0 },
            Condition::PortRefused { remote: local },
            Condition::CannotSend { remote: local, reason },
            Condition::PeerPinned { from: local },
            Condition::PeerMoved { to: local },
        ];
        for condition in Condition::samples().into_iter().chain(zoned) {
            let sent = serde_json::to_string(&condition).unwrap();
            assert_eq!(serde_json::from_str::<Condition>(&sent).unwrap(), condition, "{sent}");
        }
        assert!(serde_json::from_str::<Condition>("\"Unheard\"").is_err());
    }

    /// The codes are an interface, and the manual lists exactly them.
    #[test]
    fn the_manual_has_a_row_for_each_code() {
        let manual = include_str!("../../docs/tund.8.md");
        let rows = manual.lines().skip_while(|line| *line != "## Conditions").skip(1);
        let rows = rows.take_while(|line| !line.starts_with("## "));
        let listed: Vec<_> = rows.filter_map(|row| row.strip_prefix("`")?.strip_suffix('`')).collect();
        let codes: Vec<_> = Condition::samples().iter().map(Condition::code).collect();
        assert_eq!(listed[..codes.len()], codes[..]);
    }
}
