//! The directives about the wire format, kept for a peer that stays OpenVPN.

use crate::quote;
use crate::words::Directive;
use crate::write::Text;

/// Ciphers that both have, by tund's names, with the key length in bits.
const CIPHERS: [(&str, i64); 5] = [
    ("aes-256-cbc", 256),
    ("aes-192-cbc", 192),
    ("aes-128-cbc", 128),
    ("bf-cbc", 128),
    ("des-ede3-cbc", 192),
];
/// OpenVPN's cipher without `cipher`.
const DEFAULT: &str = "bf-cbc";
/// Digests that both have, by tund's names.
const DIGESTS: [&str; 4] = ["sha1", "sha256", "sha384", "sha512"];
/// Range of tund's `openvpn.fragment` in bytes.
const FRAGMENT: std::ops::RangeInclusive<i64> = 68..=65_000;

/// Warning for a configuration without `cipher`.
const NO_CIPHER: &str = "cipher: not set, so OpenVPN uses BF-CBC, and so does the file below: its 64-bit blocks start to leak \
                         plaintext after about 32 GiB under one key. Set `cipher AES-256-CBC` on both ends soon";

/// Why a directive prevents the import, and the remedy.
pub(super) type Refusal = (String, &'static str);

/// The outcome of a directive.
pub(super) enum Taken {
    /// Kept.
    Kept,
    /// Kept, with this note.
    Noted(&'static str),
    /// It does not concern the wire.
    Other,
}

/// Wire settings from the directives read so far.
#[derive(Debug, Default)]
pub(super) struct OpenVpn {
    cipher: Option<&'static str>,
    digest: Option<&'static str>,
    direction: Option<i64>,
    key_size: Option<i64>,
    framing: Option<&'static str>,
    fragment: Option<i64>,
    /// Whether any address is accepted, not only that in `remote`.
    pub float: bool,
}

impl OpenVpn {
    /// Reads one directive.
    ///
    /// # Errors
    /// It has no equivalent, and the peer could not communicate without it.
    pub fn take(&mut self, directive: &Directive) -> Result<Taken, Refusal> {
        let words: Vec<&str> = directive.arguments.iter().map(String::as_str).collect();
        match (directive.name.as_str(), words.as_slice()) {
            ("cipher" | "data-ciphers-fallback", [name]) => {
                let known = CIPHERS.iter().map(|(known, _)| *known);
                self.cipher = Some(one_of(known, name, "set `cipher AES-256-CBC` on both ends")?);
            }
            ("auth", [name]) => {
                self.digest = Some(one_of(DIGESTS, name, "set `auth SHA256` on both ends")?);
            }
            ("secret", [_, direction]) | ("key-direction", [direction]) => {
                self.direction = Some(number(directive, direction, 0..=1)?);
                return Ok(if directive.name == "secret" { Taken::Other } else { Taken::Kept });
            }
            ("keysize", [bits]) => self.key_size = Some(number(directive, bits, 0..=i64::MAX)?),
            ("fragment", [size, ..]) => self.fragment = Some(number(directive, size, FRAGMENT)?),
            ("comp-lzo" | "compress", words) => return self.compression(&directive.name, words),
            ("proto", [proto]) | ("remote", [_, _, proto, ..]) if !proto.starts_with("udp") => {
                return refuse(
                    "OpenVPN's framing of TCP",
                    "set `proto udp` on both ends, and let UDP through",
                );
            }
            ("no-replay", _) => {
                return refuse("a link without packet ids", "remove `no-replay` on both ends");
            }
            ("no-iv", _) => return refuse("a link without IVs", "remove `no-iv` on both ends"),
            ("float", []) => self.float = true,
            _ => return Ok(Taken::Other),
        }
        Ok(Taken::Kept)
    }

    /// Reads the compression framing. Nothing is compressed, which every OpenVPN accepts.
    fn compression(&mut self, name: &str, words: &[&str]) -> Result<Taken, Refusal> {
        let (framing, compresses) = match (name, words) {
            ("comp-lzo", ["no"]) => ("comp-lzo", false),
            ("comp-lzo", _) | (_, ["lzo"]) => ("comp-lzo", true),
            (_, [] | ["stub"]) => ("stub", false),
            (_, ["lz4"]) => ("stub", true),
            (_, ["stub-v2"]) => ("stub-v2", false),
            (_, ["lz4-v2"]) => ("stub-v2", true),
            _ => return Ok(Taken::Other),
        };
        self.framing = Some(framing);
        Ok(if compresses {
            Taken::Noted(
                "its framing is kept; compressed packets are dropped, and a peer up to 2.4, or one with `allow-compression yes`, sends \
                 some: set `comp-lzo no`, `compress stub` or `compress stub-v2` there",
            )
        } else {
            Taken::Kept
        })
    }

    fn cipher(&self) -> &'static str {
        self.cipher.unwrap_or(DEFAULT)
    }

    /// Returns a note on the directives as a whole.
    ///
    /// # Errors
    /// A key length that no cipher of tund has.
    pub fn finish(&self) -> Result<Option<String>, Refusal> {
        let usual = CIPHERS.iter().find(|(name, _)| *name == self.cipher()).map(|(_, bits)| *bits);
        match self.key_size.filter(|bits| usual != Some(*bits)) {
            Some(bits) => refuse(
                &format!("a key of {bits} bits for {}", self.cipher()),
                "remove `keysize`, and set `cipher AES-256-CBC`, on both ends",
            ),
            None => Ok(self.cipher.is_none().then(|| NO_CIPHER.to_owned())),
        }
    }

    /// Writes `[key]` and `[openvpn]`.
    pub fn write(&self, key_file: &str, out: &mut Text) {
        out.line("\n[key]");
        out.text("mode", "openvpn");
        out.text("file", key_file);
        out.number("direction", self.direction);
        out.text("cipher", self.cipher());
        if CIPHERS.iter().skip_while(|(name, _)| *name != DEFAULT).any(|(weak, _)| *weak == self.cipher()) {
            out.line("weak-ciphers = true         # blocks of 64 bits: to be left behind soon");
        }
        out.text("auth", self.digest.unwrap_or(DIGESTS[0]));
        out.table("openvpn", |out| {
            out.text("framing", self.framing);
            out.number("fragment", self.fragment);
        });
    }
}

/// OpenSSL ignores case and accepts digests with a prefix.
fn one_of(
    known: impl IntoIterator<Item = &'static str>,
    name: &str,
    help: &'static str,
) -> Result<&'static str, Refusal> {
    let lower = name.to_ascii_lowercase();
    let plain = lower.strip_prefix("rsa-").unwrap_or(&lower);
    known.into_iter().find(|known| *known == plain).map_or_else(|| refuse(&quote(name), help), Ok)
}

fn number(directive: &Directive, text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, Refusal> {
    let read = text.parse().ok().filter(|number| range.contains(number));
    read.ok_or_else(|| {
        (format!("{} cannot be {}", directive.name, quote(text)), "fix it as openvpn(8) describes")
    })
}

fn refuse<T>(what: &str, help: &'static str) -> Result<T, Refusal> {
    Err((format!("{what} has no equivalent"), help))
}
