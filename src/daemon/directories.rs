//! Where a link keeps its files: `NAME-<inode of the network namespace>` below the first directory of
//! the search that can be had.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::exit::{Fatal, UNAVAILABLE};
use crate::say;

/// File of the process id, which is also the lock.
const PID: &str = "pid";
/// Directory without anything in it.
const EMPTY: &str = "empty";
/// How often a lock whose file is being removed is tried again.
const LOCK_ATTEMPTS: u32 = 100;

/// One of the two directories.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// systemd's variable.
    variable: &'static str,
    /// The key in `[run]`.
    key: &'static str,
    /// Where it is without either.
    fallback: &'static str,
}

/// What outlives a reboot.
pub const STATE: Kind = Kind { variable: "STATE_DIRECTORY", key: "run.state-dir", fallback: "/var/lib/tund" };
/// What matters while the link runs.
pub const RUNTIME: Kind =
    Kind { variable: "RUNTIME_DIRECTORY", key: "run.runtime-dir", fallback: "/run/tund" };

/// Makes the directory of that kind for the link `name`, mode 0700. Only the default place has a
/// substitute, `$XDG_RUNTIME_DIR/tund`. `None`, and a line in the log, when there is none.
pub fn make(kind: Kind, configured: Option<&Path>, name: &str) -> Option<PathBuf> {
    let candidates = candidates(kind, configured, |variable| std::env::var_os(variable));
    let leaf = format!("{name}-{}", namespace());
    let mut problem = None;
    for candidate in candidates {
        let directory = candidate.join(&leaf);
        match DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            Ok(()) => return Some(directory),
            Err(error) => problem = Some(format!("cannot make {}: {error}", directory.display())),
        }
    }
    say!(1, "{}; set {} to a directory that can be written", problem.unwrap_or_default(), kind.key);
    None
}

fn candidates(kind: Kind, configured: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(list) = env(kind.variable).filter(|list| !list.is_empty()) {
        // systemd joins several with colons; the first is this unit's own.
        return std::env::split_paths(&list).take(1).collect();
    }
    if let Some(directory) = configured {
        return vec![directory.to_owned()];
    }
    let session = env("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let session = session.map(|directory| Path::new(&directory).join("tund"));
    [PathBuf::from(kind.fallback)].into_iter().chain(session).collect()
}

/// The directories of that kind that links have, each with the link's name and whether it is of this process's
/// network namespace. Those that cannot be read are left out.
pub fn existing(kind: Kind, configured: Option<&Path>) -> Vec<(PathBuf, String, bool)> {
    let mut bases = candidates(kind, None, |variable| std::env::var_os(variable));
    bases.extend(configured.map(Path::to_owned));
    bases.dedup();
    let entries = bases.iter().filter_map(|base| std::fs::read_dir(base).ok()).flatten().flatten();
    let here = namespace().to_string();
    let link = |path: PathBuf| {
        let leaf = path.file_name()?.to_str()?;
        let (name, namespace) = leaf.rsplit_once('-')?;
        let found = (name.to_owned(), namespace == here);
        namespace.parse::<u64>().is_ok().then_some((path, found.0, found.1))
    };
    entries.filter_map(|entry| link(entry.path())).collect()
}

/// Makes an empty directory below the link's runtime directory that nobody but root can fill. `None`, and a line
/// in the log, when that fails.
pub fn empty(runtime: &Path) -> Option<PathBuf> {
    let directory = runtime.join(EMPTY);
    match DirBuilder::new().recursive(true).mode(0o555).create(&directory) {
        Ok(()) => Some(directory),
        Err(error) => {
            say!(1, "cannot make {}: {error}", directory.display());
            None
        }
    }
}

/// Number of the network namespace; 0 without /proc.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino())
}

