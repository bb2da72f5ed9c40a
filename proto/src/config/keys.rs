//! Declares every configuration key once: name, type, range, default, what a change requires, the part of
//! [`super::Config`] that it sets, and its entry in tund.toml(5).

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::diagnostic::Diagnostic;
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
            pub fn read(document: &Spanned<DeTable<'_>>, out: &mut Vec<Diagnostic>) -> Self {
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
    /// Where the peer is: `"host"`, `"host:port"`, an IPv4 address, an IPv6 address bare or as `"[2001:db8::1]:1417"`. A port may be the name of a
    /// UDP service in /etc/services; without one it is 8863, or what `--port` says. Without `remote` this end waits for the peer. There may be up to
    /// 16 entries. Each is looked up separately, and each address is called as soon as it is known, a quarter of a second after the one before; IPv6
    /// and IPv4 alternate, and the first that answers is the peer. At most 16 addresses are called. A name that does not resolve yet is looked up
    /// again while tund runs. A link-local address names its interface, which may appear later: `"[fe80::1%eth0]:1417"`. With `tcp:` before it, as in
    /// `"tcp:mon.tn:563"`, the peer is reached over TCP, for networks that do not let UDP through. UDP is preferred: entries with `tcp:` are called
    /// after the others, and an entry without it is tried again every minute while the link runs over TCP. When UDP no longer passes, the link
    /// continues over TCP within ten seconds.
    "remote" remote: Vec<At<String>> = Shape::Texts, absent("none"), Call => remotes;
    /// The local UDP port, such as `1417`, `"1417"` or a service name, or address and port, such as `"192.0.2.1:1417"` or `"[2001:db8::1]:1417"`. A
    /// port alone and `"[::]:1417"` bind every address of both families, `"0.0.0.0:1417"` every IPv4 address. If the default port is taken and there
    /// is a `remote`, any free port is used and the log says so; a port that is set here or with `--port` never gives way. Port 0 takes any free port
    /// and needs a `remote`. A list may also have a TCP port, `[44096, "tcp:563"]`, on which streams are accepted from a peer whose `remote` has
    /// `tcp:`.
    "listen" listen: Ports = Shape::Ports, absent("the port of the first `remote`, else 8863"), Connect => listen;
    /// Reach entries of `remote` with `tcp:` through this proxy: `"http://HOST:PORT"`, which uses CONNECT (RFC 9110), or `"socks5://HOST:PORT"` (RFC
    /// 1928). A user goes before the host, `"http://USER@HOST:PORT"`, and the password into `proxy-password-file`. The names in `remote` are looked
    /// up here, not by the proxy; if no name server here knows them, write addresses. Many proxies allow only connections to port 443. `tund doctor`
    /// tries what passes.
    "proxy" proxy: String = Shape::Text, absent("none"), Call => proxy;
    /// The file whose first line is the password for `proxy`. It must be protected like `key.file`. It is read for each connection.
    "proxy-password-file" proxy_password_file: String = Shape::Text, absent("no password"), Nothing => proxy_password_file;
    /// Follow a peer to a new address once it has proven there that it has the key.
    "float" float: bool = Shape::Flag, default(true), Nothing => float;
    /// Send and receive the link's datagrams through this interface only. It must exist at the start. If it disappears and returns under the same
    /// name, like that of a PPPoE connection, it is used again.
    "bind-device" bind_device: String = Shape::Text, absent("none"), Connect => bind_device;
    /// The firewall mark of the link's datagrams (SO_MARK), for policy routing; with `[full-tunnel]` there is one in any case. With `fwmark` or
    /// `bind-device` set, `tund check` does not look for routing loops, as the routes do not decide alone.
    "fwmark" fwmark: u32 = Shape::Number(0, U32_MAX, ""), absent("none"), Connect => fwmark;
}

