//! Counts the instructions of the bulk path with valgrind: the same on a busy machine as on an idle one.
//!
//! ```text
//! cargo bench --bench instructions              count, and compare with proto/benches/instructions.toml (±3 %)
//! cargo bench --bench instructions -- --save    count, and keep the result as the new baseline
//! ```
//!
//! Each piece of work runs twice under valgrind, once with more rounds. The difference is the cost of a round, without
//! program start. valgrind emulates a processor with AVX2 and without AVX-512, so a baseline holds on every such
//! machine, but not for another compiler: save a new one then. The AEAD is ring's, which is built in a fraction of the
//! time that AWS-LC takes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something is wrong")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

mod pair;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::Arc;

use pair::{DATAGRAM, PACKET, Pair};
use tund_proto::config;
use tund_proto::core::lane::{Format, Head, Name};
use tund_proto::core::replay::Window;
use tund_proto::crypto::aead::{self, Aead, Library};
use tund_proto::crypto::cbc_hmac::{CbcCipher, CbcHmac, Digest, KEY, pad, slots};
use tund_proto::crypto::keys::{LinkKeys, Masks};
use tund_proto::crypto::suite::Cipher;
use tund_proto::packet::gro::Coalescer;
use tund_proto::packet::gso;
use tund_proto::packet::layer::Layer;
use tund_proto::packet::virtio::{self, Virtio};
use tund_proto::wire::block::{Bodies, Packer, Reassembler};
use tund_proto::wire::datagram::{Framing, Header, Kind};

/// Allowed distance from the baseline, in percent.
const TOLERANCE: f64 = 3.0;
/// Allowed difference between two runs of the same work at other addresses, in instructions per round. Stopping at the
/// first byte that differs would make some hundred.
const ALIGNMENT: u64 = 4;
/// Rounds of the two runs.
const ROUNDS: [u64; 2] = [20, 220];

/// Does so many rounds of some work.
type Work = fn(u64);

/// Header length, segments and segment payload of a super-frame.
const HEADERS: usize = 52;
const SEGMENTS: usize = 44;
const SEGMENT: usize = PACKET - HEADERS;

/// A stream between two hosts of a bridged link, without and with the guard.
const GUARDED: [&str; 2] = [
    "44 tap frames of 1420 bytes through two lanes",
    "44 tap frames of 1420 bytes through two lanes, guarded",
];
/// The guard's share of that, in percent.
const GUARD: f64 = 2.0;

const WORKS: [(&str, Work); 23] = [
    ("44 frames of 1420 bytes through two lanes, handshake", |rounds| {
        lane_rounds(Framing::Session, None, &[0x45; PACKET], rounds)
    }),
    ("44 frames of 1420 bytes through two lanes, static", |rounds| {
        lane_rounds(Framing::Static, None, &[0x45; PACKET], rounds)
    }),
    (GUARDED[0], |rounds| lane_rounds(Framing::Session, None, &tap_frame(), rounds)),
    (GUARDED[1], |rounds| lane_rounds(Framing::Session, Some(rules()), &tap_frame(), rounds)),
    ("seal 1420 bytes, AES-256-GCM", |rounds| seal_rounds(Cipher::Aes256Gcm, PACKET, rounds)),
    ("seal 1420 bytes, ChaCha20-Poly1305", |rounds| seal_rounds(Cipher::ChaCha20Poly1305, PACKET, rounds)),
    ("seal 64 bytes, AES-256-GCM", |rounds| seal_rounds(Cipher::Aes256Gcm, 64, rounds)),
    ("seal 64 bytes, ChaCha20-Poly1305", |rounds| seal_rounds(Cipher::ChaCha20Poly1305, 64, rounds)),
    ("open 1420 bytes, AES-256-GCM", |rounds| open_rounds(Cipher::Aes256Gcm, PACKET, rounds)),
    ("open 1420 bytes, ChaCha20-Poly1305", |rounds| open_rounds(Cipher::ChaCha20Poly1305, PACKET, rounds)),
    ("pack 64 frames of 64 bytes", |rounds| pack_rounds(64, 64, rounds)),
    ("pack 16 frames of 1514 bytes", |rounds| pack_rounds(16, 1514, rounds)),
    ("cut up a super-frame of 44 segments", cut_rounds),
    ("join 44 segments to a super-frame", join_rounds),
    ("unpack 64 frames of 64 bytes", |rounds| unpack_rounds(64, 64, rounds)),
    ("unpack 16 frames of 1514 bytes", |rounds| unpack_rounds(16, 1514, rounds)),
    ("seal 16 times 1420 bytes, AES-256-CBC and SHA256", seal_cbc_rounds),
    ("open 1420 bytes, AES-256-CBC and SHA256", |rounds| open_cbc_rounds(None, rounds)),
    (REFUSED[0], |rounds| open_cbc_rounds(Some(0), rounds)),
    (REFUSED[1], |rounds| open_cbc_rounds(Some(31), rounds)),
    (REFUSED[2], |rounds| open_cbc_rounds(Some(32), rounds)),
    (REFUSED[3], |rounds| open_cbc_rounds(Some(700), rounds)),
    (REFUSED[4], |rounds| open_cbc_rounds(Some(DATAGRAM - 1), rounds)),
];

