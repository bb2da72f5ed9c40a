//! Who can change what a path leads to: the rule by which sshd(8) and sudo(8) take a file of root's, for every directory
//! on the way to it.
//!
//! Each part of a path is opened by itself, below its parent's descriptor, and judged by that descriptor. So what was
//! judged is what is used: nobody who is not trusted can put something else in its place afterwards.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat};
use rustix::io::Errno;

/// Most symbolic links on the way, as in path_resolution(7).
const MAX_LINKS: u32 = 40;
/// How often a directory that vanishes is made again.
const MAX_ATTEMPTS: usize = 100;

/// Why a path is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another user can change it, or what is in it.
    #[error("{} {problem}", path.display())]
    Untrusted {
        /// The part of the path that it is about.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// It cannot be opened or made.
    #[error("{}: {source}", path.display())]
    System {
        /// The part of the path that it is about.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What makes a file or directory another user's to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Its owner.
    #[error("belongs to another user (uid {uid}, mode {mode:04o})")]
    Owner {
        /// Who that is.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Its group may write.
    #[error("can be changed by group {gid} (uid {uid}, mode {mode:04o})")]
    Group {
        /// Whose it is.
        uid: u32,
        /// Which group.
        gid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Everybody may write.
    #[error("can be changed by anyone (uid {uid}, mode {mode:04o})")]
    Anyone {
        /// Whose it is.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// It is a symbolic link where none is followed.
    #[error("is no directory")]
    NoDirectory,
}

impl Refusal {
    pub(super) fn system(path: &Path, source: impl Into<io::Error>) -> Self {
        Refusal::System { path: path.to_owned(), source: source.into() }
    }

    /// The command that mends it; empty where there is none.
    pub fn remedy(&self) -> String {
        let Refusal::Untrusted { path, problem } = self else { return String::new() };
        let path = path.display();
        match problem {
            Problem::Owner { .. } => format!("`chown root {path}`"),
            Problem::Group { .. } => format!("`chmod g-w {path}`"),
            Problem::Anyone { .. } => format!("`chmod go-w {path}`"),
            Problem::NoDirectory => format!("`rm {path}`"),
        }
    }
}

/// Users and groups who may change what this process relies on.
#[derive(Debug, Clone)]
pub struct Trusted {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Trusted {
    /// Root and this process's user; of a root that was called by sudo(8), that caller as well, who may do what root
    /// may; in a user namespace those who are not in it, whom it cannot tell apart and the root of the host is one of.
    pub fn here() -> Self {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let sudo = |variable: &str| std::env::var(variable).ok();
        let trusted = Self::of(own, [sudo("SUDO_UID"), sudo("SUDO_GID")]);
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let overflow = text("/proc/sys/kernel/overflowuid");
        // A /proc that has processes alone (`subset=pid`) lacks the first: this is the kernel's default.
        let overflow = Some(overflow.trim_end()).filter(|text| !text.is_empty()).unwrap_or("65534");
        trusted.beyond(overflow, &text("/proc/self/uid_map"))
    }

    /// Nobody but root's own programs says to root who called sudo.
    fn of((uid, gid): (u32, u32), sudo: [Option<String>; 2]) -> Self {
        let [caller, group] =
            sudo.map(|number| number.filter(|_| uid == 0).and_then(|text| text.parse().ok()));
        Self {
            uids: [0, uid].into_iter().chain(caller).collect(),
            gids: [0, gid].into_iter().chain(group).collect(),
        }
    }

    fn beyond(mut self, overflow: &str, map: &str) -> Self {
        self.uids.extend(overflow.parse().ok().filter(|uid| !map.is_empty() && !is_mapped(map, *uid)));
        self
    }

    /// Root and this process's user alone, for what tund itself makes.
    fn own() -> Self {
        Self { uids: vec![0, rustix::process::geteuid().as_raw()], gids: Vec::new() }
    }

    /// These users alone.
    #[cfg(test)]
    pub(crate) fn users(uids: &[u32]) -> Self {
        Self { uids: uids.to_owned(), gids: Vec::new() }
    }

    /// Whether what this user owns is taken.
    pub fn has_user(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }

    /// What lets others change it. In a directory with the sticky bit everybody changes only what is his own.
    fn problem(&self, stat: &Stat) -> Option<Problem> {
        let (uid, gid, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !self.uids.contains(&uid) {
            return Some(Problem::Owner { uid, mode });
        }
        let guarded = match kind {
            FileType::Directory => mode & 0o1000 != 0,
            // A terminal or /dev/null is no place where somebody leaves something; the mode of a link means nothing.
            FileType::CharacterDevice | FileType::Symlink => true,
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::BlockDevice
            | FileType::Unknown => false,
        };
        let writers = if guarded { 0 } else { mode & 0o022 };
        if writers & 0o002 != 0 {
            return Some(Problem::Anyone { uid, mode });
        }
        (writers != 0 && !self.gids.contains(&gid)).then_some(Problem::Group { uid, gid, mode })
    }

    fn judge(&self, stat: &Stat, path: &Path) -> Result<(), Refusal> {
        match self.problem(stat) {
            Some(problem) => Err(Refusal::Untrusted { path: path.to_owned(), problem }),
            None => Ok(()),
        }
    }
}

/// Judges what `path` leads to, and every directory and link on the way.
pub fn judge(path: &Path) -> Result<(), Refusal> {
    walk(path, &Trusted::here(), None).map(drop)
}

/// Judges the directory that `path` leads to, which nobody but root and this user may change, and all on the way.
pub fn judge_own(path: &Path) -> Result<(), Refusal> {
    walk(path, &Trusted::here(), None)?.is_own_directory()
}

/// A place that a path leads to, opened with O_PATH.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    /// The directory that it is in.
    pub(super) parent: OwnedFd,
    /// Without links.
    pub(super) path: PathBuf,
}

/// Follows `path` and judges each part; with `make` directories that are not there are made, with this mode.
pub(super) fn walk(path: &Path, trusted: &Trusted, make: Option<Mode>) -> Result<Place, Refusal> {
    let path = std::path::absolute(path).map_err(|error| Refusal::system(path, error))?;
    let mut place = Place::root()?;
    trusted.judge(&place.stat()?, &place.path)?;
    let mut pending = Vec::new();
    push(&mut pending, &path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        let next = if name == ".." { place.up()? } else { place.down(&name, make)? };
        let stat = next.stat()?;
        trusted.judge(&stat, &next.path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            place = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Refusal::system(&path, Errno::LOOP));
        }
        let target = next.target()?;
        if target.is_absolute() {
            place = Place::root()?;
        }
        push(&mut pending, &target);
    }
    Ok(place)
}

/// The parts of a path, the first on top.
fn push(pending: &mut Vec<OsString>, path: &Path) {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    pending.extend(path.components().filter_map(part).collect::<Vec<_>>().into_iter().rev());
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Place {
    fn root() -> Result<Self, Refusal> {
        let path = PathBuf::from("/");
        let open =
            || rustix::fs::open(&path, LOOK, Mode::empty()).map_err(|error| Refusal::system(&path, error));
        Ok(Self { fd: open()?, parent: open()?, path: path.clone() })
    }

    fn stat(&self) -> Result<Stat, Refusal> {
        rustix::fs::fstat(&self.fd).map_err(|error| Refusal::system(&self.path, error))
    }

    fn up(&self) -> Result<Self, Refusal> {
        let path = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        let open = |below: &OwnedFd| rustix::fs::openat(below, "..", LOOK, Mode::empty());
        let opened = open(&self.fd).and_then(|fd| Ok((open(&fd)?, fd)));
        let (parent, fd) = opened.map_err(|error| Refusal::system(&path, error))?;
        Ok(Self { fd, parent, path })
    }

    pub(super) fn down(&self, name: &OsStr, make: Option<Mode>) -> Result<Self, Refusal> {
        let path = self.path.join(name);
        let failed = |error| Refusal::system(&path, error);
        let look = |follow: OFlags| rustix::fs::openat(&self.fd, name, LOOK | follow, Mode::empty());
        let mut found = look(OFlags::NOFOLLOW);
        // A link that ends removes its directory, perhaps between making and opening it here.
        for mode in make.iter().cycle().take(MAX_ATTEMPTS) {
            if !matches!(found, Err(Errno::NOENT)) {
                break;
            }
            match rustix::fs::mkdirat(&self.fd, name, *mode) {
                Ok(()) | Err(Errno::EXIST) => found = look(OFlags::NOFOLLOW),
                Err(error) => return Err(failed(error)),
            }
        }
        let mut fd = found.map_err(failed)?;
        // The links of /proc lead to what is open, whatever they say.
        if rustix::fs::fstatfs(&fd).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC)
            && rustix::fs::fstat(&fd).is_ok_and(|stat| is_link(&stat))
        {
            fd = look(OFlags::empty()).map_err(failed)?;
        }
        let parent = self.fd.as_fd().try_clone_to_owned().map_err(|error| Refusal::system(&path, error))?;
        Ok(Self { fd, parent, path })
    }

    /// Where this link leads.
    fn target(&self) -> Result<PathBuf, Refusal> {
        let target = rustix::fs::readlinkat(&self.fd, "", Vec::new());
        let target = target.map_err(|error| Refusal::system(&self.path, error))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether this is a directory that nobody but root and this user can change.
    pub(super) fn is_own_directory(&self) -> Result<(), Refusal> {
        let mut plain = self.stat()?;
        // The sticky bit lets others add to it.
        plain.st_mode &= !0o1000;
        Trusted::own().judge(&plain, &self.path)?;
        self.is_directory()
    }

    pub(super) fn is_directory(&self) -> Result<(), Refusal> {
        match FileType::from_raw_mode(self.stat()?.st_mode) {
            FileType::Directory => Ok(()),
            _ => Err(Refusal::Untrusted { path: self.path.clone(), problem: Problem::NoDirectory }),
        }
    }
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// The file itself, not what a link leads to.
pub(super) fn stat_in(directory: impl AsFd, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether a uid_map or gid_map has this number inside the namespace.
pub fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        match (numbers.next(), numbers.nth(1)) {
            (Some(first), Some(count)) => (first..first.saturating_add(count)).contains(&u64::from(id)),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const NOBODY: u32 = 65534;

    /// Which part of the path is refused, and why.
    fn refusal(path: &Path) -> (PathBuf, Problem) {
        match judge(path) {
            Err(Refusal::Untrusted { path, problem }) => (path, problem),
            other => panic!("{other:?}"),
        }
    }

    fn nobody(path: &Path) {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test gives files to another user: run it as root"
        );
        std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }

    fn mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_judged_with_every_directory_and_link_on_the_way() {
        let scratch = Scratch::new();
        let [outer, inner, file] =
            ["outer", "outer/inner", "outer/inner/file"].map(|name| scratch.path().join(name));
        create_dir(&outer).unwrap();
        create_dir(&inner).unwrap();
        write(&file, "").unwrap();
        let link = scratch.path().join("link");
        symlink("outer/../outer/./inner", &link).unwrap();
        let through = link.join("file");
        judge(&file).unwrap();
        judge(&through).unwrap();
        for place in [&file, &inner, &outer] {
            nobody(place);
            let plain = if place.is_dir() { 0o755 } else { 0o644 };
            let expected = (place.clone(), Problem::Owner { uid: NOBODY, mode: plain });
            assert_eq!((refusal(&file), refusal(&through)), (expected.clone(), expected));
            chown(place, Some(0), Some(0)).unwrap();
            mode(place, plain | 0o002);
            let anyone = Problem::Anyone { uid: 0, mode: plain | 0o002 };
            assert_eq!(refusal(&through), (place.clone(), anyone));
            // Root's group is root; another one is not.
            mode(place, plain | 0o020);
            judge(&through).unwrap();
            chown(place, Some(0), Some(NOBODY)).unwrap();
            let group = Problem::Group { uid: 0, gid: NOBODY, mode: plain | 0o020 };
            assert_eq!(refusal(&through), (place.clone(), group));
            mode(place, plain);
            judge(&through).unwrap();
        }
        nobody(&link);
        let (path, problem) = refusal(&through);
        assert!(path == link && matches!(problem, Problem::Owner { uid: NOBODY, .. }), "{problem:?}");
    }

    #[test]
    fn in_a_sticky_directory_what_is_ones_own_is_safe() {
        let scratch = Scratch::new();
        let file = scratch.path().join("file");
        write(&file, "").unwrap();
        mode(scratch.path(), 0o1777);
        judge(&file).unwrap();
        // The bit says nothing of a file.
        mode(&file, 0o1666);
        assert_eq!(refusal(&file), (file.clone(), Problem::Anyone { uid: 0, mode: 0o1666 }));
    }

    #[test]
    fn descriptors_of_this_process_are_followed_and_loops_end() {
        let scratch = Scratch::new();
        judge(Path::new("/dev/null")).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        judge(&PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader)))).unwrap();
        symlink("loop", scratch.path().join("loop")).unwrap();
        let error = judge(&scratch.path().join("loop")).unwrap_err();
        assert!(
            matches!(&error, Refusal::System { source, .. } if source.raw_os_error() == Some(libc::ELOOP))
        );
        assert_eq!(error.remedy(), "");
    }

    #[test]
    fn the_caller_of_sudo_is_trusted_by_root_alone() {
        let sudo = || [Some("1000".to_owned()), Some("1001".to_owned())];
        let trusted = |own, sudo| {
            let Trusted { uids, gids } = Trusted::of(own, sudo);
            (uids, gids)
        };
        assert_eq!(trusted((0, 0), sudo()), (vec![0, 0, 1000], vec![0, 0, 1001]));
        assert_eq!(trusted((0, 0), [Some("root".to_owned()), None]), (vec![0, 0], vec![0, 0]));
        assert_eq!(trusted((NOBODY, 7), sudo()), (vec![0, NOBODY], vec![0, 7]));
    }

    #[test]
    fn in_a_user_namespace_those_beyond_it_are_trusted() {
        let trusted = |map: &str| Trusted::of((0, 0), [None, None]).beyond("65534", map).has_user(NOBODY);
        assert!(trusted("0 1000 1\n"));
        assert!(!trusted("0 0 4294967295\n"));
        assert!(!trusted(""), "without /proc nobody is");
    }
}
