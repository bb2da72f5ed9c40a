//! The full tunnel, observed from outside: what leaves fri besides the link's own datagrams.
//!
//! ```text
//!  fri 10.0.0.1 eth0 ---- (wire in the hands of the test) ---- eth0 10.0.0.2 mon, fri's default gateway
//! ```

use tund_lab::{Host, Process, Side, Wire, wait_until};

use super::operation::ask;
use super::support::*;

/// Sends datagrams to a distant IPv4 and IPv6 address, to the link's port and another, and a ping, fifty times a
/// second, ignoring errors.
const TALK: &str = "\
import socket, time
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
echo6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
udp = b'in the clear'
while True:
  for s, to, port, what in (
      (four, '203.0.113.7', 9, udp), (four, '203.0.113.7', 1417, udp), (echo, '203.0.113.7', 0, bytes([8]) + bytes(7) + udp),
      (six, '2001:db8::7', 9, udp), (six, '2001:db8::7', 1417, udp), (echo6, '2001:db8::7', 0, bytes([128]) + bytes(7) + udp)):
    try: s.sendto(what, (to, port))
    except OSError: pass
  time.sleep(0.02)
";

struct Watched {
    wire: Wire,
    pair: Pair,
    _talker: Process,
}

fn watched() -> Watched {
    let (wire, pair) = wired();
    pair.fri.run("ip route add default via 10.0.0.2").unwrap();
    pair.fri.run("ip -6 route add default via fd99::2").unwrap();
    let talker = pair.fri.spawn(&["/usr/bin/python3", "-c", TALK]).unwrap();
    wire.record();
    let watched = Watched { wire, pair, _talker: talker };
    watched.wait_clear("before anything is set", [true, true]);
    watched
}

impl Watched {
    /// The families that crossed the wire in the clear since the last call.
    fn clear(&self) -> [bool; 2] {
        let frames = self.wire.take();
        let mut seen = [false; 2];
        for frame in frames.iter().filter(|frame| frame.from == Side::A) {
            let has = |bytes: &[u8]| frame.bytes.windows(bytes.len()).any(|window| window == bytes);
            if has(b"in the clear") {
                seen[usize::from(frame.bytes[12..14] == [0x86, 0xdd])] = true;
            }
        }
        seen
    }

    /// No frame in the clear for three seconds, once the last log line has taken effect.
    fn stays_closed(&self, what: &str) {
        std::thread::sleep(std::time::Duration::from_millis(500));
        self.clear();
        std::thread::sleep(std::time::Duration::from_secs(3));
        let clear = self.clear();
        assert_eq!(clear, [false, false], "{what}: in the clear: {}", everything(&self.pair.fri));
    }

    /// Waits until exactly these families cross in the clear.
    fn wait_clear(&self, what: &str, expected: [bool; 2]) {
        self.clear();
        let mut last = [false; 2];
        let settled = wait_until(what, SOON, || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            last = self.clear();
            last == expected
        });
        assert!(settled.is_ok(), "{what}: {last:?} in the clear");
    }
}

fn fri(fail: &str) -> Toml {
    Toml::tun_fri()
        .handshake()
        .with(&format!("[full-tunnel]\nfail = '{fail}'"))
        .with("[keepalive]\ninterval = '1s'\ntimeout = '3s'\n[run]\nverb = 3")
}

fn blocked(host: &Host) -> bool {
    ["", "-6 "].iter().all(|family| {
        let rules = host.run(&format!("ip {family}rule")).unwrap();
        let rule = rules.lines().find(|line| line.contains("not from all fwmark 0x74756e64 lookup"));
        let table = rule.and_then(|rule| rule.split("lookup ").nth(1)?.split(' ').next());
        table.is_some_and(|table| {
            let routes = host.run(&format!("ip {family}route show table {table}")).unwrap();
            routes.contains("unreachable default")
        })
    })
}

/// Rules and routes.
fn everything(host: &Host) -> String {
    host.run("ip rule").unwrap() + &host.run("ip -6 rule").unwrap() + &routes(host)
}

