//! Hosts and the cables between them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::signal_pid;
use crate::wire::{Port, Wire};
use crate::{At, Error, Process, Scratch, rights, teardown, wait_until};

/// Time limit of one `ip` command or the like.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// A host's name resolution, in its own files instead of `/etc`: its `hosts` file, and no server.
const NAMES: [(&str, &str); 3] =
    [("hosts", "127.0.0.1 localhost\n"), ("resolv.conf", ""), ("nsswitch.conf", "hosts: files\n")];

/// A world of hosts, with its own directory.
pub struct Net {
    dir: Scratch,
}

impl Net {
    /// Makes an empty world. Fails with a remedy if this process may not make namespaces.
    pub fn new() -> Result<Self, Error> {
        rights::check_namespaces()?;
        Ok(Self { dir: Scratch::new()? })
    }

    /// The world's directory, removed with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a host with only `lo` up.
    pub fn host(&self, name: &str) -> Result<Host, Error> {
        Host::new(name, self.dir.join(name))
    }

    /// Joins two hosts by a veth pair; both ends are up, without addresses.
    pub fn cable(&self, a: &Host, a_name: &str, b: &Host, b_name: &str) -> Result<(), Error> {
        let add = format!("link add {a_name} type veth peer name {b_name} netns {}", b.pid());
        a.ip(&[&add, &format!("link set {a_name} up")])?;
        b.run(&format!("ip link set {b_name} up"))?;
        Ok(())
    }

    /// Joins two hosts by a wire that this process forwards; both ends are up, without addresses.
    pub fn wire(&self, a: &Host, a_name: &str, b: &Host, b_name: &str) -> Result<Wire, Error> {
        Ok(Wire::new(a.port(a_name)?, b.port(b_name)?))
    }
}

/// A process that holds a network namespace and a mount namespace.
pub struct Host {
    name: String,
    dir: PathBuf,
    holder: Child,
    /// Inode of the network namespace: identifies the host's processes.
    namespace: u64,
}

