//! The bulk path in OpenVPN's format: like [`crate::core::lane`], without stream blocks, key ids and masks.

use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use super::inward::Inward;
use super::options::Options;
use super::outward::Outward;
use crate::core::guard::Origin;
use crate::core::inner::InnerPolicy;
use crate::core::lane::{Report, Sink};
use crate::core::limits::OUTER_V6;
use crate::core::path::Path;
use crate::core::settings::LinkSettings;
use crate::core::sources::Sources;
use crate::core::stats::Stats;
use crate::crypto::cbc_hmac::{CbcHmac, IvMark, KEY, slots};
use crate::crypto::keys::ProbeKey;
use crate::wire::openvpn::{PACKET_ID, PacketId};

/// MTU of the usual path in bytes.
pub const USUAL_MTU: u32 = 1500;

/// The key file, and the keys that mark this host's datagrams. It shares no 4 KiB page with anything else.
#[repr(align(4096))]
pub struct Secrets {
    /// The 256 bytes of the key file.
    pub key: Zeroizing<[u8; KEY]>,
    /// Kept across restarts: see [`IvMark`].
    pub check: [u8; 16],
    /// New in each process: see [`IvMark`].
    pub draw: [u8; 16],
}

/// A lane's constant settings.
#[derive(Clone)]
pub struct Settings {
    /// The keys.
    pub secrets: Arc<Secrets>,
    /// Cipher, digest, direction, framing.
    pub options: Options,
    /// Largest datagram with fragmentation (`fragment`), in bytes of UDP payload.
    pub fragment: Option<usize>,
    /// Whether to detect the framing from the peer's first ping.
    pub detect: bool,
    /// Largest frame the device carries, in bytes.
    pub max_frame: usize,
    /// Copy a frame's DSCP to its datagram, not only ECN.
    pub copy_dscp: bool,
    /// The rules for inner packets.
    pub inner: InnerPolicy,
}

impl Settings {
    /// The settings of a link in this mode; `None` in another.
    pub fn new(link: &LinkSettings, secrets: Arc<Secrets>, copy_dscp: bool) -> Option<Self> {
        let wire = link.openvpn.as_ref()?;
        let options = wire.options.clone();
        let front = PACKET_ID + options.framing.most() + options.fragment_header();
        let outer = link.path_mtu.unwrap_or(USUAL_MTU) as usize;
        let fits = options.layout().plain(outer.saturating_sub(OUTER_V6)).saturating_sub(front);
        // The peer tells of no probe: each end knows its own by its own key, and gives the other's back.
        let inner = InnerPolicy::new(link, || ProbeKey::own(&secrets.draw)).clamped_to(fits);
        Some(Self {
            secrets,
            options,
            fragment: wire.fragment.map(usize::from),
            detect: wire.detect,
            max_frame: link.max_frame(),
            copy_dscp,
            inner,
        })
    }

    /// Keys for sealing.
    pub fn sealing(&self) -> CbcHmac {
        self.keys(0)
    }

    /// Keys for opening.
    pub fn opening(&self) -> CbcHmac {
        self.keys(1)
    }

    /// Marks this host's own datagrams.
    pub fn mark(&self) -> IvMark {
        IvMark::new(&self.secrets.draw, &self.secrets.check)
    }

    fn keys(&self, way: usize) -> CbcHmac {
        let slots = slots(&self.secrets.key, self.options.direction);
        CbcHmac::new(self.options.cipher, self.options.digest, slots[way])
    }
}

/// From the link to one half of the lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// To the outward half.
    Send(Send),
    /// To the inward half.
    Receive(Receive),
}

impl From<Send> for Command {
    fn from(command: Send) -> Self {
        Self::Send(command)
    }
}

impl From<Receive> for Command {
    fn from(command: Receive) -> Self {
        Self::Receive(command)
    }
}

/// From the link to the lane's outward half.
#[derive(Debug, Clone, PartialEq)]
pub enum Send {
    /// Number datagrams from 1, under this never-used time.
    Start(u32),
    /// Use this framing for output.
    Framing(crate::wire::openvpn::Framing),
    /// Send a ping or a message about options.
    Payload {
        /// The payload.
        payload: Vec<u8>,
        /// Destination.
        to: Path,
    },
    /// Send nothing until the next [`Send::Start`]: a copy of this process may use the same numbers.
    Stop,
    /// Destination of frames.
    Endpoint(Path),
    /// Whether frames may pass.
    Agreed(bool),
    /// Longest datagram that the route carries unfragmented, in bytes of UDP payload.
    Budget(usize),
    /// Whether the guard blocks all frames.
    Hold(bool),
}

/// From the link to the lane's inward half.
#[derive(Debug, Clone, PartialEq)]
pub enum Receive {
    /// Accept what the peer numbers under this time.
    Begin {
        /// The time.
        time: u32,
        /// Accept nothing up to this number.
        after: Option<u32>,
    },
    /// Examine this again: its start is accepted now.
    Again {
        /// The path it came by.
        from: Path,
        /// Packet id and body.
        plain: Vec<u8>,
    },
    /// The path of the peer's datagrams.
    Endpoint(Path),
    /// Whether frames may pass.
    Agreed(bool),
    /// Inner source addresses accepted from the peer; `None`: any.
    Sources(Option<Sources>),
    /// Whether the guard blocks all frames.
    Hold(bool),
    /// Give the device the guard's probes of this round.
    Probe(Origin, u32),
}

/// From the lane to the link.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An authentic datagram of a start that is not accepted.
    OtherStart {
        /// The path it came by.
        from: Path,
        /// Packet id.
        id: PacketId,
        /// Payload length, if it answers a request for proof of the start.
        load: Option<usize>,
        /// Packet id and body.
        plain: Vec<u8>,
    },
    /// An authentic new message about options or the path.
    Message {
        /// The path it came by.
        from: Path,
        /// The payload.
        payload: Vec<u8>,
    },
    /// The peer's framing differs from the one configured.
    Framed(crate::wire::openvpn::Told),
    /// The peer compresses, which tund does not decompress.
    Compressed,
}

/// Both halves.
pub struct Lane {
    /// Frames to datagrams.
    pub outward: Outward,
    /// Datagrams to frames.
    pub inward: Inward,
}

impl Lane {
    /// A lane that is inactive until the link says so.
    pub fn new(settings: Settings) -> Self {
        Self { outward: Outward::new(settings.clone()), inward: Inward::new(settings) }
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        self.outward.frames.stats.plus(&self.inward.stats())
    }

    /// Returns what the link must know once a second.
    pub fn report(&mut self, now: Instant) -> Report {
        self.outward.frames.inner.set_now(now);
        self.inward.frames.inner.set_now(now);
        let stats = self.stats();
        Report {
            stats,
            heard: stats.datagrams_in,
            key_used_up: self.outward.report(),
            offenders: self.inward.frames.inner.offenders(),
            talkers: [self.outward.frames.inner.talkers(), self.inward.frames.inner.talkers()],
            ..Report::default()
        }
    }

    /// Carries out the link's decision.
    pub fn handle_command(&mut self, now: Instant, command: Command, sink: &mut impl Sink) {
        match command {
            Command::Send(command) => self.outward.handle_command(command, sink),
            Command::Receive(command) => self.inward.handle_command(now, command, sink),
        }
    }
}
