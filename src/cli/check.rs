//! `tund check`: every finding on configuration files, for people or as JSON.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::parent::identity;
use crate::preflight::{self, Loaded};
use crate::privsep::message::Confinement;
use crate::report::exit::{CONFIG, Fatal};
use crate::report::stderr;

use crate::config::{Code, Config, Diagnostic, Places, Remote, position};
use crate::helper::resolve::{self, Resolved};
use crate::route::netlink::Netlink;

/// The command line of `tund check`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration files.
    pub files: Vec<PathBuf>,
    /// Base of relative paths.
    pub cd: Option<PathBuf>,
    /// Port or service name for `listen` and for every remote without one.
    pub port: Option<String>,
    /// Log level, overriding the file's.
    pub verb: Option<u8>,
    /// Accept key files that others may read.
    pub allow_open_keys: bool,
    /// Check this host's addresses, routes, ports and names, too.
    pub host: bool,
    /// Print a JSON array instead.
    pub json: bool,
}

/// Checks every file; exit code 78 if one has an error. Needs no privileges.
pub fn run(options: &Options) -> ExitCode {
    let mut failed = false;
    let mut objects = Vec::new();
    let mut good = String::new();
    for file in &options.files {
        let (loaded, findings) = check(options, file.clone());
        let bad = findings.iter().any(Diagnostic::is_error);
        failed |= bad;
        if options.json {
            objects.extend(findings.iter().map(|finding| json(&loaded, finding)));
            continue;
        }
        for finding in &findings {
            stderr::show_finding(&loaded.file, &loaded.text, finding);
        }
        if !bad {
            good.push_str(&format!("{}: configuration is good\n", loaded.file));
        }
    }
    if options.json {
        good = format!("[{}]\n", objects.join(",\n "));
    }
    // If the pipe is closed, the exit code still counts.
    let _ = std::io::stdout().write_all(good.as_bytes());
    if failed { ExitCode::from(CONFIG) } else { ExitCode::SUCCESS }
}

/// Checks one file; returns it and its findings.
pub(super) fn check(options: &Options, file: PathBuf) -> (Loaded, Vec<Diagnostic>) {
    let mut loaded = preflight::load(&file, options.cd.as_deref(), options.port.as_deref(), options.verb);
    let mut findings = std::mem::take(&mut loaded.parsed.diagnostics);
    if let Some(draft) = &loaded.parsed.draft {
        findings.extend(preflight::check_files(draft, &loaded.parsed.places, options.allow_open_keys));
    }
    if let Some(config) = loaded.parsed.config.as_ref().filter(|_| options.host) {
        findings.extend(check_host(config, &loaded.parsed.places));
    }
    findings.sort_by_key(|finding| finding.span.as_ref().map(|span| span.start));
    (loaded, findings)
}

fn check_host(config: &Config, places: &Places) -> Vec<Diagnostic> {
    let mut findings = addresses_and_routes(config, places);
    findings.extend(preflight::check_port(config, places));
    findings.extend(preflight::check_names(config, places, resolve(config)));
    findings
}

/// The findings about this host's addresses and routes.
pub(super) fn addresses_and_routes(config: &Config, places: &Places) -> Vec<Diagnostic> {
    match Netlink::open() {
        Ok(mut netlink) => {
            let own = own_device(config, &mut netlink);
            preflight::check_host(config, places, own, &mut netlink)
        }
        Err(error) => {
            vec![Diagnostic::warning(Code::NotChecked, None, format!("this host was not checked: {error}"))]
        }
    }
}

/// Resolves the remotes, unprivileged and with the link's own settings; returns a result for each.
pub(super) fn resolve(config: &Config) -> Vec<(&Remote, Resolved)> {
    let confinement = confinement(config).map_err(|fatal| std::io::Error::other(fatal.message));
    let failed = |error: std::io::Error| {
        let again = || Err(std::io::Error::new(error.kind(), error.to_string()));
        config.remotes.iter().map(|_| again()).collect()
    };
    let answers = confinement.and_then(|given| resolve::ask(&config.remotes, &given)).unwrap_or_else(failed);
    config.remotes.iter().zip(answers).collect()
}

/// What a process that reads the network for a command gives up.
pub(super) fn confinement(config: &Config) -> Result<Confinement, Fatal> {
    identity::choose(&config.run).and_then(|identity| identity::confine(&config.run, identity, None))
}

/// The device of this link, if it runs: by its name, else the tun device with its address.
fn own_device(config: &Config, netlink: &mut Netlink) -> Option<u32> {
    let links = netlink.links().ok()?;
    let mut tunnels = links.iter().filter(|link| link.kind.as_deref() == Some("tun"));
    if let Some(name) = &config.device.name {
        return tunnels.find(|link| link.name == *name).map(|link| link.index);
    }
    let addresses = netlink.addresses().ok()?;
    let ours = |index| {
        let mut on_it = addresses.iter().filter(|address| address.interface == index);
        on_it.any(|on_it| config.device.addresses.iter().any(|own| own.addr() == on_it.address.addr()))
    };
    tunnels.find(|link| ours(link.index)).map(|link| link.index)
}

/// A finding as JSON, its members in this order.
#[derive(Serialize)]
struct Finding<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    severity: &'static str,
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

fn json(loaded: &Loaded, finding: &Diagnostic) -> String {
    let place = finding.span.as_ref().map(|span| position(&loaded.text, span.start));
    let object = Finding {
        file: &loaded.file,
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        severity: finding.severity.name(),
        code: finding.code.name(),
        message: &finding.message,
        help: finding.help.as_deref(),
    };
    let text = serde_json::to_string(&object).unwrap_or_default();
    // JSON allows control characters beyond ASCII's first 32 in a string (RFC 8259 §7); a terminal obeys them.
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        if c.is_control() {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn findings_are_json_that_no_terminal_obeys() {
        let mut loaded = preflight::load(Path::new("/nonexistent"), None, None, None);
        loaded.file = "a\"b\\c".into();
        loaded.text = "x\ny".into();
        let finding = Diagnostic::error(Code::Syntax, Some(2..3), "d\n\u{1b}\u{7f}\u{9b}é").help("h");
        let text = json(&loaded, &finding);
        assert_eq!(
            text,
            "{\"file\":\"a\\\"b\\\\c\",\"line\":2,\"column\":1,\"severity\":\"error\",\"code\":\"syntax\",\
             \"message\":\"d\\n\\u001b\\u007f\\u009bé\",\"help\":\"h\"}"
        );
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["message"], "d\n\u{1b}\u{7f}\u{9b}é");
        let bare = json(&loaded, &Diagnostic::warning(Code::Syntax, None, "m"));
        assert_eq!(
            bare,
            "{\"file\":\"a\\\"b\\\\c\",\"severity\":\"warning\",\"code\":\"syntax\",\"message\":\"m\"}"
        );
    }
}
