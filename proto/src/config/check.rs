//! Makes a [`Config`] of what a file says: defaults, bounds and dependencies between keys.
//!
//! Each part returns a value even after a mistake, so that one run finds all of them. After an error the caller discards
//! the result.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::check_exchange::{check_accept, check_push};
use super::check_guard::check_guard;
use super::check_outer::Outer;
use super::code::Code;
use super::diagnostic::{Findings, quote, without_keys};
use super::keyfile::KeyFile;
use super::keys::{Fail, LocalNetworks, Raw, RawKeepalive, RawKey, RawRun, RawScripts, RawStatus, RawTuning};
use super::reader::{At, Field};
use super::schema::{Declared, NumberOr};
use super::{
    AnyCipher, Command, Config, DataPath, FullTunnel, Keepalive, Key, KeyMode, KeyPair, Lanes, MAX_LANES,
    Options, Reporting, Run, Scripts, SecretSource, Tuning, check_device, check_openvpn, check_outer,
    check_routes,
};
use crate::crypto::suite::{Cipher, Exchange};

/// The name goes to the peer and into file names.
const LONGEST_NAME: usize = 64;

/// Returns the configuration of the link `name`, unusable if `out` got an error.
pub(super) fn check(name: &str, raw: &Raw, options: &Options, out: &mut Findings) -> Config {
    check_name(name, out);
    let outer = check_outer::check(&raw.top, options, out);
    let key_mode = check_key_mode(&raw.key, out);
    let device = check_device::check(&raw.device, key_mode, out);
    let routes = check_routes::check(&raw.routes, &device, out);
    check_routes::check_remotes(raw, &outer, &device, &routes, out);
    let derived = derive_direction(&device.addresses, &device.peers);
    let direction_known = derived.is_some() || !device.clean;
    let accept = check_accept(raw, &device, out);
    let guard = check_guard(&raw.guard, device.mode, out);
    let mut key = check_key(&raw.key, key_mode, derived, direction_known, options, out);
    key.openvpn = check_openvpn::check(raw, out);
    check_streams(raw, &outer, key_mode, out);
    Config {
        name: name.to_owned(),
        remotes: outer.remotes.into_iter().map(|at| at.value).collect(),
        listen: outer.listen,
        proxy: outer.proxy.map(|at| at.value),
        proxy_password_file: check_path("proxy-password-file", &raw.top.proxy_password_file, options, out),
        float: raw.top.float(),
        bind_device: raw.top.bind_device.value().cloned(),
        fwmark: raw.top.fwmark.value().copied(),
        key,
        device: device.device,
        routes: routes.into_iter().map(|at| at.value).collect(),
        push: check_push(&raw.push, out),
        accept,
        full_tunnel: check_full_tunnel(raw, out),
        scripts: check_scripts(&raw.scripts, options, out),
        keepalive: check_keepalive(&raw.keepalive, out),
        run: check_run(&raw.run, options, out),
        guard,
        tuning: check_tuning(&raw.tuning, key_mode, out),
        status: check_status(&raw.status, options, out),
    }
}

fn check_full_tunnel(raw: &Raw, out: &mut Findings) -> Option<FullTunnel> {
    let raw = &raw.full_tunnel;
    let place = raw.place()?;
    if raw.local_networks.is_absent() {
        let message = "networks this host is connected to, and more specific routes set by others, bypass the tunnel: \
                       whoever runs such a network chooses its addresses";
        let help =
            "local-networks = \"refuse\" sends them through the tunnel too; \"reach\" says this is intended";
        out.note(Code::LocalNetworks, Some(place), message, help);
    }
    Some(FullTunnel {
        closed: raw.fail() == Fail::Closed,
        local_networks: raw.local_networks() == LocalNetworks::Reach,
    })
}

fn check_name(name: &str, out: &mut Findings) {
    let fine = |c: char| !c.is_control() && c != '/';
    if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('.') || !name.chars().all(fine) {
        let message = format!("{} is not a valid link name", quote(name));
        let help = "rename the file: without .toml it must be 1 to 64 bytes, with no control characters and no leading dot";
        out.error(Code::BadLinkName, None, message, help);
    }
}

