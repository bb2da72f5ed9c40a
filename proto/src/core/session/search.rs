//! Every order of a few calls, words and restarts, with somebody who records all of it and hands it out as he likes, to
//! whom he likes: no session is confirmed twice and nothing is taken twice, what proves nothing changes no session, and
//! the ends find each other as soon as he drops nothing any more, whatever he still sends, and stay together when words
//! come that he kept back (PROTOCOL.md §3.3).
//!
//! An ordinary run looks at some 7000 states; one step deeper there are 27147, in a minute of one processor with
//! optimization. With the rule that any call may take the place of one that waits, the search finds after 25 states how a
//! link is kept down.
#![allow(clippy::disallowed_methods, reason = "virtual time needs some instant to begin at")]

mod end;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use super::*;
use crate::core::lane::Name;
use crate::core::limits::{ANSWER_KEPT, SILENCE};
use crate::core::search::{World, search};

use end::{End, Receive, Send};

/// The end that calls, and the one that may not know its peer's address.
const FRI: usize = 0;
const MON: usize = 1;
/// Time to detect a session that is dead at the other end, and to send, retry and confirm a call.
const RETURN: Duration = Duration::from_secs(SILENCE.as_secs() + 7);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The call's next initiation.
    Call(usize),
    /// An authentic datagram on the session for frames.
    Word(usize),
    Deliver(usize),
    /// To its sender.
    Reflect(usize),
    Restart(usize),
    /// This end takes the link down.
    Down(usize),
    /// Nothing happens while an answer keeps its place.
    Wait,
}

/// How often each may still happen.
#[derive(Clone, Copy, Hash)]
struct Left {
    calls: [u8; 2],
    words: [u8; 2],
    restarts: [u8; 2],
    downs: [u8; 2],
    waits: u8,
}

/// Something under way. The keys of sessions are compared too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sent {
    Handshake(Vec<u8>),
    Word { slot: u8, key: Vec<u8>, number: u32 },
}

#[derive(Clone)]
struct Datagram {
    to: usize,
    sent: Sent,
    /// Whether it is an initiation.
    calls: bool,
    what: String,
}

#[derive(Clone)]
struct Small {
    /// Which ends call on their own.
    remotes: [bool; 2],
    left: Left,
    ends: [End; 2],
    processes: u64,
    record: Vec<Datagram>,
    /// Keys of confirmed sessions, and accepted words.
    confirmed: BTreeSet<Vec<u8>>,
    taken: BTreeSet<(Vec<u8>, u32)>,
    now: Instant,
}

impl Small {
    fn new(remotes: [bool; 2], left: Left) -> Self {
        let now = Instant::now();
        let ends = [FRI, MON].map(|which| End::new(which as u64, remotes[which], now));
        let (record, confirmed, taken) = Default::default();
        Self { remotes, left, ends, processes: 2, record, confirmed, taken, now }
    }

    /// Carries out the sessions' commands; records what they send.
    fn obey(&mut self, which: usize, commands: VecDeque<Command>) {
        for command in commands {
            if let Some(bytes) = self.ends[which].obey(command) {
                let plain = wrap::open(&self.ends[which].sessions.keys, &bytes);
                let plain = plain.unwrap_or_default();
                let envelope = Envelope::parse(&plain);
                let calls = envelope.as_ref().is_ok_and(|envelope| envelope.of.kind == Kind::Initiation);
                let what = envelope.map(|envelope| {
                    let token = if envelope.token == [0; 16] { "" } else { ", with a token" };
                    format!("{:?} {}{token} of end {which}", envelope.of, envelope.seq)
                });
                let what = what.unwrap_or_else(|_| "no handshake".into());
                self.record.push(Datagram { to: 1 - which, sent: Sent::Handshake(bytes), calls, what });
            }
        }
    }

