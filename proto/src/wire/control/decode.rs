//! Decodes messages.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    BYE, CLONES, HELLO, Hello, LOOP, Loop, LoopState, MAX_ADDRESSES, MAX_CONTROL, MAX_LANES, MAX_NAME,
    MAX_PING, MAX_REASON, Malformed, Message, PATH, PATH_REPLY, PING, PONG, PROBED, PUSH_ROOM, pushed_length,
};
use crate::packet::layer::Mode;
use crate::wire::cbor::Reader;

/// Decodes the body of a control datagram. `Ok(None)`: an unknown type, to be ignored.
pub fn decode(body: &[u8]) -> Result<Option<Message>, Malformed> {
    let (kind, rest) = body.split_first().ok_or(Malformed::Truncated)?;
    if body.len() > if *kind == PING { MAX_PING } else { MAX_CONTROL } {
        return Err(Malformed::TooLong);
    }
    let mut reader = Reader::new(rest);
    let message = match *kind {
        PING => {
            let (n, padding) = numbered(&mut reader, |value| zeros(value.bytes()?))?;
            Message::Ping { n, padding }
        }
        PONG => {
            let (n, received) = numbered(&mut reader, Reader::unsigned)?;
            Message::Pong { n, received }
        }
        PATH => Message::Path { challenge: only(&mut reader, exact)? },
        PATH_REPLY => Message::PathReply { challenge: only(&mut reader, exact)? },
        HELLO => Message::Hello(decode_hello(&mut reader)?),
        BYE => Message::Bye { reason: only(&mut reader, |value| bounded_text(value, MAX_REASON))? },
        CLONES => Message::Clones { ends: only(&mut reader, decode_ends)? },
        PROBED => Message::Probed { probe: only(&mut reader, exact)? },
        LOOP => Message::Loop(decode_loop(&mut reader)?),
        _ => return Ok(None),
    };
    reader.finish()?;
    Ok(Some(message))
}

/// Reads a ping or pong: its number, and the other field.
fn numbered<'a, T>(
    reader: &mut Reader<'a>,
    mut other: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<(u32, T), Malformed> {
    let (mut n, mut second) = (None, None);
    reader.map(|key, value| {
        match key {
            0 => n = Some(value.unsigned()?),
            1 => second = Some(other(value)?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok((field(0, n)?, field(1, second)?))
}

/// Reads a message's only field.
fn only<'a, T>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut first = None;
    reader.map(|key, value| {
        match key {
            0 => first = Some(read(value)?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    field(0, first)
}

fn decode_ends(reader: &mut Reader<'_>) -> Result<[SocketAddr; 2], Malformed> {
    let mut ends = Vec::new();
    reader.array(|element| {
        let (address, port) = element.bytes()?.split_last_chunk::<2>().ok_or(Malformed::OutOfRange)?;
        ends.push(SocketAddr::new(decode_address(address)?, u16::from_be_bytes(*port)));
        Ok(())
    })?;
    ends.try_into().map_err(|_| Malformed::OutOfRange)
}

fn decode_loop(reader: &mut Reader<'_>) -> Result<Loop, Malformed> {
    let (mut state, mut origin, mut vlan, mut tunnelled) = (None, None, None, None);
    reader.map(|key, value| {
        match key {
            0 => {
                state = Some(match value.unsigned::<u64>()? {
                    0 => LoopState::Over,
                    1 => LoopState::Held,
                    2 => LoopState::Inside,
                    _ => return Err(Malformed::OutOfRange),
                });
            }
            1 => origin = Some(exact(value)?),
            2 => vlan = Some(value.unsigned()?),
            3 => tunnelled = Some(choice(value)?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Loop {
        state: field(0, state)?,
        origin: field(1, origin)?,
        vlan: Some(field(2, vlan)?).filter(|vlan| *vlan != 0),
        tunnelled: field(3, tunnelled)?,
    })
}

fn decode_address(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).map_err(|_| Malformed::OutOfRange)
}

fn decode_hello(reader: &mut Reader<'_>) -> Result<Hello, Malformed> {
    let (mut version, mut mode, mut mtu, mut addresses, mut peers) = (None, None, None, None, None);
    let (mut budget, mut capabilities, mut name, mut seen, mut routes) = (None, None, None, None, None);
    let (mut heard, mut padding, mut lanes, mut rank, mut named) = (None, 0, 1, 0, None);
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
            10 => heard = Some(exact(value)?),
            11 => padding = zeros(value.bytes()?)?,
            12 => lanes = value.unsigned()?,
            13 => rank = value.unsigned()?,
            14 => named = Some(exact(value)?),
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
        lanes: if (1..=MAX_LANES).contains(&lanes) { lanes } else { return Err(Malformed::OutOfRange) },
        rank,
        named,
    })
}

fn decode_addresses(reader: &mut Reader<'_>) -> Result<Vec<IpAddr>, Malformed> {
    let mut addresses = Vec::new();
    reader.array(|element| {
        if addresses.len() == MAX_ADDRESSES {
            return Err(Malformed::OutOfRange);
        }
        addresses.push(decode_address(element.bytes()?)?);
        Ok(())
    })?;
    Ok(addresses)
}

fn decode_routes(reader: &mut Reader<'_>) -> Result<Vec<IpNet>, Malformed> {
    let mut routes = Vec::new();
    let mut room = PUSH_ROOM;
    reader.array(|element| {
        let (length, address) = element.bytes()?.split_last().ok_or(Malformed::OutOfRange)?;
        let route = IpNet::new(decode_address(address)?, *length).map_err(|_| Malformed::OutOfRange)?;
        room = room.checked_sub(pushed_length(&route)).ok_or(Malformed::OutOfRange)?;
        if route.trunc() != route {
            return Err(Malformed::OutOfRange);
        }
        routes.push(route);
        Ok(())
    })?;
    // An empty list is encoded by its absence.
    if routes.is_empty() { Err(Malformed::OutOfRange) } else { Ok(routes) }
}

/// Reads 0 or 1. The subset has no simple values.
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

/// Reads exactly `N` bytes.
fn exact<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], Malformed> {
    reader.bytes()?.try_into().map_err(|_| Malformed::OutOfRange)
}

fn bounded_text(reader: &mut Reader<'_>, max: usize) -> Result<String, Malformed> {
    let text = reader.text()?;
    if text.len() > max { Err(Malformed::OutOfRange) } else { Ok(text.to_owned()) }
}

fn field<T>(key: u64, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or(Malformed::Missing(key))
}
