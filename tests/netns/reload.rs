//! Reloading the configuration of a running link.

use std::net::{TcpListener, UdpSocket};

use rustix::process::Signal;
use tund_lab::{Host, Process, wait_until};

use super::operation::{ask, status};
use super::support::*;

/// Rewrites the configuration of a host's link.
fn rewrite(host: &Host, name: &str, toml: &Toml) {
    host.file(&format!("{name}.toml"), &toml.text()).unwrap();
}

fn index(host: &Host) -> String {
    host.run("ip -o link show tun0").unwrap().split(':').next().unwrap().to_owned()
}

#[test]
fn routes_timers_and_level_change_without_losing_a_frame() {
    let pair = pair();
    let fri = |routes: &str| Toml::tun_fri().handshake().with(routes);
    let route = |net: &str| format!("[[route]]\nto = '{net}'\n");
    let old = route("192.168.66.0/24") + &route("192.168.67.0/24");
    let (mut fri_process, mon) = pair.link(&fri(&old), &Toml::tun_mon().handshake());
    let before = index(&pair.fri);
    let mut pings =
        pair.fri.spawn(&["ping", "-n", "-i", "0.02", "-c", "150", "-W", "2", "192.168.86.18"]).unwrap();
    let new = route("192.168.67.0/24")
        + &route("192.168.68.0/24")
        + "[keepalive]\ninterval = '2s'\n[run]\nverb = 4\n";
    rewrite(&pair.fri, "fri", &fri(&new));
    let mark = fri_process.mark();
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert_eq!(code, Some(0), "{text}");
    let expected =
        ["keepalive.interval", "run.verb", "route removed: 192.168.66.0/24", "route added: 192.168.68.0/24"];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    fri_process.wait_line_after(mark, "reload: route added: 192.168.68.0/24", SOON).unwrap();
    let routes = routes(&pair.fri);
    for (net, there) in [("192.168.66.0/24", false), ("192.168.67.0/24", true), ("192.168.68.0/24", true)] {
        assert_eq!(routes.contains(net), there, "{net} in {routes}");
    }
    let mark = fri_process.mark();
    fri_process.signal(Signal::HUP).unwrap();
    fri_process.wait_line_after(mark, "reload: nothing has changed", SOON).unwrap();
    pings.wait(SOON).unwrap();
    assert!(answered(&pings.text()) >= 149, "{}", pings.text());
    assert_eq!(index(&pair.fri), before);
    for process in [&fri_process, &mon] {
        assert!(!process.text().contains(DOWN), "{}", process.text());
    }
    assert_eq!(fri_process.terminate(SOON).unwrap(), 0);
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
}

#[test]
fn a_bad_file_is_named_line_by_line_and_changes_nothing() {
    let pair = pair();
    let good = Toml::tun_fri().with("[[route]]\nto = '192.168.66.0/24'\n");
    let (fri, _mon) = pair.link(&good, &Toml::tun_mon());
    rewrite(
        &pair.fri,
        "fri",
        &good.clone().top("remote = '10.0.0.2:1417'\nfloot = true\n[[route]]\nto = '10.0.0.0/99'"),
    );
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("fri.toml:2:1"), "{text}");
    for part in ["[unknown-key]", "fri.toml:4:"] {
        fri.wait_line(part, SOON).unwrap();
    }
    assert_eq!(status(&pair.fri, "fri")["reload_ok"], false);
    assert!(routes(&pair.fri).contains("192.168.66.0/24"));
    assert_pings(&pair.fri, "192.168.86.18");
    rewrite(&pair.fri, "fri", &good);
    assert_eq!(ask(&pair.fri, &["reload", "fri"]), (Some(0), "nothing has changed".to_owned()));
    assert_eq!(status(&pair.fri, "fri")["reload_ok"], true);
}

