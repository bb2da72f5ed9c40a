//! Shared by the tests of this folder.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::config::{Command, Config, Options, Sandbox, parse};
use crate::host::directory::Directory;
use crate::privsep::message::{Confinement, Identity};
use crate::report;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starts capturing log lines, at verb 4.
pub fn capture_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| report::log::init(4, Box::new(|_, line| LINES.lock().unwrap().push(line.to_owned()))));
}

/// The lines logged so far that contain `part`; other tests log, too.
pub fn logged(part: &str) -> Vec<String> {
    LINES.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// A temporary directory, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tund-test-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    /// The same as a judged directory.
    pub fn directory(&self) -> Directory {
        let name = self.0.file_name().unwrap().to_str().unwrap();
        Directory::make(self.0.parent().unwrap(), name).unwrap()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes an executable file from another process: a file open for writing here would be inherited by a concurrently forked test, and could not
    /// be executed (ETXTBSY).
    pub fn script(&self, name: &str, text: &str) -> Command {
        let program = self.0.join(name);
        let status = std::process::Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text])
            .arg(&program)
            .status()
            .unwrap();
        assert!(status.success());
        Command { program, args: Vec::new() }
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Leaves a socket as a killed process does. One closed here would stay open for a while in a process that another test is starting.
pub fn leave_dead_socket(path: &Path) {
    mknodat(CWD, path, FileType::Socket, Mode::RUSR, 0).unwrap();
}

/// Waits until `condition` is true, at most ten seconds. What a test closes (a socket, a lock, a device) stays open for a while in a process that
/// another test is starting, until it executes its program.
#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    wait_for(|| condition().then_some(()));
}

/// Waits for a value in the same way.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "what is waited for happens in real time")]
pub fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The result of `operation` once it would no longer block.
#[track_caller]
pub fn without_blocking<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    wait_for(|| match operation() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        result => Some(result),
    })
}

/// Whether this is the test's own process in its own network namespace, with a default route through eth0. Otherwise starts that process and checks
/// its result; the caller then returns.
pub fn in_own_network(test: &str) -> bool {
    const MARK: &str = "TUND_TEST_NETWORK";
    if std::env::var_os(MARK).is_some() {
        for command in [
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            "link set eth1 up",
            "addr add 10.0.0.2/24 dev eth0",
            "link set eth0 up",
            "route add default via 10.0.0.1",
        ] {
            assert!(ip(command).0, "ip {command}");
        }
        capture_log();
        return true;
    }
    assert!(rustix::process::geteuid().is_root(), "this test makes a network namespace: run it as root");
    let output = std::process::Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Runs `ip` with these arguments; returns success and output.
pub fn ip(arguments: &str) -> (bool, String) {
    let output = std::process::Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// A process that keeps its user and is not confined.
pub fn confinement() -> Confinement {
    Confinement { identity: Identity::Keep, sandbox: Sandbox::Off, root: None, nice: None }
}

/// The classic routed link, as seen from fri.
pub fn config() -> Config {
    let text = r#"
        remote = "127.0.0.1:1417"
        [key]
        file = "/etc/tund/static.key"
        mode = "static"
        [device]
        address = "192.168.86.81"
        peer = "192.168.86.18"
        [scripts]
        security = 2
        [run]
        verb = 3
    "#;
    parse("tun-fri-mon", text, &Options::new("/etc/tund")).config.unwrap()
}
