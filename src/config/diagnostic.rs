//! What is wrong with a configuration, where, and what to do about it.

use std::ops::Range;

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing to mend.
    Note,
    /// tund starts, but it may not do what was meant.
    Warning,
    /// tund does not start.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Byte range in the text; `None` when it concerns no one place.
    pub span: Option<Range<usize>>,
    /// What is wrong, lower case, no trailing stop.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}
