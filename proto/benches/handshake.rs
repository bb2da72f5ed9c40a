//! What a handshake costs: processor time of both ends together, and bytes.
//!
//! ```text
//! cargo bench --bench handshake
//! ```
//!
//! The sessions of two ends run each as on a quiet link: an initiation, its answer, and the new session's keys at both.
//! No network is involved. The variants alternate, so that load on the machine affects all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something is wrong")]
#![allow(clippy::print_stdout, reason = "a program that talks to a person")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tund_proto::core::lane::{Command, Received, SendCommand};
use tund_proto::core::session::{Outcome, Sessions};
use tund_proto::crypto::exchange::Pattern;
use tund_proto::crypto::keys::{LinkKeys, Private, public_of};
use tund_proto::crypto::noise::Statics;
use tund_proto::crypto::suite::{Cipher, Exchange};
use tund_proto::testing::Dice;

const ROUNDS: usize = 1000;

fn main() {
    let ways = [
        ("shared secret, X25519", Exchange::X25519, false),
        ("shared secret, X25519 + ML-KEM-768", Exchange::Hybrid, false),
        ("key pairs, X25519", Exchange::X25519, true),
        ("key pairs, X25519 + ML-KEM-768", Exchange::Hybrid, true),
    ];
    let mut random = Dice(1);
    let mut times = ways.map(|_| Vec::with_capacity(ROUNDS));
    let mut bytes = ways.map(|_| [0; 2]);
    for _ in 0..ROUNDS {
        for (at, (_, exchange, pairs)) in ways.iter().enumerate() {
            let (time, sent) = handshake(*exchange, *pairs, &mut random);
            times[at].push(time);
            (0..2).for_each(|which| bytes[at][which] += sent[which]);
        }
    }
    println!("{:<38}{:>10}{:>10}{:>12}{:>9}", "", "median µs", "best µs", "initiation", "answer");
    for (at, (name, ..)) in ways.iter().enumerate() {
        times[at].sort();
        let [median, best] = [ROUNDS / 2, 0].map(|place| times[at][place].as_nanos() as f64 / 1e3);
        let [initiation, answer] = bytes[at].map(|sum| sum / ROUNDS);
        println!("{name:<38}{median:>10.1}{best:>10.1}{initiation:>12}{answer:>9}");
    }
}

/// Returns the time, and the lengths of initiation and answer.
fn handshake(exchange: Exchange, pairs: bool, random: &mut Dice) -> (Duration, [usize; 2]) {
    let (now, keys) = (Instant::now(), Arc::new(LinkKeys::new(&[42; 32])));
    let to: SocketAddr = ([192, 0, 2, 1], 1417).into();
    let mut ends = [[5; 32], [6; 32]].map(|private| {
        let statics = match pairs {
            true => Statics::Pair {
                private: Private::new(private).into(),
                peer_public: public_of(&[11 - private[0]; 32]),
            },
            false => Statics::None,
        };
        let mut end =
            Sessions::new(keys.clone(), Pattern { statics, exchange }, vec![Cipher::Aes256Gcm], now, random);
        end.begin(now);
        end
    });
    let [fri, mon] = &mut ends;
    let mut out = VecDeque::new();
    let begun = Instant::now();
    fri.call(now, to.into(), usize::MAX, random, &mut out);
    let initiation = sent(&mut out);
    let lengths = initiation.len();
    let received = Received { from: to.into(), datagram: initiation };
    mon.handle_handshake(now, &received, random, &mut out).expect("an initiation");
    let answer = sent(&mut out);
    let lengths = [lengths, answer.len()];
    let received = Received { from: to.into(), datagram: answer };
    let outcome = fri.handle_handshake(now, &received, random, &mut out);
    let time = begun.elapsed();
    assert!(matches!(outcome, Ok(Outcome::Begun { .. })), "{outcome:?}");
    (time, lengths)
}

/// Returns the datagram to send.
fn sent(out: &mut VecDeque<Command>) -> Vec<u8> {
    let of = |command| match command {
        Command::Send(SendCommand::Handshake(sent)) => Some(sent.datagram),
        _ => None,
    };
    out.drain(..).find_map(of).expect("a datagram")
}
