//! The container example with its rights, as an OCI runtime starts it; docs/containers.md says what that covers.
//!
//! ```text
//!  fri (the container) 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tund_lab::rights::has_nobody;
use tund_lab::{Process, Scratch, wait_until};

use super::support::*;

/// Service keys of the Compose Specification that the example may use.
const KEYS: [&str; 14] = [
    "image",
    "build",
    "cap_drop",
    "cap_add",
    "security_opt",
    "devices",
    "read_only",
    "tmpfs",
    "volumes",
    "ulimits",
    "ports",
    "healthcheck",
    "restart",
    "sysctls",
];

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

type Settings = BTreeMap<String, Vec<String>>;

/// The words of a value: `[a, "b c"]`, `a`.
fn words(value: &str) -> Vec<String> {
    let inner = value.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = inner.split(", ").map(|part| part.trim().trim_matches('"').to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Parses the settings of the only service, nested ones as `outer.inner`, in the example's subset of YAML.
fn compose() -> Settings {
    let text = fs::read_to_string(source("examples/compose.yaml")).unwrap();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    assert_eq!((lines.next(), lines.next()), (Some("services:"), Some("  tund:")));
    let (mut settings, mut outer) = (Settings::new(), String::new());
    for line in lines {
        let (key, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("no setting: {line}"));
        let depth = line.len() - line.trim_start().len();
        let name = match depth {
            4 => key.to_owned(),
            6 => format!("{outer}.{key}"),
            _ => panic!("{depth} blanks before {line}"),
        };
        if depth == 4 {
            assert!(KEYS.contains(&key), "no key of a service: {line}");
            outer = key.to_owned();
        }
        assert!(settings.insert(name, words(value)).is_none(), "twice: {line}");
    }
    settings
}

/// The image with the C library, and the one with only the program.
const FILES: [&str; 2] = ["examples/Containerfile", "examples/Containerfile.static"];

/// The instructions of a Containerfile, each with its arguments.
fn containerfile(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(source(file)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, arguments) = line.split_once(' ').unwrap();
        (name.to_owned(), arguments.to_owned())
    };
    lines.map(split).collect()
}

/// The only instruction of that name whose arguments start so.
fn instruction(file: &str, name: &str, start: &str) -> String {
    let all = containerfile(file);
    let mut found = all.iter().filter(|(own, arguments)| own == name && arguments.starts_with(start));
    let (_, arguments) = found.next().unwrap_or_else(|| panic!("{file}: no {name} {start}"));
    assert!(found.next().is_none(), "{file}: two {name} {start}");
    arguments.clone()
}

#[test]
fn what_the_containerfiles_copy_is_a_workspace_that_cargo_builds_the_program_of() {
    for (file, target) in FILES.into_iter().zip(["", "x86_64-unknown-linux-musl/"]) {
        assert_builds(file, target);
    }
}

fn assert_builds(file: &str, target: &str) {
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"];
    let place = Scratch::new().unwrap();
    for (name, arguments) in containerfile(file) {
        assert!(known.contains(&name.as_str()), "{name}");
        if name == "COPY" && !arguments.starts_with("--from") {
            let words: Vec<&str> = arguments.split(' ').collect();
            let (target, sources) = words.split_last().unwrap();
            for from in sources {
                let status = Command::new("cp").arg("-r").arg(source(from)).arg(place.join(target)).status();
                assert!(status.unwrap().success(), "{from}");
            }
        }
    }
    let build = instruction(file, "RUN", "cargo build");
    assert!(build.contains("--release --locked --package tund --bin tund"), "{build}");
    assert_eq!(
        instruction(file, "COPY", "--from=build /tund"),
        format!("--from=build /tund/target/{target}release/tund /usr/sbin/tund"),
        "the program is where the build leaves it"
    );
    assert_eq!(build.contains("--target "), !target.is_empty(), "{build}");
    let metadata = ["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(metadata).current_dir(&place).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"kind\":[\"bin\"]"));
}

/// The libraries that a program is linked with, by ldd(1).
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    text.lines().filter_map(path).collect()
}

/// fri, which runs containers, and mon, whose end of the link waits.
struct Site {
    pair: Pair,
    _mon: Process,
}

/// A running container, whose first process is tund.
struct Container<'a> {
    site: &'a Site,
    runtime: Process,
    settings: Settings,
}

