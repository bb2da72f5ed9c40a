//! The demonstration: a link between two hosts, from nothing to nothing.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tund_lab::{Error, Host, Net, Process, probe, rights};

use crate::link;

/// Longer than a link needs on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
const TRANSFER: Duration = Duration::from_secs(2);
const PINGS: u16 = 20;

/// Which link is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Routed.
    Tun,
    /// Bridged.
    Tap,
}

/// One end's example file.
struct Example {
    name: &'static str,
    text: &'static str,
}

/// What differs between the two links.
struct Scene {
    title: &'static str,
    drawing: &'static str,
    fri: Example,
    mon: Example,
    /// A script that mon's file names, and its text.
    script: Option<Example>,
    source: Ipv4Addr,
    target: Ipv4Addr,
}

fn scene(mode: Mode) -> Scene {
    match mode {
        Mode::Tun => Scene {
            title: "a routed link (tun): two networks, joined over the Internet",
            drawing: "
   192.168.76.0/24                                              192.168.66.0/24
        |                                                              |
       fri  198.51.100.2 ---------- (Internet) ---------- 203.0.113.2  mon
          \\__ 192.168.86.81 ========== tund ========== 192.168.86.18 __/",
            fri: Example { name: "tun-fri-mon", text: include_str!("../../examples/tun-fri-mon.toml") },
            mon: Example { name: "tun-mon-fri", text: include_str!("../../examples/tun-mon-fri.toml") },
            script: None,
            source: Ipv4Addr::new(192, 168, 76, 1),
            target: Ipv4Addr::new(192, 168, 66, 1),
        },
        Mode::Tap => Scene {
            title: "a bridged link (tap): fri becomes a host of mon's Ethernet segment",
            drawing: "
                                                              192.168.87.0/24
                                                                     |
       fri  198.51.100.2 ---------- (Internet) ---------- 203.0.113.2  mon  br0 -- pc .18
          \\__ 192.168.87.81 ========== tund ==================== tap0 __/",
            fri: Example { name: "tap-fri-mon", text: include_str!("../../examples/tap-fri-mon.toml") },
            mon: Example { name: "tap-mon-fri", text: include_str!("../../examples/tap-mon-fri.toml") },
            script: Some(Example {
                name: "tap-server.up",
                text: include_str!("../../examples/tap-server-ip.up"),
            }),
            source: Ipv4Addr::new(192, 168, 87, 81),
            target: Ipv4Addr::new(192, 168, 87, 18),
        },
    }
}

/// Shows the link; an error says which part failed.
pub fn run(mode: Mode) -> Result<(), Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    rights::check_tun()?;
    let scene = scene(mode);
    println!("tund demo: {}\n{}\n", scene.title, scene.drawing);

    let world = World::new(mode)?;
    let dir = world.net.dir().to_owned();
    let result = world.show(&scene);
    drop(world);
    result?;
    if dir.exists() {
        return Err(Error::new(format!("{} is left", dir.display())));
    }
    println!("  hosts and files removed: nothing is left");
    Ok(())
}

/// fri, mon, the router between them, and a host behind mon. Fields drop in order: the net last.
struct World {
    fri: Host,
    mon: Host,
    pc: Host,
    _internet: Host,
    /// The daemon's program: this one under another name.
    tund: PathBuf,
    net: Net,
}

impl World {
    fn new(mode: Mode) -> Result<Self, Error> {
        let net = Net::new()?;
        let (fri, mon, pc) = (net.host("fri")?, net.host("mon")?, net.host("pc")?);
        let internet = net.host("internet")?;
        let connect = |host: &Host, name: &str, own: &str, gateway: &str| {
            net.cable(host, "eth0", &internet, name)?;
            host.run(&format!("ip addr add {own}/24 dev eth0"))?;
            internet.run(&format!("ip addr add {gateway}/24 dev {name}"))?;
            host.run(&format!("ip route add default via {gateway}"))
        };
        connect(&fri, "west", "198.51.100.2", "198.51.100.1")?;
        connect(&mon, "east", "203.0.113.2", "203.0.113.1")?;
        internet.sysctl("net/ipv4/ip_forward", "1")?;
        fri.add_name("203.0.113.2", "mon.tn")?;
        mon.add_name("198.51.100.2", "fri.tn")?;

        net.cable(&mon, "lan0", &pc, "eth0")?;
        match mode {
            Mode::Tun => {
                mon.run("ip addr add 192.168.66.1/24 dev lan0")?;
                fri.run("ip link add lan0 type veth peer name lan1")?;
                fri.run("ip link set lan1 up")?;
                fri.run("ip link set lan0 up")?;
                fri.run("ip addr add 192.168.76.1/24 dev lan0")?;
            }
            Mode::Tap => {
                mon.run("ip link add br0 type bridge")?;
                mon.run("ip link set br0 up")?;
                mon.run("ip link set lan0 master br0")?;
                pc.run("ip addr add 192.168.87.18/24 dev eth0")?;
            }
        }
        let tund = link::program(&net)?;
        Ok(Self { fri, mon, pc, _internet: internet, tund, net })
    }

