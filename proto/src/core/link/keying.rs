//! Where traffic keys come from. A key mode is one implementation of [`Keying`], chosen in [`for_mode`] and matched nowhere else
//! in the link.

mod handshake;
mod static_keys;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outbox::{Context, Outbox};
use crate::config::KeyMode;
use crate::core::clock::Now;
use crate::core::clones::Speaker;
use crate::core::condition::Condition;
use crate::core::key_id::KeyId;
use crate::core::lane::{KeyRef, Notice};
use crate::core::path::Path;
use crate::core::settings::LinkSettings;
use crate::core::stats::DropReason;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
use crate::crypto::suite::Cipher;
use crate::wire::control::Hello;
use crate::wire::datagram::KEY_ID;

use handshake::Handshake;
use static_keys::StaticKeying;

/// How the link is, for its keys to go by.
#[derive(Clone, Copy)]
pub struct Here {
    /// The link is up.
    pub up: bool,
    /// There is an address to send to.
    pub can_call: bool,
    /// When the peer was last heard.
    pub heard_at: Instant,
}

/// Who sent a datagram that has to be answered by a hello which names its key id, in no more bytes than it had.
pub struct Caller {
    /// The key id to name.
    pub key_id: KeyId,
    /// The way it came.
    pub from: Path,
    /// Its length, in bytes.
    pub room: usize,
}

/// What the keys ask of the link.
pub enum Ask {
    /// Say hello to the peer under the next key: it answers when it has that.
    Propose,
    /// Take this hello. It named this end, and the key that it came under is live from now on.
    Take(Caller, Hello),
    /// Someone has the key, or a recording of someone who had: present this end to it.
    Present(Caller),
    /// [`Keying::call`] with an address. `anew`: whoever answered before is gone, somebody else may be there; `silent`: nothing was
    /// heard for so long that the own address may be what failed.
    Call { anew: bool, silent: bool },
    /// The remote at this address is there.
    Prefer(Path),
    /// The remote `called` is there, and a session with it began: say the first word on it.
    Greet { called: Path, from: Path },
    /// The peer confirmed a session: say the first word on it.
    GreetPeer,
    /// Say what the link suffers from.
    Say(Condition),
    /// Whoever has the key and comes from there shakes hands in another way: say so, and show it this end's in so much room.
    Differ {
        /// How they differ.
        condition: Condition,
        /// Where it comes from.
        from: Path,
        /// In no more than this many bytes of UDP payload.
        room: usize,
    },
    /// A datagram does not verify, for this reason.
    Misfit(Condition),
    /// A datagram was dropped.
    Drop(DropReason),
}

/// The traffic keys of a link in one key mode. What a mode does not have it leaves as it is here.
pub trait Keying<R: Random>: Send {
    /// When something is due.
    fn poll_timeout(&self, here: Here) -> Option<Instant>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Now, here: Here, cx: &mut Context<R>) -> Option<Ask>;

    /// Takes what a lane noticed of keys: [`Notice::Unknown`], [`Notice::Handshake`] or [`Notice::Confirmed`].
    fn handle_notice(&mut self, now: Now, here: Here, notice: Notice, cx: &mut Context<R>) -> Option<Ask>;

    /// The current key is nearly used up.
    fn renew(&mut self, now: Instant);

    /// Every key goes, of both directions, by [`Command::wipe_all`](crate::core::lane::Command::wipe_all): before that a lane that found
    /// itself a copy takes none.
    fn replace(&mut self, now: Now, cx: &mut Context<R>);

    /// The link is down; the peer was last heard at `heard_at`.
    fn end(&mut self, heard_at: Instant, cx: &mut Context<R>);

    /// Whether what came under this key may end the link: it is of the peer that the link is with, and of its process of
    /// now.
    fn is_of_peer(&self, under: KeyRef) -> bool;

    /// Which process of the peer says something under this key; `proves`: something that can be no recording.
    fn speaker(&self, under: KeyRef, proves: bool) -> Option<Speaker>;

    /// The age of the key that frames go out under, and its cipher.
    fn current(&self, now: Instant) -> Option<(Duration, Cipher)>;

    /// The key mode that a peer with this key uses if not this one.
    fn other_mode(&self) -> KeyMode;

    /// Shows a caller in the other key mode which one this is, in no more bytes than it sent.
    fn give_sign(&self, to: Path, length: usize, cx: &mut Context<R>);

    /// Whether a peer is called by hellos; else by what [`Ask::Call`] asks for.
    fn calls_by_hello(&self) -> bool;

    /// Whether there are keys to send a control message under.
    fn has_keys(&self) -> bool {
        true
    }

    /// Begins a call now, unless one is under way.
    fn begin(&mut self, _now: Instant) {}

    /// The call that is under way goes on at this time at the latest.
    fn hasten(&mut self, _at: Instant) {}

    /// Calls at this address, to which a datagram of `room` bytes may pass.
    fn call(&mut self, _now: Instant, _to: Path, _room: usize, _cx: &mut Context<R>) {}

    /// A host said that what was sent is too long for the path. Nobody vouches for it.
    fn handle_too_long(&mut self, _now: Instant) {}

    /// While the link is up, a host said that nobody receives at the peer's address. Nobody vouches for it.
    fn handle_refused(&mut self, _now: Instant) {}

    /// A key id of the peer's for the next hello to name.
    fn names(&self) -> Option<[u8; KEY_ID]> {
        None
    }

    /// Takes the key ids that a hello tells of; true: frames use another key from now on.
    fn handle_names(&mut self, _now: Instant, _under: KeyRef, _hello: &Hello, _out: &mut Outbox) -> bool {
        false
    }

    /// For the next hello: the own key id for which the one that it names was taken.
    fn names_pair(&self) -> Option<[u8; KEY_ID]> {
        None
    }

    /// Whether the lanes beside lane 0 have a key to send under.
    fn pairs_lanes(&self) -> bool {
        true
    }

    /// Asks whether the peer opens what is sent now, if that is open.
    fn ask_proof(&mut self, _to: Path, _cx: &mut Context<R>) {}

    /// The peer opened the ping of this number, and answers under this key.
    fn handle_pong(&mut self, _n: u32, _under: KeyRef) {}

    /// Whether the peer opens what this end sends.
    fn is_heard(&self) -> bool {
        true
    }
}

/// The keys of a link in the key mode of its settings, which begins now.
pub fn for_mode<R: Random>(
    settings: &LinkSettings,
    keys: Arc<LinkKeys>,
    statics: Statics,
    now: Now,
    cx: &mut Context<R>,
) -> Box<dyn Keying<R>> {
    match settings.key_mode {
        KeyMode::Static => Box::new(StaticKeying::new(settings, keys, now, cx)),
        // An OpenVPN peer's link is another: `core::openvpn::link`.
        KeyMode::Handshake | KeyMode::OpenVpn => {
            Box::new(Handshake::new(settings, keys, statics, now.instant, &mut cx.random))
        }
    }
}
