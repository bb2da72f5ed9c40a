//! Why a device could not be opened, and the remedy.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::sys::rights;

/// The driver's device node.
pub(super) const TUN: &str = "/dev/net/tun";
/// Its number (Documentation/admin-guide/devices.txt of the kernel).
const NUMBER: (u32, u32) = (10, 200);
/// How a container is started to have it.
const CONTAINER: &str = "start a container with --device /dev/net/tun (devices in a compose file)";

/// What is found at the driver's path.
struct Facts {
    /// The result of opening it.
    opened: Result<(), Errno>,
    found: Option<Found>,
    uid: u32,
    /// This process may open files whatever their mode.
    overrides_modes: bool,
    net_admin: bool,
}

struct Found {
    is_driver: bool,
    uid: u32,
    mode: u32,
}

impl Facts {
    fn gather() -> Self {
        let opened = File::options().read(true).write(true).open(TUN).map(drop);
        let driver = |metadata: &Metadata| {
            let number = metadata.rdev();
            let number = (rustix::fs::major(number), rustix::fs::minor(number));
            metadata.file_type().is_char_device() && number == NUMBER
        };
        let found = std::fs::metadata(TUN).ok().map(|metadata| Found {
            is_driver: driver(&metadata),
            uid: metadata.uid(),
            mode: metadata.mode() & 0o777,
        });
        Self {
            opened: opened.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            found,
            uid: rustix::process::geteuid().as_raw(),
            overrides_modes: rights::has(CapabilitySet::DAC_OVERRIDE),
            net_admin: rights::has(CapabilitySet::NET_ADMIN),
        }
    }

    /// Explains why a device was refused with `refusal`.
    fn explain(&self, refusal: Errno) -> Option<String> {
        let Some(found) = &self.found else {
            return matches!(refusal, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS).then(|| {
                format!("{TUN} is missing; {CONTAINER}, and elsewhere `modprobe tun` loads the driver")
            });
        };
        let (uid, mode) = (found.uid, found.mode);
        match self.opened {
            _ if !found.is_driver => Some(format!(
                "{TUN} is not the driver (character device 10, 200); {CONTAINER}, and elsewhere `rm -r {TUN}; mknod -m 666 {TUN} \
                 c 10 200`"
            )),
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
                Some(format!("{TUN} exists, but this kernel has no driver for it; on the host: `modprobe tun`"))
            }
            Err(Errno::PERM) => Some(format!(
                "the device rules of this container or service deny {TUN}; {CONTAINER}, a service with DeviceAllow={TUN} rw"
            )),
            Err(Errno::ACCESS) if self.overrides_modes || mode & 0o006 == 0o006 => Some(format!(
                "{TUN} is on a file system that is mounted nodev, or SELinux or AppArmor denies it; {CONTAINER}"
            )),
            Err(Errno::ACCESS) => Some(format!(
                "{TUN} may not be opened by uid {} (it is uid {uid}'s, mode {mode:04o}); `chmod 666 {TUN}` is safe, since only \
                 CAP_NET_ADMIN makes devices",
                self.uid
            )),
            Ok(()) if refusal == Errno::PERM && !self.net_admin => Some(format!(
                "it needs CAP_NET_ADMIN, or a device made for this user (`ip tuntap add dev NAME mode tun user {}`); {}",
                self.uid,
                rights::how_to_give("NET_ADMIN")
            )),
            Ok(()) if refusal == Errno::PERM => Some(
                "this network namespace belongs to another user namespace, so CAP_NET_ADMIN does not count in it; give a \
                 rootless container its own network (not --network host), or start tund as the host's root"
                    .to_owned(),
            ),
            Ok(()) | Err(_) => None,
        }
    }
}

/// Why the driver cannot be used, and the remedy; `None` if it can.
pub(super) fn of_driver() -> Option<String> {
    let facts = Facts::gather();
    let refusal =
        facts.opened.err().or(facts.found.as_ref().filter(|found| !found.is_driver).map(|_| Errno::NOTTY))?;
    Some(facts.explain(refusal).unwrap_or_else(|| format!("{TUN}: {refusal}")))
}

/// Why a device failed to open with `error`, and the remedy, if it is due to privileges or the driver.
pub(super) fn explain(error: &io::Error) -> Option<String> {
    Facts::gather().explain(Errno::from_io_error(error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(opened: Result<(), Errno>, mode: u32) -> Facts {
        let found = Some(Found { is_driver: true, uid: 1000, mode });
        Facts { opened, found, uid: 7, overrides_modes: false, net_admin: true }
    }

    fn said(facts: &Facts, refusal: Errno) -> String {
        facts.explain(refusal).unwrap_or_default()
    }

    #[test]
    fn each_refusal_names_what_is_missing_and_its_remedy() {
        let refused = |errno, mode| said(&facts(Err(errno), mode), errno);
        assert!(refused(Errno::PERM, 0o666).contains("device rules"));
        assert!(refused(Errno::ACCESS, 0o666).contains("nodev"));
        let mode = refused(Errno::ACCESS, 0o600);
        assert!(mode.contains("uid 7 (it is uid 1000's, mode 0600)") && mode.contains("chmod 666"), "{mode}");
        assert!(refused(Errno::NODEV, 0o666).contains("modprobe tun"));
        let there = facts(Ok(()), 0o666);
        assert!(said(&there, Errno::PERM).contains("another user namespace"));
        let without = Facts { net_admin: false, ..facts(Ok(()), 0o666) };
        assert!(said(&without, Errno::PERM).contains("ip tuntap add dev NAME mode tun user 7"));
        assert_eq!(said(&there, Errno::BUSY), "");
        let absent = Facts { found: None, ..facts(Err(Errno::NOENT), 0) };
        for part in ["is missing", "--device /dev/net/tun", "modprobe tun"] {
            assert!(said(&absent, Errno::NOENT).contains(part));
        }
    }

    #[test]
    fn whatever_else_is_in_its_place_is_not_the_driver() {
        let file = Found { is_driver: false, uid: 0, mode: 0o644 };
        let file = Facts { found: Some(file), ..facts(Ok(()), 0) };
        assert!(said(&file, Errno::NOTTY).contains("not the driver"));
    }
}
