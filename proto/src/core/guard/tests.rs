#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules {
        find_loops: true,
        storm: 1_000_000,
        macs: 4096,
        drop_bpdu: false,
        drop_dhcp_server: false,
        drop_router_advertisement: false,
        vlans: None,
        untagged: true,
        drop_own_macs: false,
    }
}

fn key() -> ProbeKey {
    ProbeKey::own(&[7; 16])
}

fn guard(rules: &Rules) -> Guard {
    let mut guard = Guard::new(rules, key());
    guard.set_now(Instant::now());
    guard
}

const ALL: u8 = 0xff;

/// A frame between hosts by number; `ALL`: broadcast.
fn frame(from: u8, to: u8, vlan: u16) -> Vec<u8> {
    let mac = |host: u8| if host == ALL { [0xff; 6] } else { [2, 0, 0, 0, 0, host] };
    let mut frame = [mac(to), mac(from)].concat();
    if vlan != 0 {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([0x08, 0x06]);
    frame.extend([0; 40]);
    frame
}

#[test]
fn a_frame_of_zeros_is_looked_at_like_any_other() {
    let mut guard = guard(&Rules { untagged: false, ..rules() });
    assert_eq!(guard.inward(&[0; 60]), Err(DropReason::GuardVlan));
    assert_eq!(guard.inward(&[0; 13]), Err(DropReason::Malformed));
}

#[test]
fn a_storm_is_cut_to_its_limit_and_known_destinations_are_no_storm() {
    let mut guard = guard(&Rules { storm: 100, ..rules() });
    guard.outward(&frame(1, ALL, 0)).unwrap();
    let mut now = Instant::now();
    let (mut floods, mut known) = (0, 0);
    for _ in 0..2000 {
        now += Duration::from_millis(1);
        guard.set_now(now);
        floods += u32::from(guard.inward(&frame(9, ALL, 0)).is_ok());
        known += u32::from(guard.inward(&frame(9, 1, 0)).is_ok());
    }
    assert!((200..=230).contains(&floods), "{floods} in two seconds");
    assert_eq!(known, 2000);
    assert_eq!(guard.inward(&frame(9, 77, 0)), Err(DropReason::GuardStorm), "to nobody knows where");
    assert_eq!(guard.offenders().iter().next(), Some((Rule::Storm, [2, 0, 0, 0, 0, 9], None)));
    assert_eq!(guard.offenders().iter().next(), None, "told once");
}

#[test]
fn a_frame_whose_destination_is_where_it_comes_from_goes_no_further_until_that_moves() {
    let mut guard = guard(&rules());
    guard.inward(&frame(8, ALL, 5)).unwrap();
    guard.outward(&frame(1, ALL, 5)).unwrap();
    assert_eq!(guard.inward(&frame(9, 8, 5)), Err(DropReason::GuardLocal));
    assert_eq!(guard.outward(&frame(2, 1, 5)), Err(DropReason::GuardLocal));
    guard.inward(&frame(9, 8, 6)).expect("another VLAN");
    guard.inward(&frame(9, 1, 5)).unwrap();
    guard.outward(&frame(1, 9, 5)).unwrap();
    // Host 8 moves here without telling anyone else.
    guard.outward(&frame(8, 9, 5)).unwrap();
    guard.inward(&frame(9, 8, 5)).unwrap();
}

#[test]
fn a_host_that_comes_back_to_the_peer_is_believed_whichever_half_of_the_lane_saw_it_go() {
    let mut inward = guard(&rules());
    let mut outward = inward.clone();
    outward.outward(&frame(1, ALL, 0)).unwrap();
    for _ in 0..2 {
        inward.inward(&frame(9, ALL, 0)).unwrap();
        (0..3).for_each(|_| inward.inward(&frame(9, 1, 0)).unwrap());
        outward.outward(&frame(1, 9, 0)).unwrap();
        // A forged frame here, or the host itself.
        outward.outward(&frame(9, ALL, 0)).unwrap();
        let is_here = || outward.tables.own.contains(Host::new(None, [2, 0, 0, 0, 0, 9]));
        assert!(is_here());
        inward.inward(&frame(9, 1, 0)).unwrap();
        assert!(!is_here());
    }
}

/// Of two parallel links, the one that is not held does not hear of the loop.
#[test]
fn what_is_for_a_host_that_a_loop_showed_on_the_wrong_side_crosses() {
    let mut guard = guard(&rules());
    let now = guard.now.unwrap();
    guard.outward(&frame(1, ALL, 0)).unwrap();
    guard.inward(&frame(9, ALL, 0)).unwrap();
    // It has gone round, and is silent from now on.
    guard.outward(&frame(9, ALL, 0)).unwrap();
    guard.outward(&frame(1, 9, 0)).unwrap();
    for minute in 1..=6 {
        guard.set_now(now + EPOCH * minute);
        guard.outward(&frame(2, ALL, 0)).unwrap();
        assert_eq!(guard.outward(&frame(1, 2, 0)).is_err(), minute >= 6, "minute {minute}");
    }
}

#[test]
fn a_forged_address_is_refused_only_if_asked_for_and_is_believed_when_it_is_forgotten() {
    for drops in [false, true] {
        let mut guard = guard(&Rules { drop_own_macs: drops, ..rules() });
        guard.outward(&frame(1, ALL, 0)).unwrap();
        let forged = guard.inward(&frame(1, ALL, 0));
        assert_eq!(forged, if drops { Err(DropReason::GuardOwnMac) } else { Ok(()) });
        guard.set_now(Instant::now() + EPOCH * 6);
        guard.inward(&frame(1, ALL, 0)).unwrap();
    }
}

#[test]
fn a_change_of_the_spanning_tree_makes_it_forget_where_hosts_are() {
    let mut guard = guard(&rules());
    guard.inward(&frame(8, ALL, 0)).unwrap();
    assert!(guard.inward(&frame(9, 8, 0)).is_err());
    let mut bpdu = [&[1, 0x80, 0xc2, 0, 0, 0][..], &[2; 6], &[0, 7, 0x42, 0x42, 3], &[0; 40]].concat();
    bpdu[20] = 0x80;
    guard.outward(&bpdu).unwrap();
    guard.inward(&frame(9, 8, 0)).unwrap();
    let mut strict = self::guard(&Rules { drop_bpdu: true, ..rules() });
    assert_eq!(
        (strict.inward(&bpdu), strict.outward(&bpdu)),
        (Err(DropReason::GuardBpdu), Err(DropReason::GuardBpdu))
    );
}

#[test]
fn servers_are_refused_from_the_peer_and_not_to_it_also_after_others_of_the_same_two_hosts() {
    let mut guard = guard(&Rules { drop_dhcp_server: true, drop_router_advertisement: true, ..rules() });
    guard.outward(&frame(1, ALL, 0)).unwrap();
    let mut answer = [&frame(9, 1, 0)[..12], &[8, 0, 0x45, 0], &[0; 60]].concat();
    answer[23] = 17;
    guard.inward(&answer).expect("other ports");
    guard.inward(&answer).expect("and once more, by the short way");
    answer[34..38].copy_from_slice(&[0, 67, 0, 68]);
    assert_eq!(guard.inward(&answer), Err(DropReason::GuardDhcp));
    answer.copy_within(0..6, 6);
    answer[5] = 9;
    guard.outward(&answer).expect("this segment's servers are the peer's to refuse");
}

#[test]
fn who_sent_is_counted_on_the_short_way_too_and_after_another_has_taken_the_place() {
    let mut guard = guard(&rules());
    guard.outward(&frame(1, ALL, 0)).unwrap();
    let count = |guard: &Guard, host: u8| {
        guard.talkers().iter().find(|talker| talker.mac[5] == host).map_or(0, |talker| talker.frames)
    };
    (0..10).for_each(|_| guard.inward(&frame(9, 1, 5)).unwrap());
    (0..10).for_each(|_| guard.inward(&frame(8, 1, 0)).unwrap());
    assert_eq!([1, 8, 9].map(|host| count(&guard, host)), [1, 10, 10]);
    let long = |host| [frame(host, ALL, 0), vec![0; 60_000]].concat();
    (100..150).for_each(|host| guard.inward(&long(host)).unwrap());
    guard.inward(&frame(8, 1, 0)).unwrap();
    assert!(count(&guard, 8) <= 1, "gone meanwhile");
    assert!((100..150).all(|host| count(&guard, host) <= 1), "and in nobody else's name");
}

#[test]
fn a_link_takes_no_more_than_half_a_mebibyte_for_it_whatever_is_configured() {
    let guard = guard(&Rules { macs: 16_384, ..rules() });
    let Tables { own, peer, vlans, .. } = &*guard.tables;
    let shared = size_of::<Tables>() + own.size() + peer.size() + vlans.size() + size_of_val(&*guard.vlans);
    // One for each direction; two threads have both each.
    let all = shared + 4 * size_of::<Guard>();
    assert!((300 << 10..512 << 10).contains(&all), "{all} bytes");
}

#[test]
fn a_flood_of_addresses_takes_no_more_than_its_share() {
    let mut guard = guard(&Rules { macs: 16, ..rules() });
    let passed = (0..200).filter(|host| guard.inward(&frame(*host, ALL, 0)).is_ok()).count();
    assert!(passed <= 32, "{passed}");
    assert_eq!(guard.offenders().iter().next().map(|(rule, ..)| rule), Some(Rule::Macs));
}

#[test]
fn probes_of_the_link_end_here_and_are_told_and_those_of_others_pass() {
    let rules = Rules { vlans: Some(vec![(5, 9)]), ..rules() };
    let mut ours = guard(&rules);
    let passed = (1..=9).filter(|vlan| ours.outward(&frame(1, ALL, *vlan)).is_ok()).count();
    assert_eq!(passed, 5);
    let probes = ours.probes(*b"originat", 7);
    let sent: Vec<_> = probes.iter().map(|frame| Probe::of(frame, &key()).unwrap().vlan).collect();
    assert_eq!(
        sent,
        [None, Some(5), Some(6), Some(7), Some(8), Some(9)],
        "where frames pass and have passed"
    );
    for held in [false, true] {
        ours.hold(held);
        for (tunnelled, frame) in [(false, &probes[0]), (true, &probes[1])] {
            let verdict = if tunnelled { ours.inward(frame) } else { ours.outward(frame) };
            assert_eq!(verdict, Err(DropReason::GuardLoop));
            let probe = Probe::of(frame, &key()).unwrap();
            assert_eq!(ours.take_sighting(), Some(Sighting { probe, tunnelled }));
        }
    }
    ours.hold(false);
    let other = Probe { origin: *b"originat", round: 7, vlan: None }.frame(&ProbeKey::own(&[8; 16]));
    ours.outward(&other).unwrap();
    let mut off = guard(&Rules { find_loops: false, ..rules });
    off.inward(&probes[0]).unwrap();
    assert_eq!(
        (ours.take_sighting(), off.take_sighting(), off.probes(*b"originat", 7).len()),
        (None, None, 0)
    );
    let told =
        (0..1000).filter(|_| ours.outward(&probes[0]).is_err() && ours.take_sighting().is_some()).count();
    assert!(told <= SIGHTINGS as usize, "{told} copies");
}

#[test]
fn while_frames_are_held_back_none_passes_not_even_between_hosts_that_just_spoke() {
    let mut guard = guard(&rules());
    let (to, back) = (frame(1, 9, 0), frame(9, 1, 0));
    let mut exchange = |held: bool| {
        guard.hold(held);
        (0..3).map(|_| [guard.outward(&to), guard.inward(&back)]).collect::<Vec<_>>().concat()
    };
    assert_eq!(exchange(false), [Ok(()); 6]);
    assert_eq!(exchange(true), [Err(DropReason::GuardLoop); 6]);
    assert_eq!(exchange(false), [Ok(()); 6]);
    // Forgets where hosts on the other path were.
    guard.outward(&frame(8, ALL, 0)).unwrap();
    guard.outward(&frame(1, 8, 0)).unwrap_err();
    guard.hold(false);
    guard.outward(&frame(1, 8, 0)).unwrap();
}

/// What else a frame of the reference is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tree {
    None,
    Bpdu,
    Change,
}

