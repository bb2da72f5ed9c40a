//! Enough of Ethernet, IP, UDP and TCP to inspect and invent frames.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Length of an Ethernet header without tag.
pub const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// A UDP datagram in an Ethernet frame over IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Destination and source MAC address.
    pub macs: ([u8; 6], [u8; 6]),
    /// Sender.
    pub from: SocketAddrV4,
    /// Receiver.
    pub to: SocketAddrV4,
    /// The bytes that UDP carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Finds the datagram in a frame; `None` if the frame is something else or a fragment.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (ethernet, ip) = frame.split_at_checked(ETHERNET)?;
        let ip_header = ip.get(..IPV4)?;
        let length = usize::from(u16::from_be_bytes([ip_header[2], ip_header[3]]));
        let fragment = u16::from_be_bytes([ip_header[6], ip_header[7]]) & 0x3fff;
        if ethernet[12..] != [8, 0] || ip_header[0] != 0x45 || ip_header[9] != PROTOCOL_UDP || fragment != 0 {
            return None;
        }
        let udp = ip.get(IPV4..length)?;
        let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
        let address =
            |at: usize| Ipv4Addr::new(ip_header[at], ip_header[at + 1], ip_header[at + 2], ip_header[at + 3]);
        Some(Self {
            macs: (ethernet[..6].try_into().ok()?, ethernet[6..12].try_into().ok()?),
            from: SocketAddrV4::new(address(12), port(0)?),
            to: SocketAddrV4::new(address(16), port(2)?),
            payload: udp.get(UDP..)?.to_vec(),
        })
    }

    /// The frame of this datagram, without a UDP checksum.
    pub fn to_frame(&self) -> Vec<u8> {
        let length = |of: usize| u16::try_from(of).unwrap_or(u16::MAX).to_be_bytes();
        let mut ip = vec![0x45, 0];
        ip.extend(length(IPV4 + UDP + self.payload.len()));
        ip.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
        ip.extend(self.from.ip().octets());
        ip.extend(self.to.ip().octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [self.macs.0, self.macs.1].concat();
        frame.extend([8, 0]);
        frame.extend(ip);
        frame.extend(self.from.port().to_be_bytes());
        frame.extend(self.to.port().to_be_bytes());
        frame.extend(length(UDP + self.payload.len()));
        frame.extend([0, 0]);
        frame.extend(&self.payload);
        frame
    }
}

/// A TCP segment over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sender.
    pub from: SocketAddrV4,
    /// The sequence number.
    pub number: u32,
    /// Whether it is the first of its direction (SYN).
    pub begins: bool,
    /// The bytes that TCP carries.
    pub payload: &'a [u8],
}

/// Finds the segment in a frame.
pub fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let ip = frame.get(ETHERNET..ETHERNET + IPV4)?;
    if frame.get(12..14)? != [8, 0] || ip[0] != 0x45 || ip[9] != PROTOCOL_TCP {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = frame.get(ETHERNET + IPV4..ETHERNET + length)?;
    let number = tcp.get(4..8)?.first_chunk().copied().map(u32::from_be_bytes)?;
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    let source = tcp.first_chunk().copied().map(u16::from_be_bytes)?;
    Some(Segment {
        from: SocketAddrV4::new(Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]), source),
        number,
        begins: tcp.get(13)? & 2 != 0,
        payload: tcp.get(header..)?,
    })
}

/// Length in bytes of the IPv4 packet in a frame, and whether it is or may become a fragment.
pub fn ipv4_size(frame: &[u8]) -> Option<(usize, bool)> {
    let ip = frame.get(ETHERNET..ETHERNET + IPV4)?;
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let flags = u16::from_be_bytes([ip[6], ip[7]]);
    let whole_and_stays = flags & 0x4000 != 0 && flags & 0x3fff == 0;
    Some((usize::from(u16::from_be_bytes([ip[2], ip[3]])), !whole_and_stays))
}

/// Builds an Ethernet frame.
pub fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The Internet checksum (RFC 1071) of bytes whose checksum field is zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The address family's name for messages.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram() -> Datagram {
        Datagram {
            macs: ([1; 6], [2; 6]),
            from: "10.0.0.1:1000".parse().unwrap(),
            to: "10.0.0.2:2000".parse().unwrap(),
            payload: b"something".to_vec(),
        }
    }

    #[test]
    fn a_datagram_survives_its_frame() {
        let frame = datagram().to_frame();
        assert_eq!(Datagram::parse(&frame), Some(datagram()));
        assert_eq!(checksum(&frame[ETHERNET..ETHERNET + IPV4]), 0);
        assert_eq!(ipv4_size(&frame), Some((IPV4 + UDP + 9, false)));
    }

    #[test]
    fn a_segment_is_what_follows_the_header_of_any_length() {
        let header = |words: u8| [&[0; 12][..], &[words << 4, 2], &[0; 10]].concat();
        let frame = |words: u8| {
            let payload = [&header(words)[8..], b"bytes"].concat();
            let mut frame = Datagram { payload, ..datagram() }.to_frame();
            frame[ETHERNET + 9] = PROTOCOL_TCP;
            frame[ETHERNET + IPV4 + 4..ETHERNET + IPV4 + 8].copy_from_slice(&[0, 0, 1, 2]);
            frame
        };
        let found = |payload| Some(Segment { from: datagram().from, number: 0x102, begins: true, payload });
        assert_eq!(segment(&frame(6)), found(b"bytes"));
        assert_eq!(segment(&frame(7)), found(b"s"));
        assert_eq!(segment(&datagram().to_frame()), None);
    }

    #[test]
    fn frames_of_other_kinds_and_cut_ones_are_no_datagrams() {
        let frame = datagram().to_frame();
        for length in 0..frame.len() {
            assert_eq!(Datagram::parse(&frame[..length]), None, "cut to {length}");
        }
        let mut tcp = frame.clone();
        tcp[ETHERNET + 9] = 6;
        assert_eq!(Datagram::parse(&tcp), None);
        assert_eq!(segment(&tcp), None, "a header that is cut");
        let mut fragment = frame;
        fragment[ETHERNET + 6] = 0x20;
        assert_eq!(Datagram::parse(&fragment), None);
        assert!(ipv4_size(&fragment).unwrap().1);
    }
}
