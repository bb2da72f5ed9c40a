//! From the parent's first message to a running engine: derives keys, enters the sandbox, starts threads.

#![allow(clippy::disallowed_methods, reason = "the link begins with the time")]

use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;

use log::Level;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::config::Upgrade;
use crate::core::bulk;
use crate::core::condition::spells::Spells;
use crate::core::control::Control;
use crate::core::idle_timeout::IdleTimeout;
use crate::core::keylog::Entry;
use crate::core::lane::{self, Report};
use crate::core::link::Link;
use crate::core::openvpn;
use crate::core::settings::MAX_TEXT;
use crate::core::stats::Stats;
use crate::crypto::Random;
use crate::crypto::cbc_hmac::KEY;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
use crate::crypto::stack::cleanly;
use crate::crypto::suite;
use crate::engine::ending::{Ending, no_thread};
use crate::engine::peer_socket::PeerSocket;
use crate::engine::worker::workers;
use crate::engine::{Engine, NOTICES, Parent, ciphers};
use crate::packet::layer::Mode;
use crate::privsep::message::{End, OpenVpnKeys, Start, ToEngine, ToParent};
use crate::privsep::sandbox::{self, LockError};
use crate::privsep::spawn::{Role, inherited};
use crate::report;
use crate::report::exit::{self, BUG};
use crate::sys;
use crate::sys::clock::now;
use crate::sys::memory;
use crate::sys::random::Os;
use crate::transport::udp::Socket;
use crate::wire::control::MAX_LANES;

/// Runs the engine; descriptor 0 is the channel to the parent.
pub fn main() -> ExitCode {
    // If it fails, the parent has said so.
    let _ = memory::lock(false);
    let Ok(parent): std::io::Result<Arc<Parent>> = inherited().map(Arc::new) else {
        return ExitCode::from(BUG);
    };
    let Ok(Some((ToEngine::Start(start), descriptors))) = cleanly(|| parent.receive()) else {
        return ExitCode::from(BUG);
    };
    let sink = parent.clone();
    let to_parent = move |level: Level, text: &str| {
        let mut text = text.to_owned();
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        // Logging never blocks: if the channel is full, the line is lost.
        let _ = sink.send(&ToParent::Log { level, text }, &[]);
    };
    report::log::init(start.link.verb, Box::new(to_parent));
    panic::set_hook(Box::new(|info| log::error!("{}", exit::bug(info))));
    if let Err(error) = sys::set_sched_batch() {
        log::debug!("note: the scheduling policy stays as it is: {error}");
    }
    let ending = run(&parent, *start, descriptors).unwrap_or_else(|ending| ending);
    let end = ending.end;
    let _ = parent.send(&ToParent::Exit { end, reason: ending.reason }, &[]);
    ExitCode::from(exit::code(end))
}

fn run(parent: &Arc<Parent>, start: Start, descriptors: Vec<OwnedFd>) -> Result<Ending, Ending> {
    ciphers::choose_libraries();
    let derived = derive(&start);
    let protections = lock(&start)?;
    let mut descriptors = descriptors.into_iter();
    let socket = descriptors.next().ok_or_else(|| Ending::failed("the parent passed no socket"))?;
    let socket =
        if start.link.activated { Socket::without_error_queue(socket) } else { Socket::from_fd(socket) };
    let socket = socket.map_err(|error| Ending::refused("set the UDP socket's options", &error))?;
    parent.set_nonblocking(true).map_err(Ending::failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Ending::refused("wait for events (epoll, eventfd)", &error))?;
    runtime.block_on(async {
        let tap = start.link.mode == Mode::Tap;
        let engine = Engine::start(parent, start, derived, socket, descriptors.collect())?;
        engine.tell(&ToParent::Locked { protections })?;
        if let Some(settings) = &engine.logged {
            cleanly(|| engine.tell(&ToParent::KeyLog(Entry::link(settings, tap))))?;
        }
        engine.serve().await
    })
}

/// The derived keys of the link.
struct Derived {
    keys: Arc<LinkKeys>,
    statics: Statics,
    openvpn: Option<Arc<openvpn::lane::Secrets>>,
}

