//! What the `tun` crate leaves open about TUN and TAP descriptors.

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::ioctl::{IntegerSetter, Setter, ioctl, opcode};

/// Takes the descriptor out of a device of the `tun` crate, which would read and write through it.
pub fn into_device(device: tun::Device) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up the device's one descriptor, which is open and closed by nobody else.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
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

/// Sets the virtio header's size in bytes and turns every offload off. A device that outlived the process
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
    fn only_a_tun_descriptor_can_be_set_to_plain_frames() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = disable_vnet_header(null, 10).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTTY.raw_os_error()));
    }
}
