//! Joins frames of one flow into super-frames for the device (receive offload). As in the kernel
//! (net/ipv4/tcp_offload.c, udp_offload.c), frames are joined only if segmentation would restore them.

use super::checksum::{fold, sum};
use super::ip::{
    self, IPV4_HEADER, IPV6_HEADER, TCP, TCP_CHECKSUM, TCP_HEADER, UDP, UDP_CHECKSUM, UDP_HEADER,
    write_length,
};
use super::layer::Layer;
use super::virtio::{Kind, Virtio};
use super::word;

/// Flows that can be coalesced at the same time.
const FLOWS: usize = 8;
/// Longest super-frame in bytes, without the Ethernet header.
const LONGEST: usize = 65_535;
/// Most datagrams in a UDP super-frame (linux/udp.h: UDP_MAX_SEGMENTS).
const UDP_SEGMENTS: usize = 64;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Coalesces frames by flow until [`Coalescer::flush`]. Frames of one flow are never reordered.
#[derive(Debug)]
pub struct Coalescer {
    layer: Layer,
    /// Whether the kernel accepts UDP super-frames.
    udp: bool,
    /// The first `used` are in use, oldest first.
    slots: Vec<Slot>,
    used: usize,
}

/// A super-frame under construction.
#[derive(Debug)]
struct Slot {
    frame: Vec<u8>,
    shape: Shape,
    /// Payload of the first frame in bytes, and of every other but the last.
    segment: usize,
    count: usize,
    /// Whether the first frame's checksum was verified.
    verified: bool,
    /// TCP flags of all frames, ORed.
    flags: u8,
}

/// Layout of a frame that can be joined with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shape {
    network: usize,
    transport: usize,
    headers: usize,
    /// Where the packet ends; Ethernet padding may follow.
    end: usize,
    v4: bool,
    tcp: bool,
    /// Both ports.
    ports: [u8; 4],
    same: Same,
}

/// Fixed-size fields, besides addresses and ports, that must be equal in frames that are joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Same {
    /// IPv4: version, header length, traffic class, DF, time to live, protocol. IPv6: first word, next header, hop
    /// limit.
    network: [u8; 6],
    /// TCP: acknowledgement, data offset, window, urgent pointer.
    transport: [u8; 9],
}

impl Coalescer {
    /// Allocates all memory it will ever use. `udp`: joins UDP as well as TCP.
    pub fn new(layer: Layer, udp: bool) -> Self {
        let slot = || Slot {
            frame: Vec::with_capacity(LONGEST + 64),
            shape: Shape::default(),
            segment: 0,
            count: 0,
            verified: false,
            flags: 0,
        };
        Self { layer, udp, slots: std::iter::repeat_with(slot).take(FLOWS).collect(), used: 0 }
    }

    /// Takes a frame for the device. `write` gets what is now complete.
    pub fn push(&mut self, frame: &[u8], write: &mut impl FnMut(Virtio, &[u8])) {
        let Some(shape) = Shape::of(frame, self.layer) else {
            // A fragment, for example, may belong to any flow; ICMP, ARP and the like do not.
            if self.may_be_of_a_flow(frame) {
                self.flush(write);
            }
            return write(Virtio::PLAIN, frame);
        };
        let own = self.slots[..self.used].iter().position(|slot| slot.is_flow_of(&shape, frame));
        if let Some(own) = own {
            if self.slots[own].join(&shape, frame) {
                if self.slots[own].is_full(&shape) {
                    self.finish(own, write);
                }
                return;
            }
            self.finish(own, write);
        }
        if !shape.may_begin(frame, self.udp) {
            return write(Virtio::PLAIN, frame);
        }
        if self.used == FLOWS {
            self.finish(0, write);
        }
        self.slots[self.used].begin(shape, frame);
        self.used += 1;
    }

    /// Whether a frame is, or as a fragment may be, TCP or UDP.
    fn may_be_of_a_flow(&self, frame: &[u8]) -> bool {
        let Some(packet) = self.layer.network(frame).and_then(|at| frame.get(at..)) else { return false };
        ip::transport(packet).is_none_or(|transport| matches!(transport.protocol, TCP | UDP))
    }

    /// Writes everything out.
    pub fn flush(&mut self, write: &mut impl FnMut(Virtio, &[u8])) {
        for slot in &mut self.slots[..self.used] {
            slot.finish(write);
        }
        self.used = 0;
    }

