//! The option text that OpenVPN ends compare. Nothing is refused for a difference; it is only logged.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::core::condition::printable;
use crate::crypto::cbc_hmac::{CbcCipher, Digest, Layout};
use crate::packet::layer::Mode;
use crate::wire::openvpn::{FRAGMENT_HEADER, Framing, PACKET_ID};

/// OpenVPN's addition to the MTU of a tap device.
const TAP: usize = 32;
/// Longest value shown, in characters.
const SHOWN: usize = 60;

/// Contents of the text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// TUN or TAP.
    pub mode: Mode,
    /// MTU of the device in bytes.
    pub mtu: usize,
    /// Own IPv4 address in the tunnel.
    pub own: Option<IpNet>,
    /// The peer's.
    pub peer: Option<IpAddr>,
    /// The direction of the keys.
    pub direction: Option<u8>,
    /// The cipher.
    pub cipher: CbcCipher,
    /// The digest.
    pub digest: Digest,
    /// The compression framing.
    pub framing: Framing,
    /// Whether `fragment` is set.
    pub fragments: bool,
}

impl Options {
    /// Layout of datagrams.
    pub fn layout(&self) -> Layout {
        Layout::new(self.cipher, self.digest)
    }

    /// Length of a datagram's fragment header in bytes.
    pub fn fragment_header(&self) -> usize {
        if self.fragments { FRAGMENT_HEADER } else { 0 }
    }

    /// A datagram's overhead as OpenVPN counts it since 2.6; earlier it counted a block more.
    pub fn counted_overhead(&self) -> usize {
        let Layout { mac, block } = self.layout();
        mac + block + PACKET_ID + self.framing.counted() + self.fragment_header()
    }

    /// Formats the text as this end's OpenVPN would. For a tap device it has the MTU of OpenVPN up to 2.5: those warn of a
    /// difference, later ones do not.
    pub fn text(&self) -> String {
        let tap = if self.mode == Mode::Tap { TAP } else { 0 };
        let link = self.mtu + self.counted_overhead() + self.layout().block + tap;
        let device = if self.mode == Mode::Tap { "tap" } else { "tun" };
        let mut text = format!("V4,dev-type {device},link-mtu {link},tun-mtu {},proto UDPv4", self.mtu + tap);
        // Writing to a String cannot fail.
        match (self.own, self.peer) {
            (Some(own), Some(peer)) if self.mode == Mode::Tun && own.prefix_len() == own.max_prefix_len() => {
                let _ = write!(text, ",ifconfig {peer} {}", own.addr());
            }
            (Some(own), _) => {
                let _ = write!(text, ",ifconfig {} {}", own.network(), own.netmask());
            }
            (None, _) => {}
        }
        text.push_str(if self.framing == Framing::None { "" } else { ",comp-lzo" });
        text.push_str(if self.fragments { ",mtu-dynamic" } else { "" });
        if let Some(direction) = self.direction {
            let _ = write!(text, ",keydir {direction}");
        }
        let (cipher, auth, size) = (self.cipher.name(), self.digest.name(), self.cipher.key_length() * 8);
        let _ = write!(text, ",cipher {cipher},auth {auth},keysize {size},secret");
        text
    }

    /// Compares with the peer's text; returns the words that differ.
    pub fn differences(&self, theirs: &[u8]) -> Vec<Difference> {
        let ours = self.text();
        let theirs = String::from_utf8_lossy(theirs);
        let find = |text: &str, name: &str| {
            let mut words = text.split(',').map(|word| word.split_once(' ').unwrap_or((word, "")));
            words
                .find(|(word, _)| *word == name)
                .map(|(_, value)| printable(value).take(SHOWN).collect::<String>())
        };
        let compared =
            ["dev-type", "tun-mtu", "ifconfig", "comp-lzo", "mtu-dynamic", "cipher", "auth", "keysize"];
        let differs = |option: &&str| {
            let (here, there) = (find(&ours, option), find(&theirs, option));
            match *option {
                // Each end writes its own address last in one topology, and the network in the other.
                "ifconfig" => match (&here, &there) {
                    (Some(here), Some(there)) => reversed(here) != *there && here != there,
                    _ => false,
                },
                "tun-mtu" => there != here && there != Some(self.mtu.to_string()),
                _ => here != there,
            }
        };
        let difference = |option: &str| Difference {
            option: option.to_owned(),
            here: find(&ours, option),
            there: find(&theirs, option),
        };
        compared.iter().filter(|option| differs(option)).map(|option| difference(option)).collect()
    }
}

