//! What the link tells about itself, and what it is asked to do.

use std::time::Instant;

use ipnet::IpNet;

use super::{Keying, Link};
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::lane::ReceiveCommand;
use crate::core::settings::LinkSettings;
use crate::core::settings::LinkState;
use crate::core::sources::Sources;
use crate::core::stats::Stats;
use crate::crypto::{Random, aead};
use crate::wire::control::Message;

impl<R: Random> Link<R> {
    /// How the link is; `lanes` is what its lanes counted.
    pub fn state(&self, now: Instant, lanes: &Stats) -> LinkState {
        let keys_age = match &self.keying {
            Keying::Static(keying) => Some(keying.keys.age(now)),
            Keying::Handshake(sessions) => {
                sessions.sending_since().map(|born| now.saturating_duration_since(born))
            }
        };
        let cipher = match &self.keying {
            Keying::Static(_) => Some(self.settings.cipher),
            Keying::Handshake(sessions) => sessions.sending_cipher(),
        };
        LinkState {
            problem: self.problem(now).cloned(),
            peer: self.peer.as_ref().map(|peer| peer.name.clone()),
            keys_age: keys_age.filter(|_| self.up),
            sealed: cipher.filter(|_| self.up).map(|cipher| (cipher, aead::chosen(cipher))),
            rtt: self.pmtud.rtt().filter(|_| self.up),
            budget: self.passes().and_then(|passes| u32::try_from(passes).ok()).filter(|_| self.up),
            stats: lanes.plus(&self.stats),
        }
    }

    /// What is wrong; while the link is up that is little.
    fn problem(&self, now: Instant) -> Option<&Condition> {
        let said = self.said.back().map(|said| &said.condition).filter(|_| !self.up);
        self.cloned(now).or(said)
    }

    /// Goes on with other settings. Keys, device and framing are those of the start: other ones take another link.
    pub fn handle_settings(&mut self, now: Now, settings: LinkSettings) {
        let LinkSettings { float, keepalive, push, only_routed, has_remote, verb, activated, .. } = settings;
        let other_sources = self.settings.only_routed != only_routed;
        let other_offer = self.settings.push != push;
        let old = self.settings.clone();
        self.settings =
            LinkSettings { float, keepalive, push, only_routed, has_remote, verb, activated, ..old };
        if other_sources {
            self.tell_sources();
        }
        if other_offer
            && self.up
            && let Some(endpoint) = self.endpoint
        {
            self.send_hello(endpoint);
        }
        self.schedule_hello(now.instant);
    }

    /// These sources are the peer's where [`LinkSettings::only_routed`] says that they are limited; before, none are.
    pub fn handle_sources(&mut self, sources: Sources) {
        if self.sources != sources {
            self.sources = sources;
            self.tell_sources();
        }
    }

    /// These of the peer's routes are set on this host: sources within them are the peer's.
    pub fn handle_taken(&mut self, routes: Vec<IpNet>) {
        if self.taken != routes {
            self.taken = routes;
            self.tell_sources();
        }
    }

    /// Tells the lane which inner source addresses are the peer's.
    pub(super) fn tell_sources(&mut self) {
        let sources = self.settings.only_routed.then(|| self.sources.with(&self.taken));
        self.commands.push_back(ReceiveCommand::Sources(sources).into());
    }

    /// New traffic keys now, as if the old ones were used up.
    pub fn handle_rekey(&mut self, now: Now) {
        self.renew_keys(now.instant);
    }

    /// Begins anew: names are looked up, and nothing that was agreed counts any more. An end that cannot call asks
    /// the peer for a call by its goodbye; one that can says none, since that could overtake the new call.
    pub fn handle_reconnect(&mut self, now: Now) {
        if self.up {
            if let Some(endpoint) = self.endpoint.filter(|_| !self.settings.has_remote) {
                self.send(Message::Bye { reason: "connecting again".into() }, endpoint);
            }
            self.go_down(now.instant, Condition::Reconnecting);
        } else {
            self.dormant = false;
            self.remotes.forget(now.instant);
            self.forget_sessions(now.instant);
            self.resolve_at = self.settings.has_remote.then_some(now.instant);
        }
    }
}
