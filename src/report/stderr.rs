//! Standard error.
#![allow(clippy::disallowed_methods, reason = "log lines carry the time of day")]

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use log::Level;
use rustix::event::PollFlags;
use rustix::io::{Errno, write};
use rustix::net::{SendFlags, send};

use crate::config::{Diagnostic, render};
use crate::report::output::severity;
use crate::report::text::is_printable;
use crate::report::unwritten::Unwritten;
use crate::sys::clock::unix_time;
use crate::sys::ready;

/// Most bytes that a pipe with room for one byte takes without blocking (PIPE_BUF, pipe(7)).
const PIPE_BUF: usize = 4096;

/// Writes a line of the log, unless that would block: prefixed with the time in UTC, or with what systemd's journal reads instead. A log that nobody
/// reads must neither end the tunnel nor delay it.
pub fn line(level: Level, text: &str) {
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    static UNWRITTEN: Unwritten = Unwritten::new();
    UNWRITTEN.write(level, text, |level, text| {
        let stamp = if *JOURNAL.get_or_init(is_journal) {
            format!("<{}>", severity(level))
        } else {
            format!("{} ", stamp(unix_time()))
        };
        put(std::io::stderr(), &format!("{stamp}{text}"))
    });
}

/// Writes as a line the object that `make` returns for a maximum number of bytes.
pub fn object(level: Level, text: &str, make: impl Fn(Level, &str, usize) -> String) {
    static UNWRITTEN: Unwritten = Unwritten::new();
    UNWRITTEN.write(level, text, |level, text| put(std::io::stderr(), &make(level, text, PIPE_BUF - 1)));
}

/// Writes a line without blocking; returns whether it was written. What exceeds a pipe's free space is cut off.
fn put(to: impl AsFd, line: &str) -> bool {
    match send(&to, format!("{line}\n").as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::NOTSOCK) => {}
        sent => return sent.is_ok(),
    }
    // What cannot be polled does not block, either; a closed pipe fails in write(2).
    let room = ready(&to, PollFlags::OUT, Duration::ZERO);
    let line = &line[..line.floor_char_boundary(PIPE_BUF - 1)];
    room.unwrap_or(true) && write(&to, format!("{line}\n").as_bytes()).is_ok()
}

/// Whether standard error goes to the journal, tested as in systemd.exec(5).
fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| stream == *format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Writes text unchanged; a closed standard error is ignored.
pub fn show(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Shows a finding with its place in `text`, the text of `file`; in colour on a terminal, unless NO_COLOR is
/// set. The file may be a stranger's: control characters in it are shown as `_`, so that no terminal obeys them.
pub fn show_finding(file: &str, text: &str, finding: &Diagnostic) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let clean = |text: &str| text.replace(|c| c != '\n' && !is_printable(c), "_");
    let (message, help) = (clean(&finding.message), finding.help.as_deref().map(clean));
    let finding = Diagnostic { message, help, ..finding.clone() };
    // The renderer leaves these in the quoted line.
    let shown = render(file, text, &finding, color).replace(|c: char| !c.is_ascii() && c.is_control(), "_");
    show(&format!("{}\n", shown.trim_end_matches('\n')));
}

/// Formats a time in seconds since the Unix epoch for the log: `2026-11-22 23:41:03`, UTC.
pub fn stamp(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The Gregorian date that many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year_of_era + year, month, day)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::wait_until;

    /// Writes until there is no room, then drains it: a line must fit again.
    fn fill_and_drain(writer: impl AsFd, mut reader: impl Read, line: &str) {
        let mut lines = 0;
        while put(&writer, line) {
            lines += 1;
        }
        assert!(lines > 0);
        // A blocking write would wait for this very thread.
        assert!((0..1000).all(|_| !put(&writer, line)));
        let mut read = vec![0; 1 << 20];
        while reader.read(&mut read).is_ok_and(|count| count > 0) {}
        assert!(put(&writer, line));
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nothing_up_and_gets_lines_again_when_it_does() {
        // The longest exceed a page, so that the last is cut.
        for line in ["x".repeat(100), "x".repeat(PIPE_BUF), "ä".repeat(PIPE_BUF)] {
            let (reader, writer) = std::io::pipe().unwrap();
            rustix::io::ioctl_fionbio(&reader, true).unwrap();
            fill_and_drain(&writer, &reader, &line);
            drop(reader);
            wait_until(|| !put(&writer, "x"));
            let (reader, writer) = UnixStream::pair().unwrap();
            reader.set_nonblocking(true).unwrap();
            fill_and_drain(&writer, &reader, &line);
        }
    }

    #[test]
    fn a_line_too_long_for_a_pipe_is_cut_between_characters_and_ends() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert!(put(&writer, &format!("{}end", "ä".repeat(PIPE_BUF))));
        drop(writer);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, format!("{}\n", "ä".repeat((PIPE_BUF - 1) / 2)));
    }

    #[test]
    fn stamps_are_utc_dates() {
        // As printed by `date -u -d @N '+%F %T'`.
        for (unix, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_390_863, "2026-11-22 23:41:03"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(stamp(unix), text);
        }
    }
}
