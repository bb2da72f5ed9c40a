//! The outside of the link: `remote`, `listen`, `bind-device`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::check_device::{check_interface_name, interface_name_problem};
use super::code::Code;
use super::diagnostic::{Diagnostic, Findings, quote};
use super::keys::Top;
use super::reader::At;
use super::{DEFAULT_PORT, Listen, Options, Proxy, Remote, StreamListen};
use crate::wire::proxy::{Kind, LONGEST_WORD};

/// Most addresses that the engine takes from one look-up.
const MOST_REMOTES: usize = 16;
/// Prefix of TCP entries.
const STREAM: &str = "tcp:";

/// The checked outer keys.
pub(super) struct Outer {
    pub remotes: Vec<At<Remote>>,
    pub listen: Listen,
    pub proxy: Option<At<Proxy>>,
}

pub(super) fn check(raw: &Top, options: &Options, out: &mut Findings) -> Outer {
    let remotes = check_remotes(raw, options, out);
    let listen = check_listen(raw, options, &remotes, out);
    if let Some(name) = raw.bind_device.get() {
        check_interface_name("bind-device", name, out);
    }
    let proxy = check_proxy(raw, &remotes, options, out);
    Outer { remotes, listen, proxy }
}

fn check_remotes(raw: &Top, options: &Options, out: &mut Findings) -> Vec<At<Remote>> {
    let Some(list) = raw.remote.get() else { return Vec::new() };
    if list.value.is_empty() {
        let help = "remove remote to wait for the peer";
        out.error(Code::EmptyList, list.at(), "remote is an empty list", help);
    }
    if list.value.len() > MOST_REMOTES {
        let message = format!("remote has {} entries, at most {MOST_REMOTES} are allowed", list.value.len());
        out.error(Code::TooMany, list.at(), message, "list fewer: they are tried in order");
    }
    let mut remotes: Vec<At<Remote>> = Vec::new();
    for text in list.value.iter().take(MOST_REMOTES) {
        match parse_remote(&text.value, options) {
            Ok(remote) if remotes.iter().any(|known| known.value == remote) => {
                let message = format!("remote {} is listed twice", quote(&text.value));
                out.warning(Code::Duplicate, text.at(), message, "remove one of them");
            }
            Ok(remote) => remotes.push(text.with(remote)),
            Err(refusal) => out.0.push(Diagnostic { span: text.at(), ..refusal }),
        }
    }
    remotes
}

fn check_proxy(
    raw: &Top,
    remotes: &[At<Remote>],
    options: &Options,
    out: &mut Findings,
) -> Option<At<Proxy>> {
    let user = raw.proxy.value().is_some_and(|text| text.contains('@'));
    if let Some(file) = raw.proxy_password_file.get().filter(|_| !user) {
        let message = "proxy-password-file has no effect: proxy names no user";
        let help = "write proxy = \"http://USER@HOST:PORT\"";
        out.warning(Code::NoEffect, file.at(), message, help);
    }
    let text = raw.proxy.get()?;
    if !remotes.iter().any(|remote| remote.value.stream) {
        let help = "add the peer's TCP port to remote, such as \"tcp:mon.tn:443\"";
        let message = "proxy has no effect: no remote uses TCP";
        out.warning(Code::NoEffect, text.at(), message, help);
    }
    match parse_proxy(&text.value, options) {
        Ok(proxy) => return Some(text.with(proxy)),
        Err(refusal) => out.0.push(Diagnostic { span: text.at(), ..refusal }),
    }
    None
}

