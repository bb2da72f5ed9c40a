//! An empty root directory.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::{chdir, chroot};

/// Makes `directory` this process's root; it should be empty, and not writable to it. Returns what is now in force, or why it is not.
pub(super) fn enter(directory: &Path) -> Result<String, String> {
    match chroot(directory).and_then(|()| chdir("/")) {
        Ok(()) => Ok("empty root".to_owned()),
        Err(Errno::PERM) => {
            Err("an empty root (it needs CAP_SYS_CHROOT, which a container gets with --cap-add SYS_CHROOT)"
                .to_owned())
        }
        Err(error) => Err(format!("an empty root ({}: {error})", directory.display())),
    }
}
