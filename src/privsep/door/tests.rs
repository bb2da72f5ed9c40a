//! Tests of the door with a simulated clock.
#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use std::net::SocketAddr;
use std::time::Duration;

use log::Level;

use super::*;
use crate::core::condition::Condition;
use crate::core::keylog::{Entry, Name, Way};
use crate::core::openvpn::admission::Kept;
use crate::core::path::Path;
use crate::core::settings::LinkState;
use crate::core::settings::Traffic;
use crate::crypto::suite::Cipher;
use crate::privsep::message::End;

/// One request of each kind; the number tells it from others of its kind.
fn request(kind: Kind, number: u64) -> ToParent {
    let remote = SocketAddr::from(([10, 0, 0, 9], number as u16));
    let endpoint = Path::from(remote);
    let traffic = Traffic { bytes_sent: number, bytes_received: 0 };
    let log = |level| ToParent::Log { level, text: number.to_string() };
    match kind {
        Kind::Locked => ToParent::Locked { protections: number.to_string() },
        Kind::Keep => ToParent::Keep(Kept { own: number as u32, admitted: 0 }),
        Kind::Resolve => ToParent::Resolve,
        Kind::Endpoint => ToParent::Endpoint(endpoint),
        Kind::Connect => ToParent::Connect { lane: 0, own_port: false, remote, local: None },
        Kind::Stream => ToParent::Stream { to: remote },
        Kind::OpenDevice => ToParent::OpenDevice,
        Kind::Link if number.is_multiple_of(2) => ToParent::LinkUp { endpoint, name: String::new() },
        Kind::Link => {
            ToParent::LinkDown { reason: Condition::PeerGoodbye { reason: number.to_string() }, traffic }
        }
        Kind::Rerouted => ToParent::Rerouted { passes: number.is_multiple_of(2) },
        Kind::PushedRoutes => {
            ToParent::PushedRoutes { routes: vec!["10.0.0.0/8".parse().unwrap(); number as usize % 7] }
        }
        Kind::State => {
            ToParent::State(Box::new(LinkState { budget: Some(number as u32), ..LinkState::default() }))
        }
        Kind::Traffic => ToParent::Traffic(traffic),
        Kind::Log => log(Level::Debug),
        Kind::Trace => log(Level::Trace),
        Kind::KeyLog => ToParent::KeyLog(Entry::Traffic {
            way: Way::Out,
            cipher: Cipher::Aes256Gcm,
            name: Name::Slot(0),
            lane: number as u8,
            key: zeroize::Zeroizing::new([0; 32]).into(),
        }),
        Kind::HandshakeLog => ToParent::KeyLog(Entry::Handshake {
            way: Way::In,
            random: [number as u8; 16],
            key: zeroize::Zeroizing::new([0; 32]).into(),
        }),
        Kind::Exit => ToParent::Exit { end: End::Failed, reason: number.to_string() },
    }
}

#[test]
fn each_kind_has_its_place_and_its_request() {
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, number);
        assert_eq!(Kind::of(&request(kind, 0)), kind);
        assert_eq!(Kind::of(&request(kind, 1)), kind);
    }
}

#[test]
fn no_kind_is_let_in_beyond_its_limit_and_the_last_word_counts() {
    for kind in Kind::ALL {
        let Rule { burst, every, over } = kind.rule();
        assert!(!every.is_zero() && burst >= 1, "{kind:?}");
        let start = Instant::now();
        let mut door = Door::default();
        let (mut let_in, mut last, mut dropped) = (0_u32, None, 0);
        let mut at = start;
        for number in 0..20_000 {
            at = start + Duration::from_millis(number);
            match door.handle(at, request(kind, number)) {
                Verdict::Do { message, dropped: before } => {
                    (let_in, dropped, last) = (let_in + 1, dropped + before, Some(message));
                }
                Verdict::Nothing => {}
            }
            while let Some(message) = door.poll(at) {
                (let_in, last) = (let_in + 1, Some(message));
            }
        }
        assert!(
            u128::from(let_in) <= u128::from(burst) + 20_000 / every.as_millis() + 1,
            "{kind:?}: {let_in}"
        );
        match over {
            Over::Waits => {
                if let Some(due) = door.poll_timeout(at) {
                    assert!(due <= at + Duration::from_secs(20), "{kind:?}");
                    last = door.poll(due);
                }
                assert_eq!(last, Some(request(kind, 19_999)), "{kind:?}");
            }
            Over::Dropped => {
                at += Duration::from_secs(60);
                let Verdict::Do { dropped: rest, .. } = door.handle(at, request(kind, 0)) else {
                    panic!("{kind:?}")
                };
                assert_eq!(u64::from(let_in) + dropped + rest, 20_000, "{kind:?}");
            }
        }
        assert_eq!(door.poll_timeout(at + Duration::from_secs(60)), None, "{kind:?}");
    }
}

#[test]
fn of_what_waits_for_an_engine_that_is_gone_only_totals_are_left() {
    let now = Instant::now();
    let mut door = Door::default();
    for kind in Kind::ALL {
        (0..1000).for_each(|number| drop(door.handle(now, request(kind, number))));
    }
    assert_eq!(door.close(), Some(request(Kind::Traffic, 999)));
    assert_eq!((door.poll_timeout(now), door.poll(now + Duration::from_secs(99))), (None, None));
}

#[test]
fn of_sockets_the_last_word_for_each_lane_counts() {
    let now = Instant::now();
    let mut door = Door::default();
    let request = |lane, port| ToParent::Connect {
        lane,
        own_port: lane > 0,
        remote: SocketAddr::from(([10, 0, 0, 9], port)),
        local: None,
    };
    while door.poll_timeout(now).is_none() {
        door.handle(now, request(0, 1));
    }
    for (lane, port) in [(2, 1), (1, 1), (2, 2), (0, 2)] {
        assert_eq!(door.handle(now, request(lane, port)), Verdict::Nothing);
    }
    let due = |door: &Door| door.poll_timeout(now + Duration::from_secs(60));
    let mut let_in = Vec::new();
    while let Some(at) = due(&door) {
        let_in.extend(door.poll(at));
    }
    assert_eq!(let_in, [request(0, 2), request(1, 1), request(2, 2)]);
}

#[test]
fn more_routes_than_fit_are_no_offer() {
    let now = Instant::now();
    let routes = vec!["10.0.0.0/8".parse().unwrap(); MAX_ACCEPTED + 1];
    let verdict = Door::default().handle(now, ToParent::PushedRoutes { routes });
    assert_eq!(verdict, Verdict::Nothing);
}
