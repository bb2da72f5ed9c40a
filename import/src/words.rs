//! Lexer for OpenVPN configurations: directives, quotes, comments, inline files.

use std::ops::Range;

use zeroize::Zeroizing;

use crate::{MOST_PROBLEMS, Problem, quote};

/// A directive and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Line number, from 1.
    pub line: usize,
    /// Byte range of the line.
    pub place: Range<usize>,
    /// Name without `--`, or the tag of an inline file.
    pub name: String,
    /// What follows the name.
    pub arguments: Vec<String>,
    /// The text of an inline file.
    pub inline: Option<Zeroizing<String>>,
}

/// Splits a text into directives.
pub(super) fn read(text: &str) -> Result<Vec<Directive>, Vec<Problem>> {
    let mut directives = Vec::new();
    let mut errors = Vec::new();
    let mut lines = Lines { text, start: 0, number: 0 };
    while let Some((line, place)) = lines.next() {
        let number = lines.number;
        if let Some(tag) = opening(line) {
            match lines.until(tag) {
                Some(body) if tag == "connection" => {
                    directives.extend(read(body)?.into_iter().map(|inner| Directive {
                        line: inner.line + number,
                        place: place.clone(),
                        ..inner
                    }))
                }
                Some(body) => directives.push(Directive {
                    line: number,
                    place,
                    name: tag.to_owned(),
                    arguments: Vec::new(),
                    inline: Some(Zeroizing::new(body.to_owned())),
                }),
                None => {
                    let message = format!("<{tag}> has no </{tag}>");
                    errors.push(Problem::new(Some(place), message, "end the inline file"));
                    break;
                }
            }
            continue;
        }
        match split(line) {
            Ok(words) => {
                let mut words = words.into_iter();
                if let Some(name) = words.next() {
                    let name = name.strip_prefix("--").unwrap_or(&name).to_owned();
                    directives.push(Directive {
                        line: number,
                        place,
                        name,
                        arguments: words.collect(),
                        inline: None,
                    });
                }
            }
            Err(problem) => errors.push(Problem::new(Some(place), problem, "fix the quotes")),
        }
        if errors.len() == MOST_PROBLEMS {
            break;
        }
    }
    if errors.is_empty() { Ok(directives) } else { Err(errors) }
}

struct Lines<'a> {
    text: &'a str,
    start: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<(&'a str, Range<usize>)> {
        let rest = self.text.get(self.start..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = rest.get(..length)?.trim_end();
        let place = self.start..self.start + line.len();
        self.start += length;
        self.number += 1;
        Some((line, place))
    }

    /// Returns the text up to the closing tag and skips the tag.
    fn until(&mut self, tag: &str) -> Option<&'a str> {
        let begin = self.start;
        while let Some((line, place)) = self.next() {
            if line.trim() == format!("</{tag}>") {
                return self.text.get(begin..place.start);
            }
        }
        None
    }
}

fn opening(line: &str) -> Option<&str> {
    let tag = line.trim().strip_prefix('<')?.strip_suffix('>')?;
    tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_').then_some(tag)
}

/// Splits a line into words as OpenVPN does: double quotes preserve blanks, single quotes everything, a backslash the
/// next character. `#` or `;` at the start of a word begins a comment.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted: Option<char> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (c, quoted) {
            ('\\', None | Some('"')) => {
                let kept = rest.next().ok_or("a backslash ends the line")?;
                word.get_or_insert_default().push(kept);
            }
            (c, Some(end)) if c == end => quoted = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            ('#' | ';', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quoted) = quoted {
        return Err(format!("the quote {} has no end", quote(&quoted.to_string())));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap()
    }

    #[test]
    fn quotes_escapes_and_comments_are_openvpns() {
        assert_eq!(words("  dev   tun0 # one"), ["dev", "tun0"]);
        assert_eq!(words("up \"/etc/a b.sh 'x'\" c#d"), ["up", "/etc/a b.sh 'x'", "c#d"]);
        assert_eq!(words(r#"up '/etc/a\b' c\ d """#), ["up", r"/etc/a\b", "c d", ""]);
        assert_eq!(words("; all of it"), Vec::<String>::new());
        assert!(split("up \"/etc").is_err() && split("up \\").is_err());
    }

    #[test]
    fn lines_tags_and_connections_keep_their_numbers() {
        let text =
            "dev tun\r\n<connection>\nremote a 1\n</connection>\n<secret>\n-----\nab\n</secret>\n--verb 3";
        let read = read(text).unwrap();
        let found: Vec<_> = read.iter().map(|d| (d.line, d.name.as_str(), d.arguments.join(" "))).collect();
        let expected = [(1, "dev", "tun"), (3, "remote", "a 1"), (5, "secret", ""), (9, "verb", "3")];
        assert_eq!(found, expected.map(|(line, name, rest)| (line, name, rest.to_owned())));
        assert_eq!(read[2].inline.as_ref().unwrap().as_str(), "-----\nab\n");
    }

    #[test]
    fn an_inline_file_without_end_is_an_error_at_its_tag() {
        let errors = read("dev tun\n<secret>\nab\n").unwrap_err();
        assert_eq!((errors.len(), errors[0].place.clone()), (1, Some(8..16)));
    }
}
