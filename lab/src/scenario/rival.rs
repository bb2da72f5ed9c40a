//! The format of a rival's file: a tunnel between the benchmark's two hosts, fri and mon.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::file::refused;
use super::source::{Layer, Value};
use super::{Host, Mistake, Name, Scenario, Source};
use crate::Error;

/// Longest interface name in bytes.
const LONGEST_NAME: usize = 15;
/// The minimum MTU of IPv4.
const LEAST_MTU: u16 = 68;

/// A tunnel.
#[derive(Debug, Clone)]
pub struct Rival {
    /// Its description, for the report.
    pub about: String,
    /// Programs it needs, each with the way to get it.
    pub programs: Vec<(String, Origin)>,
    /// Whether it does not encrypt.
    pub plain: bool,
    /// fri and mon.
    pub ends: [End; 2],
}

/// Where a program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A Debian package.
    Debian(String),
    /// A Debian package that is only unpacked, since installing it would start a service.
    Unpacked(String),
    /// A crate and its version.
    Crate(String, String),
    /// No command can fetch it: it must be on the path.
    Path,
}

/// A file, filled in for one end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    about: String,
    #[serde(rename = "extends")]
    _extends: Option<String>,
    #[serde(default, rename = "vars")]
    _vars: BTreeMap<String, Value>,
    #[serde(default)]
    programs: BTreeMap<String, Name>,
    #[serde(default)]
    plain: bool,
    /// Both ends, and additions to each.
    #[serde(default)]
    end: End,
    #[serde(default)]
    fri: End,
    #[serde(default)]
    mon: End,
}

/// One end: a scenario's host, and how the link comes up.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct End {
    files: BTreeMap<String, String>,
    setup: String,
    services: Vec<String>,
    tund: BTreeMap<String, Name>,
    /// A shell script run after the services, repeatedly until it succeeds.
    up: Option<String>,
    /// The tunnel's interface, which is waited for.
    device: Option<Name>,
    /// Its address, as in `ip address add`.
    address: Option<Name>,
    /// Its MTU in bytes.
    mtu: Option<u16>,
}

impl Layer for File {
    const WHAT: &'static str = "a rival";

    fn over(self, base: Self) -> Self {
        Self {
            about: if self.about.is_empty() { base.about } else { self.about },
            programs: if self.programs.is_empty() { base.programs } else { self.programs },
            plain: self.plain || base.plain,
            end: self.end.over(base.end),
            fri: self.fri.over(base.fri),
            mon: self.mon.over(base.mon),
            ..base
        }
    }
}

impl File {
    fn mistakes(&self, end: &End, inner: &str) -> Vec<Mistake> {
        let mut found = Vec::new();
        if self.about.is_empty() {
            found.push(Mistake { place: 0, within: None, text: "there is no about: say what it is".into() });
        }
        if end.is_empty() {
            let text = "nothing runs at one of the ends: [end] is for both, [fri] and [mon] for one".into();
            found.push(Mistake { place: 0, within: None, text });
        }
        found.extend(self.programs.values().filter_map(|said| origin(said).err()));
        found.extend(end.tund.iter().flat_map(|(name, text)| refused(name, text)));
        found.extend(end.mistake(inner));
        found
    }
}

/// `debian PACKAGE`, `unpacked PACKAGE`, `crate NAME VERSION` or `path`.
fn origin(said: &Name) -> Result<Origin, Mistake> {
    match said.get_ref().split_whitespace().collect::<Vec<_>>()[..] {
        ["debian", package] => Ok(Origin::Debian(package.to_owned())),
        ["unpacked", package] => Ok(Origin::Unpacked(package.to_owned())),
        ["crate", name, version] => Ok(Origin::Crate(name.to_owned(), version.to_owned())),
        ["path"] => Ok(Origin::Path),
        _ => {
            let text = format!(
                "{:?} is not debian PACKAGE, unpacked PACKAGE, crate NAME VERSION or path",
                said.get_ref()
            );
            Err(Mistake::new(said, text))
        }
    }
}

