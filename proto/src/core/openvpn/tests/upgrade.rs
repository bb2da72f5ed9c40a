//! Two ends that both prove to be tund, over a wire that loses, delays, duplicates and filters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::config::{Guard as Rules, Keepalive, KeyMode, Upgrade};
use crate::core::bulk::{Bulk, Settings};
use crate::core::clock::Now;
use crate::core::control::Control;
use crate::core::lane::{self, Arrived};
use crate::core::link::Event;
use crate::core::openvpn::admission::Kept;
use crate::core::openvpn::lane::{Secrets, Settings as LaneSettings};
use crate::core::openvpn::link::{Link, upgrade};
use crate::core::openvpn::options::Options;
use crate::core::settings::{LinkSettings, OpenVpnWire};
use crate::core::stats::DropReason;
use crate::crypto::cbc_hmac::{CbcCipher, CbcHmac, Digest, KEY, slots};
use crate::crypto::keys::{LinkKeys, from_openvpn};
use crate::packet::layer::Mode;
use crate::testing::{self, Dice, Recorder};
use crate::wire::openvpn::Framing;

const STEP: Duration = Duration::from_millis(5);
const START: u64 = 1_796_000_000_000_000;
const FILE: [u8; KEY] = [7; KEY];

struct End {
    link: Box<dyn Control>,
    bulk: Bulk,
    out: Recorder,
    kept: Kept,
    up: bool,
    said: Vec<&'static str>,
}

fn address(which: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, which as u8 + 1], 1194))
}

fn settings(which: usize, upgrade: Upgrade) -> LinkSettings {
    let options = Options {
        mode: Mode::Tap,
        mtu: 1500,
        own: None,
        peer: None,
        direction: Some(which as u8),
        cipher: CbcCipher::Aes256,
        digest: Digest::Sha256,
        framing: Framing::None,
        fragments: false,
    };
    LinkSettings {
        mode: Mode::Tap,
        mtu: 1500,
        key_mode: KeyMode::OpenVpn,
        openvpn: Some(OpenVpnWire { options, detect: false, fragment: None, upgrade }),
        keepalive: Keepalive {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            idle_exit: Duration::from_secs(300),
        },
        ..testing::settings(which)
    }
}

#[test]
fn the_guard_knows_the_hosts_in_the_one_format_that_it_has_seen_in_the_other() {
    let rules = Rules {
        find_loops: false,
        storm: 1000,
        macs: 16,
        drop_bpdu: false,
        drop_dhcp_server: false,
        drop_router_advertisement: false,
        vlans: None,
        untagged: true,
        drop_own_macs: true,
    };
    let link = LinkSettings { guard: Some(rules), ..settings(0, Upgrade::Auto) };
    let tund = lane::Settings::new(&link, Arc::new(LinkKeys::new(&from_openvpn(&FILE))), false);
    let secrets = Secrets { key: Zeroizing::new(FILE), check: [0; 16], draw: [1; 16] };
    let openvpn = LaneSettings::new(&link, Arc::new(secrets), false);
    let Settings::Both { mut tund, mut openvpn } = Settings::new(tund, openvpn, Upgrade::Auto) else {
        panic!()
    };
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat();
    openvpn.inner.outward(&frame).unwrap();
    assert_eq!(tund.inner.inward(&frame, 0), Err(DropReason::GuardOwnMac));
}

impl End {
    fn new(which: usize, upgrade: Upgrade, kept: Kept, now: Now, seed: u64) -> Self {
        let settings = settings(which, upgrade);
        let secrets = Secrets { key: Zeroizing::new(FILE), check: [which as u8; 16], draw: [seed as u8; 16] };
        let keys = Arc::new(LinkKeys::new(&from_openvpn(&FILE)));
        let tund = lane::Settings::new(&settings, keys.clone(), false);
        let openvpn = LaneSettings::new(&settings, Arc::new(secrets), false).unwrap();
        let link = Link::new(settings, kept, now, Dice(seed)).unwrap();
        let link: Box<dyn Control> = match upgrade {
            Upgrade::Off => Box::new(link),
            _ => Box::new(upgrade::Link::new(link, keys, upgrade, Dice(seed + 1))),
        };
        let bulk = Settings::new(tund, Some(openvpn), upgrade);
        Self { link, bulk: Bulk::new(&bulk), out: Recorder::default(), kept, up: false, said: Vec::new() }
    }

    /// Carries out the link's output.
    fn settle(&mut self, now: Now, peer: SocketAddr) {
        loop {
            if let Some(command) = self.link.poll_command() {
                self.bulk.handle_command(now.instant, command, &mut self.out);
            } else if let Some(event) = self.link.poll_event() {
                match event {
                    Event::Keep(kept) => {
                        self.kept = kept;
                        self.link.handle_kept(now, kept);
                    }
                    Event::Resolve => self.link.handle_resolved(now, &[peer.into()]),
                    Event::Endpoint(path) => self.link.handle_route(now, path.remote, Some(1500)),
                    Event::Up { .. } => assert!(!std::mem::replace(&mut self.up, true), "up twice"),
                    Event::Down { .. } => assert!(std::mem::take(&mut self.up), "down twice"),
                    Event::Log { condition, .. } => self.said.push(condition.code()),
                    Event::Routes(_) | Event::Rerouted { .. } => {}
                    Event::Lanes(_) | Event::LaneSocket { .. } => unreachable!("there is one lane"),
                }
            } else if let Some(notice) = self.out.notices.pop_front() {
                self.link.handle_notice(now, notice);
            } else {
                return;
            }
        }
    }

