//! Runs user scripts without blocking the parent: no shell, clean environment, own process group, output to the log, a time limit.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::config::{Command, Scripts};
use crate::parent::environment::{Facts, Hook};
use crate::report::text::printable;
use crate::sys::{process, rights};

/// How long a group has to end after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Longest line of output logged, in bytes.
const MAX_LINE: usize = 512;
/// Most lines logged of one script.
const MAX_LINES: usize = 500;
/// Most bytes read of one script before other work gets its turn.
const MAX_READ: usize = 64 * 1024;
/// Most finished scripts whose background processes may still write to the log.
const MAX_TAILS: usize = 8;

/// Why a script failed. The text names script, program and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(String);

/// At most one running script, and the output of earlier scripts' background processes.
#[derive(Default)]
pub struct Runner {
    running: Option<Running>,
    tails: Vec<Output>,
}

struct Running {
    hook: Hook,
    program: String,
    child: Child,
    group: Pid,
    output: Option<Output>,
    limit: Duration,
    fate: Fate,
}

/// What happens to the running script unless it ends by itself.
#[derive(Clone, Copy)]
enum Fate {
    TermAt(Instant),
    KillAt {
        at: Instant,
        timed_out: bool,
    },
    Killed {
        until: Instant,
        timed_out: bool,
    },
    /// It survived SIGKILL, or may not be signalled: it is no longer waited for.
    Lost,
}

impl Runner {
    /// Starts the script of `hook`; false if none is configured. The previous script must have ended. Errors: it cannot be executed.
    pub fn start(
        &mut self,
        hook: Hook,
        scripts: &Scripts,
        facts: &Facts<'_>,
        directory: &Path,
        now: Instant,
    ) -> Result<bool, ScriptError> {
        let Some(command) = hook.command(scripts) else { return Ok(false) };
        let program = printable(&command.program.display().to_string(), MAX_LINE);
        log::debug!("{}: running {program}", hook.name());
        let (child, output) = execute(command, facts, hook, directory)
            .map_err(|error| ScriptError(explain(hook, &program, &error)))?;
        self.running = Some(Running {
            hook,
            program,
            group: Pid::from_child(&child),
            child,
            output: Some(output),
            limit: scripts.timeout,
            fate: Fate::TermAt(now + scripts.timeout),
        });
        Ok(true)
    }

    /// The descriptors that wake [`Runner::handle_output`].
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let current = self.running.iter().filter_map(|running| running.output.as_ref());
        current.chain(&self.tails).map(|output| output.pipe.as_fd())
    }

    /// Logs the output of scripts.
    pub fn handle_output(&mut self) {
        if let Some(running) = &mut self.running {
            running.output = running.output.take().and_then(Output::read);
        }
        self.tails = std::mem::take(&mut self.tails).into_iter().filter_map(Output::read).collect();
    }

    /// When [`Runner::handle_timeout`] has work.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.running.as_ref()?.fate {
            Fate::TermAt(at) | Fate::KillAt { at, .. } | Fate::Killed { until: at, .. } => Some(at),
            Fate::Lost => None,
        }
    }

    /// Ends a script that has run too long: SIGTERM, then SIGKILL, to its whole group.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        match running.fate {
            Fate::TermAt(at) if at <= now => running.terminate(now, true),
            Fate::KillAt { at, timed_out } if at <= now => {
                running.kill();
                running.fate = Fate::Killed { until: now + GRACE, timed_out };
            }
            Fate::Killed { until, .. } if until <= now => running.fate = Fate::Lost,
            Fate::TermAt(_) | Fate::KillAt { .. } | Fate::Killed { .. } | Fate::Lost => {}
        }
    }

    /// Ends the running script because tund itself ends.
    pub fn terminate(&mut self, now: Instant) {
        if let Some(running) = &mut self.running
            && let Fate::TermAt(_) = running.fate
        {
            log::info!("{}: ending {} (tund is stopping)", running.hook.name(), running.program);
            running.terminate(now, false);
        }
    }

    /// Kills the running script without waiting for it.
    pub fn kill(&mut self) {
        if let Some(running) = &self.running {
            running.kill();
        }
    }

    /// The script's result, once it has ended.
    pub fn poll_outcome(&mut self) -> Option<(Hook, Result<(), ScriptError>)> {
        // Not reaped yet, so that the group's id cannot be reused.
        let group = self.running.as_ref()?.group;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let lost = matches!(self.running.as_ref()?.fate, Fate::Lost);
        if matches!(rustix::process::waitid(WaitId::Pid(group), options), Ok(None) | Err(Errno::INTR)) {
            return if lost { self.running.take().map(Running::lost) } else { None };
        }
        let mut running = self.running.take()?;
        if !matches!(running.fate, Fate::TermAt(_)) {
            kill(group, Signal::KILL);
        }
        let status = running.child.wait();
        if let Some(tail) = running.output.take().and_then(Output::read) {
            self.keep(tail);
        }
        Some((running.hook, running.judge(status)))
    }

    fn keep(&mut self, tail: Output) {
        if self.tails.len() >= MAX_TAILS {
            self.tails.remove(0);
        }
        self.tails.push(tail);
    }
}

