//! Several lanes: which are used, and their ways.

use super::*;
use crate::core::bulk::{self, Bulk};
use crate::core::hello;
use crate::core::limits::{LANE_CHECK, LANE_RETRY};
use crate::wire::control::Hello;

fn several(mode: KeyMode, lanes: [u8; 2]) -> World {
    let of = |which: usize| LinkSettings { lanes: lanes[which], key_mode: mode, ..settings(which) };
    World::with(of(0), of(1), [0, 0])
}

const MODES: [KeyMode; 2] = [KeyMode::Handshake, KeyMode::Static];

impl World {
    /// Sends a frame in that lane.
    fn send_in(&mut self, which: usize, lane: u8, frame: &[u8]) {
        let end = &mut self.ends[which];
        match lane {
            0 => end.lane.handle_frames(&[frame], &mut end.out),
            _ => {
                let Beside { lane, out, .. } = &mut end.others[usize::from(lane) - 1];
                lane.handle_frames(&[frame], out);
            }
        }
        self.drain();
    }

    /// Takes the output of each lane of an end.
    fn came(&mut self, which: usize) -> Vec<Vec<Vec<u8>>> {
        let end = &mut self.ends[which];
        let others = end.others.iter_mut().map(|beside| std::mem::take(&mut beside.out.frames));
        [std::mem::take(&mut end.out.frames)].into_iter().chain(others).collect()
    }

    /// Asserts that a frame in each used lane arrives there, both ways; returns the ports frames came from.
    fn assert_carries_in(&mut self, lanes: u8) -> [Vec<u16>; 2] {
        [0, 1].map(|which| {
            assert_eq!(self.ends[which].used, lanes);
            self.came(1 - which);
            let ports = (0..lanes).map(|lane| {
                let frame = [which as u8, lane, 7];
                self.record.clear();
                self.send_in(which, lane, &frame);
                let mut expected = vec![Vec::new(); self.ends[1 - which].others.len() + 1];
                expected[usize::from(lane)] = vec![frame.to_vec()];
                assert_eq!(self.came(1 - which), expected, "lane {lane} from end {which}");
                let ends = [self.record[0].from, self.record[0].to];
                ends.iter().map(SocketAddr::port).max().unwrap()
            });
            ports.collect()
        })
    }
}

#[test]
fn each_lane_has_a_way_from_a_port_of_its_own_and_stays_on_it_through_a_rekey() {
    for mode in MODES {
        let mut world = several(mode, [3, 3]);
        world.run(2.0);
        assert!(world.up());
        let ways = [1417, OWN_PORTS + 1, OWN_PORTS + 2];
        assert_eq!(world.assert_carries_in(3), [ways, ways]);
        let now = world.now(1);
        world.ends[1].link.handle_rekey(now);
        world.run(130.0);
        assert_eq!(world.assert_carries_in(3), [ways, ways]);
        assert_eq!(world.ends[0].link.state(world.now(0).instant, &Stats::default()).lanes, [3, 2]);
        for end in &world.ends {
            let stats = end.stats().minus(&end.link.stats());
            assert_eq!(DropReason::ALL.map(|reason| stats.drops(reason)).iter().sum::<u64>(), 0, "{stats}");
            assert!(!end.fell());
        }
    }
}

#[test]
fn the_smaller_number_of_lanes_counts_and_an_end_without_them_is_no_obstacle() {
    for mode in MODES {
        for (lanes, used) in [([3, 2], 2), ([2, 5], 2), ([1, 4], 1), ([4, 1], 1)] {
            let mut world = several(mode, lanes);
            world.run(2.0);
            world.assert_carries_in(used);
        }
    }
}

#[test]
fn before_the_link_is_up_and_after_it_fell_lane_0_is_alone() {
    for mode in MODES {
        let mut world = several(mode, [2, 2]);
        assert_eq!(world.ends[1].used, 1);
        world.run(2.0);
        assert_eq!(world.ends[1].used, 2);
        world.cut = true;
        world.run(70.0);
        for end in &world.ends {
            assert!(end.fell() && end.used == 1 && end.others[0].socket.is_none());
        }
        world.cut = false;
        world.run(20.0);
        assert!(world.up());
        world.assert_carries_in(2);
    }
}

#[test]
fn a_lane_whose_way_is_cut_goes_along_the_link_s_and_tries_again_later() {
    for mode in MODES {
        let mut world = several(mode, [2, 2]);
        world.run(2.0);
        world.cut_ports = vec![OWN_PORTS + 1];
        world.run(LANE_CHECK.as_secs_f64() + 4.0);
        for end in &world.ends {
            assert_eq!(end.times("lane-lost"), 1);
            assert!(!end.fell());
        }
        assert_eq!(world.assert_carries_in(2), [[1417, 1417], [1417, 1417]]);
        world.run(200.0);
        assert!(world.ends.iter().all(|end| end.times("lane-lost") == 1), "it is said once");
        world.cut_ports.clear();
        world.run(LANE_RETRY.as_secs_f64() + 5.0);
        let ways = [1417, OWN_PORTS + 1];
        assert_eq!(world.assert_carries_in(2), [ways, ways]);
    }
}

