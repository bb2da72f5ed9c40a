//! The laboratory itself: what its handles promise.

#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::time::Duration;

use tund_lab::frame::{Datagram, ethernet};
use tund_lab::{Net, Side, probe};

const SOON: Duration = Duration::from_secs(5);

/// fri 10.0.0.1 ---- 10.0.0.2 mon, by veth.
#[test]
fn a_cable_carries_ping_and_tcp() {
    let net = Net::new().unwrap();
    let (fri, mon) = (net.host("fri").unwrap(), net.host("mon").unwrap());
    net.cable(&fri, "eth0", &mon, "eth0").unwrap();
    fri.run("ip addr add 10.0.0.1/24 dev eth0").unwrap();
    mon.run("ip addr add 10.0.0.2/24 dev eth0").unwrap();
    let [here, there] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    let pings = probe::ping(&fri, here, there, 3).unwrap();
    assert_eq!((pings.sent, pings.times.len()), (3, 3));
    assert!(pings.min() <= pings.mean() && pings.mean() <= pings.max());
    let unanswered = probe::ping(&fri, here, "10.0.0.9".parse().unwrap(), 1).unwrap();
    assert_eq!(unanswered.times, []);
    let rate = probe::throughput(&fri, &mon, here, there, Duration::from_millis(200)).unwrap();
    assert!(rate > 1e6, "{rate} bit/s");
}

/// fri 10.0.0.1 ==== wire ==== 10.0.0.2 mon: the wire sees, loses and invents frames.
#[test]
fn a_wire_is_in_the_hands_of_the_test() {
    let net = Net::new().unwrap();
    let (fri, mon) = (net.host("fri").unwrap(), net.host("mon").unwrap());
    let wire = net.wire(&fri, "eth0", &mon, "eth0").unwrap();
    fri.run("ip addr add 10.0.0.1/24 dev eth0").unwrap();
    mon.run("ip addr add 10.0.0.2/24 dev eth0").unwrap();
    let receiver = mon.within(|| std::net::UdpSocket::bind("10.0.0.2:2000")).unwrap().unwrap();
    let sender = fri.within(|| std::net::UdpSocket::bind("10.0.0.1:1000")).unwrap().unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let mut buffer = [0; 64];

    wire.record();
    sender.send_to(b"hello", "10.0.0.2:2000").unwrap();
    assert_eq!(receiver.recv_from(&mut buffer).unwrap(), (5, "10.0.0.1:1000".parse().unwrap()));
    let crossed = wire.take();
    let seen = crossed.iter().find_map(|frame| Datagram::parse(&frame.bytes)).unwrap();
    assert_eq!(seen.payload, b"hello");

    wire.set_filter(|_| Vec::new());
    sender.send_to(b"lost", "10.0.0.2:2000").unwrap();
    let mut invented = seen;
    invented.payload = b"invented".to_vec();
    invented.from = "10.9.9.9:9".parse().unwrap();
    wire.inject(Side::B, &invented.to_frame()).unwrap();
    assert_eq!(receiver.recv_from(&mut buffer).unwrap(), (8, "10.9.9.9:9".parse().unwrap()));
    assert_eq!(&buffer[..8], b"invented");
}

/// host h: two ports of a bridge.
#[test]
fn ports_of_a_bridge_exchange_any_frames() {
    let net = Net::new().unwrap();
    let host = net.host("h").unwrap();
    host.run("ip link add br0 type bridge").unwrap();
    host.run("ip link set br0 up").unwrap();
    let (left, right) = (host.port("left").unwrap(), host.port("right").unwrap());
    for port in ["left", "right"] {
        host.run(&format!("ip link set {port} master br0")).unwrap();
    }
    assert_eq!(host.interfaces().unwrap(), ["br0", "left", "lo", "right"]);
    let frame = ethernet([0xff; 6], [2, 0, 0, 0, 0, 1], 0x8100, &[0, 5, 0x12, 0x34, 1, 2, 3]);
    left.send(&frame).unwrap();
    assert_eq!(right.wait_frame(SOON, |seen| seen == frame), Some(frame.clone()));
    assert!(!left.frames(Duration::from_millis(50)).contains(&frame), "came back to its sender");
}

#[test]
fn names_of_one_host_are_unknown_to_another() {
    let net = Net::new().unwrap();
    let (fri, mon) = (net.host("fri").unwrap(), net.host("mon").unwrap());
    fri.add_name("10.0.0.2", "mon.tn").unwrap();
    assert!(fri.run("getent hosts mon.tn").unwrap().contains("10.0.0.2"));
    assert!(mon.run("getent hosts mon.tn").is_err());
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("mon.tn"));
}

#[test]
fn a_failed_command_shows_host_command_and_message() {
    let net = Net::new().unwrap();
    let error = net.host("fri").unwrap().run("ip link set nothing up").unwrap_err().to_string();
    assert!(error.contains("fri: ip link set nothing up") && error.contains("nothing"), "{error}");
}

#[test]
fn nothing_is_left_of_a_world() {
    let net = Net::new().unwrap();
    let dir = net.dir().to_owned();
    let host = net.host("fri").unwrap();
    let mut stray = host.spawn(&["sh", "-c", "setsid sleep 60 & echo started"]).unwrap();
    stray.wait_line("started", SOON).unwrap();
    stray.wait(SOON).unwrap();
    let mut pids = host.processes();
    assert_eq!(pids.len(), 1, "the sleeper that nobody waits for");
    pids.push(host.pid());
    drop(host);
    drop(net);
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}/ns/net")).exists(), "process {pid} is left");
    }
    assert!(!dir.exists());
}
