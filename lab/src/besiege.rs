//! What strangers cost a running link: unauthenticated datagrams and connections, beside the same link without them, and beside controls in which
//! they cost the machine as much, but tund nothing.
//!
//! ```text
//!  fri 192.168.80.81 ---- 192.168.80.18 mon 10.9.0.1 ---- 10.9.0.2 mallory (as anybody of 10.66.0.0/16)
//! ```
//!
//! The machine is never the same twice, so a round measures all of them there and back, within seconds, and only ratios within a round count.

mod strangers;
mod world;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use tund_lab::flood::{self, Sniffer};
use tund_lab::{Error, probe, rights};

use world::{Besieged, Flooded, Measured, World};

use crate::link::{INNER, Keys, Link, OUTER, PATIENCE, PORT, Place, UP};

/// A link for each kind of key.
const LINKS: [(&str, Link); 2] =
    [("tund tun", link(Keys::Handshake)), ("tund tun, static keys", link(Keys::Static))];
/// How often the peer restarts during a flood.
const NEWCOMERS: usize = 7;
/// Time limit for that.
const NEWCOMER: Duration = Duration::from_secs(120);

const fn link(keys: Keys) -> Link {
    Link { keys, stream: false, port: None }
}

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only these, separated by commas
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    only: Vec<Strangers>,
}

/// Those without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Datagrams(flood::Kind),
    Connections(strangers::Kind),
}

