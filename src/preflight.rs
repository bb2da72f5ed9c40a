//! What a configuration means on this host: the file itself, the files it names, and existing state.
//!
//! Reading and judging are separate: every judgement is a function of facts, so that tests can supply theirs.

mod files;
mod host;
mod ipv6;
mod ports;
mod unreadable;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use files::{KeyMaterial, check_files, read_keys, read_password};
pub use host::{check_host, check_names, check_port};

use crate::config::diagnostic::quote;
use crate::config::{Code, Diagnostic, Options, Parsed, parse};
use crate::host::trust::{self, Refusal};

/// Maximum length of a configuration in bytes, with the most routes possible; keeps a wrong path such as /dev/zero from exhausting memory.
const LONGEST_FILE: u64 = 32 << 20;

/// A file that was read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// The file as the user named it, for messages.
    pub file: String,
    /// Its absolute path.
    pub path: PathBuf,
    /// Its text; empty if unreadable.
    pub text: String,
    /// Its content, and every finding.
    pub parsed: Parsed,
}

/// Reads and checks `file`, relative to `cd` if given. `port` is a number or a UDP service name of /etc/services, `verb` a level from 0 to 9.
/// Everything that goes wrong becomes a diagnostic.
pub fn load(file: &Path, cd: Option<&Path>, port: Option<&str>, verb: Option<u8>) -> Loaded {
    let shown = file.display().to_string();
    let from_file = cd.map_or_else(|| file.to_owned(), |cd| cd.join(file));
    let refuse = |path: PathBuf, text: String, errors: Vec<Diagnostic>| Loaded {
        file: shown.clone(),
        path,
        text,
        parsed: Parsed { diagnostics: errors, ..Parsed::default() },
    };
    let path = match std::path::absolute(&from_file) {
        Ok(path) => path,
        Err(error) => {
            let error = cannot_read(&from_file, &error);
            return refuse(from_file, String::new(), vec![error]);
        }
    };
    let mut errors: Vec<_> = check_owner(&path).into_iter().collect();
    let text = match read_text(&path) {
        Ok(text) => text,
        Err((text, error)) => {
            errors.push(error);
            return refuse(path, text, errors);
        }
    };
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let options = Options {
        directory: directory(&path, cd),
        port: port.and_then(|port| command_line_port(port, &services, &mut errors)),
        verb: verb.and_then(|verb| command_line_verb(verb, &mut errors)),
        services: Box::new(move |name| service_port(&services, name)),
    };
    let mut parsed = parse(&link_name(&path), &text, &options);
    if !errors.is_empty() {
        parsed.config = None;
        parsed.diagnostics.splice(0..0, errors);
    }
    Loaded { file: shown, path, text, parsed }
}

/// Whoever can change the file decides what tund does with its privileges, e.g. by a script in `[scripts]`. That the file is unreadable is found on
/// reading.
fn check_owner(path: &Path) -> Option<Diagnostic> {
    let refusal = trust::judge(path).err().filter(|refusal| matches!(refusal, Refusal::Untrusted { .. }))?;
    let message = format!("what this file says is done with tund's rights, but {refusal}");
    Some(Diagnostic::error(Code::Untrusted, None, message).help(after_a_look(&refusal)))
}

/// The remedy, which must not be applied blindly.
fn after_a_look(refusal: &Refusal) -> String {
    format!("see that all is as you want it, then {}; or start tund as that user", refusal.remedy())
}

/// The link's name: the file's name without `.toml`.
fn link_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(".toml").map(str::to_owned).unwrap_or(name)
}

/// Where relative paths start and scripts run: `--cd`, else the file's directory; absolute.
pub fn directory(path: &Path, cd: Option<&Path>) -> PathBuf {
    let of_file = || path.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("/"));
    cd.and_then(|cd| std::path::absolute(cd).ok()).unwrap_or_else(of_file)
}

