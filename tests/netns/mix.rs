//! Frames of every make, by a seed, and what of them must arrive.

use tund_proto::testing::Dice;

/// Who sends or gets frames.
#[derive(Clone, Copy)]
pub struct Station {
    pub mac: [u8; 6],
    pub v4: [u8; 4],
    pub v6: [u8; 16],
}

/// Makes frames from one station to another.
pub struct Maker {
    pub from: Station,
    pub to: Station,
    /// Longest IP packet.
    pub mtu: usize,
    /// The frames cross bridges, not routers: then there are others than IP, and tags.
    pub bridged: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
/// For experiments (RFC 3692).
const OTHER: u8 = 253;
const TTL: u8 = 64;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;

/// What the packets of a run have in common.
struct Flow {
    v4: bool,
    class: u8,
    tag: Vec<u8>,
    dont_fragment: bool,
    identification: u16,
    ttl: u8,
}

impl Flow {
    /// Now and then a packet differs from those before it.
    fn change(&mut self, dice: &mut Dice) {
        match dice.within(0, 60) {
            0 | 1 => self.class ^= 1 << dice.within(0, 7),
            2 => self.ttl -= 1,
            3 => self.dont_fragment = !self.dont_fragment,
            4 => self.identification = self.identification.wrapping_add(1),
            _ => {}
        }
    }
}

impl Maker {
    /// A few runs of frames; those of a run belong to one flow, and arrive in order.
    pub fn burst(&self, dice: &mut Dice) -> Vec<Vec<Vec<u8>>> {
        (0..dice.within(1, 4)).map(|_| self.run(dice)).collect()
    }

    fn run(&self, dice: &mut Dice) -> Vec<Vec<u8>> {
        let class = dice.pick(&[0, 0, 0, 1, 2, 2, 3, 0xb8, 0xba]);
        let tag = match self.bridged && dice.once_in(4) {
            true => vec![0x81, 0, 0, dice.within(1, 99) as u8],
            false => Vec::new(),
        };
        let (v4, dont_fragment) = (dice.once_in(2), dice.once_in(2));
        let mut flow = Flow { v4, class, tag, dont_fragment, identification: dice.number() as u16, ttl: TTL };
        match dice.within(0, if self.bridged { 8 } else { 7 }) {
            0 | 1 => self.stream(dice, &mut flow),
            2 => self.datagrams(dice, &mut flow),
            3 => (0..dice.within(5, 40)).map(|_| self.datagram(dice, &mut flow, 1, 64, &[])).collect(),
            4 => vec![self.echo(dice, &mut flow)],
            5 => {
                let between = between_headers(dice, flow.v4);
                (0..dice.within(1, 5)).map(|_| self.datagram(dice, &mut flow, 1, 1000, &between)).collect()
            }
            6 => self.fragments(dice, &mut flow),
            7 => {
                let length = dice.within(0, self.mtu - 40);
                vec![self.packet(&mut flow, OTHER, &[], &dice.bytes(length))]
            }
            _ => vec![self.ethernet(&flow.tag, 0x88b5, &{
                let length = dice.within(2, self.mtu);
                dice.bytes(length)
            })],
        }
    }

    /// Segments of a TCP connection, most of which follow one another.
    fn stream(&self, dice: &mut Dice, flow: &mut Flow) -> Vec<Vec<u8>> {
        let (ports, mut sequence) = (dice.bytes(4), dice.number() as u32);
        let options: &[u8] = if dice.once_in(2) { &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8] } else { &[] };
        let room = self.mtu - 60 - options.len();
        let segment = if dice.once_in(3) { dice.within(10, 200) } else { dice.within(200, room) };
        let mut frames = Vec::new();
        for _ in 0..dice.within(2, 30) {
            flow.change(dice);
            let length = if dice.once_in(12) { dice.within(0, segment) } else { segment };
            let window = if dice.once_in(20) { 2 } else { 1 };
            let flags = dice.pick(&[0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x18, 0x11, 0x90, 0x50, 0x30]);
            let mut segment = ports.clone();
            segment.extend(sequence.to_be_bytes());
            segment.extend([0, 0, 0, 5, (20 + options.len() as u8) << 2, flags, 1, window, 0, 0, 0, 0]);
            segment.extend(options);
            segment.extend(dice.bytes(length));
            self.finish(flow, TCP, &mut segment, 16);
            if dice.once_in(20) {
                segment[17] ^= 0x5a;
            }
            frames.push(self.packet(flow, TCP, &[], &segment));
            sequence = sequence.wrapping_add(if dice.once_in(20) { 1 } else { length as u32 });
        }
        frames
    }

