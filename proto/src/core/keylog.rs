//! Entries of a key log, which let a decoder read a link's datagrams (docs/tund.8.md has the format).
//!
//! A log has derived keys only. The outer keys come from the link secret and last as long, but open no body and make
//! none. Each body key is for one direction of one session or key id, each handshake key for one datagram. The key that
//! wraps handshakes is left out: with it anyone could call, with any content, as long as the link secret lasts.

use std::fmt::Write;

use base16ct::HexDisplay;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

pub use super::lane::Name;
use super::lane::{Command, ReceiveCommand, Received, SendCommand, Settings};
use crate::crypto::keys::Secret;
use crate::crypto::suite::Cipher;
use crate::crypto::wrap;
use crate::wire::datagram::Framing;

/// First line of a key log.
pub const HEAD: &str = "# tund key log 1\n";

/// A key for the log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged([u8; 32]);

impl Drop for Logged {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<Secret> for Logged {
    fn from(key: Secret) -> Self {
        Self(*key)
    }
}

/// Reveals no key.
impl std::fmt::Debug for Logged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logged")
    }
}

/// Direction of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A link begins; the following keys are its own.
    Link {
        /// Frames are Ethernet rather than IP.
        tap: bool,
        /// Datagrams begin with a key id.
        key_ids: bool,
        /// Key that identifies handshakes and key ids.
        probe: Logged,
        /// Key that hides headers.
        mask: Logged,
        /// Key that hides the lengths of a stream's records.
        stream: Logged,
    },
    /// A key of bodies.
    Traffic {
        /// Direction.
        way: Way,
        /// The AEAD.
        cipher: Cipher,
        /// What names it.
        name: Name,
        /// The lane, 0 to 15.
        lane: u8,
        /// The key.
        key: Logged,
    },
    /// A key of one handshake datagram.
    Handshake {
        /// Direction.
        way: Way,
        /// Its first bytes.
        random: [u8; 16],
        /// The key.
        key: Logged,
    },
}

impl Entry {
    /// Entry for a link that begins.
    pub fn link(settings: &Settings, tap: bool) -> Self {
        let [probe, mask, stream] = settings.keys.outside().map(Logged::from);
        Self::Link { tap, key_ids: settings.framing == Framing::Static, probe, mask, stream }
    }

    /// Entry for a handshake that a lane has received.
    pub fn taken(settings: &Settings, handshake: &Received) -> Option<Self> {
        Self::handshake(settings, Way::In, &handshake.datagram)
    }

    fn handshake(settings: &Settings, way: Way, datagram: &[u8]) -> Option<Self> {
        let (random, key) = wrap::key_of(&settings.keys, datagram)?;
        Some(Self::Handshake { way, random, key: key.into() })
    }

    /// Entry for the key, or the handshake to be sent, in a command to a lane, if any.
    pub fn of(settings: &Settings, command: &Command) -> Option<Self> {
        use ReceiveCommand as In;
        use SendCommand as Out;
        let (way, direction, key, named) = match command {
            Command::Send(Out::Prepare(_, key)) => (Way::Out, settings.direction, key, None),
            Command::Send(Out::Pair { key, named, .. }) => (Way::Out, settings.direction, key, Some(named)),
            Command::Receive(In::Accept { key, named, .. }) => {
                (Way::In, 1 - settings.direction, key, named.as_ref())
            }
            Command::Send(Out::Handshake(sent)) => {
                return Self::handshake(settings, Way::Out, &sent.datagram);
            }
            Command::Send(
                Out::Switch(_)
                | Out::Wipe(_)
                | Out::WipeAll
                | Out::Control { .. }
                | Out::Way { .. }
                | Out::Endpoint(_)
                | Out::Agreed(_)
                | Out::Budget(_)
                | Out::Hold(_),
            )
            | Command::Receive(
                In::Forget(_)
                | In::WipeAll
                | In::Endpoint(_)
                | In::Agreed(_)
                | In::Sources(_)
                | In::Again(_)
                | In::Hold(_)
                | In::Probe(..),
            ) => return None,
        };
        let (name, cipher) = (key.name(), settings.cipher_of(key));
        let bytes = settings.key_bytes(direction, key, named)?.into();
        Some(Self::Traffic { way, cipher, name, lane: settings.lane, key: bytes })
    }

