//! Measures one figure, or a few taken together, of one peer.

use std::thread;
use std::time::Duration;

use tund_lab::flood::Sniffer;
use tund_lab::probe::{Echo, Stream, Streams, sustained};
use tund_lab::{Error, guest, machine};

use super::randomness;
use super::results::{Metric, Results, percentile};
use super::world::Running;
use crate::link::OUTER;

/// Payload that makes a packet of 1500 bytes.
const FULL: usize = 1472;
/// IP and ICMP headers of a ping, in bytes.
const HEADERS: usize = 28;
/// Pings of each size.
const FULL_PINGS: u16 = 10;
/// Time between an answer and the next ping.
const BETWEEN: Duration = Duration::from_millis(5);
/// Datagrams examined for randomness.
const SAMPLES: usize = 2000;
/// Time for datagrams in flight to arrive after load.
const CALM: Duration = Duration::from_millis(50);

/// What is measured in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// One TCP stream, and the processor time it takes.
    Tcp,
    /// Four TCP streams.
    TcpFour,
    /// One TCP stream from mon to fri.
    TcpReverse,
    /// One TCP stream each way.
    TcpBoth,
    /// Datagrams of 64 bytes.
    Udp64,
    /// Datagrams of 1300 bytes.
    Udp1300,
    /// Round trips of an idle link.
    Ping,
    /// Round trips beside one TCP stream.
    Loaded,
    /// Packets of 1500 bytes on the path.
    Wire,
    /// Whether the datagrams can be told from random bytes.
    Random,
}

/// How long each task takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A TCP run.
    pub transfer: Duration,
    /// One trial of the search for the datagram rate.
    pub trial: Duration,
    /// Pings of an idle link.
    pub pings: u16,
}

impl Pace {
    /// Adapts to a path that delays packets: a stream needs longer to find its rate, and so does every ping.
    pub fn far(self) -> Self {
        Self { transfer: self.transfer * 4, pings: self.pings / 4, ..self }
    }
}

impl Task {
    /// All, in order of execution.
    pub const ALL: [Self; 10] = [
        Self::Ping,
        Self::Tcp,
        Self::TcpFour,
        Self::TcpReverse,
        Self::TcpBoth,
        Self::Loaded,
        Self::Udp64,
        Self::Udp1300,
        Self::Wire,
        Self::Random,
    ];

    /// Those that are meaningful on a slow machine with one processor.
    pub const BRIEF: [Self; 5] = [Self::Ping, Self::Tcp, Self::Udp64, Self::Udp1300, Self::Wire];

    /// Those that are meaningful on a path that delays or loses packets.
    pub const FAR: [Self; 2] = [Self::Ping, Self::Tcp];

    /// Runs it once.
    pub fn run(self, running: &Running, pace: &Pace, results: &mut Results) -> Result<(), Error> {
        match self {
            Self::Tcp => one_stream(running, pace, results),
            Self::TcpFour => tcp(running, pace, results, Metric::TcpFour, [4, 0]),
            Self::TcpReverse => tcp(running, pace, results, Metric::TcpReverse, [0, 1]),
            Self::TcpBoth => tcp(running, pace, results, Metric::TcpBoth, [1, 1]),
            Self::Udp64 => udp(running, pace, results, Metric::UdpSmall, 64),
            Self::Udp1300 => udp(running, pace, results, Metric::UdpLarge, 1300),
            Self::Ping => {
                let times = running.ping(Echo { interval: BETWEEN, ..running.echo() }, pace.pings)?;
                round_trips(running, results, [Metric::IdleMedian, Metric::IdleTail], &times)
            }
            Self::Loaded => loaded(running, pace, results),
            Self::Wire => wire(running, results),
            Self::Random => random(running, results),
        }
    }
}

fn tcp(
    running: &Running,
    pace: &Pace,
    results: &mut Results,
    metric: Metric,
    [forward, backward]: [usize; 2],
) -> Result<(), Error> {
    let carried = Streams { forward, backward }.carry(running.ends(), pace.transfer)?;
    results.add(running.peer.name, metric, carried.rate / 1e6);
    thread::sleep(CALM);
    Ok(())
}

fn one_stream(running: &Running, pace: &Pace, results: &mut Results) -> Result<(), Error> {
    let before = running.spent();
    let carried = Streams { forward: 1, backward: 0 }.carry(running.ends(), pace.transfer)?;
    let own = running.spent().saturating_sub(before);
    let gigabytes = carried.bytes as f64 / 1e9;
    results.add(running.peer.name, Metric::TcpOne, carried.rate / 1e6);
    results.add(running.peer.name, Metric::MachineCpu, carried.busy.as_secs_f64() / gigabytes);
    results.add(running.peer.name, Metric::OwnCpu, own.as_secs_f64() / gigabytes);
    thread::sleep(CALM);
    Ok(())
}

