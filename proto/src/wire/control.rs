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

/// Bytes that a hello has for pushed routes; whatever else it holds, it then fits into a control message.
pub const PUSH_ROOM: usize = 540;
/// Longest control message other than a ping in bytes, type included.
pub const MAX_CONTROL: usize = 1200;
/// Longest ping in bytes, type included: one that probes for a jumbo frame.
pub const MAX_PING: usize = 9216;
/// Longest name in a Hello in bytes of UTF-8.
pub const MAX_NAME: usize = 64;
/// Longest reason of a bye in bytes of UTF-8.
pub const MAX_REASON: usize = 128;
/// Most addresses in one list of a Hello.
pub const MAX_ADDRESSES: usize = 16;

/// Most lanes of a link: as many as a datagram's header can tell apart.
pub const MAX_LANES: u8 = 16;

/// Most padding of a Hello in bytes: the longest initiation, which it is to look like.
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
    /// Asks for a [`Message::Pong`].
    Ping {
        /// Which ping this is, so that the pong can be matched.
        n: u32,
        /// How many zero bytes make it longer; the whole is at most [`MAX_PING`] long.
        padding: usize,
    },
    /// Answers a [`Message::Ping`].
    Pong {
        /// The ping's `n`.
        n: u32,
        /// Authentic datagrams received so far under the key the ping came under.
        received: u64,
    },
    /// Asks whoever is at this address to prove it is the peer.
    Path {
        /// Random.
        challenge: [u8; 16],
    },
    /// Answers a [`Message::Path`].
    PathReply {
        /// As in the question.
        challenge: [u8; 16],
    },
    /// What this end is.
    Hello(Hello),
    /// The sender ends the link.
    Bye {
        /// One line, at most [`MAX_REASON`] bytes; not to be trusted with control characters.
        reason: String,
    },
    /// The receiver is one of two ends that use one key towards the sender.
    Clones {
        /// The outer addresses of the two, as the sender sees them.
        ends: [SocketAddr; 2],
    },
    /// A probe of the receiver's came out of the sender's device.
    Probed {
        /// What it says of itself, without its tag.
        probe: [u8; 16],
    },
    /// What the sender makes of the probes.
    Loop(Loop),
}

/// What an end makes of the guard's probes, type 11.
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
    /// The sender's origin, which is in its probes.
    pub origin: [u8; 8],
    /// The VLAN that the probe went into.
    pub vlan: Option<u16>,
    /// Whether the probe came back out of the tunnel, not out of the peer's device.
    pub tunnelled: bool,
}

/// The state of a [`Loop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopState {
    /// The sender lets frames pass again.
    Over,
    /// The sender lets no frame pass: the segments are joined elsewhere too.
    Held,
    /// The sender's probe came back out of its own device.
    Inside,
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
    /// The receiver's inner addresses as the sender has them configured.
    pub peers: Vec<IpAddr>,
    /// Largest datagram in bytes that the sender believes its path takes.
    pub budget: u16,
    /// Bits of optional abilities; none are defined yet.
    pub capabilities: u32,
    /// What the sender calls the link; not to be trusted with control characters.
    pub name: String,
    /// The sender has this session's Hello of the receiver.
    pub seen: bool,
    /// Prefixes that the sender offers to be reached through it; those that exceed [`PUSH_ROOM`] are cut off.
    pub routes: Vec<IpNet>,
    /// Static mode: the key id under which the receiver's last hello came.
    pub heard: Option<[u8; KEY_ID]>,
    /// How many zero bytes make it longer.
    pub padding: usize,
    /// How many lanes the sender has.
    pub lanes: u8,
    /// Of two ends with several lanes, the one with the higher rank opens ways for them; 0: it can open none.
    pub rank: u32,
    /// Static mode with several lanes: the sender's key id that the receiver had named when the one in `heard` was taken.
    pub named: Option<[u8; KEY_ID]>,
}

/// Bytes that a pushed route takes in a hello.
pub fn pushed_length(route: &IpNet) -> usize {
    if route.addr().is_ipv4() { 6 } else { 18 }
}

#[cfg(test)]
mod tests;
