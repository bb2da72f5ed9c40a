//! From the command line to a running link.

use log::Level;
use socket2::SockRef;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::host::changes::Changes;
use crate::host::directories::{self, Lock, RUNTIME};
use crate::host::directory::Directory;
use crate::parent::host::patiently;
use crate::parent::keylog::KeyLog;
use crate::parent::openvpn::Starts;
use crate::parent::signals::{Signal, Signals};
use crate::preflight::{self, Loaded};
use crate::privsep::background::{self, PidFile};
use crate::report::exit::{BUG, CONFIG, FAILED, Fatal, PRIVILEGE, UNAVAILABLE, USAGE};
use crate::report::output::{self, Output};
use crate::sys::{memory, rights};

use crate::config::{Config, Diagnostic, LogTo, Places, Severity};
use crate::core::openvpn::admission::Kept;
use crate::core::settings::LinkSettings;
use crate::crypto::keys::{End, Pair, fingerprint, hardware_address, link_secret};
use crate::crypto::stack::cleanly;
use crate::parent::{Launch, Link, Parent, identity, nowait};
use crate::privsep::message::{Confinement, Keys, OpenVpnKeys, Start, StaticPair};
use crate::route::netlink::Netlink;
use crate::transport::inherited::{self, Inherited, Opener};
use crate::transport::stream;
use crate::transport::udp::{self, Bound};

/// Minimum duration of a failing start that a datagram caused: the datagram is still queued, and the superserver starts the next one at once.
const RESTART_BACKOFF: Duration = Duration::from_secs(20);

/// The command line of a link.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Base of relative paths.
    pub cd: Option<PathBuf>,
    /// Port or service name for `listen` and for every remote without one.
    pub port: Option<String>,
    /// Log level, overriding the file's.
    pub verb: Option<u8>,
    /// Accept key files that others may read.
    pub allow_open_keys: bool,
    /// Descriptor 0 is the socket.
    pub inetd: bool,
    /// Where session keys are logged, for a decoder; relative to `cd`.
    pub key_log: Option<PathBuf>,
}

/// Runs the link until something ends it. If inetd or systemd started it on a datagram, it has their socket, and no device until its peer has proven
/// that it has the key.
pub fn run(options: &Options) -> ExitCode {
    if let Some(code) = leave_to_background(options) {
        return code;
    }
    // First of all: nothing may be printed into a socket, and no other descriptor may be open.
    let inherited = inherit(options.inetd);
    let output = Output::new(if options.inetd { LogTo::Syslog } else { LogTo::Stderr }, &name(options));
    let pressing = matches!(&inherited, Ok(Some(inherited)) if inherited.pressing);
    let run = inherited.and_then(|inherited| prepare(options, inherited, &output));
    let code = match run {
        // Lock and pid file live as long as the link.
        Ok((parent, launch, _files)) => parent.run(launch),
        Err(fatal) => {
            if !fatal.message.is_empty() {
                output.fatal(&fatal.message);
            }
            fatal.code
        }
    };
    if pressing && code != 0 {
        restrain();
    }
    ExitCode::from(code)
}

/// Carries out `run.daemon`, unless done already.
fn leave_to_background(options: &Options) -> Option<ExitCode> {
    if options.inetd || background::is_on() {
        return None;
    }
    let (_, config, _) = read(options);
    let wanted = config.is_some_and(|config| config.run.daemon);
    wanted.then(|| {
        background::launch().unwrap_or_else(|fatal| {
            Output::Stderr.fatal(&fatal.message);
            ExitCode::from(fatal.code)
        })
    })
}

fn inherit(inetd: bool) -> Result<Option<Inherited>, Fatal> {
    let from_inetd = inetd.then(inherited::from_inetd).transpose();
    let from_systemd = inherited::from_systemd();
    let fatal = |message: String| Fatal::new(UNAVAILABLE, message);
    match (from_inetd.map_err(fatal)?, from_systemd.map_err(fatal)?) {
        (Some(_), Some(_)) => Err(Fatal::new(
            USAGE,
            "--inetd and LISTEN_FDS both pass a socket, and a link takes one: drop --inetd",
        )),
        (one, other) => Ok(one.or(other)),
    }
}

/// Waits, unless told to end.
fn restrain() {
    let deadline = Instant::now() + RESTART_BACKOFF;
    let Ok(mut signals) = Signals::watch() else { return };
    while !signals.take().iter().any(|signal| matches!(signal, Signal::Terminate | Signal::Interrupt)) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        signals.wait(left);
    }
}

