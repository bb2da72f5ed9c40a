//! A comparison anybody can repeat: the bare path, the kernel's VXLAN without encryption, and tund's tun
//! and tap links, between the same two hosts, in turn.

use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use tund_lab::{Error, Host, Net, Process, probe, rights};

/// How long a link may take to come up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The line of an end that is up.
pub(crate) const UP: &str = "link up with";
const TRANSFER: Duration = Duration::from_secs(2);
const PINGS: u16 = 100;

/// One way between the hosts, and what was measured on it.
struct Path {
    name: &'static str,
    fri: Ipv4Addr,
    mon: Ipv4Addr,
    rates: Vec<f64>,
    times: Vec<Duration>,
}

impl Path {
    fn new(name: &'static str, net: u8) -> Self {
        let [fri, mon] = [81, 18].map(|host| Ipv4Addr::new(192, 168, net, host));
        Self { name, fri, mon, rates: Vec::new(), times: Vec::new() }
    }
}

/// One of tund's links.
pub(crate) struct Link {
    pub(crate) title: &'static str,
    name: &'static str,
    mode: &'static str,
    key_mode: &'static str,
    pub(crate) port: u16,
    net: u8,
}

impl Link {
    /// The addresses of fri and of mon inside it.
    pub(crate) fn addresses(&self) -> [Ipv4Addr; 2] {
        [81, 18].map(|host| Ipv4Addr::new(192, 168, self.net, host))
    }
}

pub(crate) const LINKS: [Link; 3] = [
    Link { title: "tund tun", name: "tun", mode: "tun", key_mode: "handshake", port: 1417, net: 86 },
    Link { title: "tund tap", name: "tap", mode: "tap", key_mode: "handshake", port: 1661, net: 87 },
    Link {
        title: "tund tun, static keys",
        name: "static",
        mode: "tun",
        key_mode: "static",
        port: 1418,
        net: 88,
    },
];

/// Measures `rounds` times in turn and prints medians.
pub fn run(rounds: usize) -> Result<(), Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    rights::check_tun()?;
    let net = Net::new()?;
    let (fri, mon) = (net.host("fri")?, net.host("mon")?);
    net.cable(&fri, "eth0", &mon, "eth0")?;
    fri.run("ip addr add 192.168.80.81/24 dev eth0")?;
    mon.run("ip addr add 192.168.80.18/24 dev eth0")?;
    let mut paths = vec![Path::new("bare path (veth)", 80)];
    if vxlan(&fri, 81, 18).and_then(|()| vxlan(&mon, 18, 81)).is_ok() {
        paths.push(Path::new("VXLAN, no encryption", 85));
    } else {
        println!("this kernel has no VXLAN: left out");
    }
    let _daemons = links(&net, &fri, &mon)?;
    paths.extend(LINKS.map(|link| Path::new(link.title, link.net)));

    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for path in &mut paths {
            path.rates.push(probe::throughput(&fri, &mon, path.fri, path.mon, TRANSFER)?);
            path.times.extend(probe::ping(&fri, path.fri, path.mon, PINGS)?.times);
        }
    }
    println!("\n| path | TCP, one stream, Mbit/s: median (least, most) | ping p50 | ping p99 |");
    println!("|---|--:|--:|--:|");
    for path in &mut paths {
        path.rates.sort_by(f64::total_cmp);
        path.times.sort();
        let rate = |index: usize| path.rates.get(index).map_or(0.0, |rate| rate / 1e6);
        let time =
            |percent: usize| path.times.get(path.times.len() * percent / 100).map_or(0, Duration::as_micros);
        println!(
            "| {} | {:.0} ({:.0}, {:.0}) | {} µs | {} µs |",
            path.name,
            rate(path.rates.len() / 2),
            rate(0),
            rate(path.rates.len().saturating_sub(1)),
            time(50),
            time(99)
        );
    }
    Ok(())
}

fn vxlan(host: &Host, own: u8, other: u8) -> Result<(), Error> {
    let ends = format!("local 192.168.80.{own} remote 192.168.80.{other}");
    host.run(&format!("ip link add vxlan0 type vxlan id 100 {ends} dstport 4789 dev eth0"))?;
    host.run(&format!("ip addr add 192.168.85.{own}/24 dev vxlan0"))?;
    host.run("ip link set vxlan0 up").map(drop)
}

/// All links at once, each on its port.
fn links(net: &Net, fri: &Host, mon: &Host) -> Result<Vec<Process>, Error> {
    let tund = install(net, fri, mon)?;
    let mut daemons = Vec::new();
    for host in [Place::Mon(mon), Place::Fri(fri)] {
        for link in &LINKS {
            daemons.push(link.start(&tund, host)?);
        }
    }
    for daemon in &daemons {
        daemon.wait_line(UP, PATIENCE)?;
    }
    Ok(daemons)
}

/// This program under the daemon's name, and a key on both hosts.
pub(crate) fn install(net: &Net, fri: &Host, mon: &Host) -> Result<PathBuf, Error> {
    let tund = net.dir().join("tund");
    let own = std::env::current_exe().map_err(|error| Error::new(format!("own program file: {error}")))?;
    symlink(own, &tund).map_err(|error| Error::new(format!("{}: {error}", tund.display())))?;
    let key = fri.dir().join("static.key");
    fri.run(&format!("{} genkey -o {}", tund.display(), key.display()))?;
    std::fs::copy(&key, mon.dir().join("static.key"))
        .map_err(|error| Error::new(format!("{}: {error}", key.display())))?;
    Ok(tund)
}

/// Which end of a link a host is.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// 81, has the remote.
    Fri(&'a Host),
    /// 18, waits.
    Mon(&'a Host),
}

impl Link {
    /// Starts one end.
    pub(crate) fn start(&self, tund: &std::path::Path, place: Place<'_>) -> Result<Process, Error> {
        let Self { name, mode, key_mode, port, net, .. } = self;
        let (host, own, other, outer) = match place {
            Place::Fri(host) => (host, 81, 18, format!("remote = \"192.168.80.18:{port}\"")),
            Place::Mon(host) => (host, 18, 81, format!("listen = {port}")),
        };
        let addresses = if *mode == "tun" {
            format!("address = \"192.168.{net}.{own}\"\npeer = \"192.168.{net}.{other}\"")
        } else {
            format!("address = \"192.168.{net}.{own}/24\"")
        };
        let text = format!(
            "{outer}\n[key]\nfile = \"static.key\"\nmode = \"{key_mode}\"\n\
             [device]\nmode = \"{mode}\"\n{addresses}\n"
        );
        let file = host.file(&format!("{name}.toml"), &text)?;
        host.tund(tund, &file, &[])
    }
}
