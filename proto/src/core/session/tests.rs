//! Who displaces whom: one responder, and initiations in any order.
#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use std::net::SocketAddr;

use super::*;
use crate::core::lane::Key;
use crate::core::limits::{ADDRESSES, ANSWER_KEPT, INITIATION, INITIATION_STATES};
use crate::crypto::noise::Statics;
use crate::testing::Dice;

mod hybrid;

struct World {
    now: Instant,
    random: Dice,
    mon: Sessions,
}

impl World {
    fn new() -> Self {
        let (now, mut random) = (Instant::now(), Dice(1));
        let mon = sessions(now, Exchange::X25519, &mut random);
        Self { now, random, mon }
    }

    fn fri(&mut self) -> Sessions {
        sessions(self.now, Exchange::X25519, &mut self.random)
    }

    /// The next initiation of a call.
    fn initiation(&mut self, fri: &mut Sessions) -> Vec<u8> {
        self.initiation_to(fri, "192.0.2.1:1417")
    }

    /// The same to this address.
    fn initiation_to(&mut self, fri: &mut Sessions, to: &str) -> Vec<u8> {
        let to: SocketAddr = to.parse().unwrap();
        let mut out = VecDeque::new();
        fri.begin(self.now);
        fri.call(self.now, to.into(), usize::MAX, &mut self.random, &mut out);
        match out.pop_back() {
            Some(Command::Send(SendCommand::Handshake(sent))) => sent.datagram,
            other => panic!("no initiation but {other:?}"),
        }
    }

    /// mon accepts it; returns the serial of the session now waiting.
    fn answered(&mut self, datagram: &[u8]) -> Result<u32, DropReason> {
        let mut out = VecDeque::new();
        self.mon.handle_handshake(self.now, &received(datagram), &mut self.random, &mut out)?;
        let serial = out.iter().find_map(|command| match command {
            Command::Receive(ReceiveCommand::Accept { key: Key::Slot { serial, .. }, .. }) => Some(*serial),
            _ => None,
        });
        Ok(serial.unwrap_or_else(|| panic!("no session but {out:?}")))
    }

    /// mon answers it with a retry.
    fn retried(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut out = VecDeque::new();
        let outcome = self.mon.handle_handshake(self.now, &received(datagram), &mut self.random, &mut out);
        assert_eq!(outcome, Ok(Outcome::Nothing));
        match (out.pop_front(), out.len()) {
            (Some(Command::Send(SendCommand::Handshake(sent))), 0) => sent.datagram,
            other => panic!("no retry but {other:?}"),
        }
    }

    /// The initiation after a retry.
    fn again(&mut self, fri: &mut Sessions, retry: &[u8]) -> Vec<u8> {
        let taken = fri.handle_handshake(self.now, &received(retry), &mut self.random, &mut VecDeque::new());
        assert!(matches!(taken, Ok(Outcome::Retry { .. })));
        assert!(fri.is_call_due(self.now));
        self.initiation(fri)
    }

    /// mon calls.
    fn initiation_of_mon(&mut self) -> Vec<u8> {
        let mut mon =
            std::mem::replace(&mut self.mon, sessions(self.now, Exchange::X25519, &mut self.random));
        let call = self.initiation(&mut mon);
        self.mon = mon;
        call
    }

    /// A world whose `mon` has called another end twice, and the answers to both initiations.
    fn answered_twice() -> (Self, [Vec<u8>; 2]) {
        let mut world = Self::new();
        let mut fri = world.fri();
        let calls = [(); 2].map(|()| world.initiation(&mut fri));
        let mut mon = std::mem::replace(&mut world.mon, fri);
        let answers = calls.map(|call| world.answer_of(&mut mon, &call));
        (world, answers)
    }

    /// The answer of `fri`.
    fn answer_of(&mut self, fri: &mut Sessions, call: &[u8]) -> Vec<u8> {
        let mut out = VecDeque::new();
        fri.handle_handshake(self.now, &received(call), &mut self.random, &mut out).unwrap();
        let answer = out.into_iter().find_map(|command| match command {
            Command::Send(SendCommand::Handshake(sent)) => Some(sent.datagram),
            _ => None,
        });
        answer.unwrap()
    }

