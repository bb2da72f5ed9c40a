//! What a scenario's file may say.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{At, Error, rights};

/// A world and what must hold in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// One line.
    pub title: String,
    /// Programs it needs beyond those of every scenario.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Kinds of interface that the kernel must have, as `ip link add type` names them, with options.
    #[serde(default)]
    pub kernel: Vec<String>,
    /// `HOST:INTERFACE -- HOST:INTERFACE`, in this order.
    pub cables: Vec<String>,
    /// A key file and the hosts that have it.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<String>>,
    /// The hosts by name.
    pub host: BTreeMap<String, Host>,
    /// What happens, in this order.
    pub phase: Vec<Phase>,
}

/// A host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// Whether it passes packets on.
    #[serde(default)]
    pub forward: bool,
    /// Names that it can resolve.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// Files in its directory; those that begin with `#!` can be executed. `@TUND@` becomes the daemon's program,
    /// `@DIR@` the directory.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// A shell script that runs in its directory and ends at the first failure.
    #[serde(default)]
    pub setup: String,
    /// Commands that run in its directory until the end.
    #[serde(default)]
    pub services: Vec<String>,
    /// Ends of links: name and configuration.
    #[serde(default)]
    pub tund: BTreeMap<String, String>,
}

/// A part of the story.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Phase {
    /// What it shows.
    pub say: String,
    /// Whether something breaks in it.
    #[serde(default)]
    pub failure: bool,
    /// What is done.
    #[serde(default)]
    pub step: Vec<Step>,
    /// What must hold then.
    pub check: Vec<Check>,
}

/// Something that is done on a host: one of `run`, `stop`, `kill` and `start`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// The host.
    pub on: String,
    /// A shell script.
    pub run: Option<String>,
    /// The end of a link that is told to end, and does.
    pub stop: Option<String>,
    /// The end of a link, or the command of a service, that is killed.
    pub kill: Option<String>,
    /// The end of a link, or the command of a service, that is started.
    pub start: Option<String>,
}

/// Something that must hold on a host, if not at once then soon: one of `run` and `log`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Check {
    /// What it shows.
    pub say: String,
    /// The host.
    pub on: String,
    /// A shell script that must succeed.
    pub run: Option<String>,
    /// It must fail instead, twice in a row.
    #[serde(default)]
    pub fails: bool,
    /// Text that its output must contain.
    pub shows: Option<String>,
    /// The end of a link whose log, since the phase began, must contain `shows`.
    pub log: Option<String>,
}

impl Scenario {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).at("not a scenario")
    }

    /// What it needs and this kernel does not have.
    pub fn kernel_lacks(&self) -> Result<Option<String>, Error> {
        for kind in &self.kernel {
            if !rights::kernel_has(kind)? {
                return Ok(Some(format!("this kernel has no {kind}")));
            }
        }
        Ok(None)
    }

    /// The two ends of every cable, each a host and an interface.
    pub fn plugs(&self) -> Result<Vec<[(&str, &str); 2]>, Error> {
        self.cables
            .iter()
            .map(|cable| {
                let ends = cable.split_once("--").and_then(|(a, b)| Some([plug(a)?, plug(b)?]));
                ends.ok_or_else(|| {
                    Error::new(format!("cable {cable:?} is not HOST:INTERFACE -- HOST:INTERFACE"))
                })
            })
            .collect()
    }

    /// Fails where a name is used that is not there, or a step or check says too little or too much.
    pub fn verify(&self) -> Result<(), Error> {
        let known = |host: &str| match self.host.get(host) {
            Some(found) => Ok(found),
            None => Err(Error::new(format!("there is no host {host}"))),
        };
        for [a, b] in self.plugs()? {
            known(a.0)?;
            known(b.0)?;
        }
        for host in self.keys.values().flatten() {
            known(host)?;
        }
        for phase in &self.phase {
            for step in &phase.step {
                let host = known(&step.on)?;
                let works = [&step.run, &step.stop, &step.kill, &step.start];
                let [work] = works.into_iter().flatten().collect::<Vec<_>>()[..] else {
                    return Err(Error::new(format!("{}: a step does one thing", phase.say)));
                };
                let is_known = host.tund.contains_key(work) || host.services.contains(work);
                if step.run.is_none() && !is_known {
                    return Err(Error::new(format!("{} has no {work:?}", step.on)));
                }
            }
            for check in &phase.check {
                let host = known(&check.on)?;
                let sound = match (&check.run, &check.log) {
                    (Some(_), None) => true,
                    (None, Some(end)) => host.tund.contains_key(end) && check.shows.is_some() && !check.fails,
                    (Some(_), Some(_)) | (None, None) => false,
                };
                if !sound {
                    return Err(Error::new(format!("{}: either run, or log with shows", check.say)));
                }
            }
        }
        Ok(())
    }
}

/// `HOST:INTERFACE`.
fn plug(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').map(|(host, name)| (host.trim(), name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
title = 'small'
cables = ['a:eth0 -- b:eth0']
[host.a]
setup = 'true'
[host.b]
[host.b.tund]
link = 'listen = 1'
[[phase]]
say = 'it works'
step = [{ on = 'b', start = 'link' }]
check = [{ say = 'a sees', on = 'a', run = 'true' }, { say = 'b says', on = 'b', log = 'link', shows = 'up' }]
";

    fn verdict(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from), "{from}");
        let text = SMALL.replace(from, to);
        let verified = Scenario::parse(&text).and_then(|scenario| scenario.verify());
        verified.map_or_else(|error| error.to_string(), |()| "sound".to_owned())
    }

    #[test]
    fn a_sound_file_is_read() {
        assert_eq!(verdict("small", "small"), "sound");
        assert_eq!(Scenario::parse(SMALL).unwrap().plugs().unwrap(), [[("a", "eth0"), ("b", "eth0")]]);
    }

    #[test]
    fn mistakes_are_found_before_anything_is_built() {
        for (from, to, part) in [
            ("a:eth0 --", "c:eth0 --", "no host c"),
            ("a:eth0 -- b:eth0", "a -- b", "is not HOST:INTERFACE"),
            ("start = 'link'", "start = 'other'", "b has no \"other\""),
            ("start = 'link'", "start = 'link', run = 'true'", "one thing"),
            ("run = 'true' }", "}", "either run, or log"),
            (", shows = 'up'", "", "either run, or log"),
            ("setup = 'true'", "set-up = 'true'", "unknown field"),
        ] {
            let said = verdict(from, to);
            assert!(said.contains(part), "{from} -> {to}: {said}");
        }
    }
}
