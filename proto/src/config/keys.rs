//! Declares every configuration key once: name, type, range, default, what a change requires, the part of
//! [`super::Config`] that it sets, and its entry in tund.toml(5).

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::diagnostic::Findings;
use super::model::{MTU_LEAST, MTU_MOST};
use super::reader::{At, Field, Table};
use super::reload::Takes;
use super::schema::{Absent, Declared, Key, NumberOr, Ports, Read, Section, Shape, named, names, table};
use super::{AnyCipher, KeyMode, LogTo, MAX_ACCEPTED, Sandbox, Sources, Upgrade};
use crate::crypto::cbc_hmac::{CbcCipher, Digest};
use crate::crypto::suite::Cipher;
use crate::packet::layer::Mode;
use crate::wire::openvpn::Framing;

const U32_MAX: i64 = u32::MAX as i64;
/// In milliseconds.
const DAY: u64 = 86_400_000;

/// Names reserved for later versions, with their tables; the top's name is empty.
pub(super) const RESERVED: &[(&str, &str)] = &[("tuning", "fragment"), ("tuning", "pad")];

/// Names from earlier versions, with their tables, and why they have no effect any more.
pub(super) const RETIRED: &[(&str, &str, &str)] = &[("full-tunnel", "mode", "there is only one mode")];

/// Declares the file: the top, the list of routes, and the other tables.
macro_rules! file {
    (routes: $route:ty, $($field:ident: $table:ty),+) => {
        /// All tables, the top first.
        pub const SECTIONS: &[Section] = &[Top::SECTION, <$route>::SECTION, $(<$table>::SECTION),+];

        /// The file as read, unchecked.
        pub(super) struct Raw {
            pub top: Top,
            pub routes: Vec<$route>,
            $(pub $field: $table,)+
        }

        impl Raw {
            /// Reads everything and reports each unknown key, wrong type and key without effect.
            pub fn read(document: &Spanned<DeTable<'_>>, out: &mut Findings) -> Self {
                let mut file = Table::top(document, out);
                let top = Top::read(&mut file);
                let raw = Self { top, $($field: file.section(),)+ routes: file.sections() };
                file.finish();
                raw
            }
        }
    };
}

file! {
    routes: RawRoute,
    key: RawKey,
    openvpn: RawOpenVpn,
    device: RawDevice,
    full_tunnel: RawFullTunnel,
    push: RawPush,
    accept: RawAccept,
    scripts: RawScripts,
    keepalive: RawKeepalive,
    run: RawRun,
    guard: RawGuard,
    tuning: RawTuning,
    status: RawStatus
}

table! { Top ""
    /// Where the peer is: `"host"`, `"host:port"`, an IPv4 address, or an IPv6 address, bare or as `"[2001:db8::1]:1417"`. A port may be the name of a
    /// UDP service in /etc/services. Without a port it is 8863, or the value of `--port`. Without `remote` this end waits for the peer. There may be up
    /// to 16 entries. Each is looked up separately, and each address is called as soon as it is known, a quarter of a second after the one before; IPv6
    /// and IPv4 alternate, and the first that answers is the peer. At most 16 addresses are called. A name that does not resolve yet is looked up again
    /// while tund runs. A link-local address names its interface, which may appear later: `"[fe80::1%eth0]:1417"`. An entry with the prefix `tcp:`, such
    /// as `"tcp:mon.tn:563"`, reaches the peer over TCP, for networks that block UDP. UDP is preferred: entries with `tcp:` are called after the others,
    /// and while the link runs over TCP, an entry without it is tried again every minute. When UDP no longer passes, the link continues over TCP within
    /// ten seconds.
    "remote" remote: Vec<At<String>> = Shape::Texts, absent("none"), Call => remotes;
    /// The local UDP port, such as `1417`, `"1417"` or a service name, or address and port, such as `"192.0.2.1:1417"` or `"[2001:db8::1]:1417"`. A
    /// port alone and `"[::]:1417"` bind every address of both families, `"0.0.0.0:1417"` every IPv4 address. If the default port is taken and there
    /// is a `remote`, any free port is used and the log says so; a port that is set here or with `--port` never gives way. Port 0 takes any free port
    /// and needs a `remote`. A list may also have a TCP port, `[44096, "tcp:563"]`, on which streams are accepted from a peer whose `remote` has
    /// `tcp:`.
    "listen" listen: Ports = Shape::Ports, absent("the port of the first `remote`, else 8863"), Connect => listen;
    /// Reach entries of `remote` with `tcp:` through this proxy: `"http://HOST:PORT"`, which uses CONNECT (RFC 9110), or `"socks5://HOST:PORT"` (RFC
    /// 1928). A user name goes before the host, `"http://USER@HOST:PORT"`; its password goes into `proxy-password-file`. The names in `remote` are
    /// looked up on this host, not by the proxy; if no name server here knows them, use addresses. Many proxies allow connections to port 443 only.
    /// `tund doctor` finds out what passes.
    "proxy" proxy: String = Shape::Text, absent("none"), Call => proxy;
    /// The file whose first line is the password for `proxy`. It must be protected like `key.file`. It is read for each connection.
    "proxy-password-file" proxy_password_file: String = Shape::Text, absent("no password"), Nothing => proxy_password_file;
    /// Follow the peer to a new address once it has proven from there that it has the key.
    "float" float: bool = Shape::Flag, default(true), Nothing => float;
    /// Send and receive the link's datagrams through this interface only. It must exist at the start. If it disappears and another of the same name
    /// appears, as with a PPPoE connection, that one is used.
    "bind-device" bind_device: String = Shape::Text, absent("none"), Connect => bind_device;
    /// The firewall mark of the link's datagrams (SO_MARK), for policy routing. With `[full-tunnel]` they always have a mark. With `fwmark` or
    /// `bind-device` set, `tund check` does not look for routing loops, because the routes alone do not decide.
    "fwmark" fwmark: u32 = Shape::Number(0, U32_MAX, ""), absent("none"), Connect => fwmark;
}

