//! Sessions of handshake mode (PROTOCOL.md §3): who may begin one, which are live, and which carries frames.

mod answering;
mod callers;
mod calling;
mod parts;
pub mod tokens;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{Command, KeySlot, Name, ReceiveCommand, Received, SendCommand};
use super::limits::{SESSION_END, SESSION_OVERLAP, SESSION_REKEY, SESSION_RESPONDER, SLOTS};
use super::path::Path;
use super::stats::DropReason;
use crate::crypto::exchange::{Initiator, Pattern};
use crate::crypto::keys::LinkKeys;
use crate::crypto::suite::{Cipher, Exchange};
use crate::crypto::{Random, wrap};
use crate::wire::handshake::{Envelope, Kind, Type, parts};

use callers::Callers;
use parts::Parts;
use tokens::Tokens;

/// Most live sessions; one less while this end calls.
const LIVE: usize = SLOTS as usize - 1;

/// Drawn by each process that calls.
pub type Instance = [u8; 8];
/// Issued by a retry and returned by the next call.
pub type Token = [u8; 16];

/// The effect of a handshake datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing the link must know.
    Nothing,
    /// A call was answered.
    Answered {
        /// The caller's instance.
        caller: Instance,
    },
    /// The peer is there but busy: send the next initiation now, to the same address.
    Retry {
        /// Destination of the initiation.
        called: Path,
    },
    /// This end began a session: the peer waits for its first message.
    Begun {
        /// Destination of the initiation.
        called: Path,
    },
    /// The ends have no cipher in common.
    NoCipher,
    /// A holder of the key uses the other key exchange.
    OtherExchange {
        /// The peer's.
        theirs: Exchange,
        /// It was a call rather than a sign: if this end has no address of it, it shows its own.
        calls: bool,
    },
}

/// A call in progress, to one or more addresses. It keeps the states of the last few initiations to each, so that late
/// answers count.
#[cfg_attr(test, derive(Clone))]
struct Call {
    /// From the first initiation on.
    slot: Option<u8>,
    attempts: VecDeque<Attempt>,
    /// The address whose retry gave it, and the token.
    token: Option<(Path, Token)>,
    tries: u32,
    due: Instant,
    retried_at: Option<Instant>,
    /// Whether to split the next initiation, if known.
    parts: Option<bool>,
}

#[cfg_attr(test, derive(Clone))]
struct Attempt {
    seq: u64,
    to: Path,
    parts: bool,
    state: Initiator,
}

/// An answered call without anything heard since. If the peer also answers a later initiation of it, that is the
/// session it waits on.
#[cfg_attr(test, derive(Clone))]
struct Answered {
    serial: u32,
    attempts: VecDeque<Attempt>,
}

#[cfg_attr(test, derive(Clone))]
struct Session {
    slot: u8,
    serial: u32,
    cipher: Cipher,
    /// The peer's instance.
    peer: Instance,
    began_here: bool,
    born: Instant,
}

impl Session {
    /// When its keys are always wiped.
    fn end(&self) -> Instant {
        self.born + SESSION_END
    }
}

/// A session that this end answered, and on which nothing has come yet.
#[cfg_attr(test, derive(Clone))]
struct Unconfirmed {
    session: Session,
    seq: u64,
    known: bool,
    /// Number of this end's last initiation before it.
    after: u64,
}

/// A link's handshakes and sessions.
#[cfg_attr(test, derive(Clone))]
pub struct Sessions {
    keys: Arc<LinkKeys>,
    pattern: Pattern,
    suites: Vec<Cipher>,
    instance: Instance,
    seq: u64,
    call: Option<Call>,
    answered: Option<Answered>,
    live: Vec<Session>,
    /// Slot of the session for frames.
    sending: Option<u8>,
    /// The one before, or the loser of two simultaneous calls: the peer may still send on it, or judge them differently.
    other: Option<u8>,
    unconfirmed: Option<Unconfirmed>,
    /// The peer's instance that last confirmed a session or answered a call, and the number of the initiation that did
    /// so, if any.
    confirmed: Option<(Instance, u64)>,
    /// Number of sessions.
    serial: u32,
    callers: Callers,
    tokens: Tokens,
    /// The initiation last answered was split, so the next call's first one is too.
    parts: bool,
    /// Parts of an initiation with a valid token, of one without, and of an answer.
    proven: Parts,
    unproven: Parts,
    answer: Parts,
}

