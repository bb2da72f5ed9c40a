//! The outside of the link: `remote`, `listen`, `bind-device`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::check_device::{check_interface_name, interface_name_problem};
use super::diagnostic::{Diagnostic, quote};
use super::keys::Top;
use super::reader::{At, Field};
use super::schema::PortText;
use super::{DEFAULT_PORT, Listen, Options, Remote};

/// As many addresses as the engine takes from one look-up.
const MOST_REMOTES: usize = 16;

/// What the outer keys mean.
pub(super) struct Outer {
    pub remotes: Vec<At<Remote>>,
    pub listen: Listen,
}

/// Why a text is not taken, and what to write in its place.
struct Refusal {
    message: String,
    help: String,
}

pub(super) fn check(raw: &Top, options: &Options, out: &mut Vec<Diagnostic>) -> Outer {
    let remotes = check_remotes(raw, options, out);
    let listen = check_listen(raw, options, &remotes, out);
    if let Some(name) = raw.bind_device.get() {
        check_interface_name("bind-device", name, out);
    }
    Outer { remotes, listen }
}

fn check_remotes(raw: &Top, options: &Options, out: &mut Vec<Diagnostic>) -> Vec<At<Remote>> {
    let Some(list) = raw.remote.get() else { return Vec::new() };
    if list.value.is_empty() {
        let help = "leave remote out to wait for the peer";
        out.push(Diagnostic::error(list.at(), "remote is an empty list").help(help));
    }
    if list.value.len() > MOST_REMOTES {
        let message = format!("remote has {} entries, more than {MOST_REMOTES}", list.value.len());
        out.push(Diagnostic::error(list.at(), message).help("name fewer: they are tried in order"));
    }
    let mut remotes: Vec<At<Remote>> = Vec::new();
    for text in list.value.iter().take(MOST_REMOTES) {
        match parse_remote(&text.value, options) {
            Ok(remote) if remotes.iter().any(|known| known.value == remote) => {
                let message = format!("remote {} is there twice", quote(&text.value));
                out.push(Diagnostic::warning(text.at(), message).help("take one of them out"));
            }
            Ok(remote) => remotes.push(At { value: remote, span: text.span.clone() }),
            Err(refusal) => out.push(Diagnostic::error(text.at(), refusal.message).help(refusal.help)),
        }
    }
    remotes
}

fn parse_remote(text: &str, options: &Options) -> Result<Remote, Refusal> {
    let (host, port) = split_port(text)?;
    let host = match (host.split_once('%'), host.parse::<IpAddr>()) {
        (Some((address, zone)), _) => check_zoned(address, zone)?,
        (None, Ok(address)) => check_remote_address(address)?.to_string(),
        (None, Err(_)) => check_host_name(host)?.to_owned(),
    };
    let port = match port {
        Some(port) => parse_port(port, options)?,
        None => options.port.unwrap_or(DEFAULT_PORT),
    };
    if port == 0 {
        return Err(refuse("remote has port 0", "name the port that the peer listens on"));
    }
    Ok(Remote { host, port })
}

/// Host and port of `host`, `host:port`, `[v6]:port`, `[v6]` or a bare IPv6 address.
fn split_port(text: &str) -> Result<(&str, Option<&str>), Refusal> {
    if let Some((host, port)) = text.trim().split_once(char::is_whitespace) {
        let help = format!("write {}", quote(&format!("{host}:{}", port.trim())));
        return Err(refuse(format!("{} contains a space", quote(text)), help));
    }
    if is_ipv6(text) {
        return Ok((text, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let bracketed = rest.split_once(']').filter(|(host, _)| is_ipv6(host));
        return match bracketed {
            Some((host, "")) => Ok((host, None)),
            Some((host, port)) if port.starts_with(':') => Ok((host, port.get(1..))),
            Some(_) | None => Err(refuse(
                format!("{} is no IPv6 address and port", quote(text)),
                "write one such as \"[2001:db8::1]:8863\"",
            )),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(refuse(
            format!("{} is neither an IPv6 address nor host and port", quote(text)),
            "an IPv6 address with a port goes in brackets, such as \"[2001:db8::1]:8863\"",
        )),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// Whether this is an IPv6 address, with a zone or without.
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// An address with the interface that it is on, which may not be there yet.
fn check_zoned(address: &str, zone: &str) -> Result<String, Refusal> {
    let parsed = address.parse::<Ipv6Addr>().ok().filter(Ipv6Addr::is_unicast_link_local);
    let Some(parsed) = parsed else {
        let message = format!("{} cannot have a zone: it is not link-local", quote(address));
        return Err(refuse(
            message,
            format!("write {} without {}", quote(address), quote(&format!("%{zone}"))),
        ));
    };
    match interface_name_problem(zone) {
        Some(problem) => Err(refuse(
            format!("{} names no interface", quote(&format!("{address}%{zone}"))),
            format!("the name of an interface {problem}"),
        )),
        None => Ok(format!("{parsed}%{zone}")),
    }
}

fn check_remote_address(address: IpAddr) -> Result<IpAddr, Refusal> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(refuse(format!("no peer can have the address {address}"), "name the peer's own address"));
    }
    Ok(address)
}

fn check_host_name(host: &str) -> Result<&str, Refusal> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_fine = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len())
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // No top-level domain is a number: such a name is a mistyped IPv4 address.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    if name.len() <= 253 && name.split('.').all(label_fine) && !numeric {
        return Ok(host);
    }
    let help = "write a name such as \"mon.tn:1417\", or an address such as \"192.0.2.1:1417\" or \"[2001:db8::1]:1417\"";
    Err(refuse(format!("{} is neither a host name nor an address", quote(host)), help))
}

