//! What a flood of datagrams that no key sealed costs a running link, beside the same link without it, and with a
//! firewall that drops the flood before any socket sees it.
//!
//! ```text
//!  fri 192.168.80.81 ---- 192.168.80.18 mon 10.9.0.1 ---- 10.9.0.2 mallory (as anybody of 10.66.0.0/16)
//! ```

mod strangers;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tund_lab::flood::{Flood, Kind, Sniffer};
use tund_lab::{Error, Host, Net, Process, probe, rights};

use crate::link::{INNER, Keys, Link, OUTER, PATIENCE, PORT, Place, UP, install};

const TRANSFER: Duration = Duration::from_secs(2);
const PINGS: u16 = 40;
/// Runs of a link that are recorded, the one that is measured last.
const RUNS: usize = 4;
/// A link of each kind of key.
const LINKS: [(&str, Link); 2] =
    [("tund tun", link(Keys::Handshake)), ("tund tun, static keys", link(Keys::Static))];
const MON: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Where another program awaits the same strangers.
const OTHER_PORT: u16 = 9;
const SOURCES: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 0);

const fn link(keys: Keys) -> Link {
    Link { keys, stream: false }
}

struct World {
    fri: Host,
    mon: Host,
    mallory: Host,
    tund: std::path::PathBuf,
    _net: Net,
}

/// What was measured in one round.
struct Measured {
    /// Bits per second of TCP through the link.
    rate: f64,
    /// Median round trip.
    ping: Duration,
    /// Datagrams a second that the flood sent, and that mon's sockets took.
    flood: [f64; 2],
}

/// Datagrams of one run.
type Run = Vec<Vec<u8>>;

/// One round.
struct Round {
    quiet: Measured,
    flood: Measured,
    /// Under a flood that nftables drops.
    firewall: Measured,
}

/// Measures `rounds` times, each kind of flood beside quiet and a firewall, and prints medians.
pub fn run(rounds: u32) -> Result<(), Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    rights::check_tun()?;
    let world = World::new()?;
    println!(
        "| link | flood | sent | taken | TCP: of quiet | of firewall | ping p50: quiet | firewall | flood |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for (title, link) in &LINKS {
        let mon = link.start(&world.tund, &world.mon, Place::Mon)?;
        let (_fri, recordings) = world.record(link, &mon)?;
        for kind in Kind::ALL {
            let payloads = kind.payloads(&recordings);
            let rounds: Result<Vec<_>, _> = (0..rounds).map(|_| world.round(&payloads)).collect();
            print_medians(title, kind, &rounds?);
        }
        if let Some(line) = mon.lines().iter().find(|line| line.contains("nothing heard")) {
            return Err(Error::new(format!("{title}: {line}")));
        }
    }
    run_streams(&world, rounds)
}

