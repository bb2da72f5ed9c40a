//! Properties of the configuration: what is written reads back, and no text makes the reader panic.
#![allow(clippy::needless_update, reason = "a new key has its default until somebody writes it here")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tund::config::{
    Accept, Command, Config, DataPath, Device, FullTunnel, Keepalive, Key, KeyMode, KeyPair, Lanes, Listen,
    LogTo, MAX_ACCEPTED, Options, Remote, Reporting, Route, Run, Sandbox, Scripts, SecretSource, Sources,
    Tuning, Via, parse, position, render,
};
use tund::crypto::suite::Cipher;
use tund::packet::layer::Mode;

proptest! {
    // The failing input is printed whole, which says more than a seed file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_configuration_written_as_toml_is_read_back(config in config()) {
        let text = to_toml(&config);
        let parsed = parse(&config.name, &text, &Options::new("/etc/tund"));
        prop_assert_eq!(parsed.config, Some(config), "{:#?}\n{}", parsed.diagnostics, text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in hostile()) {
        let parsed = parse("link", &text, &Options::new("/etc/tund"));
        prop_assert_eq!(parsed.config.is_none(), parsed.diagnostics.iter().any(|d| d.is_error()));
        for d in &parsed.diagnostics {
            let shown = render("file.toml", &text, d, false);
            prop_assert!(shown.lines().next().is_some_and(|line| !line.is_empty()));
            if let Some(span) = &d.span {
                prop_assert!(span.start <= span.end && span.end <= text.len(), "{:?}", d);
                prop_assert!(position(&text, span.start).0 <= text.matches('\n').count() + 1);
            }
        }
    }
}

