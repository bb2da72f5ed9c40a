//! A link that is restarted, killed, reloaded, signalled, moved and flooded at random, under traffic.
//!
//! `TUND_SOAK=600` makes it last ten minutes; `TUND_SOAK_SEED` repeats a run.

#![allow(clippy::print_stdout, reason = "a run is read, and played again by its seed")]

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tund_lab::{Host, Process, wait_until};

use super::operation::ask;
use super::support::*;
use tund_proto::testing::Dice;

/// Usual duration among the other tests.
const USUAL: u64 = 25;
/// Frames in each direction, fifty a second, that must all arrive between two disturbances.
const CALM: u32 = 100;
/// The same in longer runs.
const LONG_CALM: u32 = 250;
/// Allowed growth of a process in KiB: allocators keep memory.
const GROWTH: u64 = 6 * 1024;

const FLOOD: &str = "\
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(3000): s.sendto(os.urandom(20 + n % 1400), (sys.argv[1], 1417))
";

struct End<'a> {
    host: &'a Host,
    name: &'static str,
    process: Process,
    /// Descriptors and KiB of parent and engine when the link first came up.
    first: Option<[Use; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    descriptors: usize,
    memory: u64,
}

impl<'a> End<'a> {
    fn start(host: &'a Host, name: &'static str, toml: &Toml) -> Self {
        End { host, name, process: start(host, name, &toml.text()), first: None }
    }

    fn status(&self) -> String {
        ask(self.host, &["status", self.name, "--json"]).1
    }

    /// Datagrams that this end has missed.
    fn lost(&self) -> u64 {
        let status: serde_json::Value = serde_json::from_str(&self.status()).unwrap();
        status[0]["counters"]["datagrams_lost"].as_u64().unwrap()
    }

    fn wait_up(&mut self, after: &str) {
        let up =
            wait_until("the link", Duration::from_secs(60), || self.status().contains("\"state\":\"up\""));
        assert!(
            up.is_ok(),
            "{} is not up after {after}: {}\n{}",
            self.name,
            self.status(),
            self.process.text()
        );
        let used = self.used();
        match self.first {
            None => self.first = Some(used),
            Some(first) => {
                for (first, now) in first.iter().zip(used) {
                    // A client, a script or a look-up may be active.
                    let fine =
                        now.descriptors <= first.descriptors + 4 && now.memory <= first.memory + GROWTH;
                    assert!(fine, "{} after {after}: {first:?} became {now:?}", self.name);
                }
            }
        }
    }

    fn used(&self) -> [Use; 2] {
        let parent = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let name = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("tund-engine"))
        };
        let engine = children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(name).unwrap();
        [parent, engine].map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let memory = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
            Use {
                descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
                memory: memory.unwrap(),
            }
        })
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn fri(extra: u64) -> Toml {
    let routes: String =
        (0..extra).map(|n| format!("[[route]]\nto = '192.168.{}.0/24'\n", 100 + n)).collect();
    Toml::tun_fri()
        .handshake()
        .top("remote = ['10.0.0.2:1417', '10.0.0.3:1417']")
        .with(&routes)
        .with("[keepalive]\ninterval = '1s'\ntimeout = '5s'\n[run]\nverb = 3")
}

fn mon() -> Toml {
    Toml::tun_mon().handshake().with("[keepalive]\ninterval = '1s'\ntimeout = '5s'\n[run]\nverb = 3")
}