/// Held while the link runs, so that it runs once. With it go the link's runtime files.
#[derive(Debug)]
pub struct Lock {
    /// The lock is on the open file.
    file: File,
    directory: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whatever else is in the directory keeps it.
        let _ = std::fs::remove_dir(self.directory.join(EMPTY));
        let _ = std::fs::remove_file(self.directory.join(PID));
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Takes the link's lock in its runtime directory. The error, with exit code 69, names the process that
/// has it.
pub fn lock(directory: &Path, name: &str) -> Result<Lock, Fatal> {
    let path = directory.join(PID);
    let failed =
        |error: io::Error| Fatal::new(UNAVAILABLE, format!("cannot lock {}: {error}", path.display()));
    // Whoever had the lock may remove the file, or the directory, between our opening and locking it.
    for _ in 0..LOCK_ATTEMPTS {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = match try_lock(&path, directory, name) {
            Err(LockFailure::Gone) => continue,
            Err(LockFailure::Held(fatal)) => return Err(fatal),
            Err(LockFailure::System(error)) => return Err(failed(error)),
            Ok(lock) => lock,
        };
        lock.file.set_len(0).and_then(|()| writeln!(&lock.file, "{}", std::process::id())).map_err(failed)?;
        return Ok(lock);
    }
    Err(failed(io::ErrorKind::ResourceBusy.into()))
}

enum LockFailure {
    /// The file is not in the directory any more.
    Gone,
    /// Another process has the lock.
    Held(Fatal),
    System(io::Error),
}

fn try_lock(path: &Path, directory: &Path, name: &str) -> Result<Lock, LockFailure> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = match options.custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LockFailure::Gone),
        other => other.map_err(LockFailure::System)?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // The number only makes the message better.
            let _ = (&mut file).take(16).read_to_string(&mut pid);
            let pid = pid.trim_end();
            let message = format!("{name} is already running as pid {pid}");
            return Err(LockFailure::Held(Fatal::new(UNAVAILABLE, message)));
        }
        Err(error) => return Err(LockFailure::System(error.into())),
    }
    let ours = file.metadata().map_err(LockFailure::System)?.ino();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.ino() == ours => Ok(Lock { file, directory: directory.to_owned() }),
        _ => Err(LockFailure::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Scratch;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::Ordering;

    #[test]
    fn systemds_directory_comes_first_then_the_configured_one() {
        let systemd = |variable: &str| (variable == "STATE_DIRECTORY").then(|| OsString::from("/a/b:/c"));
        let nothing = |_: &str| None;
        let session = |variable: &str| (variable == "XDG_RUNTIME_DIR").then(|| OsString::from("/run/user/7"));
        let configured = Some(Path::new("/srv/state"));
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(candidates(STATE, configured, systemd), paths(&["/a/b"]));
        assert_eq!(candidates(STATE, configured, session), paths(&["/srv/state"]));
        assert_eq!(candidates(STATE, None, nothing), paths(&["/var/lib/tund"]));
        assert_eq!(candidates(RUNTIME, None, session), paths(&["/run/tund", "/run/user/7/tund"]));
    }

    #[test]
    fn a_directory_is_made_for_its_owner_only() {
        let scratch = Scratch::new();
        let made = make(STATE, Some(&scratch.path().join("deep/state")), "link").unwrap();
        assert_eq!(made, scratch.path().join(format!("deep/state/link-{}", namespace())));
        assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(scratch.path().join("file"), "").unwrap();
        assert_eq!(make(STATE, Some(&scratch.path().join("file")), "link"), None);
    }

    #[test]
    fn a_second_link_of_that_name_is_told_who_runs() {
        let scratch = Scratch::new();
        let first = lock(scratch.path(), "fri").unwrap();
        let error = lock(scratch.path(), "fri").unwrap_err();
        assert_eq!(error.message, format!("fri is already running as pid {}", std::process::id()));
        assert_eq!(error.code, UNAVAILABLE);
        drop(first);
        assert!(!scratch.path().exists(), "the runtime directory is left");
        lock(scratch.path(), "fri").unwrap();
    }

    #[test]
    fn many_that_start_and_end_at_once_never_run_together() {
        let scratch = Scratch::new();
        let running = std::sync::atomic::AtomicU32::new(0);
        let taken = std::sync::atomic::AtomicU32::new(0);
        let compete = || {
            for _ in 0..500 {
                let Ok(lock) = lock(scratch.path(), "fri") else { continue };
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two have the lock");
                taken.fetch_add(1, Ordering::SeqCst);
                running.fetch_sub(1, Ordering::SeqCst);
                drop(lock);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(compete))));
        assert!(taken.load(Ordering::SeqCst) > 100);
    }
}