    fn show(&self, scene: &Scene) -> Result<(), Error> {
        let before = [self.fri.interfaces()?, self.mon.interfaces()?];
        let (mut mon, mut fri) = self.start(scene)?;
        self.measure(scene)?;

        println!("\nGoing down (SIGTERM):");
        for (host, process) in [(&self.fri, &mut fri), (&self.mon, &mut mon)] {
            let mark = process.mark();
            let code = process.terminate(PATIENCE)?;
            show_lines(host, &process.lines()[mark..]);
            if code != 0 {
                return Err(Error::new(format!("tund on {} ended with code {code}", host.name())));
            }
        }
        let after = [self.fri.interfaces()?, self.mon.interfaces()?];
        if before != after {
            return Err(Error::new(format!("devices before {before:?}, after {after:?}")));
        }
        for host in [&self.fri, &self.mon] {
            let routes = host.run("ip route show table all")?;
            if routes.contains("192.168.86.") || !host.processes().is_empty() {
                return Err(Error::new(format!("left on {}: {routes} {:?}", host.name(), host.processes())));
            }
        }
        println!("  devices, routes and processes are gone on both hosts");
        Ok(())
    }

    /// Key, files, and both daemons until the link is up.
    fn start(&self, scene: &Scene) -> Result<(Process, Process), Error> {
        let key = self.fri.dir().join("static.key");
        self.fri.run(&format!("{} genkey -o {}", self.tund.display(), key.display()))?;
        copy(&key, &self.mon.dir().join("static.key"))?;
        println!("The key, made once and copied to both:   tund genkey -o static.key\n");
        if let Some(script) = &scene.script {
            let path = self.mon.file(script.name, script.text)?;
            executable(&path)?;
        }
        show_files(scene);
        let mon = self.start_end(&self.mon, &scene.mon)?;
        let fri = self.start_end(&self.fri, &scene.fri)?;
        fri.wait_line("link up", PATIENCE)?;
        mon.wait_line("link up", PATIENCE)?;
        println!("\nThe link comes up; on each host: tund --config FILE --verb 3");
        show_lines(&self.mon, &mon.lines());
        show_lines(&self.fri, &fri.lines());
        Ok((mon, fri))
    }

    fn start_end(&self, host: &Host, example: &Example) -> Result<Process, Error> {
        let path = host.file(&format!("{}.toml", example.name), example.text)?;
        host.tund(&self.tund, &path, &["--verb", "3"])
    }

    fn measure(&self, scene: &Scene) -> Result<(), Error> {
        let Scene { source, target, .. } = *scene;
        let far =
            if self.pc.run("ip -brief addr")?.contains(&target.to_string()) { &self.pc } else { &self.mon };
        println!("\nThrough the link, {source} on fri to {target} on {}:", far.name());
        let pings = probe::ping(&self.fri, source, target, PINGS)?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "  ping  {} of {} answered, round trip {:.2} / {:.2} / {:.2} ms (min/avg/max)",
            pings.times.len(),
            pings.sent,
            ms(pings.min()),
            ms(pings.mean()),
            ms(pings.max())
        );
        if pings.times.len() < usize::from(PINGS) / 2 {
            return Err(Error::new("too few pings were answered"));
        }
        let rate = probe::throughput(&self.fri, far, source, target, TRANSFER)?;
        println!("  TCP   {:.0} Mbit/s over {} s", rate / 1e6, TRANSFER.as_secs());
        Ok(())
    }
}

/// The two files side by side, without their comments.
fn show_files(scene: &Scene) {
    let lines = |host: &str, example: &Example| -> Vec<String> {
        let meant = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let bare = |line: &str| line.split("  #").next().unwrap_or(line).trim_end().to_owned();
        let title = format!("# {}.toml on {host}", example.name);
        std::iter::once(title).chain(example.text.lines().filter(meant).map(bare)).collect()
    };
    let (left, right) = (lines("fri", &scene.fri), lines("mon", &scene.mon));
    for at in 0..left.len().max(right.len()) {
        let line = |side: &[String]| side.get(at).cloned().unwrap_or_default();
        println!("{}", format!("    {:<36}{}", line(&left), line(&right)).trim_end());
    }
}

/// The log, without dates and without what explains itself; notes on the files have no date.
fn show_lines(host: &Host, lines: &[String]) {
    const DATE: usize = "2026-01-01 00:00:00 ".len();
    const PLAIN: [&str; 4] = ["net.core.", "must be proven", "ip link set", "SIGTERM"];
    let is_dated = |line: &&String| line.get(4..5) == Some("-");
    let tells = |text: &&str| !PLAIN.iter().any(|part| text.contains(part));
    for text in lines.iter().filter(is_dated).filter_map(|line| line.get(DATE..)).filter(tells) {
        println!("  {}  {text}", host.name());
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(|_| ()).map_err(|error| Error::new(format!("{}: {error}", to.display())))
}

fn executable(path: &Path) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| Error::new(format!("{}: {error}", path.display())))
}
