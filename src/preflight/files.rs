//! Files that a configuration names: keys and scripts.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tund_import::OldKeyError;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::config::keyfile::{KeyError, KeyFile};
use crate::config::{Code, Command, Config, Diagnostic, Places, SecretSource, Severity};
use crate::crypto::keys::{from_openvpn, public_of};
use crate::crypto::stack::cleanly;
use crate::host::trust::{self, Refusal, Trusted};
use crate::preflight::{after_a_look, unreadable};
use crate::sys::rights;

/// Maximum length of a key file, in bytes.
const LONGEST_KEY: u64 = 64 * 1024;

/// The content of the key files; wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// The shared secret, if the configuration has one.
    pub shared: Option<[u8; 32]>,
    /// This end's private key, if the configuration has one.
    pub private: Option<[u8; 32]>,
    /// The key file of an OpenVPN peer, from which `shared` is then derived.
    pub openvpn: Option<[[u8; 32]; 8]>,
}

impl std::fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyMaterial").finish_non_exhaustive()
    }
}

/// Checks the key files and scripts of `config`; `places` are its own. A key that the caller may not read is a note, since tund reads it with more
/// privileges than `check`.
pub fn check_files(config: &Config, places: &Places, allow_open_keys: bool) -> Vec<Diagnostic> {
    let credentials = credentials_directory();
    let mut found = Vec::new();
    for key in keys_of(config, credentials.as_deref()) {
        let place = places.of(&format!("key.{}", key.name));
        if let Some(trouble) = cleanly(|| key.read(allow_open_keys).err()) {
            found.push(trouble.finding(&key, place));
        }
    }
    if let Some(path) = &config.proxy_password_file {
        let file = NamedKey::password(path);
        let trouble = file.read_text(allow_open_keys).err();
        found.extend(trouble.map(|trouble| trouble.finding(&file, places.of(file.name))));
    }
    for (name, script) in config.scripts.each() {
        let place = places.of(&format!("scripts.{name}"));
        found.extend(script.and_then(|script| check_script(name, script, place)));
    }
    found
}

/// Reads every key that `config` names. Errors have no place, since they occur after the check.
pub fn read_keys(config: &Config, allow_open_keys: bool) -> Result<KeyMaterial, Vec<Diagnostic>> {
    read_all(&keys_of(config, credentials_directory().as_deref()), allow_open_keys)
}

