//! Handshakes against an observer beside the path, who sees everything, sends what he recorded or withheld while on the
//! path, and drops nothing any more.

use super::*;
use crate::core::limits::{CALLERS_NEW, CALLERS_OTHER, CALLERS_TURNS};
use crate::wire::handshake::{Envelope, Kind};

/// The type of a handshake datagram.
fn kind(flying: &Flying) -> Option<Kind> {
    let plain = wrap::open(&LinkKeys::new(&[42; 32]), &flying.bytes)?;
    Envelope::parse(&plain).ok().map(|envelope| envelope.of.kind)
}

fn is_call(flying: &Flying, to: &str) -> bool {
    flying.to.to_string() == to && kind(flying) == Some(Kind::Initiation)
}

fn calls(world: &World, to: &str) -> Vec<Flying> {
    world.record.iter().filter(|flying| is_call(flying, to)).cloned().collect()
}

/// Time passes in steps of 50 ms; `wire` decides whether each datagram passes.
fn run(world: &mut World, seconds: f64, wire: &mut dyn FnMut(&mut World, &Flying) -> bool) {
    let until = world.elapsed + Duration::from_secs_f64(seconds);
    while world.elapsed < until {
        (0..2).for_each(|which| world.settle(which));
        while let Some(flying) = world.wire.pop_front() {
            if wire(world, &flying) {
                world.inject(flying);
            }
        }
        world.elapsed += Duration::from_millis(50);
        world.tick();
    }
}

/// Sends mon a recorded call right after each of the peer's; returns the time until the link was up, and how many were
/// used.
fn chased(world: &mut World, mut recorded: Vec<Flying>) -> (Duration, usize) {
    let (began, all) = (world.elapsed, recorded.len());
    while !world.up() && world.elapsed < began + Duration::from_secs(600) {
        run(world, 0.1, &mut |world, flying| {
            if !is_call(flying, MON) {
                return true;
            }
            world.inject(flying.clone());
            if let Some(old) = recorded.pop() {
                world.inject(Flying { to: flying.to, from: flying.from, bytes: old.bytes });
            }
            false
        });
    }
    (world.elapsed - began, all - recorded.len())
}

#[test]
fn a_recorded_call_behind_each_of_the_peers_keeps_no_restarted_end_down() {
    let mut world = handshake_world();
    world.run(120.0 * 20.0);
    let recorded = calls(&world, MON);
    assert!(recorded.len() >= 19, "{}", recorded.len());
    world.ends[0].link.handle_stop(false);
    world.drain();
    world.restart(0);
    let (took, used) = chased(&mut world, recorded);
    assert!(took < Duration::from_secs(6) && used > 0, "{took:?} with {used} recordings");
    world.assert_carries();
}

#[test]
fn an_ends_own_calls_of_former_instances_sent_back_keep_it_down_no_longer() {
    let mut world = handshake_world();
    for _ in 0..5 {
        world.run(20.0);
        world.cut = true;
        world.run(90.0);
        world.cut = false;
        world.run(10.0);
    }
    let own = calls(&world, FRI);
    assert!(own.len() > 20, "{}", own.len());
    world.cut = true;
    world.run(90.0);
    world.cut = false;
    let (took, used) = chased(&mut world, own);
    assert!(took < Duration::from_secs(8) && used > 0, "{took:?} with {used} recordings");
}

/// They are newer than all that mon accepted of that instance, but prove no more than others.
#[test]
fn withheld_calls_of_the_known_instance_hold_no_place_against_a_token() {
    for restarted in [false, true] {
        let mut world = handshake_world();
        world.run(10.0);
        let mut held = Vec::new();
        run(&mut world, 250.0, &mut |_, flying| {
            let call = kind(flying) == Some(Kind::Initiation);
            held.extend((call && is_call(flying, MON)).then(|| flying.clone()));
            !call
        });
        assert!(!world.up() && held.len() > 10, "{}", held.len());
        if restarted {
            world.restart(1);
        }
        let (began, mut next) = (world.elapsed, Duration::ZERO);
        held.reverse();
        while !world.up() && world.elapsed < began + Duration::from_secs(300) {
            if world.elapsed - began >= next {
                held.pop().into_iter().for_each(|old| world.inject(old));
                next += Duration::from_millis(4900);
            }
            run(&mut world, 0.1, &mut |_, _| true);
        }
        let took = world.elapsed - began;
        assert!(took < Duration::from_secs(8), "{took:?}, restarted: {restarted}");
    }
}

/// Calls of instances that nobody answered.
fn instances(count: usize) -> (World, Vec<Flying>) {
    let mut world = handshake_world();
    world.cut = true;
    for _ in 0..count {
        world.run(0.2);
        world.restart(1);
    }
    let recorded = calls(&world, MON);
    assert!(recorded.len() >= count, "{}", recorded.len());
    world.restart(0);
    (world, recorded)
}

#[test]
fn no_more_than_ten_callers_a_second_get_anything_back() {
    let (mut world, recorded) = instances(60);
    let victim: SocketAddr = "203.0.113.9:9".parse().unwrap();
    let (from, most) = (world.record.len(), (CALLERS_NEW + CALLERS_OTHER) as usize);
    recorded.iter().for_each(|flying| world.inject(Flying { from: victim, ..flying.clone() }));
    let answers = &world.record[from..];
    assert_eq!(answers.len(), most);
    let room: usize = recorded[..most].iter().map(|flying| flying.bytes.len()).sum();
    assert!(answers.iter().map(|answer| answer.bytes.len()).sum::<usize>() <= room);
    assert!(answers.iter().all(|answer| answer.to == victim));
    for _ in 0..3 {
        world.elapsed += Duration::from_secs(1);
        let from = world.record.len();
        recorded.iter().for_each(|flying| world.inject(Flying { from: victim, ..flying.clone() }));
        assert!(world.record.len() - from <= most, "{} in a second", world.record.len() - from);
    }
}

/// The same ones repeatedly, some thousand a second, from the peer's own address and others: at the latest when their
/// turns are over, the peer gets its own.
#[test]
fn a_flood_of_recordings_keeps_the_peer_out_for_a_bounded_time() {
    let count = 40;
    let (mut world, recorded) = instances(count);
    world.cut = false;
    let (began, flood) = (world.elapsed, &recorded);
    // The lane drops what it remembers: an attacker with more recordings than that gets past it.
    let flood = |world: &mut World| {
        for flying in flood {
            let now = world.now(0);
            let (from, datagram) = (Path::from(flying.from), flying.bytes.clone());
            let notice = Notice::Handshake(lane::Received { from, datagram });
            world.ends[0].link.handle_notice(now, notice);
        }
        world.settle(0);
    };
    world.restart(1);
    while !world.up() && world.elapsed < began + Duration::from_secs(600) {
        flood(&mut world);
        run(&mut world, 0.05, &mut |_, _| true);
    }
    let took = world.elapsed - began;
    let turns = count as u64 * CALLERS_TURNS / u64::from(CALLERS_NEW);
    assert!(took < Duration::from_secs(turns + 2 * 6), "{took:?}");
}
