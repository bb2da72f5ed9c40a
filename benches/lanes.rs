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

use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use tund::core::inner::InnerPolicy;
use tund::core::lane::{
    Arrived, Command, Key, KeySlot, Lane, Notice, ReceiveCommand, SendCommand, Settings, Sink, Transmit,
};
use tund::core::path::Path;
use tund::crypto::keys::{DirectionKey, LinkKeys};
use tund::crypto::suite::Cipher;
use tund::wire::datagram::Framing;

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(200);
/// Least that two lanes do of what one does.
const BOUND: f64 = 1.9;
const PACKET: usize = 1420;
const DATAGRAM: usize = 1472;
const BATCH: usize = 44;

#[derive(Default)]
struct Out {
    frames: u64,
    datagrams: Vec<u8>,
    stride: usize,
}

impl Sink for Out {
    fn frame(&mut self, frame: &[u8]) {
        black_box(frame);
        self.frames += 1;
    }

    fn datagram(&mut self, datagram: &[u8], _to: Path) {
        self.datagrams.extend_from_slice(datagram);
    }

    fn transmit(&mut self, transmit: Transmit<'_>) {
        self.stride = transmit.stride;
        self.datagrams.extend_from_slice(transmit.bytes);
    }

    fn notice(&mut self, _notice: Notice) -> bool {
        true
    }
}

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
    let keys = Arc::new(LinkKeys::new(&[1; 32]));
    let start = Arc::new(Barrier::new(lanes));
    let threads: Vec<_> = (0..lanes)
        .map(|lane| {
            let (keys, start) = (keys.clone(), start.clone());
            thread::spawn(move || {
                let mut pair = Pair::new(&keys, u8::try_from(lane).unwrap());
                pair.round();
                start.wait();
                let (began, mut frames) = (Instant::now(), 0);
                while began.elapsed() < ROUND {
                    pair.round();
                    frames += BATCH;
                }
                frames as f64 / began.elapsed().as_secs_f64()
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

/// One lane at both ends.
struct Pair {
    from: Lane,
    to: Lane,
    out: Out,
    path: Path,
    now: Instant,
}

impl Pair {
    fn new(keys: &Arc<LinkKeys>, lane: u8) -> Self {
        let settings = |direction| Settings {
            keys: keys.clone(),
            framing: Framing::Session,
            cipher: Cipher::Aes256Gcm,
            direction,
            lane,
            max_frame: 1500,
            bundle: true,
            copy_dscp: false,
            inner: InnerPolicy::bridged(None),
        };
        let key = DirectionKey::new(Zeroizing::new([3; 32]));
        let key = Key::Slot { slot: 1, serial: 1, cipher: Cipher::Aes256Gcm, key };
        let path = Path::from(SocketAddr::from(([192, 0, 2, 1], 1417)));
        let (mut from, mut to) = (Lane::new(settings(0)), Lane::new(settings(1)));
        let (mut out, now) = (Out::default(), Instant::now());
        from.handle_command(now, SendCommand::Prepare(KeySlot::Next, key.clone()).into(), &mut out);
        from.handle_command(now, SendCommand::Switch(KeySlot::Next).into(), &mut out);
        from.handle_command(now, SendCommand::Budget(DATAGRAM).into(), &mut out);
        to.handle_command(now, ReceiveCommand::Accept { key, after: None, named: None }.into(), &mut out);
        for command in Command::endpoint(Some(path)).into_iter().chain(Command::agreed(true)) {
            from.handle_command(now, command.clone(), &mut out);
            to.handle_command(now, command, &mut out);
        }
        Self { from, to, out, path, now }
    }

    /// A batch is sealed, and opened.
    fn round(&mut self) {
        let before = self.out.frames;
        for _ in 0..BATCH {
            self.from.outward.handle_frame(black_box(&[0x45; PACKET]), &[], &mut self.out);
        }
        self.from.outward.flush(&mut self.out);
        let mut bytes = std::mem::take(&mut self.out.datagrams);
        let arrived = Arrived { bytes: &mut bytes, stride: self.out.stride, ecn: 0, from: self.path };
        self.to.inward.handle_datagrams(self.now, arrived, &mut self.out);
        bytes.clear();
        self.out.datagrams = bytes;
        assert_eq!(self.out.frames, before + BATCH as u64, "every frame arrives");
    }
}
