//! What a link and its lanes say to each other, and where a lane's output goes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::batch::Transmit;
use crate::core::guard::{Offenders, Origin, Sighting, Top};
use crate::core::key_id::KeyId;
use crate::core::openvpn::lane as openvpn;
use crate::core::path::Path;
use crate::core::sources::Sources;
use crate::core::stats::{DropReason, Stats};
use crate::crypto::keys::DirectionKey;
use crate::crypto::suite::Cipher;

/// A key for one direction, and the name that its datagrams carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Static mode: derived from the link secret and this key id.
    KeyId(KeyId),
    /// Handshake mode: of the session in the receiver's slot, with its cipher.
    Slot {
        /// The slot.
        slot: u8,
        /// Tells the sessions that are in the slot one after the other apart.
        serial: u32,
        /// The session's cipher.
        cipher: Cipher,
        /// The key of the direction.
        key: DirectionKey,
    },
}

/// What a datagram says about the key it is sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// Static mode: its key id.
    KeyId(KeyId),
    /// Handshake mode: the receiver's slot.
    Slot(u8),
}

/// Which key to open with something came under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRef {
    /// Static mode: that of this key id.
    KeyId(KeyId),
    /// Handshake mode: that of the session with this serial, as in [`Key::Slot`].
    Session(u32),
}

impl Key {
    /// What datagrams that are sealed with it say.
    pub fn name(&self) -> Name {
        match self {
            Key::KeyId(key_id) => Name::KeyId(*key_id),
            Key::Slot { slot, .. } => Name::Slot(*slot),
        }
    }

    pub(super) fn serial(&self) -> u32 {
        match self {
            Key::KeyId(_) => 0,
            Key::Slot { serial, .. } => *serial,
        }
    }
}

/// Which of the keys that a lane sends under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlot {
    /// That of the frames.
    Current,
    /// The one that frames change to next.
    Next,
    /// Handshake mode: a session that is not confirmed.
    Unconfirmed,
}

/// From the link to a lane: to the half of it that carries it out.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// To the way out.
    Send(SendCommand),
    /// To the way in.
    Receive(ReceiveCommand),
}

/// From the link to a lane's way out.
#[derive(Debug, Clone, PartialEq)]
pub enum SendCommand {
    /// Have this key ready.
    Prepare(KeySlot, Key),
    /// Static mode: the peer has taken this key for a hello that named that key id of the peer's. The lanes beside lane 0 have it ready now.
    Pair {
        /// Which one it is.
        slot: KeySlot,
        /// The key.
        key: Key,
        /// The peer's key id.
        named: KeyId,
    },
    /// Frames go out under that one from now on, if it is there.
    Switch(KeySlot),
    /// Drop this key.
    Wipe(KeySlot),
    /// Drop every key.
    WipeAll,
    /// Send these bytes as they are: a handshake.
    Handshake(Received),
    /// Seal and send a control message.
    Control {
        /// The encoded message.
        body: Vec<u8>,
        /// Where to.
        to: Path,
        /// Under which key id; the current one if that is not there.
        under: KeySlot,
        /// In which lane.
        lane: u8,
    },
    /// A lane beside lane 0 has a way of its own; `None`: it sends along lane 0's.
    Way {
        /// The lane.
        lane: u8,
        /// The way.
        way: Option<Path>,
    },
    /// Where frames go; `None`: nowhere, frames are dropped.
    Endpoint(Option<Path>),
    /// Whether the peer's hello fits, so that frames may pass.
    Agreed(bool),
    /// The largest UDP payload, in bytes.
    Budget(usize),
    /// Whether the guard lets no frame pass.
    Hold(bool),
}

/// From the link to a lane's way in.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiveCommand {
    /// Open what the peer seals with this key.
    Accept {
        /// The key.
        key: Key,
        /// In lane 0 counters up to this one count as seen.
        after: Option<u32>,
        /// Static mode: the own key id that the peer had named when its own was taken. The key of each other lane depends on it.
        named: Option<KeyId>,
    },
    /// What says this is no longer opened.
    Forget(Name),
    /// Drop every key.
    WipeAll,
    /// The way that the peer's datagrams come; `None`: not known.
    Endpoint(Option<Path>),
    /// Whether the peer's hello fits, so that frames may pass.
    Agreed(bool),
    /// Inner source addresses that are taken from the peer; `None`: every one.
    Sources(Option<Sources>),
    /// Open this datagram again: its key id is live now.
    Again(Received),
    /// Whether the guard lets no frame pass.
    Hold(bool),
    /// Give the device the guard's probes of this round.
    Probe(Origin, u32),
}

