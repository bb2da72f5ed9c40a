//! Name resolution by getaddrinfo(3).

use std::ffi::{CStr, CString};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

use rustix::net::AddressFamily;

/// Resolves `host` in one family; the addresses get `port`.
///
/// # Errors
/// Those of getaddrinfo(3), as text; `InvalidInput` for a zero byte in the name.
pub fn look_up(host: &str, port: u16, family: AddressFamily) -> io::Result<Vec<SocketAddr>> {
    let host = CString::new(host)?;
    let hints = libc::addrinfo {
        ai_flags: 0,
        ai_family: family.as_raw().into(),
        // One entry per address.
        ai_socktype: libc::SOCK_DGRAM,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    let mut list = ptr::null_mut();
    // SAFETY: the name ends in a zero byte, `hints` is valid, and all three outlive the call.
    match unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) } {
        0 => Ok(take(list, port)),
        libc::EAI_SYSTEM => Err(io::Error::last_os_error()),
        code => Err(io::Error::other(explain(code))),
    }
}

/// Reads and frees a list of getaddrinfo(3).
fn take(list: *mut libc::addrinfo, port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    let mut next = list;
    // SAFETY: the list is from getaddrinfo, not freed yet, and ends in a null pointer.
    while let Some(entry) = unsafe { next.as_ref() } {
        addresses.extend(address(entry, port));
        next = entry.ai_next;
    }
    if !list.is_null() {
        // SAFETY: it is from getaddrinfo, and nothing points into it any more.
        unsafe { libc::freeaddrinfo(list) };
    }
    addresses
}

fn address(entry: &libc::addrinfo, port: u16) -> Option<SocketAddr> {
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: an address of that family is a whole sockaddr_in, at any alignment.
            let v4 = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(SocketAddr::new(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into(), port))
        }
        libc::AF_INET6 => {
            // SAFETY: an address of that family is a whole sockaddr_in6, at any alignment.
            let v6 = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(SocketAddrV6::new(Ipv6Addr::from(v6.sin6_addr.s6_addr), port, 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn explain(code: libc::c_int) -> String {
    // SAFETY: gai_strerror(3) returns a constant string for every code.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_looked_up_by_itself() {
        let port = 1417;
        let found = |host: &str, family| look_up(host, port, family).unwrap_or_default();
        assert_eq!(found("127.0.0.1", AddressFamily::INET), [SocketAddr::from(([127, 0, 0, 1], port))]);
        assert_eq!(found("::1", AddressFamily::INET6), [SocketAddr::from((Ipv6Addr::LOCALHOST, port))]);
        assert!(found("::1", AddressFamily::INET).is_empty());
        assert!(found("127.0.0.1", AddressFamily::INET6).is_empty());
        let zoned = found("fe80::1%lo", AddressFamily::INET6);
        assert_eq!(zoned, [SocketAddrV6::new("fe80::1".parse().unwrap(), port, 0, 1).into()]);
    }

    #[test]
    fn what_is_no_name_is_refused_in_words() {
        assert!(look_up("a\0b", 1, AddressFamily::INET).is_err());
        let error = look_up("no name", 1, AddressFamily::INET).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}
