//! The bridge guard: keeps traffic that harms a segment from crossing a tap link. It decides frame by frame without allocating; its
//! tables have a fixed size.

mod classify;
mod loops;
mod macs;
mod probe;
mod talkers;
mod vlans;
mod watch;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::rate::RateLimiter;
use super::stats::DropReason;
use crate::config::Guard as Rules;
use crate::crypto::keys::ProbeKey;
use classify::{Header, Service, is_topology_change, service};
pub use loops::{Act, Loops};
use macs::{FORGOTTEN, Host, Macs};
pub use probe::{Origin, Probe, Sighting};
use talkers::Talkers;
pub use talkers::{Talker, Top, together};
use vlans::Vlans;
pub use watch::Watch;

/// Most known addresses of this segment.
const OWN: u32 = 4096;
/// Addresses expire after five of these, about as in a bridge (IEEE 802.1Q, section 8.8.3).
const EPOCH: Duration = Duration::from_secs(60);
/// Burst of reported probes, then ten per second: more are copies.
const SIGHTINGS: u32 = 64;

/// A rule that a frame broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(usize)]
pub enum Rule {
    /// More broadcasts, multicasts and unknown unicasts per second than `guard.storm`.
    Storm,
    /// A source address beyond `guard.macs`.
    Macs,
    /// `guard.bpdu`.
    Bpdu,
    /// `guard.dhcp-server`.
    Dhcp,
    /// `guard.router-advertisement`.
    Router,
    /// `guard.vlans` and `guard.untagged`.
    Vlan,
    /// `guard.own-macs`.
    OwnMac,
}

impl Rule {
    /// All rules, in order.
    pub const ALL: [Rule; 7] =
        [Rule::Storm, Rule::Macs, Rule::Bpdu, Rule::Dhcp, Rule::Router, Rule::Vlan, Rule::OwnMac];

    /// The drop reason of a frame that breaks it.
    pub fn reason(self) -> DropReason {
        match self {
            Rule::Storm => DropReason::GuardStorm,
            Rule::Macs => DropReason::GuardMacs,
            Rule::Bpdu => DropReason::GuardBpdu,
            Rule::Dhcp => DropReason::GuardDhcp,
            Rule::Router => DropReason::GuardRouter,
            Rule::Vlan => DropReason::GuardVlan,
            Rule::OwnMac => DropReason::GuardOwnMac,
        }
    }

    /// What happened.
    pub fn sentence(self) -> &'static str {
        match self {
            Rule::Storm => {
                "the peer sends more broadcast, multicast or unknown-unicast frames than guard.storm allows"
            }
            Rule::Macs => "the peer's segment has more source addresses than guard.macs allows",
            Rule::Bpdu => "spanning-tree frames (BPDUs) are dropped",
            Rule::Dhcp => "DHCP server replies from the peer's segment are dropped",
            Rule::Router => "router advertisements from the peer's segment are dropped",
            Rule::Vlan => "frames of a VLAN that is not allowed are dropped",
            Rule::OwnMac => "the peer sends frames that claim a MAC address of this segment",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Rule::Storm => "look for a loop or a flooding host there, or raise guard.storm",
            Rule::Macs => "look for a host forging addresses there, or raise guard.macs",
            Rule::Bpdu => "guard.bpdu = \"pass\" makes the two segments one tree",
            Rule::Dhcp => "guard.dhcp-server = \"pass\" accepts them",
            Rule::Router => "guard.router-advertisement = \"pass\" accepts them",
            Rule::Vlan => {
                "to allow it, add it to guard.vlans, or for untagged frames set guard.untagged = true"
            }
            Rule::OwnMac => "if the host has moved, set guard.own-macs = \"pass\"",
        }
    }
}

/// The first offender against each rule since the last query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offenders([u64; Rule::ALL.len()]);