table! { RawKey "key"
    /// How traffic keys are derived from the link's secret; the same at both ends. With `"handshake"` the ends agree on new keys every two minutes, so
    /// that anyone who obtains the key file later cannot read recorded traffic. With `"static"` the keys come from the key file itself, without a
    /// handshake and without forward secrecy. `"openvpn"` is for a peer that is OpenVPN 2.3 to 2.7 with `secret`: the key file, cipher and wire format
    /// are OpenVPN's, without forward secrecy. docs/openvpn.md describes how to move the ends one at a time.
    "mode" mode: KeyMode = names::<KeyMode>(), default(KeyMode::Handshake), Connect => key.mode;
    /// The file with the shared secret, the same at both ends, made by `tund genkey -o static.key`. It has comment lines that begin with `#`, and one
    /// line of 64 hexadecimal digits. It must belong to root or to the user who runs tund (with sudo(8), too), and must not be accessible to group or
    /// others (`chmod 600`), unless tund is called with `--allow-open-keys`. Nobody else may have write access to a directory on the path to it. An
    /// OpenVPN key is accepted with `mode = "openvpn"` only; `tund import --key` converts one. One of `file`, `credential` and `private-file` is
    /// required.
    "file" file: String = Shape::Text, absent(""), Connect;
    /// The name of a systemd credential to use instead of `file`, as in `LoadCredential=NAME:PATH`.
    "credential" credential: String = Shape::Text, absent(""), Connect;
    /// The file with this end's private key, made by `tund keypair`. It requires `peer-public`. If a shared secret is given as well, a peer needs both.
    "private-file" private_file: String = Shape::Text, absent(""), Connect;
    /// The peer's public key: the 64 hexadecimal digits that `tund pubkey` prints at the peer.
    "peer-public" peer_public: String = Shape::Text, absent(""), Connect;
    /// With static keys only: which of the two directions this end sends in. The ends must differ. By default it is 0 at the end whose first
    /// `device.address` is lower than the first `device.peer` of the same family. Without such a peer, as on most tap links, it must be set at both
    /// ends. With `"openvpn"`, 0 and 1 are `secret FILE 0` and `secret FILE 1`; unset is `secret FILE`.
    "direction" direction: u8 = Shape::Number(0, 1, ""), absent("from the addresses"), Connect => key.direction;
    /// With handshake keys, `"auto"` is AES-256-GCM if both ends have instructions for it, else ChaCha20-Poly1305; a name allows that cipher only. With
    /// static keys the cipher must be the same at both ends, and `"auto"` is `"chacha20-poly1305"`. With `"openvpn"` it is one of the CBC ciphers, and
    /// `"auto"` is `"aes-256-cbc"`; OpenVPN without `cipher` uses `"bf-cbc"`.
    "cipher" cipher: AnyCipher = names::<AnyCipher>(), default(AnyCipher::Auto), Connect => key.suites;
    /// With handshake keys: use X25519 and ML-KEM-768 together, so that traffic recorded now cannot be read with a later quantum computer. Set `false`
    /// for a peer that lacks ML-KEM-768. The value must be the same at both ends; they report a difference, and neither gives way.
    "post-quantum" post_quantum: bool = Shape::Flag, default(true), Connect => key.exchange;
    /// With `"openvpn"`: the HMAC digest, as the peer's `auth`. OpenVPN's default is SHA1, which is not a weakness in an HMAC.
    "auth" auth: Digest = names::<Digest>(), default(Digest::Sha1), Connect;
    /// With `"openvpn"`: allow `"bf-cbc"` and `"des-ede3-cbc"`. Their 64-bit blocks leak plaintext after about 32 GiB (SWEET32).
    "weak-ciphers" weak_ciphers: bool = Shape::Flag, default(false), Connect;
}

