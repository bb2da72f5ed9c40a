//! The result of a scenario: as JSON for programs, as a page for people.

use std::fmt::Write as _;

use serde::Serialize;
use tund_lab::scenario::Measured;

use crate::html::{document, escape};

/// Widths of the plot's bars and of the whole, and height of a row, in SVG units.
const BARS: f64 = 460.0;
const WHOLE: f64 = 760.0;
const ROW: f64 = 30.0;

/// The result of a scenario.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name, or its file.
    pub scenario: String,
    /// Whether everything held.
    pub passed: bool,
    /// The phases played.
    pub phases: Vec<Played>,
    /// What failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A phase.
#[derive(Debug, Serialize)]
pub struct Played {
    /// What it shows.
    pub say: String,
    /// Whether something broke in it.
    pub failure: bool,
    /// The checks that held.
    pub checks: Vec<Held>,
}

/// A check that held.
#[derive(Debug, Serialize)]
pub struct Held {
    /// What it shows.
    pub say: String,
    /// The host.
    pub on: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

impl Outcome {
    /// Formats the page, with the scenario's title and drawing.
    pub fn page(&self, title: &str, drawing: &str) -> String {
        let mut body = format!("<h1>{}</h1>\n<pre>{}</pre>\n", escape(title), escape(drawing));
        let verdict = if self.passed { "Everything held." } else { "Something did not hold." };
        let _ = writeln!(body, "<p>{}: {verdict}</p>", escape(&self.scenario));
        for phase in &self.phases {
            let breaks = if phase.failure { "What breaks: " } else { "" };
            let _ = writeln!(body, "<h2>{breaks}{}</h2>\n<table>", escape(&phase.say));
            for check in &phase.checks {
                let Held { say, on, seconds, .. } = check;
                let (say, on) = (escape(say), escape(on));
                let _ =
                    writeln!(body, "<tr><td>ok</td><td>{say}</td><td>{on}</td><td>{seconds:.1} s</td></tr>");
            }
            body += "</table>\n";
        }
        if let Some(error) = &self.error {
            let _ = writeln!(body, "<p class=\"bad\">What did not hold:</p>\n<pre>{}</pre>", escape(error));
        }
        body += &self.plots();
        document(title, &body)
    }

    /// Plots each figure with its bound.
    fn plots(&self) -> String {
        let checks = self.phases.iter().flat_map(|phase| &phase.checks);
        let measured: Vec<_> =
            checks.filter_map(|check| Some((&check.say, check.measured.as_ref()?))).collect();
        if measured.is_empty() {
            return String::new();
        }
        let height = 2.0 * ROW * measured.len() as f64;
        let mut text = format!(
            "<figure>\n<figcaption>What was measured; the line is the bound</figcaption>\n\
             <svg viewBox=\"0 0 {WHOLE} {height}\" role=\"img\" aria-label=\"what was measured\">\n"
        );
        for (number, (say, measured)) in measured.into_iter().enumerate() {
            text += &plot(say, measured, 2.0 * ROW * number as f64);
        }
        text + "</svg>\n</figure>\n"
    }
}

fn plot(say: &str, measured: &Measured, top: f64) -> String {
    let value = measured.value.unwrap_or_default();
    let most = value.max(measured.bound).max(f64::MIN_POSITIVE) * 1.1;
    let at = |value: f64| BARS * value / most;
    let (base, bar, low) = (top + ROW - 8.0, top + ROW, top + 2.0 * ROW - 12.0);
    format!(
        "<text x=\"0\" y=\"{base:.1}\">{}</text>\
         <rect class=\"own\" x=\"0\" y=\"{bar:.1}\" width=\"{:.1}\" height=\"18\" />\
         <line class=\"spread\" x1=\"{2:.1}\" y1=\"{3:.1}\" x2=\"{2:.1}\" y2=\"{4:.1}\" />\
         <text x=\"{5:.1}\" y=\"{low:.1}\">{6}</text>\n",
        escape(say),
        at(value),
        at(measured.bound),
        bar - 3.0,
        bar + 21.0,
        BARS + 10.0,
        escape(&measured.to_string())
    )
}

#[cfg(test)]
mod tests {
    use tund_lab::scenario::{Bound, Figure};

    use super::*;
    use crate::html::assert_sound;

    #[test]
    fn the_page_has_the_drawing_each_check_and_a_plot_of_each_figure() {
        let bound = Bound::parse(Figure::Throughput, ">= 5 Mbit/s").unwrap();
        let held = |say: &str, measured| Held { say: say.into(), on: "a".into(), seconds: 0.25, measured };
        let checks = vec![held("a < b", None), held("fast", Some(bound.compare(Some(10e6))))];
        let outcome = Outcome {
            scenario: "mine.toml".into(),
            passed: false,
            phases: vec![Played { say: "it works".into(), failure: false, checks }],
            error: Some("b: <log>".into()),
        };
        let page = outcome.page("Two & more", "a -- b");
        assert_sound(&page);
        for part in ["<h1>Two &amp; more</h1>", "<pre>a -- b</pre>", "<td>a &lt; b</td>", "b: &lt;log&gt;"] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        // The bar ends at 10 of 11, the bound at 5.
        assert!(page.contains("width=\"418.2\"") && page.contains("x1=\"209.1\""), "{page}");
        assert!(page.contains("10 Mbit/s, asked for: &gt;= 5 Mbit/s"), "{page}");
    }
}
