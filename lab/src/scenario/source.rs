//! The texts of a scenario or of a rival: its file and what that extends, with variables filled in.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tund::config::position;

use super::{Mistake, Scenario};
use crate::{At, Error};

/// Most files in a chain of extensions.
const MOST: usize = 8;
/// What the world fills in.
const OF_THE_WORLD: [&str; 2] = ["TUND", "DIR"];

/// What is read before variables are filled in.
#[derive(Debug, Default, Deserialize)]
struct Head {
    extends: Option<String>,
    #[serde(default)]
    vars: BTreeMap<String, Value>,
}

/// The value of a variable.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// The same everywhere.
    Same(String),
    /// One value at a link's first end, another at the second.
    Each([String; 2]),
}

/// Something that one file can override from another.
pub(super) trait Layer: DeserializeOwned {
    /// Its name in errors, such as `a scenario`.
    const WHAT: &'static str;

    /// Merges this over `base`.
    fn over(self, base: Self) -> Self;
}

/// A file, filled in.
#[derive(Debug)]
struct Text {
    file: String,
    /// As written.
    written: String,
    filled: String,
    /// For each variable: where the value ends, and where the name ended as written.
    ends: Vec<(usize, usize)>,
}

/// The file itself, then those it extends.
#[derive(Debug)]
pub struct Source(Vec<Text>);

impl Source {
    /// Reads a scenario, with values that override the file's. `find` returns the text of an extended one.
    pub fn read(
        file: &str,
        text: &str,
        given: &BTreeMap<String, String>,
        find: impl Fn(&str) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let (texts, mut vars) = gather(file, text, 0, find)?;
        for (name, value) in given {
            sound(name, value)?;
            let Some(known) = vars.get_mut(name) else {
                let there = vars.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Error::new(format!("{file} has no variable {name}: it has {there}")));
            };
            known.clone_from(value);
        }
        Ok(Self::fill(texts, &vars))
    }

    /// Reads the description of a link's ends for the first (0) or second (1). `known` are variables that need no value in the file.
    pub(super) fn of_end(
        file: &str,
        text: &str,
        end: usize,
        known: &BTreeMap<String, String>,
        find: impl Fn(&str) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let (texts, vars) = gather(file, text, end, find)?;
        Ok(Self::fill(texts, &known.clone().into_iter().chain(vars).collect()))
    }

    fn fill(texts: Vec<(String, String)>, vars: &BTreeMap<String, String>) -> Self {
        Self(texts.into_iter().map(|(file, written)| Text::fill(file, written, vars)).collect())
    }

    /// The scenario: the file overrides what it extends.
    pub fn scenario(&self) -> Result<Scenario, Error> {
        Ok(Scenario { unknown: self.unknown(), ..self.whole()? })
    }

    /// The merged texts.
    pub(super) fn whole<T: Layer>(&self) -> Result<T, Error> {
        let mut before = 0;
        let mut whole: Option<T> = None;
        for text in &self.0 {
            let parse = |filled: &str| toml::from_str(filled).at(format!("{}: not {}", text.file, T::WHAT));
            // TOML reports a mistake with its line.
            let _: T = parse(&text.filled)?;
            // Offsets continue from text to text.
            let read = parse(&("\n".repeat(before) + &text.filled))?;
            before += text.filled.len();
            whole = Some(match whole {
                None => read,
                Some(own) => own.over(read),
            });
        }
        whole.ok_or_else(|| Error::new("no text"))
    }

    /// Variables without a value.
    pub(super) fn unknown(&self) -> Vec<Mistake> {
        let mut before = 0;
        let mut found = Vec::new();
        for text in &self.0 {
            for (at, name) in names(&text.filled).filter(|(_, name)| !OF_THE_WORLD.contains(name)) {
                let said = format!("no variable {name}: give it a value in [vars]");
                found.push(Mistake { place: before + at, within: None, text: said });
            }
            before += text.filled.len();
        }
        found
    }

    /// `FILE:LINE:COLUMN: TEXT`.
    pub fn render(&self, mistake: &Mistake) -> String {
        let mut place = mistake.place;
        for text in &self.0 {
            if place <= text.filled.len() {
                // Quotes without escapes, and the following line break.
                let begins = text.filled.get(place..).is_some_and(|rest| rest.starts_with("'''\n"));
                let within = mistake.within.filter(|_| begins).map_or(0, |within| within + 4);
                let (line, column) = position(&text.written, text.as_written(place + within));
                return format!("{}:{line}:{column}: {}", text.file, mistake.text);
            }
            place -= text.filled.len();
        }
        mistake.text.clone()
    }
}

impl Text {
    fn fill(file: String, written: String, vars: &BTreeMap<String, String>) -> Self {
        let (mut filled, mut ends, mut done) = (String::new(), Vec::new(), 0);
        for (at, name) in names(&written) {
            let Some(value) = vars.get(name) else { continue };
            let end = at + name.len() + 2;
            filled += &written[done..at];
            filled += value;
            ends.push((filled.len(), end));
            done = end;
        }
        filled += &written[done..];
        Self { file, written, filled, ends }
    }

    /// Maps an offset of the filled text to the written one.
    fn as_written(&self, place: usize) -> usize {
        let last = self.ends.iter().rev().find(|(end, _)| *end <= place);
        last.map_or(place, |(filled, written)| place - filled + written).min(self.written.len())
    }
}

