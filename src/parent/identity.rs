//! Which user the engine runs as.

use std::path::Path;

use rustix::process::{Resource, getpriority_process, getrlimit};
use rustix::thread::CapabilitySet;

use crate::config::{Config, Run, Sandbox};
use crate::host::directories;
use crate::host::directory::Directory;
use crate::host::trust;
use crate::host::trust::is_mapped;
use crate::privsep::message::{Confinement, Identity};
use crate::report::exit::{CONFIG, Fatal, PRIVILEGE, UNAVAILABLE};
use crate::sys::{random, rights};

/// Checks that this process may do what `config` asks for: all but using an existing device needs CAP_NET_ADMIN, and a `run.nice` below its own needs
/// CAP_SYS_NICE. The error has exit code 77.
pub fn check_rights(config: &Config) -> Result<(), Fatal> {
    random::check().map_err(|error| {
        let text = format!("no random bytes, and so no keys: getrandom(2): {error}");
        Fatal::new(UNAVAILABLE, text + rights::beyond_capabilities(&error))
    })?;
    if let Some(nice) = config.run.nice.filter(|nice| !may_have(i32::from(*nice))) {
        let remedy = rights::how_to_give("SYS_NICE");
        let text = format!(
            "run.nice = {nice} is below tund's own and needs CAP_SYS_NICE: {remedy}; or remove run.nice (a systemd unit \
             has Nice= for it)"
        );
        return Err(Fatal::new(PRIVILEGE, text));
    }
    let beyond = beyond_reach(config);
    if rights::has(CapabilitySet::NET_ADMIN) || beyond.is_empty() {
        return Ok(());
    }
    let remedy = rights::how_to_give("NET_ADMIN");
    let text = format!(
        "without CAP_NET_ADMIN there is no {}: {remedy}; or have another program make the device and remove these",
        beyond.join(", ")
    );
    Err(Fatal::new(PRIVILEGE, text))
}

/// Whether the kernel allows this process that priority (`can_nice` of its kernel/sched/syscalls.c).
fn may_have(nice: i32) -> bool {
    let allowed = getrlimit(Resource::Nice).current.map_or(i64::MAX, u64::cast_signed);
    let own = getpriority_process(None).unwrap_or(0);
    nice >= own || i64::from(20 - nice) <= allowed || rights::has(CapabilitySet::SYS_NICE)
}

/// What `config` asks for that is impossible without any capability.
fn beyond_reach(config: &Config) -> Vec<&'static str> {
    let device = &config.device;
    let asked = [
        (device.configure, "device.configure (it is true unless set to false)"),
        (device.name.is_none(), "device without a name"),
        (device.bridge.is_some(), "device.bridge"),
        (!config.routes.is_empty(), "[[route]]"),
        (!config.accept.routes.is_empty(), "accept.routes"),
        (config.scripts.each().iter().any(|(_, script)| script.is_some()), "[scripts]"),
        (config.fwmark.is_some(), "fwmark"),
        (config.full_tunnel.is_some(), "[full-tunnel]"),
    ];
    asked.into_iter().filter(|(asked, _)| *asked).map(|(_, name)| name).collect()
}

/// The facts of this host that decide the identity.
struct Accounts {
    /// Text of /etc/passwd.
    passwd: String,
    /// Text of /etc/group.
    group: String,
    /// Text of /proc/self/uid_map.
    uids: String,
    /// Text of /proc/self/gid_map.
    gids: String,
    /// Whether setgroups(2) is denied in this user namespace.
    fixed_groups: bool,
    /// Effective uid.
    own: u32,
    /// Whether this process may become another user and group.
    may_switch: bool,
}

/// The identity for `[run] user` and `group`. Default: `tund`, else `nobody`; this process's own if it is not root or if its user namespace has no
/// other. Errors have exit code 78.
pub fn choose(run: &Run) -> Result<Identity, Fatal> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let accounts = Accounts {
        passwd: read("/etc/passwd"),
        group: read("/etc/group"),
        uids: read("/proc/self/uid_map"),
        gids: read("/proc/self/gid_map"),
        fixed_groups: read("/proc/self/setgroups").trim_end() == "deny",
        own: rustix::process::geteuid().as_raw(),
        may_switch: missing_to_switch().is_empty(),
    };
    accounts.choose(run).map_err(|message| Fatal::new(CONFIG, message))
}

/// The capabilities that root lacks here to become another user, as in a restricted container; empty for other users.
fn missing_to_switch() -> Vec<&'static str> {
    if !is_root() {
        return Vec::new();
    }
    let needed = [(CapabilitySet::SETUID, "SETUID"), (CapabilitySet::SETGID, "SETGID")];
    needed.into_iter().filter(|(bit, _)| !rights::has(*bit)).map(|(_, name)| name).collect()
}

