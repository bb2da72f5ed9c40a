//! The `[device]` table: names, addresses and how they fit together.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::code::Code;
use super::diagnostic::{Findings, quote};
use super::keys::RawDevice;
use super::model::has_network;
use super::reader::At;
use super::schema::{Declared, NumberOr};
use super::{Device, KeyMode};
use crate::packet::layer::Mode;

/// IPv6's minimum MTU (RFC 8200 section 5).
const MTU_MIN_V6: u32 = 1280;
/// Fits a 1500-byte path with a session datagram's 21 bytes and an IPv6 UDP header.
const MTU_TUN: u32 = 1420;
/// The same with a static datagram's 37 bytes.
const MTU_TUN_STATIC: u32 = 1400;
const MTU_TAP: u32 = 1500;

/// The checked `[device]`, with places for later checks.
pub(super) struct CheckedDevice {
    /// `None`: invalid, so no further finding may depend on it.
    pub mode: Option<Mode>,
    pub addresses: Vec<At<IpNet>>,
    pub peers: Vec<At<IpAddr>>,
    /// Whether addresses and peers had no mistakes.
    pub clean: bool,
    pub device: Device,
}

pub(super) fn check(raw: &RawDevice, key_mode: KeyMode, out: &mut Findings) -> CheckedDevice {
    let mode = Some(raw.mode()).filter(|_| !raw.mode.is_wrong());
    let configure = raw.configure();
    let errors_before = out.errors();
    let addresses = check_addresses(raw, mode, configure, out);
    let peers = check_peers(raw, &addresses, configure, out);
    let clean = out.errors() == errors_before && !raw.address.is_wrong() && !raw.peer.is_wrong();
    if clean && configure && mode == Some(Mode::Tun) {
        check_tun_reaches(raw, &addresses, &peers, out);
    }
    let v6 =
        addresses.iter().any(|own| own.value.addr().is_ipv6()) || peers.iter().any(|p| p.value.is_ipv6());
    check_tap_keys(raw, mode, &addresses, out);
    if let Some(name) = raw.name.get() {
        check_interface_name("device.name", name, out);
    }
    let device = Device {
        mode: raw.mode(),
        name: raw.name.value().cloned(),
        addresses: addresses.iter().map(|at| at.value).collect(),
        peers: peers.iter().map(|at| at.value).collect(),
        mtu: check_mtu(raw, mode, key_mode, v6, out),
        mtu_of_bridge: raw.mtu.value() == Some(&NumberOr::Word),
        configure,
        mac: check_mac(raw, out),
        bridge: raw.bridge.value().cloned(),
        txqueuelen: raw.txqueuelen.value().copied(),
    };
    CheckedDevice { mode, addresses, peers, clean, device }
}

/// Reports an interface name that the kernel rejects.
pub(super) fn check_interface_name(key: &str, name: &At<String>, out: &mut Findings) {
    let text = &name.value;
    let Some(problem) = interface_name_problem(text) else { return };
    let message = format!("{key} cannot be {}", quote(text));
    out.error(Code::BadInterfaceName, name.at(), message, format!("an interface name {problem}"));
}

/// Returns why the kernel rejects an interface name.
pub(super) fn interface_name_problem(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > 15 {
        Some("has 1 to 15 bytes")
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%')) {
        Some("cannot contain spaces, slashes, colons, percent signs or control characters")
    } else if matches!(text, "." | ".." | "all" | "default") {
        Some("cannot be \".\", \"..\", \"all\" or \"default\"")
    } else {
        None
    }
}

fn check_addresses(
    raw: &RawDevice,
    mode: Option<Mode>,
    configure: bool,
    out: &mut Findings,
) -> Vec<At<IpNet>> {
    let Some(list) = raw.address.get() else {
        if raw.address.is_absent() && mode == Some(Mode::Tun) && configure {
            let help =
                "set device.address to this end's address inside the tunnel and device.peer to the peer's";
            out.error(Code::Missing, raw.place(), "device.address is missing", help);
        }
        return Vec::new();
    };
    if list.value.is_empty() {
        let help = "give an address, or remove the line";
        out.error(Code::EmptyList, list.at(), "device.address is an empty list", help);
    }
    let mut addresses: Vec<At<IpNet>> = Vec::new();
    for text in &list.value {
        let Some(address) = check_address(text, mode, configure, out) else { continue };
        if addresses.iter().any(|known| known.value.addr() == address.addr()) {
            let message = format!("address {} is listed twice", address.addr());
            out.error(Code::Duplicate, text.at(), message, "remove one of them");
        } else {
            addresses.push(text.with(address));
        }
    }
    addresses
}

