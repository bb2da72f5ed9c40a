//! Where secrets are in the memory of a running link.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tund::config::keyfile::parse_private;
use tund::crypto::keys::{self, link_secret, public_of};
use tund_lab::Host;

use super::ending::engine;
use super::support::*;

/// How often each of the needles is in the memory of a process, bytes of a mapping together.
fn counts(pid: u32, needles: &[Vec<u8>]) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut counts = vec![0; needles.len()];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [range.0, range.1].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        // Nothing can be read of what the kernel keeps to itself.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        for (count, needle) in counts.iter_mut().zip(needles) {
            *count += bytes.windows(needle.len()).filter(|window| window == needle).count();
        }
    }
    counts
}

fn key(path: &Path) -> [u8; 32] {
    let text = fs::read_to_string(path).unwrap();
    parse_private(text.lines().last().unwrap()).unwrap()
}

/// What is looked for: the middle of a key, since X25519 changes bits at both ends of a copy, and its digits.
fn needles(keys: &[[u8; 32]]) -> Vec<Vec<u8>> {
    let middle = |key: &[u8; 32]| key[8..24].to_vec();
    let digits = |key: &[u8; 32]| key[8..24].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    keys.iter().flat_map(|key| [middle(key), digits(key).into_bytes()]).collect()
}

/// Both ends up for a second, and what is then where in parent and engine.
fn look(pair: &Pair, fri: &Toml, mon: &Toml, keys: &[[u8; 32]]) -> [Vec<usize>; 2] {
    let (fri, _mon) = pair.link(fri, mon);
    assert_pings(&pair.fri, "192.168.86.18");
    thread::sleep(Duration::from_secs(1));
    let engine = engine(&pair.fri, &fri);
    for pid in [fri.pid(), engine] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        let is_said = fri.text().contains("note: keys may get into swap space");
        assert!(is_said || !locked.trim().starts_with("0 "), "process {pid} is not locked in memory");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().next(), Some("0"), "process {pid} would leave a core file");
    }
    [fri.pid(), engine].map(|pid| counts(pid, &needles(keys)))
}

#[test]
fn of_a_shared_secret_nothing_is_left_once_the_engine_has_its_keys() {
    for config in [|toml: Toml| toml, Toml::handshake] {
        let pair = pair();
        let shared = key(&pair.fri.dir().join("static.key"));
        let link = *link_secret(Some(&shared), None).unwrap();
        let [parent, engine] =
            look(&pair, &config(Toml::tun_fri()), &config(Toml::tun_mon()), &[shared, link]);
        assert_eq!(
            (parent, engine),
            (vec![0; 4], vec![0; 4]),
            "shared secret and link secret, bytes and digits"
        );
    }
}

#[test]
fn of_a_private_key_one_copy_is_left_and_that_in_the_engine() {
    let pair = pair();
    let [fri, mon] = [&pair.fri, &pair.mon].map(|host: &Host| {
        let made = host.run(&format!("{TUND} keypair -o {}/own.key", host.dir().display())).unwrap();
        (key(&host.dir().join("own.key")), made.lines().last().unwrap().trim().to_owned())
    });
    let end = |mut toml: Toml, peer: &str| {
        toml.key = format!("private-file = 'own.key'\npeer-public = '{peer}'");
        toml
    };
    let peer_public = public_of(&mon.0);
    let link = *link_secret(None, Some(keys::Pair { private: &fri.0, peer_public: &peer_public })).unwrap();
    let [parent, engine] =
        look(&pair, &end(Toml::tun_fri(), &mon.1), &end(Toml::tun_mon(), &fri.1), &[fri.0, link]);
    assert_eq!(parent, [0, 0, 0, 0], "private key and link secret, bytes and digits");
    assert_eq!(engine, [1, 0, 0, 0], "private key and link secret, bytes and digits");
}
