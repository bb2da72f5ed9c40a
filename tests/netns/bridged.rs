//! The classic bridged link.
//!
//! ```text
//!  a 10.5.0.1 -- br0 fri 10.0.0.1 ------------ 10.0.0.2 mon br0 -- b 10.5.0.2
//!                   \__tap0 ============== tap0__/
//! ```

use std::time::Duration;

use tund_lab::Host;
use tund_lab::frame::{Datagram, ethernet, ipv4_size};

use super::support::*;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALICE: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const BOB: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const VLAN: u16 = 0x8100;
/// An EtherType for local experiments (IEEE 802).
const LOCAL: u16 = 0x88b5;

fn hosts(pair: &Pair) -> (Host, Host) {
    (bridge_with_host(pair, &pair.fri, "a", 1), bridge_with_host(pair, &pair.mon, "b", 2))
}

/// With one shared key and one file name, nothing else distinguishes the ends.
#[test]
fn two_ends_whose_files_have_one_name_have_two_mac_addresses() {
    let pair = pair();
    let toml = |end: Toml, device: &str| end.handshake().device(device).text();
    let device = |last: u8| format!("mode = 'tap'\nname = 'tap0'\naddress = '192.168.88.{last}/24'");
    let mon = start_with(&pair.mon, "lab", &toml(Toml::tap_mon(), &device(2)), &[]);
    let fri = start_with(&pair.fri, "lab", &toml(Toml::tap_fri(), &device(1)), &[]);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(UP, SOON).unwrap();
    let mac = |host: &Host| {
        host.run("ip -brief link show tap0").unwrap().split_whitespace().nth(2).map(str::to_owned)
    };
    assert!(mac(&pair.fri).is_some_and(|mac| mac.starts_with("fe:")));
    assert_ne!(mac(&pair.fri), mac(&pair.mon));
    assert_pings(&pair.fri, "192.168.88.2");
}

