//! The laboratory's scenarios, with their failures: each a file below `lab/scenarios`.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tund_lab::rights::require;
use tund_lab::scenario::{ALL, Ground, Scenario, World, find};
use tund_lab::{Process, wait_until};

use super::demo::{LONG, as_ordinary_user, lab};
use super::support::*;

fn run(name: &str) {
    let entry = find(name).unwrap();
    let ground = entry.ground().unwrap();
    if let Ground::Guest(lacks) = ground {
        let mut process = play(&[name]);
        assert_eq!(process.code(5 * LONG).unwrap(), 0, "{}", process.text());
        for part in [lacks.as_str(), "What breaks: ", "hosts and files removed"] {
            assert!(process.text().contains(part), "no {part:?} in {}", process.text());
        }
        return;
    }
    let scenario = entry.scenario().unwrap();
    let mut world = World::new(scenario, Path::new(TUND)).unwrap();
    world.start_all().unwrap();
    for phase in world.phases() {
        world.run(&phase, |_| {}).unwrap();
    }
}

macro_rules! scenarios {
    ($($test:ident: $name:literal),* $(,)?) => {
        const TESTED: &[&str] = &[$($name),*];
        $(#[test]
        fn $test() {
            run($name);
        })*
    };
}

scenarios! {
    routed_sites: "routed-sites",
    bridged_sites: "bridged-sites",
    tun_and_tap: "tun-and-tap",
    inetd: "inetd",
    router_firewall: "router-firewall",
    load_balancer: "load-balancer",
    zones: "zones",
    virtual_switch: "virtual-switch",
    vxlan_over_tund: "vxlan-over-tund",
    tund_beside_vxlan: "tund-beside-vxlan",
    mesh: "mesh",
    ovs: "ovs",
    vlan_trunk: "vlan-trunk",
}

#[test]
fn every_scenario_is_tested() {
    assert_eq!(ALL.map(|entry| entry.name).as_slice(), TESTED);
}

fn play(arguments: &[&str]) -> Process {
    let mut command = Command::new(lab());
    command.arg("run").args(arguments);
    Process::spawn("tund-lab run", command).unwrap()
}

/// Directories of the worlds of a process, and processes that were started in them.
pub fn left_of(pid: u32) -> Vec<String> {
    let name = format!("tund-lab-{pid}-");
    let dirs = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    let commands = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
    let texts = commands.filter_map(|path| std::fs::read_to_string(path).ok());
    dirs.map(|path| path.display().to_string()).chain(texts).filter(|text| text.contains(&name)).collect()
}

#[test]
fn two_laboratories_run_at_once_and_leave_nothing() {
    let mut both = [play(&["routed-sites"]), play(&["routed-sites"])];
    for process in &mut both {
        let code = process.code(2 * LONG).unwrap();
        let text = process.text();
        assert_eq!(code, 0, "{text}");
        for part in ["ann .2 ---- .1 fri", "What breaks: ", "  ok  the link comes back by itself", "removed"]
        {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert_eq!(left_of(process.pid()), [""; 0]);
    }
}

#[test]
fn a_signal_ends_a_scenario_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut process = play(&["inetd"]);
        process.wait_line("  ok  ", LONG).unwrap();
        assert!(!left_of(process.pid()).is_empty());
        process.signal(signal).unwrap();
        assert_eq!(process.code(SOON).unwrap(), 128 + signal.as_raw());
        wait_until("nothing left", SOON, || left_of(process.pid()).is_empty()).unwrap();
    }
}

#[test]
fn a_scenario_that_fails_says_where_and_leaves_nothing() {
    let text = find("tun-and-tap").unwrap().text;
    let wrong = text.replacen("-W 2 192.168.86.18", "-W 2 192.168.86.19", 1);
    assert_ne!(text, wrong);
    let scenario = Scenario::parse(&wrong).unwrap();
    let mut world = World::new(scenario, Path::new(TUND)).unwrap();
    world.start_all().unwrap();
    let phase = world.phases().remove(0);
    let error = world.run(&phase, |_| {}).unwrap_err().to_string();
    for part in ["fri reaches mon through the routed link", "192.168.86.19", "--- tun-mon-fri on mon", UP] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn the_shell_is_on_the_host_and_what_crossed_is_recorded() {
    require("tshark").unwrap();
    let world = Pair::unplugged();
    let folder = world.fri.dir().join("capture");
    let mut command = Command::new("sh");
    let line = "echo 'ip -brief address; ping -c 3 -i 0.2 192.168.66.2' | \"$0\" run routed-sites --shell ann --capture \"$1\"";
    command.args(["-c", line]).arg(lab()).arg(&folder);
    let mut process = Process::spawn("shell", command).unwrap();
    assert_eq!(process.code(2 * LONG).unwrap(), 0, "{}", process.text());
    assert!(process.text().contains("192.168.76.2/24"), "{}", process.text());
    assert!(process.text().contains("3 received"), "{}", process.text());
    let seen = |host: &str, filter: &str| {
        let file = folder.join(format!("{host}.pcapng")).display().to_string();
        let text = world.fri.run(&format!("tshark -n -r {file} -Y {filter}")).unwrap();
        text.matches("192.168.66.2").count()
    };
    assert!(seen("fri", "icmp") >= 6, "the inner side");
    assert_eq!(seen("internet", "icmp"), 0, "the inner packets are hidden outside");
    // The line that the laboratory prints shows them, for the host whose line it is and for the one in between.
    let text = process.text();
    let viewer = text.lines().find(|line| line.starts_with("wireshark -X ")).unwrap();
    let recording = viewer.rsplit('/').next().unwrap();
    let viewer = viewer.replace("wireshark", "tshark -n").replace(recording, "internet.pcapng");
    let shown = world.fri.run(&format!("{viewer} -Y tund&&icmp")).unwrap();
    assert!(shown.matches("192.168.66.2").count() >= 6, "{shown}");
}

#[test]
fn a_scenario_runs_as_an_ordinary_user() {
    let done = |mut process: Process| {
        assert_eq!(process.code(2 * LONG).unwrap(), 0, "{}", process.text());
        assert!(process.text().contains("hosts and files removed"), "{}", process.text());
    };
    as_ordinary_user("run router-firewall", done);
}

#[test]
fn the_list_says_what_can_run_and_why_the_rest_cannot() {
    let mut command = Command::new(lab());
    command.args(["list", "--needs"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/needs.toml"));
    let mut process = Process::spawn("tund-lab list", command).unwrap();
    let code = process.code(LONG).unwrap();
    assert_eq!(code, 0, "{}", process.text());
    for entry in &ALL {
        assert!(process.text().contains(entry.name), "{}", process.text());
    }
}
