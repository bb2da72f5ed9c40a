//! Reading configuration files: paths, the command line, and invalid files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, also in helpers")]

use std::path::{Path, PathBuf};

use tund::config::{Code, SecretSource, position};
use tund::preflight::load;
use tund_lab::Scratch;

const TEXT: &str = "remote = \"mon.tn\"\n[key]\nmode = \"static\"\nfile = \"static.key\"\n[device]\naddress = \"10.0.0.1\"\npeer = \"10.0.0.2\"\n";

#[test]
fn relative_paths_start_at_the_file_or_at_cd() {
    let scratch = Scratch::new().unwrap();
    std::fs::create_dir(scratch.join("sub")).unwrap();
    let file = scratch.file("sub/tun-a-b.toml", TEXT).unwrap();
    let by_path = load(&file, None, None, None);
    let config = by_path.parsed.config.unwrap();
    assert_eq!(config.name, "tun-a-b");
    assert_eq!(config.key.shared, Some(SecretSource::File(scratch.join("sub/static.key"))));

    let by_cd = load(Path::new("sub/tun-a-b.toml"), Some(&scratch), None, None);
    assert_eq!(by_cd.file, "sub/tun-a-b.toml");
    assert_eq!(by_cd.path, file);
    assert_eq!(by_cd.text, TEXT);
    let config = by_cd.parsed.config.unwrap();
    assert_eq!(config.key.shared, Some(SecretSource::File(scratch.join("static.key"))));
}

#[test]
fn port_and_verb_come_from_the_command_line_and_are_checked() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.file("l.toml", TEXT).unwrap();
    let config = load(&file, None, Some("1417"), Some(5)).parsed.config.unwrap();
    assert_eq!((config.listen.port, config.remotes[0].port, config.run.verb), (1417, 1417, 5));
    let bad = load(&file, None, Some("no-such-service"), Some(10)).parsed;
    assert!(bad.config.is_none());
    let errors: Vec<_> = bad.diagnostics.iter().filter(|d| d.is_error()).collect();
    assert_eq!(errors.len(), 2, "{errors:#?}");
}

#[test]
fn what_is_no_configuration_file_is_said_and_never_a_panic() {
    let scratch = Scratch::new().unwrap();
    for (path, code) in [
        (scratch.join("missing.toml"), Code::CannotRead),
        (scratch.to_path_buf(), Code::CannotRead),
        (PathBuf::from("/dev/zero"), Code::TooLong),
        (PathBuf::new(), Code::CannotRead),
    ] {
        let loaded = load(&path, None, None, None);
        assert!(loaded.parsed.config.is_none());
        assert_eq!(loaded.parsed.diagnostics[0].code, code, "{:?}", loaded.parsed.diagnostics);
    }
    let file = scratch.file("latin.toml", b"float = true\n# gr\xfc\xdfe\n").unwrap();
    let loaded = load(&file, None, None, None);
    let error = &loaded.parsed.diagnostics[0];
    assert_eq!(error.code, Code::NotText);
    assert_eq!(position(&loaded.text, error.span.clone().unwrap().start), (2, 5));
}
