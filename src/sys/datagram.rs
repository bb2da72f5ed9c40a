//! Datagrams with control messages: recvmsg(2) and sendmsg(2) as ip(7), ipv6(7) and udp(7) describe them.

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{SockAddr, SockAddrStorage};

use super::option::set_option;

/// Size of the buffer for one call's control messages: those that tund enables take 112 bytes, and another program may have enabled timestamps and
/// the like on its socket.
const CONTROL: usize = 256;
/// Offset of the data in a control message, in bytes.
// SAFETY: it only computes.
const DATA: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// Control messages, aligned as `cmsghdr` requires.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What recvmsg(2) reports of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The datagram's length in bytes, which may exceed the buffer.
    pub length: usize,
    /// Where it came from.
    pub from: SocketAddr,
    /// The local address it was sent to, if the socket reports it.
    pub local: Option<IpAddr>,
    /// Length of each datagram (the last may be shorter), if the kernel joined several.
    pub stride: Option<usize>,
    /// The traffic class of its IP header, if the socket reports it.
    pub class: u8,
}

/// Where and how datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The address; IPv4-mapped if it is IPv4 and the socket is IPv6.
    pub to: SocketAddr,
    /// The source address, unless the kernel chooses.
    pub local: Option<IpAddr>,
    /// Length of each datagram (the last may be shorter), if the kernel must split them.
    pub stride: Option<u16>,
    /// The traffic class of their IP headers.
    pub class: u8,
}

/// Makes a UDP socket queue ICMP errors about its datagrams. Any later call on the socket may then fail once with such an error.
pub fn queue_errors(socket: impl AsFd, v6: bool) -> io::Result<()> {
    // Datagrams to mapped addresses obey the IPv4 option, on IPv6 sockets as well.
    set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    if v6 {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    Ok(())
}

/// Makes a UDP socket report the local address of each datagram. `v6`: its family is IPv6; IPv4 datagrams then have a mapped address.
pub fn report_local_address(socket: impl AsFd, v6: bool) -> io::Result<()> {
    match v6 {
        true => set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
        false => set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
    }
}

/// Makes a UDP socket report the traffic class of each datagram. `v6`: its family is IPv6.
pub fn report_traffic_class(socket: impl AsFd, v6: bool) -> io::Result<()> {
    set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    if v6 {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    Ok(())
}

/// Makes a UDP socket join datagrams of one flow, or stop joining. Needs Linux 5.0.
pub fn join_datagrams(socket: impl AsFd, on: bool) -> io::Result<()> {
    set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, c_int::from(on))
}

/// Receives one datagram, or several that the kernel joined, without blocking. `InvalidData`: the kernel's metadata did not fit, so that length or
/// addresses would be guesses; the datagram is lost.
pub fn receive_datagram(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    let nowhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let mut arrival = Arrival { length: 0, from: nowhere, local: None, stride: None, class: 0 };
    let read = |level, kind, data: &[u8]| arrival.read(level, kind, data);
    let (length, from) = receive(socket, buffer, libc::MSG_TRUNC, read)?;
    Ok(Arrival { length, from, ..arrival })
}

/// Receives into `buffer` without blocking: the length, the address, and for `read` the data of each control message.
fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: c_int,
    read: impl FnMut(c_int, c_int, &[u8]),
) -> io::Result<(usize, SocketAddr)> {
    let mut address = SockAddrStorage::zeroed();
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = empty();
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = address.size_of();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: every pointer of `header` is to a live, exclusively borrowed object of the length given with it.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel wrote an address of `msg_namelen` bytes.
    let address = unsafe { SockAddr::new(address, header.msg_namelen) };
    let address = address.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    visit(written(&header, &control)?, read);
    Ok((length, address))
}

impl Arrival {
    fn read(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = field::<4>(data, offset_of!(libc::in_pktinfo, ipi_addr));
                self.local = address.map(|address| Ipv4Addr::from(address).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = field::<16>(data, offset_of!(libc::in6_pktinfo, ipi6_addr));
                self.local = address.map(|address| Ipv6Addr::from(address).into());
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let stride = field(data, 0).map(c_int::from_ne_bytes);
                self.stride =
                    stride.and_then(|stride| usize::try_from(stride).ok()).filter(|stride| *stride > 0);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => self.class = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.class = field(data, 0).map_or(0, c_int::from_ne_bytes) as u8;
            }
            _ => {}
        }
    }
}

/// The `N` bytes at `at`, if present.
fn field<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// Takes one report from the socket's error queue: the datagram's destination, and the error. ICMP may be forged.
pub fn receive_error(socket: impl AsFd) -> io::Result<(SocketAddr, io::Error)> {
    let mut error = None;
    let (_, to) = receive(socket, &mut [], libc::MSG_ERRQUEUE, |level, kind, data| {
        if let (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) = (level, kind)
        {
            let number = field(data, offset_of!(libc::sock_extended_err, ee_errno)).map(i32::from_ne_bytes);
            error = number.map(io::Error::from_raw_os_error);
        }
    })?;
    Ok((to, error.ok_or(io::ErrorKind::InvalidData)?))
}

