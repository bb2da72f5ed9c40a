//! The reference model: what was sent, under which key, and so what may come out. It has the keys of both ends, reads
//! every datagram, and concludes from that alone.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::end::Config;
use super::plan::Class;
use crate::core::hello;
use crate::core::key_id::KeyId;
use crate::core::lane::{Key, unmask};
use crate::core::limits::{KEY_ID_END, SESSION_END};
use crate::crypto::aead::Aead;
use crate::crypto::keys::LinkKeys;
use crate::crypto::wrap;
use crate::wire::control::{self, Message};
use crate::wire::datagram::{Framing, HEADER, Header, Kind};
use crate::wire::handshake::{self, Envelope};

/// Shortest frame: number and one byte.
pub const SHORTEST: usize = 9;
/// Own keys kept to read what was sent.
const OWN: usize = 64;

/// A key, numbered by first appearance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyNumber(usize);

impl std::fmt::Display for KeyNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {}", self.0)
    }
}

/// A datagram decoded with the keys.
pub enum Read {
    Handshake(Option<handshake::Kind>, String),
    Data { key: KeyNumber, header: Header, body: Vec<u8> },
}

impl Read {
    pub fn class(&self) -> Option<Class> {
        match self {
            Read::Handshake(kind, _) => kind.map(|kind| match kind {
                handshake::Kind::Initiation => Class::Initiation,
                handshake::Kind::Answer => Class::Answer,
                handshake::Kind::Retry => Class::Retry,
            }),
            Read::Data { header, .. } => match header.kind {
                Kind::Frame | Kind::Block => Some(Class::Frames),
                Kind::Control => Some(Class::Control),
                Kind::Reserved => None,
            },
        }
    }
}

struct Frame {
    from: usize,
    length: usize,
    sent: Duration,
    /// `None`: no datagram that carries it was sent.
    key: Option<KeyNumber>,
    arrived: bool,
}

/// A key that an end accepts.
struct Receive {
    key: KeyNumber,
    since: Duration,
    /// When it surely expires.
    until: Option<Duration>,
}

/// What is known of one end since its start.
#[derive(Default)]
struct Side {
    own: VecDeque<(KeyNumber, Name, Aead)>,
    receives: Vec<Receive>,
    /// Until when its device may receive frames: a matching hello came since the link was last down.
    fits: Duration,
    /// Keys that were not live when a matching hello came under them.
    fitting: BTreeSet<KeyNumber>,
    up_since: Option<Duration>,
    endpoint: Option<SocketAddr>,
    /// When the keys so far, by count, become a copy's alone.
    copied: Option<(Duration, usize)>,
    heard: (u64, Duration),
    /// Tags of accepted datagrams.
    taken: BTreeSet<[u8; 16]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    KeyId(KeyId),
    Slot(u8),
}

pub struct Model {
    configs: [Config; 2],
    link: LinkKeys,
    keys: Vec<(usize, Key)>,
    frames: Vec<Frame>,
    nonces: BTreeSet<(KeyNumber, u32)>,
    sides: [Side; 2],
}

type Verdict = Result<(), String>;

impl Model {
    pub fn new(configs: [Config; 2]) -> Self {
        Self {
            link: LinkKeys::new(&configs[0].secret),
            configs,
            keys: Vec::new(),
            frames: Vec::new(),
            nonces: BTreeSet::new(),
            sides: Default::default(),
        }
    }

    /// An end starts without any state, and without a peer. What its former process sent may still arrive.
    pub fn started(&mut self, which: usize, now: Duration) {
        let own = std::mem::take(&mut self.sides[which].own);
        self.sides[which] = Side { own, heard: (0, now), ..Side::default() };
    }

    /// Makes a new frame for an end's device.
    pub fn frame(&mut self, from: usize, length: usize, now: Duration) -> Vec<u8> {
        let id = self.frames.len();
        self.frames.push(Frame { from, length, sent: now, key: None, arrived: false });
        contents(id, from, length)
    }

    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    pub fn arrived(&self, id: usize) -> bool {
        self.frames[id].arrived
    }

