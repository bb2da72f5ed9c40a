//! Status for people: a table of links, or one link in full.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::api::Status;
use super::talker::Talker;

/// Formats links as a table, one line each, and a second one if something is wrong. `now` is in seconds since the Unix epoch.
pub fn table(links: &[Status], now: u64) -> String {
    let mut rows = vec![["LINK", "STATE", "FOR", "PEER", "DEVICE", "SENT", "RECEIVED"].map(str::to_owned)];
    rows.extend(links.iter().map(|link| row(link, now)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
        let link = index.checked_sub(1).and_then(|index| links.get(index));
        link.into_iter().flat_map(|link| &link.problems).for_each(|problem| {
            let _ = writeln!(out, "  {}", problem.text);
        });
        link.and_then(|link| link.key_log.as_ref()).into_iter().for_each(|file| {
            let _ = writeln!(out, "  warning: its keys are written to {file}");
        });
    }
    out
}

fn row(link: &Status, now: u64) -> [String; 7] {
    let bytes = |of: fn(&super::api::Counters) -> u64| {
        link.counters.as_ref().map_or_else(|| "-".to_owned(), |counters| amount(of(counters)))
    };
    [
        link.name.clone(),
        link.state.name().to_owned(),
        age(now.saturating_sub(link.since)),
        link.endpoint.clone().unwrap_or_else(|| "-".to_owned()),
        link.device.clone().unwrap_or_else(|| "-".to_owned()),
        bytes(|counters| counters.bytes_sent),
        bytes(|counters| counters.bytes_received),
    ]
}

/// What is known about the path to the peer.
fn path(link: &Status) -> Option<String> {
    let rtt = link.rtt.map(|rtt| format!("round trip {:.1} ms", rtt * 1000.0));
    let budget = link.budget.map(|budget| format!("datagrams of up to {budget} bytes pass"));
    let path: Vec<_> = rtt.into_iter().chain(budget).collect();
    (!path.is_empty()).then(|| path.join(", "))
}

/// Formats everything about one link.
pub fn full(link: &Status, now: u64) -> String {
    let ago = |time: u64| age(now.saturating_sub(time));
    let mut out = format!("{}: {} for {}\n", link.name, link.state.name(), ago(link.since));
    let mut line = |title: &str, text: String| {
        let _ = writeln!(out, "  {title:<9} {text}");
    };
    for problem in &link.problems {
        line("problem", format!("{} [{}], for {}", problem.text, problem.code, ago(problem.since)));
    }
    let peer = link.peer.as_ref().map(|name| format!(", its \"{name}\"")).unwrap_or_default();
    match &link.endpoint {
        Some(endpoint) => line("peer", format!("{endpoint}{peer}")),
        None => line("peer", "not known yet".to_owned()),
    }
    link.way.iter().for_each(|way| line("way", way.clone()));
    let device = link.device.as_deref().unwrap_or("not open yet");
    let addresses: String = link.addresses.iter().map(|address| format!(", {address}")).collect();
    let down = if link.device_up == Some(false) { ", down" } else { "" };
    let bridge = link.bridge.as_ref().map(|bridge| format!(", in {bridge}")).unwrap_or_default();
    line("device", format!("{device}: {}{down}, MTU {}{bridge}{addresses}", link.mode, link.mtu));
    let renewed = link.keys_since.map(|since| format!(", {} old", ago(since))).unwrap_or_default();
    let library = link.library.as_ref().map(|library| format!(" by {library}")).unwrap_or_default();
    let cipher = link.cipher.as_ref().map(|cipher| format!(", {cipher}{library}")).unwrap_or_default();
    let exchange = link.exchange.as_ref().map(|exchange| format!(" by {exchange}")).unwrap_or_default();
    line("keys", format!("{}{exchange}{renewed}{cipher}", link.keys));
    link.key_log
        .iter()
        .for_each(|file| line("key log", format!("{file}: whoever has it can read this link")));
    link.protections.iter().for_each(|protections| line("engine", protections.clone()));
    path(link).into_iter().for_each(|path| line("path", path));
    if let (Some(lanes), Some(ways)) = (link.lanes, link.lane_ways) {
        line("lanes", format!("{lanes} in use, {ways} of them on a path of their own"));
    }
    if let Some(counters) = &link.counters {
        let traffic = |frames: u64, bytes: u64, datagrams: u64| {
            format!("{frames} frames, {} in {datagrams} datagrams", amount(bytes))
        };
        line("sent", traffic(counters.frames_sent, counters.bytes_sent, counters.datagrams_sent));
        let received =
            traffic(counters.frames_received, counters.bytes_received, counters.datagrams_received);
        line("received", format!("{received}, {} lost in transit", counters.datagrams_lost));
        let dropped = counters.dropped.iter().filter(|dropped| dropped.count > 0);
        let dropped: Vec<_> =
            dropped.map(|dropped| format!("{} {}", dropped.reason, dropped.count)).collect();
        line("dropped", if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") });
    }
    let missing: BTreeSet<&String> = link.missing.iter().collect();
    let set = link.changes.iter().filter(|change| !missing.contains(change));
    for (title, steps) in [("set", set.collect::<Vec<_>>()), ("missing", link.missing.iter().collect())] {
        for (index, step) in steps.into_iter().enumerate() {
            line(if index == 0 { title } else { "" }, step.clone());
        }
    }
    let reload = if link.reload_ok { "" } else { "; the last reload failed, the log says why" };
    line("process", format!("pid {}, tund {}, for {}", link.pid, link.version, ago(link.started)));
    line("file", format!("{}, read {} ago{reload}", link.file, ago(link.loaded)));
    out
}

/// Formats the top senders of the last minute.
pub fn talkers(link: &Status) -> String {
    let mut out = String::new();
    for (title, here) in [("here", true), ("there", false)] {
        let mut hosts = link.talkers.iter().filter(|talker| talker.here == here).peekable();
        if hosts.peek().is_none() {
            let _ = writeln!(out, "  {title:<9} nobody sent a frame in the last minute");
        }
        for (index, Talker { mac, vlan, frames, bytes, .. }) in hosts.enumerate() {
            let title = if index == 0 { title } else { "" };
            let vlan = vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
            let _ = writeln!(out, "  {title:<9} {mac}{vlan}, {frames} frames, {}", amount(*bytes));
        }
    }
    out
}

/// Formats seconds by the two largest units: `3 d 2 h`.
fn age(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (name, length) in units {
        if left >= length || (length == 1 && parts.is_empty()) {
            parts.push(format!("{} {name}", left / length));
            left %= length;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// Formats bytes with about three digits.
fn amount(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
    match UNITS.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => {
            let tenths = bytes / (size / 10);
            if tenths < 1000 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", tenths / 10)
            }
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::State;
    use crate::control::api::tests::{status, trouble};

    #[test]
    fn ages_and_amounts_are_short() {
        let ages = [0, 59, 60, 3661, 86_400, 90_000, 90_061].map(age);
        assert_eq!(ages, ["0 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d 1 h", "1 d 1 h"]);
        let amounts = [0, 999, 1000, 99_949, 123_456, 7_000_000, 12_345_678_901].map(amount);
        assert_eq!(amounts, ["0 B", "999 B", "1.0 kB", "99.9 kB", "123 kB", "7.0 MB", "12.3 GB"]);
    }

    #[test]
    fn the_table_has_a_line_for_each_link_and_one_for_what_is_wrong() {
        let waiting = Status {
            name: "tap".into(),
            state: State::Waiting,
            problems: vec![trouble("no-answer", "no answer from 192.0.2.1:1")],
            endpoint: None,
            counters: None,
            key_log: Some("/etc/k".into()),
            ..status()
        };
        assert_eq!(
            table(&[status(), waiting], 1_000_065),
            "LINK         STATE    FOR        PEER              DEVICE  SENT   RECEIVED\n\
             tun-fri-mon  up       1 min 5 s  203.0.113.2:1417  tun0    300 B  7.0 MB\n\
             tap          waiting  1 min 5 s  -                 tun0    -      -\n\
             \x20 no answer from 192.0.2.1:1\n\
             \x20 warning: its keys are written to /etc/k\n"
        );
    }

    #[test]
    fn one_link_is_told_in_full() {
        let route = |net: u8| format!("ip route add 192.168.{net}.0/24 dev tun0");
        let text = full(
            &Status {
                state: State::Blocked,
                problems: vec![trouble("bridge-down", "this"), trouble("route-missing", "that")],
                device_up: Some(false),
                bridge: Some("br0".into()),
                changes: [66, 67].map(route).into(),
                missing: vec![route(67)],
                key_log: Some("/etc/k".into()),
                reload_ok: false,
                ..status()
            },
            1_000_065,
        );
        assert_eq!(
            text,
            "tun-fri-mon: blocked for 1 min 5 s\n\
             \x20 problem   this [bridge-down], for 1 min 5 s\n\
             \x20 problem   that [route-missing], for 1 min 5 s\n\
             \x20 peer      203.0.113.2:1417, its \"tun-mon-fri\"\n\
             \x20 device    tun0: tun, down, MTU 1420, in br0, 192.168.86.81/32\n\
             \x20 keys      handshake by X25519 + ML-KEM-768, 35 s old, AES-256-GCM by ring\n\
             \x20 key log   /etc/k: whoever has it can read this link\n\
             \x20 engine    uid 994, no capabilities\n\
             \x20 path      round trip 12.3 ms, datagrams of up to 1472 bytes pass\n\
             \x20 lanes     4 in use, 3 of them on a path of their own\n\
             \x20 sent      3 frames, 300 B in 0 datagrams\n\
             \x20 received  0 frames, 7.0 MB in 0 datagrams, 4 lost in transit\n\
             \x20 dropped   replayed 9\n\
             \x20 set       ip route add 192.168.66.0/24 dev tun0\n\
             \x20 missing   ip route add 192.168.67.0/24 dev tun0\n\
             \x20 process   pid 7, tund 0.1.0, for 17 min 45 s\n\
             \x20 file      /etc/tund/tun-fri-mon.toml, read 17 min 45 s ago; the last reload failed, the log says why\n"
        );
    }
}
