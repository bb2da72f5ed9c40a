//! tund's routed links between fri and mon, the targets of a flood.

use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tund_lab::{Error, Host, Net, Process};

/// How long a link may take to come up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The log line of an end that is up.
pub(crate) const UP: &str = "link up with";
/// mon's port.
pub(crate) const PORT: u16 = 1417;
/// Addresses of fri and of mon on the path.
pub(crate) const OUTER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 80, 81), Ipv4Addr::new(192, 168, 80, 18)];
/// Addresses of fri and of mon inside a link.
pub(crate) const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 86, 81), Ipv4Addr::new(192, 168, 86, 18)];

/// How a link gets its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    Handshake,
    Static,
}

/// The ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Has the remote.
    Fri,
    /// Waits.
    Mon,
}

/// One of tund's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) keys: Keys,
    /// Whether it uses TCP.
    pub(crate) stream: bool,
    /// fri's own port, if different.
    pub(crate) port: Option<u16>,
}

impl Link {
    /// The configuration of one end.
    pub(crate) fn text(&self, place: Place) -> String {
        let ([fri, mon], [_, outer]) = (INNER, OUTER);
        let tcp = if self.stream { "tcp:" } else { "" };
        let (own, other, first) = match place {
            Place::Fri => {
                let listen = self.port.map(|port| format!("\nlisten = {port}")).unwrap_or_default();
                (fri, mon, format!("remote = \"{tcp}{outer}:{PORT}\"{listen}"))
            }
            Place::Mon => (mon, fri, format!("listen = \"{tcp}{PORT}\"")),
        };
        let keys = match (self.keys, place) {
            (Keys::Handshake, _) => "handshake\"".to_owned(),
            (Keys::Static, Place::Fri) => "static\"\ndirection = 1".to_owned(),
            (Keys::Static, Place::Mon) => "static\"\ndirection = 0".to_owned(),
        };
        format!(
            "{first}\n[key]\nfile = \"static.key\"\nmode = \"{keys}\n[device]\naddress = \"{own}\"\npeer = \"{other}\"\n"
        )
    }

    /// Starts one end on a host that has the key.
    pub(crate) fn start(&self, tund: &Path, host: &Host, place: Place) -> Result<Process, Error> {
        let file = host.file("link.toml", &self.text(place))?;
        host.tund(tund, &file, &[])
    }
}

/// Links this program under the daemon's name.
pub(crate) fn program(net: &Net) -> Result<PathBuf, Error> {
    let tund = net.dir().join("tund");
    let own = std::env::current_exe().map_err(|error| Error::new(format!("own program file: {error}")))?;
    symlink(own, &tund).map_err(|error| Error::new(format!("{}: {error}", tund.display())))?;
    Ok(tund)
}

/// The same, and makes a key for both hosts.
pub(crate) fn install(net: &Net, fri: &Host, mon: &Host) -> Result<PathBuf, Error> {
    let tund = program(net)?;
    let key = fri.dir().join("static.key");
    fri.run(&format!("{} genkey -o {}", tund.display(), key.display()))?;
    std::fs::copy(&key, mon.dir().join("static.key"))
        .map_err(|error| Error::new(format!("{}: {error}", key.display())))?;
    Ok(tund)
}