fn check_address(
    text: &At<String>,
    mode: Option<Mode>,
    configure: bool,
    out: &mut Findings,
) -> Option<IpNet> {
    let Some((address, has_prefix)) = parse_prefix(&text.value) else {
        let message = format!("device.address: {} is not a valid address", quote(&text.value));
        out.error(Code::BadAddress, text.at(), message, prefix_help(&text.value, "192.168.87.81/24"));
        return None;
    };
    if !has_prefix && configure && mode == Some(Mode::Tap) {
        let length = if address.addr().is_ipv4() { 24 } else { 64 };
        let message = "a tap address needs a prefix length";
        let help =
            format!("write {} if the network has that size", quote(&format!("{}/{length}", address.addr())));
        out.error(Code::NoPrefix, text.at(), message, help);
    }
    if let Some(problem) = unusable(address.addr()).or_else(|| unusable_in(address)) {
        let message = format!("device.address {} {problem}", address.addr());
        out.error(Code::UnusableAddress, text.at(), message, "choose an address that a host can have");
    }
    Some(address)
}

/// Parses an address; without a prefix it has full length. Returns whether it had one.
pub(super) fn parse_prefix(text: &str) -> Option<(IpNet, bool)> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some((IpNet::from(address), false)),
        Err(_) => text.parse::<IpNet>().ok().map(|net| (net, true)),
    }
}

/// Returns the remedy for an invalid prefix: what a netmask would be, or an example.
pub(super) fn prefix_help(text: &str, example: &str) -> String {
    let masked = text.split_once(['/', ' ']).and_then(|(address, mask)| {
        let (address, mask) = (address.parse::<Ipv4Addr>().ok()?, mask.trim().parse::<Ipv4Addr>().ok()?);
        Ipv4Net::with_netmask(address, mask).ok()
    });
    match masked {
        Some(net) => format!("write the prefix length instead of the netmask: \"{net}\""),
        None => format!("write one such as \"{example}\" or \"2001:db8::81/64\""),
    }
}

/// Why no host can have it.
fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if address.is_loopback() {
        Some("is a loopback address")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("is the broadcast address")
    } else {
        None
    }
}

/// Why no host of this network can have it.
fn unusable_in(own: IpNet) -> Option<&'static str> {
    let host_bits = own.max_prefix_len() - own.prefix_len();
    if host_bits < 2 {
        None
    } else if own.addr() == own.network() {
        Some("is the address of the network itself")
    } else if own.addr().is_ipv4() && own.addr() == own.broadcast() {
        Some("is the broadcast address of its network")
    } else {
        None
    }
}

fn check_peers(
    raw: &RawDevice,
    addresses: &[At<IpNet>],
    configure: bool,
    out: &mut Findings,
) -> Vec<At<IpAddr>> {
    let Some(list) = raw.peer.get() else { return Vec::new() };
    if list.value.is_empty() {
        let help = "give the peer's address, or remove the line";
        out.error(Code::EmptyList, list.at(), "device.peer is an empty list", help);
    }
    let mut peers: Vec<At<IpAddr>> = Vec::new();
    for text in &list.value {
        let Ok(peer) = text.value.parse::<IpAddr>() else {
            let message = format!("device.peer: {} is not a valid address", quote(&text.value));
            let help =
                "write the peer's address inside the tunnel without a prefix, such as \"192.168.86.18\"";
            out.error(Code::BadAddress, text.at(), message, help);
            continue;
        };
        if peers.iter().any(|known| known.value.is_ipv4() == peer.is_ipv4()) {
            let message = "device.peer has two addresses of the same family";
            out.error(Code::AddressFamily, text.at(), message, "give at most one IPv4 and one IPv6 address");
            continue;
        }
        let at = text.with(peer);
        check_peer(&at, addresses, configure && !raw.address.is_wrong(), out);
        peers.push(at);
    }
    peers
}

fn check_peer(peer: &At<IpAddr>, addresses: &[At<IpNet>], complete: bool, out: &mut Findings) {
    let address = peer.value;
    if let Some(problem) = unusable(address) {
        let message = format!("device.peer {address} {problem}");
        out.error(Code::UnusableAddress, peer.at(), message, "use the peer's address inside the tunnel");
        return;
    }
    if addresses.iter().any(|own| own.value.addr() == address) {
        let message = format!("device.peer {address} is this end's own address");
        let help = "device.address is this end's address, device.peer the other end's";
        out.error(Code::OwnAddress, peer.at(), message, help);
        return;
    }
    let family: Vec<IpNet> = addresses
        .iter()
        .map(|own| own.value)
        .filter(|own| own.addr().is_ipv4() == address.is_ipv4())
        .collect();
    if family.is_empty() && complete && !addresses.is_empty() {
        let name = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let message = format!("device.peer is an {name} address, but device.address has none");
        let help = format!("add an {name} address to device.address");
        out.error(Code::AddressFamily, peer.at(), message, help);
    }
    // A full-length address is point-to-point and fits any peer.
    let inside = family.iter().any(|own| own.contains(&address) || !has_network(own));
    if !inside && !family.is_empty() {
        let networks: Vec<String> = family.iter().map(|own| own.trunc().to_string()).collect();
        let message = format!("device.peer {address} is not in {}", networks.join(" or "));
        let help =
            "choose a peer address in that network, or in tun mode remove the prefix of device.address";
        out.error(Code::PeerOutside, peer.at(), message, help);
    }
}

