//! What the path between the ends carries, and from which address it is used.
//!
//! ```text
//!  fri 10.0.1.1 ==== wire ==== 10.0.1.254 router 10.0.2.254 ---- 10.0.2.2 mon
//!  fri 10.0.0.1 ---------------------------------- 10.0.0.2, 10.0.0.3 mon
//! ```

use std::collections::BTreeSet;
use std::time::Instant;

use tund_lab::frame::{Datagram, ETHERNET};
use tund_lab::{Host, Side, Wire};

use super::support::*;

/// Time in which full frames must pass again after the path shrank.
const BACK: f64 = 3.0;

struct Routed {
    wire: Wire,
    router: Host,
    pair: Pair,
}

fn routed() -> Routed {
    let pair = Pair::unplugged();
    let router = pair.net.host("router").unwrap();
    let wire = pair.net.wire(&pair.fri, "eth0", &router, "eth0").unwrap();
    pair.net.cable(&router, "eth1", &pair.mon, "eth0").unwrap();
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    for (host, address, device) in [
        (&pair.fri, "10.0.1.1", "eth0"),
        (&router, "10.0.1.254", "eth0"),
        (&router, "10.0.2.254", "eth1"),
        (&pair.mon, "10.0.2.2", "eth0"),
    ] {
        host.run(&format!("ip addr add {address}/24 dev {device}")).unwrap();
    }
    pair.fri.run("ip route add default via 10.0.1.254").unwrap();
    pair.mon.run("ip route add default via 10.0.2.254").unwrap();
    Routed { wire, router, pair }
}

impl Routed {
    fn shrink(&self, mtu: u32) {
        self.router.run(&format!("ip link set eth1 mtu {mtu}")).unwrap();
        self.pair.mon.run(&format!("ip link set eth0 mtu {mtu}")).unwrap();
    }
}

/// Seconds without answers to full-size pings; 50 pings in ten seconds.
fn silence(host: &Host) -> f64 {
    let text = host.run("ping -n -D -c 50 -i 0.2 -W 1 -M do -s 1372 192.168.86.18").unwrap();
    let numbers = text
        .lines()
        .filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse::<u32>().ok());
    let mut last = 0;
    let gap = numbers.map(|n| n - std::mem::replace(&mut last, n) - 1).max().unwrap_or(50);
    f64::from(gap) * 0.2
}

/// The call's own device has that MTU, so nothing is tried that does not pass; tund doctor calls there too.
#[test]
fn a_call_over_a_small_interface_is_answered() {
    for mtu in [1280, 1000] {
        let pair = pair();
        for host in [&pair.fri, &pair.mon] {
            host.run(&format!("ip link set eth0 mtu {mtu}")).unwrap();
        }
        let mon = pair.start_mon(&Toml::tun_mon().handshake());
        mon.wait_line("waiting", SOON).unwrap();
        let file = pair.fri.file("fri.toml", &Toml::tun_fri().handshake().text()).unwrap();
        let said = pair
            .fri
            .run(&format!("{TUND} doctor {}", file.display()))
            .unwrap_or_else(|error| error.to_string());
        assert!(said.contains("peer: 10.0.0.2:1417 answers in"), "{said}");
        let fri = pair.start_fri(&Toml::tun_fri().handshake());
        fri.wait_line(UP, SOON).unwrap();
        assert_pings(&pair.fri, "-M do -s 1372 192.168.86.18");
    }
}

