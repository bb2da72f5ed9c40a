//! Destinations of log lines: standard error, syslog, or systemd's journal.

use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};

use log::Level;
use serde_json::json;

use crate::config::{Diagnostic, LogTo, Severity, position};
use crate::report;
use crate::report::stderr::{self, stamp};
use crate::report::text::{printable, split_code};
use crate::report::unwritten::Unwritten;
use crate::sys::clock::unix_time;

/// Longest line in characters.
const MAX_LINE: usize = 4096;
/// Longest name of a link in characters.
const MAX_NAME: usize = 256;
/// syslog's names of severities.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// From syslog(3): LOG_DAEMON.
const DAEMON: u8 = 3 << 3;

/// A destination.
pub enum Output {
    /// Standard error, for a person.
    Stderr,
    /// Standard error, one JSON object per line, for the link of this name.
    Json(String),
    /// syslog(3), facility daemon.
    Syslog(Service),
    /// systemd's journal, in its own protocol.
    Journal(Service),
}

impl Output {
    /// The destination for the link called `name`.
    pub fn new(to: LogTo, name: &str) -> Self {
        match to {
            LogTo::Stderr => Self::Stderr,
            LogTo::Json => Self::Json(printable(name, MAX_NAME)),
            LogTo::Syslog => Self::Syslog(Service::new("/dev/log", name)),
            LogTo::Journal => Self::Journal(Service::new("/run/systemd/journal/socket", name)),
        }
    }

    /// Checks that lines arrive somewhere.
    ///
    /// # Errors
    /// Why not, and the remedy.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Stderr | Self::Json(_) => Ok(()),
            Self::Syslog(service) | Self::Journal(service) => service.check(),
        }
    }

    /// Makes it the destination of the log, for the whole process.
    pub fn log_from(self, verb: u8) {
        report::log::init(verb, Box::new(move |level, text| self.line(level, text)));
    }

    /// Writes one line. A log that is missing or that nobody reads changes nothing.
    pub fn line(&self, level: Level, text: &str) {
        let text = printable(text, MAX_LINE);
        match self {
            Self::Stderr => stderr::line(level, &text),
            Self::Json(name) => {
                let make = |level, text: &str, room| object(unix_time(), level, name, text, room);
                stderr::object(level, &text, make);
            }
            Self::Syslog(service) => {
                let (name, pid) = (&service.name, std::process::id());
                service.unwritten.write(level, &text, |level, text| {
                    service.send(&format!("<{}>tund[{pid}]: {name}: {text}", DAEMON | severity(level)))
                });
            }
            Self::Journal(service) => {
                let name = &service.name;
                service.unwritten.write(level, &text, |level, text| {
                    let code = split_code(text).1.map_or_else(String::new, |code| format!("TUND_CODE={code}\n"));
                    service.send(&format!(
                        "PRIORITY={}\nSYSLOG_FACILITY={}\nSYSLOG_IDENTIFIER=tund\nTUND_LINK={name}\n{code}MESSAGE={name}: {text}\n",
                        severity(level),
                        DAEMON >> 3
                    ))
                });
            }
        }
    }

    /// Reports why the program ends before there is a log.
    pub fn fatal(&self, text: &str) {
        match self {
            Self::Stderr => stderr::show(&format!("tund: {text}\n")),
            Self::Json(_) | Self::Syslog(_) | Self::Journal(_) => self.line(Level::Error, text),
        }
    }

    /// Shows a finding with its place in `text`, the text of `file`.
    pub fn finding(&self, file: &str, text: &str, finding: &Diagnostic) {
        if let Self::Stderr = self {
            return stderr::show_finding(file, text, finding);
        }
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warn,
            Severity::Note => Level::Debug,
        };
        self.line(level, &finding_line(file, text, finding));
    }
}

/// A finding with its place in `text`, the text of `file`, in one line.
pub fn finding_line(file: &str, text: &str, finding: &Diagnostic) -> String {
    let place = finding.span.as_ref().map(|span| position(text, span.start));
    let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
    let help = finding.help.as_ref().map_or_else(String::new, |help| format!(": {help}"));
    let kind = finding.severity.name();
    format!("{file}{place}: {kind}[{}]: {}{help}", finding.code, finding.message)
}

/// A line as a JSON object of at most `room` bytes: a longer message is cut.
fn object(now: u64, level: Level, link: &str, text: &str, room: usize) -> String {
    let (mut message, code) = split_code(text);
    let severity = SEVERITIES[usize::from(severity(level))];
    let time = stamp(now).replace(' ', "T") + "Z";
    loop {
        let mut object = json!({ "time": time, "severity": severity, "link": link, "message": message });
        if let Some(code) = code {
            object["code"] = code.into();
        }
        let line = object.to_string();
        if line.len() <= room || message.is_empty() {
            return line;
        }
        let less = (message.len() * room / line.len()).min(message.len() - 1);
        message = &message[..message.floor_char_boundary(less)];
    }
}

/// The syslog(3) severity.
pub fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 5,
        Level::Debug => 6,
        Level::Trace => 7,
    }
}

/// A log service that takes datagrams. Sending never blocks.
pub struct Service {
    path: &'static str,
    name: String,
    socket: Mutex<Option<UnixDatagram>>,
    unwritten: Unwritten,
}

impl Service {
    fn new(path: &'static str, name: &str) -> Self {
        Self { path, name: printable(name, MAX_LINE), socket: Mutex::new(None), unwritten: Unwritten::new() }
    }

