//! Prints the project's numbers: `cargo test --test numbers -- --nocapture`. Those within budget must stay there; others are
//! printed beside their budget. `tests/house.rs` counts and refuses upward imports.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]
#![allow(clippy::print_stdout, reason = "printing is what this is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Lines of code in `src/`, without blank lines, comments and tests.
const SRC: usize = 17_000;
/// The same for the protocol's rooms in `proto/src/`.
const PROTOCOL: (usize, [&str; 4]) = (5_800, ["core", "wire", "crypto", "packet"]);
/// Longest file, in lines of code.
const FILE: usize = 400;
/// Longest of the shortest nine tenths of functions.
const P90: usize = 22;
/// Longest function.
const FUNCTION: usize = 60;
/// Most test functions that match an English sentence of tund; those left are about the wording, or the command line.
const ENGLISH: usize = 40;

/// All Rust files below a folder, with their paths from the project's root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Whether a file has only test code.
fn is_test(path: &str) -> bool {
    let inside = |folder: &str| path.contains(folder);
    path.ends_with("/tests.rs")
        || ["/tests/", "/search/", "/search.rs", "/vectors", "src/testing"].into_iter().any(inside)
}

/// Returns a file's lines of code, without items under `#[cfg(test)]`.
fn code(text: &str) -> Vec<&str> {
    let (mut kept, mut lines) = (Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        let (start, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if start == "#[cfg(test)]" {
            let end = format!("{}}}", " ".repeat(indent));
            let item = lines.find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
            if !item.ends_with([';', ',', '}']) {
                let _ = lines.find(|line| line.starts_with(&end));
            }
        } else if !start.is_empty() && !start.starts_with("//") {
            kept.push(line);
        }
    }
    kept
}

/// Returns the lengths of the functions in lines of code.
fn functions(code: &[&str]) -> Vec<usize> {
    let mut found = Vec::new();
    for (at, line) in code.iter().enumerate() {
        let (start, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        let words: Vec<_> = start.split(' ').collect();
        let name = words.iter().position(|word| *word == "fn");
        let is_head = name.is_some_and(|name| {
            let before = &words[..name];
            before.iter().all(|word| {
                word.starts_with("pub") || ["const", "unsafe", "async", "extern", "in"].contains(word)
            })
        });
        let opens = code[at..]
            .iter()
            .find(|line| line.ends_with(['{', ';', '}']))
            .is_some_and(|line| line.ends_with('{'));
        if is_head && opens {
            let end = format!("{}}}", " ".repeat(indent));
            found.extend(code[at..].iter().position(|line| *line == end).map(|length| length + 1));
        }
    }
    found.sort_unstable();
    found
}

/// Calls that search a text.
const LOOKS: [&str; 12] = [
    "contains",
    "starts_with",
    "ends_with",
    "strip_prefix",
    "find",
    "matches",
    "wait_line",
    "wait_line_after",
    "wait_for",
    "logged",
    "says",
    "ends",
];
/// First words of commands in messages, which are not English.
const PROGRAMS: [&str; 8] = ["ip", "nft", "sysctl", "systemctl", "chown", "chmod", "modprobe", "sudo"];

/// Returns the string literals of a text with start and end; skips comments.
fn literals(text: &str) -> Vec<(usize, usize, String)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(here) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let end = |mark: &str| here.find(mark).map_or(here.len(), |end| end + mark.len());
        let length = if here.starts_with("//") {
            end("\n")
        } else if let Some(raw) = here.strip_prefix("r#\"") {
            let length = raw.find("\"#").map_or(raw.len(), |end| end);
            found.push((at, at + length + 5, raw[..length].to_owned()));
            length + 5
        } else if let Some(inside) = here.strip_prefix('"') {
            let mut escaped = false;
            let closing = inside.find(|c| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            });
            let length = closing.map_or(here.len(), |closing| closing + 2);
            let lines = inside[..length - 2].split("\\\n").map(str::trim_start);
            found.push((at, at + length, lines.collect()));
            length
        } else if let Some(escaped) = here.strip_prefix("'\\") {
            2 + escaped.find('\'').map_or(1, |quote| quote.max(1) + 1)
        } else if here.starts_with('\'') && here.chars().nth(2) == Some('\'') {
            here.chars().take(3).map(char::len_utf8).sum()
        } else {
            here.chars().next().map_or(1, char::len_utf8)
        };
        at += length;
    }
    found
}

