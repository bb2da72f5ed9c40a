//! Links to an OpenVPN peer over IPv6, between bridges, and behind a superserver.

use super::super::superserver::{Served, Superserver, wait_listening};
use super::super::systemd::boot;
use super::*;

#[test]
fn an_openvpn_peer_is_reached_over_ipv6() {
    let pair = pair();
    keyed(&pair);
    let fri = start(&pair.fri, "fri", &USUAL.tund(&pair.fri).replace("10.0.0.2:1194", "[fd99::2]:1194"));
    let mon = start_openvpn(&pair.mon, &USUAL, "--proto udp6 --remote fd99::1");
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    assert_both_ways(&pair, "");
    // As IP fragments outside.
    assert_both_ways(&pair, "-s 1472");
}

#[test]
fn a_peer_that_says_nothing_by_itself_is_asked() {
    let pair = pair();
    keyed(&pair);
    // Its device must not send anything either.
    pair.mon.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let line = USUAL.openvpn(&pair.mon, "--disable-occ --remote 10.0.0.1");
    let _mon = spawn(&pair.mon, &line.replace("--ping 1 --ping-restart 6", ""));
    start_tund(&pair, &USUAL).wait_line(UP, SOON).unwrap();
}

#[test]
fn a_host_behind_a_bridge_gets_its_address_through_an_openvpn_peer() {
    let pair = pair();
    keyed(&pair);
    let a = bridge_with_host(&pair, &pair.fri, "a", 1);
    let b = bridge_with_host(&pair, &pair.mon, "b", 2);
    let _link = bridged_link(&pair);
    assert_leases(&a, &b);
    assert_pings(&a, "10.5.0.2");
}

/// An end at mon that the first datagram starts, and its file's key settings.
fn waiting(file: &str) -> Toml {
    let key =
        format!("file = '{file}'\nmode = 'openvpn'\ncipher = 'aes-256-cbc'\nauth = 'sha256'\ndirection = 0");
    let end = Toml { key, ..Toml::tun_mon() };
    let end = end.device("name = 'tun0'\naddress = '10.1.0.1'\npeer = '10.1.0.2'");
    end.with("[keepalive]\ninterval = '1s'\ntimeout = '3s'\nidle-exit = '1s'")
}

#[test]
fn xinetd_starts_an_end_for_an_openvpn_peer_and_again_after_it_left() {
    is_started_for_an_openvpn_peer_and_again_after_it_left(Superserver::Xinetd);
}

#[test]
fn inetd_starts_an_end_for_an_openvpn_peer_and_again_after_it_left() {
    is_started_for_an_openvpn_peer_and_again_after_it_left(Superserver::Inetd);
}

fn is_started_for_an_openvpn_peer_and_again_after_it_left(kind: Superserver) {
    let served = Served::new(kind, &waiting("openvpn.key"));
    let pair = &served.pair;
    keyed(pair);
    let file = pair.mon.dir().join("tun-mon-fri.toml");
    let state = format!("[run]\nstate-dir = '{}'\n", pair.mon.dir().join("state").display());
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("[run]\n", &state)).unwrap();
    wait_listening(&pair.mon, 1417);
    for _ in 0..2 {
        assert!(served.tunds().is_empty());
        let mut peer = start_openvpn(&pair.fri, &USUAL, "--remote 10.0.0.2 1417");
        peer.wait_line(READY, SOON).unwrap();
        assert_pings(&pair.fri, "10.1.0.1");
        kill_all(&pair.fri, &mut peer);
        wait_until("tund gone", SOON, || served.tunds().is_empty()).unwrap();
    }
}

#[test]
fn a_socket_unit_starts_an_end_for_an_openvpn_peer() {
    let pair = pair();
    keyed(&pair);
    fs::copy(pair.mon.dir().join("openvpn.key"), pair.mon.dir().join("static.key")).unwrap();
    let machine = boot(&pair, &waiting("static.key"));
    machine.run("systemctl start tund@tun-mon-fri.socket").unwrap();
    let peer = start_openvpn(&pair.fri, &USUAL, "--remote 10.0.0.2 1417");
    peer.wait_line(READY, SOON).unwrap_or_else(|error| panic!("{error}\n{}", machine.journal().unwrap()));
    assert_pings(&pair.fri, "10.1.0.1");
}
