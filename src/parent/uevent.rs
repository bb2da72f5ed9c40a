//! The kernel's notice that this machine is a copy: the uevent `NEW_VMGENID=1` (`drivers/virt/vmgenid.c`), sent when a hypervisor restored or cloned
//! it from a snapshot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::netlink::KOBJECT_UEVENT;

use crate::sys::NetlinkListener;

/// The kernel's own multicast group; udev's is another.
const KERNEL: u32 = 1;

/// A listener for the kernel's device events.
pub struct Uevents(NetlinkListener);

impl Uevents {
    /// Errors are those of socket(2) and bind(2).
    pub fn listen() -> io::Result<Self> {
        NetlinkListener::join(Some(KOBJECT_UEVENT), KERNEL).map(Self)
    }

    /// Reads pending events; true if this machine is now a copy, or if events were lost.
    pub fn take_resumed(&self) -> bool {
        self.0.take_any(is_new_generation)
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a uevent, `action@path` followed by `KEY=value` entries, announces a new generation.
fn is_new_generation(event: &[u8]) -> bool {
    event.split(|byte| *byte == 0).skip(1).any(|entry| entry == b"NEW_VMGENID=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_itself_tells_of_a_new_generation() {
        let event =
            b"change@/devices/platform/vmgenid\0ACTION=change\0SUBSYSTEM=platform\0NEW_VMGENID=1\0SEQNUM=7\0";
        assert!(is_new_generation(event));
        for other in [
            &b""[..],
            b"NEW_VMGENID=1",
            b"change@/x\0ACTION=change\0OLD_NEW_VMGENID=1\0",
            b"change@/x\0SYNTH_ARG_NEW_VMGENID=1\0NEW_VMGENID=10\0",
        ] {
            assert!(!is_new_generation(other));
        }
    }

    #[test]
    fn nothing_waits_at_first() {
        assert!(!Uevents::listen().unwrap().take_resumed());
    }
}
