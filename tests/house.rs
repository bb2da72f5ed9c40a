//! House rules that no compiler checks. Each rule is a function from a file to complaints, and each is tested on a bad
//! sample below, so that a blind rule is noticed.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::fs;
use std::path::Path;

/// Most lines in a file, without its tests.
const MAX_FILE: usize = 500;
/// Most lines in a function; tests may hold tables and are exempt.
const MAX_FUNCTION: usize = 60;
/// Location of the pure half.
const PURE: [&str; 15] = [
    "proto/src/",
    "import/src/",
    "src/route/accept",
    "src/route/plan",
    "src/route/step",
    "src/route/full",
    "src/route/difference",
    "src/route/facts",
    "src/route/mending",
    "src/privsep/door",
    "src/privsep/message",
    "src/parent/machine",
    "src/control/api",
    "src/control/text",
    "src/control/metrics",
];
/// Names forbidden in the pure half: anything with a descriptor, a clock, a thread or its own randomness.
const IMPURE: [&str; 23] = [
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::os",
    "std::io",
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "ToSocketAddrs",
    "tokio::",
    "socket2::",
    "rustix::",
    "getrandom::",
    "crate::sys",
    "log::error!",
    "log::warn!",
    "log::info!",
    "log::debug!",
    "log::trace!",
];
/// The rooms from the bottom up. A file may name only its own room and those below; the longest prefix of its module
/// path is its room.
const ROOMS: [&str; 26] = [
    "crypto",
    "packet",
    "wire",
    "config",
    "core",
    "route",
    "privsep::message",
    "privsep::door",
    "control::api",
    "control::text",
    "control::metrics",
    "sys",
    "route::netlink",
    "route::monitor",
    "report",
    "device",
    "host",
    "transport",
    "control",
    "privsep",
    "engine",
    "helper",
    "preflight",
    "parent",
    "cli",
    "main",
];
/// Marks of unfinished work, spelled so that this file does not match.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("db", "g!("),
];
/// The only source of dependencies.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project with its path from the root.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if ["target", ".git", "artifacts"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((relative(&path), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn rust_files() -> Vec<(String, String)> {
    files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// Returns the part before the test module.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Numbers the lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn stray_unsafe(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("src/sys/") || path == "src/sys.rs" {
        return Vec::new();
    }
    let marks =
        ["{", "fn ", "impl ", "extern ", "trait "].map(|after| format!("{} {after}", concat!("un", "safe")));
    let bad = code(text).filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
    bad.map(|(number, _)| format!("{path}:{number}: unsafe code outside src/sys")).collect()
}

/// A lane's worker knows its transport only as `transport::Datagrams`.
fn stray_transports(path: &str, text: &str) -> Vec<String> {
    if !(path.starts_with("src/engine/worker") || path == "src/engine/lane_io.rs") || is_test(path) {
        return Vec::new();
    }
    let bad = code(without_tests(text)).filter(|(_, line)| line.contains("udp::"));
    bad.map(|(number, _)| format!("{path}:{number}: a kind of socket where any may be")).collect()
}

/// Only the unprivileged resolver process looks up names.
fn stray_look_ups(path: &str, text: &str) -> Vec<String> {
    if module(path).is_none() || path == "src/helper/resolve.rs" || is_test(path) {
        return Vec::new();
    }
    let bad = code(without_tests(text)).filter(|(_, line)| line.contains("to_socket_addrs"));
    bad.map(|(number, _)| format!("{path}:{number}: a look-up outside the resolver")).collect()
}

/// Only tests name what tests share.
fn stray_rigs(path: &str, text: &str) -> Vec<String> {
    let shared = ["/vectors", "src/testing"].iter().any(|part| path.contains(part));
    if module(path).is_none() || is_test(path) || shared {
        return Vec::new();
    }
    let bad = code(without_tests(text)).filter(|(_, line)| line.contains("testing::"));
    bad.map(|(number, _)| format!("{path}:{number}: the program names what is for tests")).collect()
}

