//! The parent's door, facing an engine that sends anything at any time. The host behind it only records what it would
//! have done.

use std::time::{Duration, Instant};

use tund::config::MAX_ACCEPTED;
use tund::privsep::door::{Door, Kind, Over, Rule, Verdict};
use tund::privsep::message::{MAX_MESSAGE, ToParent};

use crate::script::{Script, beginning};

/// Number of latest admitted requests that are checked against the limit.
const LOOKED_AT: usize = 48;

/// What an observer knows of one kind of request.
#[derive(Default)]
struct Seen {
    let_in: Vec<Instant>,
    asked: u64,
    done: u64,
    dropped: u64,
    last_asked: Option<Vec<u8>>,
    last_done: Option<Vec<u8>>,
}

struct Host {
    now: Instant,
    door: Door,
    seen: [Seen; Kind::ALL.len()],
}

/// An engine's requests at the parent's door: pieces of a time and a message. Each kind keeps to its limit, the last
/// request counts, and every request is accounted for.
pub fn door(data: &[u8]) {
    let mut script = Script(data);
    let now = beginning();
    let mut host = Host { now, door: Door::default(), seen: Default::default() };
    while !script.is_over() {
        let what = script.byte();
        match what & 7 {
            0 => host.wait(Duration::from_millis(script.number().into())),
            1 => host.wait(Duration::from_secs(script.byte().into())),
            2 if what & 8 == 0 => host.engine_goes(),
            repeats => {
                let bytes = script.counted();
                for _ in 0..if repeats == 7 { u16::from(what >> 3) * 16 } else { 1 } {
                    // An invalid message ends the engine.
                    let Ok((message, [])) = postcard::take_from_bytes::<ToParent>(bytes) else { return };
                    host.ask(message);
                }
            }
        }
    }
    host.settle();
}

impl Host {
    fn ask(&mut self, message: ToParent) {
        let kind = Kind::of(&message);
        let bytes = encoded(&message);
        if matches!(&message, ToParent::PushedRoutes { routes } if routes.len() > MAX_ACCEPTED) {
            assert_eq!(self.door.handle(self.now, message), Verdict::Nothing);
            return;
        }
        let seen = &mut self.seen[kind as usize];
        seen.asked += 1;
        seen.last_asked = Some(bytes);
        match self.door.handle(self.now, message) {
            Verdict::Do { message, dropped } => {
                self.seen[kind as usize].dropped += dropped;
                assert_eq!(Kind::of(&message), kind);
                self.carry_out(message);
            }
            Verdict::Nothing => {}
        }
    }

    fn carry_out(&mut self, message: ToParent) {
        let kind = Kind::of(&message);
        let seen = &mut self.seen[kind as usize];
        seen.done += 1;
        seen.last_done = Some(encoded(&message));
        if seen.let_in.len() >= LOOKED_AT {
            seen.let_in.remove(0);
        }
        seen.let_in.push(self.now);
        let Rule { burst, every, .. } = kind.rule();
        for (number, first) in seen.let_in.iter().enumerate() {
            let (count, time) = (seen.let_in.len() - number, self.now - *first);
            let most = u128::from(burst) + time.as_nanos() / every.as_nanos();
            assert!(count as u128 <= most, "{kind:?}: {count} in {time:?}");
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.door.poll_timeout(self.now).filter(|due| *due <= until) {
            assert!(due >= self.now);
            assert!(due == self.now || self.door.poll(self.now).is_none(), "before its time");
            self.now = due;
            let Some(message) = self.door.poll(due) else { panic!("nothing when something was due") };
            self.carry_out(message);
        }
        self.now = until;
    }

    fn engine_goes(&mut self) {
        if let Some(totals) = self.door.close() {
            let seen = &mut self.seen[Kind::of(&totals) as usize];
            assert_eq!(seen.last_asked, Some(encoded(&totals)));
        }
        assert_eq!(self.door.poll_timeout(self.now), None);
        // Nothing waits any more.
        for seen in &mut self.seen {
            seen.last_asked.clone_from(&seen.last_done);
        }
    }

    fn settle(&mut self) {
        self.wait(Duration::from_secs(120));
        assert_eq!(self.door.poll_timeout(self.now), None, "something waits for more than two minutes");
        for kind in Kind::ALL {
            let seen = &self.seen[kind as usize];
            match kind.rule().over {
                Over::Waits => {
                    assert_eq!(seen.last_asked, seen.last_done, "{kind:?}: not the last one counted")
                }
                Over::Dropped => assert!(seen.done + seen.dropped <= seen.asked, "{kind:?}: counted twice"),
            }
        }
    }
}

fn encoded(message: &ToParent) -> Vec<u8> {
    let Ok(bytes) = postcard::to_stdvec(message) else { panic!("what was read cannot be written") };
    assert!(bytes.len() <= MAX_MESSAGE);
    bytes
}