/// Reads the file's text, or as much as possible and why the rest is missing.
fn read_text(path: &Path) -> Result<String, (String, Diagnostic)> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err((String::new(), cannot_read(path, &error)));
    }
    if bytes.len() as u64 > LONGEST_FILE {
        let message = format!("the file is longer than {LONGEST_FILE} bytes");
        return Err((
            String::new(),
            Diagnostic::error(Code::TooLong, None, message).help("name a configuration file"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let message = "the file is not UTF-8 from here on";
        (
            text,
            Diagnostic::error(Code::NotText, Some(valid..valid + 1), message).help("save the file as UTF-8"),
        )
    })
}

fn cannot_read(path: &Path, error: &io::Error) -> Diagnostic {
    if error.kind() == io::ErrorKind::PermissionDenied {
        let (why, help) = unreadable::why(path);
        return Diagnostic::error(Code::CannotRead, None, format!("the file cannot be read: {why}"))
            .help(help);
    }
    let help = if error.kind() == io::ErrorKind::NotFound {
        "check the path; with --cd it starts there, and a container sees only what is mounted into it"
    } else {
        "name a configuration file"
    };
    Diagnostic::error(Code::CannotRead, None, format!("the file cannot be read: {error}")).help(help)
}

fn command_line_port(text: &str, services: &str, errors: &mut Vec<Diagnostic>) -> Option<u16> {
    let port = match text.parse::<u16>() {
        Ok(port) => Some(port).filter(|port| *port != 0),
        Err(_) => service_port(services, text),
    };
    if port.is_none() {
        let message = format!("--port {} is neither a port nor a UDP service of /etc/services", quote(text));
        errors.push(Diagnostic::error(Code::BadPort, None, message).help("give a number from 1 to 65535"));
    }
    port
}

fn command_line_verb(verb: u8, errors: &mut Vec<Diagnostic>) -> Option<u8> {
    if verb > 9 {
        errors.push(
            Diagnostic::error(Code::OutOfRange, None, format!("--verb {verb} is out of range"))
                .help("give a level from 0 to 9"),
        );
    }
    Some(verb).filter(|verb| *verb <= 9)
}

/// The UDP port of a service in the text of /etc/services (services(5)), by name or alias.
fn service_port(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        let number = port.strip_suffix("/udp")?;
        (first == name || words.any(|alias| alias == name)).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "# comment\nopenvpn\t1194/tcp\nopenvpn\t1194/udp  # vpn\nsyslog 514/udp logd\nhttp 80/tcp\nbad x/udp\n";

    #[test]
    fn services_are_found_by_name_or_alias_and_only_for_udp() {
        assert_eq!(service_port(SERVICES, "openvpn"), Some(1194));
        assert_eq!(service_port(SERVICES, "logd"), Some(514));
        assert_eq!(service_port(SERVICES, "http"), None);
        assert_eq!(service_port(SERVICES, "bad"), None);
        assert_eq!(service_port(SERVICES, "#"), None);
    }

    #[test]
    fn the_link_is_named_by_the_file() {
        assert_eq!(link_name(Path::new("/etc/tund/tun-fri-mon.toml")), "tun-fri-mon");
        assert_eq!(link_name(Path::new("/etc/tund/odd.conf")), "odd.conf");
    }

    #[test]
    fn command_line_values_out_of_range_are_findings() {
        let mut errors = Vec::new();
        assert_eq!(command_line_port("1417", SERVICES, &mut errors), Some(1417));
        assert_eq!(command_line_port("openvpn", SERVICES, &mut errors), Some(1194));
        assert_eq!(command_line_verb(9, &mut errors), Some(9));
        assert_eq!(errors, []);
        for port in ["0", "65536", "nosuch", ""] {
            assert_eq!(command_line_port(port, SERVICES, &mut errors), None);
        }
        assert_eq!(command_line_verb(10, &mut errors), None);
        assert_eq!(errors.len(), 5);
    }
}