/// A link over TCP, beside strangers who connect to its port.
fn run_streams(world: &World, rounds: u32) -> Result<(), Error> {
    println!(
        "\n| link | strangers | connections | TCP: of quiet | of another port | ping p50: quiet | another port | beside them |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    let link = Link { stream: true, ..link(Keys::Handshake) };
    let sniffer = Sniffer::new(&world.mon)?;
    let mon = link.start(&world.tund, &world.mon, Place::Mon)?;
    let fri = link.start(&world.tund, &world.fri, Place::Fri)?;
    fri.wait_line(UP, PATIENCE)?;
    mon.wait_line(UP, PATIENCE)?;
    probe::ping(&world.fri, INNER[0], INNER[1], 10)?;
    let recording = strangers::reassemble(&sniffer.frames()?, OUTER[0]);
    drop(sniffer);
    for kind in strangers::Kind::ALL {
        let round = |_| {
            let quiet = world.measure(&[])?;
            let (besieged, made) = world.beside(kind, PORT, &recording)?;
            let (other, _) = world.beside(kind, OTHER_PORT, &recording)?;
            let pings = [&quiet, &other, &besieged].map(|measured| measured.ping.as_secs_f64() * 1e6);
            let rates = [&quiet, &other].map(|measured| 100.0 * besieged.rate / measured.rate);
            Ok([[made].as_slice(), &rates, &pings].concat())
        };
        let rounds = (0..rounds).map(round).collect::<Result<Vec<Vec<f64>>, Error>>()?;
        let of = |at: usize| median(rounds.iter().map(|round| round[at]));
        println!(
            "| tund tun over TCP | {} | {:.0}/s | {:.0} % | {:.0} % | {:.0} µs | {:.0} µs | {:.0} µs |",
            kind.title(),
            of(0),
            of(1),
            of(2),
            of(3),
            of(4),
            of(5)
        );
    }
    match fri.lines().iter().chain(&mon.lines()).find(|line| line.contains("nothing heard")) {
        Some(line) => Err(Error::new(line.clone())),
        None => Ok(()),
    }
}

impl World {
    /// The link's figures beside strangers of a kind, and how many connections they made a second.
    fn beside(&self, kind: strangers::Kind, port: u16, recording: &[u8]) -> Result<(Measured, f64), Error> {
        let (target, end) = (SocketAddrV4::new(MON, port).into(), AtomicBool::new(false));
        let begin = Instant::now();
        thread::scope(|scope| {
            let other = (port == OTHER_PORT).then(|| strangers::listen(&self.mon, target)).transpose()?;
            let end = &end;
            other.map(|listener| scope.spawn(move || strangers::receive(&listener, end)));
            let siege = scope.spawn(|| strangers::besiege(&self.mallory, target, kind, recording, end));
            let measured = self.measure(&[]);
            end.store(true, Ordering::Relaxed);
            let made = siege.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((measured?, made as f64 / begin.elapsed().as_secs_f64()))
        })
    }

    fn new() -> Result<Self, Error> {
        let net = Net::new()?;
        let (fri, mon, mallory) = (net.host("fri")?, net.host("mon")?, net.host("mallory")?);
        net.cable(&fri, "eth0", &mon, "eth0")?;
        net.cable(&mon, "eth1", &mallory, "eth0")?;
        fri.run("ip addr add 192.168.80.81/24 dev eth0")?;
        mon.run("ip addr add 192.168.80.18/24 dev eth0")?;
        mon.run("ip addr add 10.9.0.1/24 dev eth1")?;
        mallory.run("ip addr add 10.9.0.2/24 dev eth0")?;
        mon.run("ip route add 10.66.0.0/16 via 10.9.0.2")?;
        let tund = install(&net, &fri, &mon)?;
        Ok(Self { fri, mon, mallory, tund, _net: net })
    }

    /// Runs fri's end several times; gives the last and what each sent.
    fn record(&self, link: &Link, mon: &Process) -> Result<(Process, Vec<Run>), Error> {
        let sniffer = Sniffer::new(&self.mon)?;
        let target = SocketAddrV4::new(OUTER[1], PORT);
        let [own, peer] = INNER;
        let mut recordings = Vec::new();
        loop {
            let mark = mon.mark();
            let mut fri = link.start(&self.tund, &self.fri, Place::Fri)?;
            fri.wait_line(UP, PATIENCE)?;
            mon.wait_line_after(mark, UP, PATIENCE)?;
            probe::ping(&self.fri, own, peer, 10)?;
            recordings.push(sniffer.payloads_to(target)?);
            if recordings.len() == RUNS {
                return Ok((fri, recordings));
            }
            fri.terminate(PATIENCE)?;
        }
    }

    fn round(&self, payloads: &[Vec<u8>]) -> Result<Round, Error> {
        let (quiet, flood) = (self.measure(&[])?, self.measure(payloads)?);
        self.mon.shell(
            "nft add table inet gate && nft add chain inet gate in '{ type filter hook input priority 0; }' && \
             nft add rule inet gate in ip saddr 10.66.0.0/16 drop",
        )?;
        let firewall = self.measure(payloads);
        self.mon.run("nft delete table inet gate")?;
        Ok(Round { quiet, flood, firewall: firewall? })
    }

    /// The link's figures while mallory sends these payloads, if there are any.
    fn measure(&self, payloads: &[Vec<u8>]) -> Result<Measured, Error> {
        let [fri, mon] = INNER;
        let flood = match payloads {
            [] => None,
            [_, ..] => Some(Flood::start(&self.mallory, SOURCES, SocketAddrV4::new(MON, PORT), payloads, 0)?),
        };
        let (begin, taken) = (Instant::now(), self.taken()?);
        let mut times = probe::ping(&self.fri, fri, mon, PINGS)?.times;
        times.sort();
        let seconds = begin.elapsed().as_secs_f64();
        let sent = flood.as_ref().map_or(0, Flood::sent) as f64 / seconds;
        let taken = (self.taken()? - taken) as f64 / seconds;
        let rate = probe::throughput(&self.fri, &self.mon, fri, mon, TRANSFER)?;
        let ping = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok(Measured { rate, ping, flood: [sent, taken] })
    }

    /// Datagrams that sockets on mon took so far: the second `Udp:` line has the number first.
    fn taken(&self) -> Result<u64, Error> {
        let text = self.mon.run("cat /proc/net/snmp")?;
        let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap_or_default();
        let number = line.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        number.ok_or_else(|| Error::new("no UDP counters in /proc/net/snmp"))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print_medians(title: &str, kind: Kind, rounds: &[Round]) {
    let median = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of));
    println!(
        "| {} | {} | {:.0}/s | {:.0}/s | {:.0} % | {:.0} % | {:.0} µs | {:.0} µs | {:.0} µs |",
        title,
        kind.title(),
        median(&|round| round.flood.flood[0]),
        median(&|round| round.flood.flood[1]),
        median(&|round| 100.0 * round.flood.rate / round.quiet.rate),
        median(&|round| 100.0 * round.flood.rate / round.firewall.rate),
        median(&|round| round.quiet.ping.as_secs_f64() * 1e6),
        median(&|round| round.firewall.ping.as_secs_f64() * 1e6),
        median(&|round| round.flood.ping.as_secs_f64() * 1e6),
    );
}
