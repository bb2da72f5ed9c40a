//! Many routes at once, and tables that change while being read.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use tund::route::netlink::Netlink;
use tund::route::plan::{KernelRoute, ROUTE_PROTOCOL, Step, TABLE_MAIN};

use crate::namespace::{isolated, link_up, sh};

const MANY: u32 = 20_000;

/// Half of the routes in each family; every third in a table other than main.
fn many(netlink: &mut Netlink) -> Vec<Step> {
    sh("ip link add up0 type veth peer name other0");
    ["up0", "other0"].iter().for_each(|name| link_up(netlink, name));
    let interface = netlink.link("up0").unwrap().unwrap().index;
    let route = |number: u32| {
        let to: IpNet = match number % 2 {
            0 => IpNet::new(std::net::IpAddr::from((0x1400_0000 + (number << 8)).to_be_bytes()), 24).unwrap(),
            _ => format!("fd00:{number:x}::/64").parse().unwrap(),
        };
        Step::AddRoute(KernelRoute {
            to,
            gateway: None,
            interface,
            interface_name: "up0".to_owned(),
            metric: None,
            table: if number.is_multiple_of(3) { 70_000 } else { TABLE_MAIN },
            protocol: ROUTE_PROTOCOL,
        })
    };
    (0..MANY).map(route).collect()
}

/// The steps whose effect is missing.
pub fn absent(netlink: &mut Netlink, steps: &[Step]) -> Vec<Step> {
    let main = netlink.main().unwrap();
    netlink.missing(steps, &main).unwrap()
}

#[test]
fn many_routes_are_set_found_set_again_and_removed_and_those_of_others_stay() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        let steps = many(&mut netlink);
        let (foreign, own) = (steps[2].clone(), steps[3].clone());
        sh(&format!("ip route add {} dev lo proto static", foreign.route().unwrap().to));
        assert!(netlink.apply(&own).unwrap(), "a left-over");
        let results = netlink.apply_all(&steps);
        assert_eq!(results.len(), steps.len());
        for (step, result) in steps.iter().zip(results) {
            match result {
                Ok(made) => assert!(made && *step != foreign, "{step}"),
                Err(error) => {
                    assert!(*step == foreign && error.kind() == ErrorKind::AlreadyExists, "{error}");
                }
            }
        }
        assert_eq!(absent(&mut netlink, &steps), [foreign]);
        sh("ip route flush dev up0 root 20.0.0.0/14");
        let missing = absent(&mut netlink, &steps);
        assert!(missing.len() > 300 && missing.len() < steps.len(), "{}", missing.len());
        netlink.apply_all(&missing);
        assert_eq!(absent(&mut netlink, &steps).len(), 1);
        let undo: Vec<_> = steps.iter().rev().filter_map(Step::undo).collect();
        let gone = netlink.apply_all(&undo).into_iter().filter(|result| matches!(result, Ok(true))).count();
        assert_eq!(gone, steps.len() - 1);
        let left = sh("ip route show proto 88 table all") + &sh("ip -6 route show proto 88 table all");
        assert_eq!(left, "");
        assert!(sh("ip route").contains("dev lo proto static"));
        assert!(netlink.apply_all(&undo).into_iter().all(|result| matches!(result, Ok(false))));
    });
}

#[test]
fn tables_that_keep_changing_while_they_are_read_fail_nothing() {
    isolated(|| {
        // Many interfaces and addresses, so that a dump has many parts.
        for number in 0..150 {
            sh(&format!("ip link add d{number} type bridge"));
            sh(&format!("ip addr add 10.{number}.0.1/24 dev d{number}"));
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for name in ["x", "y"] {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        sh(&format!("ip link add {name}0 type bridge"));
                        sh(&format!("ip addr add 10.250.0.1/24 dev {name}0"));
                        sh(&format!("ip link del {name}0"));
                    }
                });
            }
            let mut netlink = Netlink::open().unwrap();
            let read = (0..40).map(|_| {
                let there = netlink.links()?.iter().any(|link| link.name == "d149");
                let addresses = netlink.addresses()?.len() >= 150;
                netlink.routes().map(|_| there && addresses)
            });
            let read: Vec<_> = read.collect();
            done.store(true, Ordering::Relaxed);
            assert!(read.iter().all(|read| matches!(read, Ok(true))), "{read:?}");
        });
    });
}
