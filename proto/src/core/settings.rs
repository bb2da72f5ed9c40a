//! A link's settings and its state.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::guard::Talker;
use super::limits::ETHERNET;
use super::openvpn::options::Options;
use super::sources::Sources;
use super::stats::Stats;
use crate::config::{Config, Guard, Keepalive, KeyMode, OpenVpn, Sources as Accepted, Upgrade};
use crate::crypto::aead::Library;
use crate::crypto::cbc_hmac::{CbcCipher, Digest};
use crate::crypto::suite::{Cipher, Exchange};
use crate::packet::layer::Mode;
use crate::wire::openvpn::Framing;

/// Longest text that a link reports at once, in bytes.
pub const MAX_TEXT: usize = 1024;

/// The settings that a link's state machine needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkSettings {
    /// The link's name, told to the peer.
    pub name: String,
    /// TUN or TAP.
    pub mode: Mode,
    /// Device MTU in bytes.
    pub mtu: u32,
    /// Own inner addresses.
    pub addresses: Vec<IpAddr>,
    /// The peer's inner addresses as configured here.
    pub peers: Vec<IpAddr>,
    /// Source of the traffic keys.
    pub key_mode: KeyMode,
    /// Settings for an OpenVPN peer, if it is one.
    pub openvpn: Option<OpenVpnWire>,
    /// Static mode: the AEAD.
    pub cipher: Cipher,
    /// This end's sending direction.
    pub direction: u8,
    /// Handshake mode: the allowed ciphers, in order of preference.
    pub suites: Vec<Cipher>,
    /// Handshake mode: key exchange.
    pub exchange: Exchange,
    /// Whether there is a remote to look up.
    pub has_remote: bool,
    /// Whether to follow the peer to a new address.
    pub float: bool,
    /// Liveness timers.
    pub keepalive: Keepalive,
    /// Pack small waiting frames together.
    pub bundle: bool,
    /// Lower the MSS of forwarded TCP connections (tun only).
    pub mss_clamp: bool,
    /// Prefixes offered to the peer.
    pub push: Vec<IpNet>,
    /// Accept packets from the peer only from sources given by
    /// [`Control::handle_sources`](super::control::Control::handle_sources), or within routes accepted from the peer.
    pub only_routed: bool,
    /// What may cross the link (tap only).
    pub guard: Option<Guard>,
    /// Lanes that this end can use, 1 to 16.
    pub lanes: u8,
    /// Largest outer IP packet, if fixed.
    pub path_mtu: Option<u32>,
    /// Log level.
    pub verb: u8,
    /// A superserver has the socket too, and restarts this link on a datagram after it has ended.
    pub activated: bool,
}

impl LinkSettings {
    /// Largest frame of the device, in bytes.
    pub fn max_frame(&self) -> usize {
        self.mtu as usize + if self.mode == Mode::Tap { ETHERNET } else { 0 }
    }

    /// Whether probes detect a loop of the two segments.
    pub fn finds_loops(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.find_loops)
    }
}

impl From<&Config> for LinkSettings {
    fn from(config: &Config) -> Self {
        Self {
            name: config.name.clone(),
            mode: config.device.mode,
            mtu: config.device.mtu,
            addresses: config.device.addresses.iter().map(IpNet::addr).collect(),
            peers: config.device.peers.clone(),
            key_mode: config.key.mode,
            openvpn: config.key.openvpn.as_ref().map(|wire| OpenVpnWire::new(config, wire)),
            cipher: config.key.cipher,
            direction: config.key.direction,
            suites: config.key.suites.clone(),
            exchange: config.key.exchange,
            has_remote: !config.remotes.is_empty(),
            float: config.float,
            keepalive: config.keepalive,
            bundle: config.tuning.bundle,
            mss_clamp: config.tuning.mss_clamp && config.device.mode == Mode::Tun,
            push: config.push.clone(),
            only_routed: only_routed(config),
            guard: (config.device.mode == Mode::Tap).then(|| config.guard.clone()),
            lanes: 1,
            path_mtu: config.tuning.path_mtu,
            verb: config.run.verb,
            activated: false,
        }
    }
}

