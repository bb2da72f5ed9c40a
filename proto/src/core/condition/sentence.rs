//! The sentence of each condition: the problem and its remedy, if any.

use std::fmt;

use super::Condition;
use crate::core::openvpn::options::Difference;

impl Condition {
    /// Conditions about settings of the two ends that do not match.
    fn mismatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyModeMismatch { theirs, ours } => {
                write!(f, "the peer uses {theirs} keys, this end {ours}: set the same key.mode on both ends")
            }
            Self::ExchangeMismatch { theirs, ours } => write!(
                f,
                "the peer exchanges keys with {theirs}, this end with {ours}: set the same key.post-quantum on both ends"
            ),
            Self::VersionMismatch { theirs, ours } => {
                write!(f, "the peer speaks protocol version {theirs}, this end {ours}: upgrade the older end")
            }
            Self::DeviceModeMismatch { theirs, ours } => write!(
                f,
                "the peer is in {theirs} mode, this end in {ours}: set the same device.mode on both ends"
            ),
            Self::MtuMismatch { theirs, ours } => write!(
                f,
                "the peer's frame MTU is {theirs}, this end's {ours}: set the same device.mtu on both ends"
            ),
            Self::AddressConflict { address } => {
                write!(f, "both ends use the address {address}: change device.address on one")
            }
            Self::PeerAddressMismatch { expected, actual } => write!(
                f,
                "the peer's address is {actual}, this end expects {expected}: \
                 fix device.peer here or device.address there"
            ),
            Self::OwnAddressMismatch { expected, actual } => write!(
                f,
                "the peer expects the address {expected} here, but it is {actual}: \
                 fix device.address here or device.peer there"
            ),
            other => other.openvpn(f),
        }
    }

    /// Conditions from the guard of a bridged link.
    fn bridged(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guarded { rule, mac, vlan } => {
                write!(f, "{}, first from {}: {}", rule.sentence(), Station(*mac, *vlan), rule.remedy())
            }
            Self::Loop { theirs, tunnelled, mac, vlan } => {
                let (end, other) =
                    if *theirs { ("the peer", "this end's") } else { ("this end", "the peer's") };
                let way = match tunnelled {
                    true => "came back through the tunnel".to_owned(),
                    false => format!("came out of {other} device"),
                };
                write!(
                    f,
                    "the two segments are also connected elsewhere, so {end} blocks all frames: its probe from {} {way}; \
                     remove one connection, or run a spanning tree on both bridges (`bridge fdb` shows on which port a \
                     bridge has learned that address)",
                    Station(*mac, *vlan)
                )
            }
            Self::LoopInside { theirs, mac, vlan } => write!(
                f,
                "there is a loop inside {} segment, or a host that reflects frames: the probe from {} came back to the \
                 device it was sent into; look for it there, guard.storm limits the damage",
                if *theirs { "the peer's" } else { "this end's" },
                Station(*mac, *vlan)
            ),
            other => other.mismatch(f),
        }
    }

    /// Conditions with an OpenVPN peer.
    fn openvpn(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenVpnStart { time } => write!(
                f,
                "the peer's start, {time} s after 1970, is not later than the last one seen, or far in the future: checking \
                 that it is live; if this persists, is it OpenVPN, and does it accept what this end sends?"
            ),
            Self::OpenVpnFraming { theirs, ours, their_fragment, our_fragment } => {
                let word = |is| if is { "with" } else { "without" };
                write!(
                    f,
                    "the peer's framing is {theirs} {} fragment, this end's {ours} {} fragment: set openvpn.framing and \
                     openvpn.fragment to match the peer's compression and `fragment`",
                    word(*their_fragment),
                    word(*our_fragment)
                )
            }
            Self::OpenVpnOptions(Difference { option, here, there }) => {
                let value = |value: &Option<String>| match value.as_deref() {
                    None => "not set".to_owned(),
                    Some("") => "set".to_owned(),
                    Some(value) => value.to_owned(),
                };
                write!(
                    f,
                    "OpenVPN's {option} is {} on the peer, {} here: make them match",
                    value(there),
                    value(here)
                )
            }
            other => f.write_str(other.fixed()),
        }
    }

    /// The sentence of a condition without parameters; for others, its code.
    fn fixed(&self) -> &'static str {
        match self {
            Self::NoRemote => "waiting for the peer to connect: no remote is set",
            Self::KeyMismatch => {
                "datagrams arrive, but none authenticates with this key: do key.mode and what `tund doctor` shows of the \
                 secret match on both ends?"
            }
            Self::CipherMismatch => "the peer uses another cipher: set the same key.cipher on both ends",
            Self::NoCommonCipher => "the ends have no cipher in common: set the same key.cipher on both",
            Self::DirectionMismatch => {
                "both ends send in the same direction: set key.direction to 0 on one end and to 1 on the other"
            }
            Self::OwnDatagrams => {
                "datagrams arrive sealed in this end's own direction: either something replays what this end sent \
                 before it started, or key.direction is the same on both ends"
            }
            Self::PathTooNarrow => {
                "IP packets of 576 bytes, which any path should carry, do not reach the peer: longer frames are lost \
                 until the path is fixed"
            }
            Self::PeerIdle => "the peer is idle; this end reconnects when it has a frame to send",
            Self::LoopOver => "the loop is gone: frames pass again",
            Self::Reconnecting => "reconnecting on request",
            Self::OpenVpnCompressed => {
                "the peer compresses, which leaks plaintext and is not supported here: set `comp-lzo no` there, or remove \
                 `compress` and `allow-compression yes`"
            }
            Self::Upgraded => "the peer runs tund too: frames now pass under handshake keys",
            Self::NotUpgraded => {
                "no handshake with the peer succeeds, so there is no forward secrecy: is it tund, and does something on \
                 the path drop some datagrams?"
            }
            Self::Resumed => "this host slept, was copied, or had its clock set: all keys are replaced",
            other => other.code(),
        }
    }
}

