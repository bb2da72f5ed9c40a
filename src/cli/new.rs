//! `tund new`: the two files and the key of a new link, and the commands that start it.

mod dialogue;
mod files;
mod plan;
mod steps;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};

use crate::cli::{check, keys};
use crate::config::{Diagnostic, Options, Severity, parse};
use crate::crypto::keys::generate;
use crate::report::exit::{CONFIG, FAILED, Fatal, USAGE};
use crate::report::stderr;
use crate::sys::random::Os;
use plan::{Behind, End, Inside, Link, Service, TapEnd};

/// Where systemd's units and the superservers look for a link.
const INSTALLED: &str = "/etc/tund";

/// The command line of `tund new`.
#[derive(Debug, Args)]
pub struct Request {
    /// This host and the other one, each with the name or address, and the UDP port, where the other one calls it. On a terminal, `new` alone
    /// asks for everything
    #[arg(num_args = 2, value_names = ["NAME[=HOST[:PORT]]", "PEER[=HOST[:PORT]]"])]
    ends: Vec<End>,
    /// A routed link: the addresses inside the tunnel, this host's first
    #[arg(long, value_name = "ADDRESS,ADDRESS", conflicts_with = "tap", requires = "ends", value_parser = plan::addresses)]
    tun: Option<Inside>,
    /// A bridged link: the bridge that each host's device joins, or an address with prefix for the device; one for both hosts or one for each
    #[arg(long, value_name = "BRIDGE|ADDRESS/PREFIX", requires = "ends", value_delimiter = ',', num_args = 1..=2)]
    tap: Vec<TapEnd>,
    /// A network behind a host, which the other one reaches through the link; may be repeated
    #[arg(long, value_name = "NAME=PREFIX", requires = "ends")]
    route: Vec<Behind>,
    /// Send all traffic of this host through the other one
    #[arg(long, requires = "ends")]
    full_tunnel: bool,
    /// Run the link as a service, and show what to install: `systemd` at both ends, the others at the end that waits
    #[arg(long, value_name = "KIND", requires = "ends")]
    service: Option<Service>,
    /// Where to write; created if missing [default: the working directory, or /etc/tund with --service]
    #[arg(short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: Option<PathBuf>,
}

/// Writes the files and the key, checks them, and shows the next steps. Existing files are not changed.
///
/// # Errors
/// The request makes no valid link, or a file cannot be written; nothing is left then.
pub fn run(request: Request) -> Result<ExitCode, Fatal> {
    let output = request.output.clone();
    let link = if request.ends.is_empty() {
        asked()?
    } else {
        link_of(request).map_err(|why| Fatal::new(USAGE, why))?
    };
    // An empty path is the working directory.
    let default = Path::new(if link.service.is_some() { INSTALLED } else { "" });
    let directory = output.as_deref().unwrap_or(default);
    let directory = directory.strip_prefix(".").unwrap_or(directory);
    let texts = files::texts(&link);
    prove(&link, &texts)?;
    write(&link, &texts, directory)?;
    let good = link.files().iter().all(|name| is_good(directory.join(name)));
    super::print(steps::text(&link, directory))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(CONFIG) })
}

/// Shows the warnings of `tund check`, e.g. of a directory that others may change; notes are intended.
fn is_good(file: PathBuf) -> bool {
    let (loaded, findings) = check::check(&check::Options::default(), file);
    let findings: Vec<_> = findings.iter().filter(|finding| finding.severity != Severity::Note).collect();
    for finding in &findings {
        stderr::show_finding(&loaded.file, &loaded.text, finding);
    }
    !findings.into_iter().any(Diagnostic::is_error)
}

fn link_of(request: Request) -> Result<Link, String> {
    let tap = match request.tap.as_slice() {
        [both] => Some(Inside::Tap([both.clone(), both.clone()])),
        [one, other] => Some(Inside::Tap([one.clone(), other.clone()])),
        _ => None,
    };
    let inside = request.tun.or(tap).ok_or(
        "say what the link carries: --tun 192.168.86.81,192.168.86.18 for a routed link, --tap br0 for a bridged one",
    )?;
    let ends = request.ends.try_into().map_err(|_| "name two hosts")?;
    Link::new(ends, inside, request.route, request.full_tunnel, request.service)
}

fn asked() -> Result<Link, Fatal> {
    if !io::stdin().is_terminal() {
        let message = "name both hosts, such as `tund new fri mon=mon.tn:1417 --tun 192.168.86.81,192.168.86.18`; on a terminal it asks for them";
        return Err(Fatal::new(USAGE, message));
    }
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    dialogue::link(&own, &mut io::stdin().lock(), &mut io::stderr())
}

/// Checks the files, which may be invalid in ways that only the configuration's checks find.
fn prove(link: &Link, texts: &[String; 2]) -> Result<(), Fatal> {
    let mut good = true;
    for (file, text) in link.files().iter().zip(texts) {
        let parsed = parse(file.trim_end_matches(".toml"), text, &Options::new("/"));
        for error in parsed.diagnostics.iter().filter(|finding| finding.is_error()) {
            good = false;
            stderr::show_finding(file, text, error);
        }
    }
    match good {
        true => Ok(()),
        false => Err(Fatal::new(
            CONFIG,
            "nothing was written: what was asked for is not a valid link, as shown above",
        )),
    }
}

fn write(link: &Link, texts: &[String; 2], directory: &Path) -> Result<(), Fatal> {
    let names = link.files().into_iter().chain([link.key()]);
    if let Some(there) = names.map(|name| directory.join(name)).find(|path| path.symlink_metadata().is_ok()) {
        let message = format!(
            "{} already exists and is never overwritten: remove it, rename the hosts, or write elsewhere with -o",
            there.display()
        );
        return Err(Fatal::new(FAILED, message));
    }
    let failed = |path: &Path, error: &io::Error| {
        Fatal::new(FAILED, format!("cannot write {}: {error}", path.display()))
    };
    if directory != Path::new("")
        && let Err(error) = DirBuilder::new().mode(0o755).create(directory)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(failed(directory, &error));
    }
    let mut written = Vec::new();
    let result = link.files().into_iter().zip(texts).try_for_each(|(name, text)| {
        let path = directory.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(|e| failed(&path, &e))?;
        written.push(path.clone());
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| failed(&path, &error))
    });
    let result = result.and_then(|()| keys::create_secret(&directory.join(link.key()), &generate(&mut Os)));
    if result.is_err() {
        for path in written {
            // They are from this call, and half a link is useless.
            let _ = fs::remove_file(path);
        }
    }
    result
}
