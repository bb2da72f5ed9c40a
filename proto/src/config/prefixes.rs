//! Finds the prefix that contains another, in as many look-ups as there are prefix lengths.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

/// Prefixes in several tables, each with a value.
pub(super) struct Prefixes<T> {
    values: HashMap<(u32, IpNet), T>,
    /// Prefix lengths in use, by table and family.
    lengths: HashMap<(u32, bool), BTreeSet<u8>>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), lengths: HashMap::new() }
    }
}

impl<T> Prefixes<T> {
    /// Adds a prefix to `table`, or replaces its value.
    pub fn insert(&mut self, table: u32, net: IpNet, value: T) {
        self.lengths.entry((table, net.addr().is_ipv4())).or_default().insert(net.prefix_len());
        self.values.insert((table, net.trunc()), value);
    }

    /// Returns the value of the longest prefix in `table` that contains `net` and is wider.
    pub fn around(&self, table: u32, net: &IpNet) -> Option<&T> {
        self.candidates(table, net).find_map(|wider| self.values.get(&(table, wider)))
    }

    /// Prefixes that might contain `net`, longest first.
    fn candidates(&self, table: u32, net: &IpNet) -> impl Iterator<Item = IpNet> {
        let lengths = self.lengths.get(&(table, net.addr().is_ipv4()));
        let shorter = lengths.into_iter().flat_map(|lengths| lengths.range(..net.prefix_len()).rev());
        let address = net.addr();
        shorter.filter_map(move |length| IpNet::new(address, *length).ok()).map(|wider| wider.trunc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_around_is_found_in_its_own_table_and_family() {
        let mut prefixes = Prefixes::default();
        for (table, text) in [(254, "10.0.0.0/8"), (254, "10.1.0.0/16"), (7, "10.1.2.0/24"), (254, "::/0")] {
            prefixes.insert(table, net(text), text);
        }
        let around = |table, text| prefixes.around(table, &net(text)).copied();
        assert_eq!(around(254, "10.1.2.0/24"), Some("10.1.0.0/16"));
        assert_eq!(around(254, "10.1.0.0/16"), Some("10.0.0.0/8"));
        assert_eq!(around(254, "10.0.0.0/8"), None);
        assert_eq!(around(7, "10.1.2.3/32"), Some("10.1.2.0/24"));
        assert_eq!((around(8, "10.1.2.3/32"), around(254, "fd00::/8")), (None, Some("::/0")));
    }

    #[test]
    fn a_hundred_thousand_prefixes_take_as_many_looks_as_they_have_lengths() {
        let mut prefixes = Prefixes::default();
        for index in 0..100_000_u32 {
            let address = std::net::IpAddr::from((0x1400_0000 + (index << 8)).to_be_bytes());
            prefixes.insert(254, IpNet::new(address, if index % 2 == 0 { 24 } else { 30 }).unwrap(), ());
        }
        assert_eq!(prefixes.candidates(254, &net("20.0.1.1/32")).count(), 2);
    }
}
