//! The parts of a checked configuration.

mod key;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::layer::Mode;
use crate::wire::proxy::Kind;

pub use crate::wire::control::MAX_LANES;
pub use key::{AnyCipher, Key, KeyMode, KeyPair, OpenVpn, SecretSource, Upgrade};

/// A link's checked configuration: defaults filled in, cross-references valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file name without `.toml`; names the link in logs and run-time files.
    pub name: String,
    /// Peer's addresses, in the order to try; empty: wait for the peer.
    pub remotes: Vec<Remote>,
    /// The local end of the UDP socket.
    pub listen: Listen,
    /// Proxy for streams to remotes.
    pub proxy: Option<Proxy>,
    /// File whose first line is the proxy password.
    pub proxy_password_file: Option<PathBuf>,
    /// Whether to follow an authenticated peer to a new address.
    pub float: bool,
    /// Bind the UDP socket to this interface (SO_BINDTODEVICE).
    pub bind_device: Option<String>,
    /// Firewall mark of outer datagrams (SO_MARK).
    pub fwmark: Option<u32>,
    /// Key material and its use.
    pub key: Key,
    /// The TUN or TAP device.
    pub device: Device,
    /// Routes set on this host while the link runs.
    pub routes: Vec<Route>,
    /// Routes offered to the peer.
    pub push: Vec<IpNet>,
    /// What the peer may send.
    pub accept: Accept,
    /// Whether all traffic goes through the tunnel.
    pub full_tunnel: Option<FullTunnel>,
    /// User scripts.
    pub scripts: Scripts,
    /// Liveness timers.
    pub keepalive: Keepalive,
    /// How the processes run.
    pub run: Run,
    /// What may cross a tap link.
    pub guard: Guard,
    /// Data path settings.
    pub tuning: Tuning,
    /// Where the link reports its status.
    pub status: Reporting,
}

/// One entry of `remote`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// A host name, or an IP address without brackets. A link-local one may have a zone (RFC 4007, section 11):
    /// `fe80::1%eth0`.
    pub host: String,
    /// UDP or TCP port.
    pub port: u16,
    /// Reached by a stream (TCP).
    pub stream: bool,
}

impl Remote {
    /// The address, unless the host is a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.split('%').next()?.parse().ok()
    }

    /// The zone of a link-local address, an interface name or index.
    pub fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }
}

/// `proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Protocol.
    pub kind: Kind,
    /// Location.
    pub place: Remote,
    /// User name, if any.
    pub user: Option<String>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remote { host, port, .. } = &self.place;
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{host}{close}:{port}", self.kind.scheme())
    }
}

/// The local UDP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// `None` binds to every address of both families.
    pub address: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Whether the file or the command line sets the port. If not, and there is a remote, any free port may replace one
    /// that is taken.
    pub explicit: bool,
    /// Where to accept streams, if at all.
    pub stream: Option<StreamListen>,
}

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamListen {
    /// `None` binds to every address of both families.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// The `[device]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// TUN or TAP.
    pub mode: Mode,
    /// Interface name; `None`: the kernel chooses tunN or tapN.
    pub name: Option<String>,
    /// Own addresses. In tun mode, those without a prefix have full length (/32, /128).
    pub addresses: Vec<IpNet>,
    /// The peer's addresses inside the tunnel, at most one of each family.
    pub peers: Vec<IpAddr>,
    /// MTU of the device in bytes: the largest IP packet.
    pub mtu: u32,
    /// Whether the bridge's MTU replaces it.
    pub mtu_of_bridge: bool,
    /// False: addresses and MTU are left alone (OpenVPN's `ifconfig-noexec`).
    pub configure: bool,
    /// MAC address (tap only).
    pub mac: Option<[u8; 6]>,
    /// Join this bridge (tap only).
    pub bridge: Option<String>,
    /// Transmit queue length in packets.
    pub txqueuelen: Option<u32>,
}

/// Smallest MTU of a device in bytes ...
pub const MTU_LEAST: i64 = 576;
/// ... and the largest.
pub const MTU_MOST: i64 = 9216;

impl Device {
    /// Adopts the bridge's MTU, if configured, within a device's limits.
    pub fn take_bridge_mtu(&mut self, mtu: u32) {
        if self.mtu_of_bridge {
            self.mtu = u32::try_from(i64::from(mtu).clamp(MTU_LEAST, MTU_MOST)).unwrap_or(mtu);
        }
    }