impl Host {
    fn new(name: &str, dir: PathBuf) -> Result<Self, Error> {
        // It contains tund's runtime directory.
        teardown::add_folder(&dir.join("run")).at(dir.display())?;
        let mut script = "set -e; ip link set lo up".to_owned();
        for (name, text) in NAMES {
            let target = Path::new("/etc").join(name);
            fs::write(dir.join(name), text).at(name)?;
            if target.exists() {
                script += &format!("; mount --bind \"$1/{name}\" {}", target.display());
            }
        }
        script += "; echo ready; exec cat >/dev/null";
        let mut command = rights::command("unshare");
        command.args(["--net", "--mount", "--", "sh", "-c", &script, "sh"]).arg(&dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut holder =
            teardown::spawn(&mut command).at("cannot start unshare (Debian package util-linux)")?;
        let mut ready = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut ready).at("unshare")?;
        }
        if ready.trim() != "ready" {
            let _ = holder.kill();
            let _ = holder.wait();
            return Err(Error::new(format!("host {name}: its namespaces could not be made")));
        }
        let path = format!("/proc/{}/ns/net", holder.id());
        let mut host = Self { name: name.to_owned(), dir, holder, namespace: 0 };
        let namespace = File::open(&path).at(&path)?;
        host.namespace = namespace.metadata().at(path)?.ino();
        teardown::add_namespace(host.namespace, namespace);
        host.prepare()?;
        Ok(host)
    }

    /// Makes IPv6 addresses usable at once, and resets inherited settings to the kernel's defaults.
    fn prepare(&self) -> Result<(), Error> {
        for which in ["all", "default"] {
            self.sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
            self.sysctl(&format!("net/ipv4/conf/{which}/rp_filter"), "0")?;
        }
        self.sysctl("net/ipv4/ip_forward", "0")
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the host ask this name server for names missing in its `hosts` file.
    pub fn ask_name_server(&self, address: &str) -> Result<(), Error> {
        // Both are mounted already.
        fs::write(self.dir.join("nsswitch.conf"), "hosts: files dns\n").at("nsswitch.conf")?;
        fs::write(self.dir.join("resolv.conf"), format!("nameserver {address}\n")).at("resolv.conf")
    }

    /// A directory for the host's files, removed with the world.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pid of the process that holds the namespaces.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Writes a file into the host's directory; returns its path.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.dir.join(name);
        fs::write(&path, text).at(path.display())?;
        Ok(path)
    }

    /// Adds a name that this host can resolve.
    pub fn add_name(&self, address: &str, name: &str) -> Result<(), Error> {
        let path = self.dir.join("hosts");
        let mut file = File::options().append(true).open(&path).at(path.display())?;
        writeln!(file, "{address} {name}").at(path.display())
    }

    /// This process's path to a file with this absolute path in the host.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid())).join("root").join(path.trim_start_matches('/'))
    }

    /// Mounts `source` over `target` in this host only.
    pub fn mount(&self, source: &Path, target: &str) -> Result<(), Error> {
        self.output(&["mount", "--bind", &source.to_string_lossy(), target])?;
        Ok(())
    }

    /// Writes below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = format!("/proc/sys/{key}");
        let value = value.to_owned();
        self.within(|| fs::write(&path, value).at(&path))?
    }

    /// A command to run in the host. Its working directory is `/`.
    ///
    /// The kernel kills it when the thread that started it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = rights::command("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .arg(format!("--mount=/proc/{}/ns/mnt", self.pid()))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program);
        command
    }

    /// The content of a file below `/proc/net` in the host. Starts no program, so it suits polling.
    pub fn proc_net(&self, name: &str) -> Result<String, Error> {
        let path = format!("/proc/{}/net/{name}", self.pid());
        fs::read_to_string(&path).at(path)
    }

    /// Runs several ip(8) command lines at once.
    pub fn ip(&self, lines: &[&str]) -> Result<(), Error> {
        let file = self.file("ip.batch", &lines.join("\n"))?;
        self.output(&["ip", "-batch", &file.to_string_lossy()])?;
        Ok(())
    }

    /// Runs a command line (split at blanks, no shell); returns its standard output and error. Failure is an error that shows them.
    pub fn run(&self, line: &str) -> Result<String, Error> {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.output(&words)
    }

    /// Runs a shell script like [`Host::run`].
    pub fn shell(&self, script: &str) -> Result<String, Error> {
        self.output(&["sh", "-c", script])
    }

    /// Runs a program with its arguments like [`Host::run`].
    pub fn output(&self, words: &[&str]) -> Result<String, Error> {
        let mut process = self.spawn(words)?;
        let status = process.wait(COMMAND_TIMEOUT)?;
        let text = process.text();
        if status.success() {
            return Ok(text);
        }
        Err(Error::new(format!("{}: {}: {status}: {text}", self.name, words.join(" "))))
    }

    /// Starts a program in the host.
    pub fn spawn(&self, words: &[&str]) -> Result<Process, Error> {
        let (program, arguments) = words.split_first().ok_or_else(|| Error::new("no program named"))?;
        rights::require(program)?;
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(format!("{}: {program}", self.name), command)
    }

    /// Starts tund from `program` with a configuration file and further arguments. Its runtime directory is the host's own, so a later start on the
    /// same host finds it.
    pub fn tund(&self, program: &Path, config: &Path, arguments: &[&str]) -> Result<Process, Error> {
        let mut command = self.command(program);
        command.arg("--config").arg(config).args(arguments);
        command.env("RUNTIME_DIRECTORY", self.dir.join("run"));
        Process::spawn(format!("{}: tund", self.name), command)
    }

    /// Runs `work` on a thread inside the host's network namespace. A socket made there stays in the host and can be used anywhere.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let namespace = File::open(&path).at(&path)?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .at(format!("cannot enter {path}"))?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Makes a TAP device whose frames this process reads and writes: a host's plug, or a bridge port.
    pub fn port(&self, name: &str) -> Result<Port, Error> {
        let port = self.within(|| Port::open(name))??;
        self.run(&format!("ip link set {name} up"))?;
        Ok(port)
    }

    /// The names of the interfaces, sorted.
    pub fn interfaces(&self) -> Result<Vec<String>, Error> {
        let text = self.proc_net("dev")?;
        let name = |line: &str| Some(line.split_once(':')?.0.trim().to_owned());
        let mut names: Vec<String> = text.lines().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// Pids of the processes in this host, without its holder.
    pub fn processes(&self) -> Vec<u32> {
        processes_in(self.namespace).into_iter().filter(|pid| *pid != self.pid()).collect()
    }

    fn kill_processes(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            for pid in left {
                let _ = signal_pid(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until `condition` holds for the output of a command line.
    pub fn wait_output(
        &self,
        line: &str,
        timeout: Duration,
        condition: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        let mut last = String::new();
        let found = wait_until(line, timeout, || {
            last = self.run(line).unwrap_or_else(|error| error.to_string());
            condition(&last)
        });
        found.map_err(|error| Error::new(format!("{}: {error}; last:\n{last}", self.name)))?;
        Ok(last)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.namespace != 0 {
            self.kill_processes();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        teardown::remove_namespace(self.namespace);
    }
}

/// Pids of the processes in a network namespace.
pub(crate) fn processes_in(namespace: u64) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let here =
        |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == namespace);
    pids.filter(here).collect()
}
