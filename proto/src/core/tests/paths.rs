//! Changing addresses, and narrower paths.

use super::*;

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let second: SocketAddr = "198.51.100.9:1417".parse().unwrap();
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.ends[0].also = Some(second);
        world.ends[1].remotes = vec![second];
        world.run(3.0);
        assert!(world.up(), "{:?}", world.ends[1].log);
        world.assert_carries();
        let from_mon = world.record.iter().filter(|flying| flying.to == world.ends[1].address);
        assert!(from_mon.clone().count() > 3 && from_mon.clone().all(|flying| flying.from == second));
        // The address goes away: the other is used, and the peer follows.
        world.ends[0].also = None;
        world.send(0, &[b"from the other address"]);
        world.run(7.0);
        world.assert_carries();
        assert!(world.ends[1].said(&moved("198.51.100.1:1417")), "{:?}", world.ends[1].log);
    }
}

#[test]
fn the_peer_is_followed_to_a_new_address_but_a_copy_cannot_move_it() {
    let mut world = World::new();
    world.run(5.0);
    world.ends[1].address = "203.0.113.7:4242".parse().unwrap();
    world.send(1, &[b"from another address, not home"]);
    world.run(2.0);
    assert!(world.ends[0].said(&moved("203.0.113.7:4242")), "{:?}", world.ends[0].log);
    world.assert_carries();

    // A copy by a faster path arrives first, but the old address still answers.
    let thief: SocketAddr = "203.0.113.9:9".parse().unwrap();
    let end = &mut world.ends[1];
    end.lane.handle_frames(&[b"stolen"], &mut end.out);
    world.settle(1);
    let stolen = world.wire.pop_front().unwrap();
    world.inject(Flying { from: thief, ..stolen });
    world.run(6.0);
    assert!(!world.ends[0].said(&moved("203.0.113.9:9")));
    world.assert_carries();
}

/// Sends a full frame ten times a second; returns the seconds until one passed again.
fn recovers(world: &mut World, limit: f64) -> f64 {
    let frame = [7; 1400];
    let mut seconds = 0.0;
    while seconds < limit {
        world.ends[0].out.frames.clear();
        world.send(1, &[&frame]);
        if !world.ends[0].out.frames.is_empty() {
            return seconds;
        }
        world.run(0.1);
        seconds += 0.1;
    }
    panic!("no full frame for {limit} s: {:?}", world.ends[1].log)
}

#[test]
fn a_path_that_shrinks_passes_full_frames_again_within_three_seconds() {
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        for claims in [false, true] {
            let mut world = World::with(mon.clone(), fri.clone(), [0, 0]);
            world.run(5.0);
            let whole = world.record.iter().filter(|flying| flying.bytes.len() == 1472).count();
            assert_eq!(whole, 2, "one probe each way finds that the route's MTU is right");
            assert_eq!(recovers(&mut world, 1.0), 0.0);
            world.passes = 1252;
            if claims {
                let now = world.now(1);
                world.ends[1].link.handle_notice(now, Notice::TooLong);
                assert!(recovers(&mut world, 1.0) <= 1.0);
            } else {
                assert!(recovers(&mut world, 3.0) > 0.0, "full datagrams were lost");
            }
            world.passes = 1472;
            world.run(601.0);
            let before = world.record.len();
            assert_eq!(recovers(&mut world, 1.0), 0.0);
            let sent = world.record[before..].iter().filter(|flying| flying.bytes.len() > 1400).count();
            assert_eq!(sent, 1, "the path that grew is used again");
        }
    }
}

/// The budget that an end reports.
fn said(world: &World, which: usize) -> Option<usize> {
    let end = &world.ends[which];
    let state = end.link.state(world.now(which).instant, &end.lane.stats());
    state.budget.map(|budget| budget as usize)
}

/// From the first frame on, whatever its length, and whether the path was narrow before or becomes so.
#[test]
fn full_frames_cross_a_path_below_the_base_and_only_what_passed_is_said() {
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        for passes in [1072, 672, 548] {
            let mut world = World::with(mon.clone(), fri.clone(), [0, 0]);
            world.passes = passes;
            while !world.up() {
                world.run(0.1);
            }
            for _ in 0..50 {
                assert_eq!(recovers(&mut world, 0.1), 0.0, "nothing is lost");
                let said = [0, 1].map(|which| said(&world, which).unwrap_or(0));
                assert!(said.iter().all(|said| *said <= passes), "{said:?} of {passes}");
                world.run(0.1);
            }
            assert!(said(&world, 1).unwrap() + 16 >= passes, "{:?}", said(&world, 1));
            world.passes = 1472;
            world.run(40.0);
            assert_eq!(said(&world, 1), Some(1472), "found again when the path widens");
            world.passes = passes;
            assert!(recovers(&mut world, 3.0) > 0.0, "full datagrams were lost");
            world.run(5.0);
            let found = said(&world, 1).unwrap();
            assert!(found <= passes && found + 16 >= passes, "{found} of {passes}");
        }
    }
}

