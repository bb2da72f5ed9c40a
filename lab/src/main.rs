//! The lab's command line.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a laboratory waits for real processes")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

mod besiege;
mod demo;
mod measure;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// How often `measure` goes round.
const ROUNDS: usize = 5;

const USAGE: &str = "\
usage: tund-lab demo [tun|tap]
       tund-lab measure [ROUNDS]
       tund-lab flood [ROUNDS]

  demo tun    a routed link between two hosts, shown step by step (the default)
  demo tap    a bridged link
  measure     throughput and round trip of tund beside the bare path and VXLAN (5 rounds)
  flood       what a flood of strangers' datagrams costs a running link (5 rounds)

Works as root, and without root where user namespaces are allowed. Removes everything it makes.";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    // The lab carries the daemon: called by that name it is the daemon.
    if Path::new(&name).file_name() == Some(OsStr::new("tund")) {
        return tund::cli::main();
    }
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["demo"] | ["demo", "tun"] => demo::run(demo::Mode::Tun),
        ["demo", "tap"] => demo::run(demo::Mode::Tap),
        ["measure"] => measure::run(ROUNDS),
        ["flood"] => besiege::run(ROUNDS),
        [what @ ("measure" | "flood"), rounds]
            if rounds.parse().is_ok_and(|rounds: usize| (1..=100).contains(&rounds)) =>
        {
            let rounds = rounds.parse().unwrap_or(ROUNDS);
            if what == "measure" { measure::run(rounds) } else { besiege::run(rounds) }
        }
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [..] => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tund-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
