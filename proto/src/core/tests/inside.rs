//! Inside frames: routes, sources, sizes.

use super::*;
use crate::core::sources::Sources;

#[test]
fn offered_routes_are_told_replaced_and_withdrawn() {
    let nets = |text: &str| text.split_whitespace().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mon = LinkSettings { push: nets("192.168.66.0/24 fd05::/16"), ..mon };
        let mut world = World::with(mon.clone(), fri, [0, 0]);
        world.run(3.0);
        assert_eq!(world.ends[1].routes, mon.push);
        assert!(world.ends[0].routes.is_empty());
        world.replace(0, LinkSettings { push: nets("192.168.67.0/24"), ..mon.clone() });
        world.run(30.0);
        assert_eq!(world.ends[1].routes, nets("192.168.67.0/24"), "a restart offers anew");
        world.cut = true;
        world.run(61.0);
        assert!(world.ends[1].routes.is_empty(), "withdrawn with the link");
    }
}

/// An IPv4 packet with a UDP header.
fn udp(from: &str, to: &str, port: u16, length: usize) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(octets(from));
    packet.extend(octets(to));
    packet.extend([0, 9]);
    packet.extend(port.to_be_bytes());
    packet.resize(length, 7);
    packet
}

#[test]
fn sources_outside_what_is_routed_to_the_peer_are_dropped() {
    let nets = |text: &str| text.split_whitespace().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
    let mon = LinkSettings { push: nets("192.168.66.0/24 10.0.0.0/8"), ..handshake(0) };
    let fri = LinkSettings { only_routed: true, ..handshake(1) };
    let mut world = World::with(mon, fri, [0, 0]);
    world.run(3.0);
    let sources = ["192.168.86.18", "172.16.9.9", "192.168.66.7", "192.168.67.7", "10.1.1.1"];
    let pass = |world: &mut World| {
        sources.map(|source| {
            world.ends[1].out.frames.clear();
            world.send(0, &[&udp(source, "192.168.86.81", 53, 60)]);
            !world.ends[1].out.frames.is_empty()
        })
    };
    assert_eq!(pass(&mut world), [false; 5], "before it is told");
    let own = Sources::default().with(&nets("192.168.86.18/32 172.16.0.0/12"));
    world.ends[1].link.handle_sources(own);
    world.settle(1);
    assert_eq!(pass(&mut world), [true, true, false, false, false], "an offer alone is nothing");
    world.ends[1].link.handle_taken(nets("192.168.66.0/24"));
    world.settle(1);
    assert_eq!(pass(&mut world), [true, true, true, false, false], "what the host has set");
    world.ends[1].link.handle_taken(Vec::new());
    world.settle(1);
    assert_eq!(pass(&mut world), [true, true, false, false, false]);
    assert_eq!(world.ends[1].stats().drops(DropReason::Source), 13);
    world.send(1, &[&udp("10.1.1.1", "192.168.86.18", 53, 60)]);
    assert_eq!(world.ends[0].out.frames.len(), 1, "the other end takes any");
}

#[test]
fn tunnel_in_tunnel_is_dropped_and_said_once() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(3.0);
    let own = udp("192.168.86.81", "198.51.100.1", 1417, 100);
    let good = udp("192.168.86.81", "198.51.100.1", 53, 100);
    for _ in 0..5 {
        world.ends[0].out.frames.clear();
        world.send(1, &[&own, &good, &own]);
        assert_eq!(world.ends[0].out.frames, std::slice::from_ref(&good));
    }
    assert_eq!(world.ends[1].stats().drops(DropReason::TunnelInTunnel), 10);
    let said = world.ends[1].times("tunnel-in-tunnel");
    assert_eq!(said, 1, "{:?}", world.ends[1].log);
}

#[test]
fn tunnel_in_tunnel_is_the_problem_until_the_route_is_gone_also_once_it_has_cut_the_link_off() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(3.0);
    let problem = |world: &World| world.ends[1].problem(world.now(1).instant);
    assert_eq!(problem(&world), None);
    let own = udp("192.168.86.81", "198.51.100.1", 1417, 100);
    world.cut = true;
    let mut up = [false; 2];
    for _ in 0..200 {
        world.send(1, &[&own]);
        world.run(1.0);
        up[usize::from(world.ends[1].link.is_up())] = true;
        assert_eq!(problem(&world), Some("tunnel-in-tunnel"), "{:?}", world.ends[1].log);
    }
    assert_eq!(up, [true; 2]);
    world.cut = false;
    world.run(75.0);
    assert!(world.up());
    assert_eq!(problem(&world), None);
}

#[test]
fn a_packet_too_long_for_the_device_is_answered() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(3.0);
    let long = udp("192.168.66.1", "192.168.86.18", 53, 1500);
    world.send(1, &[&long]);
    let [answer] = &world.ends[1].out.frames[..] else { panic!("one answer") };
    let addresses = crate::packet::ip::addresses(answer).unwrap();
    assert_eq!(addresses, ("192.168.86.18".parse().unwrap(), "192.168.66.1".parse().unwrap()));
    assert_eq!(answer[26..28], 1400u16.to_be_bytes());
}

#[test]
fn full_frames_cross_a_small_path_and_small_ones_share_datagrams() {
    let mut world = World::new();
    for which in 0..2 {
        let settings = LinkSettings { mode: Mode::Tap, mtu: 1500, path_mtu: Some(1300), ..settings(which) };
        world.replace(which, settings);
    }
    world.run(3.0);
    let big: Vec<u8> = (0..1514).map(|n| n as u8).collect();
    let before = world.record.len();
    world.send(1, &[&big, &big, &big]);
    assert_eq!(world.ends[0].out.frames, vec![big; 3]);
    assert!(world.record[before..].iter().all(|flying| flying.bytes.len() <= 1300 - 28));
    let before = world.record.len();
    world.send(1, &[&[1; 60][..]; 16]);
    assert_eq!(world.ends[0].out.frames.len(), 3 + 16);
    assert_eq!(world.record.len() - before, 1, "sixteen small frames in one datagram");
}

#[test]
fn a_frame_above_the_agreed_size_is_counted_and_the_rest_still_goes() {
    let mut world = World::new();
    world.run(3.0);
    world.send(1, &[&[1; 100][..], &[2; 4000], &[3; 100]]);
    assert_eq!(world.ends[0].out.frames, vec![vec![1; 100], vec![3; 100]]);
    assert_eq!(world.ends[1].stats().drops(DropReason::TooBig), 1);
}
