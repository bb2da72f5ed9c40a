//! What a link meets, waits for or suffers from: a type with a stable code for programs and one sentence for people.
//!
//! The codes are an interface: they stand in tund(8), `status --json`, the metrics and the log. A sentence may be
//! worded anew at any time.

mod sentence;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::Level;
use serde::{Deserialize, Serialize};

use super::guard::Rule;
use crate::config::KeyMode;
use crate::core::openvpn::options::Difference;
use crate::crypto::suite::Exchange;
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
    /// Handshake mode: who has this end's key agrees on keys in another way.
    ExchangeMismatch { theirs: Exchange, ours: Exchange },
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
    /// Datagrams do not pass any more, and a stream to this address does: the link goes on over that.
    OverStream {
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Datagrams to this address pass again: the link goes on without its stream.
    OverDatagrams {
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// What goes along a lane's own way does not arrive any more: that lane goes along the link's.
    LaneLost {
        /// The lane.
        lane: u8,
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
    /// A frame broke a rule of the bridge guard: the source of the first one since this was last said.
    Guarded { rule: Rule, mac: [u8; 6], vlan: Option<u16> },
    /// The segments are joined elsewhere too, and this end, or the peer (`theirs`), lets no frame pass: a probe that went into the device
    /// there from this address, in this VLAN, came out of the other end's device, or (`tunnelled`) back out of the tunnel.
    Loop { theirs: bool, tunnelled: bool, mac: [u8; 6], vlan: Option<u16> },
    /// A probe came back to the device that it went into, here or at the peer (`theirs`).
    LoopInside { theirs: bool, mac: [u8; 6], vlan: Option<u16> },
    /// Frames pass again.
    LoopOver,
    /// The peer's clock is ahead of this end's; in microseconds.
    ClockDifference { ahead: i64 },
    /// An OpenVPN peer has to prove that it runs now, since its start, in seconds since the Unix epoch, is not later than the last one or far ahead.
    OpenVpnStart { time: u32 },
    /// An OpenVPN peer has an option otherwise.
    OpenVpnOptions(Difference),
    /// An OpenVPN peer frames what it sends in another way.
    OpenVpnFraming { theirs: String, ours: String, their_fragment: bool, our_fragment: bool },
    /// An OpenVPN peer compresses.
    OpenVpnCompressed,
    /// The peer is tund as well: frames pass under handshake keys.
    Upgraded,
    /// The peer is tund as well, or has to be, but there is no handshake with it.
    NotUpgraded,
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

    /// How much it matters to who reads the log.
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
        let manual = include_str!("../../../docs/tund.8.md");
        let rows = manual.lines().skip_while(|line| *line != "## Conditions").skip(1);
        let rows = rows.take_while(|line| !line.starts_with("## "));
        let listed: Vec<_> = rows.filter_map(|row| row.strip_prefix("`")?.strip_suffix('`')).collect();
        let codes: Vec<_> = Condition::samples().iter().map(Condition::code).collect();
        assert_eq!(listed[..codes.len()], codes[..]);
    }
}
