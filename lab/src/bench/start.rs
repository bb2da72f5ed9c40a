//! How the other tunnels are started between fri and mon.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tund_lab::{Error, Host, Process, wait_until};

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

/// A tunnel of the kernel, of the kind that `ip link add type` names.
pub fn kernel(world: &World, kind: &str, options: &str) -> Result<Vec<Process>, Error> {
    for (host, own, other) in world.ends() {
        // GENEVE takes no local address.
        let local = if kind == "geneve" { String::new() } else { format!("local {}", OUTER[own]) };
        host.run(&format!("ip link add t0 type {kind} {options} {local} remote {}", OUTER[other]))?;
        host.run(&format!("ip addr add {}/24 dev t0", INNER[own]))?;
        host.run("ip link set t0 up")?;
    }
    Ok(Vec::new())
}

/// tund's forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tund {
    TunAes,
    TunChaCha,
    TapAes,
    TapChaCha,
    StaticAes,
    StaticChaCha,
    Plain,
    Tcp,
}

pub fn tund(world: &World, form: Tund) -> Result<Vec<Process>, Error> {
    let (aes, chacha) = ("aes-256-gcm", "chacha20-poly1305");
    let (mode, keys, cipher) = match form {
        Tund::TunAes | Tund::Plain | Tund::Tcp => (Mode::Tun, Keys::Handshake, aes),
        Tund::TunChaCha => (Mode::Tun, Keys::Handshake, chacha),
        Tund::TapAes => (Mode::Tap, Keys::Handshake, aes),
        Tund::TapChaCha => (Mode::Tap, Keys::Handshake, chacha),
        Tund::StaticAes => (Mode::Tun, Keys::Static, aes),
        Tund::StaticChaCha => (Mode::Tun, Keys::Static, chacha),
    };
    let tuning = if form == Tund::Plain { "offload = false" } else { "" };
    let link = Link { mode, keys, cipher: Some(cipher), tuning, stream: form == Tund::Tcp };
    let program = world.install_tund()?;
    let mon = link.start(&program, &world.mon, Place::Mon)?;
    Ok(vec![mon, link.start(&program, &world.fri, Place::Fri)?])
}

/// tund with OpenVPN's static key at fri, and the same or OpenVPN itself at mon.
pub fn tund_as_openvpn(world: &World, both: bool) -> Result<Vec<Process>, Error> {
    let mut processes = openvpn(world, OpenVpn::StaticTun(if both { 0 } else { 1 }))?;
    let program = world.install_tund()?;
    for (host, own, other) in world.ends().into_iter().take(if both { 2 } else { 1 }) {
        let text = format!(
            "remote = '{}:1194'\n[key]\nmode = 'openvpn'\nfile = '{}'\ncipher = 'aes-256-cbc'\nauth = 'sha256'\n\
             [openvpn]\nupgrade = 'off'\n[device]\naddress = '{}'\npeer = '{}'\n[run]\nstate-dir = '{}'\n",
            OUTER[other],
            world.fri.dir().join("openvpn.key").display(),
            INNER[own],
            INNER[other],
            host.dir().join("state").display()
        );
        processes.push(host.tund(&program, &host.file("openvpn.toml", &text)?, &[])?);
    }
    Ok(processes)
}

/// OpenVPN's forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenVpn {
    /// At so many ends, mon's first.
    StaticTun(usize),
    StaticTap,
    StaticTcp,
    Tls,
}

const CONSENT: &str = "--allow-deprecated-insecure-static-crypto";

pub fn openvpn(world: &World, form: OpenVpn) -> Result<Vec<Process>, Error> {
    let program = world.program("openvpn")?;
    // 2.7 wants to be told that this mode is deprecated; 2.6 does not know the option and warns.
    let version = world.fri.run(&format!("{} --version", program.display()))?;
    let consent = if version.contains("OpenVPN 2.7") { CONSENT } else { "" };
    let key = world.fri.dir().join("openvpn.key");
    let keys = match form {
        OpenVpn::StaticTun(_) | OpenVpn::StaticTap | OpenVpn::StaticTcp => {
            world.fri.run(&format!("{} --genkey secret {}", program.display(), key.display()))?;
            let options = format!("--cipher AES-256-CBC --auth SHA256 {consent} --secret {}", key.display());
            [options.clone(), options]
        }
        OpenVpn::Tls => certificates(world)?,
    };
    let start = |(host, own, other): (&Host, usize, usize)| {
        let mut command = host.command(&program);
        let device = match form {
            OpenVpn::StaticTap => format!("--dev-type tap --ifconfig {} 255.255.255.0", INNER[own]),
            OpenVpn::StaticTun(_) | OpenVpn::StaticTcp | OpenVpn::Tls => {
                format!("--dev-type tun --ifconfig {} {}", INNER[own], INNER[other])
            }
        };
        let protocol = match (form, own) {
            (OpenVpn::StaticTcp, 0) => "--proto tcp-client",
            (OpenVpn::StaticTcp, _) => "--proto tcp-server",
            (OpenVpn::StaticTun(_) | OpenVpn::StaticTap | OpenVpn::Tls, _) => "",
        };
        let ends = format!("{protocol} --local {} --remote {} --port 1194", OUTER[own], OUTER[other]);
        let options = format!("--dev ovpn0 {device} {ends} --verb 1 {}", keys[own]);
        command.args(options.split_whitespace());
        Process::spawn(format!("{}: openvpn", host.name()), command)
    };
    let count = if let OpenVpn::StaticTun(count) = form { count } else { 2 };
    world.ends().into_iter().rev().take(count).map(start).collect()
}