table! { RawOpenVpn "openvpn"
    /// With `key.mode = "openvpn"`: how the peer's compression option frames each packet. `"comp-lzo"` is for `comp-lzo` in all its forms and
    /// `compress lzo`; `"stub"` for `compress`, `compress stub` and `compress lz4`; `"stub-v2"` for the two with `-v2`; `"none"` for no such option.
    /// `"auto"` takes it from the peer's first ping, or from its first options request, which it sends after ten seconds. tund never compresses.
    /// Packets that the peer compressed are dropped, and the log names the remedy.
    "framing" framing: Option<Framing> = names::<Option<Framing>>(), default(None), Connect;
    /// With `key.mode = "openvpn"`: what happens when the peer turns out to be tund as well. With `"auto"` both ends change to handshake keys without
    /// interruption, and back if that fails. With `"require"` frames pass under handshake keys only; set it once both ends have changed. With `"off"`
    /// nothing happens.
    "upgrade" upgrade: Upgrade = names::<Upgrade>(), default(Upgrade::Auto), Connect;
    /// With `key.mode = "openvpn"`: split packets so that no datagram is longer than this, as the peer's `fragment`. Both ends must set it.
    "fragment" fragment: u16 = Shape::Number(68, 65_000, "bytes"), absent("packets are not split; those that exceed the path MTU travel as IP fragments"), Connect;
}

table! { RawDevice "device"
    /// `"tun"` is a routed link, which carries IP packets. `"tap"` is a bridged link, which carries Ethernet frames.
    "mode" mode: Mode = names::<Mode>(), default(Mode::Tun), Restart => device.mode;
    /// The interface's name: 1 to 15 bytes, without spaces, slashes, colons or percent signs.
    "name" name: String = Shape::Text, absent("the kernel picks tunN or tapN"), Restart => device.name;
    /// This end's addresses inside the tunnel, IPv4 and IPv6. On tun, an address without a prefix is point-to-point; with one (`"10.0.0.1/24"`), `peer`
    /// must be within it. It is required on tun, unless `configure = false`. On tap, an address needs a prefix (`"192.168.87.81/24"`), unless
    /// `configure = false`; there may be none.
    "address" address: Vec<At<String>> = Shape::Texts, absent(""), Connect => device.addresses;
    /// The peer's addresses inside the tunnel: at most one IPv4 and one IPv6 address, each of a family that `address` has. Routes call it `vpn_gateway`.
    "peer" peer: Vec<At<String>> = Shape::Texts, absent("none"), Connect => device.peers;
    /// The largest IP packet on the device, in bytes; the same at both ends, and at least 1280 with an IPv6 address. It need not fit the path: larger
    /// frames travel in several datagrams. `"bridge"` takes the MTU of the bridge at the start, at each reload and when it has grown; a device with a
    /// smaller MTU would lower the bridge's.
    "mtu" mtu: NumberOr = Shape::NumberOr(MTU_LEAST, MTU_MOST, "bytes", "bridge"), absent("1420 for tun, 1400 for tun with static keys, 1500 for tap"), Connect => device.mtu;
    /// With `false`, tund leaves the device's addresses and MTU to a script (OpenVPN's `ifconfig-noexec`). A device with `bridge` still joins it and is
    /// brought up. Without any capability tund can use a device that is ready: one of this `name` that another program has created and configured for
    /// tund's user (systemd-networkd: `Kind=tun` and `[Tun] User=tund`; NetworkManager: `tun.owner`; `ip tuntap add dev NAME mode tun user tund`), with
    /// `configure = false`, and without routes and scripts in the file.
    "configure" configure: bool = Shape::Flag, default(true), Restart => device.configure;
    /// The MAC address of a tap device, such as `"02:00:5e:10:00:01"`; it must not be a group address.
    "mac" mac: String = Shape::Text, absent("one that begins with `fe:`, derived from the key and the link's name, so that it stays the same; a device that another program created keeps its own, unless it joins a `bridge`"), Nothing => device.mac;
    /// Make the tap device a port of this bridge, which must exist. Addresses then belong on the bridge, not here.
    "bridge" bridge: String = Shape::Text, absent("none"), Nothing => device.bridge;
    /// Length of the device's transmit queue: how many packets may wait while tund waits for a processor.
    "txqueuelen" txqueuelen: u32 = Shape::Number(1, 1_000_000, "packets"), absent("2000, or the kernel's with `configure = false`"), Nothing => device.txqueuelen;
}

table! { RawRoute "route"
    /// The destination: one address, or a prefix without host bits, such as `"192.168.66.0/24"`.
    "to" to: String = Shape::Text, required, Nothing;
    /// `"vpn_gateway"` is the peer, `device.peer`; in tap mode without `peer`, `via` is required. `"net_gateway"` is the gateway of the ordinary default
    /// route and keeps this traffic out of the tunnel; without a default route the start fails. Any other value is the address of a gateway, of the same
    /// family as `to`.
    "via" via: String = Shape::Text, absent("`\"vpn_gateway\"`"), Nothing;
    /// Of several routes to one destination, the one with the lowest metric wins.
    "metric" metric: u32 = Shape::Number(0, U32_MAX, ""), absent("the kernel's"), Nothing;
    /// The routing table.
    "table" table: u32 = Shape::Number(1, U32_MAX, ""), absent("main"), Nothing;
}