/// Reads the password in a file: its first line.
///
/// # Errors
/// Why it cannot or must not be read, and the remedy.
pub fn read_password(path: &Path, allow_open_keys: bool) -> Result<Zeroizing<String>, Diagnostic> {
    let file = NamedKey::password(path);
    let text = file.read_text(allow_open_keys).map_err(|trouble| match trouble {
        Trouble::Unreadable => file.unreadable(),
        trouble => trouble.finding(&file, None),
    })?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn read_all(keys: &[NamedKey], allow_open_keys: bool) -> Result<KeyMaterial, Vec<Diagnostic>> {
    let mut material = KeyMaterial { shared: None, private: None, openvpn: None };
    let mut errors = Vec::new();
    for key in keys {
        match key.read(allow_open_keys) {
            Ok(read) => {
                material.shared = material.shared.or(read.shared);
                material.private = material.private.or(read.private);
                material.openvpn = material.openvpn.or(read.openvpn);
            }
            // A start needs what a check may skip.
            Err(Trouble::Unreadable) => errors.push(key.unreadable()),
            Err(trouble) => {
                errors.push(Diagnostic { severity: Severity::Error, ..trouble.finding(key, None) });
            }
        }
    }
    if errors.is_empty() { Ok(material) } else { Err(errors) }
}

/// systemd sets it for units with LoadCredential= and the like (systemd.exec(5)).
fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// A key of the configuration and its file.
struct NamedKey {
    /// The key in `[key]`.
    name: &'static str,
    /// `None`: a credential outside systemd.
    path: Option<PathBuf>,
    /// It is an OpenVPN key.
    openvpn: bool,
    /// Of a private key: the peer's public one.
    peer: Option<[u8; 32]>,
}

/// Why a key cannot be used.
#[derive(Debug)]
enum Trouble {
    NoCredentials,
    Missing,
    Unreadable,
    NoFile,
    Owner(u32),
    Open(u32),
    Way(Refusal),
    TooLong,
    NotText,
    Malformed(KeyError),
    OldKey(OldKeyError),
    OwnPublic,
    Io(io::Error),
}

fn keys_of(config: &Config, credentials: Option<&Path>) -> Vec<NamedKey> {
    let openvpn = config.key.openvpn.is_some();
    let shared = config.key.shared.as_ref().map(|source| match source {
        SecretSource::File(path) => NamedKey { name: "file", path: Some(path.clone()), openvpn, peer: None },
        SecretSource::Credential(name) => NamedKey {
            name: "credential",
            path: credentials.map(|directory| directory.join(name)),
            openvpn,
            peer: None,
        },
    });
    let pair = config.key.pair.as_ref();
    let private = pair.map(|pair| NamedKey {
        name: "private-file",
        path: Some(pair.private_file.clone()),
        openvpn: false,
        peer: Some(pair.peer_public),
    });
    shared.into_iter().chain(private).collect()
}

impl NamedKey {
    fn password(path: &Path) -> Self {
        Self { name: "proxy-password-file", path: Some(path.to_owned()), openvpn: false, peer: None }
    }

    fn is_password(&self) -> bool {
        self.name == "proxy-password-file"
    }

    /// What to call it.
    fn noun(&self) -> &'static str {
        if self.is_password() { "password file" } else { "key file" }
    }

    /// The command that creates such a key.
    fn maker(&self) -> &'static str {
        match self.openvpn {
            false if self.is_password() => "install -m 600 /dev/stdin",
            true => "openvpn --genkey secret",
            false if self.is_private() => "tund keypair",
            false => "tund genkey",
        }
    }

    /// How to obtain a missing one.
    fn origin(&self) -> String {
        let path = self.path.as_deref().unwrap_or_else(|| Path::new("")).display();
        match self.openvpn {
            true => "copy the file that the peer's `secret` names".to_owned(),
            false if self.is_password() => format!("make it with `{} {path}`", self.maker()),
            false => format!("make it with `{} -o {path}`, or copy the peer's", self.maker()),
        }
    }

    fn is_private(&self) -> bool {
        self.name == "private-file"
    }

    fn unreadable(&self) -> Diagnostic {
        let path = self.path.as_deref().unwrap_or_else(|| Path::new(""));
        let (why, help) = unreadable::why(path);
        Diagnostic::error(
            Code::CannotRead,
            None,
            format!("{} {} cannot be read: {why}", self.noun(), path.display()),
        )
        .help(help)
    }

    fn read_text(&self, allow_open: bool) -> Result<Zeroizing<String>, Trouble> {
        let path = self.path.as_deref().ok_or(Trouble::NoCredentials)?;
        // Before open(2), which would block on a named pipe.
        let before = std::fs::metadata(path).map_err(Trouble::of)?;
        // systemd protects credentials by their directory, and their own modes differ between versions.
        let guarded = allow_open || self.name == "credential";
        let trusted = Trusted::here();
        check_metadata(&before, guarded, &trusted)?;
        if !guarded {
            trust::judge(path).map_err(Trouble::Way)?;
        }
        let mut file = File::open(path).map_err(Trouble::of)?;
        check_metadata(&file.metadata().map_err(Trouble::of)?, guarded, &trusted)?;
        // The buffer never grows: the old one would keep a copy of the key.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_KEY as usize + 1));
        Read::by_ref(&mut file).take(LONGEST_KEY + 1).read_to_end(&mut bytes).map_err(Trouble::Io)?;
        if bytes.len() as u64 > LONGEST_KEY {
            return Err(Trouble::TooLong);
        }
        let bytes = std::mem::take(&mut *bytes);
        String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
            error.into_bytes().zeroize();
            Trouble::NotText
        })
    }

    fn read(&self, allow_open: bool) -> Result<KeyMaterial, Trouble> {
        let text = &*self.read_text(allow_open)?;
        let mut material = KeyMaterial { shared: None, private: None, openvpn: None };
        if self.openvpn {
            let key = tund_import::parse_key(text).map_err(Trouble::OldKey)?;
            material.shared = Some(*from_openvpn(&key));
            let (parts, _) = key.as_chunks();
            material.openvpn = parts.try_into().ok();
        } else if self.is_private() {
            let private = Zeroizing::new(KeyFile::Private.parse(text).map_err(Trouble::Malformed)?);
            if self.peer == Some(public_of(&private)) {
                return Err(Trouble::OwnPublic);
            }
            material.private = Some(*private);
        } else {
            material.shared = Some(KeyFile::Secret.parse(text).map_err(Trouble::Malformed)?);
        }
        Ok(material)
    }
}

