//! Combines the directives into a link.

use zeroize::Zeroizing;

use crate::network::{Gateway, Route, route, route_ipv6, with_netmask};
use crate::openvpn::{OpenVpn, Taken};
use crate::reasons::{TLS, reason};
use crate::words::{Directive, split};
use crate::{Imported, OldKey, Problem, Wire, one_line, quote};

/// OpenVPN's default port.
pub(super) const PORT: &str = "1194";

/// Range of tund's `device.mtu` in bytes.
const MTU: std::ops::RangeInclusive<i64> = 576..=9216;

/// The link, from the directives read so far.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The wire format, kept for a peer that stays OpenVPN.
    pub openvpn: Option<OpenVpn>,
    pub remotes: Vec<(String, Option<String>)>,
    pub port: Option<String>,
    pub local_port: Option<String>,
    pub remote_port: Option<String>,
    pub local: Option<String>,
    pub nobind: bool,
    pub bind_device: Option<String>,
    pub mark: Option<i64>,
    dev: Option<String>,
    dev_type: Option<String>,
    /// Own address, and the peer's or on tap the netmask.
    pub ifconfig: Option<(String, Option<String>)>,
    pub ifconfig_ipv6: Option<(String, Option<String>)>,
    pub noexec: bool,
    pub mtu: Option<i64>,
    pub mac: Option<String>,
    pub txqueuelen: Option<i64>,
    pub routes: Vec<Route>,
    pub route_gateway: Option<String>,
    pub route_metric: Option<i64>,
    pub ping: Option<i64>,
    pub ping_restart: Option<i64>,
    pub scripts: Vec<(&'static str, Vec<String>)>,
    pub security: i64,
    pub user: Option<String>,
    pub group: Option<String>,
    pub verb: Option<i64>,
    pub nice: Option<i64>,
    pub syslog: bool,
    pub copy_dscp: bool,
    pub daemon: bool,
    pub pid_file: Option<String>,
    pub buffer: Option<i64>,
    pub no_mss_clamp: bool,
    pub full_tunnel: bool,
    secret: Option<OldKey>,
    left_out: Vec<String>,
    errors: Vec<Problem>,
}

impl Link {
    /// An empty link.
    pub fn new(wire: Wire) -> Self {
        Self { openvpn: (wire == Wire::OpenVpn).then(OpenVpn::default), ..Self::default() }
    }

    /// Reads one directive.
    pub fn take(&mut self, directive: &Directive) {
        match self.openvpn.as_mut().map_or(Ok(Taken::Other), |wire| wire.take(directive)) {
            Ok(Taken::Kept) => {}
            Ok(Taken::Noted(note)) => self.report(directive, note),
            Ok(Taken::Other) => self.take_apart_from_wire(directive),
            Err((message, help)) => {
                self.errors.push(Problem::new(Some(directive.place.clone()), message, help));
            }
        }
    }

    fn take_apart_from_wire(&mut self, directive: &Directive) {
        let words: Vec<&str> = directive.arguments.iter().map(String::as_str).collect();
        let known = match (directive.name.as_str(), words.as_slice()) {
            ("secret", _) => self.secret(directive),
            (name, _) if TLS.contains(&name) => self.refuse(directive),
            (
                "remote" | "port" | "lport" | "rport" | "local" | "nobind" | "proto" | "bind-dev" | "mark",
                words,
            ) => self.outer(directive, words),
            ("dev", [name]) => set(&mut self.dev, name),
            ("dev-type", [kind]) => set(&mut self.dev_type, kind),
            ("ifconfig", [own, other]) => pair(&mut self.ifconfig, own, Some(other)),
            ("ifconfig-ipv6", [own, rest @ ..]) => pair(&mut self.ifconfig_ipv6, own, rest.first()),
            ("ifconfig-noexec", []) => flag(&mut self.noexec),
            ("tun-mtu", [mtu, ..]) => self.mtu(directive, mtu),
            ("lladdr", [mac]) => set(&mut self.mac, mac),
            ("txqueuelen", [length]) => number(&mut self.txqueuelen, length),
            ("route", words) => self.route(directive, words),
            ("route-ipv6", words) => self.keep(directive, route_ipv6(words)),
            ("route-gateway", [gateway]) => set(&mut self.route_gateway, gateway),
            ("redirect-gateway", flags) => self.redirect(directive, flags),
            ("route-metric", [metric]) => number(&mut self.route_metric, metric),
            ("keepalive", [interval, timeout]) => {
                number(&mut self.ping, interval) && number(&mut self.ping_restart, timeout)
            }
            ("ping", [interval]) => number(&mut self.ping, interval),
            ("ping-restart", [timeout]) => number(&mut self.ping_restart, timeout),
            (name, words) => self.local_side(name, words),
        };
        if !known {
            self.leave_out(directive);
        }
    }