    fn take_answer(&mut self, answer: &[u8]) {
        let taken =
            self.mon.handle_handshake(self.now, &received(answer), &mut self.random, &mut VecDeque::new());
        assert!(matches!(taken, Ok(Outcome::Begun { .. })));
    }

    fn confirmed(&mut self, serial: u32) -> bool {
        self.mon.handle_confirmed(serial, &mut VecDeque::new())
    }
}

fn received(datagram: &[u8]) -> Received {
    let from: SocketAddr = "192.0.2.2:7".parse().unwrap();
    Received { from: from.into(), datagram: datagram.to_vec() }
}

fn sessions(now: Instant, exchange: Exchange, random: &mut Dice) -> Sessions {
    let keys = Arc::new(LinkKeys::new(&[42; 32]));
    let pattern = Pattern { statics: Statics::None, exchange };
    Sessions::new(keys, pattern, vec![Cipher::ChaCha20Poly1305], now, random)
}

/// The second session uses the slot of the first, whose confirmation is still in a queue.
#[test]
fn a_confirmation_counts_for_its_own_session_alone() {
    let mut world = World::new();
    let mut fri = world.fri();
    let [first, second] = [(); 2].map(|()| world.initiation(&mut fri));
    let first = world.answered(&first).unwrap();
    let second = world.answered(&second).unwrap();
    assert!(!world.confirmed(first), "nobody confirmed the session that took its place");
    assert!(!world.mon.is_alive());
    assert!(world.confirmed(second) && world.mon.is_alive());
}

/// An attacker may send withheld initiations later, but not over a newer one.
#[test]
fn an_older_initiation_of_the_same_instance_displaces_nothing() {
    let mut world = World::new();
    let mut fri = world.fri();
    let initiations: Vec<_> = (0..4).map(|_| world.initiation(&mut fri)).collect();
    let first = world.answered(&initiations[0]).unwrap();
    assert!(world.confirmed(first));
    let newest = world.answered(&initiations[2]).unwrap();
    for old in [1, 2, 0, 1, 2] {
        assert_eq!(world.answered(&initiations[old]), Err(DropReason::Replayed), "number {old}");
    }
    assert!(world.confirmed(newest), "what waits still waits");
    assert_eq!(world.answered(&initiations[2]), Err(DropReason::Replayed));
    assert!(world.answered(&initiations[3]).is_ok());
}

/// The same while no instance is confirmed.
#[test]
fn a_copy_of_the_initiation_that_waits_is_no_second_one() {
    let mut world = World::new();
    let mut fri = world.fri();
    let (older, newer) = (world.initiation(&mut fri), world.initiation(&mut fri));
    let serial = world.answered(&newer).unwrap();
    assert_eq!(world.answered(&newer), Err(DropReason::Replayed));
    assert_eq!(world.answered(&older), Err(DropReason::Replayed));
    assert!(world.confirmed(serial));
}

/// Its last call was answered but never confirmed; the new process is another instance.
#[test]
fn a_peer_killed_in_the_middle_of_a_call_is_answered_after_its_restart() {
    let mut world = World::new();
    let (mut fri, mut again) = (world.fri(), world.fri());
    let [first, last] = [(); 2].map(|()| world.initiation(&mut fri));
    let first = world.answered(&first).unwrap();
    assert!(world.confirmed(first));
    world.answered(&last).unwrap();
    let call = world.initiation(&mut again);
    let retry = world.retried(&call);
    let call = world.again(&mut again, &retry);
    let serial = world.answered(&call).unwrap();
    assert!(world.confirmed(serial));
}

/// Neither can be proven live, and one is a recording.
#[test]
fn who_proves_nothing_takes_the_place_of_nobody_who_waits() {
    let mut world = World::new();
    let (mut fri, mut recorded) = (world.fri(), world.fri());
    let call = world.initiation(&mut fri);
    let serial = world.answered(&call).unwrap();
    let call = world.initiation(&mut recorded);
    world.retried(&call);
    world.now += ANSWER_KEPT - Duration::from_millis(1);
    let call = world.initiation(&mut recorded);
    world.retried(&call);
    assert!(world.confirmed(serial));

    let mut world = World::new();
    let (mut fri, mut recorded) = (world.fri(), world.fri());
    let calls = [(); 2].map(|()| world.initiation(&mut recorded));
    world.answered(&calls[0]).unwrap();
    let call = world.initiation(&mut fri);
    let retry = world.retried(&call);
    let call = world.again(&mut fri, &retry);
    let serial = world.answered(&call).unwrap();
    world.retried(&calls[1]);
    assert!(world.confirmed(serial), "a token is worth more");
    let call = world.initiation(&mut recorded);
    world.answered(&call).unwrap();
}

