//! A kernel that does not do for many datagrams at once what it does for each.
//!
//! ```text
//!  fri 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon
//! ```

use tund_lab::Host;

use super::support::*;

const REFUSED: &str = "the kernel does not cut up datagrams";

/// From now on the kernel refuses to send what is longer than any datagram of the link.
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