impl Running {
    /// Kills its group and, should it have left, itself.
    fn kill(&self) {
        kill(self.group, Signal::KILL);
        // Fails only for a process that is gone, or lost.
        let _ = rustix::process::kill_process(self.group, Signal::KILL);
    }

    fn lost(self) -> (Hook, Result<(), ScriptError>) {
        let (name, program) = (self.hook.name(), &self.program);
        (self.hook, Err(ScriptError(format!("{name} script {program} cannot be stopped: it keeps running"))))
    }

    fn terminate(&mut self, now: Instant, timed_out: bool) {
        kill(self.group, Signal::TERM);
        self.fate = Fate::KillAt { at: now + GRACE, timed_out };
    }

    fn judge(&self, status: io::Result<ExitStatus>) -> Result<(), ScriptError> {
        let (name, program) = (self.hook.name(), &self.program);
        let error = match (self.fate, status) {
            (Fate::KillAt { timed_out: true, .. } | Fate::Killed { timed_out: true, .. }, _) => format!(
                "{name} script {program} ran longer than {} s and was stopped: raise scripts.timeout, or have it do long work \
                 in the background",
                self.limit.as_secs()
            ),
            (Fate::KillAt { .. } | Fate::Killed { .. } | Fate::Lost, _) => {
                format!("{name} script {program} was stopped")
            }
            (Fate::TermAt(_), Ok(status)) if status.success() => return Ok(()),
            (Fate::TermAt(_), Ok(status)) => format!("{name} script {program} failed ({status})"),
            (Fate::TermAt(_), Err(error)) => format!("{name} script {program} cannot be waited for: {error}"),
        };
        Err(ScriptError(error))
    }
}

fn execute(
    command: &Command,
    facts: &Facts<'_>,
    hook: Hook,
    directory: &Path,
) -> io::Result<(Child, Output)> {
    let (pipe, write) = io::pipe()?;
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let mut program = std::process::Command::new(&command.program);
    program.args(&command.args).args(facts.arguments());
    program.env_clear().envs(facts.environment(hook)).current_dir(directory).process_group(0);
    program.stdin(Stdio::null()).stdout(Stdio::from(write.try_clone()?)).stderr(Stdio::from(write));
    let child = process::start(&mut program)?;
    let name = command.program.file_name().unwrap_or_default().display().to_string();
    Ok((child, Output { pipe, name: printable(&name, 64), line: Vec::new(), lines: 0 }))
}

fn explain(hook: Hook, program: &str, error: &io::Error) -> String {
    let name = hook.name();
    match Errno::from_io_error(error) {
        Some(Errno::NOEXEC) => format!(
            "{name} script {program} is not a program: put \"#!/bin/sh\" (or another interpreter) on its first line"
        ),
        Some(Errno::ACCESS) if is_executable(program) => format!(
            "{name} script {program} is executable, but is on a file system mounted noexec, or its interpreter may not be \
             executed: move it"
        ),
        Some(Errno::ACCESS) => format!("{name} script {program} may not be executed: chmod +x {program}"),
        Some(Errno::NOENT) => format!(
            "{name} script {program}, or the interpreter on its first line, does not exist: install that, name a program \
             that needs none, or take CR off its lines: sed -i 's/\\r$//' {program}"
        ),
        _ => format!(
            "{name} script {program} cannot be executed: {error}{}",
            rights::beyond_capabilities(error)
        ),
    }
}

fn is_executable(program: &str) -> bool {
    std::fs::metadata(program).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}

fn kill(group: Pid, signal: Signal) {
    if let Err(error) = rustix::process::kill_process_group(group, signal)
        && error != Errno::SRCH
    {
        log::warn!("cannot end the processes of a script: {error}");
    }
}

/// The pipe with a script's output.
struct Output {
    pipe: PipeReader,
    name: String,
    line: Vec<u8>,
    lines: usize,
}