fn name(options: &Options) -> String {
    options.config.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What lives as long as the link.
struct Files {
    _pid: Option<PidFile>,
    _lock: Option<Lock>,
}

fn prepare(
    options: &Options,
    mut inherited: Option<Inherited>,
    output: &Output,
) -> Result<(Parent, Launch, Files), Fatal> {
    rights::check_files().map_err(|reason| Fatal::new(UNAVAILABLE, reason))?;
    let locked = memory::lock(true);
    let (loaded, mut config, findings) = load(options, output)?;
    open_log(&config, inherited.as_ref(), output);
    identity::check_rights(&config)?;
    let activated = inherited.is_some();
    let (runtime, lock) = take_lock(&config, inherited.as_mut())?;
    // A process that only hands over a connection has returned silently.
    show(output, &loaded, &findings);
    if let Err(reason) = locked {
        log::info!("note: session keys and frames may end up in swap space: {reason}");
    }
    let signals =
        Signals::watch().map_err(|error| Fatal::new(FAILED, format!("cannot watch signals: {error}")))?;
    let mut netlink = Netlink::open()
        .map_err(|error| Fatal::new(FAILED, format!("cannot open a netlink socket: {error}")))?;
    take_bridge_mtu(&mut config, &mut netlink);
    let identity = identity::choose(&config.run)?;
    if let Some(warning) = identity::warn_of_root(&config.run)? {
        log::warn!("warning: {warning}");
    }
    let pid_file = config.run.pid_file.as_deref().map(PidFile::write).transpose()?;
    let confinement = identity::confine(&config.run, identity, runtime.as_ref())?;
    let mut changes = Changes::new(netlink, runtime.as_ref());
    for warning in preflight::check_host(&config, &loaded.parsed.places, None, &mut changes.netlink) {
        log::warn!("warning: {}", one_line(&warning));
    }
    let keys = secrets(&config, options.allow_open_keys)?;
    let key_log = key_log(options)?;
    let (bound, listener) = sockets(&config, inherited)?;
    let ports = ports(bound.port, listener.as_ref());
    log::info!("tund {}: {}, {ports}", env!("CARGO_PKG_VERSION"), config.name);
    let link = LinkSettings { activated, ..LinkSettings::from(&config) };
    let fingerprint = cleanly(|| fingerprint(&keys.secret));
    let hardware_address = cleanly(|| own_mac(&keys, &link, &config));
    let start = engine_start(&config, keys, link, &confinement, key_log.is_some());
    let launch = Launch { start, socket: bound.fd, listener };
    let directory = preflight::directory(&loaded.path, options.cd.as_deref());
    let options = Options { config: loaded.path.clone(), cd: Some(directory.clone()), ..options.clone() };
    let link = Link {
        starts: Starts::open(&config)?,
        directory,
        file: loaded.path,
        options,
        config,
        confinement,
        runtime,
        fingerprint,
        hardware_address,
        activated,
        key_log,
    };
    Ok((Parent::new(link, changes, signals), launch, Files { _pid: pid_file, _lock: lock }))
}

/// Makes the runtime directory and takes the lock, if possible. An inherited connection becomes the first of a socket for later ones. If the link
/// runs already, the connection is handed over, and the error has exit code 0.
fn take_lock(
    config: &Config,
    inherited: Option<&mut Inherited>,
) -> Result<(Option<Directory>, Option<Lock>), Fatal> {
    let runtime = directories::make(RUNTIME, config.run.runtime_dir.as_deref(), &config.name)?;
    if let Some(inherited) = inherited
        && let Some(connection) = inherited.connection.take()
    {
        let turn = nowait::take_turn(config, runtime, connection)?.ok_or_else(|| Fatal::new(0, ""))?;
        inherited.streams = Some(turn.connections);
        return Ok((Some(turn.runtime), Some(turn.lock)));
    }
    Ok(runtime.map(|directory| directories::lock(&directory, &config.name)).transpose()?.unzip())
}

/// Logs as the file says from now on. If that log is unusable, standard error is told.
fn open_log(config: &Config, inherited: Option<&Inherited>, before: &Output) {
    let log = log_to(config, inherited);
    if let (Err(problem), Output::Stderr) = (log.check(), before) {
        before.line(Level::Warn, &format!("warning: {problem}"));
    }
    log.log_from(config.run.verb);
}

/// The log of the file; else syslog if there is no standard error.
fn log_to(config: &Config, inherited: Option<&Inherited>) -> Output {
    let inetd = inherited.is_some_and(|inherited| inherited.opener == Opener::Inetd);
    let to = match config.run.log {
        // It is /dev/null, or will be.
        Some(LogTo::Stderr | LogTo::Json) | None if inetd || background::is_on() => LogTo::Syslog,
        Some(to) => to,
        None => LogTo::Stderr,
    };
    Output::new(to, &config.name)
}

/// Reads the file; returns the findings that are not errors. If any is an error, shows all and fails.
fn load(options: &Options, output: &Output) -> Result<(Loaded, Config, Vec<Diagnostic>), Fatal> {
    let (loaded, config, findings) = read(options);
    if config.is_none() {
        show(output, &loaded, &findings);
    }
    config.map(|config| (loaded, config, findings)).ok_or_else(|| Fatal::new(CONFIG, ""))
}

fn show(output: &Output, loaded: &Loaded, findings: &[Diagnostic]) {
    findings.iter().for_each(|finding| output.finding(&loaded.file, &loaded.text, finding));
}

/// Reads a running link's file again; on errors, returns one line for each finding.
pub(crate) fn read_again(options: &Options) -> Result<(Loaded, Config), Vec<String>> {
    let (loaded, config, findings) = read(options);
    let line = |finding| output::finding_line(&loaded.file, &loaded.text, finding);
    let lines = findings.iter().map(line).collect();
    config.map(|config| (loaded, config)).ok_or(lines)
}

/// The file, its configuration unless it has errors, and the findings that matter beyond `tund check`.
fn read(options: &Options) -> (Loaded, Option<Config>, Vec<Diagnostic>) {
    let mut loaded =
        preflight::load(&options.config, options.cd.as_deref(), options.port.as_deref(), options.verb);
    let config = loaded.parsed.config.take();
    let mut findings = std::mem::take(&mut loaded.parsed.diagnostics);
    if let Some(draft) = &loaded.parsed.draft {
        findings.extend(preflight::check_files(draft, &loaded.parsed.places, options.allow_open_keys));
    }
    findings.retain(|finding| finding.severity > Severity::Note);
    let config = config.filter(|_| !findings.iter().any(Diagnostic::is_error));
    (loaded, config, findings)
}

/// Takes the MTU of the bridge if the file asks for it. A missing bridge is reported later.
pub(crate) fn take_bridge_mtu(config: &mut Config, netlink: &mut Netlink) {
    let bridge = config.device.bridge.as_deref().and_then(|name| netlink.link(name).ok().flatten());
    if let Some(bridge) = bridge {
        config.device.take_bridge_mtu(bridge.mtu);
    }
}

/// What an engine gets besides its descriptors.
pub(crate) fn engine_start(
    config: &Config,
    keys: Box<Keys>,
    link: LinkSettings,
    confinement: &Confinement,
    key_log: bool,
) -> Box<Start> {
    let (data_path, confinement) = (config.tuning.data_path, confinement.clone());
    Box::new(Start { keys, link, data_path, confinement, key_log, kept: Kept::default() })
}

/// Reads the keys that the configuration names. No copy is left outside the box.
pub(crate) fn secrets(config: &Config, allow_open_keys: bool) -> Result<Box<Keys>, Fatal> {
    let keys = cleanly(|| read_secrets(config, allow_open_keys))?;
    // If the engine cannot do it either, it says so.
    let _ = memory::hold(&*keys);
    Ok(keys)
}

fn read_secrets(config: &Config, allow_open_keys: bool) -> Result<Box<Keys>, Fatal> {
    let keys = preflight::read_keys(config, allow_open_keys).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(one_line).collect();
        Fatal::new(CONFIG, lines.join("; "))
    })?;
    let pair = match (&config.key.pair, &keys.private) {
        (Some(pair), Some(private)) => Some(Pair { private, peer_public: &pair.peer_public }),
        (Some(_), None) => return Err(Fatal::new(BUG, "the private key was not read")),
        (None, _) => None,
    };
    let statics = pair.map(|pair| StaticPair { private: *pair.private, peer_public: *pair.peer_public });
    let secret = link_secret(keys.shared.as_ref(), pair).map_err(|error| Fatal::new(CONFIG, error))?;
    // The parent adds the host's part when it starts the engine.
    let openvpn = keys.openvpn.map(|file| OpenVpnKeys { file, check: [0; 16] });
    Ok(Box::new(Keys { secret: *secret, statics, openvpn }))
}

