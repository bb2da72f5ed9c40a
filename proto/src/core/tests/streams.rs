//! From datagrams to a stream and back.

use super::*;
use crate::wire::stream::RECORD_MAX;

fn worlds() -> [World; 2] {
    [(settings(0), settings(1)), (handshake(0), handshake(1))].map(|(mon, fri)| {
        let mut world = World::with(mon, fri, [0, 0]);
        world.ends[1].remotes.push("198.51.100.1:563".parse().unwrap());
        world
    })
}

/// Runs until frames pass in both directions again; returns the seconds.
fn carries_after(world: &mut World, limit: f64) -> f64 {
    let begun = world.elapsed;
    loop {
        let took = (world.elapsed - begun).as_secs_f64();
        let mut arrived = true;
        for which in 0..2 {
            world.ends[1 - which].out.frames.clear();
            world.send(which, &[&[7; 100]]);
            arrived &= !world.ends[1 - which].out.frames.is_empty();
        }
        if arrived {
            return took;
        }
        assert!(took < limit, "nothing for {took} s: {:?}", world.ends[1].log);
        world.run(0.1);
    }
}

fn over_stream(world: &World) -> [bool; 2] {
    [0, 1].map(|which| {
        world.ends[which].link.state(world.now(which).instant, &Stats::default()).budget
            == Some(RECORD_MAX as u32)
    })
}

#[test]
fn where_datagrams_pass_nothing_goes_by_a_stream() {
    for mut world in worlds() {
        world.run(120.0);
        assert_eq!(over_stream(&world), [false; 2]);
        assert!(world.record.iter().all(|flying| flying.to.port() != STREAM), "{:?}", world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn a_link_that_finds_no_datagrams_pass_comes_up_by_a_stream_and_tries_datagrams_every_minute() {
    for mut world in worlds() {
        world.no_udp = true;
        world.run(5.0);
        assert!(world.up(), "{:?}", world.ends[1].log);
        assert_eq!(over_stream(&world), [true; 2]);
        world.assert_carries();
        let before = world.record.len();
        world.run(300.0);
        let tries = world.record[before..].iter().filter(|flying| flying.to.to_string() == MON).count();
        assert!((4..=6).contains(&tries), "{tries}");
        assert!(world.up() && over_stream(&world) == [true; 2]);
        world.no_udp = false;
        world.run(65.0);
        assert_eq!(over_stream(&world), [false; 2], "{:?}", world.ends[1].log);
        world.assert_carries();
        assert!((0..2).all(|which| !world.ends[which].fell()));
    }
}

#[test]
fn datagrams_that_cease_to_pass_are_missed_for_less_than_ten_seconds_and_come_back_without_a_lost_frame() {
    for mut world in worlds() {
        world.run(20.0);
        let keys = world.prepared.len();
        world.no_udp = true;
        let took = carries_after(&mut world, 10.0);
        assert!(took > 1.0, "{took}");
        assert_eq!(over_stream(&world), [true; 2]);
        world.no_udp = false;
        let mut lost = 0;
        for _ in 0..700 {
            for which in 0..2 {
                world.ends[1 - which].out.frames.clear();
                world.send(which, &[&[7; 100]]);
                lost += usize::from(world.ends[1 - which].out.frames.is_empty());
            }
            world.run(0.1);
        }
        assert_eq!((lost, over_stream(&world)), (0, [false; 2]), "{:?}", world.ends[1].log);
        assert!((0..2).all(|which| !world.ends[which].fell() && world.ends[which].times("over-udp") == 1));
        assert!(world.elapsed < Duration::from_secs(115) || world.prepared.len() >= keys);
    }
}

#[test]
fn records_that_are_sent_again_as_datagrams_do_not_move_a_link_whose_datagrams_pass() {
    for mut world in worlds() {
        world.run(5.0);
        let end = &mut world.ends[1];
        end.lane.handle_frames(&[b"a frame that somebody sends on"], &mut end.out);
        world.settle(1);
        let taken = world.wire.pop_front().unwrap();
        world.inject(Flying {
            from: "203.0.113.9:40000".parse().unwrap(),
            to: "198.51.100.1:563".parse().unwrap(),
            ..taken
        });
        world.run(6.0);
        assert_eq!(over_stream(&world), [false; 2]);
        world.assert_carries();
    }
}
