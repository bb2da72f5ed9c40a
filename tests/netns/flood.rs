//! A flood of unauthenticated datagrams, as fast as the machine can send, at a link that carries traffic.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon 10.9.0.1 ---- 10.9.0.2 mallory (as anybody of 10.66.0.0/16)
//! ```

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use tund_lab::flood::{Flood, Kind, Sniffer};
use tund_lab::{Host, Process};

use super::support::*;

/// Minimum duration of each flood.
const FLOOD: Duration = Duration::from_secs(3);
/// Nice value of the flood: it represents another machine and should take no processor time from the ends.
const ELSEWHERE: i32 = 10;
/// Recorded runs of the link.
const RUNS: usize = 4;
/// Growth of mon's processes in memory, in KiB: only buffers touched for the first time (the socket's belong to the
/// kernel).
const GROWTH: u64 = 8 << 10;

pub struct Siege {
    fri: Process,
    mon: Process,
    mallory: Host,
    /// fri's datagrams in earlier runs of the link, and in the present one.
    pub recordings: Vec<Vec<Vec<u8>>>,
    config: fn(Toml) -> Toml,
    pub pair: Pair,
}

fn target() -> SocketAddrV4 {
    "10.9.0.1:1417".parse().unwrap()
}

/// A link in its second run, both recorded, over a path with that MTU. No IPv6, so that the kernels are silent.
pub fn siege(mtu: u16, config: fn(Toml) -> Toml) -> Siege {
    let pair = Pair::unplugged();
    let mallory = pair.net.host("mallory").unwrap();
    for host in [&pair.fri, &pair.mon, &mallory] {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    }
    pair.net.cable(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
    pair.net.cable(&pair.mon, "eth1", &mallory, "eth0").unwrap();
    for host in [&pair.fri, &pair.mon] {
        host.run(&format!("ip link set eth0 mtu {mtu}")).unwrap();
    }
    pair.fri.run("ip addr add 10.0.0.1/24 dev eth0").unwrap();
    pair.mon.run("ip addr add 10.0.0.2/24 dev eth0").unwrap();
    pair.mon.run("ip addr add 10.9.0.1/24 dev eth1").unwrap();
    mallory.run("ip addr add 10.9.0.2/24 dev eth0").unwrap();
    pair.mon.run("ip route add 10.66.0.0/16 via 10.9.0.2").unwrap();
    pair.mon.run("ping -n -c 1 -W 2 10.9.0.2").unwrap();

    let sniffer = Sniffer::new(&pair.mon).unwrap();
    let mut recordings = Vec::new();
    let (mut fri, mon) = pair.link(&config(Toml::tun_fri()), &config(Toml::tun_mon()));
    for _ in 1..RUNS {
        assert_pings(&pair.fri, "192.168.86.18");
        recordings.push(sniffer.payloads_to("10.0.0.2:1417".parse().unwrap()).unwrap());
        let mark = mon.mark();
        fri.terminate(SOON).unwrap();
        mon.wait_line_after(mark, DOWN, SOON).unwrap();
        fri = pair.start_fri(&config(Toml::tun_fri()));
        mon.wait_line_after(mark, UP, SOON).unwrap();
        fri.wait_line(UP, SOON).unwrap();
    }
    assert_pings(&pair.fri, "192.168.86.18");
    recordings.push(sniffer.payloads_to("10.0.0.2:1417".parse().unwrap()).unwrap());
    assert!(recordings.iter().all(|recording| recording.len() >= 12));
    Siege { fri, mon, mallory, recordings, config, pair }
}

impl Siege {
    fn flood(&self, payloads: &[Vec<u8>]) -> Flood {
        let from = "10.66.0.0".parse().unwrap();
        Flood::start(&self.mallory, from, target(), payloads, ELSEWHERE).unwrap()
    }

    /// Packets received by mallory: only replies.
    fn answers(&self) -> u64 {
        counters(&self.mallory, "eth0").0
    }

    /// Floods mon. The link stays up and passes frames, and mon neither grows, nor logs, nor replies more than
    /// recordings may cause.
    pub fn withstands(&self, title: &str, payloads: &[Vec<u8>], answers_a_second: u64) {
        let (fri, mon) = (self.fri.mark(), self.mon.mark());
        let (memory, answers, begin) = (resident(&self.pair.mon), self.answers(), Instant::now());
        let flood = self.flood(payloads);
        let ping = ["ping", "-n", "-i", "0.05", "-c", "60", "-W", "2", "192.168.86.18"];
        let mut ping = self.pair.fri.spawn(&ping).unwrap();
        std::thread::sleep(FLOOD);
        tund_lab::wait_until("a flood", SOON, || flood.sent() > 10_000).unwrap();
        let sent = flood.sent();
        drop(flood);
        let seconds = begin.elapsed().as_secs() + 1;
        ping.wait(SOON).unwrap();

        let what = format!("{title}, {sent} datagrams");
        // What the kernel drops for a full socket buffer, it drops of all senders.
        assert!(answered(&ping.text()) > 0, "{what}: no frame passed\n{}", ping.text());
        let after = "ping -n -c 5 -i 0.1 -W 1 192.168.86.18";
        self.pair.fri.wait_output(after, SOON, |text| text.contains("5 received")).unwrap();
        for said in [self.fri.lines().split_off(fri), self.mon.lines().split_off(mon)] {
            assert_eq!(said, [""; 0], "{what}");
        }
        let now = resident(&self.pair.mon);
        assert!(now <= memory + GROWTH, "{what}: {memory} KiB became {now}");
        let answers = self.answers() - answers;
        assert!(answers <= answers_a_second * seconds, "{what}: {answers} answers in {seconds} s");
    }

    /// A restarted peer gets in during the flood.
    pub fn admits(&mut self, title: &str, payloads: &[Vec<u8>]) {
        let flood = self.flood(payloads);
        tund_lab::wait_until(title, SOON, || flood.sent() > 1000).unwrap();
        self.restart();
    }

    /// fri restarts and gets in.
    pub fn restart(&mut self) {
        let mark = self.mon.mark();
        self.fri.terminate(SOON).unwrap();
        self.fri = self.pair.start_fri(&(self.config)(Toml::tun_fri()));
        self.fri.wait_line(UP, SOON).unwrap();
        self.mon.wait_line_after(mark, UP, SOON).unwrap();
    }
}

#[test]
fn a_link_with_sessions_withstands_floods_and_admits_its_peer_in_them() {
    let mut siege = siege(1500, Toml::handshake);
    for kind in Kind::ALL {
        let payloads = kind.payloads(&siege.recordings);
        siege.withstands(kind.title(), &payloads, 2);
        siege.admits(kind.title(), &payloads);
    }
}

#[test]
fn a_link_with_static_keys_withstands_floods_and_admits_its_peer_in_them() {
    let mut siege = siege(1500, |toml| toml);
    for kind in Kind::ALL {
        let payloads = kind.payloads(&siege.recordings);
        siege.withstands(kind.title(), &payloads, 6);
        siege.admits(kind.title(), &payloads);
    }
}
