//! The source addresses seen on one side: a fixed-size table shared by the lanes of both directions.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Places per bucket: a cache line.
const WAYS: usize = 8;
/// Bits of an entry below the address: a valid bit and the epoch of the last sighting.
const LOW: u32 = 4;
/// Distinguishable epochs.
const EPOCHS: u8 = 8;
/// An address not seen for this many epochs is forgotten.
pub const FORGOTTEN: u8 = 5;

/// An address within its VLAN, 60 bits: hosts in different VLANs may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host(u64);

impl Host {
    /// `vlan`: its number, 0 for none.
    pub fn new(vlan: Option<u16>, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Self(u64::from(vlan.unwrap_or(0) & 0xfff) << 48 | mac)
    }

    /// The address.
    pub fn mac(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Its VLAN.
    pub fn vlan(self) -> Option<u16> {
        let vlan = (self.0 >> 48 & 0xfff) as u16;
        (vlan != 0).then_some(vlan)
    }

    /// A nonzero number.
    pub fn packed(self) -> u64 {
        self.0 << 1 | 1
    }

    /// Inverse of [`Host::packed`]; `None`: 0.
    pub fn unpacked(packed: u64) -> Option<Self> {
        (packed != 0).then_some(Self(packed >> 1))
    }

    fn entry(self, epoch: u8) -> u64 {
        self.0 << LOW | u64::from(epoch % EPOCHS) << 1 | 1
    }
}

/// The table. Two threads may use it at once: the one that loses a race learns the address again.
#[derive(Debug)]
pub struct Macs {
    buckets: Box<[[AtomicU64; WAYS]]>,
    /// Most addresses kept.
    most: u32,
    count: AtomicU32,
}

impl Macs {
    /// A table for so many addresses, with twice as many places.
    pub fn new(most: u32) -> Self {
        let buckets = (most as usize * 2).div_ceil(WAYS).next_power_of_two();
        let bucket = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            buckets: std::iter::repeat_with(bucket).take(buckets).collect(),
            most,
            count: AtomicU32::new(0),
        }
    }

    fn bucket(&self, host: Host) -> &[AtomicU64; WAYS] {
        // Multiplication carries every bit to the top (Knuth, The Art of Computer Programming 3, 6.4).
        let mixed = host.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.buckets[mixed as usize & (self.buckets.len() - 1)]
    }

    fn place(&self, host: Host) -> Option<&AtomicU64> {
        self.bucket(host)
            .iter()
            .find(|place| place.load(Relaxed) >> LOW == host.0 && place.load(Relaxed) != 0)
    }

    /// Whether the address was seen here.
    pub fn contains(&self, host: Host) -> bool {
        self.place(host).is_some()
    }

    /// Notes that it was seen in this epoch. False: the table is full of others that must stay.
    pub fn learn(&self, host: Host, epoch: u8) -> bool {
        let entry = host.entry(epoch);
        if let Some(place) = self.place(host) {
            if place.load(Relaxed) != entry {
                place.store(entry, Relaxed);
            }
            return true;
        }
        let bucket = self.bucket(host);
        let age = |place: &&AtomicU64| age(place.load(Relaxed), epoch);
        let oldest = bucket.iter().filter(|place| place.load(Relaxed) != 0).max_by_key(age);
        let is_full = self.count.load(Relaxed) >= self.most;
        let free = bucket.iter().find(|place| place.load(Relaxed) == 0).filter(|_| !is_full);
        if let Some(free) = free {
            free.store(entry, Relaxed);
            self.count.fetch_add(1, Relaxed);
            return true;
        }
        // Below the limit, only the bucket is full: an evicted address is learned again.
        let Some(oldest) = oldest.filter(|place| !is_full || age(place) > 0) else { return false };
        oldest.store(entry, Relaxed);
        true
    }

    /// Forgets a host.
    pub fn forget(&self, host: Host) {
        if let Some(place) = self.place(host) {
            place.store(0, Relaxed);
            self.forgotten(1);
        }
    }

