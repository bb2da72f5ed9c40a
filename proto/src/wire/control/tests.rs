use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::wire::vectors::{hex, vectors};

const KINDS: [u8; 9] = [PING, PONG, PATH, PATH_REPLY, HELLO, BYE, CLONES, PROBED, LOOP];

#[test]
fn protocol_md_holds_the_encoding_of_every_message() {
    let messages = examples();
    for (name, message) in &messages {
        let found = vectors("control/").into_iter().find(|vector| vector.name == *name);
        let body = encoded(message);
        let found = found.unwrap_or_else(|| panic!("PROTOCOL.md lacks {name}: body: {}", hex(&body)));
        assert_eq!(hex(found.one("body")), hex(&body), "{name}");
        assert_eq!(decode(&body).as_ref(), Ok(&Some(message.clone())), "{name}");
    }
    assert_eq!(vectors("control/").len(), messages.len(), "PROTOCOL.md has a vector no test knows");
}

#[test]
fn protocol_md_names_bodies_that_are_refused_and_why() {
    for vector in vectors("refused-control/") {
        let reason = decode(vector.one("body")).expect_err(vector.name);
        let name = vector.name.trim_start_matches("refused-control/");
        assert_eq!(name, format!("{reason:?}"), "{reason}");
    }
}

#[test]
fn a_message_cut_anywhere_is_truncated_and_a_longer_one_has_bytes_left_over() {
    for (name, message) in examples() {
        let mut body = encoded(&message);
        for end in 0..body.len() {
            assert_eq!(decode(&body[..end]), Err(Malformed::Truncated), "{name} cut at {end}");
        }
        body.push(0);
        assert_eq!(decode(&body), Err(Malformed::LeftOver), "{name}");
    }
}

#[test]
fn types_of_later_versions_are_ignored() {
    for kind in (0..=255u8).filter(|kind| !KINDS.contains(kind)) {
        assert_eq!(decode(&[kind]), Ok(None));
        assert_eq!(decode(&[kind, 0xff, 0xff]), Ok(None));
    }
}

#[test]
fn fields_of_later_versions_are_skipped_but_not_unread() {
    let pong = Message::Pong { n: 7, received: 9 };
    assert_eq!(decode(&[2, 0xa3, 0, 7, 1, 9, 2, 0x81, 0x61, b'x']), Ok(Some(pong)));
    assert_eq!(decode(&[2, 0xa3, 0, 7, 1, 9, 2, 0xf6]), Err(Malformed::Unsupported));
    assert_eq!(decode(&[2, 0xa3, 0, 7, 1, 9, 2, 0x81]), Err(Malformed::Truncated));
}

#[test]
fn every_message_may_have_a_field_of_a_later_version() {
    for (name, message) in examples() {
        let mut body = encoded(&message);
        assert!((0xa0..0xb7).contains(&body[1]), "{name}: a map of few fields");
        body[1] += 1;
        for value in [&[7][..], &[0x42, 1, 2], &[0x61, b'x'], &[0x81, 0x80], &[0xa1, 0, 0xa0]] {
            let body = [&body[..], &[0x18, 99], value].concat();
            assert_eq!(decode(&body).as_ref(), Ok(&Some(message.clone())), "{name}");
        }
        assert_eq!(decode(&[&body[..], &[0x18, 99, 0x20]].concat()), Err(Malformed::Unsupported), "{name}");
    }
}

#[test]
fn every_field_must_be_there() {
    assert_eq!(decode(&[2, 0xa1, 0, 7]), Err(Malformed::Missing(1)));
    assert_eq!(decode(&[2, 0xa1, 1, 7]), Err(Malformed::Missing(0)));
    for kind in KINDS {
        assert_eq!(decode(&[kind, 0xa0]), Err(Malformed::Missing(0)));
    }
    let hello = |without: u8| {
        let mut body = vec![HELLO, 0xa8];
        let values: [&[u8]; 9] = [&[1], &[0], &[0], &[0x80], &[0x80], &[0], &[0], &[0x60], &[0]];
        for (key, value) in (0..).zip(values).filter(|(key, _)| *key != without) {
            body.push(key);
            body.extend(value);
        }
        body
    };
    for without in 0..=8 {
        assert_eq!(decode(&hello(without)), Err(Malformed::Missing(without.into())));
    }
}

