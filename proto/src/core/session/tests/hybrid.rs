//! Initiations with an ML-KEM key, on paths that carry them and paths that do not.

use super::*;
use crate::core::limits::{INITIATION_HYBRID, INITIATION_PART};
use crate::crypto::kem::{CIPHERTEXT, ENCAPSULATION_KEY};

fn hybrid(world: &mut World) -> Sessions {
    sessions(world.now, Exchange::Hybrid, &mut world.random)
}

/// mon too.
fn world() -> World {
    let mut world = World::new();
    world.mon = hybrid(&mut world);
    world
}

impl World {
    /// The datagrams of the next initiation.
    fn call(&mut self, fri: &mut Sessions, room: usize) -> Vec<Vec<u8>> {
        let to: SocketAddr = ONE.parse().unwrap();
        let mut out = VecDeque::new();
        fri.begin(self.now);
        fri.call(self.now, to.into(), room, &mut self.random, &mut out);
        datagrams(&out)
    }

    /// The output of `end` for a datagram, and the result.
    fn take(&mut self, end: &mut Sessions, datagram: &[u8]) -> (Vec<Vec<u8>>, Result<Outcome, DropReason>) {
        let mut out = VecDeque::new();
        let outcome = end.handle_handshake(self.now, &received(datagram), &mut self.random, &mut out);
        (datagrams(&out), outcome)
    }

    /// The output of mon for several datagrams.
    fn mon_takes(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let other = hybrid(self);
        let mut mon = std::mem::replace(&mut self.mon, other);
        let sent = datagrams.iter().flat_map(|datagram| self.take(&mut mon, datagram).0).collect();
        self.mon = mon;
        sent
    }
}

fn datagrams(out: &VecDeque<Command>) -> Vec<Vec<u8>> {
    let sent = out.iter().filter_map(|command| match command {
        Command::Send(SendCommand::Handshake(sent)) => Some(sent.datagram.clone()),
        _ => None,
    });
    sent.collect()
}

fn is_in_parts(call: &[Vec<u8>]) -> bool {
    let lengths = if call.len() == 1 { INITIATION_HYBRID } else { INITIATION_PART };
    assert!(call.iter().all(|datagram| lengths.contains(&datagram.len())), "{call:?}");
    assert!(call.len() == 1 || call.len() == 3);
    call.len() == 3
}

#[test]
fn an_initiation_and_its_answer_are_as_long_as_the_document_says() {
    let mut world = world();
    let mut fri = hybrid(&mut world);
    for _ in 0..200 {
        (fri.call, world.now) = (None, world.now + Duration::from_secs(1));
        let call = world.call(&mut fri, usize::MAX);
        assert!(!is_in_parts(&call));
        let answer = world.mon_takes(&call);
        assert_eq!(answer.len(), 1);
        assert!((CIPHERTEXT + 135..=call[0].len()).contains(&answer[0].len()), "{}", answer[0].len());
        assert!(call[0].len() >= ENCAPSULATION_KEY + 127);
        let (_, outcome) = world.take(&mut fri, &answer[0]);
        assert!(matches!(outcome, Ok(Outcome::Begun { .. })));
    }
}

#[test]
fn first_words_have_no_usual_length_and_no_usual_byte() {
    let mut world = world();
    let mut fri = hybrid(&mut world);
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    while whole.len() < 1000 || parts.len() < 1000 {
        let call = world.call(&mut fri, usize::MAX);
        if is_in_parts(&call) { parts.extend(call) } else { whole.extend(call) }
    }
    assert_unremarkable(&whole, INITIATION_HYBRID);
    assert_unremarkable(&parts, INITIATION_PART);
}

#[test]
fn initiations_that_are_not_answered_go_whole_and_in_parts_in_turn() {
    let mut world = world();
    let mut fri = hybrid(&mut world);
    let forms: Vec<bool> = (0..5).map(|_| is_in_parts(&world.call(&mut fri, usize::MAX))).collect();
    assert_eq!(forms, [false, true, false, true, false]);
}

