//! The parent with a fake engine: a thread that speaks the channel, and a process that only lives.

mod door;
mod hostile;
mod lanes;
mod rig;

use std::io;
use std::sync::mpsc;

use ipnet::IpNet;

use super::*;
use crate::config::{Command, DataPath, FULL_TUNNEL_MARK, FullTunnel, Lanes, Route, Via};
use crate::core::condition::Condition;
use crate::core::openvpn::admission::Kept;
use crate::core::settings::LinkSettings;
use crate::core::sources::Sources;
use crate::privsep::bulk;
use crate::privsep::channel::Channel;
use crate::privsep::message::{End, Keys, ToParent};
use crate::report::exit::FAILED;
use crate::route::netlink::Netlink;
use crate::testing::{Scratch, config, confinement, in_own_network, ip, logged, wait_until};
use rig::*;

type Fake = Channel<ToParent, ToEngine>;
type Act = fn(&Fake);

const ENDPOINT: ([u8; 4], u16) = ([10, 0, 0, 9], 1417);

#[test]
fn a_link_is_prepared_served_and_taken_back_in_order() {
    if !in_own_network("parent::tests::a_link_is_prepared_served_and_taken_back_in_order") {
        return;
    }
    let scratch = Scratch::new();
    let mut config = with_routes(config());
    record_every_hook(&mut config, &scratch);
    let hooks = scratch.path().join("hooks");
    let code = Rig::new(config, &scratch).run(move |engine| {
        let (start, descriptors) = receive(engine);
        assert!(matches!(start, ToEngine::Start(_)));
        assert_eq!(descriptors.len(), 2, "socket and device");
        let (message, descriptors) = engine.receive().unwrap().unwrap();
        assert_eq!(message, ToEngine::Sources);
        let sources: Sources = bulk::read(descriptors.into_iter().next().unwrap()).unwrap();
        let inside =
            ["192.168.86.18", "192.168.66.7", "192.168.56.7"].map(|ip| sources.contains(ip.parse().unwrap()));
        assert_eq!(inside, [true, true, false], "the peer, and routes through it");
        assert!(ip("route show").1.contains("192.168.66.0/24 via 192.168.86.18 dev tun0"));
        assert!(ip("route show").1.contains("192.168.56.0/24 via 10.0.0.1 dev eth0"));
        let endpoint = SocketAddr::from(ENDPOINT);
        tell(engine, ToParent::Endpoint(endpoint.into()));
        assert_eq!(receive(engine).0, ToEngine::Route { address: endpoint, mtu: Some(1500) });
        tell(engine, ToParent::Resolve);
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 1417)).into()];
        assert_eq!(receive(engine).0, ToEngine::Resolved { addresses });
        tell(engine, ToParent::LinkUp { endpoint: endpoint.into(), name: "mon".to_owned() });
        wait_until(|| std::fs::read_to_string(&hooks).is_ok_and(|text| text.contains("link-up")));
        raise(signal_hook::consts::SIGUSR2);
        assert_eq!(receive(engine).0, ToEngine::Report);
        raise(signal_hook::consts::SIGTERM);
        assert_eq!(receive(engine).0, ToEngine::Stop);
        // As timeout(1) does.
        raise(signal_hook::consts::SIGTERM);
        tell(engine, ToParent::Traffic(Traffic { bytes_sent: 5, bytes_received: 6 }));
        tell(engine, ToParent::Exit { end: End::Done, reason: String::new() });
    });
    assert_eq!(code, 0);
    assert_eq!(
        scratch.read("hooks").lines().collect::<Vec<_>>(),
        [
            "up tun0 device route-no peer= signal= sent=0",
            "route-up tun0 device route-yes peer= signal= sent=0",
            "link-up tun0 device route-yes peer=10.0.0.9 signal= sent=0",
            "link-down tun0 device route-yes peer=10.0.0.9 signal=sigterm sent=5",
            "route-down tun0 device route-yes peer=10.0.0.9 signal=sigterm sent=5",
            "down tun0 device route-no peer=10.0.0.9 signal=sigterm sent=5",
        ]
    );
    assert_nothing_left();
    let routes = logged("ip route ");
    let shown: Vec<_> = routes.iter().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(shown, ["add", "add", "del", "del"]);
    assert_eq!(routes[1].replace("add", "del"), routes[2], "not undone in reverse order");
}

