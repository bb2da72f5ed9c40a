//! The lab's command line.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a laboratory waits for real processes")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

mod bench;
mod besiege;
mod demo;
mod errand;
mod exercise;
mod html;
mod link;
mod outcome;
mod story;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
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
    /// Show a link between two hosts, step by step
    Demo {
        /// Routed (tun) or bridged (tap)
        #[arg(value_enum, default_value_t = demo::Mode::Tun)]
        mode: demo::Mode,
    },
    /// List the scenarios, and whether they can run here
    List {
        /// A file with the reason for each scenario that cannot run here: `NAME = "REASON"`
        #[arg(long, value_name = "FILE")]
        needs: Option<PathBuf>,
    },
    /// Check a scenario of your own, and show what is wrong with it
    Check {
        /// Its file
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// Write a small scenario to begin with
    New {
        /// A new file
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// Run a scenario: hosts, links, what works, and what happens when something breaks
    Run(story::Options),
    /// Open a shell in a network in which something is wrong; --solution explains it
    Exercise(exercise::Options),
    /// Run a command in a user-mode guest: Debian's Linux with GRE, GENEVE, VLANs and netem, on this machine's files
    Guest(errand::Options),
    /// Compare tund with other tunnels: throughput, packet rate, round trip, processor time, memory; and the targets
    Bench(bench::Options),
    /// The same with every installed tunnel, without targets
    Compare {
        #[command(flatten)]
        options: bench::Options,
        /// In a user-mode guest, whose kernel has GRE and GENEVE: slow, so only ratios mean something
        #[arg(long)]
        guest: bool,
    },
    /// Measure what strangers' datagrams and connections cost a running link
    Flood(besiege::Options),
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    // The lab contains the daemon: called by that name, it is the daemon.
    if Path::new(&name).file_name() == Some(OsStr::new("tund")) {
        return tund::cli::main();
    }
    let line = Line::parse();
    if let Err(error) = tund_lab::teardown::end_on_signals() {
        eprintln!("tund-lab: {error}");
        return ExitCode::FAILURE;
    }
    let result = match line.command {
        Command::Demo { mode } => demo::run(mode),
        Command::List { needs } => story::list(needs.as_deref()).map(|()| 0),
        Command::Check { file } => story::check(&file).map(|()| 0),
        Command::New { file } => story::new(&file).map(|()| 0),
        Command::Run(options) => story::run(&options),
        Command::Exercise(options) => exercise::run(options),
        Command::Guest(options) => errand::run(options),
        Command::Bench(options) => bench::run(&options, bench::Purpose::Targets).map(|()| 0),
        Command::Compare { options, guest: false } => {
            bench::run(&options, bench::Purpose::Comparison).map(|()| 0)
        }
        Command::Compare { options, guest: true } => bench::run_in_guest(&options),
        Command::Flood(options) => besiege::run(&options).map(|()| 0),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tund-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