    fn finish(&mut self, index: usize, write: &mut impl FnMut(Virtio, &[u8])) {
        self.slots[index].finish(write);
        self.slots[index..self.used].rotate_left(1);
        self.used -= 1;
    }
}

impl Slot {
    fn begin(&mut self, shape: Shape, frame: &[u8]) {
        self.frame.clear();
        self.frame.extend_from_slice(frame.get(..shape.end).unwrap_or(frame));
        self.segment = shape.end - shape.headers;
        (self.shape, self.count, self.verified) = (shape, 1, false);
        self.flags = shape.flags(frame);
    }

    fn is_flow_of(&self, shape: &Shape, frame: &[u8]) -> bool {
        let own = &self.shape;
        // Ports are cheap and tell most flows apart.
        own.ports == shape.ports
            && (own.v4, own.tcp, own.network) == (shape.v4, shape.tcp, shape.network)
            && shape.addresses(frame) == shape.addresses(&self.frame)
    }

    /// Appends the frame if segmentation would give both back.
    fn join(&mut self, shape: &Shape, frame: &[u8]) -> bool {
        let payload = shape.end - shape.headers;
        let own = &self.shape;
        let room =
            self.frame.len() + payload <= own.network + LONGEST && (shape.tcp || self.count < UDP_SEGMENTS);
        if !room
            || payload == 0
            || payload > self.segment
            || shape.headers != own.headers
            || shape.same != own.same
            || own.variable(&self.frame) != shape.variable(frame)
            || !self.follows(shape, frame)
            || self.flags & PSH != 0
        {
            return false;
        }
        self.verified = self.verified || self.shape.is_checksum_right(&self.frame);
        if !self.verified || !shape.is_checksum_right(frame) {
            return false;
        }
        self.frame.extend_from_slice(&frame[shape.headers..shape.end]);
        self.count += 1;
        self.flags |= shape.flags(frame);
        true
    }

    /// Whether the frame is next by sequence number and, where it counts, by IP identification.
    fn follows(&self, shape: &Shape, frame: &[u8]) -> bool {
        let there = self.frame.len() - self.shape.headers;
        let in_sequence =
            !shape.tcp || shape.sequence(frame) == shape.sequence(&self.frame).wrapping_add(there as u32);
        let next = shape.identification(&self.frame).wrapping_add(self.count as u16);
        in_sequence
            && shape.may_continue(frame)
            && (!shape.is_identified(frame) || shape.identification(frame) == next)
    }

    /// Whether nothing can follow once a frame of `shape` is joined.
    fn is_full(&self, shape: &Shape) -> bool {
        shape.end - shape.headers < self.segment || self.flags & PSH != 0
    }

