//! The `[key]` table, and `[openvpn]`, which belongs to one of its modes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::crypto::cbc_hmac::{CbcCipher, Digest};
use crate::crypto::suite::{Cipher, Exchange};
use crate::wire::openvpn::Framing;

/// `key.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyMode {
    /// Keys derived in a handshake, renewed every two minutes; forward secrecy.
    Handshake,
    /// Keys derived straight from the link secret; no forward secrecy.
    Static,
    /// OpenVPN's static keys and wire format, for an OpenVPN peer; no forward secrecy.
    OpenVpn,
}

impl std::fmt::Display for KeyMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Handshake => "handshake",
            Self::Static => "static",
            Self::OpenVpn => "openvpn",
        })
    }
}

/// Key material and mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// How traffic keys are derived from the link secret.
    pub mode: KeyMode,
    /// The shared secret, if any. At least one of `shared` and `pair` is set.
    pub shared: Option<SecretSource>,
    /// Own private key and the peer's public key, if any.
    pub pair: Option<KeyPair>,
    /// Sending direction of this end, 0 or 1: from `key.direction`, else from the addresses.
    pub direction: u8,
    /// The AEAD of static mode.
    pub cipher: Cipher,
    /// The ciphers that handshake mode may negotiate.
    pub suites: Vec<Cipher>,
    /// Key exchange of handshake mode.
    pub exchange: Exchange,
    /// What an OpenVPN peer needs; `None` in other modes.
    pub openvpn: Option<OpenVpn>,
}

/// Settings for an OpenVPN peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenVpn {
    /// The direction of the key file; `None`: both ends use the same keys.
    pub direction: Option<u8>,
    /// The cipher.
    pub cipher: CbcCipher,
    /// The HMAC's digest.
    pub digest: Digest,
    /// Compression framing; `None`: taken from the peer's first ping.
    pub framing: Option<Framing>,
    /// Largest datagram with fragmentation, in bytes of UDP payload.
    pub fragment: Option<u16>,
    /// What to do if the peer is tund too.
    pub upgrade: Upgrade,
}

/// `openvpn.upgrade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upgrade {
    /// Upgrade to handshake keys if both ends have them.
    Auto,
    /// Pass frames under handshake keys only.
    Require,
    /// Never upgrade.
    Off,
}

/// `key.cipher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnyCipher {
    /// The mode's best.
    Auto,
    /// tund's own.
    Aead(Cipher),
    /// OpenVPN's.
    Cbc(CbcCipher),
}

/// Where a secret is read from. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A key file.
    File(PathBuf),
    /// Name in systemd's credentials directory.
    Credential(String),
}

/// `key.private-file` and `key.peer-public`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// File with this end's private key.
    pub private_file: PathBuf,
    /// The peer's X25519 public key.
    pub peer_public: [u8; 32],
}
