//! The tunnels that are compared.

use tund_lab::{Error, Process};

use super::install;
use super::start::{self, Tund};
use super::world::World;

/// A tunnel, or the absence of one.
#[derive(Debug)]
pub struct Contender {
    /// The name on the command line and in the tables.
    pub name: &'static str,
    /// What it is, for a reader of the report.
    pub about: &'static str,
    /// Programs that it needs, each with the way to get it.
    pub programs: &'static [(&'static str, Source)],
    /// When it takes part if nobody names it.
    part: Part,
    /// Starts it. When this returns, its programs run; the link may come up a little later.
    start: fn(&World) -> Result<Vec<Process>, Error>,
}

/// When a contender takes part if nobody names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Always: the ground that the others stand on, and all of tund.
    Always,
    /// A rival that the targets name, and which has to be there.
    Rival,
    /// A rival that the targets name where it is there.
    RivalIfHere,
    /// In comparisons.
    Comparison,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A Debian package.
    Debian(&'static str),
    /// A Debian package that is only unpacked, since installing it would start a service.
    Unpacked(&'static str),
    /// A crate and its version.
    Crate(&'static str, &'static str),
    /// Nowhere that a command could fetch it from: it is looked for on the path.
    Path,
}

/// One of [`ALL`].
#[derive(Debug, Clone, Copy)]
pub struct Peer(&'static Contender);

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Peer {}

impl std::ops::Deref for Peer {
    type Target = Contender;

    fn deref(&self) -> &Contender {
        self.0
    }
}

const OPENVPN: &[(&str, Source)] = &[("openvpn", Source::Debian("openvpn"))];
const TINCR: &[(&str, Source)] = &[("tincr-tincd", Source::Path), ("tincr-tinc", Source::Path)];

/// All, in the order of the tables.
pub static ALL: [Contender; 28] = [
    Contender {
        name: "veth",
        about: "the path itself, no tunnel",
        programs: &[],
        part: Part::Always,
        start: |_| Ok(Vec::new()),
    },
    Contender {
        name: "vxlan",
        about: "VXLAN in the kernel, no encryption",
        programs: &[],
        part: Part::Always,
        start: |world| start::kernel(world, "vxlan", "id 100 dstport 4789 dev eth0"),
    },
    Contender {
        name: "gre",
        about: "GRE in the kernel, no encryption",
        programs: &[],
        part: Part::Comparison,
        start: |world| start::kernel(world, "gre", ""),
    },
    Contender {
        name: "gretap",
        about: "Ethernet over GRE in the kernel, no encryption",
        programs: &[],
        part: Part::Comparison,
        start: |world| start::kernel(world, "gretap", ""),
    },
    Contender {
        name: "geneve",
        about: "GENEVE in the kernel, no encryption",
        programs: &[],
        part: Part::Comparison,
        start: |world| start::kernel(world, "geneve", "id 100"),
    },
    Contender {
        name: "openvpn",
        about: "OpenVPN, static key, tun, AES-256-CBC and HMAC-SHA256",
        programs: OPENVPN,
        part: Part::Rival,
        start: |world| start::openvpn(world, start::OpenVpn::StaticTun(2)),
    },
    Contender {
        name: "openvpn-tap",
        about: "OpenVPN, static key, tap, AES-256-CBC and HMAC-SHA256",
        programs: OPENVPN,
        part: Part::Comparison,
        start: |world| start::openvpn(world, start::OpenVpn::StaticTap),
    },
    Contender {
        name: "openvpn-tcp",
        about: "the same as openvpn over TCP",
        programs: OPENVPN,
        part: Part::Rival,
        start: |world| start::openvpn(world, start::OpenVpn::StaticTcp),
    },
    Contender {
        name: "openvpn-tls",
        about: "OpenVPN, TLS between two peers, tun, AES-256-GCM",
        programs: &[("openvpn", Source::Debian("openvpn")), ("openssl", Source::Debian("openssl"))],
        part: Part::Comparison,
        start: |world| start::openvpn(world, start::OpenVpn::Tls),
    },
    Contender {
        name: "openvpn-tund",
        about: "the same link as openvpn, with tund at one end",
        programs: OPENVPN,
        part: Part::Comparison,
        start: |world| start::tund_as_openvpn(world, false),
    },
    Contender {
        name: "openvpn-tund-tund",
        about: "the same link as openvpn, with tund at both ends",
        programs: OPENVPN,
        part: Part::Comparison,
        start: |world| start::tund_as_openvpn(world, true),
    },
    Contender {
        name: "ssh",
        about: "OpenSSH, ssh -w, tun, AES-256-GCM",
        programs: &[
            ("sshd", Source::Unpacked("openssh-server")),
            ("ssh", Source::Debian("openssh-client")),
            ("ssh-keygen", Source::Debian("openssh-client")),
        ],
        part: Part::RivalIfHere,
        start: start::ssh,
    },
    Contender {
        name: "wireguard-go",
        about: "wireguard-go, the version in Debian",
        programs: &[("wireguard-go", Source::Debian("wireguard-go"))],
        part: Part::RivalIfHere,
        start: |world| start::wireguard(world, "wireguard-go", &["--foreground", "wg0"]),
    },
    Contender {
        name: "boringtun",
        about: "boringtun (WireGuard), defaults",
        programs: &[("boringtun-cli", Source::Crate("boringtun-cli", "0.7.1"))],
        part: Part::Rival,
        start: |world| {
            start::wireguard(world, "boringtun-cli", &["--foreground", "--disable-drop-privileges", "wg0"])
        },
    },
    Contender {
        name: "fastd",
        about: "fastd, salsa2012+umac, MTU 1420",
        programs: &[("fastd", Source::Debian("fastd"))],
        part: Part::Comparison,
        start: start::fastd,
    },
    Contender {
        name: "tinc",
        about: "tinc 1.0, router mode, defaults",
        programs: &[("tincd", Source::Debian("tinc"))],
        part: Part::Comparison,
        start: start::tinc,
    },
    Contender {
        name: "tincr",
        about: "tincr, router mode, AES-256-GCM",
        programs: TINCR,
        part: Part::RivalIfHere,
        start: |world| start::tincr(world, "router"),
    },
    Contender {
        name: "tincr-tap",
        about: "tincr, switch mode, AES-256-GCM",
        programs: TINCR,
        part: Part::RivalIfHere,
        start: |world| start::tincr(world, "switch"),
    },
    Contender {
        name: "quincy",
        about: "quincy (QUIC), Noise mode",
        programs: &[
            ("quincy-server", Source::Crate("quincy-server", "3.1.1")),
            ("quincy-client", Source::Crate("quincy-client", "3.1.1")),
        ],
        part: Part::Rival,
        start: start::quincy,
    },
    Contender {
        name: "quicktun",
        about: "quicktun, protocol nacltai",
        programs: &[("quicktun", Source::Debian("quicktun"))],
        part: Part::Rival,
        start: start::quicktun,
    },
    Contender {
        name: "tund-tun-aes",
        about: "tund, tun, handshake, AES-256-GCM",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::TunAes),
    },
    Contender {
        name: "tund-tun-chacha",
        about: "tund, tun, handshake, ChaCha20-Poly1305",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::TunChaCha),
    },
    Contender {
        name: "tund-tap-aes",
        about: "tund, tap with 1500-byte frames, handshake, AES-256-GCM",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::TapAes),
    },
    Contender {
        name: "tund-tap-chacha",
        about: "tund, tap with 1500-byte frames, handshake, ChaCha20-Poly1305",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::TapChaCha),
    },
    Contender {
        name: "tund-static-aes",
        about: "tund, tun, static keys, AES-256-GCM",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::StaticAes),
    },
    Contender {
        name: "tund-static-chacha",
        about: "tund, tun, static keys, ChaCha20-Poly1305",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::StaticChaCha),
    },
    Contender {
        name: "tund-plain",
        about: "tund-tun-aes without offload: a system call for each packet",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::Plain),
    },
    Contender {
        name: "tund-tcp",
        about: "tund-tun-aes over TCP",
        programs: &[],
        part: Part::Always,
        start: |world| start::tund(world, Tund::Tcp),
    },
];

