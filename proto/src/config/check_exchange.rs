//! `[push]` and `[accept]`: the routes that the ends offer each other, and what the peer may send.

use ipnet::IpNet;

use super::check_device::CheckedDevice;
use super::check_routes::check_network;
use super::code::Code;
use super::diagnostic::Findings;
use super::keys::{Raw, RawPush};
use super::model::has_network;
use super::reader::{At, Field};
use super::schema::Declared;
use super::{Accept, Sources};
use crate::packet::layer::Mode;
use crate::wire::control::{PUSH_ROOM, pushed_length};

/// The routes offered to the peer.
pub(super) fn check_push(raw: &RawPush, out: &mut Findings) -> Vec<IpNet> {
    let routes = prefixes("push.routes", &raw.routes, out);
    let mut room = PUSH_ROOM;
    for route in &routes {
        let length = pushed_length(&route.value);
        if length > room {
            let message = format!("push.routes: no room for {} and those after it", route.value);
            let help = format!(
                "a hello has {PUSH_ROOM} bytes for routes, 6 for each IPv4 and 18 for each IPv6 route: combine them \
                 into larger prefixes"
            );
            out.error(Code::PushTooLong, route.at(), message, help);
            break;
        }
        room -= length;
    }
    routes.into_iter().map(|route| route.value).collect()
}

/// What the peer may send.
pub(super) fn check_accept(raw: &Raw, device: &CheckedDevice, out: &mut Findings) -> Accept {
    let sources = raw.accept.sources.value().copied();
    let sources = sources.unwrap_or_else(|| default_sources(raw, device, out));
    let raw = &raw.accept;
    let routes = prefixes("accept.routes", &raw.routes, out);
    if let (Some(limit), true) = (raw.limit.get(), routes.is_empty()) {
        let message =
            "accept.limit has no effect: accept.routes is empty, so no route from the peer is accepted";
        out.warning(Code::NoEffect, limit.at(), message, "list prefixes in accept.routes");
    }
    Accept { routes: routes.into_iter().map(|route| route.value).collect(), limit: raw.limit(), sources }
}

/// By default, a routed link accepts from the peer what it would send there, as far as the file says.
fn default_sources(raw: &Raw, device: &CheckedDevice, out: &mut Findings) -> Sources {
    if device.mode != Some(Mode::Tun) {
        return Sources::Any;
    }
    let known = !device.peers.is_empty()
        || device.addresses.iter().any(|own| has_network(&own.value))
        || raw.full_tunnel.place().is_some();
    let (sources, message, help) = if known {
        (
            Sources::Routes,
            "packets from the peer are accepted only from sources routed to it here: device.peer, the device's \
             networks, [[route]] and accepted offers",
            "set accept.sources = \"any\" if a routing daemon or a script sets routes; \"routes\" says this is intended",
        )
    } else {
        (
            Sources::Any,
            "packets from the peer are accepted from any source: this file does not say which sources are the peer's",
            "set device.peer, or accept.sources = \"any\" if this is intended",
        )
    };
    // A full tunnel accepts everything anyway.
    if raw.full_tunnel.place().is_none() && raw.accept.sources.is_absent() {
        out.note(Code::PeerSources, raw.device.place(), message, help);
    }
    sources
}

fn prefixes(key: &str, raw: &Field<Vec<At<String>>>, out: &mut Findings) -> Vec<At<IpNet>> {
    let mut found: Vec<At<IpNet>> = Vec::new();
    for text in raw.value().into_iter().flatten() {
        let Some(value) = check_network(key, text, out) else { continue };
        if found.iter().any(|other| other.value == value) {
            let message = format!("{key}: {value} is listed twice");
            out.error(Code::Duplicate, text.at(), message, "remove one");
            continue;
        }
        found.push(text.with(value));
    }
    found
}
