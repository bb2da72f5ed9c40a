//! The measurements and their medians.

use std::collections::BTreeMap;

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// TCP, one stream from fri to mon.
    TcpOne,
    /// TCP, four streams.
    TcpFour,
    /// TCP, one stream from mon to fri.
    TcpReverse,
    /// TCP, one stream each way, both together.
    TcpBoth,
    /// CPU time of the whole machine for a gigabyte of one stream.
    MachineCpu,
    /// The same for the tunnel's own processes, both ends.
    OwnCpu,
    /// Datagrams of 64 bytes per second with less than 1 % lost.
    UdpSmall,
    /// Datagrams of 1300 bytes per second with less than 1 % lost.
    UdpLarge,
    /// Median round trip of an idle link.
    IdleMedian,
    /// 99th percentile of the same.
    IdleTail,
    /// Median round trip beside one TCP stream.
    LoadedMedian,
    /// 99th percentile of the same.
    LoadedTail,
    /// Resident memory of the end that uses more.
    Resident,
    /// The same, shared pages divided.
    Proportional,
    /// From the start of both ends to the first answered ping.
    FirstPing,
    /// Bytes on the path for a packet of 1500 bytes, including all headers.
    WireBytes,
    /// Packets on the path for a packet of 1500 bytes.
    WirePackets,
    /// The largest packet sent as one packet.
    LargestWhole,
    /// How many of the datagrams' first 32 bytes are not random.
    Telltale,
}

impl Metric {
    /// All, in the order of the table.
    pub const ALL: [Self; 19] = [
        Self::TcpOne,
        Self::TcpFour,
        Self::TcpReverse,
        Self::TcpBoth,
        Self::MachineCpu,
        Self::OwnCpu,
        Self::UdpSmall,
        Self::UdpLarge,
        Self::IdleMedian,
        Self::IdleTail,
        Self::LoadedMedian,
        Self::LoadedTail,
        Self::Resident,
        Self::Proportional,
        Self::FirstPing,
        Self::WireBytes,
        Self::WirePackets,
        Self::LargestWhole,
        Self::Telltale,
    ];

    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::TcpOne => "tcp-1",
            Self::TcpFour => "tcp-4",
            Self::TcpReverse => "tcp-reverse",
            Self::TcpBoth => "tcp-both",
            Self::MachineCpu => "cpu-machine",
            Self::OwnCpu => "cpu-own",
            Self::UdpSmall => "udp-64",
            Self::UdpLarge => "udp-1300",
            Self::IdleMedian => "ping-p50",
            Self::IdleTail => "ping-p99",
            Self::LoadedMedian => "loaded-p50",
            Self::LoadedTail => "loaded-p99",
            Self::Resident => "memory-rss",
            Self::Proportional => "memory-pss",
            Self::FirstPing => "first-ping",
            Self::WireBytes => "wire-bytes",
            Self::WirePackets => "wire-packets",
            Self::LargestWhole => "largest-whole",
            Self::Telltale => "not-random",
        }
    }

    /// The header of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::TcpOne => "TCP ×1, Mbit/s",
            Self::TcpFour => "TCP ×4, Mbit/s",
            Self::TcpReverse => "TCP reverse, Mbit/s",
            Self::TcpBoth => "TCP both ways, Mbit/s",
            Self::MachineCpu => "machine CPU s/GB",
            Self::OwnCpu => "own CPU s/GB",
            Self::UdpSmall => "UDP 64 B, kpps",
            Self::UdpLarge => "UDP 1300 B, kpps",
            Self::IdleMedian => "ping p50, µs",
            Self::IdleTail => "ping p99, µs",
            Self::LoadedMedian => "ping p50 under TCP, µs",
            Self::LoadedTail => "ping p99 under TCP, µs",
            Self::Resident => "RSS, MiB",
            Self::Proportional => "PSS, MiB",
            Self::FirstPing => "start to first ping, ms",
            Self::WireBytes => "wire bytes of a 1500-byte packet",
            Self::WirePackets => "in packets",
            Self::LargestWhole => "largest packet in one, bytes",
            Self::Telltale => "bytes that are not random, of 32",
        }
    }

    /// Whether smaller is better.
    pub fn is_better_small(self) -> bool {
        match self {
            Self::TcpOne
            | Self::TcpFour
            | Self::TcpReverse
            | Self::TcpBoth
            | Self::UdpSmall
            | Self::UdpLarge
            | Self::LargestWhole => false,
            Self::MachineCpu
            | Self::OwnCpu
            | Self::IdleMedian
            | Self::IdleTail
            | Self::LoadedMedian
            | Self::LoadedTail
            | Self::Resident
            | Self::Proportional
            | Self::FirstPing
            | Self::WireBytes
            | Self::WirePackets
            | Self::Telltale => true,
        }
    }

    /// Decimal places in tables.
    pub fn digits(self) -> usize {
        match self {
            Self::MachineCpu | Self::OwnCpu => 2,
            Self::UdpSmall | Self::UdpLarge | Self::Resident | Self::Proportional | Self::WirePackets => 1,
            Self::TcpOne
            | Self::TcpFour
            | Self::TcpReverse
            | Self::TcpBoth
            | Self::IdleMedian
            | Self::IdleTail
            | Self::LoadedMedian
            | Self::LoadedTail
            | Self::FirstPing
            | Self::Telltale
            | Self::WireBytes
            | Self::LargestWhole => 0,
        }
    }
}

/// All measurements of a run, by the peers' names.
#[derive(Debug, Default)]
pub struct Results {
    samples: BTreeMap<(&'static str, Metric), Vec<f64>>,
    failures: BTreeMap<&'static str, String>,
    absent: BTreeMap<&'static str, String>,
}

impl Results {
    /// Adds a value, in the metric's unit.
    pub fn add(&mut self, peer: &'static str, metric: Metric, value: f64) {
        self.samples.entry((peer, metric)).or_default().push(value);
    }

    /// Records why a peer has no further values; the first reason stays.
    pub fn fail(&mut self, peer: &'static str, reason: impl Into<String>) {
        self.failures.entry(peer).or_insert_with(|| reason.into());
    }

    /// Records what optional thing a peer lacks.
    pub fn miss(&mut self, peer: &'static str, lacks: impl Into<String>) {
        self.absent.insert(peer, lacks.into());
    }

    /// Why a peer is missing or incomplete.
    pub fn failure(&self, peer: &str) -> Option<&str> {
        self.failures.get(peer).map(String::as_str)
    }

    /// What optional thing a peer lacks.
    pub fn absence(&self, peer: &str) -> Option<&str> {
        self.absent.get(peer).map(String::as_str)
    }

    /// The values in the order of the rounds.
    pub fn values(&self, peer: &'static str, metric: Metric) -> &[f64] {
        self.samples.get(&(peer, metric)).map_or(&[], Vec::as_slice)
    }

    /// The median.
    pub fn median(&self, peer: &'static str, metric: Metric) -> Option<f64> {
        percentile(self.values(peer, metric), 50)
    }
}

/// The value below which this percentage of the values lie; `None` without values.
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        let mut results = Results::default();
        for value in [9.0, 1.0, 5.0] {
            results.add("veth", Metric::TcpOne, value);
        }
        assert_eq!(results.median("veth", Metric::TcpOne), Some(5.0));
        assert_eq!(results.median("vxlan", Metric::TcpOne), None);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 99), Some(4.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn the_first_failure_is_the_one_that_is_kept() {
        let mut results = Results::default();
        results.fail("openvpn", "not installed");
        results.fail("openvpn", "another");
        assert_eq!(results.failure("openvpn"), Some("not installed"));
    }
}
