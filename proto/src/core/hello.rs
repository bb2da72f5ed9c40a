//! What the ends tell each other of themselves, and whether it fits.

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

/// This end's hello that names a key id of the peer's, shortened to so many bytes if it can be.
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

/// Leaves out what would not fit into so many bytes, the last routes first; whether that is anything. No end needs what it expects of
/// the other one's addresses to be said: that is compared there, too.
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

/// Leaves routes and name out where a hello would not fit into so many bytes with them. What is left out comes with
/// the next one.
pub fn shorten(hello: &mut Hello, room: usize) {
    if length(hello) > room {
        hello.routes.clear();
    }
    if length(hello) > room {
        hello.name.clear();
    }
}

/// Makes a hello so long that an answer of its kind fits into as many bytes: `length` bytes or a few more, but never shorter
/// than it is.
pub fn pad(hello: &mut Hello, to: usize) {
    // The field itself takes three or four bytes.
    hello.padding = to.saturating_sub(length(hello)).saturating_sub(4).min(control::MAX_PADDING);
}

/// Why the two ends cannot work together; `None` if they can.
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

/// An address that one end expects of the other where the other has only different ones of that family.
fn contradiction(expected: &[IpAddr], actual: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    expected.iter().find_map(|expected| {
        let mut family = actual.iter().filter(|actual| actual.is_ipv4() == expected.is_ipv4()).peekable();
        let first = *family.peek()?;
        (!family.any(|actual| actual == expected)).then_some((*expected, *first))
    })
}
