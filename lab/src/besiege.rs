//! What strangers cost a running link: unauthenticated datagrams and connections, beside the same link without them, and beside controls in which
//! they cost the machine as much, but tund nothing.
//!
//! ```text
//!  fri 192.168.80.81 ---- 192.168.80.18 mon 10.9.0.1 ---- 10.9.0.2 mallory (as anybody of 10.66.0.0/16)
//! ```
//!
//! The machine is never the same twice, so a round measures all of them there and back, within seconds, and only ratios within a round count.

mod strangers;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use rustix::net::sockopt;
use tund_lab::flood::{self, Flood, Sniffer};
use tund_lab::{At, Error, Host, Net, Process, probe, rights};

use crate::link::{INNER, Keys, Link, OUTER, PATIENCE, PORT, Place, UP, install};

const TRANSFER: Duration = Duration::from_millis(100);
const PINGS: u16 = 10;
/// Time between two pings.
const PING_PAUSE: Duration = Duration::from_millis(2);
/// Link runs that are recorded, the measured one last.
const RUNS: usize = 4;
/// A link for each kind of key.
const LINKS: [(&str, Link); 2] =
    [("tund tun", link(Keys::Handshake)), ("tund tun, static keys", link(Keys::Static))];
const MON: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Where another program accepts the same strangers.
const OTHER_PORT: u16 = 9;
/// Packets to this port are dropped by nftables at input.
const FIREWALL_PORT: u16 = 10;
/// Its socket's receive buffer: as large as a link's.
const OTHER_BUFFER: usize = 4 << 20;
const SOURCES: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 0);
/// How often the peer restarts during a flood.
const NEWCOMERS: usize = 7;
/// Time limit for that.
const NEWCOMER: Duration = Duration::from_secs(120);

const fn link(keys: Keys) -> Link {
    Link { keys, stream: false, port: None }
}

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only these, separated by commas
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    only: Vec<Strangers>,
}

/// Those without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Datagrams(flood::Kind),
    Connections(strangers::Kind),
}

impl ValueEnum for Strangers {
    fn value_variants<'a>() -> &'a [Self] {
        use flood::Kind::{FirstWords, Forged, Random, Recorded};
        use strangers::Kind::{self as Connected, Many, Rubbish, Silent, Slow};
        const ALL: [Strangers; 9] = [
            Strangers::Datagrams(Random),
            Strangers::Datagrams(Recorded),
            Strangers::Datagrams(FirstWords),
            Strangers::Datagrams(Forged),
            Strangers::Connections(Silent),
            Strangers::Connections(Slow),
            Strangers::Connections(Rubbish),
            Strangers::Connections(Connected::Recorded),
            Strangers::Connections(Many),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let word = match self {
            Self::Datagrams(kind) => kind.word(),
            Self::Connections(kind) => kind.word(),
        };
        Some(PossibleValue::new(word))
    }
}

struct World {
    fri: Host,
    mon: Host,
    mallory: Host,
    tund: std::path::PathBuf,
    _net: Net,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Bits per second of TCP through the link.
    rate: f64,
    /// Median round trip, in microseconds.
    ping: f64,
    /// Strangers' actions per second: datagrams sent by the flood and taken by mon's sockets, or connections made.
    strangers: [f64; 2],
}

/// Datagrams of one run.
type Run = Vec<Vec<u8>>;

/// Where a flood ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flooded {
    /// There is no flood.
    Nothing,
    /// nftables drops it before any socket.
    Firewall,
    /// A socket that nobody reads.
    Unread,
    /// The link.
    Link,
}

impl Flooded {
    const ALL: [Self; 4] = [Self::Nothing, Self::Firewall, Self::Unread, Self::Link];
}

/// Where strangers connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Besieged {
    /// There are none.
    Nothing,
    /// Another program, which keeps as many connections as a link, and reads nothing.
    Other,
    /// The link.
    Link,
}

impl Besieged {
    const ALL: [Self; 3] = [Self::Nothing, Self::Other, Self::Link];
}

/// Measures; prints medians and, for ratios, the quartiles.
pub fn run(options: &Options) -> Result<(), Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    rights::check_tun()?;
    let all = if options.only.is_empty() { Strangers::value_variants() } else { &options.only[..] };
    let world = World::new()?;
    let datagrams = all.iter().filter_map(|kind| match kind {
        Strangers::Datagrams(kind) => Some(*kind),
        Strangers::Connections(_) => None,
    });
    let datagrams: Vec<flood::Kind> = datagrams.collect();
    if !datagrams.is_empty() {
        println!(
            "| link | flood | sent | taken | TCP: of quiet | of firewall | a socket that nobody reads: of firewall | ping p50: quiet | firewall | flood |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
        LINKS
            .iter()
            .try_for_each(|(title, link)| run_datagrams(&world, title, link, &datagrams, options.rounds))?;
    }
    let connections = all.iter().filter_map(|kind| match kind {
        Strangers::Connections(kind) => Some(*kind),
        Strangers::Datagrams(_) => None,
    });
    let connections: Vec<strangers::Kind> = connections.collect();
    if connections.is_empty() { Ok(()) } else { run_streams(&world, &connections, options.rounds) }
}

