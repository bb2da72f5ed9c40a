//! Operator requests to a link.

use super::*;
use crate::core::condition::Condition;

fn worlds() -> [World; 2] {
    [World::new(), handshake_world()]
}

#[test]
fn a_link_tells_how_it_is() {
    for mut world in worlds() {
        let now = world.now(1).instant;
        let waiting = world.ends[0].link.state(now, &Stats::default());
        assert_eq!(waiting.problem, Some(Condition::NoRemote));
        assert_eq!((waiting.peer, waiting.keys_age, waiting.budget), (None, None, None));
        world.run(5.0);
        world.assert_carries();
        let end = &world.ends[1];
        let state = end.link.state(world.now(1).instant, &end.lane.stats());
        assert_eq!((state.problem, state.peer.as_deref(), state.budget), (None, Some("mon"), Some(1472)));
        assert_eq!((state.stats.frames_out, state.stats.frames_in), (1, 1));
        assert!(state.rtt.is_some() && state.keys_age.unwrap() <= Duration::from_secs(5));
    }
}

#[test]
fn rekeying_brings_young_keys_and_loses_no_frame() {
    for mut world in worlds() {
        world.run(30.0);
        for which in 0..2 {
            let now = world.now(which);
            world.ends[which].link.handle_rekey(now);
            for _ in 0..30 {
                world.run(0.1);
                world.assert_carries();
            }
            let age =
                |end: &End| end.link.state(world.now(which).instant, &Stats::default()).keys_age.unwrap();
            assert!(age(&world.ends[which]) < Duration::from_secs(4), "{which}");
            world.run(20.0);
        }
    }
}

#[test]
fn either_end_reconnects_with_the_name_looked_up_anew() {
    for mut world in worlds() {
        for which in [1, 0, 1, 1, 0] {
            world.run(3.0);
            let now = world.now(which);
            world.ends[which].link.handle_reconnect(now);
            assert!(!world.ends[which].link.is_up());
            world.run(3.0);
            assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
            world.assert_carries();
        }
    }
}

#[test]
fn a_link_that_waits_reconnects_to_where_the_name_leads_now() {
    for mut world in worlds() {
        world.ends[1].remotes = vec!["198.51.100.9:1417".parse().unwrap()];
        world.run(5.0);
        world.ends[1].remotes = vec![MON.parse().unwrap()];
        let now = world.now(1);
        world.ends[1].link.handle_reconnect(now);
        world.run(3.0);
        assert!(world.up(), "{:?} {:?}", world.ends[0].log, world.ends[1].log);
    }
}

#[test]
fn other_settings_of_a_running_link_reach_its_peer_and_its_lane() {
    for mut world in worlds() {
        world.run(3.0);
        let now = world.now(0);
        let offered: IpNet = "192.168.66.0/24".parse().unwrap();
        let mut settings = world.ends[0].settings.clone();
        settings.push = vec![offered];
        settings.only_routed = true;
        world.ends[0].link.handle_settings(now, settings);
        world.run(1.0);
        assert_eq!(world.ends[1].routes, [offered]);
        let mut packet = [0; 100];
        packet[0] = 0x45;
        world.send(1, &[&packet]);
        assert_eq!(world.ends[0].stats().drops(DropReason::Source), 1, "no source is the peer's any more");
        assert!(world.up());
    }
}