#[test]
fn a_device_may_come_after_the_engine() {
    if !in_own_network("parent::tests::a_device_may_come_after_the_engine") {
        return;
    }
    let scratch = Scratch::new();
    let mut config = with_routes(config());
    record_every_hook(&mut config, &scratch);
    let code = Rig { device_later: true, ..Rig::new(config, &scratch) }.run(|engine| {
        let (_, descriptors) = receive(engine);
        assert_eq!(descriptors.len(), 1, "only the socket");
        assert!(!ip("link show dev tun0").0);
        // Two requests before the answer open one device.
        tell(engine, ToParent::OpenDevice);
        tell(engine, ToParent::OpenDevice);
        let (message, descriptors) = receive(engine);
        assert_eq!((message, descriptors.len()), (ToEngine::Device, 1));
        assert!(ip("route show").1.contains("192.168.66.0/24 via 192.168.86.18 dev tun0"));
        tell(engine, ToParent::Exit { end: End::Failed, reason: "enough\nof it".to_owned() });
    });
    assert_eq!(code, 1);
    let hooks: Vec<_> =
        scratch.read("hooks").lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(hooks, ["up", "route-up", "route-down", "down"]);
    assert_eq!(logged("enough_of it").len(), 1);
    assert_nothing_left();
}

#[test]
fn a_route_that_swallows_the_remote_is_refused() {
    if !in_own_network("parent::tests::a_route_that_swallows_the_remote_is_refused") {
        return;
    }
    let scratch = Scratch::new();
    let mut config = config();
    config.remotes[0].host = "203.0.113.9".to_owned();
    config.routes = vec![route("203.0.113.0/24", Via::VpnGateway)];
    assert_eq!(Rig::new(config.clone(), &scratch).run(|_| panic!("the engine was started")), 78);
    assert_eq!(logged("add [[route]] to = \"203.0.113.9/32\"").len(), 1);
    assert_nothing_left();
    // With its remedy, and with an address that is only known later, the link runs.
    config.routes.push(route("203.0.113.9/32", Via::NetGateway));
    let code = Rig::new(config, &scratch).run(|engine| {
        receive(engine);
        stop(engine);
    });
    assert_eq!(code, 0);
    assert_nothing_left();
}

#[test]
fn a_dead_or_hostile_engine_costs_nothing_but_the_link() {
    if !in_own_network("parent::tests::a_dead_or_hostile_engine_costs_nothing_but_the_link") {
        return;
    }
    let scratch = Scratch::new();
    let run = |act: fn(&Fake)| {
        let code = Rig::new(with_routes(config()), &scratch).run(act);
        assert_nothing_left();
        code
    };
    assert_eq!(run(|_| {}), 70);
    assert_eq!(logged("the engine died").len(), 1);
    assert_eq!(
        run(|engine| {
            rustix::net::send(engine, &[0xff; 100], rustix::net::SendFlags::empty()).unwrap();
            // The parent ends the process and the link.
            while engine.receive().unwrap().is_some() {}
        }),
        70
    );
    assert_eq!(logged("the engine sent what it may not send").len(), 1);
    assert_eq!(run(flood), 70);
}

/// Sends every message and request as often as possible, and never reads.
fn flood(engine: &Fake) {
    let address = SocketAddr::from(ENDPOINT);
    for n in 0..3000_u32 {
        let text = format!("flood {n} \x1b[2J");
        let _ = engine.send(&ToParent::Log { level: log::Level::Info, text }, &[]);
        let _ = engine.send(&ToParent::Endpoint(address.into()), &[]);
        let _ = engine.send(&ToParent::Resolve, &[]);
        let _ = engine.send(&ToParent::LinkUp { endpoint: address.into(), name: "x".repeat(9000) }, &[]);
        let _ = engine
            .send(&ToParent::LinkDown { reason: Condition::Reconnecting, traffic: Traffic::default() }, &[]);
    }
    assert!(logged("flood").len() < 300, "the log was flooded");
    assert!(logged("\x1b").is_empty());
}

