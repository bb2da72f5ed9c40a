//! Text from outside, made safe to show and to pass on.

/// `text` with control and invisible characters replaced by `_`, cut to at most `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if is_printable(c) { c } else { '_' }).collect()
}

/// Splits a log line into its text and its condition's code. The code is in brackets at the end, where text from outside never is: that is followed
/// by the code, or quoted.
pub fn split_code(line: &str) -> (&str, Option<&str>) {
    let parts = line.strip_suffix(']').and_then(|line| line.rsplit_once(" ["));
    let is_code = |code: &str| {
        !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    parts.filter(|(_, code)| is_code(code)).map_or((line, None), |(text, code)| (text, Some(code)))
}

/// Whether `c` appears as itself on a terminal: no control characters, nothing that reorders, joins or hides.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffd}'
        | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_replaced() {
        assert_eq!(printable("a\nb\x1b[31m\u{202e}c\0\u{200b}\u{9b}d", 100), "a_b_[31m_c___d");
        assert_eq!(printable("/srv/Größe → 5 µs", 100), "/srv/Größe → 5 µs");
    }

    #[test]
    fn the_code_of_a_condition_ends_its_line() {
        assert_eq!(
            split_code("link down: why [not] [peer-silent]"),
            ("link down: why [not]", Some("peer-silent"))
        );
        for other in ["link up with [fe80::1]", "[peer-silent]", "a []", "a [B c]", "a [b", ""] {
            assert_eq!(split_code(other), (other, None));
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(printable("ööööö", 3), "ööö");
    }
}
