//! A set of addresses: the peer's inner sources. A look-up takes logarithmic time in the number of prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The addresses within some prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last of each range, sorted and merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ranges<N>(Vec<(N, N)>);

impl Sources {
    /// Whether the set has the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.into()),
            IpAddr::V6(address) => self.v6.contains(address.into()),
        }
    }

    /// Adds the addresses within `nets`.
    #[must_use]
    pub fn with(&self, nets: &[IpNet]) -> Self {
        let Self { v4: Ranges(mut v4), v6: Ranges(mut v6) } = self.clone();
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }
}

impl<N: Copy + Ord + Next> Ranges<N> {
    fn new(mut ranges: Vec<(N, N)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(N, N)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if end.next().is_none_or(|next| first <= next) => *end = last.max(*end),
                Some(_) | None => joined.push((first, last)),
            }
        }
        joined.shrink_to_fit();
        Self(joined)
    }

    fn contains(&self, address: N) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| address <= *last)
    }
}

trait Next: Sized {
    /// The next number; `None` after the greatest.
    fn next(self) -> Option<Self>;
}

impl Next for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Next for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sources(nets: &str) -> Sources {
        let nets: Vec<IpNet> = nets.split_whitespace().map(|net| net.parse().unwrap()).collect();
        Sources::default().with(&nets)
    }

    #[test]
    fn neighbours_and_what_lies_within_others_become_one_range() {
        let nets: Vec<_> = (0..100_000_u32)
            .map(|index| IpNet::new(IpAddr::from((0x1400_0000 + (index << 8)).to_be_bytes()), 24).unwrap())
            .collect();
        let many = Sources::default().with(&nets);
        assert_eq!(many.v4.0.len(), 1);
        assert!(
            many.contains("20.0.0.0".parse().unwrap()) && !many.contains("21.134.160.0".parse().unwrap())
        );
        assert_eq!(sources("10.0.0.0/8 10.1.0.0/16 11.0.0.0/8").v4.0, [(0x0a00_0000, 0x0bff_ffff)]);
    }

    #[test]
    fn everything_and_nothing_are_sets_too() {
        let all = sources("0.0.0.0/0 ::/0 255.255.255.255/32");
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(all.contains(address.parse().unwrap()), "{address}");
            assert!(!Sources::default().contains(address.parse().unwrap()), "{address}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_among_them_if_a_prefix_contains_it(
            nets in prop::collection::vec((0u32..64, 26u8..=32), 0..20),
            address in 0u32..64,
        ) {
            let nets: Vec<_> = nets
                .iter()
                .map(|(bits, length)| IpNet::new(IpAddr::from(bits.to_be_bytes()), *length).unwrap())
                .collect();
            let address = IpAddr::from(address.to_be_bytes());
            let expected = nets.iter().any(|net| net.contains(&address));
            let (some, others) = nets.split_at(nets.len() / 2);
            prop_assert_eq!(Sources::default().with(some).with(others).contains(address), expected);
        }
    }
}
