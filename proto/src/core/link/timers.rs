//! What the link waits for. Each timer is computed from the part that it belongs to, so that none runs on after that has changed.

use std::time::Instant;

use super::phase::Phase;
use super::{Event, Link};
use crate::core::clock::Now;
use crate::core::condition::Condition;
use crate::core::limits::RESOLVE;
use crate::crypto::Random;

/// When it is due, and what it does then.
pub(super) struct Timer<R> {
    pub due: fn(&Link<R>) -> Option<Instant>,
    pub fire: fn(&mut Link<R>, Now),
}

impl<R: Random> Link<R> {
    /// In the order in which they fire.
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

    /// Armed by the keys: an own key to be replaced, a key of the peer's to be wiped, a call to be begun or repeated.
    const KEYS: Timer<R> =
        Timer { due: |link| link.keying.poll_timeout(link.here()), fire: Self::handle_keys_timeout };

    /// Armed while the link is up, anew by whatever is heard: the link goes down.
    const SILENCE: Timer<R> = Timer {
        due: |link| link.is_up().then(|| link.liveness.heard_at() + link.settings.keepalive.timeout),
        fire: |link, now| {
            let silence = link.settings.keepalive.timeout;
            link.go_down(now.instant, Condition::PeerSilent { silence });
        },
    };

    /// Armed while the link is not up, at once and then each [`RESOLVE`], where there is a remote: its names are looked up.
    const RESOLVE: Timer<R> = Timer {
        due: |link| link.phase.resolve_at(),
        fire: |link, now| {
            link.phase.look_up(Some(now.instant + RESOLVE));
            link.cx.out.events.push_back(Event::Resolve);
        },
    };

    /// Armed while there is somebody to say hello to, except a peer that is idle: hello, as a keepalive or as a call.
    const HELLO: Timer<R> = Timer {
        due: |link| link.target().filter(|_| link.phase != Phase::Dormant).map(|_| link.remotes.due),
        fire: |link, now| link.repeat_hello(now.instant),
    };

    /// Armed by a hello that asks for this end's just after another one did: this end's hello.
    const ANSWER: Timer<R> =
        Timer { due: |link| link.greeting.poll_timeout(), fire: |link, now| link.answer_hello(now.instant) };

    /// Armed by a path validation: it moves the link to the new path, or is given up.
    const VALIDATION: Timer<R> = Timer {
        due: |link| link.path.validation_timeout(),
        fire: |link, now| {
            if let Some(new) = link.path.handle_validation_timeout(now.instant) {
                link.follow(now.instant, new);
            }
        },
    };

    /// Armed while the link is up and could go on over a stream, or without the one it has: the peer is asked for a word, or the other
    /// way tried.
    const CARRIER: Timer<R> = Timer {
        due: |link| link.carriers_timeout(),
        fire: |link, now| link.handle_carriers_timeout(now.instant),
    };

    /// Armed while the link is up, unless the budget is configured or a stream's: a round of probes is sent, or counted as lost.
    const PROBE: Timer<R> = Timer {
        due: |link| link.path.probe_timeout().filter(|_| link.is_up()),
        fire: |link, now| link.probe(now.instant),
    };

    /// Armed while the link is up, where loops are looked for: a round of the guard's probes.
    const LOOPS: Timer<R> = Timer {
        due: |link| link.loops.poll_timeout(),
        fire: |link, now| {
            let acts = link.loops.handle_timeout(now.instant, &mut link.cx.random);
            link.act_on_loops(now.instant, acts);
        },
    };

    /// Armed while several lanes are in use, for each that has a way of its own or is to get one: the peer is asked along it.
    const LANES: Timer<R> = Timer {
        due: |link| link.lanes.poll_timeout(),
        fire: |link, now| link.handle_lanes_timeout(now.instant),
    };

    /// Armed by what the link waits for or suffers from: that is logged again.
    const REPEAT: Timer<R> = Timer {
        due: |link| link.notices.poll_timeout(),
        fire: |link, now| link.notices.handle_timeout(now.instant, &mut link.cx.out),
    };
}
