//! Opening TUN and TAP devices. Frames always carry a virtio-net header ([`VNET_HEADER`] bytes), zeroed
//! while offload is off.

mod refusal;

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::packet::layer::Mode;
use crate::route::netlink::Netlink;
use crate::sys::{self, rights};

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
    /// It was there before.
    pub adopted: bool,
}

/// Whether this process may use the driver.
///
/// # Errors
/// Why not, and what helps.
pub fn check_driver() -> Result<(), String> {
    refusal::of_driver().map_or(Ok(()), Err)
}

/// Opens (creates) a device; without a name the kernel picks tunN or tapN. Closing the descriptor removes
/// a device that was created. A persistent one of the same mode that nobody has open (`ip tuntap add`,
/// `openvpn --mktun`, systemd-networkd) is adopted and stays.
///
/// `AlreadyExists`/`ResourceBusy`: the name is taken; `PermissionDenied`: no CAP_NET_ADMIN; `NotFound`: no
/// tun driver; `InvalidInput`: no interface can have that name; `Unsupported`: not Linux's driver.
pub fn open(mode: Mode, name: Option<&str>) -> io::Result<Device> {
    let mut configuration = tun::Configuration::default();
    configuration.layer(match mode {
        Mode::Tun => tun::Layer::L3,
        Mode::Tap => tun::Layer::L2,
    });
    // Otherwise the crate would set addresses and state itself; netlink does that.
    configuration.platform_config(|platform| {
        platform.vnet_hdr(true).ensure_root_privileges(false);
    });
    if let Some(name) = name {
        configuration.tun_name(name);
    }
    let mut netlink = Netlink::open()?;
    let adopted = name.map_or(Ok(None), |name| netlink.link(name))?.is_some();
    let device = tun::create(&configuration).map_err(|error| explain(error, mode, name))?;
    device.set_nonblock()?;
    let name = tun::AbstractDevice::tun_name(&device)?;
    let fd = sys::into_device(device);
    sys::disable_vnet_header(&fd, VNET_HEADER as i32)?;
    let link = netlink.link(&name)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{name}: the device was renamed while it was opened"))
    })?;
    Ok(Device { fd, name, index: link.index, adopted })
}

fn explain(error: tun::Error, mode: Mode, name: Option<&str>) -> io::Error {
    let what = name.unwrap_or(match mode {
        Mode::Tun => "tun device",
        Mode::Tap => "tap device",
    });
    let bad_name = matches!(error, tun::Error::NameTooLong | tun::Error::Nul(_));
    let error = if bad_name { Errno::INVAL.into() } else { io::Error::from(error) };
    if let Some(text) = refusal::explain(&error).filter(|_| !bad_name) {
        return io::Error::new(error.kind(), format!("{what}: {text}"));
    }
    let (kind, text) = match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => (
            io::ErrorKind::ResourceBusy,
            "another process has the device open; end that or set another device.name".to_owned(),
        ),
        Some(Errno::INVAL) => unsuitable(mode, name),
        _ => (error.kind(), format!("{error}{}", rights::beyond_capabilities(&error))),
    };
    io::Error::new(kind, format!("{what}: {text}"))
}

/// As `dev_valid_name` of the kernel's net/core/dev.c has it.
fn can_be_a_name(name: &str) -> bool {
    let odd = |c: char| c.is_ascii_whitespace() || c == '/' || c == ':';
    (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(odd)
}

/// Why the driver does not attach to that name.
fn unsuitable(mode: Mode, name: Option<&str>) -> (io::ErrorKind, String) {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(name.unwrap_or_default()));
    match link {
        Ok(Some(link)) if link.kind.as_deref() == Some("tun") => (
            io::ErrorKind::AlreadyExists,
            format!(
                "the name is taken by a device that is not a single-queue {mode} device; set another device.name"
            ),
        ),
        Ok(Some(link)) => (
            io::ErrorKind::AlreadyExists,
            format!(
                "the name is taken by an interface of another kind ({}); set another device.name",
                link.kind.as_deref().unwrap_or("no virtual device")
            ),
        ),
        Ok(None) | Err(_) if name.is_none_or(can_be_a_name) => (
            io::ErrorKind::Unsupported,
            "the driver does not know what it is asked for (IFF_VNET_HDR), as that of gVisor and the like: use another runtime"
                .to_owned(),
        ),
        Ok(None) | Err(_) => (
            io::ErrorKind::InvalidInput,
            "no interface can have that name: at most 15 characters, no space, '/' or ':'".to_owned(),
        ),
    }
}
