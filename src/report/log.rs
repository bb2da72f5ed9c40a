//! The log: one line a call, shown from a verb level on.
//!
//! The parent writes lines to standard error; the engine hands them to the parent.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Takes a line that passed the level.
pub type Sink = Box<dyn Fn(u8, &str) + Send + Sync>;

static LEVEL: AtomicU8 = AtomicU8::new(0);
static SINK: OnceLock<Sink> = OnceLock::new();

/// Sets level and destination, once a process; later calls change nothing.
pub fn init(verb: u8, sink: Sink) {
    if SINK.set(sink).is_ok() {
        set_level(verb);
    }
}

/// Shows lines up to `verb` from now on.
pub fn set_level(verb: u8) {
    LEVEL.store(verb, Ordering::Relaxed);
}

/// Whether lines of `verb` are shown.
pub fn enabled(verb: u8) -> bool {
    verb <= LEVEL.load(Ordering::Relaxed) && SINK.get().is_some()
}

/// Logs one line at `verb` (0 fatal, 1 default, 3 normal, 4 more, 6 and up trace).
pub fn line(verb: u8, text: fmt::Arguments<'_>) {
    if verb <= LEVEL.load(Ordering::Relaxed)
        && let Some(sink) = SINK.get()
    {
        sink(verb, &text.to_string());
    }
}

/// `say!(3, "link up with {peer}")`: logs one line at a verb level.
#[macro_export]
macro_rules! say {
    ($verb:expr, $($text:tt)+) => {
        $crate::report::log::line($verb, format_args!($($text)+))
    };
}
