//! An observer of the wire sees random bytes.
//!
//! ```text
//!  fri 10.0.0.1 ==== wire ==== 10.0.0.2 mon
//! ```
//!
//! 10,000 datagrams with the most regular traffic there is: consecutive packets of zeros. The bounds have a probability
//! below 1e-9 per test, with a few hundred tests, so false alarms are rarer than one in a million runs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tund_lab::frame::{Datagram, Segment, segment};
use tund_lab::{Side, wait_until};
use tund_proto::testing::Dice;

use super::support::*;

const WANTED: usize = 10_000;
/// Offsets examined, from the start and from the end.
const HEAD: usize = 64;
const TAIL: usize = 16;
/// Chi-square with 255 degrees of freedom, six standard deviations either way (Wilson and Hilferty). A counting field
/// is as conspicuous below as a constant is above.
const CHI_SQUARE: std::ops::Range<f64> = 141.0..416.0;

/// Payloads of fri's datagrams, all of equal length.
fn capture(config: fn(Toml) -> Toml) -> Vec<Vec<u8>> {
    let (wire, pair) = wired();
    let _link = pair.link(&config(Toml::tun_fri()), &config(Toml::tun_mon()));
    let sender = pair.fri.within(|| std::net::UdpSocket::bind("192.168.86.81:9")).unwrap().unwrap();
    wire.record();
    while wire.recorded() < WANTED + WANTED / 20 {
        for _ in 0..20 {
            sender.send_to(&[0; 200], "192.168.86.18:9").unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_until("the last datagrams", SOON, || wire.recorded() > WANTED).unwrap();
    let payload = |frame: tund_lab::wire::Crossed| Datagram::parse(&frame.bytes).map(|seen| seen.payload);
    let all = wire.take().into_iter().filter(|frame| frame.from == Side::A).filter_map(payload);
    all.filter(|payload| payload.len() >= HEAD + TAIL).collect()
}

/// Payloads of fri's TCP segments, each starting with a record's length, as frames are sent one by one. Omits retransmissions.
fn capture_stream(keys: fn(Toml) -> Toml) -> Vec<Vec<u8>> {
    let (wire, pair) = wired();
    let own = |toml: Toml| keys(toml.with("[tuning]\nbundle = false"));
    let mon = pair.start_mon(&own(Toml::tun_mon().top("listen = [1417, 'tcp:563']")));
    let fri = pair.start_fri(&own(Toml::tun_fri().top("remote = 'tcp:10.0.0.2:563'")));
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(UP, SOON).unwrap();
    let sender = pair.fri.within(|| std::net::UdpSocket::bind("192.168.86.81:9")).unwrap().unwrap();
    wire.record();
    let (mut segments, mut end) = (Vec::new(), None);
    wait_until("the segments", 9 * SOON, || {
        for _ in 0..100 {
            sender.send_to(&[0; 200], "192.168.86.18:9").unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        for frame in wire.take().into_iter().filter(|frame| frame.from == Side::A) {
            let Some(Segment { number, payload, .. }) = segment(&frame.bytes) else { continue };
            if payload.len() >= HEAD + TAIL && end.is_none_or(|end: u32| number.wrapping_sub(end) < 1 << 31) {
                end = Some(number.wrapping_add(u32::try_from(payload.len()).unwrap()));
                segments.push(payload.to_vec());
            }
        }
        segments.len() >= WANTED
    })
    .unwrap();
    segments
}

fn chi_square(values: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0f64; 256];
    let mut total = 0.0;
    for value in values {
        counts[usize::from(value)] += 1.0;
        total += 1.0;
    }
    let expected = total / 256.0;
    counts.iter().map(|count| (count - expected).powi(2) / expected).sum()
}

/// Everything conspicuous about a sequence of datagrams.
fn findings(datagrams: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    let head = |at: usize| move |datagram: &Vec<u8>| datagram[at];
    let tail = |at: usize| move |datagram: &Vec<u8>| datagram[datagram.len() - TAIL + at];
    for at in 0..HEAD {
        judge(&mut found, &format!("byte {at}"), datagrams.iter().map(head(at)).collect());
    }
    for at in 0..TAIL {
        judge(&mut found, &format!("byte {at} of the last {TAIL}"), datagrams.iter().map(tail(at)).collect());
    }
    for at in 0..=HEAD - 8 {
        let words: HashSet<&[u8]> = datagrams.iter().map(|datagram| &datagram[at..at + 8]).collect();
        if words.len() != datagrams.len() {
            found.push(format!("{} repeats in bytes {at}..{}", datagrams.len() - words.len(), at + 8));
        }
    }
    for at in 0..=HEAD - 4 {
        steps(&mut found, at, datagrams);
    }
    found
}

/// The byte, and its change from one datagram to the next, are uniform.
fn judge(found: &mut Vec<String>, place: &str, bytes: Vec<u8>) {
    let change = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let flips = bytes.windows(2).map(|pair| pair[1] ^ pair[0]);
    let statistics = [
        ("", chi_square(bytes.iter().copied())),
        ("change of ", chi_square(change)),
        ("flips of ", chi_square(flips)),
    ];
    for (what, value) in statistics {
        if !CHI_SQUARE.contains(&value) {
            found.push(format!("{what}{place}: chi-square {value:.0}"));
        }
    }
}

/// A counter, in either byte order and under any constant mask, repeats some difference of neighbours; random words
/// never have three equal differences.
fn steps(found: &mut Vec<String>, at: usize, datagrams: &[Vec<u8>]) {
    let word = |datagram: &Vec<u8>| [datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]];
    type Change = fn([u8; 4], [u8; 4]) -> u32;
    let changes: [Change; 3] = [
        |a, b| u32::from_be_bytes(b).wrapping_sub(u32::from_be_bytes(a)),
        |a, b| u32::from_le_bytes(b).wrapping_sub(u32::from_le_bytes(a)),
        |a, b| u32::from_le_bytes(b) ^ u32::from_le_bytes(a),
    ];
    for change in changes {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for pair in datagrams.windows(2) {
            *counts.entry(change(word(&pair[0]), word(&pair[1]))).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        if most > 2 {
            found.push(format!("bytes {at}..{}: one difference {most} times", at + 4));
        }
    }
}

fn assert_random(datagrams: &[Vec<u8>]) {
    assert!(datagrams.len() >= WANTED, "only {} datagrams", datagrams.len());
    let found = findings(datagrams);
    assert!(found.is_empty(), "{} datagrams:\n{}", datagrams.len(), found.join("\n"));
}

#[test]
fn ten_thousand_datagrams_are_random_bytes() {
    assert_random(&capture(|toml| toml.with("[tuning]\nbundle = false")));
}

#[test]
fn ten_thousand_datagrams_of_the_other_cipher_are_random_bytes() {
    assert_random(&capture(|mut toml| {
        toml.key.push_str("\ncipher = 'aes-256-gcm'");
        toml.with("[tuning]\nbundle = false")
    }));
}

#[test]
fn ten_thousand_datagrams_of_handshake_mode_are_random_bytes() {
    assert_random(&capture(|toml| toml.handshake().with("[tuning]\nbundle = false")));
}

#[test]
fn ten_thousand_segments_of_a_stream_are_random_bytes() {
    assert_random(&capture_stream(|toml| toml));
}

#[test]
fn ten_thousand_segments_of_a_stream_of_handshake_mode_are_random_bytes() {
    assert_random(&capture_stream(Toml::handshake));
}

/// The test above detects a single field that is not random.
#[test]
fn a_constant_a_counter_and_a_repeated_prefix_are_found() {
    let mut dice = Dice(1);
    let clean: Vec<Vec<u8>> = (0..WANTED).map(|_| dice.bytes(100)).collect();
    assert_eq!(findings(&clean), Vec::<String>::new());

    let changed = |change: fn(usize, &mut Vec<u8>)| {
        let mut datagrams = clean.clone();
        datagrams.iter_mut().enumerate().for_each(|(number, datagram)| change(number, datagram));
        !findings(&datagrams).is_empty()
    };
    assert!(changed(|_, datagram| datagram[40] = 7), "a constant");
    assert!(changed(|_, datagram| datagram[99] &= 0x7f), "a bit that is always clear");
    assert!(changed(|n, datagram| datagram[20..24].copy_from_slice(&(n as u32).to_be_bytes())), "a counter");
    assert!(
        changed(|n, datagram| datagram[20..24].copy_from_slice(&(n as u32 ^ 0x1234_5678).to_le_bytes())),
        "a counter under a constant mask"
    );
    assert!(changed(|n, datagram| datagram[50] = n.to_le_bytes()[0]), "the low byte of a counter");
    let mut repeated = clean.clone();
    let prefix = repeated[17][..8].to_vec();
    repeated[9000][..8].copy_from_slice(&prefix);
    assert!(!findings(&repeated).is_empty(), "a repeated prefix");
}
