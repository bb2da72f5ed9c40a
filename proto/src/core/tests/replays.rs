//! Recordings, modified datagrams and floods, with static keys.

use super::*;

#[test]
fn replayed_reflected_and_broken_datagrams_deliver_nothing_and_get_no_answer() {
    let mut world = World::new();
    world.run(5.0);
    world.assert_carries();
    let record = world.record.clone();
    for end in &mut world.ends {
        end.out.frames.clear();
    }
    let sent = world.record.len();
    let stranger: SocketAddr = "203.0.113.9:9".parse().unwrap();
    for flying in &record {
        world.inject(Flying { to: flying.from, ..flying.clone() });
    }
    assert_eq!(world.record.len(), sent, "what is sent back gets no answer");
    let sent = world.record.len();
    for flying in &record {
        for from in [flying.from, stranger] {
            world.inject(Flying { from, ..flying.clone() });
            world.inject(Flying { from, to: flying.from, ..flying.clone() });
            for length in [0, 1, 20, 36, flying.bytes.len() - 1] {
                let bytes = flying.bytes[..length].to_vec();
                world.inject(Flying { from, to: flying.to, bytes });
            }
            for bit in (0..flying.bytes.len() * 8).step_by(7) {
                let mut bytes = flying.bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                world.inject(Flying { from, to: flying.to, bytes });
            }
        }
    }
    assert!(world.ends.iter().all(|end| end.out.frames.is_empty()));
    assert_eq!(world.record.len(), sent, "something was answered");
    for end in &world.ends {
        for reason in [
            DropReason::Replayed,
            DropReason::Reflected,
            DropReason::BadTag,
            DropReason::Stranger,
            DropReason::TooShort,
        ] {
            assert!(end.stats().drops(reason) > 0, "{} in {}", reason.label(), end.stats());
        }
    }
    world.assert_carries();
}

#[test]
fn replaying_everything_all_the_time_costs_no_frame() {
    let mut world = World::new();
    world.run(5.0);
    let record = world.record.clone();
    for n in 0..1500u32 {
        world.run(0.1);
        world.send(0, &[&n.to_be_bytes()]);
        world.send(1, &[&n.to_be_bytes()]);
        for flying in &record {
            world.inject(flying.clone());
        }
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 1500, "{}", end.stats());
    }
}

#[test]
fn a_recording_cannot_enter_a_restarted_receiver() {
    let mut world = World::new();
    world.run(5.0);
    world.assert_carries();
    let record = world.record.clone();
    world.restart(0);
    world.cut = true;
    let sent = world.record.len();
    for flying in record.iter().filter(|flying| flying.to.to_string() == MON) {
        world.inject(flying.clone());
    }
    assert!(world.ends[0].out.frames.is_empty());
    assert!(!world.ends[0].link.is_up());
    let answers = &world.record[sent..];
    assert!((1..=2).contains(&answers.len()), "{} answers", answers.len());
    let longest = record.iter().map(|cause| cause.bytes.len()).max();
    assert!(answers.iter().all(|answer| Some(answer.bytes.len()) <= longest));
}

/// The peer continues under its key id, and the restarted receiver accepts that: but nothing sealed before it restarted.
#[test]
fn frames_from_before_a_restart_do_not_arrive_again_under_a_key_id_that_lasts() {
    let mut world = World::new();
    world.run(5.0);
    world.assert_carries();
    let record = world.record.clone();
    world.restart(0);
    world.run(15.0);
    assert!(world.up(), "{:?}", world.ends[0].log);
    world.ends[0].out.frames.clear();
    for flying in record.into_iter().filter(|flying| flying.to.to_string() == MON) {
        world.inject(flying);
    }
    assert!(world.ends[0].out.frames.is_empty());
    world.assert_carries();
}

#[test]
fn a_flood_of_recorded_key_ids_cannot_keep_out_a_peer_whose_time_must_be_proven() {
    let hour = 3_600_000_000;
    let mut world = World::with(settings(0), settings(1), [0, -hour]);
    for _ in 0..3 {
        world.run(5.0);
        world.assert_carries();
        world.restart(1);
    }
    let record: Vec<_> = world.record.iter().filter(|flying| flying.to.to_string() == MON).cloned().collect();
    for _ in 0..100 {
        for flying in &record {
            world.inject(Flying { from: "203.0.113.9:9".parse().unwrap(), ..flying.clone() });
        }
        world.run(0.1);
    }
    assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
    world.assert_carries();
}

#[test]
fn recordings_of_old_key_ids_take_no_room_from_what_is_new() {
    let mut world = World::new();
    world.run(5.0);
    world.assert_carries();
    let recording: Vec<_> =
        world.record.iter().filter(|flying| flying.to == MON.parse().unwrap()).cloned().collect();
    world.restart(1);
    // Whatever was live has expired.
    world.run(200.0);
    world.assert_carries();
    let before = world.ends[0].stats().drops(DropReason::RateLimited);
    let flood = 1000;
    recording.iter().cycle().take(flood).for_each(|flying| world.inject(flying.clone()));
    let refused = world.ends[0].stats().drops(DropReason::RateLimited) - before;
    assert_eq!(refused, flood as u64 - u64::from(OLD), "{}", world.ends[0].stats());
    world.restart(1);
    world.run(5.0);
    world.assert_carries();
}