/// An option on which the ends differ; `None`: not set. An option without a value is an empty string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// OpenVPN's name for it.
    pub option: String,
    /// Here.
    pub here: Option<String>,
    /// At the peer.
    pub there: Option<String>,
}

fn reversed(pair: &str) -> String {
    pair.split_once(' ').map_or_else(|| pair.to_owned(), |(one, two)| format!("{two} {one}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            mode: Mode::Tun,
            mtu: 1500,
            own: Some("10.1.0.1/32".parse().unwrap()),
            peer: Some("10.1.0.2".parse().unwrap()),
            direction: Some(0),
            cipher: CbcCipher::Aes256,
            digest: Digest::Sha256,
            framing: Framing::None,
            fragments: false,
        }
    }

    /// The text that OpenVPN 2.6.14 sent with these options.
    const SENT: &str = "V4,dev-type tun,link-mtu 1572,tun-mtu 1500,proto UDPv4,ifconfig 10.1.0.2 10.1.0.1,keydir 0,cipher AES-256-CBC,auth SHA256,keysize 256,secret";

    #[test]
    fn the_text_is_what_openvpn_sends() {
        assert_eq!(options().text(), SENT);
        let tap = Options {
            mode: Mode::Tap,
            own: Some("10.1.0.1/24".parse().unwrap()),
            digest: Digest::Sha1,
            ..options()
        };
        assert!(tap.text().contains("dev-type tap,link-mtu 1592,tun-mtu 1532,"), "{}", tap.text());
        assert!(tap.text().contains(",ifconfig 10.1.0.0 255.255.255.0,"));
        let old = Options { cipher: CbcCipher::Blowfish, digest: Digest::Sha1, ..options() };
        assert!(old.text().contains("link-mtu 1544,"), "{}", old.text());
        let framed = Options { framing: Framing::CompLzo, fragments: true, direction: None, ..options() };
        assert!(framed.text().contains("link-mtu 1577,"), "{}", framed.text());
        assert!(framed.text().contains(",comp-lzo,mtu-dynamic,cipher "));
    }

    #[test]
    fn an_end_with_the_matching_options_differs_in_nothing() {
        let peer = Options {
            own: Some("10.1.0.2/32".parse().unwrap()),
            peer: Some("10.1.0.1".parse().unwrap()),
            direction: Some(1),
            ..options()
        };
        assert_eq!(options().differences(peer.text().as_bytes()), []);
        let tap = Options { mode: Mode::Tap, ..options() };
        for mtu in ["1500", "1532"] {
            let text = tap.text().replace("tun-mtu 1532", &format!("tun-mtu {mtu}"));
            assert_eq!(tap.differences(text.as_bytes()), []);
        }
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let text = SENT
            .replace("tun-mtu 1500", "tun-mtu 1400")
            .replace("auth SHA256", "auth SHA\n1")
            .replace(",keydir", ",comp-lzo,keydir");
        let difference = |option: &str, here: Option<&str>, there: Option<&str>| Difference {
            option: option.into(),
            here: here.map(str::to_owned),
            there: there.map(str::to_owned),
        };
        assert_eq!(
            options().differences(text.as_bytes()),
            [
                difference("tun-mtu", Some("1500"), Some("1400")),
                difference("comp-lzo", None, Some("")),
                difference("auth", Some("SHA256"), Some("SHA_1")),
            ]
        );
        let long = format!("V4,cipher {}", "x".repeat(5000));
        assert!(
            options()
                .differences(long.as_bytes())
                .iter()
                .all(|it| it.there.as_ref().is_none_or(|v| v.len() <= SHOWN))
        );
    }
}