table! { RawFullTunnel "full-tunnel"
    /// With `"reach"`, traffic takes a route of table main if that is narrower than its default route: to networks that this host is connected to, and
    /// also along routes that others set, such as by DHCP. Anybody who runs such a network can give it addresses that you want to reach through the
    /// tunnel. The log says so at each start, and so does `tund check` if the key is not set. With `"refuse"`, only the `[[route]]` tables of this file
    /// count. Everything else goes into the tunnel, including traffic to the local network and its printers, routes of other links, and answers to a
    /// local ssh client. The gateway still serves the link's own datagrams.
    "local-networks" local_networks: LocalNetworks = names::<LocalNetworks>(), default(LocalNetworks::Reach), Nothing;
    /// With `"open"`, the rules and the table exist while the link is up; while it is down, traffic goes outside the tunnel. With `"closed"` they
    /// exist from the start. While the link is down, `unreachable` routes in the table refuse everything but the link's datagrams, even after tund was
    /// killed or failed to start again. Only an orderly end (SIGTERM, `tund down`) removes rules and refusals; `tund status` shows them. DNS queries
    /// carry no mark. Names in `remote` are therefore looked up before the host is closed, and the start fails if none resolves. While the link is
    /// down, only `/etc/hosts` and a name server on a network that this host is connected to (with `"reach"`) can be asked, and tund keeps calling the
    /// addresses it knows. After tund was killed the host is still closed at the next start; an address in `remote` needs no look-up. To open it by
    /// hand: `ip rule del priority N`, `ip -6 rule del priority N`, also for N + 1, then `ip route flush table N`.
    "fail" fail: Fail = names::<Fail>(), default(Fail::Open), Nothing;
}

table! { RawPush "push"
    /// Prefixes that the peer is offered, to be reached through this end. There is room for 90 IPv4 or 30 IPv6 prefixes.
    "routes" routes: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => push;
}

table! { RawAccept "accept"
    /// Offers of the peer are accepted only within these prefixes; by default none is. An accepted prefix is routed through the peer, as with
    /// `via = "vpn_gateway"`, from when the link is up until the peer withdraws it or the link goes down. Each refused prefix is logged once. An
    /// offer that overlaps a network this host is connected to, or that contains a gateway or a resolver of `/etc/resolv.conf`, is refused unless
    /// the same prefix is in the list; so is one of loopback, link-local or multicast addresses. An offer that contains an outer address of the link is
    /// always refused, unless a narrower route leads that address elsewhere; `[full-tunnel]` has no such limit, and puts the peer's routes into its own
    /// table. An existing route is never replaced: an offer of the same is refused while that is there.
    "routes" routes: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => accept.routes;
    /// The most routes to accept.
    "limit" limit: usize = Shape::Number(0, MAX_ACCEPTED as i64, ""), default(MAX_ACCEPTED), Nothing => accept.limit;
    /// With `"routes"`, a packet from the peer is dropped and counted (`source`) unless its inner source address is `device.peer`, is link-local (IPv6),
    /// or lies within the network of `device.address`, a `[[route]]` through the peer, or a route that was accepted from the peer and set. A
    /// `[full-tunnel]` counts as a route to everything. Routes that others set, such as a script, do not count: a link over which a routing daemon runs
    /// needs `"any"`. `"any"` is also the default if the file gives neither a peer nor a network, as when a script sets the addresses. `tund check`
    /// reports the default unless the key is set. The key has no effect in tap mode.
    "sources" sources: Sources = names::<Sources>(), absent("`\"routes\"` in tun mode"), Nothing => accept.sources;
}

table! { RawScripts "scripts"
    /// Runs when the device exists, before frames flow. If it fails, the start stops.
    "up" up: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.up;
    /// Runs at the end, while the device still exists.
    "down" down: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.down;
    /// Runs after the routes are set.
    "route-up" route_up: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.route_up;
    /// Runs before the routes are removed.
    "route-down" route_down: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.route_down;
    /// Runs when the peer begins to answer.
    "link-up" link_up: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.link_up;
    /// Runs when the peer stops answering.
    "link-down" link_down: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.link_down;
    /// As OpenVPN's `script-security`: scripts run at level 2 and above. A script in the file is an error at a lower level.
    "security" security: u8 = Shape::Number(0, 3, ""), default(1), Nothing => scripts.security;
    /// How long one script may run.
    "timeout" timeout: Duration = Shape::Time(1000, 3_600_000), default(Duration::from_secs(30)), Nothing => scripts.timeout;
}

