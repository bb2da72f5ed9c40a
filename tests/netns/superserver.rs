//! Starts by inetd or xinetd on the first datagram, as the files in `inetd/` say.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon: superserver on port 1417, which starts tund
//! ```

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tund_lab::{Host, Process, wait_until};

use super::support::*;

const RECIPE: &str = include_str!("../../inetd/xinetd.d/timbuktu-srv1");
const STREAM_RECIPE: &str = include_str!("../../inetd/xinetd.d/timbuktu-tcp");
const LINES: &str = include_str!("../../inetd/inetd.conf");

#[derive(Clone, Copy, Debug)]
pub enum Superserver {
    Xinetd,
    Inetd,
}

/// mon with a superserver and a log; nothing else runs there yet.
pub struct Served {
    pub server: Process,
    pub log: Process,
    pub pair: Pair,
}

impl Served {
    /// `mon` is the configuration of tun-mon-fri.
    pub fn new(kind: Superserver, mon: &Toml) -> Self {
        let pair = pair();
        let log = pair.mon.syslog().unwrap();
        install(&pair.mon, "tun-mon-fri", mon);
        let server = serve(&pair.mon, kind, &[]);
        Self { server, log, pair }
    }

    /// Processes on mon other than superserver and log.
    pub fn tunds(&self) -> Vec<u32> {
        let others = [self.server.pid(), self.log.pid()];
        self.pair.mon.processes().into_iter().filter(|pid| !others.contains(pid)).collect()
    }

    /// Waits until no process of tund and no device is left.
    fn wait_no_tund(&self, limit: Duration) {
        // An exiting process leaves its namespace before it releases its device.
        let gone = || self.tunds().is_empty() && self.pair.mon.interfaces().unwrap() == ["eth0", "lo"];
        wait_until("tund gone", limit, gone).unwrap();
    }
}

/// Installs the link's file, with directories of the host's own.
fn install(host: &Host, name: &str, toml: &Toml) {
    let directories = format!("runtime-dir = '{0}/run'\nverb = 3", host.dir().display());
    host.file(&format!("{name}.toml"), &toml.clone().with(&format!("[run]\n{directories}")).text()).unwrap();
}

/// Starts a superserver with the project's own file, and more services: name, port, configuration.
fn serve(host: &Host, kind: Superserver, more: &[(&str, u16, &str)]) -> Process {
    let mut recipe = RECIPE.to_owned();
    for (name, port, config) in more {
        let other = RECIPE.replace("timbuktu-srv1", name).replace("1417", &port.to_string());
        recipe.push_str(&other.replace("tun-mon-fri", config));
    }
    let mut lines = LINES.replace("timbuktu-srv1", "1417");
    let own = LINES.lines().find(|line| line.starts_with("timbuktu-srv1")).unwrap();
    for (_, port, config) in more {
        let line = own.replace("timbuktu-srv1", &port.to_string());
        lines.push_str(&format!("{}\n", line.replace("tun-mon-fri", config)));
    }
    serve_files(host, kind, &recipe, &lines)
}

/// Starts a superserver with this xinetd file, or this inetd file.
fn serve_files(host: &Host, kind: Superserver, recipe: &str, lines: &str) -> Process {
    let placed = |text: &str| {
        text.replace("/usr/sbin/tund", TUND).replace("/etc/tund", &host.dir().display().to_string()) + "\n"
    };
    match kind {
        Superserver::Xinetd => {
            let text = placed(recipe);
            let file = host.file("xinetd.conf", &text).unwrap();
            let pid = host.dir().join("xinetd.pid");
            let [file, pid] = [file, pid].map(|path| path.display().to_string());
            host.spawn(&["xinetd", "-dontfork", "-f", &file, "-pidfile", &pid]).unwrap()
        }
        Superserver::Inetd => {
            let file = host.file("inetd.conf", &placed(lines)).unwrap();
            host.spawn(&["inetd", "-i", &file.display().to_string()]).unwrap()
        }
    }
}