    fn call(&mut self, which: usize) {
        let (now, to) = (self.now, path(1 - which));
        let End { sessions, random, .. } = &mut self.ends[which];
        let mut out = VecDeque::new();
        sessions.begin(now);
        sessions.call(now, to, usize::MAX, random, &mut out);
        self.obey(which, out);
    }

    fn word(&mut self, which: usize) {
        let Some(current) = &mut self.ends[which].current else { return };
        let Send { slot, key, next } = current.clone();
        current.next += 1;
        let what = format!("word {next} of end {which} in slot {slot}");
        let sent = Sent::Word { slot, key, number: next };
        self.record.push(Datagram { to: 1 - which, sent, calls: false, what });
    }

    fn deliver(&mut self, index: usize, to: usize) -> Result<(), String> {
        match self.record[index].sent.clone() {
            Sent::Handshake(bytes) => self.take_handshake(to, bytes),
            Sent::Word { slot, key, number } => self.take_word(to, slot, &key, number),
        }
    }

    fn take_handshake(&mut self, which: usize, datagram: Vec<u8>) -> Result<(), String> {
        let (now, before) = (self.now, self.ends[which].established());
        let End { sessions, random, .. } = &mut self.ends[which];
        // Rate limits only cost time, and the attacker can wait.
        sessions.callers = Callers::forgetful();
        let mut out = VecDeque::new();
        let received = Received { from: path(1 - which), datagram };
        let outcome = sessions.handle_handshake(now, &received, random, &mut out);
        let again = sessions.is_call_due(now)
            && sessions.call.as_ref().is_some_and(|call| call.retried_at == Some(now));
        self.obey(which, out);
        match outcome {
            Ok(Outcome::Begun { .. }) => self.word(which),
            Ok(outcome @ (Outcome::NoCipher | Outcome::OtherExchange { .. })) => {
                return Err(format!("{outcome:?}"));
            }
            Ok(Outcome::Nothing | Outcome::Answered { .. } | Outcome::Retry { .. }) | Err(_) => {
                if self.ends[which].established() != before {
                    return Err(format!("what proves nothing changed the sessions of end {which}"));
                }
                if again {
                    self.call(which);
                }
            }
        }
        Ok(())
    }

    fn take_word(&mut self, which: usize, slot: u8, key: &[u8], number: u32) -> Result<(), String> {
        let now = self.now;
        let end = &mut self.ends[which];
        let live = end.receive.iter_mut().find(|live| live.slot == slot && live.key == key);
        let Some(live) = live.filter(|live| !live.taken.contains(&number)) else { return Ok(()) };
        live.taken.insert(number);
        end.heard_at = now;
        let (heard, serial) = (std::mem::replace(&mut live.heard, true), live.serial);
        if !self.taken.insert((key.to_vec(), number)) {
            return Err(format!("end {which} took word {number} twice"));
        }
        if !heard {
            let mut out = VecDeque::new();
            let confirms = end.sessions.handle_confirmed(serial, &mut out);
            self.obey(which, out);
            if confirms {
                if !self.confirmed.insert(key.to_vec()) {
                    return Err(format!("a session was confirmed twice at end {which}"));
                }
                self.word(which);
            }
        }
        Ok(())
    }

    /// Whether each end has opened what the other now sends under.
    fn is_mutual(&self) -> bool {
        [FRI, MON].into_iter().all(|from| {
            let current = self.ends[from].current.as_ref();
            current.is_some_and(|Send { slot, key, next }| {
                let mut receive = self.ends[1 - from].receive.iter();
                receive.any(|live| live.slot == *slot && live.key == *key && live.heard && *next > 0)
            })
        })
    }