/// The texts that extend each other, and this end's values of variables; earlier texts take precedence.
#[expect(clippy::type_complexity, reason = "texts and variables")]
fn gather(
    file: &str,
    text: &str,
    end: usize,
    find: impl Fn(&str) -> Result<String, Error>,
) -> Result<(Vec<(String, String)>, BTreeMap<String, String>), Error> {
    let mut texts = vec![(file.to_owned(), text.to_owned())];
    let mut vars: BTreeMap<String, String> = BTreeMap::new();
    while let Some((file, text)) = texts.last() {
        let head: Head = toml::from_str(text).at(file)?;
        for (name, value) in head.vars {
            let value = match value {
                Value::Same(value) => value,
                Value::Each(values) => values.into_iter().nth(end).unwrap_or_default(),
            };
            sound(&name, &value).at(file)?;
            vars.entry(name).or_insert(value);
        }
        let Some(base) = head.extends else { break };
        if texts.len() == MOST {
            return Err(Error::new(format!("{file}: more than {MOST} files extend each other")));
        }
        let text = find(&base).at(file)?;
        texts.push((base, text));
    }
    Ok((texts, vars))
}

/// All `@NAME@`, each with its offset.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        loop {
            let at = rest + text.get(rest..)?.find('@')?;
            let name = text[at + 1..].split('@').next().filter(|name| is_name(name));
            let closed = name.filter(|name| text[at + 1 + name.len()..].starts_with('@'));
            match closed {
                Some(name) => {
                    rest = at + name.len() + 2;
                    return Some((at, name));
                }
                None => rest = at + 1,
            }
        }
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_')
}

/// Checks a value, which is filled into text in any quotes.
fn sound(name: &str, value: &str) -> Result<(), Error> {
    if !is_name(name) || OF_THE_WORLD.contains(&name) {
        return Err(Error::new(format!(
            "variable {name:?}: use capital letters, digits and _, and neither TUND nor DIR"
        )));
    }
    if value.contains(['"', '\'', '\\', '@']) || value.chars().any(char::is_control) {
        return Err(Error::new(format!(
            "variable {name}: no quotes, backslashes, @ or line breaks in {value:?}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
title = "base"
cables = ["a:eth0 -- b:eth0"]
[vars]
MTU = "1400"
RATE = "10mbit"
[host.a]
setup = "ip link set eth0 mtu @MTU@"
names = { "b.tn" = "10.0.0.2" }
[host.b]
[[phase]]
say = "of the base"
check = [{ say = "it is", on = "a", run = "true" }]
"#;

    fn read(text: &str, given: &[(&str, &str)]) -> Result<Source, Error> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Source::read("own.toml", text, &given, |name| match name {
            "base" => Ok(BASE.to_owned()),
            "itself" => Ok("extends = 'itself'".to_owned()),
            _ => Err(Error::new(format!("no {name}"))),
        })
    }

    #[test]
    fn a_file_goes_before_what_it_extends() {
        let own = "extends = 'base'\ntitle = 'own'\n[vars]\nMTU = '1300'\n[host.a]\nsetup = 'echo @RATE@'\nnames = { 'b.tn' = '10.0.0.3' }\n[host.c]\n";
        let scenario = read(own, &[]).unwrap().scenario().unwrap();
        assert_eq!((scenario.title.as_str(), scenario.cables.len()), ("own", 1));
        assert_eq!(scenario.host["a"].setup, "ip link set eth0 mtu 1300\necho 10mbit");
        assert_eq!(scenario.host["a"].names["b.tn"], "10.0.0.3");
        assert_eq!(scenario.host.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(scenario.phase[0].say, "of the base");
        let phases = format!("{own}[[phase]]\nsay = 'of its own'\ncheck = []\n");
        let scenario = read(&phases, &[("MTU", "1200")]).unwrap().scenario().unwrap();
        assert_eq!(scenario.phase.len(), 1);
        assert!(scenario.host["a"].setup.contains("mtu 1200"));
    }

    #[test]
    fn mistakes_are_shown_in_the_file_that_has_them_as_it_was_written() {
        let own = "extends = 'base'\n[vars]\nSITE = 'a-long-name'\n[[phase]]\nsay = '@SITE@'\nstep = [{ run = '@SITE@ @NONE@', on = 'd' }]\ncheck = []\n[host.e]\n";
        let source = read(own, &[]).unwrap();
        let shown: Vec<_> =
            source.scenario().unwrap().mistakes().iter().map(|it| source.render(it)).collect();
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown[0].starts_with("own.toml:6:25: no variable NONE"), "{shown:?}");
        assert!(shown[1].starts_with("own.toml:6:39: there is no host d"), "{shown:?}");
        let base = BASE.replace("-- b:eth0", "-- x:eth0");
        let source = Source::read("own.toml", own, &BTreeMap::new(), |_| Ok(base.clone())).unwrap();
        let mistakes = source.scenario().unwrap().mistakes();
        assert!(
            mistakes.iter().any(|it| source.render(it).starts_with("base:3:11: there is no host x")),
            "{mistakes:?}"
        );
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        for (text, given, part) in [
            ("extends = 'no'", &[][..], "own.toml: no no"),
            ("extends = 'itself'", &[], "extend each other"),
            ("extends = 'base'", &[("NO", "1")], "has no variable NO: it has MTU, RATE"),
            ("extends = 'base'", &[("MTU", "1'")], "no quotes"),
            ("[vars]\nmtu = '1'", &[], "capital letters"),
            ("[vars]\nDIR = '1'", &[], "neither TUND nor DIR"),
            ("[vars]\nMTU = 1", &[], "own.toml"),
        ] {
            let said = read(text, given).unwrap_err().to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
