//! Static mode: the sids of both directions.

use super::{Keying, Link};
use crate::core::clock::Now;
use crate::core::hello;
use crate::core::lane::{Command, Key, KeyId, Received, Under};
use crate::core::limits::CLOCKS_APART;
use crate::core::path::Path;
use crate::core::sid::Sid;
use crate::core::static_keys::{Situation, StaticKeys, Verdict};
use crate::core::stats::Drop;
use crate::crypto::Random;
use crate::wire::control::{self, Hello, Message};
use crate::wire::datagram::{Framing, SID};

/// What a link keeps of both directions' sids.
pub(super) struct StaticKeying {
    pub(super) keys: StaticKeys,
    /// The sid under which the peer's last hello came.
    heard: Option<Sid>,
    /// The sid that the peer is known to use: what came under an older one ends nothing.
    present: Option<Sid>,
    /// The number of the pings that ask whether the peer opens what is sent under the current sid.
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

    /// Whether a word of the peer's under this sid may end the link.
    fn is_of_peer(&self, sid: Sid) -> bool {
        self.present.is_none_or(|present| self.keys.supersedes(sid, present))
    }
}

impl<R: Random> Link<R> {
    pub(super) fn handle_unknown(&mut self, now: Now, sid: Sid, received: Received) {
        let here = Situation { up: self.up, shortest: self.shortest_hello() };
        let from = received.from;
        let Keying::Static(keying) = &mut self.keying else { return };
        match keying.keys.handle_unknown(now, sid, received, here) {
            Verdict::Again(received) => self.commands.push_back(Command::Again(received)),
            Verdict::Taken { after, hello, ended } => {
                self.commands.extend(ended.map(|sid| Command::Forget(Key::Sid(sid).name())));
                self.commands.push_back(Command::Receive { key: Key::Sid(sid), after: Some(after) });
                self.greet_taken(now, from, sid, hello);
            }
            Verdict::Present { to, room } => self.present(now, sid, to, room),
            Verdict::Misfit(text) => {
                self.stats.drop(Drop::BadTag);
                if self.peer.is_none() {
                    self.say_once(now.instant, text.into());
                }
            }
            Verdict::Dropped(reason) => self.stats.drop(reason),
        }
    }

    /// The peer named this end in a hello under a sid that is live from now on. It is told so, and shows that it is there.
    fn greet_taken(&mut self, now: Now, from: Path, sid: Sid, hello: Hello) {
        let asks = !hello.seen;
        self.say_clocks_apart(now, sid);
        if let Keying::Static(keying) = &mut self.keying {
            keying.asked = None;
        }
        self.handle_hello(now, from, KeyId::Sid(sid), hello);
        if !asks {
            self.answer_soon(now.instant);
        }
        if self.up {
            self.ask_proof(from);
        }
    }

    /// Someone has the key, or a recording of someone who had: says hello in no more bytes than came, so that a peer
    /// can name this end.
    fn present(&mut self, now: Now, sid: Sid, to: Path, room: usize) {
        if !self.settings.float && !self.is_pinned(to.remote) {
            return self.say_pinned(now.instant, to);
        }
        self.renew_sid(now);
        let mut hello = Hello { heard: Some(sid.0), ..hello::own(&self.settings, self.own_budget, false) };
        hello::shorten(&mut hello, room - Framing::Static.overhead());
        self.send(Message::Hello(hello), to);
    }

    /// The least that this end can present itself with, in bytes of UDP payload.
    fn shortest_hello(&self) -> usize {
        let mut hello = Hello { heard: Some([0; SID]), ..hello::own(&self.settings, self.own_budget, false) };
        hello::shorten(&mut hello, 0);
        Framing::Static.overhead() + hello::length(&hello)
    }

    /// Which sids a hello tells of, by what it came under and by what it names.
    pub(super) fn take_names(&mut self, now: Now, under: KeyId, hello: &Hello) {
        let (Keying::Static(keying), KeyId::Sid(sid)) = (&mut self.keying, under) else { return };
        keying.heard = Some(sid);
        if hello.seen && keying.is_of_peer(sid) {
            keying.present = Some(sid);
        }
        if hello.heard.is_some_and(|own| keying.keys.handle_named(Sid(own))) {
            self.switch(Under::Next);
            // The peer learns what frames come under from now on.
            if let Some(endpoint) = self.endpoint.filter(|_| self.up) {
                self.send_hello(endpoint);
            }
            self.schedule_hello(now.instant);
        }
    }

