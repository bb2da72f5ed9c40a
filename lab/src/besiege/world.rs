//! The network of a siege, and what is measured in it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tund_lab::flood::{Flood, Sniffer};
use tund_lab::{At, Error, Host, Net, Process, probe};

use super::{median, strangers};
use crate::link::{INNER, Link, OUTER, PATIENCE, PORT, Place, UP, install};

const TRANSFER: Duration = Duration::from_millis(100);
const PINGS: u16 = 10;
/// Time between two pings.
const PING_PAUSE: Duration = Duration::from_millis(2);
/// Link runs that are recorded, the measured one last.
const RUNS: usize = 4;
const MON: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Where another program accepts the same strangers.
const OTHER_PORT: u16 = 9;
/// Packets to this port are dropped by nftables at input.
const FIREWALL_PORT: u16 = 10;
/// Its socket's receive buffer: as large as a link's.
const OTHER_BUFFER: usize = 4 << 20;
const SOURCES: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 0);

pub(super) struct World {
    pub(super) fri: Host,
    pub(super) mon: Host,
    mallory: Host,
    pub(super) tund: std::path::PathBuf,
    _net: Net,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Bits per second of TCP through the link.
    pub(super) rate: f64,
    /// Median round trip, in microseconds.
    pub(super) ping: f64,
    /// Strangers' actions per second: datagrams sent by the flood and taken by mon's sockets, or connections made.
    pub(super) strangers: [f64; 2],
}

/// Datagrams of one run.
pub(super) type Run = Vec<Vec<u8>>;

/// Where a flood ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flooded {
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
    pub(super) const ALL: [Self; 4] = [Self::Nothing, Self::Firewall, Self::Unread, Self::Link];
}

/// Where strangers connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Besieged {
    /// There are none.
    Nothing,
    /// Another program, which keeps as many connections as a link, and reads nothing.
    Other,
    /// The link.
    Link,
}

impl Besieged {
    pub(super) const ALL: [Self; 3] = [Self::Nothing, Self::Other, Self::Link];
}

impl World {
    pub(super) fn new() -> Result<Self, Error> {
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
    pub(super) fn record(&self, link: &Link, mon: &Process) -> Result<(Process, Vec<Run>), Error> {
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
    pub(super) fn beside_strangers(
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
    pub(super) fn beside_flood(&self, flooded: Flooded, payloads: &[Vec<u8>]) -> Result<Measured, Error> {
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

    pub(super) fn flood(&self, port: u16, payloads: &[Vec<u8>]) -> Result<Flood, Error> {
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
