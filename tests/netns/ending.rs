//! Shutdown: every way leaves the host as it was.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon
//! ```

use rustix::process::Signal;
use tund_lab::{Host, Process, wait_until};

use super::support::*;

/// fri with a route, a `down` script that leaves a file, and an established link.
struct Running {
    fri: Process,
    mon: Process,
    before: String,
    pair: Pair,
}

fn running() -> Running {
    let pair = pair();
    let before = routes(&pair.fri);
    let trace = pair.fri.dir().join("trace");
    let down = script(&pair.fri, "down", &format!("echo $script_type $signal >> {}", trace.display()));
    let tables = format!(
        "[scripts]\nsecurity = 2\ndown = '{0}'\nroute-down = '{0}'\n[[route]]\nto = '192.168.66.0/24'",
        down.display()
    );
    let (fri, mon) = pair.link(&Toml::tun_fri().with(&tables), &Toml::tun_mon());
    assert!(routes(&pair.fri).contains("192.168.66.0/24"));
    Running { fri, mon, before, pair }
}

impl Running {
    /// No device, route or process is left, and the scripts ran in order.
    fn assert_clean(&self) {
        let fri = &self.pair.fri;
        assert_eq!(fri.interfaces().unwrap(), ["eth0", "lo"]);
        assert_eq!(routes(fri), self.before);
        let gone = wait_until("all processes gone", SOON, || fri.processes().is_empty());
        gone.unwrap();
        let trace = std::fs::read_to_string(fri.dir().join("trace")).unwrap();
        let order: Vec<_> = trace.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(order, ["route-pre-down", "down"]);
    }
}

/// The engine: the child of the process that was started.
pub fn engine(host: &Host, parent: &Process) -> u32 {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        after.split(' ').nth(1) == Some(&parent.pid().to_string())
    };
    host.processes().into_iter().find(is_child).unwrap()
}

/// Log of a start that finds a killed process's ledger.
const TAKING_BACK: &str = "undoing what a killed tund left";

#[test]
fn term_ends_in_order_with_code_0() {
    let mut running = running();
    assert_eq!(running.fri.terminate(SOON).unwrap(), 0);
    running.assert_clean();
}

#[test]
fn interrupt_ends_in_order_with_code_0() {
    let mut running = running();
    running.fri.signal(Signal::INT).unwrap();
    assert_eq!(exit_code(&mut running.fri), 0);
    running.assert_clean();
}

#[test]
fn the_peer_learns_at_once_that_an_end_goes_down() {
    let mut running = running();
    let mark = running.mon.mark();
    running.fri.terminate(SOON).unwrap();
    running.mon.wait_line_after(mark, "down", std::time::Duration::from_secs(3)).unwrap();
}

#[test]
fn a_killed_engine_is_cleaned_up_after_with_code_70() {
    let mut running = running();
    let engine = engine(&running.pair.fri, &running.fri);
    running.pair.fri.run(&format!("kill -9 {engine}")).unwrap();
    assert_eq!(exit_code(&mut running.fri), 70, "{}", running.fri.text());
    running.assert_clean();
}

#[test]
fn an_engine_whose_parent_is_killed_ends_by_itself() {
    let mut running = running();
    running.fri.kill();
    let fri = &running.pair.fri;
    // An exiting process leaves its namespace before it releases its device.
    let gone = || fri.processes().is_empty() && fri.interfaces().unwrap() == ["eth0", "lo"];
    wait_until("the engine gone", SOON, gone).unwrap();
}

#[test]
fn what_a_killed_tund_left_is_taken_back_by_the_next_start() {
    let pair = pair();
    let before = routes(&pair.fri);
    let around = |nets: &[u8]| {
        let route = |net: &u8| format!("[[route]]\nto = '192.168.{net}.0/24'\nvia = '10.0.0.2'\n");
        Toml::tun_fri().with(&nets.iter().map(route).collect::<String>())
    };
    let (mut fri, _mon) = pair.link(&around(&[66, 67]), &Toml::tun_mon());
    fri.kill();
    wait_gone(&pair.fri);
    let left = routes(&pair.fri);
    assert!(left.contains("192.168.66.0/24") && left.contains("192.168.67.0/24"), "{left}");
    // Meanwhile somebody has taken over one of them.
    pair.fri.run("ip route replace 192.168.66.0/24 via 10.0.0.2 proto static").unwrap();
    let mut fri = pair.start_fri(&around(&[68]));
    fri.wait_line(TAKING_BACK, SOON).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    let now = routes(&pair.fri);
    assert!(!now.contains("192.168.67.0/24") && now.contains("192.168.68.0/24"), "{now}");
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert!(routes(&pair.fri).contains("192.168.66.0/24 via 10.0.0.2 dev eth0 proto static"));
    pair.fri.run("ip route del 192.168.66.0/24").unwrap();
    assert_eq!(routes(&pair.fri), before);
    let mut fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line(UP, SOON).unwrap();
    assert!(!fri.text().contains(TAKING_BACK), "{}", fri.text());
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
}