    /// Whether what came under this key may end the link: it is of the peer that the link is with, and of its process of
    /// now.
    pub(super) fn is_of_peer(&self, under: KeyId) -> bool {
        match (&self.keying, under) {
            (Keying::Static(keying), KeyId::Sid(sid)) => keying.is_of_peer(sid),
            (Keying::Handshake(sessions), KeyId::Session(serial)) => sessions.is_of_peer(serial),
            (Keying::Handshake(_), KeyId::Sid(_)) | (Keying::Static(_), KeyId::Session(_)) => false,
        }
    }

    /// The sid under which the peer's last hello came, for a hello of this end to name.
    pub(super) fn heard_sid(&self) -> Option<[u8; SID]> {
        match &self.keying {
            Keying::Static(keying) => keying.heard.map(|sid| sid.0),
            Keying::Handshake(_) => None,
        }
    }

    /// Does what is due for own sids and the peer's.
    pub(super) fn handle_sids_timeout(&mut self, now: Now) {
        self.renew_sid(now);
        let Keying::Static(keying) = &mut self.keying else { return };
        while let Some(sid) = keying.keys.poll_ended(now.instant) {
            keying.present = keying.present.filter(|present| *present != sid);
            self.commands.push_back(Command::Forget(Key::Sid(sid).name()));
        }
        let endpoint = self.endpoint.filter(|_| self.up);
        if keying.keys.sending().is_proposal_due(now.instant) {
            match endpoint {
                Some(endpoint) => self.propose(endpoint),
                // Nothing is lost without a word.
                None => self.switch(Under::Next),
            }
        }
    }

    /// Draws a new sid if one is due. While the link is up frames use it when the peer has said that it took it.
    fn renew_sid(&mut self, now: Now) {
        let endpoint = self.endpoint.filter(|_| self.up);
        let Keying::Static(keying) = &mut self.keying else { return };
        if !keying.keys.sending().is_renewal_due(now.instant) {
            return;
        }
        match endpoint {
            Some(endpoint) => {
                let sid = keying.keys.propose(now, &mut self.random);
                self.commands.push_back(Command::Prepare(Under::Next, Key::Sid(sid)));
                self.propose(endpoint);
            }
            None => self.change_sid(now),
        }
    }

    /// A hello under the next sid, which the peer answers when it took it.
    fn propose(&mut self, to: Path) {
        let hello = self.own_hello(false);
        self.send_under(Under::Next, Message::Hello(hello), to);
    }

    /// Draws a sid and uses it at once.
    pub(super) fn change_sid(&mut self, now: Now) {
        let Keying::Static(keying) = &mut self.keying else { return };
        let sid = keying.keys.draw(now, &mut self.random);
        self.commands.push_back(Command::Prepare(Under::Next, Key::Sid(sid)));
        self.switch(Under::Next);
    }

    fn switch(&mut self, under: Under) {
        if let Keying::Static(keying) = &mut self.keying {
            keying.keys.sending().settle();
            (keying.asked, keying.proven) = (None, false);
        }
        self.commands.push_back(Command::Switch(under));
    }

    /// A hello of the peer may be from before a restart of its host, or withheld: asks whether it opens what is sent now.
    pub(super) fn ask_proof(&mut self, to: Path) {
        let [padding, n @ ..] = self.random.bytes::<5>();
        let Keying::Static(keying) = &mut self.keying else { return };
        let n = *keying.asked.get_or_insert(u32::from_be_bytes(n));
        let body = control::ping(n, usize::from(padding % 64));
        self.commands.push_back(Command::Control { body, to, under: Under::Current });
    }

    /// The peer opened the ping of this number, and answers under `sid`.
    pub(super) fn take_proof(&mut self, n: u32, under: KeyId) {
        if let (Keying::Static(keying), KeyId::Sid(sid)) = (&mut self.keying, under)
            && keying.asked == Some(n)
            && keying.keys.is_live(sid)
        {
            keying.proven = true;
            keying.present = Some(sid);
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

    /// Nothing that was live before counts any more, and frames use a new sid.
    pub(super) fn replace_sids(&mut self, now: Now) {
        let Keying::Static(keying) = &mut self.keying else { return };
        keying.keys.reset();
        (keying.heard, keying.present) = (None, None);
        self.commands.push_back(Command::WipeAll);
        self.change_sid(now);
    }

    fn say_clocks_apart(&mut self, now: Now, sid: Sid) {
        let Keying::Static(keying) = &mut self.keying else { return };
        if keying.clocks_said || sid.time().abs_diff(now.wall) <= CLOCKS_APART {
            return;
        }
        keying.clocks_said = true;
        let ahead = sid.time().wrapping_sub(now.wall) as i64 as f64 / 1e6;
        self.log(
            1,
            format!("the peer's clock differs from this end's by {ahead:+.0} s; the link works all the same"),
        );
    }
}
