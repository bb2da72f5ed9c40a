//! Links with several lanes, on multi-queue devices.
//!
//! ```text
//!  fri 10.0.0.1, fd99::1 ---- 10.0.0.2, fd99::2 mon
//! ```

use serde_json::Value;
use tund_lab::{Host, Process, wait_until};

use super::support::*;

/// Queues of a device, attached or not, including those for writing; `None`: it supports only one.
fn queues(host: &Host, device: &str) -> Option<u64> {
    let links: Value =
        serde_json::from_str(&host.run(&format!("ip -j -d link show {device}")).ok()?).unwrap();
    let details = &links[0]["linkinfo"]["info_data"];
    Some(details["numqueues"].as_u64()? + details["numdisabled"].as_u64()?)
}

fn lanes(toml: Toml, lanes: &str) -> Toml {
    toml.with(&format!("[tuning]\nlanes = {lanes}"))
}

const MODES: [fn(Toml) -> Toml; 2] = [|toml| toml, Toml::handshake];

/// Lanes that a host's link uses, and those with a way of their own.
fn used(host: &Host, name: &str) -> [Option<u64>; 2] {
    let status = super::operation::status(host, name);
    ["lanes", "lane_ways"].map(|key| status[key].as_u64())
}

fn wait_used(pair: &Pair, expected: [u64; 2]) {
    for (host, name) in [(&pair.fri, "fri"), (&pair.mon, "mon")] {
        let as_expected = || used(host, name) == expected.map(Some);
        wait_until(&format!("{expected:?} at {name}"), SOON, as_expected)
            .unwrap_or_else(|error| panic!("{error}: {:?}", used(host, name)));
    }
}

/// Sends echo requests in many flows, which the kernel spreads over the lanes; none is lost.
fn flows_pass(from: &Host, to: &str) {
    let pings = "for i in 1 2 3 4 5 6 7 8; do ping -n -q -c 5 -i 0.1 -w 10";
    let text = from.shell(&format!("{pings} {to} & done; wait")).unwrap();
    assert_eq!(text.matches("5 received").count(), 8, "{text}");
}

#[test]
fn each_end_has_a_queue_for_each_of_its_lanes_and_frames_pass() {
    let pair = pair();
    let (fri, mon) = (lanes(Toml::tun_fri().handshake(), "2"), lanes(Toml::tun_mon().handshake(), "4"));
    let _link = pair.link(&fri, &mon);
    assert_eq!((queues(&pair.fri, "tun0"), queues(&pair.mon, "tun0")), (Some(4), Some(8)));
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
}

/// Local ports of a host's connected UDP sockets.
fn ports(host: &Host) -> Vec<u16> {
    let sockets = host.run("ss -Hun state established").unwrap();
    let own = |line: &str| line.split_whitespace().nth(2)?.rsplit(':').next()?.parse().ok();
    sockets.lines().filter_map(own).collect()
}

#[test]
fn each_lane_goes_from_a_port_of_its_own_until_that_is_cut_and_again_afterwards() {
    // Everything, or long datagrams only.
    for (keys, what) in MODES.into_iter().zip(["", "udp length > 1000"]) {
        let pair = pair();
        let (fri, mon) = pair.link(&keys(lanes(Toml::tun_fri(), "2")), &keys(lanes(Toml::tun_mon(), "2")));
        wait_used(&pair, [2, 1]);
        let ports = ports(&pair.fri);
        assert_eq!(ports.len(), 2, "{ports:?}");
        let own = ports.into_iter().find(|port| *port != 1417).unwrap();
        flows_pass(&pair.fri, "192.168.86.18");
        assert_eq!(stream(&pair.mon, &pair.fri, "192.168.86.81"), STREAM);
        // The way of that lane is cut, but the link is not.
        let marks = [fri.mark(), mon.mark()];
        let _pings = pair.fri.spawn(&["ping", "-n", "-i", "0.2", "192.168.86.18"]).unwrap();
        for (hook, port) in [("input", "sport"), ("output", "dport")] {
            pair.mon
                .shell(&format!(
                    "nft add table inet t; nft 'add chain inet t {hook} {{ type filter hook {hook} priority 0; }}'; \
                     nft 'add rule inet t {hook} udp {port} {own} {what} drop'"
                ))
                .unwrap();
        }
        for (end, mark) in [&fri, &mon].into_iter().zip(marks) {
            end.wait_line_after(mark, "[lane-lost]", SOON).unwrap();
        }
        wait_used(&pair, [2, 0]);
        flows_pass(&pair.mon, "192.168.86.81");
        assert_eq!(stream(&pair.mon, &pair.fri, "192.168.86.81"), STREAM);
        assert!(![&fri, &mon].iter().any(|end| end.text().contains(DOWN)));
    }
}