/// A certificate for each end, and the options by which each knows the other's.
fn certificates(world: &World) -> Result<[String; 2], Error> {
    let mut prints = Vec::new();
    for (host, _, _) in world.ends() {
        let dir = host.dir().display();
        host.shell(&format!(
            "cd {dir}; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
             -keyout tls.key -out tls.crt -subj /CN={} 2>/dev/null",
            host.name()
        ))?;
        let text = host.run(&format!("openssl x509 -in {dir}/tls.crt -noout -fingerprint -sha256"))?;
        let print = text.trim().rsplit('=').next().unwrap_or_default().to_owned();
        prints.push((format!("--cert {dir}/tls.crt --key {dir}/tls.key"), print));
    }
    let [(fri, fri_print), (mon, mon_print)] = &prints[..] else {
        return Err(Error::new("two ends have two certificates"));
    };
    let common = "--dh none --data-ciphers AES-256-GCM";
    Ok([
        format!("--tls-client {common} {fri} --peer-fingerprint {mon_print}"),
        format!("--tls-server {common} {mon} --peer-fingerprint {fri_print}"),
    ])
}

/// `ssh -w` from fri to a server at mon that nobody else reaches.
pub fn ssh(world: &World) -> Result<Vec<Process>, Error> {
    let [sshd, ssh, keygen] = ["sshd", "ssh", "ssh-keygen"].map(|name| world.program(name));
    let (sshd, ssh, keygen) = (sshd?, ssh?, keygen?);
    let (fri, mon) = (&world.fri, &world.mon);
    for host in [fri, mon] {
        host.shell(&format!("{} -q -t ed25519 -N '' -f {}/key", keygen.display(), host.dir().display()))?;
    }
    // Whatever this machine's users are: the one who calls, and the one that the server wants for its own protection.
    let users = "lab:*:0:0::/:/bin/sh\nsshd:*:65534:65534::/:/bin/false\n";
    mon.run(&format!("mount --bind {} /etc/passwd", mon.file("passwd", users)?.display()))?;
    mon.shell("mount -t tmpfs tmpfs /run; mkdir -m 755 /run/sshd")?;
    let text = format!(
        "ListenAddress {}\nHostKey {}/key\nAuthorizedKeysFile {}/key.pub\nPidFile none\nStrictModes no\n\
         PermitRootLogin prohibit-password\nPermitTunnel point-to-point\n",
        OUTER[1],
        mon.dir().display(),
        fri.dir().display()
    );
    let file = mon.file("sshd_config", &text)?;
    let mut command = mon.command(&sshd);
    command.args(["-D", "-e", "-f"]).arg(file);
    let server = Process::spawn("mon: sshd", command)?;
    // A client that comes before the server listens gives up.
    mon.wait_output("ss -Hltn", PATIENCE, |sockets| sockets.contains(":22 "))?;
    let mut command = fri.command(&ssh);
    command.args("-F none -N -w 0:0 -c aes256-gcm@openssh.com -o BatchMode=yes".split(' '));
    command.args("-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i".split(' '));
    command.arg(fri.dir().join("key")).arg(format!("lab@{}", OUTER[1]));
    let client = Process::spawn("fri: ssh", command)?;
    for (host, own, other) in world.ends() {
        wait_until("the device of ssh", PATIENCE, || host.run("ip link show tun0").is_ok())
            .map_err(|error| Error::new(format!("{error}: {}{}", server.text(), client.text())))?;
        host.run(&format!("ip addr add {} peer {} dev tun0", INNER[own], INNER[other]))?;
        host.run("ip link set tun0 up")?;
    }
    Ok(vec![server, client])
}

