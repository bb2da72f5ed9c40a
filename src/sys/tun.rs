//! What the `tun` crate lacks for TUN and TAP devices (linux/if_tun.h).

use std::ffi::{c_int, c_short, c_uint};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Setter, Updater, ioctl, opcode};

/// `struct ifreq` of linux/if.h, as far as the driver reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

impl Request {
    fn new(flags: c_int) -> Self {
        // Each flag is one of the lower 16 bits.
        Self { name: [0; libc::IFNAMSIZ], flags: flags as c_short, rest: [0; 22] }
    }
}

/// Takes the descriptor of a `tun` crate device, which would read and write through it.
pub fn into_device(device: tun::Device) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up the device's one descriptor, which is open and has no other owner.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
}

/// Makes a descriptor of the driver a queue of this multi-queue device, which is created if missing; returns the device's name. The kernel picks an
/// empty name. Frames, Ethernet on a `tap` device, are preceded only by a virtio header.
///
/// # Errors
/// `InvalidInput`: the device is of another kind, the name is impossible, or the driver lacks a flag; otherwise those of TUNSETIFF.
pub fn attach_multi_queue(driver: impl AsFd, name: &str, tap: bool) -> io::Result<String> {
    const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 202);
    let layer = if tap { libc::IFF_TAP } else { libc::IFF_TUN };
    let mut request = Request::new(layer | libc::IFF_MULTI_QUEUE | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
    match request.name.get_mut(..name.len()) {
        Some(room) if name.len() < libc::IFNAMSIZ => room.copy_from_slice(name.as_bytes()),
        _ => return Err(Errno::INVAL.into()),
    }
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`; `Request` is at least that long, and may hold any bytes.
    unsafe { ioctl(&driver, Updater::<TUNSETIFF, Request>::new(&mut request)) }?;
    let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Attaches a queue of a multi-queue device for frames, or detaches it. Needs no privilege.
///
/// # Errors
/// `InvalidInput`: it is so already, or not possible.
pub fn attach_queue(queue: impl AsFd, attached: bool) -> io::Result<()> {
    const TUNSETQUEUE: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 217);
    let request = Request::new(if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE });
    // SAFETY: TUNSETQUEUE reads a `struct ifreq`; `Request` is at least that long, and `Setter` keeps it alive.
    unsafe { ioctl(&queue, Setter::<TUNSETQUEUE, Request>::new(request)) }?;
    Ok(())
}

const TUNSETOFFLOAD: rustix::ioctl::Opcode = opcode::write::<c_uint>(b'T', 208);

/// What the kernel may leave to the device's reader (linux/if_tun.h: TUN_F_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    None,
    /// Checksums, and TCP segmentation.
    Tcp,
    /// Also UDP segmentation. Needs Linux 6.2.
    TcpAndUdp,
}

/// Sets what the kernel may leave to the device's reader; needs no privilege.
///
/// # Errors
/// `InvalidInput`: the kernel does not support all of it.
pub fn set_offload(device: impl AsFd, offload: Offload) -> io::Result<()> {
    const CHECKSUM: usize = 0x01;
    const TSO: usize = 0x02 | 0x04 | 0x08;
    const USO: usize = 0x20 | 0x40;
    let flags = match offload {
        Offload::None => 0,
        Offload::Tcp => CHECKSUM | TSO,
        Offload::TcpAndUdp => CHECKSUM | TSO | USO,
    };
    // SAFETY: TUNSETOFFLOAD takes its flags by value and does not access memory.
    unsafe { ioctl(&device, IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags)) }?;
    Ok(())
}

/// Sets the virtio header's size in bytes and disables all offloads, for all queues of the device. A device that outlived an earlier process keeps
/// that one's settings.
pub fn disable_vnet_header(device: impl AsFd, header: c_int) -> io::Result<()> {
    const TUNSETVNETHDRSZ: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 216);
    // SAFETY: TUNSETVNETHDRSZ reads an int through its argument, which `Setter` keeps alive.
    unsafe { ioctl(&device, Setter::<TUNSETVNETHDRSZ, c_int>::new(header)) }?;
    set_offload(device, Offload::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_descriptor_of_the_driver_takes_what_is_asked_of_one() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let errors = [
            disable_vnet_header(&null, 10).unwrap_err(),
            attach_multi_queue(&null, "tun0", false).unwrap_err(),
            attach_queue(&null, true).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTTY));
        }
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused_and_not_cut() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = attach_multi_queue(&null, "sixteen-letters-", true).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));
    }
}