    /// Whether the service has taken it.
    fn send(&self, datagram: &str) -> bool {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // The service may have been restarted since the last line, with a new socket.
        for _ in 0..2 {
            if socket.is_none() {
                *socket = self.connect().ok();
            }
            let sent = socket.as_ref().map(|socket| socket.send(datagram.as_bytes()));
            match sent {
                Some(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => *socket = None,
                Some(sent) => return sent.is_ok(),
                None => return false,
            }
        }
        false
    }

    /// Checks that the service exists.
    ///
    /// # Errors
    /// Why not, and the remedy.
    fn check(&self) -> Result<(), String> {
        self.connect().map(drop).map_err(|error| {
            format!(
                "{} does not accept log lines ({error}), which are lost until it does: start it, mount its socket into the \
                 container, or drop run.log and --daemon to log to standard error",
                self.path
            )
        })
    }

    fn connect(&self) -> std::io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(self.path)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scratch, wait_until};
    use std::io::ErrorKind;

    fn service(path: &std::path::Path) -> Service {
        Service::new(Box::leak(path.display().to_string().into_boxed_str()), "fri")
    }

    fn received(socket: &UnixDatagram) -> String {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("it was sent");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Ends a service and removes its socket.
    fn end(socket: UnixDatagram, path: &std::path::Path) {
        let client = UnixDatagram::unbound().unwrap();
        client.connect(path).unwrap();
        client.set_nonblocking(true).unwrap();
        drop(socket);
        wait_until(|| client.send(b"").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn syslog_gets_facility_severity_program_and_link_and_a_restarted_one_the_next_line() {
        let scratch = Scratch::new();
        let path = scratch.path().join("log");
        let output = Output::Syslog(service(&path));
        output.line(Level::Error, "nobody is there yet");
        let told = UnixDatagram::bind(&path).unwrap();
        output.line(Level::Debug, "somebody is there");
        let pid = std::process::id();
        for text in [
            "<28>tund[{pid}]: fri: 1 lines of the log could not be written",
            "<30>tund[{pid}]: fri: somebody is there",
        ] {
            assert_eq!(received(&told), text.replace("{pid}", &pid.to_string()));
        }
        let mut before = told;
        for (level, priority) in Level::iter().zip(27..) {
            end(before, &path);
            let socket = UnixDatagram::bind(&path).unwrap();
            output.line(level, "a\nb\x1b");
            assert_eq!(received(&socket), format!("<{priority}>tund[{pid}]: fri: a_b_"));
            before = socket;
        }
    }

    #[test]
    fn the_journal_gets_fields_and_nothing_makes_a_field_of_its_own() {
        let scratch = Scratch::new();
        let path = scratch.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let journal = Output::Journal(service(&path));
        journal.line(Level::Info, "up\nPRIORITY=0");
        let first = "PRIORITY=5\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=tund\nTUND_LINK=fri\n";
        assert_eq!(received(&socket), format!("{first}MESSAGE=fri: up_PRIORITY=0\n"));
        journal.line(Level::Info, "it is gone [peer-silent]");
        let told = "TUND_CODE=peer-silent\nMESSAGE=fri: it is gone [peer-silent]\n";
        assert_eq!(received(&socket), format!("{first}{told}"));
    }

    #[test]
    fn an_object_has_the_fields_of_its_line_and_fits() {
        let line = object(0, Level::Info, "fri", "said \"so\" [peer-silent]", 4096);
        let right = json!({
            "time": "1970-01-01T00:00:00Z", "severity": "notice", "link": "fri",
            "message": "said \"so\"", "code": "peer-silent",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), right);
        let plain: serde_json::Value =
            serde_json::from_str(&object(0, Level::Debug, "fri", "plain", 4096)).unwrap();
        assert!(plain["severity"] == "info" && plain.get("code").is_none());
        for long in ["\"".repeat(4096), "ö".repeat(4096), "x".repeat(4096)] {
            let line = object(0, Level::Error, "fri", &format!("{long} [peer-silent]"), 4000);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let message = value["message"].as_str().unwrap();
            assert!(line.len() <= 4000 && message.len() > 1000, "{} {}", line.len(), message.len());
            assert!(long.starts_with(message), "{message}");
            assert_eq!(value["code"], "peer-silent");
        }
    }

    #[test]
    fn a_finding_is_one_line_with_its_place() {
        let scratch = Scratch::new();
        let path = scratch.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let finding = Diagnostic::error(crate::config::Code::Syntax, Some(7..8), "m").help("h");
        Output::Syslog(service(&path)).finding("x.toml", "a = 1\nb = 2\n", &finding);
        assert!(received(&socket).ends_with("fri: x.toml:2:2: error[syntax]: m: h"));
    }

    #[test]
    fn a_log_that_is_not_read_holds_nothing_up() {
        let scratch = Scratch::new();
        let path = scratch.path().join("log");
        let full = UnixDatagram::bind(&path).unwrap();
        let output = Output::Syslog(service(&path));
        (0..10_000).for_each(|n| output.line(Level::Info, &format!("line {n}")));
        full.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let taken = std::iter::from_fn(|| full.recv(&mut buffer).ok()).count();
        output.line(Level::Info, "room");
        let missed = format!("{} lines of the log could not be written", 10_000 - taken);
        assert!(received(&full).ends_with(&missed) && received(&full).ends_with("room"));
    }
}
