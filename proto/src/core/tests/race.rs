//! Peers with several addresses, some dead, slow, or one-way.

use super::*;
use crate::core::limits::ADDRESSES;
use crate::wire::handshake::Envelope;

const STEP: Duration = Duration::from_millis(10);
/// mon's other address.
const MON6: &str = "[2001:db8::1]:1417";
/// Addresses at which nobody is.
const DEAD: &str = "203.0.113.1:1417";
const DEAD6: &str = "[2001:db8:dead::1]:1417";

/// Delay in milliseconds to and from each address of mon; `None`: lost.
type Ways = [(&'static str, Option<u64>, Option<u64>); 2];

/// fri calls, and mon is where the ways lead.
struct Race {
    world: World,
    ways: Ways,
    air: Vec<(Duration, Flying)>,
}

impl Race {
    fn new(mode: fn(usize) -> LinkSettings, remotes: &[&str], ways: Ways) -> Self {
        let mut world = World::with(mode(0), mode(1), [0, 0]);
        world.ends[0].also = Some(MON6.parse().unwrap());
        world.ends[1].remotes = parsed(remotes);
        Self { world, ways, air: Vec::new() }
    }

    fn run(&mut self, seconds: f64) {
        let until = self.world.elapsed + Duration::from_secs_f64(seconds);
        while self.world.elapsed < until {
            self.step();
        }
    }

    fn step(&mut self) {
        self.world.tick();
        (0..2).for_each(|which| self.world.settle(which));
        for flying in std::mem::take(&mut self.world.wire) {
            let way = self.ways.iter().find_map(|(address, to, from)| {
                let address: SocketAddr = address.parse().unwrap();
                let taken = if flying.to == address { to } else { from };
                (flying.to == address || flying.from == address).then_some(*taken)
            });
            if let Some(Some(millis)) = way {
                self.air.push((self.world.elapsed + Duration::from_millis(millis), flying));
            }
        }
        self.world.elapsed += STEP;
        let now = self.world.elapsed;
        let (due, air) = std::mem::take(&mut self.air).into_iter().partition(|(at, _)| *at <= now);
        self.air = air;
        let due: Vec<(Duration, Flying)> = due;
        due.into_iter().for_each(|(_, flying)| self.world.inject(flying));
    }

    /// Seconds until both ends are up.
    fn seconds(&mut self) -> f64 {
        let start = self.world.elapsed;
        while !self.world.up() {
            self.step();
            assert!(self.world.elapsed < start + Duration::from_secs(60), "{:?}", self.world.ends[1].log);
        }
        (self.world.elapsed - start).as_secs_f64()
    }

    fn carries(&mut self) -> bool {
        self.world.ends.iter_mut().for_each(|end| end.out.frames.clear());
        for which in 0..2 {
            let end = &mut self.world.ends[which];
            end.lane.handle_frames(&[b"a frame"], &mut end.out);
        }
        self.run(2.0);
        self.world.ends.iter().all(|end| end.out.frames == [b"a frame"])
    }

    /// When each address was first called, in order.
    fn first_calls(&mut self, seconds: f64) -> Vec<(f64, SocketAddr)> {
        let mut calls: Vec<(f64, SocketAddr)> = Vec::new();
        let until = self.world.elapsed + Duration::from_secs_f64(seconds);
        while self.world.elapsed < until {
            let before = self.world.record.len();
            let at = self.world.elapsed.as_secs_f64();
            self.step();
            for flying in &self.world.record[before..] {
                if !calls.iter().any(|(_, address)| *address == flying.to) {
                    calls.push((at, flying.to));
                }
            }
        }
        calls
    }

    /// Datagrams that fri sends in so many seconds; the parts of one initiation count as one.
    fn sent(&mut self, seconds: f64) -> usize {
        let before = self.world.record.len();
        self.run(seconds);
        let keys = LinkKeys::new(&[42; 32]);
        let later_part = |flying: &Flying| {
            let plain = wrap::open(&keys, &flying.bytes)?;
            Envelope::parse(&plain).ok().filter(|envelope| envelope.of.part > 1).map(drop)
        };
        let sent = self.world.record[before..].iter();
        let sent = sent.filter(|flying| flying.from == self.world.ends[1].address);
        sent.filter(|flying| later_part(flying).is_none()).count()
    }
}

fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn paths(addresses: &[&str]) -> Vec<Path> {
    parsed(addresses).into_iter().map(Path::from).collect()
}

fn modes() -> [fn(usize) -> LinkSettings; 2] {
    [settings, handshake]
}

const NEAR: Ways = [(MON, Some(10), Some(10)), (MON6, Some(10), Some(10))];

#[test]
fn of_twenty_dead_addresses_sixteen_are_called_within_a_second_and_families_alternate() {
    let v4: Vec<String> = (1..=12).map(|n| format!("203.0.113.{n}:1417")).collect();
    let v6: Vec<String> = (1..=8).map(|n| format!("[2001:db8:dead::{n}]:1417")).collect();
    let all: Vec<&str> = v6.iter().chain(&v4).map(String::as_str).collect();
    for mode in modes() {
        let mut race = Race::new(mode, &all, NEAR);
        let calls = race.first_calls(60.0);
        assert_eq!(calls.len(), ADDRESSES);
        assert!(calls.iter().enumerate().all(|(n, (_, address))| address.is_ipv6() == (n % 2 == 0)));
        for pair in calls.windows(2) {
            let pause = pair[1].0 - pair[0].0;
            assert!((0.039..=0.071).contains(&pause), "{calls:?}");
        }
        assert!(calls[ADDRESSES - 1].0 - calls[0].0 < 1.0, "{calls:?}");
    }
}

/// Once each was called.
#[test]
fn many_addresses_are_called_as_seldom_as_one() {
    for mode in modes() {
        let all: Vec<String> = (1..=ADDRESSES).map(|n| format!("203.0.113.{n}:1417")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let [mut one, mut many] = [&all[..1], &all].map(|remotes| Race::new(mode, remotes, NEAR));
        [&mut one, &mut many].into_iter().for_each(|race| race.run(6.0));
        // In the first half minute and later, which have different pauses.
        for seconds in [20.0, 400.0] {
            let (one, many) = (one.sent(seconds), many.sent(seconds));
            // Each pause varies by a fifth.
            assert!(many * 10 <= one * 11 + 20, "{many} instead of {one}");
        }
    }
}

#[test]
fn a_dead_address_before_the_good_one_costs_a_quarter_of_a_second() {
    for mode in modes() {
        for good in [MON, MON6] {
            let alone = Race::new(mode, &[good], NEAR).seconds();
            for dead in [&[DEAD][..], &[DEAD6], &[DEAD, DEAD6], &[if good == MON { MON6 } else { MON }]] {
                let cut = NEAR.map(|(address, there, back)| match address == good {
                    true => (address, there, back),
                    false => (address, None, None),
                });
                let mut race = Race::new(mode, &[dead, &[good]].concat(), cut);
                let seconds = race.seconds();
                let most = alone + 0.33 * dead.len() as f64;
                assert!(seconds <= most, "{good} after {dead:?}: {seconds} instead of {alone}");
                assert!(race.carries());
            }
        }
    }
}

#[test]
fn the_link_is_up_within_a_second_of_the_fastest_whoever_comes_first() {
    for mode in modes() {
        for slow in [20, 150, 200, 300, 600, 1500] {
            let ways = [(MON, Some(10), Some(10)), (MON6, Some(slow), Some(slow))];
            let alone = Race::new(mode, &[MON], ways).seconds();
            for order in [[MON, MON6], [MON6, MON]] {
                let mut race = Race::new(mode, &order, ways);
                let seconds = race.seconds();
                assert!(seconds <= alone + 1.0, "{slow} ms, {order:?}: {seconds} instead of {alone}");
                race.run(5.0);
                assert!(race.carries() && race.world.up());
            }
        }
    }
}

#[test]
fn the_only_address_that_answers_is_reached_within_a_second_wherever_it_stands_in_the_list() {
    for mode in modes() {
        let alone = Race::new(mode, &[MON], NEAR).seconds();
        for before in 1..ADDRESSES {
            let mut all: Vec<String> = (1..ADDRESSES).map(|n| format!("203.0.113.{n}:1417")).collect();
            all.insert(before, MON.to_owned());
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut race = Race::new(mode, &all, NEAR);
            let seconds = race.seconds();
            assert!(seconds <= alone + 1.0, "{before} before it: {seconds} instead of {alone}");
        }
    }
}

#[test]
fn the_first_that_answers_is_called_alone_for_a_while() {
    for mode in modes() {
        let mut race = Race::new(mode, &[MON6, MON, DEAD], [(MON, None, None), (MON6, Some(80), Some(80))]);
        race.run(0.18);
        // It has answered once; nothing ever returns again.
        race.ways = [(MON, None, None), (MON6, None, None)];
        race.run(1.5);
        let others = |race: &Race| {
            let to_others = |flying: &&Flying| [MON, DEAD].contains(&flying.to.to_string().as_str());
            race.world.record.iter().filter(to_others).count()
        };
        assert_eq!(others(&race), 0);
        race.run(20.0);
        assert!(others(&race) > 1);
    }
}

/// A call also arrives on the second path, but the reply never returns.
#[test]
fn an_answer_that_is_lost_on_one_way_does_not_spoil_that_of_another() {
    for mode in modes() {
        for delay in [20, 140, 200, 350, 450] {
            let ways = [(MON, Some(delay), Some(delay)), (MON6, Some(delay), None)];
            for order in [[MON, MON6], [MON6, MON]] {
                let alone = Race::new(mode, &[MON], ways).seconds();
                let mut race = Race::new(mode, &order, ways);
                let seconds = race.seconds();
                assert!(seconds <= alone + 3.5, "{delay} ms, {order:?}: {seconds} instead of {alone}");
                assert!(race.carries());
            }
        }
    }
}

#[test]
fn addresses_that_come_one_by_one_are_called_as_they_come_and_none_again_for_that() {
    for mode in modes() {
        let mut race = Race::new(mode, &[DEAD], NEAR);
        race.run(0.1);
        let now = race.world.now(1);
        race.world.ends[1].link.handle_resolved(now, &paths(&[DEAD, DEAD6]));
        race.run(0.1);
        let now = race.world.now(1);
        race.world.ends[1].link.handle_resolved(now, &paths(&[MON, DEAD6, DEAD]));
        let seconds = race.seconds();
        assert!(seconds < 0.6, "{seconds}");
        let to_dead = race.world.record.iter().filter(|flying| flying.to == parsed(&[DEAD])[0]);
        let per_call = if race.world.ends[1].settings.key_mode == KeyMode::Static { 2 } else { 1 };
        assert_eq!(to_dead.count(), per_call);
    }
}

/// Each look-up of such a name yields another order.
#[test]
fn the_same_addresses_in_another_order_are_no_news() {
    for mode in modes() {
        let [mut still, mut turning] = [(); 2].map(|()| Race::new(mode, &[DEAD, DEAD6, MON], NEAR));
        let nobody = NEAR.map(|(address, ..)| (address, None, None));
        for race in [&mut still, &mut turning] {
            race.ways = nobody;
            race.run(2.0);
        }
        let still = still.sent(300.0);
        let mut sent = 0;
        for _ in 0..20 {
            turning.world.ends[1].remotes.rotate_left(1);
            sent += turning.sent(15.0);
        }
        assert!(sent * 10 <= still * 11 + 20, "{sent} instead of {still}");
    }
}

#[test]
fn what_a_host_refuses_is_said_and_the_next_address_called_at_once() {
    for mode in modes() {
        let mut race = Race::new(mode, &[DEAD, MON], NEAR);
        race.run(0.02);
        let now = race.world.now(1);
        let notice = Notice::Refused { to: DEAD.parse().unwrap() };
        race.world.ends[1].link.handle_notice(now, notice.clone());
        let seconds = race.seconds();
        assert!(seconds < 0.2, "{seconds}");
        assert!(race.world.ends[1].said(&Condition::PortRefused { remote: DEAD.parse().unwrap() }));
        assert!(race.carries());
    }
}

#[test]
fn a_peer_whose_name_leads_elsewhere_after_a_while_is_found_there() {
    for mode in modes() {
        let mut race = Race::new(mode, &[MON], NEAR);
        race.seconds();
        race.run(3.0);
        race.ways = [(MON, None, None), (MON6, Some(10), Some(10))];
        race.world.ends[1].remotes = parsed(&[MON, MON6]);
        while race.world.ends[1].link.is_up() {
            race.step();
        }
        let seconds = race.seconds();
        assert!(seconds < 2.0, "{seconds}");
        assert!(race.carries());
    }
}

#[test]
fn nobody_at_any_address_is_said_once_for_all() {
    for mode in modes() {
        let mut race = Race::new(mode, &[DEAD, DEAD6, "203.0.113.2:1417"], NEAR);
        race.run(40.0);
        let others = race.world.ends[1].log.iter().filter_map(|said| match said {
            Said::Met(Condition::NoAnswer { others, .. }) => Some(*others),
            Said::Met(_) | Said::Up | Said::Down(_) => None,
        });
        assert_eq!(others.collect::<Vec<_>>(), [2]);
    }
}

/// The first address answers but never lets the link come up.
#[test]
fn a_peer_that_stops_halfway_is_left_for_another_address() {
    for mode in modes() {
        let mut race = Race::new(mode, &[MON6, MON], NEAR);
        race.run(0.03);
        race.ways = [(MON, Some(10), Some(10)), (MON6, None, None)];
        let seconds = race.seconds();
        assert!(seconds < 17.5, "{seconds}");
        assert!(race.carries());
    }
}
