//! The UDP socket.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::net::sockopt;
use socket2::SockRef;
use tund::config::{Config, Listen, Remote};
use tund::core::lane::Transmit;
use tund::core::path::Path;
use tund::packet::layer::Mode;
use tund::transport::connected::{self, Port};
use tund::transport::udp::{Bound, Socket, bind};
use tund::transport::{Datagrams as _, Received};

use crate::namespace::{config, isolated, sh, unprivileged};

#[test]
fn one_socket_serves_both_families_and_shows_ipv4_as_ipv4() {
    isolated(|| {
        sh("sysctl -qw net.ipv6.bindv6only=1");
        let bound = bind(&listen(None, 1417, true)).unwrap();
        assert_eq!((bound.port, &bound.notes), (1417, &Vec::new()));
        let socket = Socket::from_fd(bound.fd).unwrap();
        for local in ["127.0.0.1", "[::1]"] {
            let peer = UdpSocket::bind(format!("{local}:0")).unwrap();
            let peer_address = peer.local_addr().unwrap();
            peer.send_to(b"hello", format!("{local}:1417")).unwrap();
            let mut buffer = [0; 64];
            let Received { length, from: path, .. } = socket.receive(&mut buffer).unwrap();
            assert_eq!((length, path.remote), (5, peer_address));
            socket.send(Transmit::one(b"answer", 0, path)).unwrap();
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from.port()), (&b"answer"[..], 1417));
        }
    });
}

#[test]
fn a_named_address_is_served_in_its_family_alone() {
    isolated(|| {
        for (listen_on, other) in [("127.0.0.1", "[::1]"), ("::1", "127.0.0.1")] {
            let bound = bind(&listen(Some(listen_on), 1417, true)).unwrap();
            let socket = Socket::from_fd(bound.fd).unwrap();
            let target = SocketAddr::new(listen_on.parse().unwrap(), 1417);
            let same = UdpSocket::bind(SocketAddr::new(listen_on.parse().unwrap(), 0)).unwrap();
            same.send_to(b"x", target).unwrap();
            assert_eq!(socket.receive(&mut [0; 8]).unwrap().from.remote, same.local_addr().unwrap());
            // The port is still free in the other family.
            UdpSocket::bind(format!("{other}:1417")).unwrap();
        }
        let _ipv6 = bind(&listen(Some("::"), 1417, true)).unwrap();
        UdpSocket::bind("0.0.0.0:1417").unwrap();
    });
}

#[test]
fn a_host_with_ipv6_turned_off_is_reached_over_ipv4() {
    isolated(|| {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let bound = bind(&listen(None, 1417, true)).unwrap();
        let socket = Socket::from_fd(bound.fd).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"x", "127.0.0.1:1417").unwrap();
        let Received { from, .. } = socket.receive(&mut [0; 8]).unwrap();
        socket.send(Transmit::one(b"y", 0, from)).unwrap();
        assert_eq!(peer.recv_from(&mut [0; 8]).unwrap().0, 1);
    });
}

#[test]
fn nothing_waiting_is_would_block_and_a_cut_datagram_is_an_error() {
    isolated(|| {
        let socket = Socket::from_fd(bind(&listen(None, 1417, true)).unwrap().fd).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(socket.receive(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"five!", "127.0.0.1:1417").unwrap();
        peer.send_to(b"four", "127.0.0.1:1417").unwrap();
        assert_eq!(socket.receive(&mut buffer).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(socket.receive(&mut buffer).unwrap().length, 4);
        peer.send_to(b"", "127.0.0.1:1417").unwrap();
        assert_eq!(socket.receive(&mut buffer).unwrap().length, 0);
    });
}

#[test]
fn datagrams_are_never_fragmented_in_either_family() {
    isolated(|| {
        sh("ip link set lo mtu 1400");
        let bound = bind(&listen(None, 1417, true)).unwrap();
        assert_eq!(sockopt::ip_mtu_discover(&bound.fd).unwrap(), sockopt::Ipv4PathMtuDiscovery::PROBE);
        assert_eq!(sockopt::ipv6_mtu_discover(&bound.fd).unwrap(), sockopt::Ipv6PathMtuDiscovery::PROBE);
        let socket = Socket::from_fd(bound.fd).unwrap();
        for (to, headers) in [("127.0.0.1:9", 28), ("[::1]:9", 48)] {
            let to: SocketAddr = to.parse().unwrap();
            socket.send(Transmit::one(&vec![0; 1400 - headers], 0, to.into())).unwrap();
            let error = socket.send(Transmit::one(&vec![0; 1401 - headers], 0, to.into())).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::MSGSIZE), "{to}");
        }
    });
}

