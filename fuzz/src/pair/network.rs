//! The network's actions, and frames that carry a serial number.

use std::net::SocketAddr;

use super::{Flying, NONE, UNDER_WAY, World};
use crate::script::Script;
use tund::core::lane::Notice;
use tund::crypto::wrap;

/// Length of the shortest numbered packet: headers and number.
pub(super) const SHORTEST: usize = 32;

/// An outer address. The ends start at 0 and 1; 2 and 3 belong to nobody.
pub(super) fn address(which: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, which as u8 + 1], 1417))
}

/// A unique UDP packet from an end's device.
pub(super) fn packet(from: usize, serial: u32, length: usize) -> Vec<u8> {
    let mut packet = vec![from as u8; length];
    let (ip, udp) = (length as u16, length as u16 - 20);
    packet[..12].copy_from_slice(&[0x45, 0, (ip >> 8) as u8, ip as u8, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[12..16].copy_from_slice(&[10, 0, 0, from as u8 + 1]);
    packet[16..20].copy_from_slice(&[10, 0, 0, 2 - from as u8]);
    packet[20..28].copy_from_slice(&[0, 7, 0, 7, (udp >> 8) as u8, udp as u8, 0, 0]);
    packet[28..32].copy_from_slice(&serial.to_be_bytes());
    packet
}

/// Returns a packet's number.
pub(super) fn serial(packet: &[u8]) -> Option<u32> {
    packet.get(28..)?.first_chunk().copied().map(u32::from_be_bytes)
}

impl World {
    /// Bytes from someone without the key have no effect and get no answer.
    pub(super) fn stranger(&mut self, to: usize, bytes: &[u8]) {
        self.without_effect(Flying { from: address(2), to, bytes: bytes.to_vec() });
    }

    pub(super) fn take(&mut self, number: u8) -> Option<Flying> {
        let count = self.under_way.len().max(1);
        self.under_way.remove(usize::from(number) % count)
    }

    pub(super) fn deliver(&mut self, number: u8) {
        if let Some(flying) = self.take(number) {
            self.receive(flying);
        }
    }

    /// Delivers a copy; from elsewhere if the number is odd.
    pub(super) fn repeat(&mut self, number: u8) {
        let Some(flying) = self.take(number / 2) else { return };
        let from = if number & 1 == 0 { flying.from } else { address(3) };
        self.under_way.push_back(flying.clone());
        self.receive(Flying { from, ..flying });
    }

    /// Records a datagram for ever; withholds it if the number is odd.
    pub(super) fn record(&mut self, number: u8) {
        let Some(flying) = self.take(number / 2) else { return };
        if number & 1 == 0 {
            self.under_way.push_back(flying.clone());
        }
        if self.record.len() < UNDER_WAY {
            self.record.push(flying);
        }
    }

    /// Replays a recorded datagram; from elsewhere if the number is odd.
    pub(super) fn replay(&mut self, number: u8) {
        let count = self.record.len().max(1);
        let Some(flying) = self.record.get(usize::from(number / 2) % count).cloned() else { return };
        let from = if number & 1 == 0 { flying.from } else { address(3) };
        self.receive(Flying { from, ..flying });
    }

    pub(super) fn change(&mut self, script: &mut Script<'_>) {
        let (number, at, flip, cut) = (script.byte(), script.number(), script.byte(), script.byte());
        let Some(mut flying) = self.take(number) else { return };
        self.under_way.push_back(flying.clone());
        let before = flying.bytes.clone();
        flying.bytes.truncate(flying.bytes.len() - usize::from(cut & 31).min(flying.bytes.len()));
        let at = usize::from(at) % flying.bytes.len().max(1);
        if let Some(byte) = flying.bytes.get_mut(at) {
            *byte ^= flip;
        }
        if flying.bytes != before {
            self.without_effect(flying);
        }
    }

    pub(super) fn reflect(&mut self, number: u8) {
        let Some(flying) = self.take(number) else { return };
        self.under_way.push_back(flying.clone());
        let reflected = Flying { from: address(2), to: 1 - flying.to, ..flying };
        // A restarted end cannot tell its own earlier call from the peer's.
        match wrap::is_probe(&self.ends[0].seen.keys, &reflected.bytes) {
            true => drop(self.receive(reflected)),
            false => self.without_effect(reflected),
        }
    }

    /// Reports an error as from the host, a router, or a forger.
    pub(super) fn trouble(&mut self, which: usize, choice: u8) {
        let to = self.ends[1 - which].address;
        let notice = match choice % 3 {
            0 => Notice::TooLong,
            1 => Notice::Refused { to },
            _ => Notice::SourceLost { path: to.into() },
        };
        self.ends[which].out.notices.push_back(notice);
        self.settle();
    }

    fn without_effect(&mut self, flying: Flying) {
        assert_eq!(self.receive(flying), NONE, "what the peer did not send had an effect");
    }
}
