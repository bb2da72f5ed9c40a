//! The full tunnel, watched from outside: what leaves fri beside the link's own datagrams.
//!
//! ```text
//!  fri 10.0.0.1 eth0 ---- (wire in the hands of the test) ---- eth0 10.0.0.2 mon, fri's default gateway
//! ```

use tund_lab::{Host, Process, Side, Wire, wait_until};

use super::operation::ask;
use super::support::*;

/// Sends a datagram to an IPv4 and an IPv6 address far away, fifty times a second, whatever comes of it.
const TALK: &str = "\
import socket, time
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
  for s, to in ((four, '203.0.113.7'), (six, '2001:db8::7')):
    try: s.sendto(b'in the clear', (to, 9))
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
    /// Which of the two families crossed the wire in the clear since the last call.
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

    /// Waits until just these families cross in the clear.
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
        .with(&format!("[full-tunnel]\nmode = 'def1'\nfail = '{fail}'"))
        .with("[keepalive]\ninterval = '1s'\ntimeout = '3s'\n[run]\nverb = 3")
}

fn blocked(host: &Host) -> bool {
    let four = host.run("ip route").unwrap();
    let six = host.run("ip -6 route").unwrap();
    ["0.0.0.0/1", "128.0.0.0/1"].iter().all(|net| four.contains(&format!("unreachable {net}")))
        && ["::/1", "8000::/1"].iter().all(|net| six.contains(&format!("unreachable {net}")))
}

#[test]
fn closed_lets_nothing_out_while_down_reloading_killed_or_failing_to_start() {
    let watched = watched();
    let Watched { pair, .. } = &watched;
    let before = routes(&pair.fri);
    let mut process = pair.start_fri(&fri("closed"));
    process.wait_line("ip route add 128.0.0.0/1", SOON).unwrap();
    wait_until("the refusals", SOON, || blocked(&pair.fri)).unwrap();
    watched.wait_clear("waiting for the peer", [false, false]);

    // From here on not one frame may be seen until the end in order.
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
    process.wait_line("link down", SOON).unwrap();
    look("down");
    let other = Toml { device: Toml::tun_fri().device.replace("86.81", "86.82"), ..fri("closed") };
    pair.fri.file("fri.toml", &other.text()).unwrap();
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert!(code == Some(0) && text.contains("device.address"), "{text}");
    look("reloaded");
    assert!(ask(&pair.fri, &["status", "fri"]).1.contains("ip route add unreachable 0.0.0.0/1"));
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
    process.wait_line("ip route add 128.0.0.0/1", SOON).unwrap();
    look("started again");
    assert_eq!(leaked, [""; 0]);
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    assert_eq!(routes(&pair.fri), before);
    watched.wait_clear("after the end", [true, true]);
}

/// As `wait_gone`, for a host in which another program runs.
fn wait_gone_except_talker(host: &Host) {
    let gone = || host.interfaces().is_ok_and(|names| !names.iter().any(|name| name == "tun0"));
    wait_until("tund gone", SOON, gone).unwrap();
}

#[test]
fn open_goes_through_the_tunnel_while_it_is_up_and_beside_it_while_not() {
    let watched = watched();
    let Watched { pair, .. } = &watched;
    let before = routes(&pair.fri);
    let mut process = pair.start_fri(&fri("open"));
    process.wait_line("no answer from", SOON).unwrap();
    watched.wait_clear("waiting", [true, true]);
    let mut mon = pair.start_mon(&Toml::tun_mon().handshake());
    process.wait_line(UP, SOON).unwrap();
    // The link carries IPv4; IPv6 would pass beside it.
    watched.wait_clear("up", [false, false]);
    assert!(pair.fri.run("ip -6 route").unwrap().contains("unreachable 8000::/1"));
    let inside = counters(&pair.mon, "tun0").0;
    wait_until("traffic inside", SOON, || counters(&pair.mon, "tun0").0 > inside + 20).unwrap();
    mon.kill();
    process.wait_line("link down", SOON).unwrap();
    watched.wait_clear("down", [true, true]);
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    assert_eq!(routes(&pair.fri), before);
}
