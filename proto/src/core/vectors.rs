//! Checks the code against the test vectors of PROTOCOL.md §1 to §4, computed by another implementation.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::core::guard::Probe;
use crate::core::key_id::KeyId;
use crate::core::lane::{Format, Head, Name, unmask};
use crate::crypto::aead::Aead;
use crate::crypto::exchange::{Initiator, Pattern, Responder};
use crate::crypto::keys::{DirectionKey, LinkKeys, Pair, Private, link_secret, public_of};
use crate::crypto::noise::Statics;
use crate::crypto::suite::{Cipher, Exchange};
use crate::crypto::wrap;
use crate::testing::Given;
use crate::wire::datagram::{Framing, Header, KEY_ID};
use crate::wire::handshake::{Envelope, Kind, Type, parts, prologue};
use crate::wire::vectors::{Vector, hex, vectors};

fn array<const N: usize>(vector: &Vector, key: &str) -> [u8; N] {
    vector.one(key).try_into().unwrap_or_else(|_| panic!("{} {key}: not {N} bytes", vector.name))
}

fn optional(vector: &Vector, key: &str) -> Option<[u8; 32]> {
    vector.all(key).first().map(|value| (*value).try_into().unwrap())
}

#[test]
fn link_secrets() {
    for vector in vectors("secret/") {
        let shared = optional(&vector, "shared");
        let pair = optional(&vector, "private").zip(optional(&vector, "peer-public"));
        let pair = pair.as_ref().map(|(private, peer_public)| Pair { private, peer_public });
        let secret = link_secret(shared.as_ref(), pair).unwrap();
        assert_eq!(hex(&*secret), hex(vector.one("secret")), "{}", vector.name);
    }
}

#[test]
fn masks() {
    for vector in vectors("mask/") {
        let keys = LinkKeys::new(&array(&vector, "secret"));
        assert_eq!(hex(&keys.mask(&array(&vector, "tag"))), hex(vector.one("mask")));
    }
}

#[test]
fn probes_of_the_guard() {
    for vector in vectors("loop/") {
        let keys = LinkKeys::new(&array(&vector, "secret"));
        let round = u32::from_be_bytes(array(&vector, "round"));
        let vlan = Some(u16::from_be_bytes(array(&vector, "vlan")));
        let probe = Probe { origin: array(&vector, "origin"), round, vlan };
        let frame = probe.frame(&keys.loops());
        assert_eq!(hex(&frame), hex(vector.one("frame")));
        assert_eq!(Probe::of(&frame, &keys.loops()), Some(probe));
    }
}

#[test]
fn key_ids() {
    for vector in vectors("key-id/") {
        let keys = LinkKeys::new(&array(&vector, "secret"));
        let time = u64::from_be_bytes(array(&vector, "time"));
        let key_id = KeyId::new(&keys, time, array(&vector, "random"));
        assert_eq!(hex(&key_id.0), hex(vector.one("key-id")));
    }
}

#[test]
fn static_datagrams() {
    let all = vectors("static/");
    assert_eq!(all.len(), 3);
    for vector in all {
        let keys = Arc::new(LinkKeys::new(&array(&vector, "secret")));
        let cipher = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm]
            .into_iter()
            .find(|cipher| vector.one("suite") == [*cipher as u8])
            .unwrap();
        let key_id: [u8; KEY_ID] = array(&vector, "key-id");
        let [lane] = array(&vector, "lane");
        let [direction] = array(&vector, "direction");
        let [kind] = array::<1>(&vector, "kind");
        let mut bytes = [kind << 4 | lane, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(vector.one("counter"));
        let header = Header::parse(bytes);
        let body = vector.one("body");

        let aead = match lane {
            0 => keys.static_key(cipher, direction, &key_id),
            _ => {
                let named = array(&vector, "named");
                Aead::new(cipher, &keys.static_lane_bytes(cipher, direction, &key_id, lane, &named))
            }
        };
        let head = Head { name: Name::KeyId(KeyId(key_id)), header };
        let datagram = Format::new(Framing::Static, keys.clone()).datagram(head, &aead, body).unwrap();
        assert_eq!(hex(&datagram), hex(vector.one("datagram")), "{}", vector.name);

        let tag = Framing::Static.tag(&datagram).unwrap();
        assert_eq!(unmask(&keys.mask(&tag), &datagram), (KeyId(key_id), header));
    }
}