#[test]
fn a_taken_device_name_is_unavailable() {
    if !in_own_network("parent::tests::a_taken_device_name_is_unavailable") {
        return;
    }
    let scratch = Scratch::new();
    let mut config = config();
    config.device.name = Some("eth0".to_owned());
    assert_eq!(Rig::new(config, &scratch).run(|_| panic!("the engine was started")), 69);
}

#[test]
fn a_route_that_is_another_s_fails_the_start_and_stays() {
    if !in_own_network("parent::tests::a_route_that_is_another_s_fails_the_start_and_stays") {
        return;
    }
    let scratch = Scratch::new();
    assert!(ip("route add 192.168.56.0/24 via 10.0.0.7").0);
    assert_eq!(Rig::new(with_routes(config()), &scratch).run(|_| panic!("the engine was started")), 69);
    let routes = ip("route show").1;
    assert!(routes.contains("192.168.56.0/24 via 10.0.0.7"), "{routes}");
    assert!(!routes.contains("192.168.66.0/24"), "{routes}");
}

#[test]
fn a_resolver_that_fails_is_said_once_and_answers_with_nothing() {
    if !in_own_network("parent::tests::a_resolver_that_fails_is_said_once_and_answers_with_nothing") {
        return;
    }
    let scratch = Scratch::new();
    let mut config = config();
    // The resolver process is this test program, which rejects its argument and exits.
    config.remotes[0].host = "mon.tn".to_owned();
    let code = Rig::new(config, &scratch).run(|engine| {
        receive(engine);
        for _ in 0..2 {
            tell(engine, ToParent::Resolve);
            assert_eq!(receive(engine).0, ToEngine::Resolved { addresses: Vec::new() });
        }
        stop(engine);
    });
    assert_eq!(code, 0);
    let unresolved = logged("[no-address]");
    assert_eq!(unresolved.iter().filter(|line| line.contains("mon.tn")).count(), 1, "{unresolved:?}");
}

#[test]
fn routes_of_the_peer_are_set_within_what_is_accepted_and_withdrawn() {
    let name = "parent::tests::routes_of_the_peer_are_set_within_what_is_accepted_and_withdrawn";
    if !in_own_network(name) {
        return;
    }
    let scratch = Scratch::new();
    let mut config = with_routes(config());
    config.accept.routes = nets("172.16.0.0/12 10.0.0.0/8 10.0.0.0/16");
    config.accept.limit = 3;
    let before = ip("route show").1;
    let code = Rig::new(config, &scratch).run(move |engine| {
        receive(engine);
        tell(engine, ToParent::Endpoint(SocketAddr::from(ENDPOINT).into()));
        receive(engine);
        let own = ip("route show").1;
        let offer =
            "172.16.5.0/24 192.0.2.0/24 10.0.0.0/24 10.0.0.0/16 172.20.0.0/16 172.21.0.0/16 0.0.0.0/0";
        tell(engine, ToParent::PushedRoutes { routes: nets(offer) });
        // The engine is told the verdict, as it makes none.
        let taken = nets("172.16.5.0/24 10.0.0.0/16 172.20.0.0/16");
        assert_eq!(receive(engine).0, ToEngine::Taken { routes: taken });
        assert!(ip("route show").1.contains("172.20.0.0/16"));
        let routes = ip("route show").1;
        assert!(routes.contains("172.16.5.0/24 via 192.168.86.18 dev tun0"), "{routes}");
        assert!(routes.contains("10.0.0.0/16 via 192.168.86.18 dev tun0"), "named itself: {routes}");
        assert_eq!(way_to("10.0.0.9", None), "eth0", "the peer stays outside: {routes}");
        assert!(!routes.contains("192.0.2.0") && !routes.contains("172.21.0.0"), "{routes}");
        assert_eq!(routes.matches("default").count(), 1, "{routes}");
        tell(engine, ToParent::PushedRoutes { routes: nets("172.16.5.0/24") });
        wait_until(|| !ip("route show").1.contains("172.20.0.0/16"));
        let routes = ip("route show").1;
        assert!(routes.contains("172.16.5.0/24"), "{routes}");
        tell(engine, ToParent::PushedRoutes { routes: Vec::new() });
        wait_until(|| ip("route show").1 == own);
        tell(engine, ToParent::PushedRoutes { routes: nets("172.16.5.0/24") });
        wait_until(|| ip("route show").1.contains("172.16.5.0/24"));
        stop(engine);
    });
    assert_eq!(code, 0);
    assert_nothing_left();
    assert_eq!(ip("route show").1, before);
    let refused = logged("is refused");
    assert_eq!(refused.len(), 4, "{refused:#?}");
}

