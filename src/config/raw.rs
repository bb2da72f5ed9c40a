//! The file as it is: every table and key of the schema with its type and place, nothing decided yet.
//!
//! Keys that belong to the schema but have no effect in this version are typed here and refused here.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::reader::{At, Field, Table};
use super::{LogTo, MAX_ACCEPTED, Sandbox, Sources};
use crate::crypto::suite::Cipher;
use crate::packet::layer::Mode;

const SANDBOX: [(&str, Sandbox); 3] =
    [("auto", Sandbox::Auto), ("require", Sandbox::Require), ("off", Sandbox::Off)];
const LOG_TO: [(&str, LogTo); 3] =
    [("stderr", LogTo::Stderr), ("syslog", LogTo::Syslog), ("journal", LogTo::Journal)];
const U32: std::ops::RangeInclusive<i64> = 0..=u32::MAX as i64;

/// The whole file.
#[derive(Default)]
pub(super) struct Raw {
    pub remote: Field<Vec<At<String>>>,
    pub listen: Field<String>,
    pub float: Field<bool>,
    pub bind_device: Field<String>,
    pub fwmark: Field<i64>,
    pub key: RawKey,
    pub device: RawDevice,
    pub routes: Vec<RawRoute>,
    /// The place of `[full-tunnel]`, if there is one.
    pub full_tunnel: Option<Range<usize>>,
    pub full_closed: Field<bool>,
    pub full_local: Field<bool>,
    pub exchange: RawExchange,
    pub scripts: RawScripts,
    pub keepalive: RawKeepalive,
    pub run: RawRun,
    pub tuning: RawTuning,
    pub status: RawStatus,
}

/// `key.mode` as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RawKeyMode {
    Handshake,
    Static,
}

#[derive(Default)]
pub(super) struct RawKey {
    /// The table's place; `None`: there is no such table.
    pub place: Option<Range<usize>>,
    pub file: Field<String>,
    pub private_file: Field<String>,
    pub peer_public: Field<String>,
    pub credential: Field<String>,
    pub mode: Field<RawKeyMode>,
    pub direction: Field<i64>,
    /// `None` is "auto".
    pub cipher: Field<Option<Cipher>>,
}

#[derive(Default)]
pub(super) struct RawDevice {
    pub place: Option<Range<usize>>,
    pub mode: Field<Mode>,
    pub name: Field<String>,
    pub address: Field<Vec<At<String>>>,
    pub peer: Field<Vec<At<String>>>,
    pub mtu: Field<i64>,
    pub configure: Field<bool>,
    pub mac: Field<String>,
    pub bridge: Field<String>,
    pub txqueuelen: Field<i64>,
}

pub(super) struct RawRoute {
    pub place: Range<usize>,
    pub to: Field<String>,
    pub via: Field<String>,
    pub metric: Field<i64>,
    pub table: Field<i64>,
}

/// `[push]` and `[accept]`.
#[derive(Default)]
pub(super) struct RawExchange {
    pub push: Field<Vec<At<String>>>,
    pub accept: Field<Vec<At<String>>>,
    pub limit: Field<i64>,
    pub sources: Field<Sources>,
}

#[derive(Default)]
pub(super) struct RawScripts {
    pub up: Field<Vec<At<String>>>,
    pub down: Field<Vec<At<String>>>,
    pub route_up: Field<Vec<At<String>>>,
    pub route_down: Field<Vec<At<String>>>,
    pub link_up: Field<Vec<At<String>>>,
    pub link_down: Field<Vec<At<String>>>,
    pub security: Field<i64>,
    pub timeout: Field<Duration>,
}

#[derive(Default)]
pub(super) struct RawKeepalive {
    pub interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub idle_exit: Field<Duration>,
}

#[derive(Default)]
pub(super) struct RawRun {
    pub user: Field<String>,
    pub group: Field<String>,
    pub runtime_dir: Field<String>,
    pub verb: Field<i64>,
    pub chroot: Field<String>,
    pub sandbox: Field<Sandbox>,
    pub log: Field<LogTo>,
    pub daemon: Field<bool>,
    pub pid_file: Field<String>,
    pub nice: Field<i64>,
}