/// The answer to its first call was lost: nothing delays its second one.
#[test]
fn a_caller_takes_its_own_place() {
    let mut world = World::new();
    let mut fri = world.fri();
    for _ in 0..4 {
        let call = world.initiation(&mut fri);
        let serial = world.answered(&call).unwrap();
        let call = world.initiation(&mut fri);
        let newer = world.answered(&call).unwrap();
        assert!(!world.confirmed(serial) && world.confirmed(newer));
        world.now += Duration::from_secs(1);
    }
}

/// A classifier of first datagrams finds no length and no byte value that is more frequent.
fn assert_unremarkable(all: &[Vec<u8>], lengths: RangeInclusive<usize>) {
    let average = all.len() / lengths.clone().count();
    let mut counts = vec![0; lengths.clone().count()];
    all.iter().for_each(|datagram| counts[datagram.len() - lengths.start()] += 1);
    assert!(average >= 5);
    assert!(counts.chunks_exact(10).all(|ten| ten.iter().sum::<usize>() > 0));
    assert!(counts.iter().all(|count| *count < 25 + 2 * average), "{counts:?}");
    for at in 0..*lengths.start() {
        let mut counts = [0usize; 256];
        all.iter().for_each(|datagram| counts[usize::from(datagram[at])] += 1);
        let expected = all.len() as f64 / 256.0;
        let square: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        // Six standard deviations with 255 degrees of freedom (Wilson and Hilferty).
        assert!((141.0..416.0).contains(&square), "byte {at}: {square}");
    }
}

#[test]
fn first_words_have_no_usual_length_and_no_usual_byte() {
    let mut world = World::new();
    let mut fri = world.fri();
    let all: Vec<_> = (0..2000).map(|_| world.initiation(&mut fri)).collect();
    assert_unremarkable(&all, INITIATION);
}

/// Its first answer takes long, so it is called again and waits on its second session.
#[test]
fn a_later_answer_of_the_same_call_is_taken_too() {
    let (mut world, answers) = World::answered_twice();
    answers.iter().for_each(|answer| world.take_answer(answer));
    let mut out = VecDeque::new();
    let again = world.mon.handle_handshake(world.now, &received(&answers[1]), &mut world.random, &mut out);
    assert_eq!(again, Err(DropReason::Stale), "each is good once");
    assert!(world.mon.is_alive() && !world.mon.is_calling());
}

/// The peer that answered has been silent while three others called, and a fourth waits in the slot of its session.
#[test]
fn a_late_answer_is_of_no_use_once_its_call_has_lost_its_session() {
    let (mut world, answers) = World::answered_twice();
    world.take_answer(&answers[0]);
    let mut waits = 0;
    for number in 0..4 {
        let mut other = world.fri();
        let call = world.initiation(&mut other);
        waits = world.answered(&call).unwrap();
        assert!(number == 3 || world.confirmed(waits));
    }
    let mut out = VecDeque::new();
    let late = world.mon.handle_handshake(world.now, &received(&answers[1]), &mut world.random, &mut out);
    assert_eq!((late, out.len()), (Err(DropReason::Stale), 0));
    assert!(!world.mon.is_doubtful() && world.confirmed(waits));
}

/// An answer too identifies the peer; then no recording displaces its call.
#[test]
fn a_recorded_call_displaces_none_of_the_peer_that_answered() {
    let mut world = World::new();
    let (mut fri, mut recorded) = (world.fri(), world.fri());
    let call = world.initiation_of_mon();
    let answer = world.answer_of(&mut fri, &call);
    world.take_answer(&answer);
    let (genuine, recorded) = (world.initiation(&mut fri), world.initiation(&mut recorded));
    let serial = world.answered(&genuine).unwrap();
    world.retried(&recorded);
    assert!(world.confirmed(serial));
}

