//! Secrets in the memory of a running link.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tund::config::keyfile::KeyFile;
use tund::crypto::keys::{self, DirectionKey, link_secret, public_of};
use tund::crypto::suite::Cipher;
use tund_lab::{Host, wait_until};
use zeroize::Zeroizing;

use super::ending::engine;
use super::support::*;
/// Log of a start that cannot even lock the link's keys.
const KEYS_NOT_LOCKED: &str = "the link's keys may end up in swap space";

const NOT_ALL_LOCKED: &str =
    "note: session keys and frames may end up in swap space: locked memory is limited";

/// Each readable writable mapping of a process: its lines in /proc, and its bytes.
fn mappings(pid: u32) -> Vec<(String, Vec<u8>)> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut mappings: Vec<(String, Vec<u8>)> = Vec::new();
    let range = |line: &str| -> Option<[u64; 2]> {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        Some([u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?])
    };
    for line in smaps.lines() {
        match range(line) {
            Some([from, to]) => {
                let mut bytes = vec![0; if line.contains(" rw") { (to - from) as usize } else { 0 }];
                // Kernel-owned mappings cannot be read.
                if memory.read_exact_at(&mut bytes, from).is_err() {
                    bytes.clear();
                }
                mappings.push((format!("{line}\n"), bytes));
            }
            None => mappings.last_mut().unwrap().0.extend([line, "\n"]),
        }
    }
    mappings
}

fn count(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).filter(|window| *window == needle).count()
}

/// How often each needle occurs in a process's memory.
fn counts(pid: u32, needles: &[Vec<u8>]) -> Vec<usize> {
    let mappings = mappings(pid);
    needles.iter().map(|needle| mappings.iter().map(|(_, bytes)| count(bytes, needle)).sum()).collect()
}

fn key(path: &Path) -> [u8; 32] {
    let text = fs::read_to_string(path).unwrap();
    KeyFile::Private.parse(text.lines().last().unwrap()).unwrap()
}

/// What to search for: the middle of a key, since X25519 changes bits at both ends of a copy, and its digits.
fn needles(keys: &[[u8; 32]]) -> Vec<Vec<u8>> {
    let middle = |key: &[u8; 32]| key[8..24].to_vec();
    let digits = |key: &[u8; 32]| key[8..24].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    keys.iter().flat_map(|key| [middle(key), digits(key).into_bytes()]).collect()
}

/// Runs both ends for a second, then searches parent and engine.
fn look(pair: &Pair, fri: &Toml, mon: &Toml, keys: &[[u8; 32]]) -> [Vec<usize>; 2] {
    let (fri, _mon) = pair.link(fri, mon);
    assert_pings(&pair.fri, "192.168.86.18");
    thread::sleep(Duration::from_secs(1));
    let engine = engine(&pair.fri, &fri);
    for pid in [fri.pid(), engine] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        let is_said = fri.text().contains(NOT_ALL_LOCKED);
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

/// tund, allowed to lock only 64 KiB.
fn limited(host: &Host) -> PathBuf {
    let capabilities = "--bounding-set=-sys_resource,-ipc_lock --inh-caps=-sys_resource,-ipc_lock";
    script(
        host,
        "limited",
        &format!("exec prlimit --memlock=65536:65536 setpriv {capabilities} {TUND} \"$@\""),
    )
}

/// The keys in a key log's lines with this prefix.
fn logged(log: &Path, start: &str) -> Vec<[u8; 32]> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let words = whole.lines().filter(|line| line.starts_with(start)).flat_map(|line| line.split(' '));
    words.filter(|word| word.len() == 64).map(|word| KeyFile::Private.parse(word).unwrap()).collect()
}

