//! What a link is told, and what it tells about itself.

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

/// Longest text that a link tells at once, in bytes.
pub const MAX_TEXT: usize = 1024;

/// The settings of a link that its state machine needs.
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
    /// Where traffic keys come from.
    pub key_mode: KeyMode,
    /// What an OpenVPN peer is told and takes, where it is one.
    pub openvpn: Option<OpenVpnWire>,
    /// Static mode: the AEAD.
    pub cipher: Cipher,
    /// The direction this end sends in.
    pub direction: u8,
    /// Handshake mode: the ciphers this end allows, the preferred one first.
    pub suites: Vec<Cipher>,
    /// Handshake mode: how keys are agreed on.
    pub exchange: Exchange,
    /// Whether there is a remote to look up.
    pub has_remote: bool,
    /// Whether the peer is followed to a new address.
    pub float: bool,
    /// Liveness timers.
    pub keepalive: Keepalive,
    /// Pack small waiting frames together.
    pub bundle: bool,
    /// Lower the segment size that forwarded TCP connections announce (tun only).
    pub mss_clamp: bool,
    /// Prefixes offered to the peer.
    pub push: Vec<IpNet>,
    /// Packets from the peer are taken only if their sources are among those that the link was told
    /// ([`Control::handle_sources`](super::control::Control::handle_sources)), or within routes of the peer that were taken.
    pub only_routed: bool,
    /// What may cross the link (tap only).
    pub guard: Option<Guard>,
    /// Lanes that this end can use, 1 to 16.
    pub lanes: u8,
    /// Largest outer IP packet, when fixed.
    pub path_mtu: Option<u32>,
    /// Log level.
    pub verb: u8,
    /// A superserver has the socket too, and starts this link again when it has ended and a datagram comes.
    pub activated: bool,
}

impl LinkSettings {
    /// The largest frame that the device carries, in bytes.
    pub fn max_frame(&self) -> usize {
        self.mtu as usize + if self.mode == Mode::Tap { ETHERNET } else { 0 }
    }

    /// Whether probes tell of a loop of the two segments.
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

/// How an OpenVPN peer is spoken to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenVpnWire {
    /// Cipher, digest, direction, framing, and what they are told with.
    pub options: Options,
    /// Whether the peer's first ping tells the framing.
    pub detect: bool,
    /// Largest datagram where packets are cut, in bytes of UDP payload.
    pub fragment: Option<u16>,
    /// What happens when the peer is tund as well.
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

/// What the status of a link to an OpenVPN peer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenVpnState {
    /// The cipher.
    pub cipher: CbcCipher,
    /// The digest of the HMAC.
    pub digest: Digest,
    /// The compression framing.
    pub framing: Framing,
    /// The time of this end's start, in seconds since the Unix epoch.
    pub start: u32,
}

fn only_routed(config: &Config) -> bool {
    config.accept.sources == Accepted::Routes && config.device.mode == Mode::Tun
}

/// The inner sources that `accept.sources` stands for, if they are limited; link-local addresses of IPv6 are the peer's own.
pub fn sources(config: &Config) -> Option<Sources> {
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let routed = || Sources::default().with(&config.routed_to_peer()).with(&[link_local.into()]);
    only_routed(config).then(routed)
}

/// How a running link is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// What the link waits for or suffers from.
    pub problem: Option<Condition>,
    /// What the peer calls its link.
    pub peer: Option<String>,
    /// Age of the keys that frames go out under.
    pub keys_age: Option<Duration>,
    /// How frames go out: the cipher, and the library that computes it.
    pub sealed: Option<(Cipher, Library)>,
    /// Of an OpenVPN peer's link.
    pub openvpn: Option<OpenVpnState>,
    /// Round-trip time.
    pub rtt: Option<Duration>,
    /// The largest UDP payload that passes to the peer, in bytes.
    pub budget: Option<u32>,
    /// What was counted since the start.
    pub stats: Stats,
    /// Who sent most in the last minute, of each side of a bridged link the busiest first.
    pub talkers: Vec<Talker>,
    /// How many lanes are in use, and how many of those beside lane 0 go along a way of their own.
    pub lanes: [u8; 2],
}

impl LinkState {
    /// How frames go out, in words.
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

/// Bytes and frames that crossed the device since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of frames sent to the peer.
    pub bytes_sent: u64,
    /// Bytes of frames received from the peer.
    pub bytes_received: u64,
}