/// Its short datagrams keep the link up, so that only the state tells why longer frames are lost.
#[test]
fn a_path_below_the_least_is_a_problem_for_as_long_as_it_is_one() {
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.run(5.0);
        let problem = |world: &World| world.ends[1].problem(world.now(1).instant);
        assert_eq!(problem(&world), None);
        world.passes = 400;
        for _ in 0..200 {
            world.send(1, &[&[7; 1400]]);
            world.run(0.1);
        }
        assert!(world.up() && world.ends[1].said(&Condition::PathTooNarrow), "{:?}", world.ends[1].log);
        assert_eq!(problem(&world), Some("path-too-narrow"));
        world.passes = 1472;
        world.run(60.0);
        assert_eq!(problem(&world), None);
    }
}

/// An end's whole offer does not fit in what every path carries: the link comes up without it, and the rest follows.
#[test]
fn a_hello_with_many_routes_crosses_a_narrow_path() {
    for (mut mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        mon.push = (0..90).map(|n| format!("10.1.{n}.0/24").parse().unwrap()).collect();
        let offered = |world: &World| world.ends[1].routes.len();
        for (passes, fit) in [(1472, 90..=90), (1072, 90..=90), (548, 60..=89)] {
            let mut world = World::with(mon.clone(), fri.clone(), [0, 0]);
            world.passes = passes;
            world.run(10.0);
            assert!(world.up() && fit.contains(&offered(&world)), "{passes}: {}", offered(&world));
        }
    }
}

/// Nothing says that the first initiation was too long; the second is split. The first end renews sessions.
#[test]
fn a_link_comes_up_and_stays_up_on_a_path_that_carries_no_key_of_ml_kem() {
    for passes in [548, 972, 1232, 1311] {
        let mut world = handshake_world();
        world.passes = passes;
        world.run(8.0);
        assert!(world.up(), "{passes}");
        world.assert_carries();
        let before = world.record.len();
        world.run(400.0);
        assert!(world.up() && world.ends.iter().all(|end| end.times("peer-silent") == 0), "{passes}");
        let keys = LinkKeys::new(&[42; 32]);
        let calls = world.record[before..].iter().filter(|flying| wrap::is_probe(&keys, &flying.bytes));
        let long = calls.filter(|call| call.bytes.len() >= 1312).count();
        assert_eq!(long, 0, "a session is not renewed by what does not pass");
    }
}

#[test]
fn a_host_that_says_too_long_has_the_link_up_at_once() {
    let mut world = handshake_world();
    world.passes = 1000;
    world.run(0.2);
    let now = world.now(1);
    world.ends[1].link.handle_notice(now, Notice::TooLong);
    world.run(2.0);
    assert!(world.up());
}

/// A configured value is used without measuring.
#[test]
fn a_configured_path_mtu_is_used_as_it_is() {
    for (mut mon, mut fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        (mon.path_mtu, fri.path_mtu) = (Some(900), Some(800));
        let mut world = World::with(mon, fri, [0, 0]);
        world.passes = 772;
        world.run(5.0);
        assert_eq!([0, 1].map(|which| said(&world, which)), [Some(772); 2], "the smaller of the two");
        let before = world.record.len();
        assert_eq!(recovers(&mut world, 0.1), 0.0);
        assert!(world.record[before..].iter().all(|flying| flying.bytes.len() <= 772));
        // Calls too.
        world.run(200.0);
        assert!(world.up() && world.record.iter().all(|flying| flying.bytes.len() <= 772));
    }
}

#[test]
fn a_false_report_of_a_small_path_changes_nothing() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(5.0);
    for _ in 0..50 {
        let now = world.now(1);
        world.ends[1].link.handle_notice(now, Notice::TooLong);
        world.run(0.1);
    }
    let before = world.record.len();
    world.send(1, &[&[7; 1400]]);
    assert_eq!(world.record[before..].len(), 1, "one datagram, not two");
}

#[test]
fn a_pinned_peer_is_not_followed() {
    let mut pinned = settings(0);
    pinned.float = false;
    let mut world = World::with(pinned, settings(1), [0, 0]);
    world.run(5.0);
    world.ends[1].address = "203.0.113.7:4242".parse().unwrap();
    world.send(1, &[b"from another address, not home"]);
    world.run(3.0);
    assert!(world.ends[0].times("peer-moved") == 0);
}