impl Offenders {
    /// Rule, address and VLAN.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, [u8; 6], Option<u16>)> + '_ {
        let hosts = Rule::ALL.into_iter().zip(self.0);
        hosts.filter_map(|(rule, packed)| Host::unpacked(packed).map(|host| (rule, host.mac(), host.vlan())))
    }
}

/// State shared by both directions.
#[derive(Debug)]
struct Tables {
    /// Addresses of this segment, learned from the device's frames.
    own: Macs,
    /// The peer's.
    peer: Macs,
    /// VLANs with recent frames.
    vlans: Vlans,
    /// How often hosts were found to have moved. After each, both directions check again what has passed before.
    moves: AtomicU64,
    /// One more than the epoch of the last move; 0: never.
    moved: AtomicU64,
    began: OnceLock<Instant>,
    offenders: [AtomicU64; Rule::ALL.len()],
}

/// The guard of one direction, or of both on one thread. Clones share the tables.
#[derive(Debug, Clone)]
pub struct Guard {
    rules: Rules,
    /// One bit per VLAN, set if it passes.
    vlans: Arc<[u64; 64]>,
    tables: Arc<Tables>,
    /// Key of this link's probes; `None`: they are ordinary frames.
    probes: Option<Arc<ProbeKey>>,
    /// Whether all frames are blocked.
    held: bool,
    sighting: Option<Sighting>,
    sightings: RateLimiter,
    storm: RateLimiter,
    now: Option<Instant>,
    epoch: u64,
    /// Start of the last frame from the peer, and of the last from the device, that passes whatever follows it: two addresses
    /// known to be where they should, and the VLAN.
    passed: [Option<[u8; 16]>; 2],
    talkers: Talkers,
    /// Indices of those frames' senders in `talkers`.
    senders: [usize; 2],
    /// [`Tables::moves`] at that time.
    moves: u64,
    changed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Inward = 0,
    Outward = 1,
}

impl Guard {
    /// Shares the tables of another guard on the same device.
    pub fn share_tables(&mut self, other: &Self) {
        self.tables = Arc::clone(&other.tables);
    }

    /// A guard with empty tables.
    pub fn new(rules: &Rules, key: ProbeKey) -> Self {
        let mut vlans = [if rules.vlans.is_none() { u64::MAX } else { 0 }; 64];
        for vlan in rules.vlans.iter().flatten().flat_map(|(first, last)| *first..=*last) {
            vlans[usize::from(vlan / 64) % 64] |= 1 << (vlan % 64);
        }
        let tables = Tables {
            own: Macs::new(OWN),
            peer: Macs::new(rules.macs),
            vlans: Vlans::default(),
            moves: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            began: OnceLock::new(),
            offenders: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            rules: rules.clone(),
            vlans: Arc::new(vlans),
            tables: Arc::new(tables),
            probes: rules.find_loops.then(|| Arc::new(key)),
            held: false,
            sighting: None,
            sightings: RateLimiter::new(SIGHTINGS, Duration::from_millis(100)),
            // A burst of a quarter of a second.
            storm: RateLimiter::new(rules.storm / 4 + 1, Duration::from_secs(1) / rules.storm.max(1)),
            now: None,
            epoch: 0,
            passed: [None; 2],
            talkers: Talkers::default(),
            senders: [0; 2],
            moves: 0,
            changed_at: None,
        }
    }

    /// Sets the time of the frames that follow.
    pub fn set_now(&mut self, now: Instant) {
        self.now = Some(now);
        let began = *self.tables.began.get_or_init(|| now);
        let epoch = now.saturating_duration_since(began).as_secs() / EPOCH.as_secs();
        if epoch == self.epoch {
            return;
        }
        self.passed = [None; 2];
        self.talkers.turn(epoch == self.epoch + 1);
        for table in [&self.tables.own, &self.tables.peer] {
            // Ages are distinguishable for eight epochs.
            if epoch - self.epoch > 4 { table.clear() } else { table.age(epoch as u8) }
        }
        self.epoch = epoch;
    }