#[test]
fn the_descriptor_does_not_block_and_is_not_inherited() {
    isolated(|| {
        let bound = bind(&listen(None, 0, true)).unwrap();
        assert!(fcntl_getfl(&bound.fd).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(&bound.fd).unwrap().contains(FdFlags::CLOEXEC));
        assert!(bound.port > 0);
    });
}

#[test]
fn a_taken_port_is_an_error_unless_it_may_move() {
    isolated(|| {
        for taken_on in ["0.0.0.0:1417", "[::]:1417"] {
            let _other = UdpSocket::bind(taken_on).unwrap();
            let explicit = bind(&with_remote(listen(None, 1417, true))).unwrap_err();
            assert_eq!(explicit.kind(), ErrorKind::AddrInUse);
            assert!(
                explicit.to_string().contains("UDP port 1417") && explicit.to_string().contains("listen")
            );
            let waiting = bind(&listen(None, 1417, false)).unwrap_err();
            assert_eq!(waiting.kind(), ErrorKind::AddrInUse, "an end that waits must be where it is sought");

            let Bound { fd: _, port, notes } = bind(&with_remote(listen(None, 1417, false))).unwrap();
            assert_ne!(port, 1417);
            let note = format!("another process uses UDP port 1417, so this end uses {port}");
            assert_eq!(notes, [note]);
        }
    });
}

#[test]
fn nobody_else_can_share_the_port() {
    isolated(|| {
        let _bound = bind(&listen(None, 1417, true)).unwrap();
        for address in ["127.0.0.1:1417", "[::1]:1417"] {
            let address: SocketAddr = address.parse().unwrap();
            let thief =
                socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)
                    .unwrap();
            thief.set_reuse_address(true).unwrap();
            thief.set_reuse_port(true).unwrap();
            assert_eq!(thief.bind(&address.into()).unwrap_err().kind(), ErrorKind::AddrInUse);
        }
    });
}