table! { RawKeepalive "keepalive"
    /// This end sends something at least this often.
    "interval" interval: Duration = Shape::Time(100, DAY), default(Duration::from_secs(10)), Nothing => keepalive.interval;
    /// After this long without anything from the peer, the link is down until the peer answers again. It must be longer than `interval`.
    "timeout" timeout: Duration = Shape::Time(100, DAY), default(Duration::from_secs(60)), Nothing => keepalive.timeout;
    /// A link that inetd, xinetd or a systemd socket started exits with code 0 when no frame has passed for this long; the next datagram starts it
    /// again. It tells the peer, which calls when it has a frame to send. If it hears nothing that only the peer can have sent, it exits after 30
    /// seconds. Other links ignore this key.
    "idle-exit" idle_exit: Duration = Shape::Time(100, DAY), default(Duration::from_secs(300)), Nothing => keepalive.idle_exit;
}

table! { RawRun "run"
    /// The user as which the process that reads the network runs.
    "user" user: String = Shape::Text, absent("`tund` if there is such a user, else `nobody`"), Restart => run.user;
    /// The group of that process.
    "group" group: String = Shape::Text, absent("the user's"), Restart => run.group;
    /// The directory for run-time files. If the default cannot be written to, `$XDG_RUNTIME_DIR/tund` is used. systemd's `$RUNTIME_DIRECTORY` takes
    /// precedence. The directory, and all directories and symbolic links on the path to it, must belong to root or to the user who starts tund, and
    /// nobody else may have write access; the same holds for the directories of `run.pid-file`, `status.socket` and `--key-log`.
    "runtime-dir" runtime_dir: String = Shape::Text, absent("`/run/tund`"), Restart => run.runtime_dir;
    /// Where a link with `key.mode = "openvpn"` keeps the two numbers that it needs after a restart. systemd's `$STATE_DIRECTORY` takes precedence. Like
    /// `runtime-dir`, it must belong to root or to the user who starts tund.
    "state-dir" state_dir: String = Shape::Text, absent("`/var/lib/tund`"), Restart => run.state_dir;
    /// The log level, with OpenVPN's meaning: 0 fatal errors only, 1 the usual, 3 normal use, 4 more, 5 a letter for each datagram and frame (`R`/`W`
    /// and `r`/`w`), 6 to 9 traces. `--verb` takes precedence.
    "verb" verb: u8 = Shape::Number(0, 9, ""), default(1), Nothing => run.verb;
    /// Where the log goes: standard error, syslog (facility daemon) or systemd's journal, which gets the link and the code of a condition as the fields
    /// `TUND_LINK` and `TUND_CODE`. With `"json"` each line on standard error is an object with `time` (RFC 3339), `severity` (as syslog names it),
    /// `link`, `message` and, if the line reports a condition, its `code`. With `--inetd` there is no standard error. The severities are `err` at any
    /// verb, `warning` for what is wrong and `notice` for other news from 1 on, `info` from 3 and `debug` from 4.
    "log" log: LogTo = names::<LogTo>(), absent("`\"stderr\"`, with `--inetd` `\"syslog\"`"), Restart => run.log;
    /// Whether to sandbox the processes that read the network, which have no privileges in any case: a system call filter, Landlock (no files, no TCP,
    /// no signals to others), and an empty root directory. If this host lacks one of these, `"auto"` logs it and `"require"` refuses to run, with exit
    /// code 69. The line `engine:` at verb 3 shows what is in force.
    "sandbox" sandbox: Sandbox = names::<Sandbox>(), default(Sandbox::Auto), Restart => run.sandbox;
    /// The root directory of the process that reads the network: an empty directory that belongs to root. Nobody else may have write access to it or to
    /// a directory on the path to it. It needs CAP_SYS_CHROOT. If root lacks that, as in a container, tund warns and keeps its root directory; with
    /// `sandbox = "require"` it refuses to run. For another user the root directory does not change by default, because Landlock denies access to files.
    "chroot" chroot: String = Shape::Text, absent("an empty directory in the runtime directory"), Restart => run.chroot;
    /// Run in the background, as with `--daemon`: the command returns when configuration, socket, device and `up` are good and the engine is sandboxed,
    /// or with the exit code of the failed start. The log goes to syslog, unless `log` is `"journal"`. With `--inetd` it has no effect. Do not set it in
    /// a systemd unit.
    "daemon" daemon: bool = Shape::Flag, default(false), Restart => run.daemon;
    /// The file for the process id to signal. It is removed at the end.
    "pid-file" pid_file: String = Shape::Text, absent("none"), Restart => run.pid_file;
    /// Priority of the process that reads the network and moves the frames, as in nice(1): -20 goes first. A value lower than tund's own needs
    /// CAP_SYS_NICE; with systemd's unit set `Nice=` there instead.
    "nice" nice: i8 = Shape::Number(-20, 19, ""), absent("tund's own"), Restart => run.nice;
}

