//! Handshakes from someone with the link secret who writes what he likes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tund::core::lane::{Command, Received, SendCommand};
use tund::core::session::Sessions;
use tund::crypto::keys::LinkKeys;
use tund::crypto::noise::Statics;
use tund::crypto::suite::Cipher;
use tund::crypto::{Random, wrap};
use tund::wire::handshake::{Envelope, Offer};

use crate::script::{Script, beginning};

/// Longest plaintext that the target makes.
const LONGEST: usize = 600;

/// A call of this end under way, and a series of plaintexts, each wrapped as it should be.
pub fn handshake(data: &[u8]) {
    let _ = Offer::decode(data);
    if let Ok(envelope) = Envelope::parse(data) {
        let mut again = Vec::new();
        envelope.emit(data.len(), &mut again);
        assert_eq!(again, data, "an envelope has one encoding");
    }
    let keys = Arc::new(LinkKeys::new(&[42; 32]));
    let mut random = Counting(0);
    let mut now = beginning();
    let suites = vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
    let mut sessions = Sessions::new(keys.clone(), Statics::None, suites, now, &mut random);
    let mut out = VecDeque::new();
    let from = SocketAddr::from(([198, 51, 100, 1], 1417));
    sessions.begin(now);
    sessions.call(now, from.into(), &mut random, &mut out);
    let mut script = Script(data);
    while !script.is_over() {
        now += Duration::from_millis(u64::from(script.byte()) * 100);
        let plaintext = script.counted();
        let plaintext = plaintext.get(..LONGEST).unwrap_or(plaintext);
        let datagram = wrap::seal(&keys, plaintext, &mut random);
        let length = datagram.len();
        out.clear();
        let _ =
            sessions.handle_handshake(now, &Received { from: from.into(), datagram }, &mut random, &mut out);
        for command in &out {
            if let Command::Send(SendCommand::Handshake(answer)) = command {
                assert!(answer.datagram.len() <= length.max(600), "an answer is never longer");
            }
        }
        sessions.handle_timeout(now, &mut out);
    }
}

struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}