    /// Whether a bridge with this MTU would allow a larger one.
    pub fn is_smaller_than(&self, mtu: u32) -> bool {
        self.mtu < mtu && i64::from(self.mtu) < MTU_MOST
    }
}

/// One `[[route]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Destination prefix, host bits zero.
    pub to: IpNet,
    /// The gateway.
    pub via: Via,
    /// Priority; lower wins. `None`: the kernel's default.
    pub metric: Option<u32>,
    /// Routing table; `None`: main.
    pub table: Option<u32>,
}

/// The gateway of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// The peer's tunnel address (`device.peer`).
    VpnGateway,
    /// The default route from before.
    NetGateway,
    /// This address.
    Address(IpAddr),
}

/// The `[accept]` table: what the peer may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// Prefixes within which pushed routes are accepted; none: no route is.
    pub routes: Vec<IpNet>,
    /// Most pushed routes accepted.
    pub limit: usize,
    /// Inner source addresses accepted (tun only).
    pub sources: Sources,
}

/// Firewall mark of a full tunnel's datagrams unless `fwmark` names one: the letters "tund". All links share it, so
/// that two full tunnels on a host do not lead into each other for ever.
pub const FULL_TUNNEL_MARK: u32 = 0x7475_6e64;

impl Config {
    /// Returns the mark of the link's socket (SO_MARK), by which a full tunnel recognises the link's own datagrams.
    pub fn mark(&self) -> Option<u32> {
        let own = self.full_tunnel.map(|_| FULL_TUNNEL_MARK);
        // 0 means no mark.
        if own.is_some() { self.fwmark.filter(|mark| *mark != 0).or(own) } else { self.fwmark }
    }

    /// Returns the prefixes that the file itself routes to the peer: peer addresses, device networks, each `[[route]]`
    /// through them, and everything with a full tunnel.
    pub fn routed_to_peer(&self) -> Vec<IpNet> {
        let networks = self.device.addresses.iter().filter(|own| has_network(own));
        let peers = self.device.peers.iter().copied().map(IpNet::from);
        let near: Vec<IpNet> = peers.chain(networks.map(IpNet::trunc)).collect();
        let through_peer = |route: &&Route| match route.via {
            Via::VpnGateway => true,
            Via::Address(gateway) => near.iter().any(|net| net.contains(&gateway)),
            Via::NetGateway => false,
        };
        let routes = self.routes.iter().filter(through_peer).map(|route| route.to);
        let all = [ipnet::Ipv4Net::default().into(), ipnet::Ipv6Net::default().into()];
        let all = all.into_iter().filter(|_| self.full_tunnel.is_some());
        near.iter().copied().chain(routes).chain(all).collect()
    }
}

/// Whether a device's address is in a network rather than point-to-point.
pub(super) fn has_network(own: &IpNet) -> bool {
    own.prefix_len() < own.max_prefix_len()
}

/// The `[full-tunnel]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullTunnel {
    /// `fail = "closed"`: traffic is blocked while the link is down and after tund was killed.
    pub closed: bool,
    /// `local-networks = "reach"`: networks with more specific routes in table main bypass the tunnel.
    pub local_networks: bool,
}

/// `accept.sources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// Any: a routing daemon may send whatever it routes.
    Any,
    /// The peer's tunnel address, and what is routed to the peer.
    Routes,
}

/// A program and its own arguments; tund appends the positional ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Arguments from the file.
    pub args: Vec<String>,
}

/// The `[scripts]` table. Every script is `None` unless `security` is 2 or more.
#[derive(Debug, Clone, PartialEq)]
pub struct Scripts {
    /// Runs once the device exists, before frames flow; if it fails, the start fails.
    pub up: Option<Command>,
    /// Runs at shutdown, while the device still exists.
    pub down: Option<Command>,
    /// Runs once the routes are set.
    pub route_up: Option<Command>,
    /// Runs before the routes are removed.
    pub route_down: Option<Command>,
    /// Once the peer answers.
    pub link_up: Option<Command>,
    /// Once it stops answering.
    pub link_down: Option<Command>,
    /// OpenVPN's `script-security` level.
    pub security: u8,
    /// Time limit for one script.
    pub timeout: Duration,
}