    fn outer(&mut self, directive: &Directive, words: &[&str]) -> bool {
        match (directive.name.as_str(), words) {
            ("remote", [host, rest @ ..]) => {
                self.remotes.push(((*host).to_owned(), rest.first().map(|&port| port.to_owned())));
                rest.get(1).is_none_or(|proto| self.proto(directive, proto))
            }
            ("port", [port]) => set(&mut self.port, port),
            ("lport", [port]) => set(&mut self.local_port, port),
            ("rport", [port]) => set(&mut self.remote_port, port),
            ("local", [address]) => set(&mut self.local, address),
            ("nobind", []) => flag(&mut self.nobind),
            ("proto", [proto]) => self.proto(directive, proto),
            ("bind-dev", [device]) => set(&mut self.bind_device, device),
            ("mark", [mark]) => number(&mut self.mark, mark),
            _ => false,
        }
    }

    /// tund calls over UDP of both families. TCP gets a note, since the peer must change too.
    fn proto(&mut self, directive: &Directive, proto: &str) -> bool {
        if !proto.starts_with("udp") {
            self.report(
                directive,
                "tund prefers UDP: where that is blocked, add \"tcp:HOST:PORT\" to remote, and \"tcp:PORT\" \
                                    to listen on the other end",
            );
        }
        true
    }

    fn local_side(&mut self, name: &str, words: &[&str]) -> bool {
        let script = match name {
            "up" => Some("up"),
            "down" => Some("down"),
            "route-up" => Some("route-up"),
            "route-pre-down" => Some("route-down"),
            "ipchange" => Some("link-up"),
            _ => None,
        };
        match (script, name, words) {
            (Some(script), _, [command]) => {
                // The command has its own level of quotes and escapes.
                let Some(command) = split(command).ok().filter(|words| !words.is_empty()) else {
                    return false;
                };
                // As in OpenVPN, the last one counts.
                self.scripts.retain(|(other, _)| *other != script);
                self.scripts.push((script, command));
                true
            }
            (None, "script-security", [level, ..]) => {
                level.parse().map(|level| self.security = level).is_ok()
            }
            (None, "daemon", _) => flag(&mut self.daemon),
            (None, "writepid", [file]) => set(&mut self.pid_file, file),
            (None, "user", [user]) => set(&mut self.user, user),
            (None, "group", [group]) => set(&mut self.group, group),
            (None, "verb", [level]) => number(&mut self.verb, level),
            (None, "nice", [level]) => number(&mut self.nice, level),
            (None, "syslog", _) => flag(&mut self.syslog),
            (None, "passtos", []) => flag(&mut self.copy_dscp),
            (None, "sndbuf" | "rcvbuf", [size]) => {
                let before = self.buffer;
                let read = number(&mut self.buffer, size);
                self.buffer = self.buffer.max(before);
                read
            }
            (None, "mssfix", []) => true,
            (None, "mssfix", [size, ..]) => {
                self.no_mss_clamp = *size == "0";
                true
            }
            _ => false,
        }
    }

    /// tund's largest MTU is that of a jumbo frame.
    fn mtu(&mut self, directive: &Directive, mtu: &str) -> bool {
        let read = number(&mut self.mtu, mtu);
        if let Some(mtu) = self.mtu.take_if(|mtu| read && !MTU.contains(mtu)) {
            let (least, most) = (MTU.start(), MTU.end());
            self.report(
                directive,
                &format!("device.mtu must be {least} to {most}, not {mtu}: left at its default"),
            );
        }
        read
    }

    fn secret(&mut self, directive: &Directive) -> bool {
        let key = match (&directive.inline, directive.arguments.first()) {
            (Some(text), _) => OldKey::Inline(Zeroizing::new(text.as_str().to_owned())),
            (None, Some(file)) if file != "[inline]" => OldKey::File(file.clone()),
            (None, _) => return !directive.arguments.is_empty(),
        };
        self.secret = Some(key);
        true
    }

    fn route(&mut self, directive: &Directive, words: &[&str]) -> bool {
        let [network, "netmask", rest @ ..] = words else {
            return self.keep(directive, route(words, &self.remotes));
        };
        // As some tutorials write it.
        self.report(
            directive,
            "OpenVPN looks `netmask` up as a name and sets no such route; imported without that word",
        );
        self.keep(directive, route(&[&[*network], rest].concat(), &self.remotes))
    }

