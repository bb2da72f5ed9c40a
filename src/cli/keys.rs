//! `tund genkey`, `keypair` and `pubkey`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::keyfile::KeyFile;
use crate::crypto::keys::{generate, public_of};
use crate::report::exit::{CONFIG, FAILED, Fatal};
use crate::sys::random::Os;

/// More than any key file holds, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Writes a new shared secret to a new file or to standard output.
pub fn genkey(output: Option<&Path>) -> Result<(), Fatal> {
    write(output, &KeyFile::Secret.format(&generate(&mut Os)))
}

/// Writes a shared secret into a new file.
pub fn create_secret(path: &Path, secret: &[u8; 32]) -> Result<(), Fatal> {
    write(Some(path), &KeyFile::Secret.format(secret))
}

/// Writes a new private key to a new file or to standard output. With a file, the public key goes to standard output.
pub fn keypair(output: Option<&Path>) -> Result<(), Fatal> {
    let private = generate(&mut Os);
    write(output, &KeyFile::Private.format(&private))?;
    match output {
        Some(_) => write(None, &public_line(&private)),
        None => Ok(()),
    }
}

/// Prints the public key of a private key from a file or standard input.
pub fn pubkey(input: Option<&Path>) -> Result<(), Fatal> {
    let name = input.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let mut text = Zeroizing::new(String::new());
    let read = match input {
        Some(path) => File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)),
        None => io::stdin().lock().take(LONGEST).read_to_string(&mut text),
    };
    read.map_err(|error| Fatal::new(FAILED, format!("cannot read {name}: {error}")))?;
    let private =
        KeyFile::Private.parse(&text).map_err(|error| Fatal::new(CONFIG, format!("{name}: {error}")))?;
    write(None, &public_line(&Zeroizing::new(private)))
}

/// The digits of the public key only, for `key.peer-public`.
fn public_line(private: &[u8; 32]) -> String {
    let text = KeyFile::Public.format(&public_of(private));
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Writes a text to a new file, for its owner only, or to standard output.
pub fn write(output: Option<&Path>, text: &str) -> Result<(), Fatal> {
    let (result, name) = match output {
        Some(path) => (create(path, text), path.display().to_string()),
        None => {
            let mut stdout = io::stdout().lock();
            (stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()), "standard output".to_owned())
        }
    };
    result.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AlreadyExists => ": keys are never overwritten, name another file or remove it",
            _ => "",
        };
        Fatal::new(FAILED, format!("cannot write {name}: {error}{remedy}"))
    })
}

/// Creates a file for its owner only, durably on disk.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is useless, and the file is ours.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_is_private_valid_and_never_overwritten() {
        let scratch = Scratch::new();
        let path = scratch.path().join("static.key");
        genkey(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let first = scratch.read("static.key");
        let secret = KeyFile::Secret.parse(&first).unwrap();
        let error = genkey(Some(&path)).unwrap_err();
        assert_eq!(error.code, FAILED);
        assert_eq!(scratch.read("static.key"), first);
        let other = scratch.path().join("other.key");
        genkey(Some(&other)).unwrap();
        assert_ne!(KeyFile::Secret.parse(&scratch.read("other.key")).unwrap(), secret);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let scratch = Scratch::new();
        let error = genkey(Some(&scratch.path().join("missing/static.key"))).unwrap_err();
        assert_eq!(error.code, FAILED, "{error}");
    }

    #[test]
    fn a_shared_secret_has_no_public_key() {
        let scratch = Scratch::new();
        let path = scratch.path().join("static.key");
        genkey(Some(&path)).unwrap();
        let error = pubkey(Some(&path)).unwrap_err();
        assert_eq!(error.code, CONFIG, "{error}");
    }
}
