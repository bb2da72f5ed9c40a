//! Text from elsewhere, made safe to show and to hand on.

/// `text` with every control and invisible character replaced by `_`, cut to at most `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if is_printable(c) { c } else { '_' }).collect()
}

/// Whether `c` shows on a terminal as itself: no control characters, nothing that reorders, joins or hides.
fn is_printable(c: char) -> bool {
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
    fn long_text_is_cut_between_characters() {
        assert_eq!(printable("ööööö", 3), "ööö");
    }
}