/// Waits until somebody listens on the port.
pub fn wait_listening(host: &Host, port: u16) {
    let part = format!(":{port} ");
    host.wait_output("ss -Hlun", SOON, |text| text.contains(&part)).unwrap();
}

/// Sends mon a datagram that is not tund's.
fn stranger(pair: &Pair) {
    let socket = pair.fri.within(|| UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
    socket.send_to(&[7; 300], "10.0.0.2:1417").unwrap();
}

fn is_started_by_a_datagram_and_again_after_it_left(kind: Superserver) {
    let served = Served::new(kind, &Toml::tun_mon().with("[keepalive]\nidle-exit = '2s'"));
    let Served { log, pair, .. } = &served;
    wait_listening(&pair.mon, 1417);
    assert!(served.tunds().is_empty());
    let before = routes(&pair.mon);
    for _ in 0..2 {
        let mark = log.mark();
        let mut fri = pair.start_fri(&Toml::tun_fri());
        fri.wait_line(UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
        log.wait_line_after(mark, "stopping until the next datagram", SOON).unwrap();
        served.wait_no_tund(SOON);
        assert_eq!(routes(&pair.mon), before);
        let lines = log.lines();
        assert!(lines.iter().skip(mark).all(|line| line.contains("tun-mon-fri: ")), "{lines:#?}");
        let begun = lines.iter().skip(mark).find(|line| line.contains("UDP port 1417")).unwrap();
        assert!(begun.starts_with("<29>tund["), "{begun}");
    }
}

/// Whether the superserver accepts connections itself and starts a process for each.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    Yes,
    No,
}

/// mon with a superserver at TCP port 563.
fn serve_connections(kind: Superserver, wait: Wait, mon: &Toml) -> Served {
    let pair = pair();
    let log = pair.mon.syslog().unwrap();
    install(&pair.mon, "tun-mon-fri", mon);
    let start =
        if wait == Wait::No { "#563          stream tcp nowait" } else { "#563          stream tcp wait" };
    let line = LINES.lines().find(|line| line.starts_with(start)).unwrap();
    let recipe = match wait {
        Wait::Yes => STREAM_RECIPE.to_owned(),
        Wait::No => STREAM_RECIPE.replace("wait          = yes", "wait = no"),
    };
    let server = serve_files(&pair.mon, kind, &recipe, &line[1..]);
    let served = Served { server, log, pair };
    served.pair.mon.wait_output("ss -Hltn", SOON, |text| text.contains(":563 ")).unwrap();
    assert!(served.tunds().is_empty());
    served
}

fn is_started_by_a_connection_and_again_after_it_left(kind: Superserver, wait: Wait) {
    let served = serve_connections(kind, wait, &Toml::tun_mon().with("[keepalive]\nidle-exit = '5s'"));
    let pair = &served.pair;
    for _ in 0..2 {
        let _stranger = pair.fri.within(|| TcpStream::connect("10.0.0.2:563").unwrap()).unwrap();
        wait_until("tund started", SOON, || !served.tunds().is_empty()).unwrap();
        assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
        let mut fri = pair.start_fri(&Toml::tun_fri().top("remote = 'tcp:10.0.0.2:563'"));
        fri.wait_line(UP, 2 * SOON).unwrap_or_else(|error| panic!("{error}\n{}", served.log.text()));
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
        served.wait_no_tund(SOON);
    }
}

#[test]
fn xinetd_starts_it_for_a_connection_and_again_after_it_left() {
    is_started_by_a_connection_and_again_after_it_left(Superserver::Xinetd, Wait::Yes);
}

#[test]
fn inetd_starts_it_for_a_connection_and_again_after_it_left() {
    is_started_by_a_connection_and_again_after_it_left(Superserver::Inetd, Wait::Yes);
}

#[test]
fn xinetd_starts_it_for_each_connection_and_one_process_runs_the_link() {
    is_started_by_a_connection_and_again_after_it_left(Superserver::Xinetd, Wait::No);
}

#[test]
fn inetd_starts_it_for_each_connection_and_one_process_runs_the_link() {
    is_started_by_a_connection_and_again_after_it_left(Superserver::Inetd, Wait::No);
}

/// Parent and engine of the process that runs the link.
const ONE: usize = 2;

#[test]
fn where_each_connection_starts_a_process_strangers_leave_none_and_the_peer_comes_back() {
    // Something that every start would warn of.
    let mon = Toml::tun_mon().with("[guard]\nstorm = 9");
    let served = serve_connections(Superserver::Inetd, Wait::No, &mon);
    let Served { pair, log, .. } = &served;
    let stranger = || pair.fri.within(|| TcpStream::connect("10.0.0.2:563").unwrap()).unwrap();
    let silent = stranger();
    wait_until("tund started", SOON, || served.tunds().len() == ONE).unwrap();
    let toml = Toml::tun_fri().top("remote = 'tcp:10.0.0.2:563'");
    let mut fri = pair.start_fri(&toml);
    fri.wait_line(UP, SOON).unwrap();
    wait_until("one process is left", SOON, || served.tunds().len() == ONE).unwrap();
    let first = served.tunds();
    let strangers: Vec<_> = (0..30).map(|_| stranger()).collect();
    wait_until("one process is left", SOON, || served.tunds() == first).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    drop((silent, strangers));
    // The connection is cut, and the peer restarts silently: the same process serves it again.
    pair.mon.run("ss -K sport = :563").unwrap();
    let works = || {
        let answers = || pair.fri.run("ping -n -c 1 -W 1 192.168.86.18").is_ok();
        wait_until("the link works", 2 * SOON, answers).unwrap_or_else(|_| panic!("{}", log.text()));
    };
    works();
    fri.signal(Signal::KILL).unwrap();
    fri.wait(SOON).unwrap();
    wait_until("fri's device gone", SOON, || pair.fri.interfaces().unwrap() == ["eth0", "lo"]).unwrap();
    let fri = pair.start_fri(&toml.clone().with("[keepalive]\ninterval = '1s'\ntimeout = '3s'"));
    fri.wait_line(UP, SOON).unwrap();
    works();
    wait_until("one process is left", SOON, || served.tunds() == first).unwrap();
    // Processes that handed a connection over have logged nothing.
    let is_of_first = |line: &String| first.iter().any(|pid| line.contains(&format!("tund[{pid}]")));
    let (own, others): (Vec<_>, Vec<_>) =
        log.lines().into_iter().filter(|line| line.contains("tund[")).partition(is_of_first);
    assert!(own.iter().any(|line| line.contains("[tap-only]")), "{own:#?}");
    assert!(others.is_empty(), "{others:#?}");
    // A killed process has left its socket; the next connection restarts the link.
    for pid in &first {
        let _ = pair.mon.run(&format!("kill -9 {pid}"));
    }
    works();
    assert!(first.iter().all(|pid| !served.tunds().contains(pid)), "{first:?}");
}

#[test]
fn a_connection_for_a_link_that_runs_otherwise_ends_its_process_and_harms_nothing() {
    let served = serve_connections(Superserver::Inetd, Wait::No, &Toml::tun_mon());
    let Served { pair, log, .. } = &served;
    let file = pair.mon.dir().join("tun-mon-fri.toml").display().to_string();
    let mon = pair.mon.spawn(&[TUND, "--config", &file]).unwrap();
    let fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(UP, SOON).unwrap();
    wait_until("parent and engine", SOON, || served.tunds().len() == ONE).unwrap();
    let before = served.tunds();
    let _stranger = pair.fri.within(|| TcpStream::connect("10.0.0.2:563").unwrap()).unwrap();
    log.wait_line(&format!("pid {}:", mon.pid()), SOON).unwrap();
    wait_until("its process gone", SOON, || served.tunds() == before).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_stranger_alone_starts_a_process_that_ends() {
    let served = serve_connections(Superserver::Xinetd, Wait::No, &Toml::tun_mon());
    let _stranger = served.pair.fri.within(|| TcpStream::connect("10.0.0.2:563").unwrap()).unwrap();
    wait_until("tund started", SOON, || served.tunds().len() == ONE).unwrap();
    served.wait_no_tund(4 * SOON);
}

#[test]
fn xinetd_starts_it_for_a_datagram_and_again_after_it_left() {
    is_started_by_a_datagram_and_again_after_it_left(Superserver::Xinetd);
}

#[test]
fn inetd_starts_it_for_a_datagram_and_again_after_it_left() {
    is_started_by_a_datagram_and_again_after_it_left(Superserver::Inetd);
}

#[test]
fn the_first_datagram_is_read_and_a_stranger_gets_no_device_route_or_script() {
    let up = "[scripts]\nsecurity = 2\nup = 'up'\n[[route]]\nto = '192.168.76.0/24'";
    let served = Served::new(Superserver::Xinetd, &Toml::tun_mon().with(up));
    let Served { log, pair, .. } = &served;
    let trace = pair.mon.dir().join("trace");
    script(&pair.mon, "up", &format!("echo $1 >> {}", trace.display()));
    wait_listening(&pair.mon, 1417);
    let before = routes(&pair.mon);
    stranger(pair);
    log.wait_line("[key-mismatch]", SOON).unwrap();
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
    assert_eq!(routes(&pair.mon), before);
    assert!(!trace.exists());
    // The same process then admits the peer.
    let fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(fs::read_to_string(trace).unwrap(), "tun0\n");
    assert!(routes(&pair.mon).contains("192.168.76.0/24"));
    let begun = log.lines().iter().filter(|line| line.contains("UDP port 1417")).count();
    assert_eq!(begun, 1, "{}", log.text());
}

#[test]
fn after_kill_9_of_both_processes_the_next_datagram_starts_it_again() {
    for kind in [Superserver::Xinetd, Superserver::Inetd] {
        let served = Served::new(kind, &Toml::tun_mon());
        let Served { log, pair, server } = &served;
        wait_listening(&pair.mon, 1417);
        let flags = || socket_flags(server);
        let before = flags();
        assert!(!before.is_empty());
        let fri = pair.start_fri(&Toml::tun_fri().with("[keepalive]\ninterval = '1s'\ntimeout = '3s'"));
        for _ in 0..2 {
            let mark = fri.mark();
            let up = fri.wait_line_after(mark.saturating_sub(1), UP, SOON);
            up.unwrap_or_else(|error| panic!("{kind:?}: {error}\n{}", log.text()));
            log.wait_line(UP, SOON).unwrap();
            let pids: Vec<String> = served.tunds().iter().map(u32::to_string).collect();
            pair.mon.run(&format!("kill -9 {}", pids.join(" "))).unwrap();
            fri.wait_line_after(mark, DOWN, SOON).unwrap();
        }
        // It opens others, for its log.
        let after = flags();
        assert!(before.iter().all(|line| after.contains(line)), "{kind:?}: {before:#?} {after:#?}");
        fri.wait_line_after(fri.mark().saturating_sub(1), UP, SOON).unwrap();
        assert_pings(&pair.fri, "192.168.86.18");
    }
}

/// The superserver's socket flags, as the kernel shows them.
fn socket_flags(server: &Process) -> Vec<String> {
    let directory = format!("/proc/{}/fd", server.pid());
    let mut flags = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap();
        if target.to_string_lossy().starts_with("socket:") {
            let info = format!("/proc/{}/fdinfo/{}", server.pid(), entry.file_name().display());
            let info = fs::read_to_string(info).unwrap();
            let line = info.lines().find(|line| line.starts_with("flags:")).unwrap();
            flags.push(format!("{}: {line}", target.display()));
        }
    }
    flags
}

#[test]
fn tun_and_tap_services_run_side_by_side() {
    let pair = pair();
    let log = pair.mon.syslog().unwrap();
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link add br0 type bridge").unwrap();
        host.run("ip link set br0 up").unwrap();
    }
    pair.fri.run("ip addr add 10.5.0.1/24 dev br0").unwrap();
    pair.mon.run("ip addr add 10.5.0.2/24 dev br0").unwrap();
    install(&pair.mon, "tun-mon-fri", &Toml::tun_mon());
    install(&pair.mon, "tap-mon-fri", &Toml::tap_mon());
    let _server = serve(&pair.mon, Superserver::Xinetd, &[("netview-aix-1", 1418, "tap-mon-fri")]);
    wait_listening(&pair.mon, 1418);
    let tun = pair.start_fri(&Toml::tun_fri());
    tun.wait_line(UP, SOON).unwrap();
    let tap = start(&pair.fri, "tap-fri-mon", &Toml::tap_fri().text());
    tap.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    assert_pings(&pair.fri, "10.5.0.2");
    assert!(log.text().contains(&format!("tap-mon-fri: {UP}")), "{}", log.text());
}