table! { RawKey "key"
    /// How traffic keys are derived from the link's secret, the same at both ends. With `"handshake"` the ends agree on new keys every two minutes,
    /// so that somebody who obtains the key file later cannot read recorded traffic. With `"static"` they come from the key file itself, without any
    /// handshake and without forward secrecy. `"openvpn"` is for a peer that is OpenVPN 2.3 to 2.7 with `secret`: the key file, the cipher and the
    /// wire format are OpenVPN's, without forward secrecy; docs/openvpn.md describes how to move the ends one at a time.
    "mode" mode: KeyMode = names::<KeyMode>(), default(KeyMode::Handshake), Connect => key.mode;
    /// The file of the shared secret, the same at both ends, made by `tund genkey -o static.key`. It has comment lines beginning with `#` and one
    /// line of 64 hexadecimal digits. It must belong to root or to the user who runs tund (with sudo(8), too), and must not be open to group or
    /// others (`chmod 600`), unless tund is called with `--allow-open-keys`. Nobody else may be able to write to a directory on the
    /// way to it. A key of OpenVPN is taken with `mode = "openvpn"` only; `tund import --key` converts one. One of `file`, `credential` and `private-file` is required.
    "file" file: String = Shape::Text, absent(""), Connect;
    /// In place of `file`: the name of a credential that systemd hands over, as with `LoadCredential=NAME:PATH`.
    "credential" credential: String = Shape::Text, absent(""), Connect;
    /// The file of this end's private key, made by `tund keypair`; with `peer-public`. A shared secret may be given as well, and then both are
    /// needed to get in.
    "private-file" private_file: String = Shape::Text, absent(""), Connect;
    /// The peer's public key: the 64 hexadecimal digits that `tund pubkey` prints there.
    "peer-public" peer_public: String = Shape::Text, absent(""), Connect;
    /// With static keys only: which of the two directions this end sends in; the ends must differ. By default it is 0 at the end whose first
    /// `device.address` is lower than the first `device.peer` of that family. Where there is no such peer, as with most tap links, it has to be
    /// set, at both ends. With `"openvpn"`: as `secret FILE 0`, `secret FILE 1`, or, without it, as `secret FILE`.
    "direction" direction: u8 = Shape::Number(0, 1, ""), absent("from the addresses"), Connect => key.direction;
    /// With handshake keys, `"auto"` is AES-256-GCM where both ends have instructions for it, else ChaCha20-Poly1305; a name allows that one only.
    /// With static keys it has to be the same at both ends, and `"auto"` is `"chacha20-poly1305"`. With `"openvpn"` it is one of the ciphers in
    /// CBC mode, and `"auto"` is `"aes-256-cbc"`; OpenVPN without `cipher` uses `"bf-cbc"`.
    "cipher" cipher: AnyCipher = names::<AnyCipher>(), default(AnyCipher::Auto), Connect => key.suites;
    /// With handshake keys: agree on them by X25519 and ML-KEM-768 together, so that somebody who records traffic now and has a quantum computer
    /// later cannot read it. `false` is for a peer that lacks this. It has to be the same at both ends; they report a difference, and neither changes
    /// by itself.
    "post-quantum" post_quantum: bool = Shape::Flag, default(true), Connect => key.exchange;
    /// With `"openvpn"`: the digest of the HMAC, as the peer's `auth`. OpenVPN's default is SHA1, which is no weakness in an HMAC.
    "auth" auth: Digest = names::<Digest>(), default(Digest::Sha1), Connect;
    /// With `"openvpn"`: allow `"bf-cbc"` and `"des-ede3-cbc"`, whose blocks of 64 bits give traffic away after some 32 GiB (SWEET32).
    "weak-ciphers" weak_ciphers: bool = Shape::Flag, default(false), Connect;
}

table! { RawOpenVpn "openvpn"
    /// With `key.mode = "openvpn"`: what the peer's compression option puts around each packet. `"comp-lzo"`: `comp-lzo` in all its forms and
    /// `compress lzo`; `"stub"`: `compress`, `compress stub` and `compress lz4`; `"stub-v2"`: the two with `-v2`; `"none"`: no such option.
    /// `"auto"` looks at the peer's first ping, or at its first question about options, which comes after ten seconds. Nothing is ever
    /// compressed, and what the peer compresses is dropped; the log names the remedy.
    "framing" framing: Option<Framing> = names::<Option<Framing>>(), default(None), Connect;
    /// With `key.mode = "openvpn"`: what happens when the peer turns out to be tund as well. `"auto"`: both change to handshake keys, without a
    /// break, and back if it fails. `"require"`: frames pass only under such keys; set it once both ends have changed. `"off"`: nothing.
    "upgrade" upgrade: Upgrade = names::<Upgrade>(), default(Upgrade::Auto), Connect;
    /// With `key.mode = "openvpn"`: as the peer's `fragment`: packets are cut so that no datagram is longer. Both ends have to set it.
    "fragment" fragment: u16 = Shape::Number(68, 65_000, "bytes"), absent("packets are not cut; what exceeds the path travels as IP fragments"), Connect;
}