#[test]
fn values_outside_their_bounds_are_refused() {
    let too_long = |kind: u8, front: &[u8], length: u8| {
        let mut body = [&[kind], front, &[length]].concat();
        body.extend(std::iter::repeat_n(b'x', length.into()));
        body
    };
    assert_eq!(decode(&too_long(PING, &[0xa2, 0, 1, 1, 0x58], 65)), Err(Malformed::OutOfRange));
    assert_eq!(decode(&too_long(BYE, &[0xa1, 0, 0x78], 129)), Err(Malformed::OutOfRange));
    assert_eq!(decode(&too_long(HELLO, &[0xa1, 7, 0x78], 65)), Err(Malformed::OutOfRange));
    assert_eq!(decode(&[PING, 0xa1, 0, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0]), Err(Malformed::OutOfRange));
    assert_eq!(decode(&too_long(PATH, &[0xa1, 0], 0x4f)[..19]), Err(Malformed::OutOfRange), "15 bytes");
    assert_eq!(decode(&[HELLO, 0xa1, 0, 0x19, 1, 0]), Err(Malformed::OutOfRange), "version 256");
    assert_eq!(decode(&[HELLO, 0xa1, 1, 2]), Err(Malformed::OutOfRange), "mode 2");
    assert_eq!(decode(&[HELLO, 0xa1, 8, 2]), Err(Malformed::OutOfRange), "seen 2");
    for (routes, what) in [
        (&[0x80][..], "no route"),
        (&[0x81, 0x44, 10, 0, 0, 0], "no length"),
        (&[0x81, 0x45, 10, 0, 0, 0, 33], "length 33"),
        (&[0x81, 0x45, 10, 0, 0, 1, 8], "host bits"),
    ] {
        assert_eq!(decode(&[&[HELLO, 0xa1, 9], routes].concat()), Err(Malformed::OutOfRange), "{what}");
    }
    let mut many = vec![HELLO, 0xa1, 9, 0x98, 91];
    many.extend([0x45, 10, 0, 0, 0, 8].repeat(91));
    assert_eq!(decode(&many), Err(Malformed::OutOfRange), "91 routes");
    assert_eq!(decode(&[HELLO, 0xa1, 3, 0x81, 0x45, 1, 2, 3, 4, 5]), Err(Malformed::OutOfRange), "5 bytes");
    let mut seventeen = vec![HELLO, 0xa1, 3, 0x91];
    seventeen.extend([0x44, 10, 0, 0, 1].repeat(17));
    assert_eq!(decode(&seventeen), Err(Malformed::OutOfRange), "17 addresses");
    assert_eq!(decode(&[BYE; MAX_CONTROL + 1]), Err(Malformed::TooLong));
}

#[test]
fn what_exceeds_a_bound_is_cut_when_encoded() {
    let sent = Message::Hello(Hello {
        addresses: vec![IpAddr::V6(Ipv6Addr::LOCALHOST); 40],
        peers: vec![IpAddr::V6(Ipv6Addr::LOCALHOST); 40],
        name: "ä".repeat(40) + "x",
        mtu: u32::MAX,
        capabilities: u32::MAX,
        budget: u16::MAX,
        routes: vec!["fd00::/8".parse().unwrap(); 60],
        ..hello()
    });
    let body = encoded(&sent);
    assert!(body.len() <= MAX_CONTROL, "{} bytes", body.len());
    let Ok(Some(Message::Hello(received))) = decode(&body) else { panic!("not a hello") };
    assert_eq!(received.name, "ä".repeat(32));
    assert_eq!((received.addresses.len(), received.peers.len()), (MAX_ADDRESSES, MAX_ADDRESSES));

    let odd = Message::Bye { reason: format!("x{}", "€".repeat(80)) };
    let expected = Message::Bye { reason: format!("x{}", "€".repeat(42)) };
    assert_eq!(decode(&encoded(&odd)), Ok(Some(expected)), "cut at a character");

    let ping = encoded(&Message::Ping { n: 1, padding: 60_000 });
    assert!(ping.len() <= MAX_PING && decode(&ping).is_ok());
}