/// Returns 0 for the end whose first address is, as bytes, lower than its first peer of that family.
fn derive_direction(addresses: &[At<IpNet>], peers: &[At<IpAddr>]) -> Option<u8> {
    let own = addresses.first()?.value.addr();
    let peer = peers.iter().find(|peer| peer.value.is_ipv4() == own.is_ipv4())?;
    Some(u8::from(own > peer.value))
}

fn check_key(
    raw: &RawKey,
    mode: KeyMode,
    derived: Option<u8>,
    direction_known: bool,
    options: &Options,
    out: &mut Findings,
) -> Key {
    let shared = check_shared(raw, options, out);
    let pair = check_pair(raw, options, out);
    let nothing = raw.file.is_absent() && raw.credential.is_absent() && raw.private_file.is_absent();
    if nothing && raw.peer_public.is_absent() {
        out.error(Code::NoKey, raw.place(), "no key is configured", "make one with `tund genkey -o static.key`, copy it to the peer, and set key.file = \"static.key\"");
    }
    if mode == KeyMode::Static && raw.direction.is_absent() && !direction_known {
        let message = "key.direction is required: it cannot be derived from device.address and device.peer";
        let help = "set key.direction = 0 on one end and key.direction = 1 on the other";
        out.error(Code::NoDirection, raw.place(), message, help);
    }
    let cipher = match raw.cipher() {
        AnyCipher::Aead(cipher) => Some(cipher),
        AnyCipher::Auto | AnyCipher::Cbc(_) => None,
    };
    let direction = raw.direction.value().copied().or(derived);
    Key {
        mode,
        shared,
        pair,
        direction: direction.unwrap_or(0),
        cipher: cipher.unwrap_or(Cipher::ChaCha20Poly1305),
        suites: cipher.map_or_else(|| Cipher::ALL.to_vec(), |only| vec![only]),
        exchange: if raw.post_quantum() { Exchange::Hybrid } else { Exchange::X25519 },
        openvpn: None,
    }
}

fn check_key_mode(raw: &RawKey, out: &mut Findings) -> KeyMode {
    if raw.mode() != KeyMode::Static {
        return raw.mode();
    }
    let message = "static keys have no forward secrecy: whoever gets the key can read recorded traffic";
    let help = "remove key.mode to use handshake keys, or keep the key private and change it now and then";
    out.note(Code::NoForwardSecrecy, raw.mode.at(), message, help);
    KeyMode::Static
}

fn check_shared(raw: &RawKey, options: &Options, out: &mut Findings) -> Option<SecretSource> {
    if let (Some(_), Some(credential)) = (raw.file.get(), raw.credential.get()) {
        let message = "key.file and key.credential are both set";
        out.error(Code::TwoKeys, credential.at(), message, "remove one of them");
    }
    if let Some(credential) = raw.credential.get() {
        let name = &credential.value;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            let message = format!("key.credential cannot be {}", quote(name));
            let help = "expected a name such as \"tund-key\", as in systemd's LoadCredential=tund-key:PATH";
            out.error(Code::BadCredential, credential.at(), message, help);
        }
        return Some(SecretSource::Credential(name.clone()));
    }
    check_path("key.file", &raw.file, options, out).map(SecretSource::File)
}

fn check_pair(raw: &RawKey, options: &Options, out: &mut Findings) -> Option<KeyPair> {
    if let (Some(private), true) = (raw.private_file.get(), raw.peer_public.is_absent()) {
        let message = "key.private-file is set without key.peer-public";
        let help = "set key.peer-public to what `tund pubkey` prints on the peer";
        out.error(Code::HalfKeyPair, private.at(), message, help);
    }
    if let (Some(public), true) = (raw.peer_public.get(), raw.private_file.is_absent()) {
        let message = "key.peer-public is set without key.private-file";
        let help = "make a key with `tund keypair` and set key.private-file";
        out.error(Code::HalfKeyPair, public.at(), message, help);
    }
    let private_file = check_path("key.private-file", &raw.private_file, options, out);
    let public = raw.peer_public.get()?;
    match KeyFile::Public.parse(&public.value) {
        Ok(peer_public) => Some(KeyPair { private_file: private_file?, peer_public }),
        Err(error) => {
            let message = format!("key.peer-public is not a public key: {error}");
            let help = "expected the 64 hexadecimal digits that `tund pubkey` prints on the peer";
            out.error(Code::BadPublicKey, public.at(), message, help);
            None
        }
    }
}

