//! Control messages: a type byte and a CBOR map.
//!
//! | type | message | field 0 | field 1 |
//! |---|---|---|---|
//! | 1 | `ping` | n: unsigned, 32 bits | padding: zero bytes |
//! | 2 | `pong` | n: as in the ping | received: unsigned, 64 bits |
//! | 3 | `path` | challenge: 16 bytes | |
//! | 4 | `path-reply` | challenge: 16 bytes | |
//! | 7 | `hello` | see [`Hello`] | |
//! | 8 | `bye` | reason: text, 0–128 bytes | |
//! | 9 | `clones` | ends: array of two addresses with ports | |
//! | 10 | `probed` | probe: 16 bytes | |
//! | 11 | `loop` | see [`Loop`] | |
//!
//! Every field of a message must be there, but for those from 9 on of a [`Hello`]. Fields with other keys are skipped, messages with other
//! types ignored, so that both can be added without a new version.

mod decode;
mod encode;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::datagram::KEY_ID;
use crate::packet::layer::Mode;

pub use super::Malformed;
pub use decode::decode;
pub use encode::{encode, ping, ping_of_length};

/// Bytes for pushed routes in a hello; with these it always fits in a control message.
pub const PUSH_ROOM: usize = 540;
/// Longest control message other than a ping, type included, in bytes.
pub const MAX_CONTROL: usize = 1200;
/// Longest ping, type included, in bytes: a probe for jumbo frames.
pub const MAX_PING: usize = 9216;
/// Longest name in a Hello in bytes of UTF-8.
pub const MAX_NAME: usize = 64;
/// Longest reason of a bye in bytes of UTF-8.
pub const MAX_REASON: usize = 128;
/// Most addresses in one list of a Hello.
pub const MAX_ADDRESSES: usize = 16;

/// Most lanes of a link: as many as a datagram header can number.
pub const MAX_LANES: u8 = 16;

/// Most padding of a Hello in bytes, to match the longest initiation.
pub const MAX_PADDING: usize = 600;

const PING: u8 = 1;
const PONG: u8 = 2;
const PATH: u8 = 3;
const PATH_REPLY: u8 = 4;
const HELLO: u8 = 7;
const BYE: u8 = 8;
const CLONES: u8 = 9;
const PROBED: u8 = 10;
const LOOP: u8 = 11;

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Requests a [`Message::Pong`].
    Ping {
        /// Number of the ping, for matching the pong.
        n: u32,
        /// Zero bytes of padding; the message is at most [`MAX_PING`] long.
        padding: usize,
    },
    /// Answers a [`Message::Ping`].
    Pong {
        /// The ping's `n`.
        n: u32,
        /// Authentic datagrams received so far under the ping's key.
        received: u64,
    },
    /// Challenges whoever is at this address to prove it is the peer.
    Path {
        /// Random.
        challenge: [u8; 16],
    },
    /// Answers a [`Message::Path`].
    PathReply {
        /// As in the challenge.
        challenge: [u8; 16],
    },
    /// What this end is.
    Hello(Hello),
    /// The sender ends the link.
    Bye {
        /// One line, at most [`MAX_REASON`] bytes; may contain control characters.
        reason: String,
    },
    /// The receiver and another end use one key towards the sender.
    Clones {
        /// Their outer addresses, as the sender sees them.
        ends: [SocketAddr; 2],
    },
    /// A probe from the receiver came out of the sender's device.
    Probed {
        /// The probe without its tag.
        probe: [u8; 16],
    },
    /// The sender's conclusions from the probes.
    Loop(Loop),
}

/// An end's conclusions from the guard's probes, type 11.
///
/// | key | field | value |
/// |---|---|---|
/// | 0 | state | 0 over, 1 held, 2 inside |
/// | 1 | origin | 8 bytes |
/// | 2 | vlan | unsigned, 16 bits; 0: untagged |
/// | 3 | tunnelled | 0 no, 1 yes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// What the sender does.
    pub state: LoopState,
    /// The origin in the sender's probes.
    pub origin: [u8; 8],
    /// The VLAN that the probe was sent to.
    pub vlan: Option<u16>,
    /// Whether the probe returned out of the tunnel rather than the peer's device.
    pub tunnelled: bool,
}

/// The state of a [`Loop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LoopState {
    /// The sender passes frames again.
    Over = 0,
    /// The sender blocks frames: the segments are also joined elsewhere.
    Held = 1,
    /// The sender's probe returned out of its own device.
    Inside = 2,
}

/// What an end says of itself, type 7.
///
/// | key | field | value |
/// |---|---|---|
/// | 0 | version | unsigned, 8 bits |
/// | 1 | mode | 0 tun, 1 tap |
/// | 2 | mtu | unsigned, 32 bits |
/// | 3 | addresses | array of 0–16 byte strings of 4 or 16 bytes |
/// | 4 | peers | array of 0–16 byte strings of 4 or 16 bytes |
/// | 5 | budget | unsigned, 16 bits |
/// | 6 | capabilities | unsigned, 32 bits |
/// | 7 | name | text, 0–64 bytes |
/// | 8 | seen | 0 no, 1 yes |
/// | 9 | routes | array of 1 or more byte strings, address (4 or 16) and prefix length (1); absent: none |
/// | 10 | heard | 16 bytes; absent: none |
/// | 11 | padding | zero bytes; absent: none |
/// | 12 | lanes | unsigned, 1–16; absent: 1 |
/// | 13 | rank | unsigned, 32 bits; absent: 0 |
/// | 14 | named | 16 bytes; absent: none |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Highest protocol version the sender speaks.
    pub version: u8,
    /// What the sender's device carries.
    pub mode: Mode,
    /// MTU of the sender's device in bytes.
    pub mtu: u32,
    /// The sender's inner addresses.
    pub addresses: Vec<IpAddr>,
    /// The receiver's inner addresses in the sender's configuration.
    pub peers: Vec<IpAddr>,
    /// Largest datagram in bytes that the sender thinks its path carries.
    pub budget: u16,
    /// Optional capabilities; no bits are defined yet.
    pub capabilities: u32,
    /// The sender's name for the link; may contain control characters.
    pub name: String,
    /// Whether the sender has the receiver's Hello of this session.
    pub seen: bool,
    /// Prefixes reachable through the sender; those beyond [`PUSH_ROOM`] are cut off.
    pub routes: Vec<IpNet>,
    /// Static mode: the key id of the receiver's last hello.
    pub heard: Option<[u8; KEY_ID]>,
    /// Zero bytes of padding.
    pub padding: usize,
    /// Lanes of the sender.
    pub lanes: u8,
    /// Of two ends with several lanes, the one of higher rank opens their paths; 0: it can open none.
    pub rank: u32,
    /// Static mode with several lanes: the sender's key id that the receiver had named when the one in `heard` was taken.
    pub named: Option<[u8; KEY_ID]>,
}

/// Length of a pushed route in a hello.
pub fn pushed_length(route: &IpNet) -> usize {
    if route.addr().is_ipv4() { 6 } else { 18 }
}

#[cfg(test)]
mod tests;
