//! The code against the test vectors of PROTOCOL.md §1 to §4.

use crate::config::Cipher;
use crate::core::lane::{seal, unmask};
use crate::core::sid::Sid;
use crate::crypto::keys::{LinkKeys, Pair, link_secret};
use crate::wire::datagram::{BODY, Header, OVERHEAD, SID};
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
fn sids() {
    for vector in vectors("sid/") {
        let keys = LinkKeys::new(&array(&vector, "secret"));
        let time = u64::from_be_bytes(array(&vector, "time"));
        let sid = Sid::new(&keys, time, array(&vector, "random"));
        assert_eq!(hex(&sid.0), hex(vector.one("sid")));
    }
}

#[test]
fn static_datagrams() {
    let all = vectors("static/");
    assert_eq!(all.len(), 3);
    for vector in all {
        let keys = LinkKeys::new(&array(&vector, "secret"));
        let cipher = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm]
            .into_iter()
            .find(|cipher| vector.one("suite") == [*cipher as u8])
            .unwrap();
        let sid: [u8; SID] = array(&vector, "sid");
        let [lane] = array(&vector, "lane");
        let [direction] = array(&vector, "direction");
        let [kind] = array::<1>(&vector, "kind");
        let mut bytes = [kind << 4 | lane, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(vector.one("counter"));
        let header = Header::parse(bytes);
        let body = vector.one("body");

        let mut datagram = vec![0; OVERHEAD + body.len()];
        datagram[..SID].copy_from_slice(&sid);
        datagram[SID..BODY].copy_from_slice(&header.emit());
        datagram[BODY..BODY + body.len()].copy_from_slice(body);
        let aead = keys.static_key(cipher, direction, &sid, lane);
        seal(&keys, &aead, header, &mut datagram).unwrap();
        assert_eq!(hex(&datagram), hex(vector.one("datagram")), "{}", vector.name);

        let tag = crate::wire::datagram::tag(&datagram).unwrap();
        assert_eq!(unmask(&keys.mask(&tag), &datagram), (Sid(sid), header));
    }
}