/// Derives the link's keys and locks only them in memory: a limit too low for the whole engine allows that.
fn derive(start: &Start) -> Derived {
    let mut held = memory::hold_alone(&*start.keys);
    let (keys, statics) = start.keys.derive();
    held = held.and(memory::hold_alone(&*keys));
    if let Statics::Pair { private, .. } = &statics {
        held = held.and(memory::hold_alone(&**private));
    }
    let openvpn = start.keys.openvpn.as_ref().map(openvpn_secrets);
    if let Some(secrets) = &openvpn {
        held = held.and(memory::hold_alone(&**secrets));
    }
    if let Err(error) = held {
        log::info!("note: the link's keys may end up in swap space: {error}");
    }
    Derived { keys, statics, openvpn }
}

fn lock(start: &Start) -> Result<String, Ending> {
    let protections = sandbox::lock(Role::Engine, &start.confinement).map_err(|error| Ending {
        end: if matches!(error, LockError::Missing(_)) { End::Unavailable } else { End::Failed },
        reason: error.to_string(),
    })?;
    for missing in &protections.missing {
        log::warn!("warning: this host lacks {missing}; tund runs without");
    }
    Ok(protections.in_force)
}

impl Engine {
    fn start(
        parent: &Arc<Parent>,
        start: Start,
        Derived { keys, statics, openvpn: secrets }: Derived,
        socket: Socket,
        devices: Vec<OwnedFd>,
    ) -> Result<Self, Ending> {
        let mut settings = start.link.clone();
        suite::prefer_hardware(&mut settings.suites);
        let (data_path, key_log, sandbox) = (start.data_path, start.key_log, start.confinement.sandbox);
        let kept = start.kept;
        drop(start);
        let (sender, notices) = mpsc::channel(NOTICES);
        let (unproven_sender, unproven) = mpsc::channel(NOTICES);
        let (has_device, lanes) = (!devices.is_empty(), settings.lanes);
        let lane = lane::Settings::new(&settings, keys.clone(), data_path.copy_dscp);
        let openvpn = secrets.and_then(|it| openvpn::lane::Settings::new(&settings, it, data_path.copy_dscp));
        let upgrade = settings.openvpn.as_ref().map_or(Upgrade::Off, |wire| wire.upgrade);
        let bulk = bulk::Settings::new(lane.clone(), openvpn, upgrade);
        let channels = (sender, unproven_sender);
        let (workers, handle) = workers(&bulk, data_path, lanes, socket, devices, channels)
            .map_err(|error| Ending::refused("prepare the workers", &error))?;
        for worker in workers {
            let thread = std::thread::Builder::new().name(worker.name());
            let started = thread.spawn(move || worker.run());
            started.map_err(|error| no_thread(&error))?;
        }
        let letters = settings.verb >= 5;
        let began = now();
        let patience =
            settings.activated.then(|| IdleTimeout::new(began.instant, settings.keepalive.idle_exit));
        let link: Box<dyn Control> = match openvpn::link::Link::new(settings.clone(), kept, began, Os) {
            Some(link) if upgrade == Upgrade::Off => Box::new(link),
            Some(link) => Box::new(openvpn::link::upgrade::Link::new(link, keys, upgrade, Os)),
            None => Box::new(Link::new(settings, keys, statics, began, Os)),
        };
        let ready = watch(parent).map_err(Ending::failed)?;
        sandbox::start_no_more(sandbox).map_err(Ending::failed)?;
        Ok(Self {
            parent: parent.clone(),
            ready,
            link,
            has_device,
            reports: vec![Report::default(); handle.count()],
            worker: handle,
            peer_socket: PeerSocket::default(),
            notices,
            unproven,
            lane_ways: [None; MAX_LANES as usize],
            stats: Stats::default(),
            ask_at: None,
            letters,
            lanes,
            wanted: None,
            patience,
            logged: key_log.then_some(lane),
            unsent: None,
            spells: Spells::default(),
        })
    }
}

/// What is used of an OpenVPN peer's key file, and the mark on this process's datagrams.
fn openvpn_secrets(keys: &OpenVpnKeys) -> Arc<openvpn::lane::Secrets> {
    cleanly(|| {
        let mut key = Zeroizing::new([0; KEY]);
        key.copy_from_slice(keys.file.as_flattened());
        Arc::new(openvpn::lane::Secrets { key, check: keys.check, draw: Os.bytes() })
    })
}

/// To the runtime, the channel is a datagram socket, whose polling is the same.
fn watch(parent: &Parent) -> std::io::Result<UnixDatagram> {
    UnixDatagram::from_std(parent.as_fd().try_clone_to_owned()?.into())
}
