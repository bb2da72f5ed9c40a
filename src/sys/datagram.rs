//! Datagrams with control messages: recvmsg(2) and sendmsg(2) as ip(7), ipv6(7) and udp(7) describe them.

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{SockAddr, SockAddrStorage};

use super::option::set_option;

/// Room for the control messages of one call; those of an address of either family fit.
const CONTROL: usize = 128;

/// Control messages, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What recvmsg(2) says of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The datagram's length in bytes, which may be more than the buffer holds.
    pub length: usize,
    /// Where it came from.
    pub from: SocketAddr,
    /// The local address it was sent to, if the socket reports that.
    pub local: Option<IpAddr>,
}

/// Makes a UDP socket queue what routers and hosts report of its datagrams by ICMP. Any later call on the
/// socket may then fail once with the report's error.
pub fn queue_errors(socket: impl AsFd, v6: bool) -> io::Result<()> {
    // Datagrams to mapped addresses obey the IPv4 option, on IPv6 sockets as well.
    set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    if v6 {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    Ok(())
}

/// Makes a UDP socket report the local address of each datagram. `v6`: its family is IPv6; datagrams of
/// IPv4 then have a mapped address.
pub fn report_local_address(socket: impl AsFd, v6: bool) -> io::Result<()> {
    match v6 {
        true => set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
        false => set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
    }
}

/// Receives one datagram, without waiting.
pub fn receive_datagram(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    let mut from = SockAddrStorage::zeroed();
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = empty();
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = from.size_of();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: every pointer of `header` is to a live, exclusively borrowed object of the length given with it.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel wrote an address of `msg_namelen` bytes.
    let from = unsafe { SockAddr::new(from, header.msg_namelen) };
    let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Arrival { length, from, local: local_address(&header) })
}

/// Takes one report from the socket's error queue: the address the datagram was for, and the error. Whoever
/// sends ICMP may lie.
pub fn receive_error(socket: impl AsFd) -> io::Result<(SocketAddr, io::Error)> {
    let mut to = SockAddrStorage::zeroed();
    let mut control = Control([0; CONTROL]);
    let mut header = empty();
    header.msg_name = (&raw mut to).cast();
    header.msg_namelen = to.size_of();
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: every pointer of `header` is to a live, exclusively borrowed object of the length given with it.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel wrote an address of `msg_namelen` bytes.
    let to = unsafe { SockAddr::new(to, header.msg_namelen) };
    let to = to.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let error = find(&header, |level, kind, data| match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
            // SAFETY: the kernel puts a sock_extended_err there; it may not be aligned.
            let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
            Some(io::Error::from_raw_os_error(error.ee_errno.cast_signed()))
        }
        _ => None,
    });
    Ok((to, error.ok_or(io::ErrorKind::InvalidData)?))
}

/// Sends one datagram, without waiting; from `local`, unless the kernel shall choose. Both addresses are of
/// the socket's family, IPv4 addresses mapped on a socket of IPv6.
pub fn send_datagram(
    socket: impl AsFd,
    datagram: &[u8],
    to: SocketAddr,
    local: Option<IpAddr>,
) -> io::Result<()> {
    let to = SockAddr::from(to);
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
    let mut header = empty();
    header.msg_name = to.as_ptr().cast_mut().cast();
    header.msg_namelen = to.len();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let length = local.map_or(0, |local| put_local_address(&mut control, local));
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

fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    find(header, |level, kind, data| match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: the kernel puts an in_pktinfo there; it may not be aligned.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: the kernel puts an in6_pktinfo there; it may not be aligned.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    })
}

/// The first of the control messages that the kernel wrote in which `read` finds what it looks for.
fn find<T>(header: &libc::msghdr, read: impl Fn(c_int, c_int, *const u8) -> Option<T>) -> Option<T> {
    // SAFETY: the kernel has filled the control buffer that `header` points to and set its length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: a message that CMSG_FIRSTHDR or CMSG_NXTHDR gives lies inside the control buffer.
        let (level, kind, data) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, libc::CMSG_DATA(message)) };
        if let Some(found) = read(level, kind, data) {
            return Some(found);
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// Writes the one control message and returns its length.
fn put_local_address(control: &mut Control, local: IpAddr) -> usize {
    match local {
        IpAddr::V4(address) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            let unset = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: unset };
            put(control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(address) => {
            let address = libc::in6_addr { s6_addr: address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            put(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn put<T: Copy>(control: &mut Control, level: c_int, kind: c_int, value: T) -> usize {
    const { assert!(size_of::<libc::cmsghdr>() + size_of::<T>() + 8 <= CONTROL) };
    let size = size_of::<T>() as u32;
    // SAFETY: these two only compute.
    let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size)) };
    let message = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: the buffer is aligned for a cmsghdr, and header and value fit into it by the assertion above.
    unsafe {
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = length as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
    }
    space as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

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
        send_datagram(&one, b"answered", arrival.from, arrival.local).unwrap();
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
            send_datagram(&socket, b"x", to, None).unwrap();
            let (about, error) = receive_error(&socket).unwrap();
            assert_eq!((about, error.kind()), (to, io::ErrorKind::ConnectionRefused));
            assert_eq!(receive_error(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = "127.0.0.1:9".parse().unwrap();
        let error = send_datagram(&socket, b"x", to, Some("192.0.2.77".parse().unwrap())).unwrap_err();
        let errors = [libc::EINVAL, libc::ENETUNREACH, libc::EADDRNOTAVAIL];
        assert!(error.raw_os_error().is_some_and(|error| errors.contains(&error)), "{error}");
        let empty = receive_datagram(&socket, &mut [0; 4]).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }
}
