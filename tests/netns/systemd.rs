//! systemd: passed sockets, and the units in `systemd/`.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon: systemd
//! ```

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tund_lab::{Machine, Process, wait_until};

use super::support::*;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");

fn activate(pair: &Pair, options: &str) -> Process {
    let file = pair.mon.file("mon.toml", &Toml::tun_mon().with(IDLE).text()).unwrap();
    let dir = pair.mon.dir().display().to_string();
    let run = format!("RUNTIME_DIRECTORY={dir}/run");
    let mut words = vec!["systemd-socket-activate", "-E", &run];
    words.extend(options.split_whitespace());
    let file = file.display().to_string();
    words.extend([TUND, "--config", &file]);
    pair.mon.spawn(&words).unwrap()
}

const IDLE: &str = "[keepalive]\nidle-exit = '5s'";

#[test]
fn a_socket_that_systemd_passes_is_the_links_and_the_device_comes_with_the_peer() {
    let pair = pair();
    let mut mon = activate(&pair, "--datagram -l 1417");
    mon.wait_line("Listening on [::]:1417", SOON).unwrap();
    let socket = pair.fri.within(|| std::net::UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
    socket.send_to(&[7; 300], "10.0.0.2:1417").unwrap();
    mon.wait_line("[key-mismatch]", SOON).unwrap();
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
    // IPv4 and IPv6 pass through the one socket.
    for remote in ["10.0.0.2", "[fd99::2]"] {
        let mut fri = pair.start_fri(&Toml::tun_fri().top(&format!("remote = '{remote}:1417'")));
        fri.wait_line(UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
    }
    assert_eq!(exit_code(&mut mon), 0, "{}", mon.text());
    assert!(mon.text().contains("no frame passed for 5s"), "{}", mon.text());
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
}

#[test]
fn two_sockets_of_a_kind_are_refused_by_name() {
    let pair = pair();
    let mut two = activate(&pair, "--datagram -l 1417 -l 1418");
    two.wait_line(":1418", SOON).unwrap();
    let socket = pair.fri.within(|| std::net::UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
    socket.send_to(b"x", "10.0.0.2:1417").unwrap();
    assert_eq!(exit_code(&mut two), 69, "{}", two.text());
    assert!(two.text().contains("ListenDatagram="), "{}", two.text());
}

#[test]
fn a_socket_that_accepts_streams_starts_the_link_and_a_stranger_opens_no_device() {
    let pair = pair();
    let mut mon = activate(&pair, "-l 563");
    mon.wait_line(":563", SOON).unwrap();
    let _stranger = pair.fri.within(|| TcpStream::connect("10.0.0.2:563").unwrap()).unwrap();
    mon.wait_line("[no-remote]", SOON).unwrap();
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
    for remote in ["10.0.0.2", "[fd99::2]"] {
        let mut fri = pair.start_fri(&Toml::tun_fri().top(&format!("remote = 'tcp:{remote}:563'")));
        fri.wait_line(UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
    }
    assert_eq!(exit_code(&mut mon), 0, "{}", mon.text());
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
}

/// The units, with the program's path, in a directory of the host.
fn units(pair: &Pair, program: &str) -> PathBuf {
    let directory = pair.mon.dir().join("units");
    fs::create_dir_all(&directory).unwrap();
    for name in ["tund@.service", "tund@.socket", "tund.target"] {
        let text = fs::read_to_string(Path::new(UNITS).join(name)).unwrap();
        fs::write(directory.join(name), text.replace("/usr/sbin/tund", program)).unwrap();
    }
    directory
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units_and_little_exposed() {
    let pair = pair();
    let directory = units(&pair, TUND);
    let analyze = |arguments: &[&str]| {
        let output =
            Command::new("systemd-analyze").args(arguments).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // It exits with 0 even if it warns of an unknown key.
    analyze(&["verify", "--man=no", "./tund@link.service", "./tund@link.socket", "./tund.target"]);
    let text = analyze(&["security", "--offline=yes", "--threshold=19", "--no-pager", "./tund@.service"]);
    assert!(text.contains("Overall exposure level"), "{text}");
}

/// mon as a machine with the units installed, and the link tun-mon-fri.
pub fn boot<'a>(pair: &'a Pair, config: &Toml) -> Machine<'a> {
    let files = pair.mon.dir().join("files");
    let put = |place: &str, from: &Path| {
        let place = files.join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(from, place).unwrap();
    };
    fs::create_dir_all(files.join("usr/sbin")).unwrap();
    tund_lab::install(TUND.as_ref(), &files.join("usr/sbin/tund")).unwrap();
    for unit in ["tund@.service", "tund@.socket", "tund.target"] {
        put(&format!("etc/systemd/system/{unit}"), &Path::new(UNITS).join(unit));
    }
    put("usr/lib/sysusers.d/tund.conf", &Path::new(UNITS).join("tund.sysusers"));
    put("usr/lib/tmpfiles.d/tund.conf", &Path::new(UNITS).join("tund.tmpfiles"));
    put("usr/lib/tund.postinst", &Path::new(UNITS).join("../packaging/postinst"));
    put("etc/tund/tun-mon-fri.key", &pair.mon.dir().join("static.key"));
    let text = config.text().replace("file = 'static.key'", "credential = 'key'");
    put("etc/tund/tun-mon-fri.toml", &pair.mon.file("credential.toml", &text).unwrap());
    let socket = "[Socket]\nListenDatagram=\nListenDatagram=1417\n";
    let drop_in = pair.mon.file("port.conf", socket).unwrap();
    put("etc/systemd/system/tund@tun-mon-fri.socket.d/port.conf", &drop_in);
    // Saves waiting for half a minute.
    let drop_in = pair.mon.file("watchdog.conf", "[Service]\nWatchdogSec=5\n").unwrap();
    put("etc/systemd/system/tund@.service.d/watchdog.conf", &drop_in);
    let machine = Machine::boot(&pair.mon, &files).unwrap();
    machine.run("systemd-sysusers").unwrap();
    machine.run("systemd-tmpfiles --create tund.conf").unwrap();
    machine
}

#[test]
fn the_service_is_ready_tells_how_it_is_and_restarts_but_not_after_a_mistake() {
    let pair = pair();
    let toml = Toml::tun_mon().top("remote = '10.0.0.1:1417'\nlisten = 1417").with("[run]\nverb = 3");
    let machine = boot(&pair, &toml);
    let unit = "tund@tun-mon-fri.service";
    let started = machine.run(&format!("systemctl start {unit}"));
    started.unwrap_or_else(|error| panic!("{error}\n{}", machine.journal().unwrap()));
    assert_eq!(machine.show(unit, "ActiveState").unwrap(), "active");
    let fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    let told = || machine.show(unit, "StatusText").unwrap();
    let is_line = |text: String| text.starts_with(&format!("{UP} 10.0.0.1:1417, ")) && text.ends_with(" ms");
    wait_until("the status line", SOON, || is_line(told()))
        .unwrap_or_else(|error| panic!("{error}: {}", told()));

    // Everything runs as the user tund; the engine has none of its parent's rights.
    let main: u32 = machine.show(unit, "MainPID").unwrap().parse().unwrap();
    let status = machine.run(&format!("cat /proc/{main}/status")).unwrap();
    let user = machine.run("id -u tund").unwrap();
    assert!(status.contains(&format!("Uid:\t{user}\t{user}")), "{status}");
    assert!(status.contains("CapEff:\t0000000000001000"), "{status}");
    let journal = machine.journal().unwrap();
    let engine = journal.lines().find(|line| line.contains("engine: ")).unwrap();
    for part in ["no capabilities", "Landlock", "system calls"] {
        assert!(engine.contains(part) && !journal.contains("lacks"), "{journal}");
    }

    // Files that root relies on are root's, and root finds the unit's link below them.
    let owners = machine.run("stat -c %n=%U=%a /run/tund /run/tund/units").unwrap();
    let expected = "/run/tund=root=755\n/run/tund/units=tund=755";
    assert_eq!(owners.trim_end(), expected);
    let shown = machine.run("tund status").unwrap();
    assert!(shown.lines().any(|line| line.starts_with("tun-mon-fri  up")), "{shown}");

    // The unit's user may command it, but none of his processes without rights, such as the resolver, may.
    let as_tund = |more: &str| {
        let setpriv = format!("setpriv --reuid=tund --regid=tund --clear-groups {more}");
        machine.run(&format!("{setpriv} tund rekey tun-mon-fri"))
    };
    as_tund("").unwrap();
    let refused = as_tund("--no-new-privs").unwrap_err().to_string();
    assert!(refused.contains("has given up all rights"), "{refused}");

    let another = |than: &str| {
        let than = than.to_owned();
        let changed = || {
            machine
                .show(unit, "MainPID")
                .is_ok_and(|pid| pid != than && pid.parse().is_ok_and(|pid: u32| pid != 0))
        };
        wait_until("another process", SOON * 2, changed).unwrap();
        machine.show(unit, "MainPID").unwrap()
    };
    let again = "ping -n -c 3 -i 0.1 -W 1 192.168.86.18";
    let comes_back = || pair.fri.wait_output(again, SOON * 2, |text| text.contains("3 received")).unwrap();

    // A package upgrade replaces it under its peer.
    machine.run("sh /usr/lib/tund.postinst configure 0.0.1").unwrap();
    let main = another(&main.to_string());
    comes_back();

    // A hung engine is noticed.
    let is_engine = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tund-engine")
    };
    let engine = pair.mon.processes().into_iter().find(is_engine).unwrap();
    pair.mon.run(&format!("kill -STOP {engine}")).unwrap();
    let main = another(&main);
    assert_eq!(machine.show(unit, "NRestarts").unwrap(), "1");

    // Killed, it restarts.
    machine.run(&format!("kill -9 {main}")).unwrap();
    another(&main);
    comes_back();
    machine.run(&format!("systemctl stop {unit}")).unwrap();
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
    assert_eq!(machine.show(unit, "Result").unwrap(), "success");

    // With a configuration error it does not even retry.
    machine.run("sed -i s/address/adress/ /etc/tund/tun-mon-fri.toml").unwrap();
    assert!(machine.run(&format!("systemctl start {unit}")).is_err());
    let results = [machine.show(unit, "ExecMainStatus").unwrap(), machine.show(unit, "NRestarts").unwrap()];
    assert_eq!(results[0], "78", "{}", machine.journal().unwrap());
    assert_eq!(machine.show(unit, "ActiveState").unwrap(), "failed");
    assert!(machine.journal().unwrap().contains("tun-mon-fri.toml:"), "{}", machine.journal().unwrap());
}

#[test]
fn the_socket_unit_starts_the_service_for_a_datagram_and_again_after_it_left() {
    let pair = pair();
    let machine = boot(&pair, &Toml::tun_mon().with(IDLE));
    machine.run("systemctl start tund@tun-mon-fri.socket").unwrap();
    let unit = "tund@tun-mon-fri.service";
    for _ in 0..2 {
        assert_eq!(machine.show(unit, "ActiveState").unwrap(), "inactive");
        assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
        let mut fri = pair.start_fri(&Toml::tun_fri());
        fri.wait_line(UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(machine.show(unit, "ActiveState").unwrap(), "active");
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
        let left = || machine.show(unit, "ActiveState").is_ok_and(|state| state == "inactive");
        wait_until("tund gone", SOON, left).unwrap_or_else(|e| panic!("{e}: {}", machine.journal().unwrap()));
        assert_eq!(machine.show(unit, "Result").unwrap(), "success");
    }
    assert_eq!(machine.show("tund@tun-mon-fri.socket", "ActiveState").unwrap(), "active");
}
