//! No files, no TCP, no signals to others: Landlock (landlock(7)), as far as the kernel supports it.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, NetPort, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};

use rustix::system::uname;

use crate::privsep::spawn::Role;

/// What the C library reads to resolve a name: its settings, and the modules that nsswitch.conf(5) names.
const LOOK_UP: [&str; 17] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/mdns.allow",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/gnu/store",
    "/lib",
    "/lib64",
    "/nix/store",
    "/proc/sys/net",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
];
/// Answers too long for UDP are retried over TCP.
const DNS: u16 = 53;

/// Restricts this thread and future ones; a resolver may ask this host's services if `services`. Returns what is in force, or why nothing is.
pub(super) fn restrict(role: Role, services: bool) -> Result<String, String> {
    match ruleset(role, services).and_then(RulesetCreated::restrict_self) {
        Ok(status) => describe(&status),
        Err(error) => Err(format!("Landlock ({error})")),
    }
}

fn ruleset(role: Role, services: bool) -> Result<RulesetCreated, RulesetError> {
    let files = match role {
        // From version 9 on, this covers sockets in the file system.
        Role::Resolver if services => AccessFs::from_all(ABI::V8),
        Role::Engine | Role::Caller | Role::ProxyCaller | Role::Resolver => AccessFs::from_all(ABI::V9),
    };
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(files)?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?;
    match role {
        Role::Engine | Role::Caller | Role::ProxyCaller => Ok(ruleset),
        Role::Resolver => ruleset
            .add_rules(path_beneath_rules(LOOK_UP, AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rule(NetPort::new(DNS, AccessNet::ConnectTcp)),
    }
}

/// Why this kernel release has none. A seccomp filter gives the same answer.
fn absent(release: &str) -> String {
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(5), Some(13)) {
        return "Landlock (not in this kernel: it needs Linux 5.13)".to_owned();
    }
    "Landlock (not built into this kernel, or blocked by the seccomp filter of this container or service, as by Docker's of \
     before version 23)"
        .to_owned()
}

fn describe(status: &RestrictionStatus) -> Result<String, String> {
    match (&status.ruleset, status.landlock) {
        (
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced,
            LandlockStatus::Available { effective_abi: abi, .. },
        ) => {
            let mut parts = vec!["files"];
            parts.extend((abi >= ABI::V4).then_some("TCP"));
            parts.extend((abi >= ABI::V6).then_some("signals and abstract sockets"));
            Ok(format!("Landlock {abi} ({})", parts.join(", ")))
        }
        (_, LandlockStatus::NotEnabled) => Err("Landlock (not enabled: add it to the kernel's lsm=)".into()),
        (_, _) => Err(absent(&uname().release().to_string_lossy())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_new_enough_is_not_called_too_old() {
        for old in ["5.12.19", "4.19.0-27-amd64", "3.10.0-1160.el7.x86_64"] {
            assert!(absent(old).contains("needs Linux 5.13"), "{old}");
        }
        for new in ["5.13.0", "6.1.0-18-amd64", "6.18.44-fc", "10.0+"] {
            assert!(absent(new).contains("seccomp filter"), "{new}");
        }
    }
}
