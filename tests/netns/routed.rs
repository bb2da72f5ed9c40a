//! The classic routed link.
//!
//! ```text
//!  a 192.168.76.2                                                        b 192.168.66.2
//!       |                                                                     |
//!  .76.1 fri 198.51.100.2 ---- 198.51.100.1 hub 203.0.113.1 ---- 203.0.113.2 mon .66.1
//!            192.168.86.81          192.168.56.1            192.168.86.18
//! ```

use tund_lab::{Host, Net};

use super::support::*;

struct World {
    a: Host,
    b: Host,
    hub: Host,
    pair: Pair,
}

fn cable(net: &Net, near: (&Host, &str, &str), far: (&Host, &str, &str)) {
    net.cable(near.0, near.1, far.0, far.1).unwrap();
    for (host, device, address) in [near, far] {
        host.run(&format!("ip addr add {address} dev {device}")).unwrap();
    }
}

fn world() -> World {
    let pair = Pair::unplugged();
    let (fri, mon, net) = (&pair.fri, &pair.mon, &pair.net);
    let [a, b, hub] = ["a", "b", "hub"].map(|name| net.host(name).unwrap());
    cable(net, (fri, "eth0", "198.51.100.2/24"), (&hub, "west", "198.51.100.1/24"));
    cable(net, (mon, "eth0", "203.0.113.2/24"), (&hub, "east", "203.0.113.1/24"));
    cable(net, (fri, "lan0", "192.168.76.1/24"), (&a, "eth0", "192.168.76.2/24"));
    cable(net, (mon, "lan0", "192.168.66.1/24"), (&b, "eth0", "192.168.66.2/24"));
    hub.run("ip addr add 192.168.56.1/24 dev lo").unwrap();
    for (host, gateway) in
        [(fri, "198.51.100.1"), (mon, "203.0.113.1"), (&a, "192.168.76.1"), (&b, "192.168.66.1")]
    {
        host.run(&format!("ip route add default via {gateway}")).unwrap();
    }
    for router in [fri, mon, &hub] {
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    }
    fri.add_name("203.0.113.2", "mon.tn").unwrap();
    mon.add_name("198.51.100.2", "fri.tn").unwrap();
    World { a, b, hub, pair }
}

const FRI: &str = include_str!("../../examples/tun-fri-mon.toml");
const MON: &str = include_str!("../../examples/tun-mon-fri.toml");

#[test]
fn the_example_files_join_two_networks_and_leave_no_trace() {
    let World { a, b, hub, pair } = world();
    let before = [routes(&pair.fri), routes(&pair.mon)];
    let mut mon = start_with(&pair.mon, "tun-mon-fri", MON, &["--verb", "3"]);
    let mut fri = start_with(&pair.fri, "tun-fri-mon", FRI, &["--verb", "3"]);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(UP, SOON).unwrap();

    assert_pings(&pair.fri, "192.168.86.18");
    assert_pings(&pair.mon, "192.168.86.81");
    assert_pings(&a, "192.168.66.2");
    assert_pings(&b, "192.168.76.2");
    assert_pings(&pair.mon, "192.168.56.1");
    fri.wait_line("ip route add 192.168.66.0/24", SOON).unwrap();
    mon.wait_line("ip route add 192.168.56.0/24 via 203.0.113.1 dev eth0", SOON).unwrap();
    let shown = routes(&pair.mon);
    assert!(shown.contains("192.168.56.0/24 via 203.0.113.1 dev eth0"), "{shown}");

    let mark = mon.mark();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    assert_eq!([routes(&pair.fri), routes(&pair.mon)], before);
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lan0", "lo"]);
    assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lan0", "lo"]);
    let (set, undone) = (changes(&mon.lines()[..mark], "add"), changes(&mon.lines()[mark..], "del"));
    assert!(set.len() >= 2, "{}", mon.text());
    assert_eq!(undone, set.into_iter().rev().collect::<Vec<_>>(), "not undone in reverse order");
    drop(hub);
}

