//! Links over TCP, where UDP does not pass.
//!
//! ```text
//!  fri 10.0.0.1, fd99::1 ---- 10.0.0.2, fd99::2 mon, TCP 563
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tund_lab::{Host, wait_until};

use super::support::*;

const MODES: [fn(Toml) -> Toml; 2] = [|toml| toml, Toml::handshake];
const BOTH: &str = "remote = ['10.0.0.2:1417', 'tcp:10.0.0.2:563']";
const LISTEN: &str = "listen = [1417, 'tcp:563']";
const NO_UDP: &str = "nft add table ip t; nft 'add chain ip t i { type filter hook input priority 0; }'; \
     nft 'add chain ip t o { type filter hook output priority 0; }'; nft add rule ip t i iifname eth0 udp dport 1417 drop; \
     nft add rule ip t o oifname eth0 udp dport 1417 drop";

/// The host's status of its peer's endpoint.
fn endpoint(host: &Host, name: &str) -> String {
    super::operation::status(host, name)["endpoint"].as_str().unwrap_or_default().to_owned()
}

/// Waits for an answered ping; returns the time.
fn back(host: &Host, to: &str, within: Duration) -> Duration {
    let began = Instant::now();
    host.wait_output(&format!("ping -n -c 1 -W 1 {to}"), within, |text| text.contains("1 received")).unwrap();
    began.elapsed()
}

#[test]
fn where_no_udp_passes_the_link_comes_up_over_tcp_and_moves_large_frames_and_transfers() {
    for keys in MODES {
        for remote in ["tcp:10.0.0.2:563", "tcp:[fd99::2]:563"] {
            let pair = pair();
            pair.mon.shell(NO_UDP).unwrap();
            let remote = format!("remote = ['10.0.0.2:1417', '{remote}']");
            let (fri, mon) =
                pair.link(&keys(Toml::tun_fri().top(&remote)), &keys(Toml::tun_mon().top(LISTEN)));
            fri.wait_line(UP, SOON).unwrap();
            mon.wait_line(UP, SOON).unwrap();
            mon.wait_line("UDP port 1417, TCP port 563", SOON).unwrap();
            for (host, name) in [(&pair.fri, "fri"), (&pair.mon, "mon")] {
                assert!(endpoint(host, name).starts_with("tcp:"));
            }
            assert_pings(&pair.fri, "192.168.86.18");
            pair.mon.run("ping -n -c 2 -s 1300 -M do 192.168.86.81").unwrap();
            for (from, to, address) in
                [(&pair.fri, &pair.mon, "192.168.86.18"), (&pair.mon, &pair.fri, "192.168.86.81")]
            {
                assert!(stream(from, to, address) > 0);
            }
        }
    }
}

#[test]
fn a_link_goes_on_over_tcp_within_ten_seconds_and_comes_back_to_udp_within_seventy() {
    goes_on_over_tcp_and_comes_back(Toml::handshake);
}

#[test]
fn so_does_one_with_static_keys() {
    goes_on_over_tcp_and_comes_back(|toml| toml);
}

