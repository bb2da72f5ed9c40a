//! Datagrams from OpenVPN 2.6.14, under a key made for them, and one that it would ignore, from a Python program: they open to the original contents and seal again byte for byte.

#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use std::time::Instant;

use crate::core::openvpn::fragments::Fragments;
use crate::core::openvpn::options::Options;
use crate::crypto::cbc_hmac::{CbcCipher, CbcHmac, Digest, KEY, pad, slots};
use crate::packet::layer::Mode;
use crate::wire::openvpn::{Fragment, Framing, Misframed, Occ, PING, PacketId, Told};

mod upgrade;

const VECTORS: &str = include_str!("vectors.txt");

struct Vector<'a> {
    name: &'a str,
    keys: CbcHmac,
    framing: Framing,
    compressed: bool,
    fragments: bool,
    time: u32,
    payload: Vec<u8>,
    datagrams: Vec<(u32, Vec<u8>)>,
}

fn begun() -> Instant {
    Instant::now()
}

fn bytes(hex: &str) -> Vec<u8> {
    let mut bytes = vec![0; hex.len() / 2];
    base16ct::lower::decode(hex, &mut bytes).unwrap();
    bytes
}

fn vectors() -> Vec<Vector<'static>> {
    let mut lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
    let key: [u8; KEY] = bytes(lines.next().unwrap().strip_prefix("key ").unwrap()).try_into().unwrap();
    let vector = |line: &'static str| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        let name = word();
        let direction = word().parse().ok();
        let cipher = word();
        let cipher = CbcCipher::ALL.into_iter().find(|it| it.name() == cipher).unwrap();
        let digest = word();
        let digest = Digest::ALL.into_iter().find(|it| it.name() == digest).unwrap();
        let framing = match word() {
            "off" => Framing::None,
            "lzo" => Framing::CompLzo,
            "stub" | "lz4" => Framing::Stub,
            _ => Framing::StubV2,
        };
        let (fragments, time, payload) = (word() != "0", word().parse().unwrap(), bytes(word()));
        let datagrams = words.map(|word| word.split_once('=').unwrap());
        Vector {
            name,
            keys: CbcHmac::new(cipher, digest, slots(&key, direction)[1]),
            framing,
            compressed: ["lzo", "lz4", "lz4-v2"].contains(&name),
            fragments,
            time,
            payload,
            datagrams: datagrams.map(|(seq, hex)| (seq.parse().unwrap(), bytes(hex))).collect(),
        }
    };
    lines.map(vector).collect()
}

#[test]
fn what_openvpn_sent_opens_and_is_sealed_again_the_same() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 16);
    for Vector { name, keys, framing, compressed, fragments, time, payload, datagrams } in vectors {
        let mut parts = Fragments::new(1600);
        let mut whole = None;
        for (seq, sealed) in datagrams {
            let mut datagram = sealed.clone();
            let range = keys.open(&mut datagram).unwrap_or_else(|_| panic!("{name}"));
            let (id, body) = PacketId::parse(&datagram[range.clone()]).unwrap();
            assert_eq!((id.seq, id.time), (seq, time), "{name}");
            if payload == PING {
                assert_eq!(Told::of(body), Some(Told { framing, fragments }), "{name}");
            }
            whole = match fragments {
                true => {
                    let (fragment, part) = Fragment::parse(body).unwrap();
                    assert_eq!(fragment.emit(), body[..4], "{name}");
                    parts.part(Instant::now(), fragment, part).unwrap()
                }
                false => Some(body.to_vec()),
            };
            let length = datagram.len();
            datagram.truncate(range.end);
            datagram.resize(length, 0);
            let prefix = keys.layout().prefix();
            pad(&mut datagram[prefix..], range.len());
            keys.seal(&mut datagram, length);
            assert_eq!(datagram, sealed, "{name}");
        }
        let mut body = whole.unwrap_or_else(|| panic!("{name}: a part is missing"));
        match compressed {
            true => assert_eq!(framing.read(&mut body), Err(Misframed::Compressed), "{name}"),
            false => {
                assert_eq!(framing.read(&mut body.clone()), Ok(&payload[..]), "{name}");
                let mut again = vec![0; payload.len() + framing.most()];
                let length = framing.write(&payload, &[], &mut again);
                assert_eq!(again[..length], body, "{name}");
            }
        }
    }
}

#[test]
fn the_options_that_openvpn_sent_are_those_that_are_written_here() {
    let vectors = vectors();
    let reply = vectors.iter().find(|vector| vector.name == "occ-reply").unwrap();
    let Some(Occ::Reply(text)) = Occ::parse(&reply.payload) else { panic!() };
    let options = Options {
        mode: Mode::Tun,
        mtu: 1500,
        own: Some("10.1.0.1/32".parse().unwrap()),
        peer: Some("10.1.0.2".parse().unwrap()),
        direction: Some(0),
        cipher: CbcCipher::Aes256,
        digest: Digest::Sha256,
        framing: Framing::None,
        fragments: false,
    };
    assert_eq!(options.text().as_bytes(), text);
    assert_eq!(Occ::reply(&options.text()), reply.payload);
    let exit = vectors.iter().find(|vector| vector.name == "exit").unwrap();
    assert_eq!(Occ::parse(&exit.payload), Some(Occ::Exit));
    let upgrade = vectors.iter().find(|vector| vector.name == "upgrade").unwrap();
    assert_eq!((Occ::parse(&upgrade.payload), Occ::tund()), (Some(Occ::Tund), upgrade.payload.clone()));
}
