//! What exists of this process's worlds, so that a signal ends all of it.
//!
//! Handles take their part away when they are dropped, and the kernel kills what this process started
//! when it dies; but what those programs started would live on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, process, thread};

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::host::processes_in;
use crate::process::signal_pid;
use crate::{At, Error};

struct Alive {
    namespaces: BTreeSet<u64>,
    dirs: BTreeSet<PathBuf>,
}

static ALIVE: Mutex<Alive> = Mutex::new(Alive { namespaces: BTreeSet::new(), dirs: BTreeSet::new() });

fn alive() -> MutexGuard<'static, Alive> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn add_namespace(inode: u64) {
    alive().namespaces.insert(inode);
}

pub(crate) fn remove_namespace(inode: u64) {
    alive().namespaces.remove(&inode);
}

pub(crate) fn add_dir(dir: &Path) {
    alive().dirs.insert(dir.to_owned());
}

pub(crate) fn remove_dir(dir: &Path) {
    alive().dirs.remove(dir);
}

/// From now on INT, TERM and HUP take all worlds of this process away and end it with the code of a death by
/// that signal. For programs; a library's user may have a handler already.
pub fn end_on_signals() -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).at("signal handler")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let alive = alive();
            for pid in alive.namespaces.iter().flat_map(|namespace| processes_in(*namespace)) {
                let _ = signal_pid(pid, Signal::KILL);
            }
            for dir in &alive.dirs {
                let _ = fs::remove_dir_all(dir);
            }
            process::exit(128 + signal);
        }
    });
    Ok(())
}
