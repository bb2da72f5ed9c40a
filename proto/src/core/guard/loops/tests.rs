#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use super::*;
use crate::testing::Dice;

/// One end of a link.
struct End {
    site: usize,
    loops: Loops,
    held: bool,
    /// Another program, or an older version: probes are frames to it.
    is_old: bool,
    said: Vec<(Instant, Condition)>,
    rerouted: Vec<bool>,
}

/// Sites, the links between them, and parallel cables.
struct World {
    now: Instant,
    random: Dice,
    links: Vec<[End; 2]>,
    cables: Vec<[usize; 2]>,
}

impl World {
    fn new(links: &[[usize; 2]], cables: &[[usize; 2]]) -> Self {
        let (now, mut random) = (Instant::now(), Dice(7));
        let mut end = |site| {
            let mut loops = Loops::new(true, &mut random);
            loops.handle_up(now, &mut random);
            End { site, loops, held: false, is_old: false, said: Vec::new(), rerouted: Vec::new() }
        };
        let links = links.iter().map(|sites| sites.map(&mut end)).collect();
        Self { now, random, links, cables: cables.to_vec() }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            for (link, which) in self.ends() {
                let (now, random, end) = (self.now, &mut self.random, &mut self.links[link][which]);
                let acts = if end.is_old { Vec::new() } else { end.loops.handle_timeout(now, random) };
                self.act(link, which, acts);
            }
        }
    }

    fn ends(&self) -> Vec<(usize, usize)> {
        (0..self.links.len()).flat_map(|link| [(link, 0), (link, 1)]).collect()
    }

    /// Whether frames that enter the segment at one end of a link come out of the other end's device.
    fn is_joined_beside(&self, link: usize) -> bool {
        let open = self
            .links
            .iter()
            .enumerate()
            .filter(|(number, ends)| *number != link && ends.iter().all(|end| !end.held));
        let mut ways: Vec<_> = open.map(|(_, ends)| [ends[0].site, ends[1].site]).collect();
        ways.extend(&self.cables);
        let mut reached = vec![self.links[link][0].site];
        for _ in 0..=ways.len() {
            for [a, b] in &ways {
                if reached.contains(a) || reached.contains(b) {
                    reached.extend([a, b]);
                }
            }
        }
        reached.contains(&self.links[link][1].site)
    }

    fn act(&mut self, link: usize, which: usize, acts: Vec<Act>) {
        for act in acts {
            let (now, other) = (self.now, 1 - which);
            let is_old = self.links[link][other].is_old;
            let (at, acts) = match act {
                Act::Hold(held) => {
                    self.links[link][which].held = held;
                    continue;
                }
                Act::Say(condition) => {
                    self.links[link][which].said.push((now, condition));
                    continue;
                }
                Act::Probe(origin, round) if self.is_joined_beside(link) => {
                    let probe = Probe { origin, round, vlan: None };
                    let at = if is_old { which } else { other };
                    let sighting = Sighting { probe, tunnelled: is_old };
                    (at, self.links[link][at].loops.handle_sighting(now, sighting, &mut self.random))
                }
                Act::Tell(Message::Probed { probe }) if !is_old => {
                    let (loops, random) = (&mut self.links[link][other].loops, &mut self.random);
                    (other, loops.handle_probed(now, Probe::parse(probe), false, random))
                }
                Act::Tell(Message::Loop(word)) if !is_old => {
                    (other, self.links[link][other].loops.handle_told(now, word))
                }
                Act::Rerouted { passes } => {
                    self.links[link][which].rerouted.push(passes);
                    continue;
                }
                Act::Probe(..) | Act::Tell(_) => continue,
            };
            self.act(link, at, acts);
        }
    }

    /// The ends that block frames.
    fn held(&self) -> Vec<(usize, usize)> {
        self.ends().into_iter().filter(|(link, which)| self.links[*link][*which].held).collect()
    }

    fn codes(&self, link: usize, which: usize) -> Vec<&'static str> {
        self.links[link][which].said.iter().map(|(_, condition)| condition.code()).collect()
    }
}

