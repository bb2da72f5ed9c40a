//! The host's network changes under a running link.
//!
//! ```text
//!  fri 198.51.100.2 ---- 198.51.100.1 and .9 hub 203.0.113.1 ---- 203.0.113.2 and .3 mon
//! ```

use tund_lab::{Host, wait_until};

use super::support::*;

struct World {
    hub: Host,
    pair: Pair,
}

fn world() -> World {
    let pair = Pair::unplugged();
    let hub = pair.net.host("hub").unwrap();
    for (host, near, far, gateway) in [
        (&pair.fri, "198.51.100.2/24", "198.51.100.1/24", "198.51.100.1"),
        (&pair.mon, "203.0.113.2/24", "203.0.113.1/24", "203.0.113.1"),
    ] {
        let name = host.name().to_owned();
        pair.net.cable(host, "eth0", &hub, &name).unwrap();
        host.run(&format!("ip addr add {near} dev eth0")).unwrap();
        hub.run(&format!("ip addr add {far} dev {name}")).unwrap();
        host.run(&format!("ip route add default via {gateway}")).unwrap();
    }
    hub.run("ip addr add 198.51.100.9/24 dev fri").unwrap();
    hub.sysctl("net/ipv4/ip_forward", "1").unwrap();
    World { hub, pair }
}

fn has(host: &Host, route: &str) -> bool {
    routes(host).lines().any(|line| line.starts_with(route))
}

fn wait_route(host: &Host, route: &str) {
    let found = wait_until(route, SOON, || has(host, route));
    assert!(found.is_ok(), "{route} is not in\n{}", routes(host));
}

fn fri() -> Toml {
    Toml::tun_fri()
        .handshake()
        .top("remote = '203.0.113.2:1417'")
        .with("[keepalive]\ninterval = '1s'\ntimeout = '8s'")
}

#[test]
fn flushed_routes_and_addresses_are_set_again_but_not_for_ever() {
    let World { hub: _hub, pair } = world();
    let config = fri().with("[[route]]\nto = '192.168.66.0/24'\n[[route]]\nto = '192.168.56.0/24'\nvia = 'net_gateway'\ntable = 99");
    let (mut fri, _mon) = pair.link(&config, &Toml::tun_mon().handshake());
    let set =
        ["192.168.66.0/24 via 192.168.86.18 dev tun0", "192.168.56.0/24 via 198.51.100.1 dev eth0 table 99"];
    set.iter().for_each(|route| wait_route(&pair.fri, route));
    for round in 0..3 {
        let mark = fri.mark();
        // As systemd-networkd does when restarted.
        pair.fri.run("ip route flush table all proto 88").unwrap();
        fri.wait_line_after(mark, "again: ip route add 192.168.66.0/24", SOON).unwrap();
        set.iter().for_each(|route| wait_route(&pair.fri, route));
        assert_pings(&pair.fri, "192.168.86.18");
        assert!(!fri.text().contains(DOWN), "round {round}: {}", fri.text());
    }
    let mark = fri.mark();
    pair.fri.run("ip addr flush dev tun0").unwrap();
    fri.wait_line_after(mark, "again: ip addr add 192.168.86.81 peer 192.168.86.18", SOON).unwrap();
    wait_route(&pair.fri, set[0]);
    // Someone who keeps removing them prevails for a while.
    for _ in 0..4 {
        pair.fri.run("ip route flush table all proto 88").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
    let repairs =
        fri.lines().iter().filter(|line| line.contains("again: ip route add 192.168.66.0/24")).count();
    assert!(repairs <= 6, "{}", fri.text());
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert!(!routes(&pair.fri).contains("192.168."), "{}", routes(&pair.fri));
}

#[test]
fn another_default_gateway_renews_what_leads_through_it() {
    let World { hub: _hub, pair } = world();
    let config =
        fri().with("[[route]]\nto = '192.168.56.0/24'\nvia = 'net_gateway'\n[full-tunnel]\nfail = 'closed'");
    let (mut fri, _mon) = pair.link(&config, &Toml::tun_mon().handshake());
    wait_route(&pair.fri, "192.168.56.0/24 via 198.51.100.1 dev eth0");
    pair.fri.run("ip route replace default via 198.51.100.9").unwrap();
    wait_route(&pair.fri, "192.168.56.0/24 via 198.51.100.9 dev eth0");
    assert_pings(&pair.fri, "192.168.86.18");
    // Without a default route, the present state stays.
    pair.fri.run("ip route del default").unwrap();
    fri.wait_line("the routes are left as they are", SOON).unwrap();
    assert!(has(&pair.fri, "192.168.56.0/24 via 198.51.100.9"));
    pair.fri.run("ip route add default via 198.51.100.1").unwrap();
    wait_route(&pair.fri, "192.168.56.0/24 via 198.51.100.1 dev eth0");
    assert_pings(&pair.fri, "192.168.86.18");
    assert!(!fri.text().contains(DOWN), "{}", fri.text());
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    let left = routes(&pair.fri);
    assert!(!left.contains("unreachable") && !left.contains("192.168."), "{left}");
}

/// mon changes its address.
fn move_mon(world: &World) {
    let mon = &world.pair.mon;
    mon.run("ip addr del 203.0.113.2/24 dev eth0").unwrap();
    mon.run("ip addr add 203.0.113.3/24 dev eth0").unwrap();
    mon.run("ip route add default via 203.0.113.1").unwrap();
}

fn quick() -> Toml {
    Toml::tun_mon().handshake().with("[keepalive]\ninterval = '1s'\ntimeout = '8s'")
}

#[test]
fn the_way_to_the_peer_follows_it_among_its_remotes() {
    let world = world();
    let pair = &world.pair;
    let config =
        fri().top("remote = ['203.0.113.2:1417', '203.0.113.3:1417']").with("[full-tunnel]\nfail = 'closed'");
    let (mut fri, _mon) = pair.link(&config, &quick());
    move_mon(&world);
    let carries = || pair.fri.run("ping -n -c 3 -i 0.1 -W 1 192.168.86.18").is_ok();
    wait_until("frames on the new way", SOON, carries).unwrap();
    assert!(!routes(&pair.fri).contains("203.0.113."), "{}", routes(&pair.fri));
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert!(!routes(&pair.fri).contains("203.0.113."), "{}", routes(&pair.fri));
}

#[test]
fn the_way_to_the_peer_follows_its_name() {
    let world = world();
    let pair = &world.pair;
    pair.fri.add_name("203.0.113.2", "mon.tn").unwrap();
    let config = fri().top("remote = 'mon.tn:1417'\nfloat = false").with("[full-tunnel]\nfail = 'closed'");
    let (mut fri, _mon) = pair.link(&config, &quick());
    let mark = fri.mark();
    move_mon(&world);
    std::fs::write(pair.fri.dir().join("hosts"), "203.0.113.3 mon.tn\n").unwrap();
    fri.wait_line_after(mark, &format!("{UP} 203.0.113.3"), SOON + SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert!(!routes(&pair.fri).contains("203.0.113."), "{}", routes(&pair.fri));
}
