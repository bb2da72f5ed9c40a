//! The tunnels that are compared.

use tund_lab::{Error, Process};

use super::start;
use super::world::World;
use crate::link::{Keys, Link, Mode, Place};

/// A tunnel, or the absence of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The path itself.
    Veth,
    /// The kernel's VXLAN, which does not encrypt.
    Vxlan,
    /// The kernel's GRE, routed, which does not encrypt.
    Gre,
    /// The kernel's GRE, bridged.
    Gretap,
    /// The kernel's GENEVE, which does not encrypt.
    Geneve,
    /// OpenVPN in static-key mode, routed.
    OpenVpn,
    /// OpenVPN in static-key mode, bridged.
    OpenVpnTap,
    /// OpenVPN with TLS between two peers, routed.
    OpenVpnTls,
    /// WireGuard in Go, as Debian has it.
    WireGuardGo,
    /// fastd, routed.
    Fastd,
    /// tinc 1.0, routed.
    Tinc,
    /// Cloudflare's WireGuard in Rust.
    BoringTun,
    /// QUIC datagrams, in Rust.
    Quincy,
    /// NaCl boxes, in C.
    QuickTun,
    /// tund in one of its forms.
    Tund(Form),
}

/// tund's forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Routed, AES-256-GCM: the form that others are compared with.
    TunAes,
    /// Routed, ChaCha20-Poly1305.
    TunChaCha,
    /// Bridged, AES-256-GCM.
    TapAes,
    /// Bridged, ChaCha20-Poly1305.
    TapChaCha,
    /// Routed with static keys, AES-256-GCM.
    StaticAes,
    /// Routed with static keys, ChaCha20-Poly1305.
    StaticChaCha,
    /// `TunAes` with a system call for each packet.
    Plain,
}

impl Peer {
    /// All, in the order of the tables.
    pub const ALL: [Self; 21] = [
        Self::Veth,
        Self::Vxlan,
        Self::Gre,
        Self::Gretap,
        Self::Geneve,
        Self::OpenVpn,
        Self::OpenVpnTap,
        Self::OpenVpnTls,
        Self::WireGuardGo,
        Self::BoringTun,
        Self::Fastd,
        Self::Tinc,
        Self::Quincy,
        Self::QuickTun,
        Self::Tund(Form::TunAes),
        Self::Tund(Form::TunChaCha),
        Self::Tund(Form::TapAes),
        Self::Tund(Form::TapChaCha),
        Self::Tund(Form::StaticAes),
        Self::Tund(Form::StaticChaCha),
        Self::Tund(Form::Plain),
    ];

    /// Those that the benchmark needs: what the targets name, and the ground they stand on.
    pub const NEEDED: [Self; 13] = [
        Self::Veth,
        Self::Vxlan,
        Self::OpenVpn,
        Self::BoringTun,
        Self::Quincy,
        Self::QuickTun,
        Self::Tund(Form::TunAes),
        Self::Tund(Form::TunChaCha),
        Self::Tund(Form::TapAes),
        Self::Tund(Form::TapChaCha),
        Self::Tund(Form::StaticAes),
        Self::Tund(Form::StaticChaCha),
        Self::Tund(Form::Plain),
    ];

    /// The kernel's tunnels, which do not encrypt, and tund.
    pub const PLAIN: [Self; 7] = [
        Self::Veth,
        Self::Vxlan,
        Self::Gre,
        Self::Gretap,
        Self::Geneve,
        Self::Tund(Form::TunAes),
        Self::Tund(Form::TapAes),
    ];

    /// Programs that the targets name.
    pub const RIVALS: [Self; 4] = [Self::OpenVpn, Self::BoringTun, Self::Quincy, Self::QuickTun];

