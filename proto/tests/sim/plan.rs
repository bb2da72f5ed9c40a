//! What a seed stands for: two configurations, and a schedule of faults.

use std::time::Duration;

use super::end::Config;
use crate::config::{Keepalive, KeyMode};
use crate::core::limits::{ANSWER_KEPT, CALL_FIRST};
use crate::core::settings::LinkSettings;
use crate::crypto::keys::{Pair, Private, link_secret, public_of};
use crate::crypto::noise::Statics;
use crate::crypto::suite::{Cipher, Exchange};
use crate::packet::layer::Mode;
use crate::testing::{Dice, settings};

/// What the network does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// Least and greatest delay.
    pub delay: [Duration; 2],
    pub loss: f64,
    pub duplicate: f64,
    pub corrupt: f64,
    /// Share withheld for up to five minutes.
    pub withhold: f64,
    /// Share that a stranger copies from his own address, faster than the original.
    pub copy: f64,
    /// Nothing passes from this end.
    pub cut: [bool; 2],
    /// Largest IP packet.
    pub mtu: usize,
    /// Whether the sender of a larger one is told.
    pub icmp: bool,
}

impl Weather {
    pub const CALM: Self = Self {
        delay: [Duration::from_millis(20); 2],
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        withhold: 0.0,
        copy: 0.0,
        cut: [false; 2],
        mtu: 1500,
        icmp: true,
    };
}

/// Datagrams that an attacker on the path withholds, to release them later in any order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kept {
    /// Of this kind, recognised from context.
    Kind(Class),
    /// By length, in bytes of UDP payload.
    Length { least: usize, most: usize },
}

/// The purpose of a datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Class {
    Initiation,
    Answer,
    Retry,
    Control,
    Frames,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    Weather(Weather),
    /// An end is killed.
    Kill {
        which: usize,
    },
    /// An end says goodbye and ends.
    Stop {
        which: usize,
    },
    Start {
        which: usize,
    },
    /// The kernel reports that the machine is a copy.
    Clone {
        which: usize,
    },
    /// The wall clock jumps by so many seconds.
    Clock {
        which: usize,
        seconds: i64,
    },
    /// The NAT before an end gives it another port.
    Rebind {
        which: usize,
    },
    /// An end gets another address.
    Renumber {
        which: usize,
        v4: bool,
    },
    /// The address families of an end.
    Families {
        which: usize,
        v4: bool,
        v6: bool,
    },
    /// An end's key is nearly used up.
    Exhaust {
        which: usize,
    },
    /// The attacker sends recorded datagrams, as they were or changed.
    Attack {
        count: usize,
    },
    /// The attacker withholds such datagrams of an end from now on.
    Keep {
        which: usize,
        kept: Option<Kept>,
    },
    /// He releases so many.
    Release {
        count: usize,
    },
    /// An end sends that many frames at once.
    Burst {
        which: usize,
        frames: usize,
    },
}

/// A seed's plan.
pub struct Plan {
    pub configs: [Config; 2],
    /// How far the clocks are off, in microseconds.
    pub skews: [i64; 2],
    pub acts: Vec<(Duration, Act)>,
    /// When all faults end.
    pub calm: Duration,
    /// How long the link must then be without a fault.
    pub steady: Duration,
    /// When both ends must be up again after that, if sooner than usual.
    pub back: Option<Duration>,
    /// Whether recordings are sent throughout the calm.
    pub besieged: bool,
    /// Whether withheld datagrams are released throughout the calm.
    pub releases: bool,
    /// Whether frames sent as soon as an end is told that the link is up must arrive.
    pub prompt: bool,
}

impl Plan {
    pub fn new(dice: &mut Dice) -> Self {
        let configs = configs(dice);
        let is_static = configs[0].settings.key_mode == KeyMode::Static;
        let skew = |dice: &mut Dice| match dice.below(4) {
            0 if is_static => dice.pick(&[-86_400, -100, 100, 86_400]) * 1_000_000,
            1 if !is_static => dice.pick(&[-1_000_000_000_i64, 1_000_000_000]) * 1_000_000,
            _ => 0,
        };
        let skews = [skew(dice), skew(dice)];
        let calm = dice.ms(0, 150_000);
        let mut acts = Vec::new();
        let mut weather = Weather::CALM;
        for _ in 0..dice.below(12) {
            let at = dice.between(Duration::ZERO, calm);
            act(dice, at, calm, &mut acts);
        }
        acts.sort_by_key(|(at, _)| *at);
        // New weather depends on the old.
        for (_, act) in &mut acts {
            if let Act::Weather(change) = act {
                weather = change_of(dice, weather);
                *change = weather;
            }
        }
        let mtu = weather.mtu;
        acts.push((calm, Act::Weather(Weather { mtu, delay: [dice.ms(0, 100); 2], ..Weather::CALM })));
        for which in 0..2 {
            acts.push((calm, Act::Families { which, v4: true, v6: true }));
            acts.push((calm, Act::Start { which }));
        }
        let steady = dice.pick(&[10, 10, 20, 30, 140]);
        let steady = Duration::from_secs(steady);
        let besieged = dice.chance(0.4);
        Self { configs, skews, acts, calm, steady, back: None, besieged, releases: false, prompt: false }
    }