#[test]
fn a_socket_that_cannot_be_had_changes_nothing() {
    let pair = pair();
    let good = Toml::tun_fri();
    let (mut fri, _mon) = pair.link(&good, &Toml::tun_mon());
    let before = index(&pair.fri);
    let _others = pair
        .fri
        .within(|| (UdpSocket::bind("0.0.0.0:1555").unwrap(), TcpListener::bind("0.0.0.0:1556").unwrap()))
        .unwrap();
    for line in [
        "bind-device = 'absent'",
        "listen = 1555",
        "listen = [1557, 'tcp:1556']",
        "listen = '10.0.0.9:1417'",
        "listen = '10.0.0.9:1558'",
    ] {
        rewrite(&pair.fri, "fri", &good.clone().top(&format!("remote = '10.0.0.2:1417'\n{line}")));
        let (code, text) = ask(&pair.fri, &["reload", "fri"]);
        assert_eq!(code, Some(1), "{line}: {text}");
        assert_eq!(status(&pair.fri, "fri")["reload_ok"], false, "{line}");
    }
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(index(&pair.fri), before);
    rewrite(&pair.fri, "fri", &good.clone().top("remote = '10.0.0.2:1417'\nlisten = '10.0.0.1:1417'"));
    let mark = fri.mark();
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert_eq!(code, Some(0), "{text}");
    fri.wait_line_after(mark, UP, SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
}

#[test]
fn another_key_port_and_address_take_a_new_connection_on_the_same_device() {
    let pair = pair();
    let old = [Toml::tun_fri().with("[[route]]\nto = '192.168.66.0/24'"), Toml::tun_mon()];
    let [fri, mon] = old.clone();
    let (mut fri_process, mut mon_process) = pair.link(&fri, &mon);
    let before = index(&pair.fri);
    let marks = [fri_process.mark(), mon_process.mark()];
    let key = pair.fri.dir().join("static.key");
    std::fs::remove_file(&key).unwrap();
    pair.fri.run(&format!("{TUND} genkey -o {}", key.display())).unwrap();
    std::fs::copy(&key, pair.mon.dir().join("static.key")).unwrap();
    let device = |own: u8, peer: u8| {
        format!("mode = 'tun'\nname = 'tun0'\naddress = '10.44.0.{own}'\npeer = '10.44.0.{peer}'\nmtu = 1300")
    };
    rewrite(&pair.fri, "fri", &fri.handshake().top("remote = '10.0.0.2:1500'").device(&device(1, 2)));
    rewrite(&pair.mon, "mon", &mon.handshake().top("listen = 1500").device(&device(2, 1)));
    for (host, name) in [(&pair.mon, "mon"), (&pair.fri, "fri")] {
        let (code, text) = ask(host, &["reload", name]);
        assert_eq!(code, Some(0), "{text}");
        for what in ["key.mode: the link reconnects", "key: another secret", "device.address", "device.mtu"] {
            assert!(text.contains(what), "{what} is not in {text}");
        }
    }
    fri_process.wait_line_after(marks[0], UP, SOON).unwrap();
    mon_process.wait_line_after(marks[1], UP, SOON).unwrap();
    assert_eq!(index(&pair.fri), before);
    assert_pings(&pair.fri, "10.44.0.2");
    let shown = pair.fri.run("ip addr show tun0").unwrap();
    assert!(shown.contains("mtu 1300") && !shown.contains("192.168.86"), "{shown}");
    assert!(routes(&pair.fri).contains("192.168.66.0/24 via 10.44.0.2 dev tun0"));
    for process in [&mut fri_process, &mut mon_process] {
        assert_eq!(process.terminate(SOON).unwrap(), 0, "{}", process.text());
    }
    assert!(!routes(&pair.fri).contains("192.168.66.0/24"));
    wait_gone(&pair.fri);
}

#[test]
fn a_remote_that_moved_is_called_and_what_needs_a_restart_is_named() {
    let pair = pair();
    pair.mon.run("ip addr add 10.0.0.3/24 dev eth0").unwrap();
    let mon = pair.start_mon(&Toml::tun_mon());
    mon.wait_line("[no-remote]", SOON).unwrap();
    let fri = Toml::tun_fri().top("remote = '10.0.0.9:1417'");
    let process: Process = pair.start_fri(&fri);
    let waiting = || ask(&pair.fri, &["status"]).1.contains("waiting");
    wait_until("a running engine", SOON, waiting).unwrap();
    let other = fri.top("remote = '10.0.0.3:1417'").with("[run]\nuser = 'nobody'\n");
    rewrite(&pair.fri, "fri", &other);
    let (code, text) = ask(&pair.fri, &["reload", "fri"]);
    assert_eq!(code, Some(0), "{text}");
    let expected =
        ["remote: the peer is called again", "run.user: needs a restart of tund, the old value stays"];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    let line = process.wait_line(UP, SOON).unwrap();
    assert!(line.contains("10.0.0.3"), "{line}");
    assert_pings(&pair.fri, "192.168.86.18");
}
