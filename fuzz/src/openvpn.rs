use std::time::Duration;

use tund::core::openvpn::fragments::Fragments;
use tund::core::openvpn::options::Options;
use tund::crypto::cbc_hmac::{CbcCipher, Digest};
use tund::packet::layer::Mode;
use tund::wire::openvpn::{Fragment, Framing, Occ, PacketId, Told};

use crate::script::{Script, beginning};

const FRAMINGS: [Framing; 4] = [Framing::None, Framing::CompLzo, Framing::Stub, Framing::StubV2];
/// Longest fragmented packet.
const LONGEST: usize = 2000;

/// Plaintexts of datagrams, as if authentic: packet id, fragments, framing, messages.
pub fn openvpn(data: &[u8]) {
    let mut script = Script(data);
    let framing = FRAMINGS[usize::from(script.byte()) % FRAMINGS.len()];
    let mut fragments = Fragments::new(LONGEST);
    let mut now = beginning();
    while !script.is_over() {
        now += Duration::from_millis(u64::from(script.byte()) * 20);
        let plain = script.counted();
        let Some((id, body)) = PacketId::parse(plain) else { continue };
        assert_eq!(plain[..8], id.emit());
        if let Some(told) = Told::of(body) {
            assert!(!told.fragments || Fragment::parse(body).is_some());
        }
        unframe(framing, body);
        let Some((fragment, part)) = Fragment::parse(body) else { continue };
        // The receiver ignores fields that belong to another kind of header.
        assert_eq!(Fragment::parse(&fragment.emit()), Some((fragment, &[][..])));
        if let Ok(Some(whole)) = fragments.part(now, fragment, part) {
            assert!(whole.len() <= LONGEST.max(part.len()));
            unframe(framing, &whole);
        }
    }
}

fn unframe(framing: Framing, body: &[u8]) {
    let mut copy = body.to_vec();
    let Ok(payload) = framing.read(&mut copy) else { return };
    let mut again = vec![0; payload.len() + framing.most()];
    let length = framing.write(payload, &[], &mut again);
    // A sender escapes only where it must.
    let is_escaped = framing == Framing::StubV2 && body.len() != length;
    if !body.is_empty() && !is_escaped {
        assert_eq!(again[..length], *body);
    }
    if let Some(Occ::Reply(text)) = Occ::parse(payload) {
        let options = Options {
            mode: Mode::Tun,
            mtu: 1500,
            own: None,
            peer: None,
            direction: None,
            cipher: CbcCipher::Aes256,
            digest: Digest::Sha256,
            framing,
            fragments: false,
        };
        assert!(options.differences(text).len() <= 8);
    }
}
