//! Calls the peer in every way that the file names: by datagrams, by TCP, and by TCP through the proxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::{Found, Report};
use crate::cli::check::confinement;
use crate::config::{Config, KeyMode, Proxy};
use crate::core::path::Path;
use crate::helper::call::{self, Answer, Question};
use crate::helper::proxy::{self, Asking, Trouble};
use crate::helper::{resolve, zone};
use crate::parent::streams::proxy_credentials;
use crate::privsep::message::{Confinement, Keys};
use crate::transport::stream;

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// What carries a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Datagrams,
    Stream,
    Proxy,
}

/// Who calls.
struct Caller<'a> {
    config: &'a Config,
    confinement: Confinement,
    /// The proxy's address, or why it is unknown.
    proxy: Option<(&'a Proxy, Result<SocketAddr, String>)>,
}

/// Calls each address. An initiation that is never confirmed changes nothing at the peer.
pub(super) fn callable(config: &Config, keys: Option<Box<Keys>>, paths: &[Path], report: &mut Report) {
    let Some(keys) = keys.filter(|_| !paths.is_empty()) else { return };
    if config.key.mode == KeyMode::OpenVpn {
        let text = "an OpenVPN peer answers no call outside the link itself, so none was made: start tund and ask `tund status`";
        return report.add(Found::Note, "peer", text);
    }
    let confinement = match confinement(config) {
        Ok(confinement) => confinement,
        Err(fatal) => return report.add(Found::Problem, "peer", fatal.message),
    };
    let proxy = config.proxy.as_ref().map(|proxy| (proxy, find(proxy, &confinement)));
    let caller = Caller { config, confinement, proxy };
    if config.key.mode == KeyMode::Static {
        let text = "with static keys a call would take over the link at the peer, so none was made: start tund and ask `tund \
                    status`; both clocks should be right within two minutes, or every start takes one more challenge";
        report.add(Found::Note, "peer", text);
        let open = |(path, way)| (way, caller.connectable(path, way));
        return conclude(
            caller.ways(paths).filter(|(path, _)| path.stream).map(open).collect(),
            false,
            report,
        );
    }
    let called: Vec<_> = caller.ways(paths).map(|(path, way)| (way, caller.call(path, way, &keys))).collect();
    conclude(called, true, report);
}

fn find(proxy: &Proxy, confinement: &Confinement) -> Result<SocketAddr, String> {
    let found = resolve::ask(std::slice::from_ref(&proxy.place), confinement);
    let found = found.and_then(|mut found| found.pop().unwrap_or_else(|| Ok(Vec::new())));
    let found = found.map_err(|error| error.to_string())?;
    found.first().copied().ok_or_else(|| "it has no address".to_owned())
}

impl Caller<'_> {
    /// Each address in each way.
    fn ways<'a>(&'a self, paths: &'a [Path]) -> impl Iterator<Item = (Path, Way)> + 'a {
        let of = |path: Path| match path.stream {
            false => vec![(path, Way::Datagrams)],
            true if self.proxy.is_some() => vec![(path, Way::Stream), (path, Way::Proxy)],
            true => vec![(path, Way::Stream)],
        };
        paths.iter().copied().flat_map(of)
    }

    fn name(&self, path: Path, way: Way) -> String {
        let address = zone::named_path(path);
        match (way, &self.proxy) {
            (Way::Proxy, Some((proxy, _))) => format!("{address} through {proxy}"),
            (Way::Datagrams | Way::Stream | Way::Proxy, _) => address,
        }
    }

    fn open(&self, path: Path, way: Way) -> Result<OwnedFd, (Found, String)> {
        let refused =
            |error: io::Error| judge(path, &self.name(path, way), Answer::refused(&error, path.remote));
        match way {
            Way::Datagrams => socket(path.remote, self.config).map_err(refused),
            Way::Stream => stream::reach(self.config, path.remote, CONNECTING).map_err(refused),
            Way::Proxy => self.reach_through_proxy(path.remote).map_err(|trouble| {
                (Found::Problem, format!("{}: {trouble} [{}]", self.name(path, way), trouble.code()))
            }),
        }
    }

    fn reach_through_proxy(&self, to: SocketAddr) -> Result<OwnedFd, Trouble> {
        let Some((proxy, place)) = &self.proxy else {
            return Err(Trouble::Unreachable("there is none".to_owned()));
        };
        let place = place.clone().map_err(Trouble::Unreachable)?;
        let socket = stream::reach(self.config, place, CONNECTING)?;
        let credentials = proxy_credentials(self.config, false)?;
        let confinement = self.confinement.clone();
        let question = proxy::Question { confinement, kind: proxy.kind, to, credentials };
        Asking::start(&question, socket)?.wait()
    }

    fn call(&self, path: Path, way: Way, keys: &Keys) -> (Found, String) {
        let question = Question {
            keys: Box::new(keys.clone()),
            suites: self.config.key.suites.clone(),
            exchange: self.config.key.exchange,
            path,
            confinement: self.confinement.clone(),
        };
        match self.open(path, way) {
            Ok(socket) => judge(path, &self.name(path, way), call::call(&question, &socket)),
            Err(found) => found,
        }
    }

    /// Whether a stream's port accepts connections.
    fn connectable(&self, path: Path, way: Way) -> (Found, String) {
        let taken = |_| (Found::Good, format!("{} takes connections", self.name(path, way)));
        self.open(path, way).map_or_else(|found| found, taken)
    }
}

