//! The format of a scenario's file.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use tund::config::{Options, Severity, parse};

use super::measure::{Bound, Figure, target};
use super::source::Layer;
use crate::{At, Error, rights};

/// A name, with its place in the file.
pub type Name = Spanned<String>;

/// A world and what must hold in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// One line.
    #[serde(default)]
    pub title: String,
    /// Another scenario or file, whose hosts, cables and keys are included.
    pub extends: Option<String>,
    /// The values of `@NAME@`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// Programs needed beyond those of every scenario.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Kinds of interface the kernel must have, as in `ip link add type`, with options.
    #[serde(default)]
    pub kernel: Vec<String>,
    /// `HOST:INTERFACE -- HOST:INTERFACE`, in this order.
    #[serde(default)]
    pub cables: Vec<Name>,
    /// A key file and the hosts that have it.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<Name>>,
    /// The hosts by name.
    #[serde(default)]
    pub host: BTreeMap<String, Host>,
    /// What happens, in order.
    #[serde(default)]
    pub phase: Vec<Phase>,
    /// Variables without a value.
    #[serde(skip)]
    pub(super) unknown: Vec<Mistake>,
}

/// A host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// Whether it forwards packets.
    #[serde(default)]
    pub forward: bool,
    /// Names that it can resolve.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// Files in its directory; those that begin with `#!` are executable. In them and in all scripts and commands `@TUND@` stands for the daemon's
    /// program, `@DIR@` for the directory.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// A shell script that runs in its directory and stops at the first failure.
    #[serde(default)]
    pub setup: String,
    /// Commands that run in its directory until the end.
    #[serde(default)]
    pub services: Vec<String>,
    /// Ends of links: name and configuration.
    #[serde(default)]
    pub tund: BTreeMap<String, Name>,
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
    /// What must then hold.
    pub check: Vec<Check>,
}

/// An action on a host: one of `run`, `stop`, `kill` and `start`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// The host.
    pub on: Name,
    /// A shell script.
    pub run: Option<String>,
    /// The end of a link to stop; it must end.
    pub stop: Option<String>,
    /// The end of a link, or the command of a service, to kill.
    pub kill: Option<String>,
    /// The end of a link, or the command of a service, to start.
    pub start: Option<String>,
}

/// A condition on a host, which must soon hold: one of `run`, `log` and a measurement.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Check {
    /// What it shows.
    pub say: String,
    /// The host.
    pub on: Name,
    /// A shell script that must succeed.
    pub run: Option<String>,
    /// It must fail instead, twice in a row.
    #[serde(default)]
    pub fails: bool,
    /// Text that its output must contain.
    pub shows: Option<String>,
    /// The end of a link whose log, since the phase began, must contain `shows`.
    pub log: Option<String>,
    /// The IPv4 address to measure to.
    pub to: Option<Name>,
    /// Bound of a TCP stream's rate.
    pub throughput: Option<Name>,
    /// Bound of the median round trip.
    pub latency: Option<Name>,
    /// Bound of the unanswered pings.
    pub loss: Option<Name>,
    /// Bound of the longest packet that passes unfragmented.
    pub largest_frame: Option<Name>,
    /// Bound of the packets on an interface while `run` runs.
    pub seen_on_wire: Option<Name>,
    /// `HOST:INTERFACE` where they are counted.
    pub at: Option<Name>,
    /// Which packets count, in pcap-filter(7) syntax; empty for all.
    #[serde(default)]
    pub filter: String,
}

/// How a check is made.
pub(super) enum Way {
    /// A script's exit code and output.
    Script,
    /// The log of the end of a link.
    Log(String),
    /// A figure, within its bound.
    Measure(Figure, Bound),
}