/// Reports a tun device with nothing but its own address.
fn check_tun_reaches(raw: &RawDevice, addresses: &[At<IpNet>], peers: &[At<IpAddr>], out: &mut Findings) {
    let alone = !addresses.iter().any(|own| has_network(&own.value));
    if peers.is_empty() && alone && !addresses.is_empty() {
        let message = "device.peer is missing: the peer cannot be reached through the tunnel";
        let help = "set device.peer to the peer's address inside the tunnel";
        out.warning(Code::NoPeer, raw.address.at(), message, help);
    }
}

fn check_mtu(raw: &RawDevice, mode: Option<Mode>, key_mode: KeyMode, v6: bool, out: &mut Findings) -> u32 {
    let default = match (mode, key_mode) {
        (Some(Mode::Tap), _) => MTU_TAP,
        (Some(Mode::Tun) | None, KeyMode::Handshake) => MTU_TUN,
        (Some(Mode::Tun) | None, KeyMode::Static) => MTU_TUN_STATIC,
        (Some(Mode::Tun) | None, KeyMode::OpenVpn) => MTU_TAP,
    };
    let Some(mtu) = raw.mtu.get() else { return default };
    let NumberOr::Number(value) = mtu.value else {
        if raw.bridge.value().is_none() {
            let help = "set device.bridge, or give the MTU in bytes";
            let message = "device.mtu follows the bridge, but the device has none";
            out.error(Code::MtuWithoutBridge, mtu.at(), message, help);
        }
        return default;
    };
    if v6 && value < MTU_MIN_V6 {
        let message = format!("device.mtu {value} is too small for IPv6");
        let help = format!("an IPv6 address needs an MTU of at least {MTU_MIN_V6}");
        out.error(Code::MtuTooSmall, mtu.at(), message, help);
    }
    value
}

fn check_tap_keys(raw: &RawDevice, mode: Option<Mode>, addresses: &[At<IpNet>], out: &mut Findings) {
    if mode == Some(Mode::Tun) {
        for (key, value) in [("mac", &raw.mac), ("bridge", &raw.bridge)] {
            if let Some(at) = value.get() {
                let message = format!("device.{key} is only for tap devices, and this is a tun device");
                let help = "set device.mode = \"tap\", or remove the line";
                out.error(Code::TapOnly, at.at(), message, help);
            }
        }
    }
    let Some(bridge) = raw.bridge.get() else { return };
    check_interface_name("device.bridge", bridge, out);
    if raw.name.value() == Some(&bridge.value) {
        let message = "device.bridge is the device's own name";
        out.error(Code::BridgeItself, bridge.at(), message, "name the bridge that the device joins");
    }
    if let (Some(own), true) = (addresses.first(), raw.configure()) {
        let message = format!("an address on a port of {} hides the bridge from it", bridge.value);
        let help = format!("give the address to {} itself and remove device.address", bridge.value);
        out.warning(Code::AddressOnPort, own.at(), message, help);
    }
}

fn check_mac(raw: &RawDevice, out: &mut Findings) -> Option<[u8; 6]> {
    let text = raw.mac.get()?;
    let problem = match parse_mac(&text.value) {
        None => "expected six pairs of hexadecimal digits, such as \"02:00:5e:10:00:01\"",
        Some([0, 0, 0, 0, 0, 0]) => "an interface address cannot be all zeros",
        Some([first, ..]) if first & 1 == 1 => {
            "this is a group address: the first pair must be even, as in \"02:00:5e:10:00:01\""
        }
        Some(mac) => return Some(mac),
    };
    let message = format!("device.mac cannot be {}", quote(&text.value));
    out.error(Code::BadMac, text.at(), message, problem);
    None
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut pairs = text.split(':');
    for byte in &mut mac {
        let pair = pairs.next().filter(|pair| pair.len() == 2)?;
        base16ct::mixed::decode(pair, std::slice::from_mut(byte)).ok()?;
    }
    pairs.next().is_none().then_some(mac)
}
