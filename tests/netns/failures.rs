//! Failed starts: each leaves nothing behind, names the remedy, and has its own exit code.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon
//! ```

use std::net::UdpSocket;

use rustix::process::{Pid, Signal, kill_process};
use tund_lab::rights::has_nobody;
use tund_lab::{Process, rights, wait_until};

use super::support::*;

const UNAVAILABLE: i32 = 69;
const NO_PERMISSION: i32 = 77;
const CONFIGURATION: i32 = 78;
const USAGE: i32 = 2;

/// The program has exited with `code` and said `part`, and fri has none of its devices and routes.
fn assert_stopped(pair: &Pair, mut process: Process, code: i32, part: &str) {
    assert_eq!(exit_code(&mut process), code, "{}", process.text());
    assert!(process.text().contains(part), "no {part:?} in:\n{}", process.text());
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
    assert!(!routes(&pair.fri).contains("192.168."), "{}", routes(&pair.fri));
    assert_eq!(pair.fri.processes(), [0; 0], "a process is left");
}

#[test]
fn an_up_script_that_fails_stops_the_start() {
    let pair = pair();
    let up = script(&pair.fri, "up", "echo this is why >&2; exit 3");
    let table =
        format!("[scripts]\nsecurity = 2\nup = '{}'\n[[route]]\nto = '192.168.66.0/24'", up.display());
    let process = pair.start_fri(&Toml::tun_fri().with(&table));
    let said = process.wait_line("this is why", SOON).unwrap();
    assert!(said.contains("up"), "the script's output names its hook: {said}");
    assert_stopped(&pair, process, 1, "3");
}

#[test]
fn an_up_script_that_hangs_is_ended_in_time() {
    let pair = pair();
    let up = script(&pair.fri, "up", "sleep 600");
    let table = format!("[scripts]\nsecurity = 2\ntimeout = '1s'\nup = '{}'", up.display());
    assert_stopped(&pair, pair.start_fri(&Toml::tun_fri().with(&table)), 1, "up");
}

#[test]
fn a_down_script_that_hangs_is_ended_in_time_and_nothing_stays() {
    let pair = pair();
    let down = script(&pair.fri, "down", "trap '' TERM; echo begun; sleep 600");
    let table = format!("[scripts]\nsecurity = 2\ntimeout = '1s'\ndown = '{}'", down.display());
    let (mut fri, _mon) = pair.link(&Toml::tun_fri().with(&table), &Toml::tun_mon());
    assert_eq!(fri.terminate(SOON).unwrap(), 0, "{}", fri.text());
    assert!(fri.text().contains("begun"), "{}", fri.text());
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
    tund_lab::wait_until("all processes gone", SOON, || pair.fri.processes().is_empty()).unwrap();
}

#[test]
fn a_port_in_use_is_unavailable() {
    let pair = pair();
    let _other = pair.fri.within(|| UdpSocket::bind("0.0.0.0:1417")).unwrap().unwrap();
    assert_stopped(&pair, pair.start_fri(&Toml::tun_mon()), UNAVAILABLE, "1417");
}

