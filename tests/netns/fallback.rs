//! A kernel that refuses for batches of datagrams what it does for single ones.
//!
//! ```text
//!  fri 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon
//! ```

use tund_lab::Host;

use super::support::*;

const REFUSED: &str = "the kernel cannot segment datagrams";

/// Makes the kernel refuse to send anything longer than a datagram of the link.
fn refuse_batches(host: &Host) {
    let rules = "table ip whole { chain out { type filter hook output priority 0\n\
                 udp dport 1417 meta length > 2000 drop\n}\n}\n";
    let file = host.file("whole.nft", rules).unwrap();
    host.run(&format!("nft -f {}", file.display())).unwrap();
}

fn links() -> [[Toml; 2]; 2] {
    [[Toml::tun_fri(), Toml::tun_mon()], [Toml::tun_fri().handshake(), Toml::tun_mon().handshake()]]
}

#[test]
fn trains_that_the_kernel_refuses_are_sent_one_by_one_and_that_is_said_once() {
    for [fri, mon] in links() {
        let pair = pair();
        let (fri, mon) = pair.link(&fri, &mon);
        assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        assert!(!fri.text().contains(REFUSED), "{}", fri.text());
        refuse_batches(&pair.fri);
        assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        let line = fri.wait_line(REFUSED, SOON).unwrap();
        assert!(line.contains("UDP_SEGMENT: "), "{line}");
        assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        assert_eq!(stream(&pair.mon, &pair.fri, "192.168.86.81"), STREAM);
        assert_eq!(fri.text().matches(REFUSED).count(), 1, "{}", fri.text());
        assert!(!mon.text().contains(REFUSED), "{}", mon.text());
    }
}

#[test]
fn a_path_that_gets_narrower_is_no_reason_to_send_datagrams_one_by_one() {
    for [fri, mon] in links() {
        let pair = pair();
        let (fri, _mon) = pair.link(&fri, &mon);
        assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        for mtu in [1300, 1500, 1280] {
            for host in [&pair.fri, &pair.mon] {
                host.run(&format!("ip link set eth0 mtu {mtu}")).unwrap();
            }
            assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        }
        assert!(!fri.text().contains(REFUSED), "{}", fri.text());
    }
}

/// Reports "port unreachable" of datagrams to somebody else that fri never sent, as fast as it goes, for three seconds.
const FORGED: &str = r#"
import socket, struct, sys, time
fri, mon = sys.argv[1:]
def total(data):
    n = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    n = (n >> 16) + (n & 0xffff)
    return ~(n + (n >> 16)) & 0xffff
quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1400, 1, 0x4000, 63, 17, 0, socket.inet_aton(fri), socket.inet_aton(mon))
quoted += struct.pack("!HHHH", 1417, 9, 1380, 0) + bytes(8)
body = struct.pack("!BBHI", 3, 3, 0, 0) + quoted
body = body[:2] + struct.pack("!H", total(body)) + body[4:]
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
end = time.time() + 3
while time.time() < end:
    for _ in range(100):
        try:
            out.sendto(body, (fri, 0))
        except OSError:
            pass
"#;

#[test]
fn a_flood_of_forged_reports_neither_loses_datagrams_nor_ends_their_cutting() {
    let pair = pair();
    let (fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let command = [tund_lab::rights::PYTHON, "-c", FORGED, "10.0.0.1", "10.0.0.2"];
    std::thread::scope(|scope| {
        let floods = [(); 2].map(|()| scope.spawn(|| pair.mon.output(&command).unwrap()));
        while !floods.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        }
    });
    let counters = &super::operation::status(&pair.fri, "fri")["counters"];
    let dropped = counters["dropped"].as_array().unwrap().iter();
    let unsent: u64 =
        dropped.filter(|it| it["reason"] == "no-peer").filter_map(|it| it["count"].as_u64()).sum();
    let sent = counters["datagrams_sent"].as_u64().unwrap();
    assert!(sent > 1000 && 200 * unsent < sent, "{unsent} of {sent}");
    assert!(!fri.text().contains(REFUSED), "{}", fri.text());
}