impl Rival {
    /// Reads a file and all that it extends; `known` are the variables each end has by default, of which `INNER` is its inner address. An error has a
    /// line for each mistake.
    pub fn read(
        file: &str,
        text: &str,
        known: &[BTreeMap<String, String>; 2],
        find: impl Fn(&str) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let mut shown: Vec<String> = Vec::new();
        let mut read = |end: usize| -> Result<_, Error> {
            let source = Source::of_end(file, text, end, &known[end], &find)?;
            let whole: File = source.whole()?;
            let of_one = if end == 0 { &whole.fri } else { &whole.mon };
            let merged = of_one.clone().over(whole.end.clone());
            let mut mistakes = source.unknown();
            mistakes.extend(whole.mistakes(&merged, known[end].get("INNER").map_or("", String::as_str)));
            mistakes.sort_by_key(|mistake| mistake.place);
            let rendered = mistakes.iter().map(|mistake| source.render(mistake));
            let new: Vec<_> = rendered.filter(|line| !shown.contains(line)).collect();
            shown.extend(new);
            Ok((whole, merged))
        };
        let ((File { about, programs, plain, .. }, fri), (_, mon)) = (read(0)?, read(1)?);
        if !shown.is_empty() {
            return Err(Error::new(shown.join("\n")));
        }
        let programs = programs.into_iter().filter_map(|(name, said)| Some((name, origin(&said).ok()?)));
        Ok(Self { about, programs: programs.collect(), plain, ends: [fri, mon] })
    }

    /// A scenario of its hosts, based on one with the path between them.
    pub fn on(&self, ground: Scenario) -> Scenario {
        let mut whole = ground;
        for (name, end) in ["fri", "mon"].into_iter().zip(&self.ends) {
            let End { files, setup, services, tund, .. } = end.clone();
            let host = whole.host.entry(name.to_owned()).or_default();
            let own = Host { files, setup, services, tund, ..Host::default() };
            *host = own.over(std::mem::take(host));
        }
        whole
    }
}

impl End {
    /// Merges this over `base`, whose setup and services come first.
    fn over(self, base: Self) -> Self {
        let host = |end: &Self| Host {
            files: end.files.clone(),
            setup: end.setup.clone(),
            services: end.services.clone(),
            tund: end.tund.clone(),
            ..Host::default()
        };
        let Host { files, setup, services, tund, .. } = host(&self).over(host(&base));
        Self {
            files,
            setup,
            services,
            tund,
            up: self.up.or(base.up),
            device: self.device.or(base.device),
            address: self.address.or(base.address),
            mtu: self.mtu.or(base.mtu),
        }
    }

    fn is_empty(&self) -> bool {
        let starts = !self.setup.is_empty() || !self.services.is_empty() || !self.tund.is_empty();
        !starts && self.up.is_none() && self.device.is_none()
    }

    fn mistake(&self, inner: &str) -> Option<Mistake> {
        let fits = |name: &str| (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(['/', ' ', ':']);
        match (&self.device, &self.address) {
            (Some(device), _) if !fits(device.get_ref()) => Some(Mistake::new(
                device,
                format!(
                    "no interface can be called {:?}: 1 to {LONGEST_NAME} bytes, no blank, / or :",
                    device.get_ref()
                ),
            )),
            (None, Some(address)) => {
                Some(Mistake::new(address, "an address is of a device: name it, device = \"...\"".into()))
            }
            (_, Some(address)) if !address.get_ref().starts_with(inner) => Some(Mistake::new(
                address,
                format!(
                    "{:?} does not begin with @INNER@, between which and @PEER@ is measured",
                    address.get_ref()
                ),
            )),
            (Some(device), _) if self.mtu.is_some_and(|mtu| mtu < LEAST_MTU) => {
                Some(Mistake::new(device, format!("its mtu is less than {LEAST_MTU}")))
            }
            (Some(_), _) | (None, None) => None,
        }
    }

    /// A shell script that succeeds once it is up.
    pub fn up(&self) -> Option<String> {
        self.up.clone().or_else(|| Some(format!("ip link show {}", self.device()?)))
    }

    /// The tunnel's interface.
    pub fn device(&self) -> Option<&str> {
        self.device.as_ref().map(|device| device.get_ref().as_str())
    }

    /// A shell script that configures the device.
    pub fn configure(&self) -> Option<String> {
        let device = self.device()?;
        let address = self.address.as_ref().map_or_else(String::new, |address| {
            format!("ip address add {} dev {device}\n", address.get_ref())
        });
        let mtu = self.mtu.map_or_else(String::new, |mtu| format!("mtu {mtu}"));
        Some(format!("set -e\n{address}ip link set {device} {mtu} up"))
    }
}
