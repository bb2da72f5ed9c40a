//! Identity and capabilities of an unprivileged process.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{LockError, OrRefused, refused};
use crate::privsep::message::Identity;

/// Assumes `identity` for good. Must run while the process has one thread: Linux keeps credentials per thread.
pub(super) fn take_on(identity: Identity) -> Result<(), LockError> {
    drop_bounding_set()?;
    rustix::thread::clear_ambient_capability_set().or_refused("clear the ambient capabilities")?;
    match identity {
        Identity::Switch { uid, gid } => switch(uid, gid)?,
        Identity::Keep => forget_groups()?,
    }
    let nothing = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, nothing).or_refused("drop the capabilities")?;
    rustix::thread::set_no_new_privs(true).or_refused("set no_new_privs")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).or_refused("forbid core dumps")?;
    // Changing the uid cleared it.
    follow_parent()?;
    verify(identity)
}

/// One line for the log.
pub(super) fn describe(identity: Identity) -> String {
    match identity {
        Identity::Switch { uid, gid } => format!("uid {uid}, gid {gid}"),
        Identity::Keep => format!("uid {} kept", rustix::process::getuid()),
    }
}

/// Ends the process with its parent.
pub(super) fn follow_parent() -> Result<(), LockError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .or_refused("ask for the parent's death signal")
}

/// Drops the bounding set. Without CAP_SETPCAP it stays; no_new_privs makes it useless.
fn drop_bounding_set() -> Result<(), LockError> {
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The first number unknown to the kernel.
            Err(Errno::INVAL) => return Ok(()),
            Err(Errno::PERM) => return Ok(()),
            Err(error) => return Err(refused("drop the bounding set", error)),
        }
    }
    Ok(())
}

fn switch(uid: u32, gid: u32) -> Result<(), LockError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[]).or_refused("drop the supplementary groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).or_refused("change the group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).or_refused("change the user")
}

/// Drops all groups. In a user namespace without a group map this is denied, and they are unmapped.
fn forget_groups() -> Result<(), LockError> {
    match rustix::thread::set_thread_groups(&[]) {
        Err(Errno::PERM) => Ok(()),
        other => other.or_refused("drop the supplementary groups"),
    }
}

fn verify(identity: Identity) -> Result<(), LockError> {
    let sets = rustix::thread::capabilities(None).or_refused("read the capabilities")?;
    if !(sets.effective | sets.permitted | sets.inheritable).is_empty() {
        return Err(LockError::StillPrivileged("holding capabilities"));
    }
    if !rustix::thread::no_new_privs().or_refused("read no_new_privs")? {
        return Err(LockError::StillPrivileged("able to gain privileges"));
    }
    match identity {
        Identity::Keep => Ok(()),
        Identity::Switch { uid, .. } => {
            let root = Uid::ROOT;
            let back = rustix::thread::set_thread_res_uid(root, root, root);
            if uid == 0 || back.is_ok() || rustix::process::geteuid().as_raw() != uid {
                return Err(LockError::StillPrivileged("root"));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Credentials belong to a thread, so here a thread stands for the process.
    fn in_a_thread<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        assert!(rustix::process::geteuid().is_root(), "this test changes users: run it as root");
        std::thread::spawn(act).join().unwrap()
    }

    fn status(field: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line[field.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn switching_leaves_no_privilege() {
        in_a_thread(|| {
            take_on(Identity::Switch { uid: 65534, gid: 65533 }).unwrap();
            assert_eq!(status("Uid:"), "65534 65534 65534 65534");
            assert_eq!(status("Gid:"), "65533 65533 65533 65533");
            assert_eq!(status("Groups:"), "");
            assert_nothing_left();
        });
    }

    #[test]
    fn keeping_the_uid_still_drops_every_capability() {
        in_a_thread(|| {
            take_on(Identity::Keep).unwrap();
            assert_nothing_left();
        });
    }

    #[test]
    fn a_locked_process_cannot_be_locked_to_another_user() {
        in_a_thread(|| {
            take_on(Identity::Switch { uid: 65534, gid: 65534 }).unwrap();
            let error = take_on(Identity::Switch { uid: 1, gid: 1 }).unwrap_err();
            assert!(error.to_string().starts_with("cannot drop the supplementary groups"), "{error}");
        });
    }

    #[test]
    fn switching_to_root_is_refused() {
        in_a_thread(|| {
            let error = take_on(Identity::Switch { uid: 0, gid: 0 }).unwrap_err();
            assert_eq!(error.to_string(), "still root after dropping privileges");
        });
    }

    fn assert_nothing_left() {
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(status(set), "0000000000000000", "{set}");
        }
        assert_eq!(status("NoNewPrivs:"), "1");
        assert!(rustix::thread::set_thread_uid(Uid::from_raw(1)).is_err());
        let signal = rustix::process::parent_process_death_signal().unwrap();
        assert_eq!(signal, Some(Signal::KILL));
    }
}
