//! The key log: a file with a link's traffic keys, for a decoder of its datagrams.
//!
//! The parent writes it, since the engine may not write any file.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::core::keylog::{Entry, HEAD};
use crate::host::directory::Directory;
use crate::host::trust::Refusal;
use crate::report::exit::{CONFIG, Fatal, UNAVAILABLE};

/// An open key log, exclusive to this link.
pub struct KeyLog {
    path: PathBuf,
    /// `None` after a failed write.
    file: Option<File>,
}

impl KeyLog {
    /// Opens or creates the file, keeps its content, and logs a warning.
    ///
    /// # Errors
    /// The file is no key log, another link has it, or others than root and this user own or may read it.
    pub fn open(path: &Path) -> Result<Self, Fatal> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let shown = path.display();
        let cannot = |error: io::Error| {
            let remedy = "name a file in a writable directory with space";
            Fatal::new(UNAVAILABLE, format!("cannot open the key log {shown}: {error}; {remedy}"))
        };
        let refused = |why: String| Fatal::new(CONFIG, format!("the key log {shown} {why}"));
        let (directory, name) = Directory::of_file(&path).map_err(|refusal| match refusal {
            Refusal::System { source, .. } => cannot(source),
            Refusal::Untrusted { .. } => {
                refused(format!("is in an unsafe place: {refusal}: {}, or name another", refusal.remedy()))
            }
        })?;
        // A named pipe must not block the start.
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
        let mut file = directory.open(&name, flags, Mode::RUSR | Mode::WUSR).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(refused("is not a regular file: name another".to_owned()));
        }
        if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(refused(format!("belongs to uid {}: remove it or name another", metadata.uid())));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(refused(format!(
                "may be read or written by others (mode {:03o}): chmod 600 {shown}",
                metadata.mode() & 0o777
            )));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => refused("belongs to another link: each needs its own".to_owned()),
            TryLockError::Error(error) => cannot(error),
        })?;
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(HEAD.len() as u64).read_to_end(&mut head).map_err(cannot)?;
        if head.is_empty() {
            file.write_all(HEAD.as_bytes()).map_err(|error| {
                let _ = directory.remove(name);
                cannot(error)
            })?;
        } else if head != HEAD.as_bytes() {
            return Err(refused("holds something else: name another file".to_owned()));
        }
        log::warn!(
            "warning: --key-log writes the keys of this link to {shown}; whoever has that file can read it"
        );
        Ok(Self { path, file: Some(file) })
    }

    /// Its path.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Appends an entry; does nothing after a failure.
    pub fn write(&mut self, entry: &Entry) {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(entry.line().as_bytes()));
        if let Err(error) = written {
            log::warn!("the key log {} ends here: {error}", self.path.display());
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::testing::{Scratch, wait_for};

    fn refused(path: &Path) -> String {
        match KeyLog::open(path) {
            Ok(_) => panic!("{} was opened", path.display()),
            Err(fatal) => fatal.message,
        }
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_grows() {
        let scratch = Scratch::new();
        let path = scratch.path().join("keys");
        for _ in 0..2 {
            let log = wait_for(|| KeyLog::open(&path).ok());
            assert!(KeyLog::open(&path).is_err(), "another link's");
            drop(log);
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(scratch.read("keys"), HEAD);
    }

    #[test]
    fn files_of_others_links_and_other_files_are_refused() {
        let scratch = Scratch::new();
        let path = scratch.path().join("keys");
        drop(KeyLog::open(&path).unwrap());
        let link = scratch.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(refused(&link).contains("cannot open"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&path).contains("mode 640"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "the key of the house").unwrap();
        assert!(refused(&path).contains("holds something else"));
        assert_eq!(scratch.read("keys"), "the key of the house");
        assert!(refused(Path::new("/dev/null")).contains("is not a regular file"));
    }
}
