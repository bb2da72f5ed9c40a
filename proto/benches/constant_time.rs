//! Whether the time of comparisons with secret values reveals where they differ: Welch's t over the times of two
//! classes of input, after dudect (Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?", 2017).
//!
//! ```text
//! cargo bench --bench constant_time
//! ```
//!
//! Both classes are refused: one has the first byte of the compared value wrong, the other the last. The controls
//! do the same work but compare byte by byte until one differs. If a control stays below the threshold, the machine is
//! too busy to tell: also a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something is wrong")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use tund_proto::core::key_id::KeyId;
use tund_proto::core::session::tokens::Tokens;
use tund_proto::crypto::aead::{Aead, TAG};
use tund_proto::crypto::keys::{self, DirectionKey, LinkKeys};
use tund_proto::crypto::suite::Cipher;
use tund_proto::crypto::{Random, wrap};
use tund_proto::testing::Dice;

/// |t| from which two classes count as different. dudect uses 10 for one test of many samples. Noise on a shared
/// machine stays below it, and a leaky comparison exceeds it by far.
const THRESHOLD: f64 = 10.0;
/// Samples of both classes together.
const SAMPLES: usize = 60_000;
/// Shares of the samples that are kept, fastest first: the rest is noise of other work.
const KEPT: [f64; 5] = [0.25, 0.5, 0.75, 0.9, 0.99];

/// Whether the input is accepted.
type Accepts<'a> = Box<dyn FnMut(&mut [u8]) -> bool + 'a>;

/// A compared value: its place in the input, and the input to refuse.
struct Target<'a> {
    name: &'static str,
    /// Whether it leaks.
    leaks: bool,
    input: Vec<u8>,
    compared: std::ops::Range<usize>,
    /// Calls per sample.
    calls: u32,
    accepts: Accepts<'a>,
}

fn main() -> ExitCode {
    let mut order = Dice(1);
    let keys = LinkKeys::new(&Random::bytes(&mut order));
    let mut failed = false;
    println!("{:<52}{:>10}  {THRESHOLD} is too much", "", "|t|");
    for mut target in targets(&keys, &mut order) {
        let t = measure(&mut target, &mut order);
        let tells = t > THRESHOLD;
        let verdict = match (tells, target.leaks) {
            (false, false) => "tells nothing",
            (true, true) => "tells, as it should",
            (true, false) => "TELLS where it differs",
            (false, true) => "tells nothing, though it must: this machine is too busy to judge",
        };
        failed |= tells != target.leaks;
        println!("{:<52}{t:>10.1}  {verdict}", target.name);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn targets<'a>(keys: &'a LinkKeys, random: &mut impl Random) -> Vec<Target<'a>> {
    let probed = wrap::seal(keys, &[0; 64], random);
    let wrapped = probed.len() - TAG..probed.len();
    let key_id = KeyId::new(keys, 1_700_000_000_000_000, random.bytes());
    let mut targets = vec![
        Target {
            name: "handshake probe (8 bytes)",
            leaks: false,
            input: probed.clone(),
            compared: 16..24,
            calls: 64,
            accepts: Box::new(|datagram| wrap::is_probe(keys, datagram)),
        },
        Target {
            name: "control: that probe, byte by byte",
            leaks: true,
            input: probed.clone(),
            compared: 16..24,
            calls: 64,
            accepts: Box::new(|datagram| {
                let random = datagram.first_chunk::<16>().expect("a whole datagram");
                equal_byte_by_byte(&datagram[16..24], &keys.probe(*random)[..8])
            }),
        },
        Target {
            name: "check of a key id (4 bytes)",
            leaks: false,
            input: key_id.0.to_vec(),
            compared: 12..16,
            calls: 64,
            accepts: Box::new(|key_id| KeyId(key_id.try_into().expect("16 bytes")).is_valid(keys)),
        },
        Target {
            name: "tag of a handshake datagram, XChaCha20-Poly1305",
            leaks: false,
            input: probed,
            compared: wrapped,
            calls: 4,
            accepts: Box::new(|datagram| wrap::open(keys, datagram).is_some()),
        },
        tag("tag of a datagram, AES-256-GCM", Cipher::Aes256Gcm, random),
        tag("tag of a datagram, ChaCha20-Poly1305", Cipher::ChaCha20Poly1305, random),
    ];
    targets.extend(tokens(random));
    targets
}