fn udp(
    running: &Running,
    pace: &Pace,
    results: &mut Results,
    metric: Metric,
    size: usize,
) -> Result<(), Error> {
    let stream = Stream { ends: running.ends(), size, time: pace.trial };
    let guess =
        results.median(running.peer.name, metric).map(|known| known * 1e3).filter(|known| *known > 0.0);
    let rate = sustained(stream, guess)?;
    results.add(running.peer.name, metric, rate / 1e3);
    thread::sleep(CALM);
    Ok(())
}

fn loaded(running: &Running, pace: &Pace, results: &mut Results) -> Result<(), Error> {
    let times = thread::scope(|scope| {
        let streams = Streams { forward: 1, backward: 0 };
        let load = scope.spawn(move || streams.carry(running.ends(), pace.transfer));
        let echo = Echo { interval: BETWEEN, ..running.echo() };
        let mut times = Vec::new();
        while !load.is_finished() {
            times.extend(running.ping(echo, 5)?);
        }
        load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, Error>(times)
    })?;
    thread::sleep(CALM);
    round_trips(running, results, [Metric::LoadedMedian, Metric::LoadedTail], &times)
}

fn round_trips(
    running: &Running,
    results: &mut Results,
    metrics: [Metric; 2],
    times: &[Duration],
) -> Result<(), Error> {
    let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    for (metric, percent) in metrics.into_iter().zip([50, 99]) {
        let time = percentile(&times, percent).ok_or_else(|| Error::new("no ping was answered"))?;
        results.add(running.peer.name, metric, time);
    }
    Ok(())
}

/// Measures packets on the path. A tun device with a smaller MTU fragments such a packet, a tap device must not. Zero packets: they do not pass.
fn wire(running: &Running, results: &mut Results) -> Result<(), Error> {
    // A batch of datagrams crosses veth as one packet, but no network card sends it so: split it before it is counted.
    running.allow_batches(false)?;
    let full = on_path(running, FULL)?;
    let largest = largest_whole(running)?;
    running.allow_batches(true)?;
    let (packets, bytes) = full.unwrap_or_default();
    results.add(running.peer.name, Metric::WirePackets, packets);
    if full.is_some() {
        results.add(running.peer.name, Metric::WireBytes, bytes);
    }
    results.add(running.peer.name, Metric::LargestWhole, largest as f64);
    Ok(())
}

/// Packets and bytes on the path for a ping with this payload; `None` if most pings are lost.
fn on_path(running: &Running, payload: usize) -> Result<Option<(f64, f64)>, Error> {
    let before = running.outgoing()?;
    let echo = Echo { payload, interval: Duration::from_millis(1), ..running.echo() };
    let times = running.ping(echo, FULL_PINGS)?;
    if times.len() < usize::from(FULL_PINGS) / 2 {
        return Ok(None);
    }
    let after = running.outgoing()?;
    let each = |after: u64, before: u64| (after - before) as f64 / f64::from(FULL_PINGS);
    Ok(Some((each(after.0, before.0), each(after.1, before.1))))
}

/// The length of the largest packet sent as one packet on the path; 0 if none is.
fn largest_whole(running: &Running) -> Result<usize, Error> {
    let (mut fits, mut too_large) = (0, FULL + 1);
    while too_large - fits > 1 {
        let payload = usize::midpoint(fits, too_large);
        // A link may send its own messages meanwhile, but hardly one per ping.
        match on_path(running, payload)? {
            Some((packets, _)) if packets < 2.0 => fits = payload,
            _ => too_large = payload,
        }
    }
    Ok(if fits == 0 { 0 } else { fits + HEADERS })
}

/// Examines the datagrams of pings. For other protocols than UDP there are none.
fn random(running: &Running, results: &mut Results) -> Result<(), Error> {
    let sniffer = Sniffer::new(&running.mon)?;
    let echo = Echo { interval: Duration::ZERO, ..running.echo() };
    let mut payloads = Vec::new();
    while payloads.len() < SAMPLES {
        // The socket's buffer holds a few hundred packets.
        if running.ping(echo, 100)?.is_empty() {
            return Err(Error::new("no ping was answered"));
        }
        let seen = sniffer.payloads_from(OUTER[0])?;
        if seen.is_empty() {
            return Ok(());
        }
        payloads.extend(seen);
    }
    results.add(running.peer.name, Metric::Telltale, randomness::telltale(&payloads, 32) as f64);
    Ok(())
}

/// Adds what is known only at the end.
pub fn finish(running: &Running, results: &mut Results) {
    let memory = running.memory();
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    results.add(running.peer.name, Metric::Resident, mebibytes(memory.resident));
    results.add(running.peer.name, Metric::Proportional, mebibytes(memory.proportional));
    results.add(running.peer.name, Metric::FirstPing, running.first_ping.as_secs_f64() * 1e3);
}

/// The kernel, the processor and the path, for a report's header.
pub fn machine_line(path: Option<&str>) -> String {
    let place =
        if guest::is_inside() { "a user-mode guest, slow, so that only ratios mean something: " } else { "" };
    let path = path.map(|path| format!(", each way of the path: {path}")).unwrap_or_default();
    format!("{place}Linux {}, {}{path}", machine::kernel(), machine::processor_name())
}
