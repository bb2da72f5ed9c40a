//! Options of netlink sockets that neither rustix nor socket2 has.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Makes the kernel say in words why it refuses a request, after the header of that request alone.
pub fn netlink_explain_errors(socket: impl AsFd) -> io::Result<()> {
    set_option(&socket, libc::NETLINK_EXT_ACK, 1)?;
    set_option(&socket, libc::NETLINK_CAP_ACK, 1)
}

fn set_option(socket: &impl AsFd, option: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `length` bytes of `value`,
    // which is a c_int of just that size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    #[test]
    fn netlink_sockets_take_the_options_and_others_do_not() {
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        netlink_explain_errors(netlink.unwrap()).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(netlink_explain_errors(udp).is_err());
    }
}