#[test]
fn a_lane_may_have_a_thread_for_each_direction() {
    let pair = pair();
    let two = |toml: Toml| toml.handshake().with("[tuning]\nlanes = 2\nthreads = 2");
    let _link = pair.link(&two(Toml::tun_fri()), &two(Toml::tun_mon()));
    wait_used(&pair, [2, 1]);
    flows_pass(&pair.fri, "192.168.86.18");
    assert_eq!(stream(&pair.mon, &pair.fri, "192.168.86.81"), STREAM);
}

#[test]
fn lanes_are_left_when_the_link_ends_and_taken_again_with_the_next() {
    let pair = pair();
    let mon_toml = lanes(Toml::tun_mon().handshake(), "3");
    let (fri, mut mon) = pair.link(&lanes(Toml::tun_fri().handshake(), "3"), &mon_toml);
    wait_used(&pair, [3, 2]);
    let mark = fri.mark();
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    fri.wait_line_after(mark, DOWN, SOON).unwrap();
    wait_until("lane 0 alone", SOON, || used(&pair.fri, "fri") == [Some(1), Some(0)]).unwrap();
    let _mon = pair.start_mon(&mon_toml);
    fri.wait_line_after(mark, UP, SOON).unwrap();
    wait_used(&pair, [3, 2]);
    // New keys for all of them.
    for (host, name) in [(&pair.fri, "fri"), (&pair.mon, "mon")] {
        let directory = host.dir().join("run");
        host.run(&format!("env RUNTIME_DIRECTORY={} {TUND} rekey {name}", directory.display())).unwrap();
        flows_pass(host, if name == "fri" { "192.168.86.18" } else { "192.168.86.81" });
    }
    assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
}

#[test]
fn frames_pass_between_an_end_with_lanes_and_one_without() {
    let pair = pair();
    for host in [&pair.fri, &pair.mon] {
        assert_eq!(bridge(host), "");
    }
    let (fri, mon) = (lanes(Toml::tap_fri(), "'auto'").handshake(), Toml::tap_mon().handshake());
    let _link = pair.link(&fri, &mon);
    assert_eq!(queues(&pair.mon, "tap0"), None);
    assert_eq!([used(&pair.fri, "fri"), used(&pair.mon, "mon")], [[Some(1), Some(0)], [None, None]]);
    assert_pings(&pair.fri, "10.5.0.2");
}

/// With the address that the host's last one has.
fn bridge(host: &Host) -> String {
    let last =
        host.run("ip -4 -brief addr show eth0").unwrap().split("10.0.0.").nth(1).unwrap()[..1].to_owned();
    host.run("ip link add br0 type bridge").unwrap();
    host.run("ip link set br0 up").unwrap();
    host.run(&format!("ip addr add 10.5.0.{last}/24 dev br0")).unwrap()
}

