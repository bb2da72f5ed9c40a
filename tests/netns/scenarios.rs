//! The lab's scenarios, with their failures: each a file below `lab/scenarios`.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tund_lab::rights::require;
use tund_lab::scenario::{ALL, EXERCISES, Entry, Ground, Scenario, World, find};
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
    carry_out(&entry);
}

fn carry_out(entry: &Entry) {
    let mut world = World::new(entry.scenario().unwrap(), Path::new(TUND)).unwrap();
    world.start_all().unwrap();
    for phase in world.phases() {
        world.run(&phase, |_, _| {}).unwrap();
    }
}

/// The fault shows, and the solution repairs it.
#[test]
fn every_exercise_has_its_fault_and_its_solution() {
    EXERCISES.iter().for_each(carry_out);
}

#[test]
fn an_exercise_asks_and_gives_a_shell_from_which_every_host_is_reached() {
    let line = "printf 'on mon hostname -I; on mon ls; on nobody true' | \"$0\" exercise mtu";
    let mut command = Command::new("sh");
    command.args(["-c", line]).arg(lab());
    let mut process = Process::spawn("exercise", command).unwrap();
    process.code(2 * LONG).unwrap();
    let text = process.text();
    for part in ["1. Up to which length", "203.0.113.2 192.168.66.1", "tun-mon-fri.toml", "no host nobody"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("black hole"), "the solution is behind an option: {text}");
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
    loops: "loop",
    tun_and_tap: "tun-and-tap",
    inetd: "inetd",
    openvpn_peer: "openvpn-peer",
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
    assert_eq!(ALL.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), TESTED);
}

fn play(arguments: &[&str]) -> Process {
    let mut command = Command::new(lab());
    command.arg("run").args(arguments);
    Process::spawn("tund-lab run", command).unwrap()
}

/// Remaining directories of a process's worlds, and processes started in them.
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
fn a_signal_while_hosts_are_made_leaves_nothing() {
    for hosts in 1..=4 {
        let mut process = play(&["routed-sites"]);
        // The first directory has tund's program, the second is the scenario's.
        let world = std::env::temp_dir().join(format!("tund-lab-{}-1", process.pid()));
        let made = || std::fs::read_dir(&world).map_or(0, Iterator::count);
        wait_until("hosts", LONG, || made() >= hosts).unwrap();
        process.signal(Signal::INT).unwrap();
        assert_eq!(process.code(SOON).unwrap(), 128 + Signal::INT.as_raw(), "{}", process.text());
        wait_until("nothing left", SOON, || left_of(process.pid()).is_empty()).unwrap();
    }
}

/// Two OpenVPN ends, and no tund.
const OPENVPN_ALONE: &str = r#"#  a ==== b
title = "OpenVPN alone"
programs = ["openvpn"]
cables = ["a:eth0 -- b:eth0"]
[host.a]
setup = """
ip addr add 10.0.0.1/24 dev eth0
openvpn --genkey secret static.key
"""
services = ["openvpn --dev tun --remote 10.0.0.2 --ifconfig 192.168.86.1 192.168.86.2 --secret static.key --cipher AES-256-CBC"]
[host.b]
setup = """
ip addr add 10.0.0.2/24 dev eth0
cp ../a/static.key .
"""
services = ["openvpn --dev tun --remote 10.0.0.1 --ifconfig 192.168.86.2 192.168.86.1 --secret static.key --cipher AES-256-CBC"]
[[phase]]
say = "it is up"
check = [{ say = "a reaches b", on = "a", run = "ping -c 1 -W 1 192.168.86.2" }]
"#;

#[test]
fn scenarios_of_ones_own_are_made_checked_and_run() {
    let place = Pair::unplugged();
    let file = place.fri.dir().join("mine.toml").display().to_string();
    let call = |arguments: &[&str]| {
        let output = Command::new(lab()).args(arguments).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), out, err)
    };
    assert_eq!(call(&["new", &file]).0, Some(0));
    assert_eq!(call(&["new", &file]).0, Some(1), "it is there");
    assert_eq!(call(&["check", &file]).0, Some(0));
    let (code, out, err) = call(&["run", "--json", &file]);
    let result: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert!(code == Some(0) && result["passed"] == true && result["phases"][1]["failure"] == true, "{out}");
    assert_eq!(result["phases"].as_array().unwrap().len(), 2);
    assert!(result["phases"][0]["checks"][0]["seconds"].as_f64().unwrap() > 0.0, "{out}");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("192.168.86.2\"\nfails", "192.168.86.1\"\nfails")).unwrap();
    // A failing step takes its full 40 s.
    let (code, out, _) = call(&["run", "--json", &file]);
    let result: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(1) && result["passed"] == false && result["error"].is_string(), "{out}");
    let wrong = text.replace("listen = 1417", "listen = 'x'").replace("on = \"bob\"", "on = \"rob\"");
    std::fs::write(&file, wrong).unwrap();
    let (code, _, err) = call(&["check", &file]);
    assert_eq!(code, Some(1));
    for place in [":30:10: bob: ", ":49:6: there is no host rob"] {
        assert!(err.contains(place), "no {place:?} in {err}");
    }
    std::fs::write(&file, OPENVPN_ALONE).unwrap();
    let (code, out, err) = call(&["run", &file]);
    assert!(
        code == Some(0) && out.contains("  a ==== b\n") && out.contains("  ok  a reaches b"),
        "{out}{err}"
    );
}

