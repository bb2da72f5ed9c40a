//! What the declaration of configuration keys generates: the entries of tund.toml(5) and the JSON Schema.
//!
//! `TUND_WRITE_MANUAL=1 cargo test --test schema` rewrites the page.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tund::config::reload::Takes;
use tund::config::schema::{Absent, Key, Section, Shape, json_schema};
use tund::config::{Options, SECTIONS, parse};
use tund_lab::Scratch;

/// The minimum of a link, to which each text below adds.
const LINK: [(&str, &str); 3] = [
    ("key", "file = 'k'\n"),
    ("device", "address = '10.0.0.1/24'\n"),
    ("route", "to = '10.7.0.0/16'\nvia = 'net_gateway'\n"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_manual_page_has_an_entry_for_each_key_as_declared() {
    let path = root().join("docs/tund.toml.5.md");
    let page = fs::read_to_string(&path).unwrap();
    let right = with_entries(&page);
    if std::env::var_os("TUND_WRITE_MANUAL").is_some() {
        fs::write(&path, right).unwrap();
        return;
    }
    let wrong = page.lines().zip(right.lines()).find(|(is, wanted)| is != wanted);
    let write = "write the page anew: TUND_WRITE_MANUAL=1 cargo test --test schema";
    assert_eq!(wrong, None, "{write}");
    assert_eq!(page, right, "{write}");
}

/// The page with each section's entries regenerated.
fn with_entries(page: &str) -> String {
    let mut missing: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
    let chunks = page.split("\n## ").map(|chunk| {
        let title = chunk.lines().next().unwrap().trim_matches(['[', ']']);
        let name = if title == "Top of the file" { "" } else { title };
        let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
            return chunk.to_owned();
        };
        missing.retain(|other| *other != name);
        let is_entry = |paragraph: &&str| paragraph.starts_with('`') && paragraph.contains("\n: ");
        let all = chunk.trim_end().split("\n\n");
        let before = all.clone().take_while(|paragraph| !is_entry(paragraph)).map(str::to_owned);
        let after =
            all.clone().skip_while(|paragraph| !is_entry(paragraph)).filter(|paragraph| !is_entry(paragraph));
        let entries = section.keys.iter().map(entry);
        let paragraphs: Vec<String> = before.chain(entries).chain(after.map(str::to_owned)).collect();
        format!("{}\n", paragraphs.join("\n\n"))
    });
    let page = chunks.collect::<Vec<_>>().join("\n## ");
    assert!(missing.is_empty(), "the page has no section for {missing:?}");
    page
}

fn entry(key: &Key) -> String {
    let absent = match (key.absent)() {
        Absent::Required => "; required".to_owned(),
        Absent::Value(value) => format!("; default: `{value}`"),
        Absent::Words("") => String::new(),
        Absent::Words(words) => format!("; default: {words}"),
    };
    let takes = match key.takes {
        Takes::Nothing => "",
        Takes::Call | Takes::Connect => "; reload: reconnects",
        Takes::Restart => "; reload: needs a restart",
    };
    let doc: Vec<&str> = key.doc.iter().map(|line| line.trim()).collect();
    format!("`{}` ({}{absent}{takes})\n: {}", key.name, described((key.shape)()), doc.join("\n  "))
}

fn described(shape: Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Texts => "text or list".to_owned(),
        Shape::Flag => "true or false".to_owned(),
        Shape::Number(low, high, "") => format!("number, {low} to {high}"),
        Shape::Number(low, high, unit) => format!("number of {unit}, {low} to {high}"),
        Shape::NumberOr(low, high, unit, word) => {
            format!("number of {unit}, {low} to {high}, or `\"{word}\"`")
        }
        Shape::Time(low, high) => format!("time, {} to {}", time(low), time(high)),
        Shape::Ports => "number or text, or a list of these".to_owned(),
        Shape::OneOf(names) => {
            let mut names: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
            let last = names.pop().unwrap();
            if names.is_empty() { last } else { format!("{} or {last}", names.join(", ")) }
        }
    }
}

fn time(milliseconds: u64) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let (size, unit) = units.into_iter().find(|(size, _)| milliseconds.is_multiple_of(*size)).unwrap();
    format!("{}{unit}", milliseconds / size)
}

/// A link with `line` in `section`, without other values of `key`.
fn with(section: &Section, key: &str, line: &str) -> String {
    let mut text = String::new();
    for table in SECTIONS {
        let least = LINK.iter().find(|(name, _)| *name == table.name).map_or("", |(_, lines)| *lines);
        let own = table.name == section.name;
        if least.is_empty() && !own {
            continue;
        }
        text += &match table.name {
            "" => String::new(),
            "route" => "[[route]]\n".to_owned(),
            name => format!("[{name}]\n"),
        };
        let is_other = |line: &&str| !own || !line.starts_with(&format!("{key} ="));
        least.lines().filter(is_other).for_each(|line| text += &format!("{line}\n"));
        if own {
            text += &format!("{line}\n");
        }
    }
    text
}