    /// The plain plan with an attacker who withholds datagrams. In the calm he drops none, but still releases those.
    pub fn withheld(dice: &mut Dice) -> Self {
        let mut plan = Self::new(dice);
        let classes = [
            Class::Initiation,
            Class::Initiation,
            Class::Answer,
            Class::Retry,
            Class::Control,
            Class::Frames,
        ];
        for which in 0..2 {
            for _ in 0..dice.below(4) {
                let from = dice.between(Duration::ZERO, plan.calm);
                let until = from + dice.ms(0, 40_000);
                let least = dice.pick(&[0, 60, 100, 200, 400]);
                let most = least + dice.pick(&[40, 100, 400]);
                let class = dice.pick(&classes);
                let kept = dice.pick(&[Kept::Kind(class), Kept::Length { least, most }]);
                plan.acts.push((from, Act::Keep { which, kept: Some(kept) }));
                plan.acts.push((until.min(plan.calm), Act::Keep { which, kept: None }));
            }
            plan.acts.push((plan.calm, Act::Keep { which, kept: None }));
        }
        for _ in 0..dice.below(12) {
            let at = dice.between(Duration::ZERO, plan.calm);
            plan.acts.push((at, Act::Release { count: dice.pick(&[1, 2, 10]) }));
        }
        plan.acts.sort_by_key(|(at, _)| *at);
        plan.releases = dice.chance(0.7);
        plan
    }

    /// Ends that are restarted in turn on a network without faults.
    pub fn restarts(dice: &mut Dice) -> Self {
        let configs = configs(dice);
        let skews = dice.pick(&[[0, 0], [0, 0], [0, 3_600_000_000], [-60_000_000, 100_000_000]]);
        let delay = dice.ms(0, 300);
        let mut acts = vec![(Duration::ZERO, Act::Weather(Weather { delay: [delay; 2], ..Weather::CALM }))];
        let mut at = Duration::ZERO;
        for _ in 0..3 {
            at += dice.ms(40_000, 100_000);
            let which = dice.below(2);
            acts.push((at, dice.pick(&[Act::Kill { which }, Act::Stop { which }])));
            acts.push((at + dice.ms(0, 3000), Act::Start { which }));
        }
        let calm = at + Duration::from_secs(5);
        let steady = Duration::from_secs(5);
        Self {
            configs,
            skews,
            acts,
            calm,
            steady,
            back: None,
            besieged: false,
            releases: false,
            prompt: true,
        }
    }

    /// An end that hears nothing calls, is answered, and restarts before it hears the answer.
    pub fn unanswered(dice: &mut Dice) -> Self {
        let configs = configs(dice);
        let which = (0..2).find(|which| configs[*which].settings.has_remote).unwrap_or(0);
        let mut cut = [false; 2];
        cut[1 - which] = true;
        let at = dice.ms(20_000, 60_000);
        let again = at + dice.ms(14_000, 30_000);
        let calm = again + dice.ms(0, 1000);
        let acts = vec![
            (Duration::ZERO, Act::Weather(Weather::CALM)),
            (at, Act::Weather(Weather { cut, ..Weather::CALM })),
            (again, Act::Kill { which }),
            (calm, Act::Weather(Weather::CALM)),
            (calm, Act::Start { which }),
        ];
        let steady = Duration::from_secs(5);
        // By the second call, if not the first; before the other end notices the silence and calls by itself.
        let is_handshake = configs[0].settings.key_mode == KeyMode::Handshake;
        let back = is_handshake.then(|| ANSWER_KEPT + CALL_FIRST.mul_f32(1.2) + Duration::from_secs(1));
        Self {
            configs,
            skews: [0; 2],
            acts,
            calm,
            steady,
            back,
            besieged: false,
            releases: false,
            prompt: false,
        }
    }
}