#[test]
fn hosts_behind_both_bridges_reach_each_other() {
    let pair = pair();
    let (a, b) = hosts(&pair);
    let (mut fri, mut mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    let members = pair.fri.run("bridge link").unwrap();
    assert!(members.lines().any(|line| line.contains("tap0") && line.contains("master br0")), "{members}");

    assert_pings(&a, "10.5.0.2");
    assert!(a.run("ip neigh show 10.5.0.2").unwrap().contains("lladdr"), "found by ARP");
    assert_pings(&b, "-6 fd05::1");
    assert!(b.run("ip -6 neigh show fd05::1").unwrap().contains("lladdr"), "found by neighbour discovery");
    b.sysctl("net/ipv4/icmp_echo_ignore_broadcasts", "0").unwrap();
    let text = a.run("ping -n -b -c 3 -i 0.1 -W 2 10.5.0.255").unwrap();
    assert!(text.contains("from 10.5.0.2"), "broadcast: {text}");

    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    assert_eq!(pair.fri.interfaces().unwrap(), ["br0", "eth0", "lan0", "lo"]);
    assert_eq!(pair.mon.interfaces().unwrap(), ["br0", "eth0", "lan0", "lo"]);
}

#[test]
fn a_device_that_lowers_the_mtu_of_its_bridge_is_told_before_it_joins() {
    let pair = pair();
    let (a, _b) = hosts(&pair);
    a.run("ip link set eth0 mtu 9000").unwrap();
    pair.fri.run("ip link set lan0 mtu 9000").unwrap();
    let mtu = || pair.fri.run("ip link show br0").unwrap();
    assert!(mtu().contains("mtu 9000"), "{}", mtu());
    let lowers = "the bridge br0 has an MTU of 9000, and a device of 1500 lowers it";
    let file = pair.fri.file("fri.toml", &Toml::tap_fri().text()).unwrap();
    let words = ["check", "--host", file.to_str().unwrap()];
    let check = super::operation::ask(&pair.fri, &words).1;
    assert!(check.contains(lowers), "{check}");
    let (fri, _mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    assert_eq!(fri.text().matches(lowers).count(), 1, "{}", fri.text());
    assert!(mtu().contains("mtu 1500"), "what was foretold: {}", mtu());
}

/// So that jumbo frames cross the link as they cross the bridge.
#[test]
fn a_device_takes_the_mtu_of_its_bridge() {
    let pair = pair();
    let (a, b) = hosts(&pair);
    for (host, gate) in [(&a, &pair.fri), (&b, &pair.mon)] {
        host.run("ip link set eth0 mtu 9000").unwrap();
        gate.run("ip link set lan0 mtu 9000").unwrap();
    }
    let [fri, mon] = [Toml::tap_fri(), Toml::tap_mon()].map(|toml| {
        let device = format!("{}\nmtu = 'bridge'", toml.device);
        toml.device(&device)
    });
    let (fri, _mon) = pair.link(&fri, &mon);
    assert!(!fri.text().contains("[bridge-lowered]"), "{}", fri.text());
    for device in ["tap0", "br0"] {
        let shown = pair.fri.run(&format!("ip link show {device}")).unwrap();
        assert!(shown.contains("mtu 9000"), "{shown}");
    }
    assert_pings(&a, "-M do -s 8972 10.5.0.2");
}

#[test]
fn full_frames_cross_a_1500_byte_path_without_fragments() {
    let (wire, pair) = wired();
    let (a, _b) = hosts(&pair);
    let _link = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    wire.record();
    assert_pings(&a, "-M do -s 1472 10.5.0.2");
    let outer: Vec<_> = wire.take();
    let sizes: Vec<_> = outer
        .iter()
        .filter(|frame| {
            Datagram::parse(&frame.bytes)
                .is_some_and(|seen| seen.to.port() == 1418 || seen.from.port() == 1418)
        })
        .map(|frame| ipv4_size(&frame.bytes).unwrap())
        .collect();
    assert!(sizes.len() >= 15, "five full frames each way take more datagrams than {}", sizes.len());
    assert!(sizes.iter().all(|(size, fragments)| *size <= 1500 && !fragments), "{sizes:?}");
    let fragments =
        outer.iter().filter(|frame| ipv4_size(&frame.bytes).is_some_and(|(_, fragment)| fragment));
    assert_eq!(fragments.count(), 0);
}

#[test]
fn dhcp_crosses_the_link() {
    let pair = pair();
    let (a, b) = hosts(&pair);
    let _link = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    assert_leases(&a, &b);
    assert_pings(&a, "10.5.0.2");
}

#[test]
fn any_frame_crosses_unchanged_tagged_and_full_size_too() {
    let pair = pair();
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link add br0 type bridge").unwrap();
        host.run("ip link set br0 up").unwrap();
    }
    let (alice, bob) = (pair.fri.port("alice").unwrap(), pair.mon.port("bob").unwrap());
    pair.fri.run("ip link set alice master br0").unwrap();
    pair.mon.run("ip link set bob master br0").unwrap();
    let _link = pair.link(&Toml::tap_fri(), &Toml::tap_mon());

    let pattern: Vec<u8> = (0..1500u16).map(|n| n.to_le_bytes()[0]).collect();
    let tagged = |payload: &[u8]| [&[0x20, 0x05], LOCAL.to_be_bytes().as_slice(), payload].concat();
    let frames = [
        ("broadcast", ethernet(BROADCAST, ALICE, LOCAL, &pattern[..46])),
        ("to an unknown address", ethernet(BOB, ALICE, LOCAL, &pattern[..100])),
        ("multicast", ethernet([1, 0, 0x5e, 0, 0, 0xfb], ALICE, LOCAL, &pattern[..60])),
        ("full size", ethernet(BOB, ALICE, LOCAL, &pattern)),
        ("802.1Q", ethernet(BOB, ALICE, VLAN, &tagged(&pattern[..60]))),
        ("802.1Q of full size", ethernet(BOB, ALICE, VLAN, &tagged(&pattern))),
        (
            "double tag",
            ethernet(BOB, ALICE, 0x88a8, &[&[0, 7, 0x81, 0], &tagged(&pattern[..60])[..]].concat()),
        ),
    ];
    for (what, frame) in &frames {
        alice.send(frame).unwrap();
        assert!(
            bob.wait_frame(Duration::from_secs(5), |seen| seen == frame).is_some(),
            "{what} did not arrive"
        );
    }
    let answer = ethernet(ALICE, BOB, LOCAL, &pattern);
    bob.send(&answer).unwrap();
    assert!(alice.wait_frame(Duration::from_secs(5), |seen| seen == answer).is_some(), "no answer");
}

/// Reads UDP to that port from a packet socket on the far host's wire, as a DHCP client does.
fn datagrams_seen(host: &Host, port: u16, count: usize, send: impl FnOnce()) -> Vec<Vec<u8>> {
    let all = socket2::Protocol::from(i32::from(0x0003u16.to_be()));
    let socket = host.within(|| socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, Some(all)));
    let mut socket = socket.unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    send();
    let mut buffer = vec![0; 1 << 16];
    let mut seen = Vec::new();
    while seen.len() < count
        && let Ok(length) = std::io::Read::read(&mut socket, &mut buffer)
    {
        let frame = &buffer[..length];
        if frame.get(12..14) == Some(&[8, 0])
            && frame.get(23) == Some(&17)
            && frame[36..38] == port.to_be_bytes()
        {
            seen.push(frame.to_vec());
        }
    }
    seen
}