/// Returns runs of two or more lower-case English words, unless a command.
fn sentences(literal: &str) -> Vec<String> {
    let is_word = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase());
    let (mut found, mut words) = (Vec::new(), Vec::new());
    for token in literal.split(' ').chain([""]) {
        let word = token.trim_start_matches('`').trim_end_matches([',', ':', ';', ')']);
        let (is_word, is_last) = (is_word(word), !token.ends_with(word));
        words.extend(is_word.then_some(word));
        if !is_word || is_last {
            found.extend((words.len() > 1 && !PROGRAMS.contains(&words[0])).then(|| words.join(" ")));
            words.clear();
        }
    }
    found
}

/// Returns the test functions that match a sentence of `messages`, and would fail if tund reworded it.
fn english(text: &str, messages: &str) -> BTreeSet<String> {
    let literals = literals(text);
    let mut bare = text.as_bytes().to_vec();
    literals.iter().for_each(|(start, end, _)| bare[*start..*end].fill(b'x'));
    let bare = String::from_utf8(bare).unwrap();
    let within = |at: usize| {
        // The enclosing calls, innermost first.
        let mut depth = 0;
        bare[..at].char_indices().rev().any(|(place, c)| {
            depth += i32::from(c == ')') - i32::from(c == '(');
            let name = || bare[..place].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
            let opens = depth < 0;
            depth = depth.max(0);
            opens && name().is_some_and(|name| LOOKS.contains(&name))
        })
    };
    let is_message = |literal: &str| sentences(literal).iter().any(|words| messages.contains(words));
    let looked_for = literals.iter().filter(|(start, _, literal)| is_message(literal) && within(*start));
    let function = |at: usize| bare[..at].rsplit("fn ").next().and_then(|rest| rest.split(['(', '<']).next());
    looked_for.filter_map(|(start, ..)| function(*start).map(str::to_owned)).collect()
}

struct Numbers {
    /// By path.
    rooms: BTreeMap<String, usize>,
    longest_files: Vec<(usize, String)>,
    functions: Vec<usize>,
    /// Test functions that match a sentence.
    english: Vec<String>,
}

fn measure() -> Numbers {
    let mut numbers = Numbers {
        rooms: BTreeMap::new(),
        longest_files: Vec::new(),
        functions: Vec::new(),
        english: Vec::new(),
    };
    let (src, mut tests) = (rust_files("src"), rust_files("tests"));
    tests.extend(rust_files("proto/tests"));
    tests.retain(|(path, _)| !path.ends_with("/numbers.rs"));
    let mut messages = String::new();
    let said =
        |text: &str| literals(text).into_iter().map(|(.., literal)| literal + "\n").collect::<String>();
    rust_files("import/src").iter().for_each(|(_, text)| messages += &said(text));
    for (path, text) in src.into_iter().chain(rust_files("proto/src")) {
        if is_test(&path) {
            tests.push((path, text));
            continue;
        }
        let (code_part, tests_of_it) = text.split_once("\nmod tests {").unwrap_or((&text, ""));
        messages += &said(code_part);
        let code = code(&text);
        let (folder, rest) = path.split_once("src/").unwrap();
        let room = format!("{folder}src/{}", rest.split(['/', '.']).next().unwrap());
        *numbers.rooms.entry(room).or_default() += code.len();
        numbers.functions.extend(functions(&code));
        if code.len() > FILE {
            numbers.longest_files.push((code.len(), path.clone()));
        }
        tests.push((path, tests_of_it.to_owned()));
    }
    for (path, text) in &tests {
        let found = english(text, &messages);
        numbers.english.extend(found.into_iter().map(|function| format!("{path}: {function}")));
    }
    numbers.functions.sort_unstable();
    numbers
}