table! { RawDevice "device"
    /// `"tun"` carries IP packets, a routed link. `"tap"` carries Ethernet frames, a bridged link.
    "mode" mode: Mode = names::<Mode>(), default(Mode::Tun), Restart => device.mode;
    /// The interface's name: 1 to 15 bytes, without space, slash, colon or percent sign.
    "name" name: String = Shape::Text, absent("the kernel picks tunN or tapN"), Restart => device.name;
    /// This end's addresses inside the tunnel, IPv4 and IPv6. tun: without a prefix the address is point-to-point; with one (`"10.0.0.1/24"`)
    /// `peer` has to be in it. Required, unless `configure = false`. tap: with a prefix (`"192.168.87.81/24"`), unless `configure = false`; may be
    /// left out.
    "address" address: Vec<At<String>> = Shape::Texts, absent(""), Connect => device.addresses;
    /// The peer's addresses inside the tunnel, at most one IPv4 and one IPv6 address, each of a family that `address` has. It is the `vpn_gateway`
    /// of routes.
    "peer" peer: Vec<At<String>> = Shape::Texts, absent("none"), Connect => device.peers;
    /// The largest IP packet on the device, in bytes, the same at both ends; at least 1280 with an IPv6 address. It need not fit the path: larger
    /// frames travel in several datagrams. `"bridge"` means the MTU of the bridge, as it is at the start, at each reload and when it has grown; a
    /// device with a smaller MTU would lower the bridge's.
    "mtu" mtu: NumberOr = Shape::NumberOr(MTU_LEAST, MTU_MOST, "bytes", "bridge"), absent("1420 for tun, 1400 for tun with static keys, 1500 for tap"), Connect => device.mtu;
    /// With `false`, addresses and MTU of the device are left alone, for a script to set (OpenVPN's `ifconfig-noexec`). A device with `bridge` is
    /// still joined and brought up. Without any capability tund uses a device that is ready: one of this `name` that another program made and set
    /// up for tund's user (systemd-networkd: `Kind=tun` and `[Tun] User=tund`; NetworkManager: `tun.owner`; `ip tuntap add dev NAME mode tun user
    /// tund`), with `configure = false`, and without routes and scripts in the file.
    "configure" configure: bool = Shape::Flag, default(true), Restart => device.configure;
    /// The MAC address of a tap device, such as `"02:00:5e:10:00:01"`; not a group address.
    "mac" mac: String = Shape::Text, absent("one that begins with `fe:`, drawn from the key and the link's name, so that it stays; a device that another program made keeps its own, unless it joins a `bridge`"), Nothing => device.mac;
    /// Make the tap device a port of this bridge, which has to exist. Addresses then belong on the bridge, not here.
    "bridge" bridge: String = Shape::Text, absent("none"), Nothing => device.bridge;
    /// Length of the device's transmit queue, in packets: how many may wait while tund waits for a processor.
    "txqueuelen" txqueuelen: u32 = Shape::Number(1, 1_000_000, "packets"), absent("2000, or the kernel's with `configure = false`"), Nothing => device.txqueuelen;
}

table! { RawRoute "route"
    /// The destination: a prefix such as `"192.168.66.0/24"` without bits after the prefix, or one address.
    "to" to: String = Shape::Text, required, Nothing;
    /// `"vpn_gateway"`: the peer, `device.peer`; in tap mode without `peer`, `via` is required. `"net_gateway"`: the gateway of the ordinary
    /// default route, so that this traffic stays out of the tunnel; without a default route the start fails. Or the address of a gateway, of the
    /// same family as `to`.
    "via" via: String = Shape::Text, absent("`\"vpn_gateway\"`"), Nothing;
    /// Among routes to the same destination the lower metric wins.
    "metric" metric: u32 = Shape::Number(0, U32_MAX, ""), absent("the kernel's"), Nothing;
    /// The routing table.
    "table" table: u32 = Shape::Number(1, U32_MAX, ""), absent("main"), Nothing;
}