#[test]
fn datagrams_of_one_flow_arrive_as_a_frame_each_with_a_good_checksum() {
    const LENGTH: usize = 300;
    const COUNT: usize = 30;
    let pair = pair();
    let (a, b) = hosts(&pair);
    let _link = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    assert_pings(&a, "10.5.0.2");
    let receiver = b.within(|| std::net::UdpSocket::bind("10.5.0.2:6868")).unwrap().unwrap();
    let sender = a.within(|| std::net::UdpSocket::bind("10.5.0.1:6767")).unwrap().unwrap();
    let send = || {
        (0..COUNT).for_each(|_| assert_eq!(sender.send_to(&[7; LENGTH], "10.5.0.2:6868").unwrap(), LENGTH))
    };
    let seen = datagrams_seen(&b, 6868, COUNT, send);
    drop(receiver);
    let lengths: Vec<_> = seen.iter().map(Vec::len).collect();
    assert_eq!(lengths, [14 + 20 + 8 + LENGTH; COUNT]);
    for frame in seen {
        let pseudo = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
        assert_eq!(tund::packet::checksum::checksum(&[&pseudo, &frame[34..]]), 0, "{frame:?}");
    }
}

/// A tap device with its own addresses.
fn tap(toml: Toml, last: u8) -> Toml {
    toml.device(&format!("mode = 'tap'\nname = 'tap0'\naddress = ['10.7.0.{last}/24', 'fd07::{last}/64']"))
}

