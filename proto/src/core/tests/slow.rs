//! Ends whose threads are not scheduled at once. Commands, notices and datagrams wait a while, and unproven ones in a
//! queue of their own, as between the daemon's threads.

use super::*;

const STEP: Duration = Duration::from_millis(3);

struct Slow {
    world: World,
    dice: Dice,
    /// One in so many steps does the pending work.
    pace: u64,
    proven: [VecDeque<Notice>; 2],
    unproven: [VecDeque<Notice>; 2],
}

impl Slow {
    fn new(seed: u64) -> Self {
        let (proven, unproven) = Default::default();
        Self { world: World::new(), dice: Dice(seed), pace: 3 + seed % 20, proven, unproven }
    }

    fn happens(&mut self) -> bool {
        self.dice.number().is_multiple_of(self.pace)
    }

    fn run(&mut self, seconds: f64) {
        let until = self.world.elapsed + Duration::from_secs_f64(seconds);
        while self.world.elapsed < until {
            self.step(0);
            self.step(1);
            for _ in 0..self.world.wire.len() {
                let Some(flying) = self.world.wire.pop_front() else { break };
                match self.happens() {
                    true => self.arrive(flying),
                    false => self.world.wire.push_back(flying),
                }
            }
            self.world.elapsed += STEP;
        }
    }

    fn step(&mut self, which: usize) {
        let now = self.world.now(which);
        while self.happens() {
            let end = &mut self.world.ends[which];
            let Some(command) = end.link.poll_command() else { break };
            end.lane.handle_command(now.instant, command, &mut end.out);
        }
        if self.happens() {
            let queues = [&mut self.proven[which], &mut self.unproven[which]];
            let notice = queues.into_iter().find_map(VecDeque::pop_front);
            notice.into_iter().for_each(|notice| self.world.ends[which].link.handle_notice(now, notice));
        }
        let end = &mut self.world.ends[which];
        if end.link.poll_timeout().is_some_and(|at| at <= now.instant) {
            end.link.handle_timeout(now);
        }
        end.settle_events(now);
        for notice in std::mem::take(&mut end.out.notices) {
            let queues = if notice.is_unproven() { &mut self.unproven } else { &mut self.proven };
            queues[which].push_back(notice);
        }
        for (bytes, path) in std::mem::take(&mut end.out.sent) {
            let flying = Flying { from: end.address, to: path.remote, bytes };
            self.world.wire.push_back(flying);
        }
    }

    fn arrive(&mut self, flying: Flying) {
        let which = usize::from(self.world.ends[1].address == flying.to);
        let now = self.world.now(which);
        let end = &mut self.world.ends[which];
        let path = Path { local: Some(flying.to.ip()), ..flying.from.into() };
        end.lane.handle_datagram(now.instant, path, &mut flying.bytes.clone(), &mut end.out);
    }

    /// Whether a frame in each direction arrives within some seconds; each is sent three times.
    fn carries(&mut self) -> bool {
        self.world.ends.iter_mut().for_each(|end| end.out.frames.clear());
        for _ in 0..3 {
            for end in &mut self.world.ends {
                end.lane.handle_frames(&[b"a frame"], &mut end.out);
            }
            self.run(1.0);
        }
        self.world.ends.iter().all(|end| !end.out.frames.is_empty())
    }
}

/// An end that resumes while the ends are about to exchange key ids leaves both with key ids unknown to the other, and
/// both believing that all is well.
#[test]
fn an_end_that_resumes_at_any_moment_is_back_within_ten_seconds() {
    for seed in 0..300 {
        let mut slow = Slow::new(seed);
        slow.run(0.2 + (seed * 11 % 300) as f64 / 100.0);
        let which = (seed % 2) as usize;
        let now = slow.world.now(which);
        slow.world.ends[which].link.handle_resumed(now);
        slow.run(10.0);
        let log = |slow: &Slow| slow.world.ends.iter().map(|end| end.log.clone()).collect::<Vec<_>>();
        assert!(slow.carries(), "seed {seed}: {:#?}", log(&slow));
    }
}
