//! Protecting keys in memory from disks and other processes.

use std::ffi::c_void;
use std::ptr;

use rustix::mm::{Advice, MlockAllFlags, madvise, mlock, mlockall};
use rustix::param::page_size;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::CapabilitySet;

/// Keeps this process's memory out of core files. Programs that it executes have none either, unless they enable them.
pub fn leave_no_core() -> rustix::io::Result<()> {
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })
}

/// Lets only root's processes read this one's memory, or see its owner where /proc hides that.
pub fn hide() -> rustix::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Keeps all memory of this process, current and future, out of swap space: keys, and the frames they protect. Pages are locked once used.
/// `privileged`: it keeps its capabilities; CAP_IPC_LOCK then needs no limit.
///
/// # Errors
/// Why this process, or one that has dropped its capabilities, cannot, and the remedy. A limit that would stop the process later is not tried.
pub fn lock(privileged: bool) -> Result<(), String> {
    let unlimited = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_ok();
    let exempt = rustix::thread::capabilities(None)
        .is_ok_and(|sets| privileged && sets.effective.contains(CapabilitySet::IPC_LOCK));
    if unlimited || exempt {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        mlockall(flags).map_err(|error| format!("mlockall: {error}"))?;
    }
    let remedy =
        "a unit needs LimitMEMLOCK=infinity, a shell ulimit -l unlimited, a container --ulimit memlock=-1";
    if unlimited { Ok(()) } else { Err(format!("locked memory is limited: {remedy}")) }
}

/// Keeps the pages of `secret` out of swap and core files. A few fit any limit but 0. They stay locked after it is dropped.
///
/// # Errors
/// Why this process cannot.
pub fn hold<T>(secret: &T) -> Result<(), String> {
    let (start, length) = pages(secret);
    // SAFETY: the pages of a value are mapped, and neither call changes what is in them.
    let (locked, hidden) = unsafe { (mlock(start, length), madvise(start, length, Advice::LinuxDontDump)) };
    locked.and(hidden).map_err(|error| format!("mlock: {error}"))
}

/// The same for a process that starts no other, in case a bug makes it fork: the child would find zeros there, from Linux 4.14 on.
///
/// # Errors
/// Those of [`hold`].
pub fn hold_alone<T>(secret: &T) -> Result<(), String> {
    let (start, length) = pages(secret);
    // SAFETY: the pages of a value are mapped, and in this process they stay as they are.
    let _ = unsafe { madvise(start, length, Advice::LinuxWipeOnFork) };
    hold(secret)
}

/// Start of the first page of `value`, and the total length of its pages.
fn pages<T>(value: &T) -> (*mut c_void, usize) {
    let value = ptr::from_ref(value).cast_mut().cast::<u8>();
    let before = value.addr() % page_size();
    let length = (before + size_of::<T>()).next_multiple_of(page_size());
    (value.wrapping_sub(before).cast(), length)
}
