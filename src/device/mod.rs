//! Opening TUN and TAP devices. Frames always carry a virtio-net header ([`VNET_HEADER`] bytes), zeroed
//! while offload is off.

use std::io;
use std::os::fd::OwnedFd;

use crate::config::Mode;

/// Size of `struct virtio_net_hdr` before every frame, in bytes.
pub const VNET_HEADER: usize = 10;

/// An open device.
#[derive(Debug)]
pub struct Device {
    /// Reads and writes one frame at a time, not blocking.
    pub fd: OwnedFd,
    /// The interface's name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// Opens (creates) a device. `AlreadyExists`/`ResourceBusy`: the name is taken; `PermissionDenied`: no CAP_NET_ADMIN.
pub fn open(mode: Mode, name: Option<&str>) -> io::Result<Device> {
    let _ = (mode, name);
    todo!()
}