impl Output {
    /// Logs what is there; `None` at end of file.
    fn read(mut self) -> Option<Self> {
        let mut buffer = [0; 4096];
        let mut total = 0;
        while total < MAX_READ {
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.end_line();
                    return None;
                }
                Ok(count) => {
                    buffer.iter().take(count).for_each(|&byte| self.push(byte));
                    total += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(self),
                Err(_) => return None,
            }
        }
        Some(self)
    }

    fn push(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            _ if self.line.len() < MAX_LINE => self.line.push(byte),
            _ => {}
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() || self.lines > MAX_LINES {
            return;
        }
        self.lines += 1;
        if self.lines > MAX_LINES {
            log::warn!("{}: more than {MAX_LINES} lines of output, the rest is not shown", self.name);
            return;
        }
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        log::info!("{}: {}", self.name, printable(&text.replace('\t', " "), MAX_LINE));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "real processes run in real time")]

    use super::*;
    use crate::config::Config;
    use crate::core::settings::Traffic;
    use crate::testing::{Scratch, capture_log, config, logged, wait_until};
    use rustix::event::{PollFd, PollFlags, Timespec};

    #[test]
    fn a_script_gets_its_own_arguments_then_the_positional_ones_and_only_our_environment() {
        let scratch = Scratch::new();
        let mut command = scratch.script(
            "up",
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > args\ntr '\\0' '\\n' < /proc/$$/environ > env\n\
             cat > stdin\nps -o pgid= -p $$ > group; echo $$ >> group\n",
        );
        command.args = vec!["own argument".to_owned(), "$(id)".to_owned()];
        let config = with_up(command, 30);
        run(&config, &scratch).unwrap();
        assert_eq!(
            scratch.read("args").lines().collect::<Vec<_>>(),
            ["own argument", "$(id)", "tun0", "1400", "1437", "192.168.86.81", "192.168.86.18", "init"]
        );
        let given = facts(&config).environment(Hook::Up);
        let mut expected: Vec<_> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let environment = scratch.read("env");
        let mut actual: Vec<_> = environment.lines().collect();
        expected.sort_unstable();
        actual.sort_unstable();
        assert_eq!(actual, expected);
        assert_eq!(scratch.read("stdin"), "");
        let group = scratch.read("group");
        let mut numbers = group.split_whitespace();
        assert_eq!(numbers.next(), numbers.next(), "the script does not lead its own group");
    }

    #[test]
    fn failure_names_script_and_status() {
        let scratch = Scratch::new();
        let config = with_up(scratch.script("fails", "#!/bin/sh\nexit 3\n"), 30);
        let error = run(&config, &scratch).unwrap_err().to_string();
        assert!(error.starts_with("up ") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn what_cannot_be_executed_is_an_error_with_a_remedy() {
        let scratch = Scratch::new();
        let plain = scratch.script("no-shebang", "touch ran\n");
        let error = run(&with_up(plain, 30), &scratch).unwrap_err().to_string();
        assert!(error.contains("put \"#!/bin/sh\""), "{error}");
        assert!(!scratch.path().join("ran").exists(), "a shell ran it");

        let missing = Command { program: scratch.path().join("missing"), args: Vec::new() };
        let error = run(&with_up(missing, 30), &scratch).unwrap_err().to_string();
        assert!(error.contains("/missing"), "{error}");

        std::fs::write(scratch.path().join("closed"), "#!/bin/sh\n").unwrap();
        let closed = Command { program: scratch.path().join("closed"), args: Vec::new() };
        let error = run(&with_up(closed, 30), &scratch).unwrap_err().to_string();
        assert!(error.contains("chmod +x"), "{error}");
    }

    #[test]
    fn the_time_limit_ends_the_whole_group() {
        let scratch = Scratch::new();
        let script = "#!/bin/sh\ntrap '' TERM\nsleep 1000 & echo $! > child\nwait\nsleep 1000\n";
        let config = with_up(scratch.script("slow", script), 1);
        let begin = Instant::now();
        let error = run(&config, &scratch).unwrap_err().to_string();
        assert!(error.contains(" 1 s") && error.contains("scripts.timeout"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(10));
        let child: i32 = scratch.read("child").trim().parse().unwrap();
        wait_until(|| is_gone(Pid::from_raw(child).unwrap()));
    }

    #[test]
    fn a_script_that_leaves_its_group_is_ended_all_the_same() {
        let scratch = Scratch::new();
        let script = "#!/usr/bin/perl\n\
            my $other = fork || do { setpgrp(0, 0); exec 'sleep', '3' };\n\
            select undef, undef, undef, 0.2;\n\
            setpgrp(0, $other) or die;\n\
            sleep 1000;\n";
        let config = with_up(scratch.script("leaves", script), 1);
        let error = run(&config, &scratch).unwrap_err().to_string();
        assert!(error.contains("scripts.timeout"), "{error}");
    }

    #[test]
    fn a_script_that_nobody_can_end_is_waited_for_no_longer() {
        let scratch = Scratch::new();
        let config = with_up(scratch.script("endless", "#!/bin/sh\nexec sleep 1000\n"), 30);
        let mut runner = Runner::default();
        start(&mut runner, &config, &scratch).unwrap();
        let now = Instant::now();
        let running = runner.running.as_mut().unwrap();
        let group = running.group;
        // As if SIGKILL had been in vain.
        running.fate = Fate::Killed { until: now + GRACE, timed_out: true };
        runner.handle_timeout(now);
        assert!(runner.poll_outcome().is_none() && runner.poll_timeout() == Some(now + GRACE));
        runner.handle_timeout(now + GRACE);
        let (_, result) = runner.poll_outcome().unwrap();
        assert!(result.unwrap_err().to_string().contains("cannot be stopped"));
        assert!(runner.running.is_none());
        kill(group, Signal::KILL);
    }

    #[test]
    fn stopping_ends_a_running_script() {
        let scratch = Scratch::new();
        let config = with_up(scratch.script("endless", "#!/bin/sh\nsleep 1000\n"), 30);
        let mut runner = Runner::default();
        start(&mut runner, &config, &scratch).unwrap();
        runner.terminate(Instant::now());
        let error = drive(&mut runner).unwrap_err().to_string();
        assert!(error.ends_with("was stopped"), "{error}");
        assert!(runner.running.is_none());
    }

    #[test]
    fn output_is_logged_line_by_line_and_bounded() {
        capture_log();
        let scratch = Scratch::new();
        let script = "#!/bin/sh\nprintf 'h\\033[31mi\\nerror\\n' >&2\nhead -c 5000 /dev/zero | tr '\\0' x\n\
                      echo\nseq 100000\n";
        run(&with_up(scratch.script("loud-script", script), 30), &scratch).unwrap();
        let lines = logged("loud-script:");
        assert_eq!(lines[0], "loud-script: h_[31mi");
        assert_eq!(lines[1], "loud-script: error");
        assert_eq!(lines[2].len(), "loud-script: ".len() + MAX_LINE);
        assert_eq!(lines[3], "loud-script: 1");
        assert_eq!(lines.len(), MAX_LINES + 1);
    }

    #[test]
    fn a_background_process_outlives_its_script_and_is_still_heard() {
        capture_log();
        let scratch = Scratch::new();
        let script = "#!/bin/sh\n(while [ ! -e go ]; do sleep 0.02; done; echo later) &\n";
        let config = with_up(scratch.script("background-script", script), 30);
        let mut runner = Runner::default();
        start(&mut runner, &config, &scratch).unwrap();
        drive(&mut runner).unwrap();
        assert!(logged("background-script: later").is_empty());
        std::fs::write(scratch.path().join("go"), "").unwrap();
        while runner.descriptors().next().is_some() {
            step(&mut runner);
        }
        assert_eq!(logged("background-script: later").len(), 1);
    }

    #[test]
    fn a_hook_without_a_script_starts_nothing() {
        let scratch = Scratch::new();
        assert!(!start(&mut Runner::default(), &config(), &scratch).unwrap());
    }

    fn with_up(command: Command, timeout: u64) -> Config {
        let mut config = config();
        config.scripts.up = Some(command);
        config.scripts.timeout = Duration::from_secs(timeout);
        config
    }

    fn facts(config: &Config) -> Facts<'_> {
        Facts {
            config,
            file: Path::new("/etc/tund/tun-fri-mon.toml"),
            device: "tun0",
            net_gateway: None,
            endpoint: None,
            trusted: None,
            traffic: Traffic::default(),
            signal: None,
            unix_time: 0,
        }
    }

    fn start(runner: &mut Runner, config: &Config, scratch: &Scratch) -> Result<bool, ScriptError> {
        runner.start(Hook::Up, &config.scripts, &facts(config), scratch.path(), Instant::now())
    }

    fn run(config: &Config, scratch: &Scratch) -> Result<(), ScriptError> {
        let mut runner = Runner::default();
        assert!(start(&mut runner, config, scratch)?);
        drive(&mut runner)
    }

    fn drive(runner: &mut Runner) -> Result<(), ScriptError> {
        loop {
            step(runner);
            if let Some((hook, result)) = runner.poll_outcome() {
                assert_eq!(hook, Hook::Up);
                return result;
            }
        }
    }

    fn step(runner: &mut Runner) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let fds: Vec<_> = runner.descriptors().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // Another test's signal may interrupt the wait.
        let waited = rustix::event::poll(&mut polled, Some(&timeout));
        assert!(matches!(waited, Ok(_) | Err(Errno::INTR)), "{waited:?}");
        runner.handle_output();
        runner.handle_timeout(Instant::now());
    }

    fn is_gone(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }
}
