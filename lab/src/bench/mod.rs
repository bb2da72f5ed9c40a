//! The benchmark: tund and other tunnels, each between two hosts of its own, in turn, in one run.
//!
//! A round runs one task after another, and each task with one peer after another, so that compared values are measured within seconds of each other;
//! every other round reverses the order of peers. Medians of the rounds are judged by ratios, since such a machine is never the same on two days.

mod install;
mod measure;
mod page;
mod peer;
mod randomness;
mod report;
mod results;
mod targets;
mod world;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tund_lab::guest::{self, Guest};
use tund_lab::{Error, machine, rights};

use measure::{Pace, Task};
use peer::Peer;
use results::{Metric, Results};
use world::Running;

/// What `bench` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Install missing peers first: Debian packages with apt-get, crates below target/tools
    #[arg(long)]
    install: bool,
    /// How often everything is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each TCP run takes, in seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// One round of short runs, to show that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Only these peers, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = named)]
    only: Vec<Peer>,
    /// Also measure the peer that this file describes: see docs/scenario.5.md; may be repeated
    #[arg(long, value_name = "FILE.toml")]
    rival: Vec<PathBuf>,
    /// Only these figures, separated by commas
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    task: Vec<Task>,
    /// Impair packets on the path in each direction, with these options of netem(8): "delay 25ms loss 1%"
    #[arg(long, value_name = "NETEM")]
    path: Option<String>,
    /// Write all measurements to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print Markdown
    #[arg(long)]
    markdown: bool,
    /// Write a self-contained page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fail unless every target is reached
    #[arg(long)]
    strict: bool,
}

/// The purpose of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The targets: the tunnels they name are required.
    Targets,
    /// The reader: every tunnel available.
    Comparison,
    /// The reader: what a guest's kernel offers beside tund.
    Guest,
}

fn named(name: &str) -> Result<Peer, String> {
    Peer::named(name).ok_or_else(|| format!("one of {}; --rival is for one of your own", peer::names()))
}

/// What a report says about the run itself.
struct Circumstances {
    machine: String,
    date: String,
    rounds: u32,
    /// CPU time taken away by a hypervisor, in percent.
    stolen: f64,
}

/// Time limit of a comparison in a guest.
const IN_GUEST: Duration = Duration::from_secs(1800);

/// Runs the same command in a guest, sharing the folders of its files. Returns the exit code.
pub fn run_in_guest(options: &Options) -> Result<u8, Error> {
    if guest::is_inside() {
        return run(options, Purpose::Guest).map(|()| 0);
    }
    if options.install && !rights::is_entered() {
        install::all(&peers(options, Purpose::Guest)?)?;
    }
    rights::become_root()?;
    let mut guest = Guest::again()?.limit(IN_GUEST);
    for file in [&options.json, &options.html].into_iter().flatten() {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        guest = guest.share(folder.unwrap_or(Path::new(".")))?;
    }
    guest.run()
}

/// Measures and prints. A missed target is an error if `options` say so.
pub fn run(options: &Options, purpose: Purpose) -> Result<(), Error> {
    let peers = peers(options, purpose)?;
    if options.install && !rights::is_entered() && !guest::is_inside() {
        install::all(&peers)?;
    }
    rights::become_root()?;
    rights::check_namespaces()?;
    rights::check_tun()?;
    let tasks = tasks(options, purpose)?;
    let mut results = Results::default();
    let (begin, stolen) = (std::time::Instant::now(), machine::stolen()?);
    let rounds = measure(options, &peers, tasks, &mut results);
    let stolen = machine::stolen()?.saturating_sub(stolen).as_secs_f64();
    let circumstances = Circumstances {
        machine: measure::machine_line(options.path.as_deref()),
        date: report::date(),
        rounds,
        stolen: 100.0 * stolen / begin.elapsed().as_secs_f64(),
    };
    let verdicts = match purpose {
        Purpose::Targets => targets::judge(&results),
        Purpose::Comparison | Purpose::Guest => Vec::new(),
    };
    let text = if options.markdown { report::markdown } else { report::terminal };
    print!("{}", text(&circumstances, &peers, &results, &verdicts));
    if let Some(file) = &options.json {
        let text = report::json(&circumstances, &peers, &results, &verdicts);
        std::fs::write(file, text).map_err(|error| Error::new(format!("{}: {error}", file.display())))?;
    }
    if let Some(file) = &options.html {
        let text = page::html(&circumstances, &peers, &results);
        std::fs::write(file, text).map_err(|error| Error::new(format!("{}: {error}", file.display())))?;
    }
    let missed = verdicts.iter().filter(|verdict| verdict.pass == Some(false)).count();
    if options.strict && missed > 0 {
        return Err(Error::new(format!("{missed} of {} targets are missed", verdicts.len())));
    }
    Ok(())
}