#[test]
fn a_lane_whose_way_takes_shorter_datagrams_than_the_link_s_goes_along_that() {
    for mode in MODES {
        let mut world = several(mode, [2, 2]);
        world.run(20.0);
        (world.cut_ports, world.cut_above) = (vec![OWN_PORTS + 1], 700);
        world.record.clear();
        world.run(20.0);
        let is_long = |flying: &Flying| flying.bytes.len() > 700 && flying.from.port() != 1417;
        assert!(!world.record.iter().any(is_long), "there is nothing to carry");
        let ways = [1417, OWN_PORTS + 1];
        assert_eq!(world.assert_carries_in(2), [ways, ways]);
        world.run(LANE_CHECK.as_secs_f64() + 4.0);
        for end in &world.ends {
            assert_eq!(end.times("lane-lost"), 1);
            assert!(!end.fell());
        }
        for _ in 0..200 {
            world.run(1.0);
            for which in [0, 1] {
                world.came(1 - which);
                let frame = [which as u8; 1300];
                world.send_in(which, 1, &frame);
                assert_eq!(world.came(1 - which)[1], [frame]);
            }
        }
        assert!(world.ends.iter().all(|end| end.times("lane-lost") == 1), "it is not tried with less");
        world.cut_ports.clear();
        world.run(LANE_RETRY.as_secs_f64() + 5.0);
        assert_eq!(world.assert_carries_in(2), [ways, ways]);
    }
}

#[test]
fn when_the_calling_end_moves_its_lanes_follow() {
    for mode in MODES {
        let mut world = several(mode, [2, 2]);
        world.run(2.0);
        world.ends[1].address = "203.0.113.9:1417".parse().unwrap();
        world.run(2.0 * LANE_CHECK.as_secs_f64() + 12.0);
        assert!(world.ends[0].said(&moved("203.0.113.9:1417")) && !world.ends[0].fell());
        let ways = [1417, OWN_PORTS + 1];
        assert_eq!(world.assert_carries_in(2), [ways, ways]);
    }
}

#[test]
fn a_lane_is_followed_to_no_other_host_and_says_nothing_that_counts_but_of_its_way() {
    for mode in MODES {
        let mut world = several(mode, [2, 2]);
        world.run(2.0);
        // The caller's question is relayed from another host.
        world.record.clear();
        world.cut_ports = vec![OWN_PORTS + 1];
        world.run(LANE_CHECK.as_secs_f64());
        let asks = world.record.iter().find(|flying| flying.from.port() == OWN_PORTS + 1).unwrap().clone();
        world.inject(Flying { from: "203.0.113.9:50001".parse().unwrap(), ..asks });
        world.drain();
        let socket = world.ends[0].others[0].socket.unwrap();
        assert_eq!(socket.remote, "198.51.100.2:50001".parse().unwrap());

        let before = world.ends[0].link.stats().drops(DropReason::Malformed);
        let now = world.now(1).instant;
        let mut body = Vec::new();
        control::encode(&Message::Bye { reason: "stopped".into() }, &mut body);
        let bye = SendCommand::Control { body, to: MON.parse().unwrap(), under: KeySlot::Current, lane: 1 };
        world.ends[1].handle_command(now, &bye.into());
        world.drain();
        assert!(world.up());
        assert_eq!(world.ends[0].link.stats().drops(DropReason::Malformed), before + 1);
    }
}

#[test]
fn over_a_stream_lane_0_is_alone() {
    for mode in MODES {
        let mut world = several(mode, [2, 2]);
        world.ends[1].remotes = vec!["198.51.100.1:563".parse().unwrap()];
        world.run(3.0);
        assert!(world.up());
        assert!(world.ends.iter().all(|end| end.used == 1));
        world.assert_carries();
    }
}

