//! Host names of peers.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon.tn
//! ```

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::*;

#[test]
fn a_name_that_does_not_resolve_yet_is_said_and_tried_again() {
    let pair = pair();
    let fri = pair.start_fri(&Toml::tun_fri().top("remote = 'mon.tn:1417'"));
    let mon = pair.start_mon(&Toml::tun_mon());
    fri.wait_line("mon.tn", SOON).unwrap();
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let patience = 3 * SOON;
    fri.wait_line(UP, patience).unwrap();
    mon.wait_line(UP, patience).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn the_port_of_the_command_line_is_that_of_the_remote_and_of_the_socket() {
    let pair = pair();
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let _fri =
        start_with(&pair.fri, "fri", &Toml::tun_fri().top("remote = 'mon.tn'").text(), &["--port", "2222"]);
    let mon = start_with(&pair.mon, "mon", &Toml::tun_mon().top("").text(), &["--port", "2222"]);
    mon.wait_line(UP, SOON).unwrap();
    let sockets = pair.mon.run("ss -lun").unwrap();
    assert!(sockets.contains(":2222"), "{sockets}");
}

/// Only a root process could have answered from files that only root may read.
#[test]
fn commands_look_names_up_without_privileges_too() {
    use std::os::unix::fs::PermissionsExt;

    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let file = pair.fri.file("fri.toml", &Toml::tun_fri().handshake().top("remote = 'mon.tn:1417'").text());
    let file = file.unwrap();
    let names = pair.fri.path("/etc/hosts");
    let ask =
        |words: &[&str]| super::operation::ask(&pair.fri, &[words, &[file.to_str().unwrap()]].concat()).1;
    std::fs::set_permissions(&names, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (check, doctor) = (ask(&["check", "--host"]), ask(&["doctor"]));
    assert!(check.contains("[unresolved]"), "{check}");
    assert!(doctor.contains("problem  name: mon.tn "), "{doctor}");
    std::fs::set_permissions(&names, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (check, doctor) = (ask(&["check", "--host"]), ask(&["doctor"]));
    assert!(!check.contains("[unresolved]"), "{check}");
    assert!(doctor.contains("ok       name: mon.tn is 10.0.0.2"), "{doctor}");
}

/// The server answers only once all three were requested: sequential look-ups would time out.
#[test]
fn commands_look_all_names_up_at_once() {
    let pair = pair();
    let names = ["a.tn", "b.tn", "c.tn"];
    let server = NameServer::once_asked_for(&pair, names.len());
    for name in names {
        server.set(name, A, &["10.0.0.2"]);
        server.set(name, AAAA, &[]);
    }
    let remotes = names.map(|name| format!("'{name}:1417'")).join(", ");
    let toml = Toml::tun_fri().handshake().top(&format!("remote = [{remotes}]"));
    let file = pair.fri.file("fri.toml", &toml.text()).unwrap();
    let (_, doctor) = super::operation::ask(&pair.fri, &["doctor", file.to_str().unwrap()]);
    for name in names {
        assert!(doctor.contains(&format!("ok       name: {name} is 10.0.0.2")), "{doctor}");
    }
}

/// Two hosts on a cable with link-local addresses only, and a cable plugged in later.
#[test]
fn a_link_local_remote_names_an_interface_that_may_come_later() {
    let pair = Pair::unplugged();
    let mon = pair.start_mon(&Toml::tun_mon());
    let fri = pair.start_fri(&Toml::tun_fri().top("remote = '[fe80::2%eth0]:1417'"));
    fri.wait_line("[no-address]", SOON).unwrap();
    pair.net.cable(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
    pair.mon.run("ip addr add fe80::2/64 dev eth0 nodad").unwrap();
    fri.wait_line(&format!("{UP} [fe80::2%eth0]:1417"), 3 * SOON).unwrap();
    mon.wait_line("%eth0]:1417", SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    let (_, status) = super::operation::ask(&pair.fri, &["status"]);
    assert!(status.contains("[fe80::2%eth0]:1417"), "{status}");
}

/// A name server on port 53 in a host's network. It does not answer questions without an entry.
struct NameServer {
    entries: Arc<Mutex<Entries>>,
}

/// By name and type.
type Entries = HashMap<(&'static str, u16), Vec<IpAddr>>;

/// Question types.
const A: u16 = 1;
const AAAA: u16 = 28;

impl NameServer {
    /// On 10.0.0.2, which fri asks.
    fn start(pair: &Pair) -> Self {
        Self::once_asked_for(pair, 0)
    }

    /// Answers only once so many names were requested.
    fn once_asked_for(pair: &Pair, names: usize) -> Self {
        let socket = pair.mon.within(|| UdpSocket::bind("10.0.0.2:53")).unwrap().unwrap();
        pair.fri.ask_name_server("10.0.0.2").unwrap();
        let entries = Arc::<Mutex<Entries>>::default();
        let weak = Arc::downgrade(&entries);
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        std::thread::spawn(move || {
            let (mut buffer, mut waiting, mut asked) = ([0; 512], Vec::new(), HashSet::new());
            while let Some(entries) = weak.upgrade() {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                asked.insert(question(&buffer[..length]).0);
                waiting.push((buffer[..length].to_vec(), from));
                if asked.len() < names {
                    continue;
                }
                for (query, from) in waiting.drain(..) {
                    if let Some(answer) = reply(&query, &entries.lock().unwrap()) {
                        let _ = socket.send_to(&answer, from);
                    }
                }
            }
        });
        Self { entries }
    }

    /// Sets the addresses for one type of question; none: no such record.
    fn set(&self, name: &'static str, kind: u16, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.entries.lock().unwrap().insert((name, kind), addresses);
    }
}

/// Parses a query's name and type, and the end of the question.
fn question(query: &[u8]) -> (String, u16, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]), at + 5)
}

/// Replies by RFC 1035, to one question.
fn reply(query: &[u8], entries: &Entries) -> Option<Vec<u8>> {
    let (name, kind, end) = question(query);
    let found = entries.iter().find(|((of, which), _)| *of == name && *which == kind)?.1;
    let count = u16::try_from(found.len()).unwrap().to_be_bytes();
    let mut answer = [&query[..2], &[0x81, 0x80, 0, 1], &count, &[0; 4], &query[12..end]].concat();
    for address in found {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0, bytes.len() as u8]);
        answer.extend(bytes);
    }
    Some(answer)
}

/// As with a server that is down for one zone, or drops what it does not know.
#[test]
fn a_silent_name_server_costs_only_its_own_name() {
    for (remotes, patient) in [
        ("'silent.tn:1417', 'mon.tn:1417'", true),
        ("'silent.tn:1417', '10.0.0.2:1417'", false),
        ("'10.0.0.77:1417', 'silent.tn:1417', '10.0.0.2:1417'", false),
    ] {
        let pair = pair();
        let server = NameServer::start(&pair);
        server.set("mon.tn", A, &["10.0.0.2"]);
        server.set("mon.tn", AAAA, &[]);
        let mon = pair.start_mon(&Toml::tun_mon().handshake());
        let fri = pair.start_fri(&Toml::tun_fri().handshake().top(&format!("remote = [{remotes}]")));
        fri.wait_line(UP, SOON).unwrap();
        mon.wait_line(UP, SOON).unwrap();
        // It times out after ten seconds.
        assert!(!fri.text().contains("[no-address]"), "{}", fri.text());
        assert_pings(&pair.fri, "192.168.86.18");
        if patient {
            let line = fri.wait_line("[no-address]", SOON).unwrap();
            assert!(line.contains("silent.tn"), "{line}");
        }
    }
}

#[test]
fn one_family_is_used_though_the_server_is_silent_about_the_other() {
    for (kind, address) in [(A, "10.0.0.2"), (AAAA, "fd99::2")] {
        let pair = pair();
        let server = NameServer::start(&pair);
        server.set("mon.tn", kind, &[address]);
        let _mon = pair.start_mon(&Toml::tun_mon());
        let fri = pair.start_fri(&Toml::tun_fri().top("remote = 'mon.tn:1417'"));
        fri.wait_line(UP, SOON).unwrap();
        assert!(!fri.text().contains("[no-address]"), "{}", fri.text());
        assert_pings(&pair.fri, "192.168.86.18");
    }
}

/// The first family has no route, or nobody answers there.
#[test]
fn a_family_that_leads_nowhere_is_passed_over() {
    let (here, nowhere) = (["10.0.0.2", "fd99::2"], ["10.0.0.77", "2001:db8::1"]);
    for dead in [0, 1] {
        let pair = pair();
        let server = NameServer::start(&pair);
        for (family, kind) in [A, AAAA].into_iter().enumerate() {
            server.set("mon.tn", kind, &[if family == dead { nowhere[family] } else { here[family] }]);
        }
        let _mon = pair.start_mon(&Toml::tun_mon().handshake());
        let fri = pair.start_fri(&Toml::tun_fri().handshake().top("remote = 'mon.tn:1417'"));
        fri.wait_line(&format!("{UP} {}", if dead == 0 { "[fd99::2]" } else { "10.0.0.2" }), SOON).unwrap();
        assert!(!fri.text().contains("[cannot-send]"), "{}", fri.text());
    }
}

#[test]
fn of_a_name_with_twenty_addresses_sixteen_are_called() {
    let pair = pair();
    let server = NameServer::start(&pair);
    let mut addresses: Vec<String> = (101..121).map(|n| format!("10.0.0.{n}")).collect();
    "10.0.0.2".clone_into(&mut addresses[15]);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    server.set("mon.tn", A, &addresses);
    server.set("mon.tn", AAAA, &[]);
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    let fri = pair.start_fri(&Toml::tun_fri().handshake().top("remote = 'mon.tn:1417'"));
    fri.wait_line(UP, SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_name_that_leads_elsewhere_later_is_followed_when_the_peer_is_gone() {
    let pair = pair();
    let server = NameServer::start(&pair);
    server.set("mon.tn", A, &["10.0.0.2"]);
    server.set("mon.tn", AAAA, &[]);
    let mut mon = pair.start_mon(&Toml::tun_mon().handshake());
    let fri = pair.start_fri(&Toml::tun_fri().handshake().top("remote = 'mon.tn:1417'"));
    fri.wait_line(UP, SOON).unwrap();
    let mark = fri.mark();
    server.set("mon.tn", A, &["10.0.0.3"]);
    mon.terminate(SOON).unwrap();
    pair.mon.run("ip addr add 10.0.0.3/24 dev eth0").unwrap();
    pair.mon.run("nft add table ip t").unwrap();
    pair.mon.run("nft add chain ip t c { type filter hook input priority 0 ; }").unwrap();
    pair.mon.run("nft add rule ip t c ip daddr 10.0.0.2 udp dport 1417 drop").unwrap();
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    fri.wait_line_after(mark, &format!("{UP} 10.0.0.3"), 2 * SOON).unwrap();
}

/// Once everything else is blocked, look-ups fail.
#[test]
fn a_closed_full_tunnel_looks_all_names_up_before_it_closes() {
    let pair = pair();
    let server = NameServer::start(&pair);
    server.set("mon.tn", A, &["10.0.0.2"]);
    server.set("mon.tn", AAAA, &[]);
    pair.fri.run("ip route add default via 10.0.0.2").unwrap();
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    let remotes = "remote = ['10.0.0.77:1417', 'mon.tn:1417']";
    let closed = "[full-tunnel]\nfail = 'closed'\nlocal-networks = 'refuse'";
    let fri = pair.start_fri(&Toml::tun_fri().handshake().top(remotes).with(closed));
    fri.wait_line(UP, SOON).unwrap();
    assert!(!fri.text().contains("[no-address]"), "{}", fri.text());
}
