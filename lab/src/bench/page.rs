//! An HTML page with a plot for each figure.

use std::fmt::Write as _;

use super::Circumstances;
use super::peer::Peer;
use super::report::{GROUPS, head};
use super::results::{Metric, Results, percentile};
use crate::html::{document, escape};

/// Widths of names, bars and whole, and height of a row, in SVG units.
const NAMES: f64 = 170.0;
const BARS: f64 = 440.0;
const WHOLE: f64 = 760.0;
const ROW: f64 = 24.0;

/// Formats the page. It is also well-formed XML.
pub fn html(run: &Circumstances, peers: &[Peer], results: &Results) -> String {
    let mut page = format!(
        "<h1>tund beside other tunnels</h1>\n<p>{}</p>\n\
         <p>A bar is the median, the line on it the spread. Where less is better, the title says so. What the kernel \
         carries without encryption may be longer than its bar: its bar ends in the open.</p>\n",
        escape(&head(run))
    );
    for metric in GROUPS.into_iter().flatten() {
        if peers.iter().any(|peer| !results.values(peer.name, *metric).is_empty()) {
            page += &plot(*metric, peers, results);
        }
    }
    page += "<h2>What is compared</h2>\n<dl>\n";
    for peer in peers {
        let about = match results.failure(peer.name) {
            Some(why) => format!("{}; {}", peer.rival.about, why.lines().next().unwrap_or_default()),
            None => peer.rival.about.clone(),
        };
        let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(peer.name), escape(&about));
    }
    document("tund compared", &(page + "</dl>\n"))
}

/// Plots a figure: a row for each peer that has it.
fn plot(metric: Metric, peers: &[Peer], results: &Results) -> String {
    let rows: Vec<(Peer, [f64; 3])> = peers
        .iter()
        .filter_map(|peer| {
            let values = results.values(peer.name, metric);
            let of = |percent| percentile(values, percent);
            Some((*peer, [of(0)?, of(50)?, of(100)?]))
        })
        .collect();
    let most = |sealed: bool| {
        let chosen = rows.iter().filter(|(peer, _)| !sealed || !peer.rival.plain);
        chosen.map(|(_, [.., most])| *most).fold(0.0, f64::max)
    };
    // The kernel's plain tunnels would compress all other bars.
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
    let class = if peer.is_tund() { "own" } else { "other" };
    let (middle, base) = (top + ROW / 2.0, top + ROW / 2.0 + 4.5);
    let mut text = format!(
        "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" />",
        NAMES - 8.0,
        escape(peer.name),
        top + 3.0,
        at(median) - NAMES,
        ROW - 6.0
    );
    let label = if most > scale {
        // The bar is cut off.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::assert_sound;

    fn page() -> String {
        let peers = ["veth", "openvpn", "gre", "tund-tun-aes"].map(|name| Peer::named(name).unwrap());
        let mut results = Results::default();
        for (peer, value) in [("veth", 70_000.0), ("openvpn", 900.0), ("tund-tun-aes", 11_000.0)] {
            results.add(peer, Metric::TcpOne, value);
            results.add(peer, Metric::TcpOne, value * 1.1);
        }
        results.fail("gre", "Error: <unknown> device & type");
        let run = Circumstances { machine: "m".into(), date: "d".into(), rounds: 2, stolen: 0.0 };
        html(&run, &peers, &results)
    }

    #[test]
    fn every_tag_is_closed_and_text_is_escaped() {
        let page = page();
        assert_sound(&page);
        assert!(page.contains("Error: &lt;unknown&gt; device &amp; type"));
    }

    #[test]
    fn what_is_measured_is_plotted() {
        let page = page();
        assert_eq!(page.matches("<figure>").count(), 1);
        assert_eq!(page.matches("class=\"own\"").count(), 1);
        assert!(page.contains("»"), "the bare path is longer than its bar");
    }
}