/// The routes in lines such as `ip route add R`.
fn changes(lines: &[String], verb: &str) -> Vec<String> {
    let mark = format!("ip route {verb} ");
    lines.iter().filter_map(|line| Some(line.split_once(&mark)?.1.to_owned())).collect()
}

#[test]
fn the_end_with_the_remote_may_start_first() {
    let pair = pair();
    let fri = pair.start_fri(&Toml::tun_fri());
    pair.fri.wait_output("ip -brief link", SOON, |text| text.contains("tun0")).unwrap();
    let mon = pair.start_mon(&Toml::tun_mon());
    mon.wait_line(UP, SOON).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn the_end_without_remote_says_that_it_waits_and_where() {
    let pair = pair();
    let mon = pair.start_mon(&Toml::tun_mon());
    mon.wait_line("[no-remote]", SOON).unwrap();
    mon.wait_line("UDP port 1417", SOON).unwrap();
    let fri = pair.start_fri(&Toml::tun_fri());
    fri.wait_line(UP, SOON).unwrap();
    let line = mon.wait_line(UP, SOON).unwrap();
    assert!(line.contains("10.0.0.1"), "{line}");
}

#[test]
fn routes_take_gateways_metrics_and_tables() {
    let pair = pair();
    let before = routes(&pair.fri);
    let fri = Toml::tun_fri().with(
        "[[route]]\nto = '192.168.66.0/24'\nmetric = 77\n\
         [[route]]\nto = '192.168.67.0/24'\nvia = '10.0.0.2'\n\
         [[route]]\nto = '192.168.68.0/24'\nvia = 'vpn_gateway'\ntable = 1000\n\
         [[route]]\nto = '192.168.66.0/25'",
    );
    let (mut fri, _mon) = pair.link(&fri, &Toml::tun_mon());
    let main = pair.fri.run("ip route").unwrap();
    let has = |text: &str, start: &str, words: &[&str]| {
        text.lines().any(|line| line.starts_with(start) && words.iter().all(|word| line.contains(word)))
    };
    assert!(has(&main, "192.168.66.0/24", &["dev tun0", "metric 77"]), "{main}");
    assert!(has(&main, "192.168.67.0/24", &["via 10.0.0.2 dev eth0"]), "{main}");
    assert!(has(&main, "192.168.66.0/25", &["dev tun0"]), "{main}");
    assert!(!main.contains("192.168.68.0/24"), "{main}");
    let other = pair.fri.run("ip route show table 1000").unwrap();
    assert!(has(&other, "192.168.68.0/24", &["dev tun0"]), "{other}");
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(routes(&pair.fri), before);
}

#[test]
fn ipv6_addresses_and_routes_inside() {
    let pair = pair();
    pair.mon.run("ip addr add fd66::1/64 dev lo").unwrap();
    let device =
        |own: &str, peer: &str| format!("mode = 'tun'\nname = 'tun0'\naddress = '{own}'\npeer = '{peer}'");
    let fri = Toml::tun_fri().device(&device("fd86::81", "fd86::18")).with("[[route]]\nto = 'fd66::/64'");
    let mon = Toml::tun_mon().device(&device("fd86::18", "fd86::81"));
    let (mut fri, _mon) = pair.link(&fri, &mon);
    assert_pings(&pair.fri, "-6 fd86::18");
    assert_pings(&pair.fri, "-6 fd66::1");
    assert!(pair.fri.run("ip -6 route").unwrap().contains("fd66::/64 dev tun0"));
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert!(!pair.fri.run("ip -6 route").unwrap().contains("fd66::"));
}

#[test]
fn both_families_inside_one_link() {
    let pair = pair();
    let device = |own: u8, peer: u8| {
        format!(
            "mode = 'tun'\nname = 'tun0'\naddress = ['192.168.86.{own}', 'fd86::{own}']\n\
             peer = ['192.168.86.{peer}', 'fd86::{peer}']"
        )
    };
    let (_fri, _mon) =
        pair.link(&Toml::tun_fri().device(&device(81, 18)), &Toml::tun_mon().device(&device(18, 81)));
    assert_pings(&pair.fri, "192.168.86.18");
    assert_pings(&pair.fri, "-6 fd86::18");
}

#[test]
fn ipv6_outside() {
    let pair = pair();
    let fri = Toml::tun_fri().top("remote = '[fd99::2]:1417'");
    let (_fri, mon) = pair.link(&fri, &Toml::tun_mon());
    assert!(mon.text().contains("[fd99::1]"), "{}", mon.text());
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_route_of_somebody_else_is_left_alone_and_stops_the_start() {
    let pair = pair();
    pair.fri.run("ip route add 192.168.66.0/24 via 10.0.0.9").unwrap();
    let before = routes(&pair.fri);
    let mut fri = pair.start_fri(&Toml::tun_fri().with("[[route]]\nto = '192.168.66.0/24'"));
    assert_ne!(exit_code(&mut fri), 0);
    assert!(fri.text().contains("192.168.66.0/24"), "{}", fri.text());
    assert_eq!(routes(&pair.fri), before);
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
}

#[test]
fn the_first_remote_that_answers_is_taken() {
    let pair = pair();
    let fri = Toml::tun_fri().top("remote = ['10.0.0.9:1417', '10.0.0.2:1417']");
    let (_fri, _mon) = pair.link(&fri, &Toml::tun_mon());
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn key_pairs_join_two_hosts_without_a_shared_secret() {
    let pair = pair();
    let public = |host: &Host| {
        let own = host.dir().join("own.key");
        host.run(&format!("{TUND} keypair -o {}", own.display())).unwrap().trim().to_owned()
    };
    let (of_fri, of_mon) = (public(&pair.fri), public(&pair.mon));
    let with = |mut toml: Toml, peer: &str| {
        toml.key = format!("private-file = 'own.key'\npeer-public = '{peer}'");
        toml
    };
    let _link = pair.link(&with(Toml::tun_fri(), &of_mon), &with(Toml::tun_mon(), &of_fri));
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn offered_routes_follow_the_link() {
    for keys in [|toml| toml, Toml::handshake as fn(Toml) -> Toml] {
        let pair = pair();
        let quick = "[keepalive]\ninterval = '1s'\ntimeout = '4s'";
        let accept = "[accept]\nroutes = ['192.168.0.0/16', 'fd05::/16']";
        let push = "[push]\nroutes = ['192.168.66.0/24', 'fd05::/32', '10.0.0.0/8']";
        let fri = keys(Toml::tun_fri()).with(accept).with(quick);
        let before = routes(&pair.fri);
        let (mut fri, mut mon) = pair.link(&fri, &keys(Toml::tun_mon()).with(push).with(quick));
        let line = fri.wait_line("is refused", SOON).unwrap();
        assert!(line.contains("10.0.0.0/8") && line.contains("within no prefix of accept.routes"), "{line}");
        let set = || {
            let routes = routes(&pair.fri);
            routes.contains("192.168.66.0/24 via 192.168.86.18") && routes.contains("fd05::/32 dev tun0")
        };
        tund_lab::wait_until("the peer's routes", SOON, set).unwrap();
        assert!(!routes(&pair.fri).contains("10.0.0.0/8") && !routes(&pair.mon).contains("192.168.66"));
        mon.kill();
        fri.wait_line(DOWN, SOON).unwrap();
        tund_lab::wait_until("withdrawal", SOON, || !routes(&pair.fri).contains("192.168.66.0/24")).unwrap();
        assert_eq!(fri.terminate(SOON).unwrap(), 0);
        assert_eq!(routes(&pair.fri), before);
    }
}