/// The MAC address of this end's tap device. If both ends share key and link name, what is unique to the host (machine-id(5)) and the file tells them
/// apart.
fn own_mac(keys: &Keys, link: &LinkSettings, config: &Config) -> [u8; 6] {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let addresses = config.device.addresses.iter().map(ToString::to_string);
    let remotes = config.remotes.iter().map(|remote| format!("{}:{}", remote.host, remote.port));
    let words: Vec<_> =
        [link.direction.to_string(), machine].into_iter().chain(addresses).chain(remotes).collect();
    let own = words.join(" ");
    let private = keys.statics.as_ref().map(|pair| End::Private(&pair.private));
    hardware_address(&keys.secret, private.unwrap_or(End::Shared(own.as_bytes())), &config.name)
}

/// Opens the key log that the command line asks for.
fn key_log(options: &Options) -> Result<Option<KeyLog>, Fatal> {
    let cd = options.cd.as_deref().unwrap_or(Path::new(""));
    options.key_log.as_ref().map(|path| KeyLog::open(&cd.join(path))).transpose()
}

fn sockets(config: &Config, inherited: Option<Inherited>) -> Result<(Bound, Option<OwnedFd>), Fatal> {
    let (datagrams, streams) = inherited.map_or((None, None), |it| (it.datagrams, it.streams));
    Ok((socket(config, datagrams)?, listener(config, streams)?))
}

