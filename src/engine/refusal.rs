//! Why the system refuses to send, and the remedy.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

/// Explains why nothing can be sent to that address.
pub fn not_sent(error: &io::Error, to: SocketAddr) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => {
            format!("{error}: this host has no route to {}", to.ip())
        }
        Some(Errno::ADDRNOTAVAIL) if to.is_ipv6() => format!(
            "{error}: this host has no IPv6 address to send from; IPv6 is not set up or is disabled (sysctl \
             net.ipv6.conf.all.disable_ipv6)"
        ),
        Some(Errno::AFNOSUPPORT) if to.is_ipv6() => {
            format!(
                "{error}: this host has no IPv6, or this service may not use it (RestrictAddressFamilies=)"
            )
        }
        Some(Errno::PERM) => format!("{error}: a firewall on this host blocks it"),
        Some(Errno::ACCESS) => {
            format!("{error}: a route or rule here prohibits it, or it is a broadcast address")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_has_its_reason() {
        let [four, six] = ["192.0.2.1:1", "[2001:db8::1]:1"].map(|text| text.parse().unwrap());
        let said = |errno: Errno, to| not_sent(&errno.into(), to);
        assert!(said(Errno::NETUNREACH, four).ends_with("this host has no route to 192.0.2.1"));
        assert!(said(Errno::ADDRNOTAVAIL, six).contains("disable_ipv6"));
        assert!(!said(Errno::ADDRNOTAVAIL, four).contains("IPv6"));
        assert!(said(Errno::AFNOSUPPORT, six).contains("no IPv6"));
        assert!(said(Errno::PERM, four).contains("firewall"));
        assert!(!said(Errno::ACCESS, four).contains("firewall"));
    }
}