/// Valid and invalid values of a key.
fn values(shape: Shape) -> (Vec<String>, Vec<String>) {
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    match shape {
        Shape::Text => (texts(&["'a'"]), texts(&["1", "true", "['a']"])),
        Shape::Texts => (texts(&["'a'", "['a', 'b']"]), texts(&["1", "[1]", "{ a = 1 }"])),
        Shape::Flag => (texts(&["true", "false"]), texts(&["1", "'true'"])),
        Shape::Number(low, high, _) => {
            let wrong = [low - 1, high + 1].map(|number| number.to_string());
            (vec![low.to_string(), high.to_string()], [wrong.as_slice(), &texts(&["'1'", "true"])].concat())
        }
        Shape::NumberOr(low, high, ..) => {
            let wrong = [low - 1, high + 1].map(|number| number.to_string());
            let right = vec![low.to_string(), high.to_string()];
            (right, [wrong.as_slice(), &texts(&["'other'", "'1500'", "true"])].concat())
        }
        Shape::Time(low, high) => (
            vec![format!("'{low}ms'"), format!("'{high} ms'")],
            texts(&["10", "'10'", "'10 days'", "'-1s'", "'1.5s'"]),
        ),
        Shape::Ports => (
            texts(&["0", "65535", "'http'", "[1, 'tcp:http']"]),
            texts(&["-1", "65536", "true", "[65536]", "[true]"]),
        ),
        Shape::OneOf(names) => {
            (names.iter().map(|name| format!("'{name}'")).collect(), texts(&["'other'", "''", "1", "['a']"]))
        }
    }
}

/// Results of Debian's validator and its TOML reader: the first error of each text, or nothing.
fn validated(texts: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    const PROGRAM: &str = "import json, sys, tomllib, jsonschema\n\
        given = json.load(sys.stdin)\n\
        kind = jsonschema.Draft7Validator\n\
        kind.check_schema(given['schema'])\n\
        check = kind(given['schema'])\n\
        first = lambda text: next((e.json_path + ': ' + e.message for e in check.iter_errors(tomllib.loads(text))), None)\n\
        json.dump({name: first(text) for name, text in given['texts'].items()}, sys.stdout)\n";
    let mut python = Command::new("/usr/bin/python3");
    let mut child =
        python.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let given = json!({ "schema": json_schema(), "texts": texts }).to_string();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 failed: install Debian's python3-jsonschema");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An editor's view, by taplo, which `tests/run` puts below target/tools.
#[test]
fn taplo_takes_every_example_and_shows_the_place_of_a_mistake() {
    let tools = Path::new(env!("CARGO_BIN_EXE_tund")).ancestors().nth(2).unwrap().join("tools/taplo/bin");
    let place = Scratch::new().unwrap();
    let schema = place.file("schema.json", json_schema().to_string()).unwrap();
    let example = fs::read_to_string(root().join("examples/tun-fri-mon.toml")).unwrap();
    let wrong = place.file("wrong.toml", example + "\n[run]\nverb = 'loud'\n").unwrap();
    let path = format!("{}:{}", std::env::var("PATH").unwrap(), tools.display());
    let lint = |files: &str| {
        let taplo = format!("taplo lint --no-auto-config --schema file://{} {files}", schema.display());
        let output = Command::new("sh").args(["-c", &taplo]).current_dir(root()).env("PATH", &path).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (right, wrong) = (lint("examples/*.toml"), lint(&wrong.display().to_string()));
    assert!(right.0 != Some(127), "taplo is missing: run tests/run --install-only");
    assert!(right.0 == Some(0) && !right.1.contains("total=0"), "{}", right.1);
    assert!(wrong.0 == Some(1) && wrong.1.contains("wrong.toml:") && wrong.1.contains("loud"), "{}", wrong.1);
}

fn refused_by_tund(text: &str) -> bool {
    parse("l", text, &Options::new("/")).config.is_none()
}

#[test]
fn the_schema_takes_every_example_and_the_ends_of_every_range() {
    let mut texts = BTreeMap::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root().join("fuzz/corpus/configuration/all-keys.toml"));
    for file in files.iter().filter(|file| file.extension() == Some(Path::new("toml").as_os_str())) {
        texts.insert(file.display().to_string(), fs::read_to_string(file).unwrap());
    }
    assert!(texts.len() > 5, "{texts:?}");
    // By this, editors find the schema (taplo's directives).
    for (name, text) in texts.iter().filter(|(name, _)| name.contains("/examples/")) {
        assert!(text.starts_with("#:schema /usr/share/tund/tund.schema.json\n#"), "{name}");
    }
    for section in SECTIONS {
        for key in section.keys {
            for value in values((key.shape)()).0 {
                let text = with(section, key.name, &format!("{} = {value}", key.name));
                texts.insert(text.clone(), text);
            }
        }
    }
    for (name, error) in validated(&texts) {
        assert_eq!(error, None, "{name}");
    }
}

#[test]
fn the_schema_refuses_each_kind_of_mistake_as_check_does() {
    let mut texts = BTreeMap::new();
    for section in SECTIONS {
        for key in section.keys {
            for value in values((key.shape)()).1 {
                texts.insert(
                    format!("{} = {value}", section.path(key.name)),
                    with(section, key.name, &format!("{} = {value}", key.name)),
                );
            }
        }
        texts.insert(format!("unknown in [{}]", section.name), with(section, "zzz", "zzz = 1"));
    }
    let named = |name: &str| SECTIONS.iter().find(|section| section.name == name).unwrap();
    texts.insert("no to".to_owned(), with(named("route"), "to", ""));
    texts.insert("one route".to_owned(), with(named("route"), "", "").replace("[[route]]", "[route]"));
    texts.insert("no key".to_owned(), "[device]\naddress = '10.0.0.1/24'\n".to_owned());
    texts.insert("not a table".to_owned(), with(named(""), "", "run = 1"));
    texts.insert("reserved".to_owned(), with(named("tuning"), "pad", "pad = true"));
    texts.insert("OpenVPN".to_owned(), with(named(""), "", "proto = 'udp'"));
    let found = validated(&texts);
    for (name, text) in &texts {
        assert!(found[name].is_some(), "the schema takes {name}:\n{text}");
        assert!(refused_by_tund(text), "tund takes {name}:\n{text}");
    }
}
