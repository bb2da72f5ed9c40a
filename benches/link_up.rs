//! How long a link takes to come up over a path with 50 ms round trip, with and without ML-KEM: two real ends, as root.
//!
//! ```text
//! cargo bench --bench link_up
//!
//!  fri 10.0.0.1 ==== 25 ms each way, held back by this program ==== 10.0.0.2 mon
//! ```
//!
//! Measured from fri's first datagram until both ends say that the link is up. The variants alternate, so that load on
//! the machine affects all. ML-KEM may add at most a tenth.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where something is wrong")]
#![allow(clippy::print_stdout, reason = "a program that talks to a person")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tund_lab::frame::Datagram;
use tund_lab::wire::Crossed;
use tund_lab::{Host, Net, Process, Side, Wire};

const TUND: &str = env!("CARGO_BIN_EXE_tund");
const ROUNDS: usize = 20;
/// One-way delay.
const DELAY: Duration = Duration::from_millis(25);
/// Largest ratio of the median with ML-KEM to that without.
const BOUND: f64 = 1.1;
const PATIENCE: Duration = Duration::from_secs(30);
const ARP: [u8; 2] = [8, 6];

/// Name, `key.post-quantum`, MTU of the path.
const WAYS: [(&str, bool, u16); 3] = [
    ("X25519", false, 1500),
    ("X25519 + ML-KEM-768", true, 1500),
    ("X25519 + ML-KEM-768, in parts", true, 1280),
];

fn main() -> ExitCode {
    let mut times = WAYS.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (way, times) in WAYS.iter().zip(&mut times) {
            times.push(link_up(way.1, way.2));
        }
    }
    println!("{:<32}{:>10}{:>10}{:>10}{:>8}", "", "median ms", "best ms", "worst ms", "ratio");
    times.iter_mut().for_each(|times| times.sort());
    let medians = times.each_ref().map(|times| times[ROUNDS / 2].as_secs_f64());
    for ((way, times), median) in WAYS.iter().zip(&times).zip(medians) {
        let [median_ms, best, worst] = [ROUNDS / 2, 0, ROUNDS - 1].map(|at| times[at].as_secs_f64() * 1e3);
        println!("{:<32}{median_ms:>10.1}{best:>10.1}{worst:>10.1}{:>8.3}", way.0, median / medians[0]);
    }
    if medians.iter().any(|median| *median > BOUND * medians[0]) {
        println!("more than {BOUND} times as long as without");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns the time that one link took.
fn link_up(post_quantum: bool, mtu: u16) -> Duration {
    let net = Net::new().unwrap();
    let hosts = [net.host("fri").unwrap(), net.host("mon").unwrap()];
    let wire = net.wire(&hosts[0], "eth0", &hosts[1], "eth0").unwrap();
    for (host, own) in hosts.iter().zip([1, 2]) {
        host.run(&format!("ip link set eth0 mtu {mtu}")).unwrap();
        host.run(&format!("ip addr add 10.0.0.{own}/24 dev eth0")).unwrap();
    }
    let key = hosts[0].dir().join("static.key");
    hosts[0].run(&format!("{TUND} genkey -o {}", key.display())).unwrap();
    std::fs::copy(&key, hosts[1].dir().join("static.key")).unwrap();
    let start = |end: usize, top: &str, own: &str, peer: &str| -> Process {
        let text = format!(
            "{top}\n[key]\nfile = 'static.key'\npost-quantum = {post_quantum}\n\
             [device]\naddress = '{own}'\npeer = '{peer}'\n"
        );
        start(&hosts[end], &text)
    };
    let mon = start(1, "listen = 1417", "192.168.86.18", "192.168.86.81");
    mon.wait_line("waiting", PATIENCE).unwrap();
    thread::scope(|scope| {
        let (begun, began) = mpsc::channel();
        let late = hold_back(&wire, begun);
        scope.spawn(|| {
            for (due, to, frame) in late {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // An end that is gone accepts no more.
                let _ = wire.inject(to, &frame);
            }
        });
        let fri = start(0, "remote = '10.0.0.2:1417'", "192.168.86.81", "192.168.86.18");
        for end in [&fri, &mon] {
            end.wait_line("link up with", PATIENCE).unwrap();
        }
        let took = began.recv().unwrap().elapsed();
        drop(fri);
        wire.clear_filter();
        took
    })
}

fn start(host: &Host, text: &str) -> Process {
    let file = host.file("link.toml", text).unwrap();
    host.tund(Path::new(TUND), &file, &[]).unwrap()
}

/// Holds frames back: each comes out here with the time when it is due, except ARP. `begun` gets the time of the first
/// host's first datagram.
fn hold_back(wire: &Wire, begun: mpsc::Sender<Instant>) -> mpsc::Receiver<(Instant, Side, Vec<u8>)> {
    let (sender, receiver) = mpsc::channel();
    let mut begun = Some(begun);
    wire.set_filter(move |frame: &Crossed| {
        let now = Instant::now();
        if frame.bytes.get(12..14) == Some(&ARP) {
            return vec![frame.bytes.clone()];
        }
        if frame.from == Side::A
            && Datagram::parse(&frame.bytes).is_some()
            && let Some(begun) = begun.take()
        {
            let _ = begun.send(now);
        }
        let _ = sender.send((now + DELAY, frame.from.other(), frame.bytes.clone()));
        Vec::new()
    });
    receiver
}
