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
//!
//! Every field of a message must be there, but for routes, heard and padding of a [`Hello`]. Fields with other keys are skipped, messages with other
//! types ignored, so that both can be added without a new version.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cbor::{Reader, Writer};
use super::datagram::KEY_ID;
use crate::packet::layer::Mode;

pub use super::Malformed;

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

/// Most padding of a Hello in bytes: the longest initiation, which it is to look like.
pub const MAX_PADDING: usize = 600;

const PING: u8 = 1;
const PONG: u8 = 2;
const PATH: u8 = 3;
const PATH_REPLY: u8 = 4;
const HELLO: u8 = 7;
const BYE: u8 = 8;

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
}

/// Bytes that a pushed route takes in a hello.
pub fn pushed_length(route: &IpNet) -> usize {
    if route.addr().is_ipv4() { 6 } else { 18 }
}

/// Appends the encoded message to `out`. What exceeds a bound is cut off: padding, texts (at a character)
/// and lists keep their beginning.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    out.push(type_of(message));
    let mut writer = Writer::new(out);
    match message {
        Message::Ping { n, padding } => {
            let padding = vec![0; (*padding).min(MAX_PING - PING_FIXED)];
            writer.map(2).unsigned(0).unsigned((*n).into()).unsigned(1).bytes(&padding);
        }
        Message::Pong { n, received } => {
            writer.map(2).unsigned(0).unsigned((*n).into()).unsigned(1).unsigned(*received);
        }
        Message::Path { challenge } | Message::PathReply { challenge } => {
            writer.map(1).unsigned(0).bytes(challenge);
        }
        Message::Hello(hello) => encode_hello(hello, &mut writer),
        Message::Bye { reason } => {
            writer.map(1).unsigned(0).text(cut(reason, MAX_REASON));
        }
    }
}

/// The most that a ping has beside its padding: type, map, keys, n, and the padding's length.
const PING_FIXED: usize = 1 + 1 + 1 + 5 + 1 + 3;

/// An encoded ping with so many bytes of padding.
pub fn ping(n: u32, padding: usize) -> Vec<u8> {
    let mut body = Vec::new();
    encode(&Message::Ping { n, padding }, &mut body);
    body
}

/// An encoded ping of `length` bytes, or of as few more or less as its encoding allows.
pub fn ping_of_length(n: u32, length: usize) -> Vec<u8> {
    let bare = ping(n, 0).len();
    let padding = length.saturating_sub(bare);
    // The padding's own length takes one, two or three bytes; the bare ping has one.
    let more = match padding {
        0..=23 => 0,
        24..=257 => 1,
        _ => 2,
    };
    ping(n, padding - more)
}

/// Decodes the body of a control datagram. `Ok(None)`: a type this version does not know, to be ignored.
pub fn decode(body: &[u8]) -> Result<Option<Message>, Malformed> {
    let (kind, rest) = body.split_first().ok_or(Malformed::Truncated)?;
    if body.len() > if *kind == PING { MAX_PING } else { MAX_CONTROL } {
        return Err(Malformed::TooLong);
    }
    let mut reader = Reader::new(rest);
    let message = match *kind {
        PING => decode_ping(&mut reader)?,
        PONG => decode_pong(&mut reader)?,
        PATH => Message::Path { challenge: decode_challenge(&mut reader)? },
        PATH_REPLY => Message::PathReply { challenge: decode_challenge(&mut reader)? },
        HELLO => Message::Hello(decode_hello(&mut reader)?),
        BYE => decode_bye(&mut reader)?,
        _ => return Ok(None),
    };
    reader.finish()?;
    Ok(Some(message))
}

fn type_of(message: &Message) -> u8 {
    match message {
        Message::Ping { .. } => PING,
        Message::Pong { .. } => PONG,
        Message::Path { .. } => PATH,
        Message::PathReply { .. } => PATH_REPLY,
        Message::Hello(_) => HELLO,
        Message::Bye { .. } => BYE,
    }
}

fn encode_hello(hello: &Hello, writer: &mut Writer<'_>) {
    let optional = [!hello.routes.is_empty(), hello.heard.is_some(), hello.padding > 0];
    let fields = 9 + optional.into_iter().filter(|there| *there).count();
    writer.map(fields).unsigned(0).unsigned(hello.version.into());
    writer.unsigned(1).unsigned(match hello.mode {
        Mode::Tun => 0,
        Mode::Tap => 1,
    });
    writer.unsigned(2).unsigned(hello.mtu.into());
    encode_addresses(&hello.addresses, writer.unsigned(3));
    encode_addresses(&hello.peers, writer.unsigned(4));
    writer.unsigned(5).unsigned(hello.budget.into());
    writer.unsigned(6).unsigned(hello.capabilities.into());
    writer.unsigned(7).text(cut(&hello.name, MAX_NAME));
    writer.unsigned(8).unsigned(hello.seen.into());
    if !hello.routes.is_empty() {
        encode_routes(&hello.routes, writer.unsigned(9));
    }
    if let Some(heard) = &hello.heard {
        writer.unsigned(10).bytes(heard);
    }
    if hello.padding > 0 {
        writer.unsigned(11).bytes(&vec![0; hello.padding.min(MAX_PADDING)]);
    }
}

