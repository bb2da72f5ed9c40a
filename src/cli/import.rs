//! `tund import`: from OpenVPN's static-key mode.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use tund_import::{Imported, OldKey};
use zeroize::Zeroizing;

use crate::cli::keys;
use crate::config::Diagnostic;
use crate::crypto::keys::from_openvpn;
use crate::report::exit::{CONFIG, FAILED, Fatal};
use crate::report::stderr;

/// More than any configuration or key file holds, in bytes.
const LONGEST: u64 = 1 << 20;

/// Writes the configuration `file` as TOML to standard output, and its key, converted, to the new file `key`.
pub fn import(file: &Path, key: Option<&Path>) -> Result<(), Fatal> {
    let text = read(file)?;
    let shown = file.display().to_string();
    let default = format!("{}.key", file.file_stem().unwrap_or_default().to_string_lossy());
    let key_file = key.map_or(default, |key| key.display().to_string());
    let imported = tund_import::import(&text, &key_file).map_err(|errors| {
        for error in errors {
            let finding = Diagnostic::error(error.place, error.message).help(error.help);
            stderr::show_finding(&shown, &text, &finding);
        }
        Fatal::new(CONFIG, "")
    })?;
    match key {
        Some(key) => keys::create_secret(key, &*convert(file, &imported)?)?,
        None => stderr::show(&format!(
            "tund: the key was not converted; add --key {key_file} to write it as the file that this configuration names\n"
        )),
    }
    for line in &imported.left_out {
        stderr::show(&format!("{shown}: {line}\n"));
    }
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(imported.toml.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Fatal::new(FAILED, format!("cannot write standard output: {error}")))
}

fn convert(file: &Path, imported: &Imported) -> Result<Zeroizing<[u8; 32]>, Fatal> {
    let (name, text) = match &imported.key {
        OldKey::Inline(text) => (format!("{}: <secret>", file.display()), text.clone()),
        OldKey::File(name) => {
            let path = file.parent().unwrap_or(Path::new("")).join(name);
            (path.display().to_string(), read(&path)?)
        }
    };
    let key =
        tund_import::parse_key(&text).map_err(|error| Fatal::new(CONFIG, format!("{name}: {error}")))?;
    Ok(from_openvpn(&key))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Fatal> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|error| Fatal::new(FAILED, format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}
