//! Ends that vanish and return.
//!
//! ```text
//!  fri 10.0.0.1 ==== wire ==== 10.0.0.2 mon
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
use rustix::process::Signal;

use super::support::*;

const QUICK: &str = "[keepalive]\ninterval = '1s'\ntimeout = '4s'";
/// Time in which a link must recover by itself.
const BACK: Duration = Duration::from_secs(20);

#[test]
fn a_killed_end_is_back_after_its_restart() {
    for keys in [|toml| toml, Toml::handshake] {
        kill_and_restart(keys);
    }
}

fn kill_and_restart(keys: fn(Toml) -> Toml) {
    let pair = pair();
    let (fri, mut mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
    for _ in 0..2 {
        mon.kill();
        wait_gone(&pair.mon);
        mon = pair.start_mon(&keys(Toml::tun_mon()));
        pair.fri
            .wait_output("ping -n -c 1 -W 1 192.168.86.18", BACK, |text| text.contains("1 received"))
            .unwrap_or_else(|error| panic!("{error}\nfri:\n{}\nmon:\n{}", fri.text(), mon.text()));
    }
    drop(fri);
}

#[test]
fn the_end_with_the_remote_is_back_after_its_restart() {
    for keys in [|toml| toml, Toml::handshake as fn(Toml) -> Toml] {
        let pair = pair();
        let (mut fri, _mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        fri.kill();
        wait_gone(&pair.fri);
        let fri = pair.start_fri(&keys(Toml::tun_fri()));
        fri.wait_line(UP, BACK).unwrap();
        assert_pings(&pair.mon, "192.168.86.81");
    }
}

#[test]
fn what_is_sent_on_the_word_that_the_link_is_up_arrives() {
    for keys in [|toml| toml, Toml::handshake as fn(Toml) -> Toml] {
        let pair = pair();
        let ends = [(&pair.fri, "192.168.86.18:4242"), (&pair.mon, "192.168.86.81:4242")];
        let sockets = ends.map(|(host, _)| {
            let socket = host.within(|| UdpSocket::bind("0.0.0.0:4242").unwrap()).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket
        });
        let mon = pair.start_mon(&keys(Toml::tun_mon()));
        for round in 0..8_u8 {
            let mark = mon.mark();
            let mut fri = pair.start_fri(&keys(Toml::tun_fri()));
            let told = [(&fri, 0), (&mon, mark)];
            std::thread::scope(|scope| {
                for ((socket, (_, to)), (process, mark)) in sockets.iter().zip(ends).zip(told) {
                    scope.spawn(move || {
                        process.wait_line_after(mark, UP, SOON).unwrap();
                        socket.send_to(&[round], to).unwrap();
                    });
                }
            });
            for socket in &sockets {
                let mut byte = [0];
                let received = socket.recv(&mut byte);
                assert!(received.is_ok() && byte == [round], "fri:\n{}\nmon:\n{}", fri.text(), mon.text());
            }
            assert_eq!(fri.terminate(SOON).unwrap(), 0);
        }
    }
}

#[test]
fn a_cut_wire_is_said_and_mends_by_itself() {
    let (wire, pair) = wired();
    let (fri, mon) = pair.link(&Toml::tun_fri().with(QUICK), &Toml::tun_mon().with(QUICK));
    let marks = [fri.mark(), mon.mark()];
    wire.set_filter(|_| Vec::new());
    fri.wait_line_after(marks[0], "down", SOON).unwrap();
    mon.wait_line_after(marks[1], "down", SOON).unwrap();
    let marks = [fri.mark(), mon.mark()];
    wire.clear_filter();
    fri.wait_line_after(marks[0], UP, BACK).unwrap();
    mon.wait_line_after(marks[1], UP, BACK).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn verb_5_prints_datagrams_and_frames() {
    let pair = pair();
    let config = |toml: Toml| toml.with("[run]\nverb = 5");
    let (fri, mon) = pair.link(&config(Toml::tun_fri()), &config(Toml::tun_mon()));
    assert_pings(&pair.fri, "192.168.86.18");
    let marks = |process: &tund_lab::Process, mark: char| {
        let is_run = |word: &str| {
            word.strip_prefix(mark).is_some_and(|rest| rest.chars().all(|c| c == '×' || c.is_ascii_digit()))
        };
        process.lines().iter().any(|line| line.split_whitespace().any(is_run))
    };
    for mark in ['R', 'W', 'r', 'w'] {
        for process in [&fri, &mon] {
            tund_lab::wait_until(&format!("a run of {mark}"), SOON, || marks(process, mark)).unwrap();
        }
    }
}

#[test]
fn usr2_puts_the_statistics_into_the_log() {
    let pair = pair();
    let (fri, _mon) = pair.link(&Toml::tun_fri(), &Toml::tun_mon());
    let mark = fri.mark();
    fri.signal(Signal::USR2).unwrap();
    fri.wait_line_after(mark, "dropped", SOON).unwrap();
}

#[test]
fn a_machine_that_was_cloned_replaces_its_keys() {
    for keys in [|toml| toml, Toml::handshake as fn(Toml) -> Toml] {
        let pair = pair();
        let (fri, mon) = pair.link(&keys(Toml::tun_fri()), &keys(Toml::tun_mon()));
        for (host, process) in [(&pair.fri, &fri), (&pair.mon, &mon)] {
            // As the kernel reports after a hypervisor restored a snapshot.
            host.within(tell_new_generation).unwrap();
            process.wait_line("[resumed]", SOON).unwrap();
            pair.fri
                .wait_output("ping -n -c 1 -W 1 192.168.86.18", BACK, |text| text.contains("1 received"))
                .unwrap_or_else(|error| panic!("{error}\nfri:\n{}\nmon:\n{}", fri.text(), mon.text()));
            assert_pings(&pair.fri, "192.168.86.18");
        }
        assert!(!fri.text().contains(DOWN) && !mon.text().contains(DOWN));
    }
}

/// Makes the kernel report to this network namespace what it does after a hypervisor restored a snapshot.
fn tell_new_generation() {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(KOBJECT_UEVENT)).unwrap();
    let event = b"change@/devices/vmgenid\0ACTION=change\0NEW_VMGENID=1\0";
    // struct nlmsghdr: length, the lowest type that is not a control message, NLM_F_REQUEST, sequence, port.
    let mut message = u32::try_from(16 + event.len()).unwrap().to_ne_bytes().to_vec();
    message.extend([16u16, 1].map(u16::to_ne_bytes).concat());
    message.extend([0; 8]);
    message.extend(event);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).unwrap();
}