/// A forger of OpenVPN's format must not learn which byte was wrong, so the cost must not depend on it.
const REFUSED: [&str; 5] = [
    "refuse AES-256-CBC and SHA256, first byte of the HMAC",
    "refuse AES-256-CBC and SHA256, last byte of the HMAC",
    "refuse AES-256-CBC and SHA256, first byte of the IV",
    "refuse AES-256-CBC and SHA256, a byte in the middle",
    "refuse AES-256-CBC and SHA256, last byte",
];

fn main() -> ExitCode {
    Cipher::ALL.into_iter().for_each(|cipher| aead::choose(cipher, Library::Ring));
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => compare(),
        ["--save"] => save(),
        ["--work", name, rounds] => {
            let (_, work) = WORKS.iter().find(|(known, _)| *known == name).expect("a known piece of work");
            work(rounds.parse().expect("a number of rounds"));
            ExitCode::SUCCESS
        }
        [..] => {
            eprintln!("usage: cargo bench --bench instructions [-- --save]");
            ExitCode::from(2)
        }
    }
}

fn baseline() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
}

fn compare() -> ExitCode {
    let text = std::fs::read_to_string(baseline()).expect("benches/instructions.toml");
    let known: BTreeMap<String, u64> = toml::from_str(&text).expect("benches/instructions.toml");
    let mut failed = known.keys().any(|name| !WORKS.iter().any(|(work, _)| work == name));
    if failed {
        println!("the baseline holds work that is no more: save it anew");
    }
    let (mut refused, mut guarded) = (BTreeSet::new(), Vec::new());
    for (name, _) in WORKS {
        let counted = count(name);
        if GUARDED.contains(&name) {
            guarded.push(counted as f64);
        }
        if REFUSED.contains(&name) {
            refused.insert(counted);
        }
        let Some(before) = known.get(name) else {
            println!("{counted:>9}  FAIL  {name}: not in the baseline, save it anew");
            failed = true;
            continue;
        };
        let change = 100.0 * (counted as f64 / *before as f64 - 1.0);
        let good = change.abs() <= TOLERANCE;
        println!("{counted:>9}  {}  {name}: {change:+.1} %", if good { "ok  " } else { "FAIL" });
        failed |= !good;
    }
    if refused.last() > refused.first().map(|least| least + ALIGNMENT).as_ref() {
        println!("FAIL  it tells which byte is wrong: {refused:?}");
        return ExitCode::FAILURE;
    }
    let cost = 100.0 * (guarded[1] / guarded[0] - 1.0);
    println!("the guard takes {cost:.2} % of a stream's instructions");
    if cost > GUARD {
        println!("FAIL  that is more than {GUARD} %");
        return ExitCode::FAILURE;
    }
    if failed {
        println!("if this is meant, or the compiler is another: cargo bench --bench instructions -- --save");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn save() -> ExitCode {
    let counts: BTreeMap<&str, u64> = WORKS.iter().map(|(name, _)| (*name, count(name))).collect();
    let text = toml::to_string(&counts).expect("a table of numbers");
    let head = "# Instructions of one round; written by: cargo bench --bench instructions -- --save\n";
    std::fs::write(baseline(), format!("{head}{text}")).expect("benches/instructions.toml");
    print!("{text}");
    ExitCode::SUCCESS
}

/// Instructions of one round.
fn count(name: &str) -> u64 {
    let [few, many] = ROUNDS.map(|rounds| under_valgrind(name, rounds));
    (many - few) / (ROUNDS[1] - ROUNDS[0])
}

/// Instructions of a whole run.
fn under_valgrind(name: &str, rounds: u64) -> u64 {
    let own = std::env::current_exe().expect("own program file");
    let output = process::Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["--work", name, &rounds.to_string()])
        .output()
        .expect("valgrind is not installed: apt-get install valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line =
        said.lines().find_map(|line| line.split("Collected :").nth(1)).expect("a count of instructions");
    line.trim().parse().expect("a number")
}

fn header(counter: u32) -> Header {
    Header { slot: 1, kind: Kind::Frame, lane: 0, counter }
}

fn format() -> Format {
    Format::new(Framing::Session, Arc::new(LinkKeys::new(&[1; 32])))
}

fn head(counter: u32) -> Head {
    Head { name: Name::Slot(1), header: header(counter) }
}

fn seal_rounds(cipher: Cipher, size: usize, rounds: u64) {
    let (format, aead) = (format(), Aead::new(cipher, &[2; 32]));
    let length = format.overhead() + size;
    let (mut datagram, mut masks) = (vec![0x5a; length], Masks::with_capacity(1));
    for counter in 0..rounds as u32 {
        format.seal(head(counter), &aead, black_box(&mut datagram)).expect("sealed");
        format.hide(&mut datagram, length, &mut masks);
    }
}

/// Opens with cipher, mask and window, as a lane does.
fn open_rounds(cipher: Cipher, size: usize, rounds: u64) {
    let (format, aead) = (format(), Aead::new(cipher, &[2; 32]));
    let (mut window, mut masks) = (Window::default(), Masks::with_capacity(1));
    let datagram = format.datagram(head(7), &aead, &vec![0x5a; size]).expect("sealed");
    let mut work = datagram.clone();
    for counter in 0..rounds as u32 {
        work.copy_from_slice(black_box(&datagram));
        format.masks(&work, datagram.len(), &mut masks);
        let head = format.head(&masks.get(0), &work).expect("a head");
        format.open(head, &aead, &mut work).expect("opened");
        assert!(window.accept(counter));
    }
}

/// The guard's defaults.
fn rules() -> config::Guard {
    let text = "remote = \"192.0.2.1\"\n[key]\nfile = \"k\"\n[device]\nmode = \"tap\"\n";
    let parsed = config::parse("l", text, &config::Options::new("/etc/tund"));
    parsed.config.expect("a configuration").guard
}

/// A frame between two hosts of a bridged link.
fn tap_frame() -> [u8; PACKET] {
    let mut frame = [0x45; PACKET];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame
}

/// Seals a device's frames as datagrams and opens them again.
fn lane_rounds(framing: Framing, guard: Option<config::Guard>, frame: &[u8; PACKET], rounds: u64) {
    let mut pair = Pair::new(framing, 0, guard.as_ref(), frame);
    (0..rounds).for_each(|_| pair.round(frame));
}

fn frames(count: usize, size: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8; size]).collect()
}