/// Parses `http://user@host:port` or `socks5://`.
fn parse_proxy(text: &str, options: &Options) -> Result<Proxy, Diagnostic> {
    let whole = "write \"http://HOST:PORT\" or \"socks5://HOST:PORT\"";
    let kinds = [Kind::Http, Kind::Socks5];
    let found = kinds
        .into_iter()
        .find_map(|kind| Some((kind, text.strip_prefix(kind.scheme())?.strip_prefix("://")?)));
    let Some((kind, rest)) = found else {
        return refuse(Code::BadProxy, format!("{} is not a supported kind of proxy", quote(text)), whole);
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
    if user.is_some_and(|user| user.contains(':')) {
        let help = "put the password in a file, and set proxy-password-file to its path";
        return refuse(Code::BadProxy, "proxy contains a password", help);
    }
    if user
        .is_some_and(|user| user.is_empty() || user.len() > LONGEST_WORD || user.contains(char::is_control))
    {
        return refuse(Code::BadProxy, "proxy has an invalid user name", "a user name has 1 to 255 bytes");
    }
    if !matches!(split_port(place), Ok((_, Some(_)))) {
        return refuse(Code::BadProxy, format!("{} has no host and port", quote(text)), whole);
    }
    let place = parse_place(place, options)?;
    Ok(Proxy { kind, place, user: user.map(str::to_owned) })
}

fn parse_remote(text: &str, options: &Options) -> Result<Remote, Diagnostic> {
    match text.strip_prefix(STREAM) {
        Some(text) => Ok(Remote { stream: true, ..parse_place(text, options)? }),
        None => parse_place(text, options),
    }
}

fn parse_place(text: &str, options: &Options) -> Result<Remote, Diagnostic> {
    let (host, port) = split_port(text)?;
    let host = match (host.split_once('%'), host.parse::<IpAddr>()) {
        (Some((address, zone)), _) => check_zoned(address, zone)?,
        (None, Ok(address)) => check_remote_address(address.to_canonical())?.to_string(),
        (None, Err(_)) => check_host_name(host)?.to_owned(),
    };
    let port = match port {
        Some(port) => parse_port(port, options)?,
        None => options.port.unwrap_or(DEFAULT_PORT),
    };
    if port == 0 {
        let message = format!("{} has port 0", quote(text));
        return refuse(Code::BadPort, message, "name the port that it listens on");
    }
    Ok(Remote { host, port, stream: false })
}

/// Splits `host`, `host:port`, `[v6]:port`, `[v6]` or a bare IPv6 address.
fn split_port(text: &str) -> Result<(&str, Option<&str>), Diagnostic> {
    if let Some((host, port)) = text.trim().split_once(char::is_whitespace) {
        let help = format!("write {}", quote(&format!("{host}:{}", port.trim())));
        return refuse(Code::BadRemote, format!("{} contains a space", quote(text)), help);
    }
    if is_ipv6(text) {
        return Ok((text, None));
    }
    let kind = text.split_once("://").or_else(|| Some("udp").zip(text.strip_prefix("udp:")));
    if let Some((_, rest)) = kind {
        let help = format!("write {}", quote(rest.trim_end_matches('/')));
        return refuse(Code::BadRemote, format!("{} has more than a host and a port", quote(text)), help);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let bracketed = rest.split_once(']').filter(|(host, _)| is_ipv6(host));
        return match bracketed {
            Some((host, "")) => Ok((host, None)),
            Some((host, port)) if port.starts_with(':') => Ok((host, port.get(1..))),
            Some(_) | None => refuse(
                Code::BadRemote,
                format!("{} is not an IPv6 address and port", quote(text)),
                "write one such as \"[2001:db8::1]:8863\"",
            ),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => refuse(
            Code::BadRemote,
            format!("{} is neither an IPv6 address nor host and port", quote(text)),
            "an IPv6 address with a port goes in brackets, such as \"[2001:db8::1]:8863\"",
        ),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// Whether this is an IPv6 address, with or without a zone.
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Checks an address with its interface, which may not exist yet.
fn check_zoned(address: &str, zone: &str) -> Result<String, Diagnostic> {
    let parsed = address.parse::<Ipv6Addr>().ok().filter(Ipv6Addr::is_unicast_link_local);
    let Some(parsed) = parsed else {
        let message = format!("{} cannot have a zone: it is not link-local", quote(address));
        let help = format!("write {} without {}", quote(address), quote(&format!("%{zone}")));
        return refuse(Code::BadZone, message, help);
    };
    match interface_name_problem(zone) {
        Some(problem) => refuse(
            Code::BadZone,
            format!("{} has an invalid interface name", quote(&format!("{address}%{zone}"))),
            format!("an interface name {problem}"),
        ),
        None => Ok(format!("{parsed}%{zone}")),
    }
}

fn check_remote_address(address: IpAddr) -> Result<IpAddr, Diagnostic> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        let message = format!("no peer can have the address {address}");
        let help = "name the peer's own address";
        return refuse(Code::UnusableAddress, message, help);
    }
    Ok(address)
}

fn check_host_name(host: &str) -> Result<&str, Diagnostic> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_fine = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len())
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // No top-level domain is a number: it is a mistyped IPv4 address.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    if name.len() <= 253 && name.split('.').all(label_fine) && !numeric {
        return Ok(host);
    }
    let help = "write a name such as \"mon.tn:1417\", or an address such as \"192.0.2.1:1417\" or \"[2001:db8::1]:1417\"";
    refuse(Code::BadRemote, format!("{} is neither a host name nor an address", quote(host)), help)
}