    fn is_upgraded(&self) -> bool {
        matches!(self.bulk, Bulk::Both { upgraded: true, .. })
    }
}

fn is_openvpn(sender: usize, datagram: &[u8]) -> bool {
    let keys = slots(&FILE, Some(sender as u8))[0];
    CbcHmac::new(CbcCipher::Aes256, Digest::Sha256, keys).open(&mut datagram.to_vec()).is_ok()
}

/// The wire's effect on datagrams.
#[derive(Clone, Copy, Default)]
struct Wire {
    loss: f64,
    doubles: f64,
    /// Longest additional delay in milliseconds.
    jitter: u64,
    /// Only OpenVPN's format passes.
    filters: bool,
}

struct World {
    ends: [End; 2],
    began: Instant,
    elapsed: Duration,
    flying: Vec<(Duration, usize, Vec<u8>)>,
    wire: Wire,
    dice: Dice,
    sent: u32,
}

impl World {
    fn new(upgrades: [Upgrade; 2], wire: Wire, seed: u64) -> Self {
        let began = super::begun();
        let mut world = Self {
            ends: [0, 1].map(|which| {
                let kept = Kept { own: 1_796_000_000 + which as u32, admitted: 0 };
                End::new(
                    which,
                    upgrades[which],
                    kept,
                    Now { instant: began, wall: START },
                    seed * 10 + which as u64 * 5,
                )
            }),
            began,
            elapsed: Duration::ZERO,
            flying: Vec::new(),
            wire,
            dice: Dice(seed),
            sent: 0,
        };
        world.settle();
        world
    }

    fn now(&self) -> Now {
        Now { instant: self.began + self.elapsed, wall: START + self.elapsed.as_micros() as u64 }
    }

    fn restart(&mut self, which: usize, upgrade: Upgrade) {
        let now = self.now();
        let kept = self.ends[which].kept.started((now.wall / 1_000_000) as u32);
        self.ends[which] = End::new(which, upgrade, kept, now, self.dice.number() % 1000);
    }

    fn settle(&mut self) {
        let now = self.now();
        for which in 0..2 {
            self.ends[which].settle(now, address(1 - which));
            for (bytes, path) in std::mem::take(&mut self.ends[which].out.sent) {
                assert_eq!(path.remote, address(1 - which));
                if self.dice.chance(self.wire.loss) || self.wire.filters && !is_openvpn(which, &bytes) {
                    continue;
                }
                for _ in 0..1 + usize::from(self.dice.chance(self.wire.doubles)) {
                    let delay = self.dice.ms(20, 20 + self.wire.jitter);
                    self.flying.push((self.elapsed + delay, 1 - which, bytes.clone()));
                }
            }
        }
    }

    /// Runs for so long; with `frames` each end sends one every 10 ms.
    fn run(&mut self, seconds: u64, frames: bool) {
        let end = self.elapsed + Duration::from_secs(seconds);
        while self.elapsed < end {
            self.elapsed += STEP;
            let now = self.now();
            let (due, flying) =
                std::mem::take(&mut self.flying).into_iter().partition(|it| it.0 <= self.elapsed);
            self.flying = flying;
            let mut due: Vec<(Duration, usize, Vec<u8>)> = due;
            due.sort_by_key(|it| it.0);
            for (_, to, mut bytes) in due {
                let (stride, from) = (bytes.len(), address(1 - to).into());
                let End { bulk, out, .. } = &mut self.ends[to];
                bulk.handle_datagrams(now.instant, Arrived { bytes: &mut bytes, stride, ecn: 0, from }, out);
                self.settle();
            }
            let is_frame = frames && self.elapsed.as_millis().is_multiple_of(10);
            self.sent += u32::from(is_frame);
            for end in &mut self.ends {
                let End { link, bulk, out, .. } = end;
                if is_frame {
                    let frame = [&[2; 12][..], &[0x88, 0xb5], &self.sent.to_be_bytes(), &[9; 1000]].concat();
                    bulk.handle_frame(&frame, &[], out);
                    bulk.flush(out);
                }
                if self.elapsed.as_millis().is_multiple_of(1000) {
                    link.handle_report(now, &bulk.report(now.instant));
                }
                if link.poll_timeout().is_some_and(|at| at <= now.instant) {
                    link.handle_timeout(now);
                }
            }
            self.settle();
        }
    }

    fn are_upgraded(&self) -> bool {
        self.ends.iter().all(End::is_upgraded)
    }

