//! Static mode: the key ids of both directions.

use super::{Keying, Link};
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::hello;
use crate::core::key_id::KeyId;
use crate::core::lane::{Command, Key, KeyRef, KeySlot, ReceiveCommand, Received, SendCommand};
use crate::core::limits::CLOCKS_APART;
use crate::core::path::Path;
use crate::core::static_keys::{Situation, StaticKeys, Verdict};
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::wire::control::{self, Hello, Message};
use crate::wire::datagram::{Framing, KEY_ID};

/// What a link keeps of both directions' key ids.
pub(super) struct StaticKeying {
    pub(super) keys: StaticKeys,
    /// The key id under which the peer's last hello came.
    heard: Option<KeyId>,
    /// The key id that the peer is known to use: what came under an older one ends nothing.
    present: Option<KeyId>,
    /// The number of the pings that ask whether the peer opens what is sent under the current key id.
    asked: Option<u32>,
    /// Whether it does.
    proven: bool,
    /// Whether it was said that the clocks are apart.
    clocks_said: bool,
}

impl StaticKeying {
    pub(super) fn new(keys: StaticKeys) -> Self {
        Self { keys, heard: None, present: None, asked: None, proven: false, clocks_said: false }
    }

    /// The link is down: whoever comes next is the peer.
    pub(super) fn forget_peer(&mut self) {
        self.present = None;
    }

    /// Whether a word of the peer's under this key id may end the link.
    fn is_of_peer(&self, key_id: KeyId) -> bool {
        self.present.is_none_or(|present| self.keys.supersedes(key_id, present))
    }
}

impl<R: Random> Link<R> {
    pub(super) fn handle_unknown(&mut self, now: Now, key_id: KeyId, received: Received) {
        let here = Situation { up: self.up, shortest: self.shortest_hello() };
        let (from, room) = (received.from, received.datagram.len());
        let Keying::Static(keying) = &mut self.keying else { return };
        match keying.keys.handle_unknown(now, key_id, received, here) {
            Verdict::Again(received) => self.commands.push_back(ReceiveCommand::Again(received).into()),
            Verdict::Taken { after, hello, ended } => {
                self.commands
                    .extend(ended.map(|key_id| ReceiveCommand::Forget(Key::KeyId(key_id).name()).into()));
                self.commands
                    .push_back(ReceiveCommand::Accept { key: Key::KeyId(key_id), after: Some(after) }.into());
                self.greet_taken(now, from, room, key_id, hello);
            }
            Verdict::Present { to, room } => self.present(now, key_id, to, room),
            Verdict::Misfit(condition) => {
                self.stats.drop(DropReason::BadTag);
                if self.peer.is_none() {
                    self.say_once(now.instant, condition);
                }
            }
            Verdict::Dropped(reason) => self.stats.drop(reason),
        }
    }

    /// The peer named this end in a hello under a key id that is live from now on. It is told so, and shows that it is there.
    fn greet_taken(&mut self, now: Now, from: Path, room: usize, key_id: KeyId, hello: Hello) {
        let asks = !hello.seen;
        self.say_clocks_apart(now, key_id);
        if let Keying::Static(keying) = &mut self.keying {
            keying.asked = None;
        }
        if self.refuses(now.instant, from) {
            return;
        }
        self.handle_hello(now, from, KeyRef::KeyId(key_id), hello);
        // From elsewhere than this end sends to, the peer has to know this end's key id before it can prove its address.
        if self.endpoint.is_none_or(|endpoint| !endpoint.covers(&from)) {
            self.name(key_id, from, room);
        } else if !asks {
            self.answer_soon(now.instant);
        }
        if self.up {
            self.ask_proof(from);
        }
    }

    /// Someone has the key, or a recording of someone who had: says hello in no more bytes than came, so that a peer
    /// can name this end.
    fn present(&mut self, now: Now, key_id: KeyId, to: Path, room: usize) {
        if self.refuses(now.instant, to) {
            return;
        }
        self.renew_key_id(now);
        self.name(key_id, to, room);
    }

    /// A hello that names what it answers, in no more bytes than that had.
    fn name(&mut self, key_id: KeyId, to: Path, room: usize) {
        let mut hello = Hello { heard: Some(key_id.0), ..hello::own(&self.settings, self.own_budget, false) };
        let room = room.saturating_sub(Framing::Static.overhead());
        hello::shorten(&mut hello, room);
        if hello::length(&hello) <= room {
            self.send(Message::Hello(hello), to);
        }
    }

    /// The least that this end can present itself with, in bytes of UDP payload.
    fn shortest_hello(&self) -> usize {
        let mut hello =
            Hello { heard: Some([0; KEY_ID]), ..hello::own(&self.settings, self.own_budget, false) };
        hello::shorten(&mut hello, 0);
        Framing::Static.overhead() + hello::length(&hello)
    }

    /// Which key ids a hello tells of, by what it came under and by what it names.
    pub(super) fn take_names(&mut self, now: Now, under: KeyRef, hello: &Hello) {
        let (Keying::Static(keying), KeyRef::KeyId(key_id)) = (&mut self.keying, under) else { return };
        keying.heard = Some(key_id);
        if hello.seen && keying.is_of_peer(key_id) {
            keying.present = Some(key_id);
        }
        if hello.heard.is_some_and(|own| keying.keys.handle_named(KeyId(own))) {
            self.switch(KeySlot::Next);
            // The peer learns what frames come under from now on.
            if let Some(endpoint) = self.endpoint.filter(|_| self.up) {
                self.send_hello(endpoint);
            }
            self.schedule_hello(now.instant);
        }
    }