fn parse_port(text: &str, options: &Options) -> Result<u16, Diagnostic> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().or_else(|_| {
            let message = format!("{} is not a valid port", quote(text));
            refuse(Code::BadPort, message, "a port is a number from 1 to 65535")
        });
    }
    let Some(port) = (options.services)(text) else {
        let message = format!("{} is not a UDP service known to this host", quote(text));
        return refuse(Code::BadPort, message, "write the port number, or add the name to /etc/services");
    };
    Ok(port)
}

fn check_listen(raw: &Top, options: &Options, remotes: &[At<Remote>], out: &mut Findings) -> Listen {
    let default =
        remotes.iter().find(|remote| !remote.value.stream).map_or(DEFAULT_PORT, |remote| remote.value.port);
    let port = options.port.unwrap_or(default);
    let mut listen = Listen { address: None, port, explicit: options.port.is_some(), stream: None };
    let Some(list) = raw.listen.get() else { return listen };
    let mut of_datagrams = None;
    for text in &list.value.0 {
        let stream = text.value.strip_prefix(STREAM);
        let known = if stream.is_some() { listen.stream.is_some() } else { of_datagrams.is_some() };
        match (known, parse_listen(stream.unwrap_or(&text.value), options)) {
            (true, _) => {
                let help = "listen takes one UDP and one TCP port, such as [44096, \"tcp:563\"]";
                out.error(Code::TooMany, text.at(), "listen has two ports for one protocol", help);
            }
            (_, Ok((_, 0))) if stream.is_some() => {
                let help = "name a port: the peer must know it";
                out.error(Code::AnyPort, text.at(), "listen picks any free TCP port", help);
            }
            (_, Ok((address, port))) if stream.is_some() => {
                listen.stream = Some(StreamListen { address, port })
            }
            (_, Ok((address, port))) => {
                of_datagrams = Some(text);
                (listen.address, listen.port, listen.explicit) =
                    (address, options.port.unwrap_or(port), true);
            }
            (_, Err(refusal)) => out.0.push(Diagnostic { span: text.at(), ..refusal }),
        }
    }
    let Some(text) = of_datagrams else { return listen };
    if listen.port == 0 && raw.remote.is_absent() {
        let help = "name a port: this end has no remote, so the peer must know it";
        out.error(Code::AnyPort, text.at(), "listen picks any free port", help);
    }
    if let Some(address) = listen.address {
        check_family(address, raw, remotes, text, out);
    }
    listen
}

fn parse_listen(text: &str, options: &Options) -> Result<(Option<IpAddr>, u16), Diagnostic> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let help = format!("write {}", quote(&SocketAddr::new(address, DEFAULT_PORT).to_string()));
        return refuse(Code::BadListen, "listen has an address but no port", help);
    }
    if !text.contains([':', '[', ' ']) {
        return Ok((None, parse_port(text, options)?));
    }
    let of_listen = |refusal: Diagnostic| match refusal.code {
        Code::BadRemote => Diagnostic { code: Code::BadListen, ..refusal },
        _ => refusal,
    };
    let (host, port) = split_port(text).map_err(of_listen)?;
    let whole = "write a port, a service name, or an address and port such as \"192.0.2.1:8863\"";
    let Ok(address) = host.parse::<IpAddr>().map(|address| address.to_canonical()) else {
        return refuse(Code::BadListen, format!("{} is not a valid listen address", quote(host)), whole);
    };
    if address.is_multicast() {
        return refuse(Code::BadListen, format!("{address} is a multicast address"), whole);
    }
    let Some(port) = port else {
        return refuse(Code::BadListen, "listen has an address but no port", whole);
    };
    let address = Some(address).filter(|address| !address.is_unspecified() || address.is_ipv4());
    Ok((address, parse_port(port, options)?))
}

/// Reports remotes that all have the address family that `listen` excludes.
fn check_family(listen: IpAddr, raw: &Top, remotes: &[At<Remote>], text: &At<String>, out: &mut Findings) {
    let unreachable = |remote: &At<Remote>| {
        remote.value.address().is_some_and(|address| address.is_ipv4() != listen.is_ipv4())
    };
    let mut remotes = remotes.iter().filter(|remote| !remote.value.stream).peekable();
    let complete = !raw.remote.is_wrong() && remotes.peek().is_some();
    if complete && remotes.all(unreachable) {
        let message = format!("no remote can be reached from {listen}: it is in the other address family");
        out.error(Code::AddressFamily, text.at(), message, "listen on an address in the remote's family");
    }
}

/// An error without its place.
fn refuse<T>(code: Code, message: impl Into<String>, help: impl Into<String>) -> Result<T, Diagnostic> {
    Err(Diagnostic::error(code, None, message).help(help))
}
