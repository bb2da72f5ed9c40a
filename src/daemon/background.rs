//! `--daemon`: the link in the background, and a launcher that waits until it runs.
//!
//! Nothing forks: the launcher executes the program again in a session of its own. That process says on its standard
//! output that the link runs; until then its standard error is the launcher's, so that mistakes are seen where the
//! command was typed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::exit::{FAILED, Fatal, UNAVAILABLE, USAGE};
use crate::privsep::spawn::PROGRAM;
use crate::say;

/// The hidden option of the process in the background.
pub const OPTION: &str = "background";

/// This process is in the background.
static ON: AtomicBool = AtomicBool::new(false);
/// The launcher has not been told yet.
static WAITED_FOR: AtomicBool = AtomicBool::new(false);

/// Runs this command line in the background and returns when the link runs, or with its exit code when it does not.
pub fn launch() -> Result<ExitCode, Fatal> {
    for variable in ["NOTIFY_SOCKET", "LISTEN_FDS"] {
        if std::env::var_os(variable).is_some() {
            let text = format!(
                "--daemon and {variable}: who started tund waits for this very process; drop --daemon"
            );
            return Err(Fatal::new(USAGE, text));
        }
    }
    let failed = |error: io::Error| Fatal::new(FAILED, format!("cannot start in the background: {error}"));
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--daemon");
    let mut child = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut child, PROGRAM);
    let mut child = child
        .arg(OsString::from(format!("--{OPTION}")))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut word = [0];
    let told = child.stdout.take().is_some_and(|mut pipe| pipe.read_exact(&mut word).is_ok());
    if told {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED);
    Ok(ExitCode::from(code))
}

/// This is the process in the background: it leaves the terminal's session.
pub fn begin() {
    ON.store(true, Ordering::Relaxed);
    WAITED_FOR.store(true, Ordering::Relaxed);
    // Only a session leader is refused, and it has what it wants.
    let _ = rustix::process::setsid();
}

/// Whether this process is in the background.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The link runs: the launcher may end, and nothing of its terminal and directory is held any longer.
pub fn ready() {
    if !WAITED_FOR.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut stdout = io::stdout().lock();
    // A launcher that was killed waits no more.
    let _ = stdout.write_all(b"r").and_then(|()| stdout.flush());
    drop(stdout);
    if let Err(error) = let_go() {
        say!(1, "cannot let go of the terminal: {error}");
    }
}

fn let_go() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}

/// The file of the process id; it goes with this.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's id into `path`, in place of what is there. A symbolic link is not followed.
    pub fn write(path: &Path) -> Result<Self, Fatal> {
        let mut options = OpenOptions::new();
        let options =
            options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let written = options.open(path).and_then(|mut file: File| writeln!(file, "{}", std::process::id()));
        let fatal =
            |error| Fatal::new(UNAVAILABLE, format!("cannot write run.pid-file {}: {error}", path.display()));
        written.map_err(fatal)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another process's number is not ours to remove.
        if fs::read_to_string(&self.0).is_ok_and(|text| text.trim_end() == std::process::id().to_string()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Scratch;

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
