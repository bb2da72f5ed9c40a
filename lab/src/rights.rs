//! What this process may do, and the remedy if it may not.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::{At, Error};

/// Set in the re-executed program's environment, so that it is re-executed only once.
const ENTERED: &str = "TUND_LAB_ENTERED";

/// Debian packages of the programs started by the lab or its tests.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ping", "iputils-ping"),
    ("brctl", "bridge-utils"),
    ("ifconfig", "net-tools"),
    ("dnsmasq", "dnsmasq-base"),
    ("udhcpc", "udhcpc"),
    ("mount", "mount"),
    ("inetd", "openbsd-inetd"),
    ("xinetd", "xinetd"),
    ("systemd-socket-activate", "systemd"),
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("busybox", "busybox"),
    ("curl", "curl"),
    ("bird", "bird2"),
    ("conntrack", "conntrack"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovsdb-server", "openvswitch-common"),
    ("ovsdb-tool", "openvswitch-common"),
    ("ovs-vsctl", "openvswitch-common"),
    ("ovs-ofctl", "openvswitch-common"),
    ("dumpcap", "wireshark-common"),
    ("linux.uml", "user-mode-linux"),
    ("modprobe", "kmod"),
    ("cc", "gcc libc6-dev"),
    ("tshark", "tshark"),
];

/// Fails with the Debian package's name if `program` is not installed.
pub fn require(program: &str) -> Result<(), Error> {
    if program.contains('/') || found(program) {
        return Ok(());
    }
    let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    Err(Error::new(format!("{program} is not installed: apt-get install {package}")))
}

/// Debian's Python: it has the modules of Debian packages, unlike whatever `PATH` finds first.
pub const PYTHON: &str = "/usr/bin/python3";

/// Fails with the Debian packages' names if Debian's Python lacks one of the modules.
pub fn require_python(modules: &[&str]) -> Result<(), Error> {
    let import = format!("import {}", modules.join(", "));
    if Command::new(PYTHON).args(["-c", &import]).output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let packages: Vec<String> = modules.iter().map(|module| format!("python3-{module}")).collect();
    Err(Error::new(format!("{PYTHON} cannot {import}: apt-get install {}", packages.join(" "))))
}

fn found(program: &str) -> bool {
    find(program).is_some()
}

/// Finds a program on this process's `PATH` or among the system's programs.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// A system program that finds the others. It is started by its path, so that the standard library need not fork this process, which may be large, to
/// search the new process's own `PATH`.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.env("PATH", search_path());
    command
}

/// The folder of programs built for the benchmark: beside this program's profile folder.
pub fn tools() -> Option<std::path::PathBuf> {
    Some(std::env::current_exe().ok()?.ancestors().nth(2)?.join("tools"))
}

/// Program folders of Debian's packages, below `usr`.
const UNPACKED: [&str; 3] = ["sbin", "bin", "lib/openvswitch-switch"];

/// This process's `PATH` plus the directories of system programs, which ordinary users lack.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::new();
    // What the benchmark has built goes first.
    if let Some(tools) = tools() {
        path.push(tools.join("bin"));
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    path.push(":/usr/sbin:/sbin:/usr/lib/openvswitch-switch");
    // Where tests/run puts programs that it does not install.
    for directory in std::env::current_exe().iter().flat_map(|program| program.ancestors()) {
        for folder in UNPACKED.map(|folder| directory.join("tools/inet/usr").join(folder)) {
            if folder.is_dir() {
                path.push(":");
                path.push(folder);
            }
        }
    }
    path
}

/// Whether this process is root, of the machine or of a user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is a user besides root: not in a user namespace with one mapped user.
pub fn has_nobody() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&65534))
    })
}

/// Fails, with a remedy, unless this process may make network namespaces.
pub fn check_namespaces() -> Result<(), Error> {
    for program in ["ip", "unshare", "nsenter", "setpriv", "mount"] {
        require(program)?;
    }
    if !is_root() {
        return Err(Error::new(
            "no right to make network namespaces: run as root, or in a user namespace (unshare -Urnm COMMAND)",
        ));
    }
    let output = Command::new("unshare").args(["--net", "--mount", "--", "true"]).output().at("unshare")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(format!(
        "this root may not make network namespaces ({said}): is this a container without CAP_SYS_ADMIN?"
    )))
}

/// Whether the kernel has this kind of interface: `vxlan`, `vlan`, `bridge vlan_filtering 1`. Loads its module if there is one.
pub fn kernel_has(kind: &str) -> Result<bool, Error> {
    let script = match kind {
        "vxlan" => "ip link add t0 type vxlan id 1 dstport 4789".to_owned(),
        // It needs an Ethernet interface below it.
        "vlan" => "ip link add v0 type veth peer v1 && ip link add link v0 name t0 type vlan id 1".to_owned(),
        kind => format!("ip link add t0 type {kind}"),
    };
    let output = Command::new("unshare").args(["--net", "--", "sh", "-c", &script]).output().at("unshare")?;
    Ok(output.status.success())
}

/// Fails, with a remedy, unless TUN and TAP devices can be opened.
pub fn check_tun() -> Result<(), Error> {
    let path = "/dev/net/tun";
    let opened = std::fs::File::options().read(true).write(true).open(path);
    let Err(error) = opened else { return Ok(()) };
    let remedy = if Path::new(path).exists() {
        "as root: chmod 0666 /dev/net/tun (safe, and Debian's default), or run this as root"
    } else {
        "as root: modprobe tun; in a container pass the device /dev/net/tun in"
    };
    Err(Error::new(format!("cannot open {path} ({error}); {remedy}")))
}

/// Whether [`become_root`] has executed this program again.
pub fn is_entered() -> bool {
    std::env::var_os(ENTERED).is_some()
}

/// Makes this process root of a user namespace if it is an ordinary user, by executing it again, once. Returns only if it is root (of either kind),
/// or cannot become so.
pub fn become_root() -> Result<(), Error> {
    if is_root() {
        return Ok(());
    }
    require("unshare")?;
    let trial = ["--user", "--map-root-user", "--net", "--mount", "--"];
    let output = Command::new("unshare").args(trial).arg("true").output().at("unshare")?;
    if !output.status.success() || is_entered() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(format!("{said}\n{}", namespace_remedy())));
    }
    let program = std::env::current_exe().at("own program file")?;
    let error = Command::new("unshare")
        .args(trial)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(ENTERED, "1")
        .exec();
    Err(Error::new(format!("cannot execute unshare: {error}")))
}

/// The setting that forbids user namespaces on this machine.
fn namespace_remedy() -> String {
    let switch = |path: &str, bad: &str| {
        std::fs::read_to_string(format!("/proc/sys/{path}")).is_ok_and(|value| value.trim() == bad)
    };
    let set = |text: &str| {
        format!("this machine forbids user namespaces; as root: sysctl -w {text}, or run this as root")
    };
    if switch("kernel/unprivileged_userns_clone", "0") {
        return set("kernel.unprivileged_userns_clone=1");
    }
    if switch("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return set("kernel.apparmor_restrict_unprivileged_userns=0");
    }
    if switch("user/max_user_namespaces", "0") {
        return set("user.max_user_namespaces=10000");
    }
    "this machine (or the container this runs in) forbids user namespaces: run this as root".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        assert!(require("sh").is_ok());
        let error = require("no-such-program").unwrap_err().to_string();
        assert!(error.contains("apt-get install no-such-program"), "{error}");
    }

    #[test]
    fn every_program_of_the_package_list_is_listed_once() {
        let mut names: Vec<_> = PACKAGES.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
