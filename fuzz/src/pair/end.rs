//! One end: a link with its lane, and what an observer knows of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tund::config::KeyMode;
use tund::core::clock::{ClockJumpDetector, Now};
use tund::core::control::Control;
use tund::core::lane::{self, Command, Key, Lane, Notice, ReceiveCommand, SendCommand};
use tund::core::link::{Event, Link};
use tund::core::settings::{LinkSettings, MAX_TEXT};
use tund::crypto::aead::Aead;
use tund::crypto::keys::LinkKeys;
use tund::crypto::noise::Statics;
use tund::crypto::suite::Cipher;
use tund::crypto::wrap;
use tund::wire::control::MAX_NAME;
use tund::wire::datagram::{Framing, Header};
use tund_proto::testing::{self, Dice, Recorder};

use super::{MTU, network};

pub(super) const CIPHER: Cipher = Cipher::ChaCha20Poly1305;
/// Most waiting notices. Notices not from the peer must leave room, so there is plenty.
const NOTICES: usize = 64;
/// Most log lines that the network can provoke in a minute.
const LINES: usize = 40;

pub(super) struct End {
    pub(super) link: Link<Dice>,
    pub(super) lane: Lane,
    pub(super) out: Recorder,
    pub(super) seen: Seen,
    /// The keys its peer may seal with.
    pub(super) receive: Vec<Key>,
    /// Whether a key was taken since this was last false.
    pub(super) taken: bool,
    pub(super) address: SocketAddr,
    /// How far its clock is ahead, in microseconds.
    pub(super) skew: i64,
    /// Frames delivered to its device.
    pub(super) delivered: usize,
    watch: ClockJumpDetector,
    reported_at: Instant,
}

/// The keys that all processes of an end used, and its log.
pub(super) struct Seen {
    pub(super) keys: Arc<LinkKeys>,
    pub(super) own: Vec<Key>,
    pub(super) log: Log,
    framing: Framing,
    direction: u8,
    aeads: Vec<Aead>,
    nonces: HashSet<(usize, u32)>,
}

impl Seen {
    /// Checks that a sent datagram verifies, and that its nonce is new.
    pub(super) fn look_at(&mut self, datagram: &[u8]) {
        if self.framing == Framing::Static || !wrap::is_probe(&self.keys, datagram) {
            let nonce = self.nonce(datagram);
            assert!(nonce.is_some(), "what is sent must verify");
            assert!(nonce.is_some_and(|nonce| self.nonces.insert(nonce)), "one nonce for two datagrams");
        }
    }

    fn prepare(&mut self, key: &Key) {
        self.aeads.push(match key {
            Key::KeyId(key_id) => self.keys.static_key(CIPHER, self.direction, &key_id.0),
            Key::Slot { cipher, key, .. } => key.lane(*cipher, 0),
        });
        self.own.push(key.clone());
    }

    /// The key and counter that seal a datagram.
    fn nonce(&self, datagram: &[u8]) -> Option<(usize, u32)> {
        let mask = self.keys.mask(&self.framing.tag(datagram)?);
        let (prefix, sealed) = datagram.split_at_checked(self.framing.prefix())?;
        let prefix: Vec<_> = prefix.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        let (key_id, header) = prefix.split_last_chunk()?;
        let header = Header::parse(*header);
        let opens = |aead: &Aead| aead.open(header.counter, &header.emit(), &mut sealed.to_vec()).is_ok();
        let is_named = |key: &Key| match key {
            Key::KeyId(one) => one.0 == key_id,
            Key::Slot { .. } => key_id.is_empty(),
        };
        let index = self.own.iter().zip(&self.aeads).rposition(|(key, aead)| is_named(key) && opens(aead))?;
        Some((index, header.counter))
    }
}

/// The log of the current minute.
pub(super) struct Log {
    since: Instant,
    lines: usize,
}

impl Log {
    pub(super) fn renew(&mut self, now: Instant) {
        if now >= self.since + Duration::from_secs(60) {
            (self.since, self.lines) = (now, 0);
        }
    }

    pub(super) fn check(&self, text: &str) {
        assert!(text.len() <= MAX_TEXT && !text.contains(char::is_control), "{text:?}");
    }

    fn line(&mut self, text: &str) {
        self.check(text);
        self.lines += 1;
        assert!(self.lines <= LINES, "{} lines in a minute, the last: {text}", self.lines);
    }
}