#[test]
fn the_numbers_of_the_house() {
    let numbers = measure();
    for (room, lines) in &numbers.rooms {
        println!("{lines:>6}  {room}");
    }
    let sum = |folder| -> usize {
        numbers.rooms.iter().filter(|(room, _)| room.starts_with(folder)).map(|(_, lines)| lines).sum()
    };
    let (src, proto) = (sum("src/"), sum("proto/"));
    let protocol: usize = PROTOCOL.1.iter().map(|room| numbers.rooms[&format!("proto/src/{room}")]).sum();
    let functions = &numbers.functions;
    let (p90, longest) = (functions[functions.len() * 9 / 10], functions[functions.len() - 1]);
    println!("{src:>6}  src, lines of code; to be {SRC}");
    println!("{proto:>6}  proto/src; {} in all", src + proto);
    println!("{protocol:>6}  {}; to be {}", PROTOCOL.1.join(" + "), PROTOCOL.0);
    println!(
        "{:>6}  functions; nine of ten have up to {p90} lines (to be {P90}), the longest {longest}",
        functions.len()
    );
    numbers.english.iter().for_each(|function| println!("        {function}"));
    println!(
        "{:>6}  functions of tests that look for an English sentence; to be {ENGLISH}",
        numbers.english.len()
    );
    println!(
        "{:>6}  files with more than {FILE} lines of code: {:?}",
        numbers.longest_files.len(),
        numbers.longest_files
    );
    assert!(
        functions.len() > 1000 && src > 10_000,
        "the script sees too little: {} functions",
        functions.len()
    );
    assert!(
        numbers.english.len() <= ENGLISH,
        "tests that look for a sentence: compare codes, fields or exit codes"
    );
    assert!(longest <= FUNCTION, "a function of {longest} lines");
    assert!(p90 <= P90, "one function of ten has more than {P90} lines");
    assert!(numbers.longest_files.is_empty(), "{:?}", numbers.longest_files);
}

#[test]
fn the_script_counts_what_it_says() {
    let text = "//! doc\n\nuse a::b;\n#[cfg(test)]\nmod hidden;\npub(super) const fn f(\n    x: u8,\n) {\n    // why\n    g();\n}\n\
                trait T {\n    fn none(&self);\n}\n#[cfg(test)]\nmod tests {\n    use super::*;\n    fn t() {\n    }\n}\nfn last() {\n}\n";
    let code = code(text);
    assert_eq!(code.len(), 11, "{code:#?}");
    assert_eq!(functions(&code), [2, 5]);
    let messages = "the peer is gone: call it\nremote = {}\nip route add {}";
    let found = |test: &str| english(&format!("fn t() {{\n    {test}\n}}"), messages).len();
    for one in [
        "assert!(text.contains(\"peer is gone\"));",
        "log.wait_line(\n        &format!(\"{x}: the peer is {gone}\"), SOON);",
        "row().says(&[\"CAP_X\", \"call it\"]);",
        "let quote = '\"'; a.ends_with(\"is gone\");",
    ] {
        assert_eq!(found(one), 1, "{one}");
    }
    for none in [
        "assert!(text.contains(\"remote = 1\"));",
        "assert!(text.contains(\"[peer-gone]\"), \"the peer is gone\");",
        "assert!(text.contains(\"ip route add 10.0.0.0/8\"));",
        "assert!(text.contains(\"words of another program\"));",
        "// text.contains(\"the peer is gone\")",
    ] {
        assert_eq!(found(none), 0, "{none}");
    }
    assert!(
        is_test("proto/src/core/tests/keys.rs")
            && is_test("src/parent/tests.rs")
            && is_test("proto/src/testing/dice.rs")
            && !is_test("proto/src/core/link.rs")
    );
}