/// A compromised engine offers whatever it likes.
#[test]
fn a_hostile_engine_sets_no_route_that_is_not_accepted() {
    if !in_own_network("parent::tests::a_hostile_engine_sets_no_route_that_is_not_accepted") {
        return;
    }
    let scratch = Scratch::new();
    let mut config = config();
    config.accept.routes = nets("172.16.0.0/12");
    let code = Rig::new(config, &scratch).run(move |engine| {
        receive(engine);
        let own = ip("route show").1;
        for offer in ["0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1", "10.0.0.9/32", "172.0.0.0/8", "::/0"] {
            tell(engine, ToParent::PushedRoutes { routes: nets(offer) });
        }
        let many = (0..=255).map(|n| IpNet::new(IpAddr::from([172, 16, n, 0]), 24).unwrap()).collect();
        tell(engine, ToParent::PushedRoutes { routes: many });
        tell(engine, ToParent::Resolve);
        while !matches!(receive(engine).0, ToEngine::Resolved { .. }) {}
        assert_eq!(ip("route show").1, own);
        stop(engine);
    });
    assert_eq!(code, 0);
}

#[test]
fn a_hostile_engine_leads_nothing_past_a_full_tunnel_wherever_it_says_the_peer_is() {
    if !in_own_network(
        "parent::tests::a_hostile_engine_leads_nothing_past_a_full_tunnel_wherever_it_says_the_peer_is",
    ) {
        return;
    }
    for closed in [true, false] {
        let scratch = Scratch::new();
        let full = FullTunnel { closed, local_networks: true };
        let mut config = Config { full_tunnel: Some(full), ..config() };
        config.remotes[0].host = "203.0.113.9".to_owned();
        config.accept.routes = nets("0.0.0.0/0");
        let code = Rig::new(config, &scratch).run(move |engine| {
            receive(engine);
            let victim = SocketAddr::from(([8, 8, 8, 8], 1417));
            for at in [SocketAddr::from(([203, 0, 113, 9], 1417)), victim] {
                tell(engine, ToParent::Endpoint(at.into()));
                tell(engine, ToParent::LinkUp { endpoint: at.into(), name: String::new() });
                tell(engine, ToParent::Resolve);
            }
            let offers = "8.8.8.8/32 0.0.0.0/1 203.0.113.9/32";
            tell(engine, ToParent::PushedRoutes { routes: nets(offers) });
            tell(engine, ToParent::Endpoint(victim.into()));
            for answers in 0..3 {
                while !matches!(receive(engine).0, ToEngine::Route { .. }) {}
                assert!(answers < 3);
            }
            for address in ["8.8.8.8", "203.0.113.9", "1.1.1.1"] {
                assert_eq!(way_to(address, None), "tun0", "{address}");
                assert_eq!(way_to(address, Some(FULL_TUNNEL_MARK)), "eth0", "{address}");
            }
            tell(engine, ToParent::Exit { end: End::Failed, reason: String::new() });
        });
        assert_eq!(code, 1);
        let rules = ip("rule").1;
        assert_eq!(rules.contains("fwmark"), closed, "{rules}");
        assert_eq!(way_to("8.8.8.8", None), if closed { "none" } else { "eth0" });
        assert_nothing_left();
    }
}