#[test]
fn parts_in_any_order_are_answered_in_parts_that_are_no_longer() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut world = world();
        let mut fri = hybrid(&mut world);
        let call = world.call(&mut fri, 1000);
        assert!(is_in_parts(&call));
        let answer = world.mon_takes(&order.map(|at| call[at].clone()));
        assert_eq!(answer.len(), 3);
        let shortest = call.iter().map(Vec::len).min().unwrap();
        assert!(answer.iter().all(|part| part.len() <= shortest));
        assert_eq!(world.take(&mut fri, &answer[order[0]]).1, Ok(Outcome::Nothing));
        // A duplicate is not another part.
        assert_eq!(world.take(&mut fri, &answer[order[0]]).1, Ok(Outcome::Nothing));
        assert_eq!(world.take(&mut fri, &answer[order[1]]).1, Ok(Outcome::Nothing));
        assert!(matches!(world.take(&mut fri, &answer[order[2]]).1, Ok(Outcome::Begun { .. })));
        // What worked last time is tried first, then both alternate.
        let forms = [(); 3].map(|()| is_in_parts(&world.call(&mut fri, usize::MAX)));
        assert_eq!(forms, [true, false, true]);
    }
}

#[test]
fn a_host_that_says_too_long_makes_one_initiation_go_in_parts_at_once() {
    let mut world = world();
    let mut fri = hybrid(&mut world);
    fri.handle_too_long(world.now);
    assert!(!is_in_parts(&world.call(&mut fri, usize::MAX)));
    assert!(!fri.is_call_due(world.now));
    fri.handle_too_long(world.now);
    assert!(fri.is_call_due(world.now) && is_in_parts(&world.call(&mut fri, usize::MAX)));
    // An unauthenticated claim: parts were sent, so it changes nothing.
    fri.handle_too_long(world.now);
    assert!(!fri.is_call_due(world.now));
}

/// The long datagram may be a probe; a second initiation that overtakes the first one's answer costs frames.
#[test]
fn beside_a_session_a_host_that_says_too_long_hastens_nothing() {
    let mut world = world();
    let mut fri = hybrid(&mut world);
    let call = world.call(&mut fri, usize::MAX);
    let answer = world.mon_takes(&call);
    assert!(matches!(world.take(&mut fri, &answer[0]).1, Ok(Outcome::Begun { .. })));
    world.call(&mut fri, usize::MAX);
    fri.handle_too_long(world.now);
    assert!(!fri.is_call_due(world.now));
    assert!(is_in_parts(&world.call(&mut fri, usize::MAX)), "when it is due");
}

/// A first part takes the place of others without better proof, and nothing grows.
#[test]
fn a_flood_of_first_parts_holds_one_and_keeps_nobody_out() {
    let mut world = world();
    let mut recorded: Vec<_> = (0..300).map(|_| hybrid(&mut world)).collect();
    let firsts: Vec<_> = recorded.iter_mut().map(|end| world.call(end, 1000).swap_remove(0)).collect();
    let mut fri = hybrid(&mut world);
    let sent = world.mon_takes(&firsts);
    assert!((1..=10).contains(&sent.len()), "{} retries at once", sent.len());
    assert!(sent.iter().all(|retry| retry.len() <= *INITIATION_PART.end()));

    world.now += Duration::from_secs(1);
    let call = world.call(&mut fri, 1000);
    let retry = world.mon_takes(&call);
    assert_eq!(retry.len(), 1, "a token in place of an answer");
    world.mon_takes(&firsts[..50]);
    assert!(matches!(world.take(&mut fri, &retry[0]).1, Ok(Outcome::Retry { .. })));
    let call = world.call(&mut fri, usize::MAX);
    assert!(is_in_parts(&call), "as the one that was retried");
    // Other parts in between take nothing from it.
    let mut answer = Vec::new();
    for part in &call {
        world.mon_takes(&firsts[50..150]);
        answer.extend(world.mon_takes(std::slice::from_ref(part)));
    }
    assert_eq!(answer.len(), 3);
}

