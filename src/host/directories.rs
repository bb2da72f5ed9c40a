//! Where a link keeps its files: `NAME-<inode of the network namespace>` below the first usable directory of the search path.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::host::directory::Directory;
use crate::host::trust::{self, Refusal};
use crate::report::exit::{CONFIG, Fatal, PRIVILEGE, UNAVAILABLE};

/// The pid file, which is also the lock.
const PID: &str = "pid";
/// The units' subdirectory of the default directories (`RuntimeDirectory=`).
const UNITS: &str = "units";
/// Socket that takes connections ([`crate::parent`] of a link started by inetd's `nowait`).
pub const CONNECTIONS: &str = "connections.sock";
/// The empty directory.
const EMPTY: &str = "empty";
/// How often to retry a lock whose file is being removed.
const LOCK_ATTEMPTS: u32 = 100;

/// The runtime or the state directory.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// systemd's variable.
    variable: &'static str,
    /// The key in `[run]`.
    key: &'static str,
    /// The default.
    fallback: &'static str,
}

/// Files needed while the link runs.
pub const RUNTIME: Kind =
    Kind { variable: "RUNTIME_DIRECTORY", key: "run.runtime-dir", fallback: "/run/tund" };

/// Files that must survive a reboot.
pub const STATE: Kind = Kind { variable: "STATE_DIRECTORY", key: "run.state-dir", fallback: "/var/lib/tund" };

/// Makes the state directory of the link `name`, mode 0700. Network namespaces other than the first process's have their own, since links there may
/// have the same name.
///
/// # Errors
/// Another user can change it, or it cannot be made.
pub fn make_state(kind: Kind, configured: Option<&Path>, name: &str) -> Result<Directory, Fatal> {
    let fallback = || PathBuf::from(kind.fallback);
    let given = std::env::var_os(kind.variable).filter(|list| !list.is_empty());
    let given = given.and_then(|list| std::env::split_paths(&list).next());
    let base = given.or_else(|| configured.map(Path::to_owned)).unwrap_or_else(fallback);
    let first = std::fs::metadata("/proc/1/ns/net").map(|found| found.ino()).ok();
    let is_other = first.is_some_and(|first| first != namespace());
    let leaf = if is_other { leaf(name) } else { name.to_owned() };
    Directory::make(&base, &leaf).map_err(|refusal| match refusal {
        Refusal::Untrusted { .. } => kind.refused(&refusal),
        Refusal::System { .. } => {
            let text = format!("cannot create {refusal}: set {} to a writable directory", kind.key);
            Fatal::new(UNAVAILABLE, text)
        }
    })
}

/// Makes the directory of that kind for the link `name`, mode 0700. Only the default has a fallback, `$XDG_RUNTIME_DIR/tund`. `None`, with a log
/// line, if there is no directory.
///
/// # Errors
/// Another user can change it. If not root, a fallback is tried first.
pub fn make(kind: Kind, configured: Option<&Path>, name: &str) -> Result<Option<Directory>, Fatal> {
    let candidates = candidates(kind, configured, |variable| std::env::var_os(variable), is_own);
    let (mut problem, mut refused) = (None, None);
    for candidate in candidates {
        match Directory::make(&candidate, &leaf(name)) {
            Ok(directory) => return Ok(Some(directory)),
            Err(refusal @ Refusal::Untrusted { .. }) => {
                let fatal = kind.refused(&refusal);
                if rustix::process::geteuid().is_root() {
                    return Err(fatal);
                }
                refused = Some(fatal);
            }
            Err(refusal @ Refusal::System { .. }) => problem = Some(format!("cannot create {refusal}")),
        }
    }
    if let Some(fatal) = refused {
        return Err(fatal);
    }
    log::warn!(
        "warning: {}; the link runs without `tund status` and the like, and what it sets stays if it is killed: set {} to a \
         writable directory (a container: --tmpfs /run)",
        problem.unwrap_or_default(),
        kind.key
    );
    Ok(None)
}

impl Kind {
    fn refused(self, refusal: &Refusal) -> Fatal {
        let (remedy, key) = (refusal.remedy(), self.key);
        let text =
            format!("{refusal}: check what is in it, then {remedy}, or set {key} to another directory");
        Fatal::new(CONFIG, text)
    }
}

