//! A short search without libFuzzer, different each time: every target over mutated files of its corpus.
//!
//! `FUZZ_SECONDS` limits each target (2; a fast one ends earlier). `FUZZ_SEED` repeats a search that found something.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tund_fuzz::TARGETS;
use tund_proto::testing::Dice;

/// Longest input, in bytes.
const LONGEST: usize = 1024;
/// Inputs per second that suffice.
const ENOUGH: u64 = 50_000;

#[test]
fn a_short_search_finds_nothing() {
    let seconds = given("FUZZ_SECONDS").unwrap_or(2);
    let seed = given("FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 1);
    let next = AtomicUsize::new(0);
    let search_next = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, target)) = TARGETS.get(number) else { return };
            let dice = Dice(seed.wrapping_mul(number as u64 + 1));
            let runs = search(name, *target, dice, seconds, seed);
            println!("{name}: {runs} runs, seed {seed}");
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(search_next);
        }
    });
}

/// Searches for at most so many seconds and returns the number of inputs.
#[allow(clippy::disallowed_methods, reason = "it bounds how long is searched, and decides nothing")]
fn search(name: &str, target: fn(&[u8]), mut dice: Dice, seconds: u64, seed: u64) -> u64 {
    let seeds = corpus(name);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0;
    while runs < 10 || runs < seconds * ENOUGH && Instant::now() < until {
        let input = changed(&seeds, &mut dice);
        let result = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let digits = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(
            result.is_ok(),
            "{name} fails: `FUZZ_SEED={seed}`, run {runs}; keep it with\n  echo {} | xxd -r -p > fuzz/corpus/{name}/NAME",
            digits()
        );
        runs += 1;
    }
    runs
}

fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A seed, changed in up to eight places.
fn changed(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(8) {
        let at = dice.below(input.len() + 1);
        let longest = 1 << dice.below(7);
        let length = dice.below(longest).min(input.len() - at);
        match dice.below(6) {
            0 => input[at..at + length].iter_mut().for_each(|byte| *byte = dice.byte()),
            1 => drop(input.drain(at..at + length)),
            2 => {
                let part = input[at..at + length].to_vec();
                let to = dice.below(input.len() + 1);
                input.splice(to..to, part);
            }
            3 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            4 => input.insert(at, dice.byte()),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    input.truncate(LONGEST);
    input
}