pub fn mac(host: &Host, device: &str) -> String {
    let text = host.run(&format!("ip -o link show {device}")).unwrap();
    text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

#[test]
fn a_tap_device_has_the_same_mac_after_each_start_and_another_than_its_peer() {
    let pair = pair();
    for keys in [|toml| toml, Toml::handshake] {
        let ends = (keys(tap(Toml::tap_fri(), 1)), keys(tap(Toml::tap_mon(), 2)));
        let (fri, _mon) = pair.link(&ends.0, &ends.1);
        let (ours, theirs) = (mac(&pair.fri, "tap0"), mac(&pair.mon, "tap0"));
        assert!(ours != theirs && ours.starts_with("fe:"), "{ours} {theirs}");
        drop(fri);
        wait_gone(&pair.fri);
        let fri = pair.start_fri(&ends.0);
        fri.wait_line(UP, SOON).unwrap();
        assert_eq!(mac(&pair.fri, "tap0"), ours);
    }
}

#[test]
fn a_device_of_somebody_elses_keeps_its_mac() {
    let pair = pair();
    pair.fri.run("ip tuntap add dev tap0 mode tap").unwrap();
    pair.fri.run("ip link set tap0 address 02:00:00:00:00:07").unwrap();
    let _link = pair.link(&tap(Toml::tap_fri(), 1), &tap(Toml::tap_mon(), 2));
    assert_eq!(mac(&pair.fri, "tap0"), "02:00:00:00:00:07");
}

/// Gives `host` neighbour entries with an unused MAC address.
pub fn mislead(host: &Host, device: &str, addresses: &[&str]) {
    for address in addresses {
        host.run(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev {device} nud stale"))
            .unwrap();
    }
    // The kernel keeps a fresh entry for a second.
    std::thread::sleep(Duration::from_millis(1500));
}

pub fn knows(host: &Host, addresses: &[&str], mac: &str) -> bool {
    addresses.iter().all(|address| {
        host.run(&format!("ip neigh show {address}")).unwrap().contains(&format!("lladdr {mac}"))
    })
}

#[test]
fn an_end_that_is_back_announces_its_addresses() {
    let pair = pair();
    let (fri, _mon) = pair.link(&tap(Toml::tap_fri(), 1), &tap(Toml::tap_mon(), 2));
    let addresses = ["10.7.0.1", "fd07::1"];
    let ours = mac(&pair.fri, "tap0");
    // Wait until duplicate address detection is done.
    tund_lab::wait_until("the addresses", SOON, || {
        !pair.fri.run("ip -6 addr show dev tap0 tentative").unwrap().contains("fd07")
    })
    .unwrap();
    mislead(&pair.mon, "tap0", &addresses);
    let mark = fri.mark();
    super::operation::ask(&pair.fri, &["reconnect", "fri"]);
    fri.wait_line_after(mark, UP, SOON).unwrap();
    // Neither has another reason to send.
    tund_lab::wait_until("the announcement", SOON, || knows(&pair.mon, &addresses, &ours)).unwrap();
}

#[test]
fn an_end_that_is_back_announces_the_addresses_of_its_bridge() {
    let pair = pair();
    let (_a, b) = hosts(&pair);
    pair.fri.run("ip addr add 10.5.0.81/24 dev br0").unwrap();
    let (fri, _mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    let ours = mac(&pair.fri, "br0");
    mislead(&b, "eth0", &["10.5.0.81"]);
    let mark = fri.mark();
    super::operation::ask(&pair.fri, &["reconnect", "fri"]);
    fri.wait_line_after(mark, UP, SOON).unwrap();
    tund_lab::wait_until("the announcement", SOON, || knows(&b, &["10.5.0.81"], &ours)).unwrap();
}

/// Otherwise a second link between the same bridges, or a cable, would stay idle for minutes, until a bridge forgets by itself.
#[test]
fn a_bridge_forgets_who_is_behind_a_link_that_is_down() {
    let pair = pair();
    let (a, b) = hosts(&pair);
    let (_fri, mut mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    assert_pings(&a, "10.5.0.2");
    let (here, there) = (mac(&a, "eth0"), mac(&b, "eth0"));
    let table = || pair.fri.run("bridge fdb show br br0").unwrap();
    let is_behind = |mac: &str, port: &str| table().contains(&format!("{mac} dev {port} master br0"));
    assert!(is_behind(&here, "lan0") && is_behind(&there, "tap0"), "{}", table());
    mon.terminate(SOON).unwrap();
    tund_lab::wait_until("the table is empty", SOON, || !is_behind(&there, "tap0")).unwrap();
    assert!(is_behind(&here, "lan0"), "the link's port alone: {}", table());
}

/// The two classic scripts, and `configure = false`: only the script sets the device up.
fn script_joins_bridge(body: &str) {
    let pair = pair();
    let (a, _b) = hosts(&pair);
    let end = |host: &Host, toml: Toml| {
        let up = script(host, "up", body);
        let table = format!("[scripts]\nsecurity = 2\nup = '{}'", up.display());
        toml.device("mode = 'tap'\nname = 'tap0'\nconfigure = false").with(&table)
    };
    let _link = pair.link(&end(&pair.fri, Toml::tap_fri()), &end(&pair.mon, Toml::tap_mon()));
    assert_pings(&a, "10.5.0.2");
    let addresses = pair.fri.run("ip -brief addr show tap0").unwrap();
    assert!(!addresses.contains("192.168"), "{addresses}");
}

#[test]
fn the_old_brctl_script_runs_unchanged() {
    tund_lab::rights::require("brctl").unwrap();
    tund_lab::rights::require("ifconfig").unwrap();
    script_joins_bridge("brctl addif br0 $1; ifconfig $1 up");
}

#[test]
fn its_iproute2_equivalent_runs() {
    script_joins_bridge("ip link set dev $1 master br0 up");
}

#[test]
fn a_routed_and_a_bridged_link_run_between_the_same_hosts() {
    let pair = pair();
    let (a, _b) = hosts(&pair);
    let (_fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let tap_mon = start(&pair.mon, "tap-mon", &Toml::tap_mon().text());
    let tap_fri = start(&pair.fri, "tap-fri", &Toml::tap_fri().text());
    tap_fri.wait_line(UP, SOON).unwrap();
    tap_mon.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    assert_pings(&a, "10.5.0.2");
    drop(tap_fri);
    assert_pings(&pair.fri, "192.168.86.18");
}