fn impurities(path: &str, text: &str) -> Vec<String> {
    if !PURE.iter().any(|folder| path.starts_with(folder)) || is_test(path) {
        return Vec::new();
    }
    let mut bad = Vec::new();
    for (number, line) in code(without_tests(text)) {
        for name in IMPURE.iter().filter(|name| line.contains(*name)) {
            bad.push(format!("{path}:{number}: the pure half names {name}"));
        }
    }
    bad
}

/// Whether a file holds nothing but tests and what they need.
fn is_test(path: &str) -> bool {
    let parts = ["/tests.rs", "/tests/", "/search.rs", "/search/"];
    path.starts_with("tests/") || parts.iter().any(|part| path.contains(part))
}

/// The module of a file of tund or of its protocol.
fn module(path: &str) -> Option<String> {
    let path = path.strip_prefix("proto/").unwrap_or(path).strip_prefix("src/")?.strip_suffix(".rs")?;
    Some(path.trim_end_matches("/mod").replace('/', "::"))
}

/// The floor of a module.
fn floor(module: &str) -> Option<usize> {
    let within = |room: &&&str| {
        module == **room || module.strip_prefix(**room).is_some_and(|rest| rest.starts_with("::"))
    };
    let room = ROOMS.iter().filter(within).max_by_key(|room| room.len())?;
    ROOMS.iter().position(|other| other == room)
}

/// Imports from a room above the file's own.
fn climbs(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module(path) else { return Vec::new() };
    let (Some(own), false) = (floor(&module), is_test(path)) else { return Vec::new() };
    let mut bad = Vec::new();
    for (number, line) in code(without_tests(text)) {
        for (at, _) in line.match_indices("crate::") {
            let named: String = line[at + 7..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || ['_', ':'].contains(c))
                .collect();
            let named = named.trim_end_matches(':');
            if floor(named).is_some_and(|other| other > own) {
                bad.push(format!("{path}:{number}: {module} names {named}, which is above it"));
            }
        }
    }
    bad
}

fn too_long(path: &str, text: &str) -> Vec<String> {
    let mut bad = Vec::new();
    let lines: Vec<&str> = without_tests(text).lines().collect();
    if lines.len() > MAX_FILE && !is_test(path) {
        bad.push(format!("{path}: {} lines without tests, at most {MAX_FILE}", lines.len()));
    }
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let begins = line.contains("fn ") && !line.trim_start().starts_with("//");
        // A signature may span several lines; one that ends without a body has none.
        let head = lines[at..].iter().position(|line| line.ends_with('{') || line.ends_with(';'));
        let opens = begins && head.is_some_and(|more| lines[at + more].ends_with('{'));
        let end = format!("{indent}}}");
        let length = lines[at..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
        if opens && length > MAX_FUNCTION && !is_test(path) {
            bad.push(format!("{path}:{}: a function of {length} lines, at most {MAX_FUNCTION}", at + 1));
        }
    }
    bad
}

fn unfinished(path: &str, text: &str) -> Vec<String> {
    let mut bad = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for mark in UNFINISHED.iter().filter(|mark| line.contains(*mark)) {
            bad.push(format!("{path}:{}: {mark}", at + 1));
        }
    }
    bad
}

