//! The log: one line per call of `log::info!` and the like.
//!
//! The parent writes the lines where the operator wants them; the engine passes them to the parent.

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Takes a line to show.
pub type Sink = Box<dyn Fn(Level, &str) + Send + Sync>;

struct Lines(Sink);

impl Log for Lines {
    /// Libraries log, too; the operator gets only tund's messages.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tund")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            (self.0)(record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Sets verb level and destination, once per process; later calls do nothing.
pub fn init(verb: u8, sink: Sink) {
    if log::set_boxed_logger(Box::new(Lines(sink))).is_ok() {
        set_verb(verb);
    }
}

/// Shows the messages of `verb` from now on.
pub fn set_verb(verb: u8) {
    log::set_max_level(shown(verb));
}

/// The log level of a verb level. Letters for each datagram have a verb level of their own, but not a log level.
fn shown(verb: u8) -> LevelFilter {
    match verb {
        0 => LevelFilter::Error,
        1 | 2 => LevelFilter::Info,
        3 => LevelFilter::Debug,
        4.. => LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_shown_from_its_verb_on() {
        let first = |level: Level| (0..=9).find(|verb| shown(*verb) >= level);
        let firsts = Level::iter().map(first).map(Option::unwrap);
        assert!(firsts.eq([0, 1, 1, 3, 4]));
    }

    #[test]
    fn what_a_library_logs_is_not_shown() {
        let lines = Lines(Box::new(|_, text| assert_eq!(text, "ours")));
        for (target, text) in
            [("tund::parent", "ours"), ("tun::platform", "theirs"), ("netlink_packet_route", "theirs")]
        {
            lines.log(
                &Record::builder().level(Level::Error).target(target).args(format_args!("{text}")).build(),
            );
        }
    }
}