/// Schema lines with values of every kind, broken in places, and noise.
fn hostile() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "remote",
        "listen",
        "float",
        "fwmark",
        "file",
        "mode",
        "direction",
        "address",
        "peer",
        "mtu",
        "mac",
        "name",
        "bridge",
        "to",
        "via",
        "metric",
        "up",
        "security",
        "interval",
        "timeout",
        "verb",
        "peer-public",
        "ifconfig",
        "route",
        "key",
        "\"é\"",
        "a.b",
    ]);
    let value = prop_oneof![
        Just("\"static\"".to_owned()),
        Just("\"tap\"".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<IpAddr>().prop_map(|a| format!("\"{a}\"")),
        (any::<IpAddr>(), 0u8..140).prop_map(|(a, n)| format!("\"{a}/{n}\"")),
        "[ -~é\\n]{0,20}".prop_map(|s| format!("\"{s}\"")),
        "[ -~é]{0,20}",
        vec("\"[0-9a-z.:/]{0,12}\"", 0..4).prop_map(|v| format!("[{}]", v.join(","))),
        Just("{ a = 1 }".to_owned()),
    ];
    let header = prop::sample::select(vec![
        "[key]",
        "[device]",
        "[[route]]",
        "[scripts]",
        "[keepalive]",
        "[run]",
        "[tuning]",
        "[push]",
        "[guard]",
        "[route]",
        "[",
        "[[",
        "[[device]]",
    ]);
    let line = prop_oneof![
        4 => (key, value).prop_map(|(k, v)| format!("{k} = {v}")),
        2 => header.prop_map(str::to_owned),
        1 => "\\PC{0,30}",
        1 => vec(any::<u8>(), 0..30).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

fn config() -> impl Strategy<Value = Config> {
    let outer =
        (vec(remote(), 0..4), listen(), any::<bool>(), option::of(interface()), option::of(any::<u32>()));
    let rest = (key(), device(), scripts(), keepalive(), run(), tuning());
    ("[a-z][a-z0-9-]{0,20}", outer, rest, any::<u64>()).prop_map(|(name, outer, rest, seed)| {
        let (remotes, mut listen, float, bind_device, fwmark) = outer;
        let mut kept: Vec<Remote> = Vec::new();
        for remote in remotes {
            if !kept.contains(&remote) {
                kept.push(remote);
            }
        }
        if !kept.is_empty() && kept.iter().all(|remote| remote.host.contains(':')) {
            listen.address = None;
        }
        let (key, device, scripts, keepalive, run, tuning) = rest;
        let routes = routes(&device, seed);
        // Unlike any route in the file.
        let offers =
            (0..seed % 4).map(|n| Ipv4Net::new(Ipv4Addr::new(10, n as u8 + 100, 0, 0), 16).unwrap().into());
        let push: Vec<IpNet> = offers.collect();
        let accept = Accept {
            routes: if seed & 64 == 0 { Vec::new() } else { vec!["fd00::/8".parse().unwrap()] },
            limit: if seed & 64 == 0 { MAX_ACCEPTED } else { (seed % 91) as usize },
            sources: if seed & 128 == 0 { Sources::Any } else { Sources::Routes },
        };
        Config {
            name,
            push,
            accept,
            full_tunnel: (seed & 256 != 0)
                .then_some(FullTunnel { closed: seed & 512 != 0, local_networks: seed & 1024 != 0 }),
            remotes: kept,
            listen,
            float,
            bind_device,
            fwmark,
            key,
            device,
            routes,
            scripts,
            keepalive,
            run,
            tuning,
            status: Reporting {
                socket: (seed & 1024 != 0).then(|| "/run/status".into()),
                metrics: (seed & 2048 != 0).then(|| "[::1]:9586".parse().unwrap()),
                ..defaults().status
            },
            ..defaults()
        }
    })
}

/// A link with all defaults.
fn defaults() -> Config {
    let text = "[key]\nfile = 'k'\n[device]\naddress = '10.0.0.1/24'\n";
    parse("plain", text, &Options::new("/")).config.unwrap()
}

/// Names and addresses that no other part uses, so that no route is a loop.
fn remote() -> impl Strategy<Value = Remote> {
    let host = prop_oneof![
        "[a-z]([a-z0-9]{0,5})(\\.[a-z]{1,5}){0,2}",
        "192\\.0\\.2\\.[1-9]",
        "2001:db8:ffff::[1-9]"
    ];
    (host, 1..=u16::MAX).prop_map(|(host, port)| Remote { host, port, stream: false })
}

fn listen() -> impl Strategy<Value = Listen> {
    let address = option::of(Just(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    (address, 1..=u16::MAX).prop_map(|(address, port)| Listen { address, port, explicit: true, stream: None })
}

fn interface() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9.-]{0,14}".prop_filter("reserved", |name| !matches!(name.as_str(), "all" | "default"))
}

fn key() -> impl Strategy<Value = Key> {
    let source = prop_oneof![
        path().prop_map(|p| SecretSource::File(p.into())),
        "[a-z][a-z0-9._-]{0,9}".prop_map(SecretSource::Credential)
    ]
    .boxed();
    let pair = (path(), any::<[u8; 32]>())
        .prop_map(|(file, peer_public)| KeyPair { private_file: file.into(), peer_public })
        .boxed();
    let material = prop_oneof![
        source.clone().prop_map(|s| (Some(s), None)),
        pair.clone().prop_map(|p| (None, Some(p))),
        (source, pair).prop_map(|(s, p)| (Some(s), Some(p))),
    ];
    let cipher = prop_oneof![Just(Cipher::ChaCha20Poly1305), Just(Cipher::Aes256Gcm)];
    let mode = prop_oneof![Just(KeyMode::Static), Just(KeyMode::Handshake)];
    (material, 0u8..2, cipher, mode).prop_map(|((shared, pair), direction, cipher, mode)| Key {
        mode,
        shared,
        pair,
        direction,
        cipher,
        suites: vec![cipher],
        ..defaults().key
    })
}

fn device() -> impl Strategy<Value = Device> {
    let own = (any::<bool>(), any::<bool>(), 2u8..250, 2u8..250, any::<bool>());
    let plain = (option::of(interface()), 1280u32..=9216, any::<bool>(), option::of(1u32..=1_000_000));
    let tap = (option::of(any::<[u8; 6]>()), option::of(Just("br-lan".to_owned())));
    (any::<bool>(), own, plain, tap).prop_map(|(is_tap, own, plain, (mac, bridge))| {
        let (v6, has_peer, host, peer, prefixed) = own;
        let peer = if peer == host { host + 1 } else { peer };
        let v4 = |host| Ipv4Addr::new(10, 9, 8, host);
        let six = |host: u8| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into());
        let (l4, l6) = if is_tap || prefixed { (24, 64) } else { (32, 128) };
        let mut addresses: Vec<IpNet> = vec![Ipv4Net::new(v4(host), l4).unwrap().into()];
        let mut peers: Vec<IpAddr> = if has_peer { vec![v4(peer).into()] } else { Vec::new() };
        if v6 {
            addresses.push(Ipv6Net::new(six(host), l6).unwrap().into());
            peers.extend(has_peer.then_some(IpAddr::from(six(peer))));
        }
        let (name, mtu, configure, txqueuelen) = plain;
        let unicast = |mac: [u8; 6]| [mac[0] & 0xfe | 2, mac[1], mac[2], mac[3], mac[4], mac[5]];
        Device {
            mode: if is_tap { Mode::Tap } else { Mode::Tun },
            name,
            addresses,
            peers,
            mtu,
            configure,
            mac: mac.filter(|_| is_tap).map(unicast),
            bridge: bridge.filter(|_| is_tap),
            txqueuelen,
            ..defaults().device
        }
    })
}

/// Routes to distinct networks, with gateways that the device has.
fn routes(device: &Device, seed: u64) -> Vec<Route> {
    (0..seed % 6)
        .map(|index| {
            let bits = seed >> (8 * index);
            let via = match bits % 3 {
                0 if !device.peers.is_empty() => Via::VpnGateway,
                1 => Via::NetGateway,
                _ => Via::Address(Ipv4Addr::new(172, 16, 0, (bits % 200) as u8 + 1).into()),
            };
            Route {
                to: Ipv4Net::new(Ipv4Addr::new(172, 20 + index as u8, 0, 0), 16 + (bits % 8) as u8)
                    .unwrap()
                    .into(),
                via,
                metric: (bits & 16 != 0).then_some(bits as u32),
                table: (bits & 32 != 0).then_some((bits as u32).max(1)),
            }
        })
        .collect()
}

fn scripts() -> impl Strategy<Value = Scripts> {
    let command = || {
        option::of(
            (path(), vec("[ -~é]{0,8}", 0..3)).prop_map(|(p, args)| Command { program: p.into(), args }),
        )
    };
    let commands = (command(), command(), command(), command(), command(), command());
    (commands, 0u8..=3, 1u64..=3600).prop_map(
        |((up, down, route_up, route_down, link_up, link_down), level, seconds)| {
            let any = [&up, &down, &route_up, &route_down, &link_up, &link_down].iter().any(|c| c.is_some());
            let security = if any { level.max(2) } else { level };
            let timeout = Duration::from_secs(seconds);
            Scripts {
                up,
                down,
                route_up,
                route_down,
                link_up,
                link_down,
                security,
                timeout,
                ..defaults().scripts
            }
        },
    )
}

fn keepalive() -> impl Strategy<Value = Keepalive> {
    (100u64..100_000, 1u64..100_000, 100u64..86_400_000).prop_map(|(interval, more, idle)| Keepalive {
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(interval + more),
        idle_exit: Duration::from_millis(idle),
        ..defaults().keepalive
    })
}

fn run() -> impl Strategy<Value = Run> {
    let name = || option::of("[a-z][a-z0-9_-]{0,9}");
    let directory = || option::of(path().prop_map(Into::into));
    let sandbox = proptest::sample::select(vec![Sandbox::Auto, Sandbox::Require, Sandbox::Off]);
    let log =
        option::of(proptest::sample::select(vec![LogTo::Stderr, LogTo::Syslog, LogTo::Journal, LogTo::Json]));
    (name(), name(), directory(), 0u8..=9, directory(), sandbox, log).prop_map(
        |(user, group, runtime_dir, verb, chroot, sandbox, log)| Run {
            user,
            group,
            runtime_dir,
            verb,
            chroot,
            sandbox,
            log,
            daemon: verb % 2 == 1,
            pid_file: (verb > 4).then(|| "/run/pid".into()),
            nice: (verb > 2).then_some(verb as i8 * 3 - 20),
            ..defaults().run
        },
    )
}

fn tuning() -> impl Strategy<Value = Tuning> {
    let data_path = (any::<[bool; 2]>(), 1u8..=2, 0u32..=1_000_000, 0u8..=16).prop_map(
        |([offload, copy_dscp], threads, busy_poll, lanes)| DataPath {
            offload,
            copy_dscp,
            lanes: if lanes == 0 { Lanes::Auto } else { Lanes::Count(lanes) },
            threads,
            busy_poll,
            ..defaults().tuning.data_path
        },
    );
    (any::<[bool; 3]>(), 4096u32..=1 << 30, option::of(576u32..=65535), data_path).prop_map(
        |([bundle, mss_clamp, bbr], socket_buffer, path_mtu, data_path)| Tuning {
            bundle,
            socket_buffer,
            path_mtu,
            mss_clamp,
            congestion_control: bbr.then(|| "bbr".into()),
            data_path,
            ..defaults().tuning
        },
    )
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-zA-Z0-9 é\"\\\\._-]{1,8}){1,3}"
}

/// Writes the configuration as a person might, with every key explicit.
fn to_toml(config: &Config) -> String {
    let mut text = String::new();
    if !config.remotes.is_empty() {
        let remotes: Vec<String> = config
            .remotes
            .iter()
            .map(|r| {
                if r.host.contains(':') {
                    format!("[{}]:{}", r.host, r.port)
                } else {
                    format!("{}:{}", r.host, r.port)
                }
            })
            .collect();
        line(&mut text, "remote", strings(&remotes));
    }
    let port = config.listen.port;
    line(
        &mut text,
        "listen",
        config.listen.address.map_or(port.to_string(), |address| string(&format!("{address}:{port}"))),
    );
    line(&mut text, "float", config.float.to_string());
    maybe(&mut text, "bind-device", config.bind_device.as_deref().map(string));
    maybe(&mut text, "fwmark", config.fwmark);
    write_key(&mut text, &config.key);
    write_device(&mut text, &config.device);
    for route in &config.routes {
        text.push_str("[[route]]\n");
        line(&mut text, "to", string(&route.to.to_string()));
        let via = match route.via {
            Via::VpnGateway => "vpn_gateway".to_owned(),
            Via::NetGateway => "net_gateway".to_owned(),
            Via::Address(address) => address.to_string(),
        };
        line(&mut text, "via", string(&via));
        maybe(&mut text, "metric", route.metric);
        maybe(&mut text, "table", route.table);
    }
    write_offers(&mut text, config);
    write_scripts(&mut text, &config.scripts);
    write_running(&mut text, config);
    text.push_str("[tuning]\n");
    line(&mut text, "bundle", config.tuning.bundle);
    line(&mut text, "mss-clamp", config.tuning.mss_clamp);
    line(&mut text, "socket-buffer", config.tuning.socket_buffer);
    maybe(&mut text, "path-mtu", config.tuning.path_mtu);
    maybe(&mut text, "congestion-control", config.tuning.congestion_control.as_deref().map(string));
    let data_path = config.tuning.data_path;
    line(&mut text, "offload", data_path.offload);
    maybe(&mut text, "dscp", data_path.copy_dscp.then(|| string("copy")));
    match data_path.lanes {
        Lanes::Auto => line(&mut text, "lanes", string("auto")),
        Lanes::Count(count) => line(&mut text, "lanes", count),
    }
    line(&mut text, "threads", data_path.threads);
    line(&mut text, "busy-poll", data_path.busy_poll);
    text
}

/// Writes `[keepalive]`, `[run]` and `[status]`.
fn write_running(text: &mut String, config: &Config) {
    text.push_str("[keepalive]\n");
    line(text, "interval", format!("\"{}ms\"", config.keepalive.interval.as_millis()));
    line(text, "timeout", format!("\"{}ms\"", config.keepalive.timeout.as_millis()));
    line(text, "idle-exit", format!("\"{}ms\"", config.keepalive.idle_exit.as_millis()));
    text.push_str("[run]\n");
    maybe(text, "user", config.run.user.as_deref().map(string));
    maybe(text, "group", config.run.group.as_deref().map(string));
    maybe(text, "runtime-dir", config.run.runtime_dir.as_ref().map(|p| string(p.to_str().unwrap())));
    line(text, "verb", config.run.verb);
    maybe(text, "chroot", config.run.chroot.as_ref().map(|p| string(p.to_str().unwrap())));
    let sandbox = match config.run.sandbox {
        Sandbox::Auto => "auto",
        Sandbox::Require => "require",
        Sandbox::Off => "off",
    };
    line(text, "sandbox", string(sandbox));
    let log = config.run.log.map(|log| match log {
        LogTo::Stderr => "stderr",
        LogTo::Syslog => "syslog",
        LogTo::Journal => "journal",
        LogTo::Json => "json",
    });
    maybe(text, "log", log.map(string));
    line(text, "daemon", config.run.daemon);
    maybe(text, "nice", config.run.nice.map(|nice| nice.to_string()));
    maybe(text, "pid-file", config.run.pid_file.as_ref().map(|_| "'/run/pid'".to_owned()));
    text.push_str("[status]\n");
    maybe(text, "socket", config.status.socket.as_ref().map(|p| string(p.to_str().unwrap())));
    maybe(text, "metrics", config.status.metrics.map(|address| string(&address.to_string())));
}

fn write_key(text: &mut String, key: &Key) {
    text.push_str("[key]\n");
    if key.mode == KeyMode::Static {
        line(text, "mode", string("static"));
    }
    match &key.shared {
        Some(SecretSource::File(path)) => line(text, "file", string(path.to_str().unwrap())),
        Some(SecretSource::Credential(name)) => line(text, "credential", string(name)),
        None => {}
    }
    if let Some(pair) = &key.pair {
        line(text, "private-file", string(pair.private_file.to_str().unwrap()));
        let digits: String = pair.peer_public.iter().map(|byte| format!("{byte:02x}")).collect();
        line(text, "peer-public", string(&digits));
    }
    line(text, "direction", key.direction);
    let cipher = match key.cipher {
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        Cipher::Aes256Gcm => "aes-256-gcm",
    };
    line(text, "cipher", string(cipher));
}

fn write_device(text: &mut String, device: &Device) {
    text.push_str("[device]\n");
    let mode = match device.mode {
        Mode::Tun => "tun",
        Mode::Tap => "tap",
    };
    line(text, "mode", string(mode));
    maybe(text, "name", device.name.as_deref().map(string));
    let addresses: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
    line(text, "address", strings(&addresses));
    let peers: Vec<String> = device.peers.iter().map(ToString::to_string).collect();
    if !peers.is_empty() {
        line(text, "peer", strings(&peers));
    }
    line(text, "mtu", device.mtu);
    line(text, "configure", device.configure);
    let mac = device.mac.map(|m| m.map(|byte| format!("{byte:02x}")).join(":"));
    maybe(text, "mac", mac.as_deref().map(string));
    maybe(text, "bridge", device.bridge.as_deref().map(string));
    maybe(text, "txqueuelen", device.txqueuelen);
}

fn write_offers(text: &mut String, config: &Config) {
    let list = |routes: &[IpNet]| strings(&routes.iter().map(ToString::to_string).collect::<Vec<_>>());
    if !config.push.is_empty() {
        text.push_str("[push]\n");
        line(text, "routes", list(&config.push));
    }
    if let Some(full) = &config.full_tunnel {
        text.push_str("[full-tunnel]\n");
        line(text, "fail", if full.closed { "'closed'" } else { "'open'" });
        line(text, "local-networks", if full.local_networks { "'reach'" } else { "'refuse'" });
    }
    text.push_str("[accept]\n");
    if !config.accept.routes.is_empty() {
        line(text, "routes", list(&config.accept.routes));
        line(text, "limit", config.accept.limit);
    }
    line(text, "sources", if config.accept.sources == Sources::Any { "'any'" } else { "'routes'" });
}

fn write_scripts(text: &mut String, scripts: &Scripts) {
    text.push_str("[scripts]\n");
    let all = [
        ("up", &scripts.up),
        ("down", &scripts.down),
        ("route-up", &scripts.route_up),
        ("route-down", &scripts.route_down),
        ("link-up", &scripts.link_up),
        ("link-down", &scripts.link_down),
    ];
    for (key, command) in all {
        let Some(command) = command else { continue };
        let program = command.program.to_str().unwrap().to_owned();
        let argv: Vec<String> = std::iter::once(program).chain(command.args.iter().cloned()).collect();
        line(text, key, strings(&argv));
    }
    line(text, "security", scripts.security);
    line(text, "timeout", format!("\"{}s\"", scripts.timeout.as_secs()));
}

/// Writes one element as a string, several as a list, to use both forms.
fn strings(list: &[String]) -> String {
    match list {
        [one] => string(one),
        several => format!("[{}]", several.iter().map(|s| string(s)).collect::<Vec<_>>().join(", ")),
    }
}

fn string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "{key} = {value}").unwrap();
}

fn maybe(text: &mut String, key: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        line(text, key, value);
    }
}
