//! Whom to call and when: the remotes' addresses, called in staggered order until one answers (RFC 8305), and the
//! schedule of hellos.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::limits::{
    ADDRESSES, ATTEMPT_DELAY, ATTEMPT_DELAYS, HELLO_FIRST, HELLO_LATER, HELLO_PATIENCE, HELLO_TRIES,
    HELLO_TURN, REMOTE_TRIES,
};
use super::path::Path;
use crate::crypto::Random;

/// One address of a remote.
struct Candidate {
    address: Path,
    /// When it was last called in this series.
    called: Option<Instant>,
}

/// The caller of one link.
pub struct Remotes {
    candidates: Vec<Candidate>,
    /// The address that answered: for a few tries no other is called.
    answered: Option<Path>,
    /// Tries at the address that answered.
    alone: u32,
    /// Tries since all addresses were called.
    tries: u32,
    last: Option<Instant>,
    /// When the next hello is due.
    pub due: Instant,
}

impl Remotes {
    /// Nobody to call yet.
    pub fn new(now: Instant) -> Self {
        Self { candidates: Vec::new(), answered: None, alone: 0, tries: 0, last: None, due: now }
    }

    /// Sets the remotes' known addresses in calling order; true if any is new. It does not advance the next call of
    /// those already called.
    pub fn set(&mut self, now: Instant, addresses: &[Path]) -> bool {
        let order = in_order(addresses);
        if order.is_empty() {
            return false;
        }
        let known = |address: Path| self.candidates.iter().find(|known| known.address == address);
        let news = order.iter().any(|address| known(*address).is_none());
        let candidate =
            |address: Path| Candidate { address, called: known(address).and_then(|it| it.called) };
        self.candidates = order.into_iter().map(candidate).collect();
        if news {
            self.tries = 0;
            let free_at = self.last.map_or(now, |last| last + self.pause());
            self.due = self.due.min(free_at.max(now));
        }
        news
    }

    /// Forgets the addresses: they are looked up again.
    pub fn forget(&mut self, now: Instant) {
        self.candidates.clear();
        self.answered = None;
        self.restart(now + HELLO_FIRST);
    }

    /// Restarts the count of tries.
    pub fn restart(&mut self, due: Instant) {
        self.tries = 0;
        self.due = due;
    }

    /// Calls all addresses again, staggered.
    pub fn race(&mut self) {
        self.answered = None;
        self.candidates.iter_mut().for_each(|candidate| candidate.called = None);
    }

    /// This address answered: if it is a remote's, no other is called for a few tries.
    pub fn prefer(&mut self, path: Path) {
        let address = path.far_end();
        if self.answered != Some(address) && self.candidates.iter().any(|it| it.address == address) {
            self.answered = Some(address);
            self.alone = 0;
        }
    }

    /// The remote to call next: the one that answered, else the one not called for longest.
    pub fn remote(&self) -> Option<Path> {
        let next = || self.candidates.iter().min_by_key(|candidate| candidate.called);
        self.answered.or_else(|| Some(next()?.address))
    }

    /// Whether a remote has this address, with any port.
    pub fn knows(&self, address: SocketAddr) -> bool {
        self.candidates.iter().any(|candidate| candidate.address.remote.ip() == address.ip())
    }

    /// Whether one of several remotes has this address.
    pub fn is_choice(&self, address: SocketAddr) -> bool {
        self.candidates.len() > 1 && self.knows(address)
    }

    /// Whether this remote was called in this series.
    pub fn was_called(&self, address: Path) -> bool {
        self.candidates.iter().any(|candidate| candidate.address == address && candidate.called.is_some())
    }

    /// The `n`th remote, cyclically, of the other carrier than `current`: a stream instead of datagrams, or vice versa. Also
    /// returns the number of those.
    pub fn alternative(&self, current: Path, n: usize) -> Option<(Path, usize)> {
        let others = || {
            self.candidates.iter().map(|candidate| candidate.address).filter(|it| it.stream != current.stream)
        };
        let count = others().count();
        Some((others().nth(n.checked_rem(count)?)?, count))
    }

    /// How many remotes are called besides the next.
    pub fn others(&self) -> usize {
        self.candidates.len().saturating_sub(1)
    }

    /// Whether some addresses were not yet called: the next is due a moment after the last.
    pub fn is_racing(&self) -> bool {
        self.answered.is_none() && self.candidates.iter().any(|candidate| candidate.called.is_none())
    }

