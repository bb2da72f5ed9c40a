//! Who can change what a path leads to: sshd(8)'s and sudo(8)'s rule for root's files, applied to every directory on the path.
//!
//! Each component is opened separately, below its parent's descriptor, and judged by its own descriptor. So what was judged is what is used:
//! untrusted users cannot replace it afterwards.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat};
use rustix::io::Errno;

use crate::sys::rights;

/// Most symbolic links followed, as in path_resolution(7).
const MAX_LINKS: u32 = 40;
/// How often to recreate a directory that vanishes.
const MAX_ATTEMPTS: usize = 100;

/// Why a path is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another user can change it or its content.
    #[error("{} {problem}", path.display())]
    Untrusted {
        /// The component concerned.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// It cannot be opened or created.
    #[error("{}: {source}{}", path.display(), rights::limits(source))]
    System {
        /// The component concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why another user could change a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Its owner.
    #[error("belongs to another user (uid {uid}, mode {mode:04o})")]
    Owner {
        /// The owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Its group may write.
    #[error("can be changed by group {gid} (uid {uid}, mode {mode:04o})")]
    Group {
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Everyone may write.
    #[error("can be changed by anyone (uid {uid}, mode {mode:04o})")]
    Anyone {
        /// The owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// It is a symbolic link where none is followed.
    #[error("is not a directory")]
    NoDirectory,
}

impl Refusal {
    pub(super) fn system(path: &Path, source: impl Into<io::Error>) -> Self {
        Refusal::System { path: path.to_owned(), source: source.into() }
    }

    /// The command that fixes it; empty if there is none.
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
    /// Root and this process's user; for root under sudo(8) also the caller, who has root's rights anyway; in a user namespace also the overflow
    /// user, which stands for all outside ids including the host's root.
    pub fn here() -> Self {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let sudo = |variable: &str| std::env::var(variable).ok();
        let trusted = Self::of(own, [sudo("SUDO_UID"), sudo("SUDO_GID")]);
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let overflow = text("/proc/sys/kernel/overflowuid");
        // A /proc with only processes (`subset=pid`) lacks the file: this is the kernel's default.
        let overflow = Some(overflow.trim_end()).filter(|text| !text.is_empty()).unwrap_or("65534");
        trusted.beyond(overflow, &text("/proc/self/uid_map"))
    }

    /// Only root's own environment is trusted to say who called sudo.
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

    /// Only root and this process's user, for what tund itself creates.
    fn own() -> Self {
        Self { uids: vec![0, rustix::process::geteuid().as_raw()], gids: Vec::new() }
    }

    /// Only these users.
    #[cfg(test)]
    pub(crate) fn users(uids: &[u32]) -> Self {
        Self { uids: uids.to_owned(), gids: Vec::new() }
    }

    /// Whether this user's files are accepted.
    pub fn has_user(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }

    /// Why others can change it. In a sticky directory, users can change only their own files.
    fn problem(&self, stat: &Stat) -> Option<Problem> {
        let (uid, gid, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !self.uids.contains(&uid) {
            return Some(Problem::Owner { uid, mode });
        }
        let guarded = match kind {
            FileType::Directory => mode & 0o1000 != 0,
            // A terminal or /dev/null stores nothing; the mode of a link means nothing.
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

/// Judges the directory `path`, which only root and this user may change, and everything on the way.
pub fn judge_own(path: &Path) -> Result<(), Refusal> {
    walk(path, &Trusted::here(), None)?.is_own_directory()
}

/// A place on a path, opened with O_PATH.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    /// The directory that contains it.
    pub(super) parent: OwnedFd,
    /// Without symbolic links.
    pub(super) path: PathBuf,
}

/// Follows `path` and judges each component; missing directories are created with mode `make`, if given.
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

/// Pushes a path's parts, the first on top.
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
        // A link that ends removes its directory, perhaps between mkdir and open here.
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
        // Links in /proc lead to the open file itself, whatever their text.
        if rustix::fs::fstatfs(&fd).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC)
            && rustix::fs::fstat(&fd).is_ok_and(|stat| is_link(&stat))
        {
            fd = look(OFlags::empty()).map_err(failed)?;
        }
        let parent = self.fd.as_fd().try_clone_to_owned().map_err(|error| Refusal::system(&path, error))?;
        Ok(Self { fd, parent, path })
    }

    /// The target of this link.
    fn target(&self) -> Result<PathBuf, Refusal> {
        let target = rustix::fs::readlinkat(&self.fd, "", Vec::new());
        let target = target.map_err(|error| Refusal::system(&self.path, error))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Checks that only root and this user can change this directory.
    pub(super) fn is_own_directory(&self) -> Result<(), Refusal> {
        let mut plain = self.stat()?;
        // The sticky bit would let others add files.
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

/// Stats the file itself, not a link's target.
pub(super) fn stat_in(directory: impl AsFd, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether a uid_map or gid_map contains this id inside the namespace.
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

    /// Which component of the path is refused, and why.
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
            // Root's own group is trusted; another is not.
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
        // The sticky bit of a file means nothing.
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