/// A link's directory of that name.
fn leaf(name: &str) -> String {
    format!("{name}-{}", namespace())
}

/// Whether this user owns it, and is not root.
fn is_own(path: &Path) -> bool {
    let own = rustix::process::geteuid();
    !own.is_root() && std::fs::symlink_metadata(path).is_ok_and(|found| found.uid() == own.as_raw())
}

fn candidates(
    kind: Kind,
    configured: Option<&Path>,
    env: impl Fn(&str) -> Option<OsString>,
    is_own: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    if let Some(list) = env(kind.variable).filter(|list| !list.is_empty()) {
        // systemd joins several with colons; the first is this unit's own.
        return std::env::split_paths(&list).take(1).collect();
    }
    if let Some(directory) = configured {
        return vec![directory.to_owned()];
    }
    let session = env("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let session = session.map(|directory| Path::new(&directory).join("tund"));
    let fallback = PathBuf::from(kind.fallback);
    // The units' user may start links otherwise, too, e.g. by inetd.
    let units = Some(fallback.join(UNITS)).filter(|units| is_own(units));
    [fallback].into_iter().chain(units).chain(session).collect()
}

/// The directory of an existing link.
#[derive(Debug)]
pub struct Existing {
    /// Where it is.
    pub path: PathBuf,
    /// The link's name.
    pub name: String,
    /// The link is in this process's network namespace.
    pub near: bool,
    /// The user, besides the trusted ones, to whom root gave it.
    pub user: Option<u32>,
}

/// The existing links' directories of that kind. Unreadable ones are left out.
///
/// # Errors
/// Another user can change one, so that its owner is uncertain.
pub fn existing(kind: Kind, configured: Option<&Path>) -> Result<Vec<Existing>, Fatal> {
    let mut bases = candidates(kind, None, |variable| std::env::var_os(variable), |_| false);
    bases.extend(configured.map(Path::to_owned));
    bases.dedup();
    let mut found = Vec::new();
    for base in bases {
        match trust::judge(&base) {
            Ok(()) => found.extend(links_in(&base, None)),
            Err(refusal @ Refusal::Untrusted { .. }) => {
                let text = format!("{refusal}: ask as that user, or {}", refusal.remedy());
                return Err(Fatal::new(PRIVILEGE, text));
            }
            Err(Refusal::System { .. }) => continue,
        }
        // systemd gives it to the units' user.
        let units = base.join(UNITS);
        let user = std::fs::symlink_metadata(&units).ok().filter(Metadata::is_dir).map(|found| found.uid());
        found.extend(user.into_iter().flat_map(|user| links_in(&units, Some(user))));
    }
    Ok(found)
}

fn links_in(base: &Path, user: Option<u32>) -> Vec<Existing> {
    let here = namespace().to_string();
    let link = |path: PathBuf| {
        let leaf = path.file_name()?.to_str()?;
        let (name, namespace) = leaf.rsplit_once('-')?;
        let (name, near) = (name.to_owned(), namespace == here);
        namespace.parse::<u64>().is_ok().then_some(Existing { path, name, near, user })
    };
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter_map(|entry| link(entry.path())).collect()
}

/// Makes an empty directory below the link's runtime directory that only root can fill. `None`, with a log line, if that fails.
pub fn empty(runtime: &Directory) -> Option<PathBuf> {
    let complain = |error: &io::Error| {
        log::warn!("cannot create {}: {error}", runtime.path().join(EMPTY).display());
    };
    runtime.make_empty(EMPTY).inspect_err(complain).ok()
}

/// Inode of the network namespace; 0 without /proc.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino())
}

/// Held while the link runs, so that it runs only once. On drop it removes the runtime files.
#[derive(Debug)]
pub struct Lock {
    /// The lock belongs to the open file.
    file: File,
    directory: Directory,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Any other content keeps the directory.
        let _ = self.directory.remove_empty(EMPTY);
        let _ = self.directory.remove(CONNECTIONS);
        let _ = self.directory.remove(PID);
        let _ = self.directory.remove_itself();
    }
}

