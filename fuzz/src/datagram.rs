use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tund::core::clock::Now;
use tund::core::control::Control;
use tund::core::hello;
use tund::core::key_id::KeyId;
use tund::core::lane::{self, Format, Head, Lane, Name};
use tund::core::link::{Event, Link};
use tund::core::settings::LinkSettings;
use tund::core::settings::MAX_TEXT;
use tund::crypto::keys::LinkKeys;
use tund::crypto::noise::Statics;
use tund::crypto::suite::Cipher;
use tund::wire::control::{self, Hello, Message};
use tund::wire::datagram::{Framing, Header, KEY_ID, Kind};
use tund_proto::testing::{self, Dice, Recorder};

use crate::script::{Script, beginning};

/// Some day in 2026, in microseconds.
const WALL: u64 = 1_790_000_000_000_000;
/// Interval at which the peer draws key ids, in microseconds.
const DRAWN: u64 = 10_000_000;
const CIPHER: Cipher = Cipher::ChaCha20Poly1305;
const OWN: u8 = 0;
const MTU: u32 = 1400;
/// Most waiting notices.
const NOTICES: usize = 64;

/// One end, and a network in which a stranger, a recorder and a rogue peer take turns.
pub fn datagram(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> End {
    let mut script = Script(data);
    let mut end = End::new();
    while !script.is_over() {
        let from = SocketAddr::from(([198, 51, 100, 1 + script.byte() % 3], 1417));
        match script.byte() % 8 {
            0 => end.stranger(from, script.counted()),
            1 => end.recorder(from, &mut script),
            2 => end.reflection(from, &mut script),
            3 => end.fitting_hello(from, &mut script),
            4 => end.device(&mut script),
            5 => end.pass(Duration::from_micros(1 << (script.byte() % 28))),
            6 => end.answer(from, &mut script),
            _ => end.mad_peer(from, &mut script),
        }
    }
    end
}

struct End {
    keys: Arc<LinkKeys>,
    lane: Lane,
    link: Link<Dice>,
    now: Now,
    out: Recorder,
    /// Frames delivered.
    frames: usize,
    seen: Seen,
    record: Vec<Vec<u8>>,
}

/// What is known of this end's output.
struct Seen {
    keys: Arc<LinkKeys>,
    count: usize,
    nonces: BTreeSet<([u8; 16], u32)>,
    /// The key id it last sent under.
    own: Option<[u8; KEY_ID]>,
    /// The last challenge it sent.
    challenge: [u8; 16],
    /// The number of its last ping.
    ping: Option<u32>,
}

impl Seen {
    fn look_at(&mut self, datagram: &[u8]) {
        self.count += 1;
        let (key_id, header, body) = open(&self.keys, datagram);
        assert!(self.nonces.insert((key_id.0, header.counter)), "one nonce for two datagrams");
        self.own = Some(key_id.0);
        if header.kind == Kind::Control {
            match control::decode(&body) {
                Ok(Some(Message::Path { challenge })) => self.challenge = challenge,
                Ok(Some(Message::Ping { n, .. })) => self.ping = Some(n),
                sent => assert!(matches!(sent, Ok(Some(_))), "what is sent must be sound"),
            }
        }
    }
}

impl End {
    fn new() -> Self {
        let now = Now { instant: beginning(), wall: WALL };
        let (link, lane) = testing::link(settings(OWN.into()), &[42; 32], Statics::None, now, Dice(0));
        let keys = lane.keys.clone();
        let out = Recorder { room: Some(NOTICES), ..Recorder::default() };
        let nonces = BTreeSet::new();
        let seen = Seen { keys: keys.clone(), count: 0, nonces, own: None, challenge: [0; 16], ping: None };
        let lane = Lane::new(lane);
        let mut end = Self { keys, lane, link, now, out, frames: 0, seen, record: Vec::new() };
        end.settle();
        end
    }

    /// Bytes from someone without the key have no effect and get no answer.
    fn stranger(&mut self, from: SocketAddr, bytes: &[u8]) {
        let before = (self.frames, self.seen.count);
        self.receive(from, &mut bytes.to_vec());
        assert_eq!((self.frames, self.seen.count), before);
    }

    /// Replays an earlier datagram, as it was or with a bit flipped.
    fn recorder(&mut self, from: SocketAddr, script: &mut Script<'_>) {
        let (which, at, flip) = (usize::from(script.byte()), usize::from(script.number()), script.byte());
        let Some(mut bytes) = self.record.get(which).cloned() else { return };
        let at = at % bytes.len();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        if flip == 0 {
            return self.receive(from, &mut bytes);
        }
        let before = (self.frames, self.seen.count);
        self.receive(from, &mut bytes);
        assert_eq!((self.frames, self.seen.count), before, "a forged datagram had an effect");
    }

    /// A datagram sealed with the key of our own direction.
    fn reflection(&mut self, from: SocketAddr, script: &mut Script<'_>) {
        let before = (self.frames, self.seen.count);
        let mut bytes = self.sealed(OWN, script);
        self.receive(from, &mut bytes);
        assert_eq!((self.frames, self.seen.count), before, "a reflected datagram had an effect");
    }

    /// A matching hello, after which frames pass.
    fn fitting_hello(&mut self, from: SocketAddr, script: &mut Script<'_>) {
        let seen = script.byte() & 1 == 1;
        let (key_id, counter) = (self.key_id(script), u32::from(script.number()));
        // Whatever else the link needs to come up, under a key id and counters that the script does not use.
        let other = KeyId::new(&self.keys, key_id.time().wrapping_sub(1), [9; 4]);
        for at in 0..2 {
            self.control_under(from, &Message::Hello(self.hello(seen)), other, at);
        }
        if let Some(n) = self.seen.ping {
            self.control_under(from, &Message::Pong { n, received: 1 }, other, 2);
            self.control_under(from, &Message::Hello(self.hello(true)), other, 3);
        }
        self.control_under(from, &Message::Hello(self.hello(seen)), key_id, counter);
    }

    /// What the peer says of itself and of what this end last sent.
    fn hello(&self, seen: bool) -> Hello {
        let hello = hello::own(&settings(1 - usize::from(OWN)), 1463, seen);
        Hello { heard: self.seen.own, padding: 300, ..hello }
    }

    /// Answers the last challenge.
    fn answer(&mut self, from: SocketAddr, script: &mut Script<'_>) {
        let reply = Message::PathReply { challenge: self.seen.challenge };
        let (key_id, counter) = (self.key_id(script), script.number().into());
        self.control_under(from, &reply, key_id, counter);
    }

    fn control_under(&mut self, from: SocketAddr, message: &Message, key_id: KeyId, counter: u32) {
        let mut body = Vec::new();
        control::encode(message, &mut body);
        let header = Header { slot: 0, kind: Kind::Control, lane: 0, counter };
        let mut bytes = self.seal(1 - OWN, key_id, header, &body);
        self.receive(from, &mut bytes);
    }

    /// A frame from the device.
    fn device(&mut self, script: &mut Script<'_>) {
        let frame = vec![7; usize::from(script.number() & 0x7ff)];
        let frames = vec![frame.as_slice(); usize::from(script.byte() & 7)];
        self.lane.handle_frames(&frames, &mut self.out);
        self.settle();
    }

    /// Any authentic header and body.
    fn mad_peer(&mut self, from: SocketAddr, script: &mut Script<'_>) {
        let mut bytes = self.sealed(1 - OWN, script);
        if self.record.len() < 64 {
            self.record.push(bytes.clone());
        }
        self.receive(from, &mut bytes);
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time.as_micros() as u64;
        self.link.handle_timeout(self.now);
        let report = self.lane.report(self.now.instant);
        self.link.handle_report(self.now, &report);
        self.settle();
    }

    fn receive(&mut self, from: SocketAddr, bytes: &mut [u8]) {
        self.lane.handle_datagram(self.now.instant, from.into(), bytes, &mut self.out);
        self.settle();
    }

    fn sealed(&self, direction: u8, script: &mut Script<'_>) -> Vec<u8> {
        let key_id = self.key_id(script);
        let [high, low] = script.number().to_be_bytes();
        let first = script.byte();
        let counter = if script.byte() == 0xff { [0x20, 0, high, low] } else { [0, 0, high, low] };
        let header = Header::parse([first, counter[0], counter[1], counter[2], counter[3]]);
        self.seal(direction, key_id, header, script.counted())
    }

    /// One of eight key ids of the peer: present, past and future.
    fn key_id(&self, script: &mut Script<'_>) -> KeyId {
        let which = script.byte() & 7;
        let offset = [0, -1, -60, -119, -121, 119, 121, 86_400];
        let offset = offset.get(usize::from(which)).copied().unwrap_or(0);
        let wall = self.now.wall / DRAWN * DRAWN;
        KeyId::new(&self.keys, wall.wrapping_add_signed(offset * 1_000_000), [which; 4])
    }

    fn seal(&self, direction: u8, key_id: KeyId, header: Header, body: &[u8]) -> Vec<u8> {
        let aead = self.keys.static_key(CIPHER, direction, &key_id.0);
        let format = Format::new(Framing::Static, self.keys.clone());
        let sealed = format.datagram(Head { name: Name::KeyId(key_id), header }, &aead, body);
        assert!(sealed.is_ok(), "{sealed:?}");
        sealed.unwrap_or_default()
    }

    /// Exchanges everything between link and lane until both are idle.
    fn settle(&mut self) {
        loop {
            self.out.sent.drain(..).for_each(|(datagram, _)| self.seen.look_at(&datagram));
            for frame in self.out.frames.drain(..) {
                assert!((1..=MTU as usize).contains(&frame.len()));
                self.frames += 1;
            }
            if let Some(notice) = self.out.notices.pop_front() {
                self.link.handle_notice(self.now, notice);
            } else if let Some(command) = self.link.poll_command() {
                self.lane.handle_command(self.now.instant, command, &mut self.out);
            } else if let Some(event) = self.link.poll_event() {
                self.handle_event(event);
            } else {
                return;
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Endpoint(path) => self.link.handle_route(self.now, path.remote, Some(1500)),
            Event::Log { condition, .. } => is_one_line(&condition.to_string()),
            Event::Down { reason } => is_one_line(&reason.to_string()),
            Event::Up { name, .. } => assert!(name.len() <= control::MAX_NAME),
            Event::Keep(_) => unreachable!("that is for OpenVPN's format"),
            Event::Lanes(_) | Event::LaneSocket { .. } => unreachable!("there is one lane"),
            Event::Resolve | Event::Routes(_) | Event::Rerouted { .. } => {}
        }
    }
}

/// Opens what this end sent, as its peer does.
fn open(keys: &LinkKeys, datagram: &[u8]) -> (KeyId, Header, Vec<u8>) {
    let tag = Framing::Static.tag(datagram).unwrap_or_default();
    let (key_id, header) = lane::unmask(&keys.mask(&tag), datagram);
    let range = Framing::Static.body(datagram.len());
    let mut body = datagram.get(range.start..).unwrap_or_default().to_vec();
    let aead = keys.static_key(CIPHER, OWN, &key_id.0);
    let opened = aead.open(header.counter, &header.emit(), &mut body);
    assert!(opened.is_ok(), "what is sent must verify");
    body.truncate(range.len());
    (key_id, header, body)
}

fn is_one_line(text: &str) {
    assert!(text.len() <= MAX_TEXT);
    assert!(!text.contains(char::is_control), "{text:?} would write over the log");
}

fn settings(which: usize) -> LinkSettings {
    LinkSettings { mtu: MTU, cipher: CIPHER, has_remote: false, ..testing::settings(which) }
}

#[cfg(test)]
mod tests {
    use tund::core::stats::DropReason;

    use super::*;

    /// If seeds missed their goal, the target would rot unnoticed.
    #[test]
    fn the_seeds_get_to_where_they_are_meant_to() {
        let frames = run(include_bytes!("../corpus/datagram/hello-and-frames"));
        assert!(frames.link.is_up());
        assert_eq!(frames.frames, 3);
        let unknown = run(include_bytes!("../corpus/datagram/unknown-key-ids"));
        assert!(unknown.seen.count > 0, "this end presents itself");
        assert_eq!((unknown.frames, unknown.count(DropReason::RateLimited)), (0, 1));
        assert!(!run(include_bytes!("../corpus/datagram/bye")).link.is_up());
        assert!(!run(include_bytes!("../corpus/datagram/silence")).link.is_up());
        assert_eq!(run(include_bytes!("../corpus/datagram/stranger")).count(DropReason::Stranger), 1);
        let replayed = run(include_bytes!("../corpus/datagram/replayed"));
        assert_eq!((replayed.frames, replayed.count(DropReason::Replayed)), (1, 1));
        assert_eq!(run(include_bytes!("../corpus/datagram/reflected")).frames, 0);
    }

    impl End {
        fn count(&self, reason: DropReason) -> u64 {
            self.lane.stats().plus(&self.link.stats()).drops(reason)
        }
    }
}
