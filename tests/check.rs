//! Findings of `tund check`: every mistake with its place and remedy, and none in correct files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]

use std::path::Path;
use std::time::Duration;

use tund::config::{
    Code, Command, Config, KeyMode, Lanes, Listen, LogTo, Options, Parsed, Remote, SecretSource, Severity,
    Sources, StreamListen, Swallow, Via, parse, position, render, swallow,
};
use tund::crypto::suite::Cipher;
use tund::packet::layer::Mode;

/// A correct tun link; cases change one of its lines.
const GOOD: &str = r#"remote = "mon.tn:1417"
[key]
mode = "static"
file = "static.key"
[device]
mode = "tun"
address = "192.168.86.81"
peer = "192.168.86.18"
[[route]]
to = "192.168.66.0/24"
"#;

/// A correct tap link.
const GOOD_TAP: &str = r#"[key]
mode = "static"
file = "static.key"
direction = 1
[device]
mode = "tap"
address = "192.168.87.81/24"
"#;

#[test]
fn four_settings_make_a_link_with_every_default() {
    let config = accepted(GOOD);
    assert_eq!(config.remotes, [Remote { host: "mon.tn".into(), port: 1417, stream: false }]);
    assert_eq!(config.listen, Listen { address: None, port: 1417, explicit: false, stream: None });
    assert!(config.float);
    assert_eq!(config.key.shared, Some(SecretSource::File("/etc/tund/static.key".into())));
    assert_eq!(config.key.cipher, Cipher::ChaCha20Poly1305);
    assert_eq!(config.key.direction, 1, "192.168.86.81 is higher than 192.168.86.18");
    assert_eq!(config.device.mode, Mode::Tun);
    assert_eq!(config.device.addresses, ["192.168.86.81/32".parse().unwrap()]);
    assert_eq!(config.device.mtu, 1400);
    assert!(config.device.configure);
    assert_eq!(config.routes[0].via, Via::VpnGateway);
    assert_eq!(config.keepalive.interval, Duration::from_secs(10));
    assert_eq!(config.keepalive.timeout, Duration::from_secs(60));
    assert_eq!((config.run.verb, config.scripts.security), (1, 1));
    assert!(config.tuning.bundle);
}

#[test]
fn tap_defaults_and_values_of_every_table_arrive() {
    let config = accepted(GOOD_TAP);
    assert_eq!((config.device.mode, config.device.mtu), (Mode::Tap, 1500));
    assert_eq!(config.listen, Listen { address: None, port: 8863, explicit: false, stream: None });

    let config = accepted(
        r#"
        remote = ["mon.tn", "192.0.2.1:1000", "[2001:db8::1]:1417", "2001:db8::2"]
        listen = "[::]:1417"
        float = false
        bind-device = "eth0"
        fwmark = 0x10
        [key]
        mode = "static"
        private-file = "/k/own.key"
        peer-public = "0101010101010101010101010101010101010101010101010101010101010101"
        credential = "psk"
        cipher = "aes-256-gcm"
        [device]
        name = "lab0"
        address = ["10.0.0.2/24", "2001:db8:1::2/64"]
        peer = ["10.0.0.1", "2001:db8:1::1"]
        mtu = 1280
        txqueuelen = 500
        [[route]]
        to = "10.1.0.0/16"
        via = "10.0.0.9"
        metric = 50
        table = 100
        [scripts]
        security = 2
        up = ["hooks/up", "br0"]
        timeout = "5s"
        [keepalive]
        interval = "500ms"
        timeout = "2s"
        idle-exit = "90s"
        [run]
        user = "nobody"
        runtime-dir = "run"
        verb = 5
        log = "syslog"
        sandbox = "off"
        [tuning]
        lanes = 1
        bundle = false
        path-mtu = 1400
        socket-buffer = 65536
        congestion-control = "bbr"
        "#,
    );
    let hosts: Vec<(&str, u16)> = config.remotes.iter().map(|r| (r.host.as_str(), r.port)).collect();
    assert_eq!(hosts, [("mon.tn", 8863), ("192.0.2.1", 1000), ("2001:db8::1", 1417), ("2001:db8::2", 8863)]);
    assert_eq!(config.listen, Listen { address: None, port: 1417, explicit: true, stream: None });
    assert_eq!((config.float, config.bind_device.as_deref(), config.fwmark), (false, Some("eth0"), Some(16)));
    let pair = config.key.pair.unwrap();
    assert_eq!((pair.private_file.as_path(), pair.peer_public), (Path::new("/k/own.key"), [1; 32]));
    assert_eq!(config.key.shared, Some(SecretSource::Credential("psk".into())));
    assert_eq!(config.key.cipher, Cipher::Aes256Gcm);
    assert_eq!(config.device.addresses.len() + config.device.peers.len(), 4);
    assert_eq!((config.device.name.as_deref(), config.device.txqueuelen), (Some("lab0"), Some(500)));
    let route = &config.routes[0];
    assert_eq!((route.metric, route.table), (Some(50), Some(100)));
    assert_eq!(route.via, Via::Address("10.0.0.9".parse().unwrap()));
    let up = Command { program: "/etc/tund/hooks/up".into(), args: vec!["br0".into()] };
    assert_eq!(config.scripts.up, Some(up));
    assert_eq!(config.scripts.timeout, Duration::from_secs(5));
    assert_eq!(config.keepalive.interval, Duration::from_millis(500));
    assert_eq!(config.keepalive.idle_exit, Duration::from_secs(90));
    assert_eq!(config.run.log, Some(LogTo::Syslog));
    assert_eq!(config.run.runtime_dir.as_deref(), Some(Path::new("/etc/tund/run")));
    assert_eq!((config.run.user.as_deref(), config.run.verb), (Some("nobody"), 5));
    assert_eq!((config.tuning.bundle, config.tuning.path_mtu), (false, Some(1400)));
    assert_eq!(config.tuning.socket_buffer, 65536);
    assert_eq!(config.tuning.congestion_control.as_deref(), Some("bbr"));
}

#[test]
fn the_command_line_goes_before_the_file() {
    let mut options = options();
    options.port = Some(2000);
    options.verb = Some(4);
    let config = parse("l", GOOD, &options).config.unwrap();
    assert_eq!(config.listen, Listen { address: None, port: 2000, explicit: true, stream: None });
    assert_eq!(config.remotes[0].port, 1417, "a port in the file stays");
    assert_eq!(config.run.verb, 4);
    let bare = GOOD.replace("mon.tn:1417", "mon.tn").replace("[key]", "listen = \"192.0.2.7:9\"\n[key]");
    let config = parse("l", &bare, &options).config.unwrap();
    assert_eq!(config.remotes[0].port, 2000);
    assert_eq!(config.listen.address, Some("192.0.2.7".parse().unwrap()));
    assert_eq!(config.listen.port, 2000);
}

