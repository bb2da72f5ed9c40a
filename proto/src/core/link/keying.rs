//! The sources of traffic keys. Each key mode implements [`Keying`]; only [`for_mode`] selects one.

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

/// The link's state as its keys need it.
#[derive(Clone, Copy)]
pub struct Here {
    /// Whether the link is up.
    pub up: bool,
    /// Whether there is an address to send to.
    pub can_call: bool,
    /// When the peer was last heard.
    pub heard_at: Instant,
}

/// The sender of a datagram that must be answered by a hello, no longer than it, that names its key id.
pub struct Caller {
    /// The key id to name.
    pub key_id: KeyId,
    /// The path it came by.
    pub from: Path,
    /// Its length, in bytes.
    pub room: usize,
}

/// The keys' requests to the link.
pub enum Ask {
    /// Send the peer a hello under the next key, which it answers when it has that key.
    Propose,
    /// Handle this hello. It named this end, and its key is live now.
    Take(Caller, Hello),
    /// Someone has the key, or a recording from someone who had it: present this end.
    Present(Caller),
    /// The same was answered.
    Answered(Speaker, Path),
    /// Use [`Keying::call`] with an address. `anew`: whoever answered before is gone, so there may be another. `silent`: after so
    /// long a silence, the own address may have failed.
    Call { anew: bool, silent: bool },
    /// The remote at this address is present.
    Prefer(Path),
    /// The remote `called` is present and a session with it began: send its first hello.
    Greet { called: Path, from: Path },
    /// The peer confirmed a session: send its first hello.
    GreetPeer,
    /// Report what the link suffers from.
    Say(Condition),
    /// A holder of the key at this path uses another handshake: report it, and show this end's in so much room.
    Differ {
        /// The difference.
        condition: Condition,
        /// Its path.
        from: Path,
        /// Limit in bytes of UDP payload.
        room: usize,
    },
    /// A datagram does not verify; why.
    Misfit(Condition),
    /// A datagram was dropped.
    Drop(DropReason),
}

/// A link's traffic keys in one key mode. The defaults suit modes without the feature.
pub trait Keying<R: Random>: Send {
    /// When something is due.
    fn poll_timeout(&self, here: Here) -> Option<Instant>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Now, here: Here, cx: &mut Context<R>) -> Option<Ask>;

    /// Handles a lane's notice about keys: [`Notice::Unknown`], [`Notice::Handshake`] or [`Notice::Confirmed`].
    fn handle_notice(&mut self, now: Now, here: Here, notice: Notice, cx: &mut Context<R>) -> Option<Ask>;

    /// The current key is nearly used up.
    fn renew(&mut self, now: Instant);

    /// Drops every key of both directions by [`Command::wipe_all`](crate::core::lane::Command::wipe_all); until then a lane that found
    /// itself a copy takes none.
    fn replace(&mut self, now: Now, cx: &mut Context<R>);

    /// The link is down; the peer was last heard at `heard_at`.
    fn end(&mut self, heard_at: Instant, cx: &mut Context<R>);

    /// Whether input under this key may end the link: it is from the link's peer, and from its present process.
    fn is_of_peer(&self, under: KeyRef) -> bool;

    /// The peer's process that uses this key; `proves`: its message cannot be a recording.
    fn speaker(&self, under: KeyRef, proves: bool) -> Option<Speaker>;

    /// Age and cipher of the key for frames.
    fn current(&self, now: Instant) -> Option<(Duration, Cipher)>;

    /// The key mode of a peer that has this key but uses the other mode.
    fn other_mode(&self) -> KeyMode;

    /// Shows a caller in the other key mode which one this is, in no more bytes than it sent.
    fn give_sign(&self, to: Path, length: usize, cx: &mut Context<R>);

    /// Whether hellos call the peer, rather than [`Ask::Call`].
    fn calls_by_hello(&self) -> bool;

    /// Whether there are keys to send a control message under.
    fn has_keys(&self) -> bool {
        true
    }

    /// Begins a call now, unless one is in progress.
    fn begin(&mut self, _now: Instant) {}

    /// The call in progress continues no later than this.
    fn hasten(&mut self, _at: Instant) {}

    /// Calls this address; datagrams of `room` bytes may pass.
    fn call(&mut self, _now: Instant, _to: Path, _room: usize, _cx: &mut Context<R>) {}

    /// An unauthenticated message from a host: a datagram was too long for the path.
    fn handle_too_long(&mut self, _now: Instant) {}

    /// While the link is up, an unauthenticated message from a host: nobody receives at the peer's address.
    fn handle_refused(&mut self, _now: Instant) {}

    /// The peer's key id for the next hello to name, and the own one for which it was taken.
    fn names(&self) -> [Option<[u8; KEY_ID]>; 2] {
        [None; 2]
    }

    /// Handles the key ids in a hello; true if frames now use another key.
    fn handle_names(&mut self, _now: Instant, _under: KeyRef, _hello: &Hello, _out: &mut Outbox) -> bool {
        false
    }

    /// Whether lanes other than 0 have a sending key.
    fn pairs_lanes(&self) -> bool {
        true
    }

    /// Asks whether the peer opens what is sent now, unless known.
    fn ask_proof(&mut self, _to: Path, _cx: &mut Context<R>) {}

    /// The peer opened this ping, and answers under this key.
    fn handle_pong(&mut self, _n: u32, _under: KeyRef) {}

    /// Whether the peer opens what this end sends.
    fn is_heard(&self) -> bool {
        true
    }

    /// What the keys suffer from while the link is up.
    fn condition(&self) -> Option<&Condition> {
        None
    }
}

/// Makes the keys of a new link in the key mode of its settings.
pub fn for_mode<R: Random>(
    settings: &LinkSettings,
    keys: Arc<LinkKeys>,
    statics: Statics,
    now: Now,
    cx: &mut Context<R>,
) -> Box<dyn Keying<R>> {
    match settings.key_mode {
        KeyMode::Static => Box::new(StaticKeying::new(settings, keys, now, cx)),
        // An OpenVPN peer has another kind of link: `core::openvpn::link`.
        KeyMode::Handshake | KeyMode::OpenVpn => {
            Box::new(Handshake::new(settings, keys, statics, now.instant, &mut cx.random))
        }
    }
}
