//! What may pass a routed link, and what is modified on the way. A bridged link carries every frame unchanged.

use std::net::IpAddr;
use std::time::Instant;

use super::guard::{Guard, Offenders, Origin, Sighting, Top};
use super::path::Path;
use super::settings::LinkSettings;
use super::sources::Sources;
use super::stats::DropReason;
use crate::crypto::keys::ProbeKey;
use crate::crypto::stack::cleanly;
use crate::packet::ip::{self, TCP, UDP};
use crate::packet::layer::{Layer, Mode};
use crate::packet::traffic_class::{self, Arrival};
use crate::packet::{clamp, too_big};

/// Replies to oversized packets between two reports.
const ANSWERS: u32 = 100;

/// The rules for inner packets.
#[derive(Debug, Clone)]
pub struct InnerPolicy {
    /// `None`: Ethernet frames.
    routed: Option<Routed>,
    /// Bridged links only.
    guard: Option<Box<Guard>>,
    scratch: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Routed {
    /// Largest packet in bytes.
    mtu: usize,
    mss_clamp: bool,
    /// Packet size to which TCP's MSS is clamped, in bytes.
    clamp: usize,
    /// The peer's addresses, used as sources of replies to the device: the host rejects its own from there.
    peers: Vec<IpAddr>,
    /// Source addresses accepted from the peer; `None`: any.
    sources: Option<Sources>,
    answers: u32,
}

impl InnerPolicy {
    /// The rules of a link; this key identifies its own probes.
    pub fn new(link: &LinkSettings, probes: impl FnOnce() -> ProbeKey) -> Self {
        let guard = link.guard.as_ref();
        match link.mode {
            Mode::Tun => Self::routed(link.mtu, link.mss_clamp, link.peers.clone()),
            Mode::Tap => Self::bridged(guard.map(|rules| Guard::new(rules, cleanly(probes)))),
        }
    }

    /// A bridged link.
    pub fn bridged(guard: Option<Guard>) -> Self {
        Self { routed: None, guard: guard.map(Box::new), scratch: Vec::new() }
    }

    /// A routed link with packets of at most `mtu` bytes, to a peer with these addresses.
    pub fn routed(mtu: u32, mss_clamp: bool, peers: Vec<IpAddr>) -> Self {
        let mtu = mtu as usize;
        let routed = Routed { mtu, mss_clamp, clamp: mtu, peers, sources: None, answers: ANSWERS };
        Self { routed: Some(routed), guard: None, scratch: Vec::with_capacity(mtu) }
    }

    /// Clamps the MSS of TCP connections to packets of `mtu` bytes.
    #[must_use]
    pub fn clamped_to(mut self, mtu: usize) -> Self {
        if let Some(routed) = &mut self.routed {
            routed.clamp = mtu.min(routed.mtu);
        }
        self
    }

    /// The outermost header of frames.
    pub fn layer(&self) -> Layer {
        if self.routed.is_some() { Layer::Ip } else { Layer::Ethernet }
    }

    /// Source addresses accepted from the peer; `None`: any.
    pub fn set_sources(&mut self, sources: Option<Sources>) {
        if let Some(routed) = &mut self.routed {
            routed.sources = sources;
        }
    }

    /// Shares the known hosts of a bridged link with `other`.
    pub fn share_hosts(&mut self, other: &Self) {
        if let (Some(guard), Some(other)) = (&mut self.guard, &other.guard) {
            guard.share_tables(other);
        }
    }

    /// Sets the time of the frames that follow.
    pub fn set_now(&mut self, now: Instant) {
        self.guard.iter_mut().for_each(|guard| guard.set_now(now));
    }

    /// The guard's offenders since the last call.
    pub fn offenders(&self) -> Offenders {
        self.guard.as_ref().map_or_else(Offenders::default, |guard| guard.offenders())
    }

    /// The busiest senders in this direction over the last minute, on a bridged link.
    pub fn talkers(&self) -> Top {
        self.guard.as_ref().map_or_else(Top::default, |guard| guard.talkers())
    }

    /// Blocks all frames of a bridged link, or passes them again.
    pub fn hold(&mut self, held: bool) {
        self.guard.iter_mut().for_each(|guard| guard.hold(held));
    }

