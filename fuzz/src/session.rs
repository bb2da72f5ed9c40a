//! Two ends with sessions, and a network in the hands of a script: it loses, repeats, changes and invents datagrams,
//! and one end may go mad.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tund::config::{Keepalive, KeyMode};
use tund::core::clock::Now;
use tund::core::inner::InnerPolicy;
use tund::core::lane::{self, Command, Key, Lane, Notice, Sink};
use tund::core::link::{Event, Link};
use tund::core::path::Path;
use tund::core::settings::LinkSettings;
use tund::core::settings::MAX_TEXT;
use tund::crypto::aead::TAG;
use tund::crypto::keys::LinkKeys;
use tund::crypto::noise::Statics;
use tund::crypto::suite::Cipher;
use tund::crypto::{Random, wrap};
use tund::packet::layer::Mode;
use tund::wire::datagram::{Framing, HEADER, Header};

use crate::script::{Script, beginning};

/// Some day in 2026, in microseconds.
const WALL: u64 = 1_790_000_000_000_000;
const MTU: u32 = 1400;
/// Datagrams under way.
const UNDER_WAY: usize = 64;
/// Longest plaintext of a handshake that the target makes.
const LONGEST: usize = 560;

/// The ends, and what happens to what they send.
pub fn session(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> World {
    let mut script = Script(data);
    let mut world = World::new();
    while !script.is_over() {
        let which = usize::from(script.byte() & 1);
        match script.byte() % 10 {
            0 => world.stranger(which, script.counted()),
            1 => world.deliver(script.byte()),
            2 => world.repeat(script.byte()),
            3 => world.change(&mut script),
            4 => world.reflect(script.byte()),
            5 => world.lose(script.byte()),
            6 => world.pass(Duration::from_micros(1 << (script.byte() % 28))),
            7 => world.device(which, &mut script),
            8 => world.mad_peer(which, &mut script),
            _ => world.fate(which, script.byte()),
        }
    }
    world
}

#[derive(Clone)]
struct Flying {
    from: SocketAddr,
    to: usize,
    bytes: Vec<u8>,
}

struct World {
    now: Now,
    starts: u8,
    ends: [End; 2],
    under_way: VecDeque<Flying>,
}

struct End {
    link: Link<Zigzag>,
    lane: Lane,
    out: Out,
    /// What its peer may seal with.
    receive: Vec<Key>,
}

struct Out {
    keys: Arc<LinkKeys>,
    /// Keys to send under, and how often one was made ready.
    own: Vec<Key>,
    nonces: BTreeSet<(usize, u32)>,
    frames: usize,
    sent: Vec<(Vec<u8>, Path)>,
    notices: VecDeque<Notice>,
}

impl Sink for Out {
    fn frame(&mut self, frame: &[u8]) {
        assert!((1..=MTU as usize).contains(&frame.len()));
        self.frames += 1;
    }

    fn datagram(&mut self, datagram: &[u8], to: Path) {
        if !wrap::is_probe(&self.keys, datagram) {
            let nonce = self.nonce(datagram);
            assert!(nonce.is_some(), "what is sent must verify");
            assert!(nonce.is_some_and(|nonce| self.nonces.insert(nonce)), "one nonce for two datagrams");
        }
        self.sent.push((datagram.to_vec(), to));
    }

    fn notice(&mut self, notice: Notice) -> bool {
        let room = self.notices.len() < 64;
        self.notices.extend(room.then_some(notice));
        room
    }
}

impl Out {
    /// Under which key and counter a datagram is sealed.
    fn nonce(&self, datagram: &[u8]) -> Option<(usize, u32)> {
        let mask = self.keys.mask(&Framing::Session.tag(datagram)?);
        let (head, sealed) = datagram.split_first_chunk::<HEADER>()?;
        let mut head = *head;
        head.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        let header = Header::parse(head);
        let opens = |key: &Key| match key {
            Key::Slot { cipher, key, .. } => {
                let opened = key.lane(*cipher, 0).open(header.counter, &header.emit(), &mut sealed.to_vec());
                opened.is_ok()
            }
            Key::KeyId(_) => false,
        };
        Some((self.own.iter().rposition(opens)?, header.counter))
    }
}

/// Draws nothing random, only different things.
struct Zigzag(u64);

impl Random for Zigzag {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

impl World {
    fn new() -> Self {
        let now = Now { instant: beginning(), wall: WALL };
        let ends = [0, 1].map(|which| End::new(which, now, which as u8));
        let mut world = Self { now, starts: 2, ends, under_way: VecDeque::new() };
        world.settle();
        world
    }

    /// Bytes from someone without the key: nothing enters, nothing is answered.
    fn stranger(&mut self, to: usize, bytes: &[u8]) {
        self.without_effect(Flying { from: address(2), to, bytes: bytes.to_vec() });
    }

    fn take(&mut self, number: u8) -> Option<Flying> {
        let count = self.under_way.len().max(1);
        self.under_way.remove(usize::from(number) % count)
    }

    fn deliver(&mut self, number: u8) {
        if let Some(flying) = self.take(number) {
            self.receive(flying);
        }
    }

    /// It arrives and stays under way; from elsewhere, if the number is odd.
    fn repeat(&mut self, number: u8) {
        let Some(flying) = self.take(number / 2) else { return };
        let from = if number & 1 == 0 { flying.from } else { address(3) };
        self.under_way.push_back(flying.clone());
        self.receive(Flying { from, ..flying });
    }

    fn change(&mut self, script: &mut Script<'_>) {
        let (number, at, flip, cut) = (script.byte(), script.number(), script.byte(), script.byte());
        let Some(mut flying) = self.take(number) else { return };
        self.under_way.push_back(flying.clone());
        let before = flying.bytes.clone();
        flying.bytes.truncate(flying.bytes.len() - usize::from(cut & 31).min(flying.bytes.len()));
        let at = usize::from(at) % flying.bytes.len().max(1);
        if let Some(byte) = flying.bytes.get_mut(at) {
            *byte ^= flip;
        }
        if flying.bytes != before {
            self.without_effect(flying);
        }
    }

    fn reflect(&mut self, number: u8) {
        let Some(flying) = self.take(number) else { return };
        self.under_way.push_back(flying.clone());
        let reflected = Flying { from: address(flying.to), to: 1 - flying.to, ..flying };
        // To an end that was restarted, a call of its own from before is one like any other.
        match wrap::is_probe(&self.ends[0].out.keys, &reflected.bytes) {
            true => self.receive(reflected),
            false => self.without_effect(reflected),
        }
    }

    fn without_effect(&mut self, flying: Flying) {
        let to = flying.to;
        let before = (self.ends[to].out.frames, self.under_way.len());
        self.receive(flying);
        let after = (self.ends[to].out.frames, self.under_way.len());
        assert_eq!(after, before, "what the peer did not send had an effect");
    }

    fn lose(&mut self, number: u8) {
        self.take(number);
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time.as_micros() as u64;
        for end in &mut self.ends {
            end.lane.handle_timeout(self.now.instant, &mut end.out);
            end.link.handle_timeout(self.now);
            let report = end.lane.report();
            end.link.handle_report(self.now, &report);
        }
        self.settle();
    }

    fn device(&mut self, which: usize, script: &mut Script<'_>) {
        let frame = vec![7; usize::from(script.number() & 0x7ff)];
        let frames = vec![frame.as_slice(); usize::from(script.byte() & 7)];
        let end = &mut self.ends[which];
        end.lane.handle_frames(&frames, &mut end.out);
        self.settle();
    }

    /// Whatever somebody with all keys can write: a handshake, or a header and a body.
    fn mad_peer(&mut self, to: usize, script: &mut Script<'_>) {
        let (kind, which) = (script.byte(), usize::from(script.byte()));
        let keys = self.ends[to].out.keys.clone();
        let bytes = if kind & 1 == 0 {
            let plaintext = script.counted();
            let plaintext = plaintext.get(..LONGEST).unwrap_or(plaintext);
            wrap::seal(&keys, plaintext, &mut Zigzag(u64::from(script.number())))
        } else {
            let receive = &self.ends[to].receive;
            let Some(Key::Slot { slot, cipher, key, .. }) = receive.get(which % receive.len().max(1)) else {
                return;
            };
            let [_, counter @ ..] = [0, 0, 0, script.byte(), script.byte()];
            let first = slot << 6 | script.byte() & 0x3f;
            let header = Header::parse([first, counter[0], counter[1], counter[2], counter[3]]);
            let mut bytes = [&header.emit()[..], script.counted(), &[0; TAG]].concat();
            let aead = key.lane(*cipher, header.lane);
            assert_eq!(lane::seal(Framing::Session, &keys, &aead, header, &mut bytes), Ok(()));
            bytes
        };
        let (length, before) = (bytes.len(), self.under_way.len());
        self.receive(Flying { from: address(1 - to), to, bytes });
        if kind & 1 == 0 {
            let answers = self.under_way.iter().skip(before);
            let long = answers.filter(|answer| answer.bytes.len() > length && answer.to == 1 - to).count();
            // A retry makes an end call again, with a length of its own.
            assert!(long <= 1, "an answer is never longer than what it answers");
        }
    }

    /// An end is killed and starts again, or learns that it may be a copy.
    fn fate(&mut self, which: usize, choice: u8) {
        if choice & 1 == 0 {
            self.starts = self.starts.wrapping_add(1);
            self.ends[which] = End::new(which, self.now, self.starts);
        } else {
            self.ends[which].link.handle_resumed(self.now);
        }
        self.settle();
    }

    fn receive(&mut self, mut flying: Flying) {
        let end = &mut self.ends[flying.to];
        end.lane.handle_datagram(self.now.instant, flying.from.into(), &mut flying.bytes, &mut end.out);
        self.settle();
    }

    fn settle(&mut self) {
        for which in 0..2 {
            self.ends[which].settle(self.now, address(1 - which));
            for (bytes, path) in std::mem::take(&mut self.ends[which].out.sent) {
                if path.remote == address(1 - which) && self.under_way.len() < UNDER_WAY {
                    self.under_way.push_back(Flying { from: address(which), to: 1 - which, bytes });
                }
            }
        }
    }
}

impl End {
    fn new(which: usize, now: Now, start: u8) -> Self {
        let keys = Arc::new(LinkKeys::new(&[42; 32]));
        let settings = settings(which);
        let lane = Lane::new(lane::Settings {
            keys: keys.clone(),
            framing: Framing::Session,
            cipher: settings.cipher,
            direction: settings.direction,
            lane: 0,
            max_frame: MTU as usize,
            bundle: true,
            copy_dscp: false,
            inner: InnerPolicy::routed(MTU, true, Vec::new()),
        });
        let link = Link::with_handshake(settings, keys.clone(), Statics::None, now, Zigzag(start.into()));
        let (own, sent) = (Vec::new(), Vec::new());
        let out = Out { keys, own, nonces: BTreeSet::new(), frames: 0, sent, notices: VecDeque::new() };
        Self { link, lane, out, receive: Vec::new() }
    }

    /// Carries everything between link and lane until both are quiet.
    fn settle(&mut self, now: Now, peer: SocketAddr) {
        loop {
            if let Some(notice) = self.out.notices.pop_front() {
                self.link.handle_notice(now, notice);
            } else if let Some(command) = self.link.poll_command() {
                match &command {
                    Command::Prepare(_, key) => self.out.own.push(key.clone()),
                    Command::Receive { key, .. } => self.receive.push(key.clone()),
                    _ => {}
                }
                self.lane.handle_command(now.instant, command, &mut self.out);
            } else if let Some(event) = self.link.poll_event() {
                match event {
                    Event::Resolve => self.link.handle_resolved(now, vec![peer]),
                    Event::Endpoint(address) => self.link.handle_route(now, address, Some(1500)),
                    Event::Log { text, .. } | Event::Down { reason: text } => {
                        assert!(text.len() <= MAX_TEXT && !text.contains(char::is_control), "{text:?}");
                    }
                    Event::Up { .. } | Event::Routes(_) => {}
                }
            } else {
                return;
            }
        }
    }
}

fn address(which: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, which as u8 + 1], 1417))
}