/// The host of one end is cloned, or its clock set, just after its peer has moved: the peer must learn the new key id at
/// its new place, or it cannot prove that it is there.
#[test]
fn a_peer_that_moved_is_followed_by_an_end_that_has_new_keys() {
    let mut world = World::new();
    world.run(5.0);
    world.assert_carries();
    world.ends[1].address = "203.0.113.7:4242".parse().unwrap();
    let now = world.now(0);
    world.ends[0].link.handle_resumed(now);
    world.run(15.0);
    assert!(world.ends[0].said(&moved("203.0.113.7:4242")), "{:?}", world.ends[0].log);
    world.assert_carries();
    assert!(world.ends.iter().all(|end| !end.fell()), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
}

/// A recording, sent from elsewhere to a restarted end: only the pinned address is told that it is there.
#[test]
fn a_pinned_end_presents_itself_to_nobody_else() {
    let mut pinned = settings(1);
    pinned.float = false;
    let mut world = World::with(settings(0), pinned, [0, 0]);
    world.run(5.0);
    let to_pinned = |flying: &&Flying| flying.to == world.ends[1].address && flying.bytes.len() > 200;
    let recorded = world.record.iter().find(to_pinned).cloned().unwrap();
    world.restart(1);
    world.cut = true;
    world.settle(1);
    let before = world.record.len();
    let elsewhere = "203.0.113.7:4242".parse().unwrap();
    world.inject(Flying { from: elsewhere, ..recorded.clone() });
    assert!(world.ends[1].said(&Condition::PeerPinned { from: elsewhere }), "{:?}", world.ends[1].log);
    assert!(world.record[before..].iter().all(|flying| flying.to != elsewhere));
    world.elapsed += Duration::from_secs(1);
    // An end without a pinned address answers it.
    world.restart(0);
    let to_free = |flying: &&Flying| flying.to == world.ends[0].address && flying.bytes.len() > 200;
    let recorded = world.record.iter().find(to_free).cloned().unwrap();
    world.inject(Flying { from: elsewhere, ..recorded });
    assert!(world.record[before..].iter().any(|flying| flying.to == elsewhere));
}

/// The peer draws a new key id, and NAT changes its address: an unaccepted hello is not answered.
#[test]
fn a_pinned_end_takes_a_key_id_from_elsewhere_and_sends_no_hello_there() {
    let mut pinned = settings(1);
    pinned.float = false;
    let mut world = World::with(settings(0), pinned, [0, 0]);
    world.run(5.0);
    let elsewhere = "203.0.113.7:4242".parse().unwrap();
    world.ends[0].address = elsewhere;
    let before = world.record.len();
    let now = world.now(0);
    world.ends[0].link.handle_rekey(now);
    world.run(15.0);
    assert!(world.ends[1].said(&Condition::PeerPinned { from: elsewhere }), "{:?}", world.ends[1].log);
    // A pong is no longer than its ping; nothing else is sent there.
    let pong = 44;
    assert!(world.record[before..].iter().all(|flying| flying.to != elsewhere || flying.bytes.len() <= pong));
}

/// It was up, so what it says next is under a key id that the other end knows.
#[test]
fn a_peer_that_moved_before_it_had_the_new_key_id_is_told_it() {
    let mut world = World::new();
    world.run(5.0);
    let now = world.now(0);
    world.ends[0].link.handle_resumed(now);
    while world.wire.is_empty() {
        world.elapsed += Duration::from_millis(100);
        world.tick();
        world.settle(0);
    }
    for _ in 0..2 {
        let hello = world.wire.pop_front().unwrap();
        world.inject(hello);
    }
    assert!(!world.wire.is_empty());
    world.wire.clear();
    world.ends[1].address = "203.0.113.9:5000".parse().unwrap();
    world.run(10.0);
    assert!(world.up(), "{:?}", world.ends[1].log);
    assert!(world.ends[0].said(&moved("203.0.113.9:5000")), "{:?}", world.ends[0].log);
    world.assert_carries();
}

/// The new process took no key id yet, and what this end sends was proven by the one before.
#[test]
fn a_peer_that_moved_just_after_its_restart_is_told_the_key_id() {
    let mut world = World::new();
    world.run(5.0);
    world.restart(1);
    while world.wire.is_empty() {
        world.elapsed += Duration::from_millis(100);
        world.tick();
        world.settle(0);
    }
    // The new process presents itself, which makes its key id live. No answer arrives where it was.
    let keepalive = world.wire.pop_front().unwrap();
    world.wire.clear();
    world.inject(keepalive);
    for sent in std::mem::take(&mut world.wire) {
        world.inject(sent);
    }
    world.wire.clear();
    world.ends[1].address = "203.0.113.9:5000".parse().unwrap();
    world.run(15.0);
    assert!(world.up(), "{:?}", world.ends[1].log);
    assert!(world.ends[0].said(&moved("203.0.113.9:5000")), "{:?}", world.ends[0].log);
    assert!(!world.ends[0].fell(), "{:?}", world.ends[0].log);
    world.assert_carries();
}