table! { RawGuard "guard"
    /// Detect whether another path joins the two segments: every two seconds a broadcast probe is sent into the device. If it arrives at the peer's
    /// device by another path, one of the two ends holds back all frames (`loop`) until that path is gone. Where a spanning tree has already cut the
    /// loop, no probe passes and nothing is held back. Of two links between the same bridges, the one held back is the standby of the other.
    "loop" find_loops: bool = Shape::Flag, default(true), Connect => guard.find_loops;
    /// How many broadcast, multicast and unknown-unicast frames, taken together, are accepted from the peer per second. Frames above that are dropped
    /// (`guard-storm`). Each lane counts separately.
    "storm" storm: u32 = Shape::Number(1, 1_000_000, "frames"), default(20_000), Connect => guard.storm;
    /// How many source addresses the peer's segment may have at the same time. Frames from further ones are dropped (`guard-macs`), so that a flood of
    /// addresses does not fill the tables of switches here. An address that was not used for a minute makes room for others; one that was not used for
    /// five minutes is removed.
    "macs" macs: u32 = Shape::Number(1, 16_384, ""), default(4096), Connect => guard.macs;
    /// What happens to spanning-tree frames. With `"drop"`, none crosses the link in either direction (`guard-bpdu`): each segment has its own tree.
    "bpdu" bpdu: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_bpdu;
    /// What happens to answers of DHCP and DHCPv6 servers in the peer's segment. With `"drop"`, none reaches this segment (`guard-dhcp-server`).
    "dhcp-server" dhcp_server: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_dhcp_server;
    /// What happens to IPv6 router advertisements from the peer's segment. With `"drop"`, none reaches this segment (`guard-router-advertisement`), nor
    /// does a first fragment that does not show what it carries (RFC 7113).
    "router-advertisement" router_advertisement: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_router_advertisement;
    /// The VLANs that pass, in both directions, by the outermost tag: numbers and ranges, such as `["100", "200-209"]`. Frames of other VLANs are
    /// dropped (`guard-vlan`).
    "vlans" vlans: Vec<At<String>> = Shape::Texts, absent("all"), Connect => guard.vlans;
    /// Whether frames without a VLAN tag pass, in both directions. Frames with only a priority tag count as untagged.
    "untagged" untagged: bool = Shape::Flag, default(true), Connect => guard.untagged;
    /// What happens to frames from the peer whose source address is in use in this segment. With `"pass"` the host is taken to have moved. With `"drop"`
    /// the frame is taken to be forged (`guard-own-mac`), and a host that really moves is accepted after five minutes.
    "own-macs" own_macs: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_own_macs;
}

table! { RawTuning "tuning"
    /// Pack several small frames that wait at the same time into one datagram. No frame is delayed for this.
    "bundle" bundle: bool = Shape::Flag, default(true), Connect => tuning.bundle;
    /// Size to request for the buffers of the UDP socket. If the kernel gives less, the log says so.
    "socket-buffer" socket_buffer: u32 = Shape::Number(4096, 1 << 30, "bytes"), default(4 << 20), Connect => tuning.socket_buffer;
    /// The largest outer IP packet. By default tund probes the path, from 576 (IPv6: 596) up to the MTU of the route to the peer, and notices within
    /// seconds when it shrinks and within minutes when it grows. A value set here is used without probing.
    "path-mtu" path_mtu: u32 = Shape::Number(576, 65535, "bytes"), absent("found by probing"), Connect => tuning.path_mtu;
    /// Lower the segment size that TCP connections through a tun device announce to what the device's MTU holds, so that hosts behind the two ends need
    /// no path MTU discovery. It has no effect in tap mode.
    "mss-clamp" mss_clamp: bool = Shape::Flag, default(true), Connect => tuning.mss_clamp;
    /// Let the kernel split and join packets on the device and the socket, so that many frames share the cost of a system call. If the kernel does not
    /// support an offload, tund stops using it at once and logs that. `false` is for kernels or drivers with faulty offloads.
    "offload" offload: bool = Shape::Flag, default(true), Connect => tuning.data_path.offload;
    /// With 1, one thread moves both directions, which is best for one-way traffic and for round trips. With 2, each direction has its own thread, which
    /// is best when both directions are busy and there are processors to spare.
    "threads" threads: u8 = Shape::Number(1, 2, ""), default(1), Connect => tuning.data_path.threads;
    /// How many lanes the link has. Each has its own queue of the device, socket, keys and threads, and shares nothing with the others, so that a host
    /// with more processors carries more. `"auto"` is one lane for each processor of this host, at most 8. The kernel keeps the frames of one connection
    /// in one lane. If the ends differ, the smaller number counts. There is one lane while TCP carries the link, and where a superserver started it. An
    /// OpenVPN peer allows only one. If another program created the device, it needs several queues (`ip tuntap add dev NAME mode tun multi_queue`;
    /// systemd-networkd: `[Tun] MultiQueue=yes`).
    "lanes" lanes: NumberOr = Shape::NumberOr(1, 16, "lanes", "auto"), default(NumberOr::Number(1)), Restart => tuning.data_path.lanes;
    /// How long a worker keeps polling before it sleeps. A higher value shortens round trips, but keeps the processor busy.
    "busy-poll" busy_poll: u32 = Shape::Number(0, 1_000_000, "microseconds"), default(5), Connect => tuning.data_path.busy_poll;
    /// Copy the DSCP of inner packets to the datagrams that carry them, for networks that treat classes differently. Everyone on the path can see it.
    /// ECN is always carried in both directions (RFC 6040).
    "dscp" dscp: CopyDscp = names::<CopyDscp>(), absent("not copied"), Connect => tuning.data_path.copy_dscp;
    /// The algorithm that decides how fast this end sends over TCP (TCP_CONGESTION). The sysctl net.ipv4.tcp_available_congestion_control lists the
    /// names. The usual `cubic` treats each lost segment as congestion. `"bbr"` does not: it can make a link over TCP several times faster where a path
    /// loses segments at random (docs/performance.md), but may leave less to others who share the path. Each end has its own.
    "congestion-control" congestion_control: String = Shape::Text, absent("the kernel's"), Connect => tuning.congestion_control;
}

