//! Keys that OpenVPN's key mode uses, and those it has no use for.

use super::code::Code;
use super::diagnostic::{Findings, quote};
use super::keys::Raw;
use super::schema::Declared;
use super::{AnyCipher, KeyMode, OpenVpn};
use crate::crypto::cbc_hmac::CbcCipher;

/// Returns the settings for an OpenVPN peer; `None` in other key modes.
pub(super) fn check(raw: &Raw, out: &mut Findings) -> Option<OpenVpn> {
    if raw.key.mode() != KeyMode::OpenVpn {
        refuse_elsewhere(raw, out);
        return None;
    }
    let cipher = check_cipher(raw, out);
    let direction = raw.key.direction.value().copied();
    warn(raw, direction, out);
    for (key, place) in [("push.routes", raw.push.routes.at()), ("accept.routes", raw.accept.routes.at())] {
        if place.is_some() {
            let message = format!("{key} has no effect: OpenVPN's static-key mode cannot exchange routes");
            out.warning(Code::NoEffect, place, message, "set [[route]] on both ends");
        }
    }
    Some(OpenVpn {
        direction,
        cipher,
        digest: raw.key.auth(),
        framing: raw.openvpn.framing(),
        fragment: raw.openvpn.fragment.value().copied(),
        upgrade: raw.openvpn.upgrade(),
    })
}

fn check_cipher(raw: &Raw, out: &mut Findings) -> CbcCipher {
    let cipher = match raw.key.cipher() {
        AnyCipher::Auto => return CbcCipher::Aes256,
        AnyCipher::Aead(cipher) => {
            let message = format!("OpenVPN's static-key mode does not support {cipher}, only CBC ciphers");
            let help = "set key.cipher to the peer's `cipher`, such as \"aes-256-cbc\"; without that line it is \"bf-cbc\"";
            out.error(Code::WrongCipher, raw.key.cipher.at(), message, help);
            CbcCipher::Aes256
        }
        AnyCipher::Cbc(cipher) => cipher,
    };
    if cipher.is_weak() {
        let name = cipher.name();
        let message = format!(
            "{name} has 64-bit blocks: after about 32 GiB under one key, traffic starts to leak plaintext"
        );
        let help = "set `cipher AES-256-CBC` at the peer and key.cipher = \"aes-256-cbc\" here";
        if raw.key.weak_ciphers() {
            out.warning(Code::WeakCipher, raw.key.cipher.at(), message, help);
        } else {
            let help = format!("{help}; or key.weak-ciphers = true until then");
            out.error(Code::WeakCipher, raw.key.cipher.at(), message, help);
        }
    }
    cipher
}

fn warn(raw: &Raw, direction: Option<u8>, out: &mut Findings) {
    let message =
        "OpenVPN's static keys have no forward secrecy: whoever gets the key can read recorded traffic";
    let help = "once the peer runs tund as well, switch both to handshake keys";
    out.warning(Code::NoForwardSecrecy, raw.key.mode.at(), message, help);
    if direction.is_none() {
        let message = "without key.direction both ends use the same keys, so a datagram reflected to its sender is valid";
        let help = "tund recognises its own; to protect the peer, set `secret FILE 1` there and key.direction = 0 here, or vice versa";
        out.warning(Code::SharedDirection, raw.key.place(), message, help);
    }
}

