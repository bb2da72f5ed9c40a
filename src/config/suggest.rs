//! The names of all tables and keys, and what to say about a name that is not among them.

/// Every table with its keys; the top has the empty name. `[guard]` is reserved: its keys are not settled.
pub(super) const SCHEMA: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "remote",
            "listen",
            "float",
            "bind-device",
            "fwmark",
            "key",
            "device",
            "route",
            "push",
            "accept",
            "guard",
            "full-tunnel",
            "scripts",
            "keepalive",
            "run",
            "tuning",
            "status",
        ],
    ),
    ("key", &["file", "private-file", "peer-public", "credential", "mode", "direction", "cipher"]),
    ("device", &["mode", "name", "address", "peer", "mtu", "configure", "mac", "bridge", "txqueuelen"]),
    ("route", &["to", "via", "metric", "table"]),
    ("push", &["routes"]),
    ("accept", &["routes", "limit", "sources"]),
    ("full-tunnel", &["mode", "fail", "local-networks"]),
    ("scripts", &["up", "down", "route-up", "route-down", "link-up", "link-down", "security", "timeout"]),
    ("keepalive", &["interval", "timeout", "idle-exit"]),
    (
        "run",
        &["user", "group", "daemon", "pid-file", "runtime-dir", "log", "verb", "chroot", "sandbox", "nice"],
    ),
    (
        "tuning",
        &[
            "lanes",
            "bundle",
            "fragment",
            "pad",
            "offload",
            "socket-buffer",
            "mss-clamp",
            "dscp",
            "path-mtu",
            "busy-poll",
            "threads",
        ],
    ),
    ("status", &["socket", "metrics"]),
];

/// OpenVPN's directives and what tund has in their place.
const DIRECTIVES: &[(&str, &str)] = &[
    ("auth", "take it out: every cipher of tund authenticates"),
    ("bind-dev", "use bind-device"),
    ("cd", "use the option --cd, or paths relative to this file"),
    ("comp-lzo", "take it out: tund does not compress"),
    ("compress", "take it out: tund does not compress"),
    ("data-ciphers", "use key.cipher"),
    ("dev", "use device.mode for tun or tap, device.name for a name"),
    ("dev-node", "take it out: /dev/net/tun is always used"),
    ("dev-type", "use device.mode"),
    ("fast-io", "take it out: there is nothing to choose"),
    ("ifconfig", "use device.address and device.peer (tap: an address with its prefix)"),
    ("ifconfig-ipv6", "use device.address and device.peer, which take IPv6 too"),
    ("ifconfig-noexec", "use device.configure = false"),
    ("ifconfig-nowarn", "take it out"),
    ("inetd", "use the option --inetd"),
    ("ipchange", "use scripts.link-up"),
    ("key-direction", "use key.direction"),
    ("link-mtu", "use device.mtu"),
    ("lladdr", "use device.mac"),
    ("local", "use listen, such as \"192.0.2.1:8863\""),
    ("log-append", "use run.log"),
    ("lport", "use listen"),
    ("mark", "use fwmark"),
    ("mssfix", "use tuning.mss-clamp"),
    ("mtu-disc", "take it out: tund never sends IP fragments"),
    ("multihome", "take it out: answers always leave from the address that was asked"),
    ("nobind", "leave listen out"),
    ("passtos", "use tuning.dscp"),
    ("persist-key", "take it out: it is always so"),
    ("persist-tun", "take it out: it is always so"),
    ("ping", "use keepalive.interval"),
    ("ping-restart", "use keepalive.timeout"),
    ("port", "use listen; the peer's port goes into remote"),
    ("proto", "take it out: tund speaks UDP"),
    ("rcvbuf", "use tuning.socket-buffer"),
    ("redirect-gateway", "use [full-tunnel]"),
    ("resolv-retry", "take it out: names are tried for ever"),
    ("route-gateway", "use device.peer"),
    ("route-metric", "use metric in each [[route]]"),
    ("route-noexec", "leave the [[route]] tables out"),
    ("rport", "put the port into remote, such as \"mon.tn:1417\""),
    ("script-security", "use scripts.security"),
    ("secret", "use key.file with a key of `tund genkey`; the direction goes into key.direction"),
    ("sndbuf", "use tuning.socket-buffer"),
    ("tls-auth", "take it out: every datagram is authenticated"),
    ("tls-crypt", "take it out: every datagram is encrypted"),
    ("tun-mtu", "use device.mtu"),
    ("writepid", "use run.pid-file"),
];

/// The keys of a table; none for a table without a schema.
pub(super) fn keys_of(table: &str) -> &'static [&'static str] {
    SCHEMA.iter().find(|(name, _)| *name == table).map_or(&[], |(_, keys)| keys)
}

