//! The busiest senders: a fixed-size table that misses none of them (Metwally, Agrawal and El Abbadi, Efficient Computation of
//! Frequent and Top-k Elements in Data Streams, ICDT 2005).

use serde::{Deserialize, Serialize};

use super::macs::Host;

/// Hosts counted at once: any that sends more than this fraction of all bytes is among them.
const PLACES: usize = 32;
/// Hosts reported.
const TOLD: usize = 10;
/// Bit of a key beside [`Host::packed`]: the host is in this segment.
const HERE: u64 = 1 << 63;

/// A busy host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talker {
    /// Its address.
    pub mac: [u8; 6],
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// Whether it is in this segment rather than the peer's.
    pub here: bool,
    /// Frames in the last minute; those joined by the kernel count as one. 0: an empty entry.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The busiest first.
pub type Top = [Talker; TOLD];

/// Merges the reports of several lanes: the busiest hosts of each segment, this one's first.
pub fn together(told: impl Iterator<Item = Talker>) -> Vec<Talker> {
    let mut hosts: Vec<Talker> = Vec::new();
    for talker in told.filter(|talker| talker.frames > 0) {
        let is_same =
            |host: &&mut Talker| (host.mac, host.vlan, host.here) == (talker.mac, talker.vlan, talker.here);
        match hosts.iter_mut().find(is_same) {
            Some(host) => {
                (host.frames, host.bytes) = (host.frames + talker.frames, host.bytes + talker.bytes)
            }
            None => hosts.push(talker),
        }
    }
    hosts.sort_by_key(|host| (!host.here, std::cmp::Reverse(host.bytes)));
    let mut shown = [0; 2];
    hosts.retain(|host| {
        shown[usize::from(host.here)] += 1;
        shown[usize::from(host.here)] <= TOLD
    });
    hosts
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Host and side; 0: free.
    key: u64,
    /// Upper bound on its bytes: includes those of earlier hosts in this place.
    most: u64,
    frames: u64,
    bytes: u64,
}

/// Traffic by sender in this minute and the one before.
#[derive(Debug, Clone, Default)]
pub struct Talkers {
    now: [Place; PLACES],
    before: [Place; PLACES],
}

impl Talkers {
    /// Counts a frame of so many bytes; returns its sender's place, and whether it is new there.
    pub fn count(&mut self, host: Host, here: bool, bytes: usize) -> (usize, bool) {
        let key = host.packed() | if here { HERE } else { 0 };
        let known = self.now.iter().position(|place| place.key == key);
        let least = || (0..PLACES).min_by_key(|at| self.now[*at].most).unwrap_or(0);
        let at = known.unwrap_or_else(least);
        if known.is_none() {
            self.now[at] = Place { key, most: self.now[at].most, frames: 0, bytes: 0 };
        }
        self.count_again(at, bytes);
        (at, known.is_none())
    }

    /// Counts another frame of the host in this place.
    pub fn count_again(&mut self, at: usize, bytes: usize) {
        if let Some(place) = self.now.get_mut(at) {
            place.most += bytes as u64;
            place.bytes += bytes as u64;
            place.frames += 1;
        }
    }

    /// Starts another minute: the next one, or a later one.
    pub fn turn(&mut self, is_next: bool) {
        let ended = std::mem::take(&mut self.now);
        self.before = if is_next { ended } else { Default::default() };
    }

    /// The busiest of the last minute, of which so many seconds belong to the minute before.
    pub fn top(&self, seconds: u64) -> Top {
        let mut all: Vec<Place> = self.now.to_vec();
        for place in self.before {
            let share = |count: u64| (u128::from(count) * u128::from(seconds) / 60) as u64;
            let place = Place { frames: share(place.frames), bytes: share(place.bytes), ..place };
            match all.iter_mut().find(|other| other.key == place.key) {
                Some(other) => {
                    other.frames += place.frames;
                    other.bytes += place.bytes;
                }
                None => all.push(place),
            }
        }
        all.retain(|place| place.frames > 0);
        all.sort_unstable_by_key(|place| std::cmp::Reverse((place.bytes, place.key)));
        let mut talkers = all.into_iter().filter_map(Place::talker);
        std::array::from_fn(|_| talkers.next().unwrap_or_default())
    }
}

impl Place {
    fn talker(self) -> Option<Talker> {
        let host = Host::unpacked(self.key & !HERE)?;
        let Self { frames, bytes, .. } = self;
        Some(Talker { mac: host.mac(), vlan: host.vlan(), here: self.key & HERE != 0, frames, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> Host {
        let [a, b, c, d] = number.to_be_bytes();
        Host::new(None, [2, 0, a, b, c, d])
    }

    #[test]
    fn whoever_sends_much_is_found_among_a_million_that_send_little() {
        let mut talkers = Talkers::default();
        for number in 0..1_000_000 {
            talkers.count(host(1000 + number), false, 60);
            if number % 8 == 0 {
                let heavy = number / 8 % 3;
                talkers.count(host(heavy), heavy == 0, 500 + heavy as usize);
            }
        }
        let top = talkers.top(0);
        let found: Vec<_> = top.iter().take(3).map(|talker| (talker.mac[5], talker.here)).collect();
        assert_eq!(found, [(2, false), (1, false), (0, true)]);
        assert!(top[..3].iter().all(|talker| (41_600..=41_667).contains(&talker.frames)), "{top:?}");
    }

    #[test]
    fn what_lanes_told_of_one_host_is_one_and_each_segment_has_its_busiest() {
        let talker =
            |last: u8, here, bytes| Talker { mac: [2, 0, 0, 0, 0, last], here, frames: 1, bytes, vlan: None };
        let told = (0..2)
            .flat_map(|_| (1..15).flat_map(|n| [talker(n, n % 2 == 0, 100), talker(n, false, n.into())]));
        let hosts = together(told.chain([Talker::default()]));
        let found: Vec<_> =
            hosts.iter().map(|host| (host.here, host.mac[5], host.frames, host.bytes)).collect();
        assert_eq!(found.len(), 7 + TOLD);
        assert!(found[..7].iter().all(|(here, _, frames, bytes)| *here && (*frames, *bytes) == (2, 200)));
        assert_eq!(found[7], (false, 13, 4, 226));
        assert!(found[7..].is_sorted_by_key(|(.., bytes)| std::cmp::Reverse(*bytes)));
    }

    #[test]
    fn a_minute_passes_gradually_and_silence_ends_at_once() {
        let mut talkers = Talkers::default();
        for _ in 0..600 {
            talkers.count(host(1), false, 100);
        }
        talkers.turn(true);
        talkers.count(host(1), false, 100);
        talkers.count(host(2), true, 70);
        for (seconds, all) in [(60, 601), (30, 301), (0, 1)] {
            let top = talkers.top(seconds);
            let told = top.map(|talker| (talker.mac[5], talker.frames, talker.bytes));
            assert_eq!(told[..3], [(1, all, all * 100), (2, 1, 70), (0, 0, 0)], "{seconds} s");
        }
        talkers.turn(false);
        assert_eq!(talkers.top(60), Top::default());
    }
}