/// Bodies of equal capacity.
struct Written {
    body: [u8; DATAGRAM],
    closed: Vec<Vec<u8>>,
    keep: bool,
}

impl Bodies for Written {
    fn body(&mut self) -> &mut [u8] {
        &mut self.body
    }

    fn close(&mut self, length: usize) {
        black_box(length);
        if self.keep {
            self.closed.push(self.body[..length].to_vec());
        }
    }
}

fn pack(frames: &[Vec<u8>], written: &mut Written) {
    let mut packer = Packer::default();
    for frame in frames {
        packer.push([frame, &[]], written);
    }
    packer.finish(written);
}

fn pack_rounds(count: usize, size: usize, rounds: u64) {
    let frames = frames(count, size);
    let mut written = Written { body: [0; DATAGRAM], closed: Vec::new(), keep: false };
    for _ in 0..rounds {
        pack(black_box(&frames), &mut written);
    }
}

fn unpack_rounds(count: usize, size: usize, rounds: u64) {
    let mut written = Written { body: [0; DATAGRAM], closed: Vec::new(), keep: true };
    pack(&frames(count, size), &mut written);
    let bodies = written.closed;
    let (mut blocks, mut counter, mut delivered) = (Reassembler::new(size), 0, 0);
    for _ in 0..rounds {
        for body in &bodies {
            blocks.block(counter, 0, black_box(body), &mut |frame, _| delivered += frame.len());
            counter += 1;
        }
    }
    assert_eq!(delivered, count * size * rounds as usize);
}

