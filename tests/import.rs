//! Imports OpenVPN configurations as links that tund runs.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]

use tund::config::{Code, Config, Options, Severity, Via, parse};
use tund::packet::layer::Mode;
use tund_import::{Imported, OldKey, OldKeyError, Wire, import, parse_key};

/// The documentation's original routed link.
const TUN_FRI_MON: &str = "\
# fri
remote mon.tn 1417
port 1417
proto udp
dev tun
ifconfig 192.168.86.81 192.168.86.18
secret static.key
route 192.168.66.0 255.255.255.0
keepalive 10 60
persist-tun
persist-key
cipher AES-256-CBC
auth SHA256
comp-lzo
user nobody
group nogroup
verb 3
";

const TAP_MON_FRI: &str = "\
port 1661
dev tap
<secret>
#
# 2048 bit OpenVPN static key
#
-----BEGIN OpenVPN Static key V1-----
00
-----END OpenVPN Static key V1-----
</secret>
script-security 2
up \"/etc/openvpn/tap-server.up --now\"
float
";

fn imported(text: &str) -> Imported {
    import(text, Wire::Tund).unwrap()
}

/// The configuration that tund reads from the import.
fn config(text: &str) -> Config {
    runnable(&imported(text)).0
}

/// The same, with the findings.
fn runnable(imported: &Imported) -> (Config, Vec<Code>) {
    let toml = imported.toml("old.key");
    let parsed = parse("link", &toml, &Options::new("/etc/tund"));
    let errors: Vec<_> = parsed.diagnostics.iter().filter(|finding| finding.is_error()).collect();
    assert!(errors.is_empty(), "{toml}\n{errors:#?}");
    let warnings = parsed.diagnostics.iter().filter(|finding| finding.severity == Severity::Warning);
    (parsed.config.unwrap(), warnings.map(|finding| finding.code).collect())
}

