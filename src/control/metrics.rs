//! The status of links as OpenMetrics text.

use std::fmt::Write;

use crate::control::api::{Counters, State, Status};

/// A metric family: its name without the unit, type, unit and description.
struct Family(&'static str, Kind, Option<&'static str>, &'static str);

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Info,
}

/// One value, with its labels in addition to the link's name.
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: String,
}

/// Formats the text, with its end mark. A counter has every possible label value from the start, so that no series begins with a jump.
pub fn openmetrics(links: &[Status]) -> String {
    let mut out = Text { out: String::new(), links };
    let build = Family("tund_build", Kind::Info, None, "The running version of tund.");
    out.family(&build, |link| vec![labelled(&[("version", &link.version)], 1)]);
    let link = Family("tund_link", Kind::Info, None, "The kind of device and of keys of the link.");
    out.family(&link, |link| vec![labelled(&[("mode", &link.mode), ("keys", &link.keys)], 1)]);
    let up = Family("tund_link_up", Kind::Gauge, None, "Whether the peer answers and frames pass.");
    out.family(&up, |link| vec![labelled(&[], u8::from(link.state == State::Up))]);
    let help = "Conditions that hold now, by code.";
    out.family(&Family("tund_condition", Kind::Gauge, None, help), |link| {
        link.problems.iter().map(|problem| labelled(&[("code", &problem.code)], 1)).collect()
    });
    times(&mut out);
    let reload =
        Family("tund_config_last_reload_success", Kind::Gauge, None, "Whether the last reload succeeded.");
    out.family(&reload, |link| vec![labelled(&[], u8::from(link.reload_ok))]);
    let rtt = Family("tund_rtt", Kind::Gauge, Some("seconds"), "Round-trip time to the peer.");
    out.family(&rtt, |link| one(link.rtt));
    let help = "The largest UDP payload that passes to the peer.";
    out.family(&Family("tund_path_payload", Kind::Gauge, Some("bytes"), help), |link| one(link.budget));
    counters(&mut out);
    out.out.push_str("# EOF\n");
    out.out
}

fn times(out: &mut Text<'_>) {
    let gauge = |name, help| Family(name, Kind::Gauge, Some("seconds"), help);
    out.family(&gauge("tund_start_timestamp", "When tund started."), |link| one(Some(link.started)));
    let help = "When the link last came up or went down.";
    out.family(&gauge("tund_link_state_since_timestamp", help), |link| one(Some(link.since)));
    let help = "When the traffic keys in use were agreed on or generated.";
    out.family(&gauge("tund_keys_timestamp", help), |link| one(link.keys_since));
    let help = "When the configuration was last read.";
    out.family(&gauge("tund_config_last_load_timestamp", help), |link| one(Some(link.loaded)));
}

fn counters(out: &mut Text<'_>) {
    let counter = |name, unit, help| Family(name, Kind::Counter, unit, help);
    let frames = counter("tund_frames", None, "Frames that crossed the link.");
    out.both_ways(&frames, |counters| (counters.frames_sent, counters.frames_received));
    let bytes = counter("tund_frame", Some("bytes"), "Bytes of the frames that crossed the link.");
    out.both_ways(&bytes, |counters| (counters.bytes_sent, counters.bytes_received));
    let datagrams =
        counter("tund_datagrams", None, "Datagrams that were sent, or received and authenticated.");
    out.both_ways(&datagrams, |counters| (counters.datagrams_sent, counters.datagrams_received));
    let lost = counter("tund_datagrams_lost", None, "Datagrams that the peer sent and that did not arrive.");
    out.family(&lost, |link| one(link.counters.as_ref().map(|counters| counters.datagrams_lost)));
    let dropped = counter("tund_dropped", None, "Frames and datagrams that were dropped, by reason.");
    out.family(&dropped, |link| {
        let dropped = link.counters.iter().flat_map(|counters| &counters.dropped);
        dropped.map(|dropped| labelled(&[("reason", &dropped.reason)], dropped.count)).collect()
    });
}

