//! A trusted directory and its files, accessed only by its descriptor and never through a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::host::trust::{Place, Refusal, Trusted, stat_in, walk};

/// A directory whose files only trusted users can replace.
#[derive(Debug, Clone)]
pub struct Directory {
    fd: Arc<OwnedFd>,
    parent: Arc<OwnedFd>,
    path: PathBuf,
}

impl From<Place> for Directory {
    fn from(place: Place) -> Self {
        Self { fd: Arc::new(place.fd), parent: Arc::new(place.parent), path: place.path }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens the directory `name` below `base`, and creates what is missing: `name` with mode 0700, others, which links may share, with 0755. It must
    /// belong to this user or root, be writable to nobody else, and not be a link.
    pub fn make(base: &Path, name: &str) -> Result<Self, Refusal> {
        let base = walk(base, &Trusted::here(), Some(Mode::from_raw_mode(0o755)))?;
        base.is_directory()?;
        let place = base.down(OsStr::new(name), Some(Mode::RWXU))?;
        place.is_own_directory()?;
        Ok(place.into())
    }

    /// Opens the directory that contains or will contain the file `path`; also returns the file's name.
    pub fn of_file(path: &Path) -> Result<(Self, OsString), Refusal> {
        let path = std::path::absolute(path).map_err(|error| Refusal::system(path, error))?;
        let no_name = || Refusal::system(&path, io::ErrorKind::IsADirectory);
        let name = path.file_name().ok_or_else(no_name)?.to_owned();
        let place = walk(path.parent().unwrap_or(Path::new("/")), &Trusted::here(), None)?;
        place.is_directory()?;
        Ok((place.into(), name))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the first `limit` bytes of a file.
    pub fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> io::Result<Vec<u8>> {
        // A named pipe must not block.
        let file = self.open(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file, but no symlink.
    pub fn open(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(rustix::fs::openat(self, name.as_ref(), flags, mode)?.into())
    }

    /// Creates a file for its owner only, replacing any other.
    pub fn create(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.remove(&name)?;
        self.open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)
    }

    /// Removes a file or link, if there is one.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match rustix::fs::unlinkat(self, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file anew and puts it in the place of the old one, which stays if that fails.
    pub fn replace(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
        let next = format!("{name}.new");
        let mut file = self.create(&next)?;
        let placed = write(&mut file).and_then(|()| Ok(rustix::fs::renameat(self, &next, self, name)?));
        placed.map(|()| file).inspect_err(|_| drop(self.remove(&next)))
    }

    /// Writes `bytes` to a file durably and atomically: a crash leaves either the old or the new.
    pub fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, |file| file.write_all(bytes).and_then(|()| file.sync_all()))?;
        self.open(".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?.sync_all()
    }

    /// Makes an empty directory in this one, with mode 0555.
    pub fn make_empty(&self, name: &str) -> io::Result<PathBuf> {
        let mode = Mode::from_raw_mode(0o555);
        match rustix::fs::mkdirat(self, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.kind(name).is_some_and(FileType::is_dir) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.path.join(name))
    }

    /// Removes a directory in this one if it is empty.
    pub fn remove_empty(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes this directory if it is empty.
    pub fn remove_itself(&self) -> io::Result<()> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::fs::unlinkat(&self.parent, name, AtFlags::REMOVEDIR)?)
    }

    /// The type of this file, if any; a link is not followed.
    pub fn kind(&self, name: impl AsRef<OsStr>) -> Option<FileType> {
        Some(FileType::from_raw_mode(stat_in(self, name.as_ref()).ok()?.st_mode))
    }

    /// The inode of this file; a link is not followed.
    pub fn inode(&self, name: impl AsRef<OsStr>) -> io::Result<u64> {
        Ok(stat_in(self, name.as_ref())?.st_ino)
    }

    /// Whether its path still leads to it.
    pub fn is_there(&self) -> bool {
        let same = |found: rustix::fs::Stat, own: rustix::fs::Stat| {
            (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)
        };
        rustix::fs::lstat(&self.path)
            .is_ok_and(|found| rustix::fs::fstat(self).is_ok_and(|own| same(found, own)))
    }
}
