//! Socket options that neither rustix nor socket2 has.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Bytes of memory used by a socket's receive queue (SO_MEMINFO, Linux 4.12).
pub fn waiting_bytes(socket: impl AsFd) -> io::Result<usize> {
    // The first is SK_MEMINFO_RMEM_ALLOC (linux/sock_diag.h).
    let [waiting, ..] = values::<9>(socket, libc::SO_MEMINFO)?;
    Ok(waiting as usize)
}

/// Limits the unsent bytes of a TCP connection in the kernel (TCP_NOTSENT_LOWAT, tcp(7)): the socket is writable only below the limit.
pub fn set_unsent_limit(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes.cast_signed())
}

/// The peer of a Unix socket when it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its process; 0 if not in this pid namespace.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

/// The peer of a Unix socket (SO_PEERCRED, unix(7)).
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let [pid, uid, _gid] = values(socket, libc::SO_PEERCRED)?;
    Ok(Credentials { pid, uid })
}

/// The process at the other end of a Unix socket, even if its pid was reused (SO_PEERPIDFD, Linux 6.5).
pub fn peer_process(socket: impl AsFd) -> io::Result<OwnedFd> {
    let [descriptor] = values(socket, libc::SO_PEERPIDFD)?;
    // SAFETY: the kernel has made this descriptor for this call, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor.cast_signed()) })
}

/// Reads a SOL_SOCKET option whose value is `COUNT` 32-bit numbers.
fn values<const COUNT: usize>(socket: impl AsFd, option: c_int) -> io::Result<[u32; COUNT]> {
    let mut values = [0u32; COUNT];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open while borrowed, and the kernel writes at most `length` bytes into `values`, which has that size and may hold any
    // bits.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize == size_of_val(&values) { Ok(values) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sets an option whose value is an int.
pub(super) fn set_option(socket: &impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while borrowed, and the kernel reads `length` bytes of `value`, a c_int of that size.
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

    #[test]
    fn the_other_end_of_a_unix_socket_is_known() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(peer_credentials(&one).unwrap(), Credentials { pid: std::process::id(), uid });
        let process = peer_process(&one).unwrap();
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).unwrap();
        assert!(text.contains(&format!("\nPid:\t{}\n", std::process::id())), "{text}");
        assert!(peer_credentials(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
