//! The request, each word of it checked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::ValueEnum;
use ipnet::IpNet;

use crate::config::DEFAULT_PORT;
use crate::packet::layer::Mode;

/// A longer name, in bytes, makes unreadable file names.
const LONGEST_NAME: usize = 32;

/// One of the two hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its name in files and comments.
    pub name: String,
    /// Where the other host finds it: address or name, and port.
    pub outer: Option<(String, Option<u16>)>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, outer) = text.split_once('=').map_or((text, None), |(name, outer)| (name, Some(outer)));
        Ok(Self { name: host_name(name)?, outer: outer.map(outer_of).transpose()? })
    }
}

/// Checks a name that becomes part of file and unit names, and of comments.
pub fn host_name(name: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match first && name.len() <= LONGEST_NAME && name.chars().all(fine) {
        true => Ok(name.to_owned()),
        false => {
            Err(format!("a host name has up to {LONGEST_NAME} letters, digits, dots and dashes, such as fri"))
        }
    }
}

/// Splits `host`, `host:port`, `[v6]:port` or a bare IPv6 address. The file's check tells whether the host is valid.
pub fn outer_of(text: &str) -> Result<(String, Option<u16>), String> {
    let whole = || (text.trim_matches(['[', ']']).to_owned(), None);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => {
            let number = port.parse().ok().filter(|port| *port != 0);
            let number = number.ok_or_else(|| format!("{port:?} is not a port: use 1 to 65535"))?;
            (host.trim_matches(['[', ']']).to_owned(), Some(number))
        }
        _ => whole(),
    };
    // They would break the file's syntax.
    match host.is_empty() || host.contains(['"', '\\']) || host.contains(char::is_control) {
        true => {
            Err(format!("{text:?} is not an address: write one such as mon.tn:1417 or [2001:db8::1]:1417"))
        }
        false => Ok((host, port)),
    }
}

/// What the link carries, and the setup of each end's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    /// IP packets between these addresses.
    Tun([IpAddr; 2]),
    /// Ethernet frames.
    Tap([TapEnd; 2]),
}

/// The two addresses of a routed link.
pub fn addresses(text: &str) -> Result<Inside, String> {
    let two: Vec<IpAddr> = text.split(',').filter_map(|word| word.trim().parse().ok()).collect();
    match (two.as_slice(), text.matches(',').count()) {
        ([own, peer], 1) if own != peer && own.is_ipv4() == peer.is_ipv4() => Ok(Inside::Tun([*own, *peer])),
        _ => Err("give two addresses of the same family without prefix, such as 192.168.86.81,192.168.86.18"
            .to_owned()),
    }
}

/// The device of a bridged link at one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapEnd {
    /// A port of this bridge.
    Bridge(String),
    /// An interface of its own on the other end's segment.
    Address(IpNet),
}

impl FromStr for TapEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            let help = "an address needs a prefix length, such as 192.168.87.81/24";
            return text
                .parse()
                .map(Self::Address)
                .map_err(|_| format!("{text:?} is not an address: {help}"));
        }
        match text.parse::<IpAddr>() {
            Ok(address) => Err(format!("an address needs a prefix length: {address}/24")),
            Err(_) => host_name(text).map(Self::Bridge).map_err(|_| "name a bridge, such as br0".to_owned()),
        }
    }
}

/// A network behind one of the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    name: String,
    net: IpNet,
}

impl FromStr for Behind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, net)| Some((name, net.parse::<IpNet>().ok()?)));
        let (name, net) =
            parts.ok_or("name the host and the network behind it, such as mon=192.168.66.0/24")?;
        Ok(Self { name: name.to_owned(), net: net.trunc() })
    }
}

/// What starts the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// The unit tund@NAME.service, at both ends
    Systemd,
    /// The unit tund@NAME.socket, when the peer calls
    Socket,
    /// xinetd, when the peer calls
    Xinetd,
    /// inetd, when the peer calls
    Inetd,
}

/// A complete link. In each pair this host is first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub ends: [End; 2],
    pub inside: Inside,
    /// The networks behind each end.
    pub behind: [Vec<IpNet>; 2],
    pub full_tunnel: bool,
    pub service: Option<Service>,
}

impl Link {
    /// # Errors
    /// What is inconsistent, with the remedy.
    pub fn new(
        ends: [End; 2],
        inside: Inside,
        routes: Vec<Behind>,
        full_tunnel: bool,
        service: Option<Service>,
    ) -> Result<Self, String> {
        let [here, there] = &ends;
        if here.name == there.name {
            return Err(format!("both hosts are called {}: give them different names", here.name));
        }
        if ends.iter().all(|end| end.outer.is_none()) {
            let name = &there.name;
            return Err(format!(
                "neither end can call: say where a host is, such as {name}=198.51.100.2:{DEFAULT_PORT}"
            ));
        }
        if matches!(inside, Inside::Tap(_)) && (full_tunnel || !routes.is_empty()) {
            return Err(
                "--route and --full-tunnel are for a routed link: use --tun instead of --tap".to_owned()
            );
        }
        let mut behind = [Vec::new(), Vec::new()];
        for Behind { name, net } in routes {
            let at = ends.iter().position(|end| end.name == name);
            let place = at.and_then(|at| behind.get_mut(at));
            place.ok_or_else(|| format!("--route: {name} is neither of the two hosts"))?.push(net);
        }
        if full_tunnel && there.outer.is_none() {
            return Err(format!("with --full-tunnel this host must reach the other: {}=HOST", there.name));
        }
        Ok(Self { ends, inside, behind, full_tunnel, service })
    }

