//! The floor of static key mode on disk: the greatest sid time taken, kept for each link secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::text::hex;
use crate::say;

/// The file of one link secret's floor.
pub struct Floor {
    path: Option<PathBuf>,
    time: Option<u64>,
}

impl Floor {
    /// Reads the floor in `directory`; without one nothing can be written. `fingerprint` names the secret.
    pub fn open(directory: Option<&Path>, fingerprint: [u8; 8]) -> Self {
        let path = directory.map(|directory| directory.join(format!("floor-{}", hex(&fingerprint))));
        let time = path.as_deref().and_then(|path| match read(path) {
            Ok(time) => Some(time),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                say!(1, "cannot read {}: {error}; the peer will be challenged", path.display());
                None
            }
        });
        Self { path, time }
    }

    /// The time on disk in microseconds since the Unix epoch, if one can be read.
    pub fn time(&self) -> Option<u64> {
        self.time
    }

    /// Whether there is a directory to write to.
    pub fn is_writable(&self) -> bool {
        self.path.is_some()
    }

    /// Makes `time` durable; true when the disk holds it or a later one.
    pub fn write(&mut self, time: u64) -> bool {
        if self.time.is_some_and(|floor| floor >= time) {
            return true;
        }
        let Some(path) = &self.path else { return false };
        match store(path, time) {
            Ok(()) => {
                self.time = Some(time);
                true
            }
            Err(error) => {
                say!(1, "cannot write {}: {error}; the peer will be challenged", path.display());
                false
            }
        }
    }
}

fn read(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim_end().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

/// A crash leaves either the old file or the new one.
fn store(path: &Path, time: u64) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{time}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Scratch;

    #[test]
    fn a_floor_is_found_again_under_the_same_secret_only() {
        let scratch = Scratch::new();
        let mut floor = Floor::open(Some(scratch.path()), [1; 8]);
        assert_eq!((floor.time(), floor.is_writable()), (None, true));
        assert!(floor.write(1_700_000_000_000_000));
        assert_eq!(Floor::open(Some(scratch.path()), [1; 8]).time(), Some(1_700_000_000_000_000));
        assert_eq!(Floor::open(Some(scratch.path()), [2; 8]).time(), None);
        assert_eq!(scratch.read("floor-0101010101010101"), "1700000000000000\n");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn a_floor_never_falls() {
        let scratch = Scratch::new();
        let mut floor = Floor::open(Some(scratch.path()), [1; 8]);
        assert!(floor.write(7));
        assert!(floor.write(5));
        assert_eq!(Floor::open(Some(scratch.path()), [1; 8]).time(), Some(7));
    }

    #[test]
    fn what_cannot_be_read_or_written_is_said_and_not_a_floor() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("floor-0101010101010101"), "garbage").unwrap();
        assert_eq!(Floor::open(Some(scratch.path()), [1; 8]).time(), None);
        assert!(!Floor::open(Some(&scratch.path().join("missing")), [1; 8]).write(7));
        assert!(!Floor::open(None, [1; 8]).write(7));
    }
}
