//! OpenVPN configurations as links that tund runs.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]

use tund::config::{Config, DEFAULT_PORT, Options, Via, parse};
use tund::packet::layer::Mode;
use tund_import::{Imported, OldKey, OldKeyError, TUND_PORT, import, parse_key};

/// The routed link of the documentation, as it was.
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
    import(text, "old.key").unwrap()
}

/// The file that comes out is one that tund runs.
fn config(text: &str) -> Config {
    let toml = imported(text).toml;
    let parsed = parse("link", &toml, &Options::new("/etc/tund"));
    let errors: Vec<_> = parsed.diagnostics.iter().filter(|finding| finding.is_error()).collect();
    assert!(errors.is_empty(), "{toml}\n{errors:#?}");
    parsed.config.unwrap()
}

#[test]
fn a_routed_link_comes_out_whole() {
    assert_eq!(TUND_PORT, DEFAULT_PORT, "a file that names no port");
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
    assert!(result.left_out[2].contains("the cipher is AES-256-GCM or"), "{:?}", result.left_out);
    assert!(result.left_out[4].starts_with("line 14: comp-lzo: tund does not compress"));
    for line in &result.left_out {
        assert!(result.toml.contains(&format!("\n# {line}\n")), "{}", result.toml);
    }
    let odd =
        imported(&format!("{TUN_FRI_MON}no-such \u{1b}[31m thing\nroute lab.example\nproto tcp-client\n"));
    let left: Vec<_> = odd.left_out[5..].iter().map(String::as_str).collect();
    assert!(left[0].contains("import does not know it") && !odd.toml.contains('\u{1b}'), "{left:?}");
    assert!(left[1].contains("its network is a name") && left[2].contains("tund speaks UDP"), "{left:?}");
}

/// Each configuration of the page beside what it was: the import says the same.
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

/// Carriage returns, quotes, comments behind a directive and an indented inline key are OpenVPN's as well.
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
    let errors =
        import("client\ndev tun\nremote a 1\nca ca.crt\n<tls-crypt>\n</tls-crypt>\n", "k").unwrap_err();
    let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    let expected =
        ["client", "ca", "tls-crypt"].map(|name| format!("`{name}` belongs to a link with certificates"));
    assert_eq!(messages, expected);
    assert_eq!(import("dev tun\n", "k").unwrap_err()[0].message, "there is no `secret`");
    assert_eq!(import("secret k\n", "k").unwrap_err()[0].message, "there is no `dev`");
}

#[test]
fn scripts_that_openvpn_would_not_run_are_left_out() {
    let result = imported("dev tun\nsecret k\nifconfig 10.0.0.1 10.0.0.2\nup /x\n");
    assert!(!result.toml.contains("[scripts]"));
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
        /// Whatever is in the old file, the new one is TOML without a mistake in its form.
        #[test]
        fn anything_comes_out_as_toml(lines in prop::collection::vec("(secret|dev|up|remote|route|ifconfig|<a>|[a-z-]{1,9})( [ -~é\u{1b}]{0,12}){0,3}", 0..12)) {
            let text = format!("dev tap\nsecret k\nscript-security 2\n{}\n", lines.join("\n"));
            if let Ok(result) = import(&text, "k") {
                let document = toml::de::DeTable::parse(&result.toml);
                prop_assert!(document.is_ok(), "{}\n{:?}", result.toml, document.err());
            }
        }
    }
}
