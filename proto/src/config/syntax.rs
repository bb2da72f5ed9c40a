//! A syntax error of TOML as a finding.

use super::code::Code;
use super::diagnostic::{Diagnostic, quote};

/// A TOML syntax error as a diagnostic of `text`, with a remedy where the cause is a common one.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> Diagnostic {
    let message = error.message().trim_end_matches('.').replace('\n', ", ");
    let found = Diagnostic::error(Code::Syntax, error.span(), message);
    let Some(span) = error.span() else { return found };
    let before = text.get(..span.start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    match line.split_once('=') {
        Some(_) if found.message == "duplicate key" => found.help("take one of the two out"),
        Some((key, value)) if is_bare_text(value) => {
            found.help(format!("put text in quotes: {} = {}", key.trim(), quote(value.trim())))
        }
        Some(_) | None => found,
    }
}

fn is_bare_text(value: &str) -> bool {
    let value = value.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | ':' | '-' | '_');
    !value.is_empty() && value.chars().all(plain)
}
