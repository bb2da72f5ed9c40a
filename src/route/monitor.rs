//! Kernel notifications about interfaces, addresses and routes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::NetlinkListener;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE`, and the group `RTNLGRP_IPV6_RULE` (19).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18;

/// Listens for changes in this network namespace.
pub struct Monitor(NetlinkListener);

impl Monitor {
    /// Errors are those of socket(2) and bind(2).
    pub fn listen() -> io::Result<Self> {
        NetlinkListener::join(None, GROUPS).map(Self)
    }

    /// Reads pending messages; true if something has changed, or messages were lost. What has changed is looked up separately.
    pub fn take_changed(&self) -> bool {
        self.0.take_any(|_| true)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_own_network, ip};

    #[test]
    fn a_route_an_address_and_a_link_are_noticed_and_nothing_else() {
        if !in_own_network(
            "route::monitor::tests::a_route_an_address_and_a_link_are_noticed_and_nothing_else",
        ) {
            return;
        }
        let monitor = Monitor::listen().unwrap();
        monitor.take_changed();
        assert!(!monitor.take_changed());
        for change in [
            "link add veth9 type veth peer name veth8",
            "addr add 10.8.7.1/24 dev veth9",
            "route add 10.8.8.0/24 dev lo",
            "rule add lookup 7",
            "-6 rule add lookup 7",
        ] {
            assert!(ip(change).0, "{change}");
            assert!(monitor.take_changed(), "{change}");
            while monitor.take_changed() {}
        }
    }
}
