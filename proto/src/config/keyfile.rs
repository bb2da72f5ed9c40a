//! The text form of keys: a comment with the kind of key, then 64 hexadecimal digits.

use std::fmt::Write as _;

use base16ct::HexDisplay;
use zeroize::Zeroizing;

/// Why a key file is rejected. The text names the remedy and never shows the file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A file of OpenVPN's `secret` or `tls-auth`.
    #[error(
        "this is an OpenVPN static key: make a new one with `tund genkey`, or convert it with `tund import --key`; if the peer is OpenVPN, \
         set key.mode = \"openvpn\""
    )]
    OpenVpn,
    /// The title names another kind of key.
    #[error("this is a {found}, not a {wanted}: name the right file")]
    Kind {
        /// Kind in the title.
        found: &'static str,
        /// Kind expected.
        wanted: &'static str,
    },
    /// No line with a key.
    #[error("the file has no key: make one with `tund genkey`")]
    Empty,
    /// There is more than one line besides comments.
    #[error("more than one line besides comments: a key file holds one key of 64 hexadecimal digits")]
    Several,
    /// The key has the wrong length.
    #[error("the key has {0} characters, not 64 hexadecimal digits: make one with `tund genkey`")]
    Length(usize),
    /// The key is not hexadecimal.
    #[error("the key is not made of hexadecimal digits: make one with `tund genkey`")]
    Digit,
    /// The key is all zeros, everybody's first guess.
    #[error("the key is all zeros, which anyone can guess: make one with `tund genkey`")]
    Zeros,
}

/// What a key file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFile {
    /// A shared secret, as `tund genkey` writes it.
    Secret,
    /// A private key, as `tund keypair` writes it.
    Private,
    /// A public key, whose digits `tund pubkey` prints for `key.peer-public`.
    Public,
}

impl KeyFile {
    fn noun(self) -> &'static str {
        match self {
            KeyFile::Secret => "shared secret",
            KeyFile::Private => "private key",
            KeyFile::Public => "public key",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            KeyFile::Secret => "keep it private, the same file at both ends",
            KeyFile::Private => "never leaves this machine",
            KeyFile::Public => "give it to the peer",
        }
    }

    /// Returns the kind that a comment line names.
    fn of_title(line: &str) -> Option<Self> {
        let title = line.trim_start_matches('#').trim_start().strip_prefix("tund ")?;
        [KeyFile::Secret, KeyFile::Private, KeyFile::Public]
            .into_iter()
            .find(|kind| title.starts_with(kind.noun()))
    }

    /// Returns the text of a key file.
    pub fn format(self, key: &[u8; 32]) -> Zeroizing<String> {
        let title = format!("# tund {}: {}", self.noun(), self.advice());
        // Exact capacity: a string that grew would leave a copy of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(title.len() + 1 + 64 + 1));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}\n{:x}", HexDisplay(key));
        text
    }

    /// Parses the text of a key file of this kind, or the bare digits.
    pub fn parse(self, text: &str) -> Result<[u8; 32], KeyError> {
        if text.contains("BEGIN OpenVPN Static key") {
            return Err(KeyError::OpenVpn);
        }
        let mut key = None;
        // Editors on other systems add a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                if let Some(found) = Self::of_title(line).filter(|found| *found != self) {
                    return Err(KeyError::Kind { found: found.noun(), wanted: self.noun() });
                }
            } else if key.replace(line).is_some() {
                return Err(KeyError::Several);
            }
        }
        parse_hex(key.ok_or(KeyError::Empty)?)
    }
}

fn parse_hex(digits: &str) -> Result<[u8; 32], KeyError> {
    let count = digits.chars().count();
    if count != 64 {
        return Err(KeyError::Length(count));
    }
    let mut key = [0; 32];
    base16ct::mixed::decode(digits, &mut key).map_err(|_| KeyError::Digit)?;
    if key == [0; 32] { Err(KeyError::Zeros) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> [u8; 32] {
        std::array::from_fn(|i| (i * 37 + 5) as u8)
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(KeyFile::Secret.parse(&KeyFile::Secret.format(&key())), Ok(key()));
        assert_eq!(KeyFile::Private.parse(&KeyFile::Private.format(&key())), Ok(key()));
        assert_eq!(KeyFile::Public.parse(&KeyFile::Public.format(&key())), Ok(key()));
    }

    #[test]
    fn the_form_is_a_comment_and_64_lower_case_digits() {
        let text = KeyFile::Secret.format(&[0xab; 32]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with('#'));
        assert_eq!(lines[1..], ["ab".repeat(32)]);
    }

    #[test]
    fn a_key_of_another_kind_is_refused_by_name() {
        let found = KeyFile::Secret.parse(&KeyFile::Private.format(&key()));
        assert_eq!(found, Err(KeyError::Kind { found: "private key", wanted: "shared secret" }));
        assert!(KeyFile::Private.parse(&KeyFile::Secret.format(&key())).is_err());
        assert!(KeyFile::Private.parse(&KeyFile::Public.format(&key())).is_err());
    }

    #[test]
    fn bare_digits_blank_lines_and_carriage_returns_are_taken() {
        let digits = "0A".repeat(32);
        assert_eq!(KeyFile::Secret.parse(&digits), Ok([10; 32]));
        assert_eq!(KeyFile::Secret.parse(&format!("\r\n# mine\r\n  {digits}\r\n")), Ok([10; 32]));
        let text = format!("\u{feff}{}", *KeyFile::Secret.format(&key()));
        assert_eq!(KeyFile::Secret.parse(&text), Ok(key()), "a byte order mark");
    }

    #[test]
    fn each_malformed_file_is_named() {
        let openvpn = "#\n# 2048 bit OpenVPN static key\n#\n-----BEGIN OpenVPN Static key V1-----\nabcd\n";
        assert_eq!(KeyFile::Secret.parse(openvpn), Err(KeyError::OpenVpn));
        assert_eq!(KeyFile::Secret.parse("# only a comment\n"), Err(KeyError::Empty));
        assert_eq!(KeyFile::Secret.parse(&"a".repeat(63)), Err(KeyError::Length(63)));
        assert_eq!(KeyFile::Secret.parse(&"é".repeat(64)), Err(KeyError::Digit));
        assert_eq!(KeyFile::Secret.parse(&"0".repeat(64)), Err(KeyError::Zeros));
        assert_eq!(KeyFile::Secret.parse(&format!("g{}", "a".repeat(63))), Err(KeyError::Digit));
        assert_eq!(KeyFile::Secret.parse(&format!("{0}\n{0}", "a".repeat(64))), Err(KeyError::Several));
    }
}
