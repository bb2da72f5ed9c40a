//! The names of all tables and keys, and what to say about a name that is not among them.

use super::keys::SECTIONS;
use super::schema::Section;

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

/// The keys of a table, and of the top the tables, too.
pub(super) fn keys_of(table: &str) -> Vec<&'static str> {
    let keys = SECTIONS.iter().filter(|section| section.name == table).flat_map(|section| section.keys);
    let tables =
        SECTIONS.iter().map(|section| section.name).filter(|name| table.is_empty() && !name.is_empty());
    keys.map(|key| key.name).chain(tables).collect()
}

/// The table that has a key of this name, if it is not the top.
fn owner(key: &str) -> Option<&'static str> {
    let has = |section: &&Section| section.keys.iter().any(|own| own.name == key);
    SECTIONS.iter().find(has).map(|section| section.name).filter(|name| !name.is_empty())
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
    if let Some(owner) = owner(&spelled) {
        return format!("`{spelled}` belongs in [{owner}]");
    }
    if let Some(near) = nearest(&spelled, keys_of(table).into_iter()) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = SECTIONS.iter().flat_map(|section| section.keys).map(|key| key.name);
    match nearest(&spelled, elsewhere.chain(keys_of(""))) {
        Some(near) => {
            let path = owner(near).map_or_else(|| near.to_owned(), |owner| format!("{owner}.{near}"));
            format!("did you mean `{path}`?")
        }
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
                if SECTIONS.iter().any(|section| section.name == table) {
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
