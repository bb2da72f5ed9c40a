//! Checks that measure something and compare it with the file's bound.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use serde::Serialize;

use super::Check;
use crate::probe::{Echo, End, Streams};
use crate::{At, Error, Host};

/// How long a stream is measured.
const TRANSFER: Duration = Duration::from_secs(2);
/// Pings for the median.
const PINGS: u16 = 20;
/// Pings for the loss, and how long to wait for each.
const LOSS_PINGS: u16 = 100;
const LOST: Duration = Duration::from_millis(500);
/// The longest packet tried, in bytes, and its headers.
const LONGEST: usize = 9216;
const HEADERS: usize = 28;
/// How long the recorder may take to start and to count.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// A TCP stream, in bits per second.
    Throughput,
    /// The median round trip, in seconds.
    Latency,
    /// Unanswered pings, in per cent.
    Loss,
    /// The longest IP packet that passes unfragmented, in bytes.
    LargestFrame,
    /// Packets on an interface while a script runs.
    SeenOnWire,
}

impl Figure {
    /// What a check measures, and the bound as written.
    pub(super) fn of(check: &Check) -> Vec<(Self, &super::Name)> {
        let Check { throughput, latency, loss, largest_frame, seen_on_wire, .. } = check;
        let figures = [
            (Self::Throughput, throughput),
            (Self::Latency, latency),
            (Self::Loss, loss),
            (Self::LargestFrame, largest_frame),
            (Self::SeenOnWire, seen_on_wire),
        ];
        figures.into_iter().filter_map(|(figure, bound)| Some((figure, bound.as_ref()?))).collect()
    }

    /// Its units, each with its size.
    fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Throughput => &[("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)],
            Self::Latency => &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)],
            Self::Loss => &[("%", 1.0)],
            Self::LargestFrame => &[("bytes", 1.0)],
            Self::SeenOnWire => &[("packets", 1.0)],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    AtLeast,
    AtMost,
    Equal,
}

/// Such as `>= 50 Mbit/s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    figure: Figure,
    relation: Relation,
    /// In the unit.
    value: f64,
    unit: (&'static str, f64),
    text: String,
}

impl Bound {
    /// Parses a figure's bound.
    ///
    /// # Errors
    /// The required syntax.
    pub fn parse(figure: Figure, text: &str) -> Result<Self, String> {
        let units = figure.units().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let wrong = || {
            format!(
                "{text:?} is not a bound such as \">= 5 {}\": >=, <= or =, and in {units}",
                figure.units()[0].0
            )
        };
        let mut words = text.split_whitespace();
        let (Some(relation), Some(number), Some(unit), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let relation = match relation {
            ">=" => Relation::AtLeast,
            "<=" => Relation::AtMost,
            "=" => Relation::Equal,
            _ => return Err(wrong()),
        };
        let value: f64 = number.parse().map_err(|_| wrong())?;
        let unit = figure.units().iter().find(|(name, _)| *name == unit).copied().ok_or_else(wrong)?;
        if !value.is_finite() || value < 0.0 {
            return Err(wrong());
        }
        Ok(Self { figure, relation, value, unit, text: text.to_owned() })
    }

    /// Compares a measured value, if any, with the bound.
    pub fn compare(&self, measured: Option<f64>) -> Measured {
        let value = measured.map(|value| value / self.unit.1);
        let holds = value.is_some_and(|value| match self.relation {
            Relation::AtLeast => value >= self.value,
            Relation::AtMost => value <= self.value,
            Relation::Equal => value == self.value,
        });
        Measured {
            figure: self.figure,
            value,
            unit: self.unit.0,
            asked: self.text.clone(),
            bound: self.value,
            holds,
        }
    }
}

/// A figure beside its bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The figure.
    pub figure: Figure,
    /// The result in the bound's unit; `None` if nothing passed.
    pub value: Option<f64>,
    /// The bound's unit.
    pub unit: &'static str,
    /// The bound as written.
    pub asked: String,
    /// The bound's number.
    #[serde(skip)]
    pub bound: f64,
    /// Whether the bound holds.
    #[serde(skip)]
    pub holds: bool,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            Some(value) if value.fract() == 0.0 => write!(f, "{value} {}", self.unit)?,
            Some(value) => write!(f, "{value:.2} {}", self.unit)?,
            None => write!(f, "nothing passes")?,
        }
        write!(f, ", asked for: {}", self.asked)
    }
}