fn act(dice: &mut Dice, at: Duration, calm: Duration, acts: &mut Vec<(Duration, Act)>) {
    let which = dice.below(2);
    let later = at + dice.between(Duration::ZERO, calm - at);
    let soon = (at + dice.ms(0, 20_000)).min(calm);
    let mut add = |at, act| acts.push((at, act));
    match dice.below(20) {
        0..5 => add(at, Act::Weather(Weather::CALM)),
        5 | 6 => {
            add(at, Act::Kill { which });
            add(soon, Act::Start { which });
        }
        7 => {
            add(at, Act::Stop { which });
            add(soon, Act::Start { which });
        }
        8 => add(at, Act::Clone { which }),
        9 => {
            let seconds = dice.pick(&[-1_000_000, -500, -130, -2, 2, 130, 500, 1_000_000]);
            add(at, Act::Clock { which, seconds });
        }
        10 | 11 => add(at, Act::Rebind { which: 1 }),
        12 => add(at, Act::Renumber { which, v4: dice.chance(0.5) }),
        13 => {
            let v4 = dice.chance(0.5);
            add(at, Act::Families { which, v4, v6: !v4 });
            add(later, Act::Families { which, v4: true, v6: true });
        }
        14 | 15 => add(at, Act::Exhaust { which }),
        16 | 17 => add(at, Act::Attack { count: dice.below(100) }),
        _ => add(at, Act::Burst { which, frames: dice.pick(&[2, 10, 64, 300]) }),
    }
}

/// Improves or worsens one property of the network.
fn change_of(dice: &mut Dice, mut weather: Weather) -> Weather {
    match dice.below(9) {
        0 => weather.loss = dice.pick(&[0.0, 0.02, 0.3, 0.6]),
        1 => weather.duplicate = dice.pick(&[0.0, 0.1, 0.5]),
        2 => weather.corrupt = dice.pick(&[0.0, 0.05, 0.3]),
        3 => weather.withhold = dice.pick(&[0.0, 0.05, 0.3]),
        4 => weather.copy = dice.pick(&[0.0, 0.1, 1.0]),
        5 => weather.cut = dice.pick(&[[false; 2], [true; 2], [true, false], [false, true]]),
        6 => (weather.mtu, weather.icmp) = (dice.pick(&[576, 700, 1000, 1100, 1280, 1500]), dice.chance(0.5)),
        7 => {
            weather.delay = dice.pick(&[[1, 1], [20, 25], [20, 400], [300, 2000]]).map(Duration::from_millis)
        }
        _ => weather = Weather { mtu: weather.mtu, ..Weather::CALM },
    }
    weather
}

fn configs(dice: &mut Dice) -> [Config; 2] {
    let is_static = dice.chance(0.4);
    let mode = if dice.chance(0.3) { Mode::Tap } else { Mode::Tun };
    let both = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
    let has_pairs = !is_static && dice.chance(0.3);
    let shared = (!has_pairs || dice.chance(0.5)).then_some([42; 32]);
    let both_call = dice.chance(0.2);
    let cipher = dice.pick(&both);
    let mtu = dice.pick(&[1280, 1400, 1420, 1500, 4000]);
    let pace = dice.pick(&[0, 0, 0, 3, 30]);
    let (interval, timeout) = dice.pick(&[(10, 60), (2, 10), (5, 20)]);
    let exchange = dice.pick(&[Exchange::Hybrid, Exchange::Hybrid, Exchange::X25519]);
    let (bundle, route_mtu) = (dice.chance(0.7), dice.pick(&[1500, 1500, 9000]));
    [0, 1].map(|which| {
        let privates = [[5; 32], [6; 32]];
        let (private, peer_public) = (privates[which], public_of(&privates[1 - which]));
        let statics = match has_pairs {
            true => Statics::Pair { private: Private::new(private).into(), peer_public },
            false => Statics::None,
        };
        let pair = has_pairs.then_some(Pair { private: &private, peer_public: &peer_public });
        let secret = link_secret(shared.as_ref(), pair).unwrap();
        let settings = LinkSettings {
            mode,
            mtu,
            key_mode: if is_static { KeyMode::Static } else { KeyMode::Handshake },
            cipher,
            suites: dice.pick(&[&both[..], &[both[1], both[0]], &[cipher]]).to_vec(),
            exchange,
            has_remote: which == 1 || both_call,
            keepalive: Keepalive {
                interval: Duration::from_secs(interval),
                timeout: Duration::from_secs(timeout),
                idle_exit: Duration::from_secs(300),
            },
            bundle,
            ..settings(which)
        };
        Config { settings, statics, secret: *secret, pace: Duration::from_millis(pace), route_mtu }
    })
}