#[test]
fn frames_of_a_flow_keep_their_order_however_lanes_overtake_each_other() {
    for mode in MODES {
        const FLOWS: usize = 64;
        let mut world = several(mode, [4, 4]);
        world.run(2.0);
        let (mut dice, mut next, mut expected) = (Dice(9), [0u32; FLOWS], [0u32; FLOWS]);
        // Each lane's own datagrams stay in order, as on a path; those of others delay them arbitrarily.
        let mut waiting: [VecDeque<Flying>; 4] = Default::default();
        for _ in 0..25_000 {
            let lane = dice.below(4);
            let frames = [(); 40].map(|()| {
                let flow = lane + 4 * dice.below(FLOWS / 4);
                next[flow] += 1;
                [&[flow as u8; 20][..], &(next[flow] - 1).to_be_bytes()].concat()
            });
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let end = &mut world.ends[1];
            match lane {
                0 => end.lane.handle_frames(&frames, &mut end.out),
                _ => {
                    let Beside { lane, out, .. } = &mut end.others[lane - 1];
                    lane.handle_frames(&frames, out);
                }
            }
            world.settle(1);
            waiting[lane].extend(world.wire.drain(..));
            world.record.clear();
            let lane = dice.below(4);
            if dice.below(3) > 0 {
                while let Some(flying) = waiting[lane].pop_front() {
                    world.inject(flying);
                }
            }
        }
        waiting.into_iter().flatten().for_each(|flying| world.inject(flying));
        for (lane, frames) in world.came(0).into_iter().enumerate() {
            for frame in frames {
                let flow = usize::from(frame[0]);
                assert_eq!(flow % 4, lane);
                assert_eq!(frame[20..], expected[flow].to_be_bytes());
                expected[flow] += 1;
            }
        }
        assert_eq!((expected, next.iter().sum::<u32>()), (next, 1_000_000));
    }
}

#[test]
fn recordings_deliver_nothing_in_any_lane_whoever_was_started_again() {
    for mode in MODES {
        for restarted in [None, Some(0), Some(1)] {
            let mut world = several(mode, [3, 3]);
            world.run(2.0);
            world.record.clear();
            // Under keys that come and go, the last of which are those that are in use.
            for _ in 0..3 {
                world.run(35.0);
                for which in [0, 1] {
                    for lane in 0..3 {
                        world.send_in(which, lane, &[which as u8, lane, 9]);
                    }
                }
            }
            let record = world.record.clone();
            assert!(record.len() > 6);
            if let Some(which) = restarted {
                world.restart(which);
            }
            world.run(30.0);
            assert!(world.up());
            for which in [0, 1] {
                world.came(which);
            }
            for flying in record.iter().chain(record.iter().rev()) {
                world.inject(flying.clone());
            }
            world.run(3.0);
            for which in [0, 1] {
                assert_eq!(world.came(which), vec![Vec::<Vec<u8>>::new(); 3], "{mode:?} {restarted:?}");
            }
            world.run(70.0);
            world.assert_carries_in(3);
        }
    }
}

/// Without a limit, each message could request a socket from the privileged process.
#[test]
fn a_peer_that_says_something_else_each_time_costs_few_sockets() {
    for mode in MODES {
        let mut world = several(mode, [3, 3]);
        world.run(2.0);
        for count in 0..200u8 {
            let own = &world.ends[1].settings;
            let hello = Hello { lanes: 2 + count % 2, rank: u32::from(count), ..hello::own(own, 1200, true) };
            let mut body = Vec::new();
            control::encode(&Message::Hello(hello), &mut body);
            let said =
                SendCommand::Control { body, to: MON.parse().unwrap(), under: KeySlot::Current, lane: 0 };
            let now = world.now(1).instant;
            world.ends[1].handle_command(now, &said.into());
            world.run(0.1);
        }
        assert!(world.up() && !world.ends[0].fell());
        assert!(world.ends[0].sockets <= 20, "{}", world.ends[0].sockets);
        world.run(60.0);
        world.assert_carries_in(3);
    }
}

#[test]
fn a_worker_that_may_be_a_copy_takes_no_key_before_the_link_has_dropped_its_own() {
    let settings = lane::Settings::new(&settings(0), Arc::new(LinkKeys::new(&[42; 32])), false);
    let key = |time| Key::KeyId(KeyId::new(&settings.keys, time, [1; 4]));
    let now = World::new().start;
    for lane in [0, 1] {
        let mut bulk = Bulk::new(&bulk::Settings::Tund(settings.of_lane(lane)));
        let sent = |bulk: &mut Bulk, commands: &[SendCommand]| {
            let mut out = Recorder::default();
            for command in commands {
                bulk.handle_command(now, Command::Send(command.clone()).into(), &mut out);
            }
            bulk.handle_frame(&[7; 60], &[], &mut out);
            bulk.flush(&mut out);
            out.sent.len()
        };
        let use_key = |time| {
            let prepare = match lane {
                0 => SendCommand::Prepare(KeySlot::Next, key(time)),
                _ => SendCommand::Pair {
                    slot: KeySlot::Next,
                    key: key(time),
                    named: KeyId::new(&settings.keys, 7, [2; 4]),
                },
            };
            [prepare, SendCommand::Switch(KeySlot::Next)]
        };
        sent(&mut bulk, &[SendCommand::Endpoint(FRI.parse().unwrap()), SendCommand::Agreed(true)]);
        assert_eq!(sent(&mut bulk, &use_key(1)), 1);
        bulk.wipe_all(&mut Recorder::default());
        // What was under way when the copy was made.
        assert_eq!(sent(&mut bulk, &use_key(2)), 0);
        sent(&mut bulk, &[SendCommand::WipeAll]);
        assert_eq!(sent(&mut bulk, &use_key(3)), 1);
    }
}
