//! Replay window for one start of the peer, by OpenVPN's rules: a window of sequence numbers, and an age after which missing ones
//! are no longer awaited.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::openvpn::PacketId;

/// Age at which what was overtaken is refused (OpenVPN: `replay-window`).
const LATE: Duration = Duration::from_secs(15);
/// How often ages are checked.
const REAP: Duration = Duration::from_secs(5);

/// The window's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// New; it is remembered.
    New,
    /// Seen before, or possibly so.
    Replayed,
    /// From another start of the sender.
    OtherStart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Missing,
    Arrived(Instant),
    Expired,
}

/// The sequence numbers seen under one time.
#[derive(Debug, Clone)]
pub struct Window {
    width: usize,
    time: Option<u32>,
    /// Greatest number seen. `None`: the next one begins the window.
    greatest: Option<u32>,
    /// From the greatest number down.
    places: VecDeque<Place>,
    reaped_at: Option<Instant>,
    /// Numbers skipped and not seen since.
    missing: u64,
}

impl Window {
    /// A window of `width` numbers that accepts nothing until [begun](Window::begin).
    pub fn new(width: usize) -> Self {
        let places = VecDeque::with_capacity(width + 1);
        Self { width, time: None, greatest: None, places, reaped_at: None, missing: 0 }
    }

    /// Accepts this time instead of the one before: numbers greater than `after` or, without it, the first to come and those it
    /// overtook.
    pub fn begin(&mut self, time: u32, after: Option<u32>) {
        (self.time, self.greatest) = (Some(time), after);
        self.places.clear();
    }

    /// Missing datagrams, as far as gaps in the numbers show.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Judges an authentic datagram and remembers it.
    pub fn judge(&mut self, now: Instant, PacketId { seq, time }: PacketId) -> Judged {
        self.reap(now);
        if self.time != Some(time) {
            return Judged::OtherStart;
        }
        if seq == 0 {
            return Judged::Replayed;
        }
        let width = self.width as u32;
        let begins = seq.saturating_sub(width);
        let greatest = match self.greatest {
            Some(greatest) if begins <= greatest => greatest,
            before => {
                self.places.clear();
                self.missing += before.map_or(0, |greatest| u64::from(begins - greatest));
                begins
            }
        };
        let Some(gap) = seq.checked_sub(greatest).filter(|gap| *gap > 0) else {
            return self.fill(now, (greatest - seq) as usize);
        };
        for _ in 0..gap {
            self.places.push_front(Place::Missing);
        }
        self.places[0] = Place::Arrived(now);
        self.places.truncate(self.width);
        // Numbers before the very first datagram may never have been sent.
        self.missing += self.greatest.map_or(0, |_| u64::from(gap - 1));
        self.greatest = Some(seq);
        Judged::New
    }

    /// Whether this is the greatest number seen.
    pub fn is_newest(&self, id: PacketId) -> bool {
        self.greatest == Some(id.seq)
    }

    fn fill(&mut self, now: Instant, behind: usize) -> Judged {
        match self.places.get_mut(behind) {
            Some(place @ Place::Missing) => {
                *place = Place::Arrived(now);
                self.missing = self.missing.saturating_sub(1);
                Judged::New
            }
            Some(_) | None => Judged::Replayed,
        }
    }

