//! Why this process may not read a file, and the remedy.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access;
use rustix::thread::CapabilitySet;

use crate::sys::rights;

/// The component of `path` that this process may not search or read, with owner and mode, and the remedy.
pub(super) fn why(path: &Path) -> (String, String) {
    let uid = rustix::process::geteuid().as_raw();
    let lacks = if uid == 0 && !rights::has(CapabilitySet::DAC_OVERRIDE) {
        ", who lacks CAP_DAC_OVERRIDE,"
    } else {
        ""
    };
    let who = format!("uid {uid}{lacks}");
    match culprit(path) {
        Some((part, metadata)) => {
            let (owner, mode, part) = (metadata.uid(), metadata.mode() & 0o7777, part.display());
            let needed = if metadata.is_dir() { "rx" } else { "r" };
            let remedy = match owner {
                _ if owner == uid => format!("`chmod u+{needed} {part}`"),
                _ if uid == 0 => format!("`chown root {part}`, on the host if it is a container's volume"),
                _ => format!("`chown {uid} {part}`, or start tund as a user who may read it"),
            };
            (format!("{who} may not read {part} (it is uid {owner}'s, mode {mode:04o})"), remedy)
        }
        None => {
            let remedy = "with SELinux, mount a container's volume with :Z; otherwise check AppArmor";
            (format!("owner and mode let {who} read it, but something else denies access"), remedy.to_owned())
        }
    }
}

/// The first directory that may not be searched, or the file itself.
fn culprit(path: &Path) -> Option<(&Path, Metadata)> {
    let mut parts: Vec<_> = path.ancestors().collect();
    parts.reverse();
    parts.into_iter().find_map(|part| {
        let metadata = std::fs::metadata(part).ok()?;
        let wanted = if metadata.is_dir() { Access::EXEC_OK } else { Access::READ_OK };
        (!may(part, wanted)).then_some((part, metadata))
    })
}

/// Whether this process may read the file.
pub(super) fn may_read(file: &Path) -> bool {
    may(file, Access::READ_OK)
}

/// Checks with the effective ids, as open(2) does.
fn may(path: &Path, wanted: Access) -> bool {
    rustix::fs::accessat(rustix::fs::CWD, path, wanted, rustix::fs::AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn what_owner_and_mode_let_pass_is_laid_to_something_else() {
        let scratch = Scratch::new();
        let file = scratch.path().join("key");
        std::fs::write(&file, "").unwrap();
        assert!(culprit(&file).is_none());
        assert!(why(&file).1.contains(":Z"));
    }
}
