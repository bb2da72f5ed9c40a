//! The log: one line a call, shown from a verb level on.
//!
//! The parent writes lines to standard error; the engine hands them to the parent.

use std::fmt;
use std::sync::OnceLock;

/// Takes a line that passed the level.
pub type Sink = Box<dyn Fn(u8, &str) + Send + Sync>;

static LOG: OnceLock<(u8, Sink)> = OnceLock::new();

/// Sets level and destination, once a process; later calls change nothing.
pub fn init(verb: u8, sink: Sink) {
    let _ = LOG.set((verb, sink));
}

/// Whether lines of `verb` are shown.
pub fn enabled(verb: u8) -> bool {
    LOG.get().is_some_and(|(level, _)| verb <= *level)
}

/// Logs one line at `verb` (0 fatal, 1 default, 3 normal, 4 more, 6 and up trace).
pub fn line(verb: u8, text: fmt::Arguments<'_>) {
    if let Some((level, sink)) = LOG.get()
        && verb <= *level
    {
        sink(verb, &text.to_string());
    }
}

/// `say!(3, "link up with {peer}")`: logs one line at a verb level.
#[macro_export]
macro_rules! say {
    ($verb:expr, $($text:tt)+) => {
        $crate::daemon::log::line($verb, format_args!($($text)+))
    };
}
