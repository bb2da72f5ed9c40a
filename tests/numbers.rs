//! The numbers of the house, printed: `cargo test --test numbers -- --nocapture`. What is within its budget has to stay there;
//! what is not yet is printed beside its budget. Imports that run upward are counted, and refused, by `tests/house.rs`.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]
#![allow(clippy::print_stdout, reason = "printing is what this is for")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Lines of code of `src/`: without blank lines, comments and tests.
const SRC: usize = 17_000;
/// The same of the rooms that are the protocol.
const PROTOCOL: (usize, [&str; 4]) = (5_800, ["core", "wire", "crypto", "packet"]);
/// Longest file, in lines of code.
const FILE: usize = 400;
/// Longest that nine functions of ten may be.
const P90: usize = 22;
/// Longest function.
const FUNCTION: usize = 60;
/// Most assertions that compare English sentences.
const ENGLISH: usize = 40;

/// All Rust files below a folder, with their paths from the root of the project.
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

/// Whether all of a file is test code.
fn is_test(path: &str) -> bool {
    let inside = |folder: &str| path.contains(folder);
    path.ends_with("/tests.rs")
        || ["/tests/", "/search/", "/search.rs", "/vectors"].into_iter().any(inside)
        || ["src/testing.rs", "src/fault.rs"].contains(&path)
}

/// The lines of code of a file. What `#[cfg(test)]` stands before is left out, to the end of the item.
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

/// The lengths of the functions in lines of code.
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

/// Assertions that look for two or more English words in a row in a message.
fn english(text: &str) -> usize {
    let is_word = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase());
    let sentence = |line: &str| {
        let Some((_, rest)) = line.split_once(".contains(\"").or_else(|| line.split_once("_with(\"")) else {
            return false;
        };
        let quoted = rest.split('"').next().unwrap_or_default();
        let words: Vec<_> = quoted.split([' ', ',', ':']).collect();
        words.windows(2).any(|pair| pair.iter().all(is_word))
    };
    text.lines().filter(|line| sentence(line)).count()
}

struct Numbers {
    rooms: BTreeMap<String, usize>,
    longest_files: Vec<(usize, String)>,
    functions: Vec<usize>,
    english: usize,
}

fn measure() -> Numbers {
    let mut numbers =
        Numbers { rooms: BTreeMap::new(), longest_files: Vec::new(), functions: Vec::new(), english: 0 };
    let (src, tests) = (rust_files("src"), rust_files("tests"));
    for (path, text) in &src {
        if is_test(path) {
            numbers.english += english(text);
            continue;
        }
        numbers.english += text.split_once("\nmod tests {").map_or(0, |(_, tests)| english(tests));
        let code = code(text);
        let room = path["src/".len()..].split(['/', '.']).next().unwrap().to_owned();
        *numbers.rooms.entry(room).or_default() += code.len();
        numbers.functions.extend(functions(&code));
        if code.len() > FILE {
            numbers.longest_files.push((code.len(), path.clone()));
        }
    }
    let others = tests.iter().filter(|(path, _)| !path.ends_with("/numbers.rs"));
    numbers.english += others.map(|(_, text)| english(text)).sum::<usize>();
    numbers.functions.sort_unstable();
    numbers
}

#[test]
fn the_numbers_of_the_house() {
    let numbers = measure();
    for (room, lines) in &numbers.rooms {
        println!("{lines:>6}  {room}");
    }
    let sum: usize = numbers.rooms.values().sum();
    let protocol: usize = PROTOCOL.1.iter().map(|room| numbers.rooms[*room]).sum();
    let functions = &numbers.functions;
    let (p90, longest) = (functions[functions.len() * 9 / 10], functions[functions.len() - 1]);
    println!("{sum:>6}  src, lines of code; to be {SRC}");
    println!("{protocol:>6}  {}; to be {}", PROTOCOL.1.join(" + "), PROTOCOL.0);
    println!(
        "{:>6}  functions; nine of ten have up to {p90} lines (to be {P90}), the longest {longest}",
        functions.len()
    );
    println!("{:>6}  assertions that match English; to be {ENGLISH}", numbers.english);
    println!(
        "{:>6}  files with more than {FILE} lines of code: {:?}",
        numbers.longest_files.len(),
        numbers.longest_files
    );
    assert!(
        functions.len() > 1000 && sum > 10_000,
        "the script sees too little: {} functions",
        functions.len()
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
    assert_eq!(
        english("assert!(text.contains(\"the peer is gone\"));\nassert!(text.contains(\"remote = 1\"));"),
        1
    );
    assert!(
        is_test("src/core/tests/keys.rs") && is_test("src/parent/tests.rs") && !is_test("src/core/link.rs")
    );
}