#[test]
fn handshake_keys() {
    for vector in vectors("handshake/") {
        let keys = Arc::new(LinkKeys::new(&array(&vector, "secret")));
        assert_eq!(hex(&keys.probe(array(&vector, "random"))[..8]), hex(vector.one("probe")));
        assert_eq!(hex(&*keys.wrap()), hex(vector.one("wrap")));
        assert_eq!(hex(&*keys.psk()), hex(vector.one("psk")));
    }
}

#[test]
fn exchanges() {
    let all = vectors("exchange/");
    assert_eq!(all.len(), 4);
    for vector in all {
        let keys = LinkKeys::new(&array(&vector, "secret"));
        let (psk, [instance, seq]) = (keys.psk(), ["instance", "seq"].map(|key| array::<8>(&vector, key)));
        let (seq, token) = (u64::from_be_bytes(seq), array::<16>(&vector, "token"));
        let seeds = ["kem-seed", "kem-message"].map(|key| vector.all(key).concat());
        let exchange = if seeds[0].is_empty() { Exchange::X25519 } else { Exchange::Hybrid };
        let pattern = |own: &str, peer: &str| {
            let statics = match (optional(&vector, own), optional(&vector, peer)) {
                (Some(private), Some(peer)) => {
                    Statics::Pair { private: Private::new(private).into(), peer_public: public_of(&peer) }
                }
                _ => Statics::None,
            };
            Pattern { statics, exchange }
        };
        let head = prologue(exchange, &instance, seq, &token);
        let [ephemerals, payloads, randoms] = ["ephemeral", "payload", "random"].map(|key| vector.all(key));
        let given = [0, 1].map(|end| [&seeds[end], ephemerals[end]].concat());
        let mut given = [0, 1].map(|end| Given(&given[end]));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let own = pattern("initiator", "responder");
        let initiator = Initiator::start(&own, &psk, &head, payloads[0], &mut given[0], &mut first).unwrap();
        let own = pattern("responder", "initiator");
        let (payload, responder) = Responder::read(&own, &psk, &head, &first).unwrap();
        assert_eq!(payload, payloads[0]);
        let at_responder = responder.write(payloads[1], &mut given[1], &mut second).unwrap();
        let (payload, at_initiator) = initiator.read(&second).unwrap();
        assert_eq!(payload, payloads[1]);
        for split in [at_initiator, at_responder] {
            let halves = [&split.initiator_to_responder, &split.responder_to_initiator];
            assert_eq!(
                halves.map(|key| hex(&***key)).to_vec(),
                vector.all("direction-key").iter().map(|key| hex(key)).collect::<Vec<_>>()
            );
        }
        let in_parts = randoms.len() == 6;
        let sent =
            [(Kind::Initiation, &first), (Kind::Answer, &second)].into_iter().flat_map(|(kind, message)| {
                let whole = [(0, &message[..])].into_iter().filter(move |_| !in_parts);
                let parts = parts(message).filter(move |_| in_parts);
                whole.chain(parts).map(move |(part, message)| (Type { exchange, kind, part }, message))
            });
        let datagrams = vector.all("datagram");
        assert_eq!(datagrams.len(), randoms.len());
        for (((of, message), random), datagram) in sent.zip(randoms).zip(datagrams) {
            let mut plaintext = Vec::new();
            Envelope { of, instance, seq, token, message }
                .emit(datagram.len() - wrap::OVERHEAD, &mut plaintext);
            assert_eq!(hex(&wrap::seal(&keys, &plaintext, &mut Given(random))), hex(datagram));
        }
    }
}

#[test]
fn session_datagrams() {
    let all = vectors("session/");
    assert_eq!(all.len(), 2);
    for vector in all {
        let keys = Arc::new(LinkKeys::new(&array(&vector, "secret")));
        let cipher = if vector.one("suite") == [1] { Cipher::ChaCha20Poly1305 } else { Cipher::Aes256Gcm };
        let [[slot], [lane], [kind]] = ["slot", "lane", "kind"].map(|key| array::<1>(&vector, key));
        let mut bytes = [slot << 6 | kind << 4 | lane, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(vector.one("counter"));
        let header = Header::parse(bytes);
        let key = DirectionKey::new(Zeroizing::new(array(&vector, "direction-key")));
        let (format, head) = (Format::new(Framing::Session, keys), Head { name: Name::Slot(slot), header });
        let datagram = format.datagram(head, &key.lane(cipher, lane), vector.one("body")).unwrap();
        assert_eq!(hex(&datagram), hex(vector.one("datagram")), "{}", vector.name);
    }
}