/// A program that is configured as wireguard-go is.
pub fn wireguard(world: &World, name: &str, arguments: &[&str]) -> Result<Vec<Process>, Error> {
    let program = world.program(name)?;
    let mut processes = Vec::new();
    for (host, own, other) in world.ends() {
        // Its control socket has a fixed place below /run: each host gets one of its own.
        host.run("mount -t tmpfs tmpfs /run")?;
        let mut command = host.command(&program);
        command.args(arguments);
        processes.push(Process::spawn(format!("{}: {name}", host.name()), command)?);
        let (private, public) = (PAIRS[own].private, PAIRS[other].public);
        let settings = format!(
            "set=1\nprivate_key={private}\nlisten_port=51820\npublic_key={public}\nendpoint={}:51820\n\
             allowed_ip=0.0.0.0/0\n\n",
            OUTER[other]
        );
        let socket = host.path("/run/wireguard/wg0.sock");
        wait_until("the control socket", PATIENCE, || UnixStream::connect(&socket).is_ok())?;
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

pub fn quincy(world: &World) -> Result<Vec<Process>, Error> {
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
    let start = |host: &Host, program: &PathBuf, file: &PathBuf| {
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
pub fn quicktun(world: &World) -> Result<Vec<Process>, Error> {
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

pub fn fastd(world: &World) -> Result<Vec<Process>, Error> {
    let program = world.program("fastd")?;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let text = world.fri.run(&format!("{} --generate-key", program.display()))?;
        let word = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.map(|key| key.trim().to_owned())
                .ok_or_else(|| Error::new(format!("fastd made no key: {text}")))
        };
        keys.push((word("Secret:")?, word("Public:")?));
    }
    let mut processes = Vec::new();
    for (host, own, other) in world.ends() {
        let text = format!(
            "log level error;\nmode tun;\ninterface \"fd0\";\nmtu {MTU};\nmethod \"salsa2012+umac\";\n\
             bind {}:10000;\nsecret \"{}\";\npeer \"other\" {{\n  key \"{}\";\n  remote {} port 10000;\n}}\n",
            OUTER[own], keys[own].0, keys[other].1, OUTER[other]
        );
        let file = host.file("fastd.conf", &text)?;
        let mut command = host.command(&program);
        command.arg("--config").arg(file);
        processes.push(Process::spawn(format!("{}: fastd", host.name()), command)?);
        wait_until("fastd's device", PATIENCE, || host.run("ip link show fd0").is_ok())?;
        host.run(&format!("ip addr add {} peer {} dev fd0", INNER[own], INNER[other]))?;
        host.run("ip link set fd0 up")?;
    }
    Ok(processes)
}

pub fn tinc(world: &World) -> Result<Vec<Process>, Error> {
    let program = world.program("tincd")?;
    tinc_net(world, &program, "", |folder| format!("{} -c {folder} -K2048", program.display()))
}

/// Its command line and its files are those of tinc 1.1. `mode` is `router` or `switch`.
pub fn tincr(world: &World, mode: &str) -> Result<Vec<Process>, Error> {
    let (program, command) = (world.program("tincr-tincd")?, world.program("tincr-tinc")?);
    let options = format!("Mode = {mode}\nSPTPSCipher = aes-256-gcm\n");
    tinc_net(world, &program, &options, |folder| {
        format!("{} -c {folder} generate-ed25519-keys", command.display())
    })
}

/// Two ends of a network of tinc's. `keys` gives the command that makes the keys in a folder of configuration.
fn tinc_net(
    world: &World,
    program: &Path,
    options: &str,
    keys: impl Fn(&str) -> String,
) -> Result<Vec<Process>, Error> {
    let names = ["fri", "mon"];
    let folder = |host: &Host| host.dir().join("tinc");
    for (host, own, other) in world.ends() {
        let connect = if own == 0 { format!("ConnectTo = {}\n", names[other]) } else { String::new() };
        let main = format!("Name = {}\nInterface = tinc0\n{options}{connect}", names[own]);
        std::fs::create_dir_all(folder(host).join("hosts")).map_err(|error| Error::new(error.to_string()))?;
        host.file("tinc/tinc.conf", &main)?;
        let about = format!("Address = {}\nSubnet = {}/32\n", OUTER[own], INNER[own]);
        host.file(&format!("tinc/hosts/{}", names[own]), &about)?;
        host.run(&keys(&folder(host).display().to_string()))?;
    }
    for (host, own, _) in world.ends() {
        for (other, _, _) in world.ends() {
            let name = format!("hosts/{}", names[1 - own]);
            if other.name() != host.name() {
                let copied = std::fs::copy(folder(other).join(&name), folder(host).join(&name));
                copied.map_err(|error| Error::new(format!("{name}: {error}")))?;
            }
        }
    }
    let mut processes = Vec::new();
    for (host, own, other) in world.ends().into_iter().rev() {
        let mut command = host.command(program);
        command
            .arg("-c")
            .arg(folder(host))
            .arg("-D")
            .arg(format!("--pidfile={}/tinc.pid", host.dir().display()));
        processes.push(Process::spawn(format!("{}: tinc", host.name()), command)?);
        wait_until("tinc's device", PATIENCE, || host.run("ip link show tinc0").is_ok())?;
        host.run(&format!("ip addr add {} peer {} dev tinc0", INNER[own], INNER[other]))?;
        host.run("ip link set tinc0 up")?;
    }
    Ok(processes)
}