fn labelled(labels: &[(&'static str, &String)], value: impl ToString) -> Sample {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).clone())).collect();
    Sample { labels, value: value.to_string() }
}

fn one(value: Option<impl ToString>) -> Vec<Sample> {
    value.into_iter().map(|value| labelled(&[], value)).collect()
}

struct Text<'a> {
    out: String,
    links: &'a [Status],
}

impl Text<'_> {
    fn family(&mut self, family: &Family, samples: impl Fn(&Status) -> Vec<Sample>) {
        let Family(name, kind, unit, help) = family;
        let samples: Vec<_> = self
            .links
            .iter()
            .flat_map(|link| samples(link).into_iter().map(|sample| (&link.name, sample)))
            .collect();
        if samples.is_empty() {
            return;
        }
        let (kind, suffix) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Info => ("info", "_info"),
        };
        let name = unit.map_or_else(|| (*name).to_owned(), |unit| format!("{name}_{unit}"));
        // Writing to a String does not fail.
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        unit.iter().for_each(|unit| {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        });
        let _ = writeln!(self.out, "# HELP {name} {help}");
        for (link, Sample { labels, value }) in samples {
            let _ = write!(self.out, "{name}{suffix}{{link=\"{}\"", escape(link));
            for (label, value) in labels {
                let _ = write!(self.out, ",{label}=\"{}\"", escape(&value));
            }
            let _ = writeln!(self.out, "}} {value}");
        }
    }

    /// A counter for sent and received.
    fn both_ways(&mut self, family: &Family, of: impl Fn(&Counters) -> (u64, u64)) {
        self.family(family, |link| {
            let counts = link.counters.as_ref().map(&of);
            let both =
                counts.into_iter().flat_map(|(sent, received)| [("sent", sent), ("received", received)]);
            both.map(|(direction, count)| labelled(&[("direction", &direction.to_owned())], count)).collect()
        });
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    pub(super) use crate::control::api::tests::{status, trouble};
    use crate::core::stats::DropReason;

    #[test]
    fn counters_gauges_and_every_reason_are_there() {
        let text = openmetrics(&[status()]);
        for line in [
            "tund_build_info{link=\"tun-fri-mon\",version=\"0.1.0\"} 1",
            "tund_link_up{link=\"tun-fri-mon\"} 1",
            "tund_frames_total{link=\"tun-fri-mon\",direction=\"sent\"} 3",
            "tund_frame_bytes_total{link=\"tun-fri-mon\",direction=\"received\"} 7000000",
            "tund_keys_timestamp_seconds{link=\"tun-fri-mon\"} 1000030",
            "tund_rtt_seconds{link=\"tun-fri-mon\"} 0.0123",
            "tund_datagrams_lost_total{link=\"tun-fri-mon\"} 4",
            "tund_dropped_total{link=\"tun-fri-mon\",reason=\"replayed\"} 9",
            "tund_dropped_total{link=\"tun-fri-mon\",reason=\"stranger\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("tund_dropped_total{").count(), DropReason::ALL.len());
    }

    /// The rules whose violation makes a parser reject a text.
    #[test]
    fn the_text_is_openmetrics() {
        let mut status = super::tests::status();
        status.name = "a\"b\\c\nd".into();
        let text = openmetrics(&[status, super::tests::status()]);
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
        let mut family = (String::new(), String::new());
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(seen.insert(name.to_owned()), "{name} twice");
                family = (name.to_owned(), kind.to_owned());
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').unwrap();
                assert!(name == family.0 && name.ends_with(&format!("_{unit}")), "{line}");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(rest.starts_with(&format!("{} ", family.0)), "{line}");
            } else {
                let suffix = match family.1.as_str() {
                    "counter" => "_total",
                    "info" => "_info",
                    "gauge" => "",
                    other => panic!("{other}"),
                };
                let start = |link: &str| line.starts_with(&format!("{}{suffix}{{link=\"{link}\"", family.0));
                assert!(start("a\\\"b\\\\c\\nd") || start("tun-fri-mon"), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    /// The words of a text that start with `tund_`.
    fn names(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("tund_")).collect()
    }

    #[test]
    fn every_metric_of_the_alerts_and_the_dashboard_is_on_the_page() {
        let problems = vec![trouble("no-answer", "this")];
        let page = openmetrics(&[Status { problems, ..status() }]);
        let series: Vec<_> = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split('{').next())
            .collect();
        let dashboard = include_str!("../../examples/grafana.json");
        serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
        for text in [dashboard, include_str!("../../examples/prometheus.rules.yml")] {
            assert!(names(text).len() > 5);
            for name in names(text) {
                assert!(series.contains(&name), "{name} is not on the page:\n{page}");
            }
        }
        for name in series.iter().filter(|name| !["tund_build_info", "tund_link_info"].contains(name)) {
            let shown = dashboard.contains(name) || name.contains("_last_load_") || name.contains("_since_");
            assert!(shown, "{name} is in no panel");
        }
    }

    /// Codes of the manual page that need no alert while the link is up; that it is down has its own.
    const NEED_NOBODY: [&str; 20] = [
        "no-remote",
        "no-answer",
        "answers-lost",
        "peer-silent",
        "peer-goodbye",
        "peer-idle",
        "reconnecting",
        "resumed",
        "peer-moved",
        "over-tcp",
        "over-udp",
        "lane-lost",
        "local-moved",
        "path-payload",
        "loop-over",
        "engine-silent",
        "calling",
        "resolving",
        "openvpn-start",
        "openvpn-upgraded",
    ];

    #[test]
    fn every_condition_that_needs_a_person_has_an_alert() {
        let rules = include_str!("../../examples/prometheus.rules.yml");
        let alerts: Vec<_> = rules.split(['"', '|']).collect();
        let manual = include_str!("../../docs/tund.8.md");
        let section = manual.split("\n## Conditions").nth(1).unwrap().split("\n## ").next().unwrap();
        let codes: Vec<_> =
            section.lines().filter_map(|line| line.strip_prefix('`')?.strip_suffix('`')).collect();
        assert!(codes.len() > 40, "{codes:?}");
        for code in codes {
            let judged = [NEED_NOBODY.contains(&code), alerts.contains(&code)];
            assert!(judged != [false, false], "{code} has no alert in examples/prometheus.rules.yml");
        }
    }

    #[test]
    fn a_problem_has_its_code_and_none_has_no_series() {
        let problems = ["device-down", "no-answer"].map(|code| trouble(code, "this")).into();
        let text = openmetrics(&[Status { state: State::Blocked, problems, ..status() }]);
        for code in ["device-down", "no-answer"] {
            let line = format!("\ntund_condition{{link=\"tun-fri-mon\",code=\"{code}\"}} 1\n");
            assert!(text.contains(&line), "{text}");
        }
        assert!(text.contains("\ntund_link_up{link=\"tun-fri-mon\"} 0\n"), "{text}");
        assert!(!openmetrics(&[status()]).contains("tund_condition"));
    }

    #[test]
    fn a_link_that_knows_nothing_yet_says_only_what_it_knows() {
        let unknown = Status { rtt: None, budget: None, keys_since: None, counters: None, ..status() };
        let text = openmetrics(&[Status { state: State::Waiting, ..unknown }]);
        assert!(text.contains("tund_link_up{link=\"tun-fri-mon\"} 0"));
        for name in ["tund_rtt", "tund_frames", "tund_keys", "tund_dropped"] {
            assert!(!text.contains(name), "{text}");
        }
    }
}
