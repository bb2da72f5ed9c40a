//! The names of all tables and keys, and the remedy for an unknown one.

use super::keys::SECTIONS;
use super::schema::Section;

/// Returns the keys of a table; at the top, also the tables.
pub(super) fn keys_of(table: &str) -> Vec<&'static str> {
    let keys = SECTIONS.iter().filter(|section| section.name == table).flat_map(|section| section.keys);
    let tables =
        SECTIONS.iter().map(|section| section.name).filter(|name| table.is_empty() && !name.is_empty());
    keys.map(|key| key.name).chain(tables).collect()
}

/// Returns the table, other than the top, that has a key of this name.
fn owner(key: &str) -> Option<&'static str> {
    let has = |section: &&Section| section.keys.iter().any(|own| own.name == key);
    SECTIONS.iter().find(has).map(|section| section.name).filter(|name| !name.is_empty())
}

/// Returns the remedy for a key that is not in `table`.
pub(super) fn for_unknown(table: &str, key: &str) -> String {
    let spelled = key.replace('_', "-").to_ascii_lowercase();
    if keys_of(table).contains(&spelled.as_str()) {
        return format!("it is spelled `{spelled}`");
    }
    if !table.is_empty() && keys_of("").contains(&spelled.as_str()) {
        return format!("`{spelled}` belongs at the top, before the first [table]");
    }
    if let Some(hint) = tund_import::equal(key).or_else(|| equal_of_wireguard(table, &spelled)) {
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
        None => format!("valid keys here are {}", keys_of(table).join(", ")),
    }
}

/// Returns tund's equivalent of a key or table in WireGuard's files.
fn equal_of_wireguard(table: &str, spelled: &str) -> Option<&'static str> {
    Some(match spelled.replace('-', "").as_str() {
        "interface" => {
            "this is WireGuard's: a link of tund has [key] and [device], and `tund new` writes both ends"
        }
        "peer" if table.is_empty() => {
            "this is WireGuard's: a link has one peer, which is remote and device.peer; each further peer is a link of its own"
        }
        "privatekey" => "use key.private-file, or one key.file for both ends in place of key pairs",
        "publickey" => "use key.peer-public, or one key.file for both ends in place of key pairs",
        "presharedkey" => "use key.file",
        "endpoint" => "use remote",
        "listenport" => "use listen",
        "allowedips" => {
            "use a [[route]] for each network behind the peer; packets from other networks are dropped (accept.sources)"
        }
        "persistentkeepalive" => "use keepalive.interval, such as \"25s\"",
        "preup" | "postup" => "use scripts.up",
        "predown" | "postdown" => "use scripts.down",
        _ => return None,
    })
}

/// Returns the name nearest to `word`, if near enough to be a typo.
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
            ("device", "Address", "it is spelled `address`"),
            ("", "bind_device", "it is spelled `bind-device`"),
            ("keepalive", "intervall", "did you mean `interval`?"),
            ("key", "remote", "`remote` belongs at the top, before the first [table]"),
            ("", "interval", "`interval` belongs in [keepalive]"),
            ("", "adress", "did you mean `device.address`?"),
            ("status", "zzzzzzzz", "valid keys here are socket, metrics"),
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
    fn names_of_wireguard_point_to_their_equal() {
        for (table, name, equal) in [
            ("", "Interface", "[device]"),
            ("", "Peer", "device.peer"),
            ("key", "PrivateKey", "key.private-file"),
            ("device", "ListenPort", "listen"),
            ("", "Endpoint", "remote"),
            ("peer", "AllowedIPs", "[[route]]"),
            ("", "allowed-ips", "[[route]]"),
            ("", "persistent_keepalive", "keepalive.interval"),
            ("", "PostUp", "scripts.up"),
        ] {
            let help = for_unknown(table, name);
            assert!(help.contains(equal), "{name} in [{table}]: {help}");
        }
        assert!(for_unknown("key", "peer").contains("[device]"));
    }

    #[test]
    fn directive_hints_name_only_keys_that_exist() {
        for (directive, hint) in tund_import::EQUALS {
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
