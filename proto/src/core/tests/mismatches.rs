//! Ends with mismatched settings say so.

use super::*;
use crate::wire::control::{Loop, LoopState};

#[test]
fn mismatches_are_said_on_both_ends_and_nothing_passes() {
    let tap = LinkSettings { mode: Mode::Tap, ..settings(1) };
    let mtu = LinkSettings { mtu: 1300, ..settings(1) };
    let same = LinkSettings { addresses: settings(0).addresses, ..settings(1) };
    let other = LinkSettings { addresses: vec!["192.168.86.99".parse().unwrap()], ..settings(1) };
    let device = |theirs, ours| Condition::DeviceModeMismatch { theirs, ours };
    let frames = |theirs, ours| Condition::MtuMismatch { theirs, ours };
    let conflict = || Condition::AddressConflict { address: settings(0).addresses[0] };
    let (expected, actual) = (settings(1).addresses[0], other.addresses[0]);
    let cases = [
        (tap, [device(Mode::Tap, Mode::Tun), device(Mode::Tun, Mode::Tap)]),
        (mtu, [frames(1300, 1400), frames(1400, 1300)]),
        (same, [conflict(), conflict()]),
        (
            other,
            [
                Condition::PeerAddressMismatch { expected, actual },
                Condition::OwnAddressMismatch { expected, actual },
            ],
        ),
    ];
    for (fri, conditions) in cases {
        let mut world = World::with(settings(0), fri, [0, 0]);
        world.run(70.0);
        world.send(0, &[b"frame"]);
        for (end, condition) in world.ends.iter().zip(conditions) {
            assert!(end.said(&condition), "{:?}", end.log);
            assert!(!end.link.is_up() && end.out.frames.is_empty());
            assert!(end.stats().drops(DropReason::NotAgreed) > 0, "{}", end.stats());
            assert!(end.log.len() < 12, "{:?}", end.log);
        }
        world.replace(1, settings(1));
        world.run(20.0);
        assert!(world.up(), "mended: {:?}", world.ends[0].log);
    }
}

#[test]
fn another_direction_cipher_or_key_is_said_on_both_ends() {
    let direction = LinkSettings { direction: 0, ..settings(1) };
    let cipher = LinkSettings { cipher: Cipher::Aes256Gcm, ..settings(1) };
    for (fri, codes) in
        [(direction, ["direction-mismatch", "own-datagrams"]), (cipher, ["cipher-mismatch"; 2])]
    {
        let said = |end: &End| codes.into_iter().any(|code| end.times(code) > 0);
        let mut world = World::with(settings(0), fri, [0, 0]);
        world.run(5.0);
        // The waiting end answers nothing, so only it can report; if it is told the address, both do.
        assert!(said(&world.ends[0]), "{:?}", world.ends[0].log);
        assert!(!world.up());
        let called = LinkSettings { has_remote: true, ..settings(0) };
        world.replace(0, called);
        world.ends[0].remotes = vec![FRI.parse().unwrap()];
        world.run(5.0);
        assert!(world.ends.iter().all(said), "{:?}", world.ends[1].log);
    }
    let mut world = World::new();
    let other = Arc::new(LinkKeys::new(&[43; 32]));
    world.ends[0].lane = Lane::new(lane::Settings::new(&settings(0), other, false));
    world.run(5.0);
    assert!(world.ends[0].said(&Condition::KeyMismatch));
}