impl Command {
    /// The lane that this is for; `None`: each of them.
    pub fn lane(&self) -> Option<u8> {
        match self {
            Self::Send(SendCommand::Control { lane, .. } | SendCommand::Way { lane, .. }) => Some(*lane),
            Self::Send(SendCommand::Handshake(_))
            | Self::Receive(ReceiveCommand::Again(_) | ReceiveCommand::Probe(..)) => Some(0),
            Self::Send(
                SendCommand::Prepare(..)
                | SendCommand::Pair { .. }
                | SendCommand::Switch(_)
                | SendCommand::Wipe(_)
                | SendCommand::WipeAll
                | SendCommand::Endpoint(_)
                | SendCommand::Agreed(_)
                | SendCommand::Budget(_)
                | SendCommand::Hold(_),
            )
            | Self::Receive(
                ReceiveCommand::Accept { .. }
                | ReceiveCommand::Forget(_)
                | ReceiveCommand::WipeAll
                | ReceiveCommand::Endpoint(_)
                | ReceiveCommand::Agreed(_)
                | ReceiveCommand::Sources(_)
                | ReceiveCommand::Hold(_),
            ) => None,
        }
    }

    /// Both halves drop every key.
    pub fn wipe_all() -> [Self; 2] {
        [SendCommand::WipeAll.into(), ReceiveCommand::WipeAll.into()]
    }

    /// Both halves are told the way to the peer.
    pub fn endpoint(endpoint: Option<Path>) -> [Self; 2] {
        [SendCommand::Endpoint(endpoint).into(), ReceiveCommand::Endpoint(endpoint).into()]
    }

    /// Both halves are told whether the guard lets no frame pass.
    pub fn hold(held: bool) -> [Self; 2] {
        [SendCommand::Hold(held).into(), ReceiveCommand::Hold(held).into()]
    }

    /// Both halves are told whether frames may pass, the way in last.
    pub fn agreed(agreed: bool) -> [Self; 2] {
        [SendCommand::Agreed(agreed).into(), ReceiveCommand::Agreed(agreed).into()]
    }
}

impl From<SendCommand> for Command {
    fn from(command: SendCommand) -> Self {
        Self::Send(command)
    }
}

impl From<ReceiveCommand> for Command {
    fn from(command: ReceiveCommand) -> Self {
        Self::Receive(command)
    }
}

/// A datagram and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The way it came.
    pub from: Path,
    /// The bytes as they came.
    pub datagram: Vec<u8>,
}

/// From a lane to the link.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The key id is not live here, but its keyed check is right.
    Unknown {
        /// The unmasked key id.
        key_id: KeyId,
        /// The datagram, still masked.
        received: Received,
    },
    /// No data, but sealed with the link secret and not seen before: a handshake.
    Handshake(Received),
    /// The clocks parted: this may be a copy of the process that sent before. The lane has no key any more.
    Resumed,
    /// The datagram is from someone with the key, who uses the other key mode; told once in 5 s.
    OtherMode {
        /// The way it came.
        from: Path,
        /// Its length in bytes.
        length: usize,
    },
    /// The first authentic datagram of a session.
    Confirmed {
        /// The session's, as in [`Key::Slot`].
        serial: u32,
    },
    /// An authentic control message.
    Control {
        /// The way it came.
        from: Path,
        /// The decrypted body.
        body: Vec<u8>,
        /// The key that it came under.
        under: KeyRef,
        /// The lane that it came in.
        lane: u8,
    },
    /// An authentic datagram newer than all others came another way than the endpoint's.
    Moved {
        /// The new way.
        from: Path,
    },
    /// A router, or this host, says that datagrams are too long for the way to the peer.
    TooLong,
    /// One of the link's own datagrams came out of the device; said once for an endpoint.
    TunnelInTunnel,
    /// A host on the way says that nothing takes datagrams for this address: no process has the port, or
    /// no route leads there.
    Refused {
        /// The address.
        to: SocketAddr,
    },
    /// This host refuses to send from the path's own address: it is gone, or has no route.
    SourceLost {
        /// The path.
        path: Path,
    },
    /// A probe of the guard's came out of the device or the tunnel.
    Probe(Sighting),
    /// From a lane in OpenVPN's format.
    OpenVpn(openvpn::Notice),
}