fn tag(name: &'static str, cipher: Cipher, random: &mut impl Random) -> Target<'static> {
    let key = Aead::new(cipher, &random.bytes());
    let mut input = vec![0; 64];
    let tag = key.seal(1, b"header", &mut input).expect("64 bytes");
    input.extend_from_slice(&tag);
    let accepts = Box::new(move |sealed: &mut [u8]| key.open(1, b"header", sealed).is_ok());
    Target { name, leaks: false, compared: 64..64 + TAG, input, calls: 16, accepts }
}

fn tokens(random: &mut impl Random) -> [Target<'static>; 2] {
    let now = Instant::now();
    let from: SocketAddr = ([192, 0, 2, 1], 4800).into();
    let instance = random.bytes();
    let tokens = Tokens::new(now, random);
    let key = DirectionKey::new(keys::generate(random));
    let token = Target {
        name: "token of a retry (16 bytes)",
        leaks: false,
        input: tokens.of(now, &instance, from).to_vec(),
        compared: 0..16,
        calls: 4,
        accepts: Box::new(move |token| {
            tokens.prove(now, &instance, from, &(&*token).try_into().expect("16 bytes"))
        }),
    };
    let control = Target {
        name: "control: such tokens, byte by byte",
        leaks: true,
        input: key.mac(&[b"1"]).to_vec(),
        compared: 0..16,
        calls: 4,
        accepts: Box::new(move |token| {
            [key.mac(&[b"1"]), key.mac(&[b"2"])].iter().any(|own| equal_byte_by_byte(token, own))
        }),
    };
    [token, control]
}

/// A leaky comparison, for the controls.
fn equal_byte_by_byte(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| black_box(a) == black_box(b))
}

/// The largest |t| over the shares of [`KEPT`].
fn measure(target: &mut Target<'_>, order: &mut Dice) -> f64 {
    let mut input = target.input.clone();
    assert!((target.accepts)(&mut input), "{}: the right value is refused", target.name);
    let places = [target.compared.start, target.compared.end - 1];
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let drawn = order.number();
        let class = (drawn >> 63) as usize;
        let mut wrong = target.input.clone();
        wrong[places[class]] ^= (drawn >> 32) as u8 | 1;
        let begun = Instant::now();
        for _ in 0..target.calls {
            input.copy_from_slice(black_box(&wrong));
            let accepted = (target.accepts)(black_box(&mut input));
            assert!(!black_box(accepted), "{}: a wrong value is accepted", target.name);
        }
        samples.push((begun.elapsed().as_nanos() as f64, class));
    }
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let kept = KEPT.iter().map(|share| {
        // Keep all samples that took exactly the limit, or none: sorting must not choose between the classes.
        let limit = samples[(SAMPLES as f64 * share) as usize - 1].0;
        welch(&samples[..samples.partition_point(|(time, _)| *time <= limit)])
    });
    kept.fold(0.0, f64::max)
}

/// Welch's |t| of the two classes.
fn welch(samples: &[(f64, usize)]) -> f64 {
    let mut counts = [0.0; 2];
    let [a, b] = [0, 1].map(|class| {
        let times: Vec<f64> =
            samples.iter().filter(|sample| sample.1 == class).map(|sample| sample.0).collect();
        let count = times.len() as f64;
        counts[class] = count;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    // A class with hardly any of the fastest samples is judged by the larger shares.
    if counts.iter().any(|count| *count < 100.0) { 0.0 } else { (a.0 - b.0).abs() / (a.1 + b.1).sqrt() }
}