fn refuse_elsewhere(raw: &Raw, out: &mut Findings) {
    if let AnyCipher::Cbc(cipher) = raw.key.cipher() {
        let message = format!("{} is only for OpenVPN peers", quote(&cipher.name().to_lowercase()));
        let help = "remove key.cipher, or set key.mode = \"openvpn\" if the peer is OpenVPN";
        out.error(Code::WrongCipher, raw.key.cipher.at(), message, help);
    }
    let places = [
        ("key.auth", raw.key.auth.at()),
        ("key.weak-ciphers", raw.key.weak_ciphers.at()),
        ("openvpn.framing", raw.openvpn.framing.at()),
        ("openvpn.upgrade", raw.openvpn.upgrade.at()),
        ("openvpn.fragment", raw.openvpn.fragment.at()),
    ];
    for (key, place) in places {
        if place.is_some() {
            let message = format!("{key} has no effect without key.mode = \"openvpn\"");
            out.warning(Code::NoEffect, place, message, "remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, Severity, Upgrade, parse};
    use crate::crypto::cbc_hmac::Digest;
    use crate::wire::openvpn::Framing;

    fn parsed(key: &str, rest: &str) -> (Option<OpenVpn>, Vec<(Severity, Code)>) {
        let text = format!(
            "remote = '192.0.2.1:1194'\n[key]\nfile = 'k'\n{key}\n[device]\naddress = '10.1.0.1'\npeer = '10.1.0.2'\n{rest}"
        );
        let parsed = parse("l", &text, &Options::new("/"));
        let codes = parsed.diagnostics.iter().map(|it| (it.severity, it.code));
        let codes = codes.filter(|(severity, _)| *severity > Severity::Note).collect();
        (parsed.config.and_then(|config| config.key.openvpn), codes)
    }

    #[test]
    fn all_that_an_openvpn_peer_needs_is_read() {
        let (openvpn, codes) = parsed(
            "mode = 'openvpn'\ndirection = 1\ncipher = 'aes-128-cbc'\nauth = 'sha512'",
            "[openvpn]\nframing = 'stub'\nfragment = 1300",
        );
        let expected = OpenVpn {
            direction: Some(1),
            cipher: CbcCipher::Aes128,
            digest: Digest::Sha512,
            framing: Some(Framing::Stub),
            fragment: Some(1300),
            upgrade: Upgrade::Auto,
        };
        assert_eq!(openvpn, Some(expected));
        assert_eq!(codes, [(Severity::Warning, Code::NoForwardSecrecy)]);
        let (openvpn, codes) = parsed("mode = 'openvpn'", "");
        let usual = OpenVpn {
            direction: None,
            cipher: CbcCipher::Aes256,
            digest: Digest::Sha1,
            framing: None,
            fragment: None,
            upgrade: Upgrade::Auto,
        };
        assert_eq!(openvpn, Some(usual));
        assert!(codes.contains(&(Severity::Warning, Code::SharedDirection)), "{codes:?}");
    }

    #[test]
    fn weak_ciphers_take_a_word_and_ciphers_of_tund_are_refused() {
        let weak = |severity| (severity, Code::WeakCipher);
        for cipher in ["bf-cbc", "des-ede3-cbc"] {
            let key = format!("mode = 'openvpn'\ncipher = '{cipher}'");
            assert!(parsed(&key, "").1.contains(&weak(Severity::Error)));
            let (openvpn, codes) = parsed(&format!("{key}\nweak-ciphers = true"), "");
            assert!(openvpn.is_some() && codes.contains(&weak(Severity::Warning)), "{codes:?}");
        }
        let wrong = (Severity::Error, Code::WrongCipher);
        assert!(parsed("mode = 'openvpn'\ncipher = 'aes-256-gcm'", "").1.contains(&wrong));
        assert!(parsed("cipher = 'aes-256-cbc'", "").1.contains(&wrong));
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let none = (Severity::Warning, Code::NoEffect);
        for (key, rest) in [
            ("auth = 'sha256'", ""),
            ("weak-ciphers = true", ""),
            ("", "[openvpn]\nframing = 'stub'"),
            ("", "[openvpn]\nfragment = 1300"),
            ("", "[openvpn]\nupgrade = 'off'"),
            ("mode = 'openvpn'", "[push]\nroutes = ['10.2.0.0/16']"),
            ("mode = 'openvpn'", "[accept]\nroutes = ['10.2.0.0/16']"),
        ] {
            assert!(parsed(key, rest).1.contains(&none), "{key} {rest}");
        }
    }
}
