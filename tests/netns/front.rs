//! The peer's datagrams have their own socket, beside the one open to everyone.
//!
//! ```text
//!  fri 10.0.0.1, fd99::1 ---- 10.0.0.2, fd99::2 mon
//! ```

use std::net::{SocketAddr, UdpSocket};

use rustix::process::{Pid, Signal, kill_process};
use tund_lab::wait_until;

use super::ending::engine;
use super::support::*;

const MODES: [fn(Toml) -> Toml; 2] = [|toml| toml, Toml::handshake];

/// The remote ends of connected sockets.
fn connected(host: &tund_lab::Host) -> Vec<String> {
    let text = host.run("ss -Huan state established").unwrap();
    text.lines().filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect()
}

#[test]
fn a_peer_that_fits_has_a_socket_of_its_own_until_it_leaves() {
    for keys in MODES {
        for (remote, ends) in [
            ("10.0.0.2:1417", ["[::ffff:10.0.0.1]:1417", "[::ffff:10.0.0.2]:1417"]),
            ("[fd99::2]:1417", ["[fd99::1]:1417", "[fd99::2]:1417"]),
        ] {
            let pair = pair();
            let (mut fri, _mon) = pair
                .link(&keys(Toml::tun_fri().top(&format!("remote = '{remote}'"))), &keys(Toml::tun_mon()));
            let has = |host, peer: &str| connected(host) == [peer];
            wait_until("fri's socket", SOON, || has(&pair.fri, ends[1])).unwrap();
            wait_until("mon's socket", SOON, || has(&pair.mon, ends[0])).unwrap();
            assert_pings(&pair.fri, "192.168.86.18");
            assert_eq!(fri.terminate(SOON).unwrap(), 0);
            wait_until("no socket", SOON, || connected(&pair.mon).is_empty()).unwrap();
        }
    }
}

#[test]
fn a_peer_that_moves_has_one_for_its_new_address() {
    for keys in MODES {
        let pair = pair();
        let _link = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        for last in [3, 4] {
            pair.fri.run("ip -4 addr flush dev eth0").unwrap();
            pair.fri.run(&format!("ip addr add 10.0.0.{last}/24 dev eth0")).unwrap();
            let peer = format!("[::ffff:10.0.0.{last}]:1417");
            pair.fri
                .wait_output("ping -n -c 1 -W 1 192.168.86.18", SOON, |text| text.contains("1 received"))
                .unwrap();
            wait_until("the socket", SOON, || connected(&pair.mon) == [peer.as_str()]).unwrap();
            assert_pings(&pair.mon, "192.168.86.81");
        }
    }
}

#[test]
fn what_strangers_send_takes_no_room_from_the_peer() {
    for keys in MODES {
        let pair = pair();
        let (_fri, mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        wait_until("mon's socket", SOON, || !connected(&pair.mon).is_empty()).unwrap();
        let engine = Pid::from_raw(engine(&pair.mon, &mon).cast_signed()).unwrap();
        let stranger = pair.fri.within(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
        let drops = || {
            let text = pair.mon.proc_net("snmp").unwrap();
            let line =
                text.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap_or_default().to_owned();
            line.split_whitespace().nth(3).and_then(|count| count.parse::<u64>().ok()).unwrap()
        };
        kill_process(engine, Signal::STOP).unwrap();
        let before = drops();
        // Until its queue is full.
        let full = (0..200_000).any(|number| {
            stranger.send_to(&[7; 1400], "10.0.0.2:1417").unwrap();
            number % 100 == 99 && drops() > before + 100
        });
        let ping = pair.fri.spawn(&["ping", "-n", "-c", "20", "-i", "0.02", "-W", "10", "192.168.86.18"]);
        let mut ping = ping.unwrap();
        // Its questions wait in mon's socket.
        std::thread::sleep(std::time::Duration::from_secs(1));
        kill_process(engine, Signal::CONT).unwrap();
        assert!(full);
        assert_eq!(ping.code(SOON).unwrap(), 0);
        assert!(ping.text().contains("20 received"), "{}", ping.text());
    }
}

#[test]
fn nobody_else_may_bind_the_port() {
    let pair = pair();
    let _link = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    wait_until("mon's socket", SOON, || !connected(&pair.mon).is_empty()).unwrap();
    for address in ["10.0.0.2:1417", "0.0.0.0:1417", "127.0.0.1:1417", "[::]:1417", "[fd99::2]:1417"] {
        let address: SocketAddr = address.parse().unwrap();
        let bind = || {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())
        };
        let error = pair.mon.within(bind).unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{address}");
    }
}
