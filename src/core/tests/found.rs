//! What the simulation (tests/sim) found, each by the shortest way to it.

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

/// The session is there at the end that called, and nobody answers on it.
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