/// Wire settings for an OpenVPN peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenVpnWire {
    /// Cipher, digest, direction, framing, and the rest of the option text.
    pub options: Options,
    /// Whether to detect the framing from the peer's first ping.
    pub detect: bool,
    /// Largest datagram with fragmentation, in bytes of UDP payload.
    pub fragment: Option<u16>,
    /// What to do if the peer is tund too.
    pub upgrade: Upgrade,
}

impl OpenVpnWire {
    fn new(config: &Config, wire: &OpenVpn) -> Self {
        let device = &config.device;
        let options = Options {
            mode: device.mode,
            mtu: device.mtu as usize,
            own: device.addresses.iter().find(|own| own.addr().is_ipv4()).copied(),
            peer: device.peers.iter().find(|peer| peer.is_ipv4()).copied(),
            direction: wire.direction,
            cipher: wire.cipher,
            digest: wire.digest,
            framing: wire.framing.unwrap_or(Framing::None),
            fragments: wire.fragment.is_some(),
        };
        Self { options, detect: wire.framing.is_none(), fragment: wire.fragment, upgrade: wire.upgrade }
    }
}

/// Status of a link to an OpenVPN peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenVpnState {
    /// The cipher.
    pub cipher: CbcCipher,
    /// The HMAC's digest.
    pub digest: Digest,
    /// The compression framing.
    pub framing: Framing,
    /// Time of this end's start, in seconds since the Unix epoch.
    pub start: u32,
}

fn only_routed(config: &Config) -> bool {
    config.accept.sources == Accepted::Routes && config.device.mode == Mode::Tun
}

/// The inner sources of `accept.sources`, if limited; IPv6 link-local addresses are the peer's own.
pub fn sources(config: &Config) -> Option<Sources> {
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let routed = || Sources::default().with(&config.routed_to_peer()).with(&[link_local.into()]);
    only_routed(config).then(routed)
}

/// State of a running link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// What the link waits for or suffers from.
    pub problem: Option<Condition>,
    /// How long that has held, if known.
    pub problem_age: Option<Duration>,
    /// The peer's name for the link.
    pub peer: Option<String>,
    /// Age of the keys for frames.
    pub keys_age: Option<Duration>,
    /// The cipher for frames, and the library that computes it.
    pub sealed: Option<(Cipher, Library)>,
    /// For an OpenVPN peer's link.
    pub openvpn: Option<OpenVpnState>,
    /// Round-trip time.
    pub rtt: Option<Duration>,
    /// Largest UDP payload that passes to the peer, in bytes.
    pub budget: Option<u32>,
    /// Counters since the start.
    pub stats: Stats,
    /// The busiest senders over the last minute, on each side of a bridged link, busiest first.
    pub talkers: Vec<Talker>,
    /// Lanes in use, and those other than 0 that use their own way.
    pub lanes: [u8; 2],
}

impl LinkState {
    /// Describes the protection of frames.
    pub fn cipher(&self) -> Option<String> {
        let Some(OpenVpnState { cipher, digest, framing, .. }) = self.openvpn else {
            return self.sealed.map(|(cipher, _)| cipher.to_string());
        };
        let (name, digest, framing) = (cipher.name(), digest.name(), framing.name());
        let sealed = match cipher.is_weak() {
            true => format!(", {} MB sealed with blocks of 64 bits", self.stats.bytes_out / 1_000_000),
            false => String::new(),
        };
        Some(format!("{name} with HMAC-{digest}, framing {framing}, no forward secrecy{sealed}"))
    }
}

/// Bytes of frames that crossed the device since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of frames sent to the peer.
    pub bytes_sent: u64,
    /// Bytes of frames received from the peer.
    pub bytes_received: u64,
}