#[test]
fn a_routed_link_comes_out_whole() {
    let config = config(TUN_FRI_MON);
    assert_eq!((config.remotes[0].host.as_str(), config.remotes[0].port), ("mon.tn", 1417));
    assert_eq!(config.listen.port, 1417);
    assert_eq!(config.device.mode, Mode::Tun);
    assert_eq!(config.device.addresses, ["192.168.86.81/32".parse().unwrap()]);
    assert_eq!(config.device.peers, ["192.168.86.18".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(config.routes.len(), 1);
    assert_eq!(
        (config.routes[0].to, config.routes[0].via),
        ("192.168.66.0/24".parse().unwrap(), Via::VpnGateway)
    );
    assert_eq!(config.keepalive.timeout.as_secs(), 60);
    assert_eq!((config.run.user.as_deref(), config.run.verb), (Some("nobody"), 3));
}

#[test]
fn every_directive_without_an_equal_is_named_with_its_line_and_reason() {
    let result = imported(TUN_FRI_MON);
    let names: Vec<_> = result.left_out.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(names, ["persist-tun", "persist-key", "cipher AES-256-CBC", "auth SHA256", "comp-lzo"]);
    assert!(result.left_out[2].contains("AES-256-GCM"), "{:?}", result.left_out);
    assert!(result.left_out[4].starts_with("line 14: comp-lzo: "));
    for line in &result.left_out {
        assert!(result.toml("k").contains(&format!("\n# {line}\n")), "{}", result.toml("k"));
    }
    let odd =
        imported(&format!("{TUN_FRI_MON}no-such \u{1b}[31m thing\nroute lab.example\nproto tcp-client\n"));
    let left: Vec<_> = odd.left_out[5..].iter().map(String::as_str).collect();
    assert!(left[0].contains("no-such") && !odd.toml("k").contains('\u{1b}'), "{left:?}");
    assert!(left[1].contains("lab.example") && left[2].contains("UDP"), "{left:?}");
}

/// OpenVPN is called with `--port 1417` there, which tund's `--port` does not do to a port that the file names.
#[test]
fn the_files_of_a_tutorial_give_its_routes_and_the_port_that_is_missing_is_said() {
    let text = "remote mon.tn\nsecret static.key\ndev tun\nifconfig 192.168.86.81 192.168.86.18\n\
                route 192.168.66.0 netmask 255.255.255.0 vpn_gateway\nroute 192.168.56.0 netmask 255.255.255.0 net_gateway\n";
    let routes: Vec<_> =
        config(text).routes.into_iter().map(|route| (route.to.to_string(), route.via)).collect();
    let expected = [("192.168.66.0/24", Via::VpnGateway), ("192.168.56.0/24", Via::NetGateway)];
    assert_eq!(routes, expected.map(|(to, via)| (to.to_owned(), via)));
    let left_out = imported(text).left_out;
    assert_eq!(left_out.len(), 3, "{left_out:?}");
    assert!(left_out[0].starts_with("line 5: route 192.168.66.0 netmask "), "{left_out:?}");
    assert!(left_out[2].starts_with("port: ") && left_out[2].contains("--port"), "{left_out:?}");
    let waiting = imported(&text.replace("remote mon.tn\n", "")).left_out;
    let own = imported(&text.replace("mon.tn\n", "mon.tn 1417\n")).left_out;
    assert!(waiting.iter().chain(&own).all(|line| !line.starts_with("port: ")), "{waiting:?} {own:?}");
}

/// The page shows each configuration beside its original, as imported.
#[test]
fn the_page_shows_what_the_import_makes() {
    let page = include_str!("../docs/openvpn.md");
    let mut pairs = 0;
    for part in page.split("with OpenVPN:\n").skip(1) {
        let (before, rest) = part.split_once("```toml\n").unwrap();
        let (after, _) = rest.split_once("```").unwrap();
        let lines = before.lines().filter_map(|line| line.strip_prefix("    "));
        let imported = config(&lines.map(|line| format!("{line}\n")).collect::<String>());
        let shown = parse("link", after, &Options::new("/etc/tund"));
        let shown = shown.config.unwrap_or_else(|| panic!("{after}\n{:#?}", shown.diagnostics));
        assert_eq!((&imported.remotes, imported.listen.port), (&shown.remotes, shown.listen.port), "{after}");
        assert_eq!((&imported.device, &imported.routes), (&shown.device, &shown.routes), "{after}");
        assert_eq!((&imported.scripts, imported.key.mode), (&shown.scripts, shown.key.mode), "{after}");
        pairs += 1;
    }
    assert_eq!(pairs, 4, "two ends of a routed link and two of a bridged one");
}

/// OpenVPN also accepts carriage returns, quotes, trailing comments and an indented inline key.
#[test]
fn odd_files_are_read_as_openvpn_reads_them() {
    let key = "0123456789abcdef0123456789abcdef\n".repeat(16);
    let text = format!(
        "remote \"mon.tn\" 1417 udp   # the hub\ndev tun ; routed\n\tifconfig 10.0.0.1 10.0.0.2\nsecret [inline] 1\n\
         <secret>\n-----BEGIN OpenVPN Static key V1-----\n{key}-----END OpenVPN Static key V1-----\n</secret>\n\
         script-security 2\nup '/etc/openvpn/up.sh \"br0 now\"'\n"
    )
    .replace('\n', "\r\n");
    let config = config(&text);
    assert_eq!((config.remotes[0].host.as_str(), config.remotes[0].port), ("mon.tn", 1417));
    assert_eq!(config.device.addresses[0].addr().to_string(), "10.0.0.1");
    let up = config.scripts.up.unwrap();
    assert_eq!((up.program.to_str(), up.args), (Some("/etc/openvpn/up.sh"), vec!["br0 now".to_owned()]));
    let OldKey::Inline(inline) = imported(&text).key else { panic!("the key is inline") };
    assert!(parse_key(&inline).is_ok());
}

#[test]
fn a_bridged_link_with_a_script_and_an_inline_key_comes_out_whole() {
    let config = config(TAP_MON_FRI);
    assert_eq!((config.remotes.len(), config.listen.port), (0, 1661));
    assert_eq!((config.device.mode, config.device.configure), (Mode::Tap, false));
    let up = config.scripts.up.unwrap();
    assert_eq!(
        (up.program.to_str().unwrap(), up.args),
        ("/etc/openvpn/tap-server.up", vec!["--now".to_owned()])
    );
    let result = imported(TAP_MON_FRI);
    assert!(matches!(result.key, OldKey::Inline(text) if text.contains("BEGIN OpenVPN")));
}

#[test]
fn a_tap_with_address_a_named_device_ipv6_and_gateways() {
    let text = "dev mytap\ndev-type tap\nsecret k 1\nremote 192.0.2.9\nremote 2001:db8::9 5000\nnobind\n\
                ifconfig 10.8.0.2 255.255.255.0\nifconfig-ipv6 fd00::2/64 fd00::1\nroute-gateway 10.8.0.1\n\
                route 10.1.0.0 255.255.0.0\nroute 10.2.0.0 255.255.0.0 net_gateway 9\nroute-metric 5\nredirect-gateway def1 block-local\n\
                lladdr 02:00:00:00:00:01\nsndbuf 100000\nrcvbuf 200000\nmssfix 0\ntun-mtu 1500\n";
    let config = config(text);
    assert_eq!(config.device.name.as_deref(), Some("mytap"));
    let addresses: Vec<_> = config.device.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.8.0.2/24", "fd00::2/64"]);
    let ports: Vec<_> = config.remotes.iter().map(|remote| remote.port).collect();
    assert_eq!((ports, config.listen.port), (vec![1194, 5000], 0));
    let routes: Vec<_> = config.routes.iter().map(|route| (route.via, route.metric)).collect();
    let gateway = Via::Address("10.8.0.1".parse().unwrap());
    assert_eq!(routes, [(gateway, Some(5)), (Via::NetGateway, Some(9))]);
    assert!(config.full_tunnel.is_some());
    assert_eq!((config.tuning.socket_buffer, config.tuning.mss_clamp), (200_000, false));
}

#[test]
fn a_link_with_certificates_or_without_a_secret_is_refused() {
    let errors = import("client\ndev tun\nremote a 1\nca ca.crt\n<tls-crypt>\n</tls-crypt>\n", Wire::Tund)
        .unwrap_err();
    let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    let expected =
        ["client", "ca", "tls-crypt"].map(|name| format!("`{name}` belongs to a link with certificates"));
    assert_eq!(messages, expected);
    assert_eq!(import("dev tun\n", Wire::Tund).unwrap_err()[0].message, "there is no `secret`");
    assert_eq!(import("secret k\n", Wire::Tund).unwrap_err()[0].message, "there is no `dev`");
}

#[test]
fn scripts_that_openvpn_would_not_run_are_left_out() {
    let result = imported("dev tun\nsecret k\nifconfig 10.0.0.1 10.0.0.2\nup /x\n");
    assert!(!result.toml("k").contains("[scripts]"));
    assert!(result.left_out[0].starts_with("scripts: "), "{:?}", result.left_out);
    let twice = config("dev tap\nsecret k 0\nscript-security 2\nup /x\nup /y\n");
    assert_eq!(twice.scripts.up.unwrap().program.to_str(), Some("/y"));
}

#[test]
fn a_static_key_is_read_and_a_damaged_one_named() {
    let digits = |count: usize| (0..count).map(|n| format!("{:02x}", n & 255)).collect::<String>();
    let file = |body: &str| {
        format!("#\n-----BEGIN OpenVPN Static key V1-----\r\n{body}\n-----END OpenVPN Static key V1-----\n")
    };
    let key = parse_key(&file(&digits(256))).unwrap();
    assert!(key.iter().enumerate().all(|(n, byte)| n == usize::from(*byte)));
    assert_eq!(parse_key(&file(&digits(255))), Err(OldKeyError::Damaged));
    assert_eq!(parse_key(&file(&digits(257))), Err(OldKeyError::Damaged));
    assert_eq!(parse_key(&file("zz")), Err(OldKeyError::Damaged));
    assert_eq!(parse_key(&digits(256)), Err(OldKeyError::NoKey));
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        /// Whatever the old file has, the new one is well-formed TOML.
        #[test]
        fn anything_comes_out_as_toml(lines in prop::collection::vec("(secret|cipher|compress|fragment|dev|up|remote|route|ifconfig|<a>|[a-z-]{1,9})( [ -~é\u{1b}]{0,12}){0,3}", 0..12)) {
            let text = format!("dev tap\nsecret k\nscript-security 2\n{}\n", lines.join("\n"));
            for wire in [Wire::Tund, Wire::OpenVpn] {
                if let Ok(result) = import(&text, wire) {
                    let toml = result.toml("k");
                    let document = toml::de::DeTable::parse(&toml);
                    prop_assert!(document.is_ok(), "{toml}\n{:?}", document.err());
                }
            }
        }
    }
}

/// Configurations from the field, for a peer that stays OpenVPN.
mod wire {
    use std::collections::BTreeSet;

    use tund::config::{OpenVpn, Upgrade};
    use tund::crypto::cbc_hmac::{CbcCipher, Digest};
    use tund::wire::openvpn::Framing;

    use super::*;

    fn file(name: &str) -> &'static str {
        let text = include_str!("import/wire.confs");
        text.split("## ").find_map(|part| part.strip_prefix(name)?.strip_prefix('\n')).unwrap()
    }

    fn kept(text: &str) -> Imported {
        import(text, Wire::OpenVpn).unwrap()
    }

    fn link(name: &str) -> (Config, Vec<Code>, Vec<String>) {
        let imported = kept(file(name));
        let (config, codes) = runnable(&imported);
        (config, codes, imported.left_out)
    }

    fn openvpn(cipher: CbcCipher, digest: Digest) -> OpenVpn {
        OpenVpn { direction: None, cipher, digest, framing: None, fragment: None, upgrade: Upgrade::Auto }
    }

    #[test]
    fn each_kind_of_file_in_the_field_keeps_its_wire() {
        use CbcCipher::*;
        use Digest::*;
        let lzo = Some(Framing::CompLzo);
        // Own port, the peer's, whether it may move, and the wire settings.
        let cases = [
            ("sample-office", 1194, None, true, openvpn(Aes256, Sha1)),
            ("sample-home", 1194, Some(1194), false, OpenVpn { framing: lzo, ..openvpn(Aes256, Sha1) }),
            ("sample-xinetd", 1194, None, true, openvpn(Blowfish, Sha1)),
            ("vyos", 1195, Some(1196), false, OpenVpn { framing: lzo, ..openvpn(TripleDes, Sha256) }),
            ("dn42-router", 33121, Some(33121), false, OpenVpn { framing: lzo, ..openvpn(Blowfish, Sha1) }),
            (
                "firewall-server",
                1198,
                None,
                true,
                OpenVpn { framing: Some(Framing::StubV2), ..openvpn(Aes128, Sha256) },
            ),
            (
                "firewall-client",
                0,
                Some(1198),
                false,
                OpenVpn { framing: Some(Framing::Stub), ..openvpn(Aes256, Sha512) },
            ),
            ("office-tunnel", 0, Some(1203), true, OpenVpn { framing: lzo, ..openvpn(Aes256, Sha384) }),
            ("three-sites", 0, Some(1194), false, OpenVpn { direction: Some(1), ..openvpn(Aes256, Sha256) }),
            ("blog", 53, Some(53), false, OpenVpn { framing: lzo, ..openvpn(Blowfish, Sha1) }),
            (
                "windows-pair",
                1194,
                Some(1194),
                false,
                OpenVpn { fragment: Some(1300), ..openvpn(Blowfish, Sha1) },
            ),
            ("course", 5000, Some(5000), false, OpenVpn { framing: lzo, ..openvpn(Blowfish, Sha1) }),
            (
                "unikernel",
                1194,
                Some(1194),
                false,
                OpenVpn { framing: lzo, direction: Some(0), ..openvpn(Aes256, Sha1) },
            ),
        ];
        for (name, own, theirs, float, expected) in cases {
            let (config, codes, _) = link(name);
            let remote = config.remotes.first().map(|remote| remote.port);
            assert_eq!((config.listen.port, remote, config.float), (own, theirs, float), "{name}");
            let weak = matches!(expected.cipher, Blowfish | TripleDes);
            assert_eq!(codes.contains(&Code::WeakCipher), weak, "{name}");
            assert_eq!(config.key.openvpn, Some(expected), "{name}");
        }
    }

    #[test]
    fn a_file_without_a_cipher_says_first_that_it_means_blowfish() {
        for (name, silent) in [("blog", true), ("course", true), ("vyos", false), ("three-sites", false)] {
            let (_, _, left_out) = link(name);
            assert_eq!(
                left_out.first().is_some_and(|line| line.starts_with("cipher: ")),
                silent,
                "{left_out:?}"
            );
        }
    }

    #[test]
    fn what_the_wire_cannot_be_without_is_refused_at_its_line() {
        let refused = |text: &str| {
            let errors = import(text, Wire::OpenVpn).unwrap_err();
            assert!(errors.iter().all(|error| !error.help.is_empty()), "{errors:?}");
            errors
                .iter()
                .map(|error| error.place.clone().map(|place| text[place].to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(refused(file("web-ui-tcp")), [Some("proto tcp-server".to_owned())]);
        assert_eq!(refused(file("cloud")), [Some("remote 203.0.113.50 1200 tcp-client".to_owned())]);
        assert_eq!(refused(file("vyos-bf256")), [None], "a key of 256 bits for Blowfish");
        for line in [
            "cipher none",
            "cipher AES-256-GCM",
            "cipher AES-256-CFB",
            "cipher CAST5-CBC",
            "auth none",
            "auth MD5",
            "no-replay",
            "no-iv",
            "fragment 20",
            "key-direction 2",
            "data-ciphers-fallback SEED-CBC",
        ] {
            let text = format!("dev tun\nifconfig 10.0.0.1 10.0.0.2\nsecret k\n{line}\n");
            assert_eq!(refused(&text), [Some(line.to_owned())]);
            assert!(import(&text, Wire::Tund).is_ok(), "of no concern to tund's own wire: {line}");
        }
    }

    /// The directives in all these files that must be reported.
    #[test]
    fn what_has_no_equal_is_named_and_what_is_kept_is_not() {
        let mut names = BTreeSet::new();
        for part in include_str!("import/wire.confs").split("## ").skip(1) {
            let text = part.split_once('\n').unwrap().1;
            for line in import(text, Wire::OpenVpn).into_iter().flat_map(|imported| imported.left_out) {
                let name = line.split(": ").nth(1).unwrap().split(' ').next().unwrap();
                names.insert(name.to_owned());
            }
        }
        for kept in ["auth", "data-ciphers-fallback", "fragment", "float", "key-direction", "nobind", "lport"]
        {
            assert!(!names.contains(kept), "{kept}");
        }
        for named in
            ["comp-lzo", "compress", "management", "providers", "topology", "allow-compression", "inetd"]
        {
            assert!(names.contains(named), "{named}: {names:?}");
        }
    }

    #[test]
    fn the_last_cipher_counts_and_digests_have_openssls_other_names() {
        let text = "dev tun\nifconfig 10.0.0.1 10.0.0.2\nsecret k 1\nkeysize 256\ncipher BF-CBC\nauth RSA-SHA512\n\
                    data-ciphers-fallback aes-256-cbc\nkey-direction 0\ncompress\n";
        let (config, _) = runnable(&kept(text));
        let expected = OpenVpn {
            direction: Some(0),
            framing: Some(Framing::Stub),
            ..openvpn(CbcCipher::Aes256, Digest::Sha512)
        };
        assert_eq!(config.key.openvpn, Some(expected));
    }
}
