//! The simulation finds each fault.

use std::sync::atomic::{AtomicU64, Ordering};

use super::plan::Plan;
use super::{Planner, run, tell};
use crate::fault::{self, Fault};

/// Seeds for faults that are otherwise found late: they are only tried first.
const FIRST: [u64; 9] = [409, 412, 434, 241, 52, 156, 367, 2138, 3327];
/// Seeds of the special plan tried next: it shows its fault soon.
const FEW: u64 = 20;
/// Seeds within which a fault must be found.
const PATIENCE: u64 = 2000;

#[test]
fn every_fault_is_found() {
    let next = AtomicU64::new(0);
    let work = || {
        let mut missed = Vec::new();
        while let Some(fault) = Fault::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            fault::inject(Some(*fault));
            let plans = FIRST.into_iter().map(|seed| ("seeds", Plan::new as Planner, seed));
            let plans = plans.chain((0..FEW).map(|seed| ("unanswered", Plan::unanswered as Planner, seed)));
            let plans = plans.chain((0..PATIENCE).map(|seed| ("seeds", Plan::new as Planner, seed)));
            let mut found =
                plans.filter_map(|(name, plan, seed)| Some((name, seed, run(plan, seed, false).1?)));
            match found.next() {
                Some((name, seed, violation)) => {
                    tell(&format!("simulation: {fault:?}: {name}, seed {seed}: {violation}"));
                }
                None => missed.push(*fault),
            }
        }
        missed
    };
    let missed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(missed.is_empty(), "not found in {PATIENCE} seeds: {missed:?}");
}
