//! The link's timers. Each is computed from the part that it belongs to, so that none outlives a change of that.

use std::time::Instant;

use super::phase::Phase;
use super::{Event, Link};
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::limits::RESOLVE;
use crate::crypto::Random;

/// When it is due, and its action.
pub(super) struct Timer<R> {
    pub due: fn(&Link<R>) -> Option<Instant>,
    pub fire: fn(&mut Link<R>, Now),
}

impl<R: Random> Link<R> {
    /// In firing order.
    pub(super) const TIMERS: [Timer<R>; 11] = [
        Self::KEYS,
        Self::SILENCE,
        Self::RESOLVE,
        Self::HELLO,
        Self::ANSWER,
        Self::VALIDATION,
        Self::CARRIER,
        Self::PROBE,
        Self::LOOPS,
        Self::LANES,
        Self::REPEAT,
    ];

    /// Armed by the keys: replaces an own key, wipes a key of the peer, or begins or repeats a call.
    const KEYS: Timer<R> =
        Timer { due: |link| link.keying.poll_timeout(link.here()), fire: Self::handle_keys_timeout };

    /// Armed while the link is up, reset by anything heard: takes the link down.
    const SILENCE: Timer<R> = Timer {
        due: |link| link.is_up().then(|| link.liveness.heard_at() + link.settings.keepalive.timeout),
        fire: |link, now| {
            let silence = link.settings.keepalive.timeout;
            link.go_down(now.instant, Condition::PeerSilent { silence });
        },
    };

    /// Armed with a remote while the link is not up, at once and then each [`RESOLVE`]: looks up names.
    const RESOLVE: Timer<R> = Timer {
        due: |link| link.phase.resolve_at(),
        fire: |link, now| {
            link.phase.look_up(Some(now.instant + RESOLVE));
            link.cx.out.events.push_back(Event::Resolve);
        },
    };

    /// Armed while there is someone to greet, except an idle peer: sends a hello, as keepalive or call.
    const HELLO: Timer<R> = Timer {
        due: |link| link.target().filter(|_| link.phase != Phase::Dormant).map(|_| link.remotes.due),
        fire: |link, now| link.repeat_hello(now.instant),
    };

    /// Armed by a request for this end's hello just after another: sends the hello.
    const ANSWER: Timer<R> =
        Timer { due: |link| link.greeting.poll_timeout(), fire: |link, now| link.answer_hello(now.instant) };

    /// Armed by a path validation: moves the link to the new path, or gives up.
    const VALIDATION: Timer<R> = Timer {
        due: |link| link.path.validation_timeout(),
        fire: |link, now| {
            if let Some(new) = link.path.handle_validation_timeout(now.instant) {
                link.follow(now.instant, new);
            }
        },
    };

    /// Armed while the link is up and could change to a stream, or back from one: asks the peer for a word, or tries the other
    /// carrier.
    const CARRIER: Timer<R> = Timer {
        due: |link| link.carriers_timeout(),
        fire: |link, now| link.handle_carriers_timeout(now.instant),
    };

    /// Armed while the link is up, unless the budget is configured or a stream's: sends a round of probes, or counts it as lost.
    const PROBE: Timer<R> = Timer {
        due: |link| link.path.probe_timeout().filter(|_| link.is_up()),
        fire: |link, now| link.probe(now.instant),
    };

    /// Armed while the link is up, with loop detection: sends a round of the guard's probes.
    const LOOPS: Timer<R> = Timer {
        due: |link| link.loops.poll_timeout(),
        fire: |link, now| {
            let acts = link.loops.handle_timeout(now.instant, &mut link.cx.random);
            link.act_on_loops(now.instant, acts);
        },
    };

    /// Armed while several lanes are in use, for each with an own way, or about to get one: asks the peer along it.
    const LANES: Timer<R> = Timer {
        due: |link| link.lanes.poll_timeout(),
        fire: |link, now| link.handle_lanes_timeout(now.instant),
    };

    /// Armed by what the link waits for or suffers from: logs it again.
    const REPEAT: Timer<R> = Timer {
        due: |link| link.notices.poll_timeout(),
        fire: |link, now| link.notices.handle_timeout(now.instant, &mut link.cx.out),
    };
}
