//! What comes out of a datagram: the way in.

use std::time::Instant;

use super::orders::Name;
use super::{Lane, Notice, Received, Sink, deliver, fits};
use crate::core::limits::{PATH_INTERVAL, SIGN_INTERVAL};
use crate::core::path::Path;
use crate::core::sid::Sid;
use crate::core::stats::Drop;
use crate::crypto::keys::MASK;
use crate::crypto::wrap;
use crate::wire::datagram::{Framing, HEADER, Header, Kind, SID};

impl Lane {
    pub(super) fn open(
        &mut self,
        now: Instant,
        from: Path,
        datagram: &mut [u8],
        again: bool,
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let framing = self.settings.framing;
        let tag = framing.tag(datagram).ok_or(Drop::TooShort)?;
        let mask = self.settings.keys.mask(&tag);
        let (name, header) = match framing {
            Framing::Static => {
                let (sid, header) = unmask(&mask, datagram);
                (Name::Sid(sid), header)
            }
            Framing::Session => {
                let header = unmask_header(&mask, datagram);
                (Name::Slot(header.slot), header)
            }
        };
        let Some(index) = self.receive.iter().position(|key| key.name == name) else {
            return match name {
                Name::Sid(_) if again => Err(Drop::Stale),
                Name::Sid(sid) => self.hand_over(sid, from, datagram, sink),
                Name::Slot(_) => Err(Drop::Stranger),
            };
        };
        let key = &mut self.receive[index];
        let is_static = framing == Framing::Static;
        if is_static && header.slot != 0 || header.lane != self.settings.lane || header.kind == Kind::Reserved
        {
            return Err(Drop::Malformed);
        }
        if !key.window.admits(header.counter) {
            return Err(Drop::Replayed);
        }
        let range = framing.body(datagram.len());
        let sealed = &mut datagram[range.start..];
        key.aead.open(header.counter, &header.emit(), sealed).map_err(|_| Drop::BadTag)?;
        if !key.window.accept(header.counter) {
            return Err(Drop::Replayed);
        }
        self.stats.datagrams_in += 1;
        // A full queue must not lose the confirmation: the next datagram tries again.
        if let (false, Name::Slot(_)) = (key.heard, name) {
            key.heard = sink.notice(Notice::Confirmed { serial: key.serial });
        }
        let newest = index == 0 && key.window.is_newest(header.counter);
        let body = &datagram[range];
        let mut result = Ok(());
        let (stats, agreed, inner) = (&mut self.stats, self.agreed, &mut self.settings.inner);
        let mut forward = |frame: &[u8]| deliver(stats, agreed, inner, frame, sink);
        match header.kind {
            Kind::Block => key.blocks.block(now, header.counter, body, &mut forward),
            Kind::Frame if !fits(body, self.settings.max_frame) => {
                key.blocks.other(header.counter, &mut forward);
                result = Err(Drop::TooBig);
            }
            Kind::Frame => {
                key.blocks.other(header.counter, &mut forward);
                forward(body);
            }
            Kind::Control | Kind::Reserved => {
                key.blocks.other(header.counter, &mut forward);
                if !sink.notice(Notice::Control { from, body: body.to_vec() }) {
                    result = Err(Drop::QueueFull);
                }
            }
        }
        if newest && self.endpoint.is_some_and(|endpoint| !endpoint.covers(&from)) {
            self.notice_move(now, from, sink);
        }
        result
    }

    /// A datagram of no live sid: the link decides, if the check says that it is worth a derivation.
    fn hand_over(&mut self, sid: Sid, from: Path, datagram: &[u8], sink: &mut impl Sink) -> Result<(), Drop> {
        if !sid.is_valid(&self.settings.keys) {
            return Err(Drop::Stranger);
        }
        let received = Received { from, datagram: datagram.to_vec() };
        if sink.notice(Notice::Unknown { sid, received }) { Ok(()) } else { Err(Drop::QueueFull) }
    }

    /// A handshake goes to the link once. What is a copy or does not verify ends here, so that however
    /// much of it comes, it crowds nothing out.
    pub(super) fn hand_over_handshake(
        &mut self,
        from: Path,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let random = *datagram.first_chunk().ok_or(Drop::TooShort)?;
        if self.handshakes.contains(random) {
            return Err(Drop::Replayed);
        }
        wrap::open(&self.settings.keys, datagram).ok_or(Drop::BadTag)?;
        let received = Received { from, datagram: datagram.to_vec() };
        if !sink.notice(Notice::Handshake(received)) {
            return Err(Drop::QueueFull);
        }
        self.handshakes.insert(random);
        Ok(())
    }

    /// Whether a datagram has a sid of static mode.
    pub(super) fn is_static(&self, datagram: &[u8]) -> bool {
        let keys = &self.settings.keys;
        let tag = Framing::Static.tag(datagram);
        tag.is_some_and(|tag| unmask(&keys.mask(&tag), datagram).0.is_valid(keys))
    }

    /// The datagram is the other key mode's.
    pub(super) fn notice_other_mode(
        &mut self,
        now: Instant,
        from: Path,
        length: usize,
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        if self.other_mode_at.is_none_or(|at| now.saturating_duration_since(at) >= SIGN_INTERVAL)
            && sink.notice(Notice::OtherMode { from, length })
        {
            self.other_mode_at = Some(now);
        }
        Err(Drop::Stranger)
    }

    fn notice_move(&mut self, now: Instant, from: Path, sink: &mut impl Sink) {
        if self.moved_at.is_none_or(|at| now.saturating_duration_since(at) >= PATH_INTERVAL)
            && sink.notice(Notice::Moved { from })
        {
            self.moved_at = Some(now);
        }
    }
}

/// Reads sid and header of a static datagram that is long enough to have a tag.
pub fn unmask(mask: &[u8; MASK], datagram: &[u8]) -> (Sid, Header) {
    let mut head = *mask;
    for (byte, masked) in head.iter_mut().zip(datagram) {
        *byte ^= masked;
    }
    let mut sid = [0; SID];
    let mut header = [0; HEADER];
    sid.copy_from_slice(&head[..SID]);
    header.copy_from_slice(&head[SID..]);
    (Sid(sid), Header::parse(header))
}

fn unmask_header(mask: &[u8; MASK], datagram: &[u8]) -> Header {
    let mut header = [0; HEADER];
    for (byte, (masked, mask)) in header.iter_mut().zip(datagram.iter().zip(mask)) {
        *byte = masked ^ mask;
    }
    Header::parse(header)
}
