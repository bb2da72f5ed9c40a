//! Standard error.
#![allow(clippy::disallowed_methods, reason = "log lines carry the time of day")]

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::{Diagnostic, render};
use crate::report::output::severity;
use crate::sys::clock::unix_time;

/// How long a line of the log waits for a reader that is slow.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Writes a line of the log: the time in UTC before it, or what systemd's journal reads in its place.
pub fn line(verb: u8, text: &str) {
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    let stamp = if *JOURNAL.get_or_init(is_journal) {
        format!("<{}>", severity(verb))
    } else {
        format!("{} ", stamp(unix_time()))
    };
    // A log that nobody reads any more must neither end the tunnel nor hold it up.
    static STUCK: AtomicBool = AtomicBool::new(false);
    if has_room(std::io::stderr(), &STUCK) {
        show(&format!("{stamp}{text}\n"));
    }
}

/// Whether a line can be written without waiting. The first that finds no room waits for a moment, and those after it do
/// not until there is some.
fn has_room(to: impl AsFd, stuck: &AtomicBool) -> bool {
    let limit = if stuck.load(Ordering::Relaxed) { Timespec::default() } else { PATIENCE };
    // What cannot be polled does not wait either; a closed pipe is told by the write.
    let room = poll(&mut [PollFd::new(&to, PollFlags::OUT)], Some(&limit)).map_or(true, |ready| ready > 0);
    stuck.store(!room, Ordering::Relaxed);
    room
}

/// Whether standard error goes to the journal, as systemd.exec(5) says to find out.
fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| stream == *format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Writes text as it is; a closed standard error changes nothing.
pub fn show(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Shows a finding with its place in `text`, the text of `file`; in colour on a terminal, unless NO_COLOR is
/// set.
pub fn show_finding(file: &str, text: &str, finding: &Diagnostic) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let shown = render(file, text, finding, color);
    show(&format!("{}\n", shown.trim_end_matches('\n')));
}

/// `2026-11-22 23:41:03`, UTC.
fn stamp(unix: u64) -> String {
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
    use super::*;

    #[test]
    fn a_reader_that_does_not_read_holds_nothing_up_and_gets_lines_again_when_it_does() {
        use std::io::Read;
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let stuck = AtomicBool::new(false);
        let mut written = 0;
        while has_room(&writer, &stuck) {
            writer.write_all(&[0; 100]).unwrap();
            written += 100;
        }
        assert!(written > 4096 && stuck.load(Ordering::Relaxed));
        // Each of these would take a second if it waited, and the test hours.
        assert!((0..10_000).all(|_| !has_room(&writer, &stuck)));
        reader.read_exact(&mut vec![0; written]).unwrap();
        assert!(has_room(&writer, &stuck) && !stuck.load(Ordering::Relaxed));
        drop(reader);
        assert!(has_room(&writer, &stuck), "a write to it fails at once");
    }

    #[test]
    fn stamps_are_utc_dates() {
        // As `date -u -d @N '+%F %T'` prints them.
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
