//! Encodes messages.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    BYE, CLONES, HELLO, Hello, LOOP, Loop, LoopState, MAX_ADDRESSES, MAX_NAME, MAX_PADDING, MAX_PING,
    MAX_REASON, Message, PATH, PATH_REPLY, PING, PONG, PROBED, PUSH_ROOM, pushed_length,
};
use crate::packet::layer::Mode;
use crate::wire::cbor::Writer;
use crate::wire::octets;

/// Appends the encoded message to `out`. Padding, texts (at a character) and lists are truncated to their bounds.
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
        Message::Path { challenge: bytes }
        | Message::PathReply { challenge: bytes }
        | Message::Probed { probe: bytes } => {
            writer.map(1).unsigned(0).bytes(bytes);
        }
        Message::Hello(hello) => encode_hello(hello, &mut writer),
        Message::Bye { reason } => {
            writer.map(1).unsigned(0).text(cut(reason, MAX_REASON));
        }
        Message::Clones { ends } => {
            writer.map(1).unsigned(0).array(ends.len());
            for end in ends {
                let mut bytes = octets(end.ip());
                bytes.extend(end.port().to_be_bytes());
                writer.bytes(&bytes);
            }
        }
        Message::Loop(Loop { state, origin, vlan, tunnelled }) => {
            let state = match state {
                LoopState::Over => 0,
                LoopState::Held => 1,
                LoopState::Inside => 2,
            };
            writer.map(4).unsigned(0).unsigned(state).unsigned(1).bytes(origin);
            writer.unsigned(2).unsigned(vlan.unwrap_or(0).into()).unsigned(3).unsigned((*tunnelled).into());
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
    let optional = [
        !hello.routes.is_empty(),
        hello.heard.is_some(),
        hello.padding > 0,
        hello.lanes > 1,
        hello.rank > 0,
        hello.named.is_some(),
    ];
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
    if hello.lanes > 1 {
        writer.unsigned(12).unsigned(hello.lanes.into());
    }
    if hello.rank > 0 {
        writer.unsigned(13).unsigned(hello.rank.into());
    }
    if let Some(named) = &hello.named {
        writer.unsigned(14).bytes(named);
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