#[test]
fn one_end_of_one_link_opens_any_loop_within_a_round_and_the_loop_s_end_lets_frames_pass_again() {
    let parallel = World::new(&[[0, 1], [0, 1]], &[]);
    let beside = World::new(&[[0, 1]], &[[0, 1]]);
    let ring = World::new(&[[0, 1], [1, 2], [2, 0]], &[]);
    let detour = World::new(&[[0, 1]], &[[1, 2], [2, 3], [3, 0]]);
    for mut world in [parallel, beside, ring, detour] {
        world.run(ROUND + Duration::from_millis(100));
        let held = world.held();
        assert_eq!(held.len(), 1);
        let (link, which) = held[0];
        for end in [0, 1] {
            assert_eq!(world.codes(link, end), ["loop"]);
            let shown = world.links[link][end].loops.condition(world.now).unwrap();
            assert!(
                matches!(shown, Condition::Loop { theirs, tunnelled: false, .. } if theirs == (end != which))
            );
        }
        world.run(HOLD[0] * 4);
        assert_eq!(world.held(), held, "the loop is there still");
        // The path that stayed open goes away.
        match world.cables.is_empty() {
            true => world.links.iter_mut().enumerate().filter(|(number, _)| *number != link).for_each(
                |(_, ends)| {
                    ends[0].held = true;
                },
            ),
            false => world.cables.clear(),
        }
        world.run(GONE + ROUND * 3);
        assert!(!world.links[link][which].held);
        for end in [0, 1] {
            assert_eq!(world.codes(link, end), ["loop", "loop-over"]);
            assert_eq!(world.links[link][end].loops.condition(world.now), None);
            assert_eq!(world.links[link][end].rerouted, [false, true, true], "once more a round later");
        }
    }
}

#[test]
fn without_a_loop_nothing_is_held_and_nothing_said() {
    for mut world in [World::new(&[[0, 1], [1, 2]], &[]), World::new(&[[0, 1]], &[[1, 2]])] {
        world.run(Duration::from_secs(3600));
        assert!(
            world.held().is_empty()
                && world.ends().iter().all(|(link, end)| world.codes(*link, *end).is_empty())
        );
    }
}

#[test]
fn a_peer_that_knows_no_probes_gives_them_back_and_that_is_enough() {
    let mut world = World::new(&[[0, 1]], &[[0, 1]]);
    world.links[0][1].is_old = true;
    world.run(ROUND + Duration::from_millis(100));
    assert_eq!(world.held(), [(0, 0)]);
    assert!(matches!(world.links[0][0].said[0].1, Condition::Loop { tunnelled: true, .. }));
    assert!(world.links[0][1].said.is_empty());
}

#[test]
fn a_loop_that_comes_and_goes_is_held_twice_as_long_each_time_up_to_ten_minutes() {
    let mut world = World::new(&[[0, 1]], &[]);
    let mut times = Vec::new();
    for _ in 0..8 {
        world.cables.push([0, 1]);
        world.run(ROUND * 2);
        let began = world.now;
        world.cables.clear();
        while !world.held().is_empty() {
            world.run(ROUND / 4);
        }
        times.push((world.now - began).as_secs());
    }
    for (time, least) in times.iter().zip([30, 60, 120, 240, 480, 600, 600, 600]) {
        assert!((least - 5..=least * 5 / 4 + 5).contains(time), "{times:?}");
    }
    world.run(HOLD[1] + ROUND);
    world.cables.push([0, 1]);
    world.run(ROUND * 2);
    world.cables.clear();
    world.run(HOLD[0] * 5 / 4 + ROUND);
    assert!(world.held().is_empty(), "long after the last one it is the first again");
}