impl Check {
    /// How it is made.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn way(&self) -> Result<Way, Mistake> {
        let wrong = |text: &str| Mistake::new(&self.on, format!("{}: {text}", self.say));
        let measured = match &Figure::of(self)[..] {
            [] => None,
            [(figure, bound)] => {
                let read = Bound::parse(*figure, bound.get_ref());
                Some((*figure, read.map_err(|text| Mistake::new(bound, text))?))
            }
            _ => return Err(wrong("a check measures one thing")),
        };
        if let Some(to) = &self.to {
            target(to.get_ref()).map_err(|error| Mistake::new(to, error.to_string()))?;
        }
        let plain = self.shows.is_none() && !self.fails && self.log.is_none();
        let recorded = self.at.is_some();
        match measured {
            Some((Figure::SeenOnWire, bound))
                if plain && recorded && self.run.is_some() && self.to.is_none() =>
            {
                Ok(Way::Measure(Figure::SeenOnWire, bound))
            }
            Some((Figure::SeenOnWire, _)) => {
                Err(wrong("seen-on-wire takes run and at, HOST:INTERFACE, and filter"))
            }
            Some((figure, bound)) if plain && !recorded && self.run.is_none() && self.to.is_some() => {
                Ok(Way::Measure(figure, bound))
            }
            Some(_) => Err(wrong("what is measured takes to, an address, and nothing else")),
            None if recorded || self.to.is_some() || !self.filter.is_empty() => {
                Err(wrong("to, at and filter belong to what is measured"))
            }
            None => match (&self.run, &self.log) {
                (Some(_), None) => Ok(Way::Script),
                (None, Some(end)) if self.shows.is_some() && !self.fails => Ok(Way::Log(end.clone())),
                _ => Err(wrong(
                    "either run, or log, which is a link of the host, with shows, or what is measured",
                )),
            },
        }
    }
}

impl Scenario {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).at("not a scenario")
    }

    /// What it needs that this kernel lacks.
    pub fn kernel_lacks(&self) -> Result<Option<String>, Error> {
        for kind in &self.kernel {
            if !rights::kernel_has(kind)? {
                return Ok(Some(format!("this kernel has no {kind}")));
            }
        }
        Ok(None)
    }

    /// Both ends of every cable, each a host and an interface.
    pub fn plugs(&self) -> Result<Vec<[(&str, &str); 2]>, Error> {
        let ends = |cable| ends(cable).ok_or_else(|| Error::new(not_a_cable(cable)));
        self.cables.iter().map(|cable| ends(cable.get_ref())).collect()
    }

    /// Fails with the first of [`Scenario::mistakes`], if any.
    pub fn verify(&self) -> Result<(), Error> {
        self.mistakes().into_iter().next().map_or(Ok(()), |mistake| Err(Error::new(mistake.text)))
    }

    /// Names of missing things, incomplete or contradictory steps and checks, and configurations that tund refuses.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = self.unknown.clone();
        for (what, there) in [("title", !self.title.is_empty()), ("[[phase]]", !self.phase.is_empty())] {
            if !there {
                found.push(Mistake { place: 0, within: None, text: format!("there is no {what}") });
            }
        }
        for cable in &self.cables {
            match ends(cable.get_ref()) {
                Some(ends) => {
                    for (host, _) in ends.into_iter().filter(|(host, _)| !self.host.contains_key(*host)) {
                        found.push(self.no_host(host, cable));
                    }
                }
                None => found.push(Mistake::new(cable, not_a_cable(cable.get_ref()))),
            }
        }
        let owners = self.keys.values().flatten();
        found.extend(owners.filter_map(|owner| self.known(owner).err()));
        for phase in &self.phase {
            found.extend(phase.step.iter().filter_map(|step| self.verify_step(phase, step).err()));
            found.extend(phase.check.iter().filter_map(|check| self.verify_check(check).err()));
        }
        for (name, text) in self.host.values().flat_map(|host| &host.tund) {
            found.extend(refused(name, text));
        }
        found.sort_by_key(|mistake| mistake.place);
        found
    }

    fn no_host(&self, host: &str, named: &Name) -> Mistake {
        let there = self.host.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Mistake::new(
            named,
            format!("there is no host {host}: there are {there}; another one begins with [host.{host}]"),
        )
    }

    fn known(&self, name: &Name) -> Result<&Host, Mistake> {
        self.host.get(name.get_ref()).ok_or_else(|| self.no_host(name.get_ref(), name))
    }

    fn verify_step(&self, phase: &Phase, step: &Step) -> Result<(), Mistake> {
        let host = self.known(&step.on)?;
        let works = [&step.run, &step.stop, &step.kill, &step.start];
        let [work] = works.into_iter().flatten().collect::<Vec<_>>()[..] else {
            let text = format!("{}: a step does one thing: run, stop, kill or start", phase.say);
            return Err(Mistake::new(&step.on, text));
        };
        if step.run.is_none() && !host.tund.contains_key(work) && !host.services.contains(work) {
            let there: Vec<_> =
                host.tund.keys().chain(&host.services).map(|name| format!("{name:?}")).collect();
            let text = format!("{} has no {work:?}: it has {}", step.on.get_ref(), there.join(", "));
            return Err(Mistake::new(&step.on, text));
        }
        Ok(())
    }

    fn verify_check(&self, check: &Check) -> Result<(), Mistake> {
        let host = self.known(&check.on)?;
        match check.way()? {
            Way::Log(end) if !host.tund.contains_key(&end) => {
                let text =
                    format!("{}: log names {end}, which is no link of {}", check.say, check.on.get_ref());
                Err(Mistake::new(&check.on, text))
            }
            _ => check.at.as_ref().map_or(Ok(()), |at| match plug(at.get_ref()) {
                Some((host, _)) if self.host.contains_key(host) => Ok(()),
                Some((host, _)) => Err(self.no_host(host, at)),
                None => Err(Mistake::new(at, format!("{:?} is not HOST:INTERFACE", at.get_ref()))),
            }),
        }
    }
}