impl End {
    pub(super) fn new(mode: KeyMode, which: usize, now: Now, start: u64) -> Self {
        let (link, lane) = testing::link(settings(mode, which), &[42; 32], Statics::None, now, Dice(start));
        let seen = Seen {
            keys: lane.keys.clone(),
            own: Vec::new(),
            log: Log { since: now.instant, lines: 0 },
            framing: lane.framing,
            direction: lane.direction,
            aeads: Vec::new(),
            nonces: HashSet::new(),
        };
        Self {
            link,
            lane: Lane::new(lane),
            out: Recorder { room: Some(NOTICES), ..Recorder::default() },
            seen,
            receive: Vec::new(),
            taken: false,
            address: network::address(which),
            skew: 0,
            delivered: 0,
            watch: ClockJumpDetector::default(),
            reported_at: now.instant,
        }
    }

    /// Starts another process, without state. Its nonces must differ from all earlier ones.
    pub(super) fn restart(&mut self, mode: KeyMode, which: usize, now: Now, start: u64) {
        let mut new = Self::new(mode, which, self.now(now), start);
        new.seen.own = std::mem::take(&mut self.seen.own);
        new.seen.aeads = std::mem::take(&mut self.seen.aeads);
        new.seen.nonces = std::mem::take(&mut self.seen.nonces);
        (new.address, new.skew, new.delivered) = (self.address, self.skew, self.delivered);
        *self = new;
    }

    /// The time by this end's clock.
    pub(super) fn now(&self, now: Now) -> Now {
        Now { wall: now.wall.saturating_add_signed(self.skew), ..now }
    }

    /// As the daemon's workers do first.
    pub(super) fn look_at_clocks(&mut self, now: Now) {
        let now = self.now(now);
        if self.watch.has_jumped(now) {
            self.lane.wipe_all(&mut self.out);
            self.receive.clear();
            self.out.notices.push_back(Notice::Resumed);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.look_at_clocks(now);
        let now = self.now(now);
        self.link.handle_timeout(now);
        if now.instant >= self.reported_at + Duration::from_secs(1) {
            self.reported_at = now.instant;
            let report = self.lane.report(now.instant);
            self.link.handle_report(now, &report);
        }
    }

    /// Whether a datagram is under a key in use here.
    pub(super) fn opens(&self, datagram: &[u8]) -> bool {
        let framing = self.seen.framing;
        let Some(tag) = framing.tag(datagram) else { return false };
        if framing == Framing::Session {
            return !wrap::is_probe(&self.seen.keys, datagram);
        }
        let (key_id, _) = lane::unmask(&self.seen.keys.mask(&tag), datagram);
        self.receive.contains(&Key::KeyId(key_id))
    }

    /// Exchanges everything between link and lane until both are idle.
    pub(super) fn settle(&mut self, now: Now, peer: SocketAddr) {
        let now = self.now(now);
        loop {
            if let Some(notice) = self.out.notices.pop_front() {
                self.link.handle_notice(now, notice);
            } else if let Some(command) = self.link.poll_command() {
                self.note(&command);
                self.lane.handle_command(now.instant, command, &mut self.out);
            } else if let Some(event) = self.link.poll_event() {
                match event {
                    Event::Resolve => self.link.handle_resolved(now, &[peer.into()]),
                    Event::Endpoint(path) => self.link.handle_route(now, path.remote, Some(1500)),
                    Event::Log { condition, .. } => self.seen.log.line(&condition.to_string()),
                    Event::Down { reason } => self.seen.log.check(&reason.to_string()),
                    Event::Up { name, .. } => assert!(name.len() <= MAX_NAME),
                    Event::Routes(routes) => assert!(routes.is_empty(), "nobody offers any"),
                    Event::Rerouted { .. } => {}
                    Event::Lanes(_) | Event::LaneSocket { .. } => unreachable!("there is one lane"),
                    Event::Keep(_) => unreachable!("that is for OpenVPN's format"),
                }
            } else {
                return;
            }
        }
    }

    fn note(&mut self, command: &Command) {
        match command {
            Command::Send(SendCommand::Prepare(_, key)) => self.seen.prepare(key),
            Command::Send(_) => {}
            Command::Receive(ReceiveCommand::Accept { key, .. }) => {
                self.receive.push(key.clone());
                self.taken = true;
            }
            Command::Receive(ReceiveCommand::Forget(name)) => self.receive.retain(|key| key.name() != *name),
            Command::Receive(ReceiveCommand::WipeAll) => self.receive.clear(),
            Command::Receive(
                ReceiveCommand::Endpoint(_)
                | ReceiveCommand::Agreed(_)
                | ReceiveCommand::Hold(_)
                | ReceiveCommand::Probe(..)
                | ReceiveCommand::Sources(_)
                | ReceiveCommand::Again(_),
            ) => {}
        }
    }
}

pub(super) fn settings(mode: KeyMode, which: usize) -> LinkSettings {
    LinkSettings { key_mode: mode, mtu: MTU, cipher: CIPHER, ..testing::settings(which) }
}
