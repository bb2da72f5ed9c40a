//! Messages between parent and engine, one per packet of a `SOCK_SEQPACKET` socketpair.
//!
//! The set is enumerated, every message is bounded by [`MAX_MESSAGE`], and descriptors travel beside it (`SCM_RIGHTS`) only where the message's
//! documentation names them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use log::Level;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::config::{DataPath, Sandbox};
use crate::core::condition::Condition;
use crate::core::keylog::Entry;
use crate::core::openvpn::admission::Kept;
use crate::core::path::Path;
use crate::core::settings::{LinkSettings, LinkState, Traffic};
use crate::crypto::keys::{LinkKeys, Private};
use crate::crypto::noise::Statics;
use crate::crypto::stack::cleanly;

/// Largest encoded message in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// From the engine to the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToParent {
    /// Privileges are dropped; the engine now runs.
    Locked {
        /// One line for the log: which protections are in force.
        protections: String,
    },
    /// Store these two numbers on disk. Answer: [`ToEngine::Kept`].
    Keep(Kept),
    /// Resolve the configured remotes. Answers: one or more [`ToEngine::Resolved`].
    Resolve,
    /// Datagrams now use this path. Answer: [`ToEngine::Route`].
    Endpoint(Path),
    /// Connect to this address of a stream remote. Answer: [`ToEngine::Stream`], if it is one.
    Stream {
        /// Destination.
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Open and configure the device. Answer: [`ToEngine::Device`].
    OpenDevice,
    /// A lane's datagrams of the peer come on this path: open a socket just for them. Answer: [`ToEngine::Connected`], if possible.
    Connect {
        /// The lane, below [`LinkSettings::lanes`].
        lane: u8,
        /// Whether it gets its own port instead of the link's, so that routers on the path spread the lanes.
        own_port: bool,
        /// The peer's outer address.
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        /// Source address; `None`: the kernel chooses.
        local: Option<IpAddr>,
    },
    /// The peer answers and is compatible.
    LinkUp {
        /// The path to it.
        endpoint: Path,
        /// The peer's name for its link; the receiver reduces it to printable characters.
        name: String,
    },
    /// The peer now offers these routes, replacing earlier ones. At most [`MAX_ACCEPTED`](crate::config::MAX_ACCEPTED).
    PushedRoutes {
        /// The offer.
        routes: Vec<IpNet>,
    },
    /// The peer no longer answers.
    LinkDown {
        /// Why.
        reason: Condition,
        /// Bytes sent and received in frames since the start.
        traffic: Traffic,
    },
    /// Traffic between the bridged segments takes another path: flush the bridge's learned addresses. Answer: [`ToEngine::Announce`], if it `passes`.
    Rerouted {
        /// The path is this link.
        passes: bool,
    },
    /// Running totals, sent before [`ToParent::Exit`].
    Traffic(Traffic),
    /// A line for the log.
    Log {
        /// Its level.
        level: Level,
        /// At most [`MAX_TEXT`](crate::core::settings::MAX_TEXT) bytes.
        text: String,
    },
    /// The engine ends.
    Exit {
        /// How.
        end: End,
        /// Why, in one line; empty if asked to stop.
        reason: String,
    },
    /// The state of the link; the answer to [`ToEngine::Report`].
    State(Box<LinkState>),
    /// An entry for the key log, if there is one.
    KeyLog(Entry),
}

/// How an engine ends. It cannot choose other exit codes: those that keep systemd from restarting a link (bad configuration, missing privileges) are
/// found before there is an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was asked to, or has nothing more to do and was started by a superserver. Unrequested, in any other link, this is a failure.
    Done,
    /// It ran, then failed.
    Failed,
    /// This host lacks a protection that `run.sandbox = "require"` asks for.
    Unavailable,
    /// A defect of tund.
    Bug,
    /// The device fails permanently. If it is gone, the parent opens it again.
    DeviceLost,
}

