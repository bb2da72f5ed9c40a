//! `tund doctor`: finds what prevents a working link, from the file to the peer's answer.

mod calls;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base16ct::HexDisplay;

use crate::cli::status;
use crate::config::{Config, Severity};
use crate::control::api::{State, Status};
use crate::core::path;
use crate::crypto::keys::fingerprint;
use crate::device;
use crate::parent::identity;
use crate::parent::start::{self, Options};
use crate::preflight::{self, Loaded};
use crate::privsep::message::Keys;
use crate::report::exit::FAILED;
use crate::report::output::finding_line;
use crate::report::text::printable;
use crate::route::netlink::Netlink;

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Good,
    Note,
    Problem,
}

/// The findings, step by step.
#[derive(Default)]
struct Report(Vec<(Found, &'static str, String)>);

impl Report {
    /// Adds a finding. Some text comes from processes that read the network.
    fn add(&mut self, found: Found, step: &'static str, text: impl AsRef<str>) {
        self.0.push((found, step, printable(text.as_ref(), usize::MAX)));
    }

    fn has_problem(&self) -> bool {
        self.0.iter().any(|(found, ..)| *found == Found::Problem)
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (found, step, text) in &self.0 {
            // Writing to a String does not fail.
            let _ = writeln!(out, "{:<8} {step}: {text}", name(*found));
        }
        out
    }

    fn json(&self) -> String {
        let steps = self.0.iter().map(
            |(found, step, text)| serde_json::json!({ "found": name(*found), "step": step, "text": text }),
        );
        serde_json::Value::from(steps.collect::<Vec<_>>()).to_string() + "\n"
    }
}

fn name(found: Found) -> &'static str {
    match found {
        Found::Good => "ok",
        Found::Note => "note",
        Found::Problem => "problem",
    }
}

/// Checks everything visible from this end, and calls the peer if the link does not run. Exit code 0 if there is no problem.
pub fn run(file: &Path, json: bool) -> ExitCode {
    let report = examine(file);
    let shown = if json { report.json() } else { report.text() };
    // If the pipe is closed, the exit code still counts.
    let _ = std::io::stdout().write_all(shown.as_bytes());
    if report.has_problem() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

fn examine(file: &Path) -> Report {
    let mut report = Report::default();
    let options = Options { config: PathBuf::from(file), ..Options::default() };
    let (loaded, config) = match start::read_again(&options) {
        Ok(read) => read,
        Err(lines) => {
            lines.into_iter().for_each(|line| report.add(Found::Problem, "configuration", line));
            return report;
        }
    };
    report.add(Found::Good, "configuration", format!("{} is good", loaded.file));
    let keys = keys(&config, &mut report);
    let running = status::running(&loaded.path);
    let running = running.as_ref().map(|status| describe_running(status, &mut report)).is_some();
    if !running {
        rights(&config, &mut report);
    }
    host(&config, &loaded, running, &mut report);
    let addresses = addresses(&config, &mut report);
    ways(&config, &addresses, &mut report);
    if !running {
        calls::callable(&config, keys, &addresses, &mut report);
    }
    report
}

fn keys(config: &Config, report: &mut Report) -> Option<Box<Keys>> {
    let keys = start::secrets(config, false)
        .map_err(|fatal| report.add(Found::Problem, "key", fatal.message))
        .ok()?;
    let (mode, shown) = (config.key.mode, HexDisplay(&fingerprint(&keys.secret)).to_string());
    report.add(
        Found::Good,
        "key",
        format!("{mode} keys; their secret shows as {shown}, and must at the other end too"),
    );
    Some(keys)
}

/// Checks the privileges of a link started like this process; root may start it for another user.
fn rights(config: &Config, report: &mut Report) {
    let root = rustix::process::geteuid().is_root();
    let (found, who) = if root { (Found::Problem, "") } else { (Found::Note, "as this user: ") };
    let identity = identity::warn_of_root(&config.run);
    let checks = [
        identity::check_rights(config).map_err(|fatal| fatal.message),
        device::check_driver(),
        identity.as_ref().map(drop).map_err(|fatal| fatal.message.clone()),
    ];
    let failed: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        report.add(Found::Good, "rights", "this user may make the device and use its driver, /dev/net/tun");
    }
    failed.into_iter().for_each(|text| report.add(found, "rights", format!("{who}{text}")));
    if let Ok(Some(warning)) = identity {
        report.add(Found::Note, "rights", warning);
    }
}

fn describe_running(status: &Status, report: &mut Report) {
    for problem in &status.problems {
        report.add(Found::Problem, "link", format!("{} [{}]", problem.text, problem.code));
    }
    let peer = status.endpoint.as_deref().unwrap_or("an address not known yet");
    let budget = status.budget.map(|budget| format!(", datagrams of up to {budget} bytes pass"));
    let (found, how) = match status.state {
        State::Up => (Found::Good, format!("and is up with {peer}{}", budget.unwrap_or_default())),
        other @ (State::Starting | State::Waiting | State::Blocked | State::Stopping) => {
            (Found::Problem, format!("towards {peer}, and is {}", other.name()))
        }
    };
    report.add(found, "link", format!("runs as pid {}, {how}", status.pid));
    if status.device_up == Some(true) && status.missing.is_empty() {
        let many = status.changes.len();
        let text = format!("device, addresses and routes are as they were set, {many} of them");
        report.add(Found::Good, "set", text);
    }
}

/// Checks this host's addresses, routes and ports, like `tund check --host`.
fn host(config: &Config, loaded: &Loaded, running: bool, report: &mut Report) {
    let mut findings = crate::cli::check::addresses_and_routes(config, &loaded.parsed.places);
    if !running {
        findings.extend(preflight::check_port(config, &loaded.parsed.places));
    }
    for finding in &findings {
        let found = if finding.severity > Severity::Note { Found::Problem } else { Found::Note };
        report.add(found, "host", finding_line(&config.name, &loaded.text, finding));
    }
    let port = config.listen.port;
    if findings.is_empty() {
        let text = format!("addresses, routes and UDP port {port} are free for this link");
        report.add(Found::Good, "host", text);
    }
    if config.remotes.is_empty() {
        let text = format!(
            "this end waits: a firewall here must allow UDP port {port}, and a router in front must forward it"
        );
        report.add(Found::Note, "firewall", text);
    }
}

fn addresses(config: &Config, report: &mut Report) -> Vec<path::Path> {
    let mut all = Vec::new();
    for (remote, resolved) in crate::cli::check::resolve(config) {
        match resolved {
            Ok(found) => {
                let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
                if remote.address().is_none() {
                    report.add(Found::Good, "name", format!("{} is {}", remote.host, shown.join(", ")));
                }
                let stream = remote.stream;
                all.extend(found.into_iter().map(|address| path::Path { stream, ..address.into() }));
            }
            Err(error) => {
                let text = format!("{} does not resolve: {error}: check name and resolver", remote.host);
                report.add(Found::Problem, "name", text);
            }
        }
    }
    all
}

fn ways(config: &Config, addresses: &[path::Path], report: &mut Report) {
    let Ok(mut netlink) = Netlink::open() else { return };
    let links = netlink.links().unwrap_or_default();
    for path in addresses {
        let to = path.remote.ip();
        let (found, text) = match netlink.way(config, *path) {
            Ok(way) => {
                let interface = links.iter().find(|link| link.index == way.interface);
                let interface = interface.map_or_else(|| way.interface.to_string(), |link| link.name.clone());
                let via = way.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
                let mtu = way.mtu.map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
                (Found::Good, format!("{to} is reached through {interface}{via}{mtu}"))
            }
            Err(error) => (Found::Problem, format!("{error}: this host has no route to {to}")),
        };
        report.add(found, "route", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_shown_without_what_a_terminal_obeys() {
        let mut report = Report::default();
        report.add(Found::Problem, "peer", "192.0.2.1: \x1b[2J\n\u{9b}: is tund running there?");
        assert_eq!(report.text(), "problem  peer: 192.0.2.1: _[2J__: is tund running there?\n");
        assert!(report.json().contains(r#""192.0.2.1: _[2J__: is"#), "{}", report.json());
    }
}
