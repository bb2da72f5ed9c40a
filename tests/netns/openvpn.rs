//! A link to an unmodified OpenVPN, from Debian's package, in static-key mode.
//!
//! ```text
//!  fri 10.0.0.1 tund ---- openvpn 10.0.0.2 mon
//!      10.1.0.1                   10.1.0.2
//! ```

mod imported;
mod places;
mod replay;
mod upgraded;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use tund_lab::frame::{Datagram, ethernet};
use tund_lab::{Host, Process, Side, Wire, wait_until};

use super::operation::ask;
use super::support::*;

/// OpenVPN's log once it has heard its peer.
const READY: &str = "Initialization Sequence Completed";
const PORT: u16 = 1194;

/// The settings of both ends.
#[derive(Clone)]
struct Case {
    device: &'static str,
    cipher: &'static str,
    auth: &'static str,
    /// tund's direction; the peer has the other one.
    direction: Option<u8>,
    /// OpenVPN's options and tund's word for them.
    framing: (&'static str, &'static str),
    fragment: Option<u16>,
}

const USUAL: Case = Case {
    device: "tun",
    cipher: "AES-256-CBC",
    auth: "SHA256",
    direction: Some(0),
    framing: ("", "none"),
    fragment: None,
};

impl Case {
    fn tund(&self, host: &Host) -> String {
        let Self { device, cipher, auth, direction, framing, fragment } = self;
        let weak = cipher.starts_with('B') || cipher.starts_with('D');
        let direction = direction.map_or_else(String::new, |direction| format!("direction = {direction}\n"));
        let fragment = fragment.map_or_else(String::new, |fragment| format!("fragment = {fragment}\n"));
        let addresses = match *device {
            "tun" => "address = '10.1.0.1'\npeer = '10.1.0.2'",
            _ => "address = '10.1.0.1/24'",
        };
        format!(
            "remote = '10.0.0.2:{PORT}'\nlisten = {PORT}\n[key]\nmode = 'openvpn'\nfile = 'openvpn.key'\ncipher = '{}'\nauth = '{}'\n\
             weak-ciphers = {weak}\n{direction}[openvpn]\nframing = '{}'\n{fragment}[device]\nname = 'tun0'\nmode = '{device}'\n{addresses}\n\
             [keepalive]\ninterval = '1s'\ntimeout = '6s'\n[run]\nverb = 3\nstate-dir = '{}'\n",
            cipher.to_lowercase(),
            auth.to_lowercase(),
            framing.1,
            host.dir().join("state").display()
        )
    }

    fn openvpn(&self, host: &Host, more: &str) -> String {
        let Self { device, cipher, auth, direction, framing, fragment } = self;
        let direction = direction.map_or_else(String::new, |direction| (1 - direction).to_string());
        let fragment = fragment.map_or_else(String::new, |fragment| format!("--fragment {fragment}"));
        let addresses = if *device == "tun" { "10.1.0.2 10.1.0.1" } else { "10.1.0.2 255.255.255.0" };
        format!(
            "openvpn --dev tun0 --dev-type {device} --ifconfig {addresses} --secret {} {direction} --cipher {cipher} --auth {auth} \
             {} {fragment} --providers legacy default --port {PORT} --ping 1 --ping-restart 6 --verb 4 {more}",
            host.dir().join("openvpn.key").display(),
            framing.0
        )
    }
}

/// Gives both hosts an OpenVPN key.
pub(super) fn keyed(pair: &Pair) {
    let key = pair.mon.dir().join("openvpn.key");
    pair.mon.run(&format!("openvpn --genkey secret {}", key.display())).unwrap();
    let copy = pair.fri.dir().join("openvpn.key");
    fs::copy(key, &copy).unwrap();
    fs::set_permissions(copy, fs::Permissions::from_mode(0o600)).unwrap();
}

const REMOTE: &str = "--remote 10.0.0.1";

fn start_openvpn(host: &Host, case: &Case, more: &str) -> Process {
    spawn(host, &case.openvpn(host, more))
}

fn spawn(host: &Host, line: &str) -> Process {
    host.spawn(&line.split_whitespace().collect::<Vec<_>>()).unwrap()
}

fn start_tund(pair: &Pair, case: &Case) -> Process {
    start(&pair.fri, "fri", &case.tund(&pair.fri))
}

/// Both, once they are linked.
fn link(pair: &Pair, case: &Case) -> (Process, Process) {
    let mon = start_openvpn(&pair.mon, case, REMOTE);
    let fri = start_tund(pair, case);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    (fri, mon)
}

