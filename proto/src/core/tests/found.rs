//! Findings of the simulation (tests/sim), each by its shortest path.

use super::*;

#[test]
fn an_end_whose_peer_is_away_has_nothing_to_do_most_of_the_time() {
    for mut world in [World::new(), handshake_world()] {
        world.cut = true;
        for _ in 0..30 {
            world.run(10.0);
            for which in 0..2 {
                let now = world.now(which).instant;
                let link = &mut world.ends[which].link;
                let due = link.poll_timeout();
                assert!(due.is_none_or(|due| due > now), "end {which} would be called over and over");
            }
        }
    }
}

/// The caller has the session, but nobody answers on it.
#[test]
fn a_peer_restarted_right_after_its_answer_is_called_again() {
    let mut world = handshake_world();
    for _ in 0..2 {
        let now = world.now(1);
        world.ends[1].link.handle_timeout(now);
        world.settle(1);
    }
    let initiation = world.wire.pop_front().unwrap();
    world.inject(initiation);
    let answer = world.wire.pop_front().unwrap();
    world.restart(0);
    world.inject(answer);
    world.run(20.0);
    assert!(world.up(), "{:?}", world.ends[1].log);
    world.assert_carries();
}

/// An unconfirmed session is no reason to ignore that the peer moved.
#[test]
fn the_peer_is_followed_though_a_recorded_call_was_answered_later() {
    let mut world = handshake_world();
    world.cut = true;
    world.run(2.0);
    let never_seen = last_to(&world, MON);
    world.restart(1);
    world.cut = false;
    world.run(5.0);
    world.inject(never_seen);
    world.ends[1].address = "203.0.113.9:5000".parse().unwrap();
    for _ in 0..20 {
        world.run(0.5);
        world.send(1, &[b"from another address, not home"]);
    }
    assert!(world.ends[0].said(&moved("203.0.113.9:5000")), "{:?}", world.ends[0].log);
}

/// At the next change of sessions the peer still sends on the one in use.
#[test]
fn a_session_in_use_is_kept_when_another_is_there() {
    let mon = LinkSettings { has_remote: true, ..handshake(0) };
    let mut world = World::with(mon, handshake(1), [0, 0]);
    world.ends[0].remotes = vec![FRI.parse().unwrap()];
    world.run(110.0);
    let mut sent = 0;
    while world.elapsed < Duration::from_secs(140) {
        world.run(0.1);
        for which in 0..2 {
            let end = &mut world.ends[which];
            end.lane.handle_frames(&[b"a frame"], &mut end.out);
        }
        // Both are under way when the ends change keys.
        world.settle(0);
        world.settle(1);
        sent += 1;
    }
    world.drain();
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), sent, "{}", end.stats());
    }
}

/// The last datagram to an end long enough to be answered.
fn last_to(world: &World, to: &str) -> Flying {
    let fits = |flying: &&Flying| flying.to.to_string() == to && flying.bytes.len() >= 120;
    world.record.iter().rfind(fits).unwrap().clone()
}

#[test]
fn an_end_that_is_told_that_its_peer_is_away_calls_now_and_then() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(5.0);
    world.restart(0);
    let refused = Notice::Refused { to: MON.parse().unwrap() };
    let now = world.now(1);
    world.ends[1].link.handle_notice(now, refused.clone());
    world.run(0.2);
    world.assert_carries();
    // Anybody can claim so, repeatedly.
    let keys = LinkKeys::new(&[42; 32]);
    let before = world.record.len();
    for _ in 0..140 {
        let now = world.now(1);
        world.ends[1].link.handle_notice(now, refused.clone());
        world.run(0.1);
    }
    assert!(!world.record[before..].iter().any(|flying| wrap::is_probe(&keys, &flying.bytes)));
    assert!(world.up() && !world.ends[1].fell());
}

#[test]
fn what_an_end_sent_before_its_restart_and_gets_back_brings_no_wrong_advice() {
    let mut world = World::new();
    world.run(5.0);
    world.ends[0].link.handle_stop(false);
    world.drain();
    world.restart(0);
    world.cut = true;
    let own: Vec<_> = world.record.iter().filter(|flying| flying.from.to_string() == MON).cloned().collect();
    for flying in own {
        world.inject(Flying { from: flying.to, to: flying.from, ..flying });
    }
    let end = &world.ends[0];
    assert!(end.stats().drops(DropReason::BadTag) > 0);
    assert!(end.said(&Condition::OwnDatagrams), "{:?}", end.log);
    assert!(!end.said(&Condition::DirectionMismatch), "{:?}", end.log);
}