impl Sessions {
    /// No session yet; `suites` in order of preference.
    pub fn new(
        keys: Arc<LinkKeys>,
        pattern: Pattern,
        suites: Vec<Cipher>,
        now: Instant,
        random: &mut impl Random,
    ) -> Self {
        let tokens = Tokens::new(now, random);
        Self {
            keys,
            pattern,
            suites,
            instance: random.bytes(),
            seq: 0,
            call: None,
            answered: None,
            live: Vec::new(),
            sending: None,
            other: None,
            unconfirmed: None,
            confirmed: None,
            serial: 0,
            callers: Callers::default(),
            tokens,
            parts: false,
            proven: Parts::default(),
            unproven: Parts::default(),
            answer: Parts::default(),
        }
    }

    /// The key exchange.
    pub fn exchange(&self) -> Exchange {
        self.pattern.exchange
    }

    /// Makes the datagram that shows the key exchange, and so the key mode, to an end with another.
    pub fn sign(&self, random: &mut impl Random) -> Vec<u8> {
        wrap::seal(&self.keys, &[Type::sign(self.pattern.exchange)], random)
    }

    /// Whether there is a session for sending.
    pub fn is_alive(&self) -> bool {
        self.sending.is_some()
    }

    /// Start and cipher of the session for frames.
    pub fn current(&self) -> Option<(Instant, Cipher)> {
        self.sending().map(|session| (session.born, session.cipher))
    }

    fn sending(&self) -> Option<&Session> {
        self.live.iter().find(|session| Some(session.slot) == self.sending)
    }

    /// The peer's instance in the live session with this serial.
    pub fn peer_of(&self, serial: u32) -> Option<Instance> {
        self.live.iter().find(|live| live.serial == serial).map(|session| session.peer)
    }

    /// Whether the session with this serial has the same peer instance as the one for frames.
    pub fn is_of_peer(&self, serial: u32) -> bool {
        let Some(peer) = self.peer_of(serial) else { return false };
        self.sending().is_none_or(|used| used.peer == peer)
    }

    /// Whether a call is in progress.
    pub fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    /// Drops all sessions and takes a new instance, to which no recording belongs.
    pub fn reset(&mut self, random: &mut impl Random, out: &mut VecDeque<Command>) {
        out.extend(Command::wipe_all());
        self.instance = random.bytes();
        self.seq = 0;
        (self.call, self.answered, self.unconfirmed, self.sending) = (None, None, None, None);
        self.live.clear();
        (self.proven, self.unproven, self.answer) = Default::default();
    }

    /// Drops all sessions of a peer last heard at `heard`, except the answer to a later call of another instance: that
    /// is a restarted peer, waiting on this session.
    pub fn end(&mut self, heard: Instant, random: &mut impl Random, out: &mut VecDeque<Command>) {
        let Some(kept) = self.unconfirmed.take_if(|there| !there.known && there.session.born > heard) else {
            return self.reset(random, out);
        };
        out.extend(
            self.live.drain(..).map(|session| ReceiveCommand::Forget(Name::Slot(session.slot)).into()),
        );
        out.extend([KeySlot::Current, KeySlot::Next].map(|under| SendCommand::Wipe(under).into()));
        (self.call, self.answered, self.sending, self.unconfirmed) = (None, None, None, Some(kept));
    }

    /// Whether to replace the session for frames.
    pub fn wants_rekey(&self, now: Instant) -> bool {
        self.rekey_at().is_some_and(|at| at <= now)
    }