    fn finish(&mut self, write: &mut impl FnMut(Virtio, &[u8])) {
        if self.count == 1 {
            return write(Virtio::PLAIN, &self.frame);
        }
        let Shape { network, transport, headers, v4, tcp, .. } = self.shape;
        let length = self.frame.len() - network;
        let place = transport + if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
        let pseudo = self.shape.pseudo_header(&self.frame, self.frame.len() - transport);
        let frame = &mut self.frame;
        write_length(&mut frame[network..transport], v4, length);
        if tcp {
            frame[transport + 13] = self.flags;
        } else {
            let length = frame.len() - transport;
            frame[transport + 4..transport + 6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        frame[place..place + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
        let kind = match (tcp, v4) {
            (true, true) => Kind::TcpV4,
            (true, false) => Kind::TcpV6,
            (false, _) => Kind::Udp,
        };
        let checksum = Some((transport as u16, (place - transport) as u16));
        write(Virtio { checksum, kind, headers: headers as u16, segment: self.segment as u16 }, frame);
    }
}

impl Shape {
    /// `None`: not TCP or UDP, fragmented, truncated, or with IP options or extension headers.
    fn of(frame: &[u8], layer: Layer) -> Option<Self> {
        const MORE_OR_LATER: u16 = 0x3fff;
        let network = layer.network(frame)?;
        let packet = &frame[network..];
        let v4 = packet[0] >> 4 == 4;
        let (header, protocol, length) = match v4 {
            true if packet[0] != 0x45 || word(packet, 6)? & MORE_OR_LATER != 0 => return None,
            true => (IPV4_HEADER, *packet.get(9)?, usize::from(word(packet, 2)?)),
            false => (IPV6_HEADER, *packet.get(6)?, IPV6_HEADER + usize::from(word(packet, 4)?)),
        };
        let tcp = match protocol {
            TCP => true,
            UDP => false,
            _ => return None,
        };
        let transport = network + header;
        let (headers, least) = match tcp {
            true => (transport + usize::from(packet.get(header + 12)? >> 4) * 4, transport + TCP_HEADER),
            false => (transport + UDP_HEADER, transport + UDP_HEADER),
        };
        let end = network + length;
        let exact = tcp || usize::from(word(packet, header + 4)?) == length - header.min(length);
        let sound = headers >= least && headers <= end && end <= frame.len() && exact;
        // Only padding to Ethernet's minimum length may follow the packet.
        let padded = end == frame.len() || layer == Layer::Ethernet && frame.len() <= 64;
        if !sound || !padded {
            return None;
        }
        let ports = *frame.get(transport..)?.first_chunk()?;
        let same = Same::of(packet, frame.get(transport..headers)?, v4, tcp)?;
        Some(Self { network, transport, headers, end, v4, tcp, ports, same })
    }

    fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let place = if self.v4 { 12..20 } else { 8..40 };
        frame.get(self.network + place.start..self.network + place.end).unwrap_or_default()
    }

    fn flags(&self, frame: &[u8]) -> u8 {
        if self.tcp { frame[self.transport + 13] } else { 0 }
    }

    fn sequence(&self, frame: &[u8]) -> u32 {
        let at = self.transport + 4;
        u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
    }

    fn identification(&self, frame: &[u8]) -> u16 {
        u16::from_be_bytes([frame[self.network + 4], frame[self.network + 5]])
    }

    /// Whether the IP identification is meaningful: with DF set it is not (RFC 6864).
    fn is_identified(&self, frame: &[u8]) -> bool {
        self.v4 && frame[self.network + 6] & 0x40 == 0
    }

    /// Whether other frames may be appended.
    fn may_begin(&self, frame: &[u8], udp: bool) -> bool {
        self.end > self.headers && (self.tcp || udp) && self.may_continue(frame)
    }

    /// Whether there is only data, with a checksum: UDP's 0 means none, and TCP's 0xffff would be recomputed as 0.
    fn may_continue(&self, frame: &[u8]) -> bool {
        match self.tcp {
            true => {
                let checksum = self.transport + TCP_CHECKSUM;
                self.flags(frame) & !PSH == ACK && frame[checksum..checksum + 2] != [0xff, 0xff]
            }
            false => frame[self.transport + UDP_CHECKSUM..self.transport + UDP_HEADER] != [0, 0],
        }
    }

    /// Variable-length headers that must be equal: Ethernet and TCP options.
    fn variable<'a>(&self, frame: &'a [u8]) -> [&'a [u8]; 2] {
        let options = self.transport + if self.tcp { TCP_HEADER } else { UDP_HEADER };
        [frame.get(..self.network).unwrap_or_default(), frame.get(options..self.headers).unwrap_or_default()]
    }

    fn pseudo_header(&self, frame: &[u8], length: usize) -> u64 {
        let protocol = if self.tcp { TCP } else { UDP };
        sum(self.addresses(frame)) + u64::from(protocol) + length as u64
    }

    fn is_checksum_right(&self, frame: &[u8]) -> bool {
        let Some(transport) = frame.get(self.transport..self.end) else { return false };
        fold(self.pseudo_header(frame, transport.len()) + sum(transport)) == 0xffff
    }
}

impl Same {
    fn of(network: &[u8], transport: &[u8], v4: bool, tcp: bool) -> Option<Self> {
        let n: &[u8; 10] = network.first_chunk()?;
        let network =
            if v4 { [n[0], n[1], n[6], n[7], n[8], n[9]] } else { [n[0], n[1], n[2], n[3], n[6], n[7]] };
        let mut same = Self { network, transport: [0; 9] };
        if tcp {
            let t: &[u8; TCP_HEADER] = transport.first_chunk()?;
            same.transport = [t[8], t[9], t[10], t[11], t[12], t[14], t[15], t[18], t[19]];
        }
        Some(same)
    }
}

#[cfg(test)]
mod tests;