#[derive(Default)]
pub(super) struct RawStatus {
    pub socket: Field<String>,
    pub metrics: Field<String>,
}

#[derive(Default)]
pub(super) struct RawTuning {
    pub bundle: Field<bool>,
    pub socket_buffer: Field<i64>,
    pub path_mtu: Field<i64>,
    pub mss_clamp: Field<bool>,
    pub offload: Field<bool>,
    pub dscp: Field<()>,
    pub threads: Field<i64>,
    pub busy_poll: Field<i64>,
}

impl Raw {
    /// Reads everything and reports each unknown key, wrong type and key without effect.
    pub fn read(document: &Spanned<DeTable<'_>>, out: &mut Vec<Diagnostic>) -> Self {
        let mut top = Table::top(document, out);
        let mut raw = Raw {
            remote: top.strings("remote"),
            listen: read_listen(&mut top),
            float: top.boolean("float"),
            bind_device: top.string("bind-device"),
            fwmark: top.integer("fwmark", U32),
            ..Raw::default()
        };
        raw.key = top.table("key").map(RawKey::read).unwrap_or_default();
        raw.device = top.table("device").map(RawDevice::read).unwrap_or_default();
        top.tables("route", |table| raw.routes.push(RawRoute::read(table)));
        if let Some(mut full) = top.table("full-tunnel") {
            raw.full_tunnel = Some(full.span.clone());
            // There is one way so far; the key is there for another.
            let _ = full.choice("mode", &[("def1", ())]);
            raw.full_closed = full.choice("fail", &[("open", false), ("closed", true)]);
            raw.full_local = full.choice("local-networks", &[("reach", true), ("refuse", false)]);
            full.finish();
        }
        raw.exchange = RawExchange::read(&mut top);
        raw.scripts = top.table("scripts").map(RawScripts::read).unwrap_or_default();
        raw.keepalive = top.table("keepalive").map(RawKeepalive::read).unwrap_or_default();
        raw.run = top.table("run").map(RawRun::read).unwrap_or_default();
        raw.tuning = top.table("tuning").map(RawTuning::read).unwrap_or_default();
        if let Some(mut status) = top.table("status") {
            raw.status = RawStatus { socket: status.string("socket"), metrics: status.string("metrics") };
            status.finish();
        }
        if let Some(mut guard) = top.table("guard") {
            guard.later_table();
        }
        top.finish();
        raw
    }
}

impl RawKey {
    fn read(mut table: Table<'_, '_>) -> Self {
        let modes = [("static", RawKeyMode::Static), ("handshake", RawKeyMode::Handshake)];
        let ciphers = [
            ("auto", None),
            ("chacha20-poly1305", Some(Cipher::ChaCha20Poly1305)),
            ("aes-256-gcm", Some(Cipher::Aes256Gcm)),
        ];
        let raw = Self {
            place: Some(table.span.clone()),
            file: table.string("file"),
            private_file: table.string("private-file"),
            peer_public: table.string("peer-public"),
            credential: table.string("credential"),
            mode: table.choice("mode", &modes),
            direction: table.integer("direction", 0..=1),
            cipher: table.choice("cipher", &ciphers),
        };
        table.finish();
        raw
    }
}

impl RawDevice {
    fn read(mut table: Table<'_, '_>) -> Self {
        let raw = Self {
            place: Some(table.span.clone()),
            mode: table.choice("mode", &[("tun", Mode::Tun), ("tap", Mode::Tap)]),
            name: table.string("name"),
            address: table.strings("address"),
            peer: table.strings("peer"),
            mtu: table.integer("mtu", U32),
            configure: table.boolean("configure"),
            mac: table.string("mac"),
            bridge: table.string("bridge"),
            txqueuelen: table.integer("txqueuelen", 1..=1_000_000),
        };
        table.finish();
        raw
    }
}

impl RawRoute {
    fn read(mut table: Table<'_, '_>) -> Self {
        let raw = Self {
            place: table.span.clone(),
            to: table.string("to"),
            via: table.string("via"),
            metric: table.integer("metric", U32),
            table: table.integer("table", 1..=u32::MAX.into()),
        };
        table.finish();
        raw
    }
}

