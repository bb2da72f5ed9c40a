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

/// Makes an empty directory below the link's runtime directory that nobody but root can fill. `None`, and a line
/// in the log, when that fails.
pub fn empty(runtime: &Path) -> Option<PathBuf> {
    let directory = runtime.join("empty");
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

/// Held while the link runs, so that it runs once.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock is the open file")] File);

/// Takes the link's lock in its runtime directory. The error, with exit code 69, names the process that
/// has it.
pub fn lock(directory: &Path, name: &str) -> Result<Lock, Fatal> {
    let path = directory.join("pid");
    let failed =
        |error: io::Error| Fatal::new(UNAVAILABLE, format!("cannot lock {}: {error}", path.display()));
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // The number only makes the message better.
            let _ = (&mut file).take(16).read_to_string(&mut pid);
            let pid = pid.trim_end();
            return Err(Fatal::new(UNAVAILABLE, format!("{name} is already running as pid {pid}")));
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(Lock(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Scratch;
    use std::os::unix::fs::PermissionsExt;

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
        lock(scratch.path(), "fri").unwrap();
    }
}
