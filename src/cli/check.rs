//! `tund check`: every finding on configuration files, for people or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::parent::identity;
use crate::preflight::{self, Loaded};
use crate::report::exit::CONFIG;
use crate::report::stderr;

use crate::config::{Config, Diagnostic, Remote, Severity, position};
use crate::helper::resolve;
use crate::route::netlink::Netlink;

/// The command line of `tund check`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration files.
    pub files: Vec<PathBuf>,
    /// Where relative paths start.
    pub cd: Option<PathBuf>,
    /// Port or service name for `listen` and for every remote that names none.
    pub port: Option<String>,
    /// Log level, instead of the file's.
    pub verb: Option<u8>,
    /// Take key files that others may read.
    pub allow_open_keys: bool,
    /// Look at this host's addresses, routes, ports and names too.
    pub host: bool,
    /// Print a JSON array instead.
    pub json: bool,
}

/// Checks every file; exit code 78 if one has an error. Needs no rights.
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
    // Whoever closed the pipe still gets the exit code.
    let _ = std::io::stdout().write_all(good.as_bytes());
    if failed { ExitCode::from(CONFIG) } else { ExitCode::SUCCESS }
}

fn check(options: &Options, file: PathBuf) -> (Loaded, Vec<Diagnostic>) {
    let mut loaded = preflight::load(&file, options.cd.as_deref(), options.port.as_deref(), options.verb);
    let mut findings = std::mem::take(&mut loaded.parsed.diagnostics);
    if let Some(draft) = &loaded.parsed.draft {
        findings.extend(preflight::check_files(draft, &loaded.text, options.allow_open_keys));
    }
    if let Some(config) = loaded.parsed.config.as_ref().filter(|_| options.host) {
        findings.extend(check_host(config, &loaded.text));
    }
    findings.sort_by_key(|finding| finding.span.as_ref().map(|span| span.start));
    (loaded, findings)
}

fn check_host(config: &Config, text: &str) -> Vec<Diagnostic> {
    let mut findings = match Netlink::open() {
        Ok(mut netlink) => {
            let own = own_device(config, &mut netlink);
            preflight::check_host(config, text, own, &mut netlink)
        }
        Err(error) => vec![Diagnostic::warning(None, format!("this host was not looked at: {error}"))],
    };
    findings.extend(preflight::check_port(config, text));
    findings.extend(preflight::check_names(config, text, |remote| resolve(config, remote)));
    findings
}

/// Looks a remote up, without privileges and with the link's own settings for that.
pub(super) fn resolve(config: &Config, remote: &Remote) -> std::io::Result<Vec<SocketAddr>> {
    let identity = identity::choose(&config.run);
    let confinement = identity.and_then(|identity| identity::confine(&config.run, identity, None));
    resolve::ask(remote, &confinement.map_err(|fatal| std::io::Error::other(fatal.message))?)
}

/// The device of this link, in case it runs: by its name, or else the tun device that has its address.
pub(super) fn own_device(config: &Config, netlink: &mut Netlink) -> Option<u32> {
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

fn json(loaded: &Loaded, finding: &Diagnostic) -> String {
    let mut object = format!("{{\"file\":{}", quoted(&loaded.file));
    if let Some(span) = &finding.span {
        let (line, column) = position(&loaded.text, span.start);
        object.push_str(&format!(",\"line\":{line},\"column\":{column}"));
    }
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    object.push_str(&format!(",\"severity\":\"{severity}\",\"message\":{}", quoted(&finding.message)));
    if let Some(help) = &finding.help {
        object.push_str(&format!(",\"help\":{}", quoted(help)));
    }
    object + "}"
}

/// A JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\nd\u{7f}é"), "\"a\\\"b\\\\c\\u000ad\\u007fé\"");
    }
}
