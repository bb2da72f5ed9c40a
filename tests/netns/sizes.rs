//! Frames of any size over paths of any size.
//!
//! ```text
//!  fri 10.0.0.1 ==== wire ==== 10.0.0.2 mon
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use tund_lab::frame::{Datagram, ipv4_size};
use tund_lab::{Wire, probe};

use super::support::*;

/// Sizes of the link's datagrams as IP packets; none is a fragment or may become one.
fn outer_sizes(wire: &Wire) -> Vec<usize> {
    let frames = wire.take();
    let sizes = frames.iter().filter_map(|frame| {
        let (size, fragment) = ipv4_size(&frame.bytes)?;
        assert!(!fragment, "a packet that is a fragment, or may become one");
        Datagram::parse(&frame.bytes).map(|_| size)
    });
    sizes.collect()
}

#[test]
fn frames_of_every_size_cross_a_routed_link() {
    let (wire, pair) = wired();
    let _link = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    wire.record();
    for size in [0, 1, 7, 8, 500, 1000, 1371, 1372] {
        pair.fri.run(&format!("ping -n -c 2 -i 0.05 -W 2 -M do -s {size} 192.168.86.18")).unwrap();
    }
    let sizes = outer_sizes(&wire);
    assert!(sizes.iter().all(|size| *size <= 1500), "{sizes:?}");
    let error = pair.fri.run("ping -n -c 1 -W 1 -M do -s 1373 192.168.86.18").unwrap_err().to_string();
    assert!(error.contains("mtu=1400"), "the device's MTU is 1400: {error}");
}

#[test]
fn full_frames_cross_a_path_of_1280_bytes() {
    let (wire, pair) = wired();
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link set eth0 mtu 1280").unwrap();
    }
    let _link = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    wire.record();
    assert_pings(&pair.fri, "-M do -s 1372 192.168.86.18");
    let sizes = outer_sizes(&wire);
    assert!(sizes.iter().all(|size| *size <= 1280), "{sizes:?}");
}

#[test]
fn tcp_and_a_burst_of_small_packets_cross() {
    let pair = pair();
    let (fri, mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let [near, far]: [Ipv4Addr; 2] = [[192, 168, 86, 81].into(), [192, 168, 86, 18].into()];
    let rate = probe::throughput(&pair.fri, &pair.mon, near, far, Duration::from_millis(500)).unwrap();
    assert!(rate > 1e6, "{rate} bit/s");
    let text = pair.mon.run("ping -n -c 2000 -i 0.0005 -W 2 192.168.86.81").unwrap();
    assert!(answered(&text) >= 1990, "{text}");
    drop((fri, mon));
}
