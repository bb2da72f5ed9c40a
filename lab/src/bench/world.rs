//! Two hosts of a peer's own, and what its programs spend there.
//!
//! ```text
//!  fri 192.168.80.81 eth0 ---- eth0 192.168.80.18 mon      inside: 192.168.86.81 and 192.168.86.18
//! ```
//!
//! If the path is to delay or lose packets, a third host bridges between them and does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tund_lab::machine::{self, Memory};
use tund_lab::probe::{Echo, End};
use tund_lab::{Error, Host, Net, Process};

use super::install;
use super::peer::Peer;
use crate::link::{self, INNER, OUTER, PATIENCE};

/// The hosts.
pub struct World {
    pub fri: Host,
    pub mon: Host,
    between: Option<Host>,
    net: Net,
}

impl World {
    /// `path` is what netem does to the path, each way.
    fn new(path: Option<&str>) -> Result<Self, Error> {
        let net = Net::new()?;
        let (fri, mon) = (net.host("fri")?, net.host("mon")?);
        let between = match path {
            None => {
                net.cable(&fri, "eth0", &mon, "eth0")?;
                None
            }
            Some(path) => Some(long_path(&net, [&fri, &mon], path)?),
        };
        let world = Self { fri, mon, between, net };
        for (host, own, _) in world.ends() {
            host.run(&format!("ip addr add {}/24 dev eth0", OUTER[own]))?;
        }
        Ok(world)
    }

    /// Each host with the index of its own address and of the other's.
    pub fn ends(&self) -> [(&Host, usize, usize); 2] {
        [(&self.fri, 0, 1), (&self.mon, 1, 0)]
    }

    /// Whether what fri sends in one go may cross the path in one go. Never where it can be delayed or lost.
    pub fn allow_batches(&self, allowed: bool) -> Result<(), Error> {
        let most = if allowed && self.between.is_none() { 65535 } else { 1 };
        self.fri.run(&format!("ip link set eth0 gso_max_segs {most}")).map(drop)
    }

    /// Puts the key on both hosts; the daemon's program.
    pub fn install_tund(&self) -> Result<PathBuf, Error> {
        link::install(&self.net, &self.fri, &self.mon)
    }

    /// Where a peer's program is.
    pub fn program(&self, name: &str) -> Result<PathBuf, Error> {
        install::find(name).ok_or_else(|| Error::new(format!("{name} is not installed")))
    }
}

/// A host between the two that passes on what comes, as netem is told. They send packet by packet, so that each is
/// delayed or lost on its own.
fn long_path(net: &Net, ends: [&Host; 2], netem: &str) -> Result<Host, Error> {
    let between = net.host("path")?;
    between.run("ip link add br0 type bridge")?;
    between.run("ip link set br0 up")?;
    for end in ends {
        let port = end.name();
        net.cable(end, "eth0", &between, port)?;
        end.run("ip link set eth0 gso_max_segs 1")?;
        between.run(&format!("ip link set {port} master br0"))?;
        between.run(&format!("tc qdisc add dev {port} root netem {netem}"))?;
    }
    Ok(between)
}

/// A peer that runs.
pub struct Running {
    pub peer: Peer,
    /// From the start of its programs to the first answer.
    pub first_ping: Duration,
    /// Addresses that the traffic uses.
    addresses: [std::net::Ipv4Addr; 2],
    processes: Vec<Process>,
    pub world: World,
}

impl Running {
    /// Starts a peer and waits until a ping is answered.
    pub fn start(peer: Peer, path: Option<&str>) -> Result<Self, Error> {
        if let Some((program, source)) = peer.missing() {
            return Err(install::missing(program, source));
        }
        let world = World::new(path)?;
        let begin = Instant::now();
        let processes = peer.start(&world)?;
        let addresses = if peer.is_path() { OUTER } else { INNER };
        let mut running = Self { peer, first_ping: Duration::ZERO, addresses, processes, world };
        while !running.answers() {
            if let Some(process) = running.processes.iter_mut().find_map(ended) {
                return Err(Error::new(process));
            }
            if begin.elapsed() > PATIENCE {
                let said: Vec<String> = running.processes.iter().map(Process::text).collect();
                return Err(Error::new(format!("no ping is answered: {}", said.join("\n"))));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        running.first_ping = begin.elapsed();
        Ok(running)
    }

    fn answers(&self) -> bool {
        let patience = if self.world.between.is_some() { 1000 } else { 20 };
        let soon =
            Echo { patience: Duration::from_millis(patience), interval: Duration::ZERO, ..self.echo() };
        soon.send(&self.world.fri, 1).is_ok_and(|pings| !pings.times.is_empty())
    }

    /// fri and mon as the traffic sees them.
    pub fn ends(&self) -> [End<'_>; 2] {
        let [fri, mon] = self.addresses;
        [End { host: &self.world.fri, address: fri }, End { host: &self.world.mon, address: mon }]
    }

    /// Echo requests from fri to mon.
    pub fn echo(&self) -> Echo {
        let [source, target] = self.addresses;
        Echo::new(source, target)
    }

    /// Round trips of `count` pings.
    pub fn ping(&self, echo: Echo, count: u16) -> Result<Vec<Duration>, Error> {
        Ok(echo.send(&self.world.fri, count)?.times)
    }

    /// Processor time that the programs of both ends have spent.
    pub fn spent(&self) -> Duration {
        let pids = [&self.world.fri, &self.world.mon].into_iter().flat_map(Host::processes);
        pids.map(machine::spent).sum()
    }

    /// Memory of the end that has more.
    pub fn memory(&self) -> Memory {
        let of = |host: &Host| {
            host.processes().into_iter().map(machine::memory).fold(Memory::default(), |a, b| a + b)
        };
        let [fri, mon] = [of(&self.world.fri), of(&self.world.mon)];
        if fri.resident > mon.resident { fri } else { mon }
    }

    /// Packets and bytes that fri has sent on the path.
    pub fn outgoing(&self) -> Result<(u64, u64), Error> {
        let file = format!("/proc/{}/net/dev", self.world.fri.pid());
        let text = std::fs::read_to_string(&file).map_err(|error| Error::new(format!("{file}: {error}")))?;
        sent(&text, "eth0").ok_or_else(|| Error::new(format!("{file}: no eth0 in {text}")))
    }
}

/// Packets and bytes that an interface has sent: after its name and a colon come eight numbers about what it
/// received, then these, bytes first.
fn sent(text: &str, interface: &str) -> Option<(u64, u64)> {
    let mut rows = text.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = rows.find(|(name, _)| name.trim() == interface)?;
    let mut numbers = numbers.split_whitespace().skip(8).map(str::parse);
    let (bytes, packets) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((packets, bytes))
}

/// Why a program is no longer there.
fn ended(process: &mut Process) -> Option<String> {
    let code = process.code(Duration::ZERO).ok()?;
    Some(format!("ended with code {code}: {}", process.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_an_interface_are_read_by_name() {
        let text = "Inter-|   Receive  | Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n\
                    eth01: 1 1 0 0 0 0 0 0 1 1 0\n  eth0:  100  2 0 0 0 0 0 0  900  7 0 0 0 0 0 0\n";
        assert_eq!(sent(text, "eth0"), Some((7, 900)));
        assert_eq!(sent(text, "lo"), None);
    }
}