/// The first words of a caller that has restarted, which were kept back.
#[test]
fn a_caller_that_is_gone_takes_nothing_from_the_process_that_answered_since() {
    let mut world = World::new();
    let (mut gone, mut fri) = (world.fri(), world.fri());
    let (before, call) = (world.initiation_of_mon(), world.initiation(&mut gone));
    let serial = world.answered(&call).unwrap();
    let since = world.initiation_of_mon();
    let answers = [before, since].map(|call| world.answer_of(&mut fri, &call));
    // This one may have been on its way when the other called.
    world.take_answer(&answers[0]);
    assert!(world.mon.clone().handle_confirmed(serial, &mut VecDeque::new()));
    world.take_answer(&answers[1]);
    assert!(!world.confirmed(serial));
    assert_eq!(world.mon.sending().map(|session| session.peer), Some(fri.instance));
}

/// Of two simultaneous calls either may win, but not after the peer has gone on.
#[test]
fn the_session_of_a_peers_own_call_waits_no_longer_than_simultaneous_calls_take() {
    for (later, waits) in [(SESSION_OVERLAP - Duration::from_millis(1), true), (SESSION_OVERLAP, false)] {
        let mut world = World::new();
        let mut fri = world.fri();
        let call = world.initiation(&mut fri);
        let serial = world.answered(&call).unwrap();
        world.now += later;
        let call = world.initiation_of_mon();
        let answer = world.answer_of(&mut fri, &call);
        world.take_answer(&answer);
        assert_eq!(world.confirmed(serial), waits);
    }
}

const ONE: &str = "192.0.2.1:1417";
const OTHER: &str = "[2001:db8::1]:1417";

/// Two holders of the key are called at once.
#[test]
fn of_two_peers_that_answer_a_call_the_first_counts() {
    for later in [0, 999, 1000] {
        let mut world = World::new();
        let (mut fri, mut sat) = (world.fri(), world.fri());
        let mut mon = world.fri();
        let calls = [ONE, OTHER].map(|to| world.initiation_to(&mut mon, to));
        world.mon = mon;
        let answers = [world.answer_of(&mut fri, &calls[0]), world.answer_of(&mut sat, &calls[1])];
        world.take_answer(&answers[0]);
        assert!(world.mon.is_doubtful());
        world.now += Duration::from_millis(later);
        let mut out = VecDeque::new();
        let second =
            world.mon.handle_handshake(world.now, &received(&answers[1]), &mut world.random, &mut out);
        let called = OTHER.parse().unwrap();
        // One that is silent after its answer may be gone.
        let expected = if later < 1000 { Err(DropReason::Stale) } else { Ok(Outcome::Begun { called }) };
        assert_eq!(second, expected, "{later} ms");
        assert_eq!(world.mon.sending().map(|session| session.peer == fri.instance), Some(later < 1000));
    }
}

/// The waiting session is independent of who is called.
#[test]
fn a_retry_counts_for_the_address_that_was_called_and_for_no_other() {
    let mut world = World::new();
    let (mut fri, mut recorded) = (world.fri(), world.fri());
    let call = world.initiation(&mut recorded);
    world.answered(&call).unwrap();
    let calls = [ONE, OTHER].map(|to| world.initiation_to(&mut fri, to));
    // A later call to the other address does not make it older.
    let retry = world.retried(&calls[0]);
    let taken = fri.handle_handshake(world.now, &received(&retry), &mut world.random, &mut VecDeque::new());
    assert_eq!(taken, Ok(Outcome::Retry { called: ONE.parse().unwrap() }));
    let [to_other, to_one] = [OTHER, ONE].map(|to| world.initiation_to(&mut fri, to));
    world.retried(&to_other);
    assert!(world.answered(&to_one).is_ok(), "its token proves it");
}

#[test]
fn the_states_of_a_call_are_few_for_each_address_and_in_all() {
    let mut world = World::new();
    let mut fri = world.fri();
    let count = |fri: &Sessions| fri.call.as_ref().unwrap().attempts.len();
    for _ in 0..10 {
        world.initiation_to(&mut fri, ONE);
    }
    assert_eq!(count(&fri), INITIATION_STATES);
    for port in 1..=200 {
        for _ in 0..4 {
            world.initiation_to(&mut fri, &format!("192.0.2.2:{port}"));
        }
        assert!(count(&fri) <= INITIATION_STATES * ADDRESSES);
    }
    assert_eq!(count(&fri), INITIATION_STATES * ADDRESSES);
}
