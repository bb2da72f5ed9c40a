//! Each kind of request by itself, without a full tunnel, with an open one and with a closed one: its worst effects, over its limit, while the parent
//! ends, with descriptors, truncated, and extended.

use super::*;
use crate::core::openvpn::admission::Kept;
use crate::privsep::door::{Kind, Rule};

/// What requests of one kind may cause, for each one admitted or in total.
struct Case {
    /// The request; the number tells it from others.
    request: fn(u64) -> ToParent,
    /// Log lines for each one admitted, including the routes that a full tunnel exchanges.
    lines: usize,
    /// Answers for each one admitted.
    answers: usize,
    /// Scripts for each one admitted.
    scripts: usize,
    /// Log lines that only the first request may cause.
    once: usize,
}

/// A new request without an entry here does not compile.
fn case(kind: Kind) -> Case {
    fn address(number: u64) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, number as u8], 1417))
    }
    let request: fn(u64) -> ToParent = match kind {
        Kind::Locked => |n| ToParent::Locked { protections: format!("lock {n}") },
        Kind::Resolve => |_| ToParent::Resolve,
        Kind::Endpoint => |n| ToParent::Endpoint(address(n).into()),
        Kind::Keep => |n| ToParent::Keep(Kept { own: n as u32, admitted: 0 }),
        Kind::Connect => |n| ToParent::Connect { lane: 0, own_port: false, remote: address(n), local: None },
        Kind::Stream => |n| ToParent::Stream { to: address(n) },
        Kind::OpenDevice => |_| ToParent::OpenDevice,
        Kind::Link => |n| match n % 2 {
            0 => ToParent::LinkUp { endpoint: address(n).into(), name: "mon".to_owned() },
            _ => ToParent::LinkDown { reason: Condition::Reconnecting, traffic: Traffic::default() },
        },
        Kind::Rerouted => |n| ToParent::Rerouted { passes: n.is_multiple_of(2) },
        Kind::PushedRoutes => |n| ToParent::PushedRoutes {
            routes: vec![
                IpNet::new(IpAddr::from([172, 16, n as u8, 0]), 24).unwrap(),
                "8.0.0.0/8".parse().unwrap(),
            ],
        },
        Kind::State => {
            |n| ToParent::State(Box::new(LinkState { budget: Some(n as u32), ..LinkState::default() }))
        }
        Kind::Traffic => |n| ToParent::Traffic(Traffic { bytes_sent: n, bytes_received: n }),
        Kind::Log => |n| ToParent::Log { level: log::Level::Info, text: format!("said {n}") },
        Kind::Trace => |n| ToParent::Log { level: log::Level::Trace, text: format!("said {n}") },
        Kind::KeyLog => |n| {
            ToParent::KeyLog(Entry::Traffic {
                way: Way::Out,
                cipher: Cipher::Aes256Gcm,
                name: Name::Slot(0),
                lane: n as u8,
                key: zeroize::Zeroizing::new([0; 32]).into(),
            })
        },
        Kind::HandshakeLog => |n| {
            ToParent::KeyLog(Entry::Handshake {
                way: Way::In,
                random: [n as u8; 16],
                key: zeroize::Zeroizing::new([0; 32]).into(),
            })
        },
        Kind::Exit => |n| ToParent::Exit { end: End::Bug, reason: format!("said {n}") },
    };
    let nothing = Case { request, lines: 0, answers: 0, scripts: 0, once: 0 };
    match kind {
        Kind::Locked => Case { once: 1, ..nothing },
        Kind::Resolve | Kind::Endpoint | Kind::Connect => Case { answers: 1, ..nothing },
        // Only remotes' addresses are connected to.
        Kind::Stream => nothing,
        // What is open already is not opened again. State, traffic and keys were not asked for. This link keeps nothing, and belongs to no bridge.
        Kind::Rerouted
        | Kind::OpenDevice
        | Kind::State
        | Kind::Traffic
        | Kind::KeyLog
        | Kind::HandshakeLog
        | Kind::Keep => nothing,
        // Up or down, the routes and rules of a full tunnel, and the script's start.
        Kind::Link => Case { lines: 12, scripts: 1, ..nothing },
        // One is set, one refused, and the previous one removed.
        Kind::PushedRoutes => Case { lines: 5, answers: 1, ..nothing },
        Kind::Log | Kind::Trace => Case { lines: 2, ..nothing },
        // Logged when the parent ends, unless it was asked to.
        Kind::Exit => nothing,
    }
}

const TUNNELS: [Option<bool>; 3] = [None, Some(false), Some(true)];

fn tunnel(closed: Option<bool>, scratch: &Scratch) -> Config {
    let mut config = config();
    config.remotes[0].host = "203.0.113.9".to_owned();
    config.accept.routes = nets("172.16.0.0/12");
    config.full_tunnel = closed.map(|closed| FullTunnel { closed, local_networks: true });
    record_every_hook(&mut config, scratch);
    config
}

/// Log lines so far, except those about tables that this test's own changes trigger.
fn lines() -> usize {
    logged("").len() - logged("the host's routes have changed").len()
}

fn hooks(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().filter(|line| line.starts_with("link-")).count()
}

/// The host's route for other traffic, and its routes and rules.
fn host() -> [String; 3] {
    [ip("route show").1, ip("rule").1, ip("route get 8.8.8.8").1]
}

