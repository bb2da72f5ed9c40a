//! The ends' descriptions of themselves, and whether they match.

use std::net::IpAddr;

use crate::core::condition::Condition;
use crate::core::settings::LinkSettings;
use crate::wire::control::{self, Hello, Message};
use crate::wire::datagram::KEY_ID;

/// The version of PROTOCOL.md that this code speaks.
pub const VERSION: u8 = 1;

/// This end's hello.
pub fn own(settings: &LinkSettings, budget: usize, seen: bool) -> Hello {
    Hello {
        version: VERSION,
        mode: settings.mode,
        mtu: settings.mtu,
        addresses: settings.addresses.clone(),
        peers: settings.peers.clone(),
        budget: u16::try_from(budget).unwrap_or(u16::MAX),
        capabilities: 0,
        name: settings.name.clone(),
        seen,
        routes: settings.push.clone(),
        heard: None,
        padding: 0,
        lanes: settings.lanes,
        rank: 0,
        named: None,
    }
}

/// This end's hello that names a key id of the peer, shortened to `room` bytes if possible.
pub fn naming(heard: [u8; KEY_ID], settings: &LinkSettings, budget: usize, room: usize) -> Hello {
    let mut hello = Hello { heard: Some(heard), ..own(settings, budget, false) };
    shorten(&mut hello, room);
    hello
}

/// Length of an encoded hello in bytes.
pub fn length(hello: &Hello) -> usize {
    let mut body = Vec::new();
    control::encode(&Message::Hello(hello.clone()), &mut body);
    body.len()
}

/// Removes what does not fit in so many bytes, the last routes first; returns whether it did. An end's expected addresses of the
/// other may go, since the other end compares them too.
pub fn fit(hello: &mut Hello, room: usize) -> bool {
    if length(hello) <= room {
        return false;
    }
    while length(hello) > room && hello.routes.pop().is_some() {}
    shorten(hello, room);
    if length(hello) > room {
        hello.peers.clear();
    }
    true
}

/// Removes routes and name if a hello does not fit in so many bytes. The next one will have them.
pub fn shorten(hello: &mut Hello, room: usize) {
    if length(hello) > room {
        hello.routes.clear();
    }
    if length(hello) > room {
        hello.name.clear();
    }
}

/// Pads a hello so that an answer of its kind fits in as many bytes: to `to` bytes or a few more, but never below its own
/// length.
pub fn pad(hello: &mut Hello, to: usize) {
    // The field itself takes three or four bytes.
    hello.padding = to.saturating_sub(length(hello)).saturating_sub(4).min(control::MAX_PADDING);
}

/// Why the ends cannot work together; `None` if they can.
pub fn mismatch(settings: &LinkSettings, peer: &Hello) -> Option<Condition> {
    if peer.version != VERSION {
        return Some(Condition::VersionMismatch { theirs: peer.version, ours: VERSION });
    }
    if peer.mode != settings.mode {
        return Some(Condition::DeviceModeMismatch { theirs: peer.mode, ours: settings.mode });
    }
    if peer.mtu != settings.mtu {
        return Some(Condition::MtuMismatch { theirs: peer.mtu, ours: settings.mtu });
    }
    if let Some(&address) = settings.addresses.iter().find(|address| peer.addresses.contains(address)) {
        return Some(Condition::AddressConflict { address });
    }
    contradiction(&settings.peers, &peer.addresses)
        .map(|(expected, actual)| Condition::PeerAddressMismatch { expected, actual })
        .or_else(|| {
            contradiction(&peer.peers, &settings.addresses)
                .map(|(expected, actual)| Condition::OwnAddressMismatch { expected, actual })
        })
}

/// Returns an expected address and an actual one, if all actual ones of its family differ.
fn contradiction(expected: &[IpAddr], actual: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    expected.iter().find_map(|expected| {
        let mut family = actual.iter().filter(|actual| actual.is_ipv4() == expected.is_ipv4()).peekable();
        let first = *family.peek()?;
        (!family.any(|actual| actual == expected)).then_some((*expected, *first))
    })
}
