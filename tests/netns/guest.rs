//! The lab's user-mode guest.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tund_lab::{Process, wait_until};

use super::demo::{LONG, as_ordinary_user, lab};
use super::scenarios::left_of;
use super::support::*;

fn guest(arguments: &[&str]) -> Process {
    let mut command = Command::new(lab());
    command.arg("guest").args(arguments);
    Process::spawn("tund-lab guest", command).unwrap()
}

#[test]
fn a_guest_has_another_kernel_and_what_it_writes_is_gone_but_for_shared_folders() {
    let world = Pair::unplugged();
    let shared = world.fri.dir().join("shared");
    let script = "uname -r; echo complaint >&2; ip link add g0 type gretap local 192.0.2.1 remote 192.0.2.2
        ip link add v0 type veth peer v1 && tc qdisc add dev v0 root netem loss 1% && tc qdisc show dev v0
        echo kept > \"$0/kept\"; echo lost > \"$0/../lost\"; cat \"$0/../lost\"; seq 20000; exit 7";
    let shared = shared.to_str().unwrap();
    let mut process = guest(&["--share", shared, "sh", "-c", script, shared]);
    let code = process.code(2 * LONG).unwrap();
    let lines = process.lines();
    assert_eq!(code, 7, "{}", process.text());
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(lines[0] != host.trim(), "{host}");
    for line in ["complaint", "lost", "1", "20000"] {
        assert!(lines.iter().any(|seen| seen == line), "no {line:?}: {}", process.text());
    }
    assert!(process.text().contains("netem"), "{}", process.text());
    assert_eq!(std::fs::read_to_string(Path::new(shared).join("kept")).unwrap(), "kept\n");
    assert!(!Path::new(shared).join("../lost").exists());
    assert_eq!(left_of(process.pid()), [""; 0]);
}

#[test]
fn a_guest_that_is_killed_leaves_nothing() {
    let mut late = guest(&["--timeout", "3", "sleep", "1000"]);
    let mut told = guest(&["sh", "-c", "echo booted; sleep 1000"]);
    told.wait_line("booted", LONG).unwrap();
    assert!(!left_of(told.pid()).is_empty());
    told.signal(Signal::INT).unwrap();
    assert_eq!(told.code(SOON).unwrap(), 128 + Signal::INT.as_raw());
    assert_eq!(late.code(LONG).unwrap(), 1, "{}", late.text());
    assert!(late.text().contains("did not end within 3 s"), "{}", late.text());
    for pid in [late.pid(), told.pid()] {
        wait_until("nothing left", SOON, || left_of(pid).is_empty()).unwrap();
    }
}

#[test]
fn an_ordinary_user_has_guests_and_is_root_there() {
    as_ordinary_user("guest id -u", |mut process| {
        assert_eq!(process.code(LONG).unwrap(), 0, "{}", process.text());
        assert_eq!(process.lines().first().map(String::as_str), Some("0"), "{}", process.text());
    });
}