table! { RawFullTunnel "full-tunnel"
    /// With `"reach"`, traffic goes where table main has a route for it that is narrower than its default route: to networks that this host is
    /// connected to, and also along routes that others set, such as by DHCP. Anybody who runs such a network can give it addresses that you want to
    /// reach through the tunnel. The log says so at each start, and `tund check` if the key is not set. With `"refuse"`, only the `[[route]]` tables
    /// of this file count. Everything else goes into the tunnel, including traffic to the local network and its printers, routes of other links, and
    /// answers to a local ssh client. The gateway still serves the link's own datagrams.
    "local-networks" local_networks: LocalNetworks = names::<LocalNetworks>(), default(LocalNetworks::Reach), Nothing;
    /// With `"open"`, rules and table exist while the link is up; while it is not, traffic goes outside the tunnel. With `"closed"` they exist from
    /// the start, and while the link is down, `unreachable` routes of the table refuse everything but the link's datagrams, also after tund was
    /// killed or failed to start again. Only an orderly end (SIGTERM, `tund down`) removes rules and refusals; `tund status` shows them. Look-ups
    /// carry no mark. So names in `remote` are looked up before the host is closed, and the start fails if none resolves. While the link is down,
    /// only `/etc/hosts` and a name server on a network that this host is connected to (with `"reach"`) can be asked, and tund keeps calling the
    /// known addresses. After tund was killed the host is still closed at the next start; an address in `remote` needs no look-up. By hand:
    /// `ip rule del priority N`, `ip -6 rule del priority N`, also for N + 1, then `ip route flush table N`.
    "fail" fail: Fail = names::<Fail>(), default(Fail::Open), Nothing;
}

table! { RawPush "push"
    /// Prefixes offered to the peer, to be reached through this end. There is room for 90 of IPv4 or 30 of IPv6.
    "routes" routes: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => push;
}

table! { RawAccept "accept"
    /// The peer's offers are accepted only within these prefixes; by default none is. An accepted prefix is routed through the peer as with
    /// `via = "vpn_gateway"`, from when the link is up until the peer withdraws it or the link goes down. Refused ones are logged, once each. An
    /// offer that overlaps a network this host is connected to, or that contains a gateway or a resolver of `/etc/resolv.conf`, is refused, unless
    /// that very prefix is in the list. One that contains an outer address of the link is always refused, unless a narrower route leads that address
    /// elsewhere; `[full-tunnel]` has no such limit, and puts the peer's routes into its own table. An existing route is never replaced.
    "routes" routes: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => accept.routes;
    /// The most routes that are accepted.
    "limit" limit: usize = Shape::Number(0, MAX_ACCEPTED as i64, ""), default(MAX_ACCEPTED), Nothing => accept.limit;
    /// With `"routes"`, packets from the peer are dropped and counted (`source`) unless their inner source address is `device.peer`, is link-local
    /// (IPv6), or lies within the network of `device.address`, a `[[route]]` through the peer, or a route that was accepted from the peer and set. A
    /// `[full-tunnel]` counts as a route to everything. Routes that others set, such as a script, do not count: a link over which a routing daemon
    /// runs needs `"any"`. `"any"` is also the default of a link whose file gives neither peer nor network, as with addresses from a script;
    /// `tund check` reports the default unless the key is set. Without effect in tap mode.
    "sources" sources: Sources = names::<Sources>(), absent("`\"routes\"` in tun mode"), Nothing => accept.sources;
}

