//! Runs every target over its corpus, so that past findings are checked without libFuzzer.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use tund_fuzz::TARGETS;
use tund_proto::testing::Dice;

#[test]
fn every_corpus_file_passes_its_target() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty: add a seed");
        for file in files {
            let data = fs::read(&file).unwrap();
            let result = std::panic::catch_unwind(|| target(&data));
            assert!(result.is_ok(), "{name} fails on {}", file.display());
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_corpus_a_target() {
    let names = TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
}

#[test]
fn the_corpora_stay_small() {
    let size = |file: PathBuf| fs::metadata(file).unwrap().len();
    let total = TARGETS.iter().flat_map(|(name, _)| corpus(name)).map(size).sum::<u64>();
    assert!(total < 300 * 1024, "{total} bytes: minimize with `cargo fuzz cmin`");
}

#[test]
fn targets_survive_noise() {
    let mut dice = Dice(1);
    for (_, target) in TARGETS {
        for length in 0..200 {
            target(&dice.bytes(length));
        }
    }
}

fn corpus(name: &str) -> Vec<PathBuf> {
    entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name))
}

/// The sorted file names of a folder, without extensions.
fn stems(folder: &str) -> Vec<String> {
    let entries = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    entries.iter().map(|entry| entry.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    entries.sort();
    entries
}