/// A TCP/IPv4 super-frame with timestamps, as the kernel hands it over, with its virtio header.
fn super_frame() -> (Virtio, Vec<u8>) {
    let mut packet = vec![0; HEADERS + SEGMENTS * SEGMENT];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 0]);
    (packet[6], packet[8], packet[9]) = (0x40, 64, 6);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..24].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
    (packet[32], packet[33]) = (8 << 4, 0x10);
    let pseudo = 2 * 0x0a00 + 1 + 2 + 6 + (packet.len() - 20) as u16;
    packet[36..38].copy_from_slice(&pseudo.to_be_bytes());
    let checksum = Some((20, 16));
    (Virtio { checksum, kind: virtio::Kind::TcpV4, headers: HEADERS as u16, segment: SEGMENT as u16 }, packet)
}

fn cut_rounds(rounds: u64) {
    let (virtio, packet) = super_frame();
    let mut work = packet.clone();
    for _ in 0..rounds {
        work[..HEADERS].copy_from_slice(&packet[..HEADERS]);
        let emit = |head: &[u8], tail: &[u8]| {
            black_box((head, tail));
        };
        gso::split(virtio, black_box(&mut work), Layer::Ip, emit).expect("a sound super-frame");
    }
}

fn join_rounds(rounds: u64) {
    let (virtio, mut packet) = super_frame();
    let mut frames = Vec::new();
    gso::split(virtio, &mut packet, Layer::Ip, |head, tail| frames.push([head, tail].concat()))
        .expect("a sound super-frame");
    let mut coalescer = Coalescer::new(Layer::Ip, true);
    let mut written = 0;
    for _ in 0..rounds {
        let mut write = |virtio: Virtio, _: &[u8]| written += u64::from(virtio != Virtio::PLAIN);
        frames.iter().for_each(|frame| coalescer.push(black_box(frame), &mut write));
        coalescer.flush(&mut write);
    }
    assert_eq!(written, rounds, "every round gives one super-frame");
}

fn cbc() -> CbcHmac {
    CbcHmac::new(CbcCipher::Aes256, Digest::Sha256, slots(&[7; KEY], None)[0])
}

/// Unsealed datagrams in OpenVPN's format.
fn unsealed(count: usize) -> Vec<u8> {
    let mut datagrams = vec![1; DATAGRAM * count];
    for datagram in datagrams.chunks_mut(DATAGRAM) {
        let prefix = cbc().layout().prefix();
        let blocks = &mut datagram[prefix..];
        let length = blocks.len() - 4;
        pad(blocks, length);
    }
    datagrams
}

fn seal_cbc_rounds(rounds: u64) {
    let (keys, mut datagrams) = (cbc(), unsealed(16));
    for _ in 0..rounds {
        keys.seal(black_box(&mut datagrams), DATAGRAM);
    }
}

/// Opens a datagram, with one wrong byte if `wrong`.
fn open_cbc_rounds(wrong: Option<usize>, rounds: u64) {
    let (keys, mut sealed) = (cbc(), unsealed(1));
    keys.seal(&mut sealed, DATAGRAM);
    if let Some(at) = wrong {
        sealed[at] ^= 1;
    }
    let mut datagram = sealed.clone();
    for _ in 0..rounds {
        datagram.copy_from_slice(&sealed);
        assert_eq!(keys.open(black_box(&mut datagram)).is_ok(), wrong.is_none());
    }
}
