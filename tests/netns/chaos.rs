//! Two minutes of starts and stops of every kind, in a seeded order, which leave nothing behind.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon: xinetd on port 1417, which starts tund
//! ```

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tund_lab::flood::Noise;
use tund_lab::{Host, Process, wait_until};

use super::superserver::{Served, Superserver, wait_listening};
use super::support::*;

/// Duration.
const SCHEDULE: Duration = Duration::from_secs(120);
/// Minimum number of each action.
const LEAST: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    KillParent,
    KillEngine,
    KillAll,
    Terminate,
    Stranger,
    Restart,
    Wait,
}

const DEEDS: [Deed; 7] = [
    Deed::KillParent,
    Deed::KillEngine,
    Deed::KillAll,
    Deed::Terminate,
    Deed::Stranger,
    Deed::Restart,
    Deed::Wait,
];

/// A route past the link, which outlives the device.
const TABLES: &str = "[[route]]\nto = '192.168.66.0/24'\nvia = '10.0.0.9'\n[keepalive]\nidle-exit = '1s'\ninterval = '1s'\ntimeout = '3s'\n[scripts]\nsecurity = 2\nup = 'script'\ndown = 'script'";

/// The processes of a host, with their names.
fn named(host: &Host) -> Vec<(u32, String)> {
    let name =
        |pid: u32| Some((pid, fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned()));
    host.processes().into_iter().filter_map(name).collect()
}

/// Pids of tund's processes with one of these names.
fn tunds(host: &Host, names: &[&str]) -> Vec<u32> {
    named(host).into_iter().filter(|(_, name)| names.contains(&name.as_str())).map(|(pid, _)| pid).collect()
}

fn signal(host: &Host, names: &[&str], signal: &str) {
    for pid in tunds(host, names) {
        // It may have exited meanwhile.
        let _ = host.run(&format!("kill -{signal} {pid}"));
    }
}

/// Files below a directory, except those a link keeps for its next start.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push(name);
        found.extend(files(&entry.path()));
    }
    found
}

struct World {
    served: Served,
    fri: Option<Process>,
    noise: Noise,
    counts: [usize; DEEDS.len()],
}

impl World {
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.noise.bytes(1)[0]) * limit / 256
    }

    fn start_fri(&mut self) {
        self.fri = Some(self.served.pair.start_fri(&Toml::tun_fri().handshake().with(TABLES)));
    }

    fn act(&mut self) {
        let index = self.below(DEEDS.len());
        self.counts[index] += 1;
        let on_mon = self.below(2) == 0;
        let patience = Duration::from_millis(10 * self.below(256) as u64);
        let pair = &self.served.pair;
        let host = if on_mon { &pair.mon } else { &pair.fri };
        match DEEDS[index] {
            Deed::KillParent => signal(host, &["tund"], "KILL"),
            Deed::KillEngine => signal(host, &["tund-engine"], "KILL"),
            Deed::KillAll => signal(host, &["tund", "tund-engine", "tund-resolver"], "KILL"),
            Deed::Terminate => signal(host, &["tund"], "TERM"),
            Deed::Stranger => {
                let socket = pair.fri.within(|| std::net::UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
                // ICMP reports a closed port.
                let _ = socket.send_to(&[7; 300], "10.0.0.2:1417");
            }
            Deed::Restart => {
                // By pid: it may not even be called tund yet.
                if let Some(mut fri) = self.fri.take() {
                    let _ = fri.signal(Signal::TERM);
                    fri.wait(SOON).unwrap();
                }
                self.start_fri();
            }
            Deed::Wait => std::thread::sleep(patience),
        }
        std::thread::sleep(Duration::from_millis(4 * self.below(256) as u64));
        if self.fri.as_mut().is_none_or(|fri| fri.wait(Duration::ZERO).is_ok()) {
            self.start_fri();
        }
    }
}

fn descriptors(process: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}

#[test]
fn two_minutes_of_kills_and_starts_leave_nothing_behind() {
    let seed = std::env::var("TUND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("TUND_SEED={seed} repeats this order");
    let served = Served::new(Superserver::Xinetd, &Toml::tun_mon().handshake().with(TABLES));
    let pair = &served.pair;
    for host in [&pair.fri, &pair.mon] {
        script(host, "script", "exit 0");
    }
    wait_listening(&pair.mon, 1417);
    let before = [routes(&pair.fri), routes(&pair.mon)];
    let mut world = World { served, fri: None, noise: Noise(seed), counts: [0; DEEDS.len()] };
    world.start_fri();
    // By now everything opened once is open.
    world.fri.as_ref().unwrap().wait_line(UP, SOON).unwrap();
    let open = descriptors(&world.served.server);
    let begin = Instant::now();
    while begin.elapsed() < SCHEDULE {
        world.act();
    }
    assert!(world.counts.iter().all(|count| *count >= LEAST), "{:?}: {:?}", DEEDS, world.counts);

    // One more start at each end, and a clean stop. mon's may have restarted for a waiting datagram.
    world.fri = None;
    let pair = &world.served.pair;
    signal(&pair.mon, &["tund", "tund-engine"], "KILL");
    wait_until("fri's tund gone", SOON, || tunds(&pair.fri, &["tund", "tund-engine"]).is_empty()).unwrap();
    let log = world.served.log.mark();
    let mut fri = pair.start_fri(&Toml::tun_fri().handshake().with(TABLES));
    fri.wait_line(UP, SOON).unwrap();
    world.served.log.wait_line_after(log, UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    fri.signal(Signal::TERM).unwrap();
    assert_eq!(exit_code(&mut fri), 0, "{}", fri.text());
    wait_until("mon's tund gone", SOON, || world.served.tunds().is_empty()).unwrap();

    for (host, routed) in [&pair.fri, &pair.mon].into_iter().zip(before) {
        assert_eq!(host.interfaces().unwrap(), ["eth0", "lo"], "{}", host.name());
        assert_eq!(routes(host), routed, "{}", host.name());
        assert_eq!(files(&host.dir().join("run")), [""; 0], "{}", host.name());
        let names = named(host).into_iter().map(|(_, name)| name);
        let left: Vec<_> = names.filter(|name| name.starts_with("tund") || name == "script").collect();
        assert_eq!(left, [""; 0], "{}", host.name());
    }
    assert_eq!(descriptors(&world.served.server), open, "the superserver's descriptors");
}