    /// The name on the command line and in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Vxlan => "vxlan",
            Self::Gre => "gre",
            Self::Gretap => "gretap",
            Self::Geneve => "geneve",
            Self::OpenVpn => "openvpn",
            Self::OpenVpnTap => "openvpn-tap",
            Self::OpenVpnTls => "openvpn-tls",
            Self::WireGuardGo => "wireguard-go",
            Self::Fastd => "fastd",
            Self::Tinc => "tinc",
            Self::BoringTun => "boringtun",
            Self::Quincy => "quincy",
            Self::QuickTun => "quicktun",
            Self::Tund(Form::TunAes) => "tund-tun-aes",
            Self::Tund(Form::TunChaCha) => "tund-tun-chacha",
            Self::Tund(Form::TapAes) => "tund-tap-aes",
            Self::Tund(Form::TapChaCha) => "tund-tap-chacha",
            Self::Tund(Form::StaticAes) => "tund-static-aes",
            Self::Tund(Form::StaticChaCha) => "tund-static-chacha",
            Self::Tund(Form::Plain) => "tund-plain",
        }
    }

    /// What it is, for a reader of the report.
    pub fn about(self) -> &'static str {
        match self {
            Self::Veth => "the path itself, no tunnel",
            Self::Vxlan => "VXLAN in the kernel, no encryption",
            Self::Gre => "GRE in the kernel, no encryption",
            Self::Gretap => "Ethernet over GRE in the kernel, no encryption",
            Self::Geneve => "GENEVE in the kernel, no encryption",
            Self::OpenVpn => "OpenVPN, static key, tun, AES-256-CBC and HMAC-SHA256",
            Self::OpenVpnTap => "OpenVPN, static key, tap, AES-256-CBC and HMAC-SHA256",
            Self::OpenVpnTls => "OpenVPN, TLS between two peers, tun, AES-256-GCM",
            Self::WireGuardGo => "wireguard-go, the version in Debian",
            Self::Fastd => "fastd, salsa2012+umac, MTU 1420",
            Self::Tinc => "tinc 1.0, router mode, defaults",
            Self::BoringTun => "boringtun (WireGuard), defaults",
            Self::Quincy => "quincy (QUIC), Noise mode",
            Self::QuickTun => "quicktun, protocol nacltai",
            Self::Tund(Form::TunAes) => "tund, tun, handshake, AES-256-GCM",
            Self::Tund(Form::TunChaCha) => "tund, tun, handshake, ChaCha20-Poly1305",
            Self::Tund(Form::TapAes) => "tund, tap with 1500-byte frames, handshake, AES-256-GCM",
            Self::Tund(Form::TapChaCha) => "tund, tap with 1500-byte frames, handshake, ChaCha20-Poly1305",
            Self::Tund(Form::StaticAes) => "tund, tun, static keys, AES-256-GCM",
            Self::Tund(Form::StaticChaCha) => "tund, tun, static keys, ChaCha20-Poly1305",
            Self::Tund(Form::Plain) => "tund-tun-aes without offload: a system call for each packet",
        }
    }

    /// Whether it seals what it carries.
    pub fn is_sealed(self) -> bool {
        match self {
            Self::Veth | Self::Vxlan | Self::Gre | Self::Gretap | Self::Geneve => false,
            Self::OpenVpn
            | Self::OpenVpnTap
            | Self::OpenVpnTls
            | Self::WireGuardGo
            | Self::BoringTun
            | Self::Fastd
            | Self::Tinc
            | Self::Quincy
            | Self::QuickTun
            | Self::Tund(_) => true,
        }
    }

    /// Programs that it needs, each with the way to get it.
    pub fn programs(self) -> &'static [(&'static str, Source)] {
        match self {
            Self::Veth | Self::Vxlan | Self::Gre | Self::Gretap | Self::Geneve | Self::Tund(_) => &[],
            Self::OpenVpn | Self::OpenVpnTap => &[("openvpn", Source::Debian("openvpn"))],
            Self::OpenVpnTls => {
                &[("openvpn", Source::Debian("openvpn")), ("openssl", Source::Debian("openssl"))]
            }
            Self::WireGuardGo => &[("wireguard-go", Source::Debian("wireguard-go"))],
            Self::Fastd => &[("fastd", Source::Debian("fastd"))],
            Self::Tinc => &[("tincd", Source::Debian("tinc"))],
            Self::BoringTun => &[("boringtun-cli", Source::Crate("boringtun-cli", "0.7.1"))],
            Self::Quincy => &[
                ("quincy-server", Source::Crate("quincy-server", "3.1.1")),
                ("quincy-client", Source::Crate("quincy-client", "3.1.1")),
            ],
            Self::QuickTun => &[("quicktun", Source::Debian("quicktun"))],
        }
    }

    /// Starts it in `world`. When this returns, its programs run; the link may come up a little later.
    pub fn start(self, world: &World) -> Result<Vec<Process>, Error> {
        match self {
            Self::Veth => Ok(Vec::new()),
            Self::Vxlan => start::kernel(world, "vxlan", "id 100 dstport 4789 dev eth0").map(|()| Vec::new()),
            Self::Gre => start::kernel(world, "gre", "").map(|()| Vec::new()),
            Self::Gretap => start::kernel(world, "gretap", "").map(|()| Vec::new()),
            Self::Geneve => start::kernel(world, "geneve", "id 100").map(|()| Vec::new()),
            Self::OpenVpn => start::openvpn(world, start::OpenVpn::StaticTun),
            Self::OpenVpnTap => start::openvpn(world, start::OpenVpn::StaticTap),
            Self::OpenVpnTls => start::openvpn(world, start::OpenVpn::Tls),
            Self::WireGuardGo => start::wireguard(world, "wireguard-go", &["--foreground", "wg0"]),
            Self::BoringTun => start::wireguard(
                world,
                "boringtun-cli",
                &["--foreground", "--disable-drop-privileges", "wg0"],
            ),
            Self::Fastd => start::fastd(world),
            Self::Tinc => start::tinc(world),
            Self::Quincy => start::quincy(world),
            Self::QuickTun => start::quicktun(world),
            Self::Tund(form) => {
                let (tund, link) = (world.install_tund()?, form.link());
                let mon = link.start(&tund, &world.mon, Place::Mon)?;
                Ok(vec![mon, link.start(&tund, &world.fri, Place::Fri)?])
            }
        }
    }
}

impl Form {
    fn link(self) -> Link {
        let (mode, keys, cipher) = match self {
            Self::TunAes | Self::Plain => (Mode::Tun, Keys::Handshake, "aes-256-gcm"),
            Self::TunChaCha => (Mode::Tun, Keys::Handshake, "chacha20-poly1305"),
            Self::TapAes => (Mode::Tap, Keys::Handshake, "aes-256-gcm"),
            Self::TapChaCha => (Mode::Tap, Keys::Handshake, "chacha20-poly1305"),
            Self::StaticAes => (Mode::Tun, Keys::Static, "aes-256-gcm"),
            Self::StaticChaCha => (Mode::Tun, Keys::Static, "chacha20-poly1305"),
        };
        let tuning = if self == Self::Plain { "offload = false" } else { "" };
        Link { mode, keys, cipher: Some(cipher), tuning }
    }
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A Debian package.
    Debian(&'static str),
    /// A crate and its version.
    Crate(&'static str, &'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_rivals_are_peers() {
        let mut names = Peer::ALL.map(Peer::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Peer::ALL.len());
        assert!(Peer::RIVALS.iter().all(|rival| Peer::ALL.contains(rival)));
    }
}
