//! An attacker on the wire who reads everything and may send anything, but lacks the key.
//!
//! ```text
//!  fri 10.0.0.1 ==== wire (mallory, also as 10.0.0.99) ==== 10.0.0.2 mon
//! ```

use std::time::{Duration, Instant};

use tund_lab::flood::Noise;
use tund_lab::frame::Datagram;
use tund_lab::wire::Crossed;
use tund_lab::{Process, Side, Wire};

use super::support::*;

/// An address that only mallory uses.
const STRANGER: &str = "10.0.0.99:4444";
/// Time in which a reply would come.
const PAUSE: Duration = Duration::from_millis(300);
/// Pings in a recording: the least datagrams in each direction under live keys.
const PINGS: u64 = 5;

struct Siege {
    wire: Wire,
    fri: Process,
    mon: Process,
    /// Datagrams of a link's start and pings, in both directions.
    recorded: Vec<(Side, Datagram)>,
    pair: Pair,
}

/// A link, recorded from its first datagram on and now quiet: no IPv6 inside, so that the kernels send nothing of their
/// own, and keepalives are rare.
fn siege() -> Siege {
    let (wire, pair) = wired();
    for host in [&pair.fri, &pair.mon] {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        host.run("ip link set eth0 mtu 9000").unwrap();
        host.run("ip neigh add 10.0.0.99 lladdr 02:00:00:00:00:99 dev eth0").unwrap();
    }
    wire.record();
    let (fri, mon) = pair.link(&patient(Toml::tun_fri()), &patient(Toml::tun_mon()));
    assert_pings(&pair.fri, "192.168.86.18");
    let recorded = datagrams(&wire.take());
    assert!(recorded.len() >= 12, "only {} datagrams", recorded.len());
    Siege { wire, fri, mon, recorded, pair }
}

fn patient(toml: Toml) -> Toml {
    toml.with("[keepalive]\ninterval = '30s'\ntimeout = '120s'\n[tuning]\npath-mtu = 1500")
}

fn datagrams(frames: &[Crossed]) -> Vec<(Side, Datagram)> {
    frames.iter().filter_map(|frame| Some((frame.from, Datagram::parse(&frame.bytes)?))).collect()
}

impl Siege {
    fn tund(&self, side: Side) -> &Process {
        match side {
            Side::A => &self.fri,
            Side::B => &self.mon,
        }
    }

    /// Frames that entered through the tunnel, at both ends.
    fn entered(&self) -> [u64; 2] {
        [counters(&self.pair.fri, "tun0").0, counters(&self.pair.mon, "tun0").0]
    }

    fn inject(&self, to: Side, datagram: &Datagram) {
        self.wire.inject(to, &datagram.to_frame()).unwrap();
    }

    /// Attacks. Then nothing has entered, mallory got no reply, both daemons run and the link works.
    fn withstands(&self, what: &str, attack: impl FnOnce(&Self)) {
        let answers = self.besieged(what, attack);
        assert_eq!(answers, [], "{what}: answered");
    }

    /// The same for replays: each end answers datagrams whose key id is not live at most twice a second, and never at greater
    /// length.
    fn withstands_replay(&self, what: &str, attack: impl FnOnce(&Self)) {
        let begin = Instant::now();
        let answers = self.besieged(what, attack);
        let seconds = begin.elapsed().as_secs() as usize + 1;
        assert!(answers.len() <= 4 * seconds, "{what}: {} answers in {seconds} s", answers.len());
        let shortest = self.recorded.iter().map(|(_, datagram)| datagram.payload.len()).min().unwrap();
        assert!(answers.iter().all(|answer| answer.payload.len() <= shortest), "{what}: a long answer");
    }

    fn besieged(&self, what: &str, attack: impl FnOnce(&Self)) -> Vec<Datagram> {
        let before = self.entered();
        self.wire.take();
        attack(self);
        std::thread::sleep(PAUSE);
        assert_eq!(self.entered(), before, "{what}: a frame entered");
        let answers = self.answers();
        let works = "ping -n -c 1 -W 1 192.168.86.18";
        let works =
            self.pair.fri.wait_output(works, Duration::from_secs(5), |text| text.contains("1 received"));
        if let Err(error) = works {
            panic!("{what}: {error}\nfri:\n{}\nmon:\n{}", self.fri.text(), self.mon.text());
        }
        answers
    }

    /// Takes the ends' replies to the stranger.
    fn answers(&self) -> Vec<Datagram> {
        let to_stranger = |datagram: &Datagram| datagram.to == STRANGER.parse().unwrap();
        datagrams(&self.wire.take()).into_iter().map(|(_, datagram)| datagram).filter(to_stranger).collect()
    }