    /// This address is called; `away`: the peer has not been heard since calls began. True: that has lasted long enough
    /// to report.
    pub fn handle_called(&mut self, now: Instant, path: Path, away: bool) -> bool {
        let address = path.far_end();
        self.last = Some(now);
        let called = self.candidates.iter_mut().find(|candidate| candidate.address == address);
        if let Some(candidate) = called {
            candidate.called = Some(now);
        }
        self.alone += 1;
        if away && self.alone > REMOTE_TRIES {
            self.answered = None;
        }
        if away && self.is_racing() {
            return false;
        }
        self.tries += 1;
        away && self.tries == HELLO_TRIES + 1
    }

    /// Nobody answers at the address last called, says someone; true: the next is called at once.
    pub fn handle_refused(&mut self, now: Instant, address: Path) -> bool {
        let is_last = |candidate: &Candidate| candidate.address == address && candidate.called == self.last;
        let next = self.is_racing() && self.last.is_some() && self.candidates.iter().any(is_last);
        if next {
            self.due = now;
        }
        next
    }

    /// The delay before the next address not yet called, if any.
    pub fn attempt_delay(&self, random: &mut impl Random) -> Option<Duration> {
        self.is_racing().then(|| varied(self.pause(), random))
    }

    /// The pause between the calls of a round.
    fn pause(&self) -> Duration {
        let pauses = u32::try_from(self.others()).unwrap_or(u32::MAX);
        ATTEMPT_DELAY * ATTEMPT_DELAYS / pauses.max(ATTEMPT_DELAYS)
    }

    /// Schedules the next hello after the usual pause; `keepalive`: the interval for a peer that is there.
    pub fn schedule(&mut self, now: Instant, keepalive: Option<Duration>, random: &mut impl Random) {
        let alone = self.answered.is_some() || self.candidates.len() < 2;
        let first = if alone { HELLO_FIRST } else { HELLO_TURN };
        let quick = if self.tries < HELLO_PATIENCE { first } else { HELLO_LATER };
        self.due = now + varied(keepalive.unwrap_or(quick), random);
    }

    /// Makes the next hello due no later than this.
    pub fn hasten(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }
}

/// Varies by a fifth, so that nothing on the wire is periodic.
pub fn varied(pause: Duration, random: &mut impl Random) -> Duration {
    let [byte] = random.bytes();
    pause.mul_f32(0.8 + 0.4 * f32::from(byte) / 255.0)
}

/// Datagrams before streams.
fn in_order(paths: &[Path]) -> Vec<Path> {
    let of = |stream: bool| {
        let paths = paths.iter().filter(|path| path.stream == stream);
        let addresses: Vec<_> = paths.map(|path| path.remote).collect();
        in_turns_of_families(&addresses).into_iter().map(move |remote| Path { stream, ..remote.into() })
    };
    of(false).chain(of(true)).collect()
}

/// Removes duplicates and alternates families (RFC 8305, section 4), beginning with the first address's; returns no
/// more than are called.
pub fn in_turns_of_families(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut one, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv4() == first { &mut one } else { &mut other };
        if !family.contains(address) {
            family.push(*address);
        }
    }
    let turns = one.len().max(other.len());
    let in_turn = |turn| [one.get(turn), other.get(turn)].into_iter().flatten().copied();
    (0..turns).flat_map(in_turn).take(ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(addresses: &[&str]) -> Vec<String> {
        let port = |address: &&str| SocketAddr::new(address.parse().unwrap(), 1);
        let addresses: Vec<_> = addresses.iter().map(port).collect();
        in_turns_of_families(&addresses).iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn families_take_turns_from_the_first_one_on() {
        assert_eq!(
            order(&["fd::1", "fd::2", "10.0.0.1", "10.0.0.2"]),
            ["fd::1", "10.0.0.1", "fd::2", "10.0.0.2"]
        );
        assert_eq!(order(&["10.0.0.1", "10.0.0.2", "10.0.0.1", "fd::1"]), ["10.0.0.1", "fd::1", "10.0.0.2"]);
        assert_eq!(order(&["10.0.0.1", "10.0.0.2"]), ["10.0.0.1", "10.0.0.2"]);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn no_family_is_crowded_out() {
        let many: Vec<String> = (1..=30).map(|n| format!("10.0.0.{n}")).chain(["fd::1".into()]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let order = order(&many);
        assert_eq!((order.len(), order[1].as_str()), (ADDRESSES, "fd::1"));
    }
}