#[test]
fn the_keys_that_last_are_locked_in_memory_where_not_all_of_it_can_be() {
    let pair = pair();
    let ends = [&pair.fri, &pair.mon].map(|host: &Host| {
        let made = host.run(&format!("{TUND} keypair -o {}/own.key", host.dir().display())).unwrap();
        (key(&host.dir().join("own.key")), made.lines().last().unwrap().trim().to_owned())
    });
    let end = |mut toml: Toml, peer: &str| {
        toml.key = format!("private-file = 'own.key'\npeer-public = '{peer}'");
        toml
    };
    let _mon = pair.start_mon(&end(Toml::tun_mon(), &ends[0].1));
    let log = pair.fri.dir().join("keys");
    let file = pair.fri.file("fri.toml", &end(Toml::tun_fri(), &ends[1].1).text()).unwrap();
    let arguments = ["--key-log", log.to_str().unwrap(), "--verb", "1"];
    let fri = pair.fri.tund(&limited(&pair.fri), &file, &arguments).unwrap();
    fri.wait_line(UP, SOON).unwrap();
    assert!(fri.text().contains(NOT_ALL_LOCKED), "{}", fri.text());
    assert!(!fri.text().contains(KEYS_NOT_LOCKED), "{}", fri.text());
    wait_until("keys", SOON, || logged(&log, "link ").len() == 3).unwrap();
    let lasting = [vec![ends[0].0], logged(&log, "link ")].concat();
    let mappings = mappings(engine(&pair.fri, &fri));
    for (key, what) in lasting.iter().zip(["private key", "probe", "mask", "stream"]) {
        let mut found = mappings.iter().filter(|(_, bytes)| count(bytes, &key[8..24]) > 0).peekable();
        assert!(found.peek().is_some(), "{what}: not found");
        for (lines, bytes) in found {
            assert_eq!(count(bytes, &key[8..24]), 1, "{what} in {lines}");
            let flags = lines.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
            for flag in ["lo", "dd", "wf"] {
                assert!(flags.split(' ').any(|word| word == flag), "{what}: no {flag} in {lines}");
            }
        }
    }
}

/// Whether any key from which lane 0's traffic key derives is in the mappings.
fn is_derivable(mappings: &[(String, Vec<u8>)], traffic: &[[u8; 32]]) -> bool {
    // A random key has no more zeros than that.
    let is_random = |bytes: &&[u8]| bytes.iter().filter(|byte| **byte == 0).count() <= 4;
    let ciphers = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
    mappings.iter().flat_map(|(_, bytes)| bytes.windows(32)).filter(is_random).any(|bytes| {
        let key = DirectionKey::new(Zeroizing::new(bytes.try_into().unwrap()));
        ciphers.iter().any(|cipher| traffic.contains(&*key.lane_bytes(*cipher, 0)))
    })
}

#[test]
fn of_traffic_keys_nothing_is_left_once_their_session_has_ended() {
    type Config = fn(Toml) -> Toml;
    fn chacha(toml: Toml) -> Toml {
        let mut toml = toml.handshake();
        toml.key.push_str("\ncipher = 'chacha20-poly1305'");
        toml
    }
    // With static keys, each end keeps its own key until it draws a new one.
    let cases: [(Config, &[&str], &str); 3] = [
        (|toml| toml, &["rekey"], "key out "),
        (Toml::handshake, &["rekey", "reconnect"], "key "),
        (chacha, &["rekey", "reconnect"], "key "),
    ];
    for (config, commands, which) in cases {
        let pair = pair();
        let _mon = pair.start_mon(&config(Toml::tun_mon()));
        let log = pair.fri.dir().join("keys");
        let text = config(Toml::tun_fri()).text();
        let fri = start_with(&pair.fri, "fri", &text, &["--key-log", log.to_str().unwrap(), "--verb", "1"]);
        fri.wait_line(UP, SOON).unwrap();
        let mut ended = 0;
        for command in commands {
            assert_pings(&pair.fri, "192.168.86.18");
            wait_until("keys", SOON, || logged(&log, which).len() > ended).unwrap();
            ended = logged(&log, which).len();
            let directory = pair.fri.dir().join("run");
            let asked = format!("env RUNTIME_DIRECTORY={} {TUND} {command} fri", directory.display());
            pair.fri.run(&asked).unwrap();
            wait_until("new keys", SOON, || logged(&log, which).len() > ended).unwrap();
        }
        assert_pings(&pair.fri, "192.168.86.18");
        thread::sleep(Duration::from_secs(1));
        let (mappings, all) = (mappings(engine(&pair.fri, &fri)), logged(&log, which));
        let (ended, used) = all.split_at(ended);
        let found =
            |key: &[u8; 32]| mappings.iter().map(|(_, bytes)| count(bytes, &key[8..24])).sum::<usize>();
        let used: Vec<_> = used.iter().map(found).collect();
        assert!(used.iter().any(|copies| *copies > 0), "of each key that came later: {used:?}, {text}");
        let left: Vec<_> = ended.iter().map(found).collect();
        assert!(left.iter().all(|copies| *copies == 0), "of each key that ended: {left:?}, {text}");
        assert!(!is_derivable(&mappings, ended), "a key of which traffic keys that ended derive: {text}");
    }
}
