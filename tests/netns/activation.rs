//! Three minutes of strangers' datagrams at a superserver's socket.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon: superserver on port 1417, which starts tund
//! ```

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tund_lab::flood::{Kind, Sniffer};

use super::superserver::{Served, Superserver, wait_listening};
use super::support::*;

/// How long strangers go on.
const SIEGE: Duration = Duration::from_secs(180);
/// Most processes they may start in that time: three a minute.
const MOST: usize = 9;
/// Time between two of their datagrams.
const PACE: Duration = Duration::from_millis(5);

/// Random bytes, and the first words of a link that was recorded.
fn what_strangers_have(served: &Served) -> Vec<Vec<u8>> {
    let Served { log, pair, .. } = served;
    let sniffer = Sniffer::new(&pair.mon).unwrap();
    let mut fri = pair.start_fri(&Toml::tun_fri().handshake());
    fri.wait_line(UP, SOON).unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    log.wait_line("stopping until the next datagram", SOON).unwrap();
    served.wait_no_tund();
    let recorded = sniffer.payloads_to("10.0.0.2:1417".parse().unwrap()).unwrap();
    assert!(!recorded.is_empty());
    let random = Kind::Random.payloads(&[]);
    // A few recordings among a lot of noise.
    random.chunks(20).flat_map(|chunk| chunk.iter().chain(recorded.iter().take(1))).cloned().collect()
}

fn strangers_start_few_processes_and_nothing_else(kind: Superserver) {
    let config = Toml::tun_mon().handshake().with("[keepalive]\nidle-exit = '1s'");
    let served = Served::new(kind, &config);
    let Served { log, pair, .. } = &served;
    wait_listening(&pair.mon, 1417);
    let payloads = what_strangers_have(&served);
    let before = routes(&pair.mon);
    let mark = log.mark();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = pair.fri.within(|| UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
            for payload in payloads.iter().cycle() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                // What ICMP says of those before does not stop a stranger.
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
            let lines = log.lines();
            let starts = lines.iter().skip(mark).filter(|line| line.contains("UDP port 1417")).count();
            assert!((2..=MOST).contains(&starts), "{starts} starts: {lines:#?}");
            // They go on, and the peer comes.
            let fri = pair.start_fri(&Toml::tun_fri().handshake());
            fri.wait_line(UP, SOON).unwrap();
            assert_pings(&pair.fri, "192.168.86.18");
        }));
        end.store(true, Ordering::Relaxed);
        besieged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn three_minutes_of_strangers_at_xinetd_start_few_processes_and_nothing_else() {
    strangers_start_few_processes_and_nothing_else(Superserver::Xinetd);
}

#[test]
fn three_minutes_of_strangers_at_inetd_start_few_processes_and_nothing_else() {
    strangers_start_few_processes_and_nothing_else(Superserver::Inetd);
}
