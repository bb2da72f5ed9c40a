//! The kernel's word that this machine is a copy: the uevent `NEW_VMGENID=1` (`drivers/virt/vmgenid.c`), sent
//! when a hypervisor restored or cloned it from a snapshot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

/// The kernel's own multicast group; udev's is another.
const KERNEL: u32 = 1;
/// Longer than any uevent (`UEVENT_BUFFER_SIZE` and the header).
const ROOM: usize = 4096;
/// Most events that are read at once.
const BATCH: usize = 64;

/// Listens to the kernel's device events.
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Errors are those of socket(2) and bind(2).
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Reads what is waiting; true: this machine is a copy now, or events were lost and it may be one.
    pub fn take_resumed(&self) -> bool {
        let mut resumed = false;
        let mut buffer = [0; ROOM];
        for _ in 0..BATCH {
            match recvfrom(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((length, _, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    let by_kernel = from.is_some_and(|from| from.pid() == 0);
                    resumed |= by_kernel && is_new_generation(buffer.get(..length).unwrap_or_default());
                }
                Err(Errno::NOBUFS) => resumed = true,
                Err(_) => break,
            }
        }
        resumed
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a uevent, `action@path` and then one `KEY=value` after the other, tells of a new generation.
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