#[test]
fn direction_follows_the_addresses_unless_given() {
    let low = GOOD.replace("86.81", "86.1x").replace("86.18", "86.81").replace("86.1x", "86.18");
    assert_eq!(accepted(&low).key.direction, 0);
    let given = GOOD.replace("[key]", "[key]\ndirection = 0");
    assert_eq!(accepted(&given).key.direction, 0, "what is given counts even against the addresses");
    // The first address decides, with the peer of its family.
    let six = GOOD
        .replace("\"192.168.86.81\"", "[\"2001:db8::1\", \"192.168.86.81\"]")
        .replace("\"192.168.86.18\"", "[\"192.168.86.18\", \"2001:db8::2\"]");
    assert_eq!(accepted(&six).key.direction, 0);
}

#[test]
fn services_name_ports_in_listen_and_remote() {
    let text = GOOD.replace("mon.tn:1417", "mon.tn:openvpn").replace("[key]", "listen = \"openvpn\"\n[key]");
    let config = accepted(&text);
    assert_eq!((config.remotes[0].port, config.listen.port), (1194, 1194));
}

#[test]
fn all_mistakes_are_found_in_one_run_and_in_order() {
    let text = r#"flaot = true
listen = 70000
[key]
fiel = "static.key"
[device]
address = ["192.168.86.300", "192.168.86.81"]
mtu = "big"
[[route]]
too = "10.0.0.0/8"
[nonsense]
[run]
verb = 12
"#;
    let parsed = parse("l", text, &options());
    assert!(parsed.config.is_none());
    let lines: Vec<usize> = parsed
        .diagnostics
        .iter()
        .filter(|d| d.is_error())
        .filter_map(|d| Some(position(text, d.span.as_ref()?.start).0))
        .collect();
    for line in [1, 2, 3, 4, 6, 7, 8, 9, 10, 12] {
        assert!(lines.contains(&line), "nothing found in line {line}: {:#?}", parsed.diagnostics);
    }
    assert!(lines.is_sorted(), "{lines:?}");
}

/// A change to a correct text, and the expected finding, its place and its remedy.
struct Case {
    base: &'static str,
    from: &'static str,
    to: &'static str,
    /// The marked text.
    at: &'static str,
    code: Code,
    help: &'static str,
}

const fn tun(from: &'static str, to: &'static str, at: &'static str, code: Code, help: &'static str) -> Case {
    Case { base: GOOD, from, to, at, code, help }
}

const fn tap(from: &'static str, to: &'static str, at: &'static str, code: Code, help: &'static str) -> Case {
    Case { base: GOOD_TAP, from, to, at, code, help }
}

/// Runs every case: exactly one error, of the right kind, at the right place.
fn refuse_each(cases: &[Case]) {
    for case in cases {
        let text = case.base.replace(case.from, case.to);
        assert_ne!(text, case.base, "nothing replaced: {}", case.from);
        let parsed = parse("l", &text, &options());
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|d| d.is_error()).collect();
        assert_eq!(errors.len(), 1, "{}: {:#?}", case.to, parsed.diagnostics);
        assert!(parsed.config.is_none());
        let error = errors[0];
        assert_eq!(error.code, case.code, "{}: {}", case.to, error.message);
        let help = error.help.as_deref().unwrap_or_default();
        assert!(help.contains(case.help), "{}: {help}", case.to);
        assert_eq!(&text[error.span.clone().unwrap_or(0..0)], case.at, "{}", error.message);
        assert!(!error.message.ends_with('.'), "{}", error.message);
    }
}

const ADDRESS: &str = "\"192.168.86.81\"";
const PEER: &str = "\"192.168.86.18\"";

#[test]
fn names_and_types_are_refused_with_a_remedy() {
    refuse_each(&[
        tun("file =", "fiel = 1\nfile =", "fiel", Code::UnknownKey, "did you mean `file`?"),
        tun(
            "[key]",
            "ifconfig = \"a b\"\n[key]",
            "ifconfig",
            Code::UnknownKey,
            "device.address and device.peer",
        ),
        tun("[key]", "secret = \"x\"\n[key]", "secret", Code::UnknownKey, "key.file"),
        tun("[key]", "dev = \"tun\"\n[key]", "dev", Code::UnknownKey, "device.mode"),
        tun("[key]", "script-security = 2\n[key]", "script-security", Code::UnknownKey, "scripts.security"),
        tun("[key]", "[key]\nlisten = 1", "listen", Code::UnknownKey, "before the first [table]"),
        tun("[key]", "float = \"true\"\n[key]", "\"true\"", Code::WrongType, "without quotes"),
        tun("[key]", "float = 1\n[key]", "1", Code::WrongType, ""),
        tun("file = \"static.key\"", "file = 5", "5", Code::WrongType, "quotes"),
        tun("peer = \"192.168.86.18\"", "peer = [\"192.168.86.18\", 5]", "5", Code::WrongType, "quotes"),
        tun("[[route]]", "[route]", "[route]", Code::WrongType, "[[route]]"),
        tun("[key]", "keepalive = \"10 60\"\n[key]", "\"10 60\"", Code::WrongType, "[keepalive]"),
        tun("\"tun\"", "\"tpa\"", "\"tpa\"", Code::UnknownValue, "did you mean \"tap\"?"),
        tun("\"tun\"", "\"bridge\"", "\"bridge\"", Code::UnknownValue, "\"tun\" or \"tap\""),
        tun("[key]", "fwmark = -1\n[key]", "-1", Code::OutOfRange, "0 to 4294967295"),
        tun("[key]", "fwmark = 99999999999999999999\n[key]", "99999999999999999999", Code::OutOfRange, ""),
    ]);
}

