//! Streams: connections to remotes. The parent starts them and hands them over; it neither blocks on them nor reads them. What a proxy says first,
//! [`crate::helper::proxy`] reads.
#![allow(clippy::disallowed_methods, reason = "a connection has a time limit")]

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::SockRef;

use crate::config::Config;
use crate::core::path::Path;
use crate::helper::proxy::{Asking, Question, Trouble};
use crate::helper::zone;
use crate::parent::start::one_line;
use crate::parent::{Link, Parent};
use crate::preflight;
use crate::privsep::message::ToEngine;
use crate::sys::ready;
use crate::transport::stream;
use crate::wire::proxy::Credentials;

/// How long a connection may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Most connections in progress.
const MOST: usize = 4;

/// The connections in progress.
#[derive(Default)]
pub(super) struct Streams {
    /// The remotes' addresses: the engine may name no other.
    allowed: Vec<SocketAddr>,
    pending: Vec<Pending>,
    /// Why the proxy last gave no connection.
    trouble: Option<Trouble>,
    /// Failed connections to the proxy: the next attempt uses another of its addresses.
    failed: usize,
    /// The last failure that was logged.
    said: Option<String>,
}

struct Pending {
    to: SocketAddr,
    stage: Stage,
    due: Instant,
}

/// The progress of a connection.
enum Stage {
    /// To the peer, or to its proxy.
    Connecting(OwnedFd),
    /// The proxy is being asked.
    Asking(Asking),
}

impl Streams {
    /// Restricts connections to these from now on.
    pub fn allow(&mut self, remotes: &[Path]) {
        self.allowed = remotes.iter().filter(|path| path.stream).map(|path| path.remote).collect();
    }

    /// Why the proxy gave no connection, if the last attempt failed so.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The proxy may have changed.
    pub fn forget_trouble(&mut self) {
        (self.trouble, self.said) = (None, None);
        self.pending.clear();
    }

    /// The descriptors to poll, and for which events.
    pub fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.pending.iter().map(|pending| match &pending.stage {
            Stage::Connecting(socket) => (socket.as_fd(), PollFlags::OUT),
            Stage::Asking(asking) => (asking.as_fd(), PollFlags::IN),
        })
    }

    /// When a connection times out.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// A finished connection: its remote, whether the proxy was asked for it, and the result.
    fn poll(&mut self, now: Instant) -> Option<(SocketAddr, bool, Result<OwnedFd, Trouble>)> {
        for index in 0..self.pending.len() {
            let Pending { to, stage, due } = self.pending.get(index)?;
            let (to, late) = (*to, *due <= now);
            let asked = matches!(stage, Stage::Asking(_));
            let result = match stage {
                Stage::Connecting(socket) => {
                    let done = ready(socket, PollFlags::OUT, Duration::ZERO).unwrap_or(false);
                    done.then(|| connected(socket))
                }
                Stage::Asking(asking) => asking.poll(),
            };
            let silent = || Trouble::Unreachable(format!("no answer in {} s", LIMIT.as_secs()));
            if let Some(result) = result.or_else(|| late.then(|| Err(silent()))) {
                self.pending.remove(index);
                return Some((to, asked, result));
            }
        }
        None
    }
}

fn connected(socket: &OwnedFd) -> Result<OwnedFd, Trouble> {
    match SockRef::from(socket).take_error()? {
        None => Ok(socket.try_clone()?),
        Some(error) => Err(error.into()),
    }
}

impl Parent {
    /// Starts a connection for the engine.
    pub(super) fn connect_stream(&mut self, to: SocketAddr) {
        let begun = self.streams.pending.iter().any(|pending| pending.to == to);
        if begun || self.streams.pending.len() >= MOST || !self.streams.allowed.contains(&to) {
            return;
        }
        let now = Instant::now();
        let hop = match &self.link.config.proxy {
            None => Some(to),
            Some(_) => {
                let proxies = self.resolver.proxies(now);
                proxies.get(self.streams.failed.checked_rem(proxies.len()).unwrap_or(0)).copied()
            }
        };
        let Some(hop) = hop else {
            let unknown = "its name is not resolved yet".to_owned();
            return self.fail_stream(to, Trouble::Unreachable(unknown));
        };
        match stream::connect(&self.link.config, hop) {
            Ok(socket) => {
                let stage = Stage::Connecting(socket);
                self.streams.pending.push(Pending { to, stage, due: now + LIMIT });
            }
            Err(error) => self.fail_stream(to, error.into()),
        }
    }

    /// Hands over a connected socket, or has the proxy asked first.
    pub(super) fn serve_streams(&mut self) {
        while let Some((to, asked, result)) = self.streams.poll(Instant::now()) {
            match (result, &self.engine) {
                (Ok(socket), Some(_)) if self.link.config.proxy.is_some() && !asked => {
                    if let Err(trouble) = self.ask_proxy(to, socket) {
                        self.fail_stream(to, trouble);
                    }
                }
                (Ok(socket), Some(_)) => {
                    (self.streams.said, self.streams.trouble) = (None, None);
                    self.hand_over(&ToEngine::Stream { to }, &[socket.as_fd()]);
                }
                (Ok(_), None) => {}
                (Err(trouble), _) => self.fail_stream(to, trouble),
            }
        }
    }

    fn ask_proxy(&mut self, to: SocketAddr, socket: OwnedFd) -> Result<(), Trouble> {
        let Link { config, confinement, options, .. } = &self.link;
        let Some(proxy) = &config.proxy else { return Ok(()) };
        let credentials = proxy_credentials(config, options.allow_open_keys)?;
        let question = Question { confinement: confinement.clone(), kind: proxy.kind, to, credentials };
        let asking = Asking::start(&question, socket)
            .map_err(|error| Trouble::Unreachable(format!("it cannot be asked: {error}")))?;
        let due = Instant::now() + LIMIT;
        self.streams.pending.push(Pending { to, stage: Stage::Asking(asking), due });
        Ok(())
    }

    /// Reports a failure; the engine retries.
    fn fail_stream(&mut self, to: SocketAddr, trouble: Trouble) {
        let place = zone::named_path(Path::stream(to));
        let streams = &mut self.streams;
        let text = match (&self.link.config.proxy, &trouble) {
            (Some(proxy), _) => {
                streams.failed = streams.failed.wrapping_add(1);
                format!("cannot connect to {place} through {proxy}: {trouble} [{}]", trouble.code())
            }
            (None, Trouble::Unreachable(why)) => format!("cannot connect to {place}: {why}"),
            (None, Trouble::Refused(_) | Trouble::NoPassword(_)) => {
                format!("cannot connect to {place}: {trouble}")
            }
        };
        streams.trouble = self.link.config.proxy.is_some().then_some(trouble);
        if streams.said.as_ref() != Some(&text) {
            log::warn!("{text}");
            streams.said = Some(text);
        }
        self.answer(&ToEngine::Stream { to });
    }
}

/// The proxy credentials; rereads the password.
pub(crate) fn proxy_credentials(
    config: &Config,
    allow_open_keys: bool,
) -> Result<Option<Credentials>, Trouble> {
    let Some(user) = config.proxy.as_ref().and_then(|proxy| proxy.user.clone()) else { return Ok(None) };
    let password = match &config.proxy_password_file {
        Some(path) => preflight::read_password(path, allow_open_keys)
            .map_err(|finding| Trouble::NoPassword(one_line(&finding)))?
            .to_string(),
        None => String::new(),
    };
    Ok(Some(Credentials { user, password }))
}
