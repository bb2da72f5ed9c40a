//! Two ends with one key call the same end.

use super::*;

const TWO: &str = "198.51.100.3:1417";

/// mon, fri, and a second fri.
fn cloned(mut mon: LinkSettings, mut fri: LinkSettings, timeout: u64) -> World {
    for settings in [&mut mon, &mut fri] {
        settings.keepalive.timeout = Duration::from_secs(timeout);
    }
    let mut world = World::with(mon, fri.clone(), [0, 0]);
    world.run(5.0);
    assert!(world.up());
    let mut two = End::new(fri, TWO, Some(MON), 0, world.start + world.elapsed, 77);
    two.skew = 0;
    world.ends.push(two);
    world
}

fn problem(world: &World, which: usize) -> Option<&'static str> {
    let end = &world.ends[which];
    let state = end.link.state(world.now(which).instant, &end.lane.stats());
    state.problem.map(|problem| problem.code())
}

const MODES: [fn(usize) -> LinkSettings; 2] = [settings, handshake];

#[test]
fn two_ends_of_one_key_are_said_by_all_three_within_a_minute() {
    for (mode, timeout) in [(settings as fn(usize) -> LinkSettings, 60), (handshake, 60), (handshake, 12)] {
        let mut world = cloned(mode(0), mode(1), timeout);
        let [first, second] = ["198.51.100.2:1417", "198.51.100.3:1417"].map(|end| end.parse().unwrap());
        let cloned = Condition::ClonedEnd { first, second };
        world.run(60.0);
        for which in 0..3 {
            assert!(world.ends[which].said(&cloned), "{which}: {:?}", world.ends[which].log);
            assert_eq!(problem(&world, which), Some("cloned-end"), "{which}: {:?}", world.ends[which].log);
        }
        // The report ends once they are no longer two.
        world.run(120.0);
        let lines = world.ends[0].times("cloned-end");
        assert!(lines <= 4, "{lines} lines in three minutes");
        world.ends.pop();
        world.run(120.0);
        assert!((0..2).all(|which| problem(&world, which).is_none()), "{:?}", world.ends[0].log);
        world.assert_carries();
    }
}

#[test]
fn a_peer_that_restarts_roams_or_is_translated_anew_is_no_clone() {
    for mode in MODES {
        let mut world = World::with(mode(0), mode(1), [0, 0]);
        world.run(5.0);
        let places = ["203.0.113.7:4242", "203.0.113.7:4243", FRI];
        // Back and forth, with another key id in between.
        for turn in 0..12 {
            world.ends[1].address = places[turn % 3].parse().unwrap();
            world.send(1, &[b"from another address, which is long enough to tell"]);
            world.run(3.0);
            if turn % 4 == 3 {
                let now = world.now(1);
                world.ends[1].link.handle_rekey(now);
            }
            world.run(3.0);
        }
        // Killed and restarted, in place and elsewhere.
        for turn in 0..6 {
            world.restart(1);
            world.ends[1].address = places[turn / 3].parse().unwrap();
            world.run(20.0);
            assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        }
        for which in 0..2 {
            assert!(world.ends[which].times("cloned-end") == 0, "{:?}", world.ends[which].log);
            assert_eq!(problem(&world, which), None);
        }
    }
}

/// Ends that are called in parallel may share the key, as a hot standby does.
#[test]
fn ends_that_are_called_side_by_side_are_no_clones() {
    for mode in MODES {
        let mut world = World::with(mode(0), mode(1), [0, 0]);
        let both = [MON, TWO].map(|address| address.parse().unwrap());
        world.ends[1].remotes = both.to_vec();
        world.ends.push(End::new(mode(0), TWO, None, 0, world.start, 78));
        world.run(5.0);
        for turn in 0..4 {
            let now = world.now(1);
            world.ends[1].remotes = vec![both[(turn + 1) % 2], both[turn % 2]];
            world.ends[1].link.handle_reconnect(now);
            world.run(9.0);
        }
        assert!(world.ends[1].times("cloned-end") == 0, "{:?}", world.ends[1].log);
    }
}