#[test]
fn static_keys_against_handshake_keys_are_said_on_both_ends() {
    for (mon, fri) in [(settings(0), handshake(1)), (handshake(0), settings(1))] {
        let mut world = World::with(mon, fri, [0, 0]);
        world.run(60.0);
        for (which, end) in world.ends.iter().enumerate() {
            assert_eq!((end.times("key-mode-mismatch"), end.times("key-mismatch")), (1, 0), "{:?}", end.log);
            let problem = end
                .link
                .state(world.now(which).instant, &end.lane.stats())
                .problem
                .map(|problem| problem.code());
            assert_eq!(problem, Some("key-mode-mismatch"));
        }
        assert!(world.ends.iter().all(|end| end.log.len() < 6), "{:?}", world.ends[1].log);
        let signs: Vec<_> =
            world.record.iter().filter(|flying| flying.from == world.ends[0].address).collect();
        assert!((1..=13).contains(&signs.len()), "{} in a minute", signs.len());
        let shortest = world.record.iter().filter(|flying| flying.from == world.ends[1].address);
        let shortest = shortest.map(|flying| flying.bytes.len()).min().unwrap();
        assert!(signs.iter().all(|sign| sign.bytes.len() <= shortest), "longer than what caused it");
        world.replace(1, LinkSettings { key_mode: world.ends[0].settings.key_mode, ..settings(1) });
        world.run(10.0);
        assert!(world.up());
    }
}

#[test]
fn an_end_whose_answers_are_lost_says_so_until_they_arrive() {
    let lost = Condition::AnswersLost { from: FRI.parse().unwrap() };
    for (mon, fri) in [(settings(0), settings(1)), (handshake(0), handshake(1))] {
        for has_remote in [false, true] {
            let mut world = World::with(LinkSettings { has_remote, ..mon.clone() }, fri.clone(), [0, 0]);
            if has_remote {
                world.ends[0].remotes = vec![FRI.parse().unwrap()];
            }
            world.deaf = Some(1);
            world.run(9.0);
            assert!(!world.ends[0].said(&lost), "it may be a slow path: {:?}", world.ends[0].log);
            world.run(11.0);
            let problem = |world: &World, which: usize| {
                let state = world.ends[which].link.state(world.now(which).instant, &Stats::default());
                state.problem.map(|problem| problem.code())
            };
            assert_eq!([0, 1].map(|which| problem(&world, which)), [Some("answers-lost"), Some("no-answer")]);
            world.deaf = None;
            world.run(20.0);
            assert!(world.up(), "{:?}", world.ends[1].log);
            // New keys come of such calls too.
            world.run(400.0);
            assert_eq!((problem(&world, 0), world.ends[0].times("answers-lost")), (None, 1));
        }
    }
}

/// Neither end falls back to the other's key exchange.
#[test]
fn different_ways_to_agree_on_keys_are_said_on_both_ends() {
    use Exchange::{Hybrid, X25519};
    for ways in [[X25519, Hybrid], [Hybrid, X25519]] {
        let with = |which: usize| LinkSettings { exchange: ways[which], ..handshake(which) };
        let mut world = World::with(with(0), with(1), [0, 0]);
        world.run(60.0);
        assert!(!world.up());
        for (which, end) in world.ends.iter().enumerate() {
            let condition = Condition::ExchangeMismatch { theirs: ways[1 - which], ours: ways[which] };
            assert!(end.said(&condition), "{:?}", end.log);
        }
        assert!(world.ends.iter().all(|end| end.log.len() < 6), "{:?}", world.ends[1].log);
        let signs: Vec<_> =
            world.record.iter().filter(|flying| flying.from == world.ends[0].address).collect();
        assert!((1..=13).contains(&signs.len()), "{} in a minute", signs.len());
        assert!(signs.iter().all(|sign| sign.bytes.len() == 41));
        world.replace(1, LinkSettings { exchange: ways[0], ..handshake(1) });
        world.run(10.0);
        assert!(world.up());
    }
}