impl Site {
    fn new() -> Self {
        assert!(has_nobody(), "this test makes devices: run it as root, not in a user namespace");
        let pair = pair();
        let mon = pair.start_mon(&Toml::tun_mon());
        let site = Self { pair, _mon: mon };
        site.make_image();
        site
    }

    fn image(&self) -> PathBuf {
        self.pair.fri.dir().join("image")
    }

    /// Makes the image's tund, and two programs in place of the runtime's own code.
    fn make_image(&self) {
        let image = self.image();
        for folder in ["usr/sbin", "etc/tund", "proc", "sys", "dev", "run", "tmp", "old"] {
            fs::create_dir_all(image.join(folder)).unwrap();
        }
        let mut programs = vec![(PathBuf::from(TUND), "usr/sbin/tund")];
        programs.extend(["setpriv", "umount"].map(|name| (tund_lab::rights::find(name).unwrap(), name)));
        for (program, place) in programs {
            tund_lab::install(&program, &image.join(place)).unwrap();
            for library in libraries(&program) {
                let target = image.join(library.trim_start_matches('/'));
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::copy(&library, target).unwrap();
            }
        }
        // As useradd(8) leaves it.
        assert!(instruction(FILES[0], "RUN", "useradd").starts_with("useradd --system --no-create-home"));
        let passwd = "root:x:0:0::/:/bin/sh\ntund:x:990:990::/:/usr/sbin/nologin\n";
        fs::write(image.join("etc/passwd"), passwd).unwrap();
        fs::write(image.join("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
    }

    /// Starts the image like a runtime with these settings.
    fn run(&self, settings: Settings, toml: &Toml) -> Container<'_> {
        let fri = &self.pair.fri;
        let link = fri.dir().join("link");
        fs::create_dir_all(&link).unwrap();
        fs::write(link.join("link.toml"), toml.text()).unwrap();
        fs::copy(fri.dir().join("static.key"), link.join("static.key")).unwrap();
        let script = fri.file("runtime", &self.script(&settings)).unwrap().display().to_string();
        let namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"];
        let runtime = fri.spawn(&[&namespaces[..], &["sh", "-eu", &script]].concat()).unwrap();
        Container { site: self, runtime, settings }
    }

    fn script(&self, settings: &Settings) -> String {
        let all = |key: &str| settings.get(key).cloned().unwrap_or_default();
        let image = self.image();
        let image = image.display();
        let mut lines = vec![format!("mount --make-rprivate /; mount --bind {image} {image}; cd {image}")];
        lines.push("mount -t proc proc proc; mount -t sysfs -o ro sysfs sys".to_owned());
        lines.push("mount -t tmpfs -o mode=755,nosuid,noexec tmpfs dev".to_owned());
        for (name, number) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
            lines.push(format!("mknod -m 666 dev/{name} c 1 {number}"));
        }
        for device in all("devices") {
            let (from, to) = device.split_once(':').unwrap();
            lines.push(format!("mkdir -p $(dirname .{to}); cp -a {from} .{to}"));
        }
        for tmpfs in all("tmpfs") {
            let (place, options) = tmpfs.split_once(':').unwrap();
            lines.push(format!("mount -t tmpfs -o nosuid,nodev,noexec,{options} tmpfs .{place}"));
        }
        for volume in all("volumes") {
            let parts: Vec<&str> = volume.split(':').collect();
            let [from, to, mode] = parts[..] else { panic!("{volume}") };
            let from = self.pair.fri.dir().join(from);
            lines.push(format!("mount --bind {} .{to}; mount -o remount,bind,{mode} .{to}", from.display()));
        }
        for path in ["sys", "bus", "fs", "irq"] {
            lines.push(format!("mount --bind proc/{path} proc/{path}; mount -o remount,bind,ro proc/{path}"));
        }
        if settings["read_only"] == ["true"] {
            lines.push("mount -o remount,bind,ro .".to_owned());
        }
        lines.push("pivot_root . old; cd /; /umount -l /old".to_owned());
        let start = words(&instruction(FILES[0], "ENTRYPOINT", ""))
            .into_iter()
            .chain(words(&instruction(FILES[0], "CMD", "")));
        let start: Vec<_> = start.collect();
        lines.push(format!("exec {} {}", rights(settings), start.join(" ")));
        lines.join("\n") + "\n"
    }
}

