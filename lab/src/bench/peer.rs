//! The tunnels compared: each a file below `lab/rivals`, or a user's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use tund_lab::scenario::{Origin, Rival};
use tund_lab::{At, Error, rights};

use Part::{Always, Asked, Comparison, Target, TargetIfHere};

use crate::link::{INNER, OUTER};

/// A tunnel, or the absence of one.
#[derive(Debug)]
pub struct Contender {
    /// The name on the command line and in the tables.
    pub name: &'static str,
    /// What it is and does.
    pub rival: Rival,
    part: Part,
}

/// When a contender takes part without being named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Always: the baseline of the others, and all variants of tund.
    Always,
    /// A rival named in the targets, which is required.
    Target,
    /// A rival named in the targets, if available.
    TargetIfHere,
    /// In comparisons.
    Comparison,
    /// If it, or its file, is named.
    Asked,
}

/// A contender.
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

macro_rules! files {
    ($($name:literal $part:ident),* $(,)?) => {
        [$(($name, $part, include_str!(concat!("../../rivals/", $name, ".toml")))),*]
    };
}

/// Those included in the lab, in the order of the tables.
const FILES: [(&str, Part, &str); 30] = files![
    "veth" Always,
    "vxlan" Always,
    "gre" Comparison,
    "gretap" Comparison,
    "geneve" Comparison,
    "openvpn" Target,
    "openvpn-tap" Comparison,
    "openvpn-tcp" Target,
    "openvpn-tls" Comparison,
    "openvpn-tund" Comparison,
    "openvpn-tund-tund" Comparison,
    "ssh" TargetIfHere,
    "wireguard-go" TargetIfHere,
    "boringtun" Target,
    "fastd" Comparison,
    "tinc" Comparison,
    "tincr" TargetIfHere,
    "tincr-tap" TargetIfHere,
    "quincy" Target,
    "quicktun" Target,
    "tund-tun-aes" Always,
    "tund-tun-chacha" Always,
    "tund-tap-aes" Always,
    "tund-tap-chacha" Always,
    "tund-static-aes" Always,
    "tund-static-chacha" Always,
    "tund-plain" Always,
    "tund-lanes" Always,
    "tund-tcp" Always,
    "tund-tcp-bbr" Asked,
];

#[expect(clippy::expect_used, reason = "a test reads every file")]
static ALL: LazyLock<Vec<Contender>> = LazyLock::new(|| {
    let read = |(name, part, text)| Contender::read(name, name, text, part).expect("its file is sound");
    FILES.into_iter().map(read).collect()
});

impl Contender {
    /// Reads a file's text; one that it extends is among [`FILES`], or beside it.
    fn read(name: &'static str, file: &str, text: &str, part: Part) -> Result<Self, Error> {
        let beside = Path::new(file).parent().unwrap_or(Path::new(""));
        let find = |base: &str| {
            if base.ends_with(".toml") {
                let path = beside.join(base);
                return std::fs::read_to_string(&path).at(path.display());
            }
            let found = FILES.iter().find(|(name, ..)| *name == base);
            found.map(|(.., text)| (*text).to_owned()).ok_or_else(|| {
                Error::new(format!("no rival {base}: there are {}, or give a FILE.toml", names()))
            })
        };
        let known = [(0, 1), (1, 0)].map(|(own, other)| {
            let vars =
                [("OWN", OUTER[own]), ("OTHER", OUTER[other]), ("INNER", INNER[own]), ("PEER", INNER[other])];
            vars.map(|(name, value)| (name.to_owned(), value.to_string()))
                .into_iter()
                .collect::<BTreeMap<_, _>>()
        });
        Ok(Self { name, rival: Rival::read(file, text, &known, find)?, part })
    }

    /// Whether this is tund.
    pub fn is_tund(&self) -> bool {
        self.name.starts_with("tund-")
    }

    /// A missing program, with the way to get it.
    pub fn missing(&self) -> Option<&(String, Origin)> {
        self.rival.programs.iter().find(|(program, _)| rights::find(program).is_none())
    }

    /// Whether it counts as absent, not failed, if its programs are missing.
    pub fn may_be_absent(&self) -> bool {
        self.part == TargetIfHere
    }
}

/// The names of all that are included in the lab.
pub fn names() -> String {
    FILES.map(|(name, ..)| name).join(", ")
}