/// The parent reports up and down, at its own pace; the rest is the link's.
#[test]
fn a_peer_that_fits_and_does_not_in_turns_draws_out_a_few_lines_a_minute() {
    for mode in [KeyMode::Static, KeyMode::Handshake] {
        let with =
            |which| LinkSettings { key_mode: mode, suites: vec![Cipher::Aes256Gcm], ..settings(which) };
        let mut world = World::with(with(0), with(1), [0, 0]);
        world.run(5.0);
        assert!(world.up(), "{mode:?}");
        let before = lines(&world);
        for turn in 0..400_u32 {
            let mut hello = crate::core::hello::own(&world.ends[1].settings, 1400, true);
            if turn % 2 == 0 {
                hello.mtu = 2000 + turn;
            }
            say(&mut world, &Message::Hello(hello));
        }
        let drawn = lines(&world) - before;
        assert!((1..=12).contains(&drawn), "{mode:?}: {drawn} lines");
        // The subject is known all the same.
        world.run(150.0);
        assert!(world.up(), "{mode:?}: {:?}", world.ends[0].log.last());
    }
}

/// Sends any body from one end under its key.
fn say_as(world: &mut World, which: usize, body: Vec<u8>) {
    let (now, to) = (world.now(which).instant, world.ends[1 - which].address.into());
    let end = &mut world.ends[which];
    let command = SendCommand::Control { body, to, under: KeySlot::Current, lane: 0 };
    end.lane.handle_command(now, command.into(), &mut end.out);
    world.drain();
}

#[test]
fn a_peer_of_another_version_is_said_with_the_remedy() {
    for mut world in [World::new(), handshake_world()] {
        world.run(3.0);
        let hello = crate::core::hello::own(&world.ends[0].settings, 1200, true);
        let mut body = Vec::new();
        control::encode(&Message::Hello(control::Hello { version: 2, ..hello }), &mut body);
        say_as(&mut world, 0, body);
        let end = &world.ends[1];
        assert!(end.said(&Condition::VersionMismatch { theirs: 2, ours: 1 }), "{:?}", end.log);
        assert!(!end.link.is_up());
    }
}

#[test]
fn words_of_the_peer_that_cannot_be_read_are_counted_and_change_nothing() {
    for mut world in [World::new(), handshake_world()] {
        world.run(3.0);
        let lines = world.ends[1].log.len();
        for body in [vec![1], vec![2, 0xff], vec![3, 0xa1, 0, 0x1b]] {
            say_as(&mut world, 0, body);
        }
        assert_eq!(world.ends[1].link.stats().drops(DropReason::Malformed), 3);
        assert_eq!(world.ends[1].log.len(), lines, "{:?}", world.ends[1].log);
        world.assert_carries();
    }
}

#[test]
fn a_host_that_refuses_is_named_while_the_link_is_not_up() {
    let mut world = World::new();
    world.cut = true;
    world.run(1.0);
    for to in ["192.0.2.77:1417", MON] {
        let now = world.now(1);
        world.ends[1].link.handle_notice(now, Notice::Refused { to: to.parse().unwrap() });
    }
    world.settle(1);
    let end = &world.ends[1];
    assert!(end.said(&Condition::PortRefused { remote: MON.parse().unwrap() }), "{:?}", end.log);
    assert_eq!(end.times("port-refused"), 1, "nothing goes to the other");
}

#[test]
fn a_peer_that_holds_frames_and_lets_them_go_in_turns_draws_out_a_few_lines_a_minute() {
    let mut world = World::new();
    world.run(5.0);
    let before = lines(&world);
    for turn in 0..400 {
        let state = if turn % 2 == 0 { LoopState::Held } else { LoopState::Over };
        say(&mut world, &Message::Loop(Loop { state, origin: [7; 8], vlan: None, tunnelled: false }));
    }
    let drawn = lines(&world) - before;
    assert!((2..=12).contains(&drawn), "{drawn} lines");
    assert!(world.up());
}

/// Conditions at the first end.
fn lines(world: &World) -> usize {
    world.ends[0].log.iter().filter(|said| matches!(said, Said::Met(_))).count()
}

/// The second end says this to the first.
fn say(world: &mut World, message: &Message) {
    let mut body = Vec::new();
    control::encode(message, &mut body);
    say_as(world, 1, body);
}