/// The peers named, else those of the purpose; and those of files.
fn peers(options: &Options, purpose: Purpose) -> Result<Vec<Peer>, Error> {
    let mut peers: Vec<Peer> = match (&options.only[..], purpose) {
        ([], Purpose::Targets) => Peer::needed().collect(),
        ([], Purpose::Comparison) => Peer::compared().collect(),
        ([], Purpose::Guest) => Peer::in_guest().collect(),
        (only, _) => only.to_vec(),
    };
    for file in &options.rival {
        peers.push(Peer::of_file(file)?);
    }
    Ok(peers)
}

/// The tasks to run: those named, else those of the purpose.
fn tasks(options: &Options, purpose: Purpose) -> Result<&[Task], Error> {
    if options.path.is_some() && options.task.contains(&Task::Wire) {
        return Err(Error::new(
            "--task wire counts packets: on a path with --path it would count the links' own as well",
        ));
    }
    Ok(match (&options.task[..], &options.path, purpose) {
        ([], Some(_), _) => &Task::FAR,
        ([], None, Purpose::Targets | Purpose::Comparison) => &Task::ALL,
        ([], None, Purpose::Guest) => &Task::BRIEF,
        (chosen, _, _) => chosen,
    })
}

/// Starts the peers and runs all rounds; returns how many.
fn measure(options: &Options, peers: &[Peer], tasks: &[Task], results: &mut Results) -> u32 {
    let (rounds, pace) = if options.quick {
        let pace =
            Pace { transfer: Duration::from_millis(400), trial: Duration::from_millis(100), pings: 40 };
        (1, pace)
    } else {
        let pace =
            Pace { transfer: Duration::from_millis(1500), trial: Duration::from_millis(300), pings: 200 };
        (5, pace)
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let pace = if options.path.is_some() { pace.far() } else { pace };
    let transfer = options.seconds.map_or(pace.transfer, Duration::from_secs);
    let pace = Pace { transfer, ..pace };
    let mut running = Vec::new();
    for peer in peers {
        if let Some((program, _)) = peer.missing().filter(|_| peer.may_be_absent()) {
            results.miss(peer.name, format!("{program} is not on the PATH"));
            continue;
        }
        match Running::start(*peer, options.path.as_deref()) {
            Ok(peer) => running.push(peer),
            Err(error) => {
                eprintln!("{}: {error}", peer.name);
                results.fail(peer.name, error.to_string());
            }
        }
    }
    for round in 1..=rounds {
        for task in tasks {
            eprint!("round {round} of {rounds}, {task:?}:");
            for running in &running {
                step(*task, running, &pace, results);
            }
            eprintln!();
        }
        running.reverse();
    }
    for running in &running {
        measure::finish(running, results);
    }
    rounds
}

fn step(task: Task, running: &Running, pace: &Pace, results: &mut Results) {
    let name = running.peer.name;
    match task.run(running, pace, results) {
        Ok(()) => {
            let last = results.values(running.peer.name, task.main()).last().copied().unwrap_or_default();
            eprint!(" {name} {last:.0}");
        }
        Err(error) => {
            eprint!(" {name} failed");
            results.fail(running.peer.name, format!("{task:?}: {error}"));
        }
    }
    let _ = std::io::stderr().flush();
}

impl Task {
    /// The figure that represents it while the benchmark runs.
    fn main(self) -> Metric {
        match self {
            Self::Tcp => Metric::TcpOne,
            Self::TcpFour => Metric::TcpFour,
            Self::TcpReverse => Metric::TcpReverse,
            Self::TcpBoth => Metric::TcpBoth,
            Self::Udp64 => Metric::UdpSmall,
            Self::Udp1300 => Metric::UdpLarge,
            Self::Ping => Metric::IdleMedian,
            Self::Loaded => Metric::LoadedMedian,
            Self::Wire => Metric::WireBytes,
            Self::Random => Metric::Telltale,
        }
    }
}
