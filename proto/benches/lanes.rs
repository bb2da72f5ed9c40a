//! What a second lane brings: frames sealed and opened by 1, 2 … N lanes at once, each on a thread of its own, between buffers in memory.
//!
//! ```text
//! cargo bench --bench lanes
//! ```
//!
//! Numbers of threads take turns, so that a busy machine is busy for all of them; what counts is the median. Two lanes have to
//! do at least 1.9 times as much as one, where the machine has two free processors.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where something is wrong")]
#![allow(clippy::print_stdout, reason = "a program that talks to a person")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod pair;

use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use pair::{FRAMES, PACKET, Pair};
use tund_proto::wire::datagram::Framing;

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(200);
/// Least that two lanes do of what one does.
const BOUND: f64 = 1.9;

fn main() -> ExitCode {
    let most = thread::available_parallelism().unwrap().get().min(16);
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); most];
    for _ in 0..ROUNDS {
        for lanes in 1..=most {
            rates[lanes - 1].push(rate(lanes));
        }
    }
    println!("{:>6}{:>16}{:>8}", "lanes", "million frames/s", "ratio");
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    for (lanes, median) in (1..).zip(&medians) {
        println!("{lanes:>6}{:>16.2}{:>8.2}", median / 1e6, median / medians[0]);
    }
    if medians.get(1).is_some_and(|two| *two < BOUND * medians[0]) {
        println!(
            "two lanes do less than {BOUND} times what one does: something is shared, or the machine is busy"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Frames a second that so many lanes of one link move together.
fn rate(lanes: usize) -> f64 {
    let start = Arc::new(Barrier::new(lanes));
    let threads: Vec<_> = (0..lanes)
        .map(|lane| {
            let start = start.clone();
            thread::spawn(move || {
                let mut pair =
                    Pair::new(Framing::Session, u8::try_from(lane).unwrap(), None, &[0x45; PACKET]);
                pair.round(&[0x45; PACKET]);
                start.wait();
                let (began, mut frames) = (Instant::now(), 0);
                while began.elapsed() < ROUND {
                    pair.round(&[0x45; PACKET]);
                    frames += FRAMES;
                }
                frames as f64 / began.elapsed().as_secs_f64()
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}