#[test]
fn an_address_of_another_host_is_named_in_the_error() {
    isolated(|| {
        let error = bind(&with_remote(listen(Some("192.0.2.1"), 1417, false))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    });
}

#[test]
fn mark_and_interface_are_set_and_a_missing_interface_is_named() {
    isolated(|| {
        let mut config = listen(None, 0, true);
        config.fwmark = Some(51);
        config.bind_device = Some("lo".to_owned());
        let socket = socket2::Socket::from(bind(&config).unwrap().fd);
        assert_eq!(socket.mark().unwrap(), 51);
        assert_eq!(socket.device().unwrap().as_deref(), Some(&b"lo"[..]));
        config.bind_device = Some("eth9".to_owned());
        let error = bind(&config).unwrap_err().to_string();
        assert!(error.contains("bind-device") && error.contains("eth9"), "{error}");
    });
}

#[test]
fn a_lane_may_have_a_port_of_its_own_and_has_the_options_of_the_link() {
    isolated(|| {
        for (listen_on, peer_on) in [
            (None, "127.0.0.1"),
            (None, "::1"),
            (Some("127.0.0.1"), "127.0.0.1"),
            (Some("127.0.0.7"), "127.0.0.1"),
            (Some("::1"), "::1"),
        ] {
            let mut config = listen(listen_on, 1417, true);
            config.fwmark = Some(51);
            config.bind_device = Some("lo".to_owned());
            let front = bind(&config).unwrap();
            let peer = UdpSocket::bind(SocketAddr::new(peer_on.parse().unwrap(), 0)).unwrap();
            let path = Path::from(peer.local_addr().unwrap());
            let lane = connected::open(front.fd.as_fd(), &config, Port::Own, path).unwrap();
            let shared = connected::open(front.fd.as_fd(), &config, Port::Shared, path).unwrap();
            let options = |socket: &OwnedFd| {
                let it = SockRef::from(socket);
                let room = sockopt::socket_recv_buffer_size(socket).unwrap();
                (
                    it.domain().unwrap(),
                    it.mark().unwrap(),
                    it.device().unwrap(),
                    it.nonblocking().unwrap(),
                    room,
                )
            };
            assert_eq!(options(&lane), options(&shared), "{listen_on:?}");
            assert_eq!(sockopt::ip_mtu_discover(&lane).unwrap(), sockopt::ip_mtu_discover(&shared).unwrap());
            assert!(!SockRef::from(&lane).reuse_port().unwrap());
            let lane = Socket::prepared(lane).unwrap();
            lane.send(Transmit::one(b"out", 0, path)).unwrap();
            let (_, from) = peer.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(
                (from.port() != 1417, from.ip()),
                (true, listen_on.unwrap_or(peer_on).parse().unwrap())
            );
            peer.send_to(b"in", from).unwrap();
            assert_eq!(lane.receive(&mut [0; 8]).unwrap().from.remote, path.remote);
            // No stranger is heard there.
            UdpSocket::bind(SocketAddr::new(peer_on.parse().unwrap(), 0))
                .unwrap()
                .send_to(b"x", from)
                .unwrap();
            assert_eq!(lane.receive(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn what_icmp_says_of_the_peer_fails_one_call_and_fills_no_queue() {
    isolated(|| {
        for peer_on in ["127.0.0.1", "::1"] {
            let config = listen(None, 1417, true);
            let front = bind(&config).unwrap();
            let peer = UdpSocket::bind(SocketAddr::new(peer_on.parse().unwrap(), 0)).unwrap();
            let path = Path::from(peer.local_addr().unwrap());
            let shared = connected::open(front.fd.as_fd(), &config, Port::Shared, path).unwrap();
            let [front, shared] = [Socket::from_fd(front.fd).unwrap(), Socket::prepared(shared).unwrap()];
            drop(peer);
            for _ in 0..9 {
                front.send(Transmit::one(b"out", 0, path)).unwrap();
            }
            assert_eq!(shared.receive(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            assert_eq!(shared.receive(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            for socket in [&front, &shared] {
                assert_eq!(socket.receive_error().unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        }
    });
}

#[test]
fn a_buffer_that_stays_small_is_noted_once_each_way() {
    isolated(|| {
        let mut config = listen(None, 0, true);
        config.tuning.socket_buffer = 1 << 30;
        let notes = unprivileged(|| bind(&config).unwrap().notes);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("receive") && notes[0].contains("net.core.rmem_max"), "{notes:?}");
        assert!(notes[1].contains("send") && notes[1].contains("net.core.wmem_max"), "{notes:?}");
    });
}

#[test]
fn a_low_port_without_the_capability_is_explained() {
    isolated(|| {
        let error = unprivileged(|| bind(&listen(None, 417, true)).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("1024"), "{error}");
    });
}

fn listen(address: Option<&str>, port: u16, explicit: bool) -> Config {
    let mut config = config(Mode::Tun);
    config.listen =
        Listen { address: address.map(|address| address.parse().unwrap()), port, explicit, stream: None };
    config
}

fn with_remote(mut config: Config) -> Config {
    config.remotes.push(Remote { host: "192.0.2.9".to_owned(), port: 1417, stream: false });
    config
}
