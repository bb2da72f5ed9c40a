//! What is wrong with a configuration, where, and what to do about it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::code::Code;

/// Severity of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; needs no action.
    Note,
    /// tund starts but may not do what was intended.
    Warning,
    /// tund does not start.
    Error,
}

impl Severity {
    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Severity.
    pub severity: Severity,
    /// Kind.
    pub code: Code,
    /// Byte range in the text; `None` if it concerns no single place.
    pub span: Option<Range<usize>>,
    /// What is wrong, in lower case without a full stop.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: Code, span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span, message.into())
    }

    /// A warning at `span`.
    pub fn warning(code: Code, span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span, message.into())
    }

    /// A note at `span`.
    pub fn note(code: Code, span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, span, message.into())
    }

    fn new(severity: Severity, code: Code, span: Option<Range<usize>>, message: String) -> Self {
        Self { severity, code, span, message: without_keys(&message), help: None }
    }

    /// Adds a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(without_keys(&help.into()));
        self
    }

    /// Whether it prevents tund's start.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Byte range in the text; `None` if a finding concerns no single place.
type Place = Option<Range<usize>>;

/// Collects findings, each with its remedy.
#[derive(Default)]
pub(super) struct Findings(pub Vec<Diagnostic>);

impl Findings {
    pub fn error(&mut self, code: Code, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.0.push(Diagnostic::error(code, place, message).help(help));
    }

    pub fn warning(&mut self, code: Code, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.0.push(Diagnostic::warning(code, place, message).help(help));
    }

    pub fn note(&mut self, code: Code, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.0.push(Diagnostic::note(code, place, message).help(help));
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|finding| finding.is_error()).count()
    }
}

/// Most findings shown of each severity.
const SHOWN: usize = 100;

/// Keeps the first findings of each severity, in order, and counts the rest: thousands of routes may have as many.
pub fn first_of_each_severity(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut counts = BTreeMap::new();
    found.retain(|finding| {
        let count = counts.entry(finding.severity).or_insert(0);
        *count += 1;
        *count <= SHOWN
    });
    for (severity, count) in counts.into_iter().filter(|(_, count)| *count > SHOWN) {
        let message = format!("{} more {}s are not shown", count - SHOWN, severity.name());
        found.push(Diagnostic::new(severity, Code::NotShown, None, message));
    }
    found
}

/// Masks what may be a key in `text`, runs of 32 or more hexadecimal digits, with stars. Findings are logged.
pub fn without_keys(text: &str) -> String {
    let other = |c: char| !c.is_ascii_hexdigit();
    let shown = |part: &str| match part.trim_end_matches(other).len() {
        0..32 => part.to_owned(),
        _ => part.replace(|c: char| c.is_ascii_hexdigit(), "*"),
    };
    text.split_inclusive(other).map(shown).collect()
}

/// Quotes `text` for display on one line: control characters escaped, at most 60 characters.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_findings_the_first_are_shown_and_errors_are_not_lost_among_warnings() {
        let warnings =
            (0..5000).map(|place| Diagnostic::warning(Code::NarrowerRoute, Some(place..place), "narrower"));
        let found: Vec<_> = warnings.chain([Diagnostic::error(Code::NoKey, None, "no key")]).collect();
        let shown = first_of_each_severity(found);
        assert_eq!(shown.len(), SHOWN + 2);
        assert_eq!(shown[SHOWN].message, "no key");
        assert_eq!(shown[SHOWN + 1].message, "4900 more warnings are not shown");
        assert_eq!(shown[SHOWN + 1].severity, Severity::Warning);
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_shown_and_all_else_is() {
        let key = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
        let found =
            Diagnostic::error(Code::BadPath, None, format!("file é {} is none", quote(key))).help(key);
        assert_eq!(found.message, format!("file é \"{}…\" is none", "*".repeat(60)));
        assert_eq!(found.help.unwrap(), "*".repeat(64));
        for plain in ["2001:db8:0123:4567:89ab:cdef:0123:4567", "é", "", "0123456789abcdef0123456789abcde=x"]
        {
            assert_eq!(without_keys(plain), plain);
        }
    }

    #[test]
    fn quoted_text_stays_one_short_printable_line() {
        assert_eq!(quote("a\n\u{1b}[31m"), "\"a\\n\\u{1b}[31m\"");
        assert_eq!(quote(&"x".repeat(61)), format!("\"{}…\"", "x".repeat(60)));
        assert_eq!(quote(&"x".repeat(60)), format!("\"{}\"", "x".repeat(60)));
    }
}
