//! The tables: for a terminal, as Markdown, as JSON.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::Circumstances;
use super::peer::Peer;
use super::results::{Metric, Results, percentile};
use super::targets::Verdict;

/// Now, in UTC.
pub fn date() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Formats tables with columns as wide as the longest cell.
pub fn terminal(run: &Circumstances, peers: &[Peer], results: &Results, verdicts: &[Verdict]) -> String {
    let mut text = format!("\n{}\n\n", head(run));
    for group in GROUPS {
        text += &aligned(&figures(group, peers, results));
        text.push('\n');
    }
    text += &notes(peers, results);
    if !verdicts.is_empty() {
        text.push('\n');
        text += &aligned(&judgements(verdicts));
    }
    text
}

/// Formats tables for a document.
pub fn markdown(run: &Circumstances, peers: &[Peer], results: &Results, verdicts: &[Verdict]) -> String {
    let mut text = format!("{}\n\n", head(run));
    for peer in peers {
        let _ = writeln!(text, "- `{}`: {}", peer.name, peer.rival.about);
    }
    text.push('\n');
    for group in GROUPS {
        text += &piped(&figures(group, peers, results));
        text.push('\n');
    }
    text += &notes(peers, results);
    if !verdicts.is_empty() {
        text.push('\n');
        text += &piped(&judgements(verdicts));
    }
    text
}