#[test]
fn a_bridge_that_a_killed_tund_joined_is_left_by_the_next_start() {
    let pair = pair();
    pair.fri.run("ip link add br0 type bridge").unwrap();
    pair.fri.run("ip tuntap add dev tap0 mode tap").unwrap();
    let mut fri = pair.start_fri(&Toml::tap_fri());
    fri.wait_line("10.0.0.2", SOON).unwrap();
    let master = || pair.fri.run("ip -o link show dev tap0").unwrap().contains("master br0");
    wait_until("tap0 in br0", SOON, master).unwrap();
    fri.kill();
    wait_until("tund gone", SOON, || pair.fri.processes().is_empty()).unwrap();
    assert!(master(), "a device that tund did not make stays as it was left");
    let fri = pair.start_fri(&Toml::tap_fri().device("mode = 'tap'\nname = 'tap0'"));
    fri.wait_line(TAKING_BACK, SOON).unwrap();
    wait_until("tap0 out of br0", SOON, || !master()).unwrap();
}

#[test]
fn an_address_and_a_bridge_port_of_somebody_else_stay() {
    let pair = pair();
    for command in [
        "ip link add br0 type bridge",
        "ip tuntap add dev tap0 mode tap",
        "ip link set tap0 master br0",
        "ip tuntap add dev tun0 mode tun",
        "ip addr add 192.168.86.81 peer 192.168.86.18 dev tun0",
    ] {
        pair.fri.run(command).unwrap();
    }
    let shown = || {
        [pair.fri.run("ip -o link show master br0").unwrap(), pair.fri.run("ip -o addr show tun0").unwrap()]
    };
    for (toml, name) in [(Toml::tap_fri(), "tap0"), (Toml::tun_fri(), "tun0")] {
        let mut fri = pair.start_fri(&toml);
        fri.wait_line("[no-answer]", SOON).unwrap();
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
        assert!(shown().iter().any(|text| text.contains(name)), "{name}: {:?}", shown());
    }
    assert!(shown()[1].contains("192.168.86.81"), "{:?}", shown());
}

#[test]
fn term_while_the_up_script_runs_ends_it_and_cleans_up() {
    let pair = pair();
    let up = script(&pair.fri, "up", "echo begun; sleep 600");
    let table = format!("[scripts]\nsecurity = 2\nup = '{}'", up.display());
    let mut fri = pair.start_fri(&Toml::tun_fri().with(&table));
    fri.wait_line("begun", SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0, "{}", fri.text());
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
    wait_until("all processes gone", SOON, || pair.fri.processes().is_empty()).unwrap();
}

#[test]
fn a_second_term_does_not_wait_for_a_down_script() {
    let pair = pair();
    let down = script(&pair.fri, "down", "sleep 0.6; echo begun; sleep 600");
    let table = format!("[scripts]\nsecurity = 2\ntimeout = '10m'\ndown = '{}'", down.display());
    let (mut fri, _mon) = pair.link(&Toml::tun_fri().with(&table), &Toml::tun_mon());
    fri.signal(Signal::TERM).unwrap();
    fri.wait_line("begun", SOON).unwrap();
    fri.signal(Signal::TERM).unwrap();
    fri.wait(SOON).unwrap();
    wait_until("the device gone", SOON, || pair.fri.interfaces().is_ok_and(|names| names == ["eth0", "lo"]))
        .unwrap();
}

/// With its addresses and routes, and between `down` and `up`.
#[test]
fn a_device_that_somebody_removes_is_made_again() {
    let mut running = running();
    let host = &running.pair.fri;
    let all = || host.run("ip -4 -br addr show tun0").unwrap() + &routes(host);
    let before = all();
    for _ in 0..2 {
        let mark = running.fri.mark();
        host.run("ip link del tun0").unwrap();
        running.fri.wait_line_after(mark, "[device-gone]", SOON).unwrap();
        running.fri.wait_line_after(mark, UP, 2 * SOON).unwrap();
        assert_pings(host, "192.168.86.18");
        assert_eq!(all(), before);
    }
    assert_eq!(running.fri.terminate(SOON).unwrap(), 0);
    assert_eq!(
        (host.interfaces().unwrap(), routes(host)),
        (vec!["eth0".into(), "lo".into()], running.before)
    );
    let trace = std::fs::read_to_string(host.dir().join("trace")).unwrap();
    assert_eq!(trace.lines().filter(|line| line.starts_with("down")).count(), 3, "{trace}");
}
