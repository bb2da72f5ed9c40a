//! Netlink multicast, and options of netlink sockets that neither rustix nor socket2 has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

use super::option::set_option;

/// Longer than any uevent (`UEVENT_BUFFER_SIZE` and the header, `include/linux/kobject.h`). The rest is cut off.
const ROOM: usize = 4096;
/// Most messages read at once.
const BATCH: usize = 256;

/// A non-blocking listener to netlink multicast groups in this network namespace.
pub struct NetlinkListener(OwnedFd);

impl NetlinkListener {
    /// Joins the `groups`, one bit each, of this protocol; `None` is `NETLINK_ROUTE`. Errors are those of socket(2) and bind(2).
    pub fn join(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Reads pending messages, at most a few hundred. True if the kernel sent one that is `wanted`, or if some were lost.
    pub fn take_any(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let mut found = false;
        let mut buffer = [0; ROOM];
        for _ in 0..BATCH {
            match recvfrom(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((length, _, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    let by_kernel = from.is_some_and(|from| from.pid() == 0);
                    found |= by_kernel && wanted(buffer.get(..length).unwrap_or_default());
                }
                Err(Errno::NOBUFS) => found = true,
                Err(_) => break,
            }
        }
        found
    }
}

impl AsFd for NetlinkListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the kernel explain refusals as text, and echo only the header of the request.
pub fn netlink_explain_errors(socket: impl AsFd) -> io::Result<()> {
    set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
    set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)
}

/// Makes the kernel dump only what a request asks for: the routes of one table, the addresses of one interface. Linux before 4.20 always dumps all.
pub fn netlink_filter_dumps(socket: impl AsFd) -> io::Result<()> {
    set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::netlink::KOBJECT_UEVENT;
    use rustix::net::sendto;

    /// Messages from another process to the listener are ignored.
    #[test]
    fn only_the_kernel_is_heard() {
        let listener = NetlinkListener::join(Some(KOBJECT_UEVENT), 1).unwrap();
        let own = rustix::net::getsockname(&listener).unwrap();
        let other = NetlinkListener::join(Some(KOBJECT_UEVENT), 0).unwrap();
        sendto(&other, b"change@/x\0NEW_VMGENID=1\0", rustix::net::SendFlags::empty(), &own).unwrap();
        let ours = |message: &[u8]| message.starts_with(b"change@/x");
        assert!(!listener.take_any(ours));
        assert_eq!(
            recvfrom(&listener, &mut [0; 8], RecvFlags::empty()).err(),
            Some(Errno::AGAIN),
            "it was read"
        );
    }

    #[test]
    fn netlink_sockets_take_the_options_and_others_do_not() {
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        netlink_explain_errors(netlink.unwrap()).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(netlink_explain_errors(udp).is_err());
    }
}
