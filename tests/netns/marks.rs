//! ECN and DSCP between inner packets and the link's datagrams.
//!
//! ```text
//!  fri 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon
//!      \__ tun0, or tap0 in br0 ========__/        the addresses inside are on tun0, or on br0
//! ```

use rustix::process::Signal;
use tund_lab::frame::{Datagram, ETHERNET};
use tund_lab::{Host, Process, Wire};

use super::support::*;

/// DSCP of expedited forwarding (RFC 3246), shifted into a traffic class.
const EF: u8 = 0xb8;
/// The ECN codepoints, by nft's names.
const CODEPOINTS: [&str; 4] = ["not-ect", "ect1", "ect0", "ce"];

/// A link, and the location of its inner addresses.
struct Inside {
    fri: Toml,
    mon: Toml,
    device: &'static str,
    /// mon's inner addresses.
    targets: [&'static str; 2],
}

fn routed() -> Inside {
    let device = |own: u8, peer: u8| {
        format!(
            "mode = 'tun'\nname = 'tun0'\naddress = ['192.168.86.{own}', 'fd86::{own}']\n\
             peer = ['192.168.86.{peer}', 'fd86::{peer}']"
        )
    };
    let (fri, mon) = (Toml::tun_fri().device(&device(81, 18)), Toml::tun_mon().device(&device(18, 81)));
    Inside {
        fri: fri.handshake(),
        mon: mon.handshake(),
        device: "tun0",
        targets: ["192.168.86.18", "fd86::18"],
    }
}

fn bridged(pair: &Pair) -> Inside {
    for (host, last) in [(&pair.fri, 1), (&pair.mon, 2)] {
        host.run("ip link add br0 type bridge").unwrap();
        host.run("ip link set br0 up").unwrap();
        host.run(&format!("ip addr add 10.5.0.{last}/24 dev br0")).unwrap();
        host.run(&format!("ip addr add fd05::{last}/64 dev br0 nodad")).unwrap();
    }
    Inside {
        fri: Toml::tap_fri().handshake(),
        mon: Toml::tap_mon().handshake(),
        device: "br0",
        targets: ["10.5.0.2", "fd05::2"],
    }
}

/// Tests both kinds of link, each in its own world.
fn on_both(world: impl Fn() -> (Option<Wire>, Pair), test: impl Fn(Option<Wire>, &Pair, Inside)) {
    let (wire, pair) = world();
    test(wire, &pair, routed());
    let (wire, pair) = world();
    let inside = bridged(&pair);
    test(wire, &pair, inside);
}

/// Pings with a traffic class; returns the number of answers.
fn ping(host: &Host, target: &str, class: u8, count: u32) -> u32 {
    let line = format!("ping -n -c {count} -i 0.05 -W 2 -s 1000 -Q {class} {target}");
    answered(&host.run(&line).unwrap_or_else(|error| error.to_string()))
}

/// The distinct traffic classes of datagrams on the wire that carry a ping.
fn outer_classes(wire: &Wire) -> Vec<u8> {
    let frames = wire.take();
    let pings = frames
        .iter()
        .filter(|frame| Datagram::parse(&frame.bytes).is_some_and(|datagram| datagram.payload.len() > 1000));
    let mut classes: Vec<u8> = pings.map(|frame| frame.bytes[ETHERNET + 1]).collect();
    assert!(classes.len() >= 2, "a request and its answer");
    classes.dedup();
    classes
}

#[test]
fn codepoints_are_copied_outward_and_classes_when_asked() {
    let world = || {
        let (wire, pair) = wired();
        (Some(wire), pair)
    };
    for (tuning, kept) in [("", 3), ("[tuning]\ndscp = 'copy'", 0xff)] {
        on_both(world, |wire, pair, inside| {
            let wire = wire.unwrap();
            // Nothing else is as long as a ping.
            let tuning =
                format!("{tuning}\n{}path-mtu = 1500", if tuning.is_empty() { "[tuning]\n" } else { "" });
            let _link = pair.link(&inside.fri.with(&tuning), &inside.mon.with(&tuning));
            for target in inside.targets {
                assert_eq!(ping(&pair.fri, target, 0, 1), 1);
                wire.record();
                for class in [0, 1, 2, 3, EF, EF | 2, EF | 3, 0x2c] {
                    assert_eq!(ping(&pair.fri, target, class, 1), 1, "class {class:#x} to {target}");
                    // The answer has the request's class, so both directions are tested.
                    assert_eq!(outer_classes(&wire), [class & kept], "class {class:#x} to {target}");
                }
            }
        });
    }
}

/// Counts the host's packets from the link by ECN codepoint.
fn count_codepoints(host: &Host, device: &str) {
    let mut rules = String::from("table inet seen {\n");
    for name in CODEPOINTS {
        rules += &format!("counter {name} {{ }}\n");
    }
    rules += "chain input { type filter hook input priority 0;\n";
    for name in CODEPOINTS {
        for (family, icmp) in [("ip", "icmp type echo-request"), ("ip6", "icmpv6 type echo-request")] {
            rules += &format!("iifname {device} {icmp} {family} ecn {name} counter name {name}\n");
            rules += &format!("iifname {device} meta l4proto tcp {family} ecn {name} counter name {name}\n");
        }
    }
    rules += "}\n}\n";
    let file = host.file("seen.nft", &rules).unwrap();
    host.run(&format!("nft -f {}", file.display())).unwrap();
}

/// Counts since the last call: Not-ECT, ECT(1), ECT(0), CE.
fn codepoints(host: &Host) -> [u64; 4] {
    CODEPOINTS.map(|name| {
        let text = host.run(&format!("nft reset counter inet seen {name}")).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse().unwrap()
    })
}

/// Makes the path to mon mark the link's datagrams, all or those matching `which`.
fn mark_path(mon: &Host, which: &str) {
    let rules = format!(
        "table ip path {{ chain ingress {{ type filter hook prerouting priority -300;\n\
         udp dport {{ 1417, 1418 }} {which} ip ecn set ce\n}}\n}}\n"
    );
    let file = mon.file("path.nft", &rules).unwrap();
    mon.run(&format!("nft -f {}", file.display())).unwrap();
}

/// Frames that mon dropped as not ECN-capable.
fn congested(mon: &Process) -> u64 {
    let mark = mon.mark();
    mon.signal(Signal::USR2).unwrap();
    let line = mon.wait_line_after(mark, "received", SOON).unwrap();
    let after = line.split("congested ").nth(1).and_then(|rest| rest.split([' ', ',']).next());
    after.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_marked_path_marks_frames_that_take_marks_and_drops_the_others() {
    on_both(
        || (None, pair()),
        |_, pair, inside| {
            count_codepoints(&pair.mon, inside.device);
            let (_fri, mon) = pair.link(&inside.fri, &inside.mon);
            for target in inside.targets {
                for class in [0, 1, 2, 3] {
                    assert_eq!(ping(&pair.fri, target, EF | class, 2), 2, "no mark on the path");
                    let mut expected = [0; 4];
                    expected[usize::from(class)] = 2;
                    assert_eq!(codepoints(&pair.mon), expected, "class {class}");
                }
            }
            assert_eq!(congested(&mon), 0);
            mark_path(&pair.mon, "");
            for (number, target) in (1..).zip(inside.targets) {
                for class in [1, 2, 3] {
                    assert_eq!(ping(&pair.fri, target, EF | class, 2), 2, "class {class} to {target}");
                    assert_eq!(codepoints(&pair.mon), [0, 0, 0, 2], "class {class} to {target}");
                }
                assert_eq!(ping(&pair.fri, target, EF, 2), 0, "a frame that takes no mark is dropped");
                assert_eq!(codepoints(&pair.mon), [0; 4]);
                assert!(congested(&mon) >= 2 * number, "{}", mon.text());
            }
        },
    );
}

#[test]
fn a_full_path_slows_a_stream_by_marks_and_loses_nothing() {
    on_both(
        || (None, pair()),
        |_, pair, inside| {
            for host in [&pair.fri, &pair.mon] {
                host.sysctl("net/ipv4/tcp_ecn", "1").unwrap();
            }
            count_codepoints(&pair.mon, inside.device);
            let (_fri, mon) = pair.link(&inside.fri, &inside.mon);
            // Like a queue that marks when full.
            mark_path(&pair.mon, "ip ecn != not-ect limit rate over 1 mbytes/second burst 50 kbytes");
            let carried = stream(&pair.fri, &pair.mon, inside.targets[0]);
            assert_eq!(carried, STREAM);
            let [_, _, ect, ce] = codepoints(&pair.mon);
            assert!(ect > 0 && ce > 0, "marked {ce} of {}", ect + ce);
            assert_eq!(congested(&mon), 0);
            let seen = pair.fri.run("nstat -asz TcpExtTCPDeliveredCE").unwrap();
            let told = seen.lines().find(|line| line.contains("DeliveredCE"));
            let told: f64 = told.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap();
            assert!(told > 0.0, "the sender hears of the marks: {seen}");
        },
    );
}
