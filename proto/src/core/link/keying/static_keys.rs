//! Static mode: the key ids of both directions, and whether the peer opens what this end sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ask, Caller, Here, Keying};
use crate::config::KeyMode;
use crate::core::clock::Now;
use crate::core::clones::Speaker;
use crate::core::condition::Condition;
use crate::core::hello;
use crate::core::key_id::KeyId;
use crate::core::lane::{Command, Key, KeyRef, KeySlot, Notice, ReceiveCommand, SendCommand};
use crate::core::limits::{BUDGET_BASE, CLOCKS_APART};
use crate::core::link::outbox::{Context, Outbox};
use crate::core::path::Path;
use crate::core::settings::LinkSettings;
use crate::core::static_keys::{StaticKeys, Verdict};
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::crypto::suite::Cipher;
use crate::wire::control::{self, Hello, Message};
use crate::wire::datagram::{Framing, KEY_ID};

/// Length of the datagram that shows this mode to an end in handshake mode: an empty goodbye.
const SIGN: usize = Framing::Static.overhead() + 4;

/// A link's key ids in both directions.
pub struct StaticKeying {
    keys: StaticKeys,
    /// The key id of the peer's last hello.
    heard: Option<KeyId>,
    /// The key id that the peer is known to use; input under older ones ends nothing.
    present: Option<KeyId>,
    /// Number of the pings that test whether the peer opens what is sent under the current key id.
    asked: Option<u32>,
    /// Whether it does.
    proven: bool,
    /// The key id for frames.
    current: Option<KeyId>,
    /// For lanes other than 0: an own key id that the peer has taken, and the peer's for which it was taken.
    pair: Option<(KeyId, KeyId)>,
    /// Whether the peer is still the same process.
    pair_holds: bool,
    /// The clock difference, which was reported.
    clocks: Option<Condition>,
}

impl StaticKeying {
    /// Draws and uses the first key id.
    pub fn new(
        settings: &LinkSettings,
        keys: Arc<LinkKeys>,
        now: Now,
        cx: &mut Context<impl Random>,
    ) -> Self {
        let least = hello::length(&hello::naming([0; KEY_ID], settings, BUDGET_BASE, 0));
        let shortest = Framing::Static.overhead() + least;
        let mut keying = Self {
            keys: StaticKeys::new(keys, settings.cipher, settings.direction, shortest, now),
            heard: None,
            present: None,
            asked: None,
            proven: false,
            current: None,
            pair: None,
            pair_holds: true,
            clocks: None,
        };
        keying.change_key_id(now, cx);
        keying
    }

    /// Whether a message of the peer under this key id may end the link.
    fn is_present(&self, key_id: KeyId) -> bool {
        self.present.is_none_or(|present| self.keys.supersedes(key_id, present))
    }

    /// Draws a new key id if one is due; true: propose it. While the link is up, frames use it once the peer says that it took
    /// it.
    fn renew_key_id(&mut self, now: Now, up: bool, cx: &mut Context<impl Random>) -> bool {
        let due = self.keys.sending().is_renewal_due(now.instant);
        if due && up {
            let key_id = self.keys.propose(now, &mut cx.random);
            cx.out.command(SendCommand::Prepare(KeySlot::Next, Key::KeyId(key_id)));
        } else if due {
            self.change_key_id(now, cx);
        }
        due && up
    }

    /// Draws a key id and uses it at once.
    fn change_key_id(&mut self, now: Now, cx: &mut Context<impl Random>) {
        let key_id = self.keys.draw(now, &mut cx.random);
        cx.out.command(SendCommand::Prepare(KeySlot::Next, Key::KeyId(key_id)));
        self.switch(Some(key_id), &mut cx.out);
    }

    /// Changes frames to the next key id.
    fn switch(&mut self, next: Option<KeyId>, out: &mut Outbox) {
        self.keys.sending().settle();
        self.current = next;
        (self.asked, self.proven) = (None, false);
        out.command(SendCommand::Switch(KeySlot::Next));
    }

    /// The peer says for which of its key ids it has taken one of this end's, which gives the other lanes a key. If the pair differs from before,
    /// another process sent it, and takes another key id of this end.
    fn handle_pair(&mut self, now: Instant, hello: &Hello, out: &mut Outbox) {
        let (Some(own), Some(named)) = (hello.heard.map(KeyId), hello.named.map(KeyId)) else { return };
        let is_next = self.keys.sending().proposed() == Some(own);
        if !is_next && self.current != Some(own) {
            return;
        }
        match self.pair.filter(|(paired, _)| *paired == own) {
            Some((_, before)) if before == named => {}
            Some(_) => {
                self.pair_holds = false;
                self.keys.sending().expire(now);
            }
            None => {
                let slot = if is_next { KeySlot::Next } else { KeySlot::Current };
                out.command(SendCommand::Pair { slot, key: Key::KeyId(own), named });
                (self.pair, self.pair_holds) = (Some((own, named)), true);
            }
        }
    }

    /// Says that the clocks differ, once until they agree again.
    fn compare_clocks(&mut self, now: Now, key_id: KeyId, out: &mut Outbox) {
        if key_id.time().abs_diff(now.wall) <= CLOCKS_APART {
            self.clocks = None;
        } else if self.clocks.is_none() {
            let ahead = key_id.time().wrapping_sub(now.wall) as i64;
            out.log(self.clocks.insert(Condition::ClockDifference { ahead }).clone());
        }
    }
}

