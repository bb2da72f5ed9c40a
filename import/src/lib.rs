//! Translates an OpenVPN configuration in static-key mode to tund's TOML.
//!
//! Directives with an equivalent are translated. Every other is reported with its line and the reason: none is dropped
//! silently.

mod link;
mod network;
mod openvpn;
mod reasons;
mod words;
mod write;

use std::ops::Range;

use zeroize::Zeroizing;

pub use reasons::{EQUALS, equal};

/// Bytes of an OpenVPN static key.
pub const KEY: usize = 256;

/// Most problems reported. A file with more is not OpenVPN's.
const MOST_PROBLEMS: usize = 100;

/// The peer's protocol from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wire {
    /// tund's own: both ends change together.
    #[default]
    Tund,
    /// The one it already speaks: it stays OpenVPN.
    OpenVpn,
}

/// Location of the old key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldKey {
    /// Inline, between `<secret>` and `</secret>`.
    Inline(Zeroizing<String>),
    /// A file, as the configuration names it.
    File(String),
}

/// A translated configuration.
#[derive(Debug)]
pub struct Imported {
    link: link::Link,
    /// Location of the old key.
    pub key: OldKey,
    /// Untranslated directives with the reason, and what else the user must know; the file has the same lines as comments.
    pub left_out: Vec<String>,
}

impl Imported {
    /// Returns tund's configuration, naming this key file.
    pub fn toml(&self, key_file: &str) -> String {
        write::write(&self.link, &self.left_out, key_file)
    }
}

/// Why a configuration cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Byte range in the text; `None` if it concerns no single place.
    pub place: Option<Range<usize>>,
    /// What is wrong, in lower case without a full stop.
    pub message: String,
    /// The remedy.
    pub help: String,
}

impl Problem {
    fn new(place: Option<Range<usize>>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { place, message: message.into(), help: help.into() }
    }
}

/// Why a file is not an OpenVPN static key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OldKeyError {
    /// The line that begins or ends the key is missing.
    #[error("it has no \"-----BEGIN OpenVPN Static key V1-----\" block: name the file of `secret`")]
    NoKey,
    /// The key is not hexadecimal.
    #[error("the key in it is not 512 hexadecimal digits: it is damaged")]
    Damaged,
}

/// Translates the text of a configuration, which may begin with a byte order mark.
///
/// # Errors
/// It is no link of two ends with a static key, a directive is invalid, or the wire format cannot be kept.
pub fn import(text: &str, wire: Wire) -> Result<Imported, Vec<Problem>> {
    let directives = words::read(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    let mut link = link::Link::new(wire);
    for directive in &directives {
        link.take(directive);
    }
    link.finish().map_err(|mut problems| {
        problems.truncate(MOST_PROBLEMS);
        problems
    })
}

/// Parses the 256-byte key from a file made by `openvpn --genkey secret`.
pub fn parse_key(text: &str) -> Result<Zeroizing<[u8; KEY]>, OldKeyError> {
    const BEGIN: &str = "-----BEGIN OpenVPN Static key V1-----";
    const END: &str = "-----END OpenVPN Static key V1-----";
    let begin = text.find(BEGIN).ok_or(OldKeyError::NoKey)? + BEGIN.len();
    let body = text.get(begin..).and_then(|rest| rest.split_once(END)).ok_or(OldKeyError::NoKey)?.0;
    let mut key = Zeroizing::new([0; KEY]);
    // Preallocated: a string that grew would leave a copy of the key behind.
    let mut digits = Zeroizing::new(String::with_capacity(body.len()));
    digits.extend(body.chars().filter(|c| !c.is_whitespace()));
    let whole = base16ct::mixed::decode(digits.as_bytes(), &mut *key).is_ok_and(|bytes| bytes.len() == KEY);
    if whole { Ok(key) } else { Err(OldKeyError::Damaged) }
}

/// Quotes `text` for display on one line.
fn quote(text: &str) -> String {
    format!("\"{}\"", one_line(text))
}

/// Makes one line of `text`: control characters and quotes escaped, at most 60 characters.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(more: &str) -> Imported {
        import(
            &format!(
                "\u{feff}remote 192.0.2.1 1194\r\ndev tun\nifconfig 10.8.0.1 10.8.0.2\nsecret k\n{more}"
            ),
            Wire::Tund,
        )
        .unwrap()
    }

    #[test]
    fn what_real_files_hold_is_translated() {
        let all = imported("nice -5\nsyslog\npasstos\ntun-mtu 1400\nauth-nocache\nping-timer-rem\n");
        for line in
            ["remote = \"192.0.2.1:1194\"", "nice = -5", "log = \"syslog\"", "dscp = \"copy\"", "mtu = 1400"]
        {
            assert!(all.toml("k").contains(&format!("{line}\n")), "{line}: {}", all.toml("k"));
        }
        assert_eq!(all.left_out.len(), 2, "{:?}", all.left_out);
    }

    #[test]
    fn what_is_wrong_everywhere_is_not_told_of_line_by_line() {
        for line in ["ca x\n", "up \"\n", "cipher x\n"] {
            let problems = import(&line.repeat(10 * MOST_PROBLEMS), Wire::OpenVpn).unwrap_err();
            assert_eq!(problems.len(), MOST_PROBLEMS, "{line}");
        }
    }

    #[test]
    fn a_number_of_any_size_is_taken_as_it_is() {
        let most = i64::MAX;
        for name in ["ping", "ping-restart", "verb", "nice", "sndbuf", "mark", "txqueuelen", "route-metric"] {
            for number in [most, -most, 0] {
                imported(&format!("{name} {number}\n")).toml("k");
            }
        }
        let toml = imported(&format!("ping {most}\n")).toml("k");
        assert!(toml.contains(&format!("timeout = \"{most}s\"")), "{toml}");
    }

    #[test]
    fn what_is_left_out_is_shown_with_its_quotes() {
        let left_out = imported("setenv a '\"b\"'\n").left_out;
        assert!(left_out[0].starts_with(r#"line 5: setenv a \"b\": "#), "{left_out:?}");
    }

    #[test]
    fn a_script_without_a_program_is_left_out_with_a_reason() {
        let nothing = imported("script-security 2\nup ''\n");
        assert!(!nothing.toml("k").contains("up ="), "{}", nothing.toml("k"));
        assert!(nothing.left_out[0].starts_with("line 6: up : "), "{:?}", nothing.left_out);
    }

    #[test]
    fn an_mtu_that_no_device_of_tund_has_is_left_out_with_the_range() {
        let huge = imported("tun-mtu 48000\n");
        assert!(!huge.toml("k").contains("\nmtu"), "{}", huge.toml("k"));
        assert_eq!(
            huge.left_out,
            ["line 5: tun-mtu 48000: device.mtu must be 576 to 9216, not 48000: left at its default"]
        );
    }
}
