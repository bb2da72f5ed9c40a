use tund::config::keyfile::KeyFile;
use tund::config::{Options, parse, position, render};

/// A configuration file, and the same text as a key file.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    a_configuration(text);
    a_key_file(text);
}

/// A text yields a configuration or errors, and every finding can be rendered.
fn a_configuration(text: &str) {
    let services = Box::new(|name: &str| (name == "openvpn").then_some(1194));
    let parsed = parse("link", text, &Options { services, ..Options::new("/etc/tund") });
    let failed = parsed.diagnostics.iter().any(|finding| finding.is_error());
    assert_eq!(parsed.config.is_none(), failed, "{:?}", parsed.diagnostics);
    for finding in &parsed.diagnostics {
        assert!(!finding.message.is_empty());
        assert!(!render("link.toml", text, finding, false).is_empty());
        if let Some(span) = &finding.span {
            assert!(span.start <= span.end && span.end <= text.len(), "{finding:?}");
            let (line, _) = position(text, span.start);
            assert!(line <= text.matches('\n').count() + 1, "{finding:?}");
        }
    }
}

fn a_key_file(text: &str) {
    if let Ok(secret) = KeyFile::Secret.parse(text) {
        assert_eq!(KeyFile::Secret.parse(&KeyFile::Secret.format(&secret)), Ok(secret));
        assert_eq!(KeyFile::Secret.parse(text.trim()), Ok(secret));
    }
    if let Ok(key) = KeyFile::Public.parse(text) {
        assert_eq!(KeyFile::Public.parse(&KeyFile::Public.format(&key)), Ok(key));
        assert!(
            KeyFile::Private.parse(&KeyFile::Public.format(&key)).is_err(),
            "a public key passed for a private one"
        );
    }
}