#[test]
fn a_wrong_descriptor_is_said_in_syslog() {
    let pair = pair();
    let log = pair.mon.syslog().unwrap();
    install(&pair.mon, "mon", &Toml::tun_mon());
    let config = pair.mon.dir().join("mon.toml").display().to_string();
    let connected: OwnedFd = pair
        .mon
        .within(|| {
            let socket = UdpSocket::bind("10.0.0.2:1417").unwrap();
            socket.connect("10.0.0.1:1417").unwrap();
            socket.into()
        })
        .unwrap();
    let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
    for (fd, what) in [(connected, "a connected socket"), (pipe, "a pipe")] {
        let mut command = pair.mon.command(TUND);
        let status = command.args(["--inetd", "--config", &config]).stdin(Stdio::from(fd)).status().unwrap();
        assert_eq!(status.code(), Some(69), "{what}");
        log.wait_line(&format!("mon: descriptor 0 is {what}, "), SOON).unwrap();
    }
    // As a person at a terminal starts it.
    let spawn =
        "import pty, subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], stdin=pty.openpty()[1]))";
    let at_terminal =
        pair.mon.spawn(&[tund_lab::rights::PYTHON, "-c", spawn, TUND, "--inetd", "--config", &config]);
    assert_eq!(exit_code(&mut at_terminal.unwrap()), 69);
    let line = log.wait_line("descriptor 0 is a terminal", SOON).unwrap();
    assert!(line.contains("wait = yes"), "{line}");
}

