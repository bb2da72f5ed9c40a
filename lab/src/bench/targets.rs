//! What tund promises about its speed: ratios within one run, never absolute figures.

use super::peer::{Form, Peer};
use super::results::{Metric, Results};

const AES: Peer = Peer::Tund(Form::TunAes);
const CHACHA: Peer = Peer::Tund(Form::TunChaCha);

/// What a figure is compared with.
#[derive(Debug, Clone, PartialEq)]
enum Yardstick {
    /// The same figure of another peer.
    Peer(Peer),
    /// The largest of these peers' figures.
    Largest(&'static [Peer]),
    /// The smallest of these peers' figures.
    Smallest(&'static [Peer]),
    /// Nothing: the figure itself is bounded, in its own unit.
    Own,
}

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    AtMost,
}

struct Target {
    what: String,
    peer: Peer,
    metric: Metric,
    against: Yardstick,
    bound: Bound,
    value: f64,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The figure and what it is compared with.
    pub what: String,
    /// The bound, such as `≥ 12`.
    pub bound: String,
    /// What was reached: a ratio or a figure, or why there is none.
    pub reached: Result<f64, String>,
    /// Whether the bound holds.
    pub pass: bool,
}

/// Every target, judged, but for those whose figures nobody asked for.
pub fn judge(results: &Results) -> Vec<Verdict> {
    targets().iter().filter_map(|target| target.judge(results)).collect()
}

fn targets() -> Vec<Target> {
    let mut all = Vec::new();
    let mut ratio = |metric: Metric, peer: Peer, against: Peer, value: f64| {
        let what = format!("{}: {} / {}", metric.title(), peer.name(), against.name());
        all.push(Target {
            what,
            peer,
            metric,
            against: Yardstick::Peer(against),
            bound: Bound::AtLeast,
            value,
        });
    };
    let pattern = [
        (Metric::TcpOne, 1.0),
        // Within a quarter of what one stream has to reach.
        (Metric::TcpFour, 0.75),
        (Metric::TcpReverse, 0.75),
        (Metric::TcpBoth, 0.75),
    ];
    for (metric, share) in pattern {
        ratio(metric, AES, Peer::OpenVpn, 12.0 * share);
        ratio(metric, AES, Peer::BoringTun, 9.0 * share);
        ratio(metric, AES, Peer::Quincy, 5.0 * share);
        ratio(metric, AES, Peer::Tund(Form::Plain), 4.0 * share);
        ratio(metric, CHACHA, Peer::BoringTun, 5.0 * share);
    }
    ratio(Metric::TcpOne, Peer::Tund(Form::TapAes), AES, 0.85);
    ratio(Metric::TcpOne, Peer::Tund(Form::StaticAes), AES, 0.9);
    ratio(Metric::TcpOne, Peer::Tund(Form::StaticChaCha), CHACHA, 0.9);

    let mut other = |metric: Metric, against: Yardstick, bound: Bound, value: f64| {
        let name = match &against {
            Yardstick::Peer(peer) => format!(" / {}", peer.name()),
            Yardstick::Largest(_) | Yardstick::Smallest(_) => " / the best peer".to_owned(),
            Yardstick::Own => String::new(),
        };
        let what = format!("{}: {}{name}", metric.title(), AES.name());
        all.push(Target { what, peer: AES, metric, against, bound, value });
    };
    other(Metric::MachineCpu, Yardstick::Peer(Peer::BoringTun), Bound::AtMost, 0.16);
    other(Metric::UdpSmall, Yardstick::Largest(&Peer::RIVALS), Bound::AtLeast, 2.0);
    other(Metric::UdpLarge, Yardstick::Largest(&Peer::RIVALS), Bound::AtLeast, 3.0);
    for metric in [Metric::IdleMedian, Metric::IdleTail, Metric::LoadedMedian] {
        other(metric, Yardstick::Smallest(&Peer::RIVALS), Bound::AtMost, 1.0);
    }
    other(Metric::LoadedTail, Yardstick::Own, Bound::AtMost, 5000.0);
    other(Metric::Resident, Yardstick::Own, Bound::AtMost, 32.0);
    all
}

impl Target {
    fn judge(&self, results: &Results) -> Option<Verdict> {
        let reached = self.reached(results).transpose()?;
        let (sign, pass) = match self.bound {
            Bound::AtLeast => ("≥", reached.as_ref().is_ok_and(|reached| *reached >= self.value)),
            Bound::AtMost => ("≤", reached.as_ref().is_ok_and(|reached| *reached <= self.value)),
        };
        let number = (self.value * 100.0).round() / 100.0;
        Some(Verdict { what: self.what.clone(), bound: format!("{sign} {number}"), reached, pass })
    }