/// Measures a link during each kind of flood, then a peer that gets in meanwhile.
fn run_datagrams(
    world: &World,
    title: &str,
    link: &Link,
    kinds: &[flood::Kind],
    rounds: u32,
) -> Result<(), Error> {
    let mon = link.start(&world.tund, &world.mon, Place::Mon)?;
    let (mut fri, recordings) = world.record(link, &mon)?;
    for kind in kinds {
        let payloads = kind.payloads(&recordings);
        let round = |_| there_and_back(Flooded::ALL, |flooded| world.beside_flood(flooded, &payloads));
        let rounds = (0..rounds).map(round).collect::<Result<Vec<_>, Error>>()?;
        let [quiet, firewall, unread, flood] = columns(&rounds);
        println!(
            "| {title} | {} | {:.0}/s | {:.0}/s | {} | {} | {} | {:.0} µs | {:.0} µs | {:.0} µs |",
            kind.title(),
            median(flood.iter().map(|flood| flood.strangers[0])),
            median(flood.iter().map(|flood| flood.strangers[1])),
            percent(&flood, &quiet),
            percent(&flood, &firewall),
            percent(&unread, &firewall),
            median(quiet.iter().map(|quiet| quiet.ping)),
            median(firewall.iter().map(|firewall| firewall.ping)),
            median(flood.iter().map(|flood| flood.ping)),
        );
    }
    if let Some(line) = mon.lines().iter().find(|line| line.contains("nothing heard")) {
        return Err(Error::new(format!("{title}: {line}")));
    }
    let mut ports = PORT + 1..;
    for kind in kinds {
        let _flood = world.flood(PORT, &kind.payloads(&recordings))?;
        let mut seconds = Vec::new();
        for port in ports.by_ref().take(NEWCOMERS) {
            // It must not say goodbye.
            fri.kill();
            let begin = Instant::now();
            fri = Link { port: Some(port), ..*link }.start(&world.tund, &world.fri, Place::Fri)?;
            fri.wait_line(UP, NEWCOMER)?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        let last = seconds.iter().copied().fold(0.0, f64::max);
        println!(
            "{title}, {}: the peer, started anew at another port {NEWCOMERS} times, is up after {:.1} s, at most {last:.1} s",
            kind.title(),
            median(seconds.into_iter())
        );
    }
    Ok(())
}

/// Measures a link over TCP, beside strangers who connect to its port.
fn run_streams(world: &World, kinds: &[strangers::Kind], rounds: u32) -> Result<(), Error> {
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
    for kind in kinds {
        let round =
            |_| there_and_back(Besieged::ALL, |besieged| world.beside_strangers(besieged, *kind, &recording));
        let rounds = (0..rounds).map(round).collect::<Result<Vec<_>, Error>>()?;
        let [quiet, other, link] = columns(&rounds);
        println!(
            "| tund tun over TCP | {} | {:.0}/s | {} | {} | {:.0} µs | {:.0} µs | {:.0} µs |",
            kind.title(),
            median(link.iter().map(|link| link.strangers[0])),
            percent(&link, &quiet),
            percent(&link, &other),
            median(quiet.iter().map(|quiet| quiet.ping)),
            median(other.iter().map(|other| other.ping)),
            median(link.iter().map(|link| link.ping)),
        );
    }
    match fri.lines().iter().chain(&mon.lines()).find(|line| line.contains("nothing heard")) {
        Some(line) => Err(Error::new(line.clone())),
        None => Ok(()),
    }
}

/// Runs a round: all in this order, then in reverse; returns the means of both.
fn there_and_back<C: Copy, const N: usize>(
    all: [C; N],
    measure: impl Fn(C) -> Result<Measured, Error>,
) -> Result<[Measured; N], Error> {
    let there = all.into_iter().map(&measure).collect::<Result<Vec<_>, _>>()?;
    let mut back = all.into_iter().rev().map(&measure).collect::<Result<Vec<_>, _>>()?;
    back.reverse();
    let mean = |at: usize| {
        let (a, b) = (there[at], back[at]);
        Measured {
            rate: (a.rate + b.rate) / 2.0,
            ping: (a.ping + b.ping) / 2.0,
            strangers: [0, 1].map(|which| (a.strangers[which] + b.strangers[which]) / 2.0),
        }
    };
    Ok(std::array::from_fn(mean))
}

/// The rounds of each measured item.
fn columns<const N: usize>(rounds: &[[Measured; N]]) -> [Vec<Measured>; N] {
    std::array::from_fn(|at| rounds.iter().map(|round| round[at]).collect())
}

impl World {
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
        mon.shell(&format!(
            "nft add table inet gate && nft add chain inet gate in '{{ type filter hook input priority 0; }}' && \
             nft add rule inet gate in udp dport {FIREWALL_PORT} drop"
        ))?;
        let tund = install(&net, &fri, &mon)?;
        Ok(Self { fri, mon, mallory, tund, _net: net })
    }

    /// Runs fri's end several times; returns the last process and what each sent.
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

    /// The link's figures beside strangers of this kind, and how many connections they made per second.
    fn beside_strangers(
        &self,
        besieged: Besieged,
        kind: strangers::Kind,
        recording: &[u8],
    ) -> Result<Measured, Error> {
        let port = match besieged {
            Besieged::Nothing => return self.measure(),
            Besieged::Other => OTHER_PORT,
            Besieged::Link => PORT,
        };
        let (target, end) = (SocketAddrV4::new(MON, port).into(), AtomicBool::new(false));
        let begin = Instant::now();
        thread::scope(|scope| {
            let other =
                (besieged == Besieged::Other).then(|| strangers::listen(&self.mon, target)).transpose()?;
            let end = &end;
            other.map(|listener| scope.spawn(move || strangers::receive(&listener, end)));
            let siege = scope.spawn(|| strangers::besiege(&self.mallory, target, kind, recording, end));
            let measured = self.measure();
            end.store(true, Ordering::Relaxed);
            let made = siege.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let made = made as f64 / begin.elapsed().as_secs_f64();
            Ok(Measured { strangers: [made, 0.0], ..measured? })
        })
    }

    /// The link's figures while mallory sends these payloads, and what happened to them.
    fn beside_flood(&self, flooded: Flooded, payloads: &[Vec<u8>]) -> Result<Measured, Error> {
        match flooded {
            Flooded::Nothing => self.measure(),
            Flooded::Link => self.beside_flood_at(PORT, payloads),
            Flooded::Unread => {
                let socket = self.mon.within(|| UdpSocket::bind((MON, OTHER_PORT)))?.at("UDP socket")?;
                sockopt::set_socket_recv_buffer_size_force(&socket, OTHER_BUFFER)
                    .map_err(std::io::Error::from)
                    .at("receive buffer")?;
                self.beside_flood_at(OTHER_PORT, payloads)
            }
            Flooded::Firewall => self.beside_flood_at(FIREWALL_PORT, payloads),
        }
    }

    fn flood(&self, port: u16, payloads: &[Vec<u8>]) -> Result<Flood, Error> {
        Flood::start(&self.mallory, SOURCES, SocketAddrV4::new(MON, port), payloads, 0)
    }

    fn beside_flood_at(&self, port: u16, payloads: &[Vec<u8>]) -> Result<Measured, Error> {
        let (begin, taken) = (Instant::now(), self.taken()?);
        let flood = self.flood(port, payloads)?;
        let measured = self.measure()?;
        let counts = [flood.sent(), self.taken()? - taken];
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Measured { strangers: counts.map(|count| count as f64 / seconds), ..measured })
    }

    /// The link's current figures.
    fn measure(&self) -> Result<Measured, Error> {
        let [fri, mon] = INNER;
        let times = probe::Echo { interval: PING_PAUSE, ..probe::Echo::new(fri, mon) };
        let times = times.send(&self.fri, PINGS)?.times;
        let rate = probe::throughput(&self.fri, &self.mon, fri, mon, TRANSFER)?;
        let ping = median(times.iter().map(|time| time.as_secs_f64() * 1e6));
        Ok(Measured { rate, ping, strangers: [0.0; 2] })
    }

    /// Datagrams taken by mon's sockets so far: the first number of the second `Udp:` line.
    fn taken(&self) -> Result<u64, Error> {
        let file = format!("/proc/{}/net/snmp", self.mon.pid());
        let text = std::fs::read_to_string(&file).at(&file)?;
        let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap_or_default();
        let number = line.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        number.ok_or_else(|| Error::new("no UDP counters in /proc/net/snmp"))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = |at: usize| values.get(at).copied().unwrap_or_default();
    (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2)) / 2.0
}

/// One rate in percent of the other: the median of the rounds, and the quartiles.
fn percent(one: &[Measured], other: &[Measured]) -> String {
    let ratios = one.iter().zip(other).map(|(one, other)| 100.0 * one.rate / other.rate);
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let at = |quarters: usize| ratios.get(ratios.len() * quarters / 4).copied().unwrap_or_default();
    format!("{:.0} ({:.0}, {:.0}) %", median(ratios.iter().copied()), at(1), at(3))
}