table! { RawScripts "scripts"
    /// Runs when the device exists and before frames flow; a failure stops the start.
    "up" up: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.up;
    /// Runs at the end, while the device still exists.
    "down" down: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.down;
    /// Runs after the routes were set.
    "route-up" route_up: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.route_up;
    /// Runs before the routes are removed.
    "route-down" route_down: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.route_down;
    /// Runs when the peer no longer answers.
    "link-up" link_up: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.link_up;
    /// Runs when the peer ceases to answer.
    "link-down" link_down: Vec<At<String>> = Shape::Texts, absent("none"), Nothing => scripts.link_down;
    /// As OpenVPN's `script-security`: scripts run from 2 on. A script in the file with a lower level is an error.
    "security" security: u8 = Shape::Number(0, 3, ""), default(1), Nothing => scripts.security;
    /// How long one script may run.
    "timeout" timeout: Duration = Shape::Time(1000, 3_600_000), default(Duration::from_secs(30)), Nothing => scripts.timeout;
}

table! { RawKeepalive "keepalive"
    /// Something is sent at least this often.
    "interval" interval: Duration = Shape::Time(100, DAY), default(Duration::from_secs(10)), Nothing => keepalive.interval;
    /// With nothing from the peer for this long the link is down, until the peer answers again. Longer than `interval`.
    "timeout" timeout: Duration = Shape::Time(100, DAY), default(Duration::from_secs(60)), Nothing => keepalive.timeout;
    /// A link that inetd, xinetd or a systemd socket started ends, with exit code 0, when no frame passed for this long; the next datagram starts
    /// it again. Its peer is told, and calls when it has a frame to send. Without effect on other links. One that was started and heard nothing
    /// that only the peer can have sent ends after 30 seconds.
    "idle-exit" idle_exit: Duration = Shape::Time(100, DAY), default(Duration::from_secs(300)), Nothing => keepalive.idle_exit;
}

table! { RawRun "run"
    /// The user that the process that reads the network becomes.
    "user" user: String = Shape::Text, absent("`tund` if there is such a user, else `nobody`"), Restart => run.user;
    /// Its group.
    "group" group: String = Shape::Text, absent("the user's"), Restart => run.group;
    /// Where run-time files are kept. If a default cannot be written, it is `$XDG_RUNTIME_DIR/tund`. systemd's `$RUNTIME_DIRECTORY` takes precedence.
    /// The directory, and all directories and symbolic links on the path to it, must belong to root or to the user who starts tund, and nobody else
    /// may have write access; the same holds for the directories of `run.pid-file`, `status.socket` and `--key-log`.
    "runtime-dir" runtime_dir: String = Shape::Text, absent("`/run/tund`"), Restart => run.runtime_dir;
    /// Where a link with `key.mode = "openvpn"` keeps the two numbers that it needs after a restart. systemd's `$STATE_DIRECTORY` takes precedence.
    /// It must belong to root or to the user who starts tund, like `runtime-dir`.
    "state-dir" state_dir: String = Shape::Text, absent("`/var/lib/tund`"), Restart => run.state_dir;
    /// How much is logged, with OpenVPN's meaning: 0 fatal errors only, 1 the usual, 3 normal use, 4 more, 5 a letter for each datagram and frame
    /// (`R`/`W` and `r`/`w`), 6 to 9 traces. `--verb` takes precedence.
    "verb" verb: u8 = Shape::Number(0, 9, ""), default(1), Nothing => run.verb;
    /// Where the log goes: standard error, syslog (facility daemon) or systemd's journal, which gets the link and the code of a condition as the
    /// fields `TUND_LINK` and `TUND_CODE`. With `"json"` each line on standard error is an object with `time` (RFC 3339), `severity` (as syslog
    /// names it), `link`, `message` and, if the line tells of a condition, its `code`. With `--inetd` there is no standard error. Severities are `err`
    /// at any verb, `warning` for what is wrong and `notice` for other news from 1 on, `info` from 3 and `debug` from 4.
    "log" log: LogTo = names::<LogTo>(), absent("`\"stderr\"`, with `--inetd` `\"syslog\"`"), Restart => run.log;
    /// Whether the processes that read the network, which have no privileges in any case, are also sandboxed: a list of system calls, Landlock (no
    /// files, no TCP, no signals to others), an empty root directory. With `"auto"` the log says what this host lacks; with `"require"` tund then
    /// refuses to run, with exit code 69. The line `engine:` at verb 3 says what is in force.
    "sandbox" sandbox: Sandbox = names::<Sandbox>(), default(Sandbox::Auto), Restart => run.sandbox;
    /// The root directory of the process that reads the network: an empty directory that belongs to root. Nobody else may be able to write to it, or
    /// to a directory on the path to it. It needs CAP_SYS_CHROOT. If root lacks that, as in a container, tund warns and keeps its root directory, and
    /// refuses to run with `sandbox = "require"`. For another user the root directory does not change by default, since Landlock keeps files out of
    /// reach.
    "chroot" chroot: String = Shape::Text, absent("an empty directory in the runtime directory"), Restart => run.chroot;
    /// Run in the background, as with `--daemon`: the command returns when configuration, socket, device and `up` are good and the engine is
    /// locked, or with tund's exit code. The log goes to syslog, unless `log` says `"journal"`. Not with `--inetd`, nor from a systemd unit.
    "daemon" daemon: bool = Shape::Flag, default(false), Restart => run.daemon;
    /// File of the process id to signal; it is removed at the end.
    "pid-file" pid_file: String = Shape::Text, absent("none"), Restart => run.pid_file;
    /// Priority of the process that reads the network and moves the frames, as in nice(1): -20 goes first. A value lower than tund's own needs
    /// CAP_SYS_NICE; with systemd's unit set `Nice=` there instead.
    "nice" nice: i8 = Shape::Number(-20, 19, ""), absent("tund's own"), Restart => run.nice;
}