/// Measures from `host` to an address of one of `all`.
pub(super) fn measure<'a>(
    figure: Figure,
    host: &Host,
    to: Ipv4Addr,
    all: impl Iterator<Item = &'a Host>,
) -> Result<Option<f64>, Error> {
    if figure == Figure::LargestFrame {
        return Ok(largest(host, to));
    }
    // The kernel tells the source address; without a route nothing passes.
    let Ok(source) = host.within(|| source_to(to))? else { return Ok(None) };
    if figure == Figure::Throughput {
        let Some(far) = owner(to, all)? else {
            return Err(Error::new(format!("no host of the scenario has the address {to}")));
        };
        let ends = [End { host, address: source }, End { host: far, address: to }];
        let carried = Streams { forward: 1, backward: 0 }.carry(ends, TRANSFER);
        return Ok(carried.ok().map(|carried| carried.rate));
    }
    let echo = Echo::new(source, to);
    if figure == Figure::Latency {
        let mut times = echo.send(host, PINGS)?.times;
        times.sort_unstable();
        return Ok(times.get(times.len() / 2).map(Duration::as_secs_f64));
    }
    let pings = Echo { patience: LOST, interval: Duration::from_millis(5), ..echo }.send(host, LOSS_PINGS)?;
    let lost = pings.sent - pings.times.len();
    Ok(Some(100.0 * lost as f64 / pings.sent as f64))
}

fn source_to(to: Ipv4Addr) -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Nothing is sent.
    socket.connect((to, 9))?;
    match socket.local_addr()?.ip() {
        std::net::IpAddr::V4(address) => Ok(address),
        std::net::IpAddr::V6(_) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// The host that can listen on the address.
fn owner<'a>(address: Ipv4Addr, all: impl Iterator<Item = &'a Host>) -> Result<Option<&'a Host>, Error> {
    for host in all {
        if host.within(|| TcpListener::bind(SocketAddrV4::new(address, 0)).is_ok())? {
            return Ok(Some(host));
        }
    }
    Ok(None)
}

/// The longest unfragmented packet that is answered; each length is tried twice.
fn largest(host: &Host, to: Ipv4Addr) -> Option<f64> {
    let passes = |length: usize| {
        let payload = length - HEADERS;
        host.run(&format!("ping -n -q -M do -c 2 -i 0.2 -W 1 -s {payload} {to}")).is_ok()
    };
    let (mut fits, mut too_long) = (HEADERS, LONGEST + 1);
    if !passes(fits) {
        return None;
    }
    while too_long - fits > 1 {
        let middle = usize::midpoint(fits, too_long);
        if passes(middle) { fits = middle } else { too_long = middle }
    }
    Some(fits as f64)
}

/// The number in tcpdump's final line, "3 packets captured".
pub(super) fn captured<'a>(lines: impl Iterator<Item = &'a str>) -> Result<f64, Error> {
    let number = lines
        .filter_map(|line| line.split_once(" packet"))
        .find_map(|(number, rest)| number.trim().parse::<f64>().ok().filter(|_| rest.contains("captured")));
    number.ok_or_else(|| Error::new("tcpdump did not say how many packets it has captured"))
}

/// Parses an address to measure to.
pub(super) fn target(text: &str) -> Result<Ipv4Addr, Error> {
    text.parse().at(format!("{text:?} is not an IPv4 address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_compares_in_its_own_unit() {
        for (figure, text, value, holds, shown) in [
            (Figure::Throughput, ">= 5 Mbit/s", Some(5.5e6), true, "5.50 Mbit/s, asked for: >= 5 Mbit/s"),
            (Figure::Throughput, ">= 6 Mbit/s", Some(5.5e6), false, "5.50 Mbit/s"),
            (Figure::Latency, "<= 20 ms", Some(0.0195), true, "19.50 ms"),
            (Figure::Latency, "<= 20 ms", None, false, "nothing passes"),
            (Figure::Loss, "<= 1 %", Some(1.0), true, "1 %"),
            (Figure::LargestFrame, "= 1400 bytes", Some(1400.0), true, "1400 bytes"),
            (Figure::SeenOnWire, "= 0 packets", Some(2.0), false, "2 packets"),
        ] {
            let measured = Bound::parse(figure, text).unwrap().compare(value);
            assert_eq!(measured.holds, holds, "{text} {value:?}");
            assert!(measured.to_string().starts_with(shown), "{measured}");
        }
    }

    #[test]
    fn what_is_no_bound_is_told_with_the_units_that_there_are() {
        for text in [
            "5 Mbit/s",
            "> 5 Mbit/s",
            ">= x Mbit/s",
            ">= 5 ms",
            ">= 5",
            ">= -1 Mbit/s",
            ">= inf bit/s",
            "= 1 bit/s x",
        ] {
            let said = Bound::parse(Figure::Throughput, text).unwrap_err();
            assert!(said.contains(text) && said.contains("Gbit/s"), "{said}");
        }
    }

    #[test]
    fn the_recorder_s_last_words_are_read() {
        let said = ["listening on eth0", "3 packets captured", "3 packets received by filter"];
        assert_eq!(captured(said.into_iter()).unwrap(), 3.0);
        assert_eq!(captured(["1 packet captured"].into_iter()).unwrap(), 1.0);
        assert!(captured(["tcpdump: syntax error"].into_iter()).is_err());
    }
}