/// A path of 20 Mbit/s, described by two variables.
const MEASURED: &str = r#"#  ann -- fri ==== mon -- bob
title = "measured"
extends = "routed-sites"
[vars]
RATE = "20mbit"
MOST = "20 Mbit/s"
[host.internet]
setup = "tc qdisc add dev east root tbf rate @RATE@ burst 32k latency 50ms"
[[phase]]
say = "figures"
check = [
  { say = "rate", on = "ann", to = "192.168.66.2", throughput = "<= @MOST@" },
  { say = "some", on = "ann", to = "192.168.66.2", throughput = ">= 1 Mbit/s" },
  { say = "trip", on = "ann", to = "192.168.66.2", latency = "<= 1 s" },
  { say = "lost", on = "ann", to = "192.168.66.2", loss = "<= 10 %" },
  { say = "size", on = "ann", to = "192.168.66.2", largest-frame = "= 1420 bytes" },
  { say = "link", on = "ann", run = "ping -c 3 -i 0.2 192.168.66.2", at = "internet:east", filter = "udp port 1417", seen-on-wire = ">= 6 packets" },
  { say = "hide", on = "ann", run = "ping -c 3 -i 0.2 192.168.66.2", at = "internet:east", filter = "icmp", seen-on-wire = "= 0 packets" },
]
"#;

#[test]
fn a_scenario_measures_and_its_result_is_a_page() {
    require("tcpdump").unwrap();
    let place = Pair::unplugged();
    let [file, page] = ["mine.toml", "mine.html"].map(|name| place.fri.dir().join(name));
    std::fs::write(&file, MEASURED).unwrap();
    let call = |more: &[&str]| {
        let mut command = Command::new(lab());
        let output = command.arg("run").arg(&file).args(["--json", "--page"]).arg(&page).args(more).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = call(&[]);
    assert_eq!(code, Some(0), "{text}");
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    let checks = result["phases"][0]["checks"].as_array().unwrap();
    let figures = checks.iter().map(|check| check["measured"]["figure"].as_str().unwrap());
    let all =
        ["throughput", "throughput", "latency", "loss", "largest-frame", "seen-on-wire", "seen-on-wire"];
    assert_eq!(figures.collect::<Vec<_>>(), all);
    let rate = checks[1]["measured"]["value"].as_f64().unwrap();
    assert!((1.0..=20.0).contains(&rate), "{rate} Mbit/s of 20");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("ann -- fri ==== mon -- bob") && html.matches("<rect").count() == 7, "{html}");
    // Another value makes another path, and the page shows what fails.
    let (code, text) = call(&["--set", "RATE=4mbit", "--set", "MOST=1 Mbit/s"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("rate: ann: ") && text.contains("<= 1 Mbit/s"), "{text}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("&lt;= 1 Mbit/s"));
    let (code, text) = call(&["--set", "SPEED=1"]);
    assert!(code == Some(1) && text.contains("SPEED: ") && text.contains("MOST, RATE"), "{text}");
}

#[test]
fn a_scenario_that_fails_says_where_and_leaves_nothing() {
    let entry = find("tun-and-tap").unwrap();
    let text = &entry.text;
    let wrong = text.replacen("-W 2 192.168.86.18", "-W 2 192.168.86.19", 1);
    assert_ne!(**text, *wrong);
    let scenario = Scenario::parse(&wrong).unwrap();
    let mut world = World::new(scenario, Path::new(TUND)).unwrap();
    world.start_all().unwrap();
    let phase = world.phases().remove(0);
    let error = world.run(&phase, |_, _| {}).unwrap_err().to_string();
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
    // The printed line shows them, for its own host and for the one in between.
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
        assert!(process.text().contains(&*entry.name), "{}", process.text());
    }
}
