//! Who holds a UDP port in this network namespace, from /proc (proc_net(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A UDP socket as listed by /proc/net/udp and /proc/net/udp6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub address: IpAddr,
    pub port: u16,
    inode: u64,
}

/// The UDP sockets of the caller's network namespace; none if /proc hides them. While sockets are being closed, the kernel may omit others that stay
/// open.
pub(super) fn sockets() -> Vec<Socket> {
    ["/proc/net/udp", "/proc/net/udp6"]
        .into_iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| parse_table(&table))
        .collect()
}

impl Socket {
    /// Whether it prevents others from binding `address` and `port`; no address means all.
    pub fn takes(&self, address: Option<IpAddr>, port: u16) -> bool {
        let own = self.address.to_canonical();
        let meets = match address {
            None => true,
            // An IPv6 socket on every address takes the IPv4 addresses, too.
            Some(wanted) if own.is_unspecified() => own.is_ipv6() || wanted.is_ipv4(),
            Some(wanted) => wanted == own || (wanted.is_unspecified() && wanted.is_ipv4() == own.is_ipv4()),
        };
        self.port == port && meets
    }

    /// Name and id of a process that has it open, if the caller may know.
    pub fn holder(&self) -> Option<String> {
        let link = format!("socket:[{}]", self.inode);
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let process = processes
            .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
            .find(|process| {
                let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
                open.into_iter()
                    .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
            })?;
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
        Some(format!("{name} (pid {})", process.file_name().to_string_lossy()))
    }
}

fn parse_table(table: &str) -> Vec<Socket> {
    table.lines().skip(1).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    Some(Socket {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// The kernel prints each 32-bit word of the address, which is in network order, as a native number.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wait_for;
    use std::net::UdpSocket;

    fn socket(address: &str) -> Socket {
        Socket { address: address.parse().unwrap(), port: 5, inode: 1 }
    }

    #[test]
    fn an_open_socket_is_found_with_its_process() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(open) = UdpSocket::bind(local) else {
                assert!(local.starts_with('['), "no IPv4 loopback");
                continue;
            };
            let local = open.local_addr().unwrap();
            let found = wait_for(|| sockets().into_iter().find(|s| s.takes(Some(local.ip()), local.port())));
            assert_eq!(found.address, local.ip());
            let holder = found.holder().unwrap();
            assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        }
    }

    #[test]
    fn only_addresses_that_meet_are_taken() {
        let wanted = |text: &str| Some(text.parse().unwrap());
        assert!(socket("0.0.0.0").takes(wanted("192.0.2.1"), 5));
        assert!(socket("::").takes(wanted("192.0.2.1"), 5));
        assert!(socket("192.0.2.1").takes(wanted("0.0.0.0"), 5));
        assert!(socket("192.0.2.1").takes(None, 5));
        assert!(socket("::ffff:192.0.2.1").takes(wanted("192.0.2.1"), 5));
        assert!(!socket("192.0.2.1").takes(wanted("192.0.2.2"), 5));
        assert!(!socket("0.0.0.0").takes(wanted("2001:db8::1"), 5));
        assert!(!socket("0.0.0.0").takes(None, 6));
    }

    #[test]
    fn lines_that_are_no_sockets_are_passed_over() {
        assert_eq!(
            parse_table("  sl local\nrubbish\n 1: 0100007F:XYZ 0 0 0 0 0 0 0 5\n 1: 01:05 0 0 0 0 0 0 0 5\n"),
            []
        );
    }
}