#[test]
fn full_frames_pass_again_after_the_path_shrank() {
    for (keys, icmp) in [(Toml::handshake as fn(Toml) -> Toml, false), (|toml| toml, true)] {
        let world = routed();
        let fri = keys(Toml::tun_fri()).top("remote = '10.0.2.2:1417'");
        let (_fri, _mon) = world.pair.link(&fri, &keys(Toml::tun_mon()));
        assert_pings(&world.pair.fri, "-M do -s 1372 192.168.86.18");
        if !icmp {
            // In packets other than IPv4, ICMP's offset has something else, such as a byte of a random MAC address.
            let is_icmp =
                |frame: &[u8]| frame[..ETHERNET].ends_with(&[8, 0]) && frame.get(ETHERNET + 9) == Some(&1);
            world.wire.set_filter(move |frame| match is_icmp(&frame.bytes) {
                true => Vec::new(),
                false => vec![frame.bytes.clone()],
            });
        }
        world.shrink(1280);
        let silent = silence(&world.pair.fri);
        println!("with ICMP: {icmp}: no full frame for {silent:.1} s");
        assert!(silent <= BACK, "{silent} s");
        world.wire.record();
        assert_pings(&world.pair.fri, "-M do -s 1372 192.168.86.18");
        let sizes = world.wire.take().into_iter().filter(|frame| frame.from == Side::A);
        let datagrams: Vec<_> = sizes.filter_map(|frame| Datagram::parse(&frame.bytes)).collect();
        let long = datagrams.iter().filter(|datagram| datagram.payload.len() > 1252).count();
        assert!(datagrams.len() >= 20 && long < 5, "{long} of {} are too long", datagrams.len());
    }
}

/// Silently drops IP packets of more than `mtu` bytes in both directions.
fn narrow(wire: &Wire, mtu: usize) {
    wire.set_filter(move |frame| match frame.bytes.len() > ETHERNET + mtu {
        true => Vec::new(),
        false => vec![frame.bytes.clone()],
    });
}

/// Waits until fri reports a length that passes and is close to this.
fn assert_found(pair: &Pair, passes: usize) {
    let budget = || super::operation::status(&pair.fri, "fri")["budget"].as_u64();
    let found = || {
        let said = budget().map(|budget| usize::try_from(budget).unwrap());
        assert!(said.is_none_or(|said| said <= passes), "{said:?} of {passes}");
        said.is_some_and(|said| said + 16 >= passes)
    };
    tund_lab::wait_until("what passes is found", SOON, found).unwrap();
}

/// Below 1228 bytes, and an IPv6 path with the minimum MTU.
#[test]
fn full_frames_cross_a_narrow_path_at_once() {
    type Keys = fn(Toml) -> Toml;
    let (fixed, handshake): (Keys, Keys) = (|toml| toml, Toml::handshake);
    for (keys, remote, mtu, headers) in [
        (fixed, "10.0.0.2", 1100, 28),
        (handshake, "10.0.0.2", 1100, 28),
        (handshake, "10.0.0.2", 1280, 28),
        (handshake, "10.0.0.2", 1000, 28),
        (fixed, "10.0.0.2", 700, 28),
        (handshake, "10.0.0.2", 576, 28),
        (handshake, "[fd99::2]", 1280, 48),
    ] {
        let (wire, pair) = wired();
        narrow(&wire, mtu);
        let fri = keys(Toml::tun_fri()).top(&format!("remote = '{remote}:1417'"));
        let _link = pair.link(&fri, &keys(Toml::tun_mon()));
        assert_pings(&pair.fri, "-M do -s 1372 192.168.86.18");
        assert_pings(&pair.mon, "-M do -s 1372 192.168.86.81");
        assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        assert_found(&pair, mtu - headers);
    }
}