/// What tund has in place of an OpenVPN directive.
pub(super) fn directive(name: &str) -> Option<&'static str> {
    let name = name.replace('_', "-").to_ascii_lowercase();
    DIRECTIVES.iter().find(|(directive, _)| *directive == name).map(|(_, hint)| *hint)
}

/// The remedy for a key that `table` does not have.
pub(super) fn for_unknown(table: &str, key: &str) -> String {
    let spelled = key.replace('_', "-").to_ascii_lowercase();
    if keys_of(table).contains(&spelled.as_str()) {
        return format!("it is written `{spelled}`");
    }
    if !table.is_empty() && keys_of("").contains(&spelled.as_str()) {
        return format!("`{spelled}` belongs at the top, before the first [table]");
    }
    if let Some(hint) = directive(key) {
        return hint.to_owned();
    }
    if let Some((owner, _)) =
        SCHEMA.iter().find(|(name, keys)| !name.is_empty() && keys.contains(&spelled.as_str()))
    {
        return format!("`{spelled}` belongs in [{owner}]");
    }
    if let Some(near) = nearest(&spelled, keys_of(table).iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = SCHEMA.iter().flat_map(|(_, keys)| keys.iter().copied());
    match nearest(&spelled, elsewhere) {
        Some(near) => format!("did you mean `{}`?", owner_path(near)),
        None => format!("the keys here are {}", keys_of(table).join(", ")),
    }
}

/// The name nearest to `word`, if it is near enough to be a slip of the hand.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let word: String = word.chars().take(32).collect();
    let allowed = (word.chars().count() / 3).max(1);
    names
        .map(|name| (strsim::osa_distance(&word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn owner_path(key: &str) -> String {
    match SCHEMA.iter().find(|(_, keys)| keys.contains(&key)) {
        Some((owner, _)) if !owner.is_empty() => format!("{owner}.{key}"),
        Some(_) | None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_find_their_key() {
        for (table, wrong, help) in [
            ("key", "fiel", "did you mean `file`?"),
            ("device", "adress", "did you mean `address`?"),
            ("device", "Address", "it is written `address`"),
            ("", "bind_device", "it is written `bind-device`"),
            ("keepalive", "intervall", "did you mean `interval`?"),
            ("key", "remote", "`remote` belongs at the top, before the first [table]"),
            ("", "interval", "`interval` belongs in [keepalive]"),
            ("", "adress", "did you mean `device.address`?"),
            ("status", "zzzzzzzz", "the keys here are socket, metrics"),
        ] {
            assert_eq!(for_unknown(table, wrong), help, "{wrong} in [{table}]");
        }
    }

    #[test]
    fn every_key_of_the_schema_is_in_the_manual() {
        let manual = include_str!("../../docs/tund.toml.5.md");
        let (top, tables) = manual.split_once("\n## [key]\n").unwrap();
        for key in keys_of("").iter().filter(|key| keys_of(key).is_empty() && **key != "guard") {
            assert!(top.contains(&format!("\n`{key}` (")), "{key}");
        }
        for (table, keys) in SCHEMA.iter().filter(|(table, _)| !table.is_empty()) {
            let start = tables.find(&format!("[{table}]")).or_else(|| (*table == "key").then_some(0));
            let section = &tables[start.unwrap_or_else(|| panic!("[{table}]"))..];
            let section = section.split("\n## ").next().unwrap();
            for key in *keys {
                assert!(section.contains(&format!("`{key}`")), "{table}.{key}");
            }
        }
    }

    #[test]
    fn openvpn_directives_point_to_their_equal() {
        assert!(for_unknown("", "ifconfig").contains("device.address"));
        assert!(for_unknown("", "secret").contains("key.file"));
        assert!(for_unknown("", "script-security").contains("scripts.security"));
        assert!(for_unknown("scripts", "script_security").contains("scripts.security"));
    }

    #[test]
    fn directive_hints_name_only_keys_that_exist() {
        for (directive, hint) in DIRECTIVES {
            for word in hint.split([' ', ',', ';', '(', ')']).filter(|word| word.contains('.')) {
                let Some((table, key)) = word.split_once('.') else { continue };
                if SCHEMA.iter().any(|(name, _)| *name == table) {
                    assert!(keys_of(table).contains(&key), "{directive}: {word}");
                }
            }
            assert!(!keys_of("").contains(directive), "{directive} is a key of tund");
        }
    }

    #[test]
    fn neighbours_that_changed_places_are_one_edit() {
        assert_eq!(nearest("ab", ["ba"].into_iter()), Some("ba"));
        assert_eq!(nearest("ab", ["bc"].into_iter()), None);
    }
}