impl Contender {
    /// Whether this is tund.
    pub fn is_tund(&self) -> bool {
        self.name.starts_with("tund-")
    }

    /// Whether it is the path itself.
    pub fn is_path(&self) -> bool {
        self.name == "veth"
    }

    /// Whether it seals what it carries.
    pub fn is_sealed(&self) -> bool {
        self.is_tund() || !self.programs.is_empty()
    }

    /// Starts it in `world`.
    pub fn start(&self, world: &World) -> Result<Vec<Process>, Error> {
        (self.start)(world)
    }

    /// A program that is missing, with the way to get it.
    pub fn missing(&self) -> Option<(&'static str, Source)> {
        self.programs.iter().copied().find(|(program, _)| install::find(program).is_none())
    }

    /// Whether it is taken as absent, not as failed, where its programs are missing.
    pub fn may_be_absent(&self) -> bool {
        self.part == Part::RivalIfHere
    }
}

impl Peer {
    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|contender| contender.name == name).map(Self)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(Self)
    }

    /// Those that the benchmark needs: what the targets name, and the ground they stand on.
    pub fn needed() -> impl Iterator<Item = Self> {
        Self::all().filter(|peer| matches!(peer.part, Part::Always | Part::Rival | Part::RivalIfHere))
    }

    /// Those that do not need programs, and one form of tund each: what a guest compares.
    pub fn in_guest() -> impl Iterator<Item = Self> {
        let own = ["tund-tun-aes", "tund-tap-aes"];
        Self::all()
            .filter(move |peer| peer.programs.is_empty() && (!peer.is_tund() || own.contains(&peer.name)))
    }

    /// Programs that the targets name.
    pub fn rivals() -> impl Iterator<Item = Self> {
        Self::all().filter(|peer| matches!(peer.part, Part::Rival | Part::RivalIfHere))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_all_but_the_kernels_tunnels_are_sealed() {
        let mut names: Vec<_> = Peer::all().map(|peer| peer.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        let plain: Vec<_> = Peer::all().filter(|peer| !peer.is_sealed()).map(|peer| peer.name).collect();
        assert_eq!(plain, ["veth", "vxlan", "gre", "gretap", "geneve"]);
        assert!(Peer::named("veth").is_some_and(|peer| peer.is_path()));
    }
}