impl Layer for Scenario {
    const WHAT: &'static str = "a scenario";

    fn over(mut self, base: Self) -> Self {
        if self.title.is_empty() {
            self.title = base.title;
        }
        if self.phase.is_empty() {
            self.phase = base.phase;
        }
        self.programs.extend(base.programs);
        self.kernel.extend(base.kernel);
        self.cables.splice(..0, base.cables);
        let (keys, hosts) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.host));
        self.keys = base.keys;
        self.keys.extend(keys);
        self.host = base.host;
        for (name, own) in hosts {
            let host = self.host.entry(name).or_default();
            *host = own.over(std::mem::take(host));
        }
        self
    }
}

impl Host {
    /// Merges this over `base`, whose setup and services come first.
    pub(super) fn over(self, base: Self) -> Self {
        let setups = [base.setup, self.setup];
        let setup =
            setups.iter().filter(|text| !text.is_empty()).map(|text| text.trim_end()).collect::<Vec<_>>();
        Self {
            forward: self.forward || base.forward,
            names: base.names.into_iter().chain(self.names).collect(),
            files: base.files.into_iter().chain(self.files).collect(),
            setup: setup.join("\n"),
            services: base.services.into_iter().chain(self.services).collect(),
            tund: base.tund.into_iter().chain(self.tund).collect(),
        }
    }
}

/// A mistake in a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Byte offset in its source's texts, concatenated.
    pub(super) place: usize,
    /// Byte offset in the text that begins there.
    pub(super) within: Option<usize>,
    /// One line, with the remedy.
    pub text: String,
}

impl Mistake {
    /// A mistake at this name.
    pub(super) fn new(at: &Name, text: String) -> Self {
        Self { place: at.span().start, within: None, text }
    }
}

/// tund's errors in an end's configuration.
pub(super) fn refused(name: &str, text: &Name) -> Vec<Mistake> {
    // The host's setup writes it.
    if text.get_ref().lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        return Vec::new();
    }
    let parsed = parse(name, text.get_ref(), &Options::new("/"));
    let errors = parsed.diagnostics.iter().filter(|finding| finding.severity == Severity::Error);
    let told = errors.map(|error| {
        let help = error.help.as_ref().map_or_else(String::new, |help| format!(": {help}"));
        let within = error.span.as_ref().map(|span| span.start);
        Mistake { within, ..Mistake::new(text, format!("{name}: {}{help}", error.message)) }
    });
    told.collect()
}

