//! Machines with systemd as pid 1.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::{At, Error, Host, Process, rights};

/// How long systemd may take to answer.
const BOOT: Duration = Duration::from_secs(60);
/// Time limit for commands, in seconds.
const ASKED: &str = "90";

/// systemd on a host's network, with its own processes, mounts and cgroups. What it writes is discarded with it.
pub struct Machine<'a> {
    host: &'a Host,
    console: Process,
    cgroup: PathBuf,
    /// systemd's pid for this process.
    init: u32,
}

impl<'a> Machine<'a> {
    /// Boots a machine that sees this machine's files, overlaid by those below `files`. Needs the machine's root: a user namespace has no cgroups.
    pub fn boot(host: &'a Host, files: &Path) -> Result<Self, Error> {
        rights::require("/lib/systemd/systemd")?;
        let cgroup = make_cgroup(host)?;
        let (script, root) = (host.file("boot.sh", include_str!("boot.sh"))?, host.dir().join("root"));
        fs::create_dir_all(&root).at(root.display())?;
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec unshare --mount --pid --uts --ipc --cgroup --fork \
                     --kill-child bash \"$@\"";
        let mut command = host.command("bash");
        command.args(["-c", enter]).arg(&cgroup).args([&script, &root, &files.to_owned()]);
        let console = Process::spawn(format!("{}: systemd", host.name()), command)?;
        let mut machine = Self { host, console, cgroup, init: 0 };
        machine.init = machine.wait_for_init()?;
        Ok(machine)
    }

    fn wait_for_init(&self) -> Result<u32, Error> {
        let deadline = Instant::now() + BOOT;
        let is_init = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            name.trim() == "systemd" && inner.and_then(|pids| pids.split_whitespace().last()) == Some("1")
        };
        loop {
            let init = self.host.processes().into_iter().find(is_init);
            let answers = init.filter(|init| {
                self.within(*init, &["systemctl", "is-active", "--quiet", "basic.target"]).is_ok()
            });
            if let Some(init) = answers {
                return Ok(init);
            }
            if Instant::now() > deadline {
                return Err(Error::new(format!("systemd did not come up: {}", self.console.text())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a program to its end; returns its output. `timeout` ends one that hangs.
    fn within(&self, init: u32, words: &[&str]) -> Result<String, Error> {
        let mut command = self.host.command("nsenter");
        command.args(["--target", &init.to_string(), "--mount", "--pid", "--uts", "--ipc", "--cgroup"]);
        command.args(["--root", "--wd", "--", "timeout", ASKED]).args(words);
        let output = command.stdin(Stdio::null()).output().at("cannot start nsenter")?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let text = text.trim_end().to_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(Error::new(format!("{}: {}: {}: {text}", self.host.name(), words.join(" "), output.status)))
    }

    /// Runs a command line (split at blanks, no shell) on the machine and returns its output; failure is an error.
    pub fn run(&self, line: &str) -> Result<String, Error> {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.within(self.init, &words)
    }

    /// Runs a shell script like [`Machine::run`].
    pub fn shell(&self, script: &str) -> Result<String, Error> {
        self.within(self.init, &["sh", "-euc", script])
    }

    /// One property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> Result<String, Error> {
        self.run(&format!("systemctl show --property={property} --value {unit}"))
    }

    /// The log of systemd and the units' processes.
    pub fn journal(&self) -> Result<String, Error> {
        self.run("journalctl --no-pager --quiet --output=cat --no-hostname")
    }

    /// Pids of its processes, as seen by this one.
    pub fn processes(&self) -> Vec<u32> {
        let here = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok();
        self.host.processes().into_iter().filter(here).collect()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // When pid 1 ends, so does every process of its pid namespace.
        self.console.kill();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !remove_tree(&self.cgroup) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Makes a cgroup at the root of the second hierarchy.
fn make_cgroup(host: &Host) -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string("/proc/mounts").at("/proc/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut places =
        fields.filter(|fields| fields.get(2) == Some(&"cgroup2")).filter_map(|f| f.get(1).copied());
    let place = places.next().ok_or_else(|| Error::new("no cgroup2 file system is mounted"))?;
    let cgroup = Path::new(place).join(format!("tund-lab-{}", host.pid()));
    fs::create_dir(&cgroup).at(format!(
        "{}: a machine with systemd needs root, and cgroups that can be written",
        cgroup.display()
    ))?;
    Ok(cgroup)
}

/// Whether it is gone after this.
fn remove_tree(cgroup: &Path) -> bool {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    match fs::remove_dir(cgroup) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