impl Notice {
    /// Whether anybody with a recording can cause it, over and over.
    pub fn is_unproven(&self) -> bool {
        match self {
            Notice::Unknown { .. } | Notice::Handshake(_) | Notice::OtherMode { .. } => true,
            Notice::OpenVpn(notice) => matches!(notice, openvpn::Notice::OtherStart { .. }),
            Notice::Confirmed { .. }
            | Notice::Control { .. }
            | Notice::Moved { .. }
            | Notice::TooLong
            | Notice::Refused { .. }
            | Notice::SourceLost { .. }
            | Notice::Resumed
            | Notice::Probe(_)
            | Notice::TunnelInTunnel => false,
        }
    }
}

/// What a lane tells about once a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// All counters since the start.
    pub stats: Stats,
    /// Datagrams of the peer that lane 0 has opened: those of other lanes may come where lane 0's do not.
    pub heard: u64,
    /// What of the counters the lane in OpenVPN's format counted, where there are two.
    pub openvpn: Stats,
    /// Whether the key that is sent under is nearly used up.
    pub key_used_up: bool,
    /// Whether a datagram longer than [`BUDGET_LEAST`](crate::core::limits::BUDGET_LEAST) went out since the
    /// last report.
    pub used_length: bool,
    /// Who broke a rule of the guard since the last report.
    pub offenders: Offenders,
    /// Who sent most in the last minute, outward and inward.
    pub talkers: [Top; 2],
}

impl Report {
    /// Of a lane in tund's own format, and of the one in OpenVPN's beside it. Frames pass one of them.
    pub fn with_openvpn(self, openvpn: &Self) -> Self {
        let seen = |top: &Top| top.iter().map(|talker| talker.frames).sum::<u64>();
        let talkers = [0, 1].map(|way| match seen(&self.talkers[way]) >= seen(&openvpn.talkers[way]) {
            true => self.talkers[way],
            false => openvpn.talkers[way],
        });
        let is_clean = self.offenders == Offenders::default();
        Self {
            stats: self.stats.plus(&openvpn.stats),
            heard: self.heard + openvpn.heard,
            openvpn: openvpn.stats,
            key_used_up: self.key_used_up || openvpn.key_used_up,
            offenders: if is_clean { openvpn.offenders } else { self.offenders },
            talkers,
            ..self
        }
    }

    /// What concerns the link in OpenVPN's format, and the one in tund's own. Strangers are of the former until there is the latter.
    pub fn apart(&self) -> [Self; 2] {
        let mut openvpn = self.openvpn;
        for reason in [DropReason::Stranger, DropReason::BadTag] {
            openvpn.add(DropReason::Stranger, self.stats.drops(reason));
        }
        let tund = self.stats.minus(&self.openvpn);
        let [openvpn, tund] = [openvpn, tund].map(|stats| Self { stats, heard: stats.datagrams_in, ..*self });
        [openvpn, Self { offenders: Offenders::default(), ..tund }]
    }
}

/// Where a lane puts what comes out of it.
pub trait Sink {
    /// A frame for the device.
    fn frame(&mut self, frame: &[u8]);
    /// A datagram for the network.
    fn datagram(&mut self, datagram: &[u8], to: Path);
    /// Datagrams for the network, all at once.
    fn transmit(&mut self, transmit: Transmit<'_>) {
        for datagram in transmit.bytes.chunks(transmit.stride.max(1)) {
            self.datagram(datagram, transmit.to);
        }
    }
    /// A datagram of another lane, as it came, for whoever serves that; false: nobody does.
    fn stray(&mut self, _lane: u8, _datagram: &[u8], _from: Path, _ecn: u8) -> bool {
        false
    }
    /// Something for the link. The receiver's queues, one for what is [unproven](Notice::is_unproven), are
    /// bounded: false if it was full.
    fn notice(&mut self, notice: Notice) -> bool;
}
