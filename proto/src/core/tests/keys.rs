//! Keys that are used up, or shared with a copy of the machine.

use super::*;

/// The key of each datagram that an end sent from `at` on: its key id, or `None` for a handshake.
fn keys_used(world: &World, which: usize, at: usize) -> Vec<Option<KeyId>> {
    let keys = LinkKeys::new(&[42; 32]);
    let sent = world.record[at..].iter().filter(|flying| flying.from == world.ends[which].address);
    sent.map(|flying| {
        let tag = flying.bytes.last_chunk().unwrap();
        Some(lane::unmask(&keys.mask(tag), &flying.bytes).0).filter(|_| !wrap::is_probe(&keys, &flying.bytes))
    })
    .collect()
}

/// The link hears of the copy a moment after the lane, and may have prepared a key meanwhile.
#[test]
fn a_lane_that_is_a_copy_takes_no_key_that_is_older_than_the_links_word() {
    let mut world = handshake_world();
    world.run(5.0);
    let (now, key) = (world.now(0).instant, world.prepared.last().unwrap().clone());
    let mut body = Vec::new();
    control::encode(&Message::Bye { reason: String::new() }, &mut body);
    let to: SocketAddr = FRI.parse().unwrap();
    let decided = [
        SendCommand::Prepare(KeySlot::Next, key),
        SendCommand::Switch(KeySlot::Next),
        SendCommand::Control { body, to: to.into(), under: KeySlot::Current, lane: 0 },
    ]
    .map(Command::from);
    let end = &mut world.ends[0];
    end.lane.wipe_all(&mut end.out);
    for command in decided.clone() {
        end.lane.handle_command(now, command, &mut end.out);
    }
    assert!(end.out.sent.is_empty(), "sealed under a key that a copy may have");
    for command in Command::wipe_all().into_iter().chain(decided) {
        end.lane.handle_command(now, command, &mut end.out);
    }
    assert_eq!(end.out.sent.len(), 1);
}

#[test]
fn resumed_ends_use_no_key_again_and_the_link_stays_up() {
    for which in 0..2 {
        for is_static in [true, false] {
            let own = if is_static { settings } else { handshake };
            let mut world = World::with(own(0), own(1), [0, 0]);
            world.run(5.0);
            world.assert_carries();
            let before = keys_used(&world, which, 0);
            let at = world.record.len();
            // As in the worker: between its look at the clocks and the wiping nothing is sealed, not even what waited
            // for the rest of a batch.
            let end = &mut world.ends[which];
            end.lane.outward.handle_frame(b"waiting", &[], &mut end.out);
            end.lane.wipe_all(&mut end.out);
            end.lane.handle_frames(&[b"lost"], &mut end.out);
            assert!(end.out.sent.is_empty(), "no key, no datagram");
            end.out.notices.push_back(Notice::Resumed);
            world.run(0.1);
            let first = keys_used(&world, which, at);
            if is_static {
                assert!(first.iter().all(|key_id| !before.contains(key_id)), "an old key id");
            } else {
                assert_eq!(first.first(), Some(&None), "a handshake before anything else");
            }
            world.run(3.0);
            assert!(
                is_static || keys_used(&world, which, at).iter().filter(|key| key.is_none()).count() == 1
            );
            world.assert_carries();
            assert!(world.up() && world.ends.iter().all(|end| !end.fell()), "{which}");
            assert!(world.ends[which].said(&Condition::Resumed));
            let opened_again: u64 =
                world.ends.iter().map(|end| end.stats().drops(DropReason::Replayed)).sum();
            assert_eq!(opened_again, 0);
            // It refuses recordings from before the copy was made.
            world.ends[which].out.frames.clear();
            let address = world.ends[which].address;
            let old: Vec<_> =
                world.record[..at].iter().filter(|flying| flying.to == address).cloned().collect();
            for flying in old {
                world.inject(flying);
            }
            assert!(world.ends[which].out.frames.is_empty());
        }
    }
}

#[test]
fn resumed_over_and_over_is_said_once_a_minute() {
    let mut world = World::with(handshake(0), handshake(1), [0, 0]);
    world.run(2.0);
    for _ in 0..200 {
        let now = world.now(1);
        world.ends[1].link.handle_resumed(now);
        world.run(0.2);
    }
    assert_eq!(world.ends[1].times("resumed"), 1);
    world.run(5.0);
    world.assert_carries();
}

#[test]
fn a_key_at_its_last_counter_is_changed_before() {
    let mut world = World::new();
    world.run(3.0);
    let now = world.now(1);
    let end = &mut world.ends[1];
    let report = lane::Report { key_used_up: true, ..end.lane.report(now.instant) };
    end.link.handle_report(now, &report);
    end.link.handle_timeout(now);
    assert!(matches!(end.link.poll_command(), Some(Command::Send(SendCommand::Prepare(..)))));
}

#[test]
fn a_key_that_sealed_many_blocks_is_changed_without_losing_a_frame_and_refuses_at_the_end() {
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.run(3.0);
        for (worn, changes) in [(0, false), (BLOCKS_ROTATE - 100, true)] {
            world.ends[1].lane.outward.wear(worn);
            let before = world.prepared.len();
            for _ in 0..30 {
                world.assert_carries();
                world.run(0.05);
            }
            // A frame of 100 bytes is seven blocks, plus one for its header.
            assert_eq!(world.prepared.len() > before, changes, "after {worn} blocks");
        }
        world.ends[1].lane.outward.wear(BLOCKS_END);
        world.ends[0].out.frames.clear();
        world.send(1, &[b"under a key that is used up"]);
        assert!(world.ends[0].out.frames.is_empty());
    }
}
