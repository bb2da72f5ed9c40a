//! The inward half: opens datagrams in OpenVPN's format.

use std::time::Instant;

use super::fragments::Fragments;
use super::lane::{Notice as OpenVpnNotice, Receive, Settings};
use super::window::{Judged, Window};
use crate::core::lane::{Arrived, FramesIn, Notice, Sink};
use crate::core::limits::{DERIVATION, OLD, SIGN_INTERVAL, WINDOW};
use crate::core::path::Path;
use crate::core::rate::RateLimiter;
use crate::core::stats::{DropReason, Stats};
use crate::crypto::cbc_hmac::{CbcHmac, IvMark, Layout};
use crate::wire::openvpn::{
    FRAGMENT_HEADER, Fragment, Framing, Misframed, Occ, PACKET_ID, PING, PacketId, Told,
};

/// One lane's inward half.
pub struct Inward {
    settings: Settings,
    layout: Layout,
    keys: CbcHmac,
    mark: IvMark,
    /// `None`: to be detected from the peer's first ping.
    framing: Option<Framing>,
    window: Window,
    fragments: Fragments,
    /// The peer's frames and their rules.
    pub frames: FramesIn,
    /// Limits datagrams of starts that are not accepted.
    other: RateLimiter,
    misframed_at: Option<Instant>,
}

/// The path and mark of a datagram.
#[derive(Clone, Copy)]
struct Origin {
    from: Path,
    ecn: u8,
}

impl Inward {
    /// Accepts nothing until the link says so.
    pub fn new(settings: Settings) -> Self {
        Self {
            layout: settings.options.layout(),
            keys: settings.opening(),
            mark: settings.mark(),
            framing: (!settings.detect).then_some(settings.options.framing),
            window: Window::new(WINDOW as usize),
            fragments: Fragments::new(settings.max_frame + Framing::StubV2.most()),
            frames: FramesIn::new(settings.inner.clone()),
            settings,
            other: RateLimiter::new(OLD, DERIVATION),
            misframed_at: None,
        }
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.frames.stats;
        stats.datagrams_lost += self.window.missing();
        stats.add(DropReason::Incomplete, self.fragments.given_up());
        stats
    }

    /// Carries out the link's decision.
    pub fn handle_command(&mut self, now: Instant, command: Receive, sink: &mut impl Sink) {
        match command {
            Receive::Begin { time, after } => self.window.begin(time, after),
            Receive::Again { from, mut plain } => {
                let result = self.take(now, Origin { from, ecn: 0 }, &mut plain, true, sink);
                self.frames.count(result);
            }
            Receive::Endpoint(endpoint) => self.frames.endpoint = Some(endpoint),
            Receive::Agreed(agreed) => self.frames.agreed = agreed,
            Receive::Sources(sources) => self.frames.inner.set_sources(sources),
            Receive::Hold(held) => self.frames.inner.hold(held),
            Receive::Probe(origin, round) => self.frames.probe(now, origin, round, sink),
        }
    }

    /// Opens datagrams received together.
    pub fn handle_datagrams(&mut self, now: Instant, arrived: Arrived<'_>, sink: &mut impl Sink) {
        let Arrived { bytes, stride, ecn, from } = arrived;
        if bytes.is_empty() {
            self.frames.stats.drop(DropReason::TooShort);
        }
        for datagram in bytes.chunks_mut(stride.max(1)) {
            if !self.handle_datagram(now, Arrived { bytes: datagram, stride, ecn, from }, sink) {
                self.frames.stats.drop(DropReason::Stranger);
            }
        }
    }

    /// Opens one datagram. False: it is not the peer's in this format, and unchanged.
    pub fn handle_datagram(&mut self, now: Instant, arrived: Arrived<'_>, sink: &mut impl Sink) -> bool {
        let Arrived { bytes, ecn, from, .. } = arrived;
        self.frames.inner.set_now(now);
        let result = self.open(now, Origin { from, ecn }, bytes, sink);
        let is_ours = result != Err(DropReason::Stranger);
        if is_ours {
            self.frames.count(result);
        }
        is_ours
    }

    /// Whether a datagram of this format may have this length in bytes.
    pub fn fits(&self, length: usize) -> bool {
        self.layout.fits(length)
    }