impl ValueEnum for Strangers {
    fn value_variants<'a>() -> &'a [Self] {
        use flood::Kind::{FirstWords, Forged, Random, Recorded};
        use strangers::Kind::{self as Connected, Many, Rubbish, Silent, Slow};
        const ALL: [Strangers; 9] = [
            Strangers::Datagrams(Random),
            Strangers::Datagrams(Recorded),
            Strangers::Datagrams(FirstWords),
            Strangers::Datagrams(Forged),
            Strangers::Connections(Silent),
            Strangers::Connections(Slow),
            Strangers::Connections(Rubbish),
            Strangers::Connections(Connected::Recorded),
            Strangers::Connections(Many),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let word = match self {
            Self::Datagrams(kind) => kind.word(),
            Self::Connections(kind) => kind.word(),
        };
        Some(PossibleValue::new(word))
    }
}

/// Measures; prints medians and, for ratios, the quartiles.
pub fn run(options: &Options) -> Result<(), Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    rights::check_tun()?;
    let all = if options.only.is_empty() { Strangers::value_variants() } else { &options.only[..] };
    let world = World::new()?;
    let datagrams = all.iter().filter_map(|kind| match kind {
        Strangers::Datagrams(kind) => Some(*kind),
        Strangers::Connections(_) => None,
    });
    let datagrams: Vec<flood::Kind> = datagrams.collect();
    if !datagrams.is_empty() {
        println!(
            "| link | flood | sent | taken | TCP: of quiet | of firewall | a socket that nobody reads: of firewall | ping p50: quiet | firewall | flood |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
        LINKS
            .iter()
            .try_for_each(|(title, link)| run_datagrams(&world, title, link, &datagrams, options.rounds))?;
    }
    let connections = all.iter().filter_map(|kind| match kind {
        Strangers::Connections(kind) => Some(*kind),
        Strangers::Datagrams(_) => None,
    });
    let connections: Vec<strangers::Kind> = connections.collect();
    if connections.is_empty() { Ok(()) } else { run_streams(&world, &connections, options.rounds) }
}

/// Measures a link during each kind of flood, then a peer that gets in meanwhile.
fn run_datagrams(
    world: &World,
    title: &str,
    link: &Link,
    kinds: &[flood::Kind],
    rounds: u32,
) -> Result<(), Error> {
    let mon = link.start(&world.tund, &world.mon, Place::Mon)?;
    let (mut fri, recordings) = world.record(link, &mon)?;
    for kind in kinds {
        let payloads = kind.payloads(&recordings);
        let round = |_| there_and_back(Flooded::ALL, |flooded| world.beside_flood(flooded, &payloads));
        let rounds = (0..rounds).map(round).collect::<Result<Vec<_>, Error>>()?;
        let [quiet, firewall, unread, flood] = columns(&rounds);
        println!(
            "| {title} | {} | {:.0}/s | {:.0}/s | {} | {} | {} | {:.0} µs | {:.0} µs | {:.0} µs |",
            kind.title(),
            median(flood.iter().map(|flood| flood.strangers[0])),
            median(flood.iter().map(|flood| flood.strangers[1])),
            percent(&flood, &quiet),
            percent(&flood, &firewall),
            percent(&unread, &firewall),
            median(quiet.iter().map(|quiet| quiet.ping)),
            median(firewall.iter().map(|firewall| firewall.ping)),
            median(flood.iter().map(|flood| flood.ping)),
        );
    }
    if let Some(line) = mon.lines().iter().find(|line| line.contains("nothing heard")) {
        return Err(Error::new(format!("{title}: {line}")));
    }
    let mut ports = PORT + 1..;
    for kind in kinds {
        let _flood = world.flood(PORT, &kind.payloads(&recordings))?;
        let mut seconds = Vec::new();
        for port in ports.by_ref().take(NEWCOMERS) {
            // It must not say goodbye.
            fri.kill();
            let begin = Instant::now();
            fri = Link { port: Some(port), ..*link }.start(&world.tund, &world.fri, Place::Fri)?;
            fri.wait_line(UP, NEWCOMER)?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        let last = seconds.iter().copied().fold(0.0, f64::max);
        println!(
            "{title}, {}: the peer, started anew at another port {NEWCOMERS} times, is up after {:.1} s, at most {last:.1} s",
            kind.title(),
            median(seconds.into_iter())
        );
    }
    Ok(())
}

/// Measures a link over TCP, beside strangers who connect to its port.
fn run_streams(world: &World, kinds: &[strangers::Kind], rounds: u32) -> Result<(), Error> {
    println!(
        "\n| link | strangers | connections | TCP: of quiet | of another port | ping p50: quiet | another port | beside them |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    let link = Link { stream: true, ..link(Keys::Handshake) };
    let sniffer = Sniffer::new(&world.mon)?;
    let mon = link.start(&world.tund, &world.mon, Place::Mon)?;
    let fri = link.start(&world.tund, &world.fri, Place::Fri)?;
    fri.wait_line(UP, PATIENCE)?;
    mon.wait_line(UP, PATIENCE)?;
    probe::ping(&world.fri, INNER[0], INNER[1], 10)?;
    let recording = strangers::reassemble(&sniffer.frames()?, OUTER[0]);
    drop(sniffer);
    for kind in kinds {
        let round =
            |_| there_and_back(Besieged::ALL, |besieged| world.beside_strangers(besieged, *kind, &recording));
        let rounds = (0..rounds).map(round).collect::<Result<Vec<_>, Error>>()?;
        let [quiet, other, link] = columns(&rounds);
        println!(
            "| tund tun over TCP | {} | {:.0}/s | {} | {} | {:.0} µs | {:.0} µs | {:.0} µs |",
            kind.title(),
            median(link.iter().map(|link| link.strangers[0])),
            percent(&link, &quiet),
            percent(&link, &other),
            median(quiet.iter().map(|quiet| quiet.ping)),
            median(other.iter().map(|other| other.ping)),
            median(link.iter().map(|link| link.ping)),
        );
    }
    match fri.lines().iter().chain(&mon.lines()).find(|line| line.contains("nothing heard")) {
        Some(line) => Err(Error::new(line.clone())),
        None => Ok(()),
    }
}

/// Runs a round: all in this order, then in reverse; returns the means of both.
fn there_and_back<C: Copy, const N: usize>(
    all: [C; N],
    measure: impl Fn(C) -> Result<Measured, Error>,
) -> Result<[Measured; N], Error> {
    let there = all.into_iter().map(&measure).collect::<Result<Vec<_>, _>>()?;
    let mut back = all.into_iter().rev().map(&measure).collect::<Result<Vec<_>, _>>()?;
    back.reverse();
    let mean = |at: usize| {
        let (a, b) = (there[at], back[at]);
        Measured {
            rate: (a.rate + b.rate) / 2.0,
            ping: (a.ping + b.ping) / 2.0,
            strangers: [0, 1].map(|which| (a.strangers[which] + b.strangers[which]) / 2.0),
        }
    };
    Ok(std::array::from_fn(mean))
}

/// The rounds of each measured item.
fn columns<const N: usize>(rounds: &[[Measured; N]]) -> [Vec<Measured>; N] {
    std::array::from_fn(|at| rounds.iter().map(|round| round[at]).collect())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = |at: usize| values.get(at).copied().unwrap_or_default();
    (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2)) / 2.0
}

/// One rate in percent of the other: the median of the rounds, and the quartiles.
fn percent(one: &[Measured], other: &[Measured]) -> String {
    let ratios = one.iter().zip(other).map(|(one, other)| 100.0 * one.rate / other.rate);
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let at = |quarters: usize| ratios.get(ratios.len() * quarters / 4).copied().unwrap_or_default();
    format!("{:.0} ({:.0}, {:.0}) %", median(ratios.iter().copied()), at(1), at(3))
}