    /// Datagrams of one length, and a shorter one now and then.
    fn datagrams(&self, dice: &mut Dice, flow: &mut Flow) -> Vec<Vec<u8>> {
        let length = dice.within(1, self.mtu - 48);
        let ports = dice.bytes(4);
        let mut frames = Vec::new();
        for _ in 0..dice.within(2, 30) {
            flow.change(dice);
            let least = if dice.once_in(8) { 1 } else { length };
            let length = dice.within(least, length);
            let mut segment = ports.clone();
            segment.extend(((8 + length) as u16).to_be_bytes());
            segment.extend([0, 0]);
            segment.extend(dice.bytes(length));
            // Over IPv4 a datagram needs no checksum.
            if !(flow.v4 && dice.once_in(20)) {
                self.finish(flow, UDP, &mut segment, 6);
            }
            frames.push(self.packet(flow, UDP, &[], &segment));
        }
        frames
    }

    /// One datagram with options or extension headers; all of one flow.
    fn datagram(&self, dice: &mut Dice, flow: &mut Flow, least: usize, most: usize, extra: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x13, 0x88, 0x13, 0x89];
        let length = dice.within(least, most);
        segment.extend(((8 + length) as u16).to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(dice.bytes(length));
        self.finish(flow, UDP, &mut segment, 6);
        self.packet(flow, UDP, extra, &segment)
    }

    fn echo(&self, dice: &mut Dice, flow: &mut Flow) -> Vec<u8> {
        let (protocol, kind) = if flow.v4 { (ICMP, 8) } else { (ICMPV6, 128) };
        let length = dice.within(0, self.mtu - 48);
        let mut message = vec![kind, 0, 0, 0];
        message.extend(dice.bytes(length + 4));
        if flow.v4 {
            let sum = !sum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        } else {
            self.finish(flow, protocol, &mut message, 2);
        }
        self.packet(flow, protocol, &[], &message)
    }

    /// A datagram in pieces.
    fn fragments(&self, dice: &mut Dice, flow: &mut Flow) -> Vec<Vec<u8>> {
        let length = dice.within(100, 4000);
        let mut whole = dice.bytes(8);
        whole[4..8].copy_from_slice(&[(length >> 8) as u8, length as u8, 0, 0]);
        whole.extend(dice.bytes(length - 8));
        self.finish(flow, UDP, &mut whole, 6);
        let piece = dice.within(6, (self.mtu - 60) / 8) * 8;
        let count = whole.len().div_ceil(piece);
        let number = dice.number() as u32;
        let fragment = |(index, part): (usize, &[u8])| {
            let more = index + 1 < count;
            let offset = (index * piece / 8) as u16;
            if flow.v4 {
                let field = offset | if more { MORE_FRAGMENTS } else { 0 };
                return self.ipv4(flow, number as u16, field, UDP, &[], part);
            }
            let mut body = vec![UDP, 0];
            body.extend((offset << 3 | u16::from(more)).to_be_bytes());
            body.extend(number.to_be_bytes());
            body.extend(part);
            self.ipv6(flow, FRAGMENT, &[], &body)
        };
        whole.chunks(piece).enumerate().map(fragment).collect()
    }

