//! What a checked configuration consists of.

mod key;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::layer::Mode;
use crate::wire::proxy::Kind;

pub use key::{AnyCipher, Key, KeyMode, KeyPair, OpenVpn, SecretSource, Upgrade};

/// A whole link, checked: every default is filled in and every cross-reference holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file name without `.toml`; names the link in logs and run-time files.
    pub name: String,
    /// Where to find the peer, in the order to try; empty: wait for the peer.
    pub remotes: Vec<Remote>,
    /// The local end of the UDP socket.
    pub listen: Listen,
    /// What streams to remotes go through.
    pub proxy: Option<Proxy>,
    /// The file whose first line is the password for it.
    pub proxy_password_file: Option<PathBuf>,
    /// Whether an authenticated peer is followed to a new address.
    pub float: bool,
    /// Bind the UDP socket to this interface (SO_BINDTODEVICE).
    pub bind_device: Option<String>,
    /// Firewall mark of outer datagrams (SO_MARK).
    pub fwmark: Option<u32>,
    /// Where the key material is and how it is used.
    pub key: Key,
    /// The TUN or TAP device.
    pub device: Device,
    /// Routes set on this host while the link runs.
    pub routes: Vec<Route>,
    /// Routes offered to the peer.
    pub push: Vec<IpNet>,
    /// What may come from the peer.
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
    /// Where the link tells about itself.
    pub status: Reporting,
}

/// One entry of `remote`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// A host name, or an IP address in text form without brackets, with the zone of a link-local one (RFC 4007,
    /// section 11): `fe80::1%eth0`.
    pub host: String,
    /// UDP port, or that of TCP.
    pub port: u16,
    /// It is reached by a stream: TCP.
    pub stream: bool,
}

impl Remote {
    /// The address, unless the host is a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.split('%').next()?.parse().ok()
    }

    /// The interface that a link-local address is on, by name or index, if it is given.
    pub fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }
}

/// `proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// How it is asked.
    pub kind: Kind,
    /// Where it is.
    pub place: Remote,
    /// Who asks, if it is to know.
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
    /// Set in the file or on the command line. A port that was not may give way to any free one when
    /// it is taken and there is a remote.
    pub explicit: bool,
    /// Where streams are accepted, if they are.
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
    /// Interface name; `None`: the kernel picks tunN or tapN.
    pub name: Option<String>,
    /// Own addresses. In tun mode without a prefix they have full length (/32, /128).
    pub addresses: Vec<IpNet>,
    /// The peer's addresses inside the tunnel, at most one of each family.
    pub peers: Vec<IpAddr>,
    /// MTU of the device in bytes: the largest IP packet.
    pub mtu: u32,
    /// The bridge's MTU is to take its place.
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

/// The smallest MTU of a device in bytes ...
pub const MTU_LEAST: i64 = 576;
/// ... and the largest.
pub const MTU_MOST: i64 = 9216;

impl Device {
    /// Takes the MTU of the bridge, if that is asked for, as far as a device can have it.
    pub fn take_bridge_mtu(&mut self, mtu: u32) {
        if self.mtu_of_bridge {
            self.mtu = u32::try_from(i64::from(mtu).clamp(MTU_LEAST, MTU_MOST)).unwrap_or(mtu);
        }
    }

    /// Whether a larger MTU could be taken from a bridge of this one.
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
    /// The peer's address inside the tunnel (`device.peer`).
    VpnGateway,
    /// The default route that was there before.
    NetGateway,
    /// This address.
    Address(IpAddr),
}

/// The `[accept]` table: what may come from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// A pushed route is taken if it lies within one of these prefixes; none: no route is.
    pub routes: Vec<IpNet>,
    /// Most pushed routes that are taken.
    pub limit: usize,
    /// Which inner source addresses are (tun only).
    pub sources: Sources,
}

/// The mark of a full tunnel's datagrams unless `fwmark` names one: the letters "tund". It is the same for all links, so that
/// two full tunnels on one host do not lead into each other for ever.
pub const FULL_TUNNEL_MARK: u32 = 0x7475_6e64;

impl Config {
    /// The mark of the link's socket (SO_MARK), by which a full tunnel tells the link's own datagrams from all others.
    pub fn mark(&self) -> Option<u32> {
        let own = self.full_tunnel.map(|_| FULL_TUNNEL_MARK);
        // 0 is the mark of whoever has none.
        if own.is_some() { self.fwmark.filter(|mark| *mark != 0).or(own) } else { self.fwmark }
    }

