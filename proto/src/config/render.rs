//! Renders a diagnostic as rustc does: file, line, column, the line itself and the remedy.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity, without_keys};

/// Renders `d` as several lines without a final newline; `file` is the name shown and `text` what was parsed.
pub fn render(file: &str, text: &str, d: &Diagnostic, color: bool) -> String {
    let level = match d.severity {
        Severity::Note => Level::NOTE,
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let help = d.help.as_deref().map(|help| Level::HELP.message(help));
    let Some(span) = &d.span else {
        let title = level.primary_title(format!("{file}: {}", d.message));
        return renderer.render(&[title.id(d.code.name()).elements(help)]);
    };
    let (number, line, place) = line_of(text, span);
    let line = without_keys(line);
    let mark = AnnotationKind::Primary.span(place);
    let group = level
        .primary_title(d.message.as_str())
        .id(d.code.name())
        .element(Snippet::source(line.as_str()).line_start(number).path(file).annotation(mark))
        .elements(help);
    renderer.render(&[group])
}

/// Returns line and column, from 1, of a byte offset in `text`. The column counts characters.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Returns the line where `span` begins, its number from 1, and the part of `span` in it, on character boundaries. Rendering
/// is by line, as a file may have very many.
pub(super) fn line_of<'t>(text: &'t str, span: &Range<usize>) -> (usize, &'t str, Range<usize>) {
    let (before, after) = text.split_at(text.floor_char_boundary(span.start));
    let begin = before.rfind('\n').map_or(0, |i| i + 1);
    let end = after.find('\n').map_or(text.len(), |i| before.len() + i);
    let marked = before.len()..text.floor_char_boundary(span.end).clamp(before.len(), end);
    (before.matches('\n').count() + 1, &text[begin..end], marked.start - begin..marked.end - begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Code;

    const TEXT: &str = "float = true\n[key]\nfiel = \"x\"\n";

    #[test]
    fn a_diagnostic_shows_file_line_column_the_line_and_the_remedy() {
        let d = Diagnostic::error(Code::UnknownKey, Some(19..23), "unknown key `fiel`")
            .help("did you mean `file`?");
        let shown = render("a.toml", TEXT, &d, false);
        for part in [
            "error[unknown-key]: unknown key `fiel`",
            "a.toml:3:1",
            "fiel = \"x\"",
            "^^^^",
            "help: did you mean `file`?",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }

    #[test]
    fn a_key_in_the_line_is_not_shown() {
        let text = format!("secret = '{}'\n", "0f".repeat(32));
        let shown = render("a", &text, &Diagnostic::error(Code::UnknownKey, Some(0..6), "m"), false);
        assert!(shown.contains(&format!("secret = '{}'", "*".repeat(64))), "{shown}");
    }

    #[test]
    fn without_a_place_the_file_is_still_named() {
        let shown = render("a.toml", TEXT, &Diagnostic::warning(Code::PortTaken, None, "port taken"), false);
        assert!(shown.contains("warning[port-taken]: a.toml: port taken"), "{shown}");
    }

    #[test]
    fn colour_is_only_used_when_asked_for() {
        let d = Diagnostic::note(Code::NotChecked, Some(0..5), "m");
        assert!(!render("a", TEXT, &d, false).contains('\u{1b}'));
        assert!(render("a", TEXT, &d, true).contains('\u{1b}'));
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_is_shown_all_the_same() {
        for span in [3..900, 900..901, 1..2, 0..0] {
            let shown = render("a", "é\nb", &Diagnostic::error(Code::Syntax, Some(span), "m"), false);
            assert!(shown.contains("error[syntax]: m"), "{shown}");
        }
    }

    #[test]
    fn positions_count_characters_from_one() {
        assert_eq!(position(TEXT, 0), (1, 1));
        assert_eq!(position(TEXT, 19), (3, 1));
        assert_eq!(position("é = 1", 2), (1, 2));
        assert_eq!(position("a\n", 900), (2, 1));
    }
}
