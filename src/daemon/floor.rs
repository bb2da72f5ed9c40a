//! The floor of static key mode on disk: the greatest sid time taken, kept for each link secret.

use std::io;

use super::directory::Directory;
use super::text::hex;
use crate::say;

/// No number is longer, in bytes.
const LONGEST: u64 = 32;

/// The file of one link secret's floor.
pub struct Floor {
    directory: Option<Directory>,
    name: String,
    time: Option<u64>,
}

impl Floor {
    /// Reads the floor in `directory`; without one nothing can be written. `fingerprint` names the secret.
    pub fn open(directory: Option<&Directory>, fingerprint: [u8; 8]) -> Self {
        let name = format!("floor-{}", hex(&fingerprint));
        let time = directory.and_then(|directory| match read(directory, &name) {
            Ok(time) => Some(time),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let place = directory.path().display();
                say!(1, "cannot read {place}/{name}: {error}; the peer will be challenged");
                None
            }
        });
        Self { directory: directory.cloned(), name, time }
    }

    /// The time on disk in microseconds since the Unix epoch, if one can be read.
    pub fn time(&self) -> Option<u64> {
        self.time
    }

    /// Whether there is a directory to write to.
    pub fn is_writable(&self) -> bool {
        self.directory.is_some()
    }

    /// Makes `time` durable; true when the disk holds it or a later one.
    pub fn write(&mut self, time: u64) -> bool {
        if self.time.is_some_and(|floor| floor >= time) {
            return true;
        }
        let (Some(directory), name) = (&self.directory, &self.name) else { return false };
        match directory.store(name, format!("{time}\n").as_bytes()) {
            Ok(()) => {
                self.time = Some(time);
                true
            }
            Err(error) => {
                let place = directory.path().display();
                say!(1, "cannot write {place}/{name}: {error}; the peer will be challenged");
                false
            }
        }
    }
}

fn read(directory: &Directory, name: &str) -> io::Result<u64> {
    let bytes = directory.read(name, LONGEST)?;
    let time = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok());
    time.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Scratch;
    use std::fs;

    #[test]
    fn a_floor_is_found_again_under_the_same_secret_only() {
        let scratch = Scratch::new();
        let mut floor = Floor::open(Some(&scratch.directory()), [1; 8]);
        assert_eq!((floor.time(), floor.is_writable()), (None, true));
        assert!(floor.write(1_700_000_000_000_000));
        assert_eq!(Floor::open(Some(&scratch.directory()), [1; 8]).time(), Some(1_700_000_000_000_000));
        assert_eq!(Floor::open(Some(&scratch.directory()), [2; 8]).time(), None);
        assert_eq!(scratch.read("floor-0101010101010101"), "1700000000000000\n");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn a_floor_never_falls() {
        let scratch = Scratch::new();
        let mut floor = Floor::open(Some(&scratch.directory()), [1; 8]);
        assert!(floor.write(7));
        assert!(floor.write(5));
        assert_eq!(Floor::open(Some(&scratch.directory()), [1; 8]).time(), Some(7));
    }

    #[test]
    fn what_cannot_be_read_or_written_is_said_and_not_a_floor() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("floor-0101010101010101"), "garbage").unwrap();
        assert_eq!(Floor::open(Some(&scratch.directory()), [1; 8]).time(), None);
        let gone = Scratch::new().directory();
        assert!(!Floor::open(Some(&gone), [1; 8]).write(7));
        assert!(!Floor::open(None, [1; 8]).write(7));
    }
}