    /// Flags about the path around the tunnel need nothing: tund always does that.
    fn redirect(&mut self, directive: &Directive, flags: &[&str]) -> bool {
        self.full_tunnel = true;
        for flag in flags
            .iter()
            .filter(|flag| matches!(**flag, "local" | "autolocal" | "block-local" | "bypass-dns" | "!ipv4"))
        {
            self.report(directive, &format!("the flag {flag} has no equivalent; see [full-tunnel]"));
        }
        true
    }

    fn keep(&mut self, directive: &Directive, route: Result<Route, &'static str>) -> bool {
        match route {
            Ok(route) => self.routes.push(route),
            Err(problem) => self.report(directive, problem),
        }
        true
    }

    fn refuse(&mut self, directive: &Directive) -> bool {
        let message = format!("`{}` belongs to a link with certificates", directive.name);
        let help =
            "only links of two ends with a static key (`secret`) can be imported; write tund's file by hand";
        self.errors.push(Problem::new(Some(directive.place.clone()), message, help));
        true
    }

    fn leave_out(&mut self, directive: &Directive) {
        let unknown = "tund import does not know this form; see openvpn(8)";
        self.report(directive, reason(&directive.name, self.openvpn.is_some()).unwrap_or(unknown));
    }

    fn report(&mut self, directive: &Directive, why: &str) {
        let words = [std::slice::from_ref(&directive.name), &directive.arguments].concat().join(" ");
        self.left_out.push(format!("line {}: {}: {why}", directive.line, one_line(&words)));
    }

    /// Whether the device is a tap.
    pub fn is_tap(&self) -> bool {
        self.dev_type.as_ref().or(self.dev.as_ref()).is_some_and(|kind| kind.starts_with("tap"))
    }

    /// The interface's name, unless it is only a kind.
    pub fn device_name(&self) -> Option<&str> {
        self.dev.as_deref().filter(|name| !matches!(*name, "tun" | "tap" | "null"))
    }

    /// Returns the result, or all problems.
    pub fn finish(mut self) -> Result<Imported, Vec<Problem>> {
        if self.secret.is_none() && self.errors.is_empty() {
            let help = "only links of two ends with a static key can be imported";
            self.errors.push(Problem::new(None, "there is no `secret`", help));
        }
        if self.dev.is_none() && self.dev_type.is_none() {
            self.errors.push(Problem::new(None, "there is no `dev`", "name tun or tap"));
        }
        if let Some((own, Some(other))) = self.ifconfig.clone()
            && (self.is_tap() || other.starts_with("255."))
        {
            match with_netmask(&own, &other) {
                Some(net) => self.ifconfig = Some((net.to_string(), None)),
                None => {
                    let (own, other) = (quote(&own), quote(&other));
                    self.left_out.push(format!("ifconfig {own} {other}: not an address and netmask"));
                }
            }
        }
        if self.security < 2 && !self.scripts.is_empty() {
            self.left_out.push("scripts: without script-security 2, OpenVPN ran none of them".to_owned());
            self.scripts.clear();
        }
        let named = self.port.is_some() || self.remote_port.is_some();
        if !named && self.remotes.iter().any(|(_, port)| port.is_none()) {
            let port = "port: not set, so OpenVPN uses 1194, and so does the file below; if it is called with --port N, \
                        write N into remote and listen";
            self.left_out.push(port.to_owned());
        }
        match self.openvpn.as_ref().map_or(Ok(None), OpenVpn::finish) {
            // The most important comes first.
            Ok(note) => self.left_out.splice(0..0, note).for_each(drop),
            Err((message, help)) => self.errors.push(Problem::new(None, message, help)),
        }
        let Some(key) = self.secret.take().filter(|_| self.errors.is_empty()) else {
            return Err(self.errors);
        };
        let left_out = std::mem::take(&mut self.left_out);
        Ok(Imported { link: self, key, left_out })
    }

    /// Where a route leads.
    pub fn via(&self, route: &Route) -> Option<String> {
        match &route.gateway {
            None => self.route_gateway.clone().filter(|_| route.to.addr().is_ipv4()),
            Some(Gateway::Net) => Some("net_gateway".to_owned()),
            Some(Gateway::Address(address)) => Some(address.to_string()),
        }
    }
}

fn set(field: &mut Option<String>, value: &str) -> bool {
    *field = Some(value.to_owned());
    true
}

fn pair(field: &mut Option<(String, Option<String>)>, own: &str, other: Option<&&str>) -> bool {
    *field = Some((own.to_owned(), other.map(|&other| other.to_owned())));
    true
}

fn flag(field: &mut bool) -> bool {
    *field = true;
    true
}

fn number(field: &mut Option<i64>, value: &str) -> bool {
    value.parse().map(|value| *field = Some(value)).is_ok()
}