fn ends(cable: &str) -> Option<[(&str, &str); 2]> {
    cable.split_once("--").and_then(|(a, b)| Some([plug(a)?, plug(b)?]))
}

fn not_a_cable(cable: &str) -> String {
    format!("cable {cable:?} is not HOST:INTERFACE -- HOST:INTERFACE")
}

/// `HOST:INTERFACE`.
pub(super) fn plug(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').map(|(host, name)| (host.trim(), name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
title = 'small'
cables = ['a:eth0 -- b:eth0']
[host.a]
setup = 'true'
[host.b]
[host.b.tund]
link = '''
listen = 1
[key]
file = "k"
[device]
address = "10.0.0.1/24"
'''
[[phase]]
say = 'it works'
step = [{ on = 'b', start = 'link' }]
check = [{ say = 'a sees', on = 'a', run = 'true' }, { say = 'b says', on = 'b', log = 'link', shows = 'up' }]
"#;

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

    /// serde knows the keys.
    #[test]
    fn the_manual_has_every_key() {
        let manual = include_str!("../../../docs/scenario.5.md");
        let places =
            ["title = 'small'\n", "[host.a]\n", "say = 'it works'\n", "on = 'b', ", "say = 'a sees', "];
        for place in places {
            let end = if place.ends_with('\n') { "\n" } else { ", " };
            let said = verdict(place, &format!("{place}no-such = 1{end}"));
            let keys = said.split_once("expected one of ").unwrap().1.lines().next().unwrap();
            for key in keys.split(", ") {
                let table = format!("[{}", key.trim_matches('`'));
                assert!(
                    manual.contains(key) || manual.contains(&table),
                    "{key} is not in docs/scenario.5.md"
                );
            }
        }
    }

    #[test]
    fn mistakes_are_found_before_anything_is_built() {
        for (from, to, part) in [
            ("a:eth0 --", "c:eth0 --", "no host c"),
            ("a:eth0 -- b:eth0", "a -- b", "is not HOST:INTERFACE"),
            ("start = 'link'", "start = 'other'", "b has no \"other\": it has \"link\""),
            ("start = 'link'", "start = 'link', run = 'true'", "one thing"),
            ("run = 'true' }", "}", "either run, or log"),
            (", shows = 'up'", "", "either run, or log"),
            ("log = 'link'", "log = 'other'", "no link of b"),
            ("title = 'small'", "", "no title"),
            ("run = 'true' }", "run = 'true', to = '10.0.0.1' }", "belong to what is measured"),
            ("run = 'true' }", "to = '10.0.0.1', loss = '= 0 %' }", "sound"),
            ("run = 'true' }", "to = 'b.tn', loss = '= 0 %' }", "not an IPv4 address"),
            ("run = 'true' }", "loss = '= 0 %' }", "takes to"),
            ("run = 'true' }", "to = '10.0.0.1', loss = '= 0 ms' }", "is not a bound"),
            ("run = 'true' }", "to = '10.0.0.1', loss = '= 0 %', latency = '<= 1 ms' }", "one thing"),
            ("run = 'true' }", "run = 'true', seen-on-wire = '= 0 packets' }", "takes run and at"),
            ("run = 'true' }", "run = 'true', at = 'c:eth0', seen-on-wire = '= 0 packets' }", "no host c"),
            (
                "run = 'true' }",
                "run = 'true', at = 'b:eth0', filter = 'icmp', seen-on-wire = '= 0 packets' }",
                "sound",
            ),
            ("setup = 'true'", "set-up = 'true'", "unknown field"),
            ("10.0.0.1/24", "10.0.0/24", "link: "),
        ] {
            let said = verdict(from, to);
            assert!(said.contains(part), "{from} -> {to}: {said}");
        }
    }
}