    /// Ends what is too old.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Command>) {
        let ended = |session: &Session| now >= session.end();
        out.extend(
            self.live
                .iter()
                .filter(|session| ended(session))
                .map(|session| ReceiveCommand::Forget(Name::Slot(session.slot)).into()),
        );
        if self.sending().is_some_and(ended) {
            self.sending = None;
            out.push_back(SendCommand::Wipe(KeySlot::Current).into());
        }
        self.live.retain(|session| !ended(session));
        if self.unconfirmed.as_ref().is_some_and(|unconfirmed| ended(&unconfirmed.session)) {
            self.drop_unconfirmed(out);
        }
    }

    /// When something is next due; calls count only with an address to call.
    pub fn poll_timeout(&self, can_call: bool) -> Option<Instant> {
        let ends = self.live.iter().map(Session::end);
        let unconfirmed = self.unconfirmed.iter().map(|unconfirmed| unconfirmed.session.end());
        let call = self.call.as_ref().filter(|_| can_call).map(|call| call.due);
        let rekey = self.rekey_at().filter(|_| self.call.is_none());
        ends.chain(unconfirmed).chain(call).chain(rekey).min()
    }

    /// Handles a datagram whose probe is right.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_handshake(
        &mut self,
        now: Instant,
        received: &Received,
        random: &mut impl Random,
        out: &mut VecDeque<Command>,
    ) -> Result<Outcome, DropReason> {
        let plaintext = wrap::open(&self.keys, &received.datagram).ok_or(DropReason::BadTag)?;
        if let Some(exchange) = Type::signed(&plaintext) {
            let other = Outcome::OtherExchange { theirs: exchange, calls: false };
            return (exchange != self.pattern.exchange).then_some(other).ok_or(DropReason::Malformed);
        }
        let envelope = Envelope::parse(&plaintext).map_err(|_| DropReason::Malformed)?;
        if envelope.of.exchange != self.pattern.exchange {
            return Ok(Outcome::OtherExchange { theirs: envelope.of.exchange, calls: true });
        }
        let cause = Cause { now, envelope, from: received.from, length: received.datagram.len() };
        match cause.envelope.of.kind {
            Kind::Initiation => self.handle_initiation(&cause, random, out),
            Kind::Answer => self.handle_answer(&cause, out),
            Kind::Retry => self.handle_retry(&cause),
        }
    }

    /// The first authentic datagram came on this session; true if that confirms an answer.
    pub fn handle_confirmed(&mut self, serial: u32, out: &mut VecDeque<Command>) -> bool {
        self.answered.take_if(|answered| answered.serial == serial);
        let Some(unconfirmed) = self.unconfirmed.take_if(|unconfirmed| unconfirmed.session.serial == serial)
        else {
            return false;
        };
        self.confirmed = Some((unconfirmed.session.peer, unconfirmed.seq));
        self.adopt(unconfirmed.session, KeySlot::Unconfirmed, out);
        true
    }

    /// Makes a session live, and uses it for frames unless there is a better one.
    fn adopt(&mut self, session: Session, under: KeySlot, out: &mut VecDeque<Command>) {
        let rival = self.sending();
        // Both ends called at once: both use the session of the higher instance. A new peer instance does not know the
        // rival.
        let stays = rival.is_some_and(|rival| {
            rival.peer == session.peer
                && rival.began_here != session.began_here
                && session.born.saturating_duration_since(rival.born) < SESSION_OVERLAP
                && self.initiator(rival) > self.initiator(&session)
        });
        if stays {
            self.other = Some(session.slot);
            out.push_back(SendCommand::Wipe(under).into());
        } else {
            self.other = self.sending.replace(session.slot);
            out.push_back(SendCommand::Switch(under).into());
        }
        self.live.push(session);
        let calls = self.call.as_ref().is_some_and(|call| call.slot.is_some());
        self.forget_beyond(if calls { LIVE - 1 } else { LIVE }, out);
    }

    /// Forgets sessions until so many are left, the oldest first, but none on which the peer may send.
    fn forget_beyond(&mut self, most: usize, out: &mut VecDeque<Command>) {
        let used = [self.other, self.sending];
        while self.live.len() > most
            && let Some(index) = self.live.iter().position(|live| !used.contains(&Some(live.slot)))
        {
            out.push_back(ReceiveCommand::Forget(Name::Slot(self.live.remove(index).slot)).into());
        }
    }

    fn initiator(&self, session: &Session) -> Instance {
        if session.began_here { self.instance } else { session.peer }
    }

    /// Whether this instance of the peer last confirmed a session or answered a call.
    fn knows(&self, instance: Instance) -> bool {
        self.confirmed.is_some_and(|(confirmed, _)| confirmed == instance)
    }

    /// An initiation of this number was answered by this instance of the peer. It has outlived another that called before
    /// that, and no longer sends on a session that its own call began long before.
    fn drop_outlived(&mut self, now: Instant, peer: Instance, seq: u64, out: &mut VecDeque<Command>) {
        let outlived = |there: &Unconfirmed| {
            let rivals = there.session.peer == peer && now < there.session.born + SESSION_OVERLAP;
            there.after < seq && !rivals
        };
        if self.unconfirmed.as_ref().is_some_and(outlived) {
            self.drop_unconfirmed(out);
        }
    }

    fn drop_unconfirmed(&mut self, out: &mut VecDeque<Command>) {
        if let Some(unconfirmed) = self.unconfirmed.take() {
            out.push_back(ReceiveCommand::Forget(Name::Slot(unconfirmed.session.slot)).into());
            out.push_back(SendCommand::Wipe(KeySlot::Unconfirmed).into());
        }
    }

    fn rekey_at(&self) -> Option<Instant> {
        let session = self.sending()?;
        let patience = if session.began_here { Duration::ZERO } else { SESSION_RESPONDER };
        Some(session.born + SESSION_REKEY + patience)
    }

    fn used_slots(&self) -> Vec<u8> {
        let call = self.call.iter().filter_map(|call| call.slot);
        let unconfirmed = self.unconfirmed.iter().map(|unconfirmed| unconfirmed.session.slot);
        self.live.iter().map(|session| session.slot).chain(call).chain(unconfirmed).collect()
    }

    /// Live sessions, a call and an unconfirmed answer fill at most four slots. The caller lacks one of these, so a slot is free.
    fn free_slot(&self) -> u8 {
        let used = self.used_slots();
        (0..SLOTS).find(|slot| !used.contains(slot)).unwrap_or(0)
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

/// What came. It limits the length of an answer to it.
struct Cause<'a> {
    now: Instant,
    envelope: Envelope<'a>,
    from: Path,
    /// Length of the datagram, or of the shortest of several.
    length: usize,
}

/// Makes the datagrams of a message or its parts, each with a random length from this range, or longer if necessary.
fn handshake(
    keys: &LinkKeys,
    envelope: &Envelope<'_>,
    lengths: RangeInclusive<usize>,
    to: Path,
    random: &mut impl Random,
    out: &mut VecDeque<Command>,
) {
    let message = envelope.message;
    let whole = [(0, message)].into_iter().filter(|_| envelope.of.part == 0);
    let in_parts = parts(message).filter(|_| envelope.of.part != 0);
    for (part, message) in whole.chain(in_parts) {
        let envelope = Envelope { of: Type { part, ..envelope.of }, message, ..*envelope };
        let least = (wrap::OVERHEAD + envelope.length()).max(*lengths.start());
        let room = lengths.end().saturating_sub(least);
        let length = least + usize::from(u16::from_be_bytes(random.bytes())) % (room + 1);
        let mut plaintext = Vec::new();
        envelope.emit(length - wrap::OVERHEAD, &mut plaintext);
        let datagram = wrap::seal(keys, &plaintext, random);
        out.push_back(SendCommand::Handshake(Received { from: to, datagram }).into());
    }
}

#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;