/// Reports what passes; the link needs one of its ways. `all`: datagrams were tried, too.
fn conclude(called: Vec<(Way, (Found, String))>, all: bool, report: &mut Report) {
    let tried = |over: Way| called.iter().any(|(way, _)| *way == over);
    let answers = |over: Way| called.iter().any(|(way, (found, _))| *way == over && *found == Found::Good);
    let (datagrams, direct, proxy) = (answers(Way::Datagrams), answers(Way::Stream), answers(Way::Proxy));
    let by_proxy = tried(Way::Proxy);
    let streams = if by_proxy { proxy } else { direct };
    let (has_streams, has_datagrams) = (tried(Way::Stream), tried(Way::Datagrams));
    for (way, (found, text)) in called {
        // A failure is harmless in a way that the link does not use, or if another one passes.
        let needless = match way {
            Way::Datagrams => streams,
            Way::Stream => by_proxy,
            Way::Proxy => false,
        };
        report.add(if needless && found == Found::Problem { Found::Note } else { found }, "peer", text);
    }
    let through = if by_proxy { "TCP through the proxy" } else { "TCP" };
    match (datagrams, streams) {
        (true, true) => report.add(Found::Good, "way", format!("UDP works, and {through} too")),
        (false, true) if has_datagrams => {
            let text = format!("UDP does not work, {through} does: the link uses that");
            report.add(Found::Good, "way", text);
        }
        (false, false) if all && !has_streams => {
            let text = "if the peer runs and UDP is blocked, add \"tcp:HOST:PORT\" to remote, and \"tcp:PORT\" to listen on the peer";
            report.add(Found::Note, "way", text);
        }
        (false, false) if !by_proxy && has_streams => {
            let text =
                "if this network lets traffic out only through a proxy, add proxy = \"http://HOST:PORT\"";
            report.add(Found::Note, "way", text);
        }
        _ => {}
    }
    if by_proxy && direct {
        let why = if proxy { "too: it can be removed" } else { "which refuses: remove it" };
        report.add(Found::Note, "way", format!("TCP works without the proxy, {why}"));
    }
}

/// Opens a socket like the link's own, with the same address, interface and mark, without which a closed full tunnel blocks it. Without the
/// privileges, the call is made without them.
fn socket(to: SocketAddr, config: &Config) -> io::Result<OwnedFd> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let own = config.listen.address.filter(|own| own.is_ipv4() == to.is_ipv4());
    let socket = UdpSocket::bind((own.unwrap_or(any), 0))?;
    let bare = socket2::SockRef::from(&socket);
    // This needs CAP_NET_ADMIN, which not every caller has.
    let _ = config.mark().map(|mark| bare.set_mark(mark));
    let _ = config.bind_device.as_ref().map(|name| bare.bind_device(Some(name.as_bytes())));
    socket.connect(to)?;
    Ok(socket.into())
}

fn judge(path: Path, address: &str, answer: Answer) -> (Found, String) {
    let text = match answer {
        Answer::Answered(time) => {
            let time = time.as_secs_f64() * 1000.0;
            let text = format!("{address} answers in {time:.1} ms and has the same key: start the link");
            return (Found::Good, text);
        }
        Answer::NoCipher => {
            format!(
                "{address} has the same key but no cipher in common: set the same key.cipher on both ends"
            )
        }
        Answer::OtherExchange(theirs) => format!(
            "{address} has the same key but exchanges keys with {theirs}: set the same key.post-quantum on both ends"
        ),
        Answer::Refused(why) => format!("{address}: {why}"),
        Answer::Silent(0) if path.stream => format!(
            "{address} accepts the connection but is silent: tund there has another key or key.mode (compare what the key shows \
             as on both ends), or something else listens there"
        ),
        Answer::Silent(0) => format!(
            "{address} is silent: tund is not running there, has another key or key.mode (compare what the key shows as on both \
             ends), or a firewall on the way drops UDP port {}",
            path.remote.port()
        ),
        Answer::Silent(others) => format!(
            "{others} datagrams came back from {address}, but the key opens none: key.mode differs, or something other than \
             tund listens there"
        ),
        Answer::Failed(why) => format!("{address} could not be called: {why}"),
    };
    (Found::Problem, text)
}