/// Returns the absolute path in a key.
fn check_path(key: &str, field: &Field<String>, options: &Options, out: &mut Findings) -> Option<PathBuf> {
    let path = field.get()?;
    if without_keys(&path.value) != path.value && !path.value.contains('/') {
        let message = format!("{key} takes a file name, but this looks like the key itself");
        let help = "put the key in its own file, `chmod 600`, and name that file; make a new key if others may have read this one. \
                    A file that really has this name needs a leading \"./\"";
        out.error(Code::BadPath, path.at(), message, help);
        return None;
    }
    if path.value.is_empty() || path.value.contains('\0') {
        let message = format!("{key} cannot be {}", quote(&path.value));
        out.error(Code::BadPath, path.at(), message, "expected the path of a file or directory");
    }
    Some(options.directory.join(&path.value))
}

fn check_scripts(raw: &RawScripts, options: &Options, out: &mut Findings) -> Scripts {
    let security = raw.security();
    let allowed = security >= 2 || raw.security.is_wrong();
    let mut script = |key: &str, field: &Field<Vec<At<String>>>| {
        let argv = field.get()?;
        if !allowed {
            let message =
                format!("scripts.{key} is set, but scripts.security is {security}: it would not run");
            out.error(Code::ScriptForbidden, argv.at(), message, "set scripts.security = 2 to run scripts");
        }
        check_command(key, argv, options, out)
    };
    Scripts {
        up: script("up", &raw.up),
        down: script("down", &raw.down),
        route_up: script("route-up", &raw.route_up),
        route_down: script("route-down", &raw.route_down),
        link_up: script("link-up", &raw.link_up),
        link_down: script("link-down", &raw.link_down),
        security,
        timeout: raw.timeout(),
    }
}

fn check_command(
    key: &str,
    argv: &At<Vec<At<String>>>,
    options: &Options,
    out: &mut Findings,
) -> Option<Command> {
    if let Some(bad) = argv.value.iter().find(|word| word.value.contains('\0')) {
        out.error(Code::BadCommand, bad.at(), format!("scripts.{key} contains a NUL character"), "remove it");
    }
    match argv.value.split_first() {
        Some((program, args)) if !program.value.is_empty() => Some(Command {
            program: options.directory.join(&program.value),
            args: args.iter().map(|word| word.value.clone()).collect(),
        }),
        Some(_) | None => {
            let help = "write a path, or a list that begins with one; remove the line to run no script";
            out.error(Code::BadCommand, argv.at(), format!("scripts.{key} names no program"), help);
            None
        }
    }
}

fn check_keepalive(raw: &RawKeepalive, out: &mut Findings) -> Keepalive {
    let interval = raw.interval();
    let timeout = raw.timeout();
    let wrong = raw.interval.is_wrong() || raw.timeout.is_wrong();
    if timeout <= interval && !wrong {
        let place = raw.timeout.get().or(raw.interval.get()).and_then(At::at);
        let message = format!(
            "keepalive.timeout ({timeout:?}) is not longer than keepalive.interval ({interval:?}): the link would never stay up"
        );
        out.error(Code::TimeoutTooShort, place, message, "make the timeout several times the interval");
    }
    Keepalive { interval, timeout, idle_exit: raw.idle_exit() }
}