#[test]
fn copies_and_recordings_hold_nothing_and_are_said_once_a_minute() {
    let mut world = World::new(&[[0, 1]], &[]);
    world.run(ROUND * 5);
    let (now, random) = (world.now, &mut world.random);
    let [end, peer] = &mut world.links[0];
    let fresh = Probe { origin: end.loops.origin.unwrap(), round: end.loops.round, vlan: Some(100) };
    let mut acts = Vec::new();
    for _ in 0..1000 {
        // A host beside this end has seen the probe; one beside the peer has a recording.
        acts.extend(end.loops.handle_sighting(now, Sighting { probe: fresh, tunnelled: false }, random));
        for probe in [Probe { round: fresh.round - 2, ..fresh }, Probe { origin: *b"somebody", ..fresh }] {
            acts.extend(end.loops.handle_probed(now, probe, false, random));
            acts.extend(end.loops.handle_sighting(now, Sighting { probe, tunnelled: true }, random));
        }
    }
    let word = end.loops.word(LoopState::Inside, fresh, false);
    let said =
        |theirs| Act::Say(Condition::LoopInside { theirs, mac: address(word.origin), vlan: Some(100) });
    assert_eq!(acts, [Act::Tell(Message::Loop(word)), said(false)]);
    assert_eq!(peer.loops.handle_told(now, word), [said(true)]);
    assert_eq!(peer.loops.handle_told(now, word), [], "said already");
    let again = end.loops.handle_sighting(now + REPEAT, Sighting { probe: fresh, tunnelled: false }, random);
    assert_eq!(again.len(), 2);
    assert_eq!(end.loops.condition(now + REPEAT * 2), None);
    // However often a host shows it the same, the peer reports it once.
    let shown = (0..1000)
        .flat_map(|_| peer.loops.handle_sighting(now, Sighting { probe: fresh, tunnelled: false }, random));
    assert_eq!(shown.count(), 1);
}

#[test]
fn of_two_ends_that_find_it_at_once_the_lower_origin_holds() {
    let mut world = World::new(&[[0, 1]], &[]);
    world.run(ROUND * 2);
    let (now, mut words) = (world.now, Vec::new());
    for end in &mut world.links[0] {
        let probe = Probe { origin: end.loops.origin.unwrap(), round: end.loops.round, vlan: None };
        let acts = end.loops.handle_probed(now, probe, false, &mut world.random);
        end.held = true;
        words.extend(acts.into_iter().filter(|act| matches!(act, Act::Tell(_))));
    }
    let second = words.pop().unwrap();
    world.act(0, 0, words);
    world.act(0, 1, vec![second]);
    let [a, b] = &world.links[0];
    let lower = usize::from(b.loops.origin < a.loops.origin);
    assert_eq!(world.held(), [(0, lower)]);
    assert!(matches!(
        world.links[0][1 - lower].loops.condition(now),
        Some(Condition::Loop { theirs: true, .. })
    ));
}

#[test]
fn of_two_links_that_find_one_loop_at_once_one_lets_go_again_soon() {
    let mut anew = 0;
    for seed in 0..100 {
        let mut world = World::new(&[[0, 1], [0, 1]], &[]);
        world.random = Dice(seed);
        world.run(ROUND + Duration::from_millis(100));
        let (other, now) = (1 - world.held()[0].0, world.now);
        let loops = &mut world.links[other][0].loops;
        let probe = Probe { origin: loops.origin.unwrap(), round: loops.round, vlan: None };
        let acts = loops.handle_probed(now, probe, false, &mut world.random);
        world.act(other, 0, acts);
        assert_eq!(world.held().len(), 2);
        world.run(HOLD[0] / UNSEEN * 2 + ROUND * 2);
        assert_eq!(world.held().len(), 1, "seed {seed}");
        world.run(HOLD[0] * 2);
        assert_eq!(world.held().len(), 1, "seed {seed}");
        let said = world.ends().iter().flat_map(|(link, end)| world.codes(*link, *end)).count();
        anew += usize::from(said > 6);
    }
    assert!(anew < 20, "{anew} of 100 let go of both and began again");
}

#[test]
fn what_the_peer_holds_is_over_when_it_is_silent() {
    let mut world = World::new(&[[0, 1]], &[[0, 1]]);
    world.run(ROUND + Duration::from_millis(100));
    let (_, holder) = world.held()[0];
    world.links[0][holder].loops = Loops::new(true, &mut world.random);
    world.links[0][holder].held = false;
    world.run(GONE + ROUND * 2);
    assert_eq!(world.held().len(), 1, "whoever finds it then holds");
}
