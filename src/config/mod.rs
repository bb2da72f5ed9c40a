//! The checked configuration of one link.
//!
//! `keys` declares every key and mirrors the file, `check` turns it into a [`Config`] and collects every [`diagnostic`]
//! on the way. Nothing here touches a file system, a network or a clock: what depends on this host
//! is checked by `preflight`.

mod check;
mod check_device;
mod check_exchange;
mod check_outer;
mod check_routes;
pub mod diagnostic;
pub mod keyfile;
mod keys;
mod model;
mod prefixes;
mod reader;
pub mod reload;
mod render;
pub mod schema;
mod suggest;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::wire::control::PUSH_ROOM;

pub use check_routes::{Swallow, swallow};
pub use diagnostic::{Diagnostic, Severity};
pub use keys::SECTIONS;
pub use model::*;
pub use render::{position, render};

/// The UDP port used when a configuration names none.
pub const DEFAULT_PORT: u16 = 8863;

/// Most `[[route]]` tables of a file: the kernel is told of each by itself.
pub const MAX_ROUTES: usize = 1024;

/// More pushed routes than any hello holds.
pub const MAX_ACCEPTED: usize = PUSH_ROOM / 6;

/// Finds the UDP port of a service name, as /etc/services lists it.
pub type ServiceLookup = Box<dyn Fn(&str) -> Option<u16>>;

/// What the meaning of a file depends on beside its text.
pub struct Options {
    /// Relative paths start here; absolute: `--cd`, else the file's directory.
    pub directory: PathBuf,
    /// `--port`: the port of `listen` and of every remote that names none.
    pub port: Option<u16>,
    /// `--verb`, 0 to 9: goes before `run.verb`.
    pub verb: Option<u8>,
    /// Finds the ports of service names.
    pub services: ServiceLookup,
}

impl Options {
    /// Options of a file in `directory` with nothing on the command line and no service names.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), port: None, verb: None, services: Box::new(|_| None) }
    }
}

/// What became of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// `None` if any diagnostic is an error.
    pub config: Option<Config>,
    /// What could be made of the text despite its errors, so that the files it names are looked at in the same run;
    /// `None` after a syntax error. Not to be run.
    pub draft: Option<Config>,
    /// Where its keys stand in the text.
    pub places: Places,
    /// The findings, sorted by place; those without a place come first. Of very many of one severity there are the first,
    /// and their number.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and checks the text of the link called `name`, and goes on after every mistake.
pub fn parse(name: &str, text: &str, options: &Options) -> Parsed {
    let mut diagnostics = Vec::new();
    let (document, errors) = DeTable::parse_recoverable(text);
    let raw = keys::Raw::read(&document, &mut diagnostics);
    let draft = if let Some(broken) = errors.iter().filter_map(|error| Some(error.span()?.start)).min() {
        // What the parser makes of the text after a syntax error may be nonsense, and so would be findings on it.
        diagnostics.retain(|d| d.span.as_ref().is_some_and(|span| span.end < broken));
        None
    } else {
        Some(check::check(name, &raw, options, &mut diagnostics))
    };
    let failed = !errors.is_empty() || diagnostics.iter().any(Diagnostic::is_error);
    diagnostics.extend(errors.iter().map(|error| check::syntax_error(text, error)));
    diagnostics.sort_by_key(|d| d.span.as_ref().map(|span| (span.start, span.end)));
    let diagnostics = diagnostic::first_of_each_severity(diagnostics);
    let places = Places::read(document.get_ref());
    Parsed { config: draft.clone().filter(|_| !failed), draft, places, diagnostics }
}

/// Where the keys of a file stand in its text, for findings about this host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places {
    keys: BTreeMap<String, Range<usize>>,
    routes: Vec<RoutePlaces>,
}

/// One `[[route]]`: its header and its keys.
#[derive(Debug, Clone, PartialEq)]
struct RoutePlaces {
    header: Range<usize>,
    keys: Vec<(String, Range<usize>)>,
}

impl Places {
    fn read(document: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.add("", document);
        places
    }

    fn add(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if prefix.is_empty() => self.add(&format!("{path}."), inner),
                DeValue::Array(list) if path == "route" => {
                    self.routes.extend(list.iter().map(RoutePlaces::read));
                }
                _ => {}
            }
            self.keys.insert(path, value.span());
        }
    }

    /// The value of a key such as `device.address`, or the header of a table.
    pub fn of(&self, key: &str) -> Option<Range<usize>> {
        self.keys.get(key).cloned()
    }

    /// The value of `key` in the `index`th `[[route]]`, or that table's header if it has no such key.
    pub fn of_route(&self, index: usize, key: &str) -> Option<Range<usize>> {
        let route = self.routes.get(index)?;
        let key = route.keys.iter().find(|(name, _)| name == key);
        Some(key.map_or(&route.header, |(_, place)| place).clone())
    }
}

impl RoutePlaces {
    fn read(route: &Spanned<DeValue<'_>>) -> Self {
        let keys = route.get_ref().as_table().into_iter().flatten();
        let keys = keys.map(|(key, value)| (key.get_ref().to_string(), value.span())).collect();
        Self { header: route.span(), keys }
    }
}
