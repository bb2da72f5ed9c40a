//! Shared by all topologies: two hosts, their configurations, and the daemon.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tund_lab::{Host, Net, Process, Wire, wait_until};

/// The daemon under test.
pub const TUND: &str = env!("CARGO_BIN_EXE_tund");
/// Longer than anything here takes on a busy machine; nothing waits for it to elapse.
pub const SOON: Duration = Duration::from_secs(20);
/// Log line of an end whose peer answers and matches.
pub const UP: &str = "link up with";
/// Log line of an end that has lost its peer.
pub const DOWN: &str = "link down";

/// fri and mon. Fields drop in order: the world last.
pub struct Pair {
    /// Has the remote.
    pub fri: Host,
    /// Waits on port 1417.
    pub mon: Host,
    pub net: Net,
}

/// ```text
///  fri 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon      (also fd99::1 and fd99::2)
/// ```
pub fn pair() -> Pair {
    let pair = Pair::unplugged();
    pair.net.cable(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
    pair.address();
    pair
}

/// The same with a wire controlled by the test.
pub fn wired() -> (Wire, Pair) {
    let pair = Pair::unplugged();
    let wire = pair.net.wire(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
    pair.address();
    (wire, pair)
}

impl Pair {
    /// Two hosts with the same key and no network.
    pub fn unplugged() -> Self {
        let net = Net::new().unwrap();
        let (fri, mon) = (net.host("fri").unwrap(), net.host("mon").unwrap());
        let key = fri.dir().join("static.key");
        assert!(Command::new(TUND).args(["genkey", "-o"]).arg(&key).status().unwrap().success());
        fs::copy(&key, mon.dir().join("static.key")).unwrap();
        Self { fri, mon, net }
    }

    /// Gives the cable's ends their addresses.
    pub fn address(&self) {
        for (host, last) in [(&self.fri, 1), (&self.mon, 2)] {
            give(host, &format!("10.0.0.{last}/24"), &format!("fd99::{last}/64"));
        }
        await_address(&self.fri, "fd99::1");
        await_address(&self.mon, "fd99::2");
    }

    /// Starts fri with this configuration, named `fri`.
    pub fn start_fri(&self, config: &Toml) -> Process {
        start(&self.fri, "fri", &config.text())
    }

    /// Starts mon with this configuration, named `mon`.
    pub fn start_mon(&self, config: &Toml) -> Process {
        start(&self.mon, "mon", &config.text())
    }

    /// Starts both and waits until both say that the link is up.
    pub fn link(&self, fri: &Toml, mon: &Toml) -> (Process, Process) {
        let (mon, fri) = (self.start_mon(mon), self.start_fri(fri));
        fri.wait_line(UP, SOON).unwrap();
        mon.wait_line(UP, SOON).unwrap();
        (fri, mon)
    }
}

/// Starts tund on `host` with `text` as the file `NAME.toml`.
pub fn start(host: &Host, name: &str, text: &str) -> Process {
    start_with(host, name, text, &[])
}

/// The same with further arguments.
pub fn start_with(host: &Host, name: &str, text: &str, arguments: &[&str]) -> Process {
    let file = host.file(&format!("{name}.toml"), text).unwrap();
    host.tund(Path::new(TUND), &file, arguments).unwrap()
}

/// Writes an executable shell script to the host's directory.
pub fn script(host: &Host, name: &str, body: &str) -> PathBuf {
    let path = host.dir().join(name);
    tund_lab::write_script(&path, &format!("#!/bin/sh\n{body}\n")).unwrap();
    path
}

/// Waits until nothing is left of a killed tund: it releases its socket last.
pub fn wait_gone(host: &Host) {
    let gone = || {
        let devices = host.interfaces().is_ok_and(|names| !names.iter().any(|name| name == "tun0"));
        devices && host.processes().is_empty() && host.run("ss -Hlun").is_ok_and(|sockets| sockets.is_empty())
    };
    wait_until("tund gone", SOON, gone).unwrap();
}

/// The exit code of a program that exits on its own.
pub fn exit_code(process: &mut Process) -> i32 {
    process.code(SOON).unwrap()
}

/// A configuration in tables, each a string of lines.
#[derive(Clone)]
pub struct Toml {
    pub top: String,
    pub key: String,
    pub device: String,
    pub rest: String,
}

impl Toml {
    /// fri's end of a routed link: 192.168.86.81, peer .18, device tun0.
    pub fn tun_fri() -> Self {
        Self::new(
            "remote = '10.0.0.2:1417'",
            "",
            "mode = 'tun'\nname = 'tun0'\naddress = '192.168.86.81'\npeer = '192.168.86.18'",
        )
    }

    /// mon's end of a routed link, waiting on port 1417.
    pub fn tun_mon() -> Self {
        Self::new(
            "listen = 1417",
            "",
            "mode = 'tun'\nname = 'tun0'\naddress = '192.168.86.18'\npeer = '192.168.86.81'",
        )
    }

    /// fri's end of a bridged link, device tap0, in bridge br0.
    pub fn tap_fri() -> Self {
        Self::new("remote = '10.0.0.2:1418'", "direction = 0", "mode = 'tap'\nname = 'tap0'\nbridge = 'br0'")
    }

    /// mon's end of a bridged link, waiting on port 1418.
    pub fn tap_mon() -> Self {
        Self::new("listen = 1418", "direction = 1", "mode = 'tap'\nname = 'tap0'\nbridge = 'br0'")
    }

    fn new(top: &str, key: &str, device: &str) -> Self {
        let key = format!("file = 'static.key'\nmode = 'static'\n{key}");
        Self { top: top.into(), key, device: device.into(), rest: String::new() }
    }

    /// Uses handshake keys instead of static ones.
    pub fn handshake(mut self) -> Self {
        self.key = self.key.replace("mode = 'static'", "mode = 'handshake'");
        self
    }

    /// Appends tables.
    pub fn with(mut self, text: &str) -> Self {
        self.rest.push_str(text);
        self.rest.push('\n');
        self
    }

    /// Replaces the first part.
    pub fn top(mut self, text: &str) -> Self {
        self.top = text.into();
        self
    }

    /// Replaces `[device]`.
    pub fn device(mut self, text: &str) -> Self {
        self.device = text.into();
        self
    }

    /// The whole file.
    pub fn text(&self) -> String {
        let Self { top, key, device, rest } = self;
        format!("{top}\n[key]\n{key}\n[device]\n{device}\n{rest}\n")
    }
}

/// Sends ten pings, of which nine must be answered, in at most three attempts: the hosts share a busy machine, and a new link may
/// delay the first ones. With a deadline, ping continues until it has ten answers; without one it waits for the last answers at most
/// two round trips.
pub fn assert_pings(host: &Host, options: &str) {
    let mut text = String::new();
    for _ in 0..3 {
        text = match host.run(&format!("ping -n -c 10 -i 0.03 -w 4 {options}")) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        let of_the_first = (1..=10).filter(|number| text.contains(&format!("icmp_seq={number} "))).count();
        if of_the_first >= 9 {
            return;
        }
    }
    panic!("{text}");
}

/// The number of answered pings, by ping(8).
pub fn answered(text: &str) -> u32 {
    let before = text.split(" received").next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Frames that the device has received (`rx`) and sent (`tx`), by the host's counters.
pub fn counters(host: &Host, device: &str) -> (u64, u64) {
    let text = host.run(&format!("ip -s link show {device}")).unwrap();
    let count = |after: &str| {
        let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(after)).skip(1);
        lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap()
    };
    (count("RX:"), count("TX:"))
}

/// Datagrams that an end has dropped for a reason, from its statistics.
pub fn dropped(process: &Process, reason: &str) -> u64 {
    let mark = process.mark();
    process.signal(Signal::USR2).unwrap();
    let line = process.wait_line_after(mark, "dropped", SOON).unwrap();
    let after = line.split(reason).nth(1).unwrap_or_default();
    let number: String =
        after.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    if line.contains(reason) { number.parse().unwrap_or(0) } else { 0 }
}

/// Resident memory of a host's processes in KiB.
pub fn resident(host: &Host) -> u64 {
    let resident = |pid: u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    host.processes().into_iter().filter_map(resident).sum()
}

/// Routes of a host, both families, except those added by the kernel.
pub fn routes(host: &Host) -> String {
    let own = |text: String| -> String {
        text.lines().filter(|line| !line.contains("proto kernel")).map(|line| format!("{line}\n")).collect()
    };
    own(host.run("ip route show table all").unwrap()) + &own(host.run("ip -6 route show table all").unwrap())
}

/// Waits until the kernel uses an IPv6 address: it starts that asynchronously, late on a busy machine.
pub fn await_address(host: &Host, address: &str) {
    let digits: String =
        address.parse::<Ipv6Addr>().unwrap().octets().map(|byte| format!("{byte:02x}")).concat();
    // Destination, its length, source, its length, next hop, metric, references, uses, flags: RTF_LOCAL is the first bit.
    let is_used = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[..2] == [&digits, "80"] && words[8].starts_with('8')
    };
    let is_there = || host.proc_net("ipv6_route").unwrap().lines().any(is_used);
    wait_until(address, SOON, is_there).unwrap();
}

/// Gives eth0 an address of each family.
fn give(host: &Host, v4: &str, v6: &str) {
    host.ip(&[&format!("addr add {v4} dev eth0"), &format!("addr add {v6} dev eth0 nodad")]).unwrap();
}

/// Makes a bridge br0 in a host, and a host behind it at `10.5.0.N`.
pub fn bridge_with_host(pair: &Pair, gate: &Host, name: &str, last: u8) -> Host {
    let behind = pair.net.host(name).unwrap();
    gate.ip(&["link add br0 type bridge", "link set br0 up"]).unwrap();
    pair.net.cable(gate, "lan0", &behind, "eth0").unwrap();
    gate.run("ip link set lan0 master br0").unwrap();
    give(&behind, &format!("10.5.0.{last}/24"), &format!("fd05::{last}/64"));
    await_address(&behind, &format!("fd05::{last}"));
    behind
}

/// A DHCP server on `eth0` for 10.5.0.100 to 10.5.0.110, with more dnsmasq options.
pub fn serve_dhcp(host: &Host, more: &[&str]) -> Process {
    let leases = format!("--dhcp-leasefile={}", host.dir().join("leases").display());
    let usual = [
        "dnsmasq",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=eth0",
        "--bind-interfaces",
        "--dhcp-range=10.5.0.100,10.5.0.110,10m",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        &leases,
    ];
    let server = host.spawn(&[&usual, more].concat()).unwrap();
    server.wait_line("DHCP, IP range", SOON).unwrap();
    server
}

/// `a` gets an address from the DHCP server for `b`'s segment.
pub fn assert_leases(a: &Host, b: &Host) {
    a.run("ip addr flush dev eth0").unwrap();
    let _server = serve_dhcp(b, &["--log-dhcp"]);
    let take = script(a, "lease", "[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface; exit 0");
    a.run(&format!("udhcpc -f -q -n -t 8 -T 1 -i eth0 -s {}", take.display())).unwrap();
    let addresses = a.run("ip -4 -brief addr show eth0").unwrap();
    assert!(addresses.contains("10.5.0.10") || addresses.contains("10.5.0.11"), "{addresses}");
}

/// Bytes in a stream.
pub const STREAM: usize = 2_000_000;

/// Sends bytes from a host to an address of another; returns how many arrived.
pub fn stream(from: &Host, to: &Host, address: &str) -> usize {
    let listener = to.within(|| TcpListener::bind("[::]:0")).unwrap().unwrap();
    let target = (address, listener.local_addr().unwrap().port());
    let mut sender = from.within(|| TcpStream::connect(target)).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    sender.set_write_timeout(Some(SOON)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&vec![7; STREAM]).unwrap());
        let mut bytes = Vec::new();
        receiver.read_to_end(&mut bytes).unwrap();
        bytes.len()
    })
}