table! { RawStatus "status"
    /// The path of the control socket. Its directory must exist. A symbolic link in the runtime directory leads to it, so that `tund status` finds it.
    "socket" socket: String = Shape::Text, absent("`control.sock` in the runtime directory"), Restart => status.socket;
    /// A loopback address and port, such as `"127.0.0.1:9586"`, where the output of `tund stats` is served over HTTP, whatever the request. Any user of
    /// this host may read it. If the port is taken, the log says so and the link runs without it.
    "metrics" metrics: String = Shape::Text, absent("none"), Restart => status.metrics;
}

/// `full-tunnel.local-networks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalNetworks {
    Reach,
    Refuse,
}

/// `full-tunnel.fail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fail {
    Open,
    Closed,
}

/// What becomes of a kind of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
}

/// `tuning.dscp = "copy"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopyDscp;

named! {
    KeyMode: "static" => Self::Static, "openvpn" => Self::OpenVpn, "handshake" => Self::Handshake;
    AnyCipher:
        "auto" => Self::Auto, "aes-256-cbc" => Self::Cbc(CbcCipher::Aes256), "aes-192-cbc" => Self::Cbc(CbcCipher::Aes192),
        "aes-128-cbc" => Self::Cbc(CbcCipher::Aes128), "bf-cbc" => Self::Cbc(CbcCipher::Blowfish),
        "des-ede3-cbc" => Self::Cbc(CbcCipher::TripleDes), "chacha20-poly1305" => Self::Aead(Cipher::ChaCha20Poly1305),
        "aes-256-gcm" => Self::Aead(Cipher::Aes256Gcm);
    Digest: "sha1" => Self::Sha1, "sha256" => Self::Sha256, "sha384" => Self::Sha384, "sha512" => Self::Sha512;
    Option<Framing>:
        "auto" => None, "none" => Some(Framing::None), "comp-lzo" => Some(Framing::CompLzo), "stub" => Some(Framing::Stub),
        "stub-v2" => Some(Framing::StubV2);
    Mode: "tun" => Self::Tun, "tap" => Self::Tap;
    LocalNetworks: "reach" => Self::Reach, "refuse" => Self::Refuse;
    Fail: "open" => Self::Open, "closed" => Self::Closed;
    Sources: "any" => Self::Any, "routes" => Self::Routes;
    LogTo: "stderr" => Self::Stderr, "syslog" => Self::Syslog, "journal" => Self::Journal, "json" => Self::Json;
    Upgrade: "auto" => Self::Auto, "require" => Self::Require, "off" => Self::Off;
    Sandbox: "auto" => Self::Auto, "require" => Self::Require, "off" => Self::Off;
    CopyDscp: "copy" => Self;
    Verdict: "pass" => Self::Pass, "drop" => Self::Drop;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Options, parse, reload};

    const LINK: &str = "[key]\nfile = 'k'\ndirection = 0\n";

    fn header(table: &str) -> String {
        match table {
            "" => String::new(),
            "route" => "[[route]]".to_owned(),
            table => format!("[{table}]"),
        }
    }

    fn each() -> impl Iterator<Item = (&'static str, &'static Key)> {
        SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.name, key)))
    }

    /// Two right values of a key that differ.
    fn samples(table: &str, key: &Key) -> [String; 2] {
        let both = match ((key.shape)(), table, key.name) {
            (_, "device", "mode") => ["'tap'", "'tun'"],
            (_, "", "remote") => ["'a'", "'b'"],
            (_, "", "proxy") => ["'http://a:1'", "'socks5://u@b:2'"],
            (_, "device", "address") => ["'10.0.0.1/24'", "'10.0.0.2/24'"],
            (_, "device", "peer") => ["'10.0.0.8'", "'10.0.0.9'"],
            (_, "device", "mac") => ["'02:00:00:00:00:01'", "'02:00:00:00:00:02'"],
            (_, "push" | "accept", "routes") => ["'10.1.0.0/16'", "'10.2.0.0/16'"],
            (_, "guard", "vlans") => ["'1'", "'2-4094'"],
            (_, "status", "metrics") => ["'127.0.0.1:1'", "'127.0.0.1:2'"],
            (Shape::Text | Shape::Texts, ..) => ["'a'", "'b'"],
            (Shape::Flag, ..) => ["true", "false"],
            (Shape::Ports, ..) => ["1", "2"],
            (Shape::Number(low, high, _) | Shape::NumberOr(low, high, ..), ..) => {
                return [low.to_string(), high.to_string()];
            }
            (Shape::Time(low, high), ..) => return [format!("'{}ms'", low + 1), format!("'{}ms'", high - 1)],
            (Shape::OneOf(names), ..) => {
                return [names.first(), names.last()].map(|name| format!("'{}'", name.unwrap()));
            }
        };
        both.map(str::to_owned)
    }

    /// A link with all that any key needs, and `key` with `value`, or without it.
    fn link(table: &str, key: &str, value: Option<&str>) -> Config {
        let mut document: toml::Table = toml::from_str(LINK).unwrap();
        if table == "full-tunnel" {
            document.insert(table.to_owned(), toml::Table::new().into());
        }
        let mut set = |table: &str, key: &str, value: &str| {
            let value: toml::Table = toml::from_str(&format!("v = {value}")).unwrap();
            let inner = if table.is_empty() {
                &mut document
            } else {
                document.entry(table).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap()
            };
            inner.insert(key.to_owned(), value["v"].clone());
        };
        let tap = key == "mac" || key == "bridge" || table == "guard";
        set("device", "mode", if tap { "'tap'" } else { "'tun'" });
        set("device", "configure", if (table, key) == ("device", "configure") { "true" } else { "false" });
        set("device", "address", "'10.0.0.7/24'");
        set("device", "mtu", "1400");
        set("accept", "routes", "'10.9.0.0/16'");
        if table != "scripts" || key != "security" {
            set("scripts", "security", "2");
        }
        if table == "keepalive" {
            set(
                table,
                if key == "timeout" { "interval" } else { "timeout" },
                if key == "timeout" { "'100ms'" } else { "'24h'" },
            );
        }
        if let Some(value) = value {
            set(table, key, value);
        }
        let text = toml::to_string(&document).unwrap();
        let parsed = parse("l", &text, &Options::new("/"));
        parsed.config.unwrap_or_else(|| panic!("{text}: {:#?}", parsed.diagnostics))
    }

    #[test]
    fn every_key_is_read_and_typed() {
        for (table, key) in each() {
            let text = format!("{}\n{} = 1979-05-27", header(table), key.name);
            let document = DeTable::parse(&text).unwrap();
            let mut found = Findings::default();
            Raw::read(&document, &mut found);
            let place = text.find("1979").unwrap();
            let typed = found.0.iter().any(|d| {
                d.code == super::super::Code::WrongType
                    && d.span.as_ref().is_some_and(|span| span.start == place)
            });
            assert!(typed, "{}: {:#?}", key.name, found.0);
        }
    }

    #[test]
    fn every_key_sets_its_part_of_the_configuration_and_a_reload_names_its_change() {
        for (table, key) in each().filter(|(_, key)| key.part.is_some()) {
            let path = if table.is_empty() { key.name.to_owned() } else { format!("{table}.{}", key.name) };
            let values = samples(table, key);
            let first = link(table, key.name, Some(&values[0]));
            // A key with one value is compared with its absence.
            let second = link(
                table,
                key.name,
                values.get(1).filter(|second| **second != values[0]).map(String::as_str),
            );
            for (old, new) in [(&first, &second), (&second, &first)] {
                let plan = reload::plan(old, new, false);
                let named: Vec<_> = plan.changes.iter().filter(|change| change.what == path).collect();
                assert_eq!(named.len(), 1, "{path} {values:?}: {:?}", plan.changes);
                assert_eq!(named[0].takes, key.takes, "{path}");
                let kept = if key.takes == Takes::Restart { old } else { new };
                assert!(!key.part.unwrap().0(&plan.config, kept), "{path}: not the value that counts");
                let others: Vec<_> = plan.changes.iter().filter(|change| change.what != path).collect();
                assert!(path == "remote" || path == "device.mode" || others.is_empty(), "{path}: {others:?}");
            }
        }
    }

    #[test]
    fn the_declared_default_is_what_counts_without_the_key() {
        for (table, key) in each() {
            let Absent::Value(default) = (key.absent)() else { continue };
            let (without, with) = (link(table, key.name, None), link(table, key.name, Some(&default)));
            assert_eq!(without, with, "{table}.{} = {default}", key.name);
        }
    }
}