/// A warning if the processes that read the network stay root, though without capabilities, for lack of privileges.
///
/// # Errors
/// The same, with exit code 69, if `run.sandbox` requires everything.
pub fn warn_of_root(run: &Run) -> Result<Option<String>, Fatal> {
    let missing = missing_to_switch();
    if missing.is_empty() {
        return Ok(None);
    }
    let message = format!(
        "{} missing: the process that reads the network keeps uid 0, without capabilities; it becomes another user with \
         --cap-add {} for this container, or CapabilityBoundingSet= for this service",
        match missing.as_slice() {
            [one] => format!("CAP_{one} is"),
            several => format!("CAP_{} are", several.join(" and CAP_")),
        },
        missing.join(" --cap-add ")
    );
    match run.sandbox {
        Sandbox::Require => {
            Err(Fatal::new(UNAVAILABLE, format!("run.sandbox is \"require\", but {message}")))
        }
        Sandbox::Auto | Sandbox::Off => Ok(Some(message)),
    }
}

/// The confinement of the processes that read the network, from `[run]`. Errors have exit code 78.
pub fn confine(run: &Run, identity: Identity, runtime: Option<&Directory>) -> Result<Confinement, Fatal> {
    let root = match &run.chroot {
        Some(directory) => {
            let problem = root_problem(directory);
            if let Some(problem) = problem {
                let message = format!(
                    "run.chroot: {} {problem}: name an empty directory owned by root, or remove it",
                    directory.display()
                );
                return Err(Fatal::new(CONFIG, message));
            }
            Some(directory.clone())
        }
        // Other users seldom can, and own no files of others to protect.
        None if run.sandbox != Sandbox::Off && (is_root() || rights::has(CapabilitySet::SYS_CHROOT)) => {
            runtime.and_then(directories::empty)
        }
        None => None,
    };
    Ok(Confinement { identity, sandbox: run.sandbox, root, nice: run.nice })
}