fn settings(which: usize) -> LinkSettings {
    let inner = |which| vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, which as u8 + 1))];
    LinkSettings {
        name: "fuzz".into(),
        mode: Mode::Tun,
        key_mode: KeyMode::Handshake,
        suites: vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305],
        mtu: MTU,
        addresses: inner(which),
        peers: inner(1 - which),
        cipher: Cipher::ChaCha20Poly1305,
        direction: which as u8,
        has_remote: which == 1,
        float: true,
        keepalive: Keepalive {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            idle_exit: Duration::from_secs(300),
        },
        bundle: true,
        mss_clamp: true,
        push: Vec::new(),
        sources: None,
        path_mtu: None,
        verb: 3,
        activated: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds that no longer get anywhere would let the target rot unseen.
    #[test]
    fn the_seeds_get_to_where_they_are_meant_to() {
        let up = run(include_bytes!("../corpus/session/frames-both-ways"));
        assert!(up.ends.iter().all(|end| end.link.is_up() && end.out.frames > 0));
        let again = run(include_bytes!("../corpus/session/restarted-ends"));
        assert!(again.ends.iter().all(|end| end.link.is_up()) && again.starts > 3);
        let old = run(include_bytes!("../corpus/session/rekeyed"));
        assert!(old.ends.iter().all(|end| end.link.is_up() && end.receive.len() > 1));
        let mad = run(include_bytes!("../corpus/session/mad-peer"));
        assert!(mad.ends[0].out.frames > 0);
    }
}
