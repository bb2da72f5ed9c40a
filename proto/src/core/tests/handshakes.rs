//! Sessions with handshake keys.

use super::*;
use crate::core::hello;

#[test]
fn a_handshake_brings_the_link_up_at_once_whatever_the_clocks_say() {
    for skew in [0, -56 * 365 * 86_400 * 1_000_000] {
        let mut world = World::with(handshake(0), handshake(1), [0, skew]);
        world.run(0.5);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
    }
}

/// Thus the link is up no later on a path that carries its datagrams unsplit.
#[test]
fn ml_kem_takes_no_datagram_more_until_the_link_is_up() {
    let datagrams = |exchange| {
        let with = |which| LinkSettings { exchange, ..handshake(which) };
        let mut world = World::with(with(0), with(1), [0, 0]);
        while !world.up() {
            assert!(world.elapsed < Duration::from_secs(1));
            world.run(0.001);
        }
        (world.record.len(), world.elapsed)
    };
    assert_eq!(datagrams(Exchange::Hybrid), datagrams(Exchange::X25519));
}

#[test]
fn key_pairs_meet_each_other_and_nobody_else() {
    let pair = |which| LinkSettings { name: "with a pair+".into(), ..handshake(which) };
    let mut world = World::with(pair(0), pair(1), [0, 0]);
    world.run(1.0);
    world.assert_carries();
    let mut world = World::with(pair(0), handshake(1), [0, 0]);
    world.run(20.0);
    assert!(!world.ends.iter().any(|end| end.link.is_up()));
}

#[test]
fn a_confirmation_that_found_the_queue_full_is_tried_again() {
    let mut world = handshake_world();
    world.ends[0].out.refused = 1;
    world.run(3.0);
    assert!(world.up(), "{:?}", world.ends[0].log);
}

#[test]
fn rekeying_loses_no_frame() {
    let mut world = handshake_world();
    world.run(1.0);
    for n in 0..8000u32 {
        world.run(0.1);
        world.send(0, &[&n.to_be_bytes()]);
        world.send(1, &[&n.to_be_bytes()]);
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 8000, "{} {:?}", end.stats(), end.log);
        assert!(!end.fell(), "{:?}", end.log);
    }
}

#[test]
fn both_ends_may_call_at_once() {
    let mon = LinkSettings { has_remote: true, ..handshake(0) };
    let mut world = World::with(mon, handshake(1), [0, 0]);
    world.ends[0].remotes = vec![FRI.parse().unwrap()];
    world.run(0.5);
    assert!(world.up());
    for _ in 0..6000 {
        world.run(0.1);
        world.send(0, &[b"a"]);
        world.send(1, &[b"b"]);
    }
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), 6000, "{}", end.stats());
    }
}

