//! A guest: Debian's user-mode Linux, a kernel that runs as a process, for what this machine's kernel lacks.
//!
//! It sees a copy-on-write view of the machine's files, and has one processor and no network. Its writes are discarded, except in shared folders. It
//! needs no privileges beyond those of the [`Host`] in which it runs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::{At, Error, Host, Net, rights};

/// Set inside a guest.
const INSIDE: &str = "TUND_LAB_GUEST";
/// Its memory, in MiB. Untouched pages cost nothing.
const MEMORY: u64 = 512;
/// The file system of its memory.
const MEMORY_PLACE: &str = "/dev/shm";
/// Pause between two checks whether it still runs.
const POLL: Duration = Duration::from_millis(20);

/// The task of a guest.
pub struct Guest {
    command: Vec<OsString>,
    shares: Vec<PathBuf>,
    kernel: Vec<String>,
    limit: Option<Duration>,
    terminal: bool,
}

/// Whether this process runs in a guest.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Fails, with a remedy, if no guest can run.
pub fn check() -> Result<(), Error> {
    if is_inside() {
        return Err(Error::new("this is the guest: there is none in it"));
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::new("Debian has user-mode Linux for x86-64 alone"));
    }
    for program in ["linux.uml", "modprobe"] {
        rights::require(program)?;
    }
    if needs_state()? {
        rights::require("cc")?;
    }
    let place = rustix::fs::statvfs(MEMORY_PLACE).at(MEMORY_PLACE)?;
    let free = place.f_bavail * place.f_frsize / (1 << 20);
    if free < MEMORY {
        return Err(Error::new(format!(
            "a guest needs {MEMORY} MiB in {MEMORY_PLACE}, where {free} are free; as root: mount -o remount,size=1g \
             {MEMORY_PLACE}, or give the container more (--shm-size)"
        )));
    }
    Ok(())
}

/// Whether this processor has more registers than that kernel knows: see `state.c`.
fn needs_state() -> Result<bool, Error> {
    let text = fs::read_to_string("/proc/cpuinfo").at("/proc/cpuinfo")?;
    Ok(text.split_whitespace().any(|word| word == "amx_tile"))
}

impl Guest {
    /// A guest that runs a program with arguments, both as they are here, in this process's directory.
    pub fn new(command: impl IntoIterator<Item = OsString>) -> Self {
        let command = command.into_iter().collect();
        Self { command, shares: Vec::new(), kernel: Vec::new(), limit: None, terminal: false }
    }

    /// A guest that runs this command again. There [`is_inside`] is true.
    pub fn again() -> Result<Self, Error> {
        let own = std::env::current_exe().at("own program file")?;
        Ok(Self::new(std::iter::once(own.into()).chain(std::env::args_os().skip(1))))
    }

