//! The text form of keys: a comment with the kind of key, then 64 hexadecimal digits.

use std::fmt::Write as _;

use base16ct::HexDisplay;
use zeroize::Zeroizing;

const SECRET_TITLE: &str = "# tund shared secret: keep it private, the same file at both ends";
const PRIVATE_TITLE: &str = "# tund private key: never leaves this machine";
const PUBLIC_TITLE: &str = "# tund public key: give it to the peer";

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

/// Formats a shared secret as `tund genkey` writes it.
pub fn format_secret(secret: &[u8; 32]) -> Zeroizing<String> {
    format_key(SECRET_TITLE, secret)
}

/// Formats a private key as `tund keypair` writes it.
pub fn format_private(key: &[u8; 32]) -> Zeroizing<String> {
    format_key(PRIVATE_TITLE, key)
}

/// Formats a public key as `tund pubkey` writes it.
pub fn format_public(key: &[u8; 32]) -> Zeroizing<String> {
    format_key(PUBLIC_TITLE, key)
}

/// Parses the file of a shared secret.
pub fn parse_secret(text: &str) -> Result<[u8; 32], KeyError> {
    parse_key(text, Kind::Secret)
}

/// Parses the file of a private key.
pub fn parse_private(text: &str) -> Result<[u8; 32], KeyError> {
    parse_key(text, Kind::Private)
}

/// Parses a public key: its file, or the bare 64 digits as in `key.peer-public`.
pub fn parse_public(text: &str) -> Result<[u8; 32], KeyError> {
    parse_key(text, Kind::Public)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Private,
    Public,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::Secret => "shared secret",
            Kind::Private => "private key",
            Kind::Public => "public key",
        }
    }

    /// Returns the kind that a comment line names.
    fn of_title(line: &str) -> Option<Self> {
        let title = line.trim_start_matches('#').trim_start().strip_prefix("tund ")?;
        [Kind::Secret, Kind::Private, Kind::Public].into_iter().find(|kind| title.starts_with(kind.noun()))
    }
}

fn format_key(title: &str, key: &[u8; 32]) -> Zeroizing<String> {
    // Exact capacity: a string that grew would leave a copy of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(title.len() + 1 + 64 + 1));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{title}\n{:x}", HexDisplay(key));
    text
}

fn parse_key(text: &str, wanted: Kind) -> Result<[u8; 32], KeyError> {
    if text.contains("BEGIN OpenVPN Static key") {
        return Err(KeyError::OpenVpn);
    }
    let mut key = None;
    // Editors on other systems add a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            if let Some(found) = Kind::of_title(line).filter(|found| *found != wanted) {
                return Err(KeyError::Kind { found: found.noun(), wanted: wanted.noun() });
            }
        } else if key.replace(line).is_some() {
            return Err(KeyError::Several);
        }
    }
    parse_hex(key.ok_or(KeyError::Empty)?)
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
        assert_eq!(parse_secret(&format_secret(&key())), Ok(key()));
        assert_eq!(parse_private(&format_private(&key())), Ok(key()));
        assert_eq!(parse_public(&format_public(&key())), Ok(key()));
    }

    #[test]
    fn the_form_is_a_comment_and_64_lower_case_digits() {
        let text = format_secret(&[0xab; 32]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with('#'));
        assert_eq!(lines[1..], ["ab".repeat(32)]);
    }

    #[test]
    fn a_key_of_another_kind_is_refused_by_name() {
        let found = parse_secret(&format_private(&key()));
        assert_eq!(found, Err(KeyError::Kind { found: "private key", wanted: "shared secret" }));
        assert!(parse_private(&format_secret(&key())).is_err());
        assert!(parse_private(&format_public(&key())).is_err());
    }

    #[test]
    fn bare_digits_blank_lines_and_carriage_returns_are_taken() {
        let digits = "0A".repeat(32);
        assert_eq!(parse_secret(&digits), Ok([10; 32]));
        assert_eq!(parse_secret(&format!("\r\n# mine\r\n  {digits}\r\n")), Ok([10; 32]));
        let text = format!("\u{feff}{}", *format_secret(&key()));
        assert_eq!(parse_secret(&text), Ok(key()), "a byte order mark");
    }

    #[test]
    fn each_malformed_file_is_named() {
        let openvpn = "#\n# 2048 bit OpenVPN static key\n#\n-----BEGIN OpenVPN Static key V1-----\nabcd\n";
        assert_eq!(parse_secret(openvpn), Err(KeyError::OpenVpn));
        assert_eq!(parse_secret("# only a comment\n"), Err(KeyError::Empty));
        assert_eq!(parse_secret(&"a".repeat(63)), Err(KeyError::Length(63)));
        assert_eq!(parse_secret(&"é".repeat(64)), Err(KeyError::Digit));
        assert_eq!(parse_secret(&"0".repeat(64)), Err(KeyError::Zeros));
        assert_eq!(parse_secret(&format!("g{}", "a".repeat(63))), Err(KeyError::Digit));
        assert_eq!(parse_secret(&format!("{0}\n{0}", "a".repeat(64))), Err(KeyError::Several));
    }
}
