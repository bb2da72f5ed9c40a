//! The bulk path in OpenVPN's format: frames to datagrams and back. As [`crate::core::lane`], without stream blocks, key ids and masks.

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
use crate::crypto::cbc_hmac::{CbcHmac, IvMark, KEY, Layout, slots};
use crate::crypto::keys::ProbeKey;
use crate::wire::openvpn::{FRAGMENT_HEADER, PACKET_ID, PacketId};

/// What passes on the usual path, in bytes.
pub const USUAL_MTU: u32 = 1500;

/// The key file, and what this host marks its datagrams with. It shares no page of 4 KiB with anything.
#[repr(align(4096))]
pub struct Secrets {
    /// The 256 bytes of the key file.
    pub key: Zeroizing<[u8; KEY]>,
    /// Kept over restarts: see [`IvMark`].
    pub check: [u8; 16],
    /// New in each process: see [`IvMark`].
    pub draw: [u8; 16],
}

/// What a lane is made of and does not change.
#[derive(Clone)]
pub struct Settings {
    /// The keys.
    pub secrets: Arc<Secrets>,
    /// Cipher, digest, direction, framing.
    pub options: Options,
    /// Largest datagram where packets are cut (`fragment`), in bytes of UDP payload.
    pub fragment: Option<usize>,
    /// Whether the peer's first ping tells the framing.
    pub detect: bool,
    /// Largest frame the device carries, in bytes.
    pub max_frame: usize,
    /// Copy the DSCP of frames to their datagrams, not ECN alone.
    pub copy_dscp: bool,
    /// The rules for inner packets.
    pub inner: InnerPolicy,
}

impl Settings {
    /// Those of a link in this mode; `None` if it is in another.
    pub fn new(link: &LinkSettings, secrets: Arc<Secrets>, copy_dscp: bool) -> Option<Self> {
        let wire = link.openvpn.as_ref()?;
        let Options { cipher, digest, framing, fragments, .. } = wire.options;
        let front = PACKET_ID + framing.most() + if fragments { FRAGMENT_HEADER } else { 0 };
        let outer = link.path_mtu.unwrap_or(USUAL_MTU) as usize;
        let fits = Layout::new(cipher, digest).plain(outer.saturating_sub(OUTER_V6)).saturating_sub(front);
        // The peer tells of no probe: each end knows its own by its own key, and gives the other's back.
        let inner = InnerPolicy::new(link, || ProbeKey::own(&secrets.draw)).clamped_to(fits);
        Some(Self {
            secrets,
            options: wire.options.clone(),
            fragment: wire.fragment.map(usize::from),
            detect: wire.detect,
            max_frame: link.max_frame(),
            copy_dscp,
            inner,
        })
    }

    /// How datagrams are laid out.
    pub fn layout(&self) -> Layout {
        Layout::new(self.options.cipher, self.options.digest)
    }

    /// The keys that this end seals with.
    pub fn sealing(&self) -> CbcHmac {
        self.keys(0)
    }

    /// The keys that this end opens with.
    pub fn opening(&self) -> CbcHmac {
        self.keys(1)
    }

    /// What this host knows its own datagrams by.
    pub fn mark(&self) -> IvMark {
        IvMark::new(&self.secrets.draw, &self.secrets.check)
    }

    fn keys(&self, way: usize) -> CbcHmac {
        let slots = slots(&self.secrets.key, self.options.direction);
        CbcHmac::new(self.options.cipher, self.options.digest, slots[way])
    }
}

/// From the link to the lane: to the half of it that carries it out.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// To the way out.
    Send(Send),
    /// To the way in.
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

/// From the link to the lane's way out.
#[derive(Debug, Clone, PartialEq)]
pub enum Send {
    /// Number datagrams from 1, under this time, which was never used before.
    Start(u32),
    /// Frame what goes out this way.
    Framing(crate::wire::openvpn::Framing),
    /// Send a ping or a message about options.
    Payload {
        /// What it says.
        payload: Vec<u8>,
        /// Where to.
        to: Path,
    },
    /// Send nothing before the next [`Send::Start`]: a copy of this process may send under the same numbers.
    Stop,
    /// Where frames go.
    Endpoint(Path),
    /// Whether frames may pass.
    Agreed(bool),
    /// The longest datagram that the route takes whole, in bytes of UDP payload.
    Budget(usize),
    /// Whether the guard lets no frame pass.
    Hold(bool),
}

/// From the link to the lane's way in.
#[derive(Debug, Clone, PartialEq)]
pub enum Receive {
    /// Take what the peer numbers under this time.
    Begin {
        /// The time.
        time: u32,
        /// Nothing up to this number is taken.
        after: Option<u32>,
    },
    /// Look at this again: its start is taken now.
    Again {
        /// The way it came.
        from: Path,
        /// Packet id and body.
        plain: Vec<u8>,
    },
    /// The way that the peer's datagrams come.
    Endpoint(Path),
    /// Whether frames may pass.
    Agreed(bool),
    /// Inner source addresses that are taken from the peer; `None`: every one.
    Sources(Option<Sources>),
    /// Whether the guard lets no frame pass.
    Hold(bool),
    /// Give the device the guard's probes of this round.
    Probe(Origin, u32),
}

/// From the lane to the link.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An authentic datagram of a start of the peer that is not taken.
    OtherStart {
        /// The way it came.
        from: Path,
        /// Its number.
        id: PacketId,
        /// Length of its payload, if that is what was asked for to prove the start.
        load: Option<usize>,
        /// Packet id and body.
        plain: Vec<u8>,
    },
    /// An authentic and new message about options or the path.
    Message {
        /// The way it came.
        from: Path,
        /// The payload.
        payload: Vec<u8>,
    },
    /// The peer frames what it sends this way, which is not as it is set here.
    Framed(crate::wire::openvpn::Told),
    /// The peer compresses, which is not undone here.
    Compressed,
}

/// Both ways.
pub struct Lane {
    /// Frames to datagrams.
    pub outward: Outward,
    /// Datagrams to frames.
    pub inward: Inward,
}

impl Lane {
    /// A lane that takes and gives nothing until the link says so.
    pub fn new(settings: Settings) -> Self {
        Self { outward: Outward::new(settings.clone()), inward: Inward::new(settings) }
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.outward.frames.stats.plus(&self.inward.stats())
    }

    /// What the link must know once a second.
    pub fn report(&mut self) -> Report {
        let stats = self.stats();
        Report {
            stats,
            heard: stats.datagrams_in,
            openvpn: Stats::default(),
            key_used_up: self.outward.report(),
            used_length: false,
            offenders: self.inward.frames.inner.offenders(),
            talkers: [self.outward.frames.inner.talkers(), self.inward.frames.inner.talkers()],
        }
    }

    /// Carries out what the link decided.
    pub fn handle_command(&mut self, now: Instant, command: Command, sink: &mut impl Sink) {
        match command {
            Command::Send(command) => self.outward.handle_command(command, sink),
            Command::Receive(command) => self.inward.handle_command(now, command, sink),
        }
    }
}