    /// Formats the line with its newline.
    pub fn line(&self) -> Zeroizing<String> {
        // Large enough for any entry: reallocation would leave a copy of the key.
        let mut line = Zeroizing::new(String::with_capacity(256));
        match self {
            Self::Link { tap, key_ids, probe, mask, stream } => {
                let mode = if *tap { "tap" } else { "tun" };
                line.push_str(if *key_ids { "link static " } else { "link handshake " });
                line.push_str(mode);
                hex(&mut line, &probe.0);
                hex(&mut line, &mask.0);
                hex(&mut line, &stream.0);
            }
            Self::Handshake { way, random, key } => {
                line.push_str("handshake ");
                line.push_str(way.word());
                hex(&mut line, random);
                hex(&mut line, &key.0);
            }
            Self::Traffic { way, cipher, name, lane, key } => {
                line.push_str("key ");
                line.push_str(way.word());
                line.push_str(match cipher {
                    Cipher::ChaCha20Poly1305 => " chacha20-poly1305",
                    Cipher::Aes256Gcm => " aes-256-gcm",
                });
                match name {
                    // Writing to a String cannot fail.
                    Name::Slot(slot) => {
                        let _ = write!(line, " {slot}");
                    }
                    Name::KeyId(key_id) => hex(&mut line, &key_id.0),
                }
                let _ = write!(line, " {lane}");
                hex(&mut line, &key.0);
            }
        }
        line.push('\n');
        line
    }
}

/// Appends a space and the bytes.
fn hex(line: &mut String, bytes: &[u8]) {
    // Writing to a String cannot fail.
    let _ = write!(line, " {:x}", HexDisplay(bytes));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Options, parse};
    use crate::core::key_id::KeyId;
    use crate::core::lane::{Key, KeySlot};
    use crate::core::settings::LinkSettings;
    use crate::crypto::keys::LinkKeys;

    fn key(byte: u8) -> Logged {
        Zeroizing::new([byte; 32]).into()
    }

    #[test]
    fn entries_are_lines_of_words() {
        let link =
            Entry::Link { tap: false, key_ids: true, probe: key(0x1f), mask: key(0xa0), stream: key(7) };
        let keys = ["1f", "a0", "07"].map(|byte| byte.repeat(32)).join(" ");
        assert_eq!(*link.line(), format!("link static tun {keys}\n"));
        let mut entry = Entry::Traffic {
            way: Way::Out,
            cipher: Cipher::Aes256Gcm,
            name: Name::Slot(3),
            lane: 0,
            key: key(2),
        };
        assert_eq!(*entry.line(), format!("key out aes-256-gcm 3 0 {}\n", "02".repeat(32)));
        if let Entry::Traffic { name, way, cipher, .. } = &mut entry {
            (*name, *way, *cipher) = (Name::KeyId(KeyId([9; 16])), Way::In, Cipher::ChaCha20Poly1305);
        }
        let line = format!("key in chacha20-poly1305 {} 0 {}\n", "09".repeat(16), "02".repeat(32));
        assert_eq!(*entry.line(), line);
        assert!(!format!("{entry:?}").contains("2, 2"), "{entry:?}");
        let entry = Entry::Handshake { way: Way::In, random: [8; 16], key: key(3) };
        assert_eq!(*entry.line(), format!("handshake in {} {}\n", "08".repeat(16), "03".repeat(32)));
    }

    #[test]
    fn keys_are_logged_as_they_are_prepared_and_accepted() {
        let text = "listen = 1417\n[key]\nfile = 'k'\nmode = 'static'\n[device]\naddress = '10.9.0.1'\npeer = '10.9.0.2'";
        let link = LinkSettings::from(&parse("fri", text, &Options::new("/")).config.unwrap());
        let keys = Arc::new(LinkKeys::new(&[1; 32]));
        let settings = Settings::new(&link, keys.clone(), false);
        let key_id = KeyId([7; 16]);
        let key = Key::KeyId(key_id);
        let line = |command: Command| Entry::of(&settings, &command).map(|entry| entry.line().to_string());
        let digits = |direction: u8| {
            let bytes = keys.static_bytes(settings.cipher, direction, &key_id.0);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let (name, own) = ("07".repeat(16), settings.direction);
        let out = line(SendCommand::Prepare(KeySlot::Next, key.clone()).into());
        assert_eq!(out, Some(format!("key out chacha20-poly1305 {name} 0 {}\n", digits(own))));
        let accepted = line(ReceiveCommand::Accept { key, after: None, named: None }.into());
        assert_eq!(accepted, Some(format!("key in chacha20-poly1305 {name} 0 {}\n", digits(1 - own))));
        assert_eq!(line(SendCommand::WipeAll.into()), None);
        let from = std::net::SocketAddr::from(([192, 0, 2, 1], 1417)).into();
        let datagram = Received { from, datagram: vec![5; 60] };
        let (random, key) = wrap::key_of(&keys, &datagram.datagram).unwrap();
        let handshake = |way| Entry::Handshake { way, random, key: key.clone().into() }.line().to_string();
        assert_eq!(line(SendCommand::Handshake(datagram.clone()).into()), Some(handshake(Way::Out)));
        let taken = Entry::taken(&settings, &datagram).map(|entry| entry.line().to_string());
        assert_eq!(taken, Some(handshake(Way::In)));
        let head = Entry::link(&settings, false).line().to_string();
        assert!(head.starts_with("link static tun "), "{head}");
    }
}
