//! Keeping keys in memory: off disks, and out of the sight of other processes.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::CapabilitySet;

/// No process but root's reads this one's memory from now on, and none of it gets into a core file. Programs that it
/// executes are as others are, but have no core file unless they ask for it.
pub fn hide() -> rustix::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })
}

/// Keeps all memory of this process, what it has and what it gets, out of swap space: keys, and the frames they protect.
/// Pages count once they are used. `privileged`: it keeps its capabilities; CAP_IPC_LOCK needs no limit then.
///
/// # Errors
/// Why this process cannot, or one that has dropped its capabilities could not, and the remedy. A limit that stops the
/// process later is not tried.
pub fn lock(privileged: bool) -> Result<(), String> {
    let unlimited = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_ok();
    let exempt = rustix::thread::capabilities(None)
        .is_ok_and(|sets| privileged && sets.effective.contains(CapabilitySet::IPC_LOCK));
    if unlimited || exempt {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        mlockall(flags).map_err(|error| format!("mlockall: {error}"))?;
    }
    let remedy = "a unit needs LimitMEMLOCK=infinity, a shell ulimit -l unlimited";
    if unlimited { Ok(()) } else { Err(format!("locked memory is limited: {remedy}")) }
}