#[test]
fn a_probe_has_the_length_asked_for() {
    for n in [0, 23, 24, 255, 65_536, u32::MAX] {
        for length in [300, 1163, 1179, 1451, 8972, 9000] {
            let ping = ping_of_length(n, length);
            assert_eq!(ping.len(), length);
            assert!(matches!(decode(&ping), Ok(Some(Message::Ping { n: found, .. })) if found == n));
        }
        assert!(ping_of_length(n, 0).len() < 12 && ping_of_length(n, 40).len().abs_diff(40) <= 1);
    }
    let mut other = ping(7, 3);
    *other.last_mut().unwrap() = 1;
    assert_eq!(decode(&other), Err(Malformed::OutOfRange), "padding says nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_survives_the_wire(message in message()) {
        let body = encoded(&message);
        prop_assert!(body.len() <= MAX_PING);
        prop_assert_eq!(decode(&body), Ok(Some(message)));
    }

    #[test]
    fn a_changed_byte_gives_another_message_or_none(message in message(), at: prop::sample::Index, flip in 1u8..) {
        let mut body = encoded(&message);
        let at = at.index(body.len());
        body[at] ^= flip;
        prop_assert_ne!(decode(&body), Ok(Some(message)));
    }

    #[test]
    fn whatever_is_accepted_encodes_to_what_is_accepted_alike(
        kind in PING..=LOOP,
        rest in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..10, 0xa0u8..0xaa, 0x40u8..0x50], 0..40),
    ) {
        let body = [&[kind], rest.as_slice()].concat();
        if let Ok(Some(message)) = decode(&body) {
            prop_assert_eq!(decode(&encoded(&message)), Ok(Some(message)));
        }
    }
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    encode(message, &mut body);
    body
}

fn hello() -> Hello {
    Hello {
        version: 1,
        mode: Mode::Tun,
        mtu: 1400,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 168, 86, 81))],
        peers: vec![IpAddr::V4(Ipv4Addr::new(192, 168, 86, 18))],
        budget: 1463,
        capabilities: 0,
        name: "tun-fri-mon".into(),
        seen: false,
        routes: Vec::new(),
        heard: None,
        padding: 0,
        lanes: 1,
        rank: 0,
        named: None,
    }
}