/// Reads answers until no more come.
fn answers(engine: &Fake) -> Vec<ToEngine> {
    let mut answers = Vec::new();
    let mut until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        match engine.receive() {
            Ok(Some((answer, _))) => {
                answers.push(answer);
                until = Instant::now() + Duration::from_millis(300);
            }
            Ok(None) => break,
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    answers
}

fn flood_with(engine: &Fake, request: fn(u64) -> ToParent, count: usize) -> Vec<ToEngine> {
    let mut answers = Vec::new();
    let mut read = || answers.extend(engine.receive().ok().flatten().map(|(answer, _)| answer));
    for number in 0..count as u64 {
        while engine.send(&request(number), &[]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            // The parent reads on, and must be able to answer meanwhile.
            read();
        }
        read();
    }
    answers
}

#[test]
fn each_request_causes_no_more_than_its_kind_may_over_its_limit_and_while_the_parent_ends() {
    const NAME: &str =
        "each_request_causes_no_more_than_its_kind_may_over_its_limit_and_while_the_parent_ends";
    if !in_own_network(&format!("parent::tests::hostile::each::{NAME}")) {
        return;
    }
    let before = host();
    for (kind, closed) in Kind::ALL.into_iter().flat_map(|kind| TUNNELS.map(|closed| (kind, closed))) {
        let scratch = Scratch::new();
        let what = format!("{kind:?}, full tunnel closed: {closed:?}");
        let path = scratch.path().join("hooks");
        let code = Rig::new(tunnel(closed, &scratch), &scratch).run(move |engine| {
            let Case { request, lines: each_line, answers: each_answer, scripts, once } = case(kind);
            let Rule { burst, every, .. } = kind.rule();
            receive(engine);
            assert_eq!(engine.receive().unwrap().unwrap().0, ToEngine::Sources);
            engine.set_nonblocking(true).unwrap();
            let (began, way) = (Instant::now(), host());
            let before = lines();
            let count = 3 * burst as usize + 20;
            let answered = [flood_with(engine, request, count), answers(engine)].concat();
            let most = burst as usize + (began.elapsed().as_millis() / every.as_millis()) as usize + 1;
            let said = lines() - before;
            assert!(said <= most * each_line + once, "{what}: {said} lines for {count}: {:#?}", logged(""));
            assert!(answered.len() <= most * each_answer, "{what}: more than {most}: {answered:?}");
            assert!(each_answer == 0 || !answered.is_empty(), "{what}: no answer");
            let ran = hooks(&path);
            assert!(ran <= most * scripts, "{what}: {ran} scripts");
            if kind != Kind::Link && kind != Kind::PushedRoutes {
                assert_eq!(host(), way, "{what}");
            }
            // An engine that is asked to end repeats all of it instead.
            engine.set_nonblocking(false).unwrap();
            raise(signal_hook::consts::SIGTERM);
            while receive(engine).0 != ToEngine::Stop {}
            engine.set_nonblocking(true).unwrap();
            flood_with(engine, request, count);
        });
        assert_eq!(code, 0, "{kind:?} {closed:?}");
        assert_nothing_left();
        assert_eq!(host(), before, "{kind:?} {closed:?}");
    }
}

/// Every prefix of it, it with one more byte, and with descriptors.
fn misshapen(kind: Kind) -> Vec<(Vec<u8>, usize)> {
    let whole = postcard::to_stdvec(&(case(kind).request)(1)).unwrap();
    let mut all: Vec<_> = (1..whole.len()).map(|length| (whole[..length].to_vec(), 0)).collect();
    all.push(([&whole[..], &[0]].concat(), 0));
    all.extend([1, 2, 8].map(|descriptors| (whole.clone(), descriptors)));
    all
}

#[test]
fn no_request_is_taken_that_is_cut_prolonged_or_has_descriptors() {
    for kind in Kind::ALL {
        for (bytes, descriptors) in misshapen(kind) {
            let (parent, fd) = Channel::<ToEngine, ToParent>::pair().unwrap();
            send_raw(&Fake::from_fd(fd), &bytes, descriptors).unwrap();
            let refused = parent.receive().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{kind:?} {bytes:?} {descriptors}");
        }
    }
}

#[test]
fn whoever_sends_a_request_that_is_misshapen_is_ended_and_opens_nothing() {
    const NAME: &str = "whoever_sends_a_request_that_is_misshapen_is_ended_and_opens_nothing";
    if !in_own_network(&format!("parent::tests::hostile::each::{NAME}")) {
        return;
    }
    let before = host();
    for (kind, closed) in Kind::ALL.into_iter().flat_map(|kind| TUNNELS.map(|closed| (kind, closed))) {
        // The last prefix, the extended one, and those with descriptors.
        let all = misshapen(kind);
        let number = Kind::ALL.iter().position(|one| *one == kind).unwrap() + closed.map_or(0, usize::from);
        let (bytes, descriptors) = all[all.len() - 1 - number % all.len().min(5)].clone();
        let scratch = Scratch::new();
        let code = Rig::new(tunnel(closed, &scratch), &scratch).run(move |engine| {
            receive(engine);
            send_raw(engine, &bytes, descriptors).unwrap();
            while engine.receive().is_ok_and(|message| message.is_some()) {}
        });
        assert_eq!(code, BUG, "{kind:?} {closed:?}");
        let closed = closed == Some(true);
        assert_eq!(way_to("8.8.8.8", None), if closed { "none" } else { "eth0" }, "{kind:?}");
        if closed {
            // An orderly end opens what stayed closed.
            assert_eq!(
                Rig::new(tunnel(Some(true), &scratch), &scratch).run(|engine| {
                    receive(engine);
                    stop(engine);
                }),
                0
            );
        }
        assert_eq!(host(), before, "{kind:?}");
    }
}
