//! All scenarios.

use super::Scenario;
use crate::{Error, rights};

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
pub const ALL: [Entry; 12] = entries![
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

    /// Programs and kernel features that are missing here, each with the way to get it.
    pub fn missing(&self) -> Result<Vec<String>, Error> {
        let scenario = self.scenario()?;
        let programs = scenario.programs.iter().filter_map(|program| rights::require(program).err());
        let mut missing: Vec<String> = programs.map(|error| error.to_string()).collect();
        for kind in &scenario.kernel {
            if !rights::kernel_has(kind)? {
                missing.push(format!("this kernel has no {kind}"));
            }
        }
        Ok(missing)
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
