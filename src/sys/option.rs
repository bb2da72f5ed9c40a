//! Socket options that neither rustix nor socket2 has.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of memory that datagrams take which wait in a socket (SO_MEMINFO, Linux 4.12).
pub fn waiting_bytes(socket: impl AsFd) -> io::Result<usize> {
    const VALUES: usize = 9;
    let mut values = [0u32; VALUES];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most `length` bytes into `values`,
    // which has that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // The first is SK_MEMINFO_RMEM_ALLOC (linux/sock_diag.h).
    if result == 0 { Ok(values[0] as usize) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option whose value is an int.
pub(super) fn set_option(socket: &impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `length` bytes of `value`,
    // which is a c_int of just that size.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_waits_in_a_socket_is_counted_until_it_is_read() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(waiting_bytes(&socket).unwrap(), 0);
        socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
        assert!(waiting_bytes(&socket).unwrap() >= 1000);
        socket.recv_from(&mut [0; 1000]).unwrap();
        assert_eq!(waiting_bytes(&socket).unwrap(), 0);
        assert!(waiting_bytes(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