/// Machine-specific paths, and package sources other than the public registry.
fn local_matters(path: &str, text: &str) -> Vec<String> {
    let mut bad = Vec::new();
    let folders = [concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/ro", "ot/")];
    for (at, line) in text.lines().enumerate() {
        let names = |folder: &&&str| {
            line.match_indices(**folder)
                .any(|(i, _)| !line[..i].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
        };
        for folder in folders.iter().filter(names) {
            bad.push(format!("{path}:{}: {folder} is a path of one machine", at + 1));
        }
        let foreign = line.starts_with("source = ") && !line.contains(REGISTRY);
        if path.ends_with("Cargo.lock") && foreign {
            bad.push(format!("{path}:{}: {line}", at + 1));
        }
    }
    if path.starts_with(".cargo/") {
        bad.push(format!("{path}: settings of one machine"));
    }
    bad
}

fn judge(files: Vec<(String, String)>, rule: impl Fn(&str, &str) -> Vec<String>) {
    let bad: Vec<String> = files.iter().flat_map(|(path, text)| rule(path, text)).collect();
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
}

#[test]
fn unsafe_code_is_in_src_sys_alone() {
    judge(rust_files(), stray_unsafe);
}

#[test]
fn names_are_looked_up_by_the_resolver_alone() {
    judge(rust_files(), stray_look_ups);
}

#[test]
fn workers_name_no_kind_of_socket() {
    judge(rust_files(), stray_transports);
}

#[test]
fn the_program_names_nothing_that_is_for_tests() {
    judge(rust_files(), stray_rigs);
}

#[test]
fn the_pure_half_has_no_clock_no_descriptor_and_no_thread() {
    judge(rust_files(), impurities);
}

#[test]
fn no_room_names_one_above_it() {
    let files = rust_files();
    let is_homeless = |path: &&str| module(path).is_some_and(|module| floor(&module).is_none());
    let homeless: Vec<_> = files.iter().map(|(path, _)| path.as_str()).filter(is_homeless).collect();
    let outside = |path: &&str| !path.ends_with("src/lib.rs") && !path.contains("src/testing");
    assert_eq!(homeless.into_iter().find(outside), None, "a file without a floor");
    judge(files, climbs);
}

#[test]
fn files_and_functions_are_short() {
    judge(rust_files(), too_long);
}

#[test]
fn nothing_is_left_unfinished() {
    judge(files(), unfinished);
}

#[test]
fn nothing_names_one_machine() {
    judge(files(), local_matters);
}

#[test]
fn every_example_is_named_in_a_document() {
    let files = files();
    let documents: String =
        files.iter().filter(|(path, _)| path.ends_with(".md")).map(|(_, text)| text.as_str()).collect();
    let is_example = |path: &str| path.starts_with("examples/") && path.ends_with(".toml");
    let examples: Vec<_> = files.iter().filter(|(path, _)| is_example(path)).collect();
    assert!(!examples.is_empty(), "no examples found");
    for (path, _) in examples {
        let name = path.rsplit('/').next().unwrap();
        assert!(documents.contains(name), "{path} is in no document");
    }
}

/// Tests that a document names as `PATH::TEST` but that do not exist.
fn missing_tests(document: &str, files: &[(String, String)]) -> Vec<String> {
    let named = document.split('`').skip(1).step_by(2).filter_map(|span| span.split_once("::"));
    let named = named.filter(|(path, _)| path.ends_with(".rs"));
    let is_there = |(path, test): &(&str, &str)| {
        let text = files.iter().find(|(of, _)| of == path).map(|(_, text)| text.as_str()).unwrap_or_default();
        let head = format!("fn {test}(");
        let mut places = text.match_indices(&head).map(|(at, _)| &text[..at]);
        places.any(|before: &str| before.trim_end().ends_with("#[test]"))
    };
    named
        .filter(|name| !is_there(name))
        .map(|(path, test)| format!("{path}::{test} does not exist"))
        .collect()
}

/// Table rows with a last column "shown by" that name no test.
fn unshown(document: &str) -> Vec<&str> {
    let mut lines = document.lines();
    let mut found = Vec::new();
    while let Some(head) = lines.find(|line| line.starts_with('|')) {
        let rows = lines.by_ref().take_while(|line| line.starts_with('|')).skip(1);
        let shown = |row: &&str| {
            row.trim_end_matches('|').rsplit(" | ").next().is_some_and(|cell| cell.contains(".rs::"))
        };
        found.extend(rows.filter(|row| head.ends_with("| shown by |") && !shown(row)));
    }
    found
}

#[test]
fn what_nobody_may_do_is_shown_by_tests_that_exist() {
    let files = files();
    let (_, document) = files.iter().find(|(path, _)| path == "SECURITY.md").unwrap();
    assert_eq!(missing_tests(document, &files), [""; 0]);
    assert_eq!(unshown(document), [""; 0]);
    assert_eq!(document.matches("| shown by |").count(), 2, "a table is gone");
}

#[test]
fn every_case_names_tests_that_exist() {
    let files = files();
    let (_, table) = files.iter().find(|(path, _)| path == "docs/cases.md").unwrap();
    assert_eq!(missing_tests(table, &files), [""; 0]);
    for case in [1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 19, 21, 22, 29] {
        let row = table.lines().find(|line| line.starts_with(&format!("| {case} |")));
        assert!(row.is_some_and(|row| row.contains("::")), "case {case} has no test");
    }
}

#[test]
fn the_rules_see_what_they_forbid() {
    let long_file = "\n".repeat(MAX_FILE + 1);
    let long_function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(MAX_FUNCTION));
    assert_eq!(too_long("src/a.rs", &long_file).len(), 1);
    assert_eq!(too_long("src/a.rs", &long_function).len(), 1);
    assert_eq!(too_long("src/a.rs", &long_function.replace("f()", "f(\n    x: u8,\n)")).len(), 1);
    assert_eq!(too_long("src/a.rs", &format!("x\n#[cfg(test)]\nmod tests {{{long_file}")).len(), 0);

    let hidden = format!("let x = {} {{ f() }};", concat!("un", "safe"));
    assert_eq!(stray_unsafe("proto/src/core/a.rs", &hidden).len(), 1);
    assert_eq!(stray_unsafe("src/sys/a.rs", &hidden).len(), 0);

    let look_up = "let found = (host, 1).to_socket_addrs()?;";
    assert_eq!(stray_look_ups("src/engine/a.rs", look_up).len(), 1);
    assert_eq!(stray_look_ups("src/helper/resolve.rs", look_up).len(), 0);

    let socket = "use crate::transport::udp::Socket;";
    assert_eq!(stray_transports("src/engine/worker/a.rs", socket).len(), 1);
    assert_eq!(stray_transports("src/engine.rs", socket).len(), 0);

    let rig = "use crate::testing::Dice;";
    assert_eq!(stray_rigs("proto/src/core/a.rs", rig).len(), 1);
    assert_eq!(stray_rigs("src/parent/tests.rs", rig).len(), 0);

    assert_eq!(impurities("proto/src/core/a.rs", "let now = Instant::now();").len(), 1);
    assert_eq!(impurities("proto/src/core/a/tests/rig.rs", "let now = Instant::now();").len(), 0);
    assert_eq!(impurities("src/route/plan.rs", "use std::fs;").len(), 1);
    assert_eq!(impurities("src/engine/a.rs", "use std::fs;").len(), 0);
    assert_eq!(impurities("proto/src/core/a.rs", "#[cfg(test)]\nmod tests {\nuse std::fs;\n}").len(), 0);

    assert_eq!(climbs("proto/src/core/a.rs", "use crate::privsep::message::End;").len(), 1);
    assert_eq!(
        climbs("src/parent/a.rs", "use crate::{say, sys};\nuse crate::privsep::message::End;").len(),
        0
    );
    assert_eq!(climbs("src/privsep/message.rs", "use crate::privsep::spawn::Role;").len(), 1);
    assert_eq!(climbs("proto/src/wire/a.rs", "    x: crate::config::Config,").len(), 1);

    let there = [("tests/a.rs".to_owned(), "#[test]\nfn one() {}\nfn two() {}".to_owned())];
    assert_eq!(missing_tests("see `tests/a.rs::one`", &there).len(), 0);
    assert_eq!(missing_tests("`tests/a.rs::two` `tests/b.rs::one` `tests/a.rs::on`", &there).len(), 3);

    let table = "| what | shown by |\n|---|---|\n| a | `tests/a.rs::one` |\n| `b.rs::b` |  |\n\n| what |\n|---|\n| c |\n";
    assert_eq!(unshown(table), ["| `b.rs::b` |  |"]);

    for mark in UNFINISHED {
        assert!(!unfinished("a", &format!("x {mark}")).is_empty(), "{mark}");
    }
    assert_eq!(local_matters("a", concat!("see /wo", "rk/notes")).len(), 1);
    assert_eq!(local_matters("a", concat!("docs/net/wo", "rk/x")).len(), 0);
    assert_eq!(local_matters("Cargo.lock", "source = \"registry+https://example.org/index\"").len(), 1);
    assert_eq!(local_matters("Cargo.lock", &format!("source = \"{REGISTRY}\"")).len(), 0);
    assert_eq!(local_matters(".cargo/config.toml", "").len(), 1);
}