    /// One second of the ends' own actions. Everything arrives, and after each call of the peer one more of `recorded`.
    fn second(&mut self, recorded: &mut Vec<Sent>) -> Result<(), String> {
        self.now += Duration::from_secs(1);
        for which in [FRI, MON] {
            let (now, mut next) = (self.now, self.record.len());
            let End { sessions, heard_at, .. } = &mut self.ends[which];
            let mut out = VecDeque::new();
            sessions.handle_timeout(now, &mut out);
            let since = sessions.current().map(|(born, _)| born);
            let silent = since.is_some_and(|since| now >= since.max(*heard_at) + SILENCE);
            if silent || self.remotes[which] && since.is_none() {
                sessions.begin(now);
            }
            let due = sessions.is_call_due(now);
            self.obey(which, out);
            if due {
                self.call(which);
            }
            self.word(which);
            while next < self.record.len() {
                let Datagram { to, calls, .. } = self.record[next];
                self.deliver(next, to)?;
                next += 1;
                if calls
                    && to == MON
                    && let Some(Sent::Handshake(old)) = recorded.pop()
                {
                    self.take_handshake(MON, old)?;
                }
            }
        }
        Ok(())
    }

    fn returns(mut self, recorded: &[Sent]) -> Result<(), String> {
        let (calm, mut recorded, count) = (self.now, recorded.to_vec(), recorded.len());
        while !self.is_mutual() {
            if self.now > calm + RETURN {
                let used = count - recorded.len();
                return Err(format!(
                    "no session {RETURN:?} after the last datagram was lost, {used} recordings sent"
                ));
            }
            self.second(&mut recorded)?;
        }
        self.stays()
    }

    /// Ends that found each other are not parted by words that were kept back.
    fn stays(&self) -> Result<(), String> {
        let words = self.record.iter().enumerate();
        for (index, word) in words.filter(|(_, datagram)| matches!(datagram.sent, Sent::Word { .. })) {
            let mut late = self.clone();
            late.deliver(index, word.to)?;
            late.second(&mut Vec::new())?;
            if !late.is_mutual() {
                return Err(format!("{}, which came late, parted the ends", word.what));
            }
        }
        Ok(())
    }
}

fn path(which: usize) -> Path {
    SocketAddr::from(([192, 0, 2, 1 + which as u8], 1417)).into()
}

impl World for Small {
    type Act = Act;

    fn acts(&self) -> Vec<Act> {
        let Left { calls, words, restarts, downs, waits } = self.left;
        let mut acts: Vec<Act> = (0..self.record.len()).map(Act::Deliver).collect();
        acts.extend((0..self.record.len()).filter(|at| self.record[*at].calls).map(Act::Reflect));
        for which in [FRI, MON] {
            let End { sessions, current, .. } = &self.ends[which];
            let may_call = self.remotes[which] || sessions.is_alive();
            acts.extend((calls[which] > 0 && may_call).then_some(Act::Call(which)));
            acts.extend((words[which] > 0 && current.is_some()).then_some(Act::Word(which)));
            acts.extend((restarts[which] > 0).then_some(Act::Restart(which)));
            acts.extend((downs[which] > 0 && sessions.is_alive()).then_some(Act::Down(which)));
        }
        acts.extend((waits > 0).then_some(Act::Wait));
        acts
    }

    fn act(&mut self, act: &Act) -> Result<(), String> {
        match *act {
            Act::Call(which) => {
                self.left.calls[which] -= 1;
                self.call(which);
            }
            Act::Word(which) => {
                self.left.words[which] -= 1;
                self.word(which);
            }
            Act::Deliver(index) => return self.deliver(index, self.record[index].to),
            Act::Reflect(index) => return self.deliver(index, 1 - self.record[index].to),
            Act::Restart(which) => {
                self.left.restarts[which] -= 1;
                self.ends[which] = End::new(self.processes, self.remotes[which], self.now);
                self.processes += 1;
            }
            Act::Down(which) => {
                self.left.downs[which] -= 1;
                let (now, End { sessions, random, heard_at, .. }) = (self.now, &mut self.ends[which]);
                let mut out = VecDeque::new();
                sessions.end(*heard_at, random, &mut out);
                if self.remotes[which] {
                    sessions.begin(now);
                }
                self.obey(which, out);
            }
            Act::Wait => {
                self.left.waits -= 1;
                self.now += ANSWER_KEPT;
            }
        }
        Ok(())
    }

