//! The messages between a link and its lanes, and the sink for a lane's output.

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

/// A key for one direction, with the name in its datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Static mode: derived from the link secret and this key id.
    KeyId(KeyId),
    /// Handshake mode: a key of the session in the receiver's slot.
    Slot {
        /// The slot.
        slot: u8,
        /// Distinguishes successive sessions in the slot.
        serial: u32,
        /// The session's cipher.
        cipher: Cipher,
        /// The key of the direction.
        key: DirectionKey,
    },
}

/// How a datagram names its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// Static mode: its key id.
    KeyId(KeyId),
    /// Handshake mode: the receiver's slot.
    Slot(u8),
}

/// The key that opened something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRef {
    /// Static mode: by key id.
    KeyId(KeyId),
    /// Handshake mode: by session serial, as in [`Key::Slot`].
    Session(u32),
}

impl Key {
    /// The name in datagrams sealed with it.
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

/// A lane's sending keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlot {
    /// The key for frames.
    Current,
    /// The key that frames will use next.
    Next,
    /// Handshake mode: an unconfirmed session's.
    Unconfirmed,
}

/// From the link to one half of a lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// To the outward half.
    Send(SendCommand),
    /// To the inward half.
    Receive(ReceiveCommand),
}

/// From the link to a lane's outward half.
#[derive(Debug, Clone, PartialEq)]
pub enum SendCommand {
    /// Keep this key ready.
    Prepare(KeySlot, Key),
    /// Static mode: the peer took this key for a hello that named the peer's key id `named`. Lanes other than 0 now have it ready.
    Pair {
        /// Slot.
        slot: KeySlot,
        /// The key.
        key: Key,
        /// The peer's key id.
        named: KeyId,
    },
    /// Use that key for frames from now on, if it is there.
    Switch(KeySlot),
    /// Drop this key.
    Wipe(KeySlot),
    /// Drop every key.
    WipeAll,
    /// Send this handshake unchanged.
    Handshake(Received),
    /// Seal and send a control message.
    Control {
        /// The encoded message.
        body: Vec<u8>,
        /// Destination.
        to: Path,
        /// Its key; the current one if that is not there.
        under: KeySlot,
        /// Its lane.
        lane: u8,
    },
    /// The own way of a lane other than 0; `None`: it goes along lane 0's.
    Way {
        /// The lane.
        lane: u8,
        /// The way.
        way: Option<Path>,
    },
    /// Destination of frames.
    Endpoint(Path),
    /// Whether the peer's hello matches, so that frames may pass.
    Agreed(bool),
    /// The largest UDP payload, in bytes.
    Budget(usize),
    /// Whether the guard blocks all frames.
    Hold(bool),
}

/// From the link to a lane's inward half.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiveCommand {
    /// Accept the peer's datagrams under this key.
    Accept {
        /// The key.
        key: Key,
        /// In lane 0, counters up to this one count as seen.
        after: Option<u32>,
        /// Static mode: the own key id that the peer had named when its own was taken. The other lanes' keys depend on it.
        named: Option<KeyId>,
    },
    /// Stop opening datagrams with this name.
    Forget(Name),
    /// Drop every key.
    WipeAll,
    /// The path of the peer's datagrams.
    Endpoint(Path),
    /// Whether the peer's hello matches, so that frames may pass.
    Agreed(bool),
    /// Inner source addresses accepted from the peer; `None`: any.
    Sources(Option<Sources>),
    /// Open this datagram again: its key id is live now.
    Again(Received),
    /// Whether the guard blocks all frames.
    Hold(bool),
    /// Give the device the guard's probes of this round.
    Probe(Origin, u32),
}

impl Command {
    /// The lane it is for; `None`: all of them.
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

    /// Makes both halves drop every key.
    pub fn wipe_all() -> [Self; 2] {
        [SendCommand::WipeAll.into(), ReceiveCommand::WipeAll.into()]
    }

    /// Tells both halves the path to the peer.
    pub fn endpoint(endpoint: Path) -> [Self; 2] {
        [SendCommand::Endpoint(endpoint).into(), ReceiveCommand::Endpoint(endpoint).into()]
    }