/// Rejects a key that others own, may read or may write.
fn check_metadata(metadata: &Metadata, guarded: bool, trusted: &Trusted) -> Result<(), Trouble> {
    if !metadata.is_file() {
        return Err(Trouble::NoFile);
    }
    if !guarded && !trusted.has_user(metadata.uid()) {
        return Err(Trouble::Owner(metadata.uid()));
    }
    let others = metadata.mode() & 0o066;
    if others != 0 && !guarded { Err(Trouble::Open(metadata.mode() & 0o7777)) } else { Ok(()) }
}

impl Trouble {
    fn of(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Trouble::Missing
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            Trouble::Unreadable
        } else {
            Trouble::Io(error)
        }
    }

    fn code(&self) -> Code {
        match self {
            Trouble::NoCredentials | Trouble::Unreadable => Code::NotChecked,
            Trouble::Missing => Code::NoFile,
            Trouble::NoFile => Code::NotAFile,
            Trouble::Owner(_) => Code::KeyOwner,
            Trouble::Open(_) => Code::KeyOpen,
            Trouble::Way(_) => Code::Untrusted,
            Trouble::TooLong => Code::TooLong,
            Trouble::NotText => Code::NotText,
            Trouble::Malformed(_) | Trouble::OldKey(_) => Code::BadKey,
            Trouble::OwnPublic => Code::BadPublicKey,
            Trouble::Io(_) => Code::CannotRead,
        }
    }

    fn finding(&self, key: &NamedKey, place: Option<Range<usize>>) -> Diagnostic {
        let path = key.path.as_deref().unwrap_or_else(|| Path::new("")).display();
        let (make, noun) = (key.maker(), key.noun());
        let (message, help) = match self {
            Trouble::NoCredentials => {
                let note = "key.credential works only in systemd units: CREDENTIALS_DIRECTORY is not set";
                return Diagnostic::note(self.code(), place, note).help("elsewhere use key.file");
            }
            Trouble::Unreadable => {
                let note = format!("{noun} {path} was not checked: this user may not read it");
                return Diagnostic::note(self.code(), place, note).help("check as the user who starts tund");
            }
            Trouble::Missing => (format!("{noun} {path} does not exist"), key.origin()),
            Trouble::OwnPublic => (
                format!("key.peer-public belongs to this end's own {noun} {path}"),
                "set it to what `tund pubkey` prints on the peer".to_owned(),
            ),
            Trouble::NoFile => {
                (format!("{noun} {path} is not a regular file"), "name such a file".to_owned())
            }
            Trouble::Owner(uid) => (
                format!("{noun} {path} belongs to another user (uid {uid}), who can read and change it"),
                format!("`chown root {path}`, or start tund as that user{}", {
                    let readable = key.path.as_deref().is_some_and(unreadable::may_read);
                    if readable { "; or --allow-open-keys" } else { "" }
                }),
            ),
            Trouble::Open(mode) => (
                format!("{noun} {path} is open to others (mode {mode:04o})"),
                format!(
                    "`chmod 600 {path}`, and make a new {} if others may have read it; or --allow-open-keys",
                    if key.is_password() { "password" } else { "key" }
                ),
            ),
            Trouble::Way(refusal @ Refusal::System { source, .. }) => {
                let limited = !rights::limits(source).is_empty();
                let help = if limited { "raise that limit" } else { "check the path; or --allow-open-keys" };
                (format!("cannot tell who can replace {noun} {path}: {refusal}"), help.to_owned())
            }
            Trouble::Way(refusal @ Refusal::Untrusted { .. }) => (
                format!("{noun} {path} can be replaced: {refusal}"),
                format!("{}; or --allow-open-keys", after_a_look(refusal)),
            ),
            Trouble::TooLong => (
                format!("{noun} {path} is longer than {LONGEST_KEY} bytes"),
                format!("make one with `{make}`"),
            ),
            Trouble::NotText => (format!("{noun} {path} is not text"), format!("make one with `{make}`")),
            Trouble::Malformed(error) => (format!("{noun} {path}: {error}"), format!("`{make}` makes a key")),
            Trouble::OldKey(error) => (
                format!("{noun} {path}: {error}"),
                "name the file of OpenVPN's `secret`, or make one with `openvpn --genkey secret FILE`"
                    .to_owned(),
            ),
            Trouble::Io(error) => {
                (format!("{noun} {path} cannot be read: {error}"), "name such a file".to_owned())
            }
        };
        Diagnostic::error(self.code(), place, message).help(help)
    }
}

