//! Three minutes of strangers' datagrams at a socket that starts tund on demand.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon: superserver or systemd on port 1417, which starts tund
//! ```

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tund_lab::flood::{Kind, Sniffer};
use tund_lab::wait_until;

use super::superserver::{Served, Superserver, wait_listening};
use super::support::*;
use super::systemd::boot;

/// How long the strangers send.
const SIEGE: Duration = Duration::from_secs(180);
/// Most processes that they may start in that time: three a minute.
const MOST: usize = 9;
/// Interval of their datagrams.
const PACE: Duration = Duration::from_millis(5);

/// Random bytes, and the first datagrams of a recorded link; it is over when `is_over` says so.
fn what_strangers_have(pair: &Pair, is_over: impl Fn() -> bool) -> Vec<Vec<u8>> {
    let sniffer = Sniffer::new(&pair.mon).unwrap();
    let mut fri = pair.start_fri(&Toml::tun_fri().handshake());
    fri.wait_line(UP, SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    // A last datagram may have started another process, which waits half a minute for a peer.
    wait_until("the recorded link over", 3 * SOON, is_over).unwrap();
    let recorded = sniffer.payloads_to("10.0.0.2:1417".parse().unwrap()).unwrap();
    assert!(!recorded.is_empty());
    let random = Kind::Random.payloads(&[]);
    // A few recordings among much noise.
    random.chunks(20).flat_map(|chunk| chunk.iter().chain(recorded.iter().take(1))).cloned().collect()
}

/// mon's end, which exits soon after its peer.
fn mon() -> Toml {
    Toml::tun_mon().handshake().with("[keepalive]\nidle-exit = '1s'")
}

/// Strangers send these; `starts` returns the number of processes started since boot.
fn start_few_processes_and_nothing_else(pair: &Pair, payloads: &[Vec<u8>], starts: impl Fn() -> usize) {
    let (before, started) = (routes(&pair.mon), starts());
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = pair.fri.within(|| UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
            for payload in payloads.iter().cycle().take_while(|_| !end.load(Ordering::Relaxed)) {
                // ICMP errors for earlier datagrams do not stop a stranger.
                let _ = socket.send_to(payload, "10.0.0.2:1417");
                thread::sleep(PACE);
            }
        });
        let besieged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let begin = Instant::now();
            while begin.elapsed() < SIEGE {
                assert_eq!(pair.mon.interfaces().unwrap(), ["eth0", "lo"]);
                assert_eq!(routes(&pair.mon), before);
                thread::sleep(Duration::from_secs(1));
            }
            let starts = starts() - started;
            assert!((2..=MOST).contains(&starts), "{starts} starts");
            // They continue, and the peer comes.
            let fri = pair.start_fri(&Toml::tun_fri().handshake());
            fri.wait_line(UP, SOON).unwrap();
            assert_pings(&pair.fri, "192.168.86.18");
        }));
        end.store(true, Ordering::Relaxed);
        besieged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn besiege(kind: Superserver) {
    let served = Served::new(kind, &mon());
    let Served { log, pair, .. } = &served;
    wait_listening(&pair.mon, 1417);
    let starts = || log.lines().iter().filter(|line| line.contains("UDP port 1417")).count();
    let payloads = what_strangers_have(pair, || served.tunds().is_empty());
    start_few_processes_and_nothing_else(pair, &payloads, starts);
}

#[test]
fn three_minutes_of_strangers_at_xinetd_start_few_processes_and_nothing_else() {
    besiege(Superserver::Xinetd);
}

#[test]
fn three_minutes_of_strangers_at_inetd_start_few_processes_and_nothing_else() {
    besiege(Superserver::Inetd);
}

#[test]
fn three_minutes_of_strangers_at_a_socket_unit_start_few_processes_and_nothing_else() {
    let pair = pair();
    let machine = boot(&pair, &mon());
    let [socket, service] = ["tund@tun-mon-fri.socket", "tund@tun-mon-fri.service"];
    machine.run(&format!("systemctl start {socket}")).unwrap();
    let is = |unit: &str, state: &str| machine.show(unit, "ActiveState").is_ok_and(|now| now == state);
    let starts = || machine.journal().unwrap().matches("UDP port 1417").count();
    let payloads = what_strangers_have(&pair, || is(service, "inactive"));
    start_few_processes_and_nothing_else(&pair, &payloads, starts);
    // It may have exited after its peer by now.
    assert!(is(socket, "active") && !is(service, "failed"), "{}", machine.journal().unwrap());
}
