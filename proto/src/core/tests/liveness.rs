//! Ends that start, stop, stay away and return, with static keys.

use super::*;

#[test]
fn a_first_start_is_up_within_two_seconds_and_carries_frames() {
    let mut world = World::new();
    world.run(2.0);
    assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
    world.assert_carries();
}

#[test]
fn either_end_may_start_first_and_be_alone_for_an_hour() {
    let mut world = World::new();
    world.cut = true;
    world.run(3600.0);
    assert!(world.ends[0].said(&Condition::NoRemote));
    assert!(world.ends[1].times("no-answer") > 0);
    world.cut = false;
    world.run(10.0);
    assert!(world.up());
}

#[test]
fn no_frame_is_lost_when_key_ids_change() {
    let mut world = World::new();
    world.run(2.0);
    for n in 0..2000u32 {
        world.run(0.1);
        world.send(0, &[&n.to_be_bytes()]);
        world.send(1, &[&n.to_be_bytes()]);
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 2000, "{}", end.stats());
    }
}

#[test]
fn clocks_far_apart_are_said_once_until_they_agree_and_do_no_harm() {
    for skews in [[0, -56 * 365 * 86_400 * 1_000_000], [3_600_000_000, -3_600_000_000]] {
        let mut world = World::with(settings(0), settings(1), skews);
        world.run(5.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.run(200.0);
        assert!(world.up());
        world.assert_carries();
        for (end, behind) in world.ends.iter().zip([true, false]) {
            let ahead = end.log.iter().filter_map(|said| match said {
                Said::Met(Condition::ClockDifference { ahead }) => Some(*ahead),
                Said::Met(_) | Said::Up | Said::Down(_) => None,
            });
            assert_eq!(ahead.map(|ahead| ahead < 0).collect::<Vec<_>>(), [behind]);
            assert_eq!(end.problem(world.now(0).instant), Some("clock-difference"));
        }
        for end in &mut world.ends {
            end.skew = 0;
        }
        // Key ids never go back: those of an end whose clock was an hour ahead wait for it.
        world.run(3700.0);
        assert!(world.up());
        for end in &world.ends {
            assert_eq!(end.problem(world.now(0).instant), None, "{:?}", end.log);
        }
    }
}

#[test]
fn a_restarted_end_is_back_within_twenty_seconds() {
    for which in 0..2 {
        let mut world = World::new();
        world.run(30.0);
        world.restart(which);
        world.run(15.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn a_lost_peer_is_noticed_and_found_again() {
    let mut world = World::new();
    world.run(5.0);
    world.cut = true;
    world.run(65.0);
    let silent = Said::Down(Condition::PeerSilent { silence: Duration::from_secs(60) });
    assert!(world.ends.iter().all(|end| !end.link.is_up() && end.log.contains(&silent)));
    world.cut = false;
    world.run(10.0);
    assert!(world.up());
    world.assert_carries();
}

#[test]
fn an_end_that_stops_says_so() {
    let mut world = World::new();
    world.run(5.0);
    world.ends[1].link.handle_stop(false);
    world.drain();
    let goodbye = Said::Down(Condition::PeerGoodbye { reason: "stopped".into() });
    assert!(world.ends[0].log.contains(&goodbye), "{:?}", world.ends[0].log);
    assert!(world.ends[0].log.last() == Some(&Said::Met(Condition::NoRemote)));
}

#[test]
fn what_the_peer_says_cannot_write_over_the_log() {
    let mut world = World::new();
    world.run(5.0);
    let to = world.ends[0].address.into();
    let mut body = Vec::new();
    control::encode(&Message::Bye { reason: "\r\x1b[2Jlink up".into() }, &mut body);
    let now = world.now(1).instant;
    let end = &mut world.ends[1];
    end.lane.handle_command(
        now,
        Command::Send(SendCommand::Control { body, to, under: KeySlot::Current, lane: 0 }),
        &mut end.out,
    );
    world.drain();
    let goodbye = Said::Down(Condition::PeerGoodbye { reason: "__[2Jlink up".into() });
    assert!(world.ends[0].log.contains(&goodbye), "{:?}", world.ends[0].log);
}

#[test]
fn every_start_draws_another_key_id_even_when_the_clock_stands_still() {
    let mut world = World::new();
    world.run(0.5);
    world.restart(1);
    world.ends[1].skew -= 500_000;
    world.run(0.5);
    let keys = LinkKeys::new(&[42; 32]);
    let mut key_ids: Vec<_> = (world.record.iter())
        .filter(|flying| flying.from == world.ends[1].address)
        .map(|flying| {
            let tag = flying.bytes.last_chunk().unwrap();
            let (key_id, header) = lane::unmask(&keys.mask(tag), &flying.bytes);
            (key_id.0, header.counter)
        })
        .collect();
    let all = key_ids.len();
    key_ids.sort_unstable();
    key_ids.dedup();
    assert_eq!(key_ids.len(), all, "no (key id, counter) twice");
}