#[test]
fn closed_lets_nothing_out_while_down_reloading_killed_or_failing_to_start() {
    let watched = watched();
    let Watched { pair, .. } = &watched;
    let before = everything(&pair.fri);
    let mut process = pair.start_fri(&fri("closed"));
    process.wait_line("ip route add 0.0.0.0/0", SOON).unwrap();
    wait_until("the refusals", SOON, || blocked(&pair.fri)).unwrap();
    watched.wait_clear("waiting for the peer", [false, false]);

    // From here to a clean stop, no frame may be seen.
    let mut leaked = Vec::new();
    let mut look = |phase: &'static str| {
        std::thread::sleep(std::time::Duration::from_millis(700));
        if watched.clear() != [false, false] {
            leaked.push(phase);
        }
    };
    let mut mon = pair.start_mon(&Toml::tun_mon().handshake());
    process.wait_line(UP, SOON).unwrap();
    look("up");
    let inside = counters(&pair.mon, "tun0").0;
    wait_until("traffic inside", SOON, || counters(&pair.mon, "tun0").0 > inside + 20).unwrap();
    look("still up");
    mon.kill();
    process.wait_line(DOWN, SOON).unwrap();
    look("down");
    let other = Toml { device: Toml::tun_fri().device.replace("86.81", "86.82"), ..fri("closed") };
    pair.fri.file("fri.toml", &other.text()).unwrap();
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert!(code == Some(0) && text.contains("device.address"), "{text}");
    look("reloaded");
    assert!(ask(&pair.fri, &["status", "fri"]).1.contains("ip route add unreachable 0.0.0.0/0"));
    process.kill();
    wait_gone_except_talker(&pair.fri);
    look("killed");
    assert!(blocked(&pair.fri));
    pair.fri.run("ip route add 192.0.2.0/24 via 10.0.0.2").unwrap();
    let mut failing = pair.start_fri(&fri("closed").with("[[route]]\nto = '192.0.2.0/24'"));
    assert_ne!(exit_code(&mut failing), 0, "{}", failing.text());
    look("failed to start");
    pair.fri.run("ip route del 192.0.2.0/24").unwrap();
    let mut process = pair.start_fri(&fri("closed"));
    process.wait_line("ip route add 0.0.0.0/0", SOON).unwrap();
    look("started again");
    assert_eq!(leaked, [""; 0]);
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    assert_eq!(everything(&pair.fri), before);
    watched.wait_clear("after the end", [true, true]);
}

/// Like `wait_gone`, for a host in which another program runs.
fn wait_gone_except_talker(host: &Host) {
    let gone = || host.interfaces().is_ok_and(|names| !names.iter().any(|name| name == "tun0"));
    wait_until("tund gone", SOON, gone).unwrap();
}

#[test]
fn open_goes_through_the_tunnel_while_it_is_up_and_beside_it_while_not() {
    let watched = watched();
    let Watched { pair, .. } = &watched;
    let before = everything(&pair.fri);
    let mut process = pair.start_fri(&fri("open"));
    process.wait_line("[no-answer]", SOON).unwrap();
    watched.wait_clear("waiting", [true, true]);
    let mut mon = pair.start_mon(&Toml::tun_mon().handshake());
    process.wait_line(UP, SOON).unwrap();
    // The link carries IPv4; IPv6 would pass beside it.
    watched.wait_clear("up", [false, false]);
    assert!(routes(&pair.fri).contains("unreachable default dev lo table"), "{}", routes(&pair.fri));
    let inside = counters(&pair.mon, "tun0").0;
    wait_until("traffic inside", SOON, || counters(&pair.mon, "tun0").0 > inside + 20).unwrap();
    mon.kill();
    process.wait_line(DOWN, SOON).unwrap();
    watched.wait_clear("down", [true, true]);
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    assert_eq!(everything(&pair.fri), before);
}

/// mon, heard often enough for fri's timeout.
fn mon() -> Toml {
    Toml::tun_mon().handshake().with("[keepalive]\ninterval = '500ms'\ntimeout = '8s'")
}

/// Destinations of [`TALK`] that an attacker would like to see in the clear.
const WANTED: [&str; 2] = ["203.0.113.7", "2001:db8::7"];