/// A slow reference for the guard: one map of everything, how many milliseconds ago a topology change counted, and whether a host has moved since.
#[derive(Default)]
struct Reference(HashMap<(u16, u8), Way>, Option<u64>, bool);

impl Reference {
    fn look(
        &mut self,
        rules: &Rules,
        way: Way,
        (from, to, vlan): (u8, u8, u16),
        tree: Tree,
    ) -> Result<(), DropReason> {
        let ranges = rules.vlans.clone().unwrap_or_else(|| vec![(1, 4095)]);
        let passes =
            if vlan == 0 { rules.untagged } else { ranges.iter().any(|(a, z)| (*a..=*z).contains(&vlan)) };
        if !passes {
            return Err(DropReason::GuardVlan);
        }
        if tree != Tree::None && rules.drop_bpdu {
            return Err(DropReason::GuardBpdu);
        }
        if tree == Tree::Change && self.1.is_none_or(|ago| ago >= 1000) {
            *self = Self(HashMap::new(), Some(0), false);
        }
        let there = if way == Way::Inward { Way::Outward } else { Way::Inward };
        if way == Way::Inward && rules.drop_own_macs && self.0.get(&(vlan, from)) == Some(&there) {
            return Err(DropReason::GuardOwnMac);
        }
        self.2 |= self.0.insert((vlan, from), way) == Some(there);
        if to != ALL && !self.2 && self.0.get(&(vlan, to)) == Some(&way) {
            Err(DropReason::GuardLocal)
        } else {
            Ok(())
        }
    }
}

