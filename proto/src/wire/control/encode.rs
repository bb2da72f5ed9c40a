//! Encodes messages.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    BYE, CLONES, HELLO, Hello, LOOP, Loop, MAX_ADDRESSES, MAX_NAME, MAX_PADDING, MAX_PING, MAX_REASON,
    Message, PATH, PATH_REPLY, PING, PONG, PROBED, PUSH_ROOM, pushed_length,
};
use crate::packet::layer::Mode;
use crate::wire::cbor::Writer;
use crate::wire::octets;

/// Appends the encoded message to `out`. Padding, texts (at a character) and lists are truncated to their bounds.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    out.push(type_of(message));
    let mut writer = Writer::new(out);
    writer.map();
    match message {
        Message::Ping { n, padding } => {
            let padding = vec![0; (*padding).min(MAX_PING - PING_FIXED)];
            writer.key(0).unsigned(*n).key(1).bytes(&padding);
        }
        Message::Pong { n, received } => {
            writer.key(0).unsigned(*n).key(1).unsigned(*received);
        }
        Message::Path { challenge: bytes }
        | Message::PathReply { challenge: bytes }
        | Message::Probed { probe: bytes } => {
            writer.key(0).bytes(bytes);
        }
        Message::Hello(hello) => encode_hello(hello, &mut writer),
        Message::Bye { reason } => {
            writer.key(0).text(cut(reason, MAX_REASON));
        }
        Message::Clones { ends } => {
            writer.key(0).array(ends.len());
            for end in ends {
                let mut bytes = octets(end.ip());
                bytes.extend(end.port().to_be_bytes());
                writer.bytes(&bytes);
            }
        }
        Message::Loop(Loop { state, origin, vlan, tunnelled }) => {
            writer.key(0).unsigned(*state as u64).key(1).bytes(origin);
            writer.key(2).unsigned(vlan.unwrap_or(0)).key(3).unsigned(*tunnelled);
        }
    }
}

/// Longest ping without its padding: type, map, keys, n, padding length.
const PING_FIXED: usize = 1 + 1 + 1 + 5 + 1 + 3;

/// Encodes a ping with so many bytes of padding.
pub fn ping(n: u32, padding: usize) -> Vec<u8> {
    let mut body = Vec::new();
    encode(&Message::Ping { n, padding }, &mut body);
    body
}

/// Encodes a ping of `length` bytes, or as near as its encoding allows.
pub fn ping_of_length(n: u32, length: usize) -> Vec<u8> {
    let bare = ping(n, 0).len();
    let padding = length.saturating_sub(bare);
    // The padding's length takes one, two or three bytes; the bare ping has one.
    let more = match padding {
        0..=23 => 0,
        24..=257 => 1,
        _ => 2,
    };
    ping(n, padding - more)
}

fn type_of(message: &Message) -> u8 {
    match message {
        Message::Ping { .. } => PING,
        Message::Pong { .. } => PONG,
        Message::Path { .. } => PATH,
        Message::PathReply { .. } => PATH_REPLY,
        Message::Hello(_) => HELLO,
        Message::Bye { .. } => BYE,
        Message::Clones { .. } => CLONES,
        Message::Probed { .. } => PROBED,
        Message::Loop(_) => LOOP,
    }
}

fn encode_hello(hello: &Hello, writer: &mut Writer<'_>) {
    writer.key(0).unsigned(hello.version);
    writer.key(1).unsigned(hello.mode == Mode::Tap);
    writer.key(2).unsigned(hello.mtu);
    encode_addresses(&hello.addresses, writer.key(3));
    encode_addresses(&hello.peers, writer.key(4));
    writer.key(5).unsigned(hello.budget);
    writer.key(6).unsigned(hello.capabilities);
    writer.key(7).text(cut(&hello.name, MAX_NAME));
    writer.key(8).unsigned(hello.seen);
    if !hello.routes.is_empty() {
        encode_routes(&hello.routes, writer.key(9));
    }
    if let Some(heard) = &hello.heard {
        writer.key(10).bytes(heard);
    }
    if hello.padding > 0 {
        writer.key(11).bytes(&vec![0; hello.padding.min(MAX_PADDING)]);
    }
    if hello.lanes > 1 {
        writer.key(12).unsigned(hello.lanes);
    }
    if hello.rank > 0 {
        writer.key(13).unsigned(hello.rank);
    }
    if let Some(named) = &hello.named {
        writer.key(14).bytes(named);
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
        let mut bytes = octets(route.addr());
        bytes.push(route.prefix_len());
        writer.bytes(&bytes);
    }
}

fn encode_addresses(addresses: &[IpAddr], writer: &mut Writer<'_>) {
    let addresses = addresses.get(..MAX_ADDRESSES).unwrap_or(addresses);
    writer.array(addresses.len());
    for address in addresses {
        writer.bytes(&octets(*address));
    }
}

/// Returns the longest prefix of `text` with at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