    pub fn describe(&self, id: usize) -> String {
        let Frame { from, length, sent, .. } = &self.frames[id];
        format!("frame {id} of {length} bytes that end {from} sent at {sent:.3?}")
    }

    pub fn prepared(&mut self, which: usize, key: &Key) -> KeyNumber {
        let id = self.id(which, key);
        let config = &self.configs[which];
        let (name, aead) = match key {
            Key::KeyId(key_id) => {
                let settings = &config.settings;
                let aead = self.link.static_key(settings.cipher, settings.direction, &key_id.0);
                (Name::KeyId(*key_id), aead)
            }
            Key::Slot { slot, cipher, key, .. } => (Name::Slot(*slot), key.lane(*cipher, 0)),
        };
        let own = &mut self.sides[which].own;
        own.push_front((id, name, aead));
        own.truncate(OWN);
        id
    }

    pub fn receives(&mut self, which: usize, key: &Key, now: Duration) -> KeyNumber {
        let id = self.id(1 - which, key);
        let pace = self.configs[which].pace * 2;
        let Side { receives, fits, fitting, heard, .. } = &mut self.sides[which];
        // A key id is taken for a hello, which is heard.
        if matches!(key, Key::KeyId(_)) {
            *fits = if fitting.contains(&id) { Duration::MAX } else { *fits };
            heard.1 = now;
        }
        let life = match key {
            Key::KeyId(_) => KEY_ID_END + pace,
            Key::Slot { .. } => SESSION_END,
        };
        receives.retain(|receive| receive.key != id);
        receives.push(Receive { key: id, since: now, until: Some(now + life) });
        id
    }

    /// An end sends: under its own key, which nobody else can have, and each counter once.
    pub fn sent(
        &mut self,
        which: usize,
        now: Duration,
        bytes: &[u8],
        batch: &[usize],
    ) -> Result<Read, String> {
        let Some(read) = self.read(which, bytes) else {
            return Err(format!("end {which} sent {} bytes that its peer cannot read", bytes.len()));
        };
        let Read::Data { key, header, body } = &read else { return Ok(read) };
        if !self.nonces.insert((*key, header.counter)) {
            return Err(format!("nonce: end {which} used counter {} twice under {key}", header.counter));
        }
        if self.sides[which].copied.is_some_and(|(at, keys)| now > at && key.0 < keys) {
            return Err(format!("copy: end {which} sent under {key}, which a copy of it has too"));
        }
        match header.kind {
            Kind::Frame => {
                let id = number(body).filter(|id| batch.contains(id));
                let id =
                    id.ok_or_else(|| format!("end {which} sent a frame that its device did not yield"))?;
                self.frames[id].key = Some(*key);
            }
            Kind::Block => batch.iter().for_each(|id| self.frames[*id].key = Some(*key)),
            Kind::Control => {}
            Kind::Reserved => return Err(format!("end {which} sent a datagram of the reserved kind")),
        }
        Ok(read)
    }

    /// An end's device receives a frame.
    pub fn delivered(&mut self, which: usize, now: Duration, bytes: &[u8]) -> Verdict {
        let id = number(bytes).filter(|id| *id < self.frames.len());
        let id = id.filter(|id| bytes == contents(*id, self.frames[*id].from, self.frames[*id].length));
        let Some(id) = id else {
            return Err(format!("forged: end {which} delivered {} bytes that nobody sent", bytes.len()));
        };
        let what = self.describe(id);
        let frame = &mut self.frames[id];
        if frame.from == which {
            return Err(format!("reflected: end {which} delivered its own {what}"));
        }
        if std::mem::replace(&mut frame.arrived, true) {
            return Err(format!("twice: end {which} delivered {what} a second time"));
        }
        let Some(key) = frame.key else {
            return Err(format!("end {which} delivered {what}, which was never on the wire"));
        };
        let side = &self.sides[which];
        if now > side.fits {
            return Err(format!("hello: end {which} delivered {what} before a hello fitted"));
        }
        let live = side.receives.iter().find(|receive| receive.key == key);
        match live {
            None => Err(format!("key: end {which} delivered {what} under {key}, which it does not have")),
            Some(Receive { until, since, .. }) if until.is_some_and(|until| now > until) => {
                Err(format!("key: end {which} delivered {what} under {key} of {since:.1?}, which ended"))
            }
            Some(_) => Ok(()),
        }
    }