    /// The busiest senders in this direction over the last minute.
    pub fn talkers(&self) -> Top {
        let began = self.tables.began.get().zip(self.now);
        let age = began.map_or(Duration::ZERO, |(began, now)| now.saturating_duration_since(*began));
        self.talkers.top(EPOCH.as_secs() - age.as_secs() % EPOCH.as_secs())
    }

    /// The offenders since the last call.
    pub fn offenders(&self) -> Offenders {
        Offenders(std::array::from_fn(|rule| self.tables.offenders[rule].swap(0, Relaxed)))
    }

    /// Blocks all frames, or passes them again. Hosts are elsewhere then.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        self.forget();
    }

    /// Returns this end's probes of a round, for the device: one per recently used VLAN that passes, up to a limit.
    pub fn probes(&self, origin: Origin, round: u32) -> Vec<Vec<u8>> {
        let Some(key) = &self.probes else { return Vec::new() };
        let untagged = self.rules.untagged.then_some(None);
        let vlans = untagged.into_iter().chain(self.tables.vlans.of_round(self.epoch, round).map(Some));
        vlans.map(|vlan| Probe { origin, round, vlan }.frame(key)).collect()
    }

    /// Returns the probe that the last frame was, unless there were too many.
    pub fn take_sighting(&mut self) -> Option<Sighting> {
        self.sighting.take()
    }

    /// Whether a frame from the peer may go to the device.
    ///
    /// # Errors
    /// Why not.
    pub fn inward(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        self.look(frame, Way::Inward)
    }

    /// Whether a frame of the device, or several joined by the kernel, may go to the peer.
    ///
    /// # Errors
    /// Why not.
    pub fn outward(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        self.look(frame, Way::Outward)
    }

    fn look(&mut self, frame: &[u8], way: Way) -> Result<(), DropReason> {
        let moves = self.tables.moves.load(Relaxed);
        if moves != self.moves {
            (self.moves, self.passed) = (moves, [None; 2]);
        }
        let start: Option<&[u8; 16]> = frame.first_chunk();
        if start.is_some() && start == self.passed[way as usize].as_ref() {
            self.talkers.count_again(self.senders[way as usize], frame.len());
            return self.look_inside(frame, None, way);
        }
        let Some(header) = Header::of(frame) else { return Err(DropReason::Malformed) };
        let from = Host::new(header.vlan, header.from);
        let (sender, is_new) = self.talkers.count(from, way == Way::Outward, frame.len());
        if is_new {
            // Another host had that place.
            self.passed = [None; 2];
        }
        self.look_at_header(frame, header, way)?;
        self.look_inside(frame, Some(header), way)?;
        // An unknown destination counts each time.
        if let Some(start) = start.filter(|_| !header.is_group() && self.is_known(header, way)) {
            (self.passed[way as usize], self.senders[way as usize]) = (Some(*start), sender);
        }
        Ok(())
    }

    fn look_at_header(&mut self, frame: &[u8], header: Header, way: Way) -> Result<(), DropReason> {
        let passes = header.vlan.map_or(self.rules.untagged, |vlan| {
            self.vlans[usize::from(vlan / 64) % 64] >> (vlan % 64) & 1 == 1
        });
        if !passes {
            return Err(self.refuse(Rule::Vlan, header));
        }
        if header.is_group() && self.is_probe(frame, way) || self.held {
            return Err(DropReason::GuardLoop);
        }
        self.tables.vlans.note(header.vlan, self.epoch);
        if header.is_bpdu() {
            if self.rules.drop_bpdu {
                return Err(self.refuse(Rule::Bpdu, header));
            }
            self.handle_bpdu(frame);
        }
        let (from, to) = (Host::new(header.vlan, header.from), Host::new(header.vlan, header.to));
        let tables = Arc::clone(&self.tables);
        let (here, there) = match way {
            Way::Inward => (&tables.peer, &tables.own),
            Way::Outward => (&tables.own, &tables.peer),
        };
        // A group address has no host.
        if header.from[0] & 1 == 0 {
            if there.contains(from) {
                if way == Way::Inward && self.rules.drop_own_macs {
                    return Err(self.refuse(Rule::OwnMac, header));
                }
                there.forget(from);
                self.tables.moves.fetch_add(1, Relaxed);
                self.tables.moved.store(self.epoch + 1, Relaxed);
            }
            if !here.learn(from, self.epoch as u8) && way == Way::Inward {
                return Err(self.refuse(Rule::Macs, header));
            }
        }
        if !header.is_group() && here.contains(to) && self.is_settled() {
            // The bridges behind have forgotten the host; it is where the frame comes from.
            return Err(DropReason::GuardLocal);
        }
        let floods = header.is_group() || !there.contains(to);
        if way == Way::Inward && floods && self.now.is_some_and(|now| !self.storm.allow(now)) {
            return Err(self.refuse(Rule::Storm, header));
        }
        Ok(())
    }

    /// Whether no host has moved for as long as hosts are remembered. After a move, a loop may have shown others on the wrong side, such as the
    /// one of two links that is not held.
    fn is_settled(&self) -> bool {
        let moved = self.tables.moved.load(Relaxed);
        moved == 0 || self.epoch >= moved + u64::from(FORGOTTEN)
    }

    /// Consumes a probe of this end or the peer: it has told what it can.
    fn is_probe(&mut self, frame: &[u8], way: Way) -> bool {
        let probe = self.probes.as_ref().and_then(|key| Probe::of(frame, key));
        if let Some(probe) = probe
            && self.now.is_none_or(|now| self.sightings.allow(now))
        {
            self.sighting = Some(Sighting { probe, tunnelled: way == Way::Inward });
        }
        probe.is_some()
    }

    /// Checks a frame beyond its addresses, if configured.
    fn look_inside(&self, frame: &[u8], header: Option<Header>, way: Way) -> Result<(), DropReason> {
        if way == Way::Outward || !(self.rules.drop_dhcp_server || self.rules.drop_router_advertisement) {
            return Ok(());
        }
        let rule = match service(frame) {
            Some(Service::Dhcp) if self.rules.drop_dhcp_server => Rule::Dhcp,
            Some(Service::Router) if self.rules.drop_router_advertisement => Rule::Router,
            Some(Service::Dhcp | Service::Router) | None => return Ok(()),
        };
        Err(header.or_else(|| Header::of(frame)).map_or(rule.reason(), |header| self.refuse(rule, header)))
    }

    fn is_known(&self, header: Header, way: Way) -> bool {
        let there = if way == Way::Inward { &self.tables.own } else { &self.tables.peer };
        there.contains(Host::new(header.vlan, header.to))
    }

    fn refuse(&self, rule: Rule, header: Header) -> DropReason {
        let host = Host::new(header.vlan, header.from).packed();
        // The first one stays.
        let _ = self.tables.offenders[rule as usize].compare_exchange(0, host, Relaxed, Relaxed);
        rule.reason()
    }

    /// A change of the spanning tree moves hosts, so bridges forget them too. At most once a second, for anybody can send one.
    fn handle_bpdu(&mut self, frame: &[u8]) {
        let due = |at: Instant| {
            self.now.is_some_and(|now| now.saturating_duration_since(at) >= Duration::from_secs(1))
        };
        if is_topology_change(frame) && self.changed_at.is_none_or(due) {
            self.changed_at = self.now;
            self.forget();
        }
    }

    /// Forgets where hosts were.
    fn forget(&mut self) {
        self.tables.own.clear();
        self.tables.peer.clear();
        self.tables.moved.store(0, Relaxed);
        self.tables.moves.fetch_add(1, Relaxed);
        self.passed = [None; 2];
    }
}

#[cfg(test)]
mod tests;