#[test]
fn a_default_port_in_use_gives_way_when_there_is_a_remote() {
    let pair = pair();
    let _other = pair.fri.within(|| UdpSocket::bind("0.0.0.0:1417")).unwrap().unwrap();
    let (fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    assert!(fri.text().contains("1417"), "the log says so: {}", fri.text());
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_device_name_in_use_is_unavailable() {
    let pair = pair();
    pair.fri.run("ip link add tun0 type veth peer name other").unwrap();
    let mut process = pair.start_fri(&Toml::tun_fri());
    assert_eq!(exit_code(&mut process), UNAVAILABLE, "{}", process.text());
    assert!(process.text().contains("tun0"), "{}", process.text());
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo", "other", "tun0"]);
}

#[test]
fn a_device_of_another_tund_is_unavailable_and_survives() {
    let pair = pair();
    let (_fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let second = Toml::tun_fri().top("remote = '10.0.0.2:2000'\nlisten = 2000");
    let mut second = start(&pair.fri, "second", &second.text());
    assert_eq!(exit_code(&mut second), UNAVAILABLE, "{}", second.text());
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_missing_bridge_is_named() {
    let pair = pair();
    let mut process = pair.start_fri(&Toml::tap_fri());
    assert_ne!(exit_code(&mut process), 0, "{}", process.text());
    assert!(process.text().contains("br0"), "{}", process.text());
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
}

/// Without the capability: as another user if there is one, else with an empty bounding set.
#[test]
fn without_the_right_to_make_devices_it_says_so() {
    let pair = pair();
    rights::check_tun().unwrap();
    let file = pair.fri.file("fri.toml", &Toml::tun_fri().text()).unwrap();
    let drop: &[&str] = if has_nobody() {
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    } else {
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    };
    if has_nobody() {
        let key = pair.fri.dir().join("static.key");
        pair.fri.run(&format!("chown 65534 {}", key.display())).unwrap();
    }
    let program = pair.net.dir().join("tund");
    tund_lab::install(TUND.as_ref(), &program).unwrap();
    let file = file.display().to_string();
    let run_dir = format!("RUNTIME_DIRECTORY={}/none", pair.fri.dir().display());
    let program = program.display().to_string();
    let words = [drop, &["env", &run_dir, &program, "--config", &file]].concat();
    assert_stopped(&pair, pair.fri.spawn(&words).unwrap(), NO_PERMISSION, "CAP_NET_ADMIN");
}

/// As when the engine of a killed parent still has it.
#[test]
fn a_device_that_is_taken_is_waited_for_a_moment() {
    let pair = pair();
    let (fri, mon) =
        [Toml::tap_fri(), Toml::tap_mon()].map(|toml| toml.device("mode = 'tap'\nname = 'tap0'")).into();
    let held = pair.fri.port("tap0").unwrap();
    assert_eq!(exit_code(&mut pair.start_fri(&fri)), UNAVAILABLE);
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo", "tap0"]);
    let _mon = pair.start_mon(&mon);
    let process = pair.start_fri(&fri);
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(held);
    process.wait_line(UP, SOON).unwrap();
}

#[test]
fn a_bad_configuration_shows_every_problem() {
    let pair = pair();
    let bad = Toml::tun_fri().with("[keepalive]\nintervall = '1s'\n[tuning]\nbundle = 'perhaps'");
    let process = pair.start_fri(&bad);
    process.wait_line("intervall", SOON).unwrap();
    process.wait_line("bundle", SOON).unwrap();
    assert_stopped(&pair, process, CONFIGURATION, "interval");
}

#[test]
fn a_missing_configuration_and_a_bad_option() {
    let pair = pair();
    let missing = pair.fri.spawn(&[TUND, "--config", "/nowhere/fri.toml"]).unwrap();
    assert_stopped(&pair, missing, CONFIGURATION, "/nowhere/fri.toml");
    let option = pair.fri.spawn(&[TUND, "--no-such-option"]).unwrap();
    assert_stopped(&pair, option, USAGE, "--no-such-option");
}

#[test]
fn static_and_handshake_keys_do_not_meet_and_both_ends_say_so() {
    let pair = pair();
    let mon = pair.start_mon(&Toml::tun_mon());
    let mut toml = Toml::tun_fri();
    toml.key = "file = 'static.key'".into();
    let fri = pair.start_fri(&toml);
    for (end, own, other) in [(&fri, "handshake", "static"), (&mon, "static", "handshake")] {
        let line = end.wait_line("[key-mode-mismatch]", SOON).unwrap();
        assert!(line.find(other) < line.find(own), "{line}");
    }
    assert!(!fri.text().contains(UP) && !mon.text().contains(UP), "a link came up");
}

#[test]
fn a_peer_without_ml_kem_is_said_on_both_ends() {
    for (fri_has, mon_has) in [(true, false), (false, true)] {
        let pair = pair();
        let with = |mut toml: Toml, has: bool| {
            toml.key.push_str(&format!("\npost-quantum = {has}"));
            toml.handshake()
        };
        let mon = pair.start_mon(&with(Toml::tun_mon(), mon_has));
        mon.wait_line("waiting", SOON).unwrap();
        let file = pair.fri.file("fri.toml", &with(Toml::tun_fri(), fri_has).text()).unwrap();
        let said = pair
            .fri
            .run(&format!("{TUND} doctor {}", file.display()))
            .unwrap_or_else(|error| error.to_string());
        assert!(said.contains("has the same key but exchanges keys with X25519"), "{said}");
        let fri = pair.start_fri(&with(Toml::tun_fri(), fri_has));
        for end in [&fri, &mon] {
            end.wait_line("[key-exchange-mismatch]", SOON).unwrap();
        }
        assert!(!fri.text().contains(UP) && !mon.text().contains(UP), "a link came up");
    }
}

#[test]
fn a_peer_in_another_mode_is_said_on_both_ends() {
    let pair = pair();
    pair.mon.run("ip link add br0 type bridge").unwrap();
    let mut tap = Toml::tap_mon().top("listen = 1417");
    tap.key = tap.key.replace("direction = 1", "direction = 0");
    let mon = pair.start_mon(&tap);
    let fri = pair.start_fri(&Toml::tun_fri());
    for (end, own, other) in [(&fri, "tun", "tap"), (&mon, "tap", "tun")] {
        let line = end.wait_line("[device-mode-mismatch]", SOON).unwrap();
        assert!(line.find(other) < line.find(own), "{line}");
    }
    assert!(!fri.text().contains(UP) && !mon.text().contains(UP), "a link came up");
}

#[test]
fn two_ends_with_different_keys_do_not_meet() {
    let pair = pair();
    let key = pair.mon.dir().join("static.key");
    std::fs::remove_file(&key).unwrap();
    pair.mon.run(&format!("{TUND} genkey -o {}", key.display())).unwrap();
    let (mon, fri) = (pair.start_mon(&Toml::tun_mon()), pair.start_fri(&Toml::tun_fri()));
    fri.wait_line("[no-answer]", SOON).unwrap();
    let text = pair.fri.run("ping -n -c 20 -i 0.1 -W 1 192.168.86.18").unwrap_err().to_string();
    assert!(text.contains(" 0 received"), "{text}");
    assert!(!fri.text().contains(UP) && !mon.text().contains(UP), "a link came up");
}

#[test]
fn a_process_that_is_stopped_is_said_and_the_link_is_not_up_until_it_goes_on() {
    let pair = pair();
    let (fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let engine = super::ending::engine(&pair.fri, &fri);
    let [parent, process] = [fri.pid(), engine].map(|pid| Pid::from_raw(pid.cast_signed()).unwrap());
    let state = || {
        let status = super::operation::status(&pair.fri, "fri");
        (status["state"].as_str().unwrap().to_owned(), status["problem"].clone())
    };
    kill_process(process, Signal::STOP).unwrap();
    let (stopped, problem) = state();
    let stats = super::operation::ask(&pair.fri, &["stats", "fri"]).1;
    kill_process(process, Signal::CONT).unwrap();
    assert_eq!(stopped, "blocked");
    assert!(problem.as_str().unwrap().contains(&format!("kill -CONT {engine}")), "{problem}");
    for line in ["tund_link_up{link=\"fri\"} 0\n", "code=\"engine-silent\"} 1\n"] {
        assert!(stats.contains(line), "{line}: {stats}");
    }
    wait_until("the engine", SOON, || state() == ("up".to_owned(), serde_json::Value::Null)).unwrap();

    kill_process(parent, Signal::STOP).unwrap();
    let (code, text) = super::operation::ask(&pair.fri, &["status", "fri"]);
    kill_process(parent, Signal::CONT).unwrap();
    assert_eq!(code, Some(1));
    assert!(text.starts_with("tund: fri does not answer at /") && text.contains("kill -CONT"), "{text}");
    wait_until("the parent", SOON, || state().0 == "up").unwrap();
}