#[test]
fn remotes_and_listen_addresses_are_checked() {
    let remote = "\"mon.tn:1417\"";
    refuse_each(&[
        tun(remote, "\"mon.tn 1417\"", "\"mon.tn 1417\"", Code::BadRemote, "\"mon.tn:1417\""),
        tun(remote, "\"mon.tn:nosuch\"", "\"mon.tn:nosuch\"", Code::BadPort, "/etc/services"),
        tun(remote, "\"mon.tn:99999\"", "\"mon.tn:99999\"", Code::BadPort, "1 to 65535"),
        tun(remote, "\"mon.tn:0\"", "\"mon.tn:0\"", Code::BadPort, "listens on"),
        tun(remote, "\"2001:db8::1:99999\"", "\"2001:db8::1:99999\"", Code::BadRemote, "brackets"),
        tun(remote, "\"[::1\"", "\"[::1\"", Code::BadRemote, "[2001:db8::1]:8863"),
        tun(remote, "\"192.0.2.300\"", "\"192.0.2.300\"", Code::BadRemote, "192.0.2.1:1417"),
        tun(remote, "\"udp:mon.tn:7\"", "\"udp:mon.tn:7\"", Code::BadRemote, "write \"mon.tn:7\""),
        tun(remote, "\"http://mon.tn/\"", "\"http://mon.tn/\"", Code::BadRemote, "write \"mon.tn\""),
        tun(remote, "\"-x.tn\"", "\"-x.tn\"", Code::BadRemote, ""),
        tun(remote, "\"[fd00::1%eth0]:5\"", "\"[fd00::1%eth0]:5\"", Code::BadZone, "without \"%eth0\""),
        tun(remote, "\"fe80::1%all\"", "\"fe80::1%all\"", Code::BadZone, "cannot be"),
        tun(remote, "\"[fe80::1%]:5\"", "\"[fe80::1%]:5\"", Code::BadZone, "1 to 15 bytes"),
        tun(remote, "\"0.0.0.0:5\"", "\"0.0.0.0:5\"", Code::UnusableAddress, "own address"),
        tun(remote, "\"[ff02::1]:5\"", "\"[ff02::1]:5\"", Code::UnusableAddress, ""),
        tun(remote, "\"[::ffff:0.0.0.0]:5\"", "\"[::ffff:0.0.0.0]:5\"", Code::UnusableAddress, "own address"),
        tun(remote, "[]", "[]", Code::EmptyList, "remove remote"),
        tun("[key]", "listen = \"nosuch\"\n[key]", "\"nosuch\"", Code::BadPort, "/etc/services"),
        tun("[key]", "listen = 70000\n[key]", "70000", Code::OutOfRange, "65535"),
        tun("[key]", "listen = \"::1\"\n[key]", "\"::1\"", Code::BadListen, "\"[::1]:8863\""),
        tun("[key]", "listen = \"mon.tn:5\"\n[key]", "\"mon.tn:5\"", Code::BadListen, "192.0.2.1:8863"),
        tap("[key]", "listen = 0\n[key]", "0", Code::AnyPort, "name a port"),
        tun("[key]", "bind-device = \"a/b\"\n[key]", "\"a/b\"", Code::BadInterfaceName, "slash"),
        Case {
            base: "remote = \"[2001:db8::9]:5\"\nlisten = 7\n[key]\nmode = \"static\"\nfile = \"k\"\n[device]\naddress = \"10.0.0.1\"\npeer = \"10.0.0.2\"\n",
            from: "listen = 7",
            to: "listen = \"192.0.2.1:7\"",
            at: "\"192.0.2.1:7\"",
            code: Code::AddressFamily,
            help: "remote's family",
        },
    ]);
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_that_ipv4_address() {
    let text = GOOD.replace("\"mon.tn:1417\"", "\"[::ffff:192.0.2.1]:1417\"");
    let config = accepted(&text.replace("[key]", "listen = \"[::ffff:192.0.2.2]:1417\"\n[key]"));
    assert_eq!(config.remotes[0].host, "192.0.2.1");
    assert_eq!(config.listen.address, Some("192.0.2.2".parse().unwrap()));
    // It is in the family of an IPv4 socket, too.
    accepted(&text.replace("[key]", "listen = \"192.0.2.2:1417\"\n[key]"));
}

#[test]
fn a_link_local_remote_keeps_its_zone() {
    for text in ["[fe80::1%eth0.5]:1417", "fe80::1%eth0.5"] {
        let config = accepted(&GOOD.replace("mon.tn:1417", text));
        assert_eq!(config.remotes[0].host, "fe80::1%eth0.5");
        assert_eq!(config.remotes[0].zone(), Some("eth0.5"));
        assert_eq!(config.remotes[0].address(), Some("fe80::1".parse().unwrap()));
    }
}

#[test]
fn handshake_keys_are_the_default_and_need_no_direction() {
    for text in [GOOD.replace("mode = \"static\"\n", ""), GOOD.replace("\"static\"", "\"handshake\"")] {
        let config = accepted(&text);
        assert_eq!(config.key.mode, KeyMode::Handshake);
        assert_eq!(config.key.suites, [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]);
        assert_eq!(config.device.mtu, 1420);
    }
    let tap = "[key]\nfile = \"k\"\n[device]\nmode = \"tap\"\nconfigure = false\n";
    assert_eq!(accepted(tap).key.mode, KeyMode::Handshake);
    let one = tap.replace("file", "cipher = \"chacha20-poly1305\"\nfile");
    assert_eq!(accepted(&one).key.suites, [Cipher::ChaCha20Poly1305]);
}

#[test]
fn keys_are_checked() {
    let hex = "peer-public = \"0101010101010101010101010101010101010101010101010101010101010101\"\n";
    let both = ["[key]\n", hex].concat().leak();
    refuse_each(&[
        tun("file = \"static.key\"\n", "", "[key]", Code::NoKey, "tund genkey"),
        tun("[device]", "credential = \"psk\"\n[device]", "\"psk\"", Code::TwoKeys, "remove one of them"),
        tun(
            "file = \"static.key\"",
            "credential = \"a/b\"",
            "\"a/b\"",
            Code::BadCredential,
            "LoadCredential",
        ),
        tun("[key]", "[key]\nprivate-file = \"own\"", "\"own\"", Code::HalfKeyPair, "tund pubkey"),
        tun(
            "[key]\n",
            both,
            hex.trim_start_matches("peer-public = ").trim_end(),
            Code::HalfKeyPair,
            "tund keypair",
        ),
        tun(
            "[key]",
            "[key]\nprivate-file = \"own\"\npeer-public = \"abc\"",
            "\"abc\"",
            Code::BadPublicKey,
            "64",
        ),
        tun("[key]", "[key]\ndirection = 2", "2", Code::OutOfRange, "from 0 to 1"),
        tun(
            "[key]",
            "[key]\ncipher = \"aes-256-cbc\"",
            "\"aes-256-cbc\"",
            Code::WrongCipher,
            "set key.mode = \"openvpn\" if the peer is OpenVPN",
        ),
        tun(
            "[key]",
            "[key]\ncipher = \"aes-256-gmc\"",
            "\"aes-256-gmc\"",
            Code::UnknownValue,
            "did you mean \"aes-256-gcm\"?",
        ),
        tap("direction = 1\n", "", "[key]", Code::NoDirection, "key.direction = 1 on the other"),
        tun("\"static.key\"", "\"\"", "\"\"", Code::BadPath, "path"),
    ]);
}

#[test]
fn addresses_are_checked() {
    refuse_each(&[
        tun(ADDRESS, "\"192.168.86.300\"", "\"192.168.86.300\"", Code::BadAddress, "192.168.87.81/24"),
        tun(
            ADDRESS,
            "\"192.168.86.81/255.255.255.0\"",
            "\"192.168.86.81/255.255.255.0\"",
            Code::BadAddress,
            "\"192.168.86.81/24\"",
        ),
        tun(ADDRESS, "\"192.168.87.81/24\"", PEER, Code::PeerOutside, "remove the prefix"),
        tun(ADDRESS, PEER, PEER, Code::OwnAddress, "other end's"),
        tun(
            ADDRESS,
            "[\"192.168.86.81\", \"192.168.86.81/24\"]",
            "\"192.168.86.81/24\"",
            Code::Duplicate,
            "remove one",
        ),
        tun(ADDRESS, "\"192.168.86.0/24\"", "\"192.168.86.0/24\"", Code::UnusableAddress, "a host can have"),
        tun(ADDRESS, "\"192.168.86.255/24\"", "\"192.168.86.255/24\"", Code::UnusableAddress, ""),
        tun(ADDRESS, "\"127.0.0.1\"", "\"127.0.0.1\"", Code::UnusableAddress, ""),
        tun("address = \"192.168.86.81\"\n", "", "[device]", Code::Missing, "inside the tunnel"),
        tun(PEER, "\"192.168.86.18/32\"", "\"192.168.86.18/32\"", Code::BadAddress, "without a prefix"),
        tun(
            PEER,
            "[\"192.168.86.18\", \"192.168.86.19\"]",
            "\"192.168.86.19\"",
            Code::AddressFamily,
            "at most one",
        ),
        tun(PEER, "[\"192.168.86.18\", \"2001:db8::1\"]", "\"2001:db8::1\"", Code::AddressFamily, "add"),
        tun(PEER, "\"224.0.0.1\"", "\"224.0.0.1\"", Code::UnusableAddress, ""),
        tap(
            "\"192.168.87.81/24\"",
            "\"192.168.87.81\"",
            "\"192.168.87.81\"",
            Code::NoPrefix,
            "\"192.168.87.81/24\"",
        ),
    ]);
}

#[test]
fn device_settings_are_checked() {
    refuse_each(&[
        tun("[device]", "[device]\nmtu = 575", "575", Code::OutOfRange, "576 to 9216"),
        tun("[device]", "[device]\nmtu = 'big'", "'big'", Code::UnknownValue, "576 to 9216 or \"bridge\""),
        tun("[device]", "[device]\nmtu = 9217", "9217", Code::OutOfRange, "576 to 9216"),
        tap("\"192.168.87.81/24\"", "\"2001:db8::1/64\"\nmtu = 1279", "1279", Code::MtuTooSmall, "1280"),
        tun(
            "[device]",
            "[device]\nname = \"a-name-too-long-x\"",
            "\"a-name-too-long-x\"",
            Code::BadInterfaceName,
            "1 to 15 bytes",
        ),
        tun("[device]", "[device]\nname = \"..\"", "\"..\"", Code::BadInterfaceName, "cannot be"),
        tun("[device]", "[device]\nname = \"a b\"", "\"a b\"", Code::BadInterfaceName, "spaces"),
        tun("[device]", "[device]\nname = \"tun%d\"", "\"tun%d\"", Code::BadInterfaceName, "percent"),
        tun(
            "[device]",
            "[device]\nmac = \"02:00:5e:10:00:01\"",
            "\"02:00:5e:10:00:01\"",
            Code::TapOnly,
            "mode = \"tap\"",
        ),
        tun("[device]", "[device]\nbridge = \"br0\"", "\"br0\"", Code::TapOnly, "mode = \"tap\""),
        tap("[device]", "[device]\nmtu = \"bridg\"", "\"bridg\"", Code::UnknownValue, "\"bridge\""),
        tap("[device]", "[device]\nmtu = \"1400\"", "\"1400\"", Code::WrongType, "without quotes"),
        tap(
            "[device]",
            "[device]\nmtu = \"bridge\"",
            "\"bridge\"",
            Code::MtuWithoutBridge,
            "set device.bridge",
        ),
        tap(
            "[device]",
            "[device]\nmac = \"03:00:5e:10:00:01\"",
            "\"03:00:5e:10:00:01\"",
            Code::BadMac,
            "group address",
        ),
        tap(
            "[device]",
            "[device]\nmac = \"00:00:00:00:00:00\"",
            "\"00:00:00:00:00:00\"",
            Code::BadMac,
            "zeros",
        ),
        tap(
            "[device]",
            "[device]\nmac = \"02:00:5e:10:00\"",
            "\"02:00:5e:10:00\"",
            Code::BadMac,
            "six pairs",
        ),
        tap(
            "[device]",
            "[device]\nmac = \"+2:00:5e:10:00:01\"",
            "\"+2:00:5e:10:00:01\"",
            Code::BadMac,
            "six pairs",
        ),
        tap("[device]", "[device]\nname = \"br0\"\nbridge = \"br0\"", "\"br0\"", Code::BridgeItself, "joins"),
    ]);
}

#[test]
fn routes_are_checked() {
    let to = "\"192.168.66.0/24\"";
    refuse_each(&[
        tun("to = \"192.168.66.0/24\"", "metric = 5", "[[route]]", Code::Missing, "192.168.66.0/24"),
        tun(to, "\"192.168.66.1/24\"", "\"192.168.66.1/24\"", Code::HostBits, "\"192.168.66.0/24\""),
        tun(
            to,
            "\"192.168.66.0 255.255.255.0\"",
            "\"192.168.66.0 255.255.255.0\"",
            Code::BadPrefix,
            "\"192.168.66.0/24\"",
        ),
        tun(to, "\"here\"", "\"here\"", Code::BadPrefix, "192.168.66.0/24"),
        tun(to, "\"default\"", "\"default\"", Code::BadPrefix, "0.0.0.0/0"),
        tun(
            to,
            "\"192.168.66.0/24\"\nvia = \"vpn-gateway\"",
            "\"vpn-gateway\"",
            Code::BadGateway,
            "did you mean \"vpn_gateway\"?",
        ),
        tun(
            to,
            "\"192.168.66.0/24\"\nvia = \"2001:db8::1\"",
            "\"2001:db8::1\"",
            Code::AddressFamily,
            "IPv4 gateway",
        ),
        tun(
            to,
            "\"192.168.66.0/24\"\nvia = \"192.168.86.81\"",
            "\"192.168.86.81\"",
            Code::OwnAddress,
            "other end",
        ),
        tun(to, "\"2001:db8::/32\"", "[[route]]", Code::NoGateway, "add the peer's IPv6"),
        tun("[[route]]", "[[route]]\nto = \"192.168.66.0/24\"\n[[route]]", to, Code::Duplicate, "metric"),
        tun(to, "\"192.168.86.18\"", "\"192.168.86.18\"", Code::Duplicate, "remove it"),
        tun("[[route]]", "[[route]]\ntable = 0", "0", Code::OutOfRange, "from 1"),
        tap(
            "[device]",
            "[[route]]\nto = \"10.0.0.0/8\"\n[device]",
            "[[route]]",
            Code::NoGateway,
            "device.peer",
        ),
    ]);
}

#[test]
fn a_route_that_swallows_the_remote_is_a_loop() {
    let literal = GOOD.replace("mon.tn:1417", "192.168.66.9:1417");
    let found = errors(&literal);
    assert_eq!(found, [(Code::RoutingLoop, "\"192.168.66.0/24\"".to_owned())]);

    let own_network = GOOD.replace("mon.tn:1417", "192.168.86.99").replace(ADDRESS, "\"192.168.86.81/24\"");
    assert_eq!(errors(&own_network)[0], (Code::RoutingLoop, "\"192.168.86.81/24\"".to_owned()));
    let inner = GOOD.replace("mon.tn:1417", "192.168.86.18:1417");
    assert_eq!(errors(&inner)[0], (Code::RoutingLoop, PEER.to_owned()));

    // A narrower route past the tunnel, another table, and the user's own rules avoid the loop.
    accepted(&format!("{literal}[[route]]\nto = \"192.168.66.9\"\nvia = \"net_gateway\"\n"));
    accepted(&literal.replace("[[route]]", "[[route]]\ntable = 100"));
    accepted(&literal.replace("[key]", "fwmark = 5\n[key]"));
    accepted(&literal.replace("[key]", "bind-device = \"eth0\"\n[key]"));
    // A name may come to have any address.
    let wide = |to: &str, more: &str| {
        let text = GOOD.replace("192.168.66.0/24", to) + more;
        let found = parse("link", &text, &options()).diagnostics.into_iter();
        found.filter(|found| found.code == Code::RoutingLoop).map(|found| found.severity).collect::<Vec<_>>()
    };
    for to in ["0.0.0.0/0", "128.0.0.0/1"] {
        assert_eq!(wide(to, ""), [Severity::Warning], "{to}");
        assert_eq!(wide(to, "via = \"192.168.86.18\"\n"), [Severity::Warning], "by the peer's inner address");
        assert_eq!(wide(to, "table = 100\n"), []);
        assert_eq!(wide(to, "via = \"net_gateway\"\n"), []);
        let kept = |to: &str| format!("[[route]]\nto = \"{to}\"\nvia = \"net_gateway\"\n");
        assert_eq!(wide(to, &kept("203.0.113.9")), []);
        assert_eq!(wide(to, &kept("2001:db8::9")), [Severity::Warning], "another family");
    }
    assert_eq!(wide("192.0.0.0/2", ""), []);
    // A narrower route into the tunnel does not.
    let narrow = format!("{literal}[[route]]\nto = \"192.168.66.8/30\"\nmetric = 7\n");
    assert!(!errors(&narrow).is_empty());
}

#[test]
fn a_resolved_remote_can_be_asked_about_later() {
    let config = accepted(GOOD);
    assert_eq!(swallow(&config, "192.168.66.9".parse().unwrap()), Some(Swallow::Route(0)));
    assert_eq!(swallow(&config, "192.168.86.18".parse().unwrap()), Some(Swallow::Peer(0)));
    assert_eq!(swallow(&config, "192.0.2.1".parse().unwrap()), None);
}

#[test]
fn scripts_timers_and_the_rest_are_checked() {
    refuse_each(&[
        tun(
            "[key]",
            "[scripts]\nup = \"x.up\"\n[key]",
            "\"x.up\"",
            Code::ScriptForbidden,
            "scripts.security = 2",
        ),
        tun(
            "[key]",
            "[scripts]\nsecurity = 0\ndown = [\"d\", \"e\"]\n[key]",
            "[\"d\", \"e\"]",
            Code::ScriptForbidden,
            "= 2",
        ),
        tun("[key]", "[scripts]\nsecurity = 2\nup = []\n[key]", "[]", Code::BadCommand, "path"),
        tun("[key]", "[scripts]\nsecurity = 2\nup = \"\"\n[key]", "\"\"", Code::BadCommand, "path"),
        tun("[key]", "[scripts]\nsecurity = 4\n[key]", "4", Code::OutOfRange, "0 to 3"),
        tun("[key]", "[keepalive]\ninterval = 10\n[key]", "10", Code::WrongType, "with its unit, in quotes"),
        tun("[key]", "[keepalive]\ninterval = \"10 days\"\n[key]", "\"10 days\"", Code::BadTime, "\"500ms\""),
        tun("[key]", "[keepalive]\ninterval = \"1ms\"\n[key]", "\"1ms\"", Code::OutOfRange, "100ms"),
        tun(
            "[key]",
            "[keepalive]\ntimeout = \"10s\"\n[key]",
            "\"10s\"",
            Code::TimeoutTooShort,
            "several times",
        ),
        tun(
            "[key]",
            "[keepalive]\ninterval = \"2m\"\n[key]",
            "\"2m\"",
            Code::TimeoutTooShort,
            "several times",
        ),
        tun("[key]", "[run]\nverb = 10\n[key]", "10", Code::OutOfRange, "0 to 9"),
        tun("[key]", "[run]\nuser = \"\"\n[key]", "\"\"", Code::BadUser, "name of a user"),
        tun("[key]", "[tuning]\npath-mtu = 575\n[key]", "575", Code::OutOfRange, "576 to 65535"),
        tun("[key]", "[tuning]\nsocket-buffer = 1\n[key]", "1", Code::OutOfRange, "4096"),
    ]);
}

#[test]
fn routes_are_offered_and_taken_as_written() {
    let text = format!(
        "{GOOD}[push]\nroutes = [\"10.0.0.0/8\", \"fd00::/8\"]\n[accept]\nroutes = \"172.16.0.0/12\"\nlimit = 5\nsources = \"routes\"\n"
    );
    let config = accepted(&text);
    assert_eq!(config.push, ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    assert_eq!(config.accept.routes, ["172.16.0.0/12".parse().unwrap()]);
    assert_eq!((config.accept.limit, config.accept.sources), (5, Sources::Routes));
    let config = accepted(GOOD);
    assert!(config.push.is_empty() && config.accept.routes.is_empty());
    assert!(
        config.tuning.mss_clamp
            && !accepted(&format!("{GOOD}[tuning]\nmss-clamp = false\n")).tuning.mss_clamp
    );
}

#[test]
fn a_routed_link_takes_from_the_peer_what_is_routed_there_and_check_says_so() {
    let said = |text: &str| {
        let found = parse("l", text, &options()).diagnostics;
        found.iter().any(|found| found.severity == Severity::Note && found.code == Code::PeerSources)
    };
    let nets =
        |text: &str| -> Vec<ipnet::IpNet> { text.split(' ').map(|net| net.parse().unwrap()).collect() };
    let config = accepted(GOOD);
    assert_eq!(config.accept.sources, Sources::Routes);
    assert_eq!(config.routed_to_peer(), nets("192.168.86.18/32 192.168.66.0/24"));
    assert!(said(GOOD));
    for chosen in ["routes", "any"] {
        let text = format!("{GOOD}[accept]\nsources = \"{chosen}\"\n");
        assert_eq!(accepted(&text).accept.sources == Sources::Any, chosen == "any");
        assert!(!said(&text), "{chosen}");
    }
    let full = accepted(&format!("{GOOD}[full-tunnel]\n"));
    assert_eq!(full.accept.sources, Sources::Routes);
    assert!(nets("0.0.0.0/0 ::/0").iter().all(|net| full.routed_to_peer().contains(net)));
    // A network of the device contains the peer and gateways.
    let broad = "[key]\nmode = \"static\"\nfile = \"k\"\ndirection = 0\n[device]\naddress = \"10.8.0.1/24\"\n\
                 [[route]]\nto = \"10.9.0.0/16\"\nvia = \"10.8.0.2\"\n[[route]]\nto = \"10.10.0.0/16\"\nvia = \"10.11.0.1\"\n";
    assert_eq!(accepted(broad).accept.sources, Sources::Routes);
    assert_eq!(accepted(broad).routed_to_peer(), nets("10.8.0.0/24 10.9.0.0/16"));
    // Nothing is known of the peer.
    let by_script = "[key]\nmode = \"static\"\nfile = \"k\"\ndirection = 0\n[device]\nconfigure = false\n";
    assert_eq!(accepted(by_script).accept.sources, Sources::Any);
    assert!(said(by_script));
    assert_eq!(accepted(GOOD_TAP).accept.sources, Sources::Any);
    assert!(!said(GOOD_TAP));
}

#[test]
fn offers_that_cannot_be_meant_are_errors() {
    let many: Vec<_> = (0..91).map(|n| format!("\"10.{n}.0.0/16\"")).collect();
    for (table, code, at) in [
        ("[push]\nroutes = \"10.0.0.1/8\"".to_owned(), Code::HostBits, "10.0.0.1/8"),
        ("[push]\nroutes = \"ten\"".to_owned(), Code::BadPrefix, "ten"),
        ("[accept]\nroutes = [\"10.0.0.0/9\", \"10.0.0.0/9\"]".to_owned(), Code::Duplicate, "10.0.0.0/9"),
        ("[accept]\nlimit = 91".to_owned(), Code::OutOfRange, "91"),
        (format!("[push]\nroutes = [{}]", many.join(", ")), Code::PushTooLong, "10.90.0.0/16"),
    ] {
        let found = errors(&format!("{GOOD}{table}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1.trim_matches('"')), (code, at));
    }
    let parsed = parse("l", &format!("{GOOD}[accept]\nlimit = 3\n"), &options());
    assert!(parsed.diagnostics.iter().any(|d| d.code == Code::NoEffect));
}

#[test]
fn vlans_are_numbers_and_ranges_and_a_guard_is_for_tap_links() {
    for (vlans, code) in
        [("'0'", true), ("'9-3'", true), ("'4095'", true), ("'x'", true), ("'1', '2-4094'", false)]
    {
        let parsed = parse("l", &format!("{GOOD}[guard]\nvlans = [{vlans}]\n"), &options());
        assert_eq!(parsed.diagnostics.iter().any(|d| d.code == Code::BadVlan), code, "{vlans}");
    }
    let parsed = parse("l", &format!("{GOOD}[guard]\nstorm = 10\n"), &options());
    assert!(parsed.diagnostics.iter().any(|d| d.code == Code::TapOnly && !d.is_error()));
}

#[test]
fn lanes_are_counted_or_left_to_the_host_and_openvpn_has_one() {
    let parsed = |lanes: &str, mode: &str| {
        let text = GOOD.replace("static\"\nfile", &format!("{mode}\"\ndirection = 0\nfile"));
        parse("l", &format!("{text}[tuning]\nlanes = {lanes}\n"), &options())
    };
    let lanes = |lanes: &str, mode: &str| Some(parsed(lanes, mode).config?.tuning.data_path.lanes);
    let code = |lanes: &str, mode: &str| {
        let found = parsed(lanes, mode).diagnostics;
        let found = found.iter().find(|d| d.span.as_ref().is_some_and(|span| span.start > GOOD.len()));
        found.map(|d| (d.severity, d.code))
    };
    for (written, expected) in [("1", Lanes::Count(1)), ("16", Lanes::Count(16)), ("'auto'", Lanes::Auto)] {
        for mode in ["handshake", "static"] {
            assert_eq!((lanes(written, mode), code(written, mode)), (Some(expected), None), "{written}");
        }
    }
    for wrong in ["0", "17", "'4'", "'all'", "true"] {
        assert_eq!(lanes(wrong, "handshake"), None, "{wrong}");
    }
    let mode = "openvpn";
    assert_eq!((lanes("1", mode), code("1", mode)), (Some(Lanes::Count(1)), None));
    assert_eq!(code("2", mode), Some((Severity::Error, Code::NoLanes)));
    let one = (Some(Lanes::Count(1)), Some((Severity::Warning, Code::NoEffect)));
    assert_eq!((lanes("'auto'", mode), code("'auto'", mode)), one);
}

#[test]
fn keys_of_later_versions_are_refused_by_name() {
    let later = [("[tuning]\nfragment = true", "tuning.fragment"), ("[tuning]\npad = true", "tuning.pad")];
    for (table, name) in later {
        let text = format!("{GOOD}{table}\n");
        let parsed = parse("l", &text, &options());
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|d| d.is_error()).collect();
        assert_eq!(errors.len(), 1, "{table}: {errors:#?}");
        assert_eq!(errors[0].code, Code::NotYet);
        assert!(errors[0].message.contains(name), "{}", errors[0].message);
        assert!(errors[0].span.as_ref().is_some_and(|span| span.start >= GOOD.len()), "{table}");
    }
}

/// A file of an earlier version still starts.
#[test]
fn keys_of_earlier_versions_have_no_effect_and_are_named() {
    let (table, name) = ("[full-tunnel]\nmode = \"def1\"", "full-tunnel.mode");
    let parsed = parse("l", &format!("{GOOD}{table}\n"), &options());
    let of_key: Vec<_> = parsed.diagnostics.iter().filter(|d| d.message.starts_with(name)).collect();
    assert_eq!(of_key.len(), 1, "{table}: {:#?}", parsed.diagnostics);
    assert_eq!((of_key[0].severity, of_key[0].code), (Severity::Warning, Code::NoEffect), "{table}");
    assert!(of_key[0].help.is_some(), "{table}");
    assert!(parsed.config.is_some(), "{table}: {:#?}", parsed.diagnostics);
}

#[test]
fn metrics_are_served_to_this_host_alone() {
    for wrong in ["192.0.2.1:9586", "127.0.0.1", "127.0.0.1:0", "localhost:9586", ":9586", "[::]:9586"] {
        let text = format!("{GOOD}[status]\nmetrics = \"{wrong}\"\n");
        let parsed = parse("l", &text, &options());
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|d| d.is_error()).collect();
        assert_eq!(errors.len(), 1, "{wrong}: {errors:#?}");
        assert_eq!(errors[0].code, Code::BadMetricsAddress);
        assert!(errors[0].help.as_ref().unwrap().contains("127.0.0.1:9586"));
    }
    let text = format!("{GOOD}[status]\nsocket = \"here\"\nmetrics = \"127.0.0.1:9586\"\n");
    let status = parse("l", &text, &options()).config.unwrap().status;
    assert!(status.socket.unwrap().is_absolute());
    assert_eq!(status.metrics, Some("127.0.0.1:9586".parse().unwrap()));
}

#[test]
fn doubtful_settings_are_warnings_and_static_keys_a_note() {
    let note = parse("l", GOOD, &options());
    let found: Vec<_> = note.diagnostics.iter().map(|d| (d.severity, d.code)).collect();
    assert_eq!(found, [(Severity::Note, Code::NoForwardSecrecy), (Severity::Note, Code::PeerSources)]);

    for (text, code) in [
        (format!("{GOOD}[[route]]\nto = \"192.168.66.128/25\"\n"), Code::NarrowerRoute),
        (GOOD_TAP.replace("[device]", "[device]\nbridge = \"br0\""), Code::AddressOnPort),
        (GOOD.replace("\"mon.tn:1417\"", "[\"mon.tn:1\", \"mon.tn:1\"]"), Code::Duplicate),
        (
            "[key]\nmode = \"static\"\nfile = \"k\"\ndirection = 0\n[device]\naddress = \"10.0.0.1\"\n"
                .to_owned(),
            Code::NoPeer,
        ),
    ] {
        let parsed = parse("l", &text, &options());
        assert!(parsed.config.is_some(), "{:#?}", parsed.diagnostics);
        let warning = parsed.diagnostics.iter().find(|d| d.severity == Severity::Warning).unwrap();
        assert_eq!(warning.code, code, "{}", warning.message);
    }
}

#[test]
fn a_route_with_another_way_between_is_no_repetition() {
    let text = format!(
        "{GOOD}[[route]]\nto = \"192.168.66.128/25\"\nvia = \"net_gateway\"\n[[route]]\nto = \"192.168.66.192/26\"\n"
    );
    let parsed = parse("l", &text, &options());
    assert!(parsed.diagnostics.iter().all(|d| d.severity == Severity::Note), "{:#?}", parsed.diagnostics);
}

#[test]
fn configure_false_asks_for_no_addresses() {
    let text = "[key]\nmode = \"static\"\nfile = \"k\"\ndirection = 0\n[device]\nconfigure = false\n";
    assert!(accepted(text).device.addresses.is_empty());
    let tap = GOOD_TAP.replace("87.81/24\"", "87.81\"\nconfigure = false");
    assert_eq!(accepted(&tap).device.addresses, ["192.168.87.81/32".parse().unwrap()]);
}

#[test]
fn a_syntax_error_has_its_remedy_and_keeps_the_findings_before_it() {
    let text = "flaot = true\n[key]\nfile = \"a\"\n[device]\naddress = 192.168.86.81\nmtu = \"x\"\n";
    let parsed = parse("l", text, &options());
    assert!(parsed.config.is_none());
    let found: Vec<_> = parsed.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(found[0], Code::UnknownKey);
    assert!(parsed.diagnostics[0].message.contains("flaot"), "{:?}", parsed.diagnostics);
    let help =
        parsed.diagnostics.iter().find_map(|d| d.help.as_deref().filter(|h| h.contains("quotes"))).unwrap();
    assert_eq!(help, "put text in quotes: address = \"192.168.86.81\"");
    assert!(!found.contains(&Code::WrongType), "what follows is not read: {found:?}");
    for (line, remedy) in [
        ("remote = \u{201c}mon.tn\u{201d}", "retype the quotes and spaces of this line"),
        ("remote =\u{a0}\"mon.tn\"", "retype the quotes and spaces of this line"),
        ("remote\u{a0}= \"mon.tn\"", "retype the quotes and spaces of this line"),
        ("// mon", "a comment begins with #"),
        ("float = yes", "write float = true"),
        ("float = False", "write it in lower case: float = false"),
        ("remote = mon.tn # there", "put text in quotes: remote = \"mon.tn\""),
        (
            "remote mon.tn 1417",
            "write key = value, with text in quotes; `tund import` translates an OpenVPN file",
        ),
        ("persist-tun", "`tund import` translates an OpenVPN file"),
        ("ifconfig 10.8.0.1 10.8.0.2", "use device.address and device.peer"),
        ("<secret>", "`tund import` translates an OpenVPN file"),
    ] {
        let found = parse("l", &format!("{line}\n"), &options()).diagnostics;
        let help = found.iter().find(|d| d.code == Code::Syntax).and_then(|d| d.help.as_deref());
        assert!(help.is_some_and(|help| help.contains(remedy)), "{line}: {found:?}");
    }
    let found = parse("l", "remote = \"mon.tn\n", &options()).diagnostics;
    assert_eq!(found[0].help, None, "what is said is enough: {found:?}");
}

#[test]
fn a_key_where_its_file_is_to_be_named_and_a_key_of_the_file_that_is_there_twice() {
    let key = "0f".repeat(32);
    let found = parse("l", &GOOD.replace("static.key", &key), &options()).diagnostics;
    let found: Vec<_> = found.into_iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(found.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::BadPath]);
    assert!(!format!("{found:?}").contains("0f0f0f0f"), "{found:?}");
    let found = parse("l", &format!("listen = 1417\nlisten = 1418\n{GOOD}"), &options()).diagnostics;
    assert!(!found[0].help.as_ref().unwrap().contains("quotes"), "{found:?}");
}

#[test]
fn a_draft_names_the_files_of_a_text_with_errors() {
    let parsed = parse("l", &GOOD.replace("remote", "remotee"), &options());
    assert!(parsed.config.is_none());
    let shared = parsed.draft.unwrap().key.shared;
    assert_eq!(shared, Some(SecretSource::File("/etc/tund/static.key".into())));
    assert_eq!(parse("l", "[key", &options()).draft, None);
}

#[test]
fn a_name_that_cannot_be_a_file_name_is_refused() {
    for name in ["", ".", "..", "a/b", "a\nb", &"x".repeat(65)] {
        let parsed = parse(name, GOOD, &options());
        assert!(parsed.config.is_none(), "{name:?}");
    }
}

#[test]
fn a_hundred_thousand_routes_are_taken_and_too_many_are_refused() {
    let routes = |count: u32| {
        let to = |i: u32| std::net::Ipv4Addr::from(0x1400_0000 + (i << 8));
        (0..count).fold(GOOD.to_owned(), |text, i| text + &format!("[[route]]\nto = \"{}/24\"\n", to(i)))
    };
    let parsed = parse("l", &routes(100_000), &options());
    assert_eq!(parsed.config.unwrap().routes.len(), 100_000 + 1);
    let errors = errors(&routes(250_000));
    assert!(errors.iter().any(|(code, _)| *code == Code::TooMany), "{errors:?}");
}

#[test]
fn of_many_findings_of_one_kind_the_first_are_shown() {
    let mut text = GOOD.to_owned() + "[[route]]\nto = \"20.0.0.0/8\"\n";
    (0..8000).for_each(|i| text.push_str(&format!("[[route]]\nto = \"20.{}.{}.0/24\"\n", i / 200, i % 200)));
    let found = parse("l", &text, &options()).diagnostics;
    let same_way = found.iter().filter(|d| d.code == Code::NarrowerRoute).count();
    assert_eq!(same_way, 100);
    let last = found.last().unwrap();
    assert!(last.code == Code::NotShown && last.message.contains("7900"), "{last:?}");
}

#[test]
fn the_rendered_finding_shows_the_line_and_the_remedy() {
    let text = GOOD.replace("file =", "fiel =");
    let parsed = parse("l", &text, &options());
    let unknown = parsed.diagnostics.iter().find(|d| d.message.contains("fiel")).unwrap();
    let shown = render("tun-fri-mon.toml", &text, unknown, false);
    for part in ["tun-fri-mon.toml:4:1", "fiel = \"static.key\"", "did you mean `file`?"] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn every_example_is_without_errors_and_warnings() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let parsed = parse(name, &text, &Options::new(&directory));
        let serious: Vec<_> = parsed.diagnostics.iter().filter(|d| d.severity > Severity::Note).collect();
        assert!(serious.is_empty(), "{name}: {serious:#?}");
        let config = parsed.config.unwrap();
        assert_eq!(config.key.shared, Some(SecretSource::File(directory.join("static.key"))), "{name}");
        if let Some(up) = &config.scripts.up {
            use std::os::unix::fs::PermissionsExt;
            assert_ne!(std::fs::metadata(&up.program).unwrap().permissions().mode() & 0o111, 0, "{name}");
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen} examples");
}

#[test]
fn the_example_ends_fit_each_other() {
    let [fri, mon, tap_fri, tap_mon] =
        ["tun-fri-mon", "tun-mon-fri", "tap-fri-mon", "tap-mon-fri"].map(example);
    assert_eq!(fri.device.addresses[0].addr(), mon.device.peers[0]);
    assert_eq!(mon.device.addresses[0].addr(), fri.device.peers[0]);
    assert_ne!(fri.key.direction, mon.key.direction);
    assert_eq!(fri.remotes[0].port, mon.listen.port);
    assert!(mon.remotes.is_empty());
    assert_eq!(mon.routes[1].via, Via::NetGateway);
    assert!([&fri, &mon, &tap_fri, &tap_mon].iter().all(|end| end.key.mode == KeyMode::Handshake));
    assert_eq!(tap_fri.remotes[0].port, tap_mon.listen.port);
    assert_ne!(tap_mon.listen.port, mon.listen.port, "both links run at once");
    assert!(!tap_mon.device.configure && tap_mon.scripts.up.is_some());
    assert_eq!(example("tap-bridge").device.bridge.as_deref(), Some("br0"));
}

fn example(name: &str) -> Config {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let text = std::fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap();
    parse(name, &text, &Options::new(directory)).config.unwrap()
}

fn options() -> Options {
    let mut options = Options::new("/etc/tund");
    options.services = Box::new(|name| (name == "openvpn").then_some(1194));
    options
}

fn accepted(text: &str) -> Config {
    let Parsed { config, diagnostics, .. } = parse("link", text, &options());
    config.unwrap_or_else(|| panic!("refused: {diagnostics:#?}\n{text}"))
}

/// The kind of each error, and the text it points to.
fn errors(text: &str) -> Vec<(Code, String)> {
    let parsed = parse("link", text, &options());
    let errors = parsed.diagnostics.into_iter().filter(|d| d.is_error());
    errors.map(|d| (d.code, text[d.span.unwrap_or(0..0)].to_owned())).collect()
}

#[test]
fn streams_are_named_beside_datagrams() {
    let link = |top: &str, rest: &str| {
        let device = "[device]\naddress = '10.8.0.1'\npeer = '10.8.0.2'\n";
        let text = format!("{top}\n[key]\nfile = 'k'\n{rest}\n{device}");
        parse("l", &text, &Options::new("/"))
    };
    let config =
        link("remote = ['mon.tn:44096', 'tcp:mon.tn:563']\nlisten = [44096, 'tcp:192.0.2.1:563']", "")
            .config
            .unwrap();
    let remotes: Vec<_> = config.remotes.iter().map(|remote| (remote.port, remote.stream)).collect();
    assert_eq!(remotes, [(44096, false), (563, true)]);
    let stream = Some(StreamListen { address: Some("192.0.2.1".parse().unwrap()), port: 563 });
    assert_eq!(config.listen, Listen { address: None, port: 44096, explicit: true, stream });
    let alone = link("remote = 'tcp:mon.tn:563'", "").config.unwrap();
    assert_eq!(
        (alone.listen.port, alone.listen.explicit),
        (8863, false),
        "the port of UDP is not that of TCP"
    );
    for (top, rest, code) in [
        ("listen = [1, 2]", "", Code::TooMany),
        ("listen = ['tcp:1', 'tcp:2']", "", Code::TooMany),
        ("listen = 'tcp:0'", "", Code::AnyPort),
        ("listen = ['tcp:x y']", "", Code::BadListen),
        ("remote = 'tcp:mon.tn:0'", "", Code::BadPort),
        ("remote = 'tcp:mon.tn:563'\nproxy = 'ftp://a:1'", "", Code::BadProxy),
        ("remote = 'tcp:mon.tn:563'\nproxy = 'http://a'", "", Code::BadProxy),
        ("remote = 'tcp:mon.tn:563'\nproxy = 'http://u:p@a:1'", "", Code::BadProxy),
        ("remote = 'tcp:mon.tn:563'\nproxy = 'socks5://@a:1'", "", Code::BadProxy),
        ("remote = 'tcp:mon.tn:563'\nproxy = 'http://a:x'", "", Code::BadPort),
        ("remote = 'tcp:mon.tn:563'\nproxy = 'http://tcp:192.0.2.1'", "", Code::BadPort),
        ("remote = 'tcp:mon.tn:563'", "[tuning]\nthreads = 2", Code::NoStreams),
        ("listen = 'tcp:563'", "mode = 'openvpn'", Code::NoStreams),
    ] {
        let found = link(top, rest);
        assert!(found.config.is_none(), "{top}");
        let codes: Vec<_> = found.diagnostics.iter().filter(|it| it.is_error()).map(|it| it.code).collect();
        assert_eq!(codes, [code], "{top}");
    }
    let through =
        link("remote = 'tcp:mon.tn:563'\nproxy = 'socks5://u@[2001:db8::1]:1080/'", "").config.unwrap();
    let proxy = through.proxy.unwrap();
    assert_eq!(proxy.to_string(), "socks5://[2001:db8::1]:1080");
    assert_eq!(proxy.user.as_deref(), Some("u"));
    for useless in [
        "remote = 'mon.tn:563'\nproxy = 'http://a:1'",
        "remote = 'tcp:mon.tn:563'\nproxy = 'http://a:1'\nproxy-password-file = 'p'",
    ] {
        let found = link(useless, "");
        assert!(
            found.config.is_some() && found.diagnostics.iter().any(|it| it.code == Code::NoEffect),
            "{useless}"
        );
    }
}
