//! Cases of docs/cases.md that need two whole ends.

use super::super::limits::WINDOW;
use super::*;

const STRANGER: &str = "203.0.113.9:9";
const HOUR: i64 = 3_600_000_000;

/// An established link in each key mode.
fn links() -> [World; 2] {
    [settings, handshake].map(|own| {
        let mut world = World::with(own(0), own(1), [0, 0]);
        world.run(5.0);
        world.assert_carries();
        world
    })
}

#[test]
fn a_frame_is_delivered_once_inside_the_window_at_its_edges_and_after_reorder() {
    for mut world in links() {
        let count = WINDOW as usize + 1;
        let [mon, fri] = &mut world.ends[..] else { unreachable!() };
        mon.out.frames.clear();
        for number in 0..count {
            fri.lane.handle_frames(&[&number.to_be_bytes()], &mut fri.out);
        }
        let sent: Vec<_> = std::mem::take(&mut fri.out.sent).into_iter().map(|(bytes, _)| bytes).collect();
        assert_eq!(sent.len(), count);
        let mut give = |number: usize| {
            let before = world.ends[0].out.frames.len();
            let (from, to) = (world.ends[1].address, world.ends[0].address);
            world.inject(Flying { from, to, bytes: sent[number].clone() });
            world.ends[0].out.frames.len() - before
        };
        assert_eq!((give(count - 1), give(count - 1)), (1, 0), "the newest");
        assert_eq!(give(0), 0, "one behind the window");
        assert_eq!((give(1), give(1)), (1, 0), "the last inside the window");
        // 4097 is coprime to the window's size: every number once, in shuffled order.
        let shuffled = (0..count).map(|step| step * 4097 % count);
        let delivered: usize = shuffled.map(|number| give(number) + give(number)).sum();
        assert_eq!(delivered, count - 3, "all others");
        assert_eq!((0..count).map(&mut give).sum::<usize>(), 0, "all of them again");
    }
}

/// If the counter restarts at zero under an old key, counters repeat.
#[test]
fn no_key_is_sent_under_twice_however_often_ends_are_killed_and_clocks_set_back() {
    for mut world in links() {
        for round in 0..12 {
            world.run(7.3 + f64::from(round));
            let record = world.record.clone();
            record.iter().for_each(|flying| world.inject(flying.clone()));
            world.ends[round as usize % 2].skew -= 20_000_000;
            world.restart(round as usize % 2);
        }
        world.run(200.0);
        world.assert_carries();
        assert!(world.prepared.len() > 16, "{}", world.prepared.len());
        for (number, key) in world.prepared.iter().enumerate() {
            let same = |other: &Key| match (key, other) {
                (Key::KeyId(one), Key::KeyId(other)) => one == other,
                (Key::Slot { key: one, .. }, Key::Slot { key: other, .. }) => one == other,
                (Key::KeyId(_), Key::Slot { .. }) | (Key::Slot { .. }, Key::KeyId(_)) => false,
            };
            assert!(!world.prepared[..number].iter().any(same), "number {number}");
        }
    }
}

#[test]
fn clocks_that_jump_while_the_link_is_up_do_not_end_it() {
    for which in 0..2 {
        for jump in [-HOUR, HOUR, 365 * 24 * HOUR, -(YEAR_2026 as i64)] {
            for mut world in links() {
                world.ends[which].skew += jump;
                world.run(150.0);
                world.assert_carries();
                world.ends[which].skew -= jump;
                world.run(150.0);
                world.assert_carries();
                assert!(!world.ends.iter().any(|end| end.fell()), "{which} {jump}");
            }
        }
    }
}

/// Total bytes of an end's answers to a stranger's datagram.
fn answer(world: &mut World, flying: Flying) -> usize {
    let before = world.record.len();
    world.inject(flying);
    world.record[before..].iter().map(|answer| answer.bytes.len()).sum()
}

#[test]
fn nothing_that_was_recorded_changed_or_invented_brings_about_more_bytes_than_it_has() {
    let stranger: SocketAddr = STRANGER.parse().unwrap();
    for mut world in links() {
        for which in 0..2 {
            world.restart(which);
            world.run(6.0);
        }
        let record = world.record.clone();
        let mut answered = 0;
        for state in 0..4 {
            // Up; restarted without a peer; twice; and for longer.
            match state {
                0 => {}
                1 | 2 => world.restart(0),
                _ => world.run(3.0),
            }
            world.cut = state > 0;
            for (number, flying) in record.iter().filter(|flying| flying.to.to_string() == MON).enumerate() {
                let mut broken = flying.bytes.clone();
                broken[number % flying.bytes.len()] ^= 0x10;
                let cut = flying.bytes[..number % flying.bytes.len()].to_vec();
                for bytes in [flying.bytes.clone(), broken, cut, Dice(number as u64).bytes(number % 700)] {
                    let length = bytes.len();
                    let said = answer(&mut world, Flying { from: stranger, to: flying.to, bytes });
                    assert!(said <= length, "{said} bytes answer {length}");
                    answered += usize::from(said > 0);
                }
                world.run(0.1);
                world.wire.clear();
            }
        }
        assert!(answered > 0, "a recording of a lost time is answered: the test looks at answers at all");
    }
}