    /// Returns the guard's probes for the device.
    pub fn probes(&self, origin: Origin, round: u32) -> Vec<Vec<u8>> {
        self.guard.as_ref().map_or_else(Vec::new, |guard| guard.probes(origin, round))
    }

    /// Returns the guard's probe that the last frame was, if it was dropped as one ([`DropReason::GuardLoop`]).
    pub fn take_sighting(&mut self) -> Option<Sighting> {
        self.guard.as_mut().and_then(|guard| guard.take_sighting())
    }

    /// Whether a frame of the device, or several joined by the kernel, may go to the peer.
    ///
    /// # Errors
    /// The guard's rule against it.
    pub fn outward(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        self.guard.as_mut().map_or(Ok(()), |guard| guard.outward(frame))
    }

    /// Starts a new period for rate limits.
    pub fn renew(&mut self) {
        if let Some(routed) = &mut self.routed {
            routed.answers = ANSWERS;
        }
    }

    /// Returns a frame of the peer for the device, unchanged or modified. `ecn` is the codepoint of the datagrams it came in.
    ///
    /// # Errors
    /// [`DropReason::Source`]: the peer may not send from its source. [`DropReason::Congested`]: RFC 6040 requires a drop. Or the
    /// guard's rule against it.
    pub fn inward<'a>(&'a mut self, frame: &'a [u8], ecn: u8) -> Result<&'a [u8], DropReason> {
        if let Some(guard) = &mut self.guard {
            guard.inward(frame)?;
        }
        let mut clamp_to = None;
        if let Some(routed) = &self.routed {
            if let Some(sources) = &routed.sources {
                let (source, _) = ip::addresses(frame).ok_or(DropReason::Source)?;
                if !sources.contains(source) {
                    return Err(DropReason::Source);
                }
            }
            clamp_to = Some(routed.clamp).filter(|_| routed.mss_clamp && clamp::is_syn(frame));
        }
        let layer = self.layer();
        let mark = match traffic_class::arrival(frame, layer, ecn) {
            Arrival::AsItIs => None,
            Arrival::Marked(codepoint) => Some(codepoint),
            Arrival::Dropped => return Err(DropReason::Congested),
        };
        if mark.is_none() && clamp_to.is_none() {
            return Ok(frame);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(frame);
        if let Some(codepoint) = mark {
            traffic_class::mark(&mut self.scratch, layer, codepoint);
        }
        if let Some(mtu) = clamp_to {
            clamp::clamp(&mut self.scratch, mtu);
        }
        Ok(&self.scratch)
    }

    /// Whether a packet of the device is this link's own datagram along `to`: the tunnel is routed into itself.
    pub fn is_own(&self, frame: &[u8], to: Path) -> bool {
        let (endpoint, protocol) = (to.remote, if to.stream { TCP } else { UDP });
        let Some((_, destination)) = self.routed.as_ref().and_then(|_| ip::addresses(frame)) else {
            return false;
        };
        let Some(transport) = ip::transport(frame).filter(|_| destination == endpoint.ip()) else {
            return false;
        };
        let port = frame.get(transport.at + 2..transport.at + 4);
        transport.protocol == protocol && port == Some(&endpoint.port().to_be_bytes()[..])
    }

    /// Returns the reply to an oversized packet of the device, if any.
    pub fn too_big(&mut self, frame: &[u8]) -> Option<&[u8]> {
        let routed = self.routed.as_mut().filter(|routed| routed.answers > 0)?;
        let family = |address: &&IpAddr| Some(address.is_ipv4()) == frame.first().map(|byte| byte >> 4 == 4);
        let from = routed.peers.iter().find(family).copied();
        let mtu = u32::try_from(routed.mtu).ok()?;
        if !too_big::answer(frame, mtu, from, &mut self.scratch) {
            return None;
        }
        routed.answers -= 1;
        Some(&self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: [u8; 4], destination: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[6], packet[9]) = (0x45, 0x40, protocol);
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet
    }

    fn routed() -> InnerPolicy {
        InnerPolicy::routed(1400, true, vec![[10, 9, 0, 2].into()])
    }

    #[test]
    fn sources_are_those_that_were_set() {
        let (good, bad) = (packet([10, 9, 0, 2], [1; 4], 1, 0), packet([10, 9, 0, 3], [1; 4], 1, 0));
        let mut inner = routed();
        assert!(inner.inward(&bad, 0).is_ok(), "any by default");
        let nets = ["10.9.0.2/32", "fd00::/8"].map(|net| net.parse().unwrap());
        inner.set_sources(Some(Sources::default().with(&nets)));
        assert_eq!(inner.inward(&good, 0), Ok(&good[..]));
        assert_eq!(inner.inward(&bad, 0), Err(DropReason::Source));
        assert_eq!(inner.inward(b"no packet", 0), Err(DropReason::Source));
        let mut bridged = InnerPolicy::bridged(None);
        bridged.set_sources(Some(Sources::default()));
        assert!(bridged.inward(&bad, 0).is_ok(), "Ethernet is not looked into");
    }

    #[test]
    fn only_the_links_own_datagrams_are_a_tunnel_in_the_tunnel() {
        let endpoint: Path = "192.0.2.2:1417".parse().unwrap();
        let stream = Path { stream: true, ..endpoint };
        let to = [192, 0, 2, 2];
        assert!(routed().is_own(&packet([10; 4], to, UDP, 1417), endpoint));
        assert!(!routed().is_own(&packet([10; 4], to, UDP, 53), endpoint));
        assert!(!routed().is_own(&packet([10; 4], to, TCP, 1417), endpoint));
        assert!(routed().is_own(&packet([10; 4], to, TCP, 1417), stream));
        assert!(!routed().is_own(&packet([10; 4], to, UDP, 1417), stream));
        assert!(!routed().is_own(&packet([10; 4], [192, 0, 2, 3], UDP, 1417), endpoint));
        assert!(!InnerPolicy::bridged(None).is_own(&packet([10; 4], to, UDP, 1417), endpoint));
    }

    #[test]
    fn the_segment_size_of_a_new_connection_is_lowered_unless_that_is_off() {
        let mut syn = packet([10; 4], [11; 4], 6, 80);
        syn.extend([2, 4, 0x05, 0xb4]);
        (syn[32], syn[33]) = (6 << 4, 2);
        let lowered = routed().inward(&syn, 0).unwrap().to_vec();
        assert_eq!((lowered.len(), &lowered[42..44]), (syn.len(), &1360u16.to_be_bytes()[..]));
        let mut off = InnerPolicy::routed(1400, false, Vec::new());
        assert_eq!(off.inward(&syn, 0), Ok(&syn[..]));
        assert_eq!(InnerPolicy::bridged(None).inward(&syn, 0), Ok(&syn[..]));
    }

    #[test]
    fn marks_of_the_path_reach_the_packet_or_drop_it() {
        let mut capable = packet([10; 4], [11; 4], UDP, 1);
        capable[1] = 2;
        let marked = routed().inward(&capable, 3).unwrap().to_vec();
        assert_eq!((marked[1], &marked[12..]), (3, &capable[12..]));
        assert_eq!(routed().inward(&capable, 2), Ok(&capable[..]));
        let deaf = packet([10; 4], [11; 4], UDP, 1);
        assert_eq!(routed().inward(&deaf, 3), Err(DropReason::Congested));
        let bridged = [&[2; 12][..], &[8, 0], &capable].concat();
        assert_eq!(InnerPolicy::bridged(None).inward(&bridged, 3).unwrap()[14..], marked);
    }

    #[test]
    fn answers_are_limited_until_they_are_renewed() {
        let mut inner = routed();
        let long = packet([10; 4], [11; 4], UDP, 1);
        let answered = (0..ANSWERS + 5).filter(|_| inner.too_big(&long).is_some()).count();
        assert_eq!(answered, ANSWERS as usize);
        inner.renew();
        let (from, to) = ip::addresses(inner.too_big(&long).unwrap()).unwrap();
        assert_eq!((from, to), ([10, 9, 0, 2].into(), [10; 4].into()));
    }
}
