//! The sentence of each condition: what is the matter, and the remedy if there is one.

use std::fmt;

use super::Condition;
use crate::core::openvpn::options::Difference;

impl Condition {
    /// What the two ends state of themselves and does not fit together.
    fn mismatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyModeMismatch { theirs, ours } => write!(
                f,
                "the peer uses {theirs} keys, this end {ours} keys: set key.mode alike on both ends"
            ),
            Self::ExchangeMismatch { theirs, ours } => write!(
                f,
                "the peer agrees on keys by {theirs}, this end by {ours}: set key.post-quantum alike on both ends"
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
            other => other.openvpn(f),
        }
    }

    /// What the guard says of a bridged link.
    fn bridged(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guarded { rule, mac, vlan } => {
                write!(f, "{}, first from {}: {}", rule.sentence(), Station(*mac, *vlan), rule.remedy())
            }
            Self::Loop { theirs, tunnelled, mac, vlan } => {
                let (end, other) = if *theirs { ("the peer", "this end") } else { ("this end", "the peer") };
                let way =
                    if *tunnelled { "came back out of the tunnel" } else { "came out of the device of" };
                let other = if *tunnelled { "" } else { other };
                write!(
                    f,
                    "the two segments are joined elsewhere too, so {end} lets no frame pass: its probe from {} {way} {other}; \
                     take one way out, or give both bridges a spanning tree (`bridge fdb` shows the port where a bridge \
                     knows that address)",
                    Station(*mac, *vlan)
                )
            }
            Self::LoopInside { theirs, mac, vlan } => write!(
                f,
                "there is a loop inside {} segment, or a host that sends back what it sees: the probe from {} came back to the \
                 device that it went into; look for it there, guard.storm limits what comes of it",
                if *theirs { "the peer's" } else { "this end's" },
                Station(*mac, *vlan)
            ),
            other => other.mismatch(f),
        }
    }

    /// What there is to an OpenVPN peer.
    fn openvpn(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenVpnStart { time } => write!(
                f,
                "the peer's start, {time} s after 1970, is not later than the last one here, or far ahead: asking it whether it \
                 runs now; if it stays so, is it OpenVPN, and does it take what this end sends?"
            ),
            Self::OpenVpnFraming { theirs, ours, their_fragment, our_fragment } => {
                let word = |is| if is { "with" } else { "without" };
                write!(
                    f,
                    "the peer frames as {theirs} {} fragment, this end as {ours} {} fragment: set openvpn.framing and \
                     openvpn.fragment as the peer has compression and `fragment`",
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
                    "OpenVPN's {option} is {} at the peer, {} here: set it alike",
                    value(there),
                    value(here)
                )
            }
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
            Self::LoopOver => "the loop is gone: frames pass again",
            Self::Reconnecting => "connecting again, as asked",
            Self::OpenVpnCompressed => {
                "the peer compresses, which leaks what is sealed and is not undone here: set `comp-lzo no` there, or take \
                 `compress` and `allow-compression yes` out"
            }
            Self::Upgraded => "the peer is tund as well: frames pass under keys of a handshake now",
            Self::NotUpgraded => {
                "no handshake with the peer succeeds, so that nothing is sealed with forward secrecy: is it tund, and what on \
                 the way lets only some datagrams through?"
            }
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
            Self::OverStream { to } => write!(f, "UDP does not pass: the peer is reached over TCP at {to}"),
            Self::OverDatagrams { to } => write!(f, "UDP passes again: the peer is reached at {to}"),
            Self::LaneLost { lane } => {
                write!(f, "lane {lane}'s own way to the peer ceased to pass: it goes along lane 0's")
            }
            Self::LocalMoved { to } => write!(f, "the peer calls this end at {to} now"),
            Self::PathPayload { budget } => write!(f, "datagrams of up to {budget} bytes pass to the peer"),
            Self::ClonedEnd { first, second } => write!(
                f,
                "two ends use this key: {first}, {second}; each takes the link from the other: stop one, or give it a \
                 key and a link of its own"
            ),
            Self::ClockDifference { ahead } => {
                let seconds = *ahead as f64 / 1e6;
                write!(f, "the peer's clock is {seconds:+.0} s from this end's; the link works all the same")
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