#[test]
fn whatever_is_wrong_meets_the_same_silence() {
    for mut world in links() {
        let record = world.record.clone();
        for end in &mut world.ends {
            end.out.frames.clear();
            end.log.clear();
        }
        let sent = world.record.len();
        for (number, flying) in record.iter().enumerate() {
            let mut changed: Vec<_> =
                [0, 1, 15, 16, 20, 21, 37, 100, 1472].map(|n| Dice(n).bytes(n as usize)).into();
            changed.extend((0..flying.bytes.len()).map(|length| flying.bytes[..length].to_vec()));
            changed.extend((0..flying.bytes.len()).map(|at| {
                let mut bytes = flying.bytes.clone();
                bytes[at] ^= 1 << (number % 8);
                bytes
            }));
            changed.push([flying.bytes.as_slice(), &[0]].concat());
            for bytes in changed {
                world.inject(Flying { bytes, ..flying.clone() });
            }
        }
        assert_eq!(world.record.len(), sent, "something was answered");
        assert!(world.ends.iter().all(|end| end.out.frames.is_empty() && end.log.is_empty()));
        world.assert_carries();
    }
}

/// An attacker on the path copies each of fri's datagrams, is faster with the copy, sent from an address of his own,
/// and relays all replies: he wants the link to go through him.
#[test]
fn a_relay_of_copies_cannot_move_the_link() {
    let thief: SocketAddr = STRANGER.parse().unwrap();
    for mut world in links() {
        let [mon, fri] = [0, 1].map(|end: usize| world.ends[end].address);
        let mut asked = 0;
        for second in 0..30 {
            world.run(1.0);
            let end = &mut world.ends[1];
            end.lane.handle_frames(&[b"a frame of some length"], &mut end.out);
            world.settle(1);
            while let Some(flying) = world.wire.pop_front() {
                if flying.to == thief {
                    asked += 1;
                    world.inject(Flying { from: mon, to: fri, bytes: flying.bytes });
                } else if flying.from == fri {
                    world.inject(Flying { from: thief, ..flying.clone() });
                    world.inject(flying);
                } else {
                    world.inject(flying);
                }
            }
            assert!(world.ends[0].times("peer-moved") == 0, "in second {second}: {:?}", world.ends[0].log);
        }
        assert!(asked > 5, "the thief is asked to prove himself: {asked}");
        world.assert_carries();
    }
}

#[test]
fn what_was_recorded_begins_no_move() {
    let stranger: SocketAddr = STRANGER.parse().unwrap();
    for mut world in links() {
        let record = world.record.clone();
        let sent = world.record.len();
        for flying in record.iter().filter(|flying| flying.to.to_string() == MON) {
            world.inject(Flying { from: stranger, ..flying.clone() });
        }
        world.run(0.1);
        let path = |flying: &&Flying| {
            flying.to == stranger
                && flying.bytes.len() > Framing::Static.overhead() + super::super::path::QUESTION
        };
        assert_eq!(world.record[sent..].iter().filter(path).count(), 0);
        world.run(6.0);
        assert!(world.ends[0].times("peer-moved") == 0);
        world.assert_carries();
    }
}

#[test]
fn a_move_is_not_questioned_at_greater_length_than_what_tells_of_it() {
    for mut world in links() {
        let (before, elsewhere) = (world.record.len(), "203.0.113.7:4242".parse().unwrap());
        world.ends[1].address = elsewhere;
        world.send(1, &[b"."]);
        world.run(3.0);
        let mut longest = 0;
        for flying in &world.record[before..] {
            if flying.from == elsewhere {
                longest = longest.max(flying.bytes.len());
            } else if flying.to == elsewhere {
                assert!(flying.bytes.len() <= longest, "{} bytes for {longest}", flying.bytes.len());
            }
        }
        assert!(world.ends[0].said(&moved("203.0.113.7:4242")), "{:?}", world.ends[0].log);
    }
}
