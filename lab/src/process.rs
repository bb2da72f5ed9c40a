//! A child process whose output is stored line by line.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::{At, Error, rights, teardown};

const POLL: Duration = Duration::from_millis(5);
/// How long it may take to read a program's remaining output on a busy machine.
const DRAIN: Duration = Duration::from_secs(20);
/// How long an empty open pipe may still get output from a descendant.
const QUIET: Duration = Duration::from_millis(500);

/// A running program. Dropping it kills it.
pub struct Process {
    title: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    /// Duplicates of the pipes still being read.
    pipes: Vec<Arc<OwnedFd>>,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: &Arc<Self>, stream: impl Read + AsFd + Send + 'static) -> std::io::Result<()> {
        let pipe = Arc::new(stream.as_fd().try_clone_to_owned()?);
        self.lock().pipes.push(Arc::clone(&pipe));
        let output = Arc::clone(self);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                output.lock().lines.push(text);
                output.changed.notify_all();
                line.clear();
            }
            output.lock().pipes.retain(|other| !Arc::ptr_eq(other, &pipe));
            output.changed.notify_all();
        });
        Ok(())
    }
}

impl Process {
    /// Starts a command; both outputs are stored, standard input is empty.
    pub fn spawn(title: impl Into<String>, mut command: Command) -> Result<Self, Error> {
        let title = title.into();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = teardown::spawn(&mut command).at(format!("cannot start {title}"))?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            output.collect(stdout).at(&title)?;
        }
        if let Some(stderr) = child.stderr.take() {
            output.collect(stderr).at(&title)?;
        }
        Ok(Self { title, child, output })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far, standard output and standard error in order of arrival.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines.clone()
    }

    /// All lines so far as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The number of lines: a position to continue from.
    pub fn mark(&self) -> usize {
        self.output.lock().lines.len()
    }

    /// Waits for a line that contains `part`, from the beginning, and returns it.
    pub fn wait_line(&self, part: &str, timeout: Duration) -> Result<String, Error> {
        self.wait_line_after(0, part, timeout)
    }

    /// Waits for a line that contains `part` at or after line number `mark`, and returns it.
    pub fn wait_line_after(&self, mark: usize, part: &str, timeout: Duration) -> Result<String, Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.output.lock();
        loop {
            if let Some(line) = state.lines.iter().skip(mark).find(|line| line.contains(part)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.pipes.is_empty() {
                let ended = if state.pipes.is_empty() { ", which has ended" } else { "" };
                let shown = state.lines.join("\n  ");
                return Err(Error::new(format!(
                    "no line with {part:?} from {}{ended} within {timeout:?}; it said:\n  {shown}",
                    self.title
                )));
            }
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        signal_pid(self.pid(), signal).at(format!("cannot signal {}", self.title))
    }

    /// Waits until it ends.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().at(&self.title)? {
                self.drain();
                return Ok(status);
            }
            if Instant::now() > deadline {
                let text = self.text();
                return Err(Error::new(format!("{} did not end within {timeout:?}: {text}", self.title)));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until it ends and returns its exit code; death by a signal is an error.
    pub fn code(&mut self, timeout: Duration) -> Result<i32, Error> {
        let status = self.wait(timeout)?;
        status.code().ok_or_else(|| Error::new(format!("{} died: {status}", self.title)))
    }

    /// Sends SIGTERM; gives the exit code.
    pub fn terminate(&mut self, timeout: Duration) -> Result<i32, Error> {
        self.signal(Signal::TERM)?;
        self.code(timeout)
    }

    /// Sends SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Reads the last lines from the pipes. A descendant may hold a pipe open forever, so its end says nothing, but its content is read first.
    fn drain(&self) {
        let deadline = Instant::now() + DRAIN;
        let mut quiet = Instant::now() + QUIET;
        let mut state = self.output.lock();
        while !state.pipes.is_empty() {
            let now = Instant::now();
            if state.pipes.iter().any(|pipe| is_unread(pipe)) {
                quiet = now + QUIET;
            }
            if now >= deadline.min(quiet) {
                return;
            }
            state = self.output.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the pipe has data or is at its end.
fn is_unread(pipe: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Sends a signal to a process by pid.
pub(crate) fn signal_pid(pid: u32, signal: Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// Copies a program, with another process: a file written here stays open for a while in a process that another thread is starting, and until then
/// cannot be executed (ETXTBSY).
pub fn install(program: &Path, to: &Path) -> Result<(), Error> {
    let mut command = rights::command("install");
    let output = command.args(["-m", "755", "--"]).args([program, to]).output().at("install")?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(String::from_utf8_lossy(&output.stderr))),
    }
}

/// Writes an executable script in the same way.
pub fn write_script(to: &Path, text: &str) -> Result<(), Error> {
    let written = to.with_extension("written");
    std::fs::write(&written, text).at(written.display())?;
    install(&written, to)?;
    std::fs::remove_file(&written).at(written.display())
}

/// Leaves a socket as a killed process does. One that was closed stays open for a while in a process that another thread is starting.
pub fn leave_dead_socket(path: &Path) -> Result<(), Error> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Socket, Mode::RUSR, 0).at(path.display())
}

/// Polls `condition` until it holds; on timeout, the error names `what`.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() > deadline {
            return Err(Error::new(format!("{what}: not within {timeout:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("sh", command).unwrap()
    }

    #[test]
    fn lines_of_both_outputs_are_kept_and_the_code_is_known() {
        let mut process = shell("echo one; echo two >&2; exit 7");
        process.wait_line("two", Duration::from_secs(5)).unwrap();
        assert_eq!(process.code(Duration::from_secs(5)).unwrap(), 7);
        assert!(process.lines().contains(&"one".to_owned()));
    }

    #[test]
    fn waiting_for_a_line_of_an_ended_program_fails_at_once_and_shows_what_it_said() {
        let process = shell("echo only this");
        let error = process.wait_line("never", Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("only this") && error.contains("has ended"), "{error}");
    }

    #[test]
    fn all_is_read_though_a_descendant_holds_the_pipe() {
        let mut process = shell("seq 100000; echo last; sleep 5 &");
        process.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(process.lines().last().map(String::as_str), Some("last"));
        assert_eq!(process.mark(), 100_001);
    }

    #[test]
    fn dropping_a_process_kills_it() {
        let process = shell("echo up; exec sleep 60");
        process.wait_line("up", Duration::from_secs(5)).unwrap();
        let proc = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&proc).exists());
        drop(process);
        assert!(!std::path::Path::new(&proc).exists());
    }

    #[test]
    fn a_program_that_does_not_end_is_an_error_in_time() {
        let mut process = shell("exec sleep 60");
        assert!(process.wait(Duration::from_millis(50)).is_err());
    }
}
