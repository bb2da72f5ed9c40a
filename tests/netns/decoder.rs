//! tund against PROTOCOL.md: Python programs written from that text alone decode what tund sends, and form a link with
//! tund at the other end.
//!
//! ```text
//!  fri 10.0.0.1 ==== wire, captured ==== 10.0.0.2 mon
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tund_lab::wire::Crossed;
use tund_lab::{Host, Process, rights};

use super::support::*;

/// Pings inside, per test.
const PINGS: usize = 3;
/// Echo data of a small frame and of the largest.
const SIZES: [usize; 2] = [100, 1372];
/// IPv4 and ICMP headers.
const HEADERS: usize = 28;

/// Starts a program of tests/decoder.
fn python(host: &Host, program: &str, arguments: &str) -> Process {
    rights::require_python(&["cryptography", "nacl"]).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decoder").join(program);
    let mut words = vec![rights::PYTHON, "-B", path.to_str().unwrap()];
    words.extend(arguments.split_whitespace());
    host.spawn(&words).unwrap()
}

/// Its output, if it succeeds.
fn said(mut process: Process) -> Vec<String> {
    let code = process.code(2 * SOON).unwrap();
    assert_eq!(code, 0, "{}", process.text());
    process.lines()
}

/// Writes these frames to a capture file (libpcap format, Ethernet).
pub fn capture(host: &Host, frames: &[Crossed]) -> PathBuf {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const VERSION: u32 = 2 << 16 | 4;
    const SNAPSHOT: u32 = 65_535;
    const ETHERNET: u32 = 1;
    let mut bytes: Vec<u8> =
        [MAGIC, VERSION, 0, 0, SNAPSHOT, ETHERNET].into_iter().flat_map(u32::to_be_bytes).collect();
    for frame in frames {
        let length = u32::try_from(frame.bytes.len()).unwrap();
        bytes.extend([0, 0, length, length].into_iter().flat_map(u32::to_be_bytes));
        bytes.extend(&frame.bytes);
    }
    let path = host.dir().join("capture.pcap");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The decoder's output for captured frames, one line per datagram.
fn decoded(host: &Host, frames: &[Crossed], keys: &str) -> Vec<String> {
    let capture = capture(host, frames);
    said(python(host, "decode.py", &format!("{keys} {}", capture.display())))
}

fn count(lines: &[String], parts: &[&str]) -> usize {
    lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

/// The `field=value` words that identify a handshake's exchange.
fn exchange(line: &str) -> Option<&str> {
    line.split_once("instance ")?.1.split_once(" token").map(|(exchange, _)| exchange)
}

#[test]
fn every_vector_of_the_document_holds_in_python_too() {
    let pair = Pair::unplugged();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md");
    let text = std::fs::read_to_string(&document).unwrap();
    let vectors = text.lines().filter(|line| line.starts_with("```vector ")).count();
    let said = said(python(&pair.fri, "vectors.py", &document.display().to_string()));
    assert_eq!(said, [format!("{vectors} vectors, 0 failed")]);
}

/// A single wrong digit in the document is detected, so the test above is meaningful.
#[test]
fn a_wrong_vector_is_found() {
    let pair = Pair::unplugged();
    let text = include_str!("../../PROTOCOL.md");
    let wrong = text.replacen(
        "key-id: 00065bfeda25e000010203048166f0dd",
        "key-id: 00065bfeda25e000010203048166f0de",
        1,
    );
    let wrong = wrong.replacen("frame: a0a1a2a3a4a5a6a7", "frame: a0a1a2a3a4a5a6a8", 1);
    let document = pair.fri.file("wrong.md", &wrong).unwrap();
    let mut program = python(&pair.fri, "vectors.py", &document.display().to_string());
    assert_eq!(program.code(SOON).unwrap(), 1, "{}", program.text());
    let said = program.text();
    assert!(said.contains("key-id/one: ") && said.contains("block/one-in-three: "), "{said}");
    assert!(said.contains(" 2 failed"), "{said}");
}

#[test]
fn a_capture_of_a_static_link_is_read_from_the_key_alone() {
    for (suite, cipher) in [("chacha20-poly1305", ""), ("aes-256-gcm", "\ncipher = 'aes-256-gcm'")] {
        let (wire, pair) = wired();
        let config = |mut toml: Toml| {
            toml.key.push_str(cipher);
            toml
        };
        wire.record();
        let _link = pair.link(&config(Toml::tun_fri()), &config(Toml::tun_mon()));
        for size in SIZES {
            pair.fri.run(&format!("ping -n -c {PINGS} -i 0.05 -W 2 -s {size} 192.168.86.18")).unwrap();
        }
        let key = pair.fri.dir().join("static.key");
        let lines = decoded(&pair.fri, &wire.take(), &format!("--shared {}", key.display()));
        let all = lines.join("\n");
        assert_eq!(count(&lines, &["unknown"]), 0, "{all}");
        assert_eq!(count(&lines, &["static", suite]), lines.len(), "{all}");
        for (from, to, direction, own, peer) in [
            ("10.0.0.1:", "> 10.0.0.2:1417", "direction 1", "192.168.86.81", "192.168.86.18"),
            ("10.0.0.2:1417", "> 10.0.0.1:", "direction 0", "192.168.86.18", "192.168.86.81"),
        ] {
            let hello =
                format!("control: hello version=1 mode=0 mtu=1400 addresses={own} peers={peer} budget=");
            assert!(count(&lines, &[from, to, direction, &hello]) >= 1, "{hello}: {all}");
            for size in SIZES {
                let packet = format!("frame of {} IPv4 {own} > {peer} protocol 1 ", size + HEADERS);
                assert_eq!(count(&lines, &[from, to, direction, &packet]), PINGS, "{packet}: {all}");
            }
        }
        assert!(count(&lines, &["name='fri'", "seen=0"]) >= 1, "{all}");
        assert!(count(&lines, &["name='fri'", "seen=1"]) >= 1, "{all}");
    }
}

#[test]
fn frames_in_stream_blocks_are_put_together_from_a_capture() {
    let (wire, pair) = wired();
    let narrow = |toml: Toml| toml.with("[tuning]\npath-mtu = 800");
    wire.record();
    let _link = pair.link(&narrow(Toml::tun_fri()), &narrow(Toml::tun_mon()));
    pair.fri.run(&format!("ping -n -c {PINGS} -i 0.05 -W 2 -s 1372 192.168.86.18")).unwrap();
    let key = pair.fri.dir().join("static.key");
    let lines = decoded(&pair.fri, &wire.take(), &format!("--shared {}", key.display()));
    let all = lines.join("\n");
    for ends in ["192.168.86.81 > 192.168.86.18", "192.168.86.18 > 192.168.86.81"] {
        let frame = format!("frame of 1400 IPv4 {ends} protocol 1 ");
        assert_eq!(count(&lines, &["stream block: ", &frame]), PINGS, "{all}");
    }
    assert!(count(&lines, &["stream block: part of a frame"]) >= 2 * PINGS, "{all}");
}

#[test]
fn handshakes_are_read_from_the_key_alone_and_what_sessions_carry_is_not() {
    let (wire, pair) = wired();
    wire.record();
    let _link = pair.link(&Toml::tun_fri().handshake(), &Toml::tun_mon().handshake());
    assert_pings(&pair.fri, "192.168.86.18");
    let key = pair.fri.dir().join("static.key");
    let lines = decoded(&pair.fri, &wire.take(), &format!("--shared {}", key.display()));
    let all = lines.join("\n");
    let [begun, answered] = ["handshake initiation", "handshake answer"].map(|kind| -> Vec<&str> {
        lines.iter().filter(|line| line.contains(kind)).filter_map(|line| exchange(line)).collect()
    });
    assert!(!answered.is_empty() && answered.iter().all(|answer| begun.contains(answer)), "{all}");
    let initiation = ["initiation X25519 + ML-KEM-768", "lanes 1 suites ", "chacha20-poly1305"];
    assert!(count(&lines, &initiation) >= 1, "{all}");
    // Ten pings and their answers, and hellos: opaque to a holder of the key file alone.
    assert!(count(&lines, &["unknown"]) >= 20, "{all}");
    assert_eq!(count(&lines, &["unknown"]) + count(&lines, &["handshake"]), lines.len(), "{all}");
}

/// Files and configuration of a link whose fri is the Python program: its options and mon's `[key]`.
struct Keys {
    options: String,
    mon: String,
}

fn shared(pair: &Pair, cipher: &str) -> Keys {
    let options = format!("--shared {}", pair.fri.dir().join("static.key").display());
    Keys { options, mon: format!("file = 'static.key'\n{cipher}") }
}

/// Key pairs, with a shared secret too if wanted.
fn key_pairs(pair: &Pair, with_shared: bool) -> Keys {
    let made = |host: &Host| {
        let file = host.dir().join("own.key");
        let public = host.run(&format!("{TUND} keypair -o {}", file.display())).unwrap();
        (file, public.trim().to_owned())
    };
    let ((fri, fri_public), (_, mon_public)) = (made(&pair.fri), made(&pair.mon));
    let mut options = format!("--private {} --peer-public {mon_public}", fri.display());
    let mut mon = format!("private-file = 'own.key'\npeer-public = '{fri_public}'\n");
    if with_shared {
        let key = pair.fri.dir().join("static.key");
        write!(options, " --shared {}", key.display()).unwrap();
        mon.push_str("file = 'static.key'\n");
    }
    Keys { options, mon }
}

/// The Python program brings up a link with tund on mon and pings through it; returns the decoder's output.
fn speak(keys: fn(&Pair) -> Keys, mode: &str, arguments: &str) -> Vec<String> {
    speak_to("10.0.0.2:1417", keys, mode, arguments)
}

fn speak_to(remote: &str, keys: fn(&Pair) -> Keys, mode: &str, arguments: &str) -> Vec<String> {
    let (wire, pair) = wired();
    let keys = keys(&pair);
    let mut config = Toml::tun_mon().top("listen = [1417, 'tcp:563']");
    config.key = format!("{}\nmode = '{mode}'", keys.mon);
    let mon = pair.start_mon(&config);
    mon.wait_line("waiting", SOON).unwrap();
    wire.record();
    let sessions = pair.fri.file("sessions", "").unwrap();
    let link = format!("--remote {remote} --own 192.168.86.81 --peer 192.168.86.18");
    let options =
        format!("{} {link} --mode {mode} --sessions {} {arguments}", keys.options, sessions.display());
    let mut end = python(&pair.fri, "end.py", &options);
    let code = end.code(2 * SOON).unwrap();
    assert_eq!(code, 0, "python:\n{}\nmon:\n{}", end.text(), mon.text());
    assert!(end.text().contains("20 of 20 echo requests answered"), "{}", end.text());
    mon.wait_line(UP, SOON).unwrap();
    mon.wait_line("done", SOON).unwrap();
    decoded(&pair.fri, &wire.take(), &format!("{} --sessions {}", keys.options, sessions.display()))
}

/// Every datagram is decoded; hellos, the twenty pings with their answers, and the bye are there.
fn assert_conversation(lines: &[String], what: &str) {
    let all = lines.join("\n");
    assert_eq!(count(lines, &["unknown"]), 0, "{all}");
    for (from, own, peer) in
        [("10.0.0.1:", "192.168.86.81", "192.168.86.18"), ("10.0.0.2:", "192.168.86.18", "192.168.86.81")]
    {
        assert!(count(lines, &[from, what, "hello", &format!("addresses={own} peers={peer}")]) >= 1, "{all}");
        for size in [48, 1360] {
            let packet = format!("frame of {size} IPv4 {own} > {peer} protocol 1 ");
            assert_eq!(count(lines, &[from, what, &packet]), 10, "{packet}: {all}");
        }
    }
    assert_eq!(count(lines, &["10.0.0.1:", what, "bye reason='done'"]), 1, "{all}");
}

#[test]
fn an_end_made_from_the_document_alone_works_with_a_static_key() {
    let lines = speak(|pair| shared(pair, ""), "static", "--suites 1 --direction 1 --mtu 1400");
    assert_conversation(&lines, "static");
}

#[test]
fn an_end_made_from_the_document_alone_works_with_a_shared_secret_and_either_cipher() {
    let lines = speak(|pair| shared(pair, "cipher = 'chacha20-poly1305'"), "handshake", "--suites 2,1");
    assert_conversation(&lines, "session 0 chacha20-poly1305");
    let lines = speak(|pair| shared(pair, "cipher = 'aes-256-gcm'"), "handshake", "--suites 1,2");
    assert_conversation(&lines, "session 0 aes-256-gcm");
}

#[test]
fn an_end_made_from_the_document_alone_works_over_a_stream() {
    let keys = |pair: &Pair| shared(pair, "");
    for (mode, arguments, what) in [
        ("static", "--suites 1 --direction 1 --mtu 1400", "static"),
        ("handshake", "--suites 1", "session 0 chacha20-poly1305"),
    ] {
        let lines = speak_to("tcp:10.0.0.2:563", keys, mode, arguments);
        assert_conversation(&lines, what);
        assert_eq!(count(&lines, &["10.0.0.2:563"]), lines.len(), "{lines:?}");
    }
}

#[test]
fn an_end_made_from_the_document_alone_works_in_parts_and_without_ml_kem() {
    let keys = |pair: &Pair| shared(pair, "");
    let lines = speak(keys, "handshake", "--suites 1 --parts");
    assert_conversation(&lines, "session 0 chacha20-poly1305");
    for part in 1..=3 {
        for kind in ["initiation", "answer"] {
            let part = format!("handshake {kind} X25519 + ML-KEM-768 part {part} ");
            assert!(count(&lines, &[&part]) >= 1, "{part}: {lines:?}");
        }
    }
    let keys = |pair: &Pair| shared(pair, "post-quantum = false");
    let lines = speak(keys, "handshake", "--suites 1 --version 1");
    assert_conversation(&lines, "session 0 chacha20-poly1305");
    assert!(count(&lines, &["handshake answer X25519 instance"]) >= 1, "{lines:?}");
}

/// The vectors' reference is correct.
#[test]
fn ml_kem_in_python_is_that_of_nist() {
    let pair = Pair::unplugged();
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/src/crypto/kem/acvp.txt");
    let said = said(python(&pair.fri, "ml_kem.py", &vectors.display().to_string()));
    assert_eq!(said, ["33 vectors of NIST hold"]);
}

#[test]
fn an_end_made_from_the_document_alone_works_with_key_pairs() {
    for (with_shared, arguments) in [
        (|pair: &Pair| key_pairs(pair, false), "--suites 1 --parts"),
        (|pair: &Pair| key_pairs(pair, true), "--suites 1"),
    ] as [(fn(&Pair) -> Keys, &str); 2]
    {
        let lines = speak(with_shared, "handshake", arguments);
        assert_conversation(&lines, "session 0 chacha20-poly1305");
    }
}