    /// Tells both halves whether the guard blocks all frames.
    pub fn hold(held: bool) -> [Self; 2] {
        [SendCommand::Hold(held).into(), ReceiveCommand::Hold(held).into()]
    }

    /// Tells both halves whether frames may pass, the inward one last.
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

/// A datagram and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The path it came by.
    pub from: Path,
    /// The raw bytes.
    pub datagram: Vec<u8>,
}

/// From a lane to the link.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The key id is not live, but its keyed check is right.
    Unknown {
        /// The unmasked key id.
        key_id: KeyId,
        /// The datagram, still masked.
        received: Received,
    },
    /// A handshake, sealed with the link secret and not seen before.
    Handshake(Received),
    /// The clocks diverged: this may be a copy of the process that sent before. The lane has dropped all keys.
    Resumed,
    /// A holder of the key uses the other key mode; reported once in 5 s.
    OtherMode {
        /// The path it came by.
        from: Path,
        /// Its length in bytes.
        length: usize,
    },
    /// The first authentic datagram of a session.
    Confirmed {
        /// The session's serial, as in [`Key::Slot`].
        serial: u32,
    },
    /// An authentic control message.
    Control {
        /// The path it came by.
        from: Path,
        /// The decrypted body.
        body: Vec<u8>,
        /// Its key.
        under: KeyRef,
        /// Its lane.
        lane: u8,
    },
    /// An authentic datagram, newer than all others, came by another path than the endpoint's.
    Moved {
        /// The new path.
        from: Path,
    },
    /// A router, or this host, says that datagrams are too long for the path.
    TooLong,
    /// One of the link's own datagrams came out of the device; reported once per endpoint.
    TunnelInTunnel,
    /// A host on the path says that datagrams for this address are not accepted: no process has the port, or there is
    /// no route.
    Refused {
        /// The address.
        to: SocketAddr,
    },
    /// This host cannot send from the path's own address: it is gone, or has no route.
    SourceLost {
        /// The path.
        path: Path,
    },
    /// A guard's probe came out of the device or the tunnel.
    Probe(Sighting),
    /// From a lane in OpenVPN's format.
    OpenVpn(openvpn::Notice),
}

impl Notice {
    /// Whether anyone with a recording can cause it repeatedly.
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

/// A lane's report, about once a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// All counters since the start.
    pub stats: Stats,
    /// Datagrams of the peer opened in lane 0; other lanes' may come by other paths.
    pub heard: u64,
    /// The counters of the lane in OpenVPN's format, if there are two lanes.
    pub openvpn: Stats,
    /// Whether the sending key is nearly used up.
    pub key_used_up: bool,
    /// Whether a datagram longer than [`BUDGET_LEAST`](crate::core::limits::BUDGET_LEAST) was sent since the last
    /// report.
    pub used_length: bool,
    /// The guard's offenders since the last report.
    pub offenders: Offenders,
    /// The busiest senders over the last minute, outward and inward.
    pub talkers: [Top; 2],
}

impl Report {
    /// Adds the report of the lane in OpenVPN's format. Frames pass one of the two.
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

    /// The parts for the links in OpenVPN's format and in tund's own. Strangers belong to the former until there is the latter.
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

/// Takes a lane's output.
pub trait Sink {
    /// A frame for the device.
    fn frame(&mut self, frame: &[u8]);
    /// A datagram for the network.
    fn datagram(&mut self, datagram: &[u8], to: Path);
    /// Several datagrams for the network.
    fn transmit(&mut self, transmit: Transmit<'_>) {
        for datagram in transmit.bytes.chunks(transmit.stride.max(1)) {
            self.datagram(datagram, transmit.to);
        }
    }
    /// A raw datagram of another lane, for its worker; false: it has none.
    fn stray(&mut self, _lane: u8, _datagram: &[u8], _from: Path, _ecn: u8) -> bool {
        false
    }
    /// A notice for the link. There are two bounded queues, one for [unproven](Notice::is_unproven) ones; false: it was
    /// full.
    fn notice(&mut self, notice: Notice) -> bool;
    /// The same for what came from the network.
    ///
    /// # Errors
    /// [`DropReason::QueueFull`]
    fn tell(&mut self, notice: Notice) -> Result<(), DropReason> {
        if self.notice(notice) { Ok(()) } else { Err(DropReason::QueueFull) }
    }
}