    /// Whether what came under this key may end the link: it is of the peer that the link is with, and of its process of
    /// now.
    pub(super) fn is_of_peer(&self, under: KeyRef) -> bool {
        match (&self.keying, under) {
            (Keying::Static(keying), KeyRef::KeyId(key_id)) => keying.is_of_peer(key_id),
            (Keying::Handshake(sessions), KeyRef::Session(serial)) => sessions.is_of_peer(serial),
            (Keying::Handshake(_), KeyRef::KeyId(_)) | (Keying::Static(_), KeyRef::Session(_)) => false,
        }
    }

    /// The key id under which the peer's last hello came, for a hello of this end to name.
    pub(super) fn heard_key_id(&self) -> Option<[u8; KEY_ID]> {
        match &self.keying {
            Keying::Static(keying) => keying.heard.map(|key_id| key_id.0),
            Keying::Handshake(_) => None,
        }
    }

    /// Does what is due for own key ids and the peer's.
    pub(super) fn handle_key_ids_timeout(&mut self, now: Now) {
        self.renew_key_id(now);
        let Keying::Static(keying) = &mut self.keying else { return };
        while let Some(key_id) = keying.keys.poll_ended(now.instant) {
            keying.present = keying.present.filter(|present| *present != key_id);
            self.commands.push_back(ReceiveCommand::Forget(Key::KeyId(key_id).name()).into());
        }
        let endpoint = self.endpoint.filter(|_| self.up);
        if keying.keys.sending().is_proposal_due(now.instant) {
            match endpoint {
                Some(endpoint) => self.propose(endpoint),
                // Nothing is lost without a word.
                None => self.switch(KeySlot::Next),
            }
        }
    }

    /// Draws a new key id if one is due. While the link is up frames use it when the peer has said that it took it.
    fn renew_key_id(&mut self, now: Now) {
        let endpoint = self.endpoint.filter(|_| self.up);
        let Keying::Static(keying) = &mut self.keying else { return };
        if !keying.keys.sending().is_renewal_due(now.instant) {
            return;
        }
        match endpoint {
            Some(endpoint) => {
                let key_id = keying.keys.propose(now, &mut self.random);
                self.commands.push_back(SendCommand::Prepare(KeySlot::Next, Key::KeyId(key_id)).into());
                self.propose(endpoint);
            }
            None => self.change_key_id(now),
        }
    }

    /// A hello under the next key id, which the peer answers when it took it.
    fn propose(&mut self, to: Path) {
        let hello = self.own_hello(false);
        self.send_under(KeySlot::Next, Message::Hello(hello), to);
    }

    /// Draws a key id and uses it at once.
    pub(super) fn change_key_id(&mut self, now: Now) {
        let Keying::Static(keying) = &mut self.keying else { return };
        let key_id = keying.keys.draw(now, &mut self.random);
        self.commands.push_back(SendCommand::Prepare(KeySlot::Next, Key::KeyId(key_id)).into());
        self.switch(KeySlot::Next);
    }

    fn switch(&mut self, under: KeySlot) {
        if let Keying::Static(keying) = &mut self.keying {
            keying.keys.sending().settle();
            (keying.asked, keying.proven) = (None, false);
        }
        self.commands.push_back(SendCommand::Switch(under).into());
    }

    /// A hello of the peer may be from before a restart of its host, or withheld: asks whether it opens what is sent now.
    pub(super) fn ask_proof(&mut self, to: Path) {
        let [padding, n @ ..] = self.random.bytes::<5>();
        let Keying::Static(keying) = &mut self.keying else { return };
        let n = *keying.asked.get_or_insert(u32::from_be_bytes(n));
        let body = control::ping(n, usize::from(padding % 64));
        self.commands.push_back(SendCommand::Control { body, to, under: KeySlot::Current }.into());
    }

    /// The peer opened the ping of this number, and answers under `key_id`.
    pub(super) fn take_proof(&mut self, n: u32, under: KeyRef) {
        if let (Keying::Static(keying), KeyRef::KeyId(key_id)) = (&mut self.keying, under)
            && keying.asked == Some(n)
            && keying.keys.is_live(key_id)
        {
            keying.proven = true;
            keying.present = Some(key_id);
        }
    }

    /// Whether the peer opens what this end sends.
    pub(super) fn is_heard(&self) -> bool {
        match &self.keying {
            Keying::Static(keying) => keying.proven,
            // No session is confirmed otherwise.
            Keying::Handshake(_) => true,
        }
    }

    /// Nothing that was live before counts any more, and frames use a new key id.
    pub(super) fn replace_key_ids(&mut self, now: Now) {
        let Keying::Static(keying) = &mut self.keying else { return };
        keying.keys.reset();
        (keying.heard, keying.present) = (None, None);
        self.commands.extend(Command::wipe_all());
        self.change_key_id(now);
    }

    fn say_clocks_apart(&mut self, now: Now, key_id: KeyId) {
        let Keying::Static(keying) = &mut self.keying else { return };
        if keying.clocks_said || key_id.time().abs_diff(now.wall) <= CLOCKS_APART {
            return;
        }
        keying.clocks_said = true;
        self.log(Condition::ClockDifference { ahead: key_id.time().wrapping_sub(now.wall) as i64 });
    }
}