table! { RawGuard "guard"
    /// Detect whether the two segments are also joined by another path: every two seconds a probe, a broadcast, goes into the device. If it arrives
    /// at the peer's device by another path, one of the two ends holds all frames back (`loop`) until there is no other path. Where a spanning tree
    /// has already cut the loop, no probe passes and nothing is held back. Of two links between the same bridges the held one is the reserve of the
    /// other.
    "loop" find_loops: bool = Shape::Flag, default(true), Connect => guard.find_loops;
    /// How many broadcasts, how many multicasts and how many frames to unknown destinations are accepted from the peer in a second. More of them is a
    /// storm, and the excess is dropped (`guard-storm`). Each lane counts separately.
    "storm" storm: u32 = Shape::Number(1, 1_000_000, "frames"), default(20_000), Connect => guard.storm;
    /// How many source addresses the peer's segment may have at the same time. Frames with further ones are dropped (`guard-macs`), so that a flood
    /// of addresses does not fill the tables of switches here. An address that was not used for a minute makes room, and every address is removed
    /// after five minutes.
    "macs" macs: u32 = Shape::Number(1, 16_384, ""), default(4096), Connect => guard.macs;
    /// Spanning trees. With `"drop"`, their frames cross the link neither way (`guard-bpdu`): each segment has a tree of its own.
    "bpdu" bpdu: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_bpdu;
    /// Answers of DHCP servers in the peer's segment, of DHCP and DHCPv6. With `"drop"`, none reaches this segment (`guard-dhcp-server`).
    "dhcp-server" dhcp_server: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_dhcp_server;
    /// Router advertisements (IPv6) from the peer's segment. With `"drop"`, none reaches this segment (`guard-router-advertisement`); neither does a first
    /// fragment that does not say what it carries (RFC 7113).
    "router-advertisement" router_advertisement: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_router_advertisement;
    /// The VLANs that pass, both ways, by the outermost tag: numbers and ranges, such as `["100", "200-209"]`. Frames of others are dropped
    /// (`guard-vlan`).
    "vlans" vlans: Vec<At<String>> = Shape::Texts, absent("all"), Connect => guard.vlans;
    /// Whether frames without a VLAN tag pass, both ways; those with a priority tag alone are among them.
    "untagged" untagged: bool = Shape::Flag, default(true), Connect => guard.untagged;
    /// Frames from the peer whose source address is in use in this segment. With `"pass"` that host has moved; with `"drop"` the frame is a forgery
    /// (`guard-own-mac`), and a host that moves is accepted after five minutes.
    "own-macs" own_macs: Verdict = names::<Verdict>(), default(Verdict::Pass), Connect => guard.drop_own_macs;
}

