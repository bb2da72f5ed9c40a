//! `tund import`: from OpenVPN's static-key mode.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tund_import::{OldKey, Wire};
use zeroize::Zeroizing;

use crate::cli::keys;
use crate::config::keyfile::KeyFile;
use crate::config::{Code, Diagnostic};
use crate::crypto::keys::from_openvpn;
use crate::report::exit::{CONFIG, FAILED, Fatal};
use crate::report::stderr;

/// Maximum length of a configuration or key file, in MiB: a million routes fit.
const LONGEST: u64 = 64;

/// Translates the configuration `file` to TOML on standard output, and writes its key to the new file `key`: unchanged for a peer that stays OpenVPN,
/// else converted.
pub fn import(file: &Path, key: Option<&Path>, wire: Wire) -> Result<(), Fatal> {
    let text = read(file)?;
    let shown = file.display().to_string();
    let imported = tund_import::import(&text, wire).map_err(|errors| {
        for error in errors {
            let finding = Diagnostic::error(Code::NotImported, error.place, error.message).help(error.help);
            stderr::show_finding(&shown, &text, &finding);
        }
        Fatal::new(CONFIG, "")
    })?;
    let key_file = match (key, &imported.key, wire) {
        (Some(key), ..) => {
            keys::write(Some(key), &read_key(file, &imported.key, wire)?)?;
            key.display().to_string()
        }
        (None, OldKey::File(name), Wire::OpenVpn) => name.clone(),
        (None, OldKey::Inline(_) | OldKey::File(_), Wire::OpenVpn | Wire::Tund) => {
            let name = format!("{}.key", file.file_stem().unwrap_or_default().to_string_lossy());
            stderr::show(&format!(
                "tund: the key was not written; add --key {name} to write it as the file that this configuration names\n"
            ));
            name
        }
    };
    for line in &imported.left_out {
        stderr::show(&format!("{shown}: {line}\n"));
    }
    super::print(imported.toml(&key_file))
}

/// The new key file's text.
fn read_key(file: &Path, key: &OldKey, wire: Wire) -> Result<Zeroizing<String>, Fatal> {
    let (name, text) = match key {
        OldKey::Inline(text) => (format!("{}: <secret>", file.display()), text.clone()),
        OldKey::File(name) => {
            let path = file.parent().unwrap_or(Path::new("")).join(name);
            (path.display().to_string(), read(&path)?)
        }
    };
    let key =
        tund_import::parse_key(&text).map_err(|error| Fatal::new(CONFIG, format!("{name}: {error}")))?;
    Ok(match wire {
        Wire::Tund => KeyFile::Secret.format(&from_openvpn(&key)),
        Wire::OpenVpn => text,
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>, Fatal> {
    let cannot =
        |why: &dyn std::fmt::Display| Fatal::new(FAILED, format!("cannot read {}: {why}", path.display()));
    let limit = LONGEST << 20;
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text));
    match read.map_err(|error| cannot(&error))? as u64 > limit {
        true => Err(cannot(&format!("it is longer than {LONGEST} MiB"))),
        false => Ok(text),
    }
}