/// From the parent to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// The request of [`ToParent::Keep`] is done.
    Kept(Kept),
    /// The first message. Descriptors: the UDP socket, then the device unless it comes later: a queue for each of [`LinkSettings::lanes`] and, with
    /// several, as many to write to.
    Start(Box<Start>),
    /// The remotes' addresses known so far, in the order to call; empty if none resolved.
    Resolved {
        /// At most 16.
        addresses: Vec<Path>,
    },
    /// The kernel's route to the endpoint.
    Route {
        /// The endpoint.
        #[serde(with = "crate::core::zoned")]
        address: SocketAddr,
        /// MTU of the route in bytes.
        mtu: Option<u32>,
    },
    /// The host's routes now use this path, with another source address.
    Moved(Path),
    /// Exactly these routes of the peer are set now: the parent's verdict counts.
    Taken {
        /// At most [`MAX_ACCEPTED`](crate::config::MAX_ACCEPTED).
        routes: Vec<IpNet>,
    },
    /// The peer's inner sources, if the settings limit them. Descriptor: a file in memory with them ([`bulk`](super::bulk)), since there may be many.
    Sources,
    /// The device is open and configured. Descriptor: its only queue.
    Device,
    /// A socket for the peer's address that [`ToParent::Connect`] named last for this lane. Descriptor: the socket.
    Connected {
        /// The lane.
        lane: u8,
        /// That address.
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        /// The requested source address.
        local: Option<IpAddr>,
    },
    /// Accept streams. Descriptor: the listening socket.
    Listen,
    /// The result of [`ToParent::Stream`]. Descriptor: the connection; none if it failed.
    Stream {
        /// Its destination.
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Send these frames to the peer, as if they came from the device.
    Announce {
        /// In total shorter than a message.
        frames: Vec<Vec<u8>>,
    },
    /// The kernel reports that this machine was restored or cloned from a snapshot: no key may be used any more.
    Resumed,
    /// Answer with [`ToParent::State`].
    Report,
    /// Tell the peer and end.
    Stop,
    /// Use these settings from now on. Keys, device and framing are unchanged.
    Settings(Box<LinkSettings>),
    /// Change to new traffic keys.
    Rekey,
    /// Forget the peer's address and everything agreed with it, and connect again.
    Reconnect,
}

/// Everything the engine needs to run one link.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// What only this link's two ends know.
    pub keys: Box<Keys>,
    /// The plain settings.
    pub link: LinkSettings,
    /// How the workers use the machine.
    pub data_path: DataPath,
    /// What to give up first.
    pub confinement: Confinement,
    /// Whether to send keys in use as [`ToParent::KeyLog`].
    pub key_log: bool,
    /// For an OpenVPN peer's link, with this start's own time.
    pub kept: Kept,
}

/// The secrets of a link, wiped on drop. They stay in their one box, since moving a value leaves a copy behind. They share no 4 KiB page with
/// anything.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[repr(align(4096))]
pub struct Keys {
    /// The link secret L of PROTOCOL.md.
    pub secret: [u8; 32],
    /// The key pair of a handshake, if there is one.
    pub statics: Option<StaticPair>,
    /// What an OpenVPN peer's link uses instead of both.
    pub openvpn: Option<OpenVpnKeys>,
}

/// The key file of an OpenVPN peer, and how this host recognises its own datagrams.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct OpenVpnKeys {
    /// The 256 bytes of the key file.
    pub file: [[u8; 32]; 8],
    /// Kept across restarts.
    pub check: [u8; 16],
}

/// Own private key and the peer's public key.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct StaticPair {
    /// This end's X25519 private key.
    pub private: [u8; 32],
    /// The peer's X25519 public key.
    pub peer_public: [u8; 32],
}

impl Keys {
    /// Derives the keys in use, each in its one place.
    pub fn derive(&self) -> (Arc<LinkKeys>, Statics) {
        cleanly(|| {
            let statics = self.statics.as_ref().map_or(Statics::None, |pair| Statics::Pair {
                private: Arc::new(Private::new(pair.private)),
                peer_public: pair.peer_public,
            });
            (Arc::new(LinkKeys::new(&self.secret)), statics)
        })
    }
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start")
            .field("link", &self.link)
            .field("data_path", &self.data_path)
            .field("confinement", &self.confinement)
            .finish_non_exhaustive()
    }
}

/// What a process gives up before it reads the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The user it becomes.
    pub identity: Identity,
    /// Whether it is confined further.
    pub sandbox: Sandbox,
    /// An empty directory that becomes its root.
    pub root: Option<PathBuf>,
    /// The engine's priority, -20 to 19, if it has one of its own.
    pub nice: Option<i8>,
}

/// The user the engine becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// Take this uid and gid, drop all supplementary groups and capabilities.
    Switch {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Keep the uid, drop all capabilities (no other uid is mapped, or the parent is not root).
    Keep,
}