impl Peer {
    /// The peer of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|peer| peer.name == name)
    }

    /// A user's own peer, named like its file.
    pub fn of_file(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).at(file.display())?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if Self::named(&name).is_some() {
            return Err(Error::new(format!(
                "{}: {name} comes with the laboratory: call it something else",
                file.display()
            )));
        }
        // Lives as long as the program.
        let contender = Contender::read(name.leak(), &file.display().to_string(), &text, Asked)?;
        Ok(Self(Box::leak(Box::new(contender))))
    }

    /// All that are included in the lab.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(Self)
    }

    /// Those of a comparison.
    pub fn compared() -> impl Iterator<Item = Self> {
        Self::all().filter(|peer| peer.part != Asked)
    }

    /// Those that the benchmark needs: the ones named in the targets, and their baseline.
    pub fn needed() -> impl Iterator<Item = Self> {
        Self::all().filter(|peer| matches!(peer.part, Always | Target | TargetIfHere))
    }

    /// Those without programs, and one form of tund each, for a comparison in a guest.
    pub fn in_guest() -> impl Iterator<Item = Self> {
        let own = ["tund-tun-aes", "tund-tap-aes"];
        Self::all().filter(move |peer| {
            peer.rival.programs.is_empty() && (!peer.is_tund() || own.contains(&peer.name))
        })
    }

    /// Rivals named in the targets.
    pub fn rivals() -> impl Iterator<Item = Self> {
        Self::all().filter(|peer| matches!(peer.part, Target | TargetIfHere))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_sound_and_in_the_list_and_all_but_the_kernels_tunnels_encrypt() {
        for (name, part, text) in FILES {
            Contender::read(name, name, text, part).unwrap();
        }
        let plain: Vec<_> = Peer::all().filter(|peer| peer.rival.plain).map(|peer| peer.name).collect();
        assert_eq!(plain, ["veth", "vxlan", "gre", "gretap", "geneve"]);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals");
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let known = Peer::named(name).is_some() || ["ground", "far"].contains(&name);
            assert!(known, "{} is in no list", path.display());
        }
    }

    const OWN: &str = r#"about = "two lines of TOML"
programs = { socat = "debian socat" }
[vars]
PORT = ["1", "2"]
[end]
services = ["socat UDP:@OTHER@:@PORT@ TUN:@INNER@/24"]
device = "tun0"
address = "@INNER@/24"
mtu = 1400
[end.tund]
link = '''
listen = 1
[key]
file = "k"
[device]
address = "@INNER@/24"
'''
"#;

    fn verdict(from: &str, to: &str) -> String {
        assert!(OWN.contains(from), "{from}");
        let read = Contender::read("own", "own.toml", &OWN.replace(from, to), Asked);
        read.map_or_else(|error| error.to_string(), |_| "sound".to_owned())
    }

    #[test]
    fn mistakes_are_named_with_line_and_remedy() {
        assert_eq!(verdict("mtu = 1400", "mtu = 1400"), "sound");
        for (from, to, said) in [
            ("debian socat", "deb socat", "own.toml:2:22: \"deb socat\" is not debian PACKAGE"),
            ("@PORT@", "@GATE@", "own.toml:6:32: no variable GATE: give it a value in [vars]"),
            ("device = \"tun0\"\n", "", "own.toml:7:11: an address is of a device"),
            ("\"tun0\"", "\"tun/0\"", "own.toml:7:10: no interface can be called \"tun/0\""),
            (
                "address = \"@INNER@/24\"\nmtu",
                "address = \"@OWN@/24\"\nmtu",
                "own.toml:8:11: \"192.168.80.81/24\" does not begin with @INNER@",
            ),
            ("mtu = 1400", "mtu = 0", "own.toml:7:10: its mtu"),
            ("mtu = 1400", "mtu = \"large\"", "line 9, column 7"),
            (
                "mtu = 1400",
                "metric = 1400",
                "expected one of `files`, `setup`, `services`, `tund`, `up`, `device`",
            ),
            ("about = \"two lines of TOML\"", "", "own.toml:1:1: there is no about"),
            ("about", "extends = \"opnvpn\"\nabout", "no rival opnvpn: there are veth, vxlan"),
            ("[\"1\", \"2\"]", "[\"1\"]", "own.toml"),
            ("listen = 1", "listne = 1", "own.toml:12:1: link: "),
        ] {
            let told = verdict(from, to);
            assert!(told.contains(said) && told != "sound", "{from} -> {to}: {told}");
        }
        let empty = Contender::read("own", "own.toml", "about = 'nothing'", Asked).unwrap_err().to_string();
        assert!(empty.starts_with("own.toml:1:1: nothing runs") && empty.lines().count() == 1, "{empty}");
    }

    /// serde knows the keys.
    #[test]
    fn the_manual_has_every_key() {
        let manual = include_str!("../../../docs/scenario.5.md");
        let (_, manual) = manual.split_once("\n## Rivals of the benchmark").unwrap();
        for (from, to) in [("[vars]", "no-such = 1\n[vars]"), ("mtu = 1400", "no-such = 1")] {
            let said = verdict(from, to);
            let keys = said.split_once("expected one of ").unwrap().1.lines().next().unwrap();
            for key in keys.split(", ") {
                assert!(manual.contains(key), "{key} is not in docs/scenario.5.md");
            }
        }
    }
}
