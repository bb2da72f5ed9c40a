//! What a link encounters, waits for or suffers from: a type, with a stable code for programs and one sentence for
//! people.
//!
//! The codes are an interface: they are in tund(8), `status --json`, the metrics and the log. Sentences may be reworded
//! at any time.

mod sentence;
pub mod spells;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::Level;
use serde::{Deserialize, Serialize};

use super::guard::Rule;
use crate::config::KeyMode;
use crate::core::openvpn::options::Difference;
use crate::crypto::suite::Exchange;
use crate::packet::layer::Mode;

/// A condition of the link. `theirs` is the peer's value and `ours` this end's. Text in it comes from the peer or the system: whoever displays it must make it printable.
#[allow(missing_docs, reason = "the line above each variant says what its fields are")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// No remote is configured, so the peer must call.
    NoRemote,
    /// No remote answers: neither the one called last nor so many others.
    NoAnswer {
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        others: usize,
    },
    /// The peer calls from here, and goes on although it is answered.
    AnswersLost {
        #[serde(with = "crate::core::zoned")]
        from: SocketAddr,
    },
    /// An unauthenticated ICMP message says that nobody receives at the remote's port.
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
    /// Datagrams arrive, but none verifies.
    KeyMismatch,
    /// The peer has this end's key but uses it in the other key mode.
    KeyModeMismatch { theirs: KeyMode, ours: KeyMode },
    /// Handshake mode: a holder of this end's key uses another key exchange.
    ExchangeMismatch { theirs: Exchange, ours: Exchange },
    /// Static mode: the peer uses another cipher.
    CipherMismatch,
    /// Handshake mode: the ends have no cipher in common.
    NoCommonCipher,
    /// Static mode: both ends send in the same direction.
    DirectionMismatch,
    /// Static mode: as before, or datagrams from before this end's start return.
    OwnDatagrams,
    /// The ends speak different versions of the protocol.
    VersionMismatch { theirs: u8, ours: u8 },
    /// One end is tun, the other one tap.
    DeviceModeMismatch { theirs: Mode, ours: Mode },
    /// The MTUs of the devices differ; in bytes.
    MtuMismatch { theirs: u32, ours: u32 },
    /// Both ends have this inner address.
    AddressConflict { address: IpAddr },
    /// The peer's inner address is not the one configured here.
    PeerAddressMismatch { expected: IpAddr, actual: IpAddr },
    /// This end's inner address is not the one configured at the peer.
    OwnAddressMismatch { expected: IpAddr, actual: IpAddr },
    /// The peer calls from an address other than the one pinned.
    PeerPinned {
        #[serde(with = "crate::core::zoned")]
        from: SocketAddr,
    },
    /// Nothing was heard from the peer for the keepalive timeout.
    PeerSilent { silence: Duration },
    /// The peer closed the link.
    PeerGoodbye { reason: String },
    /// The peer was idle and ended; it is called when there is a frame for it.
    PeerIdle,
    /// The link restarts by request.
    Reconnecting,
    /// The host slept, was copied, or had its clock set.
    Resumed,
    /// The route to the peer's outer address leads into the tunnel.
    TunnelInTunnel { remote: IpAddr },
    /// The peer has moved to another address.
    PeerMoved {
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Datagrams no longer pass, but a stream to this address does: the link continues over it.
    OverStream {
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Datagrams to this address pass again: the link continues without its stream.
    OverDatagrams {
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// A lane's own way no longer works: the lane goes along the link's.
    LaneLost {
        /// The lane.
        lane: u8,
    },
    /// The peer calls a different address of this end.
    LocalMoved { to: IpAddr },
    /// Largest datagram that passes to the peer; in bytes of UDP payload.
    PathPayload { budget: usize },
    /// Not even the minimum expected of any path passes to the peer.
    PathTooNarrow,
    /// Two ends use one key towards the end that they call; their outer addresses.
    ClonedEnd {
        #[serde(with = "crate::core::zoned")]
        first: SocketAddr,
        #[serde(with = "crate::core::zoned")]
        second: SocketAddr,
    },
    /// A frame broke a rule of the bridge guard: its source, the first since this was last reported.
    Guarded { rule: Rule, mac: [u8; 6], vlan: Option<u16> },
    /// The segments are joined elsewhere, and this end, or the peer (`theirs`), passes no frames. A probe that entered the device there
    /// from this address, in this VLAN, came out of the other end's device, or (`tunnelled`) back out of the tunnel.
    Loop { theirs: bool, tunnelled: bool, mac: [u8; 6], vlan: Option<u16> },
    /// A probe returned to the device that it entered, here or at the peer (`theirs`).
    LoopInside { theirs: bool, mac: [u8; 6], vlan: Option<u16> },
    /// Frames pass again.
    LoopOver,
    /// The peer's clock is ahead of this end's by so many microseconds.
    ClockDifference { ahead: i64 },
    /// An OpenVPN peer must prove that it is live: its start, in seconds since the Unix epoch, is not later than the last one, or far ahead.
    OpenVpnStart { time: u32 },
    /// An OpenVPN peer has a different option.
    OpenVpnOptions(Difference),
    /// An OpenVPN peer uses a different framing.
    OpenVpnFraming { theirs: String, ours: String, their_fragment: bool, our_fragment: bool },
    /// An OpenVPN peer compresses.
    OpenVpnCompressed,
    /// The peer is tund too: frames pass under handshake keys.
    Upgraded,
    /// The peer is tund too, or must be, but there is no handshake with it.
    NotUpgraded,
}

/// Makes the peer's text fit for a log line.
pub fn printable(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' })
}

impl Condition {
    /// One of each kind, for the table in tund(8) and for tests.
    #[cfg(test)]
    pub fn samples() -> Vec<Self> {
        let (ip, remote) = (IpAddr::from([192, 0, 2, 1]), SocketAddr::from(([192, 0, 2, 1], 1194)));
        vec![
            Self::NoRemote,
            Self::NoAnswer { remote, others: 1 },
            Self::AnswersLost { from: remote },
            Self::PortRefused { remote },
            Self::CannotSend { remote, reason: "the network is down".into() },
            Self::KeyMismatch,
            Self::KeyModeMismatch { theirs: KeyMode::Static, ours: KeyMode::Handshake },
            Self::ExchangeMismatch { theirs: Exchange::X25519, ours: Exchange::Hybrid },
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
            Self::OverStream { to: remote },
            Self::OverDatagrams { to: remote },
            Self::LaneLost { lane: 1 },
            Self::LocalMoved { to: ip },
            Self::PathPayload { budget: 1472 },
            Self::PathTooNarrow,
            Self::ClonedEnd { first: remote, second: SocketAddr::from(([192, 0, 2, 3], 1194)) },
            Self::ClockDifference { ahead: 90_000_000 },
            Self::OpenVpnStart { time: 7 },
            Self::OpenVpnOptions(Difference { option: "mtu".into(), here: Some("1500".into()), there: None }),
            Self::OpenVpnFraming {
                theirs: "comp-lzo".into(),
                ours: "none".into(),
                their_fragment: false,
                our_fragment: true,
            },
            Self::OpenVpnCompressed,
            Self::Upgraded,
            Self::NotUpgraded,
        ]
        .into_iter()
        .chain(Rule::ALL.map(|rule| Self::Guarded { rule, mac: [2, 0, 0, 0, 0, 1], vlan: Some(100) }))
        .chain([
            Self::Loop { theirs: false, tunnelled: true, mac: [2, 0, 0, 0, 0, 1], vlan: Some(100) },
            Self::LoopInside { theirs: true, mac: [2, 0, 0, 0, 0, 1], vlan: None },
            Self::LoopOver,
        ])
        .collect()
    }

    /// The stable name, in lower case with hyphens.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRemote => "no-remote",
            Self::NoAnswer { .. } => "no-answer",
            Self::AnswersLost { .. } => "answers-lost",
            Self::PortRefused { .. } => "port-refused",
            Self::CannotSend { .. } => "cannot-send",
            Self::KeyMismatch => "key-mismatch",
            Self::KeyModeMismatch { .. } => "key-mode-mismatch",
            Self::ExchangeMismatch { .. } => "key-exchange-mismatch",
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
            Self::OverStream { .. } => "over-tcp",
            Self::OverDatagrams { .. } => "over-udp",
            Self::LaneLost { .. } => "lane-lost",
            Self::LocalMoved { .. } => "local-moved",
            Self::PathPayload { .. } => "path-payload",
            Self::PathTooNarrow => "path-too-narrow",
            Self::ClonedEnd { .. } => "cloned-end",
            Self::ClockDifference { .. } => "clock-difference",
            Self::Guarded { rule, .. } => rule.reason().label(),
            Self::Loop { .. } => "loop",
            Self::LoopInside { .. } => "loop-inside",
            Self::LoopOver => "loop-over",
            Self::OpenVpnStart { .. } => "openvpn-start",
            Self::OpenVpnOptions(_) => "openvpn-options",
            Self::OpenVpnFraming { .. } => "openvpn-framing",
            Self::OpenVpnCompressed => "openvpn-compressed",
            Self::Upgraded => "openvpn-upgraded",
            Self::NotUpgraded => "openvpn-not-upgraded",
        }
    }

    /// Log level.
    pub fn level(&self) -> Level {
        let news = matches!(
            self,
            Self::NoRemote
                | Self::PeerIdle
                | Self::Reconnecting
                | Self::Resumed
                | Self::PeerMoved { .. }
                | Self::LocalMoved { .. }
                | Self::OverDatagrams { .. }
                | Self::LoopOver
                | Self::Upgraded
        );
        if matches!(self, Self::PathPayload { .. }) {
            Level::Trace
        } else if news {
            Level::Info
        } else {
            Level::Warn
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

    /// The engine sends conditions to the parent; a link-local address must keep its interface.
    #[test]
    fn a_condition_is_the_same_after_it_was_sent() {
        let local = SocketAddr::from(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1194, 0, 7));
        let reason = String::new();
        let zoned = [
            Condition::NoAnswer { remote: local, others: 0 },
            Condition::AnswersLost { from: local },
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

    /// The codes are an interface: the manual lists exactly them.
    #[test]
    fn the_manual_has_a_row_for_each_code() {
        let manual = include_str!("../../../docs/tund.8.md");
        let rows = manual.lines().skip_while(|line| *line != "## Conditions").skip(1);
        let rows = rows.take_while(|line| !line.starts_with("## "));
        let listed: Vec<_> = rows.filter_map(|row| row.strip_prefix("`")?.strip_suffix('`')).collect();
        let codes: Vec<_> = Condition::samples().iter().map(Condition::code).collect();
        assert_eq!(listed[..codes.len()], codes[..]);
    }
}