fn check_script(key: &str, script: &Command, place: Option<Range<usize>>) -> Option<Diagnostic> {
    let path = script.program.display();
    let metadata = match std::fs::metadata(&script.program) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("script {path} was not checked: this user may not access it");
            return Some(
                Diagnostic::note(Code::NotChecked, place, message).help("check as the user who starts tund"),
            );
        }
        Err(error) => {
            let message = format!("script {path} cannot be run: {error}");
            let help = format!("check the path; to pass arguments, write {key} = [\"path\", \"argument\"]");
            return Some(Diagnostic::error(Code::NoFile, place, message).help(help));
        }
    };
    let mode = metadata.permissions().mode();
    if !metadata.is_file() {
        let message = format!("script {path} is not a file");
        return Some(Diagnostic::error(Code::NotAFile, place, message).help("name a program"));
    }
    if mode & 0o111 == 0 {
        let message = format!("script {path} is not executable (mode {:04o})", mode & 0o7777);
        return Some(
            Diagnostic::error(Code::NotExecutable, place, message).help(format!("`chmod +x {path}`")),
        );
    }
    match trust::judge(&script.program) {
        Err(refusal @ Refusal::Untrusted { .. }) => {
            let message = format!("script {path} runs with tund's rights, but {refusal}");
            Some(Diagnostic::error(Code::Untrusted, place, message).help(after_a_look(&refusal)))
        }
        Err(refusal @ Refusal::System { .. }) => {
            let message = format!("cannot tell who can change script {path}: {refusal}");
            Some(Diagnostic::error(Code::Untrusted, place, message).help("check the path"))
        }
        Ok(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};
    use crate::testing::Scratch;
    use std::fs::{Permissions, create_dir, set_permissions, write};

    fn file(scratch: &Scratch, name: &str, mode: u32, content: impl AsRef<[u8]>) {
        let path = scratch.path().join(name);
        write(&path, content).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn config(scratch: &Scratch, text: &str) -> Config {
        let parsed = parse("l", text, &Options::new(scratch.path()));
        parsed.config.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
    }

    fn places(text: &str) -> Places {
        parse("l", text, &Options::new("/")).places
    }

    const TEXT: &str = "[key]\nmode = \"static\"\nfile = \"static.key\"\n[device]\naddress = \"10.0.0.1\"\npeer = \"10.0.0.2\"\n[scripts]\nsecurity = 2\nup = [\"hook\", \"x\"]\n";

    fn only(found: &[Diagnostic], text: &str) -> (Severity, Code, String) {
        let [one] = found else { panic!("{found:#?}") };
        assert!(one.help.is_some(), "{one:#?}");
        (one.severity, one.code, text[one.span.clone().unwrap()].to_owned())
    }

    #[test]
    fn a_key_that_is_missing_is_to_be_had_where_keys_of_its_kind_come_from() {
        let scratch = Scratch::new();
        let tund = "[key]\nfile = 'k'\n[device]\nmode = 'tap'\n";
        for (text, remedy) in [
            (tund, "tund genkey"),
            (&*tund.replace("'k'", "'k'\nmode = 'openvpn'\ndirection = 0"), "`secret`"),
        ] {
            let found = check_files(&config(&scratch, text), &Places::default(), false);
            assert!(found[0].help.as_deref().is_some_and(|help| help.contains(remedy)), "{found:?}");
        }
    }

    #[test]
    fn right_files_give_no_finding_and_the_key() {
        let scratch = Scratch::new();
        file(&scratch, "static.key", 0o600, KeyFile::Secret.format(&[7; 32]).as_bytes());
        file(&scratch, "hook", 0o755, "#!/bin/sh\n");
        let config = config(&scratch, TEXT);
        assert_eq!(check_files(&config, &places(TEXT), false), []);
        let keys = read_keys(&config, false).unwrap();
        assert_eq!((keys.shared, keys.private), (Some([7; 32]), None));
        assert!(!format!("{keys:?}").contains('7'), "a key is never shown");
    }

    #[test]
    fn each_trouble_with_a_key_is_an_error_at_its_place() {
        let scratch = Scratch::new();
        let text = TEXT.split("[scripts]").next().unwrap();
        let config = config(&scratch, text);
        let check = |code: Code| {
            let (severity, found, place) = only(&check_files(&config, &places(text), false), text);
            assert_eq!((severity, place.as_str()), (Severity::Error, "\"static.key\""));
            assert_eq!(found, code);
            assert!(read_keys(&config, false).unwrap_err()[0].is_error());
        };
        check(Code::NoFile);
        let key = KeyFile::Secret.format(&[7; 32]);
        for mode in [0o640, 0o604, 0o620, 0o602] {
            file(&scratch, "static.key", mode, key.as_bytes());
            check(Code::KeyOpen);
        }
        assert_eq!(check_files(&config, &places(text), true), [], "--allow-open-keys");
        assert_eq!(read_keys(&config, true).unwrap().shared, Some([7; 32]));
        // A link to it does not change its owner.
        std::fs::rename(scratch.path().join("static.key"), scratch.path().join("real.key")).unwrap();
        std::os::unix::fs::symlink("real.key", scratch.path().join("static.key")).unwrap();
        check(Code::KeyOpen);
        std::fs::remove_file(scratch.path().join("static.key")).unwrap();
        std::fs::remove_file(scratch.path().join("real.key")).unwrap();
        file(&scratch, "static.key", 0o600, key.as_bytes());
        set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
        check(Code::Untrusted);
        set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        file(&scratch, "static.key", 0o600, "-----BEGIN OpenVPN Static key V1-----\n");
        check(Code::BadKey);
        file(&scratch, "static.key", 0o600, "abc\n");
        check(Code::BadKey);
        file(&scratch, "static.key", 0o600, [0xff, 0xfe]);
        check(Code::NotText);
        file(&scratch, "static.key", 0o600, vec![b'a'; LONGEST_KEY as usize + 1]);
        check(Code::TooLong);
        std::fs::remove_file(scratch.path().join("static.key")).unwrap();
        create_dir(scratch.path().join("static.key")).unwrap();
        check(Code::NotAFile);
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        let scratch = Scratch::new();
        file(&scratch, "static.key", 0o600, KeyFile::Secret.format(&[7; 32]).as_bytes());
        let metadata = std::fs::metadata(scratch.path().join("static.key")).unwrap();
        let own = metadata.uid();
        assert!(check_metadata(&metadata, false, &Trusted::here()).is_ok());
        let trouble = check_metadata(&metadata, false, &Trusted::users(&[own + 1, own + 2])).unwrap_err();
        let key = NamedKey { name: "file", path: Some("static.key".into()), openvpn: false, peer: None };
        let finding = trouble.finding(&key, None);
        assert_eq!((finding.severity, finding.code), (Severity::Error, Code::KeyOwner));
        assert!(finding.message.contains(&own.to_string()), "{finding:?}");
        assert!(
            check_metadata(&metadata, true, &Trusted::users(&[own + 1])).is_ok(),
            "--allow-open-keys, or systemd's"
        );
    }

    #[test]
    fn a_key_that_cannot_be_looked_at_here_is_a_note_in_check_and_an_error_at_the_start() {
        let key = NamedKey { name: "file", path: Some("/k".into()), openvpn: false, peer: None };
        let trouble = Trouble::of(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(trouble.finding(&key, None).severity, Severity::Note);
        let credential = NamedKey { name: "credential", path: None, openvpn: false, peer: None };
        let trouble = credential.read(false).unwrap_err();
        assert_eq!(trouble.finding(&credential, None).severity, Severity::Note);
        let errors = read_all(&[credential], false).unwrap_err();
        assert!(errors[0].is_error() && errors[0].message.contains("CREDENTIALS_DIRECTORY"), "{errors:#?}");
    }

    #[test]
    fn a_credential_is_read_from_the_directory_of_systemd_whatever_its_mode() {
        let scratch = Scratch::new();
        file(&scratch, "psk", 0o440, KeyFile::Secret.format(&[9; 32]).as_bytes());
        let config = config(&scratch, &TEXT.replace("file = \"static.key\"", "credential = \"psk\""));
        let keys = keys_of(&config, Some(scratch.path()));
        assert_eq!(keys[0].read(false).unwrap().shared, Some([9; 32]));
    }

    #[test]
    fn shared_and_private_keys_are_not_mixed_up() {
        let scratch = Scratch::new();
        let public = KeyFile::Public.format(&[3; 32]);
        let digits = public.lines().last().unwrap();
        let text = TEXT.replace(
            "[device]",
            &format!("private-file = \"own.key\"\npeer-public = \"{digits}\"\n[device]"),
        );
        file(&scratch, "static.key", 0o600, KeyFile::Secret.format(&[7; 32]).as_bytes());
        file(&scratch, "own.key", 0o600, KeyFile::Private.format(&[8; 32]).as_bytes());
        let config = config(&scratch, &text);
        let keys = read_keys(&config, false).unwrap();
        assert_eq!((keys.shared, keys.private), (Some([7; 32]), Some([8; 32])));
        let own = KeyFile::Public.format(&public_of(&[8; 32]));
        let confused = text.replace(digits, own.lines().last().unwrap());
        let error = read_keys(&self::config(&scratch, &confused), false).unwrap_err().remove(0);
        assert_eq!(error.code, Code::BadPublicKey, "{error:#?}");
        let found = check_files(&self::config(&scratch, &confused), &places(&confused), true);
        assert!(found.iter().any(|found| found.code == Code::BadPublicKey && found.is_error()), "{found:#?}");
        file(&scratch, "own.key", 0o600, KeyFile::Secret.format(&[7; 32]).as_bytes());
        let errors = read_keys(&config, false).unwrap_err();
        assert_eq!(errors[0].code, Code::BadKey, "{errors:#?}");
    }

    #[test]
    fn scripts_that_cannot_run_or_that_others_may_change_are_errors() {
        let scratch = Scratch::new();
        file(&scratch, "static.key", 0o600, KeyFile::Secret.format(&[7; 32]).as_bytes());
        let config = config(&scratch, TEXT);
        let check = |code: Code| {
            let (severity, found, place) = only(&check_files(&config, &places(TEXT), true), TEXT);
            assert_eq!((severity, place.as_str()), (Severity::Error, "[\"hook\", \"x\"]"));
            assert_eq!(found, code);
        };
        check(Code::NoFile);
        file(&scratch, "hook", 0o644, "");
        check(Code::NotExecutable);
        file(&scratch, "hook", 0o757, "");
        check(Code::Untrusted);
        file(&scratch, "hook", 0o755, "");
        set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
        check(Code::Untrusted);
        set_permissions(scratch.path(), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(check_files(&config, &places(TEXT), true), [], "in a sticky directory");
        let nobody = |name: &str, uid: u32| {
            assert!(
                rustix::process::geteuid().is_root(),
                "this test gives files to another user: run it as root"
            );
            std::os::unix::fs::chown(scratch.path().join(name), Some(uid), Some(uid)).unwrap();
        };
        for name in ["hook", ""] {
            nobody(name, 65534);
            check(Code::Untrusted);
            nobody(name, 0);
        }
        set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::remove_file(scratch.path().join("hook")).unwrap();
        create_dir(scratch.path().join("hook")).unwrap();
        check(Code::NotAFile);
    }
}
