//! Whatever a holder of all keys can write.

use super::{Flying, World};
use crate::script::Script;
use tund::config::KeyMode;
use tund::core::hello;
use tund::core::key_id::KeyId;
use tund::core::lane::{Format, Head, Key, Name};
use tund::crypto::wrap;
use tund::wire::control::{self, Hello, Message};
use tund::wire::datagram::{Framing, Header, Kind};
use tund_proto::testing::Dice;

use super::end::{CIPHER, settings};

/// Longest handshake plaintext the target makes.
const LONGEST: usize = 560;

impl World {
    pub(super) fn mad_peer(&mut self, to: usize, script: &mut Script<'_>) {
        let (kind, which) = (script.byte(), usize::from(script.byte()));
        self.mad = true;
        let bytes = match self.mode {
            KeyMode::Static => self.under_key_id(to, kind, which, script),
            KeyMode::Handshake if kind & 1 == 0 => {
                let plaintext = script.counted();
                let plaintext = plaintext.get(..LONGEST).unwrap_or(plaintext);
                wrap::seal(&self.ends[to].seen.keys, plaintext, &mut Dice(u64::from(script.number())))
            }
            KeyMode::Handshake => {
                let Some(bytes) = self.under_session(to, which, script) else { return };
                bytes
            }
            KeyMode::OpenVpn => unreachable!("these ends speak tund's own format"),
        };
        let from = self.ends[1 - to].address;
        self.receive(Flying { from, to, bytes });
    }

    fn under_session(&self, to: usize, which: usize, script: &mut Script<'_>) -> Option<Vec<u8>> {
        let receive = &self.ends[to].receive;
        let Key::Slot { slot, cipher, key, .. } = receive.get(which % receive.len().max(1))? else {
            return None;
        };
        let [_, counter @ ..] = [0, 0, 0, script.byte(), script.byte()];
        let first = slot << 6 | script.byte() & 0x3f;
        let header = Header::parse([first, counter[0], counter[1], counter[2], counter[3]]);
        let aead = key.lane(*cipher, header.lane);
        let format = Format::new(Framing::Session, self.ends[to].seen.keys.clone());
        let head = Head { name: Name::Slot(header.slot), header };
        let sealed = format.datagram(head, &aead, script.counted());
        assert!(sealed.is_ok(), "{sealed:?}");
        sealed.ok()
    }

    /// Under a live key id or a new one: any body, or a hello that names what the end drew.
    fn under_key_id(&self, to: usize, kind: u8, which: usize, script: &mut Script<'_>) -> Vec<u8> {
        let end = &self.ends[to];
        let live = end.receive.get(which % (end.receive.len() + 1));
        let key_id = match live {
            Some(Key::KeyId(key_id)) => *key_id,
            Some(Key::Slot { .. }) | None => {
                let offset = i64::from(script.number() as i16) * 1_000_000;
                let time = self.now.wall.wrapping_add_signed(offset);
                KeyId::new(&end.seen.keys, time, [script.byte() & 3; 4])
            }
        };
        let counter = u32::from(script.number());
        let (header, body) = if kind & 1 == 0 {
            let first = [script.byte() & 0x3f, 0, 0, 0, 0];
            (Header { counter, ..Header::parse(first) }, script.counted().to_vec())
        } else {
            let mut body = Vec::new();
            control::encode(&Message::Hello(self.mad_hello(to, kind, script)), &mut body);
            (Header { slot: 0, kind: Kind::Control, lane: 0, counter }, body)
        };
        let aead = end.seen.keys.static_key(CIPHER, 1 - to as u8, &key_id.0);
        let format = Format::new(Framing::Static, end.seen.keys.clone());
        let sealed = format.datagram(Head { name: Name::KeyId(key_id), header }, &aead, &body);
        assert!(sealed.is_ok(), "{sealed:?}");
        sealed.unwrap_or_default()
    }

    fn mad_hello(&self, to: usize, kind: u8, script: &mut Script<'_>) -> Hello {
        let own = &self.ends[to].seen.own;
        let named = usize::from(script.byte()) % (own.len() + 1);
        let heard = match own.get(named) {
            Some(Key::KeyId(key_id)) => Some(key_id.0),
            Some(Key::Slot { .. }) | None => None,
        };
        let fits = if kind & 4 == 0 { 1 - to } else { to };
        let hello = hello::own(&settings(self.mode, fits), 1463, kind & 2 != 0);
        Hello { heard, padding: usize::from(script.byte()) * 2, ..hello }
    }
}
