//! `--daemon`: the link in the background, and a launcher that waits until it runs.
//!
//! Nothing forks: the launcher executes the program again in a new session. That process reports on its standard output that the link runs. Until
//! then its standard error is the launcher's, so that mistakes are shown where the command was typed.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::host::directory::Directory;
use crate::host::trust::Refusal;
use crate::privsep::spawn::{own_program, start};
use crate::report::exit::{FAILED, Fatal, UNAVAILABLE, USAGE};
use crate::sys;

/// The hidden option of the background process.
pub const OPTION: &str = "background";

/// Whether this process is in the background.
static ON: AtomicBool = AtomicBool::new(false);
/// Whether the launcher is still to be told.
static WAITED_FOR: AtomicBool = AtomicBool::new(false);

/// Runs this command line in the background; returns when the link runs, or with its exit code if it fails.
pub fn launch() -> Result<ExitCode, Fatal> {
    for variable in ["NOTIFY_SOCKET", "LISTEN_FDS"] {
        if std::env::var_os(variable).is_some() {
            let text = format!(
                "--daemon and {variable}: whatever started tund waits for this process; drop --daemon"
            );
            return Err(Fatal::new(USAGE, text));
        }
    }
    let failed = |error: io::Error| Fatal::new(FAILED, format!("cannot start in the background: {error}"));
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--daemon");
    let mut command = own_program();
    command.arg(OsString::from(format!("--{OPTION}"))).args(arguments);
    let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped())).map_err(failed)?;
    let mut word = [0];
    let told = child.stdout.take().is_some_and(|mut pipe| pipe.read_exact(&mut word).is_ok());
    if told {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED);
    Ok(ExitCode::from(code))
}

/// Marks this as the background process and leaves the terminal's session.
pub fn begin() {
    ON.store(true, Ordering::Relaxed);
    WAITED_FOR.store(true, Ordering::Relaxed);
    // Only a session leader is refused, and it has its own session.
    let _ = rustix::process::setsid();
}

/// Whether this process is in the background.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Reports that the link runs: the launcher may end, and its terminal and directory are released.
pub fn ready() {
    if !WAITED_FOR.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut stdout = io::stdout().lock();
    // The launcher may have been killed.
    let _ = stdout.write_all(b"r").and_then(|()| stdout.flush());
    drop(stdout);
    if let Err(error) = let_go() {
        log::warn!("cannot let go of the terminal: {error}");
    }
}

fn let_go() -> io::Result<()> {
    sys::empty_standard()?;
    std::env::set_current_dir("/")
}

/// The pid file, removed on drop.
#[derive(Debug)]
pub struct PidFile(Directory, OsString);

impl PidFile {
    /// Writes this process's id into `path`, replacing what is there. Symbolic links are not followed, and the path must be safe from other users.
    pub fn write(path: &Path) -> Result<Self, Fatal> {
        let cannot = |error: &dyn std::fmt::Display| {
            let remedy = "name a file in a writable directory with space, or remove run.pid-file";
            Fatal::new(
                UNAVAILABLE,
                format!("cannot write run.pid-file {}: {error}; {remedy}", path.display()),
            )
        };
        let (directory, name) = Directory::of_file(path).map_err(|refusal| {
            cannot(&match refusal {
                Refusal::Untrusted { .. } => format!("{refusal}: {}", refusal.remedy()),
                Refusal::System { source, .. } => source.to_string(),
            })
        })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let mut file = directory.open(&name, flags, mode).map_err(|error| cannot(&error))?;
        let found = file.metadata().map_err(|error| cannot(&error))?;
        let own = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
        if !own || !found.is_file() || found.nlink() != 1 {
            return Err(cannot(&"another user's file is in the way: remove it"));
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| {
            let _ = directory.remove(&name);
            cannot(&error)
        })?;
        Ok(Self(directory, name))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another process's pid file is not ours to remove.
        let own = std::process::id().to_string();
        if self.0.read(&self.1, 16).is_ok_and(|text| text.trim_ascii_end() == own.as_bytes()) {
            let _ = self.0.remove(&self.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::fs;

    #[test]
    fn the_pid_file_is_ours_follows_no_link_and_goes() {
        let scratch = Scratch::new();
        let path = scratch.path().join("pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(scratch.read("pid"), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(scratch.read("pid"), "1\n");
        std::os::unix::fs::symlink("pid", scratch.path().join("link")).unwrap();
        assert_eq!(PidFile::write(&scratch.path().join("link")).unwrap_err().code, UNAVAILABLE);
        assert_eq!(scratch.read("pid"), "1\n");
    }
}
