//! Temporary directories.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{At, Error, teardown};

/// A new directory, removed with this handle, and with the process if a signal ends it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty one below the directory of temporary files.
    pub fn new() -> Result<Self, Error> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tund-lab-{}-{number}", std::process::id()));
        teardown::add_dir(&dir).at(dir.display())?;
        Ok(Self(dir))
    }

    /// Writes a file in it.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let path = self.join(name);
        fs::write(&path, content).at(path.display())?;
        Ok(path)
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        teardown::remove_dir(&self.0);
    }
}
