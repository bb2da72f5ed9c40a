//! What parent and engine say to each other, one message a packet of a `SOCK_SEQPACKET` socketpair.
//!
//! The set is enumerated, every message is bounded by [`MAX_MESSAGE`], and descriptors travel beside
//! it (`SCM_RIGHTS`) only where the message's documentation names them.

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
    /// Have these two numbers on disk. Answer: [`ToEngine::Kept`].
    Keep(Kept),
    /// Look the configured remotes up. Answers: one or more [`ToEngine::Resolved`].
    Resolve,
    /// Datagrams now go along this path. Answer: [`ToEngine::Route`].
    Endpoint(Path),
    /// Connect to this address of a remote that is reached by a stream. Answer: [`ToEngine::Stream`], if it is one.
    Stream {
        /// Where to.
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Open and configure the device. Answer: [`ToEngine::Device`].
    OpenDevice,
    /// The peer's datagrams of a lane come along this way: open a socket for them alone. Answer: [`ToEngine::Connected`], if there
    /// can be one.
    Connect {
        /// The lane, below the number that [`LinkSettings::lanes`] gives.
        lane: u8,
        /// Whether it takes a port of its own, so that what lies on the way spreads the lanes, instead of the link's.
        own_port: bool,
        /// The peer's outer address.
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        /// Own outer address; `None`: the kernel chooses.
        local: Option<IpAddr>,
    },
    /// The peer answers and fits.
    LinkUp {
        /// The way to it.
        endpoint: Path,
        /// What the peer calls its link; reduced to printable characters by the receiver.
        name: String,
    },
    /// The peer offers these routes now, in place of those before. At most
    /// [`MAX_ACCEPTED`](crate::config::MAX_ACCEPTED).
    PushedRoutes {
        /// What it offers.
        routes: Vec<IpNet>,
    },
    /// The peer no longer answers.
    LinkDown {
        /// Why.
        reason: Condition,
        /// Bytes sent and received in frames since the start.
        traffic: Traffic,
    },
    /// What goes from one bridged segment to the other takes another way now: have the bridge forget where hosts were. Answer:
    /// [`ToEngine::Announce`], if it `passes`.
    Rerouted {
        /// It goes through this link.
        passes: bool,
    },
    /// Running totals, sent before [`ToParent::Exit`].
    Traffic(Traffic),
    /// A line for the log.
    Log {
        /// How much it matters.
        level: Level,
        /// At most [`MAX_TEXT`](crate::core::settings::MAX_TEXT) bytes.
        text: String,
    },
    /// The engine ends.
    Exit {
        /// How.
        end: End,
        /// One line: why; empty when asked to stop.
        reason: String,
    },
    /// How the link is; the answer to [`ToEngine::Report`].
    State(Box<LinkState>),
    /// For the key log, if there is one.
    KeyLog(Entry),
}

/// How an engine ends. It may choose no other exit code for the program: codes that keep systemd from starting a link
/// again (a wrong configuration, a missing right) are found before there is an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was asked to, or, started by a superserver, has nothing to do any more. Unasked, of any other link, this is a
    /// failure.
    Done,
    /// It ran, and then failed.
    Failed,
    /// This host lacks a protection that `run.sandbox = "require"` asks for.
    Unavailable,
    /// A defect of tund.
    Bug,
    /// The device refuses everything. Where it is gone, the parent makes it again.
    DeviceLost,
}

/// From the parent to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// What [`ToParent::Keep`] asked for is done.
    Kept(Kept),
    /// The first message. Descriptors: the UDP socket, then the device unless it comes later: a queue of it for each of
    /// [`LinkSettings::lanes`], and, if those are several, as many to write to.
    Start(Box<Start>),
    /// The addresses of the remotes that are known so far, in the order to call; empty when none resolved.
    Resolved {
        /// At most 16.
        addresses: Vec<Path>,
    },
    /// What the kernel's routing says about the endpoint.
    Route {
        /// The endpoint this is about.
        #[serde(with = "crate::core::zoned")]
        address: SocketAddr,
        /// MTU of the route in bytes.
        mtu: Option<u32>,
    },
    /// The host's routes lead along this path now, from another own address.
    Moved(Path),
    /// These of the peer's routes are set now, and no others: what the parent judged is what counts.
    Taken {
        /// At most [`MAX_ACCEPTED`](crate::config::MAX_ACCEPTED).
        routes: Vec<IpNet>,
    },
    /// Inner sources that are the peer's, where the settings limit them. Descriptor: a file in memory with them
    /// ([`bulk`](super::bulk)), since there may be many.
    Sources,
    /// The device is open and configured. Descriptor: its one queue.
    Device,
    /// What comes from the peer's address that [`ToParent::Connect`] named last for this lane comes here now. Descriptor: the socket.
    Connected {
        /// The lane.
        lane: u8,
        /// That address.
        #[serde(with = "crate::core::zoned")]
        remote: SocketAddr,
        /// Own outer address that was asked for.
        local: Option<IpAddr>,
    },
    /// Streams are to be accepted. Descriptor: the socket that listens.
    Listen,
    /// What [`ToParent::Stream`] asked for. Descriptor: the connection; none if there came none about.
    Stream {
        /// Where it leads.
        #[serde(with = "crate::core::zoned")]
        to: SocketAddr,
    },
    /// Send these frames to the peer, as if they came from the device.
    Announce {
        /// Together shorter than a message.
        frames: Vec<Vec<u8>>,
    },
    /// The kernel says that this machine is a copy, restored from a snapshot: no key may be used any more.
    Resumed,
    /// Say [`ToParent::State`].
    Report,
    /// Tell the peer and end.
    Stop,
    /// Go on with these settings. Keys, device and framing are those of the start.
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
    /// Whether the keys in use are wanted as [`ToParent::KeyLog`].
    pub key_log: bool,
    /// Of an OpenVPN peer's link, with this start's own time.
    pub kept: Kept,
}

/// The secrets of a link, wiped when dropped. They stay in their one box: a value that is moved leaves a copy behind.
/// They share no page of 4 KiB with anything.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[repr(align(4096))]
pub struct Keys {
    /// The link secret L of PROTOCOL.md.
    pub secret: [u8; 32],
    /// The key pair of a handshake, if there is one.
    pub statics: Option<StaticPair>,
    /// What an OpenVPN peer's link has in place of both.
    pub openvpn: Option<OpenVpnKeys>,
}

/// The key file of an OpenVPN peer, and what this host knows its own datagrams by.
#[derive(Clone, PartialEq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct OpenVpnKeys {
    /// The 256 bytes of the key file.
    pub file: [[u8; 32]; 8],
    /// Kept over restarts.
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
    /// The keys in the form that they are used in, each in its one place.
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

/// What a process that reads the network gives up before it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Who it becomes.
    pub identity: Identity,
    /// Whether it is locked in further.
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