/// The place for those without a token is free again after its holder's time.
#[test]
fn parts_that_stay_alone_give_way() {
    let mut world = world();
    let (mut fri, mut gone) = (hybrid(&mut world), hybrid(&mut world));
    let first = world.call(&mut gone, 1000).swap_remove(0);
    assert!(world.mon_takes(&[first]).is_empty());
    world.now += ANSWER_KEPT;
    let call = world.call(&mut fri, 1000);
    assert_eq!(world.mon_takes(&call).len(), 3);
}

/// Limits are checked before key and ciphertext.
#[test]
fn a_recorded_initiation_is_dropped_before_any_work_is_done_for_it() {
    let mut world = world();
    let mut recorded: Vec<_> = (0..40).map(|_| hybrid(&mut world)).collect();
    let calls: Vec<_> = recorded.iter_mut().flat_map(|end| world.call(end, usize::MAX)).collect();
    let mut mon = hybrid(&mut world);
    let answered = |world: &mut World, mon: &mut Sessions| {
        calls.iter().filter(|call| !world.take(mon, call).0.is_empty()).count()
    };
    assert_eq!(answered(&mut world, &mut mon), 10);
    world.now += Duration::from_secs(1);
    assert_eq!(answered(&mut world, &mut mon), 10);
}

#[test]
fn the_other_exchange_is_told_and_begins_nothing() {
    for ours in [Exchange::X25519, Exchange::Hybrid] {
        let theirs = if ours == Exchange::Hybrid { Exchange::X25519 } else { Exchange::Hybrid };
        let mut world = world();
        let (mut mon, mut fri) = [ours, theirs].map(|of| sessions(world.now, of, &mut world.random)).into();
        for room in [usize::MAX, 1000] {
            for datagram in world.call(&mut fri, room) {
                let taken = world.take(&mut mon, &datagram);
                assert_eq!(taken, (Vec::new(), Ok(Outcome::OtherExchange { theirs, calls: true })));
            }
        }
        let keys = LinkKeys::new(&[42; 32]);
        let sign = |of, random: &mut Dice| wrap::seal(&keys, &[Type::sign(of)], random);
        let shown = sign(theirs, &mut world.random);
        assert_eq!(world.take(&mut mon, &shown).1, Ok(Outcome::OtherExchange { theirs, calls: false }));
        let shown = sign(ours, &mut world.random);
        assert_eq!(world.take(&mut mon, &shown).1, Err(DropReason::Malformed));
        assert!(!mon.is_alive());
    }
}

/// Parts of many messages in any order, some duplicated, some lost: little is held, no answer exceeds its cause, and the next call
/// succeeds.
#[test]
fn parts_of_many_calls_in_any_order_grow_nothing() {
    let mut world = world();
    let mut mon = hybrid(&mut world);
    for round in 0..40 {
        let mut ends: Vec<_> = (0..4).map(|_| hybrid(&mut world)).collect();
        let mut parts: Vec<_> = ends.iter_mut().flat_map(|end| world.call(end, 1000)).collect();
        for _ in 0..20 {
            let at = world.random.below(parts.len());
            let (sent, _) = world.take(&mut mon, &parts[at]);
            let longest = sent.iter().map(Vec::len).max().unwrap_or_default();
            assert!(longest <= parts[at].len().max(*INITIATION_PART.start()), "round {round}");
            if at.is_multiple_of(3) && parts.len() > 4 {
                parts.swap_remove(at);
            }
            let held = [&mon.proven, &mon.unproven, &mon.answer].map(Parts::held);
            assert!(held.iter().sum::<usize>() <= 2 * (ENCAPSULATION_KEY + 53), "{held:?}");
        }
        world.now += ANSWER_KEPT;
        let call = world.call(&mut ends[0], 1000);
        let answer: Vec<_> = call.iter().flat_map(|part| world.take(&mut mon, part).0).collect();
        assert_eq!(answer.len(), 3, "round {round}");
    }
}
