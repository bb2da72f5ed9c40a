//! TOML syntax errors as findings.

use super::code::Code;
use super::diagnostic::{Diagnostic, quote};
use super::render::line_of;

/// Converts a TOML syntax error in `text` to a diagnostic, with a remedy for common causes.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> Diagnostic {
    let message = error.message().trim_end_matches('.').replace('\n', ", ");
    let found = Diagnostic::error(Code::Syntax, error.span(), message);
    let Some(span) = error.span() else { return found };
    let (_, line, place) = line_of(text, &span);
    match remedy(&found.message, line, place.start) {
        Some(help) => found.help(help),
        None => found,
    }
}

/// Returns the remedy for an error `at` this byte of the line.
fn remedy(message: &str, line: &str, at: usize) -> Option<String> {
    if message == "duplicate key" {
        return Some("remove one of the two".to_owned());
    }
    if line.get(at..).and_then(|rest| rest.chars().next()).is_some_and(is_typeset) {
        return Some("retype the quotes and spaces of this line: these are a word processor's".to_owned());
    }
    if line.trim_start().starts_with(['/', ';', '!']) {
        return Some("a comment begins with #".to_owned());
    }
    if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim(), value.split(" #").next().unwrap_or_default().trim());
        return match value.to_ascii_lowercase().as_str() {
            truth @ ("true" | "false") => Some(format!("write it in lower case: {key} = {truth}")),
            "yes" | "on" => Some(format!("write {key} = true")),
            "no" | "off" => Some(format!("write {key} = false")),
            _ => is_bare_text(value).then(|| format!("put text in quotes: {key} = {}", quote(value))),
        };
    }
    let word = line.split_whitespace().next().unwrap_or_default();
    if let Some(hint) = tund_import::equal(word) {
        return Some(format!("{hint}; `tund import` translates an OpenVPN file"));
    }
    let other = message.starts_with("key with no value") || word.starts_with('<');
    other.then(|| {
        "write key = value, with text in quotes; `tund import` translates an OpenVPN file".to_owned()
    })
}

fn is_bare_text(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | ':' | '-' | '_');
    !value.is_empty() && value.chars().all(plain)
}

/// Quotes and spaces pasted from a web page or a letter, which only look right.
fn is_typeset(c: char) -> bool {
    matches!(c, '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{b4}' | '`')
        || (c.is_whitespace() && !c.is_ascii())
}