fn goes_on_over_tcp_and_comes_back(keys: fn(Toml) -> Toml) {
    let pair = pair();
    let (fri, mon) = pair.link(&keys(Toml::tun_fri().top(BOTH)), &keys(Toml::tun_mon().top(LISTEN)));
    assert_eq!(endpoint(&pair.fri, "fri"), "10.0.0.2:1417");
    pair.mon.shell(NO_UDP).unwrap();
    let took = back(&pair.fri, "192.168.86.18", SOON);
    assert!(took <= Duration::from_secs(10), "{took:?}\n{}\n{}", fri.text(), mon.text());
    fri.wait_line("[over-tcp]", SOON).unwrap();
    mon.wait_line("[over-tcp]", SOON).unwrap();
    assert_eq!(endpoint(&pair.fri, "fri"), "tcp:10.0.0.2:563");
    // It stays there while it must, and later returns without losing a frame.
    let ping = pair.fri.spawn(&["ping", "-n", "-i", "0.05", "-w", "85", "192.168.86.18"]).unwrap();
    pair.mon.run("nft delete table ip t").unwrap();
    fri.wait_line("[over-udp]", Duration::from_secs(70)).unwrap();
    mon.wait_line("[over-udp]", Duration::from_secs(5)).unwrap();
    assert_eq!(endpoint(&pair.fri, "fri"), "10.0.0.2:1417");
    std::thread::sleep(Duration::from_secs(1));
    ping.signal(Signal::INT).unwrap();
    ping.wait_line("packet loss", SOON).unwrap();
    // Packets under way when ping ended are not lost.
    let text = ping.text();
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<u32>().ok();
    let answered: std::collections::BTreeSet<u32> = text.lines().filter_map(number).collect();
    let last = answered.last().copied().unwrap();
    assert!(last > 100, "{text}");
    assert_eq!(answered.len(), last as usize, "{text}\n{}\n{}", fri.text(), mon.text());
    for process in [&fri, &mon] {
        assert!(!process.text().contains(DOWN), "{}", process.text());
    }
    // Unused connections are closed.
    let closed = || {
        // The kernel searches the connections of the whole machine.
        std::thread::sleep(Duration::from_millis(500));
        streams(&pair) == 0
    };
    wait_until("the stream closed", Duration::from_secs(60), closed).unwrap();
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    let pair = pair();
    pair.mon.shell(NO_UDP).unwrap();
    let (fri, mon) =
        pair.link(&Toml::tun_fri().top(BOTH).handshake(), &Toml::tun_mon().top(LISTEN).handshake());
    for _ in 0..2 {
        pair.mon.run("ss -K sport = :563").unwrap();
        let took = back(&pair.fri, "192.168.86.18", SOON);
        assert!(took <= Duration::from_secs(6), "{took:?}\n{}\n{}", fri.text(), mon.text());
        assert_pings(&pair.mon, "192.168.86.81");
    }
    assert!(!fri.text().contains(DOWN), "{}", fri.text());
}

/// Established connections to mon's port: TCP_ESTABLISHED is 1 (include/net/tcp_states.h).
fn streams(pair: &Pair) -> usize {
    let of = |family| {
        let text = pair.mon.proc_net(family).unwrap();
        let is_one = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[1].ends_with(&format!(":{:04X}", 563)) && words[3] == "01"
        };
        text.lines().skip(1).filter(is_one).count()
    };
    of("tcp") + of("tcp6")
}

fn listens(pair: &Pair) -> bool {
    !pair.mon.run("ss -Htln sport = :563").unwrap().is_empty()
}

fn connect(pair: &Pair) -> TcpStream {
    let stream = pair.fri.within(|| TcpStream::connect("10.0.0.2:563")).unwrap().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream
}

