//! What may pass inside a routed link.
//!
//! ```text
//!  fri 10.0.0.1 ------ 10.0.0.2 mon
//! ```

use rustix::process::Signal;

use super::support::*;

#[test]
fn sources_that_are_not_routed_to_the_peer_are_dropped() {
    let pair = pair();
    let fri = Toml::tun_fri().handshake();
    let (fri, _mon) = pair.link(&fri, &Toml::tun_mon().handshake());
    pair.mon.run("ip addr add 10.77.0.1/32 dev lo").unwrap();
    pair.fri.run("ip route add 10.77.0.0/24 dev tun0").unwrap();
    assert_pings(&pair.mon, "192.168.86.81");
    let foreign = "ping -n -c 3 -i 0.1 -W 1 -I 10.77.0.1 192.168.86.81";
    assert!(pair.mon.run(foreign).is_err(), "not routed to the peer by the configuration");
    fri.signal(Signal::USR2).unwrap();
    let line = fri.wait_line("dropped", SOON).unwrap();
    assert!(line.contains("source 3"), "{line}");
}

#[test]
fn the_tunnel_routed_into_itself_is_said_and_mends_with_the_route() {
    let pair = pair();
    let (fri, _mon) = pair.link(&Toml::tun_fri().handshake(), &Toml::tun_mon().handshake());
    pair.fri.run("ip route add 10.0.0.2/32 dev tun0").unwrap();
    let _ = pair.fri.run("ping -n -c 1 -W 1 192.168.86.18");
    let line = fri.wait_line("[tunnel-in-tunnel]", SOON).unwrap();
    assert!(line.contains("add [[route]] to = \"10.0.0.2/32\", via = \"net_gateway\""), "{line}");
    pair.fri.run("ip route del 10.0.0.2/32 dev tun0").unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_device_made_too_wide_by_hand_answers_with_the_right_size() {
    let pair = pair();
    let _link = pair.link(&Toml::tun_fri().handshake(), &Toml::tun_mon().handshake());
    pair.fri.run("ip link set tun0 mtu 1500").unwrap();
    let error = pair.fri.run("ping -n -c 2 -W 1 -M do -s 1460 192.168.86.18").unwrap_err().to_string();
    assert!(error.contains("mtu = 1420") || error.contains("mtu=1420"), "{error}");
    assert_pings(&pair.fri, "-M do -s 1392 192.168.86.18");
}
