//! What the `tun` crate leaves open about TUN and TAP devices (linux/if_tun.h).

use std::ffi::{c_int, c_short, c_uint};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Setter, Updater, ioctl, opcode};

/// `struct ifreq` of linux/if.h, as far as the driver looks at it.
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

/// Takes the descriptor out of a device of the `tun` crate, which would read and write through it.
pub fn into_device(device: tun::Device) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up the device's one descriptor, which is open and closed by nobody else.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
}

/// Makes a descriptor of the driver a queue of the multi-queue device of this name, which is created if it is not there, and returns its
/// name; with an empty one the kernel picks it. Frames, Ethernet's on a `tap` device, have a virtio header and nothing else before them.
///
/// # Errors
/// `InvalidInput`: the device is of another kind, no device can have this name, or the driver does not know all of it; otherwise
/// those of TUNSETIFF.
pub fn attach_multi_queue(driver: impl AsFd, name: &str, tap: bool) -> io::Result<String> {
    const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 202);
    let layer = if tap { libc::IFF_TAP } else { libc::IFF_TUN };
    let mut request = Request::new(layer | libc::IFF_MULTI_QUEUE | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
    match request.name.get_mut(..name.len()) {
        Some(room) if name.len() < libc::IFNAMSIZ => room.copy_from_slice(name.as_bytes()),
        _ => return Err(Errno::INVAL.into()),
    }
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `Request` is as long as at least, and may hold any bytes.
    unsafe { ioctl(&driver, Updater::<TUNSETIFF, Request>::new(&mut request)) }?;
    let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Whether the kernel gives frames to this queue of a multi-queue device. It needs no privilege.
///
/// # Errors
/// `InvalidInput`: it is so already, or this is none.
pub fn attach_queue(queue: impl AsFd, attached: bool) -> io::Result<()> {
    const TUNSETQUEUE: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 217);
    let request = Request::new(if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE });
    // SAFETY: TUNSETQUEUE reads a `struct ifreq`, which `Request` is as long as at least, and which `Setter` keeps alive.
    unsafe { ioctl(&queue, Setter::<TUNSETQUEUE, Request>::new(request)) }?;
    Ok(())
}

const TUNSETOFFLOAD: rustix::ioctl::Opcode = opcode::write::<c_uint>(b'T', 208);

/// What the kernel may leave to whoever reads from the device (linux/if_tun.h: TUN_F_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    None,
    /// Checksums, and cutting up TCP.
    Tcp,
    /// The same and cutting up UDP. Needs Linux 6.2.
    TcpAndUdp,
}

/// Sets what the kernel may leave to whoever reads from the device; it needs no privilege.
///
/// # Errors
/// `InvalidInput`: the kernel does not know all of it.
pub fn set_offload(device: impl AsFd, offload: Offload) -> io::Result<()> {
    const CHECKSUM: usize = 0x01;
    const TSO: usize = 0x02 | 0x04 | 0x08;
    const USO: usize = 0x20 | 0x40;
    let flags = match offload {
        Offload::None => 0,
        Offload::Tcp => CHECKSUM | TSO,
        Offload::TcpAndUdp => CHECKSUM | TSO | USO,
    };
    // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours.
    unsafe { ioctl(&device, IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags)) }?;
    Ok(())
}

/// Sets the virtio header's size in bytes and turns every offload off, for all queues of the device. One that outlived the process
/// before us still has what that one set.
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