/// How the runtime's own code drops rights, in the container's root.
fn rights(settings: &Settings) -> String {
    assert_eq!(
        (&settings["cap_drop"][..], &settings["ulimits.memlock"][..]),
        (&["ALL".into()][..], &["-1".into()][..])
    );
    let set: String = settings["cap_add"].iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let secure = settings["security_opt"].contains(&"no-new-privileges:true".to_owned());
    let privileges = if secure { "--no-new-privs" } else { "" };
    format!("/setpriv {privileges} --bounding-set -all{set} --inh-caps -all --")
}

impl Container<'_> {
    /// Pid of its first process, seen from outside.
    fn first(&self) -> u32 {
        let list = format!("/proc/{0}/task/{0}/children", self.runtime.pid());
        let read = || fs::read_to_string(&list).unwrap_or_default().split_whitespace().next()?.parse().ok();
        wait_until("the container's first process", SOON, || read().is_some()).unwrap();
        read().unwrap()
    }

    /// Runs the health check as the runtime does: in all namespaces, with the same rights.
    fn health(&self) -> Result<String, tund_lab::Error> {
        let test = &self.settings["healthcheck.test"];
        assert_eq!(test[0], "CMD");
        let enter = format!(
            "nsenter --target {} --mount --pid --net --ipc --uts --root --wd=/ -- {} {}",
            self.first(),
            rights(&self.settings),
            test[1..].join(" ")
        );
        self.site.pair.fri.run(&enter)
    }

    /// Waits for the link and checks its health.
    fn is_up(&self) {
        self.runtime.wait_line(UP, SOON).unwrap();
        assert_pings(&self.site.pair.fri, "192.168.86.18");
    }

    /// Stops like `docker stop`.
    fn stop(mut self) {
        let first = self.first();
        self.site.pair.fri.run(&format!("kill -TERM {first}")).unwrap();
        assert_eq!(self.runtime.code(SOON).unwrap(), 0, "{}", self.runtime.text());
        assert_eq!(self.site.pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
    }

    /// It exits on its own, with this code and these words.
    fn ends(mut self, code: i32, says: &[&str]) {
        assert_eq!(self.runtime.code(SOON).unwrap(), code, "{}", self.runtime.text());
        for part in says {
            assert!(self.runtime.text().contains(part), "no {part:?} in {}", self.runtime.text());
        }
    }
}

#[test]
fn the_example_of_a_container_runs_a_link_with_its_rights_and_its_health_is_seen() {
    let site = Site::new();
    let container = site.run(compose(), &Toml::tun_fri());
    container.is_up();
    assert!(container.health().unwrap().contains("up"), "{}", container.runtime.text());
    assert!(container.runtime.text().contains("CAP_SETUID and CAP_SETGID"), "{}", container.runtime.text());
    container.stop();
}

#[test]
fn with_three_capabilities_more_the_sandbox_of_a_container_is_whole() {
    let site = Site::new();
    let mut settings = compose();
    let more = ["SETUID", "SETGID", "SYS_CHROOT"].map(str::to_owned);
    settings.get_mut("cap_add").unwrap().extend(more);
    let container = site.run(settings, &Toml::tun_fri().with("[run]\nsandbox = 'require'\nverb = 3"));
    container.is_up();
    container.runtime.wait_line("engine: uid 990, gid 990", SOON).unwrap();
    assert!(container.health().is_ok());
    container.stop();
}

#[test]
fn each_setting_of_the_example_is_needed_for_what_the_document_says() {
    let site = Site::new();
    let without = |key: &str| {
        let mut settings = compose();
        settings.get_mut(key).unwrap().clear();
        site.run(settings, &Toml::tun_fri())
    };
    without("cap_add").ends(77, &["CAP_NET_ADMIN", "--cap-add NET_ADMIN"]);
    without("devices").ends(69, &["--device /dev/net/tun"]);
    without("volumes").ends(78, &["[cannot-read]"]);
    let container = without("tmpfs");
    container.is_up();
    assert!(container.health().is_err());
    assert!(container.runtime.text().contains("--tmpfs /run"), "{}", container.runtime.text());
    container.stop();
    // The rest that the example takes away is not needed.
    for key in ["read_only", "security_opt"] {
        let container = without(key);
        container.is_up();
        container.stop();
    }
}
