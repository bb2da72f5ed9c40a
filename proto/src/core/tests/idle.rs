//! An end started by a superserver, and left when idle.

use super::*;

#[test]
fn a_peer_that_left_because_nothing_passed_is_called_when_there_is_a_frame() {
    for mut world in [World::new(), handshake_world()] {
        world.run(10.0);
        world.assert_carries();
        world.ends[0].link.handle_stop(true);
        world.drain();
        assert!(!world.ends[1].link.is_up());
        world.restart(0);
        let sent = world.record.len();
        world.run(900.0);
        let called = world.record[sent..].iter().filter(|flying| flying.to.to_string() == MON).count();
        assert_eq!(called, 0, "{:?}", world.ends[1].log);
        world.send(1, &[b"a frame"]);
        world.run(3.0);
        assert!(world.up(), "{:?}", world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn a_peer_that_left_may_call_itself() {
    for mut world in [World::new(), handshake_world()] {
        world.run(10.0);
        // Here the waiting end is left alone; without a remote it calls nobody anyway.
        world.ends[1].link.handle_stop(true);
        world.drain();
        world.restart(1);
        world.run(3.0);
        assert!(world.up(), "{:?}", world.ends[0].log);
        world.assert_carries();
    }
}

#[test]
fn only_frames_are_use() {
    let mut world = handshake_world();
    world.run(5.0);
    let used = world.ends[0].link.used_at();
    world.run(60.0);
    assert_eq!(world.ends[0].link.used_at(), used, "hellos, pings and new keys");
    world.assert_carries();
    world.run(1.1);
    assert!(world.ends[0].link.used_at() > used + Duration::from_secs(60));
}
