//! Recently used VLANs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Number of VLAN IDs.
const VLANS: usize = 4096;
/// Most VLANs in a round of probes.
const ROUND: usize = 63;
/// Epochs for which a VLAN stays in use after its last frame.
const IN_USE: u64 = 5;

/// One more than the epoch of each VLAN's last frame; 0: none. Shared by both directions.
#[derive(Debug)]
pub struct Vlans(Box<[AtomicU64; VLANS]>);

impl Default for Vlans {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Vlans {
    /// Notes a frame in this VLAN.
    pub fn note(&self, vlan: Option<u16>, epoch: u64) {
        if let Some(last) = vlan.and_then(|vlan| self.0.get(usize::from(vlan)))
            && last.load(Relaxed) != epoch + 1
        {
            last.store(epoch + 1, Relaxed);
        }
    }

    /// Returns the VLANs in use. If they are too many for a round, the following rounds take the others.
    pub fn of_round(&self, epoch: u64, round: u32) -> impl Iterator<Item = u16> {
        let is_used = |last: u64| last != 0 && epoch < last - 1 + IN_USE;
        let used = (0..).zip(self.0.iter()).filter(|(_, last)| is_used(last.load(Relaxed)));
        let used: Vec<u16> = used.map(|(vlan, _)| vlan).collect();
        let parts = used.len().div_ceil(ROUND).max(1);
        let part = round as usize % parts;
        used.into_iter().skip(part * ROUND).take(ROUND)
    }
}

#[cfg(test)]
impl Vlans {
    /// Size of the table in bytes.
    pub fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vlan_in_use_has_its_turn_and_one_out_of_use_has_none() {
        let vlans = Vlans::default();
        (1..=200).for_each(|vlan| vlans.note(Some(vlan), 0));
        vlans.note(None, 0);
        let rounds: Vec<Vec<u16>> = (7..11).map(|round| vlans.of_round(0, round).collect()).collect();
        assert!(rounds.iter().all(|round| round.len() <= ROUND));
        let mut all = rounds.concat();
        all.sort_unstable();
        assert_eq!(all, (1..=200).collect::<Vec<_>>());
        vlans.note(Some(4095), 3);
        assert_eq!(vlans.of_round(IN_USE, 0).collect::<Vec<_>>(), [4095]);
        assert_eq!(vlans.of_round(3 + IN_USE, 0).count(), 0);
    }
}