fn forget(key_id: KeyId) -> Command {
    ReceiveCommand::Forget(Key::KeyId(key_id).name()).into()
}

impl<R: Random> Keying<R> for StaticKeying {
    fn condition(&self) -> Option<&Condition> {
        self.clocks.as_ref()
    }

    fn poll_timeout(&self, _here: Here) -> Option<Instant> {
        Some(self.keys.poll_timeout())
    }

    fn handle_timeout(&mut self, now: Now, here: Here, cx: &mut Context<R>) -> Option<Ask> {
        let mut propose = self.renew_key_id(now, here.up, cx);
        while let Some(key_id) = self.keys.poll_ended(now.instant) {
            self.present = self.present.filter(|present| *present != key_id);
            cx.out.command(forget(key_id));
        }
        if self.keys.sending().poll_proposal(now.instant) {
            propose = here.up;
            if !here.up {
                // Nothing is lost without a report.
                let next = self.keys.sending().proposed();
                self.switch(next, &mut cx.out);
            }
        }
        propose.then_some(Ask::Propose)
    }

    fn handle_notice(&mut self, now: Now, here: Here, notice: Notice, cx: &mut Context<R>) -> Option<Ask> {
        let Notice::Unknown { key_id, received } = notice else { return None };
        let caller = Caller { key_id, from: received.from, room: received.datagram.len() };
        match self.keys.handle_unknown(now, key_id, received, here.up) {
            Verdict::Again(received) => {
                cx.out.command(ReceiveCommand::Again(received));
                None
            }
            Verdict::Taken { after, named, hello, ended } => {
                cx.out.commands.extend(ended.map(forget));
                let (key, after, named) = (Key::KeyId(key_id), Some(after), Some(named));
                cx.out.command(ReceiveCommand::Accept { key, after, named });
                self.compare_clocks(now, key_id, &mut cx.out);
                self.asked = None;
                Some(Ask::Take(caller, hello))
            }
            Verdict::Present => Some(Ask::Present(caller)),
            Verdict::Misfit(condition) => Some(Ask::Misfit(condition)),
            Verdict::Dropped(reason) => Some(Ask::Drop(reason)),
        }
    }

    fn renew(&mut self, now: Instant) {
        self.keys.sending().expire(now);
    }

    /// Forgets whatever was live before; frames use a new key id.
    fn replace(&mut self, now: Now, cx: &mut Context<R>) {
        self.keys.reset();
        (self.heard, self.present, self.pair) = (None, None, None);
        cx.out.commands.extend(Command::wipe_all());
        self.change_key_id(now, cx);
    }

    /// Accepts anyone as the next peer.
    fn end(&mut self, _heard_at: Instant, _cx: &mut Context<R>) {
        self.present = None;
    }

    fn is_of_peer(&self, under: KeyRef) -> bool {
        matches!(under, KeyRef::KeyId(key_id) if self.is_present(key_id))
    }

    /// A recording may come under a key id.
    fn speaker(&self, under: KeyRef, proves: bool) -> Option<Speaker> {
        let KeyRef::KeyId(key_id) = under else { return None };
        proves.then_some(Speaker::KeyId(key_id))
    }

    fn current(&self, now: Instant) -> Option<(Duration, Cipher)> {
        Some(self.keys.current(now))
    }

    fn other_mode(&self) -> KeyMode {
        KeyMode::Handshake
    }

    fn give_sign(&self, to: Path, length: usize, cx: &mut Context<R>) {
        if length >= SIGN {
            cx.out.control(KeySlot::Current, &Message::Bye { reason: String::new() }, to);
        }
    }

    fn calls_by_hello(&self) -> bool {
        true
    }

    fn names(&self) -> [Option<[u8; KEY_ID]>; 2] {
        let pair = self.heard.and_then(|key_id| self.keys.named(key_id));
        [self.heard, pair].map(|key_id| key_id.map(|KeyId(bytes)| bytes))
    }

    fn handle_names(&mut self, now: Instant, under: KeyRef, hello: &Hello, out: &mut Outbox) -> bool {
        let KeyRef::KeyId(key_id) = under else { return false };
        self.heard = Some(key_id);
        if hello.seen && self.is_present(key_id) {
            self.present = Some(key_id);
        }
        if self.is_present(key_id) {
            self.handle_pair(now, hello, out);
        }
        let own = hello.heard.map(KeyId);
        let named = own.is_some_and(|own| self.keys.handle_named(own));
        if named {
            self.switch(own, out);
        }
        named
    }

    fn pairs_lanes(&self) -> bool {
        self.pair_holds && self.pair.map(|(own, _)| own) == self.current
    }

    /// A hello of the peer may be from before its host restarted, or withheld.
    fn ask_proof(&mut self, to: Path, cx: &mut Context<R>) {
        let [padding, n @ ..] = cx.random.bytes::<5>();
        let n = *self.asked.get_or_insert(u32::from_be_bytes(n));
        let body = control::ping(n, usize::from(padding % 64));
        cx.out.command(SendCommand::Control { body, to, under: KeySlot::Current, lane: 0 });
    }

    fn handle_pong(&mut self, n: u32, under: KeyRef) {
        if let KeyRef::KeyId(key_id) = under
            && self.asked == Some(n)
            && self.keys.is_live(key_id)
        {
            self.proven = true;
            self.present = Some(key_id);
        }
    }

    fn is_heard(&self) -> bool {
        self.proven
    }
}
