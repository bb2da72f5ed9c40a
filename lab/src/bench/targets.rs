//! tund's performance targets: ratios within one run, never absolute figures.

use super::peer::Peer;
use super::results::{Metric, Results};
use Bound::{AtLeast, AtMost};
use Yardstick::{Largest, Own, Smallest, To};

const AES: &str = "tund-tun-aes";
const CHACHA: &str = "tund-tun-chacha";

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Yardstick {
    /// The same figure of another peer.
    To(&'static str),
    /// The largest of the rivals' figures.
    Largest,
    /// The smallest of the rivals' figures.
    Smallest,
    /// Nothing: the figure itself is bounded, in its own unit.
    Own,
}

/// The required range.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A peer's figure, what it is compared with, and the bound.
#[derive(Debug, Clone, Copy)]
struct Target(Metric, &'static str, Yardstick, Bound);

/// For streams, all but a single one way must come within a quarter of what that must reach.
const TARGETS: [Target; 45] = [
    Target(Metric::TcpOne, AES, To("openvpn"), AtLeast(14.0)),
    Target(Metric::TcpOne, AES, To("boringtun"), AtLeast(7.0)),
    Target(Metric::TcpOne, AES, To("quincy"), AtLeast(5.0)),
    Target(Metric::TcpOne, AES, To("wireguard-go"), AtLeast(2.5)),
    Target(Metric::TcpOne, AES, To("tund-plain"), AtLeast(4.0)),
    Target(Metric::TcpOne, CHACHA, To("boringtun"), AtLeast(5.0)),
    Target(Metric::TcpFour, AES, To("openvpn"), AtLeast(10.5)),
    Target(Metric::TcpFour, AES, To("boringtun"), AtLeast(5.25)),
    Target(Metric::TcpFour, AES, To("quincy"), AtLeast(3.75)),
    Target(Metric::TcpFour, AES, To("wireguard-go"), AtLeast(1.875)),
    Target(Metric::TcpFour, AES, To("tund-plain"), AtLeast(3.0)),
    Target(Metric::TcpFour, CHACHA, To("boringtun"), AtLeast(3.75)),
    Target(Metric::TcpReverse, AES, To("openvpn"), AtLeast(10.5)),
    Target(Metric::TcpReverse, AES, To("boringtun"), AtLeast(5.25)),
    Target(Metric::TcpReverse, AES, To("quincy"), AtLeast(3.75)),
    Target(Metric::TcpReverse, AES, To("wireguard-go"), AtLeast(1.875)),
    Target(Metric::TcpReverse, AES, To("tund-plain"), AtLeast(3.0)),
    Target(Metric::TcpReverse, CHACHA, To("boringtun"), AtLeast(3.75)),
    Target(Metric::TcpBoth, AES, To("openvpn"), AtLeast(10.5)),
    Target(Metric::TcpBoth, AES, To("boringtun"), AtLeast(5.25)),
    Target(Metric::TcpBoth, AES, To("quincy"), AtLeast(3.75)),
    Target(Metric::TcpBoth, AES, To("wireguard-go"), AtLeast(1.875)),
    Target(Metric::TcpBoth, AES, To("tund-plain"), AtLeast(3.0)),
    Target(Metric::TcpBoth, CHACHA, To("boringtun"), AtLeast(3.75)),
    Target(Metric::TcpOne, AES, To("tincr"), AtLeast(1.7)),
    Target(Metric::TcpBoth, AES, To("tincr"), AtLeast(1.5)),
    Target(Metric::TcpOne, "tund-tap-aes", To("tincr-tap"), AtLeast(4.0)),
    Target(Metric::TcpOne, "tund-tap-aes", To(AES), AtLeast(0.85)),
    Target(Metric::TcpOne, "tund-static-aes", To(AES), AtLeast(0.9)),
    Target(Metric::TcpOne, "tund-static-chacha", To(CHACHA), AtLeast(0.9)),
    Target(Metric::TcpOne, "tund-tcp", To("openvpn-tcp"), AtLeast(8.0)),
    Target(Metric::TcpOne, "tund-tcp", To("ssh"), AtLeast(2.0)),
    Target(Metric::TcpOne, "tund-tcp", To(AES), AtLeast(0.7)),
    Target(Metric::MachineCpu, "tund-tcp", To(AES), AtMost(1.0)),
    Target(Metric::TcpFour, "tund-lanes", To(AES), AtLeast(0.95)),
    Target(Metric::MachineCpu, "tund-lanes", To(AES), AtMost(1.05)),
    Target(Metric::MachineCpu, AES, To("boringtun"), AtMost(0.16)),
    Target(Metric::MachineCpu, AES, To("tincr"), AtMost(0.6)),
    Target(Metric::UdpSmall, AES, Largest, AtLeast(2.0)),
    Target(Metric::UdpLarge, AES, Largest, AtLeast(2.8)),
    Target(Metric::IdleMedian, AES, Smallest, AtMost(1.0)),
    Target(Metric::IdleTail, AES, Smallest, AtMost(1.0)),
    Target(Metric::LoadedMedian, AES, Smallest, AtMost(0.6)),
    Target(Metric::LoadedTail, AES, Own, AtMost(5000.0)),
    // What both processes share counts once.
    Target(Metric::Proportional, AES, Own, AtMost(16.0)),
];

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The figure and its yardstick.
    pub what: String,
    /// The bound, such as `≥ 12`.
    pub bound: String,
    /// The result: a ratio or a figure, or why there is none.
    pub reached: Result<f64, String>,
    /// Whether the bound holds; `None` if an optional rival is absent.
    pub pass: Option<bool>,
}

/// Judges every target whose figures were requested.
pub fn judge(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().filter_map(|target| target.judge(results)).collect()
}

impl Target {
    fn judge(&self, results: &Results) -> Option<Verdict> {
        let Self(metric, peer, against, bound) = *self;
        let against = match against {
            To(other) => format!(" / {other}"),
            Largest | Smallest => " / the best peer".to_owned(),
            Own => String::new(),
        };
        let what = format!("{}: {peer}{against}", metric.title());
        let reached = self.reached(results).transpose()?;
        let (bound, good): (_, &dyn Fn(f64) -> bool) = match bound {
            AtLeast(least) => (format!("≥ {least}"), &move |reached| reached >= least),
            AtMost(most) => (format!("≤ {most}"), &move |reached| reached <= most),
        };
        let pass = match (&self.2, &reached) {
            (To(other), Err(_)) if results.absence(other).is_some() => None,
            (_, reached) => Some(reached.as_ref().is_ok_and(|reached| good(*reached))),
        };
        Some(Verdict { what, bound, reached, pass })
    }

    /// The ratio or figure; `None` if a part of it was not requested.
    fn reached(&self, results: &Results) -> Result<Option<f64>, String> {
        let Self(metric, peer, against, _) = *self;
        let of = |peer| median(results, peer, metric);
        let Some(own) = of(peer)? else { return Ok(None) };
        let rivals = || -> Result<Option<Vec<f64>>, String> {
            let here = Peer::rivals().filter(|peer| results.absence(peer.name).is_none());
            here.map(|peer| of(peer.name)).collect()
        };
        let yardstick = match against {
            Own => Some(1.0),
            To(other) => of(other)?,
            Largest => rivals()?.map(|all| all.into_iter().fold(0.0, f64::max)),
            Smallest => rivals()?.map(|all| all.into_iter().fold(f64::INFINITY, f64::min)),
        };
        Ok(yardstick.map(|yardstick| own / yardstick))
    }
}

fn median(results: &Results, peer: &'static str, metric: Metric) -> Result<Option<f64>, String> {
    let why = results.failure(peer).or(results.absence(peer));
    match (results.median(peer, metric), why) {
        (Some(median), _) => Ok(Some(median)),
        (None, None) => Ok(None),
        (None, Some(reason)) => Err(format!("{peer}: {}", reason.lines().next().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All peers have the same figures, tund `factor` times those.
    fn results(factor: f64, without: &str) -> Results {
        let mut results = Results::default();
        for peer in Peer::all().filter(|peer| peer.name != without) {
            let value = if peer.is_tund() { 10.0 * factor } else { 10.0 };
            for metric in Metric::ALL {
                results.add(peer.name, metric, value);
            }
        }
        results
    }

    fn find<'a>(verdicts: &'a [Verdict], what: &str) -> &'a Verdict {
        verdicts.iter().find(|verdict| verdict.what == what).unwrap()
    }

    #[test]
    fn targets_name_peers_that_are_measured_for_them() {
        let needed: Vec<_> = Peer::needed().map(|peer| peer.name).collect();
        for Target(_, peer, against, _) in TARGETS {
            assert!(needed.contains(&peer), "{peer}");
            assert!(!matches!(against, To(other) if !needed.contains(&other)), "{against:?}");
        }
    }

    #[test]
    fn a_ratio_passes_at_its_bound_and_fails_below() {
        let what = "TCP ×1, Mbit/s: tund-tun-aes / openvpn";
        let verdicts = judge(&results(14.0, ""));
        let verdict = find(&verdicts, what);
        assert!(verdict.pass == Some(true) && verdict.bound == "≥ 14", "{verdict:?}");
        assert_eq!(verdict.reached, Ok(14.0));
        assert_eq!(find(&judge(&results(13.9, "")), what).pass, Some(false));
    }

    #[test]
    fn less_is_better_where_it_should_be() {
        let what = "machine CPU s/GB: tund-tun-aes / boringtun";
        assert_eq!(find(&judge(&results(0.1, "")), what).pass, Some(true));
        assert_eq!(find(&judge(&results(0.2, "")), what).pass, Some(false));
    }

    #[test]
    fn an_absent_peer_is_a_failed_row_that_says_why() {
        let mut results = results(100.0, "quincy");
        results.fail("quincy", "not installed\nmore");
        let verdicts = judge(&results);
        let verdict = find(&verdicts, "TCP ×1, Mbit/s: tund-tun-aes / quincy");
        assert_eq!((verdict.pass, &verdict.reached), (Some(false), &Err("quincy: not installed".to_owned())));
        let verdict = find(&verdicts, "UDP 64 B, kpps: tund-tun-aes / the best peer");
        assert_eq!(verdict.pass, Some(false), "a best peer of those that are left is no best peer");
    }

    #[test]
    fn one_that_does_not_have_to_be_here_is_left_out_of_the_judgement() {
        let mut results = results(100.0, "tincr");
        results.miss("tincr", "tincr-tincd is not on the PATH");
        let verdicts = judge(&results);
        let verdict = find(&verdicts, "TCP ×1, Mbit/s: tund-tun-aes / tincr");
        assert_eq!(verdict.pass, None);
        assert_eq!(verdict.reached, Err("tincr: tincr-tincd is not on the PATH".to_owned()));
        assert_eq!(find(&verdicts, "UDP 64 B, kpps: tund-tun-aes / the best peer").pass, Some(true));
    }
}
