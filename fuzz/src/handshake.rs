//! Handshakes from an attacker who has the link secret.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tund::core::lane::{Command, Received, SendCommand};
use tund::core::session::Sessions;
use tund::crypto::exchange::Pattern;
use tund::crypto::keys::LinkKeys;
use tund::crypto::noise::Statics;
use tund::crypto::suite::{Cipher, Exchange};
use tund::crypto::wrap;
use tund::wire::handshake::{Envelope, Offer};
use tund_proto::testing::Dice;

use crate::script::{Script, beginning};

/// An end with a call pending receives a series of correctly wrapped plaintexts. An empty one stands for any message of
/// a genuine peer, in any order and number.
pub fn handshake(data: &[u8]) {
    let _ = Offer::decode(data);
    if let Ok(envelope) = Envelope::parse(data) {
        let mut again = Vec::new();
        envelope.emit(data.len(), &mut again);
        assert_eq!(again, data, "an envelope has one encoding");
    }
    for exchange in [Exchange::X25519, Exchange::Hybrid] {
        series(exchange, data);
    }
}

fn series(exchange: Exchange, data: &[u8]) {
    let keys = Arc::new(LinkKeys::new(&[42; 32]));
    let mut random = Dice(0);
    let mut now = beginning();
    let suites = vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
    let pattern = Pattern { statics: Statics::None, exchange };
    let mut sessions = Sessions::new(keys.clone(), pattern, suites, now, &mut random);
    let mut out = VecDeque::new();
    let from = SocketAddr::from(([198, 51, 100, 1], 1417));
    sessions.begin(now);
    for room in [usize::MAX, 1000] {
        sessions.call(now, from.into(), room, &mut random, &mut out);
    }
    let genuine = genuine(&keys, exchange, now, &sent(&out));
    let mut script = Script(data);
    while !script.is_over() {
        now += Duration::from_millis(u64::from(script.byte()) * 100);
        let plaintext = script.counted();
        let datagram = match plaintext {
            [] => genuine[usize::from(script.byte()) % genuine.len()].clone(),
            plaintext => wrap::seal(&keys, plaintext, &mut random),
        };
        let length = datagram.len();
        out.clear();
        let _ =
            sessions.handle_handshake(now, &Received { from: from.into(), datagram }, &mut random, &mut out);
        assert!(sent(&out).iter().all(|answer| answer.len() <= length.max(488)), "an answer is never longer");
        sessions.handle_timeout(now, &mut out);
    }
}

fn sent(out: &VecDeque<Command>) -> Vec<Vec<u8>> {
    let sent = out.iter().filter_map(|command| match command {
        Command::Send(SendCommand::Handshake(sent)) => Some(sent.datagram.clone()),
        _ => None,
    });
    sent.collect()
}

/// A genuine peer's messages: its calls whole and in parts, and its answers to `calls`.
fn genuine(keys: &Arc<LinkKeys>, exchange: Exchange, now: Instant, calls: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut random = Dice(7);
    let pattern = Pattern { statics: Statics::None, exchange };
    let mut peer = Sessions::new(keys.clone(), pattern, vec![Cipher::Aes256Gcm], now, &mut random);
    let (mut out, to) = (VecDeque::new(), SocketAddr::from(([198, 51, 100, 2], 1417)));
    peer.begin(now);
    for room in [1000, usize::MAX, 1000] {
        peer.call(now, to.into(), room, &mut random, &mut out);
    }
    for call in calls {
        let received = Received { from: to.into(), datagram: call.clone() };
        let _ = peer.handle_handshake(now, &received, &mut random, &mut out);
    }
    sent(&out)
}