#[test]
fn full_frames_pass_again_after_the_path_became_narrow_without_a_word() {
    for (keys, mtu) in [(Toml::handshake as fn(Toml) -> Toml, 1100), (|toml| toml, 700)] {
        let (wire, pair) = wired();
        let _link = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        assert_pings(&pair.fri, "-M do -s 1372 192.168.86.18");
        assert_found(&pair, 1472);
        narrow(&wire, mtu);
        let silent = silence(&pair.fri);
        assert!(silent <= BACK, "{silent} s");
        assert_found(&pair, mtu - 28);
        assert_eq!(stream(&pair.mon, &pair.fri, "192.168.86.81"), STREAM);
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    for (asked, remote) in [("10.0.0.3", "10.0.0.3:1417"), ("fd99::3", "[fd99::3]:1417")] {
        let pair = pair();
        let width = if asked.contains(':') { "64 nodad" } else { "24" };
        pair.mon.run(&format!("ip addr add {asked}/{width} dev eth0")).unwrap();
        if asked.contains(':') {
            await_address(&pair.mon, asked);
        }
        let fri = Toml::tun_fri().handshake().top(&format!("remote = '{remote}'"));
        let (_fri, mon) = pair.link(&fri, &Toml::tun_mon().handshake());
        assert_pings(&pair.fri, "192.168.86.18");
        // The address goes away under the link: the other is used, and fri follows.
        pair.mon.run(&format!("ip addr del {asked}/{} dev eth0", width.split(' ').next().unwrap())).unwrap();
        let begin = Instant::now();
        pair.fri
            .wait_output("ping -n -c 1 -W 1 192.168.86.18", SOON, |text| text.contains("1 received"))
            .unwrap_or_else(|error| panic!("{error} after {:?}\n{}", begin.elapsed(), mon.text()));
    }
}

#[test]
fn every_datagram_of_the_called_end_comes_from_the_address_it_was_called_at() {
    let (wire, pair) = wired();
    pair.mon.run("ip addr add 10.0.0.3/24 dev eth0").unwrap();
    wire.record();
    let fri = Toml::tun_fri().top("remote = '10.0.0.3:1417'");
    let _link = pair.link(&fri, &Toml::tun_mon());
    assert_pings(&pair.fri, "192.168.86.18");
    let from_mon = wire.take().into_iter().filter(|frame| frame.from == Side::B);
    let sources: BTreeSet<_> =
        from_mon.filter_map(|frame| Some(*Datagram::parse(&frame.bytes)?.from.ip())).collect();
    assert_eq!(sources, BTreeSet::from([[10, 0, 0, 3].into()]));
}

#[test]
fn a_port_on_which_nothing_listens_is_said() {
    let pair = pair();
    let fri = pair.start_fri(&Toml::tun_fri().handshake());
    let line = fri.wait_line("[port-refused]", SOON).unwrap();
    assert!(line.contains("10.0.0.2") && line.contains("1417"), "{line}");
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    fri.wait_line(UP, SOON).unwrap();
}

/// Sends a hundred forged reports of a path of 576 bytes about the link's datagrams, as from a router.
const FORGED: &str = r#"
import socket, struct, sys, time
fri, mon, port, mon_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def total(data):
    n = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    n = (n >> 16) + (n & 0xffff)
    return ~(n + (n >> 16)) & 0xffff
quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1400, 1, 0x4000, 63, 17, 0, socket.inet_aton(fri), socket.inet_aton(mon))
quoted += struct.pack("!HHHH", port, mon_port, 1380, 0) + bytes(8)
body = struct.pack("!BBHHH", 3, 4, 0, 0, 576) + quoted
body = body[:2] + struct.pack("!H", total(body)) + body[4:]
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for _ in range(100):
    out.sendto(body, (fri, 0))
    time.sleep(0.03)
"#;

#[test]
fn forged_reports_of_a_small_path_do_not_make_datagrams_smaller() {
    let pair = pair();
    let toml = Toml::tun_fri().top("remote = '10.0.0.2:1417'\nlisten = 1500");
    let (fri, _mon) = pair.link(&toml, &Toml::tun_mon());
    let budget = || super::operation::status(&pair.fri, "fri")["budget"].as_u64();
    let full = "ping -n -c 3 -i 0.1 -W 1 -M do -s 1372 192.168.86.18";
    let whole = Some(1500 - 28);
    tund_lab::wait_until("the whole path found", SOON, || pair.fri.run(full).is_ok() && budget() == whole)
        .unwrap();
    let python = tund_lab::rights::PYTHON;
    pair.mon.output(&[python, "-c", FORGED, "10.0.0.1", "10.0.0.2", "1500", "1417"]).unwrap();
    assert_eq!(budget(), whole);
    // They arrived: the kernel has noted their claim for the route.
    let route = pair.fri.run("ip route get 10.0.0.2").unwrap();
    assert!(route.contains("mtu 576"), "{route}");
    assert!(pair.fri.run(full).unwrap().contains("3 received"));
    assert_eq!(budget(), whole);
    // A newly started end does not believe it either.
    drop(fri);
    wait_gone(&pair.fri);
    let fri = pair.start_fri(&toml);
    fri.wait_line(UP, SOON).unwrap();
    tund_lab::wait_until("the whole path found again", SOON, || budget() == whole).unwrap();
}
