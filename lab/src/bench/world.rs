//! A peer running between two hosts of its own, fri and mon, and the resources its programs use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tund_lab::machine::{self, Memory};
use tund_lab::probe::{Echo, End};
use tund_lab::scenario::{Scenario, Source, World};
use tund_lab::{Error, Host, Net};

use super::install;
use super::peer::Peer;
use crate::link::{self, INNER, PATIENCE};

/// The hosts and the path between them, and the same with netem on the path.
const GROUND: &str = include_str!("../../rivals/ground.toml");
const FAR: &str = include_str!("../../rivals/far.toml");
/// Pause between two checks of a link coming up.
const PAUSE: Duration = Duration::from_millis(5);

/// The hosts; `path` is the netem setting of the path, each way.
fn ground(path: Option<&str>) -> Result<Scenario, Error> {
    let vars: BTreeMap<_, _> = path.iter().map(|path| ("NETEM".to_owned(), (*path).to_owned())).collect();
    let text = if path.is_some() { FAR } else { GROUND };
    Source::read("the path", text, &vars, |base| Err(Error::new(format!("no {base}"))))?.scenario()
}

/// A running peer.
pub struct Running {
    pub peer: Peer,
    /// From the start of its programs to the first answer.
    pub first_ping: Duration,
    /// The path delays or loses packets.
    is_far: bool,
    pub fri: Arc<Host>,
    pub mon: Arc<Host>,
    _world: World,
    /// Where the daemon's program is.
    _place: Net,
}

impl Running {
    /// Starts a peer and waits until a ping is answered.
    pub fn start(peer: Peer, path: Option<&str>) -> Result<Self, Error> {
        if let Some(program) = peer.missing() {
            return Err(install::missing(program));
        }
        let place = Net::new()?;
        let mut world = World::new(peer.rival.on(ground(path)?), &link::program(&place)?)?;
        for phase in world.phases() {
            world.run(&phase, |_, _| {})?;
        }
        let begin = Instant::now();
        let [fri, mon] = &peer.rival.ends;
        // The waiting end goes first.
        for (name, end) in [("mon", mon), ("fri", fri)] {
            world.start_host(name)?;
            if let Some(script) = end.up() {
                wait(&mut world, begin, name, |world| world.shell(name, &script).map(drop))?;
            }
        }
        for (name, end) in [("mon", mon), ("fri", fri)] {
            if let (Some(device), Some(script)) = (end.device(), end.configure()) {
                let there = format!("ip link show {device}");
                wait(&mut world, begin, name, |world| world.shell(name, &there).map(drop))?;
                world.shell(name, &script)?;
            }
        }
        let (fri, mon) = (Arc::clone(world.host("fri")?), Arc::clone(world.host("mon")?));
        let echo = Echo {
            patience: Duration::from_millis(if path.is_some() { 1000 } else { 20 }),
            interval: Duration::ZERO,
            ..Echo::new(INNER[0], INNER[1])
        };
        wait(&mut world, begin, "fri", |_| match echo.send(&fri, 1)?.times[..] {
            [] => Err(Error::new("no ping is answered")),
            [..] => Ok(()),
        })?;
        let first_ping = begin.elapsed();
        Ok(Self { peer, first_ping, is_far: path.is_some(), fri, mon, _world: world, _place: place })
    }

    /// Allows fri's batches to cross the path in one piece, or not. Never on a path that delays or loses.
    pub fn allow_batches(&self, allowed: bool) -> Result<(), Error> {
        let most = if allowed && !self.is_far { 65535 } else { 1 };
        self.fri.run(&format!("ip link set eth0 gso_max_segs {most}")).map(drop)
    }

    /// fri and mon as seen by the traffic.
    pub fn ends(&self) -> [End<'_>; 2] {
        let [fri, mon] = INNER;
        [End { host: &self.fri, address: fri }, End { host: &self.mon, address: mon }]
    }

    /// Echo requests from fri to mon.
    pub fn echo(&self) -> Echo {
        Echo::new(INNER[0], INNER[1])
    }

    /// Round trips of `count` pings.
    pub fn ping(&self, echo: Echo, count: u16) -> Result<Vec<Duration>, Error> {
        Ok(echo.send(&self.fri, count)?.times)
    }

    /// CPU time used by the programs of both ends.
    pub fn spent(&self) -> Duration {
        let pids = [&self.fri, &self.mon].into_iter().flat_map(|host| host.processes());
        pids.map(machine::spent).sum()
    }

    /// Memory of the end that uses more.
    pub fn memory(&self) -> Memory {
        let of = |host: &Host| {
            host.processes().into_iter().map(machine::memory).fold(Memory::default(), |a, b| a + b)
        };
        let [fri, mon] = [of(&self.fri), of(&self.mon)];
        if fri.resident > mon.resident { fri } else { mon }
    }

    /// Packets and bytes that fri has sent on the path.
    pub fn outgoing(&self) -> Result<(u64, u64), Error> {
        let file = format!("/proc/{}/net/dev", self.fri.pid());
        let text = std::fs::read_to_string(&file).map_err(|error| Error::new(format!("{file}: {error}")))?;
        sent(&text, "eth0").ok_or_else(|| Error::new(format!("{file}: no eth0 in {text}")))
    }
}

/// Packets and bytes sent by an interface: its name and a colon are followed by eight numbers about received traffic, then by these, bytes first.
fn sent(text: &str, interface: &str) -> Option<(u64, u64)> {
    let mut rows = text.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = rows.find(|(name, _)| name.trim() == interface)?;
    let mut numbers = numbers.split_whitespace().skip(8).map(str::parse);
    let (bytes, packets) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((packets, bytes))
}

/// Retries until it succeeds. Fails if a program ends meanwhile, or on timeout.
fn wait(
    world: &mut World,
    begin: Instant,
    on: &str,
    attempt: impl Fn(&World) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Err(error) = attempt(world) {
        if let Some(ended) = world.ended() {
            return Err(Error::new(ended));
        }
        if begin.elapsed() > PATIENCE {
            return Err(world.with_logs(on, &error));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
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