    fn tell(&self, act: &Act) -> String {
        match *act {
            Act::Call(which) => format!("end {which} calls"),
            Act::Word(which) => format!("end {which} says a word"),
            Act::Deliver(index) => format!("{} arrives", self.record[index].what),
            Act::Reflect(index) => format!("{} comes back to it", self.record[index].what),
            Act::Restart(which) => format!("end {which} is restarted"),
            Act::Down(which) => format!("the link goes down at end {which}"),
            Act::Wait => "five seconds pass".into(),
        }
    }

    fn check(self) -> Result<(), String> {
        let calls = self.record.iter().filter(|datagram| datagram.calls);
        let recorded: Vec<Sent> = calls.map(|datagram| datagram.sent.clone()).collect();
        // The latest last, or first.
        let reversed: Vec<Sent> = recorded.iter().rev().cloned().collect();
        if recorded.len() > 1 {
            self.clone().returns(&reversed)?;
        }
        self.returns(&recorded)
    }

    fn digest(&self, to: &mut impl Hasher) {
        (self.left, &self.confirmed, &self.taken).hash(to);
        let record: BTreeSet<_> = self.record.iter().map(|datagram| (datagram.to, &datagram.sent)).collect();
        record.hash(to);
        for end in &self.ends {
            let Sessions { instance, seq, call, answered, live, sending, unconfirmed, confirmed, .. } =
                &end.sessions;
            (&end.random, instance, seq, sending, end.sessions.other, confirmed).hash(to);
            (self.now - end.heard_at).hash(to);
            let session = |of: &Session| (of.slot, of.serial, of.peer, of.began_here, self.now - of.born);
            live.iter().map(session).collect::<Vec<_>>().hash(to);
            unconfirmed.as_ref().map(|of| (session(&of.session), of.seq, of.known)).hash(to);
            let seqs = |of: &VecDeque<Attempt>| of.iter().map(|attempt| attempt.seq).collect::<Vec<_>>();
            let retried = |of: &Call| of.retried_at.map(|at| self.now - at);
            call.as_ref().map(|of| (of.slot, seqs(&of.attempts), of.token, retried(of))).hash(to);
            answered.as_ref().map(|of| (of.serial, seqs(&of.attempts))).hash(to);
            for Receive { slot, serial, key, heard, taken } in &end.receive {
                (slot, serial, key, heard, taken).hash(to);
            }
            let ready = end.ready.iter().map(|(under, send)| (format!("{under:?}"), send));
            for (under, Send { slot, key, next }) in
                ready.chain(end.current.iter().map(|send| ("sending".into(), send)))
            {
                (under, slot, key, next).hash(to);
            }
        }
    }
}

const LEFT: Left = Left { calls: [3, 1], words: [1, 1], restarts: [1, 1], downs: [1, 1], waits: 1 };

/// Two ends with a session.
fn joined(remotes: [bool; 2]) -> Small {
    let mut start = Small::new(remotes, LEFT);
    start.call(FRI);
    let mut next = 0;
    while next < start.record.len() {
        assert_eq!(start.deliver(next, start.record[next].to), Ok(()));
        next += 1;
    }
    assert!(start.is_mutual());
    start
}

/// A handshake takes four steps, so starting from a session needs less depth.
fn all_is_well(what: &str, remotes: [bool; 2]) {
    for (from, start, depth) in
        [("from the start", Small::new(remotes, LEFT), 6), ("from a session", joined(remotes), 4)]
    {
        let found = search(&format!("sessions, {what}, {from}"), &start, depth);
        assert_eq!(found.violation, None);
        assert!(found.states > 900, "{found:?}");
    }
}

#[test]
fn whatever_is_recorded_kept_back_and_sent_again_the_ends_find_each_other() {
    all_is_well("one end calls", [true, false]);
}

#[test]
fn so_they_do_where_both_call() {
    all_is_well("both ends call", [true, true]);
}