    fn assert_none_twice(&self) {
        for end in &self.ends {
            let number = |frame: &Vec<u8>| u32::from_be_bytes(frame[14..18].try_into().unwrap());
            let mut frames: Vec<u32> = end.out.frames.iter().map(number).collect();
            frames.sort_unstable();
            assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "a frame came twice");
        }
    }
}

const BOTH: [Upgrade; 2] = [Upgrade::Auto; 2];

/// Frames pass before, during and after the change, and all arrive.
#[test]
fn two_ends_change_without_a_lost_frame() {
    for seed in 0..20 {
        let mut world = World::new(BOTH, Wire { jitter: seed * 5, ..Wire::default() }, seed);
        while !world.ends.iter().all(|end| end.up) {
            world.run(1, false);
            assert!(world.elapsed < Duration::from_secs(10), "{seed}: not up");
        }
        world.run(30, true);
        world.run(1, false);
        assert!(world.are_upgraded(), "{seed}");
        for end in &world.ends {
            assert_eq!(end.out.frames.len(), world.sent as usize, "{seed}");
            assert!(end.up && end.said.contains(&"openvpn-upgraded"), "{:?}", end.said);
            assert!(!end.said.contains(&"openvpn-not-upgraded"), "{:?}", end.said);
        }
        world.assert_none_twice();
    }
}

/// The change begins before the link is up, so that frames and messages cross in every order.
#[test]
fn a_wire_that_loses_doubles_and_reorders_delays_the_change_and_no_more() {
    for seed in 0..20 {
        let mut world = World::new(BOTH, Wire { loss: 0.3, doubles: 0.1, jitter: 100, filters: false }, seed);
        world.run(60, true);
        world.wire = Wire { loss: 0.05, ..world.wire };
        world.run(60, true);
        assert!(world.are_upgraded(), "{seed}: {:?} {:?}", world.ends[0].said, world.ends[1].said);
        world.assert_none_twice();
    }
}

#[test]
fn an_end_that_restarts_is_found_again() {
    for (seed, which) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let mut world = World::new(BOTH, Wire::default(), seed);
        world.run(10, true);
        assert!(world.are_upgraded(), "{seed}");
        world.run(10, true);
        world.restart(which, Upgrade::Auto);
        world.run(40, true);
        assert!(world.are_upgraded(), "{seed}: {:?} {:?}", world.ends[0].said, world.ends[1].said);
        let before = world.ends.each_ref().map(|end| end.out.frames.len());
        world.run(1, true);
        assert!((0..2).all(|which| world.ends[which].out.frames.len() > before[which] + 80), "{seed}");
    }
}

#[test]
fn with_an_end_that_does_not_want_it_frames_pass_as_before() {
    for upgrades in [[Upgrade::Off, Upgrade::Auto], [Upgrade::Auto, Upgrade::Off]] {
        let mut world = World::new(upgrades, Wire::default(), 5);
        world.run(5, false);
        world.run(60, true);
        world.run(1, false);
        for end in &world.ends {
            assert_eq!(end.out.frames.len(), world.sent as usize);
            assert!(end.up && !end.is_upgraded());
            assert!(!end.said.iter().any(|code| code.contains("upgraded")), "{:?}", end.said);
        }
    }
}

/// An attacker on the path can keep the ends in OpenVPN's format, as before; but not silently, and not where that is refused.
#[test]
fn a_filter_that_holds_the_ends_in_the_old_format_is_said_and_may_be_refused() {
    let filter = Wire { filters: true, ..Wire::default() };
    let mut world = World::new(BOTH, filter, 6);
    world.run(5, false);
    world.run(60, true);
    world.run(1, false);
    for end in &world.ends {
        assert_eq!(end.out.frames.len(), world.sent as usize);
        assert!(end.said.contains(&"openvpn-not-upgraded"), "{:?}", end.said);
    }
    // After the change: they fall back, and say so.
    let mut world = World::new(BOTH, Wire::default(), 7);
    world.run(10, true);
    assert!(world.are_upgraded());
    world.wire = filter;
    world.run(90, true);
    assert!(!world.ends.iter().any(End::is_upgraded));
    let before = world.ends[0].out.frames.len();
    world.run(1, true);
    assert!(world.ends[0].out.frames.len() > before + 80);
    assert!(world.ends.iter().all(|end| end.said.contains(&"openvpn-not-upgraded")));
    // Refused, also if the peer never proves to be tund.
    let mut world = World::new([Upgrade::Require, Upgrade::Off], Wire::default(), 9);
    world.run(60, true);
    assert!(world.ends[0].out.frames.is_empty() && !world.ends[0].up);
    assert!(world.ends[0].said.contains(&"openvpn-not-upgraded"), "{:?}", world.ends[0].said);
    let mut world = World::new([Upgrade::Require, Upgrade::Auto], filter, 8);
    world.run(60, true);
    assert!(world.ends[0].out.frames.is_empty() && world.ends[1].out.frames.is_empty());
    assert!(!world.ends[0].up);
    world.wire = Wire::default();
    world.run(60, true);
    assert!(world.are_upgraded() && world.ends[0].up);
}