/// Sends one datagram, or several that are back to back, without blocking. EIO or EINVAL: the kernel cannot split them.
pub fn send_datagrams(socket: impl AsFd, bytes: &[u8], departure: Departure) -> io::Result<()> {
    let to = SockAddr::from(departure.to);
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header = empty();
    header.msg_name = to.as_ptr().cast_mut().cast();
    header.msg_namelen = to.len();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let length = put_departure(&mut control, departure);
    if length > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = length as _;
    }
    // SAFETY: sendmsg(2) only reads, and every pointer of `header` is to a live object of the length given
    // with it.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn empty() -> libc::msghdr {
    // SAFETY: null pointers and zero lengths are a valid msghdr.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// The control messages written by the kernel; `InvalidData` if they were truncated.
fn written<'a>(header: &libc::msghdr, control: &'a Control) -> io::Result<&'a [u8]> {
    let whole = header.msg_flags & libc::MSG_CTRUNC == 0;
    #[allow(clippy::unnecessary_cast, reason = "the lengths of musl have 32 bits")]
    let bytes = control.0.get(..header.msg_controllen as usize).filter(|_| whole);
    bytes.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Calls `read` with the data of each control message, as far as present.
fn visit(mut messages: &[u8], mut read: impl FnMut(c_int, c_int, &[u8])) {
    while messages.len() >= DATA {
        // SAFETY: the slice is no shorter than a cmsghdr, which is made of integers and need not be aligned here.
        let header = unsafe { messages.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        #[allow(clippy::unnecessary_cast, reason = "the lengths of musl have 32 bits")]
        let length = header.cmsg_len as usize;
        let Some(data) = messages.get(DATA..length) else { return };
        read(header.cmsg_level, header.cmsg_type, data);
        messages = messages.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
}

/// Writes the control messages; returns their length.
fn put_departure(control: &mut Control, departure: Departure) -> usize {
    let mut at = 0;
    match departure.local {
        Some(IpAddr::V4(address)) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            let unset = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: unset };
            at = put(control, at, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(address)) => {
            let address = libc::in6_addr { s6_addr: address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            at = put(control, at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(stride) = departure.stride {
        at = put(control, at, libc::SOL_UDP, libc::UDP_SEGMENT, stride);
    }
    if departure.class != 0 {
        // Datagrams to mapped addresses obey the IPv4 message, on IPv6 sockets as well.
        let (level, kind) = match departure.to.ip().to_canonical() {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        at = put(control, at, level, kind, c_int::from(departure.class));
    }
    at
}

/// Writes a control message at `at`; returns the offset of the next.
fn put<T: Copy>(control: &mut Control, at: usize, level: c_int, kind: c_int, value: T) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: these two only compute.
    let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size)) };
    let room = &mut control.0[at..at + space as usize];
    let message = room.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: the buffer is aligned for a cmsghdr, and so is `at`, a sum of such spaces; header and value fit into `room`, whose length was checked.
    unsafe {
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = length as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
    }
    at + space as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn departure(to: SocketAddr, local: Option<IpAddr>) -> Departure {
        Departure { to, local, stride: None, class: 0 }
    }

    fn exchange(listen: &str, reach: &str, from: &str, v6: bool) {
        let one = UdpSocket::bind(listen).unwrap();
        report_local_address(&one, v6).unwrap();
        let two = UdpSocket::bind((from, 0)).unwrap();
        let port = one.local_addr().unwrap().port();
        two.send_to(b"asked", (reach, port)).unwrap();
        let mut buffer = [0; 3];
        let arrival = receive_datagram(&one, &mut buffer).unwrap();
        assert_eq!((arrival.length, &buffer), (5, b"ask"));
        assert_eq!(arrival.local.unwrap().to_canonical(), reach.parse::<IpAddr>().unwrap());
        assert_eq!(arrival.from.port(), two.local_addr().unwrap().port());
        send_datagrams(&one, b"answered", departure(arrival.from, arrival.local)).unwrap();
        let mut buffer = [0; 16];
        let (length, source) = two.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"answered"[..], (reach, port).to_socket_addr()));
    }

    trait ToSocketAddr {
        fn to_socket_addr(self) -> SocketAddr;
    }

    impl ToSocketAddr for (&str, u16) {
        fn to_socket_addr(self) -> SocketAddr {
            SocketAddr::new(self.0.parse().unwrap(), self.1)
        }
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        exchange("0.0.0.0:0", "127.0.0.2", "127.0.0.3", false);
        exchange("[::]:0", "::1", "::1", true);
        exchange("[::]:0", "127.0.0.2", "127.0.0.3", true);
    }

    #[test]
    fn a_closed_port_is_reported_and_the_next_datagram_passes() {
        for (from, to, v6) in [("0.0.0.0:0", "127.0.0.1", false), ("[::]:0", "::ffff:127.0.0.1", true)] {
            let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let socket = UdpSocket::bind(from).unwrap();
            queue_errors(&socket, v6).unwrap();
            let to = (to, closed).to_socket_addr();
            send_datagrams(&socket, b"x", departure(to, None)).unwrap();
            let (about, error) = receive_error(&socket).unwrap();
            assert_eq!((about, error.kind()), (to, io::ErrorKind::ConnectionRefused));
            assert_eq!(receive_error(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = "127.0.0.1:9".parse().unwrap();
        let local = Some("192.0.2.77".parse().unwrap());
        let error = send_datagrams(&socket, b"x", departure(to, local)).unwrap_err();
        let errors = [libc::EINVAL, libc::ENETUNREACH, libc::EADDRNOTAVAIL];
        assert!(error.raw_os_error().is_some_and(|error| errors.contains(&error)), "{error}");
        let empty = receive_datagram(&socket, &mut [0; 4]).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn datagrams_are_cut_apart_and_joined_again_with_their_traffic_class() {
        for (listen, reach, v6) in
            [("127.0.0.1", "127.0.0.1", false), ("::", "::1", true), ("::", "::ffff:127.0.0.1", true)]
        {
            let receiver = UdpSocket::bind((listen, 0)).unwrap();
            join_datagrams(&receiver, true).unwrap();
            report_traffic_class(&receiver, v6).unwrap();
            report_local_address(&receiver, v6).unwrap();
            let sender = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            let to = (reach, receiver.local_addr().unwrap().port()).to_socket_addr();
            let bytes: Vec<u8> = (0..25u8).collect();
            for (stride, class) in [(Some(10), 2), (None, 0x2e << 2 | 1)] {
                send_datagrams(&sender, &bytes, Departure { to, local: None, stride, class }).unwrap();
                let mut got = Vec::new();
                while got.len() < bytes.len() {
                    let mut buffer = [0; 64];
                    let arrival = receive_datagram(&receiver, &mut buffer).unwrap();
                    assert_eq!(arrival.class, class, "{reach}");
                    assert!(arrival.local.is_some());
                    let whole = arrival.stride.unwrap_or(arrival.length);
                    assert!(whole == usize::from(stride.unwrap_or(25)) || arrival.length == 5);
                    got.extend_from_slice(&buffer[..arrival.length]);
                }
                assert_eq!(got, bytes);
            }
        }
    }

    fn message(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(DATA + data.len()).to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    fn arrival(control: &[u8]) -> Arrival {
        let from = "192.0.2.1:1".parse().unwrap();
        let mut arrival = Arrival { length: 1, from, local: None, stride: None, class: 0 };
        visit(control, |level, kind, data| arrival.read(level, kind, data));
        arrival
    }

    #[test]
    fn a_control_message_is_read_no_further_than_it_reaches() {
        let info: Vec<u8> = (1..=20).collect();
        let whole = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        let local = std::array::from_fn::<u8, 16, _>(|at| at as u8 + 1);
        assert_eq!(arrival(&whole).local, Some(local.into()));
        // What recvmsg(2) leaves of it when the buffer ends.
        let cut = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info[..0]);
        assert_eq!(arrival(&cut).local, None);
        for length in 0..DATA + info.len() {
            assert_eq!(arrival(&whole[..length]).local, None, "{length} bytes of it");
        }
        let class = message(libc::IPPROTO_IP, libc::IP_TOS, &[0x2e]);
        assert_eq!(arrival(&[whole, class].concat()).class, 0x2e, "the one behind it");
    }

    proptest::proptest! {
        #[test]
        fn no_control_bytes_lead_out_of_them(
            length: usize, level in 0..42, kind in 0..128, data in proptest::collection::vec(0..=u8::MAX, 0..80),
        ) {
            let mut bytes = message(level, kind, &data);
            arrival(&bytes);
            bytes[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            arrival(&bytes);
            arrival(&data);
        }
    }

    #[test]
    fn a_datagram_of_which_not_all_is_told_is_refused() {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        // As a superserver may have set it.
        report_local_address(&one, false).unwrap();
        const STAMPS: c_int = 0x7f; // linux/net_tstamp.h: every SOF_TIMESTAMPING_* of software and hardware
        for (level, option, value) in [
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1),
            (libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
            (libc::IPPROTO_IP, libc::IP_RECVTTL, 1),
            (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR, 1),
        ] {
            set_option(&one, level, option, value).unwrap();
        }
        let two = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = Departure { class: 0x2e << 2, ..departure(one.local_addr().unwrap(), None) };
        send_datagrams(&two, b"x", to).unwrap();
        let arrival = receive_datagram(&one, &mut [0; 4]).unwrap();
        assert_eq!((arrival.local, arrival.class), (Some(Ipv4Addr::LOCALHOST.into()), 0x2e << 2));
        let header = libc::msghdr { msg_flags: libc::MSG_CTRUNC, msg_controllen: 64, ..empty() };
        let error = written(&header, &Control([0; CONTROL])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