    /// The port of an end: its own, else the other's, else the default.
    pub fn port(&self, end: usize) -> u16 {
        let of = |end: usize| self.ends.get(end)?.outer.as_ref()?.1;
        of(end).or(of(1 - end)).unwrap_or(DEFAULT_PORT)
    }

    /// An end's address in the form of `remote`.
    pub fn remote(&self, end: usize) -> Option<String> {
        let (host, _) = self.ends.get(end)?.outer.as_ref()?;
        let port = self.port(end);
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    /// The end started by a superserver or systemd socket: the reachable one, preferably the other host.
    pub fn server(&self) -> usize {
        usize::from(self.ends[1].outer.is_some())
    }

    /// Whether this end has a systemd unit, which passes the key.
    pub fn has_unit(&self, end: usize) -> bool {
        match self.service {
            Some(Service::Systemd) => true,
            Some(Service::Socket) => end == self.server(),
            Some(Service::Xinetd | Service::Inetd) | None => false,
        }
    }

    /// The name of an end's link.
    pub fn name(&self, end: usize) -> String {
        let [one, other] = if end == 0 { [0, 1] } else { [1, 0] };
        format!("{}-{}-{}", self.mode(), self.ends[one].name, self.ends[other].name)
    }

    /// The names of both files.
    pub fn files(&self) -> [String; 2] {
        [0, 1].map(|end| format!("{}.toml", self.name(end)))
    }

    /// The name of the key file.
    pub fn key(&self) -> String {
        format!("{}.key", self.name(0))
    }

    /// tun or tap.
    pub fn mode(&self) -> Mode {
        match self.inside {
            Inside::Tun(_) => Mode::Tun,
            Inside::Tap(_) => Mode::Tap,
        }
    }
}

impl fmt::Display for TapEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_with_or_without_a_place() {
        let end = |text: &str| text.parse::<End>();
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(end("fri").unwrap().outer, None);
        assert_eq!(end("mon=mon.tn:1417").unwrap().outer, is("mon.tn", Some(1417)));
        assert_eq!(end("mon=[2001:db8::1]:1417").unwrap().outer, is("2001:db8::1", Some(1417)));
        for text in ["mon=2001:db8::1", "mon=[2001:db8::1]"] {
            assert_eq!(end(text).unwrap().outer, is("2001:db8::1", None));
        }
        for bad in
            ["", "../fri", "-fri", "fri\n", "mon=", "mon=mon.tn:0", "mon=mon.tn:x", "mon=a\"b", "a b=c"]
        {
            assert!(end(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports_and_addresses_have_one_form_each() {
        assert_eq!("br0".parse(), Ok(TapEnd::Bridge("br0".into())));
        assert_eq!("192.168.87.81/24".parse(), Ok(TapEnd::Address("192.168.87.81/24".parse().unwrap())));
        for bad in ["192.168.87.81", "br 0", "a/24", ""] {
            assert!(bad.parse::<TapEnd>().is_err(), "{bad:?}");
        }
        for bad in [
            "10.0.0.1",
            "10.0.0.1,10.0.0.1",
            "10.0.0.1,fd00::1",
            "10.0.0.1,10.0.0.2,10.0.0.3",
            "a,b",
            "10.0.0.1/24,10.0.0.2",
        ] {
            assert!(addresses(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_makes_no_link_is_refused_with_the_remedy() {
        let ends = |one: &str, other: &str| [one.parse().unwrap(), other.parse().unwrap()];
        let tun = || addresses("10.9.0.1,10.9.0.2").unwrap();
        let refused = |ends, routes, full| Link::new(ends, tun(), routes, full, None).unwrap_err();
        assert!(refused(ends("fri", "mon"), vec![], false).contains("mon=198.51.100.2:8863"));
        assert!(refused(ends("fri", "fri=a"), vec![], false).contains("different names"));
        assert!(
            refused(ends("fri", "mon=a"), vec!["tue=10.0.0.0/8".parse().unwrap()], false).contains("tue")
        );
        assert!(refused(ends("fri=a", "mon"), vec![], true).contains("mon=HOST"));
    }

    #[test]
    fn each_end_is_found_at_the_port_that_one_of_them_names() {
        let link = |one: &str, other: &str| {
            let inside = addresses("10.9.0.1,10.9.0.2").unwrap();
            Link::new([one.parse().unwrap(), other.parse().unwrap()], inside, vec![], false, None).unwrap()
        };
        assert_eq!(link("fri=a", "mon=b:1417").remote(0).unwrap(), "a:1417");
        assert_eq!(link("fri=a:1418", "mon=b:1417").remote(0).unwrap(), "a:1418");
        assert_eq!(link("fri", "mon=fd00::1").remote(1).unwrap(), "[fd00::1]:8863");
        assert_eq!(link("fri", "mon=b").server(), 1);
        assert_eq!(link("fri=a", "mon").server(), 0);
    }
}
