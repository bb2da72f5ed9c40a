//! Options of netlink sockets that neither rustix nor socket2 has.

use std::io;
use std::os::fd::AsFd;

use super::option::set_option;

/// Makes the kernel say in words why it refuses a request, after the header of that request alone.
pub fn netlink_explain_errors(socket: impl AsFd) -> io::Result<()> {
    set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
    set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)
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