    /// An end verified a control message.
    pub fn controlled(&mut self, which: usize, now: Duration, body: &[u8]) {
        if let Ok(Some(Message::Hello(peer))) = control::decode(body) {
            let fits = hello::mismatch(&self.configs[which].settings, &peer).is_none();
            self.sides[which].fits = if fits { Duration::MAX } else { self.closes(which, now) };
        }
    }

    /// When an end's lane at the latest learns that its device must not receive any more frames.
    fn closes(&self, which: usize, now: Duration) -> Duration {
        self.sides[which].fits.min(now + self.configs[which].pace)
    }

    /// An end examines a datagram whose key id is not live.
    pub fn unknown(&mut self, which: usize, bytes: &[u8]) {
        let Some(Read::Data { key, header, body }) = self.read(1 - which, bytes) else { return };
        if header.kind == Kind::Control
            && let Ok(Some(Message::Hello(peer))) = control::decode(&body)
            && hello::mismatch(&self.configs[which].settings, &peer).is_none()
        {
            self.sides[which].fitting.insert(key);
        }
    }

    pub fn up(&mut self, which: usize, now: Duration) {
        self.sides[which].up_since = Some(now);
    }

    /// The link goes down. In handshake mode only keys taken since the end last heard of the peer survive that: the
    /// peer's next start may use them.
    pub fn down(&mut self, which: usize, now: Duration) {
        let at = now + self.configs[which].pace;
        let closes = self.closes(which, now);
        let side = &mut self.sides[which];
        (side.up_since, side.fits) = (None, closes);
        if self.configs[which].framing() == Framing::Session {
            let heard = side.heard.1;
            let known = side.receives.iter_mut().filter(|receive| receive.since <= heard);
            known.for_each(|receive| receive.until = receive.until.min(Some(at)));
        }
    }

    /// An end learns that a copy of it may be running.
    pub fn copied(&mut self, which: usize, now: Duration) {
        let at = now + self.configs[which].pace;
        let side = &mut self.sides[which];
        side.copied = Some((at, self.keys.len()));
        for receive in &mut side.receives {
            receive.until = Some(receive.until.map_or(at, |until| until.min(at)));
        }
    }

    /// An end changes its peer's address. While the link is up it must be one of the peer's, unless a faster stranger
    /// brought the link up: then it may stay for a while.
    pub fn endpoint(&mut self, which: usize, now: Duration, to: SocketAddr, is_peers: bool) -> Verdict {
        let pace = self.configs[which].pace;
        let side = &mut self.sides[which];
        let news = side.endpoint.replace(to) != Some(to);
        if news && !is_peers && side.up_since.is_some_and(|since| now > since + pace * 2) {
            return Err(format!("moved: the link of end {which} was taken to a stranger"));
        }
        Ok(())
    }

    /// A link that hears nothing goes down in time.
    pub fn liveness(&mut self, which: usize, now: Duration, heard: u64, up: bool) -> Verdict {
        let config = &self.configs[which];
        let slack = Duration::from_millis(2500) + config.pace * 2;
        let side = &mut self.sides[which];
        if side.heard.0 != heard || !up {
            side.heard = (heard, now);
        }
        if now > side.heard.1 + config.settings.keepalive.timeout + slack {
            return Err(format!("silence: end {which} heard nothing since {:.1?} and is up", side.heard.1));
        }
        Ok(())
    }

    /// A datagram had an effect. Returns whether it had one here before.
    pub fn take(&mut self, which: usize, bytes: &[u8]) -> bool {
        let tag = bytes.last_chunk().copied().unwrap_or_default();
        !self.sides[which].taken.insert(tag)
    }