fn examples() -> Vec<(&'static str, Message)> {
    let challenge = std::array::from_fn(|i| 0xc0 + i as u8);
    let bridge = Hello {
        mode: Mode::Tap,
        mtu: 1500,
        addresses: vec![],
        peers: vec![IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))],
        name: "Brücke".into(),
        seen: true,
        ..hello()
    };
    vec![
        ("control/ping", Message::Ping { n: 7, padding: 3 }),
        ("control/ping-largest-n", Message::Ping { n: u32::MAX, padding: 0 }),
        ("control/pong", Message::Pong { n: 7, received: 1_000_000 }),
        ("control/path", Message::Path { challenge }),
        ("control/path-reply", Message::PathReply { challenge }),
        ("control/hello-tun", Message::Hello(hello())),
        ("control/hello-tap", Message::Hello(bridge)),
        (
            "control/hello-routes",
            Message::Hello(Hello {
                addresses: vec![],
                peers: vec![],
                name: String::new(),
                seen: true,
                routes: ["192.168.66.0/24", "fd05::/16"].map(|route| route.parse().unwrap()).to_vec(),
                ..hello()
            }),
        ),
        (
            "control/hello-heard",
            Message::Hello(Hello {
                addresses: vec![],
                peers: vec![],
                name: String::new(),
                heard: Some(*b"\x00\x06\x5b\xfe\xda\x25\xe0\x00\x01\x02\x03\x04\x81\x66\xf0\xdd"),
                padding: 3,
                ..hello()
            }),
        ),
        (
            "control/hello-lanes",
            Message::Hello(Hello {
                addresses: vec![],
                peers: vec![],
                name: String::new(),
                seen: true,
                heard: Some(*b"\x00\x06\x5b\xfe\xda\x25\xe0\x00\x01\x02\x03\x04\x81\x66\xf0\xdd"),
                lanes: 4,
                rank: 0x0102_0304,
                named: Some(*b"\x00\x06\x5b\xfe\xdb\x23\xc7\xa0\xa0\xb0\xc0\xd0\xe0\xf0\x11\x22"),
                ..hello()
            }),
        ),
        ("control/bye", Message::Bye { reason: "going down".into() }),
        (
            "control/clones",
            Message::Clones {
                ends: ["192.0.2.1:1417", "[2001:db8::3]:1418"].map(|end| end.parse().unwrap()),
            },
        ),
        ("control/probed", Message::Probed { probe: challenge }),
        (
            "control/loop",
            Message::Loop(Loop {
                state: LoopState::Held,
                origin: *b"\xc0\xc1\xc2\xc3\xc4\xc5\xc6\xc7",
                vlan: Some(100),
                tunnelled: true,
            }),
        ),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u32>(), 0usize..9000).prop_map(|(n, padding)| Message::Ping { n, padding }),
        (any::<u32>(), any::<u64>()).prop_map(|(n, received)| Message::Pong { n, received }),
        any::<[u8; 16]>().prop_map(|challenge| Message::Path { challenge }),
        any::<[u8; 16]>().prop_map(|challenge| Message::PathReply { challenge }),
        any_hello().prop_map(Message::Hello),
        any_text(MAX_REASON).prop_map(|reason| Message::Bye { reason }),
        any::<[(IpAddr, u16); 2]>().prop_map(|ends| Message::Clones { ends: ends.map(SocketAddr::from) }),
        any::<[u8; 16]>().prop_map(|probe| Message::Probed { probe }),
        (0..3usize, any::<[u8; 8]>(), any::<u16>(), any::<bool>()).prop_map(
            |(state, origin, vlan, tunnelled)| {
                let state = [LoopState::Over, LoopState::Held, LoopState::Inside][state];
                Message::Loop(Loop { state, origin, vlan: (vlan != 0).then_some(vlan), tunnelled })
            }
        ),
    ]
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let addresses = || prop::collection::vec(any::<IpAddr>(), 0..=MAX_ADDRESSES);
    let mode = prop_oneof![Just(Mode::Tun), Just(Mode::Tap)];
    let numbers = (any::<u8>(), any::<u32>(), any::<u16>(), any::<u32>());
    let route = (any::<IpAddr>(), 0u8..=32)
        .prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc());
    let routes = prop::collection::vec(route, 0..30);
    let more = (
        any::<Option<[u8; KEY_ID]>>(),
        0..=60usize,
        1..=MAX_LANES,
        any::<u32>(),
        any::<Option<[u8; KEY_ID]>>(),
    );
    (mode, numbers, addresses(), addresses(), any_text(MAX_NAME), any::<bool>(), routes, more).prop_map(
        |(mode, (version, mtu, budget, capabilities), addresses, peers, name, seen, routes, more)| Hello {
            version,
            mode,
            mtu,
            addresses,
            peers,
            budget,
            capabilities,
            name,
            seen,
            routes,
            heard: more.0,
            padding: more.1,
            lanes: more.2,
            rank: more.3,
            named: more.4,
        },
    )
}

fn any_text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..=max / 4).prop_map(String::from_iter)
}
