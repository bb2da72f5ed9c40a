//! Opening TUN and TAP devices. Frames always have a virtio-net header ([`VNET_HEADER`] bytes), zeroed while offload is off.

mod refusal;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::packet::layer::Mode;
use crate::route::netlink::Netlink;
use crate::sys::{self, rights};

/// Size of `struct virtio_net_hdr` before every frame, in bytes.
pub const VNET_HEADER: usize = 10;

/// An open device.
#[derive(Debug)]
pub struct Device {
    /// Non-blocking; each reads and writes one frame at a time. The first is attached and gets every frame; the others get none until attached
    /// ([`sys::attach_queue`]).
    pub queues: Vec<OwnedFd>,
    /// With several queues: a queue to write to, for each. These are never attached, since the kernel steers a flow to the queue that its answers are
    /// written to (`tun_flow_update` of drivers/net/tun.c): two ends writing to the queues they read would move flows that are busy in both
    /// directions back and forth forever.
    pub writers: Vec<OwnedFd>,
    /// The interface's name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// It existed before.
    pub adopted: bool,
}

impl Device {
    /// Steers every frame to the first queue, whoever has attached others.
    pub fn detach_others(&self) -> io::Result<()> {
        for queue in self.queues.iter().skip(1).chain(&self.writers) {
            match sys::attach_queue(queue, false) {
                // It is so already.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// Checks that this process may use the driver.
///
/// # Errors
/// Why not, and the remedy.
pub fn check_driver() -> Result<(), String> {
    refusal::of_driver().map_or(Ok(()), Err)
}

/// Opens (creates) a device; without a name the kernel picks tunN or tapN. Closing its queues removes a created device. A persistent one of the same
/// mode that nobody has open (`ip tuntap add`, `openvpn --mktun`, systemd-networkd) is adopted and stays. A device created with a single queue, or by
/// a driver without multi-queue, has one, however many are requested.
///
/// `AlreadyExists`/`ResourceBusy`: the name is taken; `PermissionDenied`: no CAP_NET_ADMIN; `NotFound`: no tun driver; `InvalidInput`: not a possible
/// interface name; `Unsupported`: not Linux's driver.
pub fn open(mode: Mode, name: Option<&str>, queues: u8) -> io::Result<Device> {
    let mut netlink = Netlink::open()?;
    let there = name.map_or(Ok(None), |name| netlink.link(name))?;
    let refused = |error| explain(error, mode, name);
    // Several processes may share a multi-queue device; only for a single queue the kernel prevents it.
    if there.as_ref().is_some_and(|link| link.queues > Some(0)) {
        return Err(refused(Errno::BUSY.into()));
    }
    let (first, name, multi_queue) =
        open_first(mode, name.unwrap_or_default(), queues > 1).map_err(refused)?;
    let link = netlink.link(&name)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{name}: the device was renamed while it was opened"))
    })?;
    if link.queues > Some(1) {
        return Err(refused(Errno::BUSY.into()));
    }
    sys::disable_vnet_header(&first, VNET_HEADER as i32)?;
    let (index, adopted) = (link.index, there.is_some());
    let mut device = Device { queues: vec![first], writers: Vec::new(), name, index, adopted };
    if multi_queue && queues > 1 {
        let another = || open_queue(mode, &device.name, true).map(|(queue, _)| queue).map_err(refused);
        let mut others = (1..2 * queues).map(|_| another()).collect::<io::Result<Vec<_>>>()?;
        device.writers = others.split_off(usize::from(queues) - 1);
        device.queues.extend(others);
    }
    device.detach_others()?;
    Ok(device)
}

/// Opens the first queue; also returns the name and whether it may have more. An existing device is taken either way.
fn open_first(mode: Mode, name: &str, several: bool) -> io::Result<(OwnedFd, String, bool)> {
    let open = |several| open_queue(mode, name, several).map(|(queue, name)| (queue, name, several));
    match open(several) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => open(!several),
        result => result,
    }
}

/// Opens a queue of the device; returns it and the name.
fn open_queue(mode: Mode, name: &str, multi_queue: bool) -> io::Result<(OwnedFd, String)> {
    if !multi_queue {
        return open_only_queue(mode, name);
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let driver = File::options().read(true).write(true).custom_flags(nonblocking).open(refusal::TUN)?;
    let name = sys::attach_multi_queue(&driver, name, mode == Mode::Tap)?;
    Ok((driver.into(), name))
}

/// The same for a single-queue device, the only kind the crate supports.
fn open_only_queue(mode: Mode, name: &str) -> io::Result<(OwnedFd, String)> {
    let mut configuration = tun::Configuration::default();
    configuration.layer(match mode {
        Mode::Tun => tun::Layer::L3,
        Mode::Tap => tun::Layer::L2,
    });
    // Otherwise the crate would set addresses and state itself; netlink does that.
    configuration.platform_config(|platform| {
        platform.vnet_hdr(true).ensure_root_privileges(false);
    });
    if !name.is_empty() {
        configuration.tun_name(name);
    }
    let device = tun::create(&configuration).map_err(|error| match error {
        tun::Error::NameTooLong | tun::Error::Nul(_) => Errno::INVAL.into(),
        error => io::Error::from(error),
    })?;
    device.set_nonblock()?;
    let name = tun::AbstractDevice::tun_name(&device)?;
    Ok((sys::into_device(device), name))
}

fn explain(error: io::Error, mode: Mode, name: Option<&str>) -> io::Error {
    let what = name.unwrap_or(match mode {
        Mode::Tun => "tun device",
        Mode::Tap => "tap device",
    });
    let bad_name = name.is_some_and(|name| !can_be_a_name(name));
    if let Some(text) = refusal::explain(&error).filter(|_| !bad_name) {
        return io::Error::new(error.kind(), format!("{what}: {text}"));
    }
    let (kind, text) = match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => (
            io::ErrorKind::ResourceBusy,
            "another process has the device open; stop it or set another device.name".to_owned(),
        ),
        Some(Errno::INVAL) => unsuitable(mode, name),
        _ => (error.kind(), format!("{error}{}", rights::beyond_capabilities(&error))),
    };
    io::Error::new(kind, format!("{what}: {text}"))
}

/// As in `dev_valid_name` of the kernel's net/core/dev.c.
fn can_be_a_name(name: &str) -> bool {
    let odd = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | ':' | '\0');
    (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(odd)
}

/// Why the driver does not attach to that name.
fn unsuitable(mode: Mode, name: Option<&str>) -> (io::ErrorKind, String) {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(name.unwrap_or_default()));
    match link {
        Ok(Some(link)) if link.kind.as_deref() == Some("tun") => (
            io::ErrorKind::AlreadyExists,
            format!("the name is taken by a device that is not a {mode} device; set another device.name"),
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
            "the driver does not support IFF_VNET_HDR, as with gVisor and the like: use another runtime"
                .to_owned(),
        ),
        Ok(None) | Err(_) => (
            io::ErrorKind::InvalidInput,
            "not a valid interface name: at most 15 characters, no space, '/' or ':'".to_owned(),
        ),
    }
}