fn parse_port(text: &str, options: &Options) -> Result<u16, Refusal> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        let out_of_range =
            || refuse(format!("{} is no port", quote(text)), "a port is a number from 1 to 65535");
        return text.parse().map_err(|_| out_of_range());
    }
    (options.services)(text).ok_or_else(|| {
        let message = format!("{} is no UDP service that this host knows", quote(text));
        refuse(message, "write the port's number, or add the name to /etc/services")
    })
}

fn check_listen(raw: &Top, options: &Options, remotes: &[At<Remote>], out: &mut Vec<Diagnostic>) -> Listen {
    let default = remotes.first().map_or(DEFAULT_PORT, |remote| remote.value.port);
    let mut listen =
        Listen { address: None, port: options.port.unwrap_or(default), explicit: options.port.is_some() };
    let Some(text) = raw.listen.get() else { return listen };
    match parse_listen(&text.value.0, options) {
        Ok((address, port)) => {
            listen = Listen { address, port: options.port.unwrap_or(port), explicit: true };
        }
        Err(refusal) => out.push(Diagnostic::error(text.at(), refusal.message).help(refusal.help)),
    }
    if listen.port == 0 && raw.remote.is_absent() {
        let help = "name a port: the peer has to know it, as this end has no remote";
        out.push(Diagnostic::error(text.at(), "listen takes any port").help(help));
    }
    if let Some(address) = listen.address {
        check_family(address, raw, remotes, text, out);
    }
    listen
}

fn parse_listen(text: &str, options: &Options) -> Result<(Option<IpAddr>, u16), Refusal> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let whole = match address {
            IpAddr::V4(v4) => format!("{v4}:{DEFAULT_PORT}"),
            IpAddr::V6(v6) => format!("[{v6}]:{DEFAULT_PORT}"),
        };
        return Err(refuse("listen has an address but no port", format!("write {}", quote(&whole))));
    }
    if !text.contains([':', '[', ' ']) {
        return Ok((None, parse_port(text, options)?));
    }
    let (host, port) = split_port(text)?;
    let whole = "write a port, a service name, or an address and port such as \"192.0.2.1:8863\"";
    let Ok(address) = host.parse::<IpAddr>() else {
        return Err(refuse(format!("{} is no address to listen on", quote(host)), whole));
    };
    if address.is_multicast() {
        return Err(refuse(format!("{address} is a multicast address"), whole));
    }
    let port = port.ok_or_else(|| refuse("listen has an address but no port", whole))?;
    let address = Some(address).filter(|address| !address.is_unspecified() || address.is_ipv4());
    Ok((address, parse_port(port, options)?))
}

/// Reports remotes that are all addresses of the family that `listen` shuts out.
fn check_family(
    listen: IpAddr,
    raw: &Top,
    remotes: &[At<Remote>],
    text: &At<PortText>,
    out: &mut Vec<Diagnostic>,
) {
    let unreachable = |remote: &At<Remote>| {
        remote.value.address().is_some_and(|address| address.is_ipv4() != listen.is_ipv4())
    };
    let complete = !matches!(raw.remote, Field::Wrong) && !remotes.is_empty();
    if complete && remotes.iter().all(unreachable) {
        let message = format!("no remote can be reached from {listen}: it is of the other address family");
        out.push(Diagnostic::error(text.at(), message).help("listen on an address of the remote's family"));
    }
}

fn refuse(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), help: help.into() }
}
