//! All scenarios.

use super::Scenario;
use crate::{Error, guest, rights};

/// A scenario as it is in the program.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it is called.
    pub name: &'static str,
    /// The world.
    pub text: &'static str,
    /// The page about it.
    pub page: &'static str,
}

/// Where a scenario can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// On this machine's kernel.
    Here,
    /// In a guest, for what this kernel lacks.
    Guest(String),
    /// Nowhere, for what is missing, each with the way to get it.
    Nowhere(Vec<String>),
}

macro_rules! entries {
    ($($name:literal),* $(,)?) => {
        [$(Entry {
            name: $name,
            text: include_str!(concat!("../../scenarios/", $name, ".toml")),
            page: include_str!(concat!("../../scenarios/", $name, ".md")),
        }),*]
    };
}

/// Every scenario, the simplest first.
pub const ALL: [Entry; 13] = entries![
    "routed-sites",
    "bridged-sites",
    "tun-and-tap",
    "inetd",
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

/// The scenario of that name.
pub fn find(name: &str) -> Result<&'static Entry, Error> {
    let names = || ALL.map(|entry| entry.name).join(", ");
    ALL.iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| Error::new(format!("no scenario {name}: there are {}", names())))
}

impl Entry {
    /// The world, read.
    pub fn scenario(&self) -> Result<Scenario, Error> {
        Scenario::parse(self.text).map_err(|error| Error::new(format!("{}.toml: {error}", self.name)))
    }

    /// Where it can run: in a guest only if this kernel does not do.
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
        for entry in &ALL {
            let scenario = entry.scenario().unwrap();
            scenario.verify().unwrap_or_else(|error| panic!("{}: {error}", entry.name));
            assert!(scenario.phase.iter().any(|phase| phase.failure), "{}: nothing breaks", entry.name);
            assert!(!scenario.phase[0].failure, "{}: nothing works first", entry.name);
            assert!(entry.page.starts_with("# "), "{}: no title", entry.name);
            assert!(entry.page.contains("```text"), "{}: no drawing", entry.name);
            for host in scenario.host.keys() {
                assert!(entry.page.contains(host.as_str()), "{}: {host} is not on the page", entry.name);
            }
        }
    }

    #[test]
    fn every_file_of_a_scenario_is_in_the_catalogue() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(find(&name).is_ok(), "{} is in no catalogue", path.display());
        }
        assert!(find("no-such").unwrap_err().to_string().contains("routed-sites"));
    }
}