/// The inherited socket, else a new one.
fn socket(config: &Config, inherited: Option<OwnedFd>) -> Result<Bound, Fatal> {
    let bound = match inherited {
        Some(inherited) => adopt(config, inherited)?,
        None => bind(config)?,
    };
    for note in &bound.notes {
        log::info!("{note}");
    }
    Ok(bound)
}

fn adopt(config: &Config, inherited: OwnedFd) -> Result<Bound, Fatal> {
    let bound = udp::adopt(inherited, config).map_err(|error| Fatal::new(code(&error), error))?;
    if config.listen.address.is_some() || config.listen.explicit && config.listen.port != bound.port {
        log::warn!("listen is ignored: the socket that was passed has port {}", bound.port);
    }
    Ok(bound)
}

/// The socket that accepts streams: the inherited one, else a new one, if any is wanted.
pub(crate) fn listener(config: &Config, inherited: Option<OwnedFd>) -> Result<Option<OwnedFd>, Fatal> {
    let listener = match inherited {
        // A handover socket has no options to set.
        Some(inherited) if is_handover(&inherited) => Ok(Some(inherited)),
        Some(inherited) => stream::adopt(inherited, config).map(Some),
        None => stream::listen(config),
    };
    listener.map_err(|error| Fatal::new(code(&error), error.to_string()))
}

fn is_handover(passed: &OwnedFd) -> bool {
    SockRef::from(passed).domain().is_ok_and(|domain| domain == socket2::Domain::UNIX)
}

/// Where the peer is awaited.
fn ports(datagrams: u16, listener: Option<&OwnedFd>) -> String {
    let address = listener.and_then(|listener| SockRef::from(listener).local_addr().ok()?.as_socket());
    let handed = if listener.is_some_and(is_handover) { ", TCP connections of a superserver" } else { "" };
    let streams =
        address.map_or_else(|| handed.to_owned(), |address| format!(", TCP port {}", address.port()));
    format!("UDP port {datagrams}{streams}")
}

fn code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::PermissionDenied { PRIVILEGE } else { UNAVAILABLE }
}

/// Binds a new socket as configured.
pub(crate) fn bind(config: &Config) -> Result<Bound, Fatal> {
    patiently(io::ErrorKind::AddrInUse, || udp::bind(config)).map_err(|error| {
        let holder = preflight::check_port(config, &Places::default())
            .filter(|_| error.kind() == io::ErrorKind::AddrInUse);
        Fatal::new(code(&error), holder.map_or_else(|| error.to_string(), |finding| one_line(&finding)))
    })
}

pub(super) fn one_line(finding: &Diagnostic) -> String {
    match &finding.help {
        Some(help) => format!("{}: {help} [{}]", finding.message, finding.code),
        None => format!("{} [{}]", finding.message, finding.code),
    }
}
