//! The lab's command line.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a laboratory waits for real processes")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

mod bench;
mod besiege;
mod demo;
mod link;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Hosts in network namespaces for tund: a demonstration, measurements, comparisons.
///
/// Works as root, and without root where user namespaces are allowed. Removes everything it makes.
#[derive(Debug, Parser)]
#[command(name = "tund-lab", version, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A link between two hosts, shown step by step
    Demo {
        /// Routed (tun) or bridged (tap)
        #[arg(value_enum, default_value_t = demo::Mode::Tun)]
        mode: demo::Mode,
    },
    /// tund beside other tunnels: throughput, packet rate, round trip, processor time, memory; and the targets
    Bench(bench::Options),
    /// What a flood of strangers' datagrams costs a running link
    Flood {
        /// How often everything is measured
        #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    // The lab carries the daemon: called by that name it is the daemon.
    if Path::new(&name).file_name() == Some(OsStr::new("tund")) {
        return tund::cli::main();
    }
    let result = match Line::parse().command {
        Command::Demo { mode } => demo::run(mode),
        Command::Bench(options) => bench::run(&options),
        Command::Flood { rounds } => besiege::run(rounds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tund-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