    fn open(
        &mut self,
        now: Instant,
        origin: Origin,
        datagram: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let range = self.keys.open(datagram).map_err(|_| DropReason::Stranger)?;
        let (outer, inner) = datagram.split_at_mut(range.start);
        let plain = &mut inner[..range.len()];
        let id = *plain.first_chunk::<PACKET_ID>().ok_or(DropReason::Malformed)?;
        if self.mark.is_own(id, &outer[self.layout.mac..]) {
            return Err(DropReason::Reflected);
        }
        self.take(now, origin, plain, false, sink)
    }

    /// Handles a verified datagram, if it is new.
    fn take(
        &mut self,
        now: Instant,
        origin: Origin,
        plain: &mut [u8],
        again: bool,
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let (id, _) = PacketId::parse(plain).ok_or(DropReason::Malformed)?;
        match self.window.judge(now, id) {
            Judged::New => {}
            Judged::Replayed => return Err(DropReason::Replayed),
            Judged::OtherStart if again => return Err(DropReason::Stale),
            Judged::OtherStart => return self.hand_over(now, origin.from, id, plain, sink),
        }
        self.frames.stats.datagrams_in += 1;
        if self.frames.strays(&origin.from) && self.window.is_newest(id) {
            self.frames.notice_move(now, origin.from, sink);
        }
        self.look_at_framing(now, &plain[PACKET_ID..], sink);
        self.take_body(now, origin, &mut plain[PACKET_ID..], sink)
    }

    /// Hands a datagram of a start that is not accepted to the link.
    fn hand_over(
        &mut self,
        now: Instant,
        from: Path,
        id: PacketId,
        plain: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        if !self.other.allow(now) {
            return Err(DropReason::RateLimited);
        }
        let mut body = plain[PACKET_ID..].to_vec();
        let load = body.get_mut(self.settings.options.fragment_header()..).and_then(|body| {
            let payload = self.framing.unwrap_or(Framing::None).read(body).ok()?;
            match Occ::parse(payload)? {
                Occ::Load(length) => Some(length),
                _ => None,
            }
        });
        sink.tell(Notice::OpenVpn(OpenVpnNotice::OtherStart { from, id, load, plain: plain.to_vec() }))
    }

    /// Detects the sender's framing from a ping or a message about options.
    fn look_at_framing(&mut self, now: Instant, body: &[u8], sink: &mut impl Sink) {
        let Some(told) = Told::of(body) else { return };
        let is_same =
            |framing| framing == told.framing || (framing, told.framing) == (Framing::StubV2, Framing::None);
        let known = self.framing.is_some_and(is_same) && told.fragments == self.settings.options.fragments;
        if known || self.is_recent(now) || !sink.notice(Notice::OpenVpn(OpenVpnNotice::Framed(told))) {
            return;
        }
        if self.settings.detect {
            self.framing = Some(told.framing);
        }
        self.misframed_at = Some(now).filter(|_| !self.settings.detect);
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.misframed_at.is_some_and(|at| now.saturating_duration_since(at) < SIGN_INTERVAL)
    }

    fn take_body(
        &mut self,
        now: Instant,
        origin: Origin,
        body: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        if !self.settings.options.fragments {
            return self.take_whole(now, origin, body, sink);
        }
        let (fragment, _) = Fragment::parse(body).ok_or(DropReason::Malformed)?;
        let part = &mut body[FRAGMENT_HEADER..];
        if fragment == Fragment::Whole {
            return self.take_whole(now, origin, part, sink);
        }
        match self.fragments.part(now, fragment, part).map_err(|_| DropReason::Malformed)? {
            Some(mut whole) => self.take_whole(now, origin, &mut whole, sink),
            None => Ok(()),
        }
    }

    fn take_whole(
        &mut self,
        now: Instant,
        origin: Origin,
        body: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropReason> {
        let payload = match self.framing.unwrap_or(Framing::None).read(body) {
            Ok(payload) => payload,
            Err(Misframed::Unknown) => return Err(DropReason::Malformed),
            Err(Misframed::Compressed) => {
                if !self.is_recent(now) && sink.notice(Notice::OpenVpn(OpenVpnNotice::Compressed)) {
                    self.misframed_at = Some(now);
                }
                return Err(DropReason::Malformed);
            }
        };
        if payload.is_empty() || payload == PING {
            return Ok(());
        }
        if Occ::parse(payload).is_some() {
            let notice = OpenVpnNotice::Message { from: origin.from, payload: payload.to_vec() };
            return sink.tell(Notice::OpenVpn(notice));
        }
        if payload.len() > self.settings.max_frame {
            return Err(DropReason::TooBig);
        }
        self.frames.deliver(payload, origin.ecn, sink);
        Ok(())
    }
}