/// Nothing comes, and nothing ends.
fn is_open_and_silent(stream: &mut TcpStream) -> bool {
    let result = stream.read(&mut [0; 64]);
    matches!(&result, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn strangers_get_nothing_and_cost_a_bounded_number_of_connections_and_the_peer_gets_through() {
    let pair = pair();
    let (fri, mon) =
        pair.link(&Toml::tun_fri().top(BOTH).handshake(), &Toml::tun_mon().top(LISTEN).handshake());
    let (mut silent, mut rubbish, mut long) = (connect(&pair), connect(&pair), connect(&pair));
    let mut noise = tund_lab::flood::Noise(7);
    rubbish.write_all(&noise.bytes(3000)).unwrap();
    long.write_all(&noise.bytes(200_000)).unwrap();
    let mut slow = connect(&pair);
    for _ in 0..20 {
        slow.write_all(&noise.bytes(1)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    for stream in [&mut silent, &mut rubbish, &mut long, &mut slow] {
        assert!(is_open_and_silent(stream));
    }
    // All of them end eventually, in the same way: by a reset.
    for mut stream in [silent, rubbish, long, slow] {
        stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
        let error = stream.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    let engine = super::ending::engine(&pair.mon, &mon);
    let before = tund_lab::machine::memory(engine);
    let mut held = Vec::new();
    for number in 0..10_000 {
        held.push(connect(&pair));
        if number % 100 == 0 {
            let _ = held.last_mut().unwrap().write_all(&noise.bytes(2000));
            let open = streams(&pair);
            assert!(open <= 64 + 8 + 129, "{open}");
        }
        if held.len() > 500 {
            held.remove(0);
        }
    }
    assert_eq!(super::operation::status(&pair.fri, "fri")["state"], "up");
    let after = tund_lab::machine::memory(engine);
    assert!(after.resident < before.resident + 4 * 1024 * 1024, "{before:?} {after:?}");
    // The peer comes from elsewhere and now needs a connection.
    pair.fri.run("ip addr add 10.0.0.9/24 dev eth0").unwrap();
    pair.mon.shell(NO_UDP).unwrap();
    back(&pair.fri, "192.168.86.18", SOON);
    assert!(!fri.text().contains(DOWN), "{}", fri.text());
}

/// Forwards one connection of fri to mon and records what fri sends.
fn record(pair: &Pair) -> Arc<Mutex<Vec<u8>>> {
    let listener = pair.fri.within(|| TcpListener::bind("10.0.0.9:5630")).unwrap().unwrap();
    let mon = connect(pair);
    mon.set_read_timeout(None).unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let sent = kept.clone();
    std::thread::spawn(move || {
        let (mut fri, _) = listener.accept().unwrap();
        let (mut back, mut forth) = (mon.try_clone().unwrap(), mon);
        let mut answers = fri.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut back, &mut answers));
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = fri.read(&mut bytes) {
            sent.lock().unwrap().extend(&bytes[..length]);
            forth.write_all(&bytes[..length]).unwrap();
        }
    });
    kept
}

#[test]
fn a_recorded_stream_that_is_played_again_whole_or_cut_anywhere_gets_nothing_and_changes_nothing() {
    for keys in MODES {
        let pair = pair();
        pair.fri.run("ip addr add 10.0.0.9/24 dev eth0").unwrap();
        let mon = pair.start_mon(&keys(Toml::tun_mon().top(LISTEN)));
        wait_until("mon listens", SOON, || listens(&pair)).unwrap();
        let recording = record(&pair);
        let fri = pair.start_fri(&keys(Toml::tun_fri().top("remote = 'tcp:10.0.0.9:5630'")));
        fri.wait_line(UP, SOON).unwrap();
        // More than is cut off below.
        pair.fri.run("ping -n -c 4 -i 0.2 -s 1000 192.168.86.18").unwrap();
        let recorded = recording.lock().unwrap().clone();
        assert!(recorded.len() > 2000, "{}", recorded.len());
        let before = endpoint(&pair.mon, "mon");
        for length in (0..2000).chain([recorded.len()]) {
            let mut stream = connect(&pair);
            stream.write_all(&recorded[..length]).unwrap();
            assert!(
                length % 100 != 0 && length != recorded.len() || is_open_and_silent(&mut stream),
                "{length}"
            );
        }
        assert_eq!(endpoint(&pair.mon, "mon"), before);
        assert_pings(&pair.fri, "192.168.86.18");
        assert!(!mon.text().contains(DOWN), "{}", mon.text());
    }
}

#[test]
fn doctor_tells_udp_from_tcp() {
    let pair = pair();
    let fri = pair.fri.file("fri.toml", &Toml::tun_fri().top(BOTH).handshake().text()).unwrap();
    let doctor = || super::operation::ask(&pair.fri, &["doctor", fri.to_str().unwrap()]).1;
    assert!(doctor().contains("problem  peer: tcp:10.0.0.2:563"), "{}", doctor());
    let _mon = pair.start_mon(&Toml::tun_mon().top(LISTEN).handshake());
    wait_until("mon listens", SOON, || listens(&pair)).unwrap();
    pair.mon.shell(NO_UDP).unwrap();
    let text = doctor();
    for line in ["note     peer: 10.0.0.2:1417", "ok       peer: tcp:10.0.0.2:563", "ok       way: "] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // The key is tested too.
    std::fs::remove_file(pair.fri.dir().join("static.key")).unwrap();
    pair.fri.run(&format!("{TUND} genkey -o {}", pair.fri.dir().join("static.key").display())).unwrap();
    assert!(doctor().contains("problem  peer: tcp:10.0.0.2:563"), "{}", doctor());
}