/// Why `directory` is no safe root directory.
fn root_problem(directory: &Path) -> Option<String> {
    match std::fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Err(error) => Some(format!("cannot be read ({error})")),
        Ok(false) => Some("is not empty".to_owned()),
        Ok(true) => trust::judge_own(directory).err().map(|refusal| format!("is not safe ({refusal})")),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Accounts {
    fn choose(&self, run: &Run) -> Result<Identity, String> {
        let named = run.user.as_deref();
        let (uid, own_group) = match named {
            Some(name) => self.user(name).ok_or_else(|| {
                format!("run.user: there is no user \"{name}\": create it, or name another one")
            })?,
            None => self.user("tund").or_else(|| self.user("nobody")).unwrap_or((65_534, 65_534)),
        };
        let gid = match run.group.as_deref() {
            Some(name) => self.group(name).ok_or_else(|| {
                format!("run.group: there is no group \"{name}\": create it, or name another one")
            })?,
            None => own_group,
        };
        if self.own != 0 {
            return match named {
                Some(name) if uid != self.own => Err(format!(
                    "run.user: only root can become \"{name}\": remove run.user, or start tund as root"
                )),
                _ => Ok(Identity::Keep),
            };
        }
        if !self.may_switch {
            return match named {
                Some(name) => Err(format!(
                    "run.user: becoming \"{name}\" needs CAP_SETUID and CAP_SETGID: grant them, or remove run.user (a \
                     container: --cap-add SETUID --cap-add SETGID; a service: CapabilityBoundingSet=)"
                )),
                None => Ok(Identity::Keep),
            };
        }
        let mapped = is_mapped(&self.uids, uid) && is_mapped(&self.gids, gid) && !self.fixed_groups;
        match named {
            _ if mapped && uid == 0 => {
                Err("run.user: the engine reads the network and must not be root: name another user"
                    .to_owned())
            }
            _ if mapped => Ok(Identity::Switch { uid, gid }),
            Some(name) => {
                Err(format!("run.user: \"{name}\" is not mapped in this user namespace: remove run.user"))
            }
            None => Ok(Identity::Keep),
        }
    }

    /// uid and gid of a user name or number.
    fn user(&self, name: &str) -> Option<(u32, u32)> {
        let entries = self.passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let number = name.parse::<u32>().ok();
        let found = entries.filter_map(|fields| match fields.as_slice() {
            [entry, _, uid, gid, ..] => Some((*entry == name, uid.parse().ok()?, gid.parse().ok()?)),
            _ => None,
        });
        let mut found = found.filter(|(same, uid, _)| *same || Some(*uid) == number);
        found.next().map(|(_, uid, gid)| (uid, gid)).or(number.map(|number| (number, number)))
    }

    /// gid of a group name or number.
    fn group(&self, name: &str) -> Option<u32> {
        let found =
            self.group.lines().find_map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
                [entry, _, gid, ..] if *entry == name => gid.parse().ok(),
                _ => None,
            });
        found.or_else(|| name.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_tund_user_comes_before_nobody() {
        let mut host = host();
        assert_eq!(choose(&host, None, None), Ok(Identity::Switch { uid: 65534, gid: 65533 }));
        host.passwd.push_str("tund:x:990:991::/:/usr/sbin/nologin\n");
        assert_eq!(choose(&host, None, None), Ok(Identity::Switch { uid: 990, gid: 991 }));
    }

    #[test]
    fn users_and_groups_may_be_names_or_numbers() {
        let host = host();
        let switch = |uid, gid| Ok(Identity::Switch { uid, gid });
        assert_eq!(choose(&host, Some("alice"), None), switch(1000, 1001));
        assert_eq!(choose(&host, Some("1000"), None), switch(1000, 1001));
        assert_eq!(choose(&host, Some("4242"), Some("tape")), switch(4242, 26));
        assert_eq!(choose(&host, Some("alice"), Some("77")), switch(1000, 77));
    }

    #[test]
    fn mistakes_name_the_setting() {
        let host = host();
        for (user, group, part) in [
            (Some("bob"), None, "run.user: there is no user \"bob\""),
            (None, Some("wheel"), "run.group: there is no group \"wheel\""),
            (Some("root"), None, "run.user: the engine reads the network and must not be root"),
        ] {
            let error = choose(&host, user, group).unwrap_err();
            assert!(error.starts_with(part), "{error}");
        }
    }

    #[test]
    fn a_user_namespace_without_other_users_keeps_the_uid() {
        let mut host = host();
        host.uids = "         0       1000          1\n".to_owned();
        assert_eq!(choose(&host, None, None), Ok(Identity::Keep));
        assert!(choose(&host, Some("alice"), None).unwrap_err().contains("alice"));
        host.uids = everyone();
        host.fixed_groups = true;
        assert_eq!(choose(&host, None, None), Ok(Identity::Keep));
    }

    #[test]
    fn who_is_not_root_stays_who_he_is() {
        let mut host = host();
        host.own = 1000;
        assert_eq!(choose(&host, None, None), Ok(Identity::Keep));
        assert_eq!(choose(&host, Some("alice"), None), Ok(Identity::Keep));
        assert!(choose(&host, Some("nobody"), None).unwrap_err().contains("nobody"));
    }

    #[test]
    fn a_root_directory_is_empty_and_nobody_elses() {
        let scratch = Scratch::new();
        let directory = |name: &str, mode: u32| {
            let path = scratch.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        assert_eq!(root_problem(&directory("fine", 0o555)), None);
        let problem = |path: &Path| root_problem(path).unwrap();
        let open = directory("open", 0o1777);
        let expected = format!("is not safe ({} can be changed by anyone (uid ", open.display());
        assert!(problem(&open).starts_with(&expected), "{}", problem(&open));
        // Whoever can replace a parent directory could have filled another one.
        std::fs::create_dir(open.join("fine")).unwrap();
        assert_eq!(root_problem(&open.join("fine")), None);
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(problem(&open.join("fine")).starts_with(&expected));
        let full = directory("full", 0o755);
        std::fs::write(full.join("file"), "").unwrap();
        assert_eq!(problem(&full), "is not empty");
        assert!(root_problem(&full.join("file")).is_some(), "a file");
        assert!(root_problem(&scratch.path().join("absent")).is_some());
    }

    fn everyone() -> String {
        "         0          0 4294967295\n".to_owned()
    }

    fn host() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:1001::/home:/bin/sh\n\
                     nobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n"
                .to_owned(),
            group: "root:x:0:\ntape:x:26:\n".to_owned(),
            uids: everyone(),
            gids: everyone(),
            fixed_groups: false,
            own: 0,
            may_switch: true,
        }
    }

    #[test]
    fn root_that_may_not_become_another_user_keeps_its_uid_unless_one_is_named() {
        let contained = Accounts { may_switch: false, ..host() };
        assert_eq!(choose(&contained, None, None), Ok(Identity::Keep));
        let refused = choose(&contained, Some("nobody"), None).unwrap_err();
        assert!(refused.contains("CAP_SETUID and CAP_SETGID") && refused.contains("run.user"), "{refused}");
    }

    fn choose(host: &Accounts, user: Option<&str>, group: Option<&str>) -> Result<Identity, String> {
        host.choose(&Run {
            state_dir: None,
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            runtime_dir: None,
            verb: 3,
            chroot: None,
            sandbox: Sandbox::Auto,
            log: None,
            daemon: false,
            nice: None,
            pid_file: None,
        })
    }
}
