//! The tunnels that are compared, and how each is started between fri and mon.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tund_lab::{Error, Process, wait_until};

use super::world::World;
use crate::link::{INNER, Keys, Link, Mode, OUTER, PATIENCE, Place};

/// The MTU that tund's tun links use, given to peers that want one named.
const MTU: u16 = 1420;
/// An X25519 key pair in the notations that peers want.
struct KeyPair {
    private: &'static str,
    public: &'static str,
    private_base64: &'static str,
    public_base64: &'static str,
}
/// fri's and mon's. Nothing here is secret.
const PAIRS: [KeyPair; 2] = [
    KeyPair {
        private: "77076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c2a",
        public: "f8a9535a2d2ff605e8e144d54f4ef5c62313a2055dbb21fddd3fd9c299eb015d",
        private_base64: "dwdtCnMYpX08FsFyUbJmRd9ML5LrwJkqwXf7pR25LCo=",
        public_base64: "+KlTWi0v9gXo4UTVT071xiMTogVduyH93T/ZwpnrAV0=",
    },
    KeyPair {
        private: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        public: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        private_base64: "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
        public_base64: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
    },
];

/// A tunnel, or the absence of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The path itself.
    Veth,
    /// The kernel's VXLAN, which does not encrypt.
    Vxlan,
    /// OpenVPN in static-key mode, routed.
    OpenVpn,
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
    /// All, in the order of the table.
    pub const ALL: [Self; 13] = [
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

    /// Other people's programs that encrypt outside the kernel.
    pub const RIVALS: [Self; 4] = [Self::OpenVpn, Self::BoringTun, Self::Quincy, Self::QuickTun];

    /// The name on the command line and in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Vxlan => "vxlan",
            Self::OpenVpn => "openvpn",
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
            Self::OpenVpn => "OpenVPN, static key, tun, AES-256-CBC and HMAC-SHA256",
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

    /// Programs that it needs, each with the way to get it.
    pub fn programs(self) -> &'static [(&'static str, Source)] {
        match self {
            Self::Veth | Self::Vxlan | Self::Tund(_) => &[],
            Self::OpenVpn => &[("openvpn", Source::Debian("openvpn"))],
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
            Self::Vxlan => vxlan(world).map(|()| Vec::new()),
            Self::OpenVpn => openvpn(world),
            Self::BoringTun => boringtun(world),
            Self::Quincy => quincy(world),
            Self::QuickTun => quicktun(world),
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

fn vxlan(world: &World) -> Result<(), Error> {
    for (host, own, other) in world.ends() {
        let ends = format!("local {} remote {}", OUTER[own], OUTER[other]);
        host.run(&format!("ip link add vxlan0 type vxlan id 100 {ends} dstport 4789 dev eth0"))?;
        host.run(&format!("ip addr add {}/24 dev vxlan0", INNER[own]))?;
        host.run("ip link set vxlan0 up")?;
    }
    Ok(())
}

const CONSENT: &str = "--allow-deprecated-insecure-static-crypto";

fn openvpn(world: &World) -> Result<Vec<Process>, Error> {
    let program = world.program("openvpn")?;
    let key = world.fri.dir().join("openvpn.key");
    world.fri.run(&format!("{} --genkey secret {}", program.display(), key.display()))?;
    // 2.7 wants to be told that this mode is deprecated; 2.6 does not know the option and warns.
    let version = world.fri.run(&format!("{} --version", program.display()))?;
    let consent = if version.contains("OpenVPN 2.7") { CONSENT } else { "" };
    let start = |(host, own, other): (&tund_lab::Host, usize, usize)| {
        let mut command = host.command(&program);
        let options = format!(
            "--dev ovpn0 --dev-type tun --ifconfig {} {} --local {} --remote {} --port 1194 --cipher AES-256-CBC \
             --auth SHA256 {consent} --verb 1 --secret",
            INNER[own], INNER[other], OUTER[own], OUTER[other]
        );
        command.args(options.split_whitespace()).arg(&key);
        Process::spawn(format!("{}: openvpn", host.name()), command)
    };
    world.ends().into_iter().map(start).collect()
}

fn boringtun(world: &World) -> Result<Vec<Process>, Error> {
    let program = world.program("boringtun-cli")?;
    let mut processes = Vec::new();
    for (host, own, other) in world.ends() {
        // Its control socket has a fixed place below /run: each host gets one of its own.
        host.run("mount -t tmpfs tmpfs /run")?;
        let mut command = host.command(&program);
        command.args(["--foreground", "--disable-drop-privileges", "wg0"]);
        processes.push(Process::spawn(format!("{}: boringtun", host.name()), command)?);
        let (private, public) = (PAIRS[own].private, PAIRS[other].public);
        let settings = format!(
            "set=1\nprivate_key={private}\nlisten_port=51820\npublic_key={public}\nendpoint={}:51820\n\
             allowed_ip=0.0.0.0/0\n\n",
            OUTER[other]
        );
        let socket = host.path("/run/wireguard/wg0.sock");
        wait_until("boringtun's control socket", PATIENCE, || UnixStream::connect(&socket).is_ok())?;
        configure(&socket, &settings)
            .map_err(|error| Error::new(format!("{}: {error}", socket.display())))?;
        host.run(&format!("ip addr add {}/24 dev wg0", INNER[own]))?;
        host.run(&format!("ip link set wg0 mtu {MTU} up"))?;
    }
    Ok(processes)
}

/// Says something to a program that answers until an empty line.
fn configure(socket: &Path, settings: &str) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(settings.as_bytes())?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    if answer.contains("errno=0") { Ok(()) } else { Err(std::io::Error::other(answer.into_owned())) }
}

fn quincy(world: &World) -> Result<Vec<Process>, Error> {
    let (server, client) = (world.program("quincy-server")?, world.program("quincy-client")?);
    let [fri, mon] = &PAIRS;
    let users = format!(
        "[users.fri]\nauthorized_keys = [\"{}\"]\naddress_pool = [\"{}/32\"]\n",
        fri.public_base64, INNER[0]
    );
    let users = world.mon.file("users.toml", &users)?;
    let noise = "[protocol]\nmode = \"noise\"\nkey_exchange = \"standard\"";
    let log = "[log]\nlevel = \"warn\"\n";
    let text = format!(
        "name = \"q\"\ntunnel_network = \"{}/24\"\nusers_file = \"{}\"\n{noise}\nprivate_key = \"{}\"\n{log}",
        INNER[1],
        users.display(),
        mon.private_base64
    );
    let of_mon = world.mon.file("server.toml", &text)?;
    let text = format!(
        "connection_string = \"{}:55555\"\n{noise}\nserver_public_key = \"{}\"\nprivate_key = \"{}\"\n\
         [network]\nroutes = []\n{log}",
        OUTER[1], mon.public_base64, fri.private_base64
    );
    let of_fri = world.fri.file("client.toml", &text)?;
    let start = |host: &tund_lab::Host, program: &PathBuf, file: &PathBuf| {
        let mut command = host.command(program);
        command.arg("--config-path").arg(file);
        Process::spawn(format!("{}: quincy", host.name()), command)
    };
    let mon = start(&world.mon, &server, &of_mon)?;
    // A client that comes before the server listens gives up.
    world.mon.wait_output("ss -Hlun", PATIENCE, |sockets| sockets.contains(":55555"))?;
    Ok(vec![mon, start(&world.fri, &client, &of_fri)?])
}

/// Debian's build takes its settings from the names that ifupdown gives them.
fn quicktun(world: &World) -> Result<Vec<Process>, Error> {
    let program = world.program("quicktun")?;
    let mut processes = Vec::new();
    for (host, own, other) in world.ends() {
        let (private, public) = (PAIRS[own].private, PAIRS[other].public);
        let settings = BTreeMap::from([
            ("IFACE", "qt0".to_owned()),
            ("IF_QT_TUN_MODE", "1".to_owned()),
            ("IF_QT_PROTOCOL", "nacltai".to_owned()),
            ("IF_QT_LOCAL_ADDRESS", OUTER[own].to_string()),
            ("IF_QT_LOCAL_PORT", "2998".to_owned()),
            ("IF_QT_REMOTE_ADDRESS", OUTER[other].to_string()),
            ("IF_QT_REMOTE_PORT", "2998".to_owned()),
            ("IF_QT_PRIVATE_KEY", private.to_owned()),
            ("IF_QT_PUBLIC_KEY", public.to_owned()),
        ]);
        let mut command = host.command(&program);
        command.envs(settings);
        processes.push(Process::spawn(format!("{}: quicktun", host.name()), command)?);
        wait_until("quicktun's device", PATIENCE, || host.run("ip link show qt0").is_ok())?;
        host.run(&format!("ip addr add {}/24 dev qt0", INNER[own]))?;
        // Its default of 1500 would send every full packet as two IP fragments.
        host.run(&format!("ip link set qt0 mtu {MTU} up"))?;
    }
    Ok(processes)
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