    /// The ratio or figure; nothing where a part of it was not asked for.
    fn reached(&self, results: &Results) -> Result<Option<f64>, String> {
        let Some(own) = self.median(results, self.peer)? else { return Ok(None) };
        let of = |peers: &[Peer]| -> Result<Option<Vec<f64>>, String> {
            peers.iter().map(|peer| self.median(results, *peer)).collect()
        };
        let yardstick = match &self.against {
            Yardstick::Own => Some(1.0),
            Yardstick::Peer(peer) => self.median(results, *peer)?,
            Yardstick::Largest(peers) => of(peers)?.map(|all| all.into_iter().fold(0.0, f64::max)),
            Yardstick::Smallest(peers) => of(peers)?.map(|all| all.into_iter().fold(f64::INFINITY, f64::min)),
        };
        Ok(yardstick.map(|yardstick| own / yardstick))
    }

    fn median(&self, results: &Results, peer: Peer) -> Result<Option<f64>, String> {
        match (results.median(peer, self.metric), results.failure(peer)) {
            (Some(median), _) => Ok(Some(median)),
            (None, None) => Ok(None),
            (None, Some(reason)) => {
                Err(format!("{}: {}", peer.name(), reason.lines().next().unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every peer has the same figures, tund `factor` times those.
    fn results(factor: f64, without: Option<Peer>) -> Results {
        let mut results = Results::default();
        for peer in Peer::ALL.into_iter().filter(|peer| Some(*peer) != without) {
            let value = if matches!(peer, Peer::Tund(_)) { 10.0 * factor } else { 10.0 };
            for metric in Metric::ALL {
                results.add(peer, metric, value);
            }
        }
        results
    }

    fn find<'a>(verdicts: &'a [Verdict], what: &str) -> &'a Verdict {
        verdicts.iter().find(|verdict| verdict.what == what).unwrap()
    }

    #[test]
    fn a_ratio_passes_at_its_bound_and_fails_below() {
        let what = "TCP ×1, Mbit/s: tund-tun-aes / openvpn";
        let verdicts = judge(&results(12.0, None));
        let verdict = find(&verdicts, what);
        assert!(verdict.pass && verdict.reached == Ok(12.0) && verdict.bound == "≥ 12", "{verdict:?}");
        assert!(!find(&judge(&results(11.9, None)), what).pass);
    }

    #[test]
    fn less_is_better_where_it_should_be() {
        let what = "machine CPU s/GB: tund-tun-aes / boringtun";
        assert!(find(&judge(&results(0.1, None)), what).pass);
        assert!(!find(&judge(&results(0.2, None)), what).pass);
    }

    #[test]
    fn an_absent_peer_is_a_failed_row_that_says_why() {
        let mut results = results(100.0, Some(Peer::Quincy));
        results.fail(Peer::Quincy, "not installed\nmore");
        let verdicts = judge(&results);
        let verdict = find(&verdicts, "TCP ×1, Mbit/s: tund-tun-aes / quincy");
        assert_eq!((verdict.pass, &verdict.reached), (false, &Err("quincy: not installed".to_owned())));
        let verdict = find(&verdicts, "UDP 64 B, kpps: tund-tun-aes / the best peer");
        assert!(!verdict.pass, "a best peer of those that are left is no best peer");
    }
}