proptest! {
    #[test]
    fn the_guard_decides_as_the_slow_reference_does(
        frames in prop::collection::vec((any::<bool>(), 0..6_u8, 0..7_u8, 0..4_u16, 0..40_u8), 1..400),
        drop_bpdu in any::<bool>(),
        untagged in any::<bool>(),
        drop_own_macs in any::<bool>(),
        vlans in prop::option::of(prop::collection::vec((1..4_u16, 1..4_u16), 0..3)),
    ) {
        let rules = Rules { drop_bpdu, untagged, drop_own_macs, vlans, ..rules() };
        let (mut guard, mut reference) = (guard(&rules), Reference::default());
        let mut now = Instant::now();
        guard.set_now(now);
        for (inward, from, to, vlan, kind) in frames {
            let to = if to == 6 { ALL } else { to };
            let way = if inward { Way::Inward } else { Way::Outward };
            let mut sent = frame(from, to, vlan);
            let tree = match kind {
                0 | 1 => Tree::Change,
                2 => Tree::Bpdu,
                _ => Tree::None,
            };
            if tree != Tree::None {
                sent[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
                let end = sent.len() - 40;
                sent[end..end + 8].copy_from_slice(&[0x42, 0x42, 3, 0, 0, 0, 0, u8::from(tree == Tree::Change)]);
            }
            if kind < 10 {
                now += Duration::from_millis(300);
                guard.set_now(now);
                reference.1 = reference.1.map(|ago| ago + 300);
            }
            let to = if tree == Tree::None { to } else { ALL };
            let expected = reference.look(&rules, way, (from, to, vlan), tree);
            prop_assert_eq!(guard.look(&sent, way), expected);
        }
    }

    #[test]
    fn any_bytes_have_a_verdict(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..20)) {
        let mut guard = guard(&Rules { drop_dhcp_server: true, drop_router_advertisement: true, ..rules() });
        for frame in frames {
            let _ = (guard.inward(&frame), guard.outward(&frame));
        }
    }
}