fn encode_routes(routes: &[IpNet], writer: &mut Writer<'_>) {
    let mut room = PUSH_ROOM;
    let fits = |route: &&IpNet| {
        let left = room.checked_sub(pushed_length(route));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let routes: Vec<_> = routes.iter().take_while(fits).collect();
    writer.array(routes.len());
    for route in routes {
        let mut bytes = match route.addr() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        bytes.push(route.prefix_len());
        writer.bytes(&bytes);
    }
}

fn encode_addresses(addresses: &[IpAddr], writer: &mut Writer<'_>) {
    let addresses = addresses.get(..MAX_ADDRESSES).unwrap_or(addresses);
    writer.array(addresses.len());
    for address in addresses {
        match address {
            IpAddr::V4(address) => writer.bytes(&address.octets()),
            IpAddr::V6(address) => writer.bytes(&address.octets()),
        };
    }
}

/// The longest beginning of `text` of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

fn decode_ping(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut n, mut padding) = (None, None);
    reader.map(|key, value| {
        match key {
            0 => n = Some(value.unsigned()?),
            1 => padding = Some(zeros(value.bytes()?)?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Ping { n: field(0, n)?, padding: field(1, padding)? })
}

fn decode_pong(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut n, mut received) = (None, None);
    reader.map(|key, value| {
        match key {
            0 => n = Some(value.unsigned()?),
            1 => received = Some(value.unsigned()?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Pong { n: field(0, n)?, received: field(1, received)? })
}

fn decode_challenge(reader: &mut Reader<'_>) -> Result<[u8; 16], Malformed> {
    let mut challenge = None;
    reader.map(|key, value| {
        match key {
            0 => challenge = Some(value.bytes()?.try_into().map_err(|_| Malformed::OutOfRange)?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    field(0, challenge)
}

fn decode_bye(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let mut reason = None;
    reader.map(|key, value| {
        match key {
            0 => reason = Some(bounded_text(value, MAX_REASON)?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Bye { reason: field(0, reason)? })
}

fn decode_hello(reader: &mut Reader<'_>) -> Result<Hello, Malformed> {
    let (mut version, mut mode, mut mtu, mut addresses, mut peers) = (None, None, None, None, None);
    let (mut budget, mut capabilities, mut name, mut seen, mut routes) = (None, None, None, None, None);
    let (mut heard, mut padding) = (None, 0);
    reader.map(|key, value| {
        match key {
            0 => version = Some(value.unsigned()?),
            1 => mode = Some(if choice(value)? { Mode::Tap } else { Mode::Tun }),
            2 => mtu = Some(value.unsigned()?),
            3 => addresses = Some(decode_addresses(value)?),
            4 => peers = Some(decode_addresses(value)?),
            5 => budget = Some(value.unsigned()?),
            6 => capabilities = Some(value.unsigned()?),
            7 => name = Some(bounded_text(value, MAX_NAME)?),
            8 => seen = Some(choice(value)?),
            9 => routes = Some(decode_routes(value)?),
            10 => heard = Some(value.bytes()?.try_into().map_err(|_| Malformed::OutOfRange)?),
            11 => padding = zeros(value.bytes()?)?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Hello {
        version: field(0, version)?,
        mode: field(1, mode)?,
        mtu: field(2, mtu)?,
        addresses: field(3, addresses)?,
        peers: field(4, peers)?,
        budget: field(5, budget)?,
        capabilities: field(6, capabilities)?,
        name: field(7, name)?,
        seen: field(8, seen)?,
        routes: routes.unwrap_or_default(),
        heard,
        padding,
    })
}

fn decode_addresses(reader: &mut Reader<'_>) -> Result<Vec<IpAddr>, Malformed> {
    let mut addresses = Vec::new();
    reader.array(|element| {
        if addresses.len() == MAX_ADDRESSES {
            return Err(Malformed::OutOfRange);
        }
        let bytes = element.bytes()?;
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
        addresses.push(address.map_err(|_| Malformed::OutOfRange)?);
        Ok(())
    })?;
    Ok(addresses)
}

fn decode_routes(reader: &mut Reader<'_>) -> Result<Vec<IpNet>, Malformed> {
    let mut routes = Vec::new();
    let mut room = PUSH_ROOM;
    reader.array(|element| {
        let (length, address) = element.bytes()?.split_last().ok_or(Malformed::OutOfRange)?;
        let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
        let address = v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from));
        let address = address.map_err(|_| Malformed::OutOfRange)?;
        let route = IpNet::new(address, *length).map_err(|_| Malformed::OutOfRange)?;
        room = room.checked_sub(pushed_length(&route)).ok_or(Malformed::OutOfRange)?;
        if route.trunc() != route {
            return Err(Malformed::OutOfRange);
        }
        routes.push(route);
        Ok(())
    })?;
    // There is one encoding of none.
    if routes.is_empty() { Err(Malformed::OutOfRange) } else { Ok(routes) }
}

/// 0 or 1. Not CBOR's simple values, which the subset leaves out.
fn choice(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.unsigned::<u64>()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::OutOfRange),
    }
}

fn zeros(bytes: &[u8]) -> Result<usize, Malformed> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(bytes.len()) } else { Err(Malformed::OutOfRange) }
}

fn bounded(bytes: &[u8], max: usize) -> Result<&[u8], Malformed> {
    if bytes.len() > max { Err(Malformed::OutOfRange) } else { Ok(bytes) }
}

fn bounded_text(reader: &mut Reader<'_>, max: usize) -> Result<String, Malformed> {
    let text = reader.text()?;
    bounded(text.as_bytes(), max)?;
    Ok(text.to_owned())
}

fn field<T>(key: u64, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or(Malformed::Missing(key))
}

#[cfg(test)]
mod tests;