/// Starts both, with existing bridges br0.
pub(super) fn bridged_link(pair: &Pair) -> (Process, Process) {
    let case = Case { device: "tap", ..USUAL };
    let text = case.tund(&pair.fri).replace("address = '10.1.0.1/24'", "bridge = 'br0'");
    let line = case.openvpn(&pair.mon, REMOTE).replace("--ifconfig 10.1.0.2 255.255.255.0", "");
    let mon = spawn(&pair.mon, &line);
    let fri = start(&pair.fri, "fri", &text);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    pair.mon.run("ip link set tun0 master br0 up").unwrap();
    (fri, mon)
}

fn assert_both_ways(pair: &Pair, options: &str) {
    assert_pings(&pair.fri, &format!("{options} 10.1.0.2"));
    assert_pings(&pair.mon, &format!("{options} 10.1.0.1"));
}

/// Including its children.
fn kill_all(host: &Host, process: &mut Process) {
    process.kill();
    for pid in host.processes() {
        // It may have exited by now.
        let _ = host.run(&format!("kill -9 {pid}"));
    }
    wait_gone(host);
}

/// A wire controlled by the test, with keys at both ends.
fn recorded() -> (Wire, Pair) {
    let (wire, pair) = wired();
    keyed(&pair);
    wire.record();
    (wire, pair)
}