    /// Begins a new epoch: removes addresses not seen for long and, if the table is full, those not seen in the last epoch.
    pub fn age(&self, epoch: u8) {
        let least = if self.count.load(Relaxed) >= self.most { 2 } else { FORGOTTEN };
        self.forget_older(|entry| age(entry, epoch) >= least);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.forget_older(|_| true);
    }

    fn forget_older(&self, goes: impl Fn(u64) -> bool) {
        for place in self.buckets.iter().flatten() {
            let entry = place.load(Relaxed);
            if entry != 0 && goes(entry) {
                place.store(0, Relaxed);
                self.forgotten(1);
            }
        }
    }

    fn forgotten(&self, count: u32) {
        // Both threads may have removed the same.
        let _ = self.count.fetch_update(Relaxed, Relaxed, |all| Some(all.saturating_sub(count)));
    }
}

#[cfg(test)]
impl Macs {
    /// Size of the table in bytes.
    pub fn size(&self) -> usize {
        size_of_val(&*self.buckets)
    }
}

/// Epochs since the entry was last seen.
fn age(entry: u64, epoch: u8) -> u8 {
    let seen = (entry >> 1) as u8 % EPOCHS;
    (epoch % EPOCHS + EPOCHS - seen) % EPOCHS
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn host(number: u16) -> Host {
        let [high, low] = number.to_be_bytes();
        Host::new(Some(number % 3), [2, 0, 0, 0, high, low])
    }

    #[test]
    fn hosts_keep_address_and_vlan_and_the_same_address_in_two_vlans_is_two() {
        for vlan in [None, Some(1), Some(4094)] {
            let one = Host::new(vlan, [0xfe, 0xff, 3, 4, 5, 6]);
            assert_eq!((one.vlan(), one.mac()), (vlan, [0xfe, 0xff, 3, 4, 5, 6]));
            assert_eq!(Host::unpacked(one.packed()), Some(one));
        }
        let macs = Macs::new(16);
        assert!(macs.learn(Host::new(Some(1), [2; 6]), 0));
        assert!(macs.contains(Host::new(Some(1), [2; 6])) && !macs.contains(Host::new(Some(2), [2; 6])));
    }

    #[test]
    fn beyond_the_limit_only_the_unused_make_room() {
        let macs = Macs::new(64);
        let first = (0..1000).filter(|number| macs.learn(host(*number), 0)).count();
        assert!((60..=64).contains(&first), "{first} of 64");
        let known: Vec<_> = (0..1000).filter(|number| macs.contains(host(*number))).collect();
        assert!(!macs.learn(host(5000), 0), "all are in use");
        known.iter().take(10).for_each(|number| assert!(macs.learn(host(*number), 2), "those known pass"));
        macs.age(2);
        assert!(
            (0..1000).filter(|number| macs.contains(host(*number))).count() == 10,
            "the unused made room"
        );
        assert!(macs.learn(host(5000), 2));
    }

    proptest! {
        /// Compared with a map that forgets only what it must.
        #[test]
        fn what_was_seen_lately_is_known_and_what_was_not_is_not(
            steps in prop::collection::vec((0..60_u16, 0..40_u8), 1..300),
        ) {
            let macs = Macs::new(4096);
            let (mut epoch, mut seen) = (0_u8, HashMap::new());
            for (number, step) in steps {
                match step {
                    0 => {
                        epoch = epoch.wrapping_add(1);
                        macs.age(epoch);
                        seen.retain(|_, at: &mut u8| epoch.wrapping_sub(*at) < FORGOTTEN);
                    }
                    1 => {
                        macs.forget(host(number));
                        seen.remove(&number);
                    }
                    _ => {
                        prop_assert!(macs.learn(host(number), epoch));
                        seen.insert(number, epoch);
                    }
                }
                for number in 0..60 {
                    prop_assert_eq!(macs.contains(host(number)), seen.contains_key(&number));
                }
            }
        }
    }
}