#[test]
fn a_name_that_also_stands_for_other_addresses_opens_no_way_to_them() {
    for fail in ["closed", "open"] {
        let watched = watched();
        let Watched { pair, .. } = &watched;
        for address in ["10.0.0.2", WANTED[0], WANTED[1]] {
            pair.fri.add_name(address, "mon.tn").unwrap();
        }
        let process = pair.start_fri(&fri(fail).top("remote = 'mon.tn:1417'"));
        if fail == "closed" {
            process.wait_line("[no-answer]", SOON).unwrap();
            watched.wait_clear("waiting for the peer", [false, false]);
        }
        let _mon = pair.start_mon(&mon());
        // Each of the three addresses has its turn.
        process.wait_line(UP, 3 * SOON).unwrap();
        watched.stays_closed(fail);
    }
}

#[test]
fn a_gateway_that_rewrites_sources_opens_no_way_to_what_it_writes() {
    for fail in ["closed", "open"] {
        let watched = watched();
        let Watched { pair, wire, .. } = &watched;
        wire.set_filter(translate);
        let _mon = pair.start_mon(&mon());
        let process = pair.start_fri(&fri(fail));
        process.wait_line(&format!("{UP} 203.0.113.7:1417"), SOON).unwrap();
        watched.stays_closed(fail);
        assert_pings(&pair.fri, "192.168.86.18");
    }
}

