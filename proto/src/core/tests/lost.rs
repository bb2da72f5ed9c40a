//! Losses are counted from gaps in the peer's counters.

use super::*;

#[test]
fn datagrams_that_did_not_come_are_counted_once_whatever_keys_they_had() {
    for mode in [settings, handshake] {
        let mut world = World::with(mode(0), mode(1), [0, 0]);
        world.run(2.0);
        assert!(world.up());
        let lost = |world: &World| [0, 1].map(|which| world.ends[which].stats().datagrams_lost);
        world.assert_carries();
        let [mon, fri] = lost(&world);
        world.cut = true;
        for _ in 0..30 {
            world.send(1, &[b"into the void"]);
        }
        assert_eq!(lost(&world), [mon, fri], "nothing tells yet");
        world.cut = false;
        world.assert_carries();
        assert_eq!(lost(&world), [mon + 30, fri]);
        // The keys are replaced twice, and the count stays.
        world.run(300.0);
        world.assert_carries();
        assert_eq!(lost(&world), [mon + 30, fri], "{:?}", world.ends[0].log);
    }
}

#[test]
fn what_others_have_overtaken_is_missing_until_it_comes() {
    let mut world = World::new();
    world.run(2.0);
    world.assert_carries();
    let before = world.ends[0].stats().datagrams_lost;
    for n in 0..9u8 {
        let end = &mut world.ends[1];
        end.lane.handle_frames(&[&[n; 20]], &mut end.out);
    }
    world.settle(1);
    let first = world.wire.pop_front().unwrap();
    world.drain();
    assert_eq!(world.ends[0].stats().datagrams_lost, before + 1);
    world.inject(first);
    assert_eq!(world.ends[0].stats().datagrams_lost, before);
}