    /// Stops waiting for anything older than the newest place that exceeds [`LATE`].
    fn reap(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REAP;
        if !self.reaped_at.is_none_or(is_due) {
            return;
        }
        self.reaped_at = Some(now);
        let mut expires = false;
        for place in &mut self.places {
            expires |= matches!(place, Place::Arrived(at) if now.saturating_duration_since(*at) > LATE);
            match place {
                Place::Expired => break,
                place if expires => *place = Place::Expired,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use proptest::prelude::*;

    use super::*;

    /// OpenVPN's behaviour, as a list of arrivals in seconds: 0 is missing, 1 expired. Agreed with OpenVPN 2.4, 2.6 and 2.7 on
    /// some hundred random packets each.
    #[derive(Default)]
    struct Model {
        width: usize,
        time: u32,
        seq: u32,
        seen: Vec<u64>,
        reaped: u64,
    }

    impl Model {
        fn takes(&mut self, seq: u32, time: u32, now: u64) -> bool {
            if self.reaped + 5 <= now {
                self.reaped = now;
                let mut expire = false;
                for arrival in &mut self.seen {
                    if *arrival == 1 {
                        break;
                    }
                    expire |= *arrival != 0 && *arrival + 15 < now;
                    if expire {
                        *arrival = 1;
                    }
                }
            }
            if seq == 0 || time < self.time {
                return false;
            }
            if time == self.time && seq <= self.seq {
                let behind = (self.seq - seq) as usize;
                if self.seen.get(behind).is_none_or(|arrival| *arrival != 0) {
                    return false;
                }
            }
            let jumps = seq >= self.width as u32 && seq - self.width as u32 > self.seq;
            if self.seen.is_empty() || time > self.time || jumps {
                self.time = time;
                self.seq = seq.saturating_sub(self.width as u32);
                self.seen.clear();
            }
            while self.seq < seq {
                self.seen.insert(0, 0);
                self.seen.truncate(self.width);
                self.seq += 1;
            }
            let behind = (self.seq - seq) as usize;
            self.seen[behind] = now;
            true
        }
    }

    /// A receiver that accepts every later start, like OpenVPN.
    fn takes(window: &mut Window, now: Instant, id: PacketId) -> bool {
        if window.time.is_none_or(|time| id.time > time) && id.seq != 0 {
            window.begin(id.time, None);
        }
        window.judge(now, id) == Judged::New
    }

    proptest! {
        #[test]
        fn agrees_with_what_openvpn_takes(
            width in prop::sample::select(vec![1usize, 8, 64]),
            packets in prop::collection::vec((0u32..3, 0u32..160, 0u64..9), 1..400),
        ) {
            let (start, mut at, mut base) = (Instant::now(), 1_000_000, 0);
            let mut window = Window::new(width);
            let mut model = Model { width, ..Model::default() };
            for (number, (step, seq, wait)) in packets.into_iter().enumerate() {
                at += wait;
                base += step;
                // Mostly close together, sometimes far ahead, and now and then another start.
                let seq = if seq < 150 { base + seq % (2 * width as u32 + 2) } else { base + 100 * seq };
                let id = PacketId { seq, time: 5 + base / 40 - step % 2 };
                let now = start + Duration::from_secs(at - 1_000_000);
                prop_assert_eq!(takes(&mut window, now, id), model.takes(id.seq, id.time, at), "packet {}: {:?}", number, id);
            }
        }

        /// Accepts none up to the start, and each one above it once.
        #[test]
        fn begins_after_a_number(after in 0u32..1000, seqs in prop::collection::vec(0u32..1200, 1..200)) {
            let now = Instant::now();
            let mut window = Window::new(64);
            window.begin(7, Some(after));
            let mut taken = std::collections::BTreeSet::new();
            for seq in seqs {
                let is_new = window.judge(now, PacketId { seq, time: 7 }) == Judged::New;
                prop_assert!(!is_new || seq > after && taken.insert(seq), "{} after {}", seq, after);
            }
        }
    }

    #[test]
    fn another_start_is_told_and_moves_nothing() {
        let now = Instant::now();
        let mut window = Window::new(64);
        let id = |seq, time| PacketId { seq, time };
        assert_eq!(window.judge(now, id(1, 5)), Judged::OtherStart);
        window.begin(5, None);
        assert_eq!(window.judge(now, id(3, 5)), Judged::New);
        for time in [4, 6, u32::MAX] {
            assert_eq!(window.judge(now, id(9, time)), Judged::OtherStart);
        }
        assert_eq!(window.judge(now, id(2, 5)), Judged::New, "overtaken");
        assert_eq!(window.judge(now, id(2, 5)), Judged::Replayed);
        assert_eq!((window.missing(), window.is_newest(id(3, 5))), (0, true));
        assert_eq!(window.judge(now, id(6, 5)), Judged::New);
        assert_eq!(window.missing(), 2);
    }

    #[test]
    fn the_last_number_of_all_is_taken_once() {
        let now = Instant::now();
        let mut window = Window::new(8192);
        window.begin(5, None);
        let id = PacketId { seq: u32::MAX, time: 5 };
        assert_eq!(window.judge(now, id), Judged::New);
        assert_eq!(window.judge(now, id), Judged::Replayed);
    }
}