fn check_run(raw: &RawRun, options: &Options, out: &mut Findings) -> Run {
    for (key, field) in [("user", &raw.user), ("group", &raw.group)] {
        let Some(name) = field.get() else { continue };
        if name.value.is_empty() || name.value.contains([':', '\0', '\n']) {
            let message = format!("run.{key} cannot be {}", quote(&name.value));
            let help = format!("expected the name of a {key} on this host");
            out.error(Code::BadUser, name.at(), message, help);
        }
    }
    Run {
        user: raw.user.value().cloned(),
        group: raw.group.value().cloned(),
        state_dir: check_path("run.state-dir", &raw.state_dir, options, out),
        runtime_dir: check_path("run.runtime-dir", &raw.runtime_dir, options, out),
        verb: options.verb.unwrap_or_else(|| raw.verb()),
        chroot: check_path("run.chroot", &raw.chroot, options, out),
        sandbox: raw.sandbox(),
        log: raw.log.value().copied(),
        daemon: raw.daemon(),
        pid_file: check_path("run.pid-file", &raw.pid_file, options, out),
        nice: raw.nice.value().copied(),
    }
}

fn check_status(raw: &RawStatus, options: &Options, out: &mut Findings) -> Reporting {
    let socket = check_path("status.socket", &raw.socket, options, out);
    let metrics = raw.metrics.get().and_then(|text| {
        let address = text.value.parse::<SocketAddr>().ok();
        let good = address.filter(|address| address.ip().is_loopback() && address.port() != 0);
        if good.is_none() {
            let message = format!("status.metrics cannot be {}", quote(&text.value));
            let help = "expected a loopback address and a port, such as \"127.0.0.1:9586\" or \"[::1]:9586\"";
            out.error(Code::BadMetricsAddress, text.at(), message, help);
        }
        good
    });
    Reporting { socket, metrics }
}

/// A lane in two threads shares no state, but a stream has one writer and one reader. OpenVPN's streams have other length prefixes.
fn check_streams(raw: &Raw, outer: &Outer, key_mode: KeyMode, out: &mut Findings) {
    if outer.listen.stream.is_none() && outer.remotes.iter().all(|remote| !remote.value.stream) {
        return;
    }
    let message = |what| format!("{what} cannot be combined with tcp: in remote or listen");
    if let Some(threads) = raw.tuning.threads.get().filter(|threads| threads.value > 1) {
        let message = message("tuning.threads = 2");
        out.error(Code::NoStreams, threads.at(), message, "remove threads");
    }
    if key_mode == KeyMode::OpenVpn {
        let (at, message) = (raw.key.mode.at(), message("key.mode = \"openvpn\""));
        let help = "switch the peer's OpenVPN to UDP (`proto udp`)";
        out.error(Code::NoStreams, at, message, help);
    }
}

fn check_tuning(raw: &RawTuning, key_mode: KeyMode, out: &mut Findings) -> Tuning {
    Tuning {
        bundle: raw.bundle(),
        socket_buffer: raw.socket_buffer(),
        path_mtu: raw.path_mtu.value().copied(),
        mss_clamp: raw.mss_clamp(),
        congestion_control: raw.congestion_control.value().cloned(),
        data_path: DataPath {
            offload: raw.offload(),
            copy_dscp: raw.dscp.value().is_some(),
            lanes: check_lanes(raw, key_mode, out),
            threads: raw.threads(),
            busy_poll: raw.busy_poll(),
        },
    }
}

/// OpenVPN has only one.
fn check_lanes(raw: &RawTuning, key_mode: KeyMode, out: &mut Findings) -> Lanes {
    let lanes = match raw.lanes() {
        NumberOr::Number(number) => Lanes::Count(u8::try_from(number).unwrap_or(MAX_LANES)),
        NumberOr::Word => Lanes::Auto,
    };
    if key_mode != KeyMode::OpenVpn {
        return lanes;
    }
    let (place, with) = (raw.lanes.at(), "with key.mode = \"openvpn\"");
    match lanes {
        Lanes::Count(1) => {}
        Lanes::Count(count) => {
            let message = format!("tuning.lanes = {count} is not supported {with}: such a link has one lane");
            out.error(Code::NoLanes, place, message, "remove lanes");
        }
        Lanes::Auto => {
            let message = format!("tuning.lanes = \"auto\" means one lane {with}");
            out.warning(Code::NoEffect, place, message, "remove lanes");
        }
    }
    Lanes::Count(1)
}
