//! All scenarios.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::{Scenario, Source};
use crate::{At, Error, guest, rights};

/// A scenario included in the program, or in a user's file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The world.
    pub text: Cow<'static, str>,
    /// The page about it.
    pub page: Cow<'static, str>,
    /// Values of variables that override the file's.
    pub vars: BTreeMap<String, String>,
}

/// Where a scenario can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// On this machine's kernel.
    Here,
    /// In a guest, because this kernel lacks something.
    Guest(String),
    /// Nowhere, because something is missing, each with the way to get it.
    Nowhere(Vec<String>),
}

macro_rules! entries {
    ($folder:literal, $($name:literal),* $(,)?) => {
        [$(Entry {
            name: Cow::Borrowed($name),
            text: Cow::Borrowed(include_str!(concat!("../../", $folder, "/", $name, ".toml"))),
            page: Cow::Borrowed(include_str!(concat!("../../", $folder, "/", $name, ".md"))),
            vars: BTreeMap::new(),
        }),*]
    };
}

/// Every scenario, the simplest first.
pub static ALL: [Entry; 15] = entries![
    "scenarios",
    "routed-sites",
    "bridged-sites",
    "loop",
    "tun-and-tap",
    "inetd",
    "openvpn-peer",
    "router-firewall",
    "load-balancer",
    "zones",
    "virtual-switch",
    "vxlan-over-tund",
    "tund-beside-vxlan",
    "mesh",
    "ovs",
    "vlan-trunk",
];

/// Networks with a fault: the first phase shows it, the others are the solution.
pub static EXERCISES: [Entry; 3] = entries!["exercises", "storm", "mtu", "firewall"];

/// What `tund-lab new` writes: a small example scenario.
pub const EXAMPLE: &str = include_str!("../../new.toml");

/// The scenario of that name; a name ending in `.toml` is a file.
pub fn find(name: &str) -> Result<Cow<'static, Entry>, Error> {
    if name.ends_with(".toml") {
        return Entry::read(Path::new(name)).map(Cow::Owned);
    }
    let names = || ALL.iter().map(|entry| &*entry.name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|entry| entry.name == name);
    found.map(Cow::Borrowed).ok_or_else(|| {
        Error::new(format!("no scenario {name}: there are {}, or give a FILE.toml of your own", names()))
    })
}

impl Entry {
    /// Makes an entry from a text. Its leading comment, such as a drawing, is its page.
    pub fn new(name: impl Into<Cow<'static, str>>, text: String) -> Self {
        let comment = text.lines().map_while(|line| line.strip_prefix('#'));
        let page = format!("```text\n{}\n```", comment.collect::<Vec<_>>().join("\n"));
        Self { name: name.into(), text: text.into(), page: page.into(), vars: BTreeMap::new() }
    }

    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).at(file.display())?;
        Ok(Self::new(file.display().to_string(), text))
    }

    /// Its text, and those it extends: a scenario by name, or a file beside its own.
    pub fn source(&self) -> Result<Source, Error> {
        let beside = Path::new(&*self.name).parent().unwrap_or(Path::new(""));
        Source::read(&self.name, &self.text, &self.vars, |name| {
            let name = if name.ends_with(".toml") {
                beside.join(name).display().to_string()
            } else {
                name.to_owned()
            };
            Ok(find(&name)?.text.clone().into_owned())
        })
    }

    /// Its parsed world.
    pub fn scenario(&self) -> Result<Scenario, Error> {
        self.source()?.scenario()
    }

    /// Where it can run; in a guest only if this kernel does not suffice.
    pub fn ground(&self) -> Result<Ground, Error> {
        let scenario = self.scenario()?;
        let programs = scenario.programs.iter().filter_map(|program| rights::require(program).err());
        let mut missing: Vec<String> = programs.map(|error| error.to_string()).collect();
        let lacks = scenario.kernel_lacks()?;
        if let (Some(lacks), Err(error)) = (&lacks, guest::check()) {
            missing.push(format!("{lacks}, and for a guest: {error}"));
        }
        Ok(match (lacks, missing.is_empty()) {
            (_, false) => Ground::Nowhere(missing),
            (Some(lacks), true) => Ground::Guest(lacks),
            (None, true) => Ground::Here,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_sound_and_has_a_page_with_a_drawing_and_a_failure() {
        for entry in ALL.iter().chain(&EXERCISES) {
            let scenario = entry.scenario().unwrap();
            scenario.verify().unwrap_or_else(|error| panic!("{}: {error}", entry.name));
            assert!(scenario.phase.iter().any(|phase| phase.failure), "{}: nothing breaks", entry.name);
            let works = EXERCISES.iter().any(|other| other.name == entry.name) || !scenario.phase[0].failure;
            assert!(works, "{}: nothing works first", entry.name);
            assert!(entry.page.starts_with("# "), "{}: no title", entry.name);
            assert!(entry.page.contains("```text"), "{}: no drawing", entry.name);
            for host in scenario.host.keys() {
                assert!(entry.page.contains(host.as_str()), "{}: {host} is not on the page", entry.name);
            }
        }
    }

    #[test]
    fn every_file_of_a_scenario_is_in_the_catalogue() {
        for (folder, entries) in [("scenarios", &ALL[..]), ("exercises", &EXERCISES[..])] {
            for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
                let path = file.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                assert!(
                    entries.iter().any(|entry| entry.name == name),
                    "{} is in no catalogue",
                    path.display()
                );
            }
        }
        assert!(find("no-such").unwrap_err().to_string().contains("routed-sites"));
    }
}