fn dropped(pair: &Pair, reason: &str) -> u64 {
    let (_, text) = ask(&pair.fri, &["stats"]);
    let name = format!("reason=\"{reason}\"");
    let line = text.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{reason}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn each_device_cipher_digest_direction_framing_and_fragment_passes_both_ways() {
    let of = |device, cipher, auth, direction, framing, fragment| Case {
        device,
        cipher,
        auth,
        direction,
        framing,
        fragment,
    };
    let none = ("", "none");
    let cases = [
        USUAL,
        of("tap", "AES-256-CBC", "SHA1", None, none, None),
        of("tun", "AES-128-CBC", "SHA1", Some(1), ("--comp-lzo no", "comp-lzo"), None),
        of("tap", "AES-192-CBC", "SHA512", Some(0), ("--compress stub", "stub"), None),
        of("tun", "AES-256-CBC", "SHA384", None, ("--compress stub-v2", "stub-v2"), None),
        of("tun", "AES-256-CBC", "SHA1", Some(0), none, Some(500)),
        of("tap", "AES-128-CBC", "SHA256", Some(1), ("--comp-lzo no", "comp-lzo"), Some(1200)),
        of("tun", "BF-CBC", "SHA1", None, none, None),
        of("tap", "DES-EDE3-CBC", "SHA512", Some(0), ("--compress stub", "stub"), None),
        of("tun", "AES-256-CBC", "SHA256", Some(0), ("--comp-lzo no", "auto"), None),
        of("tun", "AES-256-CBC", "SHA256", Some(0), ("--compress stub", "auto"), None),
    ];
    let check = |case: &Case| {
        let pair = pair();
        keyed(&pair);
        let (mut fri, _mon) = link(&pair, case);
        if case.framing.1 == "auto" {
            sleep(Duration::from_secs(2));
        }
        assert_both_ways(&pair, "");
        // With the device's largest packet.
        assert_both_ways(&pair, "-s 1472");
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
    };
    // Each mostly waits.
    std::thread::scope(|scope| {
        for half in cases.chunks(4) {
            scope.spawn(move || half.iter().for_each(check));
        }
    });
}

#[test]
fn either_end_may_start_first_and_either_may_be_killed() {
    let pair = pair();
    keyed(&pair);
    let fri = start_tund(&pair, &USUAL);
    pair.fri.wait_output("ip -brief link", SOON, |text| text.contains("tun0")).unwrap();
    let mut mon = start_openvpn(&pair.mon, &USUAL, REMOTE);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    assert_both_ways(&pair, "");

    mon.kill();
    wait_gone(&pair.mon);
    let mark = fri.mark();
    let mon = start_openvpn(&pair.mon, &USUAL, REMOTE);
    mon.wait_line(READY, SOON).unwrap();
    assert_both_ways(&pair, "");
    assert!(!fri.text()[..].is_empty() && fri.mark() >= mark);

    let mut fri = fri;
    fri.kill();
    wait_gone(&pair.fri);
    let fri = start_tund(&pair, &USUAL);
    // The peer ran on, so its start must be proved.
    fri.wait_line("[openvpn-start]", SOON).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    assert_both_ways(&pair, "");
}

#[test]
fn a_peer_whose_clock_is_in_1970_or_2100_proves_that_it_runs() {
    let pair = pair();
    keyed(&pair);
    let (_fri, mut mon) = link(&pair, &USUAL);
    for date in ["1970-01-02 00:00:00", "2100-01-01 00:00:00"] {
        kill_all(&pair.mon, &mut mon);
        let line = USUAL.openvpn(&pair.mon, REMOTE);
        let words: Vec<&str> = ["faketime", date].into_iter().chain(line.split_whitespace()).collect();
        mon = pair.mon.spawn(&words).unwrap();
        mon.wait_line(READY, SOON).unwrap();
        wait_until("pings pass", SOON, || pair.fri.run("ping -c 1 -W 1 10.1.0.2").is_ok()).unwrap();
        assert_both_ways(&pair, "");
    }
    // And one with a right clock after that.
    kill_all(&pair.mon, &mut mon);
    let _mon = start_openvpn(&pair.mon, &USUAL, REMOTE);
    wait_until("pings pass", SOON, || pair.fri.run("ping -c 1 -W 1 10.1.0.2").is_ok()).unwrap();
}

#[test]
fn a_recorded_session_is_not_taken_after_a_restart() {
    let (wire, pair) = recorded();
    let (mut fri, mut mon) = link(&pair, &USUAL);
    assert_both_ways(&pair, "");
    mon.kill();
    fri.kill();
    wait_gone(&pair.fri);
    let of_mon =
        |crossed: &tund_lab::Crossed| crossed.from == Side::B && Datagram::parse(&crossed.bytes).is_some();
    let recording: Vec<_> = wire.take().into_iter().filter(of_mon).collect();
    assert!(recording.len() >= 6, "{}", recording.len());

    let fri = start_tund(&pair, &USUAL);
    fri.wait_line("engine:", SOON).unwrap();
    for crossed in &recording {
        wire.inject(Side::A, &crossed.bytes).unwrap();
    }
    fri.wait_line("[openvpn-start]", SOON).unwrap();
    wait_until("all were looked at", SOON, || dropped(&pair, "stale") + 1 >= recording.len() as u64).unwrap();
    assert!(!fri.text().contains(UP), "{}", fri.text());
    assert_eq!(counters(&pair.fri, "tun0").0, 0, "nothing came out of the device");
}

#[test]
fn without_a_direction_a_datagram_that_comes_back_is_known_and_makes_nobody_deaf() {
    let (wire, pair) = recorded();
    let case = Case { direction: None, ..USUAL };
    let (_fri, mon) = link(&pair, &case);
    assert_both_ways(&pair, "");
    // The peer's start may have been the later one: then tund restarts.
    sleep(Duration::from_secs(2));
    wire.take();
    assert_both_ways(&pair, "");
    let crossed = wire.take();
    let mut back = [0, 0];
    for frame in &crossed {
        let Some(datagram) = Datagram::parse(&frame.bytes) else { continue };
        let macs = (datagram.macs.1, datagram.macs.0);
        let reflected = Datagram { macs, from: datagram.to, to: datagram.from, payload: datagram.payload };
        wire.inject(frame.from, &reflected.to_frame()).unwrap();
        back[usize::from(frame.from == Side::B)] += 1;
    }
    assert!(back[0] >= 4 && back[1] >= 4, "{back:?}");
    wait_until("known", SOON, || dropped(&pair, "reflected") >= back[0]).unwrap();
    mon.wait_line("bad packet ID", SOON).unwrap();
    assert_both_ways(&pair, "");
}

#[test]
fn options_that_differ_are_named_at_both_ends() {
    let pair = pair();
    keyed(&pair);
    // It compares at verb 7.
    let mon = start_openvpn(&pair.mon, &USUAL, "--remote 10.0.0.1 --tun-mtu 1400 --verb 7");
    let fri = start_tund(&pair, &USUAL);
    mon.wait_line(READY, SOON).unwrap();
    let line = fri.wait_line("[openvpn-options]", SOON).unwrap();
    assert!(["tun-mtu", "1400", "1500"].iter().all(|value| line.contains(value)), "{line}");
    let (_, status) = ask(&pair.fri, &["status", "fri"]);
    assert!(status.contains("AES-256-CBC") && status.contains("HMAC-SHA256"), "{status}");
    let warning = mon.wait_line("'tun-mtu' is used inconsistently", SOON).unwrap();
    assert!(warning.contains("1500"), "{warning}");
}

#[test]
fn neither_end_takes_the_other_for_dead_while_nothing_crosses() {
    let pair = pair();
    keyed(&pair);
    let case =
        USUAL.openvpn(&pair.mon, REMOTE).replace("--ping 1 --ping-restart 6", "--ping 2 --ping-restart 5");
    let mon = spawn(&pair.mon, &case);
    let fri = start_tund(&pair, &USUAL);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    sleep(Duration::from_secs(20));
    assert!(!mon.text().contains("Inactivity timeout"), "{}", mon.text());
    assert!(!fri.text().contains("[peer-silent]"), "{}", fri.text());
    assert_both_ways(&pair, "");
}

#[test]
fn the_peer_has_no_complaint_about_the_options_that_it_is_told() {
    for case in [USUAL, Case { device: "tap", auth: "SHA1", framing: ("--comp-lzo no", "comp-lzo"), ..USUAL }]
    {
        let pair = pair();
        keyed(&pair);
        // It compares at verb 7.
        let mon = start_openvpn(&pair.mon, &case, "--remote 10.0.0.1 --verb 7");
        let fri = start_tund(&pair, &case);
        fri.wait_line(UP, SOON).unwrap();
        mon.wait_line(READY, SOON).unwrap();
        mon.wait_line("Peer Connection Initiated", SOON).unwrap();
        sleep(Duration::from_secs(12));
        let complaints: Vec<_> =
            mon.lines().into_iter().filter(|line| line.contains("inconsistently")).collect();
        let known = |line: &String| {
            case.device == "tap" && (line.contains("'tun-mtu'") || line.contains("'link-mtu'"))
        };
        assert!(complaints.iter().all(known), "{complaints:?}");
        assert!(!mon.text().contains("missing in"), "{}", mon.text());
    }
}

#[test]
fn a_peer_that_says_it_ends_is_gone_at_once() {
    let pair = pair();
    keyed(&pair);
    let mon = start_openvpn(&pair.mon, &USUAL, "--remote 10.0.0.1 --explicit-exit-notify 1");
    let fri = start_tund(&pair, &USUAL);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    let mut mon = mon;
    mon.terminate(SOON).unwrap();
    fri.wait_line("[peer-goodbye]", SOON).unwrap();
    let mark = fri.mark();
    let _mon = start_openvpn(&pair.mon, &USUAL, REMOTE);
    fri.wait_line_after(mark, UP, SOON).unwrap();
}

#[test]
fn a_peer_without_a_port_of_its_own_is_found_and_followed() {
    let pair = pair();
    keyed(&pair);
    let text = USUAL.tund(&pair.fri).replace("remote = '10.0.0.2:1194'\n", "");
    let fri = start(&pair.fri, "fri", &text);
    fri.wait_line("[no-remote]", SOON).unwrap();
    let line = USUAL.openvpn(&pair.mon, "--nobind --remote 10.0.0.1 1194").replace("--port 1194", "");
    let mut mon = spawn(&pair.mon, &line);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    assert_both_ways(&pair, "");
    mon.kill();
    wait_gone(&pair.mon);
    let mon = spawn(&pair.mon, &line);
    mon.wait_line(READY, SOON).unwrap();
    assert_both_ways(&pair, "");
}

#[test]
fn hosts_behind_both_bridges_reach_each_other_through_an_openvpn_peer() {
    let pair = pair();
    keyed(&pair);
    let a = bridge_with_host(&pair, &pair.fri, "a", 1);
    let b = bridge_with_host(&pair, &pair.mon, "b", 2);
    let _link = bridged_link(&pair);
    assert_pings(&a, "10.5.0.2");
    assert_pings(&b, "-s 1472 10.5.0.1");
    // A full-size frame with an 802.1Q tag, of an EtherType for local experiments.
    let (from, to) = (pair.fri.port("alice").unwrap(), pair.mon.port("bob").unwrap());
    pair.fri.run("ip link set alice master br0").unwrap();
    pair.mon.run("ip link set bob master br0").unwrap();
    let tagged =
        ethernet([0xff; 6], [2, 0, 0, 0, 0, 0xa], 0x8100, &[&[0, 7, 0x88, 0xb5][..], &[9; 1500]].concat());
    from.send(&tagged).unwrap();
    assert!(to.wait_frame(SOON, |frame| *frame == tagged[..]).is_some(), "with its tag and whole");
}