    /// Keeps what it writes below this folder, which is created if missing.
    pub fn share(mut self, folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).at(folder.display())?;
        self.shares.push(folder.canonicalize().at(folder.display())?);
        Ok(self)
    }

    /// Adds a kernel argument, such as `ipv6.disable=1`.
    pub fn kernel(mut self, argument: String) -> Self {
        self.kernel.push(argument);
        self
    }

    /// Sets its time limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Gives it this process's terminal, if any.
    pub fn with_terminal(mut self) -> Self {
        self.terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        self
    }

    /// Boots it, relays its output, and returns the program's exit code.
    pub fn run(&self) -> Result<u8, Error> {
        check()?;
        let net = Net::new()?;
        let host = net.host("guest")?;
        self.prepare(&host)?;
        let modes = if self.terminal { tcgetattr(io::stdin()).ok() } else { None };
        let waited = self.boot(&host)?.wait(self.limit);
        // Its remaining output; after this nothing writes to the terminal.
        let console = fs::read_to_string(host.dir().join("console")).unwrap_or_default();
        let status = fs::read_to_string(host.dir().join("status"));
        drop(host);
        if let Some(modes) = modes {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
        waited?;
        match status.ok().and_then(|text| text.trim().parse().ok()) {
            Some(code) => Ok(code),
            None => Err(Error::new(format!("the guest ended before its program; its console:\n{console}"))),
        }
    }

    /// Writes its input files.
    fn prepare(&self, host: &Host) -> Result<(), Error> {
        host.file("init.sh", include_str!("init.sh"))?;
        let linux = rights::find("linux.uml").unwrap_or_default();
        let modules = linux.parent().unwrap_or(Path::new("/")).join("../lib/uml/modules");
        let modules = modules.canonicalize().at(format!("{}: no modules", modules.display()))?;
        let terminal = OsStr::new(if self.terminal { "yes" } else { "" });
        let term = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
        let settings: [(&str, &OsStr); 5] = [
            ("modules", modules.as_os_str()),
            ("terminal", terminal),
            ("export PATH", &rights::search_path()),
            ("export TERM", &term),
            (&format!("export {INSIDE}"), OsStr::new("1")),
        ];
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), b"=", &quoted(value), b"\n"].concat())
            .collect();
        let here = std::env::current_dir().at("current directory")?;
        let words: Vec<Vec<u8>> = self.command.iter().map(|word| quoted(word)).collect();
        let command = [b"cd ", &quoted(here.as_os_str())[..], b"\nexec ", &words.join(&b' '), b"\n"].concat();
        let lines = |folder: &PathBuf| [folder.as_os_str().as_bytes(), b"\n"].concat();
        let shares: Vec<u8> = self.shares.iter().flat_map(lines).collect();
        for (name, bytes) in [("settings", settings), ("command", command), ("shares", shares)] {
            let path = host.dir().join(name);
            fs::write(&path, bytes).at(path.display())?;
        }
        Ok(())
    }

    /// Starts the kernel in its own pid namespace, which ends with its first process.
    fn boot(&self, host: &Host) -> Result<Running, Error> {
        let dir = host.dir().display();
        // As that namespace's first process, a panicking kernel could not abort: so a shell is first. The kernel's console goes to a file, the
        // program's output to tty1, its errors to tty2.
        let script = "env \"$@\" 3> console; exit $?";
        let unshare = "ulimit -c 0; exec unshare --pid --mount-proc --fork --kill-child -- sh -c";
        let mut command = host.command("sh");
        command.args(["-c", &format!("cd {dir}; {unshare} '{script}' sh \"$@\""), "sh"]);
        if needs_state()? {
            host.file("state.c", include_str!("state.c"))?;
            host.run(&format!("cc -O2 -shared -fPIC -o {dir}/state.so {dir}/state.c"))?;
            command.arg(format!("LD_PRELOAD={dir}/state.so"));
        }
        command.arg(format!("TMPDIR={MEMORY_PLACE}")).arg("linux.uml");
        command.args([&format!("mem={MEMORY}M"), "rootfstype=hostfs", "rootflags=/", "ro", "quiet"]);
        command.args([&format!("uml_dir={dir}"), "umid=kernel", "con=null", "con0=null,fd:3"]);
        command.args(&self.kernel);
        command.args(if self.terminal {
            ["con1=fd:0,fd:1", "con2=null"]
        } else {
            ["con1=null,fd:1", "con2=null,fd:2"]
        });
        // In a user namespace the machine's setuid programs belong to nobody: they would drop privileges.
        command.args(["init=/usr/bin/setpriv", "--", "--no-new-privs", "/bin/sh", &format!("{dir}/init.sh")]);
        if self.terminal {
            return Ok(Running { child: command.spawn().at("cannot start the guest")?, copies: Vec::new() });
        }
        // It would change a terminal's modes, and Ctrl-C would not be a signal: so it gets pipes.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().at("cannot start the guest")?;
        let mut copies = Vec::new();
        if let Some(mut from) = child.stdout.take() {
            copies.push(thread::spawn(move || drop(io::copy(&mut from, &mut io::stdout()))));
        }
        if let Some(mut from) = child.stderr.take() {
            copies.push(thread::spawn(move || drop(io::copy(&mut from, &mut io::stderr()))));
        }
        Ok(Running { child, copies })
    }
}

/// A running guest.
struct Running {
    child: Child,
    /// They relay its output.
    copies: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until it ends; kills it after `limit`.
    fn wait(mut self, limit: Option<Duration>) -> Result<(), Error> {
        let begin = Instant::now();
        while self.child.try_wait().at("the guest")?.is_none() {
            if let Some(limit) = limit.filter(|limit| begin.elapsed() > *limit) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(Error::new(format!("the guest did not end within {} s", limit.as_secs())));
            }
            thread::sleep(POLL);
        }
        for copy in self.copies {
            let _ = copy.join();
        }
        Ok(())
    }
}

/// Quotes a word for a shell.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn any_word_survives_a_shell() {
        for word in ["", "a b", "it's", "$HOME `id` \"x\" \\ \n;"] {
            let line = [b"printf %s ", &quoted(OsStr::new(word))[..]].concat();
            let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&line)).output().unwrap();
            assert_eq!(output.stdout, word.as_bytes());
        }
    }
}