impl Scripts {
    /// Each script, with its key.
    pub fn each(&self) -> [(&'static str, Option<&Command>); 6] {
        [
            ("up", self.up.as_ref()),
            ("down", self.down.as_ref()),
            ("route-up", self.route_up.as_ref()),
            ("route-down", self.route_down.as_ref()),
            ("link-up", self.link_up.as_ref()),
            ("link-down", self.link_down.as_ref()),
        ]
    }
}

/// The `[keepalive]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Longest pause between datagrams sent.
    pub interval: Duration,
    /// The link is down after this long with nothing authentic.
    pub timeout: Duration,
    /// A link started by a superserver ends after this long without a frame.
    pub idle_exit: Duration,
}

/// The `[run]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where the start times of an OpenVPN link are kept.
    pub state_dir: Option<PathBuf>,
    /// User of the engine; `None`: `tund` if it exists, else `nobody`.
    pub user: Option<String>,
    /// Group of the engine; `None`: the user's own.
    pub group: Option<String>,
    /// Directory of run-time files; `None`: the default search.
    pub runtime_dir: Option<PathBuf>,
    /// Verbosity, 0 to 9, with OpenVPN's meaning.
    pub verb: u8,
    /// Root directory of the engine; `None`: an empty one in the runtime directory.
    pub chroot: Option<PathBuf>,
    /// Sandboxing of the engine.
    pub sandbox: Sandbox,
    /// Log destination; `None`: depends on how tund was started.
    pub log: Option<LogTo>,
    /// Run in the background, as with `--daemon`.
    pub daemon: bool,
    /// File of the process id.
    pub pid_file: Option<PathBuf>,
    /// Priority of the engine, -20 (first) to 19 (last); `None`: the parent's own.
    pub nice: Option<i8>,
}

/// The `[guard]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Send probes to detect that the segments are also joined elsewhere.
    pub find_loops: bool,
    /// Broadcasts, multicasts and unknown unicasts accepted from the peer per second.
    pub storm: u32,
    /// Most simultaneous source addresses in the peer's segment.
    pub macs: u32,
    /// Block spanning tree frames.
    pub drop_bpdu: bool,
    /// Drop DHCP server replies from the peer.
    pub drop_dhcp_server: bool,
    /// Drop router advertisements from the peer.
    pub drop_router_advertisement: bool,
    /// Ranges of VLANs that pass, first and last; `None`: all.
    pub vlans: Option<Vec<(u16, u16)>>,
    /// Pass frames without a VLAN.
    pub untagged: bool,
    /// Drop frames from the peer whose source is in this segment.
    pub drop_own_macs: bool,
}

/// The `[status]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporting {
    /// The control socket's path; `None`: `control.sock` in the runtime directory.
    pub socket: Option<PathBuf>,
    /// Loopback address that serves metrics over HTTP.
    pub metrics: Option<SocketAddr>,
}

/// `run.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTo {
    /// Standard error.
    Stderr,
    /// syslog(3), as a daemon.
    Syslog,
    /// systemd's journal.
    Journal,
    /// Standard error, one JSON object per line.
    Json,
}

/// Sandboxing of the processes that read the network, beyond dropped privileges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// As far as the kernel supports it.
    #[default]
    Auto,
    /// Refuse to run without all of it.
    Require,
    /// None.
    Off,
}

/// The `[tuning]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Pack several small waiting frames into one datagram.
    pub bundle: bool,
    /// Requested size of the UDP socket's buffers, in bytes.
    pub socket_buffer: u32,
    /// Largest outer IP packet, in bytes; `None`: from the route to the peer.
    pub path_mtu: Option<u32>,
    /// Lower the MSS of forwarded TCP connections to what the tunnel carries (tun only).
    pub mss_clamp: bool,
    /// Congestion control of connections over TCP; `None`: the kernel's default.
    pub congestion_control: Option<String>,
    /// How the workers use the machine.
    pub data_path: DataPath,
}

/// How the workers use the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPath {
    /// Let the kernel segment and join at device and socket.
    pub offload: bool,
    /// Copy the DSCP of inner packets outward.
    pub copy_dscp: bool,
    /// Lanes requested.
    pub lanes: Lanes,
    /// Threads per lane: 1 for both directions, or 2, one for each.
    pub threads: u8,
    /// How long a worker polls before it sleeps, in microseconds.
    pub busy_poll: u32,
}

/// `tuning.lanes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lanes {
    /// One per processor of this host, at most [`MAX_LANES_UNASKED`].
    Auto,
    /// A fixed number, 1 to [`MAX_LANES`].
    Count(u8),
}

/// Most lanes that [`Lanes::Auto`] uses.
pub const MAX_LANES_UNASKED: u8 = 8;