    pub fn is_taken(&self, which: usize, bytes: &[u8]) -> bool {
        let tag = bytes.last_chunk().copied().unwrap_or_default();
        self.sides[which].taken.contains(&tag)
    }

    pub fn is_handshake(&self, bytes: &[u8]) -> bool {
        wrap::is_probe(&self.link, bytes)
    }

    fn id(&mut self, sender: usize, key: &Key) -> KeyNumber {
        let same = |(of, known): &(usize, Key)| match (known, key) {
            (Key::KeyId(a), Key::KeyId(b)) => *of == sender && a == b,
            (Key::Slot { key: a, cipher: c, .. }, Key::Slot { key: b, cipher: d, .. }) => a == b && c == d,
            (Key::KeyId(_), Key::Slot { .. }) | (Key::Slot { .. }, Key::KeyId(_)) => false,
        };
        let known = self.keys.iter().rposition(same);
        KeyNumber(known.unwrap_or_else(|| {
            self.keys.push((sender, key.clone()));
            self.keys.len() - 1
        }))
    }

    fn read(&self, which: usize, bytes: &[u8]) -> Option<Read> {
        if self.configs[which].framing() == Framing::Session && self.is_handshake(bytes) {
            let plaintext = wrap::open(&self.link, bytes)?;
            let envelope = Envelope::parse(&plaintext).ok();
            let text = envelope
                .as_ref()
                .map(|envelope| format!("{:?} {} part {}", envelope.of.kind, envelope.seq, envelope.of.part));
            let kind = envelope.map(|envelope| envelope.of.kind);
            return Some(Read::Handshake(kind, text.unwrap_or_else(|| "sign".into())));
        }
        let framing = self.configs[which].framing();
        let mask = self.link.mask(&framing.tag(bytes)?);
        let (name, header) = match framing {
            Framing::Static => {
                let (key_id, header) = unmask(&mask, bytes);
                (Name::KeyId(key_id), header)
            }
            Framing::Session => {
                let header: [u8; HEADER] = std::array::from_fn(|at| bytes[at] ^ mask[at]);
                let header = Header::parse(header);
                (Name::Slot(header.slot), header)
            }
        };
        for (key, of, aead) in &self.sides[which].own {
            let mut body = bytes[framing.prefix()..].to_vec();
            if *of == name && aead.open(header.counter, &header.emit(), &mut body).is_ok() {
                body.truncate(framing.body(bytes.len()).len());
                return Some(Read::Data { key: *key, header, body });
            }
        }
        None
    }
}

/// Contents of a frame: neither IPv4 nor IPv6, its number, and bytes unique at each place.
fn contents(id: usize, from: usize, length: usize) -> Vec<u8> {
    let mut bytes = (id as u64).to_be_bytes().to_vec();
    bytes[0] = 0xe0 | from as u8;
    bytes.extend((SHORTEST - 1..length).map(|at| (id * 31 + at * 7) as u8));
    bytes
}

fn number(bytes: &[u8]) -> Option<usize> {
    let number = u64::from_be_bytes(*bytes.first_chunk()?);
    (bytes.len() >= SHORTEST).then_some((number & 0x00ff_ffff_ffff_ffff) as usize)
}

impl std::fmt::Display for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Read::Handshake(_, text) => f.write_str(text),
            Read::Data { key, header, body } => {
                write!(f, "{key} #{} ", header.counter)?;
                match (header.kind, number(body)) {
                    (Kind::Frame, Some(id)) => write!(f, "frame {id}"),
                    (Kind::Control, _) => match control::decode(body) {
                        Ok(Some(Message::Hello(hello))) => write!(f, "hello, seen: {}", hello.seen),
                        Ok(Some(message)) => {
                            let text = format!("{message:?}");
                            f.write_str(text.split([' ', '{']).next().unwrap_or_default())
                        }
                        other => write!(f, "{other:?}"),
                    },
                    (kind, _) => write!(f, "{kind:?} of {} bytes", body.len()),
                }
            }
        }
    }
}
