//! `[push]` and `[accept]`: the routes that the ends offer to each other, and what may come from the peer.

use ipnet::IpNet;

use super::check_device::{parse_prefix, prefix_help};
use super::diagnostic::{Diagnostic, quote};
use super::raw::RawExchange;
use super::reader::{At, Field};
use super::{Accept, MAX_ACCEPTED, PUSH_ROOM, Sources, pushed_length};

/// The routes offered to the peer.
pub(super) fn check_push(raw: &RawExchange, out: &mut Vec<Diagnostic>) -> Vec<IpNet> {
    let routes = prefixes("push.routes", &raw.push, out);
    let mut room = PUSH_ROOM;
    for route in &routes {
        let length = pushed_length(&route.value);
        if length > room {
            let message = format!("push.routes: no room for {} and what follows", route.value);
            let help = format!(
                "a hello has {PUSH_ROOM} bytes for routes, and each takes 6 (IPv4) or 18 (IPv6): combine them \
                 into larger prefixes"
            );
            out.push(Diagnostic::error(route.at(), message).help(help));
            break;
        }
        room -= length;
    }
    routes.into_iter().map(|route| route.value).collect()
}

/// What is taken from the peer.
pub(super) fn check_accept(raw: &RawExchange, out: &mut Vec<Diagnostic>) -> Accept {
    let routes = prefixes("accept.routes", &raw.accept, out);
    if let (Some(limit), true) = (raw.limit.get(), routes.is_empty()) {
        let message = "accept.limit has no effect: accept.routes is empty, so no route of the peer is taken";
        out.push(Diagnostic::warning(limit.at(), message).help("name prefixes in accept.routes"));
    }
    Accept {
        routes: routes.into_iter().map(|route| route.value).collect(),
        limit: raw.limit.value().and_then(|limit| usize::try_from(*limit).ok()).unwrap_or(MAX_ACCEPTED),
        sources: raw.sources.value().copied().unwrap_or(Sources::Any),
    }
}

fn prefixes(key: &str, raw: &Field<Vec<At<String>>>, out: &mut Vec<Diagnostic>) -> Vec<At<IpNet>> {
    let mut found: Vec<At<IpNet>> = Vec::new();
    for text in raw.value().into_iter().flatten() {
        let Some((net, _)) = parse_prefix(&text.value) else {
            let message = format!("{key}: {} is no prefix", quote(&text.value));
            out.push(Diagnostic::error(text.at(), message).help(prefix_help(&text.value, "192.168.66.0/24")));
            continue;
        };
        if net.trunc() != net {
            let message = format!("{key}: {net} has bits set after the prefix");
            out.push(Diagnostic::error(text.at(), message).help(format!("write \"{}\"", net.trunc())));
        }
        let value = net.trunc();
        if found.iter().any(|other| other.value == value) {
            let message = format!("{key}: {value} is there twice");
            out.push(Diagnostic::error(text.at(), message).help("take one out"));
            continue;
        }
        found.push(At { value, span: text.span.clone() });
    }
    found
}