    /// Waits until this end has counted that many datagrams for the reason.
    fn assert_counted(&self, side: Side, reason: &str, at_least: u64) {
        for _ in 0..20 {
            if dropped(self.tund(side), reason) >= at_least {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let last = self.tund(side).lines().pop();
        panic!("fewer than {at_least} datagrams are counted as {reason} at {side:?}: {last:?}");
    }

    /// Recorded datagrams, sent by the stranger, with their destinations.
    fn as_stranger(&self) -> impl Iterator<Item = (Side, Datagram)> + '_ {
        self.recorded.iter().map(|(from, datagram)| {
            let datagram = Datagram { from: STRANGER.parse().unwrap(), ..datagram.clone() };
            (from.other(), datagram)
        })
    }
}

#[test]
fn nothing_that_was_changed_repeated_or_invented_enters_or_is_answered() {
    let siege = siege();
    siege.withstands_replay("replays from the peer's address", |siege| {
        siege.recorded.iter().for_each(|(from, datagram)| siege.inject(from.other(), datagram));
    });
    siege.assert_counted(Side::A, "replayed", PINGS);
    siege.assert_counted(Side::B, "replayed", PINGS);
    siege.withstands_replay("replays from a stranger's address", |siege| {
        for _ in 0..3 {
            siege.as_stranger().for_each(|(to, datagram)| siege.inject(to, &datagram));
        }
    });
    siege.assert_counted(Side::A, "replayed", 2 * PINGS);
    siege.assert_counted(Side::B, "replayed", 2 * PINGS);

    siege.withstands("reflections", |siege| {
        for (from, datagram) in &siege.recorded {
            let mut back = datagram.clone();
            std::mem::swap(&mut back.from, &mut back.to);
            std::mem::swap(&mut back.macs.0, &mut back.macs.1);
            siege.inject(*from, &back);
            siege.inject(*from, &Datagram { from: STRANGER.parse().unwrap(), ..back });
        }
    });
    siege.assert_counted(Side::A, "reflected", PINGS);
    siege.assert_counted(Side::B, "reflected", PINGS);
    siege.withstands("truncations", |siege| {
        let longest = siege.recorded.iter().max_by_key(|(_, datagram)| datagram.payload.len()).unwrap();
        for length in 0..longest.1.payload.len() {
            let payload = longest.1.payload[..length].to_vec();
            siege.inject(longest.0.other(), &Datagram { payload, ..longest.1.clone() });
        }
    });
    siege.withstands("flipped bits", |siege| {
        for side in [Side::A, Side::B] {
            let (to, datagram) = siege.as_stranger().find(|(to, _)| *to == side).unwrap();
            for bit in 0..datagram.payload.len() * 8 {
                let mut flipped = datagram.clone();
                flipped.payload[bit / 8] ^= 1 << (bit % 8);
                siege.inject(to, &flipped);
            }
        }
    });
    siege.withstands("longer than any datagram of ours", |siege| {
        for (to, datagram) in siege.as_stranger().take(8) {
            let payload = datagram.payload.iter().copied().cycle().take(8900).collect();
            siege.inject(to, &Datagram { payload, ..datagram });
        }
    });
    siege.withstands("random bytes", |siege| {
        let mut noise = Noise(1);
        let (to, template) = siege.as_stranger().next().unwrap();
        for number in 0..3000 {
            let payload = noise.bytes(number % 1473);
            siege.inject(to, &Datagram { payload, ..template.clone() });
        }
    });
    for side in [Side::A, Side::B] {
        siege.assert_counted(side, "stranger", 100);
        siege.assert_counted(side, "bad-tag", 10);
    }
    let noisy = siege.as_stranger().next().unwrap().0;
    siege.assert_counted(noisy, "stranger", 2000);
    siege.assert_counted(noisy, "too-short", 20);
}

/// Each end answers replays under unknown key ids; that must not cost the link its keys.
#[test]
fn replaying_everything_for_seconds_costs_the_link_nothing() {
    let mut siege = siege();
    siege.fri.terminate(SOON).unwrap();
    siege.mon.terminate(SOON).unwrap();
    (siege.fri, siege.mon) = siege.pair.link(&patient(Toml::tun_fri()), &patient(Toml::tun_mon()));
    assert_pings(&siege.pair.fri, "192.168.86.18");
    siege.recorded.extend(datagrams(&siege.wire.take()));

    let ping = ["ping", "-n", "-c", "60", "-i", "0.1", "-W", "2", "192.168.86.18"];
    let mut ping = siege.pair.fri.spawn(&ping).unwrap();
    for _ in 0..28 {
        siege.recorded.iter().for_each(|(from, datagram)| siege.inject(from.other(), datagram));
        siege.as_stranger().for_each(|(to, datagram)| siege.inject(to, &datagram));
        std::thread::sleep(Duration::from_millis(200));
    }
    ping.wait(SOON).unwrap();
    assert!(answered(&ping.text()) >= 58, "{}\n{}\n{}", ping.text(), siege.fri.text(), siege.mon.text());
}

/// The receiver has lost its windows and has nothing on disk: it accepts only what names key ids it has drawn since.
#[test]
fn a_recording_is_worth_nothing_after_the_receiver_restarted() {
    let mut siege = siege();
    siege.mon.kill();
    siege.fri.kill();
    for host in [&siege.pair.fri, &siege.pair.mon] {
        wait_gone(host);
    }
    siege.mon = siege.pair.start_mon(&patient(Toml::tun_mon()));
    siege.mon.wait_line("waiting", SOON).unwrap();
    let received = |siege: &Siege| counters(&siege.pair.mon, "tun0").0;
    siege.wire.take();

    for (to, datagram) in siege.as_stranger().filter(|(to, _)| *to == Side::B) {
        siege.inject(to, &datagram);
    }
    std::thread::sleep(PAUSE);
    assert_eq!(received(&siege), 0, "a recorded frame entered");
    let longest = siege.recorded.iter().map(|(_, datagram)| datagram.payload.len()).max().unwrap();
    let answers = siege.answers();
    assert!(
        (1..=4).contains(&answers.len()),
        "{} answers in {PAUSE:?}; one of each kind a second is allowed",
        answers.len()
    );
    assert!(answers.iter().all(|answer| answer.payload.len() <= longest), "an answer longer than its cause");
    assert!(!siege.mon.text().contains(UP), "{}", siege.mon.text());

    siege.fri = siege.pair.start_fri(&patient(Toml::tun_fri()));
    siege.mon.wait_line(UP, SOON).unwrap();
    siege.fri.wait_line(UP, SOON).unwrap();
    assert_pings(&siege.pair.fri, "192.168.86.18");
}