#[test]
fn mistakes_are_said_in_syslog_and_do_not_make_the_superserver_spin() {
    let served = Served::new(Superserver::Inetd, &Toml::tun_mon().device("mode = 'tun'\naddres = '1.2.3.4'"));
    let Served { log, pair, .. } = &served;
    wait_listening(&pair.mon, 1417);
    stranger(pair);
    let line = log.wait_line("error[", SOON).unwrap();
    assert!(line.starts_with("<27>tund[") && line.contains("tun-mon-fri.toml:"), "{line}");
    let first = served.tunds();
    assert_eq!(first.len(), 1, "a failed start lasts a while");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(served.tunds(), first);
    // A wrong command line is reported there too.
    let mut wrong = pair.mon.spawn(&[TUND, "--inetd", "--confg", "x"]).unwrap();
    assert_eq!(exit_code(&mut wrong), 2);
    log.wait_line("'--confg'", SOON).unwrap();
}

#[test]
fn frames_that_come_before_the_device_wait_for_it() {
    // The device exists, and frames pass, once `up` has ended.
    let served =
        Served::new(Superserver::Xinetd, &Toml::tun_mon().with("[scripts]\nsecurity = 2\nup = 'up'"));
    let Served { log, pair, .. } = &served;
    script(&pair.mon, "up", "sleep 2");
    wait_listening(&pair.mon, 1417);
    let fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line(UP, SOON).unwrap();
    log.wait_line("up: running", SOON).unwrap();
    let text = pair.fri.run("ping -n -c 1 -W 10 192.168.86.18").unwrap();
    assert!(text.contains("1 received"), "{text}");
}