/// Takes the lock of the link `name` in its runtime directory, and opens that again. The error, with exit code 69, names the process that holds it.
pub fn lock(directory: &Directory, name: &str) -> Result<(Directory, Lock), Fatal> {
    let path = directory.path();
    let failed = |error: io::Error| {
        let remedy =
            format!("make sure that it is writable and has space, or set {} to another", RUNTIME.key);
        Fatal::new(UNAVAILABLE, format!("cannot lock {}: {error}; {remedy}", path.join(PID).display()))
    };
    let (Some(base), Some(leaf)) = (path.parent(), path.file_name().and_then(|leaf| leaf.to_str())) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    // The previous holder may remove the file or directory before we have locked it.
    for _ in 0..LOCK_ATTEMPTS {
        let directory = match Directory::make(base, leaf) {
            Ok(directory) => directory,
            Err(refusal @ Refusal::Untrusted { .. }) => return Err(RUNTIME.refused(&refusal)),
            Err(Refusal::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(Refusal::System { source, .. }) => return Err(failed(source)),
        };
        let file = match try_lock(&directory, name) {
            Err(LockFailure::Gone) => continue,
            Err(LockFailure::Held(fatal)) => return Err(fatal),
            Err(LockFailure::System(error)) => return Err(failed(error)),
            Ok(file) => file,
        };
        let lock = Lock { file, directory: directory.clone() };
        lock.file.set_len(0).and_then(|()| writeln!(&lock.file, "{}", std::process::id())).map_err(failed)?;
        return Ok((directory, lock));
    }
    Err(failed(io::ErrorKind::ResourceBusy.into()))
}

enum LockFailure {
    /// The file is no longer in the directory.
    Gone,
    /// Another process holds the lock.
    Held(Fatal),
    System(io::Error),
}

fn try_lock(directory: &Directory, name: &str) -> Result<File, LockFailure> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK;
    let mut file = match directory.open(PID, flags, Mode::RUSR | Mode::WUSR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LockFailure::Gone),
        other => other.map_err(LockFailure::System)?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // The pid only improves the message.
            let _ = (&mut file).take(16).read_to_string(&mut pid);
            let pid = pid.trim_end();
            let message = format!("{name} is already running as pid {pid}: end it, or rename this file");
            return Err(LockFailure::Held(Fatal::new(UNAVAILABLE, message)));
        }
        Err(error) => return Err(LockFailure::System(error.into())),
    }
    let ours = file.metadata().map_err(LockFailure::System)?.ino();
    match directory.inode(PID) {
        Ok(found) if found == ours => Ok(file),
        Ok(_) | Err(_) => Err(LockFailure::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::sync::atomic::Ordering;

    #[test]
    fn systemds_directory_comes_first_then_the_configured_one() {
        let systemd = |variable: &str| (variable == "RUNTIME_DIRECTORY").then(|| OsString::from("/a/b:/c"));
        let nothing = |_: &str| None;
        let nobodys = |_: &Path| false;
        let session = |variable: &str| (variable == "XDG_RUNTIME_DIR").then(|| OsString::from("/run/user/7"));
        let configured = Some(Path::new("/srv/run"));
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(candidates(RUNTIME, configured, systemd, nobodys), paths(&["/a/b"]));
        assert_eq!(candidates(RUNTIME, configured, session, nobodys), paths(&["/srv/run"]));
        assert_eq!(candidates(RUNTIME, None, nothing, nobodys), paths(&["/run/tund"]));
        assert_eq!(candidates(RUNTIME, None, session, nobodys), paths(&["/run/tund", "/run/user/7/tund"]));
        let found = candidates(RUNTIME, None, session, |path| path == Path::new("/run/tund/units"));
        assert_eq!(found, paths(&["/run/tund", "/run/tund/units", "/run/user/7/tund"]));
    }

    #[test]
    fn a_directory_is_made_for_its_owner_only() {
        let scratch = Scratch::new();
        let made = make(RUNTIME, Some(&scratch.path().join("deep/run")), "link").unwrap().unwrap();
        assert_eq!(made.path(), scratch.path().join(format!("deep/run/link-{}", namespace())));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(made.path()), 0o700);
        // The units' user may have a directory below it.
        assert_eq!(mode(made.path().parent().unwrap()) & !0o022, 0o755);
        assert!(make(RUNTIME, Some(Path::new("/proc/absent")), "link").unwrap().is_none());
    }

    /// What other users could plant for root, which is left unchanged.
    #[test]
    fn what_another_user_can_change_is_refused_with_place_and_remedy_and_left_alone() {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test gives files to another user: run it as root"
        );
        let refused = |plant: &dyn Fn(&Path), parts: [&str; 3]| {
            let scratch = Scratch::new();
            let base = scratch.path().join("base");
            create_dir(&base).unwrap();
            write(scratch.path().join("precious"), "kept").unwrap();
            plant(&base);
            let before = tree(scratch.path());
            for kind in [RUNTIME] {
                let fatal = make(kind, Some(&base), "fri").unwrap_err();
                assert_eq!(fatal.code, CONFIG);
                for part in parts.iter().chain([&kind.key]) {
                    let part = part.replace("LEAF", &format!("{}/{}", base.display(), leaf("fri")));
                    let part = part.replace("BASE", &base.display().to_string());
                    assert!(fatal.message.contains(&part), "{part}: {fatal}");
                }
            }
            assert_eq!(tree(scratch.path()), before);
        };
        let nobody = |path: &Path| chown(path, Some(65534), Some(65534)).unwrap();
        let mode = |path: &Path, mode: u32| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        refused(
            &|base| nobody(base),
            ["BASE belongs to another user (uid 65534, mode 0755)", "check what", "`chown root BASE`"],
        );
        refused(
            &|base| mode(base, 0o777),
            ["BASE can be changed by anyone", "mode 0777", "`chmod go-w BASE`"],
        );
        refused(
            &|base| {
                chown(base, Some(0), Some(65534)).unwrap();
                mode(base, 0o770);
            },
            ["BASE can be changed by group 65534", "mode 0770", "`chmod g-w BASE`"],
        );
        let planted = |base: &Path| {
            let place = base.join(leaf("fri"));
            create_dir(&place).unwrap();
            symlink("../../precious", place.join("ledger")).unwrap();
            place
        };
        refused(
            &|base| nobody(&planted(base)),
            ["LEAF belongs to another user (uid 65534, mode 0755)", "check what", "`chown root LEAF`"],
        );
        // In a world-writable directory such as /tmp.
        refused(
            &|base| {
                nobody(&planted(base));
                mode(base, 0o1777);
            },
            ["LEAF belongs to another user", "uid 65534", "`chown root LEAF`"],
        );
        refused(
            &|base| mode(&planted(base), 0o777),
            ["LEAF can be changed by anyone", "0777", "`chmod go-w LEAF`"],
        );
        refused(
            &|base| mode(&planted(base), 0o720),
            ["LEAF can be changed by group 0", "0720", "`chmod g-w LEAF`"],
        );
        refused(
            &|base| symlink("../precious", base.join(leaf("fri"))).unwrap(),
            ["LEAF is not a directory", "check what", "`rm LEAF`"],
        );
    }

    /// Names and owners of all files.
    fn tree(path: &Path) -> Vec<String> {
        let output =
            std::process::Command::new("find").arg(path).args(["-printf", "%p %U %G %m %y %l %s\n"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        assert!(lines.len() > 2);
        lines
    }

    #[test]
    fn a_second_link_of_that_name_is_told_who_runs() {
        let scratch = Scratch::new();
        let first = lock(&scratch.directory(), "fri").unwrap();
        let error = lock(&scratch.directory(), "fri").unwrap_err();
        let pid = std::process::id();
        assert!(error.message.starts_with(&format!("fri is already running as pid {pid}:")), "{error:?}");
        assert!(error.message.contains("rename"), "{error:?}");
        assert_eq!(error.code, UNAVAILABLE);
        drop(first);
        assert!(!scratch.path().exists(), "the runtime directory is left");
        lock(&scratch.directory(), "fri").unwrap();
    }

    #[test]
    fn many_that_start_and_end_at_once_never_run_together() {
        let scratch = Scratch::new();
        let running = std::sync::atomic::AtomicU32::new(0);
        let taken = std::sync::atomic::AtomicU32::new(0);
        let directory = scratch.directory();
        let compete = || {
            for _ in 0..500 {
                let Ok((_, lock)) = lock(&directory, "fri") else { continue };
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
