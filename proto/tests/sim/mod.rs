//! Two ends in a simulated network, against a reference model.
//!
//! A seed determines a plan: the configuration of both ends, what the network does to datagrams (loss, duplicates,
//! reordering, delay, corruption, cuts, sizes), what happens to the ends (they are killed, cloned, moved, renumbered,
//! their clocks jump), and which recordings an attacker on the path sends. Then all faults end, and the link must
//! recover
//! by itself and lose nothing from there on. The model (`model.rs`) says what may come out of the ends meanwhile.
//!
//! ```text
//! cargo test --lib sim::                               all seeds
//! SIM_SEED=17 cargo test --lib sim::seeds -- --nocapture   one, with everything that happened
//! SIM_SEEDS=100000 cargo test --lib sim::seeds         more
//! SIM_FIRST=100000 cargo test --lib sim::seeds         others
//! SIM_RESTARTS=2000 cargo test --lib sim::restarts     the same for ends that are only restarted
//! ```

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod end;
mod model;
mod plan;
mod world;

use plan::Plan;
use world::World;

use crate::testing::Dice;

/// Seeds of an ordinary run; `tests/run` runs more.
const SEEDS: u64 = 200;
/// Most trace lines shown.
const SHOWN: usize = 200;

/// Makes a plan from a seed.
type Planner = fn(&mut Dice) -> Plan;

/// Runs one seed. Returns the simulated time and any violation.
fn run(plan: Planner, seed: u64, traced: bool) -> (Duration, Option<String>, Vec<String>) {
    let mut world = World::new(plan, seed, traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match outcome {
        Ok(_) => world.violation.clone(),
        Err(_) => Some("panic: the code under test panicked".into()),
    };
    let elapsed = outcome.unwrap_or_default();
    let trace = [world.trace().to_vec(), world.counters()].concat();
    (elapsed, violation, trace)
}

fn explain(plan: Planner, seed: u64, violation: &str) -> String {
    let (_, _, trace) = run(plan, seed, true);
    let shown = trace[trace.len().saturating_sub(SHOWN)..].join("\n");
    format!("{shown}\n\nseed {seed}: {violation}\n(SIM_SEED={seed} shows the whole trace)")
}

/// Prints even where the output of passing tests is captured.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds() {
    run_all("simulation", Plan::new, number("SIM_SEEDS").unwrap_or(SEEDS));
}

/// Seeds that found faults, beyond those of an ordinary run.
#[test]
fn seeds_that_found_faults() {
    for seed in [5819, 26502, 32303, 69679, 85138] {
        let (_, violation, _) = run(Plan::new, seed, false);
        assert_eq!(violation, None, "seed {seed}");
    }
}

/// An end that is told that the link is up can send at once, whatever its history.
#[test]
fn restarts() {
    run_all("simulation of restarts", Plan::restarts, number("SIM_RESTARTS").unwrap_or(SEEDS));
}

/// An unheard answer keeps nobody out, whoever calls next.
#[test]
fn unanswered() {
    run_all("simulation of answers lost", Plan::unanswered, number("SIM_RESTARTS").unwrap_or(SEEDS));
}

/// Withheld datagrams that come late and reordered hold nobody up.
#[test]
fn withheld() {
    run_all("simulation of what is withheld", Plan::withheld, number("SIM_RESTARTS").unwrap_or(SEEDS));
}

fn run_all(what: &str, plan: Planner, seeds: u64) {
    if let Some(seed) = number("SIM_SEED") {
        let (_, violation, trace) = run(plan, seed, true);
        println!("{}", trace.join("\n"));
        assert_eq!(violation, None, "seed {seed}");
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let last = first + seeds;
    let (next, micros) = (AtomicU64::new(first), AtomicU64::new(0));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < last) {
            let (elapsed, violation, _) = run(plan, seed, false);
            micros.fetch_add(elapsed.as_micros() as u64, Ordering::Relaxed);
            if let Some(violation) = violation {
                next.store(last, Ordering::Relaxed);
                return Some((seed, violation));
            }
        }
        None
    };
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().find_map(|thread| thread.join().unwrap())
    });
    if let Some((seed, violation)) = found {
        panic!("\n{}", explain(plan, seed, &violation));
    }
    let hours = micros.into_inner() as f64 / 3.6e9;
    tell(&format!("{what}: {seeds} seeds, {hours:.1} simulated hours"));
}