#[test]
fn a_device_of_another_program_and_one_that_is_made_again_have_them_too() {
    let pair = pair();
    pair.mon.run("ip tuntap add dev tun0 mode tun multi_queue").unwrap();
    let (fri, mut mon) =
        pair.link(&lanes(Toml::tun_fri(), "3").handshake(), &lanes(Toml::tun_mon(), "3").handshake());
    assert_eq!((queues(&pair.fri, "tun0"), queues(&pair.mon, "tun0")), (Some(6), Some(6)));
    let mark = fri.mark();
    pair.fri.run("ip link del tun0").unwrap();
    fri.wait_line_after(mark, UP, SOON).unwrap();
    assert_eq!(queues(&pair.fri, "tun0"), Some(6));
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    assert_eq!(queues(&pair.mon, "tun0"), Some(0), "it is not tund's to remove");
    // A peer with only one lane works too.
    let mark = fri.mark();
    let _mon = pair.start_mon(&lanes(Toml::tun_mon(), "1").handshake());
    fri.wait_line_after(mark, UP, SOON).unwrap();
    assert_eq!(queues(&pair.mon, "tun0"), Some(1));
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_device_that_was_made_for_one_queue_is_refused_or_taken_as_it_is() {
    let pair = pair();
    pair.fri.run("ip tuntap add dev tun0 mode tun").unwrap();
    let mut fri = pair.start_fri(&lanes(Toml::tun_fri(), "2"));
    assert_eq!(exit_code(&mut fri), 69);
    let (_fri, _mon) =
        pair.link(&lanes(Toml::tun_fri(), "'auto'").handshake(), &lanes(Toml::tun_mon(), "2").handshake());
    assert_eq!(queues(&pair.fri, "tun0"), None);
    assert_pings(&pair.fri, "192.168.86.18");
}

/// Numbered datagrams in 64 flows, in both directions, once each has passed; reports how many came, and how many came
/// after a later one.
const FLOWS: &str = r#"
import selectors, socket, struct, sys, threading, time
own, peer = sys.argv[1:]
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
ready = selectors.DefaultSelector()
for port, flow in enumerate(flows, 5000):
    flow.bind((own, port))
    flow.connect((peer, port))
    flow.setblocking(False)
    ready.register(flow, selectors.EVENT_READ)
def send(numbers):
    for flow in flows:
        for number in numbers:
            try:
                flow.send(struct.pack("!I", number))
            except OSError:
                pass
def say():
    while len(last) < len(flows):
        send([0])
        time.sleep(0.05)
    for burst in range(500):
        send(range(8 * burst + 1, 8 * burst + 9))
        time.sleep(0.001)
last, came, late = {}, 0, 0
threading.Thread(target=say).start()
while found := ready.select(3):
    for key, _ in found:
        try:
            number, = struct.unpack("!I", key.fileobj.recv(9))
        except OSError:
            continue
        came += number > 0
        late += 0 < number <= last.get(key.fd, 0)
        last[key.fd] = max(number, last.get(key.fd, 0))
print(f"{came} came, {late} late")
"#;

/// The pid of an end's engine.
fn engine(host: &Host, end: &Process) -> String {
    let pid = end.pid();
    host.run(&format!("cat /proc/{pid}/task/{pid}/children")).unwrap().trim().to_owned()
}

/// Frames that the host received from its tunnel.
fn received(host: &Host) -> u64 {
    let links: Value = serde_json::from_str(&host.run("ip -s -j link show tun0").unwrap()).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn flows_that_are_busy_both_ways_keep_their_order() {
    let pair = pair();
    let four = |toml: Toml| lanes(toml.handshake(), "4");
    let (fri, mon) = pair.link(&four(Toml::tun_fri()), &four(Toml::tun_mon()));
    wait_used(&pair, [4, 3]);
    // While a way opens, frames may be reordered: wait until each has its socket and frames have passed.
    let has_sockets = || [&pair.fri, &pair.mon].iter().all(|host| ports(host).len() == 4);
    wait_until("a socket for each lane at both ends", SOON, has_sockets).unwrap();
    // A thread that moves to another processor may overtake its own packets: veth has a queue for each.
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    for (host, end, processor) in [(&pair.fri, &fri, 0), (&pair.mon, &mon, last)] {
        for pid in [end.pid().to_string(), engine(host, end)] {
            host.run(&format!("taskset --all-tasks --cpu-list --pid {processor} {pid}")).unwrap();
        }
    }
    let addresses = ["192.168.86.81", "192.168.86.18"];
    let ends = [(&pair.fri, 0, [0, 1]), (&pair.mon, last, [1, 0])].map(|(host, processor, ends)| {
        let [own, peer] = ends.map(|end| addresses[end]);
        let on = ["taskset", "--cpu-list", &processor.to_string()];
        host.spawn(&[&on[..], &["/usr/bin/python3", "-c", FLOWS, own, peer]].concat()).unwrap()
    });
    // A pause loses datagrams and leaves many to be received.
    let engine = engine(&pair.mon, &mon);
    wait_until("frames in plenty", SOON, || received(&pair.mon) > 20_000).unwrap();
    for (signal, pause) in [("STOP", 300), ("CONT", 0)] {
        pair.mon.run(&format!("kill -{signal} {engine}")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
    }
    for end in &ends {
        end.wait_line(" late", 3 * SOON).unwrap();
        let text = end.text();
        let came: u32 = text.split(' ').next().unwrap().parse().unwrap();
        // Shows the lanes' logs.
        assert!(came > 5000 && text.contains(", 0 late"), "{text}\n{}\n{}", fri.text(), mon.text());
    }
}
