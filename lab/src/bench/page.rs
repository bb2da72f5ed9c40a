//! One page with a plot for each figure: HTML and SVG, no script, nothing from elsewhere, light and dark.

use std::fmt::Write as _;

use super::Circumstances;
use super::peer::Peer;
use super::report::{GROUPS, head};
use super::results::{Metric, Results, percentile};

/// Widths of the names, of the bars and of the whole, and the height of a row, in SVG's units.
const NAMES: f64 = 170.0;
const BARS: f64 = 440.0;
const WHOLE: f64 = 760.0;
const ROW: f64 = 24.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #ffffff; --text: #1d2329; --faint: #5c6670; --rule: #d5dade;
  --other: #8fa3b5; --own: #0b6e4f; --spread: #1d2329; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181c; --text: #e4e8eb; --faint: #98a3ad; --rule: #343b42;
    --other: #5b6f82; --own: #3fbf8f; --spread: #e4e8eb; }
}
body { background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 800px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } figure { margin: 2rem 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--text); font-size: 13px; }
.own { fill: var(--own); } .other { fill: var(--other); } .spread { stroke: var(--spread); stroke-width: 1.5; }
.axis { stroke: var(--rule); } p, li, .faint { color: var(--faint); } dt { font-weight: 600; }
dd { margin: 0 0 .4rem 1.2rem; color: var(--faint); }";

/// The page. It is well-formed XML as well.
pub fn html(run: &Circumstances, peers: &[Peer], results: &Results) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width\" />\n<title>tund compared</title>\n\
         <style>{STYLE}\n</style>\n</head>\n<body>\n<h1>tund beside other tunnels</h1>\n<p>{}</p>\n\
         <p>A bar is the median, the line on it the spread. Where less is better, the title says so. What the kernel \
         carries without encryption may be longer than its bar: its bar ends in the open.</p>\n",
        escape(&head(run))
    );
    for metric in GROUPS.into_iter().flatten() {
        if peers.iter().any(|peer| !results.values(*peer, *metric).is_empty()) {
            page += &plot(*metric, peers, results);
        }
    }
    page += "<h2>What is compared</h2>\n<dl>\n";
    for peer in peers {
        let about = match results.failure(*peer) {
            Some(why) => format!("{}; {}", peer.about(), why.lines().next().unwrap_or_default()),
            None => peer.about().to_owned(),
        };
        let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(peer.name()), escape(&about));
    }
    page + "</dl>\n</body>\n</html>\n"
}

/// A figure's plot: a row for each peer that has it.
fn plot(metric: Metric, peers: &[Peer], results: &Results) -> String {
    let rows: Vec<(Peer, [f64; 3])> = peers
        .iter()
        .filter_map(|peer| {
            let values = results.values(*peer, metric);
            let of = |percent| percentile(values, percent);
            Some((*peer, [of(0)?, of(50)?, of(100)?]))
        })
        .collect();
    let most = |sealed: bool| {
        let chosen = rows.iter().filter(|(peer, _)| !sealed || peer.is_sealed());
        chosen.map(|(_, [.., most])| *most).fold(0.0, f64::max)
    };
    // The kernel's plain tunnels would press all others together.
    let scale = [most(true), most(false), 1.0].into_iter().find(|most| *most > 0.0).unwrap_or(1.0);
    let height = ROW * rows.len() as f64 + 8.0;
    let better = if metric.is_better_small() { " (less is better)" } else { "" };
    let mut text = format!(
        "<figure>\n<figcaption>{}{better}</figcaption>\n<svg viewBox=\"0 0 {WHOLE} {height}\" role=\"img\" \
         aria-label=\"{}\">\n<line class=\"axis\" x1=\"{NAMES}\" y1=\"0\" x2=\"{NAMES}\" y2=\"{height}\" />\n",
        escape(metric.title()),
        escape(metric.title())
    );
    for (number, (peer, values)) in rows.iter().enumerate() {
        text += &row(*peer, *values, metric, scale, 4.0 + ROW * number as f64);
    }
    text + "</svg>\n</figure>\n"
}

fn row(peer: Peer, [least, median, most]: [f64; 3], metric: Metric, scale: f64, top: f64) -> String {
    let at = |value: f64| NAMES + BARS * (value / scale).min(1.0);
    let class = if matches!(peer, Peer::Tund(_)) { "own" } else { "other" };
    let (middle, base) = (top + ROW / 2.0, top + ROW / 2.0 + 4.5);
    let mut text = format!(
        "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" />",
        NAMES - 8.0,
        escape(peer.name()),
        top + 3.0,
        at(median) - NAMES,
        ROW - 6.0
    );
    let label = if most > scale {
        // It ends in the open.
        let _ = write!(text, "<text x=\"{:.1}\" y=\"{base:.1}\">»</text>", NAMES + BARS + 3.0);
        NAMES + BARS + 16.0
    } else {
        if most > least {
            let _ = write!(
                text,
                "<line class=\"spread\" x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" />",
                at(least),
                at(most)
            );
        }
        at(most) + 8.0
    };
    let _ = writeln!(
        text,
        "<text x=\"{label:.1}\" y=\"{base:.1}\">{median:.digits$}</text>",
        digits = metric.digits()
    );
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::peer::Form;
    use super::*;

    fn page() -> String {
        let peers = [Peer::Veth, Peer::OpenVpn, Peer::Gre, Peer::Tund(Form::TunAes)];
        let mut results = Results::default();
        for (peer, value) in [(peers[0], 70_000.0), (peers[1], 900.0), (peers[3], 11_000.0)] {
            results.add(peer, Metric::TcpOne, value);
            results.add(peer, Metric::TcpOne, value * 1.1);
        }
        results.fail(Peer::Gre, "Error: <unknown> device & type");
        let run = Circumstances { machine: "m".into(), date: "d".into(), rounds: 2, stolen: 0.0 };
        html(&run, &peers, &results)
    }

    #[test]
    fn every_tag_is_closed_and_text_is_escaped() {
        let page = page();
        let mut open = Vec::new();
        for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "in {tag}");
            } else if !tag.ends_with('/') && !tag.starts_with('!') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(page.contains("Error: &lt;unknown&gt; device &amp; type"));
    }

    #[test]
    fn what_is_measured_is_plotted_and_nothing_comes_from_elsewhere() {
        let page = page();
        assert_eq!(page.matches("<figure>").count(), 1);
        assert_eq!(page.matches("class=\"own\"").count(), 1);
        assert!(page.contains("»"), "the bare path is longer than its bar");
        assert!(page.contains("prefers-color-scheme: dark"));
        for part in ["<script", "src=", "<link", "url("] {
            assert!(!page.contains(part), "{part}");
        }
    }
}
