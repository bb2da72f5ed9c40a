//! What this process may do, and the remedy if it may not.

use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

/// Fewest files that a process may have open for a link to start; more lanes take more.
const FEWEST_FILES: u64 = 32;

/// Checks, before anything that needs files misses one, that enough may be open; otherwise returns the remedy.
pub fn check_files() -> Result<(), String> {
    let remedy = limits(&Errno::MFILE.into());
    match getrlimit(Resource::Nofile).current {
        Some(n @ ..FEWEST_FILES) => {
            Err(format!("a link opens {FEWEST_FILES} files, {n} are allowed{remedy}"))
        }
        Some(FEWEST_FILES..) | None => Ok(()),
    }
}

/// Whether this process has that capability in its user namespace.
pub fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Whether this process can have IPv6 sockets: not on a kernel without IPv6, nor if a service is denied them.
pub fn has_ipv6() -> bool {
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.err() != Some(Errno::AFNOSUPPORT)
}

/// How to give tund the capability of this name (without `CAP_`) at its start: Docker gives added ones only to root, and root lacks only what a
/// container or service takes away.
pub fn how_to_give(name: &str) -> String {
    how_to_give_to(name, rustix::process::geteuid().is_root())
}

fn how_to_give_to(name: &str, root: bool) -> String {
    if root {
        format!(
            "a container gets it with --cap-add {name} (cap_add in a compose file), a service with CapabilityBoundingSet=CAP_{name}"
        )
    } else {
        format!(
            "run it as root (sudo tund …), or give a service AmbientCapabilities=CAP_{name}; a container needs --cap-add {name}, and with \
             Docker also uid 0"
        )
    }
}

/// The remedy for a failure to bind `port`; empty unless privileges are missing.
pub fn to_bind(port: u16, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS) if (1..1024).contains(&port) && !has(CapabilitySet::NET_BIND_SERVICE) => format!(
            "; ports below 1024 (sysctl net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE: {}; or set a higher port",
            how_to_give("NET_BIND_SERVICE")
        ),
        _ => beyond_capabilities(error).to_owned(),
    }
}

/// What to check if a system call fails without a missing capability; empty for other failures.
pub fn beyond_capabilities(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "; no missing capability explains it: check the seccomp filter, SELinux and AppArmor of this container or service"
        }
        Some(Errno::NOSYS) => {
            "; this kernel, or the seccomp filter of this container or service, has no such system call"
        }
        _ => limits(error),
    }
}

/// The limit that makes a system call fail, and how it is raised; empty for other failures.
pub fn limits(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => "; open files are limited: LimitNOFILE=, --ulimit nofile= or ulimit -n",
        Some(Errno::NFILE) => "; the open files of this host are limited: sysctl fs.file-max",
        Some(Errno::AGAIN) => "; processes are limited: TasksMax=, LimitNPROC=, --pids-limit or ulimit -u",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_told_to_become_root() {
        let (root, other) = (how_to_give_to("SYS_NICE", true), how_to_give_to("SYS_NICE", false));
        assert!(!root.contains("as root") && other.contains("run it as root (sudo tund …)"));
        assert!(root.contains("--cap-add SYS_NICE") && other.contains("AmbientCapabilities=CAP_SYS_NICE"));
    }

    #[test]
    fn only_what_is_refused_or_unknown_is_explained() {
        assert!(beyond_capabilities(&Errno::PERM.into()).contains("seccomp"));
        assert!(beyond_capabilities(&Errno::NOSYS.into()).contains("kernel"));
        for (errno, remedies) in [
            (Errno::MFILE, &["LimitNOFILE=", "ulimit -n"][..]),
            (Errno::NFILE, &["fs.file-max"]),
            (Errno::AGAIN, &["TasksMax=", "LimitNPROC=", "ulimit -u"]),
        ] {
            assert!(
                remedies.iter().all(|remedy| beyond_capabilities(&errno.into()).contains(remedy)),
                "{errno}"
            );
        }
        assert_eq!(beyond_capabilities(&Errno::NOSPC.into()), "");
        assert_eq!(beyond_capabilities(&io::ErrorKind::TimedOut.into()), "");
    }
}
