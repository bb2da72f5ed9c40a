//! Segments joined twice, on real bridges.
//!
//! ```text
//!  a 10.5.0.1 -- br0 fri 10.0.0.1 ------------ 10.0.0.2 mon br0 -- b 10.5.0.2
//!                 | \__tap0 ============== tap0__/ |
//!                 \_____________ beside ___________/
//! ```

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use tund_lab::frame::ethernet;
use tund_lab::{Host, Process, Side, Wire};

use super::bridged::{knows, mac, mislead};
use super::support::*;

/// Longest interval between rounds of probes.
const ROUND: Duration = Duration::from_secs(2);
/// Longer than the minimum hold, even the second time.
const HELD: Duration = Duration::from_secs(120);
const LOOP: &str = "[loop]";
const OVER: &str = "[loop-over]";
const INSIDE: &str = "[loop-inside]";
/// Start of a probe after its addresses.
const PROBE: &[u8] = b"\x88\xb5tund";

/// Bridges in both hosts, and a silent host behind each.
fn sites(pair: &Pair) -> (Host, Host) {
    for host in [&pair.fri, &pair.mon] {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    }
    (bridge_with_host(pair, &pair.fri, "a", 1), bridge_with_host(pair, &pair.mon, "b", 2))
}

/// Joins two bridges by a cable.
fn cable(pair: &Pair, one: &Host, other: &Host, name: &str) {
    pair.net.cable(one, name, other, name).unwrap();
    for host in [one, other] {
        host.run(&format!("ip link set {name} master br0")).unwrap();
    }
}

/// A link with its own key between two bridges; `to` is the second host's address.
fn join(one: &Host, other: &Host, to: &str, number: u16) -> [Process; 2] {
    let key = one.dir().join(format!("{number}.key"));
    one.run(&format!("{TUND} genkey -o {}", key.display())).unwrap();
    fs::copy(&key, other.dir().join(format!("{number}.key"))).unwrap();
    let toml = |top: String, direction: u8| Toml {
        top,
        key: format!("file = '{number}.key'\nmode = 'static'\ndirection = {direction}"),
        device: format!("mode = 'tap'\nname = 'tap{number}'\nbridge = 'br0'"),
        rest: String::new(),
    };
    let name = format!("link{number}");
    let ends = [
        start(other, &name, &toml(format!("listen = {}", 1500 + number), 1).text()),
        start(one, &name, &toml(format!("remote = '{to}:{}'", 1500 + number), 0).text()),
    ];
    ends.iter().for_each(|end| drop(end.wait_line(UP, SOON).unwrap()));
    ends
}

/// Waits until exactly one link stays held, as both its ends say. If two find the loop at once, both hold at first.
fn held(links: &[[Process; 2]]) -> usize {
    let says = |end: &Process| end.text().matches(LOOP).count() > end.text().matches(OVER).count();
    let held =
        || -> Vec<_> { links.iter().map(|ends| ends.iter().filter(|end| says(end)).count()).collect() };
    let is_settled = || held().iter().all(|ends| ends % 2 == 0) && held().iter().sum::<usize>() == 2;
    let mut settled = None;
    tund_lab::wait_until("one link held", HELD, || {
        settled = settled.filter(|_| is_settled()).or_else(|| is_settled().then(Instant::now));
        settled.is_some_and(|at| at.elapsed() > ROUND * 2)
    })
    .unwrap_or_else(|_| panic!("{:?}", links.iter().flatten().map(Process::text).collect::<Vec<_>>()));
    held().iter().position(|ends| *ends == 2).unwrap()
}

/// Pings; no reply is duplicated. Without [`introduce`], the broadcast before tells the bridges where the hosts are.
fn assert_one_way(a: &Host) {
    a.run("ip neigh flush dev eth0").unwrap();
    let text = a.run("ping -n -c 10 -i 0.05 -w 20 10.5.0.2").unwrap();
    assert!(answered(&text) >= 9 && !text.contains("DUP!"), "{text}");
}