/// Sends mon's datagrams from another address, and forwards what is sent there to mon.
fn translate(crossed: &tund_lab::Crossed) -> Vec<Vec<u8>> {
    const MON: [u8; 4] = [10, 0, 0, 2];
    const OTHER: [u8; 4] = [203, 0, 113, 7];
    let mut frame = crossed.bytes.clone();
    let is_udp = frame.len() >= 42 && frame[12..15] == [8, 0, 0x45] && frame[23] == 17;
    if !is_udp {
        return vec![frame];
    }
    let clear = frame.windows(12).any(|window| window == b"in the clear");
    let (at, port, from, to) = match crossed.from {
        Side::A => (30, 36, OTHER, MON),
        Side::B => (26, 34, MON, OTHER),
    };
    if !clear && frame[at..at + 4] == from && frame[port..port + 2] == 1417_u16.to_be_bytes() {
        frame[at..at + 4].copy_from_slice(&to);
        // Without a UDP checksum, and with a new IP one.
        frame[40..42].fill(0);
        frame[24..26].fill(0);
        let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    vec![frame]
}

#[test]
fn a_local_network_with_somebody_elses_addresses_gets_nothing_with_refuse() {
    let watched = watched();
    let Watched { pair, .. } = &watched;
    pair.fri.run("ip addr add 203.0.113.5/24 dev eth0").unwrap();
    pair.fri.run("ip addr add 2001:db8::5/64 dev eth0 nodad").unwrap();
    await_address(&pair.fri, "2001:db8::5");
    pair.mon.run("ip addr add 203.0.113.7/24 dev eth0").unwrap();
    pair.mon.run("ip addr add 2001:db8::7/64 dev eth0 nodad").unwrap();
    await_address(&pair.mon, "2001:db8::7");
    let _mon = pair.start_mon(&mon());
    let mut process = pair.start_fri(&fri("closed"));
    process.wait_line(UP, SOON).unwrap();
    process.wait_line("[local-networks]", SOON).unwrap();
    watched.wait_clear("reach", [true, true]);
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    for fail in ["closed", "open"] {
        let text = format!("[full-tunnel]\nfail = '{fail}'\nlocal-networks = 'refuse'");
        let mut config = fri(fail);
        config.rest = config.rest.replace(&format!("[full-tunnel]\nfail = '{fail}'"), &text);
        let mut process = pair.start_fri(&config);
        process.wait_line(UP, SOON).unwrap();
        watched.stays_closed(fail);
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(process.terminate(SOON).unwrap(), 0);
        watched.wait_clear("after the end", [true, true]);
    }
}

#[test]
fn a_strict_reverse_path_filter_is_said_and_a_loose_one_lets_the_peer_in() {
    let pair = pair();
    pair.fri.run("ip route add default via 10.0.0.2").unwrap();
    pair.fri.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
    // Not in one of fri's own networks, where the return path would be the same.
    pair.mon.run("ip addr add 203.0.113.2/32 dev eth0").unwrap();
    let _mon = pair.start_mon(&mon());
    let process = pair.start_fri(&fri("closed").top("remote = '203.0.113.2:1417'"));
    process.wait_line("net.ipv4.conf.eth0.rp_filter is 1", SOON).unwrap();
    process.wait_line("[no-answer]", SOON).unwrap();
    assert!(!process.text().contains(UP), "{}", process.text());
    pair.fri.sysctl("net/ipv4/conf/eth0/rp_filter", "2").unwrap();
    process.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn two_full_tunnels_do_not_lead_into_each_other_and_each_leaves_the_others_rules() {
    let pair = pair();
    pair.fri.run("ip route add default via 10.0.0.2").unwrap();
    let before = everything(&pair.fri);
    let other =
        |toml: &str| toml.replace("tun0", "tun1").replace("192.168.86", "192.168.96").replace("1417", "1517");
    let second = other(&fri("closed").text());
    let _mon = pair.start_mon(&mon());
    let _mon2 = start(&pair.mon, "mon2", &other(&mon().text()));
    let mut one = pair.start_fri(&fri("closed"));
    let mut two = start(&pair.fri, "fri2", &second);
    one.wait_line(UP, SOON).unwrap();
    two.wait_line(UP, SOON).unwrap();
    for address in ["192.168.86.18", "192.168.96.18"] {
        assert_pings(&pair.fri, address);
    }
    assert_eq!(one.terminate(SOON).unwrap(), 0);
    assert!(blocked(&pair.fri), "{}", everything(&pair.fri));
    assert_pings(&pair.fri, "192.168.96.18");
    assert_eq!(two.terminate(SOON).unwrap(), 0);
    assert_eq!(everything(&pair.fri), before);
}

#[test]
fn a_full_tunnel_is_closed_opened_and_given_up_by_reloads_and_cleaned_up_after_a_kill() {
    let watched = watched();
    let Watched { pair, .. } = &watched;
    let before = everything(&pair.fri);
    let _mon = pair.start_mon(&mon());
    let reload = |config: &Toml, changed: &str| {
        pair.fri.file("fri.toml", &config.text()).unwrap();
        let (code, text) = ask(&pair.fri, &["reload", "fri"]);
        assert!(code == Some(0) && text.contains(changed), "{text}");
    };
    let mut process = pair.start_fri(&fri("open"));
    process.wait_line(UP, SOON).unwrap();
    watched.stays_closed("open");
    reload(&fri("closed"), "full-tunnel");
    watched.stays_closed("closed by a reload");
    assert!(blocked(&pair.fri), "{}", everything(&pair.fri));
    let closed = everything(&pair.fri);
    reload(&fri("open"), "full-tunnel");
    watched.stays_closed("opened by a reload");
    assert_ne!(everything(&pair.fri), closed);
    // Without the table the socket has no mark: it takes another.
    let mark = process.mark();
    let plain =
        Toml::tun_fri().handshake().with("[keepalive]\ninterval = '1s'\ntimeout = '3s'\n[run]\nverb = 3");
    reload(&plain, "full-tunnel: the link reconnects");
    process.wait_line_after(mark, UP, SOON).unwrap();
    watched.wait_clear("given up", [true, true]);
    assert_eq!(everything(&pair.fri), before);
    let mark = process.mark();
    reload(&fri("open"), "full-tunnel: the link reconnects");
    process.wait_line_after(mark, UP, SOON).unwrap();
    watched.stays_closed("open again");
    process.kill();
    wait_gone_except_talker(&pair.fri);
    assert_ne!(everything(&pair.fri), before, "what a killed tund leaves");
    let mut process = pair.start_fri(&plain);
    process.wait_line(UP, SOON).unwrap();
    watched.wait_clear("started without a full tunnel", [true, true]);
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    assert_eq!(everything(&pair.fri), before);
}