/// Formats every value of every round.
pub fn json(run: &Circumstances, peers: &[Peer], results: &Results, verdicts: &[Verdict]) -> String {
    let peers = peers.iter().map(|peer| {
        let mut figures = Map::new();
        for metric in Metric::ALL {
            let values = results.values(peer.name, metric);
            if !values.is_empty() {
                let median = percentile(values, 50);
                figures.insert(metric.key().to_owned(), json!({ "median": median, "values": values }));
            }
        }
        json!({
            "name": peer.name,
            "about": peer.rival.about,
            "failure": results.failure(peer.name),
            "absent": results.absence(peer.name),
            "figures": Value::Object(figures),
        })
    });
    let targets = verdicts.iter().map(|verdict| {
        let (reached, why) = match &verdict.reached {
            Ok(reached) => (Some(*reached), None),
            Err(why) => (None, Some(why)),
        };
        json!({
            "what": verdict.what, "bound": verdict.bound, "reached": reached, "why": why, "pass": verdict.pass,
        })
    });
    let all = json!({
        "machine": run.machine,
        "date": run.date,
        "rounds": run.rounds,
        "stolen-percent": run.stolen,
        "peers": peers.collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

pub fn head(run: &Circumstances) -> String {
    format!(
        "{}, {}. Median of {} interleaved rounds (least, most); {:.1} % of a processor was stolen meanwhile.",
        run.date, run.machine, run.rounds, run.stolen
    )
}

/// Figures that belong together; each group is a table.
pub const GROUPS: [&[Metric]; 4] = [
    &[Metric::TcpOne, Metric::TcpFour, Metric::TcpReverse, Metric::TcpBoth],
    &[Metric::UdpSmall, Metric::UdpLarge, Metric::MachineCpu, Metric::OwnCpu],
    &[Metric::IdleMedian, Metric::IdleTail, Metric::LoadedMedian, Metric::LoadedTail],
    &[
        Metric::Resident,
        Metric::Proportional,
        Metric::FirstPing,
        Metric::WireBytes,
        Metric::WirePackets,
        Metric::LargestWhole,
        Metric::Telltale,
    ],
];

/// One row per peer, one column per measured figure.
fn figures(group: &[Metric], peers: &[Peer], results: &Results) -> Vec<Vec<String>> {
    let known = |metric: &Metric| peers.iter().any(|peer| !results.values(peer.name, *metric).is_empty());
    let metrics: Vec<Metric> = group.iter().copied().filter(known).collect();
    let head = std::iter::once(String::new()).chain(metrics.iter().map(|metric| metric.title().to_owned()));
    let mut rows = vec![head.collect()];
    for peer in peers {
        let cells = metrics.iter().map(|metric| cell(results.values(peer.name, *metric), *metric));
        rows.push(std::iter::once(peer.name.to_owned()).chain(cells).collect());
    }
    if metrics.is_empty() { Vec::new() } else { rows }
}

fn cell(values: &[f64], metric: Metric) -> String {
    let digits = metric.digits();
    match [percentile(values, 50), percentile(values, 0), percentile(values, 100)] {
        [Some(median), Some(least), Some(most)] if values.len() > 1 => {
            format!("{median:.digits$} ({least:.digits$}, {most:.digits$})")
        }
        [Some(median), _, _] => format!("{median:.digits$}"),
        [None, _, _] => "–".to_owned(),
    }
}

/// Why figures are missing.
fn notes(peers: &[Peer], results: &Results) -> String {
    let mut text = String::new();
    for peer in peers {
        if let Some(why) = results.failure(peer.name) {
            let _ = writeln!(text, "{} failed: {why}", peer.name);
        }
        if let Some(lacks) = results.absence(peer.name) {
            let _ = writeln!(text, "{} is not here: {lacks}", peer.name);
        }
    }
    text
}

fn judgements(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let row = |verdict: &Verdict| {
        let reached = match &verdict.reached {
            Ok(reached) => format!("{reached:.2}"),
            Err(why) => why.clone(),
        };
        let pass = verdict.pass.map_or("not here", |pass| if pass { "pass" } else { "FAIL" });
        vec![verdict.what.clone(), verdict.bound.clone(), pass.to_owned(), reached]
    };
    let head = ["target", "bound", "", "reached"].map(str::to_owned).to_vec();
    std::iter::once(head).chain(verdicts.iter().map(row)).collect()
}

fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<width$}  ", width = width(column));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn piped(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|---{}|", "|--:".repeat(row.len().saturating_sub(1)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::targets::judge;
    use super::*;

    fn sample() -> (Circumstances, [Peer; 4], Results) {
        let peers = ["veth", "openvpn", "tund-tun-aes", "tincr"].map(|name| Peer::named(name).unwrap());
        let mut results = Results::default();
        for (peer, values) in [("veth", [9000.0, 8000.0, 9500.0]), ("tund-tun-aes", [5900.0, 6000.0, 6100.0])]
        {
            values.into_iter().for_each(|value| results.add(peer, Metric::TcpOne, value));
        }
        results.fail("openvpn", "openvpn is not installed");
        results.miss("tincr", "tincr-tincd is not on the PATH");
        let run = Circumstances { machine: "m".into(), date: "d".into(), rounds: 3, stolen: 0.0 };
        (run, peers, results)
    }

    #[test]
    fn tables_show_medians_spread_and_why_a_peer_is_missing() {
        let (run, peers, results) = sample();
        let verdicts = judge(&results);
        for table in [terminal, markdown] {
            let text = table(&run, &peers, &results, &verdicts);
            for part in [
                "6000 (5900, 6100)",
                "openvpn failed: openvpn is not installed",
                "tincr is not here: tincr-tincd is not on the PATH",
                "FAIL",
                "not here",
                "≥ 14",
            ] {
                assert!(text.contains(part), "{part:?} is not in\n{text}");
            }
        }
    }

    #[test]
    fn json_holds_every_value() {
        let (run, peers, results) = sample();
        let value: Value = serde_json::from_str(&json(&run, &peers, &results, &judge(&results))).unwrap();
        assert_eq!(value["peers"][0]["figures"]["tcp-1"]["values"], json!([9000.0, 8000.0, 9500.0]));
        assert_eq!(value["peers"][2]["figures"]["tcp-1"]["median"], json!(6000.0));
        assert_eq!(value["peers"][1]["failure"], json!("openvpn is not installed"));
        assert_eq!(value["peers"][3]["absent"], json!("tincr-tincd is not on the PATH"));
        assert_eq!(value["targets"][0]["pass"], json!(false));
    }
}