#[test]
fn after_a_restart_or_a_cut_handshakes_bring_the_link_back_within_twenty_seconds() {
    for which in 0..2 {
        let mut world = handshake_world();
        world.run(30.0);
        world.restart(which);
        world.run(20.0);
        assert!(world.up(), "{which}: {:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
        world.cut = true;
        world.run(300.0);
        assert!(!world.up());
        world.cut = false;
        world.run(20.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn recorded_handshakes_and_sessions_enter_nowhere() {
    let mut world = handshake_world();
    world.run(5.0);
    world.assert_carries();
    let record = world.record.clone();
    world.ends.iter_mut().for_each(|end| end.out.frames.clear());
    let sent = world.record.len();
    let stranger: SocketAddr = "203.0.113.9:9".parse().unwrap();
    for flying in &record {
        for from in [flying.from, stranger] {
            world.inject(Flying { from, ..flying.clone() });
            world.inject(Flying { from, to: flying.from, ..flying.clone() });
            for bit in (0..flying.bytes.len() * 8).step_by(7) {
                let mut bytes = flying.bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                world.inject(Flying { from, to: flying.to, bytes });
            }
        }
    }
    assert!(world.ends.iter().all(|end| end.out.frames.is_empty()));
    assert_eq!(world.record.len(), sent, "a recording of a confirmed instance gets no answer");
    world.assert_carries();

    // The initiation is new to a restarted end: a few answers, never longer, and nothing enters.
    world.restart(0);
    world.cut = true;
    let sent = world.record.len();
    for _ in 0..20 {
        for flying in record.iter().filter(|flying| flying.to.to_string() == MON) {
            world.inject(Flying { from: stranger, ..flying.clone() });
        }
    }
    let answers = &world.record[sent..];
    let initiation = record.iter().find(|flying| flying.to.to_string() == MON).unwrap().bytes.len();
    assert!((1..=6).contains(&answers.len()), "{}", answers.len());
    assert!(answers.iter().all(|answer| answer.bytes.len() <= initiation));
    assert!(world.ends[0].out.frames.is_empty() && !world.ends[0].link.is_up());
    world.cut = false;
    world.run(20.0);
    assert!(world.up(), "the peer still gets in: {:?}", world.ends[0].log);
}

#[test]
fn a_flood_of_recorded_initiations_cannot_keep_the_peer_out() {
    // Initiations of many instances, recorded while nobody answered.
    let mut world = handshake_world();
    world.cut = true;
    for _ in 0..40 {
        world.run(0.2);
        world.restart(1);
    }
    let record: Vec<_> = world.record.iter().filter(|flying| flying.to.to_string() == MON).cloned().collect();
    world.cut = false;
    world.restart(1);
    for _ in 0..200 {
        for flying in &record {
            world.inject(Flying { from: "203.0.113.9:9".parse().unwrap(), ..flying.clone() });
        }
        world.run(0.1);
    }
    assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
}

/// It was withheld until the peer's next process had its session; the former session is still live.
#[test]
fn what_a_former_process_of_the_peer_said_changes_nothing() {
    for misfit in [false, true] {
        let mut world = handshake_world();
        world.run(10.0);
        world.cut = true;
        let (from, now) = (world.record.len(), world.now(1).instant);
        let mon: SocketAddr = MON.parse().unwrap();
        let fri = &mut world.ends[1];
        if misfit {
            let mut body = Vec::new();
            let other = LinkSettings { mtu: 1300, ..fri.settings.clone() };
            control::encode(&Message::Hello(hello::own(&other, 1463, true)), &mut body);
            let order = Command::Send(SendCommand::Control {
                body,
                to: Path::from(mon),
                under: KeySlot::Current,
                lane: 0,
            });
            fri.lane.handle_command(now, order, &mut fri.out);
        } else {
            fri.link.handle_stop(false);
        }
        world.settle(1);
        let [late] = &world.record[from..] else { panic!("{} datagrams", world.record.len() - from) };
        let late = late.clone();
        world.cut = false;
        world.restart(1);
        world.run(3.0);
        world.assert_carries();
        let (lines, stale) = (world.ends[0].log.len(), world.ends[0].stats().drops(DropReason::Stale));
        world.inject(late);
        assert_eq!(world.ends[0].log[lines..], []);
        assert_eq!(world.ends[0].stats().drops(DropReason::Stale), stale + 1, "{}", world.ends[0].stats());
        world.assert_carries();
    }
}

#[test]
fn ciphers_are_negotiated_and_a_mismatch_is_said() {
    let only = |which, cipher| LinkSettings { suites: vec![cipher], ..handshake(which) };
    let mut world = World::with(handshake(0), only(1, Cipher::ChaCha20Poly1305), [0, 0]);
    world.run(1.0);
    world.assert_carries();
    let (aes, chacha) = (only(0, Cipher::Aes256Gcm), only(1, Cipher::ChaCha20Poly1305));
    let mut world = World::with(aes, chacha, [0, 0]);
    world.run(1.0);
    assert!(world.ends.iter().all(|end| end.said(&Condition::NoCommonCipher)), "{:?}", world.ends[0].log);
}

#[test]
fn a_handshake_reaches_the_link_once_however_often_it_comes() {
    let mut world = handshake_world();
    world.cut = true;
    world.run(30.0);
    let to_mon: Vec<_> = world.record.iter().filter(|flying| flying.to.to_string() == MON).cloned().collect();
    assert!(to_mon.len() >= 3, "{}", to_mon.len());
    let (now, mon) = (world.now(0).instant, &mut world.ends[0]);
    mon.out.notices.clear();
    for (round, flying) in std::iter::repeat_n(&to_mon, 50).flatten().enumerate() {
        let mut forged = flying.bytes.clone();
        let at = 24 + round % (forged.len() - 24);
        forged[at] ^= 1;
        for mut bytes in [forged, flying.bytes.clone()] {
            mon.lane.handle_datagram(now, Path::from(flying.from), &mut bytes, &mut mon.out);
        }
    }
    assert_eq!(mon.out.notices.len(), to_mon.len());
    let stats = mon.lane.stats();
    assert_eq!(stats.drops(DropReason::BadTag), to_mon.len() as u64, "later ones begin like what was taken");
    assert!(mon.out.notices.iter().all(Notice::is_unproven));
}