impl RawScripts {
    fn read(mut table: Table<'_, '_>) -> Self {
        let raw = Self {
            up: table.strings("up"),
            down: table.strings("down"),
            route_up: table.strings("route-up"),
            route_down: table.strings("route-down"),
            link_up: table.strings("link-up"),
            link_down: table.strings("link-down"),
            security: table.integer("security", 0..=3),
            timeout: table.duration("timeout", Duration::from_secs(1)..=Duration::from_secs(3600)),
        };
        table.finish();
        raw
    }
}

impl RawKeepalive {
    fn read(mut table: Table<'_, '_>) -> Self {
        let limits = Duration::from_millis(100)..=Duration::from_secs(86_400);
        let raw = Self {
            interval: table.duration("interval", limits.clone()),
            timeout: table.duration("timeout", limits.clone()),
            idle_exit: table.duration("idle-exit", limits),
        };
        table.finish();
        raw
    }
}

impl RawRun {
    fn read(mut table: Table<'_, '_>) -> Self {
        let raw = Self {
            user: table.string("user"),
            group: table.string("group"),
            runtime_dir: table.string("runtime-dir"),
            verb: table.integer("verb", 0..=9),
            chroot: table.string("chroot"),
            sandbox: table.choice("sandbox", &SANDBOX),
            log: table.choice("log", &LOG_TO),
            daemon: table.boolean("daemon"),
            pid_file: table.string("pid-file"),
            nice: table.integer("nice", -20..=19),
        };
        table.finish();
        raw
    }
}

impl RawExchange {
    fn read(top: &mut Table<'_, '_>) -> Self {
        let mut raw = Self::default();
        if let Some(mut push) = top.table("push") {
            raw.push = push.strings("routes");
            push.finish();
        }
        if let Some(mut accept) = top.table("accept") {
            raw.accept = accept.strings("routes");
            raw.limit = accept.integer("limit", 0..=MAX_ACCEPTED as i64);
            raw.sources = accept.choice("sources", &[("any", Sources::Any), ("routes", Sources::Routes)]);
            accept.finish();
        }
        raw
    }
}

impl RawTuning {
    fn read(mut table: Table<'_, '_>) -> Self {
        let raw = Self {
            bundle: table.boolean("bundle"),
            socket_buffer: table.integer("socket-buffer", 4096..=1 << 30),
            path_mtu: table.integer("path-mtu", 576..=65535),
            mss_clamp: table.boolean("mss-clamp"),
            offload: table.boolean("offload"),
            dscp: table.choice("dscp", &[("copy", ())]),
            threads: table.integer("threads", 1..=2),
            busy_poll: table.integer("busy-poll", 0..=1_000_000),
        };
        let lanes = table.integer("lanes", 1..=16);
        if lanes.value() != Some(&1) {
            table.later("lanes", lanes);
        }
        for key in ["fragment", "pad"] {
            let flag = table.boolean(key);
            table.later(key, flag);
        }
        table.finish();
        raw
    }
}

/// `listen` is a number or text; both become text.
fn read_listen(top: &mut Table<'_, '_>) -> Field<String> {
    let is_number = top.value("listen").is_some_and(|value| matches!(value.get_ref(), DeValue::Integer(_)));
    if !is_number {
        return top.string("listen");
    }
    match top.integer("listen", 0..=u16::MAX.into()) {
        Field::Is(At { value, span }) => Field::Is(At { value: value.to_string(), span }),
        Field::Wrong => Field::Wrong,
        Field::Absent => Field::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::suggest::SCHEMA;

    #[test]
    fn every_key_of_the_schema_is_read_and_typed() {
        for (table, keys) in SCHEMA {
            for key in *keys {
                let header = match *table {
                    "" => String::new(),
                    "route" => "[[route]]".to_owned(),
                    table => format!("[{table}]"),
                };
                let text = format!("{header}\n{key} = 1979-05-27");
                let document = DeTable::parse(&text).unwrap();
                let mut out = Vec::new();
                Raw::read(&document, &mut out);
                let place = text.find("1979").unwrap();
                let typed = out.iter().any(|d| {
                    d.span.as_ref().is_some_and(|span| span.start == place)
                        && d.message.contains(", not a date or time of day")
                });
                assert!(typed, "{header} {key}: {out:#?}");
            }
        }
    }
}