    /// Puts the checksum of a transport into its place.
    fn finish(&self, flow: &Flow, protocol: u8, segment: &mut [u8], place: usize) {
        let (from, to) = (&self.from, &self.to);
        let mut covered = if flow.v4 { [from.v4, to.v4].concat() } else { [from.v6, to.v6].concat() };
        covered.extend((segment.len() as u32).to_be_bytes());
        covered.extend([0, protocol]);
        covered.extend(&*segment);
        let value = match !sum(&covered) {
            0 => 0xffff,
            value => value,
        };
        segment[place..place + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// `extra`: options of IPv4, or an extension header without its first byte.
    fn packet(&self, flow: &mut Flow, protocol: u8, extra: &[u8], body: &[u8]) -> Vec<u8> {
        flow.identification = flow.identification.wrapping_add(1);
        let field = if flow.dont_fragment { DONT_FRAGMENT } else { 0 };
        match flow.v4 {
            true => self.ipv4(flow, flow.identification, field, protocol, extra, body),
            false => self.ipv6(flow, protocol, extra, body),
        }
    }

    fn ipv4(
        &self,
        flow: &Flow,
        number: u16,
        field: u16,
        protocol: u8,
        options: &[u8],
        body: &[u8],
    ) -> Vec<u8> {
        let header = 20 + options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, flow.class];
        packet.extend(((header + body.len()) as u16).to_be_bytes());
        packet.extend(number.to_be_bytes());
        packet.extend(field.to_be_bytes());
        packet.extend([flow.ttl, protocol, 0, 0]);
        packet.extend([self.from.v4, self.to.v4].concat());
        packet.extend(options);
        let sum = !sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(body);
        self.ethernet(&flow.tag, 0x0800, &packet)
    }

    fn ipv6(&self, flow: &Flow, protocol: u8, extension: &[u8], body: &[u8]) -> Vec<u8> {
        const DESTINATION_OPTIONS: u8 = 60;
        let mut packet = vec![0x60 | flow.class >> 4, flow.class << 4 | 5, 0x12, 0x34];
        let next = if extension.is_empty() { protocol } else { DESTINATION_OPTIONS };
        let length = extension.len() + usize::from(!extension.is_empty()) + body.len();
        packet.extend((length as u16).to_be_bytes());
        packet.extend([next, flow.ttl]);
        packet.extend([self.from.v6, self.to.v6].concat());
        if !extension.is_empty() {
            packet.push(protocol);
            packet.extend(extension);
        }
        packet.extend(body);
        self.ethernet(&flow.tag, 0x86dd, &packet)
    }

    fn ethernet(&self, tag: &[u8], kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [self.to.mac, self.from.mac].concat();
        frame.extend(tag);
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// What a link must preserve of a frame: everything but the identification of an unfragmentable IPv4 packet, which
    /// is meaningless (RFC 6864). Routers lower the time to live and have their own Ethernet headers. Which ECN
    /// codepoint it is does not count, as the link's queue may mark. `None`: another sender's frame, or a wrong IPv4
    /// checksum.
    pub fn essence(&self, frame: &[u8], hops_to_go: u8) -> Option<Vec<u8>> {
        let (ethernet, packet) =
            if self.bridged { frame.split_at_checked(12)? } else { (&[][..], frame.get(12..)?) };
        if self.bridged && ethernet[6..] != self.from.mac {
            return None;
        }
        let tag = if packet.starts_with(&[0x81, 0]) { 4 } else { 0 };
        let mut essence = [ethernet, packet].concat();
        let at = ethernet.len() + tag + 2;
        let ip = essence.get_mut(at..)?;
        let kind = packet.get(tag..tag + 2)?;
        let hops_to_go = if self.bridged { 0 } else { hops_to_go };
        match kind {
            [8, 0] if ip.len() >= 20 && ip[12..16] == self.from.v4 => {
                let header = usize::from(ip[0] & 15) * 4;
                if sum(ip.get(..header)?) != 0xffff {
                    return None;
                }
                if ip[6] & 0x40 != 0 {
                    ip[4..6].fill(0);
                }
                ip[1] |= if ip[1] & 3 == 0 { 0 } else { 3 };
                ip[8] -= hops_to_go;
                ip[10..12].fill(0);
            }
            [0x86, 0xdd] if ip.len() >= 40 && ip[8..24] == self.from.v6 => {
                ip[1] |= if ip[1] & 0x30 == 0 { 0 } else { 0x30 };
                ip[7] -= hops_to_go;
            }
            _ if self.bridged => {}
            _ => return None,
        }
        Some(essence)
    }
}

/// Options of IPv4 that no router looks at, or the rest of a header of destination options.
fn between_headers(dice: &mut Dice, v4: bool) -> Vec<u8> {
    let words = dice.within(1, 4);
    if v4 {
        return vec![1; words * 4];
    }
    let padding = words * 8 - 4;
    let mut rest = vec![(words - 1) as u8, 1, padding as u8];
    rest.extend(vec![0; padding]);
    rest
}

/// The sum of RFC 1071, word by word.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut total = words.sum::<u32>();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