impl fmt::Display for Condition {
    /// The problem and its remedy, if any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { remote, others } => {
                let others = match others {
                    0 => String::new(),
                    others => format!(" and {others} more"),
                };
                write!(
                    f,
                    "no answer from {remote}{others} yet, still trying: is tund running there with the same key, and is \
                     its port open?"
                )
            }
            Self::AnswersLost { from } => write!(
                f,
                "{from} calls, but this end's answers do not arrive there: does a firewall or router drop UDP from here to \
                 it?"
            ),
            Self::PortRefused { remote } => {
                let (host, port) = (remote.ip(), remote.port());
                write!(f, "{host} is reported to have nothing on port {port}: is tund running there?")
            }
            Self::CannotSend { remote, reason } => write!(f, "cannot send to {remote}: {reason}"),
            Self::PeerPinned { from } => {
                write!(f, "the peer sends from {from}, but float = false pins its address")
            }
            Self::PeerSilent { silence } => {
                write!(f, "nothing heard from the peer for {} s", silence.as_secs_f32())
            }
            Self::PeerGoodbye { reason } => write!(f, "the peer closed the link: {reason}"),
            Self::TunnelInTunnel { remote } => {
                let length = if remote.is_ipv4() { 32 } else { 128 };
                write!(
                    f,
                    "the route to the peer's outer address {remote} leads into the tunnel itself: add [[route]] to = \
                     \"{remote}/{length}\", via = \"net_gateway\""
                )
            }
            Self::PeerMoved { to } => write!(f, "the peer moved to {to}"),
            Self::OverStream { to } => write!(f, "UDP does not get through: the link runs over TCP to {to}"),
            Self::OverDatagrams { to } => write!(f, "UDP gets through again: the link runs to {to}"),
            Self::LaneLost { lane } => {
                write!(f, "lane {lane}'s own path to the peer has failed: it now uses lane 0's")
            }
            Self::LocalMoved { to } => write!(f, "the peer now reaches this end at {to}"),
            Self::PathPayload { budget } => write!(f, "datagrams of up to {budget} bytes reach the peer"),
            Self::ClonedEnd { first, second } => write!(
                f,
                "two ends use this key: {first} and {second}; they keep taking the link from each other: stop one, or \
                 give it its own key and link"
            ),
            Self::ClockDifference { ahead } => {
                let seconds = *ahead as f64 / 1e6;
                write!(f, "the peer's clock is {seconds:+.0} s from this end's; the link still works")
            }
            other => other.bridged(f),
        }
    }
}

/// An address in a segment.
struct Station([u8; 6], Option<u16>);

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, g], vlan) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
        match vlan {
            Some(vlan) => write!(f, " in VLAN {vlan}"),
            None => f.write_str(", untagged"),
        }
    }
}
