//! Handshakes whose last part never comes, over a path of 1280 bytes.
//!
//! ```text
//!  fri 10.0.0.1 -- 1280 bytes -- 10.0.0.2 mon 10.9.0.1 ---- 10.9.0.2 mallory (as anybody of 10.66.0.0/16)
//!  fri 10.0.0.1 == 1280 bytes, the wire is mallory's == 10.0.0.2 mon
//! ```

use tund::config::keyfile::KeyFile;
use tund::crypto::keys::{LinkKeys, link_secret};
use tund::crypto::wrap;
use tund::wire::handshake::{Envelope, Kind, PARTS};
use tund_lab::flood::Sniffer;
use tund_lab::frame::Datagram;
use tund_lab::wire::Crossed;
use tund_lab::{Host, Side};
use tund_proto::testing::Dice;

use super::flood::siege;
use super::support::*;

/// Different datagrams in a flood.
const DATAGRAMS: usize = 4096;
/// Parts that must be dropped: with the rest received meanwhile 1 MiB, if kept.
const DROPPED: u64 = 1200;
/// Growth of mon's processes in memory meanwhile, in KiB.
const GROWTH: u64 = 512;

fn keys(host: &Host) -> LinkKeys {
    let file = std::fs::read_to_string(host.dir().join("static.key")).unwrap();
    LinkKeys::new(&link_secret(Some(&KeyFile::Secret.parse(&file).unwrap()), None).unwrap())
}

/// The part of an initiation in a datagram, and its plaintext, if there is one.
fn part(keys: &LinkKeys, datagram: &[u8]) -> Option<(u8, Vec<u8>)> {
    let plaintext = wrap::open(keys, datagram)?;
    let of = Envelope::parse(&plaintext).ok()?.of;
    (of.kind == Kind::Initiation && of.part > 0).then_some((of.part, plaintext))
}

/// An initiation came in parts.
fn assert_in_parts<'a>(keys: &LinkKeys, datagrams: impl Iterator<Item = &'a Vec<u8>>) {
    let parts: Vec<u8> = datagrams.filter_map(|it| Some(part(keys, it)?.0)).collect();
    assert!((1..=PARTS).all(|part| parts.contains(&part)), "{parts:?}");
}

#[test]
fn parts_of_strangers_grow_nothing_and_keep_no_handshake_in_parts_out() {
    let mut siege = siege(1280, Toml::handshake);
    let keys = keys(&siege.pair.fri);
    let is_wanted = |it: &&Vec<u8>| part(&keys, it).is_some_and(|(part, _)| part < PARTS);
    let recorded: Vec<Vec<u8>> = siege.recordings.iter().flatten().filter(is_wanted).cloned().collect();
    assert!(recorded.len() >= 8, "{}", recorded.len());
    // A known beginning is dropped as a copy, an unknown one as a stranger's.
    let change = |number: usize| {
        let mut datagram = recorded[number % recorded.len()].clone();
        let at = number * 7 % datagram.len();
        datagram[at] ^= 1 << (number % 8);
        datagram
    };
    let changed: Vec<Vec<u8>> = (0..DATAGRAMS).map(change).collect();
    for (title, payloads) in [("recorded parts", &recorded), ("changed parts", &changed)] {
        siege.withstands(title, payloads, 2);
        let sniffer = Sniffer::new(&siege.pair.fri).unwrap();
        siege.admits(title, payloads);
        assert_in_parts(&keys, sniffer.payloads_to("10.0.0.2:1417".parse().unwrap()).unwrap().iter());
    }
}

fn sent_by_fri(crossed: &[Crossed]) -> Vec<Datagram> {
    let frames = crossed.iter().filter(|frame| frame.from == Side::A);
    frames.filter_map(|frame| Datagram::parse(&frame.bytes)).collect()
}

/// Sealed with the key and without its last part: in turn a repetition, a later message, and another caller's.
fn sealed(keys: &LinkKeys, parts: &[Vec<u8>], number: u64, random: &mut Dice) -> Vec<u8> {
    let mut plaintext = parts[number as usize / 3 % parts.len()].clone();
    // Type, instance, seq, token, length, message.
    match number % 3 {
        0 => {}
        1 => plaintext[9..17].copy_from_slice(&(1000 + number).to_be_bytes()),
        _ => {
            plaintext[1..9].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            plaintext[100] ^= 1;
        }
    }
    wrap::seal(keys, &plaintext, random)
}

/// They come from fri's address, so they pass the front, and are so many that keeping them would show.
#[test]
fn parts_of_who_has_the_key_grow_nothing_and_a_handshake_in_parts_passes_after_them() {
    let (wire, pair) = wired();
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link set eth0 mtu 1280").unwrap();
    }
    let (fri_toml, mon_toml) = (Toml::tun_fri().handshake(), Toml::tun_mon().handshake());
    wire.record();
    let (mut fri, mon) = pair.link(&fri_toml, &mon_toml);
    let mut restart = || {
        let mark = mon.mark();
        fri.terminate(SOON).unwrap();
        fri = pair.start_fri(&fri_toml);
        fri.wait_line(UP, SOON).unwrap();
        mon.wait_line_after(mark, UP, SOON).unwrap();
        assert_pings(&pair.fri, "-s 1372 192.168.86.18");
    };
    restart();
    let (keys, mut random) = (keys(&pair.fri), Dice(3));
    let sent = sent_by_fri(&wire.take());
    let parts: Vec<Vec<u8>> = sent
        .iter()
        .filter_map(|it| part(&keys, &it.payload))
        .filter_map(|(part, plaintext)| (part < PARTS).then_some(plaintext))
        .collect();
    assert!(parts.len() >= 4, "{}", parts.len());
    let last = sent.last().unwrap();

    let mut number = 0;
    let mut flood = |enough: u64| {
        let is_enough = || {
            for _ in 0..30 {
                let payload = sealed(&keys, &parts, number, &mut random);
                wire.inject(Side::B, &Datagram { payload, ..last.clone() }.to_frame()).unwrap();
                number += 1;
            }
            dropped(&mon, "rate-limited") >= enough
        };
        tund_lab::wait_until("parts that are dropped", 5 * SOON, is_enough).unwrap();
    };
    flood(50);
    let before = resident(&pair.mon);
    flood(50 + DROPPED);
    let after = resident(&pair.mon);
    assert!(after <= before + GROWTH, "{number} datagrams: {before} KiB became {after}");
    assert_pings(&pair.fri, "-s 1372 192.168.86.18");
    wire.take();
    restart();
    assert_in_parts(&keys, sent_by_fri(&wire.take()).iter().map(|it| &it.payload));
}
