//! The existing parts of this process's worlds, so that a signal ends all of them.
//!
//! Handles clean up on drop, and the kernel kills this process's children when it dies; but their own children would live on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::host::processes_in;
use crate::process::signal_pid;
use crate::{At, Error};

/// Time limit for the teardown.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two checks of what is left.
const PAUSE: Duration = Duration::from_millis(5);

struct Alive {
    /// By inode, which is unique while the namespace is open.
    namespaces: BTreeMap<u64, File>,
    dirs: BTreeSet<PathBuf>,
}

static ALIVE: Mutex<Alive> = Mutex::new(Alive { namespaces: BTreeMap::new(), dirs: BTreeSet::new() });

/// Locks the registry. Held while something is made; kept once a signal arrived.
fn alive() -> MutexGuard<'static, Alive> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program, unless a signal ends this process.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _alive = alive();
    command.spawn()
}

pub(crate) fn add_namespace(inode: u64, namespace: File) {
    alive().namespaces.insert(inode, namespace);
}

pub(crate) fn remove_namespace(inode: u64) {
    alive().namespaces.remove(&inode);
}

/// Makes a world's directory.
pub(crate) fn add_dir(dir: &Path) -> io::Result<()> {
    let mut alive = alive();
    fs::create_dir_all(dir)?;
    alive.dirs.insert(dir.to_owned());
    Ok(())
}

/// Makes a directory in a world's.
pub(crate) fn add_folder(dir: &Path) -> io::Result<()> {
    let _alive = alive();
    fs::create_dir_all(dir)
}

pub(crate) fn remove_dir(dir: &Path) {
    alive().dirs.remove(dir);
}

/// From now on INT, TERM and HUP remove all worlds of this process and end it with the exit code of that signal. For programs; a library's user may
/// have a handler already.
pub fn end_on_signals() -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).at("signal handler")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Kept, so that nothing is made afterwards.
            let alive = alive();
            alive.end();
            process::exit(128 + signal);
        }
    });
    Ok(())
}

impl Alive {
    /// Repeats until nothing is left: a program may start another meanwhile, and threads still write.
    fn end(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let within = self.namespaces.keys().flat_map(|namespace| processes_in(*namespace));
            let left: Vec<u32> = within.chain(children()).collect();
            for pid in &left {
                let _ = signal_pid(*pid, Signal::KILL);
            }
            for dir in &self.dirs {
                let _ = fs::remove_dir_all(dir);
            }
            if (left.is_empty() && !self.dirs.iter().any(|dir| dir.exists())) || Instant::now() > deadline {
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Children of this process, which may not be in their namespace yet.
fn children() -> Vec<u32> {
    let own = process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The pid, the name in parentheses, the state and the parent.
        let (number, rest) = (text.split(' ').next()?.parse().ok()?, text.rsplit_once(')')?.1);
        let mut words = rest.split_whitespace();
        let (state, parent) = (words.next()?, words.next()?);
        (parent == own && state != "Z").then_some(number)
    });
    stats.collect()
}