table! { RawTuning "tuning"
    /// Pack several small frames that wait at the same time into one datagram. Nothing ever waits for more.
    "bundle" bundle: bool = Shape::Flag, default(true), Connect => tuning.bundle;
    /// Requested size of the UDP socket's buffers. The log says if the kernel gives less.
    "socket-buffer" socket_buffer: u32 = Shape::Number(4096, 1 << 30, "bytes"), default(4 << 20), Connect => tuning.socket_buffer;
    /// The largest outer IP packet. Without it, tund probes the path, from 576 (IPv6: 596) up to the MTU of the route to the peer, and notices within
    /// seconds when it becomes smaller, within minutes when it becomes larger. If set, the value is used without measurement.
    "path-mtu" path_mtu: u32 = Shape::Number(576, 65535, "bytes"), absent("found by probing"), Connect => tuning.path_mtu;
    /// Lower the segment size that TCP connections through a tun device announce to what the device's MTU holds, so that hosts behind the two ends
    /// need no path MTU discovery. Without effect in tap mode.
    "mss-clamp" mss_clamp: bool = Shape::Flag, default(true), Connect => tuning.mss_clamp;
    /// Let the kernel cut up and join what crosses the device and the socket, so that many frames share the cost of a system call. An offload that a
    /// kernel does not support is given up at once, with a line in the log; `false` is for kernels or drivers with faulty offloads.
    "offload" offload: bool = Shape::Flag, default(true), Connect => tuning.data_path.offload;
    /// 1: one thread moves both directions, which is best for one way at a time and for round trips. 2: each direction has a thread of its own,
    /// which is best when both are full at once and there are processors to spare.
    "threads" threads: u8 = Shape::Number(1, 2, ""), default(1), Connect => tuning.data_path.threads;
    /// How many lanes the link has. Each has a queue of the device, a socket, keys and threads of its own, and nothing in common with the others, so
    /// that a host with more processors carries more. `"auto"` is a lane for each processor of this host, at most 8. The kernel keeps the frames of
    /// one connection in one lane. If the ends differ, the smaller number counts. While TCP carries the link, and where a superserver started it,
    /// there is one lane. More than one is not possible with an OpenVPN peer. If another program made the device, it needs several queues
    /// (`ip tuntap add dev NAME mode tun multi_queue`; systemd-networkd: `[Tun] MultiQueue=yes`).
    "lanes" lanes: NumberOr = Shape::NumberOr(1, 16, "lanes", "auto"), default(NumberOr::Number(1)), Restart => tuning.data_path.lanes;
    /// How long a worker keeps looking for more before it sleeps. A higher value shortens round trips, but the processor does not rest meanwhile.
    "busy-poll" busy_poll: u32 = Shape::Number(0, 1_000_000, "microseconds"), default(5), Connect => tuning.data_path.busy_poll;
    /// Copy the DSCP of inner packets to the datagrams that carry them, for networks that treat classes differently; everybody on the path can see
    /// it. ECN is always carried both ways (RFC 6040).
    "dscp" dscp: CopyDscp = names::<CopyDscp>(), absent("not copied"), Connect => tuning.data_path.copy_dscp;
    /// The algorithm that decides how fast this end sends over TCP (TCP_CONGESTION), as sysctl net.ipv4.tcp_available_congestion_control lists it.
    /// The usual `cubic` treats each lost segment as congestion; `"bbr"` does not, which can make a link over TCP several times faster where a path
    /// loses segments at random (docs/performance.md), and may leave less to others who share it. Each end has its own.
    "congestion-control" congestion_control: String = Shape::Text, absent("the kernel's"), Connect => tuning.congestion_control;
}

table! { RawStatus "status"
    /// Where the control socket is; its directory must exist. A symbolic link in the runtime directory leads to it, so that `tund status` finds it.
    "socket" socket: String = Shape::Text, absent("`control.sock` in the runtime directory"), Restart => status.socket;
    /// A loopback address and port, such as `"127.0.0.1:9586"`, where the output of `tund stats` is served over HTTP, whatever the request; any user
    /// of this host may ask. If the port is taken, the log says so and the link runs without.
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
            let mut out = Vec::new();
            Raw::read(&document, &mut out);
            let place = text.find("1979").unwrap();
            let typed = out.iter().any(|d| {
                d.code == super::super::Code::WrongType
                    && d.span.as_ref().is_some_and(|span| span.start == place)
            });
            assert!(typed, "{}: {out:#?}", key.name);
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