#[test]
fn a_link_outlives_whatever_is_done_to_it_and_leaves_nothing() {
    let seed = number("TUND_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("TUND_SOAK_SEED={seed}");
    let pair = pair();
    let before = [routes(&pair.fri), routes(&pair.mon)];
    let mut dice = Dice(seed);
    let mut ends = [End::start(&pair.fri, "fri", &fri(1)), End::start(&pair.mon, "mon", &mon())];
    ends.iter_mut().for_each(|end| end.wait_up("the start"));
    let mut traffic = pair.fri.spawn(&["ping", "-n", "-q", "-i", "0.02", "192.168.86.18"]).unwrap();
    // It begins before any disturbance.
    keep_calm(&pair, &ends, "the start");
    let until = Instant::now() + Duration::from_secs(number("TUND_SOAK").unwrap_or(USUAL));
    let mut routes_of_fri = 1;
    let mut done: Vec<&str> = Vec::new();
    let (started, mut outage) = (Instant::now(), Duration::ZERO);
    while Instant::now() < until {
        let begun = Instant::now();
        done.push(disturb(&pair, &mut ends, &mut dice, &mut routes_of_fri));
        // An end that is up may not know yet that the other has gone.
        let carries = || {
            let text = pair.fri.shell("ping -n -c 10 -i 0.02 -W 1 192.168.86.18 || true").unwrap();
            answered(&text) >= 9
        };
        let carried = wait_until("frames", Duration::from_secs(60), carries);
        assert!(carried.is_ok(), "after {done:?}\n{}\n{}", ends[0].process.text(), ends[1].process.text());
        let last = done.last().unwrap();
        outage += begun.elapsed();
        println!("{last}: frames again after {:.1} s", begun.elapsed().as_secs_f32());
        ends.iter_mut().for_each(|end| end.wait_up(last));
        let wanted = || routes(&pair.fri).matches("dev tun0 proto 88").count() == routes_of_fri as usize;
        wait_until("the routes", SOON, wanted).unwrap();
        assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo", "tun0"]);
        assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo", "tun0"]);
        // Parent and engine; at fri also the traffic with its two parts.
        let settled = || pair.mon.processes().len() == 2;
        wait_until("no process too many", SOON, settled).unwrap();
        keep_calm(&pair, &ends, last);
    }
    traffic.signal(Signal::INT).unwrap();
    traffic.wait(SOON).unwrap();
    println!("{} disturbances: {done:?}\n{}", done.len(), traffic.text());
    explain_losses(&traffic.text(), outage.as_secs_f64() / started.elapsed().as_secs_f64());
    for end in &mut ends {
        assert_eq!(end.process.terminate(SOON).unwrap(), 0, "{}", end.process.text());
    }
    assert_eq!([routes(&pair.fri), routes(&pair.mon)], before);
    for host in [&pair.fri, &pair.mon] {
        assert_eq!(host.interfaces().unwrap(), ["eth0", "lo"]);
        wait_until("no process", SOON, || host.processes().is_empty()).unwrap();
        let left = fs::read_dir(host.dir().join("run")).unwrap().count();
        assert_eq!(left, 0, "files are left in the runtime directory of {}", host.name());
    }
}

/// While undisturbed, no frame and no datagram may be lost.
fn keep_calm(pair: &Pair, ends: &[End<'_>; 2], last: &str) {
    let count = if number("TUND_SOAK").is_some() { LONG_CALM } else { CALM };
    let lost = || ends.each_ref().map(End::lost);
    let before = lost();
    let pings = format!("ping -n -c {count} -i 0.02 -W 5 192.168.86.18 || true");
    let text = pair.fri.shell(&pings).unwrap();
    let said = || format!("{}\n{}", ends[0].process.text(), ends[1].process.text());
    assert_eq!(answered(&text), count, "in the peace after {last}: {text}\n{}", said());
    assert_eq!(lost(), before, "datagrams lost in the peace after {last}\n{}", said());
}

/// Frames are lost only during a disturbance.
fn explain_losses(pings: &str, disturbed: f64) {
    let sent = pings
        .split(" packets transmitted")
        .next()
        .and_then(|text| text.rsplit(['\n', ' ']).next()?.parse().ok());
    let (sent, lost): (f64, f64) = (sent.unwrap(), sent.unwrap() - f64::from(answered(pings)));
    println!("{lost} of {sent} pings lost; disturbances took {:.0} % of the time", disturbed * 100.0);
    assert!(lost <= sent * disturbed + 100.0, "more than disturbances explain");
}

/// Disturbs; returns what.
fn disturb(pair: &Pair, ends: &mut [End<'_>; 2], dice: &mut Dice, routes_of_fri: &mut u64) -> &'static str {
    let which = dice.below(2);
    match dice.below(9) {
        0 => {
            *routes_of_fri = 1 + dice.below(4) as u64;
            pair.fri.file("fri.toml", &fri(*routes_of_fri).text()).unwrap();
            ends[0].process.signal(Signal::HUP).unwrap();
            "a reload"
        }
        1 => {
            ends[which].process.signal(Signal::USR1).unwrap();
            "SIGUSR1"
        }
        2 => {
            ends[which].process.signal(Signal::USR2).unwrap();
            "SIGUSR2"
        }
        3 => {
            assert_eq!(ask(ends[which].host, &["rekey", ends[which].name]).0, Some(0));
            "new keys"
        }
        4 => {
            assert_eq!(ends[which].process.terminate(SOON).unwrap(), 0);
            restart(ends, which, *routes_of_fri);
            "a restart"
        }
        5 => {
            ends[which].process.kill();
            wait_until("the killed one's device", SOON, || {
                !ends[which].host.interfaces().unwrap().contains(&"tun0".into())
            })
            .unwrap();
            restart(ends, which, *routes_of_fri);
            "a kill"
        }
        6 => {
            let old = address(&pair.mon);
            let new = 5 - old;
            pair.mon.run(&format!("ip addr add 10.0.0.{new}/24 dev eth0")).unwrap();
            pair.mon.run(&format!("ip addr del 10.0.0.{old}/24 dev eth0")).unwrap();
            // Deleting a network's first address deletes the others.
            let _ = pair.mon.run(&format!("ip addr add 10.0.0.{new}/24 dev eth0"));
            "another address"
        }
        7 => {
            let target = format!("10.0.0.{}", address(&pair.mon));
            pair.fri.output(&["/usr/bin/python3", "-c", FLOOD, &target]).unwrap();
            "a flood"
        }
        _ => {
            pair.fri.run("ip route flush proto 88").unwrap();
            // Repairs per minute are counted.
            std::thread::sleep(Duration::from_millis(700));
            "a flush of routes"
        }
    }
}

/// The last byte of mon's address: 2 or 3.
fn address(mon: &Host) -> u8 {
    if mon.run("ip -o -4 addr show dev eth0").unwrap().contains("10.0.0.2/") { 2 } else { 3 }
}

fn restart(ends: &mut [End<'_>; 2], which: usize, routes_of_fri: u64) {
    let toml = if which == 0 { fri(routes_of_fri) } else { mon() };
    let (host, name) = (ends[which].host, ends[which].name);
    ends[which] = End::start(host, name, &toml);
}