/// Gives the hosts static neighbour entries, so that only the bridges' tables lead to the other.
fn introduce(a: &Host, b: &Host) {
    for (host, (other, last)) in [(a, (b, 2)), (b, (a, 1))] {
        let mac = mac(other, "eth0");
        host.run(&format!("ip neigh replace 10.5.0.{last} lladdr {mac} dev eth0 nud permanent")).unwrap();
    }
}

/// Much sooner than a bridge forgets a host by itself.
fn assert_reaches(host: &Host, address: &str) {
    let reaches = || host.run(&format!("ping -n -c 1 -W 1 {address}")).is_ok();
    tund_lab::wait_until("an answer over the way that is open", SOON, reaches).unwrap();
}

#[test]
fn a_cable_beside_the_link_is_found_at_once_and_when_it_is_gone_frames_pass_again() {
    let pair = pair();
    let (a, b) = sites(&pair);
    let host = pair.fri.port("host").unwrap();
    pair.fri.run("ip link set host master br0").unwrap();
    let (fri, mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    introduce(&a, &b);
    assert_one_way(&a);
    cable(&pair, &pair.fri, &pair.mon, "beside");
    for end in [&fri, &mon] {
        end.wait_line(LOOP, ROUND * 2).unwrap();
    }
    assert_reaches(&a, "10.5.0.2");
    let status = super::operation::ask(&pair.fri, &["status", "fri"]).1;
    let problem = status.lines().find(|line| line.trim_start().starts_with("problem"));
    assert!(problem.is_some_and(|line| line.contains(LOOP)), "{status}");
    // A broadcast crosses the cable exactly once.
    let (before, _) = counters(&pair.mon, "beside");
    (0..5).for_each(|_| host.send(&ethernet([0xff; 6], [2, 0, 0, 0, 9, 1], 0x88b5, &[0; 46])).unwrap());
    std::thread::sleep(Duration::from_secs(1));
    let (after, _) = counters(&pair.mon, "beside");
    assert!(after - before < 50, "{} frames of five", after - before);
    assert_one_way(&a);
    pair.fri.run("ip link set beside down").unwrap();
    for end in [&fri, &mon] {
        end.wait_line(OVER, HELD).unwrap();
    }
    assert_one_way(&a);
    let marks = [&fri, &mon].map(Process::mark);
    pair.fri.run("ip link set beside up").unwrap();
    for (end, mark) in [&fri, &mon].into_iter().zip(marks) {
        end.wait_line_after(mark, LOOP, HELD).unwrap();
    }
    assert_reaches(&a, "10.5.0.2");
    assert_one_way(&a);
}

#[test]
fn of_two_links_in_parallel_and_of_three_in_a_ring_one_is_held() {
    let pair = pair();
    let (a, _b) = sites(&pair);
    let parallel = [join(&pair.fri, &pair.mon, "10.0.0.2", 1), join(&pair.fri, &pair.mon, "10.0.0.2", 2)];
    held(&parallel);
    assert_one_way(&a);
    drop(parallel);

    let tue = pair.net.host("tue").unwrap();
    tue.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    tue.run("ip link add br0 type bridge").unwrap();
    tue.run("ip link set br0 up").unwrap();
    for (host, third) in [(&pair.fri, 1), (&pair.mon, 2)] {
        let name = format!("eth{third}");
        pair.net.cable(host, &name, &tue, &name).unwrap();
        host.run(&format!("ip addr add 10.{third}.0.1/24 dev {name}")).unwrap();
        tue.run(&format!("ip addr add 10.{third}.0.2/24 dev {name}")).unwrap();
    }
    let ring = [
        join(&pair.fri, &pair.mon, "10.0.0.2", 3),
        join(&pair.mon, &tue, "10.2.0.2", 4),
        join(&pair.fri, &tue, "10.1.0.2", 5),
    ];
    held(&ring);
    assert_one_way(&a);
}

#[test]
fn a_loop_through_one_vlan_alone_is_found_once_that_is_in_use() {
    let pair = pair();
    sites(&pair);
    let host = pair.fri.port("host").unwrap();
    pair.fri.run("ip link set host master br0").unwrap();
    let wire = pair.net.wire(&pair.fri, "beside", &pair.mon, "beside").unwrap();
    wire.set_filter(|crossed| match crossed.bytes.get(12..16) {
        Some([0x81, 0, 0, 100]) => vec![crossed.bytes.clone()],
        _ => Vec::new(),
    });
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link set beside master br0").unwrap();
    }
    let (fri, mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    std::thread::sleep(ROUND * 2);
    assert!(!fri.text().contains(LOOP) && !mon.text().contains(LOOP), "nothing is in VLAN 100");
    let tagged = [&[0, 100, 8, 6][..], &[0; 46]].concat();
    host.send(&ethernet([2, 0, 0, 0, 9, 2], [2, 0, 0, 0, 9, 1], 0x8100, &tagged)).unwrap();
    for end in [&fri, &mon] {
        let line = end.wait_line(LOOP, ROUND * 2).unwrap();
        assert!(line.contains("VLAN 100"), "{line}");
    }
}

#[test]
fn where_a_spanning_tree_has_cut_the_loop_nothing_is_held() {
    let pair = pair();
    let (a, _b) = sites(&pair);
    for host in [&pair.fri, &pair.mon] {
        let tree = "stp_state 1 forward_delay 200 hello_time 100 max_age 600";
        host.run(&format!("ip link set br0 type bridge {tree}")).unwrap();
    }
    cable(&pair, &pair.fri, &pair.mon, "beside");
    let (fri, mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    let ports = || pair.fri.run("bridge link").unwrap() + &pair.mon.run("bridge link").unwrap();
    tund_lab::wait_until("the tree stands", SOON, || {
        let ports = ports();
        ports.matches("state forwarding").count() == 5 && ports.matches("state blocking").count() == 1
    })
    .unwrap();
    std::thread::sleep(ROUND * 3);
    assert_one_way(&a);
    for end in [&fri, &mon] {
        assert!(!end.text().contains("[loop"), "{}", end.text());
    }
    // Only the spanning tree hid it.
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link set br0 type bridge stp_state 0").unwrap();
    }
    fri.wait_line(LOOP, SOON).unwrap();
    mon.wait_line(LOOP, SOON).unwrap();
}

#[test]
fn a_peer_that_gives_probes_back_as_frames_lets_this_end_find_it() {
    let pair = pair();
    let (a, _b) = sites(&pair);
    let off = Toml::tap_mon().with("[guard]\nloop = false");
    let (fri, _mon) = pair.link(&Toml::tap_fri(), &off);
    std::thread::sleep(ROUND * 2);
    assert!(!fri.text().contains("[loop"), "{}", fri.text());
    cable(&pair, &pair.fri, &pair.mon, "beside");
    fri.wait_line(LOOP, ROUND * 2).unwrap();
    assert_one_way(&a);
}

#[test]
fn a_loop_around_a_link_to_an_openvpn_is_found() {
    tund_lab::rights::require("openvpn").unwrap();
    let pair = pair();
    let (a, _b) = sites(&pair);
    super::openvpn::keyed(&pair);
    let (fri, _mon) = super::openvpn::bridged_link(&pair);
    std::thread::sleep(ROUND * 2);
    assert!(!fri.text().contains("[loop"), "{}", fri.text());
    assert_one_way(&a);
    cable(&pair, &pair.fri, &pair.mon, "beside");
    fri.wait_line(LOOP, ROUND * 3).unwrap();
    assert_one_way(&a);
    pair.fri.run("ip link set beside down").unwrap();
    fri.wait_line(OVER, HELD).unwrap();
    assert_one_way(&a);
}

#[test]
fn a_loop_inside_one_segment_is_told_to_both_and_holds_nothing() {
    let pair = pair();
    sites(&pair);
    let ring = pair.net.wire(&pair.mon, "ring0", &pair.mon, "ring1").unwrap();
    let mut seen = HashSet::new();
    // Each frame goes round once; otherwise they would saturate the processor.
    ring.set_filter(move |crossed| {
        let goes = crossed.from == Side::A && seen.insert(crossed.bytes.clone());
        goes.then(|| crossed.bytes.clone()).into_iter().collect()
    });
    for port in ["ring0", "ring1"] {
        pair.mon.run(&format!("ip link set {port} master br0")).unwrap();
    }
    let ends = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    let ends = [ends.0, ends.1];
    ends.iter().for_each(|end| drop(end.wait_line(INSIDE, SOON).unwrap()));
    std::thread::sleep(ROUND * 2);
    ends.iter().for_each(|end| assert!(!end.text().contains(LOOP), "{}", end.text()));
}

#[test]
fn copies_of_a_probe_hold_nothing() {
    let pair = pair();
    let (a, _b) = sites(&pair);
    let [here, there] = [&pair.fri, &pair.mon].map(|host| {
        let port = host.port("evil").unwrap();
        host.run("ip link set evil master br0").unwrap();
        port
    });
    let (fri, mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    let is_probe = |frame: &[u8]| frame.get(12..18) == Some(PROBE);
    let probe = here.wait_frame(SOON, is_probe).unwrap();
    (0..2000).for_each(|_| here.send(&probe).unwrap());
    fri.wait_line(INSIDE, SOON).unwrap();
    mon.wait_line(INSIDE, SOON).unwrap();
    // A recording, and one with another round.
    std::thread::sleep(ROUND * 2);
    let mut forged = probe.clone();
    forged[29] ^= 1;
    for frame in [&probe, &forged] {
        (0..2000).for_each(|_| there.send(frame).unwrap());
        (0..2000).for_each(|_| here.send(frame).unwrap());
    }
    std::thread::sleep(ROUND);
    assert_one_way(&a);
    for end in [&fri, &mon] {
        assert!(!end.text().contains(LOOP), "{}", end.text());
        assert_eq!(end.text().matches(INSIDE).count(), 1, "said once: {}", end.text());
    }
}

/// Two links over two paths, and which one is held.
fn with_standby(pair: &Pair) -> (Wire, [[Process; 2]; 2], usize) {
    let way = pair.net.wire(&pair.fri, "way", &pair.mon, "way").unwrap();
    pair.fri.run("ip addr add 10.9.0.1/24 dev way").unwrap();
    pair.mon.run("ip addr add 10.9.0.2/24 dev way").unwrap();
    let links = [join(&pair.fri, &pair.mon, "10.0.0.2", 1), join(&pair.fri, &pair.mon, "10.9.0.2", 2)];
    let standby = held(&links);
    (way, links, standby)
}

fn wait_over(link: &[Process; 2], marks: [usize; 2]) {
    link.iter().zip(marks).for_each(|(end, mark)| drop(end.wait_line_after(mark, OVER, HELD).unwrap()));
}

#[test]
fn a_standby_takes_over_where_the_way_of_the_other_link_is_cut() {
    let (first, pair) = wired();
    let (a, b) = sites(&pair);
    let (second, links, standby) = with_standby(&pair);
    pair.fri.run("ip addr add 10.5.0.81/24 dev br0").unwrap();
    introduce(&a, &b);
    assert_reaches(&a, "10.5.0.2");
    let ours = mac(&pair.fri, "br0");
    mislead(&b, "eth0", &["10.5.0.81"]);
    let marks = links[standby].each_ref().map(Process::mark);
    [&second, &first][standby].set_filter(|_| Vec::new());
    wait_over(&links[standby], marks);
    assert_reaches(&a, "10.5.0.2");
    assert_reaches(&b, "10.5.0.1");
    tund_lab::wait_until("the announcement", SOON, || knows(&b, &["10.5.0.81"], &ours)).unwrap();
}

#[test]
fn a_standby_takes_over_where_the_other_link_is_killed() {
    let pair = pair();
    let (a, b) = sites(&pair);
    let (_second, mut links, standby) = with_standby(&pair);
    introduce(&a, &b);
    assert_reaches(&a, "10.5.0.2");
    let marks = links[standby].each_ref().map(Process::mark);
    let [_, fri] = &mut links[1 - standby];
    fri.kill();
    wait_over(&links[standby], marks);
    // The bridge at fri has lost the port, the one at mon has not; and a is silent.
    assert_reaches(&b, "10.5.0.1");
}