    /// The prefixes that are routed to the peer by the file itself: the peer's addresses and networks of the device,
    /// `[[route]]` through them, and everything with a full tunnel.
    pub fn routed_to_peer(&self) -> Vec<IpNet> {
        let networks = self.device.addresses.iter().filter(|own| own.prefix_len() < own.max_prefix_len());
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

/// The `[full-tunnel]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullTunnel {
    /// `fail = "closed"`: nothing leaves otherwise either when the link is down or tund was killed.
    pub closed: bool,
    /// `local-networks = "reach"`: what table main has more specific routes for goes beside the tunnel.
    pub local_networks: bool,
}

/// `accept.sources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// Every one: a routing daemon may send whatever it routes.
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
    /// After the device exists, before frames flow; its failure stops the start.
    pub up: Option<Command>,
    /// When going down, while the device still exists.
    pub down: Option<Command>,
    /// After the routes were set.
    pub route_up: Option<Command>,
    /// Before the routes are removed.
    pub route_down: Option<Command>,
    /// The peer answers.
    pub link_up: Option<Command>,
    /// The peer no longer answers.
    pub link_down: Option<Command>,
    /// OpenVPN's `script-security` level.
    pub security: u8,
    /// How long one script may run.
    pub timeout: Duration,
}

/// The `[keepalive]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Something is sent at least this often.
    pub interval: Duration,
    /// With nothing authentic for this long the link is down.
    pub timeout: Duration,
    /// A link that a superserver started ends when nothing authentic came for this long.
    pub idle_exit: Duration,
}

/// The `[run]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where the numbers of an OpenVPN peer's link are kept.
    pub state_dir: Option<PathBuf>,
    /// User of the engine; `None`: `tund` if it exists, else `nobody`.
    pub user: Option<String>,
    /// Group of the engine; `None`: the user's own.
    pub group: Option<String>,
    /// Directory of run-time files; `None`: the default search.
    pub runtime_dir: Option<PathBuf>,
    /// How much is said, 0 to 9, with OpenVPN's meaning.
    pub verb: u8,
    /// Root directory of the engine; `None`: an empty one in the runtime directory.
    pub chroot: Option<PathBuf>,
    /// Whether the engine is locked in.
    pub sandbox: Sandbox,
    /// Where the log goes; `None`: as the way of starting suggests.
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
    /// Probes tell whether the two segments are joined elsewhere too.
    pub find_loops: bool,
    /// Broadcasts, multicasts and frames to unknown destinations taken from the peer in a second.
    pub storm: u32,
    /// Source addresses of the peer's segment at the same time.
    pub macs: u32,
    /// No spanning tree crosses the link.
    pub drop_bpdu: bool,
    /// No answer of a DHCP server is taken from the peer.
    pub drop_dhcp_server: bool,
    /// No router advertisement is taken from the peer.
    pub drop_router_advertisement: bool,
    /// First and last of each range of VLANs that pass; `None`: all.
    pub vlans: Option<Vec<(u16, u16)>>,
    /// Frames without a VLAN pass.
    pub untagged: bool,
    /// No frame is taken from the peer whose source is in this segment.
    pub drop_own_macs: bool,
}

/// The `[status]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporting {
    /// The control socket's path; `None`: `control.sock` in the runtime directory.
    pub socket: Option<PathBuf>,
    /// Loopback address where the metrics are served over HTTP.
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
    /// Standard error, an object a line.
    Json,
}

/// Whether the processes that read the network are locked in, beyond having no privileges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// As far as the kernel can.
    #[default]
    Auto,
    /// Not running at all without everything.
    Require,
    /// Not at all.
    Off,
}

/// The `[tuning]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Pack several small waiting frames into one datagram.
    pub bundle: bool,
    /// Size asked for of the UDP socket's buffers, in bytes.
    pub socket_buffer: u32,
    /// Largest outer IP packet, in bytes; `None`: from the route to the peer.
    pub path_mtu: Option<u32>,
    /// Lower the segment size that forwarded TCP connections announce to what the tunnel carries (tun only).
    pub mss_clamp: bool,
    /// Name of the congestion control of connections over TCP; `None`: the kernel's default.
    pub congestion_control: Option<String>,
    /// How the workers use the machine.
    pub data_path: DataPath,
}

/// How the workers use the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPath {
    /// Let the kernel cut up and join what crosses device and socket.
    pub offload: bool,
    /// Copy the DSCP of inner packets outward.
    pub copy_dscp: bool,
    /// Lanes that are wanted.
    pub lanes: Lanes,
    /// Threads of a lane: 1 for both directions, or 2, one for each.
    pub threads: u8,
    /// How long a worker looks for more before it sleeps, in microseconds.
    pub busy_poll: u32,
}

/// `tuning.lanes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lanes {
    /// One for each processor of this host, at most [`MAX_LANES_UNASKED`].
    Auto,
    /// So many, 1 to [`MAX_LANES`].
    Count(u8),
}

/// Most lanes of a link.
pub const MAX_LANES: u8 = 16;

/// Most lanes that [`Lanes::Auto`] stands for.
pub const MAX_LANES_UNASKED: u8 = 8;
