//! The README's first command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tund_lab::rights::{find, has_nobody, is_root, require};
use tund_lab::{Net, Process};

use super::support::*;

/// Longer than the lab's shorter tasks take.
pub const LONG: Duration = Duration::from_secs(60);

/// The lab's program. `cargo test` of this package alone does not build it, so this does; tests/run has built it and
/// sets its path.
pub fn lab() -> PathBuf {
    if let Some(built) = std::env::var_os("TUND_LAB") {
        return built.into();
    }
    let folder = Path::new(TUND).parent().unwrap();
    let profile = if folder.ends_with("release") { "release" } else { "dev" };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--package", "tund-lab", "--bin", "tund-lab"]);
    cargo.args(["--profile", profile, "--target-dir"]).arg(folder.parent().unwrap());
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut build = Process::spawn("cargo build", cargo).unwrap();
    assert_eq!(build.code(10 * LONG).unwrap(), 0, "{}", build.text());
    folder.join("tund-lab")
}

fn assert_shows_a_link(mut demo: Process, mode: &str) {
    let code = demo.code(LONG).unwrap();
    let text = demo.text();
    assert_eq!(code, 0, "{text}");
    for part in ["fri", "mon", &format!("{mode}-fri-mon.toml"), UP, "ms", "bit/s", "nothing is left"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(text.lines().count() <= 60, "{} lines are too many:\n{text}", text.lines().count());
}

fn demo(mode: &str) -> Process {
    require("unshare").unwrap();
    let mut command = Command::new(lab());
    command.args(["demo", mode]);
    Process::spawn("demo", command).unwrap()
}

#[test]
fn the_routed_demo_runs_as_root() {
    assert!(is_root());
    assert_shows_a_link(demo("tun"), "tun");
}

#[test]
fn the_bridged_demo_runs_as_root() {
    assert!(is_root());
    assert_shows_a_link(demo("tap"), "tap");
}

/// Runs the lab as user nobody, with the program readable to that user and Debian's mode of `/dev/net/tun`. In a user
/// namespace, which has no other user, uses a nested one that maps an ordinary user. `arguments` are the lab's; `done`
/// waits for its end.
pub fn as_ordinary_user(arguments: &str, done: impl FnOnce(Process)) {
    let net = Net::new().unwrap();
    let host = net.host("machine").unwrap();
    let place = host.dir().join("place");
    std::fs::create_dir(&place).unwrap();
    let program = place.join("tund-lab");
    tund_lab::install(lab().as_ref(), &program).unwrap();
    // Where another user may read it.
    let tools = host.dir().join("tools");
    std::fs::create_dir(&tools).unwrap();
    if let Some(folder) = find("linux.uml").as_deref().and_then(|program| program.ancestors().nth(2)) {
        host.mount(folder, &tools.display().to_string()).unwrap();
    }
    let path = format!("PATH={}/bin:{}", tools.display(), std::env::var("PATH").unwrap());
    let (program, place) = (program.display().to_string(), place.display().to_string());
    let words = if has_nobody() {
        host.run(&format!("chmod 1777 {place}")).unwrap();
        let dev = host.dir().join("dev").display().to_string();
        host.shell(&format!("mkdir {dev} && mount -t tmpfs -o mode=755 tmpfs {dev}")).unwrap();
        host.shell(&format!("mknod -m 666 {dev}/tun c 10 200 && mount --bind {dev}/tun /dev/net/tun"))
            .unwrap();
        format!(
            "setpriv --reuid=65534 --regid=65534 --clear-groups env {path} TMPDIR={place} {program} {arguments}"
        )
    } else {
        format!(
            "unshare --user --map-user=1000 --map-group=1000 env {path} TMPDIR={place} {program} {arguments}"
        )
    };
    let words: Vec<&str> = words.split(' ').collect();
    done(host.spawn(&words).unwrap());
    let left: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tund-lab"], "files are left");
}

#[test]
fn the_demo_runs_as_an_ordinary_user() {
    as_ordinary_user("demo", |demo| assert_shows_a_link(demo, "tun"));
}
